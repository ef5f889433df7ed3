//! What the kernel says: how much this process has in memory, and how much it may have.
//!
//! A control group bounds all that is below it, so the smallest limit on the way up counts: a service's, a container's, a batch job's. Both
//! versions of control groups are read, each where this process sees it mounted.

use procfs::process::{MountInfo, Process};
use procfs::{Current, Meminfo, ProcessCGroup};
use std::fs;
use std::path::{Path, PathBuf};

/// Bytes resident, pages of files that it has mapped among them.
pub(super) fn resident() -> Option<u64> {
    let pages = Process::myself().and_then(|process| process.statm()).ok()?.resident;
    Some(pages * procfs::page_size())
}

/// Bytes that the machine has, or that a control group of this process may have, whichever is less.
pub(super) fn available() -> Option<u64> {
    let machine = Meminfo::current().ok()?.mem_total;
    let groups = Process::myself().and_then(|process| Ok((process.cgroups()?, process.mountinfo()?)));
    let limits = groups.into_iter().flat_map(|(groups, mounts)| {
        let mounts: Vec<MountInfo> = mounts.into_iter().collect();
        groups.into_iter().filter_map(|group| limit_of(&group, &mounts)).collect::<Vec<u64>>()
    });
    Some(limits.fold(machine, u64::min))
}

/// What a control group may have; `None` when it says nothing of memory.
fn limit_of(group: &ProcessCGroup, mounts: &[MountInfo]) -> Option<u64> {
    let is_v2 = group.hierarchy == 0;
    if !is_v2 && !group.controllers.iter().any(|controller| controller == "memory") {
        return None;
    }
    let is_its = |mount: &&MountInfo| match mount.fs_type.as_str() {
        "cgroup2" => is_v2,
        "cgroup" => !is_v2 && mount.super_options.contains_key("memory"),
        _ => false,
    };
    let mount = mounts.iter().find(is_its)?;
    let file = if is_v2 { "memory.max" } else { "memory.limit_in_bytes" };
    least_on_the_way(&mount.mount_point, &below(&mount.root, &group.pathname), file)
}

/// Where a group lies below a mount that shows the hierarchy from `root` on. A container may see itself as the root, under its full name.
fn below(root: &str, group: &str) -> PathBuf {
    let path = Path::new(group).strip_prefix(root).unwrap_or(Path::new(""));
    path.strip_prefix("/").unwrap_or(path).to_owned()
}

/// The smallest number in `file` of the folder `group` below `mount` and of those above it; "max" is none.
fn least_on_the_way(mount: &Path, group: &Path, file: &str) -> Option<u64> {
    let folders = group.ancestors().map(|group| mount.join(group).join(file));
    folders.filter_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok()).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_within_this_machine() {
        let (resident, available) = (resident().unwrap(), available().unwrap());
        assert!(resident > 1 << 20 && available > resident, "{resident} of {available}");
        assert!(available <= Meminfo::current().unwrap().mem_total);
    }

    #[test]
    fn the_smallest_limit_on_the_way_up_counts() {
        let check = |limits: &[(&str, &str)], expected| {
            let mount = tempfile::tempdir().unwrap();
            fs::create_dir_all(mount.path().join("a/b")).unwrap();
            limits
                .iter()
                .for_each(|(group, limit)| fs::write(mount.path().join(group).join("memory.max"), limit).unwrap());
            assert_eq!(least_on_the_way(mount.path(), Path::new("a/b"), "memory.max"), expected, "{limits:?}");
        };
        check(&[], None);
        check(&[("a/b", "max\n"), ("a", "max\n")], None);
        check(&[("a/b", "4096\n"), ("a", "max\n")], Some(4096));
        check(&[("a/b", "4096\n"), ("a", "1024\n"), ("", "2048\n")], Some(1024));
    }

    #[test]
    fn a_group_is_found_below_what_is_mounted() {
        let check = |root, group, expected: &str| assert_eq!(below(root, group), Path::new(expected), "{root} {group}");
        check("/", "/", "");
        check("/", "/system.slice/job.service", "system.slice/job.service");
        check("/docker/1", "/docker/1", "");
        check("/docker/1", "/docker/1/job", "job");
        // A mount from before the process was moved.
        check("/docker/1", "/elsewhere", "");
    }
}
