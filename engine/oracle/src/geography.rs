//! The IP geography: which country, city and position an address has. Longest prefix, of equals the last row.
//!
//! Every prefix is kept by family, length and leading bits; a look-up tries all lengths from the longest. Bad
//! prefixes are skipped, as the rules have it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

/// What is known of an address.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Place {
    pub(crate) country: Option<String>,
    pub(crate) city: Option<String>,
    /// Latitude and longitude in degrees: both or none.
    pub(crate) position: Option<(f64, f64)>,
}

/// The leading `length` bits of an address of `width` bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Prefix {
    width: u32,
    length: u32,
    bits: u128,
}

pub(crate) struct Geography {
    places: BTreeMap<Prefix, Place>,
}

impl Geography {
    /// From CSV text with the header `ip_prefix,country,city[,lat,lon]`.
    pub(crate) fn parse(text: &str) -> Result<Geography, String> {
        let mut rows = csv(text).into_iter();
        let mut places = BTreeMap::new();
        // An empty text is a table without rows.
        let header = rows.next().unwrap_or_else(|| vec!["ip_prefix".into(), "country".into(), "city".into()]);
        if header != ["ip_prefix", "country", "city"] && header != ["ip_prefix", "country", "city", "lat", "lon"] {
            return Err(format!("cannot read the IP geography: unknown header '{}'", header.join(",")));
        }
        for row in rows {
            let field = |n: usize| row.get(n).filter(|text| !text.is_empty()).cloned();
            let degrees = |n: usize, most: f64| {
                field(n).and_then(|text| text.parse::<f64>().ok()).filter(|d| (-most..=most).contains(d))
            };
            if let Some(prefix) = parse_prefix(&row[0]) {
                let position = degrees(3, 90.0).zip(degrees(4, 180.0));
                places.insert(prefix, Place { country: field(1), city: field(2), position });
            }
        }
        Ok(Geography { places })
    }

    /// The place of an address; of none, nothing is known.
    pub(crate) fn lookup(&self, address: Option<IpAddr>) -> Place {
        let Some(address) = address else { return Place::default() };
        let (width, _) = bits_of(address);
        let longest = (0..=width).rev().find_map(|length| self.places.get(&prefix(address, length)));
        longest.cloned().unwrap_or_default()
    }
}

/// The address that a text is: IPv4-mapped IPv6 is IPv4; a zone id, space or leading zero is no address.
pub(crate) fn parse_address(text: &str) -> Option<IpAddr> {
    text.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

/// A dotted prefix of 1-4 parts (final dot allowed), an address, or CIDR (host bits ignored).
fn parse_prefix(text: &str) -> Option<Prefix> {
    if let Some((address, length)) = text.split_once('/') {
        let address: IpAddr = address.parse().ok()?;
        let length = parse_number(length)?;
        let (width, _) = bits_of(address);
        return match address.to_canonical() {
            _ if length > width => None,
            // ::ffff:203.0.113.0/120 is 203.0.113.0/24. A shorter one holds more than the mapped addresses.
            IpAddr::V4(v4) if width == 128 && length >= 96 => Some(prefix(IpAddr::V4(v4), length - 96)),
            _ => Some(prefix(address, length)),
        };
    }
    if let Some(address) = parse_address(text) {
        let (width, _) = bits_of(address);
        return Some(prefix(address, width));
    }
    let parts: Vec<&str> = text.strip_suffix('.').unwrap_or(text).split('.').collect();
    let mut octets = [0; 4];
    if parts.len() > octets.len() {
        return None;
    }
    for (octet, part) in octets.iter_mut().zip(&parts) {
        *octet = parse_number(part).and_then(|n| u8::try_from(n).ok())?;
    }
    Some(prefix(IpAddr::V4(Ipv4Addr::from(octets)), 8 * parts.len() as u32))
}

/// Decimal digits without a leading zero.
fn parse_number(text: &str) -> Option<u32> {
    let plain = text.bytes().all(|c| c.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

fn bits_of(address: IpAddr) -> (u32, u128) {
    match address {
        IpAddr::V4(v4) => (32, u128::from(v4.to_bits())),
        IpAddr::V6(v6) => (128, v6.to_bits()),
    }
}

fn prefix(address: IpAddr, length: u32) -> Prefix {
    let (width, bits) = bits_of(address);
    Prefix { width, length, bits: bits.checked_shr(width - length).unwrap_or(0) }
}

/// The rows of a CSV text (RFC 4180: quoted fields, doubled quotes, CR LF); empty lines are left out.
fn csv(text: &str) -> Vec<Vec<String>> {
    let (mut rows, mut row, mut field) = (Vec::new(), Vec::new(), String::new());
    let mut quoted = false;
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                field.push('"');
            }
            '"' if quoted || field.is_empty() => quoted = !quoted,
            ',' if !quoted => row.push(std::mem::take(&mut field)),
            '\r' if !quoted && characters.peek() == Some(&'\n') => {}
            '\n' if !quoted => {
                row.push(std::mem::take(&mut field));
                rows.push(std::mem::take(&mut row));
            }
            c => field.push(c),
        }
    }
    row.push(field);
    rows.push(row);
    rows.retain(|row| row.len() > 1 || !row[0].is_empty());
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(table: &str, expected: &[(&str, Option<&str>)]) {
        let geography = Geography::parse(&format!("ip_prefix,country,city,lat,lon\n{table}")).unwrap();
        for (ip, country) in expected {
            assert_eq!(geography.lookup(parse_address(ip)).country.as_deref(), *country, "{ip}");
        }
    }

    #[test]
    fn mapped_addresses_are_ipv4() {
        check(
            "::ffff:203.0.113.0/120,A,\n::/0,B,\n::ffff:1.2.3.4,C,\n",
            &[
                ("203.0.113.9", Some("A")),
                ("::ffff:203.0.113.9", Some("A")),
                ("203.0.112.9", None),
                ("::1", Some("B")),
                ("1.2.3.4", Some("C")),
            ],
        );
    }

    #[test]
    fn prefixes_that_are_none_are_skipped() {
        check(
            "1.02,A,\n1.2/16,A,\n1.2.0.0/016,A,\n1.2.0.0/+16,A,\n1..2,A,\n.,A,\n,A,\n 1.2,A,\n",
            &[("1.2.3.4", None)],
        );
        check(
            "0.0.0.0/0,A,\n9.,B,\n9.9.9.9.,C,\n",
            &[("1.2.3.4", Some("A")), ("9.1.1.1", Some("B")), ("9.9.9.9", Some("C"))],
        );
    }

    #[test]
    fn addresses_that_are_none() {
        for text in ["", "1.2.3", "1.2.3.04", " 1.2.3.4", "fe80::1%eth0", "1.2.3.4/32", "[::1]", "12345::"] {
            assert_eq!(parse_address(text), None, "{text}");
        }
    }

    #[test]
    fn quoted_fields() {
        let rows = csv("a,\"b, \"\"c\"\"\",\r\n\n\"d\ne\",f");
        assert_eq!(rows, [vec!["a", "b, \"c\"", ""], vec!["d\ne", "f"]]);
    }
}
