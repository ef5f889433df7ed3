//! The table against a scan of all rows that shares none of its code, and the edges of its file format.

use super::*;
use proptest::prelude::*;
use std::net::{Ipv4Addr, Ipv6Addr};

/// A row of a generated table: `bits` holds an IPv4 address in its upper 32 bits.
#[derive(Clone, Debug)]
struct Row {
    v6: bool,
    bits: u128,
    length: u8,
    spelling: u8,
}

impl Row {
    fn width(&self) -> u8 {
        if self.v6 { 128 } else { 32 }
    }

    fn address(&self) -> IpAddr {
        if self.v6 {
            Ipv6Addr::from_bits(self.bits).into()
        } else {
            Ipv4Addr::from_bits((self.bits >> 96) as u32).into()
        }
    }

    fn text(&self) -> String {
        match (self.address(), self.length) {
            (IpAddr::V4(a), length) if length % 8 == 0 && length > 0 && self.spelling == 0 => {
                let parts: Vec<String> = a.octets()[..usize::from(length / 8)].iter().map(u8::to_string).collect();
                parts.join(".") + if length == 32 { "" } else { "." }
            }
            (IpAddr::V4(a), length) if self.spelling == 1 => format!("::ffff:{a}/{}", length + 96),
            (a, length) if length == self.width() && self.spelling == 2 => a.to_string(),
            (a, length) => format!("{a}/{length}"),
        }
    }

    fn holds(&self, address: IpAddr) -> bool {
        let (v6, bits) = match address {
            IpAddr::V4(a) => (false, u128::from(a.to_bits()) << 96),
            IpAddr::V6(a) => (true, a.to_bits()),
        };
        v6 == self.v6 && (0..self.length).all(|bit| (bits ^ self.bits) >> (127 - bit) & 1 == 0)
    }
}

/// Rows that nest and collide often: few distinct bits, at both ends of the address.
fn rows() -> impl Strategy<Value = Vec<Row>> {
    let row = (any::<bool>(), 0u8..16, 0u8..4, 0u8..=128, 0u8..3).prop_map(|(v6, high, low, length, spelling)| {
        // ::ffff:0:0/96 is IPv4; the high bits keep IPv6 rows out of it.
        let low_shift = if v6 { 0 } else { 96 };
        let bits = u128::from(high % 4) << 126 | u128::from(high / 4) << 120 | 1 << 119 | u128::from(low) << low_shift;
        Row { v6, bits, length: if v6 { length } else { length % 33 }, spelling }
    });
    prop::collection::vec(row, 0..24)
}

proptest! {
    #[test]
    fn longest_prefix_as_a_linear_scan_finds_it(rows in rows(), flips in prop::collection::vec(0u8..128, 0..3)) {
        let mut csv = String::from("ip_prefix,country,city\n");
        for (rank, row) in rows.iter().enumerate() {
            csv += &format!("{},C{rank},\n", row.text());
        }
        let table = IpTable::parse(csv.as_bytes()).unwrap();
        prop_assert_eq!(table.bad_count(), 0, "{:?}", table.bad_rows());
        for row in &rows {
            let all_ones = u128::MAX.checked_shr(u32::from(row.length)).unwrap_or(0);
            let flipped = flips.iter().fold(row.bits, |bits, flip| bits ^ 1 << flip);
            let first = row.bits & !all_ones;
            for bits in [row.bits, first, row.bits | all_ones, flipped, first.wrapping_sub(1), (row.bits | all_ones).wrapping_add(1)] {
                let address = Row { bits, ..row.clone() }.address().to_canonical();
                let best = rows.iter().enumerate().filter(|(_, row)| row.holds(address));
                let best = best.max_by_key(|(rank, row)| (row.length, *rank)).map(|(rank, _)| format!("C{rank}"));
                prop_assert_eq!(table.lookup(address).and_then(|p| p.country.as_deref()), best.as_deref(), "{}", address);
            }
        }
    }
}

fn check(csv: &str, address: &str, expected: Option<Place>) {
    let table = IpTable::parse(csv.as_bytes()).unwrap();
    let (_, place) = table.locate(address);
    assert_eq!(place.as_deref(), expected.as_ref(), "{address} in\n{csv}");
}

fn place(country: &str, city: &str, position: Option<(f64, f64)>) -> Option<Place> {
    let word = |text: &str| Some(text).filter(|text| !text.is_empty()).map(Arc::from);
    Some(Place { country: word(country), city: word(city), position })
}

#[test]
fn empty_is_null_and_a_position_is_whole() {
    let csv = "ip_prefix,country,city,lat,lon\n\
        1,AA,Aton,-90,180\n2,,Nowhere,90.1,0\n3,CC,,0,-180.000001\n4,DD,\"D, \"\"ton\"\"\",1,\n5,EE,E,NaN,1\n6,FF\n7,,,,\n8,HH,H, 1,1\n";
    check(csv, "1.0.0.1", place("AA", "Aton", Some((-90.0, 180.0))));
    check(csv, "2.0.0.1", place("", "Nowhere", None));
    check(csv, "3.0.0.1", place("CC", "", None));
    check(csv, "4.0.0.1", place("DD", "D, \"ton\"", None));
    check(csv, "5.0.0.1", place("EE", "E", None));
    check(csv, "6.0.0.1", place("FF", "", None));
    check(csv, "7.0.0.1", Some(Place::default()));
    check(csv, "8.0.0.1", place("HH", "H", None));
    check(csv, "9.0.0.1", None);
    check(csv, "1.0.0.01", None);
}

#[test]
fn the_hand_case() {
    let csv = "ip_prefix,country,city,lat,lon\n203.0,AU,Sydney,,\n203.0.113,AU,Melbourne,,\n203.0.113.64/26,NZ,Auckland,,\n\
        203.0.113.64/26,NZ,Wellington,,\n2001:db8::/32,SE,,,\n2001:db8:1::/48,NO,Oslo,,\n10.9.8.7/8,XA,Ten,,\n\
        102.64.0.0/10,,Nowhere,,\n300.1,XX,Bad,,\n10.0.0.0/33,XX,Bad,,\n";
    for (address, country, city) in [
        ("203.0.112.255", "AU", "Sydney"),
        ("203.0.113.63", "AU", "Melbourne"),
        ("203.0.113.64", "NZ", "Wellington"),
        ("203.0.113.127", "NZ", "Wellington"),
        ("203.0.113.128", "AU", "Melbourne"),
        ("2001:DB8:1::5", "NO", "Oslo"),
        ("2001:db8:2::5", "SE", ""),
        ("::ffff:203.0.113.70", "NZ", "Wellington"),
        ("10.200.0.1", "XA", "Ten"),
        ("102.70.0.1", "", "Nowhere"),
    ] {
        check(csv, address, place(country, city, None));
    }
    for address in ["203.1.0.0", "", "203.0.113.064", " 203.0.113.64"] {
        check(csv, address, None);
    }
    let table = IpTable::parse(csv.as_bytes()).unwrap();
    assert_eq!((table.prefixes(), table.bad_count()), (7, 2));
    let bad = |line, prefix: &str| BadRow { line, prefix: prefix.to_owned() };
    assert_eq!(table.bad_rows(), [bad(10, "300.1"), bad(11, "10.0.0.0/33")]);
}

#[test]
fn the_file_itself() {
    check("\u{feff}ip_prefix,country,city\r\n1,AA,Aton\r\n\r\n", "1.2.3.4", place("AA", "Aton", None));
    check("city,ip_prefix,note,country\nAton,1,x,AA\n", "1.2.3.4", place("AA", "Aton", None));
    for header in ["", "ip_prefix,country\n", "ip,country,city\n", "ip_prefix,country,city,lat\n"] {
        let error = IpTable::parse(header.as_bytes()).unwrap_err();
        assert_eq!(error.fault, dataflow_core::Fault::User, "{error}");
    }
    let not_utf8 = IpTable::parse(b"ip_prefix,country,city\n1,AA,\xff\n2,BB,B\n").unwrap();
    assert_eq!((not_utf8.prefixes(), not_utf8.bad_count(), not_utf8.bad_rows()[0].line), (1, 1, 2));
    let many = format!("ip_prefix,country,city\n{}", "x,,\n".repeat(BAD_ROWS_SHOWN + 3));
    let many = IpTable::parse(many.as_bytes()).unwrap();
    assert_eq!((many.bad_count(), many.bad_rows().len()), (BAD_ROWS_SHOWN as u64 + 3, BAD_ROWS_SHOWN));
    assert_ne!(not_utf8.hash(), many.hash());
    assert_eq!(many.hash(), many.clone().hash());
}
