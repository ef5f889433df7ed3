//! What our files are called: whose they are is in the name, so that a later generation of the same job, and it alone, may remove what an
//! earlier one left behind.
//!
//! `LINEAGE-GENERATION-UUID`, with `snap-ID-` in front of a manifest list and with the kind and the format behind.

use crate::session::Session;
use dataflow_core::{Lineage, SinkIdentity};

/// A name that no other file has. Before the session has an owner it says nothing of one.
pub(crate) fn fresh(session: &Session) -> String {
    match session.owner() {
        Some(SinkIdentity { lineage, generation, .. }) => {
            format!("{lineage}-{:06}-{}", generation.number, session.uuid())
        }
        None => session.uuid().to_string(),
    }
}

/// The generation of `lineage` that has written the file at `path`; `None` when it is not of that history.
pub(crate) fn generation(path: &str, lineage: Lineage) -> Option<u64> {
    let name = path.rsplit('/').next()?;
    let name = match name.strip_prefix("snap-") {
        Some(list) => list.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix('-')?,
        None => name,
    };
    let rest = name.strip_prefix(&lineage.to_string())?.strip_prefix('-')?;
    let (number, rest) = rest.split_once('-')?;
    let is_ours = rest.get(..36).is_some_and(|uuid| uuid.parse::<uuid::Uuid>().is_ok());
    number.parse().ok().filter(|_| is_ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_a_file_is() {
        let check = |name: &str, expected| assert_eq!(generation(name, Lineage(0xabc)), expected, "{name}");
        let uuid = "67e55044-10b1-426f-9247-bb680e5fe0c8";
        check(&format!("file:///w/t/data/0000000000000abc-000012-{uuid}.parquet"), Some(12));
        check(&format!("0000000000000abc-1234567-{uuid}-deletes.parquet"), Some(1_234_567));
        check(&format!("s3://b/t/metadata/snap-77-0000000000000abc-000003-{uuid}.avro"), Some(3));
        check(&format!("0000000000000abd-000012-{uuid}.parquet"), None);
        check(&format!("{uuid}.parquet"), None);
        check(&format!("00001-{uuid}.metadata.json"), None);
        check("0000000000000abc-000012-notes.parquet", None);
    }
}
