//! Settings that may be secrets: client properties, and a registry's user and password. Each may be a reference (`env:NAME`,
//! `file:PATH`), which stands for what it refers to; no message ever has a value of one.

use crate::profile::Profile;
use dataflow_core::{Error, Result};
use toml::{Table, Value};

/// Replaces the table `client` of the component at `at` by plain properties with references resolved. Names with dots may be written as
/// nested tables (`client.security.protocol = "SSL"`) or in quotes; numbers and booleans are text to the client.
pub(super) fn resolve_client(profile: &Profile, at: &[&str], table: &mut Table) -> Result<()> {
    let Some(client) = table.remove("client") else { return Ok(()) };
    let mut path: Vec<String> = at.iter().map(|part| (*part).to_owned()).collect();
    path.push("client".to_owned());
    if !client.is_table() {
        return Err(Error::user(format!("reading '{}': it is of type {}", path.join("."), client.type_str()))
            .hint("it must be a table of client properties"));
    }
    let mut properties = Table::new();
    flatten(profile, &mut path, client, "", &mut properties)?;
    table.insert("client".to_owned(), Value::Table(properties));
    Ok(())
}

/// Replaces the settings `keys` of the table at `at`, where they are set, by their text with references resolved.
pub(super) fn resolve(profile: &Profile, at: &[&str], keys: &[&str], table: &mut Table) -> Result<()> {
    for key in keys {
        if let Some(value) = table.get_mut(*key) {
            let path: Vec<String> = at.iter().chain([key]).map(|part| (*part).to_owned()).collect();
            *value = Value::String(text(profile, &path, value)?);
        }
    }
    Ok(())
}

/// As [`resolve`], of the tables `sections` of the component at `at`, each with its keys; those that are there.
pub(super) fn resolve_sections(
    profile: &Profile,
    at: [&str; 2],
    sections: &[(&str, &[&str])],
    settings: &mut Table,
) -> Result<()> {
    for (section, keys) in sections {
        if let Some(Value::Table(nested)) = settings.get_mut(*section) {
            resolve(profile, &[at[0], at[1], section], keys, nested)?;
        }
    }
    Ok(())
}

fn flatten(profile: &Profile, path: &mut Vec<String>, value: Value, name: &str, out: &mut Table) -> Result<()> {
    let Value::Table(nested) = value else {
        let text = text(profile, path, &value)?;
        return match out.insert(name.to_owned(), Value::String(text)) {
            None => Ok(()),
            Some(_) => Err(Error::user(format!("reading '{}': the property is set twice", path.join(".")))),
        };
    };
    for (key, value) in nested {
        let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
        path.push(key);
        flatten(profile, path, value, &name, out)?;
        path.pop();
    }
    Ok(())
}

/// The text of a setting, which is at `path`.
fn text(profile: &Profile, path: &[String], value: &Value) -> Result<String> {
    let shown = path.join(".");
    let text = match value {
        Value::String(text) => text,
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => return Ok(value.to_string()),
        other => {
            return Err(Error::user(format!("reading '{shown}': it is of type {}", other.type_str()))
                .hint("it must be a text, or a reference: env:NAME, file:PATH"));
        }
    };
    if let Some(name) = text.strip_prefix("env:") {
        return std::env::var(name).map_err(|_| {
            Error::user(format!("reading '{shown}': the environment variable '{name}' that it refers to is not set"))
                .hint(format!("export {name}=..."))
        });
    }
    if let Some(file) = text.strip_prefix("file:") {
        let file = profile.path(path, file);
        let secret = std::fs::read_to_string(&file).map_err(|cause| {
            Error::user(format!("reading '{shown}' from the file '{}' that it refers to", file.display()))
                .because(cause)
                .hint("a path in the settings file starts at that file")
        })?;
        return Ok(secret.trim_end_matches(['\n', '\r']).to_owned());
    }
    Ok(text.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(folder: &std::path::Path, client: &str) -> Result<Table> {
        let text = format!("[profiles.default.sources.s]\n{client}");
        let profile = Profile::parse(&text, "t.toml", folder.to_owned(), None, &[])?;
        let mut table = profile.table(&["sources", "s"])?;
        resolve_client(&profile, &["sources", "s"], &mut table)?;
        resolve(&profile, &["sources", "s"], &["password"], &mut table)?;
        Ok(table)
    }

    #[test]
    fn references_stand_for_what_they_refer_to_and_numbers_for_their_text() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("secret"), "hush\n").unwrap();
        let text = r#"
            password = "file:secret"
            client.security.protocol = "SSL"
            client."sasl.password" = "file:secret"
            client."sasl.username" = "env:HOME"
            client."socket.timeout.ms" = 500
            client."log.connection.close" = false
        "#;
        let table = resolved(folder.path(), text).unwrap();
        let home = std::env::var("HOME").unwrap();
        for (name, value) in [
            ("security.protocol", "SSL"),
            ("sasl.password", "hush"),
            ("sasl.username", &home),
            ("socket.timeout.ms", "500"),
            ("log.connection.close", "false"),
        ] {
            assert_eq!(table["client"][name].as_str(), Some(value), "{name}");
        }
        assert_eq!(table["password"].as_str(), Some("hush"));
    }

    #[test]
    fn what_can_not_be_resolved_is_named_without_its_value() {
        let folder = tempfile::tempdir().unwrap();
        for (text, parts) in [
            ("client.a = 'env:NO_SUCH_VARIABLE'", &["'sources.s.client.a'", "'NO_SUCH_VARIABLE'"][..]),
            ("client.a = 'file:none'", &["'sources.s.client.a'", "/none'"]),
            ("client.a = ['hush']", &["'sources.s.client.a'", "array"]),
            ("client = 'hush'", &["'sources.s.client'", "string"]),
            ("client = { a.b = 'hush', 'a.b' = 'hush' }", &["'sources.s.client.a.b'", "twice"]),
            ("password = ['hush']", &["'sources.s.password'", "array"]),
        ] {
            let said = resolved(folder.path(), text).expect_err(text).to_string();
            assert!(parts.iter().all(|part| said.contains(part)) && !said.contains("hush"), "{said}");
        }
    }
}
