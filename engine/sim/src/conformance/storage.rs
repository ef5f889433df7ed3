//! What the engine relies on in a folder of files. What a crash takes is not in here: no real disk can be asked for one.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use dataflow_core::{Storage, replace_file};
use std::path::Path;

/// What every storage does, whatever is behind it. It is empty; `scratch` is a local folder for files to import.
///
/// # Panics
/// When it does not conform.
pub fn storage(storage: &dyn Storage, scratch: &Path) {
    assert_eq!(storage.list("").unwrap(), Vec::<String>::new());
    assert_eq!(storage.list("nowhere").unwrap(), Vec::<String>::new());
    assert_eq!(storage.length("a").unwrap(), None);
    assert!(storage.read("a").is_err());
    assert!(storage.read_range("a", 0, 1).is_err());
    assert!(storage.truncate("a", 0).is_err());
    assert!(storage.rename("a", "b").is_err());
    assert!(storage.sync_dir("nowhere").is_err());
    storage.remove("a").unwrap();

    assert!(storage.append("x/y/a").is_err(), "the folder is not created");
    storage.create_dir("x/y").unwrap();
    storage.create_dir("x/y").unwrap();
    let mut file = storage.append("x/y/a").unwrap();
    assert_eq!(file.length(), 0);
    file.write(b"hello ").unwrap();
    file.write(b"world").unwrap();
    assert_eq!(file.length(), 11);
    assert_eq!(storage.read("x/y/a").unwrap(), b"hello world", "reads see what was not synced yet");
    file.sync().unwrap();
    drop(file);
    storage.sync_dir("x/y").unwrap();

    let mut file = storage.append("x/y/a").unwrap();
    assert_eq!(file.length(), 11);
    file.write(b"!").unwrap();
    file.sync().unwrap();
    drop(file);
    assert_eq!(storage.length("x/y/a").unwrap(), Some(12));
    assert_eq!(storage.length("x/y").unwrap(), None, "a folder has no length");
    assert_eq!(storage.read_range("x/y/a", 6, 5).unwrap(), b"world");
    assert_eq!(storage.read_range("x/y/a", 10, 100).unwrap(), b"d!");
    assert_eq!(storage.read_range("x/y/a", 12, 1).unwrap(), b"");
    assert_eq!(storage.read_range("x/y/a", 99, 1).unwrap(), b"");

    storage.truncate("x/y/a", 5).unwrap();
    assert_eq!(storage.read("x/y/a").unwrap(), b"hello");
    assert!(storage.truncate("x/y/a", 6).is_err(), "a cut never makes a file longer");
    storage.append("x/y/c").unwrap().write(b"old").unwrap();
    storage.rename("x/y/a", "x/y/c").unwrap();
    storage.sync_dir("x/y").unwrap();
    assert_eq!(storage.read("x/y/c").unwrap(), b"hello");
    storage.append("x/y/b").unwrap();
    assert_eq!(storage.list("x/y").unwrap(), ["b", "c"]);
    assert_eq!(storage.list("x").unwrap(), ["y"]);

    imports(storage, scratch);
    replaces_and_removes(storage);
}

fn imports(storage: &dyn Storage, scratch: &Path) {
    let (first, second) = (scratch.join("first"), scratch.join("second"));
    std::fs::write(&first, b"imported").unwrap();
    std::fs::write(&second, b"again").unwrap();
    storage.import(&first, "x/i").unwrap();
    storage.import(&first, "x/i").unwrap();
    assert_eq!(storage.read("x/i").unwrap(), b"imported");
    storage.import(&second, "x/i").unwrap();
    assert_eq!(storage.read("x/i").unwrap(), b"again");
    assert_eq!(storage.list("x").unwrap(), ["i", "y"], "an import leaves nothing else behind");
    assert!(storage.import(&scratch.join("absent"), "x/j").is_err());
    if let Some(path) = storage.local_path("x/i") {
        assert_eq!(std::fs::read(path).unwrap(), b"again");
    }
}

fn replaces_and_removes(storage: &dyn Storage) {
    replace_file(storage, "x", "r", b"one").unwrap();
    storage.append("x/r.tmp").unwrap().write(b"left by a crash").unwrap();
    replace_file(storage, "x", "r", b"two").unwrap();
    assert_eq!(storage.read("x/r").unwrap(), b"two");

    storage.remove("x/y/b").unwrap();
    assert_eq!(storage.list("x/y").unwrap(), ["c"]);
    storage.remove("x").unwrap();
    assert_eq!(storage.list("").unwrap(), Vec::<String>::new());

    for path in ["", "/etc/passwd", "../a", "a//b", "a/./b", "a/"] {
        assert!(storage.append(path).is_err(), "{path}");
        assert!(storage.remove(path).is_err(), "{path}");
    }
}
