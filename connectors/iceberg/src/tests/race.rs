//! Two at once, and answers that get lost: on one table, no commit is lost and none is doubled.

use super::*;
use crate::Committed;
use crate::catalog::{Catalog, CommitError};
use iceberg::{TableCreation, TableRequirement};
use std::thread;

const COMMITS: u64 = 40;

/// A process and its not yet dead predecessor bring the same epochs in, each with files of its own.
#[test]
fn of_two_that_commit_the_same_epochs_one_wins_each() {
    let folder = tempfile::tempdir().unwrap();
    warehouse(folder.path(), 1).table(&users()).unwrap();
    let life = |seed: u64| {
        let table = warehouse(folder.path(), seed).table(&users()).unwrap();
        let mut new = 0;
        for epoch in 1..=COMMITS {
            table.refresh().unwrap();
            match append(&table, epoch, &[user(epoch as i64, "x")]) {
                Outcome::Committed(done) => new += u64::from(done.is_new),
                Outcome::Foreign(foreign) => panic!("{foreign:?}"),
            }
        }
        new
    };
    let new: u64 = thread::scope(|scope| {
        let lives = [2, 3].map(|seed| scope.spawn(move || life(seed)));
        lives.map(|life| life.join().unwrap()).iter().sum()
    });
    let table = warehouse(folder.path(), 4).table(&users()).unwrap();
    assert_eq!(rows(&table), (1..=COMMITS as i64).map(|id| user(id, "x")).collect::<Vec<_>>());
    assert_eq!(table.marker().unwrap(), Some(marker(COMMITS)));
    assert_eq!(new, COMMITS);
}

/// Programs that know nothing of each other: each commit that was acknowledged is in the table, and no other.
#[test]
fn of_two_that_swap_none_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    warehouse(folder.path(), 1).table(&users()).unwrap();
    let life = |seed: u64| {
        let table = warehouse(folder.path(), seed).table(&users()).unwrap();
        for n in 0..COMMITS / 2 {
            let (data, _) = written(&table, &[user((seed * 1_000 + n) as i64, "x")]);
            loop {
                table.refresh().unwrap();
                let now = table.metadata();
                let added = data.iter().map(|file| file.entry(&now).unwrap()).collect();
                let change = Change { added, ..Change::empty(Operation::Append, Properties::new()) };
                let (_, updates) = prepare(table.session(), &now, &change).unwrap();
                match table.catalog().commit(table.name(), &requirements(&now), updates) {
                    Ok(_) => break,
                    Err(CommitError::Conflict(_)) => {}
                    Err(other) => panic!("{other:?}"),
                }
            }
        }
    };
    let life = &life;
    thread::scope(|scope| {
        for life in [2, 3].map(|seed| scope.spawn(move || life(seed))) {
            life.join().unwrap();
        }
    });
    let table = warehouse(folder.path(), 4).table(&users()).unwrap();
    let all = [2, 3].iter().flat_map(|seed| (0..COMMITS as i64 / 2).map(move |n| user(seed * 1_000 + n, "x")));
    assert_eq!(rows(&table), all.collect::<Vec<_>>());
    assert_eq!(table.metadata().snapshots().len() as u64, COMMITS);
}

/// A catalog whose answers get lost: the first commit before it is made, the second after it was.
struct Lossy<'a> {
    inner: &'a dyn Catalog,
    calls: AtomicU64,
}

impl Catalog for Lossy<'_> {
    fn create_namespace(&self, namespace: &[String]) -> dataflow_core::Result<()> {
        self.inner.create_namespace(namespace)
    }

    fn create_table(&self, table: &TableName, creation: TableCreation) -> dataflow_core::Result<Option<Loaded>> {
        self.inner.create_table(table, creation)
    }

    fn load(&self, table: &TableName) -> dataflow_core::Result<Option<Loaded>> {
        self.inner.load(table)
    }

    fn commit(
        &self,
        table: &TableName,
        requirements: &[TableRequirement],
        updates: Vec<TableUpdate>,
    ) -> Result<Loaded, CommitError> {
        if self.calls.fetch_add(1, Ordering::Relaxed) > 0 {
            self.inner.commit(table, requirements, updates)?;
        }
        Err(CommitError::Unknown("the answer is lost".to_owned()))
    }
}

#[test]
fn a_commit_whose_answer_is_lost_is_made_once() {
    let folder = tempfile::tempdir().unwrap();
    let table = warehouse(folder.path(), 1).table(&users()).unwrap();
    for epoch in 1..=3 {
        table.refresh().unwrap();
        let (data, _) = written(&table, &[user(epoch, "x")]);
        let intent = intent(&table, epoch as u64, data, None);
        let lossy = Lossy { inner: table.catalog(), calls: AtomicU64::new(0) };
        let nothing_dies = |_: &iceberg::spec::TableMetadata, _: &Intent, _: &mut Change| Ok(());
        let outcome = crate::commit::commit(table.session(), &lossy, table.name(), &intent, false, nothing_dies);
        let (now, outcome) = outcome.unwrap();
        let snapshot = now.metadata.current_snapshot_id();
        let done = Committed { snapshot, epoch: epoch as u64, is_new: true, attempts: 2 };
        assert_eq!(outcome, Outcome::Committed(done));
        assert_eq!(now.metadata.snapshots().len() as i64, epoch);
    }
    assert_eq!(rows(&table), [1, 2, 3].map(|id| user(id, "x")));
}
