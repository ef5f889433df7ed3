//! Who a data folder belongs to: the job and its lineage (`identity`), and the counter of its lives (`generation`).
//!
//! Each file is one line of JSON and one line with its CRC-32C, replaced as a whole. A file that does not read is an
//! error and never a fresh start: a new lineage would cut the sinks off from the history that is in them, and a
//! counter that starts again would let an old process pass for a new one.

use dataflow_core::replace_file;
use dataflow_core::{Error, Generation, Lineage, Random, Result, Storage};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// The file with the job's name and lineage.
pub const IDENTITY: &str = "identity";
/// The file with the last generation.
pub const GENERATION: &str = "generation";

const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Identity {
    version: u32,
    job: String,
    lineage: Lineage,
}

/// The lineage of the job that the folder belongs to; in a folder without data a new one, durable before it is returned.
///
/// # Errors
/// When the data is another job's, or the file is damaged or missing beside data.
pub fn load_or_create(storage: &dyn Storage, random: &dyn Random, job: &str) -> Result<Lineage> {
    if let Some(found) = load::<Identity>(storage, IDENTITY)? {
        if found.version != VERSION {
            let version = found.version;
            return Err(Error::user(format!("cannot read '{IDENTITY}': its version is {version}, not {VERSION}"))
                .hint("run the version of dataflow that wrote the data folder"));
        }
        if found.job != job {
            let owner = found.job;
            return Err(Error::user(format!("cannot run job '{job}' here: the data folder is that of job '{owner}'"))
                .hint("choose another data folder, or the right job file"));
        }
        return Ok(found.lineage);
    }
    // The identity is written before the first generation, so a generation alone is a folder that lost its identity.
    if storage.length(GENERATION)?.is_some() {
        return Err(Error::doubt(format!(
            "cannot tell whose data this is: '{GENERATION}' is there, '{IDENTITY}' is not"
        ))
        .hint("restore the data folder from a copy, or choose an empty one"));
    }
    let lineage = Lineage(random.next_u64());
    store(storage, IDENTITY, &Identity { version: VERSION, job: job.to_owned(), lineage })?;
    Ok(lineage)
}

/// The generation of this start: the number after the last one and a new nonce, durable before it is returned.
///
/// # Errors
/// When the file is damaged.
pub fn next_generation(storage: &dyn Storage, random: &dyn Random) -> Result<Generation> {
    let last = load::<Generation>(storage, GENERATION)?.map_or(0, |last| last.number);
    let number = last.checked_add(1).ok_or_else(|| Error::us("cannot count the generations any further"))?;
    let generation = Generation { number, nonce: random.next_u64() };
    store(storage, GENERATION, &generation)?;
    Ok(generation)
}

pub(super) fn store<T: Serialize>(storage: &dyn Storage, name: &str, value: &T) -> Result<()> {
    let json = serde_json::to_string(value).map_err(|e| Error::us(format!("cannot write '{name}'")).because(e))?;
    let text = format!("{json}\n{:08x}\n", crc32c::crc32c(json.as_bytes()));
    replace_file(storage, "", name, text.as_bytes())
}

pub(super) fn load<T: DeserializeOwned>(storage: &dyn Storage, name: &str) -> Result<Option<T>> {
    if storage.length(name)?.is_none() {
        return Ok(None);
    }
    let bytes = storage.read(name)?;
    let damaged = |how: &str| {
        Error::doubt(format!("cannot read '{name}' of the data folder: {how}"))
            .hint("restore the data folder from a copy; to give its history up, choose an empty one")
    };
    let text = std::str::from_utf8(&bytes).map_err(|_| damaged("it is not text"))?;
    let (json, crc) = text.split_once('\n').ok_or_else(|| damaged("it is cut off"))?;
    if crc != format!("{:08x}\n", crc32c::crc32c(json.as_bytes())) {
        return Err(damaged("its checksum does not match"));
    }
    serde_json::from_str(json).map(Some).map_err(|e| damaged("its content is not what we write").because(e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::MemoryStorage;
    use std::sync::atomic::{AtomicU64, Ordering};

    struct Counting(AtomicU64);
    impl Random for Counting {
        fn next_u64(&self) -> u64 {
            self.0.fetch_add(1, Ordering::Relaxed)
        }
    }

    #[test]
    fn survives_and_counts() {
        let (storage, random) = (MemoryStorage::new(), Counting(AtomicU64::new(u64::MAX - 1)));
        let lineage = load_or_create(&storage, &random, "a").unwrap();
        assert_eq!(lineage, Lineage(u64::MAX - 1));
        for number in 1..5 {
            assert_eq!(next_generation(&storage, &random).unwrap().number, number);
            storage.crash(&mut |_| 0);
            assert_eq!(load_or_create(&storage, &random, "a").unwrap(), lineage);
        }
        let error = load_or_create(&storage, &random, "b").unwrap_err().to_string();
        assert!(error.contains("'a'") && error.contains("'b'"), "{error}");
    }

    #[test]
    fn no_byte_may_change() {
        let (storage, random) = (MemoryStorage::new(), Counting(AtomicU64::new(7)));
        load_or_create(&storage, &random, "a").unwrap();
        next_generation(&storage, &random).unwrap();
        for name in [IDENTITY, GENERATION] {
            let whole = storage.read(name).unwrap();
            let mut broken: Vec<Vec<u8>> = (0..whole.len()).map(|cut| whole[..cut].to_vec()).collect();
            for at in 0..whole.len() * 8 {
                let mut bytes = whole.clone();
                bytes[at / 8] ^= 1 << (at % 8);
                broken.push(bytes);
            }
            for bytes in broken {
                storage.remove(name).unwrap();
                storage.append(name).unwrap().write(&bytes).unwrap();
                let failed = match name {
                    IDENTITY => load_or_create(&storage, &random, "a").is_err(),
                    _ => next_generation(&storage, &random).is_err(),
                };
                assert!(failed, "{name}: {bytes:?}");
                assert_eq!(storage.read(name).unwrap(), bytes, "and it is left as it is");
            }
            storage.remove(name).unwrap();
            storage.append(name).unwrap().write(&whole).unwrap();
        }
        storage.remove(IDENTITY).unwrap();
        assert!(load_or_create(&storage, &random, "a").is_err());
    }
}
