//! Which rows of one data file are dead, as format version 3 keeps it: a bitmap of 64-bit positions in a blob of a Puffin file (Iceberg
//! specification, "Deletion Vectors"; Puffin specification, "deletion-vector-v1").
//!
//! ```text
//!  blob: length (4 bytes, big-endian) │ magic │ portable 64-bit Roaring bitmap │ CRC-32 of magic and bitmap (4 bytes, big-endian)
//! ```

use roaring::RoaringTreemap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What comes before the bitmap.
const MAGIC: [u8; 4] = [0xD1, 0xD3, 0x39, 0x64];

/// Positions of a data file. Written down in an intent it is a list of (first, count) of those that follow each other.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeletionVector(RoaringTreemap);

impl Eq for DeletionVector {}

impl DeletionVector {
    /// How many they are.
    pub fn len(&self) -> u64 {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the row at `position` is dead.
    pub fn contains(&self, position: u64) -> bool {
        self.0.contains(position)
    }

    /// All of them, ascending.
    pub fn positions(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.iter()
    }

    /// Takes those of another one in.
    pub fn union(&mut self, other: &DeletionVector) {
        self.0 |= &other.0;
    }

    /// The blob.
    pub(crate) fn to_blob(&self) -> Vec<u8> {
        let mut bitmap = self.0.clone();
        bitmap.optimize();
        let mut content = MAGIC.to_vec();
        bitmap.serialize_into(&mut content).expect("a Vec takes whatever is written to it");
        let mut blob = (content.len() as u32).to_be_bytes().to_vec();
        let sum = crc32fast::hash(&content);
        blob.append(&mut content);
        blob.extend(sum.to_be_bytes());
        blob
    }

    /// What a blob holds, or what is wrong with it.
    pub(crate) fn from_blob(blob: &[u8]) -> Result<DeletionVector, &'static str> {
        let (length, rest) = blob.split_first_chunk::<4>().ok_or("it is too short")?;
        let (content, sum) = rest.split_last_chunk::<4>().ok_or("it is too short")?;
        if u32::from_be_bytes(*length) as usize != content.len() {
            return Err("its length is not the one that it says");
        }
        if u32::from_be_bytes(*sum) != crc32fast::hash(content) {
            return Err("its checksum is wrong");
        }
        let bitmap = content.strip_prefix(&MAGIC).ok_or("it does not begin as a deletion vector does")?;
        RoaringTreemap::deserialize_from(bitmap).map(DeletionVector).map_err(|_| "its bitmap can not be read")
    }
}

impl FromIterator<u64> for DeletionVector {
    fn from_iter<I: IntoIterator<Item = u64>>(positions: I) -> DeletionVector {
        DeletionVector(positions.into_iter().collect())
    }
}

impl Extend<u64> for DeletionVector {
    fn extend<I: IntoIterator<Item = u64>>(&mut self, positions: I) {
        self.0.extend(positions);
    }
}

impl Serialize for DeletionVector {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for position in &self.0 {
            match runs.last_mut() {
                Some((first, count)) if *first + *count == position => *count += 1,
                _ => runs.push((position, 1)),
            }
        }
        runs.serialize(to)
    }
}

impl<'de> Deserialize<'de> for DeletionVector {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<DeletionVector, D::Error> {
        let mut positions = RoaringTreemap::new();
        for (first, count) in Vec::<(u64, u64)>::deserialize(from)? {
            let end = first.checked_add(count).ok_or_else(|| serde::de::Error::custom("positions beyond 64 bits"))?;
            positions.insert_range(first..end);
        }
        Ok(DeletionVector(positions))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_vector_is_what_it_was(positions: Vec<u64>, low in proptest::collection::vec(0..2_000_u64, 0..2_000)) {
            // The last position of 64 bits is none of a file's: no run could end behind it.
            let positions = positions.into_iter().map(|position| position >> 1).chain(low);
            let vector: DeletionVector = positions.collect();
            prop_assert_eq!(DeletionVector::from_blob(&vector.to_blob()), Ok(vector.clone()));
            let written = serde_json::to_string(&vector).unwrap();
            prop_assert_eq!(serde_json::from_str::<DeletionVector>(&written).unwrap(), vector);
        }
    }

    /// As `BitmapPositionDeleteIndex.serialize` of Iceberg for Java writes it.
    #[test]
    fn a_blob_is_the_specifications() {
        let vector: DeletionVector = [1, 3].into_iter().collect();
        let blob = vector.to_blob();
        let (content, sum) = blob[4..].split_last_chunk::<4>().unwrap();
        assert_eq!(blob[..4], (content.len() as u32).to_be_bytes());
        assert_eq!(content[..4], [0xD1, 0xD3, 0x39, 0x64]);
        // One bitmap, of the key 0.
        assert_eq!(content[4..16], [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(*sum, crc32fast::hash(content).to_be_bytes());
        for (at, says) in [(3, "length"), (5, "checksum"), (blob.len() - 1, "checksum")] {
            let mut broken = blob.clone();
            broken[at] ^= 1;
            assert!(DeletionVector::from_blob(&broken).unwrap_err().contains(says), "{at}");
        }
        assert!(DeletionVector::from_blob(&[]).is_err());
    }

    #[test]
    fn runs_are_written_down() {
        let vector: DeletionVector = [7, 1, 2, 3].into_iter().collect();
        assert_eq!(serde_json::to_string(&vector).unwrap(), "[[1,3],[7,1]]");
        assert!(serde_json::from_str::<DeletionVector>(&format!("[[{},2]]", u64::MAX)).is_err());
    }
}
