//! The lines of a case's `oneshop.ndjson`: change events of several tables in commit order, as plain JSON.
//!
//! `{"table","op","before","after","lsn","ts_ms"}`, decimals as strings, timestamps as ISO text. A decoder reads the lines of one table
//! and passes over the others'.

use super::cell::{Meaning, Raw};
use super::json_value::{BareJson, fill, members, text};
use super::layout::{Fields, Form, Layout, TABLE};
use super::{ChangeEvent, Found, Ignored, UNDECODABLE, decoded, ignored};
use crate::decode::is_decodable;
use dataflow_core::{Decode, Decoded, Record, Result, TableSchema};

/// Decodes the lines of one table.
#[derive(Debug)]
pub struct CaseChangeDecoder {
    name: String,
    layout: Layout,
    wanted: Fields,
    meanings: Vec<Meaning>,
}

impl CaseChangeDecoder {
    /// A decoder of the lines of the table `name`.
    ///
    /// # Errors
    /// When the key of `table` names columns that it does not have, or two columns have one name.
    pub fn new(name: &str, table: TableSchema) -> Result<CaseChangeDecoder> {
        let layout = Layout::new(table)?;
        let (wanted, meanings) = (layout.line(), layout.bare(BareJson::default()));
        Ok(CaseChangeDecoder { name: name.to_owned(), layout, wanted, meanings })
    }

    fn event(&self, value: &[u8]) -> Found<ChangeEvent> {
        let mut cells = self.layout.cells();
        let mut read = || {
            let found = members(text(value)?, |name| self.wanted.contains_key(name))?;
            fill(&found, &self.wanted, &self.meanings, &mut cells)
        };
        read().ok_or(UNDECODABLE)?;
        match &cells[TABLE].raw {
            Raw::Text(table) if *table == self.name => self.layout.event(Form::Envelope, &cells),
            Raw::Text(_) => ignored(Ignored::OtherTable),
            _ => Err(UNDECODABLE),
        }
    }
}

impl Decode<ChangeEvent> for CaseChangeDecoder {
    fn decode(&mut self, record: &Record) -> Decoded<ChangeEvent> {
        let value = record.value.as_deref().filter(|_| is_decodable(record));
        decoded(value.ok_or(UNDECODABLE).and_then(|value| self.event(value)))
    }
}
