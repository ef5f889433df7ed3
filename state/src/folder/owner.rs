//! Whose files a data folder has: another user's are refused. What one user's process writes there the other's could then not replace,
//! which would show in the middle of a run and at the next start.
//!
//! The files are judged, not the folder: that may be a mount that belongs to root.

use super::LOCK;
use super::identity::IDENTITY;
use crate::storage::explained;
use dataflow_core::{Error, Result};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Refuses a folder whose files belong to another user than this process's.
pub(super) fn check(folder: &Path) -> Result<()> {
    let us = rustix::process::geteuid().as_raw();
    for name in [LOCK, IDENTITY] {
        let path = folder.join(name);
        let owner = match std::fs::metadata(&path) {
            Ok(metadata) => metadata.uid(),
            Err(cause) if cause.kind() == ErrorKind::NotFound => continue,
            Err(cause) => return Err(explained("look at", &path)(cause)),
        };
        if owner != us {
            return Err(refused(folder, name, owner, us));
        }
    }
    Ok(())
}

fn refused(folder: &Path, name: &str, owner: u32, us: u32) -> Error {
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let (folder, owner, us) = (folder.display(), user(&users, owner), user(&users, us));
    Error::outside(format!(
        "cannot use the data folder '{folder}': its file '{name}' belongs to {owner}, this process runs as {us}"
    ))
    .hint("run the job as that user, or give the whole folder to this one (chown -R), or choose another data folder")
}

/// A user by name and number, in the lines of `/etc/passwd`.
fn user(users: &str, id: u32) -> String {
    let named = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(id)).then_some(name)
    });
    named.map_or_else(|| format!("the user with id {id}"), |name| format!("user '{name}' (id {id})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_have_names_where_they_are_known() {
        let users = "root:x:0:0:root:/root:/bin/sh\nbroken\nnobody:x:65534:65534::/:/none\n";
        assert_eq!(user(users, 0), "user 'root' (id 0)");
        assert_eq!(user(users, 65_534), "user 'nobody' (id 65534)");
        assert_eq!(user(users, 7), "the user with id 7");
        let said = refused(Path::new("/d"), LOCK, 7, 0).to_string();
        assert!(said.contains("'/d'") && said.contains("id 7") && said.contains("chown -R"), "{said}");
    }

    #[test]
    fn our_own_files_pass() {
        let folder = tempfile::tempdir().unwrap();
        check(folder.path()).unwrap();
        std::fs::write(folder.path().join(LOCK), "").unwrap();
        check(folder.path()).unwrap();
    }
}
