//! An intent goes in exactly once, or not at all with the reason.

use super::*;
use crate::catalog::CommitError;
use crate::scan::live_deletes;
use crate::{Changes, Committed, DeletionVector, Foreign, Keep};
use dataflow_core::Fault;

fn committed(outcome: Outcome) -> Committed {
    match outcome {
        Outcome::Committed(done) => done,
        Outcome::Foreign(foreign) => panic!("{foreign:?}"),
    }
}

#[test]
fn a_repeated_intent_commits_once() {
    let folder = tempfile::tempdir().unwrap();
    let table = warehouse(folder.path(), 1).table(&users()).unwrap();
    let (data, _) = written(&table, &[user(1, "a")]);
    let first = intent(&table, 1, data, None);
    let done = committed(table.commit(&first).unwrap());
    assert!(done.is_new);
    assert_eq!((done.snapshot, done.epoch), (table.snapshot(), 1));
    let again = committed(table.commit(&first).unwrap());
    assert!(!again.is_new);
    assert_eq!(again.snapshot, done.snapshot);
    // Also after later commits, and in another process.
    append(&table, 2, &[user(2, "b")]);
    let other = warehouse(folder.path(), 2).table(&users()).unwrap();
    assert_eq!(committed(other.commit(&first).unwrap()).snapshot, done.snapshot);
    assert_eq!(rows(&other), [user(1, "a"), user(2, "b")]);
    assert_eq!(other.marker().unwrap(), Some(marker(2)));
}

#[test]
fn an_upsert_is_one_snapshot() {
    let folder = tempfile::tempdir().unwrap();
    let table = warehouse(folder.path(), 1).table(&users()).unwrap();
    let (data, places) = written(&table, &[user(1, "a"), user(2, "b"), user(3, "c")]);
    table.commit(&intent(&table, 1, data, None)).unwrap();
    let deletes = table.delete_rows(&dead([&places[1], &places[2], &places[1]])).unwrap();
    assert_eq!(deletes.dead.values().map(DeletionVector::len).sum::<u64>(), 2);
    let (data, _) = written(&table, &[user(2, "B")]);
    table.commit(&intent(&table, 2, data, deletes)).unwrap();
    assert_eq!(rows(&table), [user(1, "a"), user(2, "B")]);
    let metadata = table.metadata();
    let summary = &metadata.current_snapshot().unwrap().summary().additional_properties;
    for (key, value) in [
        ("added-records", "1"),
        ("total-records", "4"),
        ("added-position-deletes", "2"),
        ("total-position-deletes", "2"),
        ("total-data-files", "2"),
        ("total-delete-files", "1"),
        ("dataflow.epoch", "2"),
        ("dataflow.first-epoch", "2"),
    ] {
        assert_eq!(summary.get(key).map(String::as_str), Some(value), "{key}");
    }
    // The bounds of a delete file's paths are whole.
    let live = live_deletes(table.session(), &metadata, metadata.current_snapshot().map(AsRef::as_ref)).unwrap();
    let bound = &live[0].file().lower_bounds()[&crate::deletes::FILE_PATH_ID];
    assert_eq!(bound.to_string(), format!("\"{}\"", places[0].file));
    assert_eq!(live[0].file().referenced_data_file().as_deref(), Some(places[0].file.as_ref()));
}

#[test]
fn deletes_may_speak_of_files_that_wait() {
    let folder = tempfile::tempdir().unwrap();
    let first = warehouse(folder.path(), 1).table(&users()).unwrap();
    let (data, places) = written(&first, &[user(1, "a"), user(2, "b")]);
    let one = intent(&first, 1, data, None);
    // A new process restores the intent and goes on from there.
    let table = warehouse(folder.path(), 2).table(&users()).unwrap();
    assert!(table.delete_rows(&dead([&places[0]])).is_err());
    table.note(&one.data).unwrap();
    let deletes = table.delete_rows(&dead([&places[0]])).unwrap();
    let two = intent(&table, 2, vec![], deletes);
    assert_eq!(two.parent, None);
    committed(table.commit(&one).unwrap());
    committed(table.commit(&two).unwrap());
    assert_eq!(rows(&table), [user(2, "b")]);
}

#[test]
fn others_are_kept_out() {
    let folder = tempfile::tempdir().unwrap();
    let table = warehouse(folder.path(), 1).table(&users()).unwrap();
    append(&table, 1, &[user(1, "a")]);
    let (data, _) = written(&table, &[user(2, "b")]);
    let ours = intent(&table, 2, data, None);
    let check = |change: &dyn Fn(&mut Intent), fault| {
        let mut other = ours.clone();
        change(&mut other);
        let error = table.commit(&other).err().unwrap();
        assert_eq!(error.fault, fault, "{error}");
        assert!(error.hint.is_some(), "{error}");
    };
    check(&|i| i.marker.lineage = Lineage(1), Fault::Doubt);
    check(&|i| i.marker.generation.nonce = 12, Fault::Fenced);
    check(&|i| i.marker.generation.number = 0, Fault::Fenced);
    check(&|i| i.first_epoch = 1, Fault::Doubt);
    check(&|i| (i.first_epoch, i.marker) = (1, Marker { chain: ChainHash([9; 16]), ..marker(1) }), Fault::Doubt);
    check(&|i| i.table = uuid::Uuid::nil(), Fault::Doubt);
    check(&|i| i.parent = Some(77), Fault::Doubt);
    assert_eq!(table.commit(&Intent { data: vec![], ..ours.clone() }).err().unwrap().fault, Fault::Us);

    // A newer generation takes over before it has anything to commit.
    let newer = Generation { number: 2, nonce: 5 };
    let claimed = warehouse(folder.path(), 2).table(&users()).unwrap().claim(Lineage(0xabc), newer).unwrap();
    assert_eq!(claimed, Marker { generation: newer, ..marker(1) });
    assert_eq!(table.commit(&ours).err().unwrap().fault, Fault::Fenced);
    assert_eq!(table.claim(Lineage(0xabc), marker(1).generation).err().unwrap().fault, Fault::Fenced);
    assert_eq!(table.marker().unwrap(), Some(claimed));
    let mut restored = ours.clone();
    restored.marker.generation = newer;
    committed(table.commit(&restored).unwrap());
    assert_eq!(rows(&table), [user(1, "a"), user(2, "b")]);
}

#[test]
fn a_claim_of_a_new_table_holds() {
    let folder = tempfile::tempdir().unwrap();
    let table = warehouse(folder.path(), 1).table(&users()).unwrap();
    let generation = Generation { number: 2, nonce: 5 };
    let claimed = table.claim(Lineage(0xabc), generation).unwrap();
    assert_eq!((claimed.epoch, claimed.generation), (0, generation));
    assert_eq!(table.claim(Lineage(0xabc), generation).unwrap(), claimed);
    assert_eq!(table.snapshot(), None);
    assert_eq!(table.claim(Lineage(1), generation).err().unwrap().fault, Fault::Doubt);
}

#[test]
fn a_rollback_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let table = warehouse(folder.path(), 1).table(&users()).unwrap();
    append(&table, 1, &[user(1, "a")]);
    let first = table.snapshot().unwrap();
    append(&table, 2, &[user(2, "b")]);
    let second = table.snapshot().unwrap();
    let (data, _) = written(&table, &[user(3, "c")]);
    let third = intent(&table, 3, data, None);
    rolled_back(&table, first);
    let error = table.commit(&third).err().unwrap();
    assert_eq!(error.fault, Fault::Doubt);
    assert!(error.to_string().contains("rolled back"), "{error}");
    assert!(table.marker().is_err());
    // Forked: another program went on from the older snapshot, and the job's property is gone with it.
    let (data, _) = written(&table, &[user(9, "z")]);
    foreign(&table, Operation::Append, &data, &[]);
    assert_eq!(table.commit(&third).err().unwrap().fault, Fault::Doubt);
    assert_eq!(table.changes_since(second).unwrap(), Changes::Untold);
    // Set right again, the intent goes in.
    rolled_back(&table, second);
    committed(table.commit(&third).unwrap());
    assert_eq!(rows(&table), [user(1, "a"), user(2, "b"), user(3, "c")]);
}

#[test]
fn a_foreign_snapshot_stops_deletes_and_no_append() {
    let folder = tempfile::tempdir().unwrap();
    let table = warehouse(folder.path(), 1).table(&users()).unwrap();
    let (data, places) = written(&table, &[user(1, "a"), user(2, "b")]);
    table.commit(&intent(&table, 1, data, None)).unwrap();
    let parent = table.snapshot();
    let (data, _) = written(&table, &[user(3, "c")]);
    let adds = intent(&table, 2, data, None);
    let deletes = table.delete_rows(&dead([&places[0]])).unwrap();
    let kills = intent(&table, 3, vec![], deletes);

    let (theirs, their_places) = written(&table, &[user(8, "y"), user(9, "z")]);
    foreign(&table, Operation::Append, &theirs, &[]);
    committed(table.commit(&adds).unwrap());
    let current = table.snapshot();
    assert_eq!(table.commit(&kills).unwrap(), Outcome::Foreign(Foreign { parent, current }));
    assert_eq!(table.marker().unwrap(), Some(marker(2)));

    // The sink learns what came, and plans anew.
    let Changes::Known(changes) = table.changes_since(parent.unwrap()).unwrap() else {
        panic!("the snapshot is there")
    };
    assert_eq!(changes.added.len(), 2);
    assert!(changes.removed.is_empty() && changes.deleted.is_empty());
    let found = table.scan_keys_of(current.unwrap(), std::slice::from_ref(&their_places[0].file)).unwrap();
    let found: Vec<(Row, Place)> = found.map(Result::unwrap).collect();
    assert_eq!(found, [(key(8), their_places[0].clone()), (key(9), their_places[1].clone())]);
    let deletes = table.delete_rows(&dead([&places[0], &their_places[1]])).unwrap();
    committed(table.commit(&intent(&table, 3, vec![], deletes)).unwrap());
    assert_eq!(rows(&table), [user(2, "b"), user(3, "c"), user(8, "y")]);
    let Changes::Known(changes) = table.changes_since(current.unwrap()).unwrap() else {
        panic!("the snapshot is there")
    };
    assert_eq!(changes.deleted, dead([&places[0], &their_places[1]]));
}

#[test]
fn a_foreign_rewrite_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let table = warehouse(folder.path(), 1).table(&users()).unwrap();
    let (data, places) = written(&table, &[user(1, "a"), user(2, "b")]);
    table.commit(&intent(&table, 1, data, None)).unwrap();
    let deletes = table.delete_rows(&dead([&places[0]])).unwrap();
    table.commit(&intent(&table, 2, vec![], deletes)).unwrap();
    let before = table.snapshot().unwrap();
    let (theirs, _) = written(&table, &[user(2, "b")]);
    foreign(&table, Operation::Replace, &theirs, &[&places[0].file]);
    // The delete file went with the data file that it spoke of.
    assert_eq!(rows(&table), [user(2, "b")]);
    let metadata = table.metadata();
    let summary = &metadata.current_snapshot().unwrap().summary().additional_properties;
    assert_eq!(summary["total-records"], "1");
    assert_eq!(summary["total-delete-files"], "0");
    let Changes::Known(changes) = table.changes_since(before).unwrap() else { panic!("the snapshot is there") };
    assert_eq!(changes.added, [Arc::<str>::from(theirs[0].path.as_str())]);
    assert_eq!(changes.removed, std::slice::from_ref(&places[0].file));
}

#[test]
fn a_compaction_commits_on_its_parent_alone() {
    let folder = tempfile::tempdir().unwrap();
    let table = warehouse(folder.path(), 1).table(&users()).unwrap();
    append(&table, 1, &[user(1, "a")]);
    append(&table, 2, &[user(2, "b")]);
    let parent = table.snapshot().unwrap();
    let old: Vec<String> = {
        let files: BTreeSet<Arc<str>> = table.scan(parent).unwrap().map(|row| row.unwrap().1.file).collect();
        files.iter().map(|path| path.to_string()).collect()
    };
    let (data, _) = written(&table, &[user(1, "a"), user(2, "b")]);
    let purpose = Purpose::Compaction { id: 99 };
    let rewrite = Intent { purpose, removed: old, first_epoch: 2, ..intent(&table, 2, data, None) };
    let done = committed(table.commit(&rewrite).unwrap());
    assert!(done.is_new);
    assert!(!committed(table.commit(&rewrite).unwrap()).is_new);
    assert_eq!(rows(&table), [user(1, "a"), user(2, "b")]);
    assert_eq!(table.marker().unwrap(), Some(marker(2)));
    append(&table, 3, &[user(3, "c")]);
    let late = Intent { purpose: Purpose::Compaction { id: 100 }, ..rewrite };
    assert!(matches!(table.commit(&late).unwrap(), Outcome::Foreign(_)));
}

#[test]
fn what_has_expired_is_known_by_the_property() {
    let folder = tempfile::tempdir().unwrap();
    let table = warehouse(folder.path(), 1).table(&users()).unwrap();
    let (data, places) = written(&table, &[user(1, "a")]);
    let first = intent(&table, 1, data, None);
    table.commit(&first).unwrap();
    let old = table.snapshot().unwrap();
    let (theirs, _) = written(&table, &[user(9, "z")]);
    foreign(&table, Operation::Append, &theirs, &[]);
    expired(&table, vec![old]);
    assert_eq!(table.marker().unwrap(), Some(marker(1)));
    let again = committed(table.commit(&first).unwrap());
    assert_eq!((again.snapshot, again.is_new), (None, false));
    // What was on top of it goes in if it only adds.
    table.refresh().unwrap();
    let (data, _) = written(&table, &[user(2, "b")]);
    let adds = Intent { parent: Some(old), ..intent(&table, 2, data, None) };
    let deletes = table.delete_rows(&dead([&places[0]])).unwrap();
    let kills = Intent { parent: Some(old), ..intent(&table, 3, vec![], deletes) };
    committed(table.commit(&adds).unwrap());
    assert!(matches!(table.commit(&kills).unwrap(), Outcome::Foreign(_)));
    assert_eq!(table.changes_since(old).unwrap(), Changes::Untold);
    assert_eq!(rows(&table), [user(1, "a"), user(2, "b"), user(9, "z")]);
}

#[test]
fn many_commits_keep_few_manifests() {
    let folder = tempfile::tempdir().unwrap();
    let table = warehouse(folder.path(), 1).table(&users()).unwrap();
    let mut last = None;
    for epoch in 1..=130 {
        let (data, places) = written(&table, &[user(epoch, "a")]);
        let deletes = last.iter().map(|place| table.delete_rows(&dead([place])).unwrap()).next().unwrap_or_default();
        table.commit(&intent(&table, epoch as u64, data, deletes)).unwrap();
        last = places.into_iter().next();
    }
    assert_eq!(rows(&table), [user(130, "a")]);
    let metadata = table.metadata();
    let list = table.session().wait(crate::snapshot::manifests(
        table.session(),
        &metadata,
        metadata.current_snapshot().map(AsRef::as_ref),
    ));
    assert!(list.unwrap().len() < 100);
    let summary = &metadata.current_snapshot().unwrap().summary().additional_properties;
    assert_eq!((summary["total-data-files"].as_str(), summary["total-delete-files"].as_str()), ("130", "129"));
}

#[test]
fn what_others_have_under_way_is_shut_out() {
    let folder = tempfile::tempdir().unwrap();
    let house = warehouse(folder.path(), 1);
    let table = house.table(&users()).unwrap();
    append(&table, 1, &[user(1, "a")]);
    let (data, _) = written(&table, &[user(2, "b")]);
    let (old, second) = (table.metadata(), intent(&table, 2, data, None));
    let generation = Generation { number: 9, nonce: 9 };
    house.shut_out_others(table.name(), marker(1).lineage, generation).unwrap();
    house.shut_out_others(table.name(), marker(1).lineage, generation).unwrap();
    assert_eq!(house.marker(table.name()).unwrap(), Some(Marker { generation, ..marker(1) }));
    let under_way = table.catalog().commit(table.name(), &requirements(&old), Vec::new());
    assert!(matches!(under_way, Err(CommitError::Conflict(_))), "{under_way:?}");
    assert_eq!(table.commit(&second).unwrap_err().fault, Fault::Fenced);
    committed(table.commit(&Intent { marker: Marker { generation, ..marker(2) }, ..second }).unwrap());
    assert_eq!(rows(&table), [user(1, "a"), user(2, "b")]);
    assert_eq!(table.metadata().snapshots().len(), 3, "one fence");
}

#[test]
fn what_others_changed_is_seen_until_this_job_commits_again() {
    let folder = tempfile::tempdir().unwrap();
    let house = warehouse(folder.path(), 1);
    let table = house.table(&users()).unwrap();
    let (lineage, generation) = (marker(1).lineage, Generation { number: 9, nonce: 9 });
    let is_changed = || house.found(table.name(), lineage).unwrap().is_changed_by_others;
    assert!(!is_changed(), "an empty table");
    append(&table, 1, &[user(1, "a")]);
    assert!(!is_changed());
    house.shut_out_others(table.name(), lineage, generation).unwrap();
    assert!(!is_changed(), "a fence is ours");
    let (theirs, _) = written(&table, &[user(1, "again")]);
    foreign(&table, Operation::Append, &theirs, &[]);
    assert!(is_changed());
    house.shut_out_others(table.name(), lineage, generation).unwrap();
    assert!(is_changed(), "a fence is over it");
    table.expire(&Keep { newest: 0, since_ms: i64::MAX, from_epoch: 2, named: BTreeSet::new() }).unwrap();
    assert!(table.metadata().snapshots().len() == 1 && is_changed(), "the fence alone is left");
    table.refresh().unwrap();
    let (data, _) = written(&table, &[user(2, "b")]);
    let ours = Intent { marker: Marker { generation, ..marker(2) }, ..intent(&table, 2, data, None) };
    committed(table.commit(&ours).unwrap());
    assert!(!is_changed());
}

#[test]
fn one_that_is_to_be_alone_goes_on_nothing_of_others() {
    let folder = tempfile::tempdir().unwrap();
    let table = warehouse(folder.path(), 1).table(&users()).unwrap();
    append(&table, 1, &[user(1, "a")]);
    let (data, _) = written(&table, &[user(2, "b")]);
    let alone = Intent { is_alone: true, ..intent(&table, 2, data, None) };
    let (theirs, _) = written(&table, &[user(2, "theirs")]);
    foreign(&table, Operation::Append, &theirs, &[]);
    assert!(matches!(table.commit(&alone).unwrap(), Outcome::Foreign(_)));
    committed(table.commit(&Intent { is_alone: false, ..alone }).unwrap());
}
