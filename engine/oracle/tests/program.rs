//! The program: its files are those of the cases, byte for byte, and its exit code tells a difference.

// clippy spares `#[test]` functions only, not what they share.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn case(name: &str) -> PathBuf {
    PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("../../jobs/cases").join(name)
}

/// A folder of this test's own in the build's scratch space.
fn scratch(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("oracle-{name}"));
    if folder.exists() {
        fs::remove_dir_all(&folder).unwrap();
    }
    folder
}

fn oracle(name: &str, more: &[&str]) -> Output {
    let case = case(name);
    Command::new(env!("CARGO_BIN_EXE_dataflow-oracle"))
        .args([&case, &case.join("bindings.ndjson")])
        .args(more)
        .output()
        .unwrap()
}

#[test]
fn written_files_are_the_expected_ones() {
    let out = scratch("final");
    let done = oracle("case-3", &["--emission", "final", "--out", out.to_str().unwrap()]);
    assert!(done.status.success(), "{done:?}");
    for topic in ["login-events-enriched", "login-anomalies", "login-events-late", "login-events-dlq"] {
        let name = format!("{topic}.ndjson");
        let (written, expected) =
            (fs::read(out.join(&name)).unwrap(), fs::read(case("case-3/expected").join(&name)).unwrap());
        assert!(written == expected, "{name}");
    }
    let checked = oracle("case-3", &["--emission", "final", "--check", out.to_str().unwrap()]);
    assert!(checked.status.success(), "{checked:?}");
}

#[test]
fn a_difference_is_exit_code_1() {
    let out = scratch("eager");
    let folder = out.to_str().unwrap();
    assert!(oracle("case-4", &["--out", folder]).status.success());
    assert!(oracle("case-4", &["--check", folder]).status.success());
    let path = out.join("login-anomalies.ndjson");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replacen("\"medium\"", "\"low\"", 1)).unwrap();
    let done = oracle("case-4", &["--check", folder]);
    let shown = String::from_utf8(done.stdout).unwrap();
    assert_eq!(done.status.code(), Some(1), "{shown}");
    assert!(shown.contains("severity: expected \"medium\", got \"low\""), "{shown}");
    assert!(shown.contains("FAIL login-anomalies after each epoch"), "{shown}");
    fs::remove_file(&path).unwrap();
    assert_eq!(oracle("case-4", &["--check", folder]).status.code(), Some(2), "a file is missing");
    assert_eq!(oracle("case-4", &["--emission", "sometimes"]).status.code(), Some(2));
}
