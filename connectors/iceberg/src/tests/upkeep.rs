//! What keeps tables small takes nothing that anybody still needs: snapshots, files, names.

use super::*;
use crate::compaction::CompactionSettings;
use crate::{IcebergSink, Keep, MaintenanceSettings, SinkSettings};
use dataflow_core::{
    Fault, Restorable, RowLocation, ScanColumns, SinkIdentity, TableChanges, TableCommit, TableCommitter,
    TableCompactor, TableFiles, TableRewrite, TableSink, TableWriter,
};
use iceberg::spec::{FormatVersion, Struct, StructType, deserialize_data_file_from_json, serialize_data_file_to_json};

const TABLE: &str = "shop.silver.users";

/// Every file of a table.
fn files(table: &Table) -> BTreeSet<String> {
    let folder = table.metadata().location().strip_prefix("file://").unwrap().to_owned();
    let mut files = BTreeSet::new();
    for part in ["data", "metadata"] {
        let entries = std::fs::read_dir(Path::new(&folder).join(part)).into_iter().flatten();
        files.extend(entries.map(|entry| entry.unwrap().path().display().to_string()));
    }
    files
}

fn count(table: &Table, end: &str) -> usize {
    files(table).iter().filter(|file| file.ends_with(end)).count()
}

fn keep(newest: usize, from_epoch: u64, named: &[i64]) -> Keep {
    Keep { newest, since_ms: i64::MAX, from_epoch, named: named.iter().copied().collect() }
}

fn epochs_of(table: &Table) -> Vec<u64> {
    let now = table.metadata();
    let epoch = |s: &iceberg::spec::SnapshotRef| s.summary().additional_properties["dataflow.epoch"].parse().unwrap();
    let mut epochs: Vec<u64> = now.snapshots().map(epoch).collect();
    epochs.sort_unstable();
    epochs
}

fn id_of(table: &Table, epoch: u64) -> i64 {
    table.snapshot_of(epoch).unwrap().unwrap()
}

/// Upserts of one key: each epoch kills the row of the one before.
fn upserts(table: &Table, epochs: std::ops::RangeInclusive<u64>) {
    let mut last: Option<Place> = None;
    for epoch in epochs {
        let (data, places) = written(table, &[user(1, &epoch.to_string())]);
        let deletes = table.delete_rows(&dead(&last)).unwrap();
        table.commit(&intent(table, epoch, data, deletes)).unwrap();
        last = places.into_iter().next();
    }
}

#[test]
fn old_snapshots_go_and_what_is_needed_stays() {
    let folder = tempfile::tempdir().unwrap();
    let warehouse = warehouse(folder.path(), 1);
    let table = warehouse.table(&users()).unwrap();
    upserts(&table, 1..=9);
    warehouse.tag(&named("users"), "kept", id_of(&table, 2)).unwrap();
    let named = id_of(&table, 4);
    // Checkpoints reach back to epoch 7.
    assert_eq!(table.expire(&keep(1, 7, &[named])).unwrap(), 4);
    assert_eq!(epochs_of(&table), [2, 4, 7, 8, 9]);
    assert_eq!(rows(&table), [user(1, "9")]);
    for (epoch, name) in [(2, "2"), (4, "4"), (8, "8")] {
        let found: Vec<Row> = table.scan(id_of_any(&table, epoch)).unwrap().map(|row| row.unwrap().0).collect();
        assert_eq!(found, [user(1, name)]);
    }
    assert_eq!(table.expire(&keep(1, 7, &[named])).unwrap(), 0);
    assert_eq!(table.marker().unwrap(), Some(marker(9)));
    // With nothing to keep, the current one and what is tagged is all that is left, and its files are all that there are.
    table.expire(&keep(0, 9, &[])).unwrap();
    assert_eq!(epochs_of(&table), [2, 9]);
    assert_eq!(count(&table, ".avro"), snapshot_files(&table));
    upserts_go_on(&table);
}

/// Also one that is cut off from the current snapshot.
fn id_of_any(table: &Table, epoch: u64) -> i64 {
    let now = table.metadata();
    let is = |s: &&iceberg::spec::SnapshotRef| s.summary().additional_properties["dataflow.epoch"] == epoch.to_string();
    now.snapshots().find(is).unwrap().snapshot_id()
}

/// Manifest lists and manifests that the snapshots name.
fn snapshot_files(table: &Table) -> usize {
    let now = table.metadata();
    let mut named = BTreeSet::new();
    for snapshot in now.snapshots() {
        named.insert(snapshot.manifest_list().to_owned());
        let list = table.session().wait(crate::snapshot::manifests(table.session(), &now, Some(snapshot))).unwrap();
        named.extend(list.into_iter().map(|manifest| manifest.manifest_path));
    }
    named.len()
}

fn upserts_go_on(table: &Table) {
    let (data, _) = written(table, &[user(2, "later")]);
    assert!(matches!(table.commit(&intent(table, 20, data, None)).unwrap(), Outcome::Committed(_)));
    assert_eq!(rows(table), [user(1, "9"), user(2, "later")]);
}

#[test]
fn a_branch_keeps_its_snapshot() {
    let folder = tempfile::tempdir().unwrap();
    let table = warehouse(folder.path(), 1).table(&users()).unwrap();
    upserts(&table, 1..=3);
    let reference = SnapshotReference::new(id_of(&table, 1), SnapshotRetention::branch(None, None, None));
    done(&table, vec![TableUpdate::SetSnapshotRef { ref_name: "theirs".to_owned(), reference }]);
    assert_eq!(table.expire(&keep(0, 3, &[])).unwrap(), 1);
    assert_eq!(epochs_of(&table), [1, 3]);
}

#[test]
fn metadata_files_are_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let table = warehouse(folder.path(), 1).table(&users()).unwrap();
    let bound = [("write.metadata.previous-versions-max".to_owned(), "3".to_owned())].into();
    done(&table, vec![TableUpdate::SetProperties { updates: bound }]);
    for epoch in 1..=12 {
        append(&table, epoch, &[user(epoch as i64, "x")]);
    }
    assert_eq!(count(&table, ".metadata.json"), 4);
    assert_eq!(rows(&table).len(), 12);
}

#[test]
fn a_tag_stands_where_it_was_set() {
    let folder = tempfile::tempdir().unwrap();
    let warehouse = warehouse(folder.path(), 1);
    let table = warehouse.table(&users()).unwrap();
    upserts(&table, 1..=2);
    let (first, second) = (id_of(&table, 1), id_of(&table, 2));
    warehouse.tag(&named("users"), "release", first).unwrap();
    warehouse.tag(&named("users"), "release", first).unwrap();
    for (name, snapshot) in [("release", second), ("main", second), ("other", 77)] {
        let refused = warehouse.tag(&named("users"), name, snapshot).err().unwrap();
        assert_eq!(refused.fault, Fault::User, "{refused}");
        assert!(refused.hint.is_some());
    }
    table.refresh().unwrap();
    assert_eq!(table.metadata().snapshot_for_ref("release").unwrap().snapshot_id(), first);
    // The job that looked before goes on.
    upserts_more(&table);
}

fn upserts_more(table: &Table) {
    let (data, _) = written(table, &[user(3, "c")]);
    table.commit(&intent(table, 3, data, None)).unwrap();
    assert_eq!(rows(table), [user(1, "2"), user(3, "c")]);
}

/// One life of a job with the sink: a writer, a committer, a compactor.
struct Life {
    sink: IcebergSink,
    writer: Box<dyn TableWriter>,
    committer: Box<dyn TableCommitter>,
    compactor: Box<dyn TableCompactor>,
    generation: Generation,
}

fn life(folder: &Path, number: u64) -> Life {
    let catalog = CatalogSettings::Sqlite { file: folder.join("catalog.db"), name: "default".to_owned() };
    let storage = StorageSettings::Folder { path: folder.join("warehouse") };
    let compaction = Some(CompactionSettings { small_files: 2, dead_percent: 25 });
    let maintenance = MaintenanceSettings {
        interval: Duration::ZERO,
        keep_snapshots: 1,
        keep: Duration::ZERO,
        keep_epochs: 2,
        compaction,
    };
    let settings = SinkSettings { maintenance, ..SinkSettings::default() };
    let warehouse = WarehouseSettings { catalog, storage };
    let sink = IcebergSink::new("lake", vec![TABLE.to_owned()], warehouse, settings, environment(number)).unwrap();
    let generation = Generation { number, nonce: number };
    sink.open(&SinkIdentity { job: "tested".to_owned(), lineage: Lineage(0xabc), generation }).unwrap();
    let schemas = BTreeMap::from([(TABLE.to_owned(), users().schema)]);
    let (writer, committer) = (sink.writer(0, &schemas), sink.committer(&schemas));
    let compactor = sink.compactor(&schemas).unwrap();
    Life { sink, writer, committer, compactor, generation }
}

impl Life {
    fn marker(&self, epoch: u64) -> Marker {
        Marker { generation: self.generation, ..marker(epoch) }
    }

    fn write(&mut self, added: &[Row], deleted: &[RowLocation]) -> TableFiles {
        let changes = TableChanges { deleted: deleted.to_vec(), added: added.to_vec() };
        self.writer.write(&[(TABLE, &changes)]).unwrap().remove(0)
    }

    fn commit(&mut self, epoch: u64, after: u64, intents: &[&TableFiles], rewrite: &[Vec<u8>]) {
        let intents = intents.iter().map(|files| files.intent.clone()).collect();
        let (table, marker, rewrite) = (TABLE.to_owned(), self.marker(epoch), rewrite.to_vec());
        let commit = TableCommit { table, marker, after, has_index: true, intents, rewrite };
        self.committer.commit(&[commit], &mut |_, _| ()).unwrap();
        self.committer.complete(&marker, Micros(epoch as i64)).unwrap();
    }

    fn rows(&self) -> Vec<Row> {
        let mut rows: Vec<Row> = self.sink.rows(TABLE, &users().schema).unwrap().map(Result::unwrap).collect();
        rows.sort();
        rows
    }
}

/// The index after a rewrite, and the rows of the new files that are dead: what the engine's writers do at a cut.
fn followed(life: &mut Life, index: &mut BTreeMap<Row, RowLocation>, rewrite: &TableRewrite) -> Vec<RowLocation> {
    let mut dead = Vec::new();
    let mut file = None;
    for run in &rewrite.moved {
        if file.as_ref().is_none_or(|(path, _)| *path != run.to.file) {
            file = Some((run.to.file.clone(), life.writer.keys(TABLE, &run.to.file).unwrap()));
        }
        let (_, keys) = file.as_mut().unwrap();
        for at in 0..run.rows {
            let place = |start: &RowLocation| RowLocation { file: start.file.clone(), position: start.position + at };
            match index.get_mut(&keys.next().unwrap().unwrap()) {
                Some(known) if *known == place(&run.from) => *known = place(&run.to),
                _ => dead.push(place(&run.to)),
            }
        }
    }
    dead
}

#[test]
fn a_rewrite_follows_rows_that_change_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let mut life = life(folder.path(), 1);
    let mut index = BTreeMap::new();
    for epoch in 1..=4_u64 {
        let ids = [epoch as i64 * 10, epoch as i64 * 10 + 1];
        let files = life.write(&ids.map(|id| user(id, "a")), &[]);
        index.extend(ids.map(key).into_iter().zip(files.added.clone()));
        life.commit(epoch, epoch - 1, &[&files], &[]);
    }
    let rewrite = life.compactor.rewrite().unwrap().remove(0);
    assert_eq!(rewrite.moved.iter().map(|run| run.rows).sum::<u64>(), 8);
    // One row is changed and one goes before the rewrite is committed; a commit of theirs lies between.
    let gone = [index[&key(10)].clone(), index[&key(21)].clone()];
    let changed = life.write(&[user(10, "b")], &gone);
    index.insert(key(10), changed.added[0].clone());
    index.remove(&key(21));
    let dead = followed(&mut life, &mut index, &rewrite);
    assert_eq!(dead.len(), 2);
    let deletes = life.write(&[], &dead);
    life.commit(5, 4, &[&changed], &[rewrite.intent.clone(), deletes.intent.clone()]);
    let mut expected: Vec<Row> = [11, 20, 30, 31, 40, 41].map(|id| user(id, "a")).to_vec();
    expected.insert(0, user(10, "b"));
    assert_eq!(life.rows(), expected);
    // The index names where the rows are.
    let mut scanned = BTreeMap::new();
    let mut put = |key, place| {
        scanned.insert(key, place);
        Ok(())
    };
    life.writer.scan(TABLE, ScanColumns::Key, &mut put).unwrap();
    assert_eq!(scanned, index);
    // A restart between the two snapshots, or after them, brings the rewrite in once.
    let mut later = self::life(folder.path(), 2);
    let snapshots = |life: &Life| life.sink.handle_of(TABLE, &users().schema).metadata().snapshots().len();
    let before = snapshots(&later);
    later.commit(5, 5, &[&changed], &[rewrite.intent, deletes.intent]);
    assert_eq!((later.rows(), snapshots(&later)), (expected, before));
    let marker = later.sink.open(&SinkIdentity {
        job: "tested".to_owned(),
        lineage: Lineage(0xabc),
        generation: Generation { number: 2, nonce: 2 },
    });
    assert_eq!(marker.unwrap()[TABLE].marker.unwrap().epoch, 5);
}

/// The live delete files of the sink's table.
fn delete_files(life: &Life) -> usize {
    let table = life.sink.handle_of(TABLE, &users().schema);
    let now = table.metadata();
    let live = crate::scan::live_files(table.session(), &now, now.current_snapshot().map(AsRef::as_ref)).unwrap();
    live.iter().filter(|file| !file.is_data()).count()
}

#[test]
fn delete_files_of_one_data_file_become_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut life = life(folder.path(), 1);
    let ids: Vec<i64> = (0..40).collect();
    let first = life.write(&ids.iter().map(|id| user(*id, "a")).collect::<Vec<_>>(), &[]);
    life.commit(1, 0, &[&first], &[]);
    // Fewer than have the rows written anew.
    for epoch in 2..=5 {
        let gone = life.write(&[], &[first.added[epoch as usize].clone()]);
        life.commit(epoch, epoch - 1, &[&gone], &[]);
    }
    let rewrite = life.compactor.rewrite().unwrap().remove(0);
    assert_eq!((rewrite.moved.len(), delete_files(&life)), (0, 4));
    // A row goes before the rewrite is committed.
    let gone = life.write(&[], &[first.added[9].clone()]);
    life.commit(6, 5, &[&gone], std::slice::from_ref(&rewrite.intent));
    let left = ids.iter().filter(|id| ![2, 3, 4, 5, 9].contains(*id));
    let expected: Vec<Row> = left.map(|id| user(*id, "a")).collect();
    assert_eq!((life.rows(), delete_files(&life)), (expected.clone(), 2));
    let state = life.sink.handle_of(TABLE, &users().schema).state().unwrap();
    assert_eq!((state.rows, state.deleted), (Some(35), 0));
    // A restart finds it in the table, and merges what came since.
    let mut later = self::life(folder.path(), 2);
    later.commit(6, 6, &[&gone], &[rewrite.intent]);
    assert_eq!((later.rows(), delete_files(&later)), (expected.clone(), 2));
    let rewrite = later.compactor.rewrite().unwrap().remove(0);
    later.commit(7, 6, &[], &[rewrite.intent]);
    assert_eq!((later.rows(), delete_files(&later)), (expected, 1));
    assert!(later.compactor.rewrite().unwrap().is_empty());
}

#[test]
fn rows_of_others_are_noticed_by_a_commit_that_only_adds() {
    let folder = tempfile::tempdir().unwrap();
    let mut life = life(folder.path(), 1);
    let first = life.write(&[user(1, "a")], &[]);
    life.commit(1, 0, &[&first], &[]);
    let table = warehouse(folder.path(), 2).table(&users()).unwrap();
    let (theirs, _) = written(&table, &[user(9, "z")]);
    foreign(&table, Operation::Append, &theirs, &[]);
    let intent = life.write(&[user(2, "b")], &[]).intent;
    let commit = |has_index, intents: &[Vec<u8>]| {
        let (table, marker) = (TABLE.to_owned(), Marker { generation: life.generation, ..marker(2) });
        TableCommit { table, marker, after: 1, has_index, intents: intents.to_vec(), rewrite: Vec::new() }
    };
    let kept_by_its_view = commit(true, std::slice::from_ref(&intent));
    let error = life.committer.commit(&[kept_by_its_view], &mut |_, _| ()).unwrap_err().to_string();
    assert!(error.contains("somebody else's snapshot") && error.contains("on_foreign_commit"), "{error}");
    // One that only grows carries on.
    life.committer.commit(&[commit(false, &[intent])], &mut |_, _| ()).unwrap();
    assert_eq!(life.rows(), [user(1, "a"), user(2, "b"), user(9, "z")]);
}

#[test]
fn a_writer_meets_a_file_that_others_have_taken_away() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = life(folder.path(), 1);
    let files = first.write(&[user(1, "a"), user(2, "b")], &[]);
    first.commit(1, 0, &[&files], &[]);
    let gone = TableChanges { deleted: vec![files.added[0].clone()], added: vec![] };
    let table = warehouse(folder.path(), 2).table(&users()).unwrap();
    let (theirs, _) = written(&table, &[user(1, "z"), user(2, "b")]);
    foreign(&table, Operation::Overwrite, &theirs, &[&files.added[0].file]);
    let mut later = life(folder.path(), 3);
    let error = later.writer.write(&[(TABLE, &gone)]).unwrap_err().to_string();
    assert!(error.contains("somebody else's snapshot") && error.contains("on_foreign_commit"), "{error}");
    // What no commit of theirs explains is told as it is.
    rolled_back(&table, table.snapshot_of(1).unwrap().unwrap());
    let nowhere = RowLocation { file: "nowhere.parquet".into(), position: 0 };
    let gone = TableChanges { deleted: vec![nowhere], added: vec![] };
    let error = life(folder.path(), 4).writer.write(&[(TABLE, &gone)]).unwrap_err().to_string();
    assert!(error.contains("does not hold it"), "{error}");
}

#[test]
fn deletes_of_others_go_with_the_file_that_they_speak_of() {
    let folder = tempfile::tempdir().unwrap();
    let spec = TableSpec { schema: TableSchema { key: vec![], ..users().schema }, ..users() };
    let table = warehouse(folder.path(), 1).table(&spec).unwrap();
    let (data, places) = written(&table, &[user(1, "a"), user(2, "b")]);
    table.commit(&intent(&table, 1, data, None)).unwrap();
    append(&table, 2, &[user(3, "c")]);
    // As Trino notes them: no field says of which file they speak, only the bounds of their paths do.
    foreign_files(&table, Operation::Delete, vec![(0, delete_file_of_others(&table, &places[0]))], &[]);
    let how = CompactionSettings { small_files: 3, dead_percent: 50 };
    let rewritten = table.rewrite(&how).unwrap().unwrap();
    assert_eq!(rewritten.removed, [places[0].file.as_ref()]);
    let purpose = Purpose::Compaction { id: 7 };
    let rewrite = Intent { purpose, removed: rewritten.removed, ..intent(&table, 2, rewritten.data, None) };
    assert!(matches!(table.commit(&rewrite).unwrap(), Outcome::Committed(_)));
    assert_eq!(rows(&table), [user(2, "b"), user(3, "c")]);
    let now = table.metadata();
    let live = crate::scan::live_files(table.session(), &now, now.current_snapshot().map(AsRef::as_ref)).unwrap();
    assert!(live.iter().all(|file| file.is_data()), "their deletes are still there");
    assert_eq!(table.state().unwrap().rows, Some(2));
}

/// A delete file of one row whose entry says by the bounds of its paths alone of which file it speaks.
fn delete_file_of_others(table: &Table, place: &Place) -> DataFile {
    let (now, positions) = (table.metadata(), [place.position].into_iter().collect());
    let write = crate::deletes::write(table.session(), &now, (0, Struct::empty()), &place.file, &positions);
    let file = table.session().wait(write).unwrap();
    let (kind, schema) = (StructType::new(vec![]), crate::deletes::delete_schema().unwrap());
    let mut entry: serde_json::Value =
        serde_json::from_str(&serialize_data_file_to_json(file, &kind, FormatVersion::V2).unwrap()).unwrap();
    let reference = entry.get_mut("referenced_data_file").unwrap();
    assert!(reference.is_string());
    *reference = serde_json::Value::Null;
    deserialize_data_file_from_json(&entry.to_string(), 0, &kind, &schema).unwrap()
}

#[test]
fn what_ended_generations_left_is_removed_and_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = life(folder.path(), 1);
    let one = first.write(&[user(1, "a")], &[]);
    first.commit(1, 0, &[&one], &[]);
    let lost = first.write(&[user(2, "lost")], &[]);
    let table = first.sink.handle_of(TABLE, &users().schema);
    let lost_file = lost.added[0].file.strip_prefix("file://").unwrap().to_owned();
    let theirs = lost_file.replace("0000000000000abc", "0000000000000abd");
    std::fs::write(&theirs, "of another job").unwrap();

    let mut second = life(folder.path(), 2);
    let waiting = second.write(&[user(3, "waits")], &[]);
    let restorable = |is_of_this_generation| Restorable { oldest: 1, is_of_this_generation };
    // This generation has made no snapshot, and then: a checkpoint of the first may come back with its intent.
    second.commit(1, 1, &[], &[]);
    second.committer.maintain(&restorable(true)).unwrap();
    let four = second.write(&[user(4, "d")], &[]);
    second.commit(2, 1, &[&four], &[]);
    for _ in 0..4 {
        second.committer.maintain(&restorable(false)).unwrap();
    }
    assert!(Path::new(&lost_file).exists());
    for _ in 0..4 {
        second.committer.maintain(&restorable(true)).unwrap();
    }
    let here = files(&table);
    assert!(!here.contains(&lost_file), "{here:?}");
    assert!(here.contains(&theirs));
    assert!(here.contains(waiting.added[0].file.strip_prefix("file://").unwrap()));
    second.commit(3, 2, &[&waiting], &[]);
    assert_eq!(second.rows(), [user(1, "a"), user(3, "waits"), user(4, "d")]);
}

#[test]
fn an_epoch_is_noted_once_and_can_be_tagged() {
    let folder = tempfile::tempdir().unwrap();
    let mut life = life(folder.path(), 1);
    assert_eq!(life.sink.tag("early", None).err().unwrap().fault, Fault::User);
    let mut ids = BTreeMap::new();
    for (after, epoch) in [(0, 3), (3, 5), (5, 9)] {
        let files = life.write(&[user(epoch as i64, "x")], &[]);
        life.commit(epoch, after, &[&files], &[]);
        ids.insert(epoch, life.sink.handle_of(TABLE, &users().schema).snapshot().unwrap());
    }
    // A restart says the last one again, and one before it.
    let mut later = self::life(folder.path(), 2);
    for epoch in [5, 9] {
        later.committer.complete(&later.marker(epoch), Micros(epoch as i64)).unwrap();
    }
    let epochs = warehouse_epochs(folder.path());
    assert_eq!(epochs, ids.iter().map(|(epoch, id)| (*epoch, *id)).collect::<Vec<_>>());
    assert_eq!(later.sink.tag("nine", None).unwrap(), (9, BTreeMap::from([(TABLE.to_owned(), ids[&9])])));
    assert_eq!(later.sink.tag("five", Some(5)).unwrap().1[TABLE], ids[&5]);
    assert_eq!(later.sink.tag("five", Some(9)).err().unwrap().fault, Fault::User);
    assert_eq!(later.sink.tag("four", Some(4)).err().unwrap().fault, Fault::User);
}

/// (epoch, snapshot) of the one table, as a reader sees them.
fn warehouse_epochs(folder: &Path) -> Vec<(u64, i64)> {
    let name = TableName { namespace: vec!["dataflow".to_owned()], name: "epochs".to_owned() };
    let table = crate::epochs::EpochsTable::open(&warehouse(folder, 9), &name).unwrap().0;
    let row = |row: Row| match (row.get(0), row.get(3)) {
        (Datum::Long(epoch), Datum::Long(id)) => (*epoch as u64, *id),
        other => panic!("{other:?}"),
    };
    rows(&table).into_iter().map(row).collect()
}

#[test]
fn rows_without_a_key_go_on_over_what_others_removed() {
    let folder = tempfile::tempdir().unwrap();
    let spec = TableSpec { schema: TableSchema { key: vec![], ..users().schema }, ..users() };
    let table = warehouse(folder.path(), 1).table(&spec).unwrap();
    let (data, places) = written(&table, &[user(1, "a"), user(2, "b")]);
    table.commit(&intent(&table, 1, data, None)).unwrap();
    let (data, later) = written(&table, &[user(3, "c")]);
    let adds = intent(&table, 2, data, None);
    // Somebody writes the first file anew without a row, as engines do that copy on a delete.
    let (theirs, _) = written(&table, &[user(2, "b")]);
    foreign(&table, Operation::Overwrite, &theirs, &[&places[0].file]);
    assert!(matches!(table.commit(&adds).unwrap(), Outcome::Committed(_)));
    assert_eq!(rows(&table), [user(2, "b"), user(3, "c")]);
    // A row of a file that is there may go; one of the file that is gone stops, also once their snapshot has expired.
    table.expire(&keep(0, 2, &[])).unwrap();
    let gone = table.delete_rows(&dead([&places[1]])).unwrap();
    let foreign = table.commit(&intent(&table, 3, vec![], gone)).unwrap();
    assert!(matches!(foreign, Outcome::Foreign(_)), "{foreign:?}");
    let there = table.delete_rows(&dead([&later[0]])).unwrap();
    assert!(matches!(table.commit(&intent(&table, 3, vec![], there)).unwrap(), Outcome::Committed(_)));
    assert_eq!(rows(&table), [user(2, "b")]);
}
