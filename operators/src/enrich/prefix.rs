//! The `ip_prefix` column: which addresses a row speaks for (SEMANTICS "IP geography").
//!
//! A dotted prefix of 1 to 4 decimal parts (final dot allowed), an address, or a CIDR whose host bits are ignored.
//! Refuses a part above 255 or with a leading zero, a length that is too long or oddly written, and every space.

use super::parse_address;
use std::net::IpAddr;

/// A block of addresses of one family, with `length` leading bits in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Prefix {
    V4 { bits: u32, length: u8 },
    V6 { bits: u128, length: u8 },
}

impl Prefix {
    /// The prefix that `text` spells; host bits are zero.
    pub(super) fn parse(text: &str) -> Option<Prefix> {
        if let Some((address, length)) = text.split_once('/') {
            let mapped = address.contains(':');
            return Prefix::cidr(parse_address(address)?, number(length)?, mapped);
        }
        match parse_address(text) {
            Some(IpAddr::V4(address)) => Some(Prefix::v4(address.to_bits(), 32)),
            Some(IpAddr::V6(address)) => Some(Prefix::v6(address.to_bits(), 128)),
            None => Prefix::dotted(text),
        }
    }

    /// The first and the last address of an IPv4 prefix.
    pub(super) fn range_v4(bits: u32, length: u8) -> (u32, u32) {
        (bits, bits | u32::MAX.checked_shr(u32::from(length)).unwrap_or(0))
    }

    /// The first and the last address of an IPv6 prefix.
    pub(super) fn range_v6(bits: u128, length: u8) -> (u128, u128) {
        (bits, bits | u128::MAX.checked_shr(u32::from(length)).unwrap_or(0))
    }

    fn v4(bits: u32, length: u8) -> Prefix {
        Prefix::V4 { bits: bits & !u32::MAX.checked_shr(u32::from(length)).unwrap_or(0), length }
    }

    fn v6(bits: u128, length: u8) -> Prefix {
        Prefix::V6 { bits: bits & !u128::MAX.checked_shr(u32::from(length)).unwrap_or(0), length }
    }

    /// `spelt_v6`: the address was written as IPv6, so its length counts from the 128th bit even if it is IPv4-mapped.
    fn cidr(address: IpAddr, length: u8, spelt_v6: bool) -> Option<Prefix> {
        const MAPPED: u8 = 96;
        match address {
            IpAddr::V4(address) if !spelt_v6 => (length <= 32).then(|| Prefix::v4(address.to_bits(), length)),
            IpAddr::V4(address) if (MAPPED..=128).contains(&length) => {
                Some(Prefix::v4(address.to_bits(), length - MAPPED))
            }
            // Shorter than the mapped block itself: the row is about IPv6, of which IPv4 is no part.
            IpAddr::V4(address) => (length < MAPPED).then(|| Prefix::v6(address.to_ipv6_mapped().to_bits(), length)),
            IpAddr::V6(address) => (length <= 128).then(|| Prefix::v6(address.to_bits(), length)),
        }
    }

    fn dotted(text: &str) -> Option<Prefix> {
        let (mut bits, mut parts) = (0, 0);
        for part in text.strip_suffix('.').unwrap_or(text).split('.') {
            if parts == 4 {
                return None;
            }
            bits = bits << 8 | u32::from(number(part)?);
            parts += 1;
        }
        Some(Prefix::v4(bits << (8 * (4 - parts)), 8 * parts as u8))
    }
}

/// A decimal number of 0 to 255 without sign or leading zero.
fn number(text: &str) -> Option<u8> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text.len() == 1 || !text.starts_with('0'));
    plain.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<(&str, u8)>) {
        let expected = expected.map(|(address, length)| match address.parse().unwrap() {
            IpAddr::V4(a) => Prefix::V4 { bits: a.to_bits(), length },
            IpAddr::V6(a) => Prefix::V6 { bits: a.to_bits(), length },
        });
        assert_eq!(Prefix::parse(text), expected, "'{text}'");
    }

    #[test]
    fn spellings_of_a_prefix() {
        check("10", Some(("10.0.0.0", 8)));
        check("10.", Some(("10.0.0.0", 8)));
        check("203.0", Some(("203.0.0.0", 16)));
        check("203.0.113.", Some(("203.0.113.0", 24)));
        check("203.0.113.7", Some(("203.0.113.7", 32)));
        check("203.0.113.7.", Some(("203.0.113.7", 32)));
        check("10.9.8.7/8", Some(("10.0.0.0", 8)));
        check("10.9.8.7/0", Some(("0.0.0.0", 0)));
        check("10.9.8.7/32", Some(("10.9.8.7", 32)));
        check("2001:db8::7", Some(("2001:db8::7", 128)));
        check("2001:db8::7/32", Some(("2001:db8::", 32)));
        check("::/0", Some(("::", 0)));
        check("::ffff:10.9.8.7", Some(("10.9.8.7", 32)));
        check("::ffff:10.9.8.7/104", Some(("10.0.0.0", 8)));
        check("::ffff:10.9.8.7/96", Some(("0.0.0.0", 0)));
        check("::ffff:10.9.8.7/80", Some(("::", 80)));
    }

    #[test]
    fn what_is_no_prefix() {
        for text in [
            "",
            ".",
            "..",
            "10..",
            ".10",
            "300.1",
            "10.01",
            "1.2.3.4.5",
            "abc",
            " 10",
            "10 ",
            "+10",
            "10/8",
            "10.0/16",
            "10.0.0.0./8",
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0.0/08",
            "10.0.0.0/+8",
            "10.0.0.0/255.0.0.0",
            "::/129",
            "::ffff:10.0.0.0/129",
            "fe80::1%eth0/64",
            "2001:db8:",
        ] {
            check(text, None);
        }
    }
}
