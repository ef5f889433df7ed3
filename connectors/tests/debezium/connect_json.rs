//! The fixture's messages as Kafka Connect's JSON converter would have written them: Avro's schemas turned into Connect's, bytes into base64.

use crate::fixture::{Message, hex_bytes, schemas};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use dataflow_core::Record;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The message with its schema, or bare.
pub(crate) fn record(message: &Message, with_schema: bool) -> Record {
    let value = message.record.value.as_ref().map(|_| {
        let schema: Value =
            serde_json::from_str(&schemas()[&(message.decoded["schema_id"].as_u64().unwrap() as u32)]).unwrap();
        let scales = Scales { named: BTreeMap::new() }.of(&schema);
        let payload = payload(&message.decoded["value"], &scales);
        let whole = match with_schema {
            true => json!({ "schema": connect(&schema, &mut BTreeMap::new()), "payload": payload }),
            false => payload,
        };
        serde_json::to_vec(&whole).unwrap().into()
    });
    Record { offset: message.record.offset, key: None, value }
}

/// The schema as Connect has it.
fn connect(avro: &Value, named: &mut BTreeMap<String, Value>) -> Value {
    match avro {
        Value::Array(variants) => {
            let mut schema = connect(variants.iter().find(|variant| *variant != "null").unwrap(), named);
            schema["optional"] = true.into();
            schema
        }
        Value::String(name) => {
            named.get(name).cloned().unwrap_or_else(|| json!({ "type": primitive(name), "optional": false }))
        }
        _ if avro["type"].is_object() => connect(&avro["type"], named),
        _ => {
            let mut schema = match avro["type"].as_str().unwrap() {
                "record" => {
                    let field = |field: &Value| {
                        let mut schema = connect(&field["type"], named);
                        schema["field"] = field["name"].clone();
                        schema
                    };
                    let fields: Vec<Value> = avro["fields"].as_array().unwrap().iter().map(field).collect();
                    json!({ "type": "struct", "fields": fields, "optional": false })
                }
                "array" => json!({ "type": "array", "items": connect(&avro["items"], named), "optional": false }),
                other => json!({ "type": primitive(other), "optional": false }),
            };
            if let Some(name) = avro.get("connect.name") {
                schema["name"] = name.clone();
            }
            if let Some(parameters) = avro.get("connect.parameters") {
                schema["parameters"] = parameters.clone();
            }
            if let Some(name) = avro.get("name") {
                named.insert(name.as_str().unwrap().to_owned(), schema.clone());
            }
            schema
        }
    }
}

fn primitive(avro: &str) -> &str {
    match avro {
        "int" => "int32",
        "long" => "int64",
        other => other,
    }
}

/// The scales of decimal columns, wherever they stand.
struct Scales {
    named: BTreeMap<String, u32>,
}

impl Scales {
    fn of(mut self, schema: &Value) -> BTreeMap<String, u32> {
        self.collect(schema, "");
        self.named
    }

    fn collect(&mut self, schema: &Value, field: &str) {
        match schema {
            Value::Array(variants) => variants.iter().for_each(|variant| self.collect(variant, field)),
            Value::Object(_) => {
                if schema["logicalType"] == "decimal" {
                    self.named.insert(field.to_owned(), schema["scale"].as_u64().unwrap() as u32);
                }
                for field in schema["fields"].as_array().into_iter().flatten() {
                    self.collect(&field["type"], field["name"].as_str().unwrap());
                }
            }
            _ => {}
        }
    }
}

fn payload(value: &Value, scales: &BTreeMap<String, u32>) -> Value {
    match value {
        Value::Object(members) => {
            if let Some(hex) = value["bytes"].as_str() {
                return BASE64_STANDARD.encode(hex_bytes(hex)).into();
            }
            let member = |(name, value): (&String, &Value)| match value["decimal"].as_str() {
                Some(text) => {
                    let fraction = text.split_once('.').map_or(0, |(_, fraction)| fraction.len());
                    assert_eq!(fraction, scales[name] as usize, "{text} in {name}");
                    let unscaled: i128 = text.replace('.', "").parse().unwrap();
                    (name.clone(), BASE64_STANDARD.encode(unscaled.to_be_bytes()).into())
                }
                None => (name.clone(), payload(value, scales)),
            };
            Value::Object(members.iter().map(member).collect())
        }
        Value::Array(items) => items.iter().map(|item| payload(item, scales)).collect(),
        plain => plain.clone(),
    }
}
