//! The project's rules that a machine can check: a rule reads the source tree and names what breaks it and what to do.
//!
//! Owns no policy of its own: each rule says in its documentation where it comes from. A rule sees files as text in a
//! [`Tree`], so that it is tested on a planted violation in memory; `tests/repository.rs` runs all of them on the checkout.
//! Refuses exceptions by comment: who needs one changes the rule, in review.

pub mod manifests;
pub mod names;
pub mod text;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

/// Folders that are no source: version control, builds, caches.
const NO_SOURCE: [&str; 4] = [".git", "target", "__pycache__", "node_modules"];

/// A source tree: text by path from the root, with `/` between folders. Files that are not UTF-8 have no text; links are
/// not followed.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    /// The files.
    pub files: BTreeMap<String, String>,
}

impl Tree {
    /// Reads all files under `root`.
    ///
    /// # Errors
    /// When a folder or file cannot be read.
    pub fn read(root: &Path) -> std::io::Result<Tree> {
        let mut tree = Tree::default();
        tree.read_folder(root, "")?;
        Ok(tree)
    }

    /// A tree of these files, for tests of rules.
    pub fn of<const N: usize>(files: [(&str, &str); N]) -> Tree {
        Tree { files: files.into_iter().map(|(path, text)| (path.to_owned(), text.to_owned())).collect() }
    }

    fn read_folder(&mut self, folder: &Path, prefix: &str) -> std::io::Result<()> {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = format!("{prefix}{name}");
            // A build folder is left out only as a folder: a file of that name would be ours.
            if entry.file_type()?.is_dir() {
                if !NO_SOURCE.contains(&name.as_str()) {
                    self.read_folder(&entry.path(), &format!("{path}/"))?;
                }
            } else if entry.file_type()?.is_file() && path != ".git" {
                // In a further work tree `.git` is a file that says where the repository is.
                let text = String::from_utf8(std::fs::read(entry.path())?).unwrap_or_default();
                self.files.insert(path, text);
            }
        }
        Ok(())
    }

    /// The Rust files.
    pub fn rust(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().filter(|(path, _)| path.ends_with(".rs")).map(|(path, text)| (path.as_str(), text.as_str()))
    }
}

/// What breaks a rule, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// The file or folder.
    pub path: String,
    /// The line, from 1; `None` when it is the file as a whole.
    pub line: Option<usize>,
    /// What is wrong; what to do.
    pub message: String,
}

impl Violation {
    fn new(path: &str, message: impl Into<String>) -> Violation {
        Violation { path: path.to_owned(), line: None, message: message.into() }
    }

    fn at(path: &str, line: usize, message: impl Into<String>) -> Violation {
        Violation { path: path.to_owned(), line: Some(line), message: message.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.path, self.message),
            None => write!(f, "{}: {}", self.path, self.message),
        }
    }
}

/// A rule: everything in the tree that breaks it.
pub type Rule = fn(&Tree) -> Vec<Violation>;

/// All rules, by name.
pub const RULES: [(&str, Rule); 11] = [
    ("header", text::header),
    ("length", text::length),
    ("job length", text::job_length),
    ("unfinished", text::unfinished),
    ("reasonless ignore", text::reasonless_ignore),
    ("places", text::places),
    ("names", names::vague),
    ("top level", names::top_level),
    ("layers", manifests::layers),
    ("versions", manifests::versions),
    ("lints", manifests::lints),
];
