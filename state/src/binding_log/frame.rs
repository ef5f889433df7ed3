//! The bytes of a segment: its head, and the frames that follow. Pure: bytes in, bytes out.
//!
//! ```text
//! head    magic (8)  version (u32)  length (u32)  crc (u32)  postcard LogHeader (length)
//! frame   length (u32)  crc (u32)  kind (u8)  batch (u64)  postcard (length)  chain hash (16)
//! ```
//! Integers are little-endian. The CRC-32C of the head covers version, length and payload; that of a frame everything
//! in it but itself. So a frame whose CRC matches is as it was written, and a chain hash in it that does not follow
//! is a frame in the wrong place, never a torn write. `batch` is the offset at which the batch begins that the frame was
//! written with: everything before it was synced by then.

use super::LogHeader;
use dataflow_core::{ChainHash, Error, Result};

/// The first bytes of every segment.
pub(super) const MAGIC: &[u8; 8] = b"DFBNDLOG";
/// The layout above, and postcard's of [`Binding`](dataflow_core::Binding) and [`BindingState`](dataflow_core::BindingState).
pub(super) const VERSION: u32 = 1;
/// No row is larger: 64 MiB hold an advance of each of a million partitions. It bounds what a damaged length can make us read.
pub(super) const PAYLOAD_BYTES_MAX: usize = 64 << 20;

const HEAD_BYTES: usize = 20;
const FRAME_HEAD_BYTES: usize = 17;
const CHAIN_BYTES: usize = 16;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The state before the segment's first row, and the chain hash so far.
    Full = 0,
    /// A row, and its chain hash.
    Row = 1,
}

/// A frame that is as it was written.
#[derive(Debug)]
pub(super) struct Frame<'a> {
    pub(super) kind: Kind,
    pub(super) payload: &'a [u8],
    pub(super) chain: ChainHash,
    /// Its length, all in all.
    pub(super) bytes: usize,
}

/// What came of reading a head.
#[derive(Debug)]
pub(super) enum Head {
    /// It is whole; frames begin at the offset.
    Whole(LogHeader, usize),
    /// It is damaged in a way that an interrupted write explains.
    Torn(&'static str),
    /// This is no segment, or one of a version that we do not know.
    Foreign(String),
}

/// Appends a segment's head.
pub(super) fn write_head(header: &LogHeader, out: &mut Vec<u8>) -> Result<()> {
    let payload = encoded(header)?;
    out.extend_from_slice(MAGIC);
    let covered = out.len();
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&out[covered..]), &payload);
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(&payload);
    Ok(())
}

/// Reads the head that a segment begins with.
pub(super) fn read_head(bytes: &[u8]) -> Head {
    // Bytes that never reached the disk are missing or zero; any others are not ours.
    if bytes.iter().zip(MAGIC).any(|(found, ours)| found != ours && *found != 0) {
        return Head::Foreign("it does not begin as one".into());
    }
    let Some((fixed, rest)) = bytes.split_at_checked(HEAD_BYTES) else { return Head::Torn("its head is cut off") };
    let (version, length, crc) = (u32_at(fixed, 8), u32_at(fixed, 12), u32_at(fixed, 16));
    let Some(payload) = rest.get(..length as usize) else { return Head::Torn("its head is cut off") };
    if crc32c::crc32c_append(crc32c::crc32c(&fixed[8..16]), payload) != crc {
        return Head::Torn("the checksum of its head does not match");
    }
    if version != VERSION {
        return Head::Foreign(format!("its version is {version}, and this build of dataflow reads {VERSION}"));
    }
    match decoded(payload) {
        Some(header) => Head::Whole(header, HEAD_BYTES + payload.len()),
        None => Head::Foreign("its head does not decode".into()),
    }
}

/// Appends a frame. `batch` is the offset in the segment at which the batch begins.
pub(super) fn write_frame(kind: Kind, batch: u64, payload: &[u8], chain: ChainHash, out: &mut Vec<u8>) -> Result<()> {
    if payload.len() > PAYLOAD_BYTES_MAX {
        let length = payload.len();
        return Err(Error::us(format!(
            "cannot bind an epoch with a row of {length} bytes: at most {PAYLOAD_BYTES_MAX}"
        )));
    }
    let at = out.len();
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.push(kind as u8);
    out.extend_from_slice(&batch.to_le_bytes());
    out.extend_from_slice(payload);
    out.extend_from_slice(&chain.0);
    let crc = frame_crc(&out[at..]);
    out[at + 4..at + 8].copy_from_slice(&crc.to_le_bytes());
    Ok(())
}

/// Reads the frame at `at`, or says what is wrong with it.
pub(super) fn read_frame(bytes: &[u8], at: usize) -> Result<Frame<'_>, &'static str> {
    let rest = bytes.get(at..).unwrap_or_default();
    if rest.len() < FRAME_HEAD_BYTES + CHAIN_BYTES {
        return Err("it is cut off");
    }
    let length = u32_at(rest, 0) as usize;
    if length > PAYLOAD_BYTES_MAX {
        return Err("its length is impossible");
    }
    let frame = rest.get(..FRAME_HEAD_BYTES + length + CHAIN_BYTES).ok_or("it is cut off")?;
    let kind = match frame[8] {
        0 => Kind::Full,
        1 => Kind::Row,
        _ => return Err("its kind is unknown"),
    };
    if frame_crc(frame) != u32_at(frame, 4) {
        return Err("its checksum does not match");
    }
    if batch_of(frame) > at as u64 {
        return Err("it stands where it was not written");
    }
    let (payload, chain) = frame[FRAME_HEAD_BYTES..].split_at(length);
    let chain = ChainHash(chain.try_into().expect("a frame ends with the 16 bytes of a chain hash"));
    Ok(Frame { kind, payload, chain, bytes: frame.len() })
}

/// The offset of the first whole frame after `at` whose batch begins after `at`: proof that what is at `at` was synced.
pub(super) fn later_batch(bytes: &[u8], at: usize) -> Option<usize> {
    (at + 1..bytes.len().saturating_sub(FRAME_HEAD_BYTES + CHAIN_BYTES - 1)).find(|offset| {
        // Cheap, and false for nearly every offset that is no frame: few checksums are computed.
        batch_of(&bytes[*offset..]) > at as u64 && read_frame(bytes, *offset).is_ok()
    })
}

/// The bytes of a payload.
pub(super) fn encoded<T: serde::Serialize>(value: &T) -> Result<Vec<u8>> {
    postcard::to_stdvec(value).map_err(|e| Error::us("cannot encode a row of the binding log").because(e))
}

/// The value of a whole payload; `None` when it is none, or something is left over.
pub(super) fn decoded<'a, T: serde::Deserialize<'a>>(payload: &'a [u8]) -> Option<T> {
    postcard::take_from_bytes(payload).ok().and_then(|(value, rest)| rest.is_empty().then_some(value))
}

fn frame_crc(frame: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&frame[..4]), &frame[8..])
}

fn batch_of(frame: &[u8]) -> u64 {
    u64::from_le_bytes(frame[9..17].try_into().expect("the range has 8 bytes"))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("the range has 4 bytes"))
}
