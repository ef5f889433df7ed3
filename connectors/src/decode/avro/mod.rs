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
pub(crate) mod shape;

use super::registry::Schemas;
use super::writers::{Writer, Writers, framed};
use super::{RECORD_BYTES_MAX, UNDECODABLE};
use apache_avro::{Schema, from_avro_datum, from_value};
use dataflow_core::{Decode, Decoded, Epoch, Error, Record, Result, SchemaBinding, Waker, caught};
use direct::Direct;
use serde::de::DeserializeOwned;
use shape::Shapes;
use std::marker::PhantomData;
use std::sync::Arc;

/// Decodes framed Avro into `T`. One per worker and source; all of a source share one [`Schemas`].
pub struct AvroDecoder<T> {
    reader: Arc<Schema>,
    writers: Writers<Resolution>,
    decodes: PhantomData<fn() -> T>,
}

/// A writer's schema, resolved to the reader's.
enum Resolution {
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
        Ok(AvroDecoder { reader: Arc::new(schema), writers: Writers::new(schemas, wake), decodes: PhantomData })
    }
}

/// A schema from its text; `None` when it is none, whatever the text is.
pub(crate) fn parse(text: &str) -> Option<Schema> {
    caught(|| Schema::parse_str(text).ok()).flatten()
}

impl Resolution {
    fn new(text: &str, reader: &Schema) -> Option<Resolution> {
        let schema = parse(text)?;
        let shapes = Shapes::compile(&schema)?;
        Some(match Direct::compile(&schema, &shapes, reader) {
            Some(direct) => Resolution::Direct(direct, shapes),
            None => Resolution::General(Box::new(schema), shapes),
        })
    }

    fn decode<T: DeserializeOwned>(&self, reader: &Schema, body: &[u8]) -> Option<T> {
        match self {
            Resolution::Direct(direct, shapes) => direct.decode(shapes, body),
            Resolution::General(schema, shapes) => shapes.fits(body).then(|| general(schema, reader, body)).flatten(),
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
        match self.writers.get(id, |text| Resolution::new(text, &self.reader)) {
            Writer::Asked => Decoded::Unresolved,
            Writer::Unreadable => Decoded::Dead(UNDECODABLE),
            Writer::Known(writer) => {
                writer.decode(&self.reader, body).map_or(Decoded::Dead(UNDECODABLE), Decoded::Value)
            }
        }
    }

    fn resolving(&self) -> Result<()> {
        self.writers.resolving()
    }

    fn resolved(&mut self) -> Vec<SchemaBinding> {
        self.writers.resolved()
    }

    fn foresee(&mut self, record: &Record) {
        self.writers.foresee(record);
    }

    fn begin(&mut self, epoch: Epoch, bound: Option<&[SchemaBinding]>) -> Result<()> {
        self.writers.begin(epoch, bound)
    }

    fn bind(&mut self, schemas: &[SchemaBinding]) -> Result<()> {
        self.writers.bind(schemas)
    }
}

#[cfg(test)]
mod tests;
