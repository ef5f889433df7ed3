//! Change events in JSON: wanted members found by name, numbers kept as they are written.
//!
//! A text is walked once for each level that is wanted; of all the rest nothing is kept, so what a record unfolds into is bounded by its
//! size and the table's columns. Numbers never pass through a float unless their column is one.

use super::cell::{Cell, Meaning, Raw, Unit};
use super::layout::{Fields, Layout, Want};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use dataflow_core::ColumnType;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::fmt;

/// How values are to be read that come without a schema, and so do not say it themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BareJson {
    /// Decimals that are JSON strings.
    pub decimals: BareDecimals,
    /// Timestamps that are JSON numbers.
    pub timestamps: BareTimestamps,
}

/// What a JSON string without a schema is in a column of decimals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BareDecimals {
    /// A decimal number (`decimal.handling.mode = string`).
    #[default]
    Text,
    /// The number's bytes in base64, at the declared column's scale (`precise`).
    Base64,
}

/// What a JSON number without a schema is in a column of timestamps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BareTimestamps {
    /// Milliseconds (`time.precision.mode = connect`).
    Millis,
    /// Microseconds, which is what Debezium sends of a Postgres timestamp.
    #[default]
    Micros,
    /// Nanoseconds.
    Nanos,
}

impl Layout {
    /// The meanings of all cells where there is no schema.
    pub(super) fn bare(&self, settings: BareJson) -> Vec<Meaning> {
        let mut meanings = vec![Meaning::Plain; self.cell_count()];
        for (at, column) in self.columns() {
            meanings[at] = match (column.kind, settings.decimals) {
                (ColumnType::Timestamp, _) => Meaning::Instant(match settings.timestamps {
                    BareTimestamps::Millis => Unit::Millis,
                    BareTimestamps::Micros => Unit::Micros,
                    BareTimestamps::Nanos => Unit::Nanos,
                }),
                (ColumnType::Date, _) => Meaning::Days,
                (ColumnType::Decimal { scale, .. }, BareDecimals::Base64) => Meaning::Decimal { scale: scale.into() },
                _ => Meaning::Plain,
            };
        }
        meanings
    }
}

/// Reads the meanings of the wanted cells from a schema of Kafka Connect.
pub(super) fn describe(schema: &Value, wanted: &Fields, meanings: &mut [Meaning]) {
    for field in schema["fields"].as_array().into_iter().flatten() {
        match field["field"].as_str().and_then(|name| wanted.get(name)) {
            None => {}
            Some(Want::Cell(at)) => meanings[*at] = meaning(field),
            Some(Want::Record { fields, .. }) => describe(field, fields, meanings),
        }
    }
}

fn meaning(schema: &Value) -> Meaning {
    let scale = schema["parameters"]["scale"].as_str().and_then(|scale| scale.parse().ok());
    let named = schema["name"].as_str().and_then(|name| Meaning::of_name(name, scale));
    named.unwrap_or(if schema["type"] == "bytes" { Meaning::Bytes } else { Meaning::Plain })
}

/// The wanted members of an object, and how many members it has in all.
#[derive(Debug, Default)]
pub(super) struct Members<'a> {
    pub(super) found: BTreeMap<String, &'a RawValue>,
    pub(super) count: usize,
}

/// The members of the object `text` whose names are wanted; the last of equal names counts. `None` when it is no object.
pub(super) fn members<'a>(text: &'a str, is_wanted: impl Fn(&str) -> bool) -> Option<Members<'a>> {
    struct Object<F>(F);
    impl<'a, F: Fn(&str) -> bool> Visitor<'a> for Object<F> {
        type Value = Members<'a>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<M: MapAccess<'a>>(self, mut map: M) -> Result<Members<'a>, M::Error> {
            let mut members = Members::default();
            while let Some(name) = map.next_key::<String>()? {
                members.count += 1;
                if (self.0)(&name) {
                    members.found.insert(name, map.next_value()?);
                } else {
                    map.next_value::<IgnoredAny>()?;
                }
            }
            Ok(members)
        }
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let members = deserializer.deserialize_map(Object(is_wanted)).ok()?;
    deserializer.end().ok()?;
    Some(members)
}

/// Puts the wanted members into their cells. `None` when one of them is no JSON.
pub(super) fn fill<'a>(
    members: &Members<'a>,
    wanted: &Fields,
    meanings: &[Meaning],
    cells: &mut [Cell<'a>],
) -> Option<()> {
    for (name, value) in &members.found {
        match wanted.get(name.as_str()) {
            None => {}
            Some(Want::Cell(at)) => {
                let meaning = meanings[*at];
                cells[*at] = Cell { raw: read(value.get(), meaning)?, meaning };
            }
            Some(Want::Record { .. }) if value.get() == "null" => {}
            Some(Want::Record { present, fields }) => {
                fill(&self::members(value.get(), |name| fields.contains_key(name))?, fields, meanings, cells)?;
                if let Some(at) = present {
                    cells[*at].raw = Raw::Boolean(true);
                }
            }
        }
    }
    Some(())
}

/// A value. Strings of what is bytes are base64.
fn read(text: &str, meaning: Meaning) -> Option<Raw<'_>> {
    Some(match text.as_bytes().first()? {
        b'n' => Raw::Null,
        b't' => Raw::Boolean(true),
        b'f' => Raw::Boolean(false),
        b'"' => {
            let text: String = serde_json::from_str(text).ok()?;
            match meaning {
                Meaning::Bytes | Meaning::Decimal { .. } => {
                    BASE64_STANDARD.decode(&text).map_or(Raw::Other, |bytes| Raw::Bytes(bytes.into()))
                }
                _ => Raw::Text(text.into()),
            }
        }
        b'{' => scaled(text).unwrap_or(Raw::Other),
        b'[' => Raw::Other,
        _ => text.parse().map_or(Raw::Number(text), Raw::Integer),
    })
}

/// Debezium's VariableScaleDecimal.
fn scaled(text: &str) -> Option<Raw<'_>> {
    let found = members(text, |name| matches!(name, "scale" | "value"))?.found;
    let scale = serde_json::from_str(found.get("scale")?.get()).ok()?;
    let value: String = serde_json::from_str(found.get("value")?.get()).ok()?;
    Some(Raw::Scaled { scale, unscaled: BASE64_STANDARD.decode(value).ok()?.into() })
}

/// The text of a record's value.
pub(super) fn text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value).ok().map(str::trim_ascii)
}
