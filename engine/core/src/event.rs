//! A record on its way through a job: where it stood, when it happened, and what becomes of one that cannot be used.

use crate::{Epoch, Micros, Partition};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Where a record stood in its source. Unique, and the last word in every order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// Source and partition.
    pub partition: Partition,
    /// Offset in the partition.
    pub offset: u64,
}

/// A decoded record with its event time and position. Records are ordered by (time, position): the global order that
/// arrival does not change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamped<T> {
    /// Event time.
    pub time: Micros,
    /// Where it stood.
    pub position: Position,
    /// What it says.
    pub data: T,
}

impl<T> Stamped<T> {
    /// What records are ordered by.
    pub fn order(&self) -> (Micros, Position) {
        (self.time, self.position)
    }
}

/// What has an event time of its own, or a reason for having none.
pub trait EventTime {
    /// The event time.
    ///
    /// # Errors
    /// The reason under which the record goes to the dead letters, such as `bad_timestamp`.
    fn event_time(&self) -> Result<Micros, &'static str>;
}

/// A record as it came, for whoever parses it himself: a line of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RawRecord {
    /// Its key: of a line, the object that it is in, where there are several.
    pub key: Option<Bytes>,
    /// Its value.
    pub value: Bytes,
}

impl EventTime for RawRecord {
    /// Its content may say a time; the engine does not ask for it: none is late, and no watermark waits for one.
    fn event_time(&self) -> Result<Micros, &'static str> {
        Ok(Micros(0))
    }
}

/// A record that could not be used: kept with the reason, never dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Where it stood.
    pub position: Position,
    /// The epoch that read it.
    pub epoch: Epoch,
    /// Why: one of the reasons of SEMANTICS "Login records".
    pub reason: String,
    /// The record's key as it came.
    pub key: Option<Bytes>,
    /// The record's value as it came.
    pub raw: Option<Bytes>,
}
