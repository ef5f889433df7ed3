//! Debezium's messages as they really came, through the decoders: all of them against another reader's word, in Avro and in JSON, and each
//! trap by its name.

#![allow(clippy::unwrap_used)] // All of this is a test.

mod connect_json;
mod expected;
mod fixture;
mod hostile;
mod transactions;
mod traps;

use dataflow_connectors::envelope::debezium::DebeziumJsonDecoder;
use dataflow_connectors::envelope::{BareDecimals, BareJson, BareTimestamps, Change, ChangeEvent, Op};
use dataflow_core::{ColumnType, Datum, Decode, Decoded, Micros, Row};
use expected::expected;
use fixture::{Message, Reading, messages, table};
use std::collections::BTreeMap;

#[test]
fn every_message_says_what_another_reader_reads() {
    let mut readings: BTreeMap<String, Reading> = BTreeMap::new();
    let mut rows = 0;
    for message in messages() {
        let table = table(&message.table);
        // One decoder for all topics of a table: ids belong to content, and a new version needs no restart.
        let reading = readings.entry(message.table.clone()).or_insert_with(|| Reading::new(table.clone()));
        let decoded = reading.decode(&message.record);
        assert_eq!(decoded, expected(&message, &table), "{}@{}", message.topic, message.record.offset);
        if let Decoded::Value(ChangeEvent::Change(Change { row: Some(row), unavailable, .. })) = decoded {
            assert!(!unavailable.is_empty() || table.check(&row).is_ok());
            rows += 1;
        }
    }
    assert_eq!((messages().len(), rows), (329, 197));
}

fn json_of(message: &Message, with_schema: bool, bare: BareJson) -> Decoded<ChangeEvent> {
    let record = connect_json::record(message, with_schema);
    DebeziumJsonDecoder::new(table(&message.table), bare).unwrap().decode(&record)
}

#[test]
fn json_with_its_schema_says_the_same() {
    for message in messages() {
        let decoded = json_of(&message, true, BareJson::default());
        assert_eq!(decoded, expected(&message, &table(&message.table)), "{}@{}", message.topic, message.record.offset);
    }
}

#[test]
fn bare_json_says_the_same_where_the_settings_say_what_it_means() {
    let mut compared = 0;
    for message in messages() {
        let (decimals, timestamps) = match message.prefix.as_str() {
            "text" => (BareDecimals::Text, BareTimestamps::Micros),
            "conn" => (BareDecimals::Text, BareTimestamps::Millis),
            _ => (BareDecimals::Base64, BareTimestamps::Micros),
        };
        // The scale of bytes is not in the message, and the column is declared wider than most of them; times of day have no setting.
        let says_less = message.table == "items" && decimals == BareDecimals::Base64
            || message.table == "notes" && message.prefix != "dbz";
        if !says_less {
            let decoded = json_of(&message, false, BareJson { decimals, timestamps });
            assert_eq!(
                decoded,
                expected(&message, &table(&message.table)),
                "{}@{}",
                message.topic,
                message.record.offset
            );
            compared += 1;
        }
    }
    assert!(compared > 250);
}

/// What was done to a table, as far as all connectors say it: whole milliseconds, no truncates, no snapshot amid the stream, nulls for
/// what was not sent and for decimals that a double does not hold.
fn history(prefix: &str, name: &str) -> Vec<(Op, Row, Option<Row>)> {
    let table = table(name);
    let mut reading = Reading::new(table.clone());
    let mut changes: Vec<(Op, Row, Option<Row>)> = Vec::new();
    for message in messages().iter().filter(|m| m.prefix == prefix && m.table == name) {
        let Decoded::Value(ChangeEvent::Change(change)) = reading.decode(&message.record) else { continue };
        let is_incremental = change.op == Op::Read && changes.iter().any(|(op, ..)| *op != Op::Read);
        let coarse = |(datum, column): (&Datum, &dataflow_core::Column)| match (datum, column.kind) {
            (Datum::Timestamp(at), _) => Datum::Timestamp(Micros(at.0.div_euclid(1_000) * 1_000)),
            (Datum::Long(n), _) if column.name == "clock" => Datum::Long(n / 1_000 * 1_000),
            (_, ColumnType::Decimal { precision: 38, .. }) | (_, ColumnType::Bytes) => Datum::Null,
            (datum, _) => datum.clone(),
        };
        let row = change.row.map(|row| row.0.iter().zip(&table.columns).map(coarse).collect());
        if !is_incremental {
            changes.push((change.op, change.key, row));
        }
    }
    changes
}

#[test]
fn both_shapes_and_all_encodings_give_the_same_rows() {
    for name in ["users", "items", "purchases", "notes", "notes_full"] {
        let envelope = history("dbz", name);
        assert_eq!(history("flat", name), envelope, "{name}");
        for prefix in ["text", "conn"] {
            let other = history(prefix, name);
            assert!(other.is_empty() || other == envelope, "{name} of {prefix}: {other:?} for {envelope:?}");
            assert_eq!(other.is_empty(), name == "notes_full" || (prefix, name) == ("conn", "items"));
        }
    }
}
