//! What is wrong with a place on a disk, asked of the file system: for errors of RocksDB, which has only a text to say.

use super::local::advice;
use dataflow_core::Error;
use rustix::fs::{Access, StatVfsMountFlags, access, statvfs};
use rustix::io::Errno;
use std::path::Path;

/// With less room than this a failed write is put down to a full disk. RocksDB removes what it wrote of a file that did not fit, at most
/// a write buffer or a table (32 MiB), so room may be back by the time it is asked for.
const ROOM_BYTES_MIN: u64 = 32 << 20;

/// An error of writing somewhere in the folder `folder`, with what to do about what the file system says of it.
pub(crate) fn diagnosed(error: Error, folder: &Path) -> Error {
    match complaint(folder).and_then(advice) {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

/// Why nothing can be written in a folder, as far as the file system tells.
fn complaint(folder: &Path) -> Option<Errno> {
    let system = statvfs(folder).ok()?;
    if system.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Some(Errno::ROFS);
    }
    if access(folder, Access::WRITE_OK | Access::EXEC_OK).is_err_and(|cause| cause == Errno::ACCESS) {
        return Some(Errno::ACCESS);
    }
    (system.f_bavail.saturating_mul(system.f_frsize) < ROOM_BYTES_MIN).then_some(Errno::NOSPC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_written_is_not_complained_about() {
        let folder = tempfile::tempdir().unwrap();
        let free = statvfs(folder.path()).unwrap();
        assert!(
            free.f_bavail * free.f_frsize >= ROOM_BYTES_MIN,
            "this test needs room in the folder for temporary files"
        );
        assert_eq!(complaint(folder.path()), None);
        assert_eq!(complaint(&folder.path().join("none")), None);
        // /proc is a file system without a block.
        let said = diagnosed(Error::outside("write state in '/proc'"), Path::new("/proc")).to_string();
        assert!(said.contains("the file system is"), "{said}");
    }
}
