//! Data files of which no row is left go with the commit that takes the last one, in both formats, and whatever a rewrite made of them meanwhile.

use super::*;
use crate::compaction::CompactionSettings;
use crate::scan::live_files;

fn opened(folder: &Path, spec: &TableSpec) -> Table {
    warehouse(folder, 1).table(spec).unwrap()
}

/// Commits as the one who writes to the table does.
fn commit(table: &Table, intent: Intent) {
    let outcome = table.commit(&Intent { is_alone: true, ..intent }).unwrap();
    assert!(matches!(outcome, Outcome::Committed(_)), "{outcome:?}");
}

/// Has `places` take the places of rows: commits both, returns where the new ones lie.
fn replace<'a>(table: &Table, epoch: u64, gone: impl IntoIterator<Item = &'a Place>, new: &[Row]) -> Vec<Place> {
    let deletes = table.delete_rows(&dead(gone)).unwrap();
    let (data, places) = written(table, new);
    commit(table, intent(table, epoch, data, deletes));
    places
}

/// Data and delete files of the current snapshot, as they are and as the snapshot says.
fn files(table: &Table) -> (usize, usize) {
    let now = table.metadata();
    let live = live_files(table.session(), &now, now.current_snapshot().map(AsRef::as_ref)).unwrap();
    let data = live.iter().filter(|live| live.is_data()).count();
    let summary = &now.current_snapshot().unwrap().summary().additional_properties;
    let says = |key: &str| summary[key].parse::<usize>().unwrap();
    let found = (data, live.len() - data);
    assert_eq!((says("total-data-files"), says("total-delete-files")), found);
    found
}

fn check_in_both_formats(check: impl Fn(&TableSpec)) {
    check(&users());
    check(&users_of_format_3());
}

#[test]
fn a_file_goes_with_its_last_row() {
    check_in_both_formats(|spec| {
        let folder = tempfile::tempdir().unwrap();
        let table = opened(folder.path(), spec);
        let first = replace(&table, 1, [], &[user(1, "a"), user(2, "b"), user(3, "c")]);
        let second = replace(&table, 2, &first[..1], &[user(1, "A")]);
        assert_eq!(files(&table), (2, 1));
        // The rest of the first file, and all of the second.
        let third = replace(&table, 3, first[1..].iter().chain(&second), &[user(1, "aa"), user(2, "bb")]);
        assert_eq!((files(&table), rows(&table)), ((1, 0), vec![user(1, "aa"), user(2, "bb")]));
        let state = table.state().unwrap();
        assert_eq!((state.rows, state.added, state.deleted), (Some(2), 2, 3));
        // Nothing but rows that die.
        replace(&table, 4, &third, &[]);
        assert_eq!((files(&table), rows(&table)), ((0, 0), vec![]));
        assert_eq!(table.state().unwrap().rows, Some(0));
        replace(&table, 5, [], &[user(7, "g")]);
        assert_eq!((files(&table), rows(&table)), ((1, 0), vec![user(7, "g")]));
    });
}

#[test]
fn a_table_of_which_all_rows_change_stays_one_file() {
    check_in_both_formats(|spec| {
        let folder = tempfile::tempdir().unwrap();
        let table = opened(folder.path(), spec);
        let mut places = Vec::new();
        for epoch in 1..=150 {
            let new = [1, 2, 3].map(|id| user(id, &epoch.to_string()));
            places = replace(&table, epoch, &places, &new);
            assert_eq!(files(&table), (1, 0));
        }
        let now = table.metadata();
        let list = crate::snapshot::manifests(table.session(), &now, now.current_snapshot().map(AsRef::as_ref));
        assert_eq!(table.session().wait(list).unwrap().len(), 1);
    });
}

#[test]
fn where_others_write_too_no_file_goes() {
    let folder = tempfile::tempdir().unwrap();
    let table = opened(folder.path(), &users());
    let places = replace(&table, 1, [], &[user(1, "a")]);
    let deletes = table.delete_rows(&dead(&places)).unwrap();
    table.commit(&intent(&table, 2, vec![], deletes)).unwrap();
    assert_eq!((files(&table), rows(&table)), ((1, 1), vec![]));
}

#[test]
fn deletes_that_name_a_row_twice_take_no_file_away() {
    let folder = tempfile::tempdir().unwrap();
    let table = opened(folder.path(), &users());
    let places = replace(&table, 1, [], &[user(1, "a"), user(2, "b"), user(3, "c")]);
    replace(&table, 2, &places[..1], &[]);
    replace(&table, 3, &places[..1], &[]);
    replace(&table, 4, &places[..1], &[]);
    assert_eq!((files(&table), rows(&table)), ((1, 3), vec![user(2, "b"), user(3, "c")]));
    replace(&table, 5, &places[1..], &[]);
    assert_eq!(files(&table), (0, 0));
}

/// A rewrite is planned, and before it is committed rows change: which of the three first ones.
fn check_rewrite(spec: &TableSpec, changes: &[usize], expected: (usize, usize)) {
    let folder = tempfile::tempdir().unwrap();
    let table = opened(folder.path(), spec);
    let mut places = Vec::new();
    for id in 1..=3 {
        places.extend(replace(&table, id as u64, [], &[user(id, "a")]));
    }
    let planned = table.rewrite(&CompactionSettings { small_files: 3, dead_percent: 100 }).unwrap().unwrap();
    assert_eq!((planned.removed.len(), planned.data.len()), (3, 1));
    let new: Vec<Row> = changes.iter().map(|at| user(*at as i64 + 1, "b")).collect();
    let gone: Vec<&Place> = changes.iter().map(|at| &places[*at]).collect();
    if !new.is_empty() {
        replace(&table, 4, gone, &new);
    }
    // As the index follows: what is not where it was is dead in the new file.
    let mut dies: BTreeMap<Arc<str>, Vec<u64>> = BTreeMap::new();
    for run in &planned.moved {
        for row in 0..run.rows {
            let from = Place { file: run.from.file.clone(), position: run.from.position + row };
            if changes.iter().any(|at| places[*at] == from) {
                dies.entry(run.to.file.clone()).or_default().push(run.to.position + row);
            }
        }
    }
    let purpose = Purpose::Compaction { id: 9 };
    let deletes = table.delete_rows(&dies).unwrap();
    let rewrite = Intent { purpose, removed: planned.removed, ..intent(&table, 4, planned.data, deletes) };
    commit(&table, rewrite.clone());
    let left = (0..3).map(|at| user(at as i64 + 1, if changes.contains(&at) { "b" } else { "a" }));
    assert_eq!((files(&table), rows(&table)), (expected, left.collect()));
    // Once more, after its snapshot is found no longer.
    let current = table.snapshot();
    let unknown = Intent { purpose: Purpose::Compaction { id: 10 }, parent: current, ..rewrite };
    commit(&table, unknown);
    assert_eq!((files(&table), table.snapshot()), (expected, current));
    // A file that came without a living row goes with the next commit.
    let has_dead_file = changes.len() == 3;
    let more = replace(&table, 5, [], &[user(9, "z")]);
    replace(&table, 6, &more, &[]);
    let (data, deletes) = expected;
    assert_eq!(files(&table), if has_dead_file { (data - 1, deletes - 1) } else { expected });
}

#[test]
fn a_rewrite_whose_files_are_gone_is_committed() {
    check_in_both_formats(|spec| {
        check_rewrite(spec, &[], (1, 0));
        check_rewrite(spec, &[1], (2, 1));
        check_rewrite(spec, &[0, 1, 2], (2, 1));
    });
}

#[test]
fn merged_deletes_of_a_file_that_is_gone_are_not_written() {
    check_in_both_formats(|spec| {
        let folder = tempfile::tempdir().unwrap();
        let old = opened(folder.path(), &users());
        let places = replace(&old, 1, [], &[user(1, "a"), user(2, "b"), user(3, "c")]);
        replace(&old, 2, &places[..1], &[]);
        replace(&old, 3, &places[1..2], &[]);
        let planned = old.rewrite(&CompactionSettings { small_files: 2, dead_percent: 100 }).unwrap().unwrap();
        assert_eq!((planned.deletes.merged.len(), planned.removed.len()), (2, 0));
        let table = warehouse(folder.path(), 2).table(spec).unwrap();
        replace(&table, 4, &places[2..], &[user(4, "d")]);
        let purpose = Purpose::Compaction { id: 9 };
        commit(&table, Intent { purpose, ..intent(&table, 4, planned.data, planned.deletes) });
        assert_eq!((files(&table), rows(&table)), ((1, 0), vec![user(4, "d")]));
        replace(&table, 5, [], &[user(5, "e")]);
        assert_eq!(files(&table), (2, 0));
    });
}
