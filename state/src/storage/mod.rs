//! The two implementations of [`dataflow_core::Storage`]: real files, and a memory that forgets like a disk does.
//!
//! Both refuse a path that leaves their root: paths are relative, use `/`, and hold no empty part, `.` or `..`; the
//! empty path is the root folder. Both pass the one conformance test below.

mod local;
mod memory;
mod place;

pub use local::LocalStorage;
pub(crate) use local::explained;
pub use memory::MemoryStorage;
pub(crate) use place::diagnosed;

use dataflow_core::{Error, Result};

/// Refuses what would leave the root or name one file in two ways.
fn checked(path: &str) -> Result<&str> {
    let fine = path.is_empty() || path.split('/').all(|part| !matches!(part, "" | "." | "..") && !part.contains('\0'));
    if fine {
        Ok(path)
    } else {
        Err(Error::us(format!("cannot use the path '{path}': it is not a plain relative path")))
    }
}

/// As [`checked`], and refuses the root: what renames or removes must name something in it.
fn below_root(path: &str) -> Result<&str> {
    if path.is_empty() { Err(Error::us("cannot rename or remove the root of a storage")) } else { checked(path) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataflow_core::{Storage, replace_file};

    /// What every storage does, whatever is behind it.
    fn check(storage: &dyn Storage) {
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

        let local = tempfile::tempdir().unwrap();
        let (first, second) = (local.path().join("first"), local.path().join("second"));
        std::fs::write(&first, b"imported").unwrap();
        std::fs::write(&second, b"again").unwrap();
        storage.import(&first, "x/i").unwrap();
        storage.import(&first, "x/i").unwrap();
        assert_eq!(storage.read("x/i").unwrap(), b"imported");
        storage.import(&second, "x/i").unwrap();
        assert_eq!(storage.read("x/i").unwrap(), b"again");
        assert_eq!(storage.list("x").unwrap(), ["i", "y"], "an import leaves nothing else behind");
        assert!(storage.import(&local.path().join("absent"), "x/j").is_err());
        if let Some(path) = storage.local_path("x/i") {
            assert_eq!(std::fs::read(path).unwrap(), b"again");
        }

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

    #[test]
    fn local_conforms() {
        let folder = tempfile::tempdir().unwrap();
        check(&LocalStorage::new(folder.path().to_owned()));
    }

    #[test]
    fn memory_conforms() {
        check(&MemoryStorage::new());
    }
}
