//! Records of Kafka Connect's JSON converter, with `{"schema", "payload"}` and without.

use crate::decode::registry::SCHEMA_BYTES_MAX;
use crate::decode::{UNDECODABLE, is_decodable};
use crate::envelope::cell::Meaning;
use crate::envelope::json_value::{BareJson, Members, describe, fill, members, text};
use crate::envelope::layout::{Form, Layout};
use crate::envelope::{ChangeEvent, Found, Ignored, NOT_A_CHANGE, decoded, ignored};
use dataflow_core::{Decode, Decoded, Record, Result, TableSchema};

/// Decodes the changes of one table from JSON.
#[derive(Debug)]
pub struct DebeziumJsonDecoder {
    layout: Layout,
    /// What values without a schema mean.
    bare: Vec<Meaning>,
    /// The schema of the last record and what it says: nearly always that of the next.
    last: Option<(String, Form, Vec<Meaning>)>,
}

impl DebeziumJsonDecoder {
    /// A decoder of the declared columns of a table. `bare` says how to read records that come without their schema.
    ///
    /// # Errors
    /// When the key of `table` names columns that it does not have, or two columns have one name.
    pub fn new(table: TableSchema, bare: BareJson) -> Result<DebeziumJsonDecoder> {
        let layout = Layout::new(table)?;
        let bare = layout.bare(bare);
        Ok(DebeziumJsonDecoder { layout, bare, last: None })
    }

    fn event(&mut self, value: &[u8]) -> Found<ChangeEvent> {
        let outer = self.members(text(value).ok_or(UNDECODABLE)?)?;
        let (schema, inner) = match (outer.found.get("schema"), outer.found.get("payload")) {
            (Some(schema), Some(payload)) if outer.count == 2 => {
                if payload.get() == "null" {
                    return ignored(Ignored::Tombstone);
                }
                (Some(schema.get()).filter(|schema| *schema != "null"), self.members(payload.get())?)
            }
            _ => (None, outer),
        };
        let source_is_record = inner.found.get("source").is_some_and(|source| source.get().starts_with('{'));
        let form =
            Form::of(|name| inner.found.contains_key(name), source_is_record, inner.count).ok_or(NOT_A_CHANGE)?;
        if let Some(schema) = schema {
            self.learn(schema, form)?;
        }
        let meanings = match &self.last {
            Some((_, _, meanings)) if schema.is_some() => meanings,
            _ => &self.bare,
        };
        let mut cells = self.layout.cells();
        if let Some(wanted) = self.layout.wanted(form) {
            fill(&inner, wanted, meanings, &mut cells).ok_or(UNDECODABLE)?;
        }
        self.layout.event(form, &cells)
    }

    /// The members that tell a record's shape or are wanted in one.
    fn members<'a>(&self, text: &'a str) -> Found<Members<'a>> {
        let is_wanted = |name: &str| {
            matches!(name, "schema" | "payload")
                || Form::TELLING.contains(&name)
                || self.layout.envelope.contains_key(name)
                || self.layout.flattened.contains_key(name)
        };
        members(text, is_wanted).ok_or(UNDECODABLE)
    }

    /// Makes the last schema this one.
    fn learn(&mut self, text: &str, form: Form) -> Found<()> {
        if self.last.as_ref().is_some_and(|(last, of, _)| last == text && *of == form) {
            return Ok(());
        }
        // Unfolded it takes many times its bytes.
        let schema = (text.len() <= SCHEMA_BYTES_MAX).then(|| serde_json::from_str(text).ok()).flatten();
        let mut meanings = vec![Meaning::Plain; self.layout.cell_count()];
        if let Some(wanted) = self.layout.wanted(form) {
            describe(&schema.ok_or(UNDECODABLE)?, wanted, &mut meanings);
        }
        self.last = Some((text.to_owned(), form, meanings));
        Ok(())
    }
}

impl Decode<ChangeEvent> for DebeziumJsonDecoder {
    fn decode(&mut self, record: &Record) -> Decoded<ChangeEvent> {
        decoded(match record.value.as_deref() {
            None => ignored(Ignored::Tombstone),
            Some(_) if !is_decodable(record) => Err(UNDECODABLE),
            Some(value) => self.event(value),
        })
    }
}
