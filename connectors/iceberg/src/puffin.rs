//! A Puffin file of deletion vectors (Puffin specification, "File structure").
//!
//! ```text
//!  magic │ vector │ gap │ vector │ gap │ … │ magic │ footer, as JSON │ its length │ flags │ magic
//! ```
//! The gaps are for DuckDB 1.5: it reads a little more than it is asked for where that joins two ranges that it has cached, and then takes
//! the first vector of the joined range for each of those in it. It does not join over a gap that is longer than what it reads.

use crate::deletion_vector::DeletionVector;
use serde_json::json;
use std::collections::BTreeMap;

const MAGIC: &[u8; 4] = b"PFA1";
/// The reserved id of the metadata column `_pos`, of which a vector is.
const ROW_POSITION_ID: i32 = i32::MAX - 2;
/// What comes of a snapshot that is not known yet.
const INHERITED: i64 = -1;
/// The longest gap that DuckDB reads over.
const GAP_MAX: usize = 1 << 20;

/// The file, and where each vector lies in it: (offset, length).
pub(crate) fn file(vectors: &BTreeMap<String, DeletionVector>) -> (Vec<u8>, Vec<(u64, u64)>) {
    let (mut bytes, mut places, mut blobs) = (MAGIC.to_vec(), Vec::new(), Vec::new());
    for (data, vector) in vectors {
        let blob = vector.to_blob();
        let (offset, length) = (bytes.len(), blob.len());
        bytes.extend(blob);
        bytes.resize(bytes.len() + length.min(GAP_MAX) + 1, 0);
        places.push((offset as u64, length as u64));
        blobs.push(json!({
            "type": "deletion-vector-v1", "fields": [ROW_POSITION_ID], "snapshot-id": INHERITED, "sequence-number": INHERITED,
            "offset": offset, "length": length,
            "properties": {"referenced-data-file": data, "cardinality": vector.len().to_string()},
        }));
    }
    let footer = json!({"blobs": blobs, "properties": {"created-by": "dataflow"}}).to_string();
    bytes.extend(MAGIC);
    bytes.extend(footer.as_bytes());
    bytes.extend((footer.len() as u32).to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(MAGIC);
    (bytes, places)
}

#[cfg(test)]
mod tests {
    use super::*;
    use iceberg::io::FileIO;
    use iceberg::puffin::PuffinReader;

    #[test]
    fn a_file_is_read_by_others() {
        let vector = |positions: &[u64]| positions.iter().copied().collect::<DeletionVector>();
        let vectors = BTreeMap::from([
            ("a.parquet".to_owned(), vector(&[1, 3])),
            ("b.parquet".to_owned(), (0..100_000).map(|at| at * 7).collect()),
            ("c.parquet".to_owned(), vector(&[0, 1 << 33])),
        ]);
        let (bytes, places) = file(&vectors);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vectors.puffin");
        std::fs::write(&path, &bytes).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let input = FileIO::new_with_fs().new_input(path.to_str().unwrap()).unwrap();
            let reader = PuffinReader::new(input);
            let blobs = reader.file_metadata().await.unwrap().blobs().to_vec();
            assert_eq!(blobs.len(), vectors.len());
            for ((blob, place), (data, vector)) in blobs.iter().zip(&places).zip(&vectors) {
                assert_eq!((blob.offset(), blob.length()), *place);
                assert_eq!(&blob.properties()["referenced-data-file"], data);
                assert_eq!(blob.properties()["cardinality"], vector.len().to_string());
                let read = reader.blob(blob).await.unwrap();
                assert_eq!(DeletionVector::from_blob(read.data()).as_ref(), Ok(vector));
            }
        });
        // No gap is as short as the vector before it, and none is longer than need be.
        for (from, to) in places.iter().zip(&places[1..]) {
            let gap = to.0 - from.0 - from.1;
            assert!(gap > from.1.min(GAP_MAX as u64) && gap <= GAP_MAX as u64 + 1, "{from:?} {to:?}");
        }
    }
}
