//! The command line: help, exit codes, errors that name the nearest right word, and verbs that only read.

use crate::process::{Said, job_file, program, say};
use crate::traffic::Embedded;
use serde_json::Value;
use std::fs;
use std::path::PathBuf;

fn run(words: &[&str]) -> Said {
    say(program(words))
}

fn on_job(verb: &[&str], more: &[&str]) -> Said {
    let job = job_file();
    run(&[verb, &[job.to_str().unwrap()], more].concat())
}

/// `check` with these words is a mistake of the user: exit code 2, and the message has these parts.
fn mistaken(more: &[&str], parts: &[&str]) {
    let data = tempfile::tempdir().unwrap();
    let folder = data.path().join("none");
    let said = on_job(&["check"], &[&["--data", folder.to_str().unwrap()], more].concat());
    said.failed(2, &[&["dataflow: "], parts].concat());
    assert!(!folder.exists(), "check made a data folder");
}

#[test]
fn a_misspelt_key_is_refused_with_the_nearest() {
    mistaken(&["--set", "emitt=final"], &["'emitt'", "did you mean 'emit'?"]);
    mistaken(&["--set", "goe=x"], &["'goe'", "did you mean 'geo'?"]);
    mistaken(&["--set", "runtime.tick_mn_ms=1"], &["'tick_mn_ms'", "did you mean 'tick_min_ms'?"]);
    mistaken(&["--set", "runtme.tick_min_ms=1"], &["runtme", "did you mean 'runtime'?"]);
    mistaken(&["--set", "state.cash_mb=1"], &["'cash_mb'", "did you mean 'cache_mb'?"]);
    mistaken(&["--set", "state.backend=rockdb"], &["'rockdb'", "did you mean 'rocksdb'?"]);
    mistaken(&["--set", "sources.login-event.rate=1"], &["login-event", "did you mean 'login-events'?"]);
    mistaken(&["--set", "sources.login-events.rat=1"], &["login-events", "rat", "rate"]);
    mistaken(&["--set", "emit"], &["--set emit", "there is no '='"]);
    mistaken(&["--set", "runtime.tick_min_ms=soon"], &["runtime", "profile 'embedded'"]);
    mistaken(&["--profile", "embeded"], &["'embeded'", "did you mean 'embedded'?", "files", "local"]);
    mistaken(&["--profile", "files"], &["profile 'files' needs", "--set "]);
}

#[test]
fn a_misspelt_key_of_the_settings_file_is_refused_with_the_nearest() {
    let folder = tempfile::tempdir().unwrap();
    let job = folder.path().join("login_anomalies.rs");
    fs::copy(job_file(), &job).unwrap();
    let whole = fs::read_to_string(job_file().with_extension("toml")).unwrap();
    for (right, wrong, parts) in [
        ("default_profile", "defualt_profile", &["'defualt_profile'", "did you mean 'default_profile'?"][..]),
        ("workers = 2", "worker = 2", &["'worker'", "did you mean 'workers'?"]),
        ("\"generator\"", "\"genrator\"", &["'genrator'", "did you mean 'generator'?"]),
        ("\"local-log\"", "\"locallog\"", &["'locallog'", "did you mean 'local-log'?"]),
        ("format = \"json\"", "format = \"jsn\"", &["'jsn'", "did you mean 'json'?"]),
        ("users = 5000", "usrs = 5000", &["usrs", "users"]),
        ("[params]", "[params", &["login_anomalies.toml"]),
    ] {
        assert!(whole.contains(right), "{right}");
        fs::write(job.with_extension("toml"), whole.replacen(right, wrong, 1)).unwrap();
        run(&["check", job.to_str().unwrap(), "--data", folder.path().join("data").to_str().unwrap()]).failed(2, parts);
    }
    fs::remove_file(job.with_extension("toml")).unwrap();
    run(&["check", job.to_str().unwrap()]).failed(2, &["reading the settings", "login_anomalies.toml", "beside it"]);
}

#[test]
fn what_is_missing_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let case = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("cases/hand/01-new-country");
    let files = |input: &str, more: &[&str]| {
        let set = [format!("input={input}"), format!("output={}", path("out"))];
        let words = ["--profile", "files", "--until-end", "--set", &set[0], "--set", &set[1]];
        on_job(&["run"], &[&words, more].concat())
    };
    files(&path("nothing"), &[]).failed(2, &["nothing/ip_geo.csv", "table 'geo'"]);
    fs::create_dir(path("empty")).unwrap();
    fs::write(folder.path().join("empty/ip_geo.csv"), "ip_prefix,country,city\n").unwrap();
    let said = files(&path("empty"), &[]);
    assert!([Some(2), Some(3)].contains(&said.code) && said.err.contains("empty/login_events.ndjson"), "{said:?}");
    let case = case.to_str().unwrap();
    files(case, &["--set", "bindings=/no/such.ndjson"]).failed(2, &["'/no/such.ndjson'", "own, recorded"]);
    files(case, &["--set", "emit=sometimes"]).failed(2, &["'emit'", "sometimes"]);
    files(case, &["--workers", "0"]).failed(2, &["0 workers", "1 to 64"]);
    // The first run makes the folder, so the order matters: an error must not be in the way of the next try.
    files(case, &["--set", "bindings=recorded"]).ok();
}

#[test]
fn errors_as_json() {
    let said = on_job(&["check"], &["--set", "emitt=final", "--output", "json"]);
    assert_eq!((said.code, &*said.out), (Some(2), ""));
    let error: Value = serde_json::from_str(&said.err).unwrap();
    assert_eq!((&error["fault"], &error["exit_code"]), (&Value::from("user"), &Value::from(2)));
    assert!(error["error"].as_str().unwrap().contains("did you mean 'emit'?"));
}

#[test]
fn help_has_an_example_for_every_verb() {
    let verbs: [&[&str]; 6] = [
        &["run"],
        &["check"],
        &["tail"],
        &["bindings", "export"],
        &["checkpoints", "list"],
        &["checkpoints", "verify"],
    ];
    for verb in verbs {
        let help = run(&[verb, &["--help"]].concat()).ok();
        let example = help.lines().find(|line| line.trim_start().starts_with("Example: dataflow ")).unwrap_or_default();
        assert!(example.contains(&verb.join(" ")), "{help}");
        for option in ["--profile", "--set", "--data", "--output"] {
            assert!(help.contains(option), "{option} is not in {help}");
        }
    }
    let help = run(&["--help"]).ok();
    for word in ["run", "check", "tail", "bindings", "checkpoints", "Exit codes: 0", "130"] {
        assert!(help.contains(word), "{word} is not in {help}");
    }
    assert_eq!(run(&["rum"]).code, Some(2));
    assert_eq!(run(&["run"]).code, Some(2));
    assert!(run(&["rum", "x"]).err.contains("'run'"), "a misspelt verb names the nearest");
}

#[test]
fn verbs_that_read() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let job = Embedded::new(&data, 300, Some(600), &["runtime.checkpoint_interval_ms=300"]);
    for verb in [&["bindings", "export"][..], &["checkpoints", "list"], &["checkpoints", "verify"]] {
        job.say(verb, &[]).failed(2, &["data folder", "there is none", "--data"]);
    }
    let fresh: Value = serde_json::from_str(&job.say(&["check"], &["--output", "json"]).ok()).unwrap();
    assert_eq!((&fresh["job"], fresh.get("restores_epoch")), (&Value::from("login_anomalies"), None));
    assert!(job.say(&["check"], &[]).ok().contains("start afresh"));
    assert!(!data.exists(), "a verb that reads made a data folder");

    // One process at a time; readers do not mind it.
    let mut life = job.start(&[]);
    life.wait("records", |s| s["epoch_committed"].as_u64().unwrap() > 0);
    let holder = format!("process {} holds it", life.id());
    job.say(&["run"], &[]).failed(3, &[&holder, &format!("stop process {}", life.id()), data.to_str().unwrap()]);
    assert!(!job.bindings().is_empty());
    assert!(!job.tail("login-events-enriched").is_empty());
    life.end().ok();
    job.check(true);

    let all = job.bindings();
    let last = all.last().unwrap().epoch;
    let from_to = job.say(&["bindings", "export"], &["--from", "3", "--to", "5"]).ok();
    let part = dataflow_oracle::parse_bindings(&from_to).unwrap();
    assert_eq!(part, all[2..5]);
    assert_eq!(job.say(&["bindings", "export"], &["--from", &(last + 1).to_string()]).ok(), "");

    let list: Vec<Value> =
        serde_json::from_str(&job.say(&["checkpoints", "list"], &["--output", "json"]).ok()).unwrap();
    assert_eq!((&list[0]["epoch"], &list[0]["clean"]), (&Value::from(last), &Value::from(true)));
    assert!(list.is_sorted_by_key(|row| std::cmp::Reverse(row["epoch"].as_u64())));
    let verified: Vec<Value> =
        serde_json::from_str(&job.say(&["checkpoints", "verify"], &["--output", "json"]).ok()).unwrap();
    assert_eq!(verified.len(), list.len());
    assert!(verified.iter().all(|row| row["intact"] == true), "{verified:?}");
    assert!(job.say(&["checkpoints", "list"], &[]).ok().contains(&format!("epoch {last}")));

    let check = job.say(&["check"], &[]).ok();
    assert!(check.contains(&format!("restore epoch {last} and replay 0 epochs")), "{check}");
    job.say(&["tail"], &["login-anomaly"]).failed(2, &["'login-anomaly'", "did you mean 'login-anomalies'?"]);
}
