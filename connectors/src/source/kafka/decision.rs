//! Decisions of the source, apart from all I/O: what an offset means against what the broker has, and what a poll came to.

use dataflow_core::Poll;

/// What the broker has of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// The oldest offset there is.
    pub(crate) low: u64,
    /// The offset after the newest record that may be read.
    pub(crate) high: u64,
}

/// An offset to read from, against the partition's bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It can be read.
    Readable,
    /// Retention has taken this many offsets from it on.
    Lost(u64),
    /// The partition has not come so far: it is not the one that was bound.
    Beyond,
}

/// Where `next` stands.
pub(crate) fn standing(next: u64, bounds: Bounds) -> Standing {
    if next < bounds.low {
        Standing::Lost(bounds.low - next)
    } else if next > bounds.high {
        Standing::Beyond
    } else {
        Standing::Readable
    }
}

/// A restorable offset is near its loss when less than a tenth of what the partition holds lies before it: at a steady
/// rate, a tenth of the retention is left to act.
const NEAR_LOSS_DIVISOR: u64 = 10;

/// Whether retention is about to take what the oldest kept checkpoint would read again. A partition that never lost
/// anything, or has nothing after the offset, is in no danger.
pub(crate) fn near_loss(restorable: u64, bounds: Bounds) -> bool {
    bounds.low > 0
        && restorable < bounds.high
        && restorable.saturating_sub(bounds.low).saturating_mul(NEAR_LOSS_DIVISOR) < bounds.high - bounds.low
}

/// What a poll came to, from what was seen. `next` follows the last record delivered, `held` is the offset of the first
/// record kept back, `end` the offset up to which the partition was read when it had no more.
pub(crate) fn verdict(until: Option<u64>, next: u64, held: Option<u64>, end: Option<u64>, budget_left: usize) -> Poll {
    match until {
        Some(until) if next >= until || held.is_some_and(|h| h >= until) || end.is_some_and(|e| e >= until) => {
            Poll::AtEnd
        }
        _ if held.is_some() || budget_left == 0 => Poll::More,
        None if end.is_some() => Poll::AtEnd,
        _ => Poll::Pending,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_against_bounds() {
        let bounds = Bounds { low: 10, high: 20 };
        assert_eq!(standing(9, bounds), Standing::Lost(1));
        assert_eq!(standing(10, bounds), Standing::Readable);
        assert_eq!(standing(20, bounds), Standing::Readable);
        assert_eq!(standing(21, bounds), Standing::Beyond);
    }

    #[test]
    fn loss_is_foreseen_only_where_retention_works() {
        assert!(!near_loss(0, Bounds { low: 0, high: 100 }));
        assert!(near_loss(105, Bounds { low: 100, high: 200 }));
        assert!(!near_loss(110, Bounds { low: 100, high: 200 }));
        assert!(near_loss(90, Bounds { low: 100, high: 200 }));
        assert!(!near_loss(200, Bounds { low: 200, high: 200 }));
    }

    #[test]
    fn the_end_is_claimed_only_with_a_proof() {
        let check = |until, next, held, end, left, expected| {
            assert_eq!(verdict(until, next, held, end, left), expected, "{until:?} {next} {held:?} {end:?} {left}");
        };
        check(None, 5, None, None, 3, Poll::Pending);
        check(None, 5, None, Some(7), 3, Poll::AtEnd);
        check(None, 5, None, None, 0, Poll::More);
        check(None, 5, Some(6), None, 3, Poll::More);
        // Offsets 5 to 8 may be transaction markers: only a record at 9 or an end at 9 proves it.
        check(Some(9), 5, None, None, 3, Poll::Pending);
        check(Some(9), 5, None, Some(7), 3, Poll::Pending);
        check(Some(9), 5, None, Some(9), 3, Poll::AtEnd);
        check(Some(9), 5, Some(9), None, 3, Poll::AtEnd);
        check(Some(9), 9, None, None, 0, Poll::AtEnd);
        check(Some(9), 5, None, None, 0, Poll::More);
    }
}
