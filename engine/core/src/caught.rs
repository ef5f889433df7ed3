//! Panics of foreign code that are caught on purpose, told apart from those that end the process.
//!
//! A panic hook runs before the unwinding, so it cannot see that a `catch_unwind` waits further up; the runtime's ends the
//! process. Whoever calls a library that may panic on what it is fed does it through [`caught`], which the hook asks about.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    /// Calls of [`caught`] that this thread is in.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// Runs `call`; `None` when it panicked. What it worked on is dropped or must not be used again.
pub fn caught<R>(call: impl FnOnce() -> R) -> Option<R> {
    struct Leave;
    impl Drop for Leave {
        fn drop(&mut self) {
            DEPTH.set(DEPTH.get() - 1);
        }
    }
    DEPTH.set(DEPTH.get() + 1);
    let _leave = Leave;
    catch_unwind(AssertUnwindSafe(call)).ok()
}

/// Whether a panic of this thread, now, would be caught: asked by panic hooks.
pub fn is_caught() -> bool {
    DEPTH.get() > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guard_ends_with_the_call() {
        assert!(!is_caught());
        assert_eq!(caught(|| caught(is_caught) == Some(true) && is_caught()), Some(true));
        let panicked: Option<()> = caught(|| std::panic::resume_unwind(Box::new("on purpose")));
        assert!(panicked.is_none() && !is_caught());
    }
}
