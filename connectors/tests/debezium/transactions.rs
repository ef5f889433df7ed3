//! The transaction topic against the changes themselves: each end counts what really came.

use crate::fixture::{boundaries, decode, messages};
use dataflow_core::Decoded;
use dataflow_core::change::{ChangeEvent, Transaction, transaction_id};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

fn of_dead(transaction: &Value) -> Option<Transaction> {
    let number = |name: &str| transaction[name].as_u64();
    let (order, table_order) = (number("total_order")?, number("data_collection_order")?);
    Some(Transaction { id: transaction_id(transaction["id"].as_str()?).into(), order, table_order })
}

#[test]
fn ends_count_the_changes_of_their_transactions() {
    let mut found: BTreeMap<(String, String), BTreeSet<u64>> = BTreeMap::new();
    for message in messages().into_iter().filter(|message| message.prefix == "dbz" && !message.table.is_empty()) {
        let transaction = match decode(&message) {
            Decoded::Value(ChangeEvent::Change(change)) => change.transaction,
            Decoded::Value(ChangeEvent::Truncate { transaction, .. }) => transaction,
            // One that can not be read counts as well, as another reader tells.
            Decoded::Dead(_) => of_dead(&message.decoded["value"]["transaction"]),
            _ => None,
        };
        if let Some(transaction) = transaction {
            let table = format!("public.{}", message.table);
            found.entry((transaction.id.into(), table)).or_default().insert(transaction.table_order);
        }
    }
    let boundaries = boundaries();
    let mut counted = BTreeMap::new();
    for (id, counts) in boundaries.iter().filter_map(|boundary| boundary.end()) {
        // A message of an application counts under another name, and is no change of a table.
        counted.extend(
            counts
                .filter(|(table, _)| table.starts_with("public."))
                .map(|(table, n)| ((id.to_owned(), table.to_owned()), n)),
        );
    }
    let begun = boundaries.iter().filter(|boundary| boundary.end().is_none());
    assert!(begun.clone().all(|boundary| !transaction_id(&boundary.id).contains(':')));
    assert_eq!(begun.count() * 2, boundaries.len());
    let found: BTreeMap<_, _> = found.into_iter().map(|(key, orders)| (key, orders.len() as u64)).collect();
    assert_eq!(found, counted);
    assert!(counted.len() > 40, "{}", counted.len());
}
