//! What the compiler says of a job author's mistakes: each program in `mistakes/` is refused, in the words that its lines `//! says:` list.
//!
//! `trybuild` would compile RocksDB a second time, into a target folder of its own, and hold the words to one compiler's layout. Here rustc is given
//! the library as cargo has built it for this very test.

#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The program without a mistake.
const RIGHT: &str = "right.rs";
const SAYS: &str = "//! says: ";

fn folder() -> PathBuf {
    PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("tests/mistakes")
}

/// What rustc says of a program that it refuses.
fn refused(program: &Path, library: &Path) -> Option<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let out = tempfile::tempdir().unwrap();
    let mut command = Command::new(rustc);
    command.args(["--edition", "2024", "--crate-type", "lib", "--emit", "metadata", "--error-format", "human"]);
    command.arg("--out-dir").arg(out.path()).arg(program);
    command.arg("-L").arg(format!("dependency={}", library.parent().unwrap().display()));
    command.arg("--extern").arg(format!("dataflow_operators={}", library.display()));
    let done = command.output().unwrap();
    (!done.status.success()).then(|| String::from_utf8(done.stderr).unwrap())
}

/// The newest build of the library beside this test with which a program can be compiled; older ones may lack what they were built with.
fn library() -> PathBuf {
    let deps = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    let built = fs::read_dir(deps).unwrap().map(|entry| entry.unwrap()).filter(|entry| {
        let name = entry.file_name().into_string().unwrap();
        name.starts_with("libdataflow_operators-") && name.ends_with(".rlib")
    });
    let mut built: Vec<_> = built.map(|entry| (entry.metadata().unwrap().modified().unwrap(), entry.path())).collect();
    built.sort_unstable();
    let mut said = String::new();
    let found = built.into_iter().rev().map(|(_, path)| path).find(|path| match refused(&folder().join(RIGHT), path) {
        None => true,
        Some(text) => {
            said = text;
            false
        }
    });
    found.unwrap_or_else(|| panic!("a program without a mistake is refused: {said}"))
}

#[test]
fn mistakes_are_named_by_the_compiler() {
    let (library, mut count) = (library(), 0);
    for entry in fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap()) {
        let text = fs::read_to_string(entry.path()).unwrap();
        let words: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix(SAYS)).collect();
        let name = entry.file_name();
        assert_eq!(words.is_empty(), name == RIGHT, "{name:?}: a mistake lists what the compiler says");
        if words.is_empty() {
            continue;
        }
        let said = refused(&entry.path(), &library).unwrap_or_else(|| panic!("{name:?} is compiled"));
        for word in words {
            assert!(said.contains(word), "{name:?}: the compiler does not say {word:?}:\n{said}");
        }
        count += 1;
    }
    assert!(count > 0, "there are mistakes");
}
