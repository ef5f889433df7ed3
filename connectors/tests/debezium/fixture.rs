//! The fixture: messages as Debezium sent them, the same as fastavro decodes them, and a registry that answers with their schemas.

use dataflow_connectors::decode::avro::AvroDecoder;
use dataflow_connectors::decode::registry::{Answer, Ask, SchemaStore, Schemas};
use dataflow_connectors::envelope::ChangeEvent;
use dataflow_connectors::envelope::debezium::DebeziumAvroDecoder;
use dataflow_core::change::TransactionBoundary;
use dataflow_core::{
    Clock, Column, ColumnType, Decode, Decoded, Environment, Micros, Random, Record, SourceId, Spawner, TableSchema,
    Task, Waker,
};
use dataflow_state::storage::MemoryStorage;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const MESSAGES: &str = include_str!("messages.ndjson");
const DECODED: &str = include_str!("decoded.ndjson");
const SCHEMAS: &str = include_str!("schemas.ndjson");

/// A message and what it says.
pub(crate) struct Message {
    pub(crate) topic: String,
    /// The connector: `dbz`, `flat`, `text` or `conn`.
    pub(crate) prefix: String,
    /// The table; empty where the topic is none of a table.
    pub(crate) table: String,
    pub(crate) record: Record,
    /// The value as fastavro decodes it, with its schema's id.
    pub(crate) decoded: Value,
}

pub(crate) fn messages() -> Vec<Message> {
    let lines = MESSAGES.lines().zip(DECODED.lines());
    let parse = |text: &str| -> Value { serde_json::from_str(text).unwrap() };
    lines
        .map(|(bytes, decoded)| {
            let (bytes, decoded) = (parse(bytes), parse(decoded));
            let topic = bytes["topic"].as_str().unwrap().to_owned();
            let (prefix, rest) = topic.split_once('.').unwrap();
            let part = |name: &str| bytes[name].as_str().map(|hex| hex_bytes(hex).into());
            Message {
                prefix: prefix.to_owned(),
                table: rest.strip_prefix("public.").unwrap_or_default().to_owned(),
                record: Record { offset: bytes["offset"].as_u64().unwrap(), key: part("key"), value: part("value") },
                decoded: decoded["value"].clone(),
                topic,
            }
        })
        .collect()
}

/// The message at `topic@offset`.
pub(crate) fn message(topic: &str, offset: u64) -> Message {
    messages().into_iter().find(|m| m.topic == topic && m.record.offset == offset).unwrap()
}

pub(crate) fn hex_bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

/// The texts of all schemas by id.
pub(crate) fn schemas() -> BTreeMap<u32, String> {
    let lines = SCHEMAS.lines().map(|line| -> Value { serde_json::from_str(line).unwrap() });
    lines.map(|line| (line["id"].as_u64().unwrap() as u32, line["schema"].as_str().unwrap().to_owned())).collect()
}

struct Registry(BTreeMap<u32, String>);

impl Ask for Registry {
    fn get(&self, id: u32) -> dataflow_core::Result<Answer> {
        Ok(self.0.get(&id).cloned().map_or(Answer::NotFound, Answer::Text))
    }
}

/// A world where time stands and tasks run when they are told to.
#[derive(Default)]
struct World(Mutex<Vec<Box<dyn Task>>>);

impl Clock for World {
    fn wall(&self) -> Micros {
        Micros(0)
    }
    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
}

impl Random for World {
    fn next_u64(&self) -> u64 {
        4
    }
}

impl Spawner for World {
    fn spawn(&self, _: &str, task: Box<dyn Task>) -> Waker {
        self.0.lock().unwrap().push(task);
        Waker::none()
    }
}

/// A decoder with its registry, of which ids are asked as they come.
pub(crate) struct Reading {
    world: Arc<World>,
    pub(crate) store: SchemaStore,
    pub(crate) decoder: DebeziumAvroDecoder,
}

impl Reading {
    pub(crate) fn new(table: TableSchema) -> Reading {
        Reading::with(table, schemas())
    }

    pub(crate) fn with(table: TableSchema, texts: BTreeMap<u32, String>) -> Reading {
        let (world, storage, schemas) = asking(texts);
        let decoder = DebeziumAvroDecoder::new(table, schemas, Waker::none()).unwrap();
        Reading { world, store: SchemaStore::new(storage, "oneshop"), decoder }
    }

    /// What a record comes to once the registry has answered.
    pub(crate) fn decode(&mut self, record: &Record) -> Decoded<ChangeEvent> {
        match self.decoder.decode(record) {
            Decoded::Unresolved => {
                self.world.0.lock().unwrap()[0].run();
                self.decoder.decode(record)
            }
            decoded => decoded,
        }
    }
}

/// The schemas of a registry that has these texts, with the world that asks it.
fn asking(texts: BTreeMap<u32, String>) -> (Arc<World>, Arc<MemoryStorage>, Arc<Schemas>) {
    let (world, storage) = (Arc::new(World::default()), Arc::new(MemoryStorage::new()));
    let environment = Environment { clock: world.clone(), random: world.clone(), spawner: world.clone() };
    let registry: Box<dyn Ask> = Box::new(Registry(texts));
    let schemas =
        Schemas::asking(SourceId(1), "oneshop", storage.clone(), Some((registry, Duration::ZERO)), &environment);
    (world, storage, schemas)
}

/// The records of the transaction topic.
pub(crate) fn boundaries() -> Vec<TransactionBoundary> {
    let (world, _, schemas) = asking(schemas());
    let mut decoder = AvroDecoder::new(TransactionBoundary::SCHEMA, schemas, Waker::none()).unwrap();
    let mut decode = |message: Message| loop {
        match decoder.decode(&message.record) {
            Decoded::Unresolved => _ = world.0.lock().unwrap()[0].run(),
            Decoded::Value(boundary) => return boundary,
            Decoded::Dead(why) => panic!("{} is dead: {why}", message.record.offset),
        }
    };
    messages().into_iter().filter(|message| message.topic == "dbz.transaction").map(&mut decode).collect()
}

/// What a message of a fixture's topic comes to in a decoder of its own.
pub(crate) fn decode(message: &Message) -> Decoded<ChangeEvent> {
    Reading::new(table(&message.table)).decode(&message.record)
}

/// The tables of the fixture; of topics that belong to none, any.
pub(crate) fn table(name: &str) -> TableSchema {
    use ColumnType::{Boolean, Bytes, Date, Int, Long, Text, Timestamp};
    let money = |precision, scale| ColumnType::Decimal { precision, scale };
    let columns: &[(&str, ColumnType)] = match name {
        "items" => &[
            ("id", Int),
            ("name", Text),
            ("category", Text),
            ("price", money(14, 4)),
            ("inventory", Int),
            ("created_at", Timestamp),
            ("updated_at", Timestamp),
        ],
        "purchases" => &[
            ("id", Int),
            ("user_id", Long),
            ("item_id", Long),
            ("campaign_id", Text),
            ("status", Int),
            // Widened in the job's eyes.
            ("quantity", Long),
            ("purchase_price", money(12, 2)),
            ("deleted", Boolean),
            ("created_at", Timestamp),
            ("updated_at", Timestamp),
        ],
        // In another order than the database's, and without `tags`, which no column can hold.
        "notes" => &[
            ("title", Text),
            ("id", Int),
            ("body", Text),
            ("doc", Text),
            ("raw", Bytes),
            ("amount", money(38, 3)),
            ("at", Timestamp),
            ("local_at", Timestamp),
            ("day", Date),
            ("clock", Long),
            ("token", Text),
        ],
        "notes_full" => &[("id", Int), ("title", Text), ("body", Text)],
        "visits" => &[("place", Text), ("n", Int)],
        "debezium_signal" => &[("id", Text), ("type", Text), ("data", Text)],
        _ => &[
            ("id", Int),
            ("first_name", Text),
            ("last_name", Text),
            ("email", Text),
            ("created_at", Timestamp),
            ("updated_at", Timestamp),
            // Added and dropped in the midst of the stream.
            ("phone", Text),
            ("tier", Int),
        ],
    };
    let column = |(name, kind): &(&str, ColumnType)| Column {
        name: (*name).to_owned(),
        kind: *kind,
        is_nullable: *name != "id",
    };
    let columns: Vec<Column> = columns.iter().map(column).collect();
    let key = columns.iter().position(|column| column.name == "id").into_iter().collect();
    TableSchema { columns, key }
}
