//! JSON in, `T` out: plain values, and the lines of a case file.
//!
//! What does not decode is dead with the reason `undecodable`, as SEMANTICS "Login records" has it: a null value, bytes that
//! are not JSON, fields that are missing or of another type, bytes left over, or more of them
//! than [`RECORD_BYTES_MAX`](super::RECORD_BYTES_MAX). Nesting is bounded by serde_json (128).

use super::UNDECODABLE;
use dataflow_core::{Decode, Decoded, Record};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::marker::PhantomData;

/// A record whose value is one JSON text of a `T`.
#[derive(Clone, Copy, Debug)]
pub struct JsonDecoder<T>(PhantomData<fn() -> T>);

impl<T> Default for JsonDecoder<T> {
    fn default() -> Self {
        JsonDecoder(PhantomData)
    }
}

impl<T: DeserializeOwned> Decode<T> for JsonDecoder<T> {
    fn decode(&mut self, record: &Record) -> Decoded<T> {
        parse(record).map_or(Decoded::Dead(UNDECODABLE), Decoded::Value)
    }
}

/// A record of [`NdjsonSource`](crate::source::ndjson::NdjsonSource): the line, whose `event` is a `T`. The value of a line
/// with `raw` is those bytes and no line, so it is dead, and the dead letter holds what the case says it holds.
#[derive(Clone, Copy, Debug)]
pub struct CaseLineDecoder<T>(PhantomData<fn() -> T>);

impl<T> Default for CaseLineDecoder<T> {
    fn default() -> Self {
        CaseLineDecoder(PhantomData)
    }
}

#[derive(Deserialize)]
struct CaseLine<T> {
    event: T,
}

impl<T: DeserializeOwned> Decode<T> for CaseLineDecoder<T> {
    fn decode(&mut self, record: &Record) -> Decoded<T> {
        parse(record).map_or(Decoded::Dead(UNDECODABLE), |line: CaseLine<T>| Decoded::Value(line.event))
    }
}

fn parse<T: DeserializeOwned>(record: &Record) -> Option<T> {
    let bytes = record.value.as_ref().filter(|_| super::is_decodable(record))?;
    // serde reads a struct from an array of its fields too; a record is an object.
    let is_object = bytes.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'{');
    is_object.then(|| serde_json::from_slice(bytes).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Event {
        user_id: String,
        #[serde(default = "yes")]
        success: bool,
    }

    fn yes() -> bool {
        true
    }

    fn record(value: Option<&str>) -> Record {
        Record { offset: 0, key: None, value: value.map(|v| Bytes::from(v.to_owned())) }
    }

    fn check(value: Option<&str>, plain: Option<bool>, line: Option<bool>) {
        let expected = |success: Option<bool>| {
            success.map_or(Decoded::Dead("undecodable"), |success| {
                Decoded::Value(Event { user_id: "ana".into(), success })
            })
        };
        assert_eq!(JsonDecoder::default().decode(&record(value)), expected(plain), "{value:?}");
        assert_eq!(CaseLineDecoder::default().decode(&record(value)), expected(line), "{value:?}");
    }

    #[test]
    fn each_kind() {
        let line = |event: &str| format!(r#"{{"partition":0,"offset":1,"schema_version":1,"event":{event}}}"#);
        check(Some(r#"{"user_id":"ana"}"#), Some(true), None);
        check(Some(r#"{"user_id":"ana","success":false,"more":1}"#), Some(false), None);
        check(Some(&line(r#"{"user_id":"ana","success":false}"#)), None, Some(false));
        check(Some(&line(r#"{"user_id":"ana"}"#)), None, Some(true));
        check(Some(&line(r#"{"user_id":7}"#)), None, None);
        check(Some(&line("null")), None, None);
        check(Some(r#"{"user_id":"ana"}x"#), None, None);
        check(Some(r#"["ana",true]"#), None, None);
        check(Some(&"[".repeat(100_000)), None, None);
        check(Some(""), None, None);
        let padded = format!(r#"{{"user_id":"ana"}}{}"#, " ".repeat(crate::decode::RECORD_BYTES_MAX));
        check(Some(&padded), None, None);
        check(None, None, None);
    }

    proptest! {
        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let record = Record { offset: 0, key: None, value: Some(bytes.into()) };
            let _: Decoded<Event> = JsonDecoder::default().decode(&record);
            let _: Decoded<Event> = CaseLineDecoder::default().decode(&record);
        }
    }
}
