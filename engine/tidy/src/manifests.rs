//! Rules about `Cargo.toml` files: who may depend on whom, where versions stand, which lints hold.

use crate::{Tree, Violation};
use std::collections::BTreeSet;
use toml::{Table, Value};

/// DESIGN 9: dependencies point one way. (crate, what of ours it may be linked with, what of ours its tests may use besides).
/// The oracle shares nothing with what it checks.
const LAYERS: [(&str, &[&str], &[&str]); 14] = [
    ("dataflow-core", &[], &[]),
    ("dataflow-state", &["dataflow-core"], &[]),
    ("dataflow-connectors", &["dataflow-core"], &["dataflow-state"]),
    ("dataflow-iceberg", &["dataflow-core"], &[]),
    ("dataflow-loadgen", &["dataflow-core"], &["dataflow-oracle"]),
    ("dataflow-runtime", &["dataflow-core", "dataflow-state"], &[]),
    ("dataflow-operators", &["dataflow-core", "dataflow-state", "dataflow-runtime"], &["dataflow-oracle"]),
    (
        "dataflow",
        &[
            "dataflow-core",
            "dataflow-state",
            "dataflow-connectors",
            "dataflow-iceberg",
            "dataflow-runtime",
            "dataflow-operators",
            "dataflow-loadgen",
        ],
        &["dataflow-oracle"],
    ),
    ("dataflow-jobs", &["dataflow"], &["dataflow-loadgen", "dataflow-oracle", "dataflow-sim"]),
    ("dataflow-cli", &["dataflow"], &[]),
    ("dataflow-oracle", &[], &[]),
    (
        "dataflow-sim",
        &[
            "dataflow-core",
            "dataflow-state",
            "dataflow-connectors",
            "dataflow-iceberg",
            "dataflow-runtime",
            "dataflow-operators",
            "dataflow-oracle",
        ],
        &["dataflow-loadgen"],
    ),
    (
        "dataflow-bench",
        &[
            "dataflow",
            "dataflow-core",
            "dataflow-state",
            "dataflow-connectors",
            "dataflow-iceberg",
            "dataflow-runtime",
            "dataflow-operators",
            "dataflow-loadgen",
        ],
        &[],
    ),
    ("dataflow-tidy", &[], &[]),
];

/// Sections of a manifest that are linked into the crate, and the one that is not.
const LINKED: [&str; 2] = ["dependencies", "build-dependencies"];
const TESTED: &str = "dev-dependencies";

/// Dependencies point one way.
pub fn layers(tree: &Tree) -> Vec<Violation> {
    let mut found = Vec::new();
    for (path, manifest) in crates(tree, &mut found) {
        let name = name_of(&manifest);
        let Some((_, linked, tested)) = LAYERS.iter().find(|(known, _, _)| *known == name) else {
            found.push(Violation::new(
                path,
                format!("the crate '{name}' has no layer; say in engine/tidy/src/manifests.rs what it may use"),
            ));
            continue;
        };
        for (section, dependency) in dependencies(&manifest) {
            let ours = LAYERS.iter().any(|(known, _, _)| *known == dependency);
            let allowed = linked.contains(&dependency) || (section == TESTED && tested.contains(&dependency));
            // A crate may use itself in its tests, with other features.
            if ours && !allowed && dependency != name {
                let message = format!(
                    "'{name}' must not use '{dependency}' in [{section}]; dependencies point one way (DESIGN 9): move what is needed \
                     down, or behind a trait of dataflow-core"
                );
                found.push(Violation::new(path, message));
            }
        }
    }
    found
}

/// STYLE 24: versions stand once, in the workspace's table, and nothing stands there unused.
pub fn versions(tree: &Tree) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut used = BTreeSet::new();
    for (path, manifest) in crates(tree, &mut found) {
        for section in LINKED.into_iter().chain([TESTED]) {
            for (dependency, how) in table(&manifest, section) {
                used.insert(dependency.clone());
                if how.get("workspace").and_then(Value::as_bool) != Some(true) {
                    let message = format!(
                        "'{dependency}' has a version of its own; write `{dependency}.workspace = true` and the version into the root's [workspace.dependencies]"
                    );
                    found.push(Violation::new(path, message));
                }
            }
        }
    }
    let root = tree.files.get("Cargo.toml").and_then(|text| text.parse::<Table>().ok()).unwrap_or_default();
    let shared = root.get("workspace").and_then(|workspace| workspace.get("dependencies")).and_then(Value::as_table);
    for dependency in shared.into_iter().flat_map(Table::keys).filter(|dependency| !used.contains(*dependency)) {
        // Our own crates are listed for whoever comes to need them.
        if !LAYERS.iter().any(|(known, _, _)| known == dependency) {
            found.push(Violation::new(
                "Cargo.toml",
                format!("no crate uses '{dependency}'; take it out of [workspace.dependencies]"),
            ));
        }
    }
    found
}

/// The workspace's lints hold in every crate.
pub fn lints(tree: &Tree) -> Vec<Violation> {
    let mut found = Vec::new();
    for (path, manifest) in crates(tree, &mut found) {
        let inherited = manifest.get("lints").and_then(|lints| lints.get("workspace")).and_then(Value::as_bool);
        if inherited != Some(true) {
            found.push(Violation::new(path, "does not take the workspace's lints; add `[lints] workspace = true`"));
        }
    }
    found
}

/// The manifests that describe a crate. One that cannot be read is a violation.
fn crates<'a>(tree: &'a Tree, found: &mut Vec<Violation>) -> Vec<(&'a str, Table)> {
    let mut crates = Vec::new();
    for (path, text) in tree.files.iter().filter(|(path, _)| *path == "Cargo.toml" || path.ends_with("/Cargo.toml")) {
        match text.parse::<Table>() {
            Ok(manifest) if manifest.contains_key("package") => crates.push((path.as_str(), manifest)),
            Ok(_) => {}
            Err(error) => found.push(Violation::new(path, format!("cannot be read as TOML: {error}"))),
        }
    }
    crates
}

fn name_of(manifest: &Table) -> &str {
    manifest.get("package").and_then(|package| package.get("name")).and_then(Value::as_str).unwrap_or_default()
}

fn table<'a>(manifest: &'a Table, section: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    manifest.get(section).and_then(Value::as_table).into_iter().flatten()
}

fn dependencies(manifest: &Table) -> impl Iterator<Item = (&'static str, &str)> {
    let sections = LINKED.into_iter().chain([TESTED]);
    sections.flat_map(move |section| table(manifest, section).map(move |(name, _)| (section, name.as_str())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rule;

    /// The rule's messages on this tree hold these words, one each.
    fn check<const N: usize>(rule: Rule, files: [(&str, &str); N], words: &[&str]) {
        let found: Vec<String> = rule(&Tree::of(files)).iter().map(Violation::to_string).collect();
        assert_eq!(found.len(), words.len(), "{found:#?}");
        for (message, word) in found.iter().zip(words) {
            assert!(message.contains(word), "'{message}' does not say '{word}'");
        }
    }

    #[test]
    fn a_dependency_that_points_up() {
        let state = "[package]\nname = \"dataflow-state\"\n[dependencies]\ndataflow-core.workspace = true\ndataflow-runtime.workspace = true\n";
        check(layers, [("state/Cargo.toml", state)], &["'dataflow-state' must not use 'dataflow-runtime'"]);
    }

    #[test]
    fn an_oracle_that_shares_code() {
        let oracle = "[package]\nname = \"dataflow-oracle\"\n[dev-dependencies]\ndataflow-core.workspace = true\n";
        check(layers, [("engine/oracle/Cargo.toml", oracle)], &["in [dev-dependencies]"]);
    }

    #[test]
    fn tests_may_use_more() {
        let jobs = "[package]\nname = \"dataflow-jobs\"\n[dependencies]\ndataflow.workspace = true\n[dev-dependencies]\ndataflow-oracle.workspace = true\n";
        check(layers, [("jobs/Cargo.toml", jobs)], &[]);
        let linked = jobs.replace("dev-", "build-");
        check(layers, [("jobs/Cargo.toml", &linked)], &["in [build-dependencies]"]);
    }

    #[test]
    fn a_crate_without_a_layer() {
        check(layers, [("x/Cargo.toml", "[package]\nname = \"dataflow-new\"\n")], &["has no layer"]);
    }

    #[test]
    fn a_version_in_the_wrong_place_and_one_that_nobody_uses() {
        let root = "[workspace]\nmembers = []\n[workspace.dependencies]\nserde = \"1\"\ntoml = \"0.9\"\n";
        let member = "[package]\nname = \"a\"\n[dependencies]\nserde = \"1\"\nbytes = { version = \"1\" }\n";
        let words = ["'bytes' has a version", "'serde' has a version", "no crate uses 'toml'"];
        check(versions, [("Cargo.toml", root), ("a/Cargo.toml", member)], &words);
    }

    #[test]
    fn a_crate_without_lints() {
        let with = "[package]\nname = \"a\"\n[lints]\nworkspace = true\n";
        check(
            lints,
            [("a/Cargo.toml", with), ("b/Cargo.toml", "[package]\nname = \"b\"\n"), ("Cargo.toml", "[workspace]\n")],
            &["b/Cargo.toml"],
        );
    }

    #[test]
    fn a_manifest_that_cannot_be_read() {
        check(lints, [("a/Cargo.toml", "[package\n")], &["cannot be read"]);
    }
}
