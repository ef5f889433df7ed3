//! One life of the job's process, as the outside sees it: whether its calls still arrive, and the fuse that ends it within a call.
//!
//! A crash at a turn's boundary is the scheduler's; a crash *inside* a call of storage or broker is the fuse's. Once a life has
//! lost its disk every storage call of it is refused, and once it has lost its network every broker call: nothing of
//! it can have an effect any more, whatever its error paths still try.

use crate::trace::Trace;
use dataflow_core::Error;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};

/// What the fuse does when it has burnt down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blow {
    /// The process ends before the call has an effect (of a write perhaps a part).
    Before,
    /// The process ends when the call has had its effect, before it returns.
    After,
    /// The call fails and the process lives on to deal with it.
    Fail,
}

/// Counts calls down.
#[derive(Clone, Debug)]
pub(crate) struct Fuse {
    /// Only calls on paths that begin so.
    pub(crate) path: &'static str,
    /// Calls that still pass.
    pub(crate) left: u64,
    /// Then.
    pub(crate) blow: Blow,
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Passage {
    /// It is made.
    Open,
    /// The fuse blew at it.
    Blown(Blow),
    /// The process is gone.
    Gone,
}

/// A life.
pub(crate) struct Life {
    trace: Arc<Trace>,
    disk: AtomicBool,
    network: AtomicBool,
    excused: AtomicBool,
    fuse: Mutex<Option<Fuse>>,
    /// Where the fuse blew.
    blown_at: Mutex<Option<String>>,
    /// Bytes that the disk still takes.
    room: Mutex<Option<u64>>,
    /// Calls that found the disk full.
    full: AtomicU64,
}

impl Life {
    /// A life that begins.
    pub(crate) fn new(trace: Arc<Trace>, fuse: Option<Fuse>, room: Option<u64>) -> Arc<Life> {
        Arc::new(Life {
            trace,
            disk: AtomicBool::new(true),
            network: AtomicBool::new(true),
            excused: AtomicBool::new(false),
            fuse: Mutex::new(fuse),
            blown_at: Mutex::default(),
            room: Mutex::new(room),
            full: AtomicU64::new(0),
        })
    }

    /// The process is gone.
    pub(crate) fn end(&self) {
        self.disk.store(false, SeqCst);
        self.network.store(false, SeqCst);
    }

    /// The process lost its place, and what of it is already on the network does not know: a paused machine, a copy.
    pub(crate) fn strand(&self) {
        self.disk.store(false, SeqCst);
    }

    /// Whether it has ended, as far as its successor is concerned.
    pub(crate) fn has_ended(&self) -> bool {
        !self.disk.load(SeqCst)
    }

    /// An error was given to it on purpose: that it fails is right.
    pub(crate) fn excuse(&self) {
        self.excused.store(true, SeqCst);
    }

    /// See [`Life::excuse`].
    pub(crate) fn is_excused(&self) -> bool {
        self.excused.load(SeqCst)
    }

    /// The path at which the fuse blew.
    pub(crate) fn blown_at(&self) -> Option<String> {
        self.blown_at.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks for a passage of a storage call that only reads.
    pub(crate) fn may_read(&self) -> bool {
        self.disk.load(SeqCst)
    }

    /// Asks for a passage of a storage call that changes something.
    pub(crate) fn storage_call(&self, what: &str, path: &str, number: u64) -> Passage {
        if !self.disk.load(SeqCst) { Passage::Gone } else { self.burn(what, path, number) }
    }

    /// Asks for a passage of a call over the network.
    pub(crate) fn network_call(&self, what: &str, path: &str, number: u64) -> Passage {
        if !self.network.load(SeqCst) {
            return Passage::Gone;
        }
        // A life without a disk is a stray one: its fuse is its successor's business no more.
        if self.disk.load(SeqCst) { self.burn(what, path, number) } else { Passage::Open }
    }

    /// How many of `bytes` the disk takes. A full one takes a part of a write, and nothing from then on.
    pub(crate) fn take_room(&self, bytes: u64) -> u64 {
        let mut room = self.room.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(left) = room.as_mut() else { return bytes };
        let taken = bytes.min(*left);
        *left = if taken < bytes { 0 } else { *left - taken };
        taken
    }

    /// A call found the disk full: that the life fails is right.
    pub(crate) fn found_full(&self) {
        self.full.fetch_add(1, SeqCst);
        self.excuse();
    }

    /// Calls that found the disk full.
    pub(crate) fn full(&self) -> u64 {
        self.full.load(SeqCst)
    }

    fn burn(&self, what: &str, path: &str, number: u64) -> Passage {
        self.trace.note(what, path, number);
        let mut fuse = self.fuse.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(burning) = fuse.as_mut().filter(|fuse| path.starts_with(fuse.path)) else { return Passage::Open };
        if burning.left > 0 {
            burning.left -= 1;
            return Passage::Open;
        }
        let blow = burning.blow;
        *fuse = None;
        *self.blown_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(format!("{what} {path}"));
        self.trace.note("fuse", path, blow as u64);
        Passage::Blown(blow)
    }
}

/// The error of a call that a dead process makes.
pub(crate) fn gone(what: &str, path: &str) -> Error {
    Error::outside(format!("cannot {what} '{path}': the process is gone"))
}
