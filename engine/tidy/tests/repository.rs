//! Runs every rule on this checkout. A failure lists each place with what to do.

use dataflow_tidy::{RULES, Tree};
use std::path::PathBuf;

#[test]
fn the_checkout_keeps_the_rules() {
    let root = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("../..");
    let tree = Tree::read(&root).expect("the checkout can be read");
    assert!(tree.files.contains_key("engine/tidy/tests/repository.rs"), "'{}' is not the checkout", root.display());
    let mut broken = Vec::new();
    for (rule, check) in RULES {
        broken.extend(check(&tree).iter().map(|violation| format!("{rule}: {violation}")));
    }
    assert!(broken.is_empty(), "{} violations:\n  {}", broken.len(), broken.join("\n  "));
}
