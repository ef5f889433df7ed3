//! The shop in Postgres: its transactions as they are, one connection, in order.
//!
//! The tables are made when they are missing, with all columns of old rows in the log (`replica identity full`), and their sequences
//! set far from the ids that the story gives, so that rows put in by hand are in nobody's way. A shop that was begun is not gone on with:
//! tables with rows are refused.

use super::Target;
use crate::shop::{Change, Feed, Item, Op, Purchase, Row, User};
use dataflow_core::{Error, Micros, Result};
use postgres::types::ToSql;
use postgres::{Client, NoTls, Statement, Transaction};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const TABLES: [(&str, &str); 3] = [
    (
        "users",
        "create table users (id serial primary key, first_name varchar(100), last_name varchar(100), email varchar(255), \
         created_at timestamp default now(), updated_at timestamp default now())",
    ),
    (
        "items",
        "create table items (id serial primary key, name varchar(255) not null, category varchar(100), price decimal(10,2), \
         inventory int, created_at timestamp default now(), updated_at timestamp default now())",
    ),
    (
        "purchases",
        "create table purchases (id serial primary key, user_id bigint references users (id), item_id bigint references items (id), \
         campaign_id varchar(50), status smallint default 1, quantity int default 1, purchase_price decimal(12,2), \
         deleted boolean default false, created_at timestamp default now(), updated_at timestamp default now())",
    ),
];
/// Ids of rows that others put in begin here.
const IDS_OF_OTHERS: i64 = 1_000_000_000;

/// The parameters of each statement are a row's columns, the key first.
const STATEMENTS: [[&str; 3]; 3] = [
    [
        "insert into users (id, first_name, last_name, email, created_at, updated_at) values ($1, $2, $3, $4, $5, $6)",
        "update users set first_name = $2, last_name = $3, email = $4, created_at = $5, updated_at = $6 where id = $1",
        "delete from users where id = $1",
    ],
    [
        "insert into items (id, name, category, price, inventory, created_at, updated_at) \
         values ($1, $2, $3, $4::text::decimal, $5, $6, $7)",
        "update items set name = $2, category = $3, price = $4::text::decimal, inventory = $5, created_at = $6, updated_at = $7 \
         where id = $1",
        "delete from items where id = $1",
    ],
    [
        "insert into purchases (id, user_id, item_id, campaign_id, status, quantity, purchase_price, deleted, created_at, updated_at) \
         values ($1, $2, $3, $4, $5, $6, $7::text::decimal, $8, $9, $10)",
        "update purchases set user_id = $2, item_id = $3, campaign_id = $4, status = $5, quantity = $6, \
         purchase_price = $7::text::decimal, deleted = $8, created_at = $9, updated_at = $10 where id = $1",
        "delete from purchases where id = $1",
    ],
];

/// The database.
pub struct Postgres {
    client: Client,
    /// By table, then: insert, update, delete.
    statements: Vec<[Statement; 3]>,
}

impl Postgres {
    /// Connects and makes the tables; what was done comes back in words.
    ///
    /// # Errors
    /// The database is not there or refuses, or a table has rows.
    pub fn open(url: &str) -> Result<(Postgres, Vec<String>)> {
        // Not the address itself: there may be a password in it.
        let failed = |what: &str, cause| {
            Error::outside(format!("{what} in the Postgres database of --postgres")).because(told(cause))
        };
        let mut client = Client::connect(url, NoTls).map_err(|cause| {
            failed("open a session", cause).hint("--postgres takes postgresql://USER:PASSWORD@HOST:PORT/DATABASE")
        })?;
        let mut done = Vec::new();
        for (table, create) in TABLES {
            let known = client.query_one("select to_regclass($1) is not null", &[&table]);
            let is_there: bool = known.map_err(|cause| failed(&format!("look for table '{table}'"), cause))?.get(0);
            if is_there {
                let rows = client.query_one(&format!("select exists (select from {table})"), &[]);
                let has_rows: bool = rows.map_err(|cause| failed(&format!("read table '{table}'"), cause))?.get(0);
                if has_rows {
                    return Err(Error::user(format!("write a shop into table '{table}', which has rows"))
                        .hint("drop the tables users, items and purchases, or name another database"));
                }
                done.push(format!("table {table} is there"));
                continue;
            }
            let made = client.batch_execute(&format!(
                "{create}; alter table {table} replica identity full; select setval('{table}_id_seq', {IDS_OF_OTHERS})"
            ));
            made.map_err(|cause| failed(&format!("create table '{table}'"), cause))?;
            done.push(format!("table {table} created, replica identity full"));
        }
        let prepared = STATEMENTS.map(|of_table| of_table.map(|text| client.prepare(text)));
        let prepared = prepared.into_iter().map(|[insert, update, delete]| Ok([insert?, update?, delete?]));
        let statements = prepared.collect::<Result<_, postgres::Error>>();
        let statements = statements.map_err(|cause| failed("prepare statements", cause))?;
        Ok((Postgres { client, statements }, done))
    }
}

impl Target for Postgres {
    fn transaction(&mut self, changes: &[Change]) -> Result<()> {
        let Postgres { client, statements } = self;
        let mut commit = || {
            let mut transaction = client.transaction()?;
            changes
                .iter()
                .try_for_each(|change| apply(&mut transaction, &statements[change.feed() as usize], change))?;
            transaction.commit()
        };
        commit().map_err(|cause| {
            let what = changes.first().map_or(String::new(), |change| {
                format!("{:?} row {} of '{}'", change.op, change.row.id(), change.feed().name())
            });
            Error::outside(format!("write a transaction to Postgres, which begins with: {what}")).because(told(cause))
        })
    }
}

const _: () = assert!(Feed::Users as usize == 0 && Feed::Items as usize == 1 && Feed::Purchases as usize == 2);

fn apply(
    transaction: &mut Transaction<'_>,
    [insert, update, delete]: &[Statement; 3],
    change: &Change,
) -> Result<(), postgres::Error> {
    let statement = match change.op {
        Op::Read | Op::Create => insert,
        Op::Update => update,
        Op::Delete => return transaction.execute(delete, &[&change.row.id()]).map(drop),
    };
    let mut put = |columns: &[&(dyn ToSql + Sync)]| transaction.execute(statement, columns).map(drop);
    match &change.row {
        Row::User(User { id, first_name, last_name, email, created_at, updated_at }) => {
            put(&[id, first_name, last_name, email, &instant(*created_at), &instant(*updated_at)])
        }
        Row::Item(Item { id, name, category, price, inventory, created_at, updated_at }) => {
            let price = price.map(|price| price.text());
            put(&[id, name, category, &price, inventory, &instant(*created_at), &instant(*updated_at)])
        }
        Row::Purchase(row) => {
            let Purchase { id, user_id, item_id, campaign_id, status, quantity, purchase_price, deleted, .. } = row;
            let times = [instant(row.created_at), instant(row.updated_at)];
            let price = purchase_price.text();
            put(&[id, user_id, item_id, campaign_id, status, quantity, &price, deleted, &times[0], &times[1]])
        }
    }
}

fn instant(at: Micros) -> SystemTime {
    let since = Duration::from_micros(at.0.unsigned_abs());
    if at.0 < 0 { UNIX_EPOCH - since } else { UNIX_EPOCH + since }
}

/// What the database says, which its error's own text leaves out.
fn told(error: postgres::Error) -> String {
    error.as_db_error().map_or_else(|| error.to_string(), |said| format!("{}: {}", said.code().code(), said.message()))
}
