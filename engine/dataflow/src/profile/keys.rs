//! Keys of settings: which there are, and the refusal of one that is none, with the nearest that is.

use dataflow_core::{Error, Result};
use serde::de::{DeserializeOwned, Deserializer, Error as _, Visitor, value};
use toml::{Table, Value};

/// A table as plain data, which every key of it must be a field of. `place` says in messages where it stands.
///
/// # Errors
/// When a key is unknown, with the nearest right one, or a value has another type.
pub fn typed<T: DeserializeOwned>(table: Table, place: &str) -> Result<T> {
    refuse_unknown(table.keys(), fields_of::<T>().iter().copied(), place)?;
    Value::Table(table).try_into().map_err(|cause| unreadable(place, &cause))
}

/// The error for a value of another type. The cause's last line names the key.
pub(super) fn unreadable(place: &str, cause: &toml::de::Error) -> Error {
    Error::user(format!("reading {place}: {}", cause.to_string().trim_end().replace('\n', " ")))
}

/// Refuses the first key that is not known, naming the nearest that is.
///
/// # Errors
/// When there is one.
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

/// The keys of a `KEY` in `--set KEY=VALUE`, as TOML reads it: parts between dots, in quotes where a part has a dot itself.
///
/// # Errors
/// When it is none.
pub(super) fn path_of(key: &str) -> Result<Vec<String>> {
    let refused = || {
        Error::user(format!("reading '--set {key}=...': '{key}' is no key")).hint(
            "write parts with dots between them, a part with a dot in quotes: 'sinks.out.client.\"sasl.username\"=me'",
        )
    };
    let mut at: Table = format!("{key} = 0").parse().map_err(|_| refused())?;
    let mut path = Vec::new();
    while let Some((part, value)) = std::mem::take(&mut at).into_iter().next() {
        path.push(part);
        if let Value::Table(next) = value {
            at = next;
        }
    }
    if path.is_empty() { Err(refused()) } else { Ok(path) }
}

/// The names of the fields of a struct, as its deserialisation asks for them; none of what is no struct.
fn fields_of<T: DeserializeOwned>() -> &'static [&'static str] {
    let mut names: &'static [&'static str] = &[];
    let _ = T::deserialize(Names(&mut names)); // fails once it has named them
    names
}

/// A deserialiser that has no data, and notes which fields are asked for.
struct Names<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for Names<'_> {
    type Error = value::Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> std::result::Result<V::Value, value::Error> {
        Err(value::Error::custom("there is no data"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> std::result::Result<V::Value, value::Error> {
        *self.0 = fields;
        self.deserialize_any(visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataflow_connectors::kafka_settings::KafkaSinkSettings;

    #[test]
    fn fields_are_those_of_the_struct() {
        let fields = fields_of::<KafkaSinkSettings>();
        assert!(fields.contains(&"brokers") && fields.contains(&"transaction_timeout_ms"), "{fields:?}");
        assert_eq!(fields_of::<Vec<u8>>(), &[] as &[&str]);
    }

    #[test]
    fn keys_are_read_as_toml_does() {
        let path = |key: &str| path_of(key).map(|path| path.join("|"));
        assert_eq!(path("emit").unwrap(), "emit");
        assert_eq!(path("runtime.tick_min_ms").unwrap(), "runtime|tick_min_ms");
        let quoted = r#"sinks.my-sink.client."sasl.username""#;
        assert_eq!(path(quoted).unwrap(), "sinks|my-sink|client|sasl.username");
        for wrong in ["", "a b", "a..b", "#", "[a]", "a\nb", "\"a"] {
            assert!(path(wrong).is_err(), "{wrong:?}");
        }
    }
}
