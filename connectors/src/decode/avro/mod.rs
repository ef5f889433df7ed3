//! Avro in Confluent framing: the writer's schema by its id, resolved to the schema the job reads with.
//!
//! ```text
//!  value --> framing --> id --> schema (bound, or asked of the registry: Unresolved) --> body --> T
//!                                                       direct: record of primitives, straight into T
//!                                                       general: checked walk, then apache-avro's Value
//! ```
//!
//! Invariants: what a record says is a function of its bytes and of the bound schemas; no input panics or allocates
//! beyond the named bounds; bytes missing or left over make a dead letter.

mod direct;
mod shape;

use super::framing;
use super::registry::{Lookup, Schemas};
use super::{RECORD_BYTES_MAX, UNDECODABLE};
use apache_avro::{Schema, from_avro_datum, from_value};
use dataflow_core::{Decode, Decoded, Epoch, Error, Record, Result, SchemaBinding, Waker, caught};
use direct::Direct;
use serde::de::DeserializeOwned;
use shape::Shapes;
use std::collections::{BTreeMap, BTreeSet};
use std::marker::PhantomData;
use std::sync::Arc;

/// Decodes framed Avro into `T`. One per worker and source; all of a source share one [`Schemas`].
pub struct AvroDecoder<T> {
    reader: Arc<Schema>,
    schemas: Arc<Schemas>,
    /// What each id seen means to this reader.
    readers: BTreeMap<u32, Arc<Writer>>,
    /// The id of the last record and its meaning: nearly always that of the next.
    last: Option<(u32, Arc<Writer>)>,
    /// Ids first used since the last [`Decode::resolved`].
    used: Vec<SchemaBinding>,
    epoch: Epoch,
    /// In a replay: the ids bound so far, beyond which there are none.
    bound: BTreeSet<u32>,
    is_replaying: bool,
    decodes: PhantomData<fn() -> T>,
}

/// A writer's schema, resolved to the reader's.
enum Writer {
    /// The id is bound as unknown, or its schema can not be read at all.
    Unreadable,
    /// Records of primitives.
    Direct(Direct, Shapes),
    /// Everything else.
    General(Box<Schema>, Shapes),
}

impl<T: DeserializeOwned> AvroDecoder<T> {
    /// A decoder that reads with the schema `reader` (JSON, a record). `wake` is called when an answer of the registry has come.
    ///
    /// # Errors
    /// When `reader` is no schema of a record.
    pub fn new(reader: &str, schemas: Arc<Schemas>, wake: Waker) -> Result<AvroDecoder<T>> {
        let schema = parse(reader).filter(|schema| matches!(schema, Schema::Record(_))).ok_or_else(|| {
            Error::user(format!("reading the schema of source '{}': it is not an Avro record", schemas.name()))
        })?;
        // Backs the walk: whatever length slips through, no single allocation is larger. The first caller in a process wins.
        apache_avro::util::max_allocation_bytes(RECORD_BYTES_MAX);
        schemas.wake_also(wake);
        Ok(AvroDecoder {
            reader: Arc::new(schema),
            schemas,
            readers: BTreeMap::new(),
            last: None,
            used: Vec::new(),
            epoch: 0,
            bound: BTreeSet::new(),
            is_replaying: false,
            decodes: PhantomData,
        })
    }

    fn writer(&mut self, id: u32) -> Option<Arc<Writer>> {
        if let Some((_, writer)) = self.last.as_ref().filter(|(last, _)| *last == id) {
            return Some(writer.clone());
        }
        let writer = match self.readers.get(&id) {
            Some(writer) => writer.clone(),
            None if self.is_replaying && !self.bound.contains(&id) => return Some(Arc::new(Writer::Unreadable)),
            None => {
                let (writer, binding) = match self.schemas.lookup(id, self.epoch) {
                    Lookup::Asked => return None,
                    // Beyond the bound of ids, and so not remembered here either.
                    Lookup::Refused => return Some(Arc::new(Writer::Unreadable)),
                    Lookup::Unknown(binding) => (Writer::Unreadable, binding),
                    Lookup::Known(text, binding) => (Writer::new(&text, &self.reader), binding),
                };
                let writer = Arc::new(writer);
                self.readers.insert(id, writer.clone());
                self.used.extend(binding);
                writer
            }
        };
        self.last = Some((id, writer.clone()));
        Some(writer)
    }
}

/// A schema from its text; `None` when it is none, whatever the text is.
fn parse(text: &str) -> Option<Schema> {
    caught(|| Schema::parse_str(text).ok()).flatten()
}

impl Writer {
    fn new(text: &str, reader: &Schema) -> Writer {
        let compiled = parse(text).and_then(|schema| Shapes::compile(&schema).map(|shapes| (schema, shapes)));
        match compiled {
            None => Writer::Unreadable,
            Some((schema, shapes)) => match Direct::compile(&schema, &shapes, reader) {
                Some(direct) => Writer::Direct(direct, shapes),
                None => Writer::General(Box::new(schema), shapes),
            },
        }
    }

    fn decode<T: DeserializeOwned>(&self, reader: &Schema, body: &[u8]) -> Option<T> {
        match self {
            Writer::Unreadable => None,
            Writer::Direct(direct, shapes) => direct.decode(shapes, body),
            Writer::General(schema, shapes) => shapes.fits(body).then(|| general(schema, reader, body)).flatten(),
        }
    }
}

/// Decodes a body that was checked. What is left to go wrong is the resolution, which may panic in corners.
fn general<T: DeserializeOwned>(writer: &Schema, reader: &Schema, mut body: &[u8]) -> Option<T> {
    let decode = || {
        let value = from_avro_datum(writer, &mut body, Some(reader)).ok()?;
        from_value::<T>(&value).ok()
    };
    caught(decode).flatten()
}

impl<T: DeserializeOwned> Decode<T> for AvroDecoder<T> {
    fn decode(&mut self, record: &Record) -> Decoded<T> {
        let Some((id, body)) = framed(record) else { return Decoded::Dead(UNDECODABLE) };
        let Some(writer) = self.writer(id) else { return Decoded::Unresolved };
        writer.decode(&self.reader, body).map_or(Decoded::Dead(UNDECODABLE), Decoded::Value)
    }

    fn resolving(&self) -> Result<()> {
        self.schemas.check()
    }

    fn resolved(&mut self) -> Vec<SchemaBinding> {
        std::mem::take(&mut self.used)
    }

    fn foresee(&mut self, record: &Record) {
        if let Some((id, _)) = framed(record).filter(|(id, _)| !self.is_replaying && !self.readers.contains_key(id)) {
            self.schemas.foresee(id);
        }
    }

    fn begin(&mut self, epoch: Epoch, bound: Option<&[SchemaBinding]>) -> Result<()> {
        (self.epoch, self.is_replaying) = (epoch, bound.is_some());
        self.bind(bound.unwrap_or_default())
    }

    fn bind(&mut self, schemas: &[SchemaBinding]) -> Result<()> {
        self.schemas.bind(schemas)?;
        self.bound.extend(schemas.iter().filter(|schema| self.schemas.is_of(schema)).map(|schema| schema.id));
        Ok(())
    }
}

fn framed(record: &Record) -> Option<(u32, &[u8])> {
    record.value.as_deref().filter(|_| super::is_decodable(record)).and_then(framing::split)
}

#[cfg(test)]
mod tests;
