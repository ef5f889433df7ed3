//! The decoder on what producers write and on what nobody should: both paths agree, and nothing panics.

use super::super::framing;
use super::super::registry::tests::{Memory, World};
use super::super::registry::{SchemaStore, hash_of};
use super::*;
use apache_avro::types::Value;
use dataflow_core::SourceId;
use proptest::prelude::*;
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Clone, Debug, PartialEq, Deserialize)]
struct Login {
    user_id: String,
    ip: Option<String>,
    at: i64,
    weight: f64,
    success: bool,
    raw: i32,
}

const READER: &str = r#"{"type":"record","name":"Login","namespace":"com.shop","fields":[
    {"name":"user_id","type":"string"}, {"name":"ip","type":["null","string"],"default":null}, {"name":"at","type":"long"},
    {"name":"weight","type":"double"}, {"name":"success","type":"boolean","default":true}, {"name":"raw","type":"int","default":-3}]}"#;

fn bytes_of(schema: &Schema, value: Value) -> Vec<u8> {
    apache_avro::to_avro_datum(schema, value).unwrap()
}

fn decoder(schemas: &[(u32, Option<&str>)]) -> AvroDecoder<Login> {
    decoder_on(Arc::new(Memory::default()), schemas).0
}

fn decoder_on(storage: Arc<Memory>, schemas: &[(u32, Option<&str>)]) -> (AvroDecoder<Login>, Arc<Schemas>) {
    let world = Arc::new(World::default());
    let store = SchemaStore::new(storage.clone(), "s");
    let known = Schemas::start(SourceId(1), "s", storage, None, &world.environment());
    let mut decoder = AvroDecoder::new(READER, known.clone(), Waker::none()).unwrap();
    let bind = |(id, text): &(u32, Option<&str>)| SchemaBinding {
        source: SourceId(1),
        id: *id,
        hash: text.map(|text| store.put(text).unwrap()),
    };
    decoder.bind(&schemas.iter().map(bind).collect::<Vec<_>>()).unwrap();
    (decoder, known)
}

fn record(value: Option<Vec<u8>>) -> Record {
    Record { offset: 0, key: None, value: value.map(Into::into) }
}

fn login() -> Value {
    Value::Record(vec![
        ("user_id".into(), Value::String("u".into())),
        ("ip".into(), Value::Union(1, Box::new(Value::String("10.0.0.1".into())))),
        ("at".into(), Value::Long(5)),
        ("weight".into(), Value::Double(0.5)),
        ("success".into(), Value::Boolean(false)),
        ("raw".into(), Value::Int(9)),
    ])
}

#[test]
fn framing_nulls_and_unknown_schemas() {
    let schema = Schema::parse_str(READER).unwrap();
    let body = bytes_of(&schema, login());
    let mut decoder = decoder(&[(7, Some(READER)), (8, None), (9, Some("no schema")), (10, Some(r#""string""#))]);
    let expected =
        Login { user_id: "u".into(), ip: Some("10.0.0.1".into()), at: 5, weight: 0.5, success: false, raw: 9 };
    assert_eq!(decoder.decode(&record(Some(framing::join(7, &body)))), Decoded::Value(expected));
    let dead = [
        None,
        Some(vec![]),
        Some(vec![0, 0, 0, 0]),
        Some([&[1, 0, 0, 0, 7], body.as_slice()].concat()),
        Some(framing::join(8, &body)),
        Some(framing::join(9, &body)),
        Some(framing::join(10, &body)),
        Some(framing::join(7, &body[..body.len() - 1])),
        Some(framing::join(7, &[body.as_slice(), &[0]].concat())),
        Some(framing::join(7, &[])),
    ];
    for value in dead {
        assert_eq!(decoder.decode(&record(value.clone())), Decoded::Dead(UNDECODABLE), "{value:?}");
    }
    assert_eq!(decoder.resolved(), []);
    // An id that nobody bound: unknown without a registry, and to be bound so.
    assert_eq!(decoder.decode(&record(Some(framing::join(77, &body)))), Decoded::Dead(UNDECODABLE));
    assert_eq!(decoder.resolved(), [SchemaBinding { source: SourceId(1), id: 77, hash: None }]);
    assert_eq!(decoder.resolved(), []);
}

#[test]
fn a_replay_knows_only_what_was_bound_by_then() {
    let body = bytes_of(&Schema::parse_str(READER).unwrap(), login());
    let storage = Arc::new(Memory::default());
    let (mut decoder, shared) = decoder_on(storage.clone(), &[]);
    let of = |id| record(Some(framing::join(id, &body)));
    let binding = |id, hash| SchemaBinding { source: SourceId(1), id, hash };
    // Epoch 5 found no room for id 3 and bound id 4; epoch 6 bound id 3, in a later life that had room.
    let known = SchemaStore::new(storage.clone(), "s").put(READER).unwrap();
    decoder.begin(5, Some(&[binding(4, Some(known))])).unwrap();
    shared.bind(&[binding(3, Some(known))]).unwrap(); // another worker replays epoch 6 already
    assert_eq!(decoder.decode(&of(3)), Decoded::Dead(UNDECODABLE));
    assert!(matches!(decoder.decode(&of(4)), Decoded::Value(_)));
    decoder.begin(6, Some(&[binding(3, Some(known))])).unwrap();
    assert!(matches!(decoder.decode(&of(3)), Decoded::Value(_)));
    assert_eq!(decoder.decode(&of(8)), Decoded::Dead(UNDECODABLE));
    assert_eq!(decoder.resolved(), []);
    decoder.begin(7, None).unwrap();
    decoder.decode(&of(8));
    assert_eq!(decoder.resolved(), [binding(8, None)]);
}

#[test]
fn a_record_too_large_is_dead() {
    let schema = Schema::parse_str(READER).unwrap();
    let mut decoder = decoder(&[(7, Some(READER))]);
    let mut decode = |key: usize, user: usize| {
        let mut value = login();
        let Value::Record(fields) = &mut value else { panic!() };
        fields[0].1 = Value::String("u".repeat(user));
        let value = Some(framing::join(7, &bytes_of(&schema, value)).into());
        decoder.decode(&Record { offset: 0, key: Some(vec![0; key].into()), value })
    };
    assert!(matches!(decode(10, RECORD_BYTES_MAX - 100), Decoded::Value(_)));
    assert_eq!(decode(200, RECORD_BYTES_MAX - 100), Decoded::Dead(UNDECODABLE));
    assert_eq!(decode(0, RECORD_BYTES_MAX), Decoded::Dead(UNDECODABLE));
}

#[test]
fn a_panic_of_the_library_is_a_dead_letter_and_says_that_it_is_caught() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static CAUGHT: AtomicUsize = AtomicUsize::new(0);
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| match dataflow_core::is_caught() {
        true => drop(CAUGHT.fetch_add(1, Ordering::SeqCst)),
        false => before(info),
    }));
    // Resolving bytes to a big decimal unwraps what they hold.
    let reader =
        r#"{"type":"record","name":"W","fields":[{"name":"n","type":{"type":"bytes","logicalType":"big-decimal"}}]}"#;
    let writer = Schema::parse_str(r#"{"type":"record","name":"W","fields":[{"name":"n","type":"bytes"}]}"#).unwrap();
    let read = general::<serde_json::Value>(&writer, &Schema::parse_str(reader).unwrap(), &[2, 0xff]);
    assert_eq!((read, CAUGHT.load(Ordering::SeqCst)), (None, 1));
}

#[test]
fn a_reader_that_is_no_record_is_refused() {
    let world = Arc::new(World::default());
    let schemas = Schemas::start(SourceId(1), "s", Arc::new(Memory::default()), None, &world.environment());
    assert!(AvroDecoder::<Login>::new(r#""string""#, schemas.clone(), Waker::none()).is_err());
    assert!(AvroDecoder::<Login>::new("{", schemas, Waker::none()).is_err());
    assert_ne!(hash_of("a"), hash_of("b"));
}

/// A type that knows its fields by their names only.
#[derive(Debug, PartialEq)]
struct ByName(BTreeMap<String, serde_json::Value>);

impl<'de> Deserialize<'de> for ByName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<ByName, D::Error> {
        struct Named;
        impl<'de> serde::de::Visitor<'de> for Named {
            type Value = ByName;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("fields with their names")
            }

            fn visit_map<M: serde::de::MapAccess<'de>>(self, map: M) -> std::result::Result<ByName, M::Error> {
                BTreeMap::deserialize(serde::de::value::MapAccessDeserializer::new(map)).map(ByName)
            }
        }
        deserializer.deserialize_struct("Login", &["user_id", "ip", "at", "weight", "success", "raw"], Named)
    }
}

#[test]
fn a_type_that_wants_names_gets_them() {
    let schema = Schema::parse_str(READER).unwrap();
    let shapes = Shapes::compile(&schema).unwrap();
    let direct = Direct::compile(&schema, &shapes, &schema).unwrap();
    let read = direct.decode::<ByName>(&shapes, &bytes_of(&schema, login())).unwrap();
    assert_eq!((read.0.len(), &read.0["user_id"], &read.0["raw"]), (6, &"u".into(), &9.into()));
}

/// A field of a generated writer: its name, schema and value.
fn fields() -> impl Strategy<Value = Vec<(String, &'static str, Value)>> {
    let text = "[a-zä]{0,9}";
    let field = |name: &'static str, schema: &'static str, value: BoxedStrategy<Value>| {
        value.prop_map(move |value| (name.to_owned(), schema, value)).boxed()
    };
    let null = || Just(Value::Null).boxed();
    let string = move || text.prop_map(Value::String).boxed();
    let union = |at: u32, value: BoxedStrategy<Value>| value.prop_map(move |v| Value::Union(at, Box::new(v))).boxed();
    let int = || any::<i32>().prop_map(Value::Int).boxed();
    let user = field("user_id", r#""string""#, string());
    let ip = prop_oneof![
        field("ip", r#"["null","string"]"#, union(0, null())),
        field("ip", r#"["null","string"]"#, union(1, string())),
        field("ip", r#"["string","null"]"#, union(0, string())),
        field("ip", r#"["string","null"]"#, union(1, null())),
        field("ip", r#""string""#, string()),
        field("unread_ip", r#""null""#, null()),
    ];
    let at = prop_oneof![
        field("at", r#""long""#, any::<i64>().prop_map(Value::Long).boxed()),
        field("at", r#""int""#, int()),
    ];
    let weight = prop_oneof![
        field("weight", r#""double""#, (-1e9..1e9f64).prop_map(Value::Double).boxed()),
        field("weight", r#""float""#, (-1e9..1e9f32).prop_map(Value::Float).boxed()),
        field("weight", r#""int""#, int()),
    ];
    let success = prop_oneof![
        field("success", r#""boolean""#, any::<bool>().prop_map(Value::Boolean).boxed()),
        field(
            "extra",
            r#"{"type":"array","items":"string"}"#,
            prop::collection::vec(string(), 0..3).prop_map(Value::Array).boxed()
        ),
    ];
    let raw = prop_oneof![
        field("raw", r#""int""#, int()),
        field("other", r#""bytes""#, prop::collection::vec(any::<u8>(), 0..5).prop_map(Value::Bytes).boxed()),
    ];
    let ordered = (user, ip, at, weight, success, raw).prop_map(|(a, b, c, d, e, f)| vec![a, b, c, d, e, f]).boxed();
    prop_oneof![ordered.clone().prop_shuffle(), ordered]
}

fn schema_of(fields: &[(String, &str, Value)]) -> String {
    let fields: Vec<_> =
        fields.iter().map(|(name, schema, _)| format!(r#"{{"name":"{name}","type":{schema}}}"#)).collect();
    format!(r#"{{"type":"record","name":"W","fields":[{}]}}"#, fields.join(","))
}

/// Both paths on one body.
fn both(writer: &Schema, body: &[u8]) -> (Option<Option<Login>>, Option<Login>) {
    let reader = Schema::parse_str(READER).unwrap();
    let shapes = Shapes::compile(writer).unwrap();
    let direct = Direct::compile(writer, &shapes, &reader).map(|direct| direct.decode(&shapes, body));
    (direct, shapes.fits(body).then(|| general(writer, &reader, body)).flatten())
}

proptest! {
    #[test]
    fn paths_agree(fields in fields(), cut in any::<prop::sample::Index>(), flip in any::<(prop::sample::Index, u8)>(), tail in prop::collection::vec(any::<u8>(), 1..4)) {
        let writer = Schema::parse_str(&schema_of(&fields)).unwrap();
        let row = Value::Record(fields.iter().map(|(name, _, value)| (name.clone(), value.clone())).collect());
        let body = bytes_of(&writer, row);
        let (direct, general) = both(&writer, &body);
        let is_direct = direct.is_some();
        // Every generated writer can be read, and all but a plain string for a nullable one take the direct path.
        prop_assert!(general.is_some());
        prop_assert_eq!(is_direct, !fields.iter().any(|(name, schema, _)| name == "ip" && *schema == r#""string""#));
        if let Some(direct) = direct {
            prop_assert_eq!(direct, general);
        }
        let mut flipped = body.clone();
        flipped[flip.0.index(body.len())] ^= flip.1;
        for damaged in [&body[..cut.index(body.len())], &[body.as_slice(), &tail].concat(), &flipped] {
            let (direct, general) = both(&writer, damaged);
            prop_assert_eq!(direct.is_some(), is_direct);
            if let Some(direct) = direct {
                prop_assert_eq!(direct, general);
            }
        }
        prop_assert_eq!(both(&writer, &body[..cut.index(body.len())]).1, None);
        prop_assert_eq!(both(&writer, &[body.as_slice(), &tail].concat()).1, None);
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let general = r#"{"type":"record","name":"W","fields":[{"name":"user_id","type":["int","string",{"type":"map","values":"bytes"}]},
            {"name":"at","type":{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}},
            {"name":"weight","type":{"type":"fixed","name":"D","size":12,"logicalType":"duration"}},
            {"name":"x","type":{"type":"bytes","logicalType":"big-decimal"}},{"name":"y","type":{"type":"string","logicalType":"uuid"}}]}"#;
        let mut decoder = decoder(&[(1, Some(READER)), (2, Some(general))]);
        for id in [1, 2] {
            let _ = decoder.decode(&record(Some(framing::join(id, &bytes))));
        }
        prop_assert_eq!(decoder.decode(&record(Some(bytes))), Decoded::Dead(UNDECODABLE));
    }
}
