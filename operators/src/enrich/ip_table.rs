//! The IP geography: a CSV of prefixes and places, looked up by the longest prefix (SEMANTICS "IP geography").
//!
//! The table never changes once parsed; [`IpTable::hash`] names its content in the bindings, so a replay can prove
//! that it has the same one. Of equal prefixes the last row counts. A row whose prefix cannot be read is skipped and
//! counted; a header that lacks a column is refused, for then every row would be wrong.

use super::parse_address;
use super::prefix::Prefix;
use super::ranges::Ranges;
use csv::{ByteRecord, ReaderBuilder};
use dataflow_core::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// How many bad rows are kept to be shown: enough to see the pattern, few enough for one message.
pub const BAD_ROWS_SHOWN: usize = 5;

/// Where a prefix is. Every part may be unknown.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Place {
    /// Country, as the table spells it.
    pub country: Option<Arc<str>>,
    /// City.
    pub city: Option<Arc<str>>,
    /// Latitude in [-90, 90] and longitude in [-180, 180], degrees.
    pub position: Option<(f64, f64)>,
}

/// A row that was skipped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRow {
    /// Its line in the file, from 1.
    pub line: u64,
    /// Its prefix as it stands there.
    pub prefix: String,
}

/// A parsed IP geography.
#[derive(Clone, Debug)]
pub struct IpTable {
    places: Vec<Arc<Place>>,
    v4: Ranges<u32>,
    v6: Ranges<u128>,
    hash: [u8; 16],
    prefixes: usize,
    bad_count: u64,
    bad_rows: Vec<BadRow>,
}

impl IpTable {
    /// Parses the CSV.
    ///
    /// ```
    /// use dataflow_operators::enrich::{IpTable, parse_address};
    /// let csv = "ip_prefix,country,city\n203.0,AU,Sydney\n203.0.113.64/26,NZ,\n300.1,XX,Bad\n";
    /// let table = IpTable::parse(csv.as_bytes()).unwrap();
    /// let place = table.lookup(parse_address("203.0.113.100").unwrap()).unwrap();
    /// assert_eq!((place.country.as_deref(), place.city.as_deref()), (Some("NZ"), None));
    /// assert_eq!((table.bad_count(), table.bad_rows()[0].line), (1, 4));
    /// ```
    ///
    /// # Errors
    /// When the header lacks `ip_prefix`, `country` or `city`, or has one of `lat` and `lon` only.
    pub fn parse(csv: &[u8]) -> Result<IpTable> {
        let mut reader = ReaderBuilder::new().flexible(true).from_reader(csv);
        let unreadable = |error: csv::Error| Error::user("cannot read the ip geography").because(error);
        let columns = Columns::find(reader.byte_headers().map_err(unreadable)?)?;
        let (mut v4, mut v6) = (BTreeMap::new(), BTreeMap::new());
        let mut places = Places::default();
        let (mut bad_count, mut bad_rows) = (0, Vec::new());
        let mut row = ByteRecord::new();
        while reader.read_byte_record(&mut row).map_err(unreadable)? {
            // A row that is not UTF-8 has no text to compare or to hand on: it counts as bad like its prefix would.
            let prefix = std::str::from_utf8(row.as_slice()).ok().and_then(|_| Prefix::parse(columns.prefix(&row)));
            match prefix {
                Some(Prefix::V4 { bits, length }) => {
                    v4.insert((bits, length), places.intern(columns.place(&row)));
                }
                Some(Prefix::V6 { bits, length }) => {
                    v6.insert((bits, length), places.intern(columns.place(&row)));
                }
                None => {
                    bad_count += 1;
                    if bad_rows.len() < BAD_ROWS_SHOWN {
                        let prefix = String::from_utf8_lossy(row.get(columns.prefix).unwrap_or_default()).into_owned();
                        bad_rows.push(BadRow { line: row.position().map_or(0, csv::Position::line), prefix });
                    }
                }
            }
        }
        let prefixes = v4.len() + v6.len();
        let range_v4 = |((bits, length), place): ((u32, u8), u32)| {
            let (first, last) = Prefix::range_v4(bits, length);
            (first, last, place)
        };
        let range_v6 = |((bits, length), place): ((u128, u8), u32)| {
            let (first, last) = Prefix::range_v6(bits, length);
            (first, last, place)
        };
        let mut hash = [0; 16];
        hash.copy_from_slice(&blake3::hash(csv).as_bytes()[..16]);
        Ok(IpTable {
            places: places.list,
            v4: Ranges::flatten(v4.into_iter().map(range_v4).collect(), |a| a.checked_add(1)),
            v6: Ranges::flatten(v6.into_iter().map(range_v6).collect(), |a| a.checked_add(1)),
            hash,
            prefixes,
            bad_count,
            bad_rows,
        })
    }

    /// The place of the longest prefix that holds `address` (an IPv4-mapped one is its IPv4 address); `None` when none
    /// does. A matching row without a country gives a place without a country.
    pub fn lookup(&self, address: IpAddr) -> Option<&Arc<Place>> {
        let place = match address.to_canonical() {
            IpAddr::V4(address) => self.v4.get(address.to_bits()),
            IpAddr::V6(address) => self.v6.get(address.to_bits()),
        };
        place.map(|place| &self.places[place as usize])
    }

    /// The address that `text` spells, and its place.
    pub fn locate(&self, text: &str) -> (Option<IpAddr>, Option<Arc<Place>>) {
        let address = parse_address(text);
        (address, address.and_then(|address| self.lookup(address)).cloned())
    }

    /// BLAKE3 of the CSV, cut to 16 bytes: what a binding names the table by.
    pub fn hash(&self) -> [u8; 16] {
        self.hash
    }

    /// How many distinct prefixes it holds.
    pub fn prefixes(&self) -> usize {
        self.prefixes
    }

    /// How many rows were skipped.
    pub fn bad_count(&self) -> u64 {
        self.bad_count
    }

    /// The first skipped rows, [`BAD_ROWS_SHOWN`] at most.
    pub fn bad_rows(&self) -> &[BadRow] {
        &self.bad_rows
    }
}

/// Where the columns are.
struct Columns {
    prefix: usize,
    country: usize,
    city: usize,
    position: Option<(usize, usize)>,
}

impl Columns {
    fn find(header: &ByteRecord) -> Result<Columns> {
        let at = |name: &str| header.iter().position(|column| column == name.as_bytes());
        let need = |name: &str| {
            at(name).ok_or_else(|| {
                Error::user(format!("cannot read the ip geography: its header has no column '{name}'"))
                    .hint("the first line must be 'ip_prefix,country,city' or 'ip_prefix,country,city,lat,lon'")
            })
        };
        let position = match (at("lat"), at("lon")) {
            (None, None) => None,
            _ => Some((need("lat")?, need("lon")?)),
        };
        Ok(Columns { prefix: need("ip_prefix")?, country: need("country")?, city: need("city")?, position })
    }

    fn prefix<'r>(&self, row: &'r ByteRecord) -> &'r str {
        text(row, self.prefix)
    }

    fn place(&self, row: &ByteRecord) -> Place {
        let word = |column| Some(text(row, column)).filter(|text| !text.is_empty()).map(Arc::from);
        let degrees = |column, most: f64| {
            text(row, column).parse::<f64>().ok().filter(|degrees| (-most..=most).contains(degrees))
        };
        let position = self.position.and_then(|(lat, lon)| Some((degrees(lat, 90.0)?, degrees(lon, 180.0)?)));
        Place { country: word(self.country), city: word(self.city), position }
    }
}

/// A field of a row that was checked to be UTF-8; a missing one is empty.
fn text(row: &ByteRecord, column: usize) -> &str {
    std::str::from_utf8(row.get(column).unwrap_or_default()).unwrap_or_default()
}

/// Country, city and the position's bits.
type PlaceKey = (Option<Arc<str>>, Option<Arc<str>>, Option<(u64, u64)>);

/// The distinct places: a table has many more prefixes than places.
#[derive(Default)]
struct Places {
    list: Vec<Arc<Place>>,
    known: BTreeMap<PlaceKey, u32>,
}

impl Places {
    fn intern(&mut self, place: Place) -> u32 {
        let position = place.position.map(|(lat, lon)| (lat.to_bits(), lon.to_bits()));
        let key = (place.country.clone(), place.city.clone(), position);
        *self.known.entry(key).or_insert_with(|| {
            self.list.push(Arc::new(place));
            u32::try_from(self.list.len() - 1).expect("a table in memory has fewer than 2^32 places")
        })
    }
}

#[cfg(test)]
#[path = "ip_table_tests.rs"]
mod tests;
