//! The marker as it stands in a table: as a property of the table and in the summary of each snapshot, under the same keys.

use dataflow_core::{ChainHash, Error, Generation, Lineage, Marker, Result};

/// Properties of a table or a snapshot.
#[expect(clippy::disallowed_types, reason = "the iceberg crate's own type; its order reaches no output of ours")]
pub(crate) type Properties = std::collections::HashMap<String, String>;

const LINEAGE: &str = "dataflow.lineage";
const GENERATION: &str = "dataflow.generation";
const NONCE: &str = "dataflow.nonce";
const EPOCH: &str = "dataflow.epoch";
const CHAIN: &str = "dataflow.chain";

/// The marker's five entries.
pub(crate) fn write(marker: &Marker) -> Properties {
    let Marker { lineage, generation, epoch, chain } = marker;
    [
        (LINEAGE, lineage.to_string()),
        (GENERATION, generation.number.to_string()),
        (NONCE, format!("{:016x}", generation.nonce)),
        (EPOCH, epoch.to_string()),
        (CHAIN, chain.to_string()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

/// The marker among `properties`; `None` when there is no part of one.
///
/// # Errors
/// When it is there in part, or cannot be read: then it is not known whose output the table has.
pub(crate) fn read(table: &dyn std::fmt::Display, properties: &Properties) -> Result<Option<Marker>> {
    if ![LINEAGE, GENERATION, NONCE, EPOCH, CHAIN].iter().any(|key| properties.contains_key(*key)) {
        return Ok(None);
    }
    let text = |key: &str| properties.get(key).map(String::as_str).unwrap_or_default();
    let parsed = || -> Option<Marker> {
        let number = |key| text(key).parse().ok();
        let hex = |key| (text(key).len() == 16).then(|| u64::from_str_radix(text(key), 16).ok())?;
        let generation = Generation { number: number(GENERATION)?, nonce: hex(NONCE)? };
        Some(Marker { lineage: Lineage(hex(LINEAGE)?), generation, epoch: number(EPOCH)?, chain: chain(text(CHAIN))? })
    };
    parsed().map(Some).ok_or_else(|| {
        let what = format!("read whose output the table '{table}' has: its properties dataflow.* do not hold a marker");
        Error::doubt(what).hint("bring the properties back as they were, or start over with another table")
    })
}

fn chain(text: &str) -> Option<ChainHash> {
    if text.len() != 32 || !text.is_ascii() {
        return None;
    }
    let mut hash = [0; 16];
    for (at, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(ChainHash(hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let generation = Generation { number: 3, nonce: u64::MAX - 1 };
        let marker = Marker { lineage: Lineage(7), generation, epoch: 42, chain: ChainHash([0xab; 16]) };
        let mut properties = write(&marker);
        assert_eq!(read(&"t", &properties).unwrap(), Some(marker));
        properties.remove(CHAIN);
        assert!(read(&"t", &properties).is_err());
        properties.clear();
        assert_eq!(read(&"t", &properties).unwrap(), None);
    }
}
