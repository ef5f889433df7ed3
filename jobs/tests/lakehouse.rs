//! The shipped lakehouse program on the cases: every table's final contents with the recorded epochs, and, killed at random moments while
//! its input grows, those that do not depend on the clock. And on the made-up shop that it generates itself, killed likewise: the same as
//! of that shop's lines in files.

#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]
#![allow(
    clippy::disallowed_methods,
    reason = "the program under test has a clock of its own, and is killed by that of this one"
)]

use dataflow_loadgen::output::shop::{Target, Telling, folder::Folder, tell};
use dataflow_loadgen::shop::{Settings, Shop};
use dataflow_oracle::compare;
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// With the fields that a case does not say.
const TABLES: [(&str, &[&str]); 10] = [
    ("bronze.pageviews_dlq", &["ingestion_time", "source_file"]),
    ("silver.users", &[]),
    ("silver.items", &[]),
    ("silver.purchases_enriched", &[]),
    ("silver.pageviews_by_items", &[]),
    ("gold.top_selling_items", &[]),
    ("gold.top_converting_items", &[]),
    ("gold.pageviews_by_channel", &[]),
    // Functions of the clock.
    ("gold.sales_performance_24h", &[]),
    ("gold.user_engagement_segments", &[]),
];
const OF_THE_CLOCK: usize = 2;
const CASES: [&str; 5] = ["hand/10-lakehouse", "hand/11-top-ten", "case-1", "case-2", "case-3"];

fn folder() -> PathBuf {
    PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap())
}

fn run(profile: &str, workers: usize) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lakehouse"));
    command.arg("run").arg(folder().join("lakehouse.rs"));
    command.args(["--profile", profile, "--workers", &workers.to_string()]);
    command
}

fn command(input: &Path, output: &Path, workers: usize, set: &[&str]) -> Command {
    let mut command = run("files", workers);
    let (input, output) = (format!("input={}", input.display()), format!("output={}", output.display()));
    for assignment in [&*input, &*output].iter().chain(set) {
        command.args(["--set", assignment]);
    }
    command
}

fn to_the_end(mut command: Command, what: &str) {
    ended(command.arg("--until-end"), what);
}

fn ended(command: &mut Command, what: &str) {
    let done = command.output().unwrap();
    assert!(done.status.success(), "{what}: {}", String::from_utf8_lossy(&done.stderr));
}

fn rows(folder: &Path, table: &str) -> Option<Vec<Value>> {
    let text = fs::read_to_string(folder.join(format!("{table}.ndjson"))).ok()?;
    Some(text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

fn check(case: &str, out: &Path, tables: &[(&str, &[&str])]) {
    let mut compared = 0;
    for (table, ignored) in tables {
        let Some(expected) = rows(&folder().join("cases").join(case).join("expected"), table) else { continue };
        let actual = rows(out, table).unwrap_or_else(|| panic!("{case}: no {table}"));
        compare(&expected, &actual, ignored).unwrap_or_else(|difference| panic!("{case} {table}: {difference}"));
        compared += 1;
    }
    assert!(compared > 0, "{case} has nothing to compare with");
}

/// The exports of closed days.
const SEGMENTS: &str = "customer-segments/segment_users";

/// Name and bytes of each export of closed days, where there are some.
fn exports(folder: &Path) -> Option<Vec<(String, Vec<u8>)>> {
    let entries = fs::read_dir(folder.join(SEGMENTS)).ok()?.map(|entry| entry.unwrap());
    let mut files: Vec<(String, Vec<u8>)> =
        entries.map(|e| (e.file_name().into_string().unwrap(), fs::read(e.path()).unwrap())).collect();
    files.sort();
    Some(files)
}

/// As a case has them, byte for byte; whether it has some.
fn check_exports(case: &str, out: &Path) -> bool {
    let Some(expected) = exports(&folder().join("cases").join(case).join("expected")) else { return false };
    let actual = exports(out).unwrap_or_default();
    let names = |files: &[(String, Vec<u8>)]| files.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&actual), names(&expected), "{case}");
    for ((name, actual), (_, expected)) in actual.iter().zip(&expected) {
        assert!(actual == expected, "{case} {name}:\n{}", String::from_utf8_lossy(actual));
    }
    true
}

#[test]
fn every_case_with_recorded_epochs_and_one_to_three_workers() {
    let mut exported = 0;
    for case in CASES {
        for workers in 1..=3 {
            let out = tempfile::tempdir().unwrap();
            // Each case in both formats of tables.
            let format = format!("sinks.lakehouse.format={}", 2 + workers % 2);
            let set = ["bindings=recorded", format.as_str()];
            let command = command(&folder().join("cases").join(case), out.path(), workers, &set);
            to_the_end(command, &format!("{case}, {workers} workers"));
            check(case, out.path(), &TABLES);
            exported += u64::from(check_exports(case, out.path()));
        }
    }
    assert!(exported > 3, "days close in the cases");
}

/// A process that ends with this value, killed.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// The checkpoint that a life began with, and the newest of it.
fn epochs(data: &Path) -> Option<(u64, u64)> {
    let status: Value = serde_json::from_slice(&fs::read(data.join("status.json")).ok()?).ok()?;
    Some((status["restored_epoch"].as_u64()?, status["epoch_checkpointed"].as_u64()?))
}

#[test]
fn killed_while_the_input_grows() {
    killed(Pageviews::File);
}

#[test]
fn killed_while_objects_appear() {
    killed(Pageviews::Objects);
}

/// How pageviews come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pageviews {
    /// As a file that grows.
    File,
    /// As objects, packed and not, whose keys do not rise.
    Objects,
}

/// Moves an object into the folder: one of these lines, packed as its number says.
fn put_object(input: &Path, number: usize, lines: &[Vec<u8>]) {
    let bytes = lines.concat();
    let packed = match number % 3 {
        0 => bytes,
        1 => zstd::encode_all(&*bytes, 1).unwrap(),
        _ => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(&bytes).unwrap();
            encoder.finish().unwrap()
        }
    };
    let folder = input.join("pageviews").join(format!("{}", number * 5 % 7));
    fs::create_dir_all(&folder).unwrap();
    let temporary = input.join("object");
    fs::write(&temporary, packed).unwrap();
    fs::rename(temporary, folder.join(format!("{number}"))).unwrap();
}

/// The bronze tables have each record that was read, once.
fn check_bronze(out: &Path, changes: &[Vec<u8>], pageviews: &[Vec<u8>]) {
    for table in ["users", "items", "purchases"] {
        let lines = changes.iter().map(|line| serde_json::from_slice::<Value>(line).unwrap());
        let expected: Vec<(u64, String)> = (0..)
            .zip(lines.filter(|line| line["table"] == table).map(|line| line["op"].as_str().unwrap().to_owned()))
            .filter(|(_, op)| op != "m")
            .collect();
        let of = |row: &Value| (row["offset"].as_u64().unwrap(), row["op"].as_str().unwrap().to_owned());
        let mut found: Vec<_> = rows(out, &format!("bronze.{table}")).unwrap().iter().map(of).collect();
        found.sort();
        assert_eq!(found, expected, "bronze.{table}");
    }
    let is_blank = |line: &&Vec<u8>| line.iter().all(u8::is_ascii_whitespace);
    let count = |table: &str| rows(out, table).unwrap().len();
    let mut offsets: Vec<u64> =
        rows(out, "bronze.pageviews").unwrap().iter().map(|row| row["offset"].as_u64().unwrap()).collect();
    offsets.sort_unstable();
    offsets.dedup();
    let blank = pageviews.iter().filter(is_blank).count();
    assert_eq!(offsets.len(), count("bronze.pageviews"), "each once");
    assert_eq!(offsets.len() + count("bronze.pageviews_dlq") + blank, pageviews.len());
}

fn killed(pageviews: Pageviews) {
    const PIECES: usize = 5;
    let (input, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let lines = |file: &str| -> Vec<Vec<u8>> {
        let bytes = fs::read(folder().join("cases/case-3").join(file)).unwrap();
        bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
    };
    let files = ["oneshop.ndjson", "pageviews.ndjson"].map(|file| (input.path().join(file), lines(file)));
    let folder = input.path().join("pageviews");
    fs::create_dir(&folder).unwrap();
    let objects = format!(
        "sources.pageviews={{ connector = \"objects\", format = \"lines\", path = \"{}\", poll_ms = 20 }}",
        folder.display()
    );
    // Files are rewritten and snapshots expire as often as can be.
    let maintenance = "sinks.lakehouse.maintenance={ interval_seconds = 0, keep_snapshots = 1, keep_seconds = 0, \
        keep_epochs = 2, small_files = 2, dead_percent = 1 }";
    let layout = "sinks.lakehouse.table={ \"silver.users\" = { partition = [\"bucket(3, id)\"], sort = [\"updated_at desc\"] }, \
         \"silver.pageviews_by_items\" = { partition = [\"channel\"] } }";
    let mut set = vec!["runtime.checkpoint_interval_ms=50", "state.dirty_mb=0", maintenance, layout];
    set.extend((pageviews == Pageviews::Objects).then_some(&*objects));
    let epochs = |output: &Path| epochs(&output.join(".data"));
    let (mut restored, mut lives) = (0, 0);
    for piece in 0..PIECES {
        for (path, lines) in &files {
            let is_objects = pageviews == Pageviews::Objects && path.ends_with("pageviews.ndjson");
            let mut file = fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
            let share = lines.len() / PIECES;
            let end = if piece + 1 == PIECES { lines.len() } else { (piece + 1) * share };
            let piece_lines = &lines[piece * share..end];
            if is_objects {
                let objects = piece_lines.chunks(17 + piece).enumerate();
                objects.for_each(|(rank, lines)| put_object(input.path(), piece * 1_000 + rank, lines));
                continue;
            }
            piece_lines.iter().for_each(|line| file.write_all(line).unwrap());
        }
        // On the way the tables are upgraded.
        set.extend((piece == PIECES / 2).then_some("sinks.lakehouse.format=3"));
        let log = fs::File::create(out.path().join("log")).unwrap();
        let mut command = command(input.path(), out.path(), 1 + piece % 2, &set);
        let before = epochs(out.path()).map_or(0, |(_, newest)| newest);
        let mut running = Running(command.stdout(Stdio::null()).stderr(log).spawn().unwrap());
        // Some lives end before they have made a checkpoint of their own, some in the midst of commits.
        let began = Instant::now();
        let least = before + if piece % 3 == 2 { 0 } else { 3 * piece as u64 };
        let of_this_life = |piece: usize| Duration::from_millis(300 + 170 * (piece as u64 * 7 % 5));
        while began.elapsed() < of_this_life(piece) || epochs(out.path()).is_none_or(|(_, newest)| newest <= least) {
            let ended = running.0.try_wait().unwrap();
            assert!(ended.is_none(), "{}", fs::read_to_string(out.path().join("log")).unwrap());
            assert!(began.elapsed() < Duration::from_secs(60), "no checkpoint: {:?}", epochs(out.path()));
            std::thread::sleep(Duration::from_millis(5));
        }
        restored += u64::from(epochs(out.path()).is_some_and(|(restored, _)| restored > 0));
        lives += 1;
    }
    to_the_end(command(input.path(), out.path(), 2, &set), "the last life");
    assert!(restored * 2 > lives, "{restored} of {lives} lives began with a checkpoint");
    check("case-3", out.path(), &TABLES[..TABLES.len() - OF_THE_CLOCK]);
    check_bronze(out.path(), &files[0].1, &files[1].1);
}

/// A change of Debezium's in JSON, with its place in a transaction.
fn change(table: &str, after: Value, transaction: (&str, u64, u64)) -> String {
    let (id, total_order, data_collection_order) = transaction;
    let source = serde_json::json!({"table": table, "sequence": format!("[null,\"{}\"]", 100 + total_order), "lsn": 100 + total_order});
    let transaction = serde_json::json!({
        "id": format!("{id}:{}", 900 + total_order), "total_order": total_order, "data_collection_order": data_collection_order,
    });
    let event = serde_json::json!({
        "op": "c", "before": null, "after": after, "source": source, "ts_ms": 1, "transaction": transaction,
    });
    format!("{event}\n")
}

/// Whether a table of this name lies in the warehouse.
fn has_table(warehouse: &Path, namespace: &str, name: &str) -> bool {
    let Ok(tables) = fs::read_dir(warehouse.join(namespace)) else { return false };
    let mut names = tables.map(|table| table.unwrap().file_name().into_string().unwrap());
    names.any(|table| table.strip_prefix(name).is_some_and(|rest| rest.starts_with('-')))
}

#[test]
fn a_transaction_is_shown_whole_over_a_kill() {
    let (input, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut set = vec!["runtime.checkpoint_interval_ms=50".to_owned()];
    for (source, format) in [
        ("dbz.public.users", "debezium-json"),
        ("dbz.public.items", "debezium-json"),
        ("dbz.public.purchases", "debezium-json"),
        ("dbz.transaction", "json"),
        ("pageviews", "lines"),
    ] {
        let folder = input.path().join(source);
        fs::create_dir(&folder).unwrap();
        set.push(format!(
            "sources.\"{source}\"={{ connector = \"objects\", format = \"{format}\", path = \"{}\", poll_ms = 20 }}",
            folder.display()
        ));
    }
    let set: Vec<&str> = set.iter().map(String::as_str).collect();
    let put = |source: &str, text: &str| {
        let temporary = input.path().join("object");
        fs::write(&temporary, text).unwrap();
        fs::rename(temporary, input.path().join(source).join("1")).unwrap();
    };
    let user = serde_json::json!({"id": 1, "first_name": "Bo", "last_name": null, "email": null, "created_at": 0, "updated_at": 0});
    put("dbz.public.users", &change("users", user, ("7", 1, 1)));
    let end = serde_json::json!({"status": "END", "id": "7:999", "event_count": 2, "ts_ms": 1, "data_collections": [
        {"data_collection": "public.users", "event_count": 1}, {"data_collection": "public.purchases", "event_count": 1},
    ]});
    put("dbz.transaction", &format!("{end}\n"));
    let log = fs::File::create(out.path().join("log")).unwrap();
    let mut command_of_life = command(input.path(), out.path(), 1, &set);
    let mut running = Running(command_of_life.stdout(Stdio::null()).stderr(log).spawn().unwrap());
    let began = Instant::now();
    let status =
        || -> Option<Value> { serde_json::from_slice(&fs::read(out.path().join(".data/status.json")).ok()?).ok() };
    let mut read = None;
    loop {
        let ended = running.0.try_wait().unwrap();
        assert!(ended.is_none(), "{}", fs::read_to_string(out.path().join("log")).unwrap());
        assert!(began.elapsed() < Duration::from_secs(60), "{:?}", status());
        if let Some(status) = status().filter(|status| status["records"] == 2) {
            let read = *read.get_or_insert(status["epoch_opened"].as_u64().unwrap());
            // Its commit is over when the next checkpoint is made.
            if status["epoch_checkpointed"].as_u64().unwrap() > read + 2 && status["checkpoints"].as_u64().unwrap() > 3
            {
                break;
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(running);
    let warehouse = out.path().join("warehouse");
    for namespace in ["bronze", "silver"] {
        assert!(!has_table(&warehouse, namespace, "users"), "a part of the transaction is shown in '{namespace}'");
    }
    let purchase = serde_json::json!({"id": 5, "user_id": 1, "item_id": null, "quantity": 1, "purchase_price": "2.50",
        "deleted": false, "created_at": 0, "updated_at": 0});
    put("dbz.public.purchases", &change("purchases", purchase, ("7", 2, 1)));
    to_the_end(command(input.path(), out.path(), 2, &set), "the last life");
    assert!(has_table(&warehouse, "silver", "users"), "the test looks where tables are");
    assert_eq!(rows(out.path(), "silver.users").unwrap().len(), 1);
    assert_eq!(rows(out.path(), "silver.purchases_enriched").unwrap().len(), 1);
    assert_eq!(status().unwrap()["labelled"]["transactions.whole"], 1);
}

/// The settings of a shop of some thousand events, in as many seconds as the lives of the test take.
const SHOP: [&str; 5] = ["shop.users=120", "shop.items=30", "shop.events=6000", "shop.rate=800", "shop.malformed=0.02"];

/// The same shop as lines in `folder`.
fn write_shop(start: &str, folder: &Path) {
    struct NoClock;
    impl dataflow_loadgen::Clock for NoClock {
        fn wall(&self) -> dataflow_loadgen::Micros {
            dataflow_loadgen::Micros(0)
        }
        fn monotonic(&self) -> Duration {
            Duration::ZERO
        }
    }
    let of = |name: &str| SHOP.iter().find_map(|set| set.strip_prefix(&format!("shop.{name}="))).unwrap();
    let settings = Settings {
        users: of("users").parse().unwrap(),
        items: of("items").parse().unwrap(),
        events: Some(of("events").parse().unwrap()),
        rate: of("rate").parse().unwrap(),
        malformed: of("malformed").parse().unwrap(),
        start: dataflow_loadgen::Micros::parse(start).unwrap(),
        ..Settings::default()
    };
    let mut targets: Vec<Box<dyn Target>> = vec![Box::new(Folder::create(folder, true).unwrap())];
    let telling = Telling { clock: &NoClock, is_paced: false, stop: &Default::default() };
    tell(&Shop::new(settings).unwrap(), &telling, &mut targets, |_| ()).unwrap();
}

/// The job on the made-up shop, in a data folder.
fn made_up(data: &Path, workers: usize, set: &[&str]) -> Command {
    let mut command = run("embedded", workers);
    command.arg("--data").arg(data).args(["--set", &format!("output={}", data.join("out").display())]);
    for set in SHOP.iter().chain(&["runtime.checkpoint_interval_ms=150", "state.dirty_mb=0"]).chain(set) {
        command.args(["--set", set]);
    }
    command
}

/// What the shop came to is what comes of its lines in files.
fn check_made_up(data: &Path) {
    let (lines, expected) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let start = fs::read_to_string(data.join("generators/shop")).unwrap();
    write_shop(start.trim(), lines.path());
    to_the_end(command(lines.path(), expected.path(), 1, &[]), "the shop in files");
    let out = data.join("out");
    for (table, ignored) in &TABLES[..TABLES.len() - OF_THE_CLOCK] {
        let (expected, actual) = (rows(expected.path(), table).unwrap(), rows(&out, table).unwrap());
        compare(&expected, &actual, ignored).unwrap_or_else(|difference| panic!("{table}: {difference}"));
        assert!(!actual.is_empty(), "{table} has rows");
    }
    assert!(rows(&out, "bronze.dead_letters").unwrap().is_empty());
}

#[test]
fn a_made_up_shop_killed_and_gone_on_with() {
    const LIVES: u64 = 5;
    let data = tempfile::tempdir().unwrap();
    let command = |workers: u64| made_up(data.path(), workers as usize, &[]);
    let (mut restored, mut newest) = (0, 0);
    for life in 0..LIVES {
        let mut running = Running(command(1 + life % 3).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        // Some lives end in the midst of a start.
        let (began, least) = (Instant::now(), newest + 2 * u64::from(life % 4 != 3));
        let time = Duration::from_millis(200 + 190 * (life * 5 % 4));
        while began.elapsed() < time || epochs(data.path()).is_none_or(|(_, newest)| newest < least) {
            assert!(running.0.try_wait().unwrap().is_none(), "life {life} ended by itself");
            assert!(began.elapsed() < Duration::from_secs(60), "no checkpoint: {:?}", epochs(data.path()));
            std::thread::sleep(Duration::from_millis(5));
        }
        let (began_with, now) = epochs(data.path()).unwrap_or_default();
        restored += u64::from(began_with > 0);
        newest = newest.max(now);
    }
    ended(&mut command(2), "the last life");
    assert!(restored > 0, "no life began with a checkpoint");
    check_made_up(data.path());
}

#[test]
fn a_job_with_more_memory_than_it_may_have_stops_and_goes_on_with_more() {
    let data = tempfile::tempdir().unwrap();
    let status = || -> Option<Value> { serde_json::from_slice(&fs::read(data.path().join("status.json")).ok()?).ok() };
    let mut running =
        Running(made_up(data.path(), 2, &[]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let began = Instant::now();
    let needed = loop {
        assert!(running.0.try_wait().unwrap().is_none(), "it ended by itself");
        assert!(began.elapsed() < Duration::from_secs(60), "{:?}", status());
        let found =
            status().filter(|s| s["checkpoints"].as_u64() > Some(3) && began.elapsed() > Duration::from_secs(2));
        if let Some(found) = found {
            assert!(found["memory"]["limit_bytes"].as_u64() > found["memory"]["bytes"].as_u64(), "{found}");
            break found["memory"]["bytes"].as_u64().unwrap();
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    drop(running);

    let limit = needed * 3 / 4;
    let stopped = made_up(data.path(), 2, &[&format!("runtime.memory_limit={limit}")]).output().unwrap();
    let said = String::from_utf8_lossy(&stopped.stderr);
    assert_eq!(stopped.status.code(), Some(3), "{said}");
    for part in ["keeping job 'lakehouse' within its memory", "rows of 'pageviews'", "raise 'runtime.memory_limit'"] {
        assert!(said.contains(part), "no '{part}' in: {said}");
    }
    let stopped = status().unwrap();
    assert!(stopped["memory"]["bytes"].as_u64() > Some(limit), "{stopped}");
    assert_eq!((&stopped["state"], &stopped["failure"]["fault"]), (&"failed".into(), &"outside".into()));

    ended(&mut made_up(data.path(), 2, &["runtime.memory_limit=4GiB"]), "with more memory");
    let done = status().unwrap();
    assert_eq!(done["memory"]["limit_bytes"], 4u64 << 30);
    let restore = &done["restore"];
    let [rows, views] = ["collections", "views"].map(|of| restore[of]["rows"].as_u64().unwrap());
    assert!(restore["is_over"] == true && rows > 150 && views > 150, "{restore}");
    assert_eq!(restore["collections"]["rows"], restore["collections"]["rows_total"]);
    check_made_up(data.path());
}
