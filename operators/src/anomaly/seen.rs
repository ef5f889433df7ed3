//! Whether something was seen in a stretch of the past that ends a little before now, in constant space.
//!
//! The question is always about `[t - window, t - tail]` for a `t` that only rises. Kept are runs of times, each by its
//! first and last time only. That is exact: a run is no longer than the stretch, so if one of its times is in the
//! stretch, one of its ends is. At most two runs are left once those that cannot matter are dropped: the newest that
//! begins at least `tail` ago answers for every older one. So a flood of logins costs four instants, not one each.

use dataflow_core::Micros;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

/// The stretch of the past that is asked about: `[t - window_us, t - tail_us]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) window_us: i64,
    pub(super) tail_us: i64,
}

/// The times at which something was seen, as far as they matter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// First and last time of each run, rising.
    runs: SmallVec<[(Micros, Micros); 2]>,
}

impl Seen {
    /// Whether there was a time in the stretch before `t`.
    pub(super) fn within(&self, stretch: Stretch, t: Micros) -> bool {
        let span = t.plus(-stretch.window_us)..=t.plus(-stretch.tail_us);
        self.runs.iter().any(|(first, last)| span.contains(first) || span.contains(last))
    }

    /// Adds a time, not before any other.
    pub(super) fn add(&mut self, stretch: Stretch, t: Micros) {
        let longest = stretch.tail_us.min(stretch.window_us - stretch.tail_us).max(0);
        match self.runs.last_mut() {
            Some((first, last)) if t.since(*first) <= longest => *last = t,
            _ => self.runs.push((t, t)),
        }
        let settled = t.plus(-stretch.tail_us);
        while self.runs.get(1).is_some_and(|(first, _)| *first <= settled) {
            self.runs.remove(0);
        }
    }

    /// The last time; none when nothing was seen.
    pub(super) fn newest(&self) -> Option<Micros> {
        self.runs.last().map(|(_, last)| *last)
    }

    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        self.runs.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_ends_of_runs_answer_for_all_times(gaps in prop::collection::vec(0i64..6, 1..20), window_us in 0i64..14, tail_us in 0i64..7) {
            let (stretch, mut seen, mut times) = (Stretch { window_us, tail_us }, Seen::default(), Vec::new());
            for gap in gaps {
                let now = times.last().map_or(0, |last: &i64| last + gap);
                for t in now..now + 30 {
                    let expected = times.iter().any(|x| (t - window_us..=t - tail_us).contains(x));
                    prop_assert_eq!(seen.within(stretch, Micros(t)), expected, "{:?} at {} {:?} {:?}", times, t, stretch, seen);
                }
                times.push(now);
                seen.add(stretch, Micros(now));
                prop_assert!(seen.size() <= 2 || window_us < 2 * tail_us || tail_us == 0, "{:?} {:?}", stretch, seen);
                prop_assert_eq!(seen.newest(), Some(Micros(now)));
            }
        }
    }
}
