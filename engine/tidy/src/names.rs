//! Rules about what files and folders are called, and what may stand at the top.

use crate::{Tree, Violation};
use std::collections::BTreeSet;

/// STYLE 5: names that say nothing about a role in the flow.
const VAGUE: [&str; 9] = ["util", "utils", "common", "helper", "helpers", "manager", "managers", "misc", "stuff"];

/// DESIGN 9: the top level is fixed. Folders first, then files.
const TOP: [&str; 22] = [
    "engine",
    "operators",
    "jobs",
    "state",
    "connectors",
    "loadgen",
    "bench",
    "compose",
    // tools
    "scripts",
    ".ci",
    ".cargo",
    ".config",
    ".github",
    "Cargo.toml",
    "Cargo.lock",
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "LICENSE",
    "Makefile",
    // what says which tools and which files
    "rust-toolchain.toml",
    "deny.toml",
];

/// Settings of tools that look for them at the top.
const SETTINGS: [&str; 5] = [".editorconfig", ".gitignore", ".gitattributes", "clippy.toml", "rustfmt.toml"];

/// No file or folder has a name under which anything could be put.
pub fn vague(tree: &Tree) -> Vec<Violation> {
    let mut found = BTreeSet::new();
    for path in tree.files.keys() {
        let mut end = 0;
        for part in path.split('/') {
            end += part.len() + 1;
            let stem = part.split('.').next().unwrap_or(part).to_ascii_lowercase();
            if VAGUE.contains(&stem.as_str()) {
                let message = format!(
                    "is called '{part}'; name it by its role in the flow, or move its parts to where they are used"
                );
                found.insert(Violation::new(&path[..end - 1], message));
            }
        }
    }
    found.into_iter().collect()
}

/// Nothing new at the top.
pub fn top_level(tree: &Tree) -> Vec<Violation> {
    let tops: BTreeSet<&str> = tree.files.keys().filter_map(|path| path.split('/').next()).collect();
    tops.into_iter()
        .filter(|name| !TOP.contains(name) && !SETTINGS.contains(name))
        .map(|name| {
            Violation::new(
                name,
                "is no part of the fixed top level; put it where it stands in the flow (README, Layout)",
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(found: Vec<Violation>) -> Vec<String> {
        found.into_iter().map(|violation| violation.path).collect()
    }

    #[test]
    fn names_that_say_nothing() {
        let files = [
            ("a/src/utils.rs", ""),
            ("a/helpers/x.rs", ""),
            ("a/helpers/y.rs", ""),
            ("a/commons.rs", ""),
            ("a/Manager.py", ""),
        ];
        assert_eq!(paths(vague(&Tree::of(files))), ["a/Manager.py", "a/helpers", "a/src/utils.rs"]);
    }

    #[test]
    fn a_stranger_at_the_top() {
        let files =
            [("engine/core/src/lib.rs", ""), ("Makefile", ""), (".gitignore", ""), ("notes.txt", ""), ("tools/x", "")];
        assert_eq!(paths(top_level(&Tree::of(files))), ["notes.txt", "tools"]);
    }
}
