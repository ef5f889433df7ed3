//! What a message says, worked out from fastavro's reading of it and the connector's settings, with no code of the decoder.

use crate::fixture::{Message, hex_bytes};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use dataflow_connectors::envelope::{
    Change, ChangeEvent, ChangePosition, Ignored, NO_OLD_ROW, OUT_OF_RANGE, Op, Transaction,
};
use dataflow_core::time::DAY;
use dataflow_core::{Column, ColumnType, Datum, Decoded, Micros, Row, TableSchema, TotalF64};
use serde_json::Value;

const PLACEHOLDER: &str = "__debezium_unavailable_value";

/// Text that no ordinary parser of dates takes, and what the other connectors say it is.
const STRANGE: [(&str, i64); 6] = [
    ("infinity", 9_223_372_036_825_200_000),
    ("+294247-01-10T04:00:25.2Z", 9_223_372_036_825_200_000),
    ("0000-01-01T00:00:00.000000Z", -62_167_219_200_000_000),
    ("-5877611-06-22Z", -2_147_472_691),
    ("-4712-01-01Z", -2_440_550),
    ("+5874897-12-31Z", 2_145_042_905),
];

pub(crate) fn expected(message: &Message, table: &TableSchema) -> Decoded<ChangeEvent> {
    let value = &message.decoded["value"];
    let ignored = |why| Decoded::Value(ChangeEvent::Ignored(why));
    if message.record.value.is_none() {
        return ignored(Ignored::Tombstone);
    }
    match message.topic.split_once('.').unwrap() {
        ("__debezium-heartbeat", _) => return ignored(Ignored::Heartbeat),
        (_, "message") => return ignored(Ignored::Message),
        (_, "transaction") => return ignored(Ignored::TransactionBoundary),
        _ => {}
    }
    // The year 294276 does not fit into microseconds, which the connectors that send text or milliseconds do not hide.
    if message.table == "notes" && message.record.offset == 7 {
        return Decoded::Dead(OUT_OF_RANGE);
    }
    let is_flat = value.get("__op").is_some();
    let op = value[if is_flat { "__op" } else { "op" }].as_str().unwrap();
    let position = Some(match is_flat {
        true => {
            let lsn = value.get("__lsn").or(value.get("__source_lsn")).unwrap().as_u64().unwrap();
            ChangePosition(lsn, lsn)
        }
        false => {
            let sequence: Value = serde_json::from_str(value["source"]["sequence"].as_str().unwrap()).unwrap();
            let number = |at: usize| sequence[at].as_str().map_or(0, |n| n.parse().unwrap());
            ChangePosition(number(0), number(1))
        }
    });
    let transaction =
        value.get("transaction").filter(|transaction| !transaction.is_null()).map(|transaction| Transaction {
            id: transaction["id"].as_str().unwrap().split(':').next().unwrap().into(),
            order: transaction["total_order"].as_u64().unwrap(),
            table_order: transaction["data_collection_order"].as_u64().unwrap(),
        });
    if op == "t" {
        return Decoded::Value(ChangeEvent::Truncate { position, transaction });
    }
    let (before, after) = if is_flat { (value, value) } else { (&value["before"], &value["after"]) };
    let key = |row: &Value| table.key_of(&self::row(row, table, &message.prefix).0);
    let change = if op == "d" {
        let (row, unavailable) = (None, Vec::new());
        Change { op: Op::Delete, position, key: key(before), row, unavailable, replaces: None, transaction }
    } else {
        let op = match op {
            "r" => Op::Read,
            "c" => Op::Create,
            _ => Op::Update,
        };
        if is_flat && table.key.is_empty() && op == Op::Update {
            return Decoded::Dead(NO_OLD_ROW);
        }
        let (row, unavailable) = self::row(after, table, &message.prefix);
        let replaces = (table.key.is_empty() && op == Op::Update).then(|| key(before));
        Change { op, position, key: table.key_of(&row), row: Some(row), unavailable, replaces, transaction }
    };
    Decoded::Value(ChangeEvent::Change(change))
}

fn row(values: &Value, table: &TableSchema, prefix: &str) -> (Row, Vec<usize>) {
    let mut unavailable = Vec::new();
    let datum = |(at, column): (usize, &Column)| {
        let value = values.get(&column.name).unwrap_or(&Value::Null);
        let is_placeholder = value["bytes"].as_str().is_some_and(|hex| hex_bytes(hex) == PLACEHOLDER.as_bytes());
        if value == PLACEHOLDER || is_placeholder {
            unavailable.push(at);
            return Datum::Null;
        }
        datum(value, column.kind, prefix)
    };
    (table.columns.iter().enumerate().map(datum).collect(), unavailable)
}

fn datum(value: &Value, kind: ColumnType, prefix: &str) -> Datum {
    let int = || value.as_i64().unwrap();
    let text = value.as_str();
    let strange = || text.and_then(|text| STRANGE.iter().find(|(strange, _)| *strange == text)).map(|(_, n)| *n);
    match kind {
        _ if value.is_null() => Datum::Null,
        ColumnType::Boolean => Datum::Boolean(value.as_bool().unwrap()),
        ColumnType::Int => Datum::Int(int() as i32),
        // The one time of day of the fixture.
        ColumnType::Long if prefix == "text" && text.is_some() => {
            assert_eq!(text, Some("23:59:59.999999Z"));
            Datum::Long(DAY - 1)
        }
        ColumnType::Long if prefix == "conn" && int() == 86_399_999 => Datum::Long(86_399_999_000),
        ColumnType::Long => Datum::Long(int()),
        ColumnType::Double => Datum::Double(TotalF64(value.as_f64().unwrap())),
        ColumnType::Text => Datum::Text(text.unwrap().into()),
        ColumnType::Bytes => Datum::Bytes(match text {
            Some(text) => BASE64_STANDARD.decode(text).unwrap().into(),
            None => hex_bytes(value["bytes"].as_str().unwrap()).into(),
        }),
        ColumnType::Decimal { scale, .. } => Datum::Decimal(decimal(value, scale)),
        ColumnType::Date => Datum::Date(match text {
            Some(text) => strange()
                .unwrap_or_else(|| Micros::parse(&format!("{}T00:00:00Z", text.trim_end_matches('Z'))).unwrap().0 / DAY)
                as i32,
            None => int() as i32,
        }),
        ColumnType::Timestamp => Datum::Timestamp(Micros(match (text, prefix) {
            (Some(text), _) => strange().unwrap_or_else(|| Micros::parse(text).unwrap().0),
            (None, "conn") => int() * 1_000,
            (None, _) => int(),
        })),
    }
}

/// The number without its point.
fn decimal(value: &Value, scale: u8) -> i128 {
    if let Some(hex) = value["value"]["bytes"].as_str() {
        let bytes = hex_bytes(hex);
        let sign = if bytes[0] >= 0x80 { -1 } else { 0 };
        let unscaled = bytes.iter().fold(sign, |n: i128, byte| n << 8 | i128::from(*byte));
        return unscaled * 10_i128.pow(u32::from(scale) - value["scale"].as_u64().unwrap() as u32);
    }
    let text = match value.as_f64() {
        // Beyond 15 digits a double prints what it is, not what it was made of.
        Some(n) if n.abs() > 1e15 => {
            assert_eq!(n, -1.2345678901234568e24);
            "-1234567890123456800000000".to_owned()
        }
        Some(n) => format!("{n}"),
        None => value.as_str().or(value["decimal"].as_str()).unwrap().to_owned(),
    };
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    format!("{whole}{fraction:0<width$}", width = usize::from(scale)).parse().unwrap()
}
