//! Rules about what stands in files: headers, lengths, unfinished work, and places that exist on one machine only.
//!
//! The words that are searched for are put together from pieces, or these rules would find themselves.

use crate::{Tree, Violation};

/// STYLE 3: longer files are split by idea.
const LINES_MAX: usize = 600;
/// A job is one file that is read at once: logic and names, nothing else (DESIGN 7).
const JOB_LINES_MAX: usize = 150;

/// STYLE 1: every Rust file opens with what it owns.
pub fn header(tree: &Tree) -> Vec<Violation> {
    tree.rust()
        .filter(|(_, text)| !text.starts_with("//!"))
        .map(|(path, _)| {
            Violation::new(
                path,
                "does not open with `//!`; say what the file owns, its invariants, and what it refuses to do",
            )
        })
        .collect()
}

/// STYLE 3: at most 600 lines.
pub fn length(tree: &Tree) -> Vec<Violation> {
    tree.rust()
        .filter_map(|(path, text)| {
            let lines = text.lines().count();
            let message =
                format!("has {lines} lines, {LINES_MAX} are allowed; split it by idea, tests into a file of their own");
            (lines > LINES_MAX).then(|| Violation::new(path, message))
        })
        .collect()
}

/// Jobs stay under 150 lines.
pub fn job_length(tree: &Tree) -> Vec<Violation> {
    tree.rust()
        .filter_map(|(path, text)| {
            let name = path.strip_prefix("jobs/")?;
            let lines = text.lines().count();
            let message = format!("has {lines} lines, a job has fewer than {JOB_LINES_MAX}; move logic into operators, wiring into the TOML");
            (!name.contains('/') && name != "lib.rs" && lines >= JOB_LINES_MAX).then(|| Violation::new(path, message))
        })
        .collect()
}

/// No work is left for later in the code: it is an issue, or it is done.
pub fn unfinished(tree: &Tree) -> Vec<Violation> {
    let words = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("to", "do!("), concat!("unimple", "mented!(")];
    lines_with(tree, code, |line| {
        let word = words.iter().find(|word| line.contains(*word))?;
        Some(format!("has `{word}`; finish it, or open an issue and leave the code whole"))
    })
}

/// A test that does not run says why and how it is run.
pub fn reasonless_ignore(tree: &Tree) -> Vec<Violation> {
    let bare = concat!("#[", "ignore]");
    lines_with(
        tree,
        |path| path.ends_with(".rs"),
        |line| {
            line.contains(bare)
                .then(|| format!("has a bare `{bare}`; write the reason and the command that runs it: `= \"...\"`"))
        },
    )
}

/// What is written down works on every machine: no home folders, no package mirrors.
pub fn places(tree: &Tree) -> Vec<Violation> {
    let homes = [concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/Us", "ers/"), concat!("/wo", "rk/")];
    let mirrors =
        [concat!("arti", "factory"), concat!("jf", "rog"), concat!("index", "-url"), concat!("sonatype", "-nexus")];
    lines_with(tree, written, |line| {
        if let Some(home) = homes.iter().find(|home| stands_alone(line, home)) {
            return Some(format!("names the absolute path '{home}'; use a relative path, $HOME or $XDG_CACHE_HOME"));
        }
        let mirror = mirrors.iter().find(|mirror| line.to_ascii_lowercase().contains(*mirror))?;
        Some(format!("names a package mirror ('{mirror}'); that is the machine's setting, not the project's"))
    })
}

/// Whether `path` begins a path in `line`, and is not the middle of another one or of a URL.
fn stands_alone(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        !line[..at].ends_with(|before: char| before.is_alphanumeric() || matches!(before, '.' | '-' | '_' | '}' | '~'))
    })
}

/// Files that people write code in.
fn code(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    let known = [".rs", ".py", ".sh", ".toml", ".yaml", ".yml", ".js", ".ts"];
    known.iter().any(|end| name.ends_with(end)) || !name.contains('.')
}

/// Files that people write, as against data and lock files.
fn written(path: &str) -> bool {
    (code(path) || path.ends_with(".md")) && !path.starts_with("jobs/cases/")
}

fn lines_with(tree: &Tree, files: fn(&str) -> bool, complaint: impl Fn(&str) -> Option<String>) -> Vec<Violation> {
    let mut found = Vec::new();
    for (path, text) in tree.files.iter().filter(|(path, _)| files(path)) {
        for (number, line) in text.lines().enumerate() {
            found.extend(complaint(line).map(|message| Violation::at(path, number + 1, message)));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rule;

    /// The rule finds a violation in exactly the files that `guilty` names.
    fn check<const N: usize>(rule: Rule, files: [(&str, &str); N], guilty: &[&str]) {
        let found: Vec<String> = rule(&Tree::of(files)).into_iter().map(|violation| violation.path).collect();
        assert_eq!(found, guilty);
    }

    #[test]
    fn a_file_without_a_header() {
        check(header, [("a.rs", "//! Owns a.\n"), ("b.rs", "// b\n//! late\n"), ("c.py", "x = 1\n")], &["b.rs"]);
    }

    #[test]
    fn a_long_file() {
        let (fits, long) = ("x\n".repeat(600), "x\n".repeat(601));
        check(length, [("a.rs", &fits), ("b.rs", &long), ("c.md", &long)], &["b.rs"]);
    }

    #[test]
    fn a_long_job() {
        let (fits, long) = ("x\n".repeat(149), "x\n".repeat(150));
        check(
            job_length,
            [("jobs/a.rs", &fits), ("jobs/b.rs", &long), ("jobs/lib.rs", &long), ("jobs/tests/c.rs", &long)],
            &["jobs/b.rs"],
        );
    }

    #[test]
    fn work_left_for_later() {
        let (comment, call) = (concat!("// TO", "DO: later\n"), concat!("fn f() { to", "do!() }\n"));
        let files = [("a.rs", call), ("b.py", "done\n"), ("c.ndjson", comment), ("scripts/d", comment)];
        check(unfinished, files, &["a.rs", "scripts/d"]);
    }

    #[test]
    fn a_test_that_is_off_without_a_reason() {
        let bare = concat!("#[", "ignore]\n");
        check(reasonless_ignore, [("a.rs", bare), ("b.rs", "#[ignore = \"needs a broker: make e2e\"]\n")], &["a.rs"]);
    }

    #[test]
    fn places_of_one_machine() {
        let home = concat!("cd /ro", "ot/x\n");
        let other = concat!("export D=/wo", "rk/shared\n");
        let mirror = concat!("pip install --index", "-url https://x\n");
        let fine = concat!("$HOME/x src/ho", "me/x https://a.b/ho", "me/\n");
        let files =
            [("Makefile", home), ("README.md", mirror), ("a.rs", fine), ("b.py", other), ("jobs/cases/x.md", home)];
        check(places, files, &["Makefile", "README.md", "b.py"]);
    }
}
