//! The two implementations of [`dataflow_core::Storage`]: real files, and a memory that forgets like a disk does.
//!
//! Both refuse a path that leaves their root: paths are relative, use `/`, and hold no empty part, `.` or `..`; the
//! empty path is the root folder. Both pass one conformance suite (`engine/sim/src/conformance/storage.rs`).

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
