//! `dataflow-oracle CASE_DIR BINDINGS [--emission eager|final] [--check ACTUAL_DIR [--ordered]] [--out DIR]`
//!
//! Computes what the login job must have written for a case and its bindings. With `--out` the four topics are written
//! as NDJSON files in the form of a case's `expected` folder; with `--check` they are compared with such a folder.
//! Exit 0 if equal, 1 on a difference, 2 if it could not compare.

use dataflow_oracle::{Case, Emission, Outputs, Row};
use dataflow_oracle::{canonical, check_eager, compare, compare_per_user, coverage, parse_bindings, run};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str =
    "dataflow-oracle CASE_DIR BINDINGS [--emission eager|final] [--check ACTUAL_DIR [--ordered]] [--out DIR]

  --emission  eager (default): raised and withdrawn rows with the epoch that says each; final: rows once released
  --check     compare with <topic>.ndjson in this folder, and exit 1 with what differs
  --ordered   the files of --check are in topic order: a user's rows must stand in the order of the rules
  --out       write <topic>.ndjson to this folder";

/// Logins that `--check` judges from scratch, over all epochs it stops at: about a minute.
const LOGINS_JUDGED: usize = 4_000_000;

struct Arguments {
    case: PathBuf,
    bindings: PathBuf,
    emission: Emission,
    check: Option<PathBuf>,
    ordered: bool,
    out: Option<PathBuf>,
}

fn main() -> ExitCode {
    match arguments(std::env::args().skip(1)).and_then(|arguments| execute(&arguments)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("dataflow-oracle: {error}");
            ExitCode::from(2)
        }
    }
}

fn arguments(words: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut paths = Vec::new();
    let (mut emission, mut check, mut ordered, mut out) = (Emission::Eager, None, false, None);
    let mut words = words;
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("'{word}' needs a value\n{USAGE}"));
        match word.as_str() {
            "--emission" => {
                emission = match value()?.as_str() {
                    "eager" => Emission::Eager,
                    "final" => Emission::Final,
                    other => return Err(format!("unknown emission '{other}': eager or final")),
                }
            }
            "--check" => check = Some(PathBuf::from(value()?)),
            "--out" => out = Some(PathBuf::from(value()?)),
            "--ordered" => ordered = true,
            _ if word.starts_with('-') => return Err(format!("unknown option '{word}'\n{USAGE}")),
            _ => paths.push(PathBuf::from(word)),
        }
    }
    match <[PathBuf; 2]>::try_from(paths) {
        Ok([case, bindings]) => Ok(Arguments { case, bindings, emission, check, ordered, out }),
        Err(_) => Err(USAGE.to_owned()),
    }
}

/// Whether all is as it must be.
fn execute(arguments: &Arguments) -> Result<bool, String> {
    let case = Case::read(&arguments.case)?;
    let bindings = parse_bindings(&read(&arguments.bindings)?)?;
    coverage(&case, &bindings)?;
    let outputs = run(&case, &bindings, arguments.emission)?;
    for (topic, rows) in outputs.topics() {
        println!("     {topic}: {} rows", rows.len());
    }
    if let Some(folder) = &arguments.out {
        write(folder, &outputs, arguments.emission)?;
    }
    let Some(folder) = &arguments.check else { return Ok(true) };
    let mut wrong = 0;
    let mut verdict = |what: &str, result: Result<(), String>| match result {
        Ok(()) => println!("ok   {what}"),
        Err(difference) => {
            println!("FAIL {what}: {difference}");
            wrong += 1;
        }
    };
    for (topic, rows) in outputs.topics() {
        let expected: Vec<Value> = rows.iter().map(|row| row.value.clone()).collect();
        let actual = read_rows(&folder.join(format!("{topic}.ndjson")))?;
        let mut ignore = vec!["raw"];
        if arguments.emission == Emission::Final {
            // The `expected` folders leave it out; a final job says nothing but "raised".
            ignore.push("status");
            if let Some(row) = actual.iter().find(|row| !matches!(row["status"].as_str(), None | Some("raised"))) {
                verdict(topic, Err(format!("{} has the status {}", row["id"], row["status"])));
            }
        }
        verdict(topic, compare(&expected, &actual, &ignore));
        if arguments.ordered && actual.iter().any(|row| !row["user_id"].is_null()) && topic != "login-events-late" {
            verdict(&format!("{topic} in order"), compare_per_user(&expected, &actual, &ignore));
        }
        if topic == "login-anomalies" && arguments.emission == Emission::Eager {
            let epochs = (LOGINS_JUDGED / case.events.len().max(1)).max(1);
            verdict("login-anomalies after each epoch", check_eager(&case, &bindings, &actual, epochs));
        }
    }
    Ok(wrong == 0)
}

fn write(folder: &Path, outputs: &Outputs, emission: Emission) -> Result<(), String> {
    fs::create_dir_all(folder).map_err(|e| format!("cannot create '{}': {e}", folder.display()))?;
    // `final` rows are all raised, and the `expected` folders leave the status out.
    let ignore: &[&str] = if emission == Emission::Final { &["status"] } else { &[] };
    for (topic, rows) in outputs.topics() {
        let line = |row: &Row| canonical(&row.value, ignore) + "\n";
        let mut lines: Vec<String> = rows.iter().map(line).collect();
        // What eager says has an order; everything else is a multiset, sorted as bytes.
        if !(topic == "login-anomalies" && emission == Emission::Eager) {
            lines.sort_unstable();
        }
        let path = folder.join(format!("{topic}.ndjson"));
        fs::write(&path, lines.concat()).map_err(|e| format!("cannot write '{}': {e}", path.display()))?;
    }
    Ok(())
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|e| format!("cannot read '{}': {e}", path.display()))
}

fn read_rows(path: &Path) -> Result<Vec<Value>, String> {
    let text = read(path)?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(n, line)| {
            let row = serde_json::from_str::<Value>(line).ok().filter(Value::is_object);
            row.ok_or_else(|| format!("'{}' line {}: not a JSON object", path.display(), n + 1))
        })
        .collect()
}
