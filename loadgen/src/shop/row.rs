//! The rows of the shop's tables, and a change of one in the form of a case's `oneshop.ndjson`.

use super::Feed;
use dataflow_core::Micros;
use dataflow_core::row::decimal_text;
use serde::{Serialize, Serializer};

/// Money with two digits after the point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cents(pub i64);

impl Cents {
    /// `12.50`.
    pub fn text(self) -> String {
        decimal_text(self.0.into(), 2)
    }
}

impl Serialize for Cents {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text())
    }
}

/// A row of `users`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct User {
    /// Its key.
    pub id: i32,
    /// First name.
    pub first_name: Option<String>,
    /// Last name.
    pub last_name: Option<String>,
    /// E-mail address, not always a valid one.
    pub email: Option<String>,
    /// When the row was made.
    pub created_at: Micros,
    /// When it was last changed.
    pub updated_at: Micros,
}

/// A row of `items`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Item {
    /// Its key.
    pub id: i32,
    /// Name.
    pub name: String,
    /// Category.
    pub category: Option<String>,
    /// Price; now and then by mistake a negative one.
    pub price: Option<Cents>,
    /// Pieces in stock.
    pub inventory: Option<i32>,
    /// When the row was made.
    pub created_at: Micros,
    /// When it was last changed.
    pub updated_at: Micros,
}

/// A row of `purchases`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Purchase {
    /// Its key.
    pub id: i32,
    /// Who bought; null once that user was erased.
    pub user_id: Option<i64>,
    /// What was bought.
    pub item_id: Option<i64>,
    /// What advertised it.
    pub campaign_id: Option<String>,
    /// 1 placed, 2 shipped, 3 delivered, 4 returned.
    pub status: i16,
    /// How many pieces.
    pub quantity: i32,
    /// Price of one piece.
    pub purchase_price: Cents,
    /// Whether it was taken back.
    pub deleted: bool,
    /// When it was bought.
    pub created_at: Micros,
    /// When the row was last changed.
    pub updated_at: Micros,
}

/// What is done to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// It was there at first.
    Read,
    /// It is new.
    Create,
    /// It is another.
    Update,
    /// It goes.
    Delete,
}

/// A row of one of the tables.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Row {
    /// Of `users`.
    User(User),
    /// Of `items`.
    Item(Item),
    /// Of `purchases`.
    Purchase(Purchase),
}

impl Row {
    /// Its key.
    pub fn id(&self) -> i32 {
        match self {
            Row::User(user) => user.id,
            Row::Item(item) => item.id,
            Row::Purchase(purchase) => purchase.id,
        }
    }
}

/// A change of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What is done.
    pub op: Op,
    /// The row as it is then; of a deleted one only the key counts.
    pub row: Row,
    /// Position in the database's log: that of the transaction.
    pub lsn: u64,
    /// When it is committed.
    pub at: Micros,
}

/// The key of a row that is gone: all that a database logs of it by default.
#[derive(Serialize)]
struct Key {
    id: i32,
}

#[derive(Serialize)]
struct Line<'a> {
    table: &'static str,
    op: &'static str,
    before: Option<Key>,
    after: Option<&'a Row>,
    lsn: u64,
    ts_ms: i64,
}

impl Change {
    /// Of which table it is.
    pub fn feed(&self) -> Feed {
        match self.row {
            Row::User(_) => Feed::Users,
            Row::Item(_) => Feed::Items,
            Row::Purchase(_) => Feed::Purchases,
        }
    }

    /// The line of a case's `oneshop.ndjson`, without its end.
    pub fn line(&self) -> Vec<u8> {
        let is_gone = self.op == Op::Delete;
        let line = Line {
            table: self.feed().name(),
            op: match self.op {
                Op::Read => "r",
                Op::Create => "c",
                Op::Update => "u",
                Op::Delete => "d",
            },
            before: is_gone.then(|| Key { id: self.row.id() }),
            after: (!is_gone).then_some(&self.row),
            lsn: self.lsn,
            ts_ms: self.at.0.div_euclid(1000),
        };
        serde_json::to_vec(&line).expect("texts and numbers are JSON")
    }
}
