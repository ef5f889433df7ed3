//! The event, its two schema versions, and its forms in JSON and Avro.

use dataflow_core::Micros;
use serde::{Deserialize, Serialize};

/// The first version of the writers' schema.
pub const SCHEMA_V1: &str = r#"{"type":"record","name":"LoginEvent","namespace":"com.shop.events","fields":[{"name":"user_id","type":"string"},{"name":"timestamp","type":"string"},{"name":"ip","type":"string"},{"name":"device","type":"string"},{"name":"platform","type":"string"},{"name":"user_agent","type":"string"}]}"#;
/// The second version, which knows whether the login succeeded.
pub const SCHEMA_V2: &str = r#"{"type":"record","name":"LoginEvent","namespace":"com.shop.events","fields":[{"name":"user_id","type":"string"},{"name":"timestamp","type":"string"},{"name":"ip","type":"string"},{"name":"device","type":"string"},{"name":"platform","type":"string"},{"name":"user_agent","type":"string"},{"name":"success","type":"boolean","default":true}]}"#;

/// A login as its writer says it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginEvent {
    /// Who.
    pub user_id: String,
    /// When, as text.
    pub timestamp: String,
    /// From where.
    pub ip: String,
    /// The device's name.
    pub device: String,
    /// Its operating system.
    pub platform: String,
    /// The browser.
    pub user_agent: String,
    /// Whether it succeeded; `None` from a writer of the first version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub success: Option<bool>,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// An event, good or (empty user, wrong time) for the dead letters.
    Event(LoginEvent),
    /// Bytes that decode in no form; `None` is a null.
    Poison(Option<Vec<u8>>),
}

/// A record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// When it is written, in microseconds since the traffic's start.
    pub due_us: u64,
    /// The event time that it says, or would say.
    pub time: Micros,
    /// The user whose key it carries.
    pub key: String,
    /// What it says.
    pub body: Body,
    /// The attack that it belongs to.
    pub campaign: Option<u64>,
}

impl LoginEvent {
    /// The schema version that its writer used.
    pub fn version(&self) -> u8 {
        if self.success.is_some() { 2 } else { 1 }
    }

    /// The Avro body in the schema of [`LoginEvent::version`].
    pub fn avro(&self, out: &mut Vec<u8>) {
        for text in [&self.user_id, &self.timestamp, &self.ip, &self.device, &self.platform, &self.user_agent] {
            // A length is a zigzag varint; it is not negative.
            let mut length = (text.len() as u64) << 1;
            while length >= 0x80 {
                out.push(length as u8 | 0x80);
                length >>= 7;
            }
            out.push(length as u8);
            out.extend_from_slice(text.as_bytes());
        }
        out.extend(self.success.map(u8::from));
    }
}

impl Login {
    /// The value as one JSON object (or the poison).
    pub fn json(&self) -> Option<Vec<u8>> {
        match &self.body {
            Body::Event(event) => Some(serde_json::to_vec(event).expect("strings and a bool are JSON")),
            Body::Poison(bytes) => bytes.clone(),
        }
    }

    /// The value in Confluent's framing: a zero byte, the schema's id, the Avro body (or the poison). `ids` are those of
    /// the two versions.
    pub fn framed(&self, ids: [u32; 2]) -> Option<Vec<u8>> {
        match &self.body {
            Body::Event(event) => {
                let mut out = vec![0];
                out.extend_from_slice(&ids[usize::from(event.version()) - 1].to_be_bytes());
                event.avro(&mut out);
                Some(out)
            }
            Body::Poison(bytes) => bytes.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use apache_avro::{Schema, from_avro_datum, from_value};

    #[test]
    fn avro_is_what_avro_reads() {
        for (text, success) in [(SCHEMA_V1, None), (SCHEMA_V2, Some(true)), (SCHEMA_V2, Some(false))] {
            let long = "ü".repeat(5000);
            let fields = ["u1", "2026-03-01T09:00:00.000000Z", "", "iPhone", &long, "x"].map(String::from);
            let [user_id, timestamp, ip, device, platform, user_agent] = fields;
            let event = LoginEvent { user_id, timestamp, ip, device, platform, user_agent, success };
            let mut bytes = Vec::new();
            event.avro(&mut bytes);
            let schema = Schema::parse_str(text).unwrap();
            let mut rest = &bytes[..];
            let value = from_avro_datum(&schema, &mut rest, None).unwrap();
            assert!(rest.is_empty());
            #[derive(Deserialize)]
            struct V2 {
                success: bool,
            }
            let read = match success {
                None => from_value::<LoginEvent>(&value).unwrap(),
                Some(_) => {
                    let fields = serde_json::Value::try_from(value.clone()).unwrap();
                    assert_eq!(from_value::<V2>(&value).unwrap().success, success.unwrap());
                    serde_json::from_value(fields).unwrap()
                }
            };
            assert_eq!(read, event);
        }
    }
}
