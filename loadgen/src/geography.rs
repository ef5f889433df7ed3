//! The made-up world of the traffic: which prefix lies in which city.
//!
//! Cities are real, addresses are not: all lie in ranges that are nobody's (198.18.0.0/15 for benchmarks, the documentation
//! ranges 192.0.2.0/24, 198.51.100.0/24, 203.0.113.0/24 and 2001:db8::/32), so no line speaks of a person. Each city has
//! three IPv4 prefixes, written in different ways, and one of IPv6; a nested prefix, rows without city or position and
//! a broken one come on top, because real tables have them. 192.0.2.0/24 is in no row: what comes from there is unresolved.

use crate::dice::Dice;

/// A city of the table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct City {
    /// ISO 3166 code.
    pub country: &'static str,
    /// Name.
    pub name: &'static str,
    /// Degrees.
    pub lat: f64,
    /// Degrees.
    pub lon: f64,
    /// Share of the users that live there.
    pub weight: u32,
}

const fn city(country: &'static str, name: &'static str, lat: f64, lon: f64, weight: u32) -> City {
    City { country, name, lat, lon, weight }
}

/// All cities. Their order fixes their prefixes.
pub const CITIES: [City; 49] = [
    city("US", "New York", 40.7128, -74.0060, 9),
    city("US", "Los Angeles", 34.0522, -118.2437, 7),
    city("US", "Chicago", 41.8781, -87.6298, 5),
    city("US", "Houston", 29.7604, -95.3698, 4),
    city("US", "Seattle", 47.6062, -122.3321, 3),
    city("CA", "Toronto", 43.6532, -79.3832, 4),
    city("CA", "Vancouver", 49.2827, -123.1207, 2),
    city("MX", "Mexico City", 19.4326, -99.1332, 4),
    city("BR", "São Paulo", -23.5505, -46.6333, 6),
    city("BR", "Rio de Janeiro", -22.9068, -43.1729, 3),
    city("AR", "Buenos Aires", -34.6037, -58.3816, 3),
    city("CL", "Santiago", -33.4489, -70.6693, 2),
    city("CO", "Bogotá", 4.7110, -74.0721, 2),
    city("GB", "London", 51.5074, -0.1278, 8),
    city("GB", "Manchester", 53.4808, -2.2426, 3),
    city("IE", "Dublin", 53.3498, -6.2603, 2),
    city("FR", "Paris", 48.8566, 2.3522, 6),
    city("FR", "Lyon", 45.7640, 4.8357, 2),
    city("DE", "Berlin", 52.5200, 13.4050, 5),
    city("DE", "Munich", 48.1351, 11.5820, 4),
    city("DE", "Hamburg", 53.5511, 9.9937, 3),
    city("NL", "Amsterdam", 52.3676, 4.9041, 3),
    city("BE", "Brussels", 50.8503, 4.3517, 2),
    city("CH", "Zürich", 47.3769, 8.5417, 2),
    city("AT", "Vienna", 48.2082, 16.3738, 2),
    city("IT", "Milan", 45.4642, 9.1900, 3),
    city("IT", "Rome", 41.9028, 12.4964, 3),
    city("ES", "Madrid", 40.4168, -3.7038, 4),
    city("ES", "Barcelona", 41.3874, 2.1686, 3),
    city("PT", "Lisbon", 38.7223, -9.1393, 2),
    city("PL", "Warsaw", 52.2297, 21.0122, 3),
    city("CZ", "Prague", 50.0755, 14.4378, 2),
    city("SE", "Stockholm", 59.3293, 18.0686, 2),
    city("NO", "Oslo", 59.9139, 10.7522, 1),
    city("FI", "Helsinki", 60.1699, 24.9384, 1),
    city("TR", "Istanbul", 41.0082, 28.9784, 4),
    city("EG", "Cairo", 30.0444, 31.2357, 3),
    city("NG", "Lagos", 6.5244, 3.3792, 3),
    city("ZA", "Johannesburg", -26.2041, 28.0473, 2),
    city("AE", "Dubai", 25.2048, 55.2708, 2),
    city("IN", "Mumbai", 19.0760, 72.8777, 7),
    city("IN", "Bengaluru", 12.9716, 77.5946, 5),
    city("SG", "Singapore", 1.3521, 103.8198, 3),
    city("TH", "Bangkok", 13.7563, 100.5018, 2),
    city("JP", "Tokyo", 35.6762, 139.6503, 6),
    city("JP", "Osaka", 34.6937, 135.5023, 3),
    city("KR", "Seoul", 37.5665, 126.9780, 4),
    city("AU", "Sydney", -33.8688, 151.2093, 4),
    city("NZ", "Auckland", -36.8485, 174.7633, 1),
];

/// IPv4 /24 prefixes of a city.
const PREFIXES: u64 = 3;

/// An index into [`CITIES`].
pub(crate) type CityId = usize;

/// A city, by the share of users that live there.
pub(crate) fn home(dice: &mut Dice) -> CityId {
    let total: u64 = CITIES.iter().map(|c| u64::from(c.weight)).sum();
    let mut at = dice.below(total);
    CITIES
        .iter()
        .position(|city| {
            let here = at < u64::from(city.weight);
            at = at.wrapping_sub(u64::from(city.weight));
            here
        })
        .unwrap_or(0)
}

/// A city that cannot be reached from `from` within an hour or two, in another country.
pub(crate) fn far_from(from: CityId, dice: &mut Dice) -> CityId {
    loop {
        let to = dice.below(CITIES.len() as u64) as usize;
        let (a, b) = (CITIES[from], CITIES[to]);
        // 40 degrees of latitude and longitude together are over 2,000 km at these cities' latitudes.
        if a.country != b.country && (a.lat - b.lat).abs() + (a.lon - b.lon).abs() > 40.0 {
            return to;
        }
    }
}

/// An address in a city: one in eight of IPv6.
pub(crate) fn address(city: CityId, dice: &mut Dice) -> String {
    if dice.below(8) == 0 {
        return format!("2001:db8:{:x}::{:x}", 0x100 + city, dice.between(1, 0xFFFF));
    }
    let block = city as u64 * PREFIXES + dice.below(PREFIXES);
    format!("198.{}.{}.{}", 18 + block / 256, block % 256, dice.between(1, 254))
}

/// An address of a hosting company, from which attacks come: half of them resolve to no place.
pub(crate) fn attacker(dice: &mut Dice) -> String {
    let prefix = if dice.chance(0.5) { "192.0.2" } else { "203.0.113" };
    format!("{prefix}.{}", dice.between(1, 254))
}

/// The table, as `ip_geo.csv` has it.
pub fn csv() -> String {
    let mut text = String::from("ip_prefix,country,city,lat,lon\n");
    for (id, city) in CITIES.iter().enumerate() {
        let place = format!("{},{},{:.4},{:.4}", city.country, city.name, city.lat, city.lon);
        for n in 0..PREFIXES {
            let block = id as u64 * PREFIXES + n;
            let prefix = format!("198.{}.{}", 18 + block / 256, block % 256);
            let written = [prefix.clone(), format!("{prefix}."), format!("{prefix}.0/24")];
            text += &format!("{},{place}\n", written[n as usize]);
        }
        text += &format!("2001:db8:{:x}::/48,{place}\n", 0x100 + id);
    }
    text += "198.51.100,US,,,\n";
    text += "203.0.113,NL,Amsterdam,52.3676,4.9041\n";
    text += "203.0.113.128/25,RU,,,\n";
    text += "198.18.0.7,US,Newark,40.7357,-74.1724\n";
    text += "198.18.300,XX,Nowhere,0,0\n";
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_covers_the_addresses() {
        let text = csv();
        assert_eq!(text.lines().count(), 1 + 4 * CITIES.len() + 5);
        assert!(text.lines().skip(1).all(|line| line.split(',').count() == 5), "{text}");
        let mut dice = Dice::of(&[7]);
        for _ in 0..2000 {
            let id = home(&mut dice);
            let ip = address(id, &mut dice);
            let prefix = match ip.split_once("::") {
                Some((head, _)) => format!("{head}::/48"),
                None => ip.rsplit_once('.').unwrap().0.to_owned(),
            };
            let row = text.lines().find(|l| {
                let field = l.split(',').next().unwrap();
                field.trim_end_matches('.').trim_end_matches(".0/24") == prefix || field == prefix
            });
            assert!(row.unwrap().contains(CITIES[id].name), "{ip}: {row:?}");
            let away = far_from(id, &mut dice);
            assert_ne!(CITIES[away].country, CITIES[id].country);
        }
    }
}
