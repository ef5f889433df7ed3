//! Change events: what a record of a table's change topic says about one row.
//!
//! Connectors make them of bytes (`connectors/src/envelope`); a durable collection (`operators/src/collection.rs`) applies them, where the
//! connector sends them whole transactions at a time (`operators/src/transactions`).

use crate::{Datum, EventTime, Micros, Row};
use serde::{Deserialize, Serialize};

/// What a record of a table's change topic says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ChangeEvent {
    /// One row changed.
    Change(Change),
    /// All rows of the table are gone.
    Truncate {
        /// Where in the database's log.
        position: Option<ChangePosition>,
        /// The transaction that did it.
        transaction: Option<Transaction>,
    },
    /// Nothing about a row.
    Ignored(Ignored),
}

impl EventTime for ChangeEvent {
    /// Changes have positions and no event time: none is late, and no watermark waits for one.
    fn event_time(&self) -> Result<Micros, &'static str> {
        Ok(Micros(0))
    }
}

/// A record that says nothing about a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Ignored {
    /// A null value: it follows a delete, so that the topic can be compacted.
    Tombstone,
    /// The connector lives.
    Heartbeat,
    /// A message that an application wrote into the database's log.
    Message,
    /// A transaction began or ended.
    TransactionBoundary,
    /// A change of another table, where a file holds several.
    OtherTable,
}

/// A change of one row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Change {
    /// What was done.
    pub op: Op,
    /// Where in the database's log; none: it applies without a comparison.
    pub position: Option<ChangePosition>,
    /// The key of the row: its key columns, or all of it where the table has no key.
    pub key: Row,
    /// The row as it is now; none: it is deleted.
    pub row: Option<Row>,
    /// Columns of `row` that hold null because the database did not send them: their value is still that of the current row. A null
    /// that stands for one is not checked against its column.
    pub unavailable: Vec<usize>,
    /// What an update takes away beside putting `row`: the old row of a table without a key, or the old key, where it is known and is
    /// not `key`.
    pub replaces: Option<Row>,
    /// The transaction that did it, where the connector sends that.
    pub transaction: Option<Transaction>,
}

impl Change {
    /// What this change takes away beside putting its row: the row `old`, in the same moment.
    pub fn taking(&self, old: Row) -> Change {
        let (op, position, transaction) = (Op::Delete, self.position, self.transaction.clone());
        Change { op, position, key: old, row: None, unavailable: Vec::new(), replaces: None, transaction }
    }

    /// The row with the values that were not sent taken from the current one; without a current row they are null.
    ///
    /// ```
    /// use dataflow_core::change::{Change, Op};
    /// use dataflow_core::{Datum, Row};
    /// let row = |body: Datum| -> Row { [Datum::Int(1), body].into_iter().collect() };
    /// let key = [Datum::Int(1)].into_iter().collect();
    /// let row_sent = Some(row(Datum::Null));
    /// let (position, replaces, transaction) = (None, None, None);
    /// let change = Change { op: Op::Update, position, key, row: row_sent, unavailable: vec![1], replaces, transaction };
    /// assert_eq!(change.completed(Some(&row("long".into()))), Some(row("long".into())));
    /// assert_eq!(change.completed(None), Some(row(Datum::Null)));
    /// ```
    pub fn completed(&self, current: Option<&Row>) -> Option<Row> {
        let (row, Some(current)) = (self.row.as_ref()?, current) else { return self.row.clone() };
        if self.unavailable.is_empty() {
            return Some(row.clone());
        }
        let value = |(at, datum): (usize, &Datum)| match self.unavailable.contains(&at) {
            true => current.get(at).clone(),
            false => datum.clone(),
        };
        Some(row.0.iter().enumerate().map(value).collect())
    }
}

/// What was done to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Op {
    /// It was there when a snapshot was taken.
    Read,
    /// It was inserted.
    Create,
    /// It was updated.
    Update,
    /// It was deleted.
    Delete,
}

/// Where in the database's log a change stands, comparable within a topic: `source.sequence` as a pair of numbers (the LSN of the last
/// commit before it, 0 for none, and its own LSN).
///
/// Where only an LSN is known it stands in both places. A later change of the same row begins after the transaction of the earlier one
/// has committed, so the two kinds compare rightly with each other too: a topic may go from one shape to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ChangePosition(pub u64, pub u64);

/// A change's place in its transaction.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Transaction {
    /// The transaction's id. Of Postgres without the LSN behind the colon, which differs from change to change.
    pub id: Box<str>,
    /// The change's number in the transaction, from 1.
    pub order: u64,
    /// Its number among those of the same table, from 1.
    pub table_order: u64,
}

/// Postgres' ids are `xid:LSN` of the change; those of others, such as MySQL's `server:number`, are taken as they are.
///
/// ```
/// use dataflow_core::change::transaction_id;
/// assert_eq!(transaction_id("763:26534104"), "763");
/// assert_eq!(transaction_id("3e11fa47-71ca-11e1-9e33-c80aa9429562:23"), "3e11fa47-71ca-11e1-9e33-c80aa9429562:23");
/// assert_eq!(transaction_id("763:"), "763:");
/// ```
pub fn transaction_id(id: &str) -> &str {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match id.split_once(':') {
        Some((xid, lsn)) if is_number(xid) && is_number(lsn) => xid,
        _ => id,
    }
}

/// A record of Debezium's transaction topic (Debezium documentation, "Transaction metadata").
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransactionBoundary {
    /// `BEGIN` or `END`.
    pub status: String,
    /// The transaction.
    pub id: String,
    /// At its end: how many events of each table there are.
    pub data_collections: Option<Vec<Option<EventCount>>>,
}

/// How many events of a table a transaction has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventCount {
    /// The table, as `SCHEMA.TABLE`.
    pub data_collection: String,
    /// How many.
    pub event_count: i64,
}

impl TransactionBoundary {
    /// The schema to read it with.
    pub const SCHEMA: &str = r#"{"type": "record", "name": "TransactionMetadataValue", "namespace": "io.debezium.connector.common",
        "fields": [{"name": "status", "type": "string"}, {"name": "id", "type": "string"},
            {"name": "data_collections", "default": null, "type": ["null", {"type": "array", "items": ["null",
                {"type": "record", "name": "collection", "namespace": "event", "fields": [
                    {"name": "data_collection", "type": "string"}, {"name": "event_count", "type": "long"}]}]}]}]}"#;

    /// The transaction that ended, and its events by table; none at a beginning.
    pub fn end(&self) -> Option<(&str, impl Iterator<Item = (&str, u64)>)> {
        let counts = self.data_collections.iter().flatten().flatten();
        let counts = counts.map(|of| (of.data_collection.as_str(), u64::try_from(of.event_count).unwrap_or(0)));
        (self.status == "END").then(|| (transaction_id(&self.id), counts))
    }
}

impl EventTime for TransactionBoundary {
    /// As changes have none.
    fn event_time(&self) -> Result<Micros, &'static str> {
        Ok(Micros(0))
    }
}
