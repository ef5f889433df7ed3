//! The text form of an address, strictly (SEMANTICS "IP geography").
//!
//! Owns what counts as an address: IPv4 as four decimal parts, IPv6 in any of its spellings. An IPv4-mapped IPv6
//! address is the IPv4 address. Refuses a zone id, any space, and a leading zero in a decimal part.

use std::net::IpAddr;

/// The address that `text` spells, in canonical form; `None` when it spells none.
///
/// ```
/// use dataflow_operators::enrich::parse_address;
/// assert_eq!(parse_address("::ffff:203.0.113.7"), parse_address("203.0.113.7"));
/// assert_eq!(parse_address("2001:DB8::5"), parse_address("2001:db8:0:0::0005"));
/// assert_eq!(parse_address("203.0.113.07"), None);
/// ```
pub fn parse_address(text: &str) -> Option<IpAddr> {
    // The standard library's parser is the strict grammar (RFC 6943 section 3.1.1, RFC 4291 section 2.2) and knows no zone ids.
    text.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<&str>) {
        assert_eq!(parse_address(text).map(|a| a.to_string()).as_deref(), expected, "'{text}'");
    }

    #[test]
    fn spellings_of_an_address() {
        check("203.0.113.7", Some("203.0.113.7"));
        check("0.0.0.0", Some("0.0.0.0"));
        check("::", Some("::"));
        check("2001:0DB8:0001:0002:0000:0000:0000:0007", Some("2001:db8:1:2::7"));
        check("2001:db8::203.0.113.7", Some("2001:db8::cb00:7107"));
        check("::ffff:203.0.113.7", Some("203.0.113.7"));
        check("::FFFF:cb00:7107", Some("203.0.113.7"));
        check("0:0:0:0:0:ffff:203.0.113.7", Some("203.0.113.7"));
        // IPv4-compatible (deprecated) and translated addresses are not IPv4-mapped.
        check("::203.0.113.7", Some("::cb00:7107"));
        check("::ffff:0:203.0.113.7", Some("::ffff:0:cb00:7107"));
    }

    #[test]
    fn what_is_no_address() {
        for text in [
            "",
            "unknown",
            "1.2.3",
            "1.2.3.4.5",
            "1.2.3.256",
            "01.2.3.4",
            "1.2.3.00",
            "1.2.3.4 ",
            " 1.2.3.4",
            "1.2.3.4\n",
            "0x1.2.3.4",
            "1.2.3.+4",
            "1.2.3.4/32",
            "16909060",
            "fe80::1%eth0",
            "fe80::1%1",
            "[::1]",
            ":::",
            "::zz",
            "1::2::3",
            "1:2:3:4:5:6:7",
            "1:2:3:4:5:6:7:8:9",
            "::12345",
            "::ffff:1.2.3.04",
            " ::1",
            "١.٢.٣.٤",
        ] {
            check(text, None);
        }
    }
}
