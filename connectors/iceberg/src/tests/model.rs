//! Random upserts and deletes against a `BTreeMap`: the keys that a scan finds, and where, are those of the index that the writer kept.

use super::*;
use crate::{PartitionBy, Transform};
use proptest::prelude::*;

/// For each epoch, keys with their new names; no name is a delete.
fn epochs() -> impl Strategy<Value = Vec<BTreeMap<i64, Option<String>>>> {
    let change = (0..12_i64, proptest::option::of("[a-c]{0,2}"));
    let epoch = proptest::collection::vec(change, 1..8).prop_map(|changes| changes.into_iter().collect());
    proptest::collection::vec(epoch, 1..7)
}

#[derive(Default)]
struct Index(BTreeMap<i64, (String, Place)>);

impl Index {
    /// Applies one epoch; the rows that are written and the places that die.
    fn plan(&self, epoch: &BTreeMap<i64, Option<String>>) -> (Vec<Row>, Vec<Place>) {
        let written = epoch.iter().filter_map(|(id, name)| Some(user(*id, name.as_deref()?))).collect();
        (written, epoch.keys().filter_map(|id| self.0.get(id)).map(|(_, place)| place.clone()).collect())
    }

    fn apply(&mut self, epoch: &BTreeMap<i64, Option<String>>, places: Vec<Place>) {
        let mut places = places.into_iter();
        for (id, name) in epoch {
            match name {
                Some(name) => self.0.insert(*id, (name.clone(), places.next().unwrap())),
                None => self.0.remove(id),
            };
        }
    }
}

fn check(epochs: &[BTreeMap<i64, Option<String>>], spec: TableSpec, is_alone: bool) {
    let folder = tempfile::tempdir().unwrap();
    let table = warehouse(folder.path(), 1).table(&spec).unwrap();
    let mut index = Index::default();
    for (number, epoch) in (1..).zip(epochs) {
        let (new, dying) = index.plan(epoch);
        let (data, places) = written(&table, &new);
        let deletes = table.delete_rows(&dead(&dying)).unwrap();
        index.apply(epoch, places);
        if data.is_empty() && deletes.is_empty() {
            continue;
        }
        let outcome = table.commit(&Intent { is_alone, ..intent(&table, number, data, deletes) }).unwrap();
        assert!(matches!(outcome, Outcome::Committed(_)), "{outcome:?}");
    }
    let expected: BTreeMap<Row, Place> = index.0.iter().map(|(id, (_, place))| (key(*id), place.clone())).collect();
    let scanned = table.snapshot().map(|at| table.scan_keys(at).unwrap().map(Result::unwrap).collect::<Vec<_>>());
    let scanned = scanned.unwrap_or_default();
    assert_eq!(scanned.len(), expected.len());
    assert_eq!(scanned.into_iter().collect::<BTreeMap<_, _>>(), expected);
    let names: Vec<Row> = index.0.iter().map(|(id, (name, _))| user(*id, name)).collect();
    assert_eq!(rows(&table), names);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn a_scan_of_keys_is_the_index(epochs in epochs(), is_partitioned: bool, is_of_format_3: bool, is_alone: bool) {
        let by = PartitionBy { column: "name".to_owned(), transform: Transform::Truncate(1) };
        let spec = if is_of_format_3 { users_of_format_3() } else { users() };
        check(&epochs, TableSpec { partition: if is_partitioned { vec![by] } else { vec![] }, ..spec }, is_alone);
    }
}
