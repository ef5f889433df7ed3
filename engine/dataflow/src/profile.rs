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
//! A key that nothing reads is refused with the nearest right one: a misspelt setting never passes in silence.

use dataflow_core::{Error, Result};
use serde::{Serialize, de::DeserializeOwned};
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// The sections of a profile.
const SECTIONS: [&str; 9] = ["data", "workers", "vars", "params", "runtime", "state", "sources", "tables", "sinks"];
/// The keys of the file.
const TOP: [&str; 4] = ["default_profile", "params", "profiles", "export"];

/// The settings of one profile, ready to be wired.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Its name.
    pub name: String,
    /// The folder of the settings file, which relative paths in it start from.
    pub folder: PathBuf,
    content: Table,
    file: String,
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
        let mut all: Table = text
            .parse()
            .map_err(|cause: toml::de::Error| Error::user(format!("reading the settings '{file}'")).because(cause))?;
        refuse_unknown(all.keys(), TOP.iter().copied(), &format!("'{file}'"))?;
        let default = all.get("default_profile").and_then(Value::as_str).unwrap_or("default").to_owned();
        let name = name.unwrap_or(&default).to_owned();
        let shared = all.remove("params").and_then(|v| v.try_into::<Table>().ok()).unwrap_or_default();
        let Some(Value::Table(mut profiles)) = all.remove("profiles") else {
            return Err(Error::user(format!("reading the settings '{file}': there is no [profiles.NAME]")));
        };
        let known: Vec<String> = profiles.keys().cloned().collect();
        let Some(Value::Table(mut content)) = profiles.remove(&name) else {
            return Err(unknown("profile", &name, known.iter().map(String::as_str), &format!("'{file}'")));
        };
        refuse_unknown(content.keys(), SECTIONS.iter().copied(), &format!("profile '{name}' of '{file}'"))?;
        let params = content.entry("params").or_insert_with(|| Value::Table(Table::new()));
        if let Value::Table(params) = params {
            for (key, value) in shared {
                params.entry(key).or_insert(value);
            }
        }
        let mut profile = Profile { name, folder, content, file: file.to_owned() };
        for assignment in set {
            profile.set(assignment)?;
        }
        Ok(profile)
    }

    /// One `--set KEY=VALUE`.
    fn set(&mut self, assignment: &str) -> Result<()> {
        let (key, text) = assignment.split_once('=').ok_or_else(|| {
            Error::user(format!("reading '--set {assignment}': there is no '='")).hint("write --set KEY=VALUE")
        })?;
        let value = format!("v = {text}").parse::<Table>().ok().and_then(|mut t| t.remove("v"));
        let value = value.unwrap_or_else(|| Value::String(text.to_owned()));
        for section in ["vars", "params"] {
            if let Some(Value::Table(table)) = self.content.get_mut(section).filter(|t| t.get(key).is_some()) {
                // A variable is text, whatever it looks like.
                let value = if section == "vars" { Value::String(text.to_owned()) } else { value };
                table.insert(key.to_owned(), value);
                return Ok(());
            }
        }
        let mut path: Vec<&str> = key.split('.').collect();
        let last = path.pop().unwrap_or_default();
        if path.is_empty() && !["workers", "data"].contains(&last) {
            let names =
                ["vars", "params"].iter().filter_map(|s| self.content.get(*s)?.as_table()).flat_map(Table::keys);
            let names: Vec<&str> = names.map(String::as_str).chain(SECTIONS).collect();
            return Err(unknown("setting", key, names.into_iter(), &format!("profile '{}'", self.name)));
        }
        let mut table = &mut self.content;
        for (depth, part) in path.iter().enumerate() {
            let names: Vec<String> =
                if depth == 0 { SECTIONS.map(str::to_owned).to_vec() } else { table.keys().cloned().collect() };
            if !table.contains_key(*part) && depth > 0 || !names.iter().any(|n| n == part) {
                return Err(unknown(
                    "setting",
                    key,
                    names.iter().map(String::as_str),
                    &format!("profile '{}'", self.name),
                ));
            }
            let entry = table.entry(part.to_string()).or_insert_with(|| Value::Table(Table::new()));
            let Value::Table(next) = entry else {
                return Err(Error::user(format!("setting '{key}': '{part}' is a value, not a table")));
            };
            table = next;
        }
        table.insert(last.to_owned(), value);
        Ok(())
    }

    /// A section that is one value, such as `workers`.
    ///
    /// # Errors
    /// When it has another type.
    pub fn value<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>> {
        let Some(value) = self.content.get(key) else { return Ok(None) };
        let filled = self.fill(value)?;
        filled.try_into().map(Some).map_err(|cause: toml::de::Error| self.wrong(key, cause))
    }

    /// A section of known shape: every key must be one of `T`'s.
    ///
    /// # Errors
    /// When a key is unknown or a value has another type.
    pub fn section<T: DeserializeOwned + Serialize + Default>(&self, path: &[&str], ignore: &[&str]) -> Result<T> {
        let mut table = self.table(path)?;
        ignore.iter().for_each(|key| drop(table.remove(*key)));
        let shape = serde_json::to_value(T::default()).expect("settings are plain data");
        let known: Vec<&str> = shape.as_object().map(|o| o.keys().map(String::as_str).collect()).unwrap_or_default();
        refuse_unknown(table.keys(), known.into_iter(), &format!("'{}' of profile '{}'", path.join("."), self.name))?;
        Value::Table(table).try_into().map_err(|cause: toml::de::Error| self.wrong(&path.join("."), cause))
    }

    /// A section as it is, filled in; empty when absent.
    ///
    /// # Errors
    /// When a `${...}` in it can not be filled.
    pub fn table(&self, path: &[&str]) -> Result<Table> {
        let mut at = &self.content;
        for part in path {
            match at.get(*part) {
                Some(Value::Table(next)) => at = next,
                _ => return Ok(Table::new()),
            }
        }
        match self.fill(&Value::Table(at.clone()))? {
            Value::Table(table) => Ok(table),
            _ => unreachable!("a filled table is a table"),
        }
    }

    /// The names in a section, such as those of the sources, in their order.
    pub fn names(&self, section: &str) -> Vec<String> {
        self.content.get(section).and_then(Value::as_table).map(|t| t.keys().cloned().collect()).unwrap_or_default()
    }

    /// A variable that was set to something.
    pub fn var(&self, name: &str) -> Option<String> {
        let value = self.content.get("vars")?.get(name)?;
        self.fill(value).ok()?.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
    }

    /// A path of the settings: relative ones start at the settings file, those that came by `--set` where the program runs.
    pub fn path(&self, text: &str) -> PathBuf {
        PathBuf::from(text)
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

    fn wrong(&self, key: &str, cause: toml::de::Error) -> Error {
        Error::user(format!("reading '{key}' of profile '{}' in '{}': {}", self.name, self.file, cause.message()))
    }

    /// Everything that changes what the job computes, for its fingerprint.
    pub fn fingerprint_text(&self) -> String {
        let section = |key: &str| self.content.get(key).map(Value::to_string).unwrap_or_default();
        format!("{}\n{}", section("params"), self.sources_text())
    }

    fn sources_text(&self) -> String {
        self.names("sources").join(",")
    }
}

/// `$XDG_CACHE_HOME` or `~/.cache`.
pub fn cache_folder() -> PathBuf {
    let home = || std::env::var_os("HOME").map_or_else(std::env::temp_dir, |home| PathBuf::from(home).join(".cache"));
    std::env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from)
}

/// Refuses the first key that is not known, naming the nearest that is.
pub fn refuse_unknown<'k>(
    keys: impl Iterator<Item = &'k String>,
    known: impl Iterator<Item = &'k str> + Clone,
    place: &str,
) -> Result<()> {
    for key in keys {
        if !known.clone().any(|k| k == key) {
            return Err(unknown("setting", key, known, place));
        }
    }
    Ok(())
}

/// The error for a name that is none, with the nearest that is one.
pub fn unknown<'k>(what: &str, name: &str, known: impl Iterator<Item = &'k str>, place: &str) -> Error {
    let mut known: Vec<&str> = known.collect();
    known.sort_unstable();
    let last = name.rsplit('.').next().unwrap_or(name);
    let nearest = known.iter().copied().max_by(|a, b| {
        // Of the distances this one takes two swapped letters for one mistake.
        let near = |k: &str| {
            let of = |word| strsim::normalized_damerau_levenshtein(k, word);
            of(last).max(of(name))
        };
        near(a).total_cmp(&near(b))
    });
    let error = Error::user(format!("{place} has no {what} '{name}'"));
    match nearest {
        Some(nearest) => error.hint(format!("did you mean '{nearest}'? There are: {}", known.join(", "))),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataflow_runtime::RuntimeSettings;

    const TEXT: &str = r#"
        default_profile = "a"
        [params]
        emit = "eager"
        [profiles.a]
        workers = 2
        vars = { input = "", geo = "${input}/geo.csv" }
        [profiles.a.runtime]
        tick_min_ms = 7
        [profiles.a.sources.s]
        path = "${input}/x"
    "#;

    fn profile(set: &[&str]) -> Result<Profile> {
        let set: Vec<String> = set.iter().map(|s| (*s).to_owned()).collect();
        Profile::parse(TEXT, "t.toml", PathBuf::new(), None, &set)
    }

    #[test]
    fn variables_parameters_and_paths_are_set() {
        let p = profile(&["input=/in", "emit=final", "runtime.tick_max_ms=9", "workers=3"]).unwrap();
        assert_eq!(p.table(&["sources", "s"]).unwrap()["path"].as_str(), Some("/in/x"));
        assert_eq!(p.var("geo").as_deref(), Some("/in/geo.csv"));
        assert_eq!(p.table(&["params"]).unwrap()["emit"].as_str(), Some("final"));
        let runtime: RuntimeSettings = p.section(&["runtime"], &[]).unwrap();
        assert_eq!((runtime.tick_min_ms, runtime.tick_max_ms), (7, 9));
        assert_eq!(p.value::<usize>("workers").unwrap(), Some(3));
    }

    #[test]
    fn what_is_wrong_is_named_with_what_is_right() {
        let check = |set: &[&str], read: fn(&Profile) -> Result<()>, expected: &str| {
            let said = profile(set).and_then(|p| read(&p)).expect_err(expected).to_string();
            assert!(said.contains(expected), "{said:?} lacks {expected:?}");
        };
        check(&["emitt=final"], |_| Ok(()), "did you mean 'emit'?");
        check(&["runtme.tick_min_ms=1"], |_| Ok(()), "did you mean 'runtime'?");
        check(
            &["runtime.tick_mn_ms=1"],
            |p| p.section::<RuntimeSettings>(&["runtime"], &[]).map(drop),
            "did you mean 'tick_min_ms'?",
        );
        check(&["runtime.tick_min_ms=soon"], |p| p.section::<RuntimeSettings>(&["runtime"], &[]).map(drop), "runtime");
        check(&[], |p| p.table(&["sources", "s"]).map(drop), "add --set input=");
        check(&["nothing"], |_| Ok(()), "there is no '='");
    }
}
