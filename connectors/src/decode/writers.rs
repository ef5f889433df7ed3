//! What each schema id means to one reader: compiled once an id, bound in the epoch that first uses it, replayed as it was bound.
//!
//! Every decoder of framed records has one of these over the [`Schemas`] of its source, and calls it for the part of
//! [`Decode`](dataflow_core::Decode) that is about schemas. The key is the id and never a schema's name: all versions of a table's
//! schema have one name, and ids belong to content.

use super::framing;
use super::registry::{Lookup, Schemas};
use dataflow_core::{Epoch, Record, Result, SchemaBinding, Waker};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What an id means.
pub(crate) enum Writer<W> {
    /// The registry is asked; the decoder's waker will be called.
    Asked,
    /// Nothing: it is unknown, refused, or its schema can not be read.
    Unreadable,
    /// This.
    Known(Arc<W>),
}

impl<W> Clone for Writer<W> {
    fn clone(&self) -> Writer<W> {
        match self {
            Writer::Asked => Writer::Asked,
            Writer::Unreadable => Writer::Unreadable,
            Writer::Known(writer) => Writer::Known(writer.clone()),
        }
    }
}

/// The writers that one decoder has met.
pub(crate) struct Writers<W> {
    schemas: Arc<Schemas>,
    /// What each id seen means to this reader.
    known: BTreeMap<u32, Writer<W>>,
    /// The id of the last record and its meaning: nearly always that of the next.
    last: Option<(u32, Writer<W>)>,
    /// Ids first used since the last [`Writers::resolved`].
    used: Vec<SchemaBinding>,
    epoch: Epoch,
    /// In a replay: the ids bound so far, beyond which there are none.
    bound: BTreeSet<u32>,
    is_replaying: bool,
}

impl<W> Writers<W> {
    /// `wake` is called when an answer of the registry has come.
    pub(crate) fn new(schemas: Arc<Schemas>, wake: Waker) -> Writers<W> {
        schemas.wake_also(wake);
        Writers {
            schemas,
            known: BTreeMap::new(),
            last: None,
            used: Vec::new(),
            epoch: 0,
            bound: BTreeSet::new(),
            is_replaying: false,
        }
    }

    /// What `id` means; `compile` makes it of a schema's text, or nothing when it can not be read.
    pub(crate) fn get(&mut self, id: u32, compile: impl FnOnce(&str) -> Option<W>) -> Writer<W> {
        if let Some((_, writer)) = self.last.as_ref().filter(|(last, _)| *last == id) {
            return writer.clone();
        }
        let writer = match self.known.get(&id) {
            Some(writer) => writer.clone(),
            None if self.is_replaying && !self.bound.contains(&id) => return Writer::Unreadable,
            None => {
                let (writer, binding) = match self.schemas.lookup(id, self.epoch) {
                    Lookup::Asked => return Writer::Asked,
                    // Beyond the bound of ids, and so not remembered here either.
                    Lookup::Refused => return Writer::Unreadable,
                    Lookup::Unknown(binding) => (None, binding),
                    Lookup::Known(text, binding) => (compile(&text), binding),
                };
                let writer = writer.map_or(Writer::Unreadable, |writer| Writer::Known(Arc::new(writer)));
                self.known.insert(id, writer.clone());
                self.used.extend(binding);
                writer
            }
        };
        self.last = Some((id, writer.clone()));
        writer
    }

    /// As [`Decode::resolving`](dataflow_core::Decode::resolving).
    pub(crate) fn resolving(&self) -> Result<()> {
        self.schemas.check()
    }

    /// As [`Decode::resolved`](dataflow_core::Decode::resolved).
    pub(crate) fn resolved(&mut self) -> Vec<SchemaBinding> {
        std::mem::take(&mut self.used)
    }

    /// As [`Decode::foresee`](dataflow_core::Decode::foresee).
    pub(crate) fn foresee(&mut self, record: &Record) {
        if let Some((id, _)) = framed(record).filter(|(id, _)| !self.is_replaying && !self.known.contains_key(id)) {
            self.schemas.foresee(id);
        }
    }

    /// As [`Decode::begin`](dataflow_core::Decode::begin).
    pub(crate) fn begin(&mut self, epoch: Epoch, bound: Option<&[SchemaBinding]>) -> Result<()> {
        (self.epoch, self.is_replaying) = (epoch, bound.is_some());
        self.bind(bound.unwrap_or_default())
    }

    /// As [`Decode::bind`](dataflow_core::Decode::bind).
    pub(crate) fn bind(&mut self, schemas: &[SchemaBinding]) -> Result<()> {
        self.schemas.bind(schemas)?;
        self.bound.extend(schemas.iter().filter(|schema| self.schemas.is_of(schema)).map(|schema| schema.id));
        Ok(())
    }
}

/// The schema id and the body of a record's value; `None` when it is null, not framed, or too large to be decoded.
pub(crate) fn framed(record: &Record) -> Option<(u32, &[u8])> {
    record.value.as_deref().filter(|_| super::is_decodable(record)).and_then(framing::split)
}
