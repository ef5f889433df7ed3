//! A case: the records of `login-events` and the IP geography, from a folder, from text or built in memory.
//!
//! Refuses lines that are neither an event nor a raw record, a raw record that is not base64, and two records at one
//! offset.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeSet;
use std::path::Path;

/// The input of the login job.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Case {
    /// The records of `login-events`, in any order.
    pub events: Vec<EventLine>,
    /// The IP geography as CSV text.
    pub geo: String,
}

/// A record of `login-events`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EventLine {
    /// Its partition.
    pub partition: u32,
    /// Its offset in the partition.
    pub offset: u64,
    /// Its value.
    #[serde(flatten)]
    pub record: Record,
}

/// The value of a record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Record {
    /// A login event in one of the two schemas.
    Event {
        /// 1, or 2 with `success`.
        schema_version: u32,
        /// The event.
        event: Event,
    },
    /// A value that does not decode.
    Raw {
        /// Its bytes in base64; null: a null value. Only `Some` with "required" keeps this apart from an absent field.
        #[serde(deserialize_with = "required")]
        raw: Option<String>,
    },
}

/// `com.shop.events.LoginEvent`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// Whose login it is; a dead letter if empty.
    pub user_id: String,
    /// When, as text.
    pub timestamp: String,
    /// From where; not always an address.
    pub ip: String,
    /// The device's name.
    pub device: String,
    /// The platform's name.
    pub platform: String,
    /// The browser or app.
    pub user_agent: String,
    /// Absent in schema 1, where every login is taken as successful.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub success: Option<bool>,
}

impl Case {
    /// Reads `login_events.ndjson` and `ip_geo.csv` of a folder.
    ///
    /// # Errors
    /// When a file cannot be read or a line is not a record.
    pub fn read(folder: &Path) -> Result<Case, String> {
        let read = |name: &str| {
            let path = folder.join(name);
            std::fs::read_to_string(&path).map_err(|e| format!("cannot read '{}': {e}", path.display()))
        };
        Case::parse(&read("login_events.ndjson")?, read("ip_geo.csv")?)
    }

    /// A case from the text of its two files.
    ///
    /// # Errors
    /// When a line is not a record.
    pub fn parse(events: &str, geo: String) -> Result<Case, String> {
        let mut lines = Vec::new();
        for (n, text) in events.lines().enumerate().filter(|(_, text)| !text.trim().is_empty()) {
            let line: EventLine =
                serde_json::from_str(text).map_err(|e| format!("cannot parse event line {}: {e}", n + 1))?;
            lines.push(line);
        }
        let case = Case { events: lines, geo };
        case.verify()?;
        Ok(case)
    }

    /// Checks what the types do not say.
    ///
    /// # Errors
    /// When two records share an offset, or a record is not of its schema.
    pub(crate) fn verify(&self) -> Result<(), String> {
        let mut seen = BTreeSet::new();
        for line in &self.events {
            let name = format!("{}/{}/{}", crate::TOPIC, line.partition, line.offset);
            if !seen.insert((line.partition, line.offset)) {
                return Err(format!("record '{name}' is there twice"));
            }
            let fits = match &line.record {
                Record::Event { schema_version, event } => match schema_version {
                    1 => event.success.is_none(),
                    2 => event.success.is_some(),
                    _ => false,
                },
                Record::Raw { raw } => raw.as_ref().is_none_or(|raw| BASE64_STANDARD.decode(raw).is_ok()),
            };
            if !fits {
                return Err(format!("record '{name}' is not of its schema, or its raw value is not base64"));
            }
        }
        Ok(())
    }
}

fn required<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Option::deserialize(deserializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_taken_strictly() {
        let event = r#""user_id":"a","timestamp":"t","ip":"","device":"","platform":"","user_agent":"""#;
        for (line, good) in [
            (format!(r#"{{"partition":0,"offset":0,"schema_version":1,"event":{{{event}}}}}"#), true),
            (format!(r#"{{"partition":0,"offset":0,"schema_version":2,"event":{{{event},"success":true}}}}"#), true),
            (format!(r#"{{"partition":0,"offset":0,"schema_version":2,"event":{{{event}}}}}"#), false),
            (format!(r#"{{"partition":0,"offset":0,"schema_version":1,"event":{{{event},"success":true}}}}"#), false),
            (r#"{"partition":0,"offset":0,"raw":null}"#.to_owned(), true),
            (r#"{"partition":0,"offset":0,"raw":"AA=="}"#.to_owned(), true),
            (r#"{"partition":0,"offset":0,"raw":"?"}"#.to_owned(), false),
            (r#"{"partition":0,"offset":0}"#.to_owned(), false),
        ] {
            let case = Case::parse(&line, String::new());
            assert_eq!(case.is_ok(), good, "{line}: {case:?}");
            if let Ok(case) = case {
                assert_eq!(serde_json::to_string(&case.events[0]).unwrap(), line);
                assert!(Case::parse(&format!("{line}\n{line}"), String::new()).is_err(), "twice at one offset");
            }
        }
    }
}
