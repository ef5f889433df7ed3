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
    mistaken(&["--set", "sources.login-events.rat=1"], &["login-events", "'rat'", "did you mean 'rate'?"]);
    mistaken(&["--set", "sinks.alerts.start_ovr=true"], &["'start_ovr'", "did you mean 'start_over'?"]);
    mistaken(&["--set", "tables.geo.fil=x"], &["table 'geo'", "'fil'", "did you mean 'file'?"]);
    mistaken(&["--set", "params.emitt=final"], &["job 'login_anomalies'", "'emitt'", "did you mean 'emit'?"]);
    mistaken(&["--set", "sources.login-events.start=2026-01-01T00:00:00Z"], &["'start'"]);
    mistaken(&["--set", "emit"], &["--set emit", "there is no '='"]);
    mistaken(&["--set", "runtime.tick_min_ms=soon"], &["runtime", "profile 'embedded'"]);
    mistaken(&["--profile", "embeded"], &["'embeded'", "did you mean 'embedded'?", "files", "local"]);
    mistaken(&["--profile", "files"], &["profile 'files' needs", "--set "]);
}

/// What only the job's graph shows: `check` builds it.
#[test]
fn what_the_graph_asks_for_is_checked() {
    mistaken(&["--set", "emit=eagr"], &["parameter 'emit'", "eagr"]);
    mistaken(&["--set", "dead_letters_with_raw=3"], &["parameter 'dead_letters_with_raw'"]);
    let topics = |topics: &[&str]| format!("sinks.alerts.topics={topics:?}");
    let most = ["login-events-enriched", "login-events-late", "login-events-dlq"];
    mistaken(&["--set", &topics(&most)], &["'login-anomalies'", "no sink"]);
    let more = [&most[..], &["login-anomalies", "login-anomalys"]].concat();
    mistaken(&["--set", &topics(&more)], &["'login-anomalys'", "did you mean 'login-anomalies'?"]);
    let folder = tempfile::tempdir().unwrap();
    let geo = folder.path().join("geo.csv");
    fs::write(&geo, "no geography").unwrap();
    mistaken(&["--set", &format!("geo={}", geo.display())], &["ip_prefix"]);
}

#[test]
fn a_value_of_another_type_is_refused_by_its_key() {
    mistaken(&["--set", "sources.login-events.paced=maybe"], &["'paced'", "string", "true"]);
    mistaken(&["--set", "sources.login-events.partitions=many"], &["login-events", "partitions", "many"]);
    mistaken(&["--set", "sinks.alerts.start_over=1"], &["'alerts'", "start_over", "1"]);
    mistaken(&["--set", "sinks.alerts.connector=1"], &["'connector'", "integer"]);
    mistaken(&["--set", "workers=two"], &["'workers'", "two"]);
}

/// A start that is refused leaves the generation that runs alone: it is found before anything is opened.
#[test]
fn a_typo_shuts_nobody_out() {
    let data = tempfile::tempdir().unwrap();
    let job = Embedded::new(data.path(), 400, Some(2000), &["runtime.checkpoint_interval_ms=300"]);
    let mut life = job.start(&[]);
    life.wait("pending events", |s| s["checkpoints"].as_u64() > Some(0) && s["raised"].as_u64() > Some(0));
    life.stop().ok();
    let kept = || {
        ["generation", "bindings", "output"]
            .map(|name| (name, crate::data::files(&data.path().join(name)), fs::read(data.path().join(name)).ok()))
    };
    let before = kept();
    for (set, parts) in [
        ("emit=eagr", &["parameter 'emit'"][..]),
        ("emit=final", &["emit = Final", "pending events under the other one"]),
        ("params.emitt=eager", &["'emitt'"]),
        ("sinks.alerts.topics=['login-anomalies']", &["no sink"]),
    ] {
        for verb in ["check", "run"] {
            job.say(&[verb], &["--set", set]).failed(2, parts);
        }
        assert!(kept() == before, "{set}");
        let status = crate::process::status(data.path()).unwrap();
        assert_eq!((&status["state"], &status["failure"]["fault"]), (&"failed".into(), &"user".into()), "{status}");
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    job.say(&["run"], &["--page", &port]).failed(2, &["the live page on port", "--page"]);
    assert!(kept() == before, "a port that is taken");
    job.start(&[]).end().ok();
    job.check(true);
}

/// The profile `local`, checked with these settings; no service is asked.
fn local(set: &[&str]) -> Said {
    let job = job_file();
    let geo = format!("geo={}", job.with_file_name("cases/hand/01-new-country/ip_geo.csv").display());
    let mut command =
        program(&["check", job.to_str().unwrap(), "--profile", "local", "--output", "json", "--set", &geo]);
    for assignment in set {
        command.args(["--set", assignment]);
    }
    let folder = std::env::temp_dir().join("dataflow-no-such-data");
    command.arg("--data").arg(folder).env("KAFKA_BROKERS", "127.0.0.1:1").env("REGISTRY_URL", "http://127.0.0.1:1");
    command.env("SECRET", "hush").env_remove("NO_SECRET");
    say(command)
}

#[test]
fn settings_of_kafka_and_its_registry() {
    local(&[]).ok();
    for (set, parts) in [
        ("sources.login-events.broker=x", &["'broker'", "did you mean 'brokers'?"][..]),
        ("sources.login-events.registry.usernam=x", &["'usernam'", "did you mean 'username'?"]),
        ("sources.login-events.registry=x", &["'registry'", "string"]),
        ("sources.login-events.format=json", &["'registry'", "never asks"]),
        ("sinks.alerts.slot=3", &["'slot'", "did you mean 'slots'?"]),
        ("sinks.alerts.create_topics.partition=3", &["'create_topics'", "'partition'", "did you mean 'partitions'?"]),
        ("sinks.alerts.client.acks=0", &["may not set 'acks'"]),
        ("sinks.alerts.client.\"acks\"=0", &["may not set 'acks'"]),
        (
            "sources.login-events.registry.password=env:NO_SECRET",
            &["'sources.login-events.registry.password'", "'NO_SECRET'"],
        ),
        ("sources.login-events.client.\"sasl.password\"=file:/no/such", &["client.sasl.password'", "/no/such"]),
    ] {
        local(&[set]).failed(2, parts);
    }
}

#[test]
fn secrets_are_resolved_and_never_printed() {
    let secret = [
        "sources.login-events.registry.username=me",
        "sources.login-events.registry.password=env:SECRET",
        "sources.login-events.client.\"security.protocol\"=SASL_PLAINTEXT",
        "sources.login-events.client.sasl.password=env:SECRET",
        "sinks.alerts.client.\"sasl.password\"=env:SECRET",
    ];
    let said = local(&secret);
    assert!(!said.out.contains("hush") && !said.err.contains("hush"), "{said:?}");
    said.ok();
    let said = local(&[&secret[..], &["sinks.alerts.slots=many"]].concat());
    said.failed(2, &["slots"]);
    assert!(!said.err.contains("hush") && !said.err.contains("SECRET"), "{said:?}");
}

#[test]
fn a_relative_path_in_the_settings_file_starts_there() {
    let folder = tempfile::tempdir().unwrap();
    let job = folder.path().join("login_anomalies.rs");
    fs::copy(job_file(), &job).unwrap();
    let toml = fs::read_to_string(job_file().with_extension("toml")).unwrap();
    assert!(toml.contains("file = \"${geo?}\"\ngenerate = true"));
    fs::write(
        job.with_extension("toml"),
        toml.replace("file = \"${geo?}\"\ngenerate = true", "file = \"tables/geo.csv\""),
    )
    .unwrap();
    let check = |more: &[&str]| {
        let mut command = program(&["check", job.to_str().unwrap(), "--data", "/no/such/data"]);
        command.args(more).current_dir("/");
        say(command)
    };
    check(&[]).failed(2, &["tables/geo.csv", folder.path().to_str().unwrap()]);
    fs::create_dir(folder.path().join("tables")).unwrap();
    fs::copy(job_file().with_file_name("cases/hand/01-new-country/ip_geo.csv"), folder.path().join("tables/geo.csv"))
        .unwrap();
    check(&[]).ok();
    check(&["--set", "tables.geo.file=tables/geo.csv"]).failed(2, &["'tables/geo.csv'"]);
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
        ("users = 5000", "usrs = 5000", &["'usrs'", "did you mean 'users'?"]),
        ("generate = true", "genrate = true", &["'genrate'", "did you mean 'generate'?"]),
        ("workers = 2", "workers = 2\nparams = { emti = 3 }", &["parameter 'emti'", "did you mean 'emit'?"]),
        ("emit = \"eager\"", "emti = \"eager\"", &["parameter 'emit'", "what it sets now", "emti"]),
        ("[params]", "[export]\n[params]", &["'export'"]),
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
    let verbs: [&[&str]; 7] = [
        &["run"],
        &["check"],
        &["tail"],
        &["tag"],
        &["bindings", "export"],
        &["checkpoints", "list"],
        &["checkpoints", "verify"],
    ];
    for verb in verbs {
        let help = run(&[verb, &["--help"]].concat()).ok();
        let example = help.lines().find(|line| line.trim_start().starts_with("Example: dataflow ")).unwrap_or_default();
        assert!(example.contains(&verb.join(" ")), "{help}");
        for option in
            ["--profile", "--set", "--data", "--output", "in quotes", "Exit codes: 0 done; 2 the command line"]
        {
            assert!(help.contains(option), "{option} is not in {help}");
        }
    }
    let help = run(&["--help"]).ok();
    for word in ["run", "check", "tail", "tag", "bindings", "checkpoints", "Exit codes: 0", "130"] {
        assert!(help.contains(word), "{word} is not in {help}");
    }
    for wrong in [
        &["rum"][..],
        &["run"],
        &["run", "x", "--workers", "many"],
        &["check", "x", "--output", "jsn"],
        &["run", "x", "--sett", "a=b"],
    ] {
        assert_eq!(run(wrong).code, Some(2), "{wrong:?}");
    }
    assert_eq!(run(&["run", "x", "--output", "json", "--sett", "a=b"]).code, Some(2));
    assert!(run(&["rum", "x"]).err.contains("'run'"), "a misspelt verb names the nearest");
}

#[test]
fn attacks_are_counted_though_older_bindings_are_gone() {
    let data = tempfile::tempdir().unwrap();
    let set = [
        "runtime.checkpoint_interval_ms=200",
        "runtime.bindings_segment_bytes=2048",
        "runtime.bindings_retain_bytes=1",
        // The one kind that is over within ten seconds.
        "sources.login-events.kinds=['credential_stuffing']",
    ];
    let job = Embedded::new(data.path(), 400, Some(4800), &set);
    let said = job.start(&[]).end();
    assert!(job.bindings()[0].epoch > 1, "nothing was removed");
    let line = said.err.lines().find(|line| line.starts_with("attacks   ")).unwrap_or_else(|| panic!("{}", said.err));
    assert!(line.contains(" that the generator hid were caught (") && !line.contains("attacks   0 of"), "{line}");
    said.ok();
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
    let has_all = |s: &Value| ["late", "dead_letters", "raised"].iter().all(|kind| s[*kind].as_u64().unwrap() > 0);
    let running = life.wait("a row for each topic", |s| has_all(s) && s["epoch_committed"].as_u64().unwrap() > 0);
    assert_eq!((&running["state"], &running["failure"]), (&Value::from("running"), &Value::Null));
    let holder = format!("process {} holds it", life.id());
    job.say(&["run"], &[]).failed(3, &[&holder, &format!("stop process {}", life.id()), data.to_str().unwrap()]);
    assert!(!job.bindings().is_empty());
    assert!(!job.tail("login-events-enriched").is_empty());
    life.end().ok();
    assert_eq!(crate::process::status(&data).unwrap()["state"], "stopped");
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
