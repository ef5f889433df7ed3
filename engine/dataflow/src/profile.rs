//! A job's settings: the TOML beside the job file, one profile of it, with what `--set` changes and `${...}` filled in.
//!
//! ```toml
//! default_profile = "embedded"
//! [params]                     # what the job's code asks for
//! emit = "eager"
//! [profiles.local]
//! vars = { geo = "" }          # names for --set, used as ${geo}; an empty one must be set when it is used
//! [profiles.local.sources.logins]
//! connector = "kafka"
//! brokers = "${env:KAFKA_BROKERS}"
//! ```
//!
//! A key that nothing reads is refused with the nearest right one, a value of another type by its key: a misspelt setting never passes
//! in silence. A relative path in the file starts at the file; one that came by `--set` or from the environment, where the program runs.

mod keys;

pub use keys::{refuse_unknown, typed, unknown};

use dataflow_core::{Error, Result};
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// The sections of a profile.
const SECTIONS: [&str; 10] =
    ["data", "workers", "vars", "params", "runtime", "state", "shop", "sources", "tables", "sinks"];
/// Those that are one value.
const VALUES: [&str; 2] = ["data", "workers"];
/// Those whose entries are tables with names of their own.
const NAMED: [&str; 3] = ["sources", "tables", "sinks"];
/// The keys of the file.
const TOP: [&str; 3] = ["default_profile", "params", "profiles"];

/// The settings of one profile, ready to be wired.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Its name.
    pub name: String,
    /// The folder of the settings file, which relative paths in it start from.
    folder: PathBuf,
    content: Table,
    file: String,
    /// What came by `--set`.
    set: Vec<Vec<String>>,
    /// The data folder, once it is known: `${data}`.
    data: Option<PathBuf>,
}

impl Profile {
    /// Reads the settings of the job file `job`.
    ///
    /// # Errors
    /// When there are none, they are not TOML, the profile is unknown, or a `--set` names nothing.
    pub fn load(job: &Path, name: Option<&str>, set: &[String]) -> Result<Profile> {
        let path = job.with_extension("toml");
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(&path).map_err(|cause| {
            Error::user(format!("reading the settings '{shown}'"))
                .because(cause)
                .hint("every job file has a .toml of its name beside it")
        })?;
        let folder = path.parent().map_or_else(PathBuf::new, Path::to_path_buf);
        Profile::parse(&text, &shown, folder, name, set)
    }

    /// As [`Profile::load`], from the text of the settings file `file`.
    ///
    /// # Errors
    /// As there.
    pub fn parse(text: &str, file: &str, folder: PathBuf, name: Option<&str>, set: &[String]) -> Result<Profile> {
        let mut all: Table = text.parse().map_err(|cause: toml::de::Error| {
            // Not the line itself: there may be a secret in it, whatever we say about references.
            let before = cause.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            Error::user(format!("reading the settings '{file}', line {line}: {}", cause.message()))
        })?;
        refuse_unknown(all.keys(), TOP.iter().copied(), &format!("'{file}'"))?;
        let name = match (name, all.remove("default_profile")) {
            (Some(name), _) => name.to_owned(),
            (None, Some(Value::String(name))) => name,
            (None, None) => "default".to_owned(),
            (None, Some(other)) => return Err(not("a text", "default_profile", file, &other)),
        };
        let shared = table(all.remove("params"), "params", file)?;
        let mut profiles = table(all.remove("profiles"), "profiles", file)?;
        if profiles.is_empty() {
            return Err(Error::user(format!("reading the settings '{file}': there is no [profiles.NAME]")));
        }
        let known: Vec<String> = profiles.keys().cloned().collect();
        let Some(content) = profiles.remove(&name) else {
            return Err(unknown("profile", &name, known.iter().map(String::as_str), &format!("'{file}'")));
        };
        let mut content = table(Some(content), &format!("profiles.{name}"), file)?;
        let mut params = table(content.remove("params"), "params", file)?;
        for (key, value) in shared {
            params.entry(key).or_insert(value);
        }
        content.insert("params".to_owned(), Value::Table(params));
        let mut profile = Profile { name, folder, content, file: file.to_owned(), set: Vec::new(), data: None };
        for assignment in set {
            profile.set(assignment)?;
        }
        profile.check()?;
        Ok(profile)
    }

    /// Says which folder `${data}` is.
    pub(crate) fn name_data(&mut self, data: &Path) {
        self.data = Some(data.to_owned());
    }

    /// One `--set KEY=VALUE`.
    fn set(&mut self, assignment: &str) -> Result<()> {
        let (key, text) = assignment.split_once('=').ok_or_else(|| {
            Error::user(format!("reading '--set {assignment}': there is no '='")).hint("write --set KEY=VALUE")
        })?;
        let mut path = keys::path_of(key)?;
        if let [name] = &*path {
            let has = |section: &str| self.content.get(section).is_some_and(|t| t.get(name).is_some());
            let section = ["vars", "params"].into_iter().find(|section| has(section));
            path.splice(0..0, section.map(str::to_owned));
        }
        if path.len() == 1 && !VALUES.contains(&&*path[0]) {
            let names =
                ["vars", "params"].iter().filter_map(|s| self.content.get(*s)?.as_table()).flat_map(Table::keys);
            let names: Vec<&str> = names.map(String::as_str).chain(SECTIONS).collect();
            return Err(unknown("setting", key, names.into_iter(), &self.place()));
        }
        let value = format!("v = {text}").parse::<Table>().ok().and_then(|mut t| t.remove("v"));
        let value = match value {
            // A variable is text, whatever it looks like.
            Some(value) if path[0] != "vars" => value,
            _ => Value::String(text.to_owned()),
        };
        let place = self.place();
        let (last, folders) = path.split_last().expect("a key has a part");
        let mut table = &mut self.content;
        for (depth, part) in folders.iter().enumerate() {
            let known: Vec<&str> = match depth {
                0 => SECTIONS.to_vec(),
                1 => table.keys().map(String::as_str).collect(),
                _ => Vec::new(), // what a component takes it says itself
            };
            if depth < 2 && !known.contains(&&**part) {
                return Err(unknown("setting", key, known.into_iter(), &place));
            }
            let entry = table.entry(part.clone()).or_insert_with(|| Value::Table(Table::new()));
            let Value::Table(next) = entry else {
                return Err(Error::user(format!("setting '{key}': '{part}' is a value, not a table")));
            };
            table = next;
        }
        if path[0] == "vars" && !table.contains_key(last) {
            return Err(unknown("variable", last, table.keys().map(String::as_str), &place));
        }
        table.insert(last.clone(), value);
        self.set.push(path);
        Ok(())
    }

    /// Refuses sections that are none, or of another shape.
    fn check(&self) -> Result<()> {
        refuse_unknown(self.content.keys(), SECTIONS.iter().copied(), &self.place())?;
        for (section, value) in self.content.iter().filter(|(section, _)| !VALUES.contains(&section.as_str())) {
            let Value::Table(entries) = value else { return Err(not("a table", section, &self.file, value)) };
            for (name, entry) in entries {
                let (is_right, right) = match section.as_str() {
                    "vars" => (entry.is_str(), "a text"),
                    named if NAMED.contains(&named) => (entry.is_table(), "a table"),
                    _ => continue,
                };
                if !is_right {
                    return Err(not(right, &format!("{section}.{name}"), &self.file, entry));
                }
            }
        }
        Ok(())
    }

    /// How messages name the profile.
    pub fn place(&self) -> String {
        format!("profile '{}' of '{}'", self.name, self.file)
    }

    /// A section that is one value, such as `workers`.
    ///
    /// # Errors
    /// When it has another type.
    pub fn value<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>> {
        let Some(value) = self.content.get(key) else { return Ok(None) };
        let filled = self.fill(value)?;
        filled.try_into().map(Some).map_err(|cause| keys::unreadable(&format!("'{key}' of {}", self.place()), &cause))
    }

    /// A section of known shape: every key must be one of `T`'s.
    ///
    /// # Errors
    /// When a key is unknown or a value has another type.
    pub fn section<T: DeserializeOwned>(&self, path: &[&str]) -> Result<T> {
        typed(self.table(path)?, &format!("'{}' of {}", path.join("."), self.place()))
    }

    /// A section as it is, filled in; empty when absent.
    ///
    /// # Errors
    /// When a `${...}` in it can not be filled.
    pub fn table(&self, path: &[&str]) -> Result<Table> {
        match self.raw(path).map(|value| self.fill(value)).transpose()? {
            Some(Value::Table(table)) => Ok(table),
            Some(other) => Err(not("a table", &path.join("."), &self.file, &other)),
            None => Ok(Table::new()),
        }
    }

    /// The names in a section, such as those of the sources, in their order.
    pub fn names(&self, section: &str) -> Vec<String> {
        self.content.get(section).and_then(Value::as_table).map(|t| t.keys().cloned().collect()).unwrap_or_default()
    }

    /// A variable that was set to something.
    ///
    /// # Errors
    /// When a `${...}` in it can not be filled.
    pub fn var(&self, name: &str) -> Result<Option<String>> {
        let Some(value) = self.raw(&["vars", name]).and_then(Value::as_str) else { return Ok(None) };
        Ok(Some(self.fill_text(value)?).filter(|text| !text.is_empty()))
    }

    /// A variable that is a path, if it was set to something.
    ///
    /// # Errors
    /// As [`Profile::var`].
    pub fn path_var(&self, name: &str) -> Result<Option<PathBuf>> {
        Ok(self.var(name)?.map(|text| self.path(&["vars", name], &text)))
    }

    /// The path that the setting at `at` means, whose text is `filled`: a relative one starts at the settings file, or where the program
    /// runs if it came by `--set` or from the environment.
    pub fn path<S: AsRef<str>>(&self, at: &[S], filled: &str) -> PathBuf {
        let at: Vec<&str> = at.iter().map(AsRef::as_ref).collect();
        if self.is_from_outside(&at) { PathBuf::from(filled) } else { self.folder.join(filled) }
    }

    /// Whether what the text at `at` begins with comes from the command line or the environment.
    fn is_from_outside(&self, at: &[&str]) -> bool {
        if self.set.iter().any(|set| set.len() <= at.len() && set.iter().zip(at).all(|(a, b)| a == b)) {
            return true;
        }
        let text = self.raw(at).and_then(Value::as_str).unwrap_or_default();
        let text = text.strip_prefix("file:").unwrap_or(text);
        match text.strip_prefix("${").and_then(|rest| rest.split_once('}')) {
            None => false,
            // These are paths from where the program runs already, or absolute.
            Some((name, _)) if name.starts_with("env:") || ["cache", "here", "data"].contains(&name) => true,
            Some((name, _)) => self.is_from_outside(&["vars", name.trim_end_matches('?')]),
        }
    }

    /// What stands at `path`, not filled in.
    fn raw(&self, path: &[&str]) -> Option<&Value> {
        let (last, folders) = path.split_last()?;
        let table = folders.iter().try_fold(&self.content, |at, part| at.get(*part)?.as_table())?;
        table.get(*last)
    }

    /// Fills `${name}` and `${env:NAME}`.
    fn fill(&self, value: &Value) -> Result<Value> {
        Ok(match value {
            Value::String(text) => Value::String(self.fill_text(text)?),
            Value::Array(items) => Value::Array(items.iter().map(|v| self.fill(v)).collect::<Result<_>>()?),
            Value::Table(table) => {
                Value::Table(table.iter().map(|(k, v)| Ok((k.clone(), self.fill(v)?))).collect::<Result<_>>()?)
            }
            other => other.clone(),
        })
    }

    fn fill_text(&self, text: &str) -> Result<String> {
        let (mut out, mut rest) = (String::new(), text);
        while let Some((before, after)) = rest.split_once("${") {
            let (name, after) = after
                .split_once('}')
                .ok_or_else(|| Error::user(format!("reading '{}': '{text}' has '${{' without '}}'", self.file)))?;
            out.push_str(before);
            out.push_str(&self.lookup(name)?);
            rest = after;
        }
        out.push_str(rest);
        Ok(out)
    }

    /// `name?` may be empty.
    fn lookup(&self, name: &str) -> Result<String> {
        let is_optional = name.ends_with('?');
        let name = name.trim_end_matches('?');
        if let Some(variable) = name.strip_prefix("env:") {
            return std::env::var(variable).map_err(|_| {
                Error::user(format!("profile '{}' needs the environment variable '{variable}'", self.name))
                    .hint(format!("export {variable}=..."))
            });
        }
        if name == "cache" {
            return Ok(cache_folder().display().to_string());
        }
        if name == "here" {
            return Ok(self.folder.display().to_string());
        }
        if let Some(data) = self.data.as_ref().filter(|_| name == "data") {
            return Ok(data.display().to_string());
        }
        let vars = self.content.get("vars").and_then(Value::as_table);
        match vars.and_then(|v| v.get(name)).and_then(Value::as_str) {
            Some("") if is_optional => Ok(String::new()),
            Some("") => {
                Err(Error::user(format!("profile '{}' needs '{name}'", self.name))
                    .hint(format!("add --set {name}=...")))
            }
            Some(value) => self.fill_text(value),
            None => {
                let names = vars.map(|v| v.keys().map(String::as_str).collect::<Vec<_>>()).unwrap_or_default();
                Err(unknown("variable", name, names.into_iter(), &format!("profile '{}'", self.name)))
            }
        }
    }

    /// Everything that changes what the job computes, for its fingerprint.
    pub fn fingerprint_text(&self) -> String {
        let section = |key: &str| self.content.get(key).map(Value::to_string).unwrap_or_default();
        format!("{}\n{}", section("params"), self.names("sources").join(","))
    }
}

/// `$XDG_CACHE_HOME` or `~/.cache`.
pub fn cache_folder() -> PathBuf {
    let home = || std::env::var_os("HOME").map_or_else(std::env::temp_dir, |home| PathBuf::from(home).join(".cache"));
    std::env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from)
}

/// A part of the file that is a table, or absent.
fn table(value: Option<Value>, key: &str, file: &str) -> Result<Table> {
    match value {
        None => Ok(Table::new()),
        Some(Value::Table(table)) => Ok(table),
        Some(other) => Err(not("a table", key, file, &other)),
    }
}

/// The error for a value of another type. It does not say the value, which may be a secret in the wrong place.
fn not(right: &str, key: &str, file: &str, found: &Value) -> Error {
    Error::user(format!("reading '{key}' of '{file}': it is of type {}", found.type_str()))
        .hint(format!("it must be {right}"))
}

#[cfg(test)]
mod tests;
