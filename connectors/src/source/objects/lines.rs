//! The lines of an object: its bytes in ranges, unpacked as they say they are packed, cut at line feeds.
//!
//! How an object is packed is told by its first bytes (RFC 1952, RFC 8878), not by its name. Ranges and buffers have fixed sizes, so even
//! an object that is damaged gives the same lines each time. Nothing here grows with what an object unpacks to.

use super::bucket::{Bucket, Missing, Object};
use bytes::Bytes;
use dataflow_core::{Error, Result};
use flate2::bufread::MultiGzDecoder;
use std::io::{self, BufRead, BufReader, Read};
use std::sync::{Arc, Mutex};

/// The longest line that is read: the usual largest message of a broker.
pub const LINE_BYTES_MAX: usize = 1 << 20;
/// Bytes that are read of an object at once.
const RANGE_BYTES: u64 = 4 << 20;
/// Bytes that are unpacked at once.
const UNPACKED_BYTES: usize = 64 << 10;
/// The largest window of zstd, as a power of two: 8 MiB, what all its levels but the `--ultra` ones need.
const WINDOW_LOG_MAX: u32 = 23;

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// What comes next in an object.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// A line, without its line feed.
    Line(Bytes),
    /// A line of more than [`LINE_BYTES_MAX`], passed over.
    TooLong,
    /// What is packed can not be unpacked from here on.
    Damaged(String),
    /// All has been read.
    End,
    /// The version of the object can not be read any more.
    Missing(Missing),
}

/// The lines of one object.
pub(super) struct Lines {
    unpacked: Box<dyn BufRead + Send>,
    /// Why reading failed, where that is not the fault of the bytes.
    failure: Arc<Mutex<Option<Failure>>>,
    line: Vec<u8>,
    is_over: bool,
}

enum Failure {
    Missing(Missing),
    Error(Error),
}

impl Lines {
    /// Opens an object: its first bytes are read.
    pub(super) fn open(bucket: &Arc<Bucket>, object: &Object) -> Result<std::result::Result<Lines, Missing>> {
        let failure = Arc::default();
        let mut ranges = Ranges::new(bucket.clone(), object.clone(), Arc::clone(&failure));
        let start = match ranges.fill_buf() {
            Ok(bytes) => [GZIP, ZSTD].into_iter().find(|magic| bytes.starts_with(magic)),
            Err(_) => {
                return match taken(&failure) {
                    Some(Failure::Missing(missing)) => Ok(Err(missing)),
                    Some(Failure::Error(error)) => Err(error),
                    None => Err(Error::us(format!("open '{}': reading failed without a reason", object.key))),
                };
            }
        };
        let unpacked: Box<dyn BufRead + Send> = match start {
            Some(GZIP) => Box::new(BufReader::with_capacity(UNPACKED_BYTES, MultiGzDecoder::new(ranges))),
            Some(_) => {
                let failed = |e| Error::us("start zstd").because(e);
                let mut decoder = zstd::stream::read::Decoder::with_buffer(ranges).map_err(failed)?;
                decoder.window_log_max(WINDOW_LOG_MAX).map_err(failed)?;
                Box::new(BufReader::with_capacity(UNPACKED_BYTES, decoder))
            }
            None => Box::new(ranges),
        };
        Ok(Ok(Lines { unpacked, failure, line: Vec::new(), is_over: false }))
    }

    /// The next piece. After [`Piece::Damaged`] and [`Piece::End`] it is [`Piece::End`].
    ///
    /// # Errors
    /// When the object can not be read at the moment.
    pub(super) fn next(&mut self) -> Result<Piece> {
        if self.is_over {
            return Ok(Piece::End);
        }
        let (mut is_long, mut is_begun) = (false, false);
        loop {
            let bytes = match self.unpacked.fill_buf() {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return self.failed(&error),
            };
            self.is_over = bytes.is_empty();
            is_begun |= !self.is_over;
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let part = &bytes[..end.unwrap_or(bytes.len())];
            is_long |= self.line.len() + part.len() > LINE_BYTES_MAX;
            if is_long {
                self.line.clear();
            } else {
                self.line.extend_from_slice(part);
            }
            let used = part.len() + usize::from(end.is_some());
            self.unpacked.consume(used);
            if self.is_over && !is_begun {
                return Ok(Piece::End);
            }
            if end.is_some() || self.is_over {
                let line = Bytes::copy_from_slice(&self.line);
                self.line.clear();
                return Ok(if is_long { Piece::TooLong } else { Piece::Line(line) });
            }
        }
    }

    fn failed(&mut self, error: &io::Error) -> Result<Piece> {
        self.line.clear();
        self.is_over = true;
        match taken(&self.failure) {
            Some(Failure::Missing(missing)) => Ok(Piece::Missing(missing)),
            Some(Failure::Error(error)) => Err(error),
            None => Ok(Piece::Damaged(error.to_string())),
        }
    }
}

fn taken(failure: &Mutex<Option<Failure>>) -> Option<Failure> {
    failure.lock().expect("no holder of this lock can panic").take()
}

/// The bytes of an object, range by range.
struct Ranges {
    bucket: Arc<Bucket>,
    object: Object,
    failure: Arc<Mutex<Option<Failure>>>,
    /// Where the next range begins.
    next: u64,
    range: Bytes,
}

impl Ranges {
    fn new(bucket: Arc<Bucket>, object: Object, failure: Arc<Mutex<Option<Failure>>>) -> Ranges {
        Ranges { bucket, object, failure, next: 0, range: Bytes::new() }
    }
}

impl BufRead for Ranges {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.range.is_empty() && self.next < self.object.size {
            let end = (self.next + RANGE_BYTES).min(self.object.size);
            let failure = match self.bucket.read(&self.object, self.next..end) {
                Ok(Ok(bytes)) if bytes.len() as u64 == end - self.next => {
                    (self.range, self.next) = (bytes, end);
                    return Ok(&self.range);
                }
                Ok(Ok(_)) => Failure::Missing(Missing::Changed),
                Ok(Err(missing)) => Failure::Missing(missing),
                Err(error) => Failure::Error(error),
            };
            *self.failure.lock().expect("no holder of this lock can panic") = Some(failure);
            return Err(io::Error::other("the object can not be read"));
        }
        Ok(&self.range)
    }

    fn consume(&mut self, used: usize) {
        self.range = self.range.slice(used..);
    }
}

impl Read for Ranges {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let bytes = self.fill_buf()?;
        let length = bytes.len().min(into.len());
        into[..length].copy_from_slice(&bytes[..length]);
        self.consume(length);
        Ok(length)
    }
}
