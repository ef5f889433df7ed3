//! What nobody should send: bytes at random and good records that were damaged. Whatever they are, a decoder says something about them.

use crate::connect_json;
use crate::fixture::{Message, Reading, messages, table};
use dataflow_connectors::decode::framing::join;
use dataflow_connectors::decode::{RECORD_BYTES_MAX, UNDECODABLE};
use dataflow_connectors::envelope::debezium::DebeziumJsonDecoder;
use dataflow_connectors::envelope::{BareDecimals, BareJson, BareTimestamps, CaseChangeDecoder};
use dataflow_core::{Decode, Decoded, Record};
use proptest::prelude::*;
use std::sync::LazyLock;

static MESSAGES: LazyLock<Vec<Message>> =
    LazyLock::new(|| messages().into_iter().filter(|m| m.record.value.is_some()).collect());

fn record(value: Vec<u8>) -> Record {
    Record { offset: 0, key: None, value: Some(value.into()) }
}

/// One change of a record's bytes.
#[derive(Clone, Debug)]
enum Damage {
    Flip(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Insert(prop::sample::Index, Vec<u8>),
}

fn damage() -> impl Strategy<Value = Damage> {
    let bytes = prop::collection::vec(any::<u8>(), 1..12);
    prop_oneof![
        (any::<prop::sample::Index>(), 1..=255_u8).prop_map(|(at, bits)| Damage::Flip(at, bits)),
        any::<prop::sample::Index>().prop_map(Damage::Cut),
        (any::<prop::sample::Index>(), bytes).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
    ]
}

/// The bytes from `from` on with one change.
fn damaged(bytes: &[u8], from: usize, damage: &Damage) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let at = |index: &prop::sample::Index| from + index.index(bytes.len() - from);
    match damage {
        Damage::Flip(index, bits) => {
            let at = at(index);
            bytes[at] ^= bits;
        }
        Damage::Cut(index) => bytes.truncate(at(index)),
        Damage::Insert(index, new) => {
            let at = at(index);
            bytes.splice(at..at, new.iter().copied());
        }
    }
    bytes
}

proptest! {
    #[test]
    fn no_damaged_avro_panics(of in any::<prop::sample::Index>(), damage in damage()) {
        let message = of.get(&MESSAGES);
        let mut reading = Reading::new(table(&message.table));
        let value = message.record.value.as_ref().unwrap();
        let decoded = reading.decode(&record(damaged(value, 5, &damage)));
        if matches!(damage, Damage::Cut(_)) {
            prop_assert_eq!(decoded, Decoded::Dead(UNDECODABLE));
        }
    }

    #[test]
    fn no_bytes_panic(of in any::<prop::sample::Index>(), bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let message = of.get(&MESSAGES);
        let id = message.decoded["schema_id"].as_u64().unwrap() as u32;
        let mut reading = Reading::new(table(&message.table));
        let _ = reading.decode(&record(join(id, &bytes)));
        let _ = reading.decode(&record(bytes.clone()));
        let mut lines = CaseChangeDecoder::new("users", table("users")).unwrap();
        let _ = lines.decode(&record(bytes.clone()));
        let decoded = DebeziumJsonDecoder::new(table("users"), BareJson::default()).unwrap().decode(&record(bytes));
        prop_assert!(matches!(decoded, Decoded::Dead(_)));
    }

    #[test]
    fn no_damaged_json_panics(of in any::<prop::sample::Index>(), damage in damage(), with_schema: bool, is_base64: bool) {
        let message = of.get(&MESSAGES);
        let value = connect_json::record(message, with_schema).value.unwrap();
        let decimals = if is_base64 { BareDecimals::Base64 } else { BareDecimals::Text };
        let bare = BareJson { decimals, timestamps: BareTimestamps::Nanos };
        let mut decoder = DebeziumJsonDecoder::new(table(&message.table), bare).unwrap();
        let _ = decoder.decode(&record(damaged(&value, 0, &damage)));
    }
}

#[test]
fn a_record_too_large_is_dead() {
    let padded = format!(r#"{{"__op":"c","id":1{}}}"#, " ".repeat(RECORD_BYTES_MAX));
    let mut json = DebeziumJsonDecoder::new(table("users"), BareJson::default()).unwrap();
    assert_eq!(json.decode(&record(padded.clone().into())), Decoded::Dead(UNDECODABLE));
    let mut lines = CaseChangeDecoder::new("users", table("users")).unwrap();
    assert_eq!(lines.decode(&record(padded.into())), Decoded::Dead(UNDECODABLE));
    assert_eq!(Reading::new(table("users")).decode(&record(vec![0; RECORD_BYTES_MAX + 1])), Decoded::Dead(UNDECODABLE));
}
