//! Tables of format 3: a data file has one deletion vector, which holds all that is dead, and rows keep their numbers.

use super::*;
use crate::compaction::CompactionSettings;
use crate::scan::{live_deletes, live_files};
use iceberg::spec::{DataFileFormat, FormatVersion};

fn opened(folder: &Path, seed: u64, spec: &TableSpec) -> Table {
    warehouse(folder, seed).table(spec).unwrap()
}

fn commit(table: &Table, intent: &Intent) {
    assert!(matches!(table.commit(intent).unwrap(), Outcome::Committed(_)));
}

/// Commits that the rows at these places die.
fn kill<'a>(table: &Table, epoch: u64, places: impl IntoIterator<Item = &'a Place>) {
    let gone = table.delete_rows(&dead(places)).unwrap();
    commit(table, &intent(table, epoch, vec![], gone));
}

/// A table with two rows, and where they lie.
fn with_two_rows(folder: &Path) -> (Table, Vec<Place>) {
    let table = opened(folder, 1, &users_of_format_3());
    let (data, places) = written(&table, &[user(1, "a"), user(2, "b")]);
    commit(&table, &intent(&table, 1, data, None));
    (table, places)
}

/// The delete files of the current snapshot: of which data file, how many rows, whether it is a vector.
fn deletes(table: &Table) -> Vec<(String, u64, bool)> {
    let now = table.metadata();
    let live = live_deletes(table.session(), &now, now.current_snapshot().map(AsRef::as_ref)).unwrap();
    let told = live.iter().map(|live| {
        let file = live.file();
        (file.referenced_data_file().unwrap(), file.record_count(), file.file_format() == DataFileFormat::Puffin)
    });
    let mut told: Vec<_> = told.collect();
    told.sort();
    told
}

fn says(table: &Table, key: &str) -> Option<String> {
    table.metadata().current_snapshot().unwrap().summary().additional_properties.get(key).cloned()
}

/// The number of the first row of each data file, as the entries and manifests of the current snapshot have it.
fn first_rows(table: &Table) -> BTreeMap<String, Option<i64>> {
    let now = table.metadata();
    let live = live_files(table.session(), &now, now.current_snapshot().map(AsRef::as_ref)).unwrap();
    live.iter()
        .filter(|live| live.is_data())
        .map(|live| (live.file_path().to_owned(), live.file().first_row_id()))
        .collect()
}

#[test]
fn a_data_file_has_one_vector() {
    let folder = tempfile::tempdir().unwrap();
    let table = opened(folder.path(), 1, &users_of_format_3());
    assert_eq!(table.metadata().format_version(), FormatVersion::V3);
    let (data, places) = written(&table, &[user(1, "a"), user(2, "b"), user(3, "c")]);
    commit(&table, &intent(&table, 1, data, None));
    let first = places[0].file.to_string();
    // Two workers, each with rows of the same file.
    let mut both = table.delete_rows(&dead([&places[0]])).unwrap();
    both.append(table.delete_rows(&dead([&places[1], &places[0]])).unwrap());
    let (data, others) = written(&table, &[user(1, "A"), user(2, "B")]);
    commit(&table, &intent(&table, 2, data, both));
    assert_eq!(deletes(&table), [(first.clone(), 2, true)]);
    assert_eq!(rows(&table), [user(1, "A"), user(2, "B"), user(3, "c")]);
    for (key, value) in
        [("added-dvs", "1"), ("added-delete-files", "1"), ("total-delete-files", "1"), ("total-position-deletes", "2")]
    {
        assert_eq!(says(&table, key).as_deref(), Some(value), "{key}");
    }
    assert_eq!(says(&table, "added-position-delete-files"), None);
    // The next takes its place, in another process too, which has none of them in memory.
    let other = opened(folder.path(), 2, &users_of_format_3());
    kill(&other, 3, [&places[2], &others[0]]);
    assert_eq!(rows(&other), [user(2, "B")]);
    let mut expected = vec![(first, 3, true), (others[0].file.to_string(), 1, true)];
    expected.sort();
    assert_eq!(deletes(&other), expected);
    assert_eq!(says(&other, "removed-dvs").as_deref(), Some("1"));
    assert_eq!(says(&other, "total-delete-files").as_deref(), Some("2"));
    let state = other.state().unwrap();
    assert_eq!((state.rows, state.deleted), (Some(1), 2));
    let keys: Vec<Row> = other.scan_keys(other.snapshot().unwrap()).unwrap().map(|found| found.unwrap().0).collect();
    assert_eq!(keys, [key(2)]);
}

#[test]
fn rows_keep_their_numbers_in_other_manifests() {
    let folder = tempfile::tempdir().unwrap();
    let table = opened(folder.path(), 1, &users_of_format_3());
    for epoch in 1..=3 {
        let (data, _) = written(&table, &[user(epoch, "a"), user(epoch + 10, "b")]);
        commit(&table, &intent(&table, epoch as u64, data, None));
    }
    assert_eq!(table.metadata().next_row_id(), 6);
    // Two files of one manifest, the first of which goes.
    let (data, _) = written(&table, &[user(2, "a"), user(12, "b"), user(20, "c"), user(21, "d")]);
    let both = intent(&table, 4, [data, written(&table, &[user(22, "e")]).0].concat(), None);
    commit(&table, &both);
    let numbers = |files: &[&NewFile]| files.iter().map(|file| first_rows(&table)[&file.path]).collect::<Vec<_>>();
    // Inherited, as nobody has written the manifest anew.
    assert_eq!(numbers(&[&both.data[0], &both.data[1]]), [None, None]);
    let rewritten = Intent {
        purpose: Purpose::Compaction { id: 1 },
        removed: vec![both.data[0].path.clone()],
        ..intent(&table, 4, written(&table, &[user(2, "a"), user(12, "b"), user(20, "c"), user(21, "d")]).0, None)
    };
    commit(&table, &rewritten);
    // The fifth row of its manifest, which began at the seventh of the table.
    assert_eq!(numbers(&[&both.data[1]]), [Some(10)]);
    assert_eq!(rows(&table).len(), 11);
}

#[test]
fn a_table_is_upgraded() {
    let folder = tempfile::tempdir().unwrap();
    let old = opened(folder.path(), 1, &users());
    let (data, places) = written(&old, &[user(1, "a"), user(2, "b"), user(3, "c"), user(4, "d"), user(5, "e")]);
    commit(&old, &intent(&old, 1, data, None));
    kill(&old, 2, [&places[0]]);
    // Written in format 2, and still waiting when the table is upgraded.
    let waiting = intent(&old, 3, vec![], old.delete_rows(&dead([&places[1]])).unwrap());
    let table = opened(folder.path(), 2, &users_of_format_3());
    assert_eq!(table.metadata().format_version(), FormatVersion::V3);
    let file = places[0].file.to_string();
    assert_eq!(deletes(&table), [(file.clone(), 1, false)]);
    assert_eq!(rows(&table).len(), 4);
    commit(&table, &waiting);
    assert_eq!(deletes(&table), [(file.clone(), 2, true)]);
    kill(&table, 4, [&places[3]]);
    assert_eq!(deletes(&table), [(file, 3, true)]);
    assert_eq!(rows(&table), [user(3, "c"), user(5, "e")]);
    // A job that asks for format 2 goes on in format 3.
    let again = opened(folder.path(), 3, &users());
    assert_eq!(again.metadata().format_version(), FormatVersion::V3);
    append(&again, 5, &[user(6, "f")]);
    assert_eq!(rows(&again), [user(3, "c"), user(5, "e"), user(6, "f")]);
}

/// Delete files are merged by a rewrite, in which format; before it is committed others of their data file are put into its vector.
fn check_merge_over_an_upgrade(planned: &TableSpec) {
    let folder = tempfile::tempdir().unwrap();
    let old = opened(folder.path(), 1, &users());
    let (data, places) = written(&old, &[user(1, "a"), user(2, "b"), user(3, "c"), user(4, "d")]);
    commit(&old, &intent(&old, 1, data, None));
    kill(&old, 2, [&places[0]]);
    kill(&old, 3, [&places[1]]);
    let planner = opened(folder.path(), 2, planned);
    let rewritten = planner.rewrite(&CompactionSettings { small_files: 2, dead_percent: 100 }).unwrap().unwrap();
    assert_eq!((rewritten.deletes.merged.len(), rewritten.removed.len()), (2, 0));
    let table = opened(folder.path(), 3, &users_of_format_3());
    let file = places[0].file.to_string();
    assert_eq!(deletes(&table), [(file.clone(), 1, false), (file.clone(), 1, false)]);
    kill(&table, 4, [&places[2]]);
    assert_eq!(deletes(&table), [(file.clone(), 3, true)]);
    let purpose = Purpose::Compaction { id: 7 };
    commit(&table, &Intent { purpose, ..intent(&table, 4, rewritten.data, rewritten.deletes) });
    assert_eq!(deletes(&table), [(file, 3, true)]);
    assert_eq!(rows(&table), [user(4, "d")]);
}

#[test]
fn deletes_are_merged_over_an_upgrade() {
    check_merge_over_an_upgrade(&users());
    check_merge_over_an_upgrade(&users_of_format_3());
}

#[test]
fn vectors_go_with_their_data_file() {
    let folder = tempfile::tempdir().unwrap();
    let (table, places) = with_two_rows(folder.path());
    let (data, others) = written(&table, &[user(3, "c"), user(4, "d"), user(5, "e")]);
    let gone = table.delete_rows(&dead([&places[0]])).unwrap();
    commit(&table, &intent(&table, 2, data, gone));
    kill(&table, 3, [&others[0]]);
    assert_eq!(deletes(&table).len(), 2);
    let rewritten = table.rewrite(&CompactionSettings { small_files: 9, dead_percent: 40 }).unwrap().unwrap();
    assert_eq!(rewritten.removed, [places[0].file.as_ref()]);
    let purpose = Purpose::Compaction { id: 7 };
    let rewrite =
        Intent { purpose, removed: rewritten.removed, ..intent(&table, 3, rewritten.data, rewritten.deletes) };
    commit(&table, &rewrite);
    assert_eq!(deletes(&table), [(others[0].file.to_string(), 1, true)]);
    assert_eq!(rows(&table), [user(2, "b"), user(4, "d"), user(5, "e")]);
    assert_eq!(table.state().unwrap().rows, Some(3));
}

#[test]
fn a_damaged_vector_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let (table, places) = with_two_rows(folder.path());
    kill(&table, 2, [&places[0]]);
    let now = table.metadata();
    let live = live_deletes(table.session(), &now, now.current_snapshot().map(AsRef::as_ref)).unwrap();
    let path = live[0].file_path().strip_prefix("file://").unwrap().to_owned();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[20] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let error = table.scan(table.snapshot().unwrap()).unwrap().find_map(Result::err).unwrap();
    assert!(error.to_string().contains("checksum"), "{error}");
}
