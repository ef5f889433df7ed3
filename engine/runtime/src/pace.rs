//! When a live epoch is opened, and which of them hold a checkpoint. Pure: the ticker says what time it is and how far the epochs before it are.
//!
//! An epoch is closed by opening the next. With input that is after `tick_min` when the epochs before it are staged and sinks keep up, at the
//! latest after `tick_max`, or when it is full; without input after `tick_idle`. None of it decides what an epoch means: a replay takes both the extent of
//! an epoch and its clock from its binding, and cuts no state.
//!
//! What is opened stays bounded (invariant 6): by what is not staged, by what is not durable, and, for checkpoints, by what is not stored.

use crate::settings::RuntimeSettings;
use std::time::Duration;

/// Epochs opened whose bindings are not durable: more than a disk that syncs in tens of milliseconds lets pile up at the shortest tick, and few
/// enough that a disk that does not answer is felt as backpressure within seconds.
pub const UNDURABLE_EPOCHS_MAX: usize = 256;
/// Checkpoints opened and not complete: one being stored, one that gathers its parts or waits for the sinks.
pub(crate) const CHECKPOINTS_OPEN_MAX: usize = 2;
/// More epochs than this that are not staged, or that a sink has not committed: the open one is left to grow up to `tick_max`. Shorter epochs
/// would share transactions with those that wait already, and cost the machine and the sink's cluster what makes the wait longer.
const CONGESTED: usize = 2;
/// How soon a held-back ticker looks again: a probe wakes nobody.
pub(crate) const HELD_BACK: Duration = Duration::from_millis(1);

/// What the ticker sees when it looks.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Signs {
    /// Monotonic time.
    pub(crate) now: Duration,
    /// A source has put a record into the open epoch.
    pub(crate) has_input: bool,
    /// The open epoch holds as much as it may.
    pub(crate) is_full: bool,
    /// A stop was asked for, or the input has ended.
    pub(crate) is_stopping: bool,
    /// Epochs opened that not every sink has staged.
    pub(crate) unstaged: usize,
    /// Epochs that the slowest sink has staged and not committed.
    pub(crate) uncommitted: usize,
    /// Epochs opened whose bindings are not durable.
    pub(crate) undurable: usize,
    /// Checkpoints opened whose manifests are not durable.
    pub(crate) checkpoints: usize,
}

/// What the ticker does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Open the next epoch.
    Open { checkpoint: bool, last: bool },
    /// Look again after this long, or when woken.
    Wait(Duration),
    /// No epoch will follow.
    End,
}

/// The ticker's memory.
pub(crate) struct Pace {
    /// Monotonic time when the open epoch was opened.
    opened: Duration,
    /// Monotonic time of the last checkpoint epoch.
    checkpointed: Duration,
    /// No live epoch was opened yet.
    is_first: bool,
    /// The last epoch is open.
    is_closing: bool,
}

impl Pace {
    /// At the beginning of a generation.
    pub(crate) fn new(now: Duration) -> Pace {
        Pace { opened: now, checkpointed: now, is_first: true, is_closing: false }
    }

    /// Whether no epoch may be opened, a live one or one that is known beforehand: this is the backpressure.
    pub(crate) fn is_held_back(signs: &Signs, settings: &RuntimeSettings) -> bool {
        signs.unstaged >= settings.open_epochs_max || signs.undurable >= UNDURABLE_EPOCHS_MAX
    }

    /// What comes next in a live job. An epoch that is to be opened counts as opened.
    pub(crate) fn next(&mut self, signs: &Signs, settings: &RuntimeSettings) -> Next {
        if self.is_closing {
            return Next::End;
        }
        let ms = Duration::from_millis;
        let (is_unstaged, is_uncommitted) = (signs.unstaged > CONGESTED, signs.uncommitted > CONGESTED);
        let due_after = if self.is_first || signs.is_stopping || signs.is_full {
            Duration::ZERO
        } else if signs.has_input {
            if is_unstaged || is_uncommitted { ms(settings.tick_max_ms) } else { ms(settings.tick_min_ms) }
        } else {
            ms(settings.tick_idle_ms)
        };
        let age = signs.now.saturating_sub(self.opened);
        if age < due_after {
            // It may be closed as soon as the ones before it are staged, of which a probe wakes nobody; a commit wakes.
            return Next::Wait(if is_unstaged && signs.has_input { HELD_BACK } else { due_after - age });
        }
        let is_due = signs.now.saturating_sub(self.checkpointed) >= ms(settings.checkpoint_interval_ms);
        // A store that is slower than the interval, or a sink that is away, makes checkpoints rarer.
        let checkpoint = signs.is_stopping || (!self.is_first && is_due && signs.checkpoints < CHECKPOINTS_OPEN_MAX);
        if checkpoint {
            self.checkpointed = signs.now;
        }
        self.opened = signs.now;
        (self.is_first, self.is_closing) = (false, signs.is_stopping);
        Next::Open { checkpoint, last: signs.is_stopping }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Next = Next::Open { checkpoint: false, last: false };
    const CUT: Next = Next::Open { checkpoint: true, last: false };

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn settings() -> RuntimeSettings {
        RuntimeSettings { tick_min_ms: 5, tick_max_ms: 100, tick_idle_ms: 1_000, ..RuntimeSettings::default() }
    }

    fn at(now: u64) -> Signs {
        Signs { now: ms(now), ..Signs::default() }
    }

    /// The times (ms) of the epochs opened until `end`, when the ticker looks whenever it is woken or its wait is over; with input from `input` on.
    fn opened(end: u64, signs: impl Fn(u64) -> Signs, wakes: &[u64]) -> Vec<u64> {
        let (mut pace, mut times, mut now) = (Pace::new(ms(0)), Vec::new(), 0);
        while now <= end && times.len() < 100 {
            match pace.next(&signs(now), &settings()) {
                Next::Open { .. } => times.push(now),
                Next::Wait(wait) => {
                    let rest = now + wait.as_millis() as u64;
                    now = wakes.iter().copied().find(|wake| *wake > now).map_or(rest, |wake| wake.min(rest));
                }
                Next::End => break,
            }
        }
        times
    }

    #[test]
    fn without_input_a_heartbeat_each_tick_idle() {
        assert_eq!(opened(3_500, at, &[]), [0, 1_000, 2_000, 3_000]);
    }

    #[test]
    fn with_input_after_tick_min_and_at_the_latest_after_tick_max() {
        let fed = |from: u64| move |now| Signs { has_input: now >= from, ..at(now) };
        // Input all the time; input that comes to an epoch older than tick_min closes it at once.
        assert_eq!(opened(22, fed(0), &[]), [0, 5, 10, 15, 20]);
        assert_eq!(opened(302, fed(300), &[300]), [0, 300]);
        // It comes to a younger one, which lives on to tick_min.
        assert_eq!(opened(6, fed(2), &[2]), [0, 5]);
        // The epochs before it are not staged: it grows, up to tick_max, or until they are.
        let congested = |until: u64| move |now| Signs { unstaged: if now < until { 3 } else { 2 }, ..fed(0)(now) };
        assert_eq!(opened(250, congested(1_000), &[]), [0, 100, 200]);
        assert_eq!(opened(45, congested(42), &[]), [0, 42]);
        // A sink lags: the same, but that a commit wakes.
        let lagging = |until: u64| move |now| Signs { uncommitted: if now < until { 3 } else { 2 }, ..fed(0)(now) };
        assert_eq!(opened(250, lagging(1_000), &[30, 60]), [0, 100, 200]);
        assert_eq!(opened(45, lagging(42), &[42]), [0, 42]);
        // Full: at once, whatever else.
        let mut pace = Pace::new(ms(0));
        assert_eq!(pace.next(&at(0), &settings()), TICK);
        assert_eq!(pace.next(&congested(1_000)(3), &settings()), Next::Wait(HELD_BACK));
        assert_eq!(pace.next(&Signs { is_full: true, ..congested(1_000)(3) }, &settings()), TICK);
    }

    #[test]
    fn a_stop_closes_the_open_epoch_with_a_checkpoint_and_no_epoch_follows() {
        let mut pace = Pace::new(ms(0));
        assert_eq!(pace.next(&at(0), &settings()), TICK);
        let stop = Signs { is_stopping: true, checkpoints: CHECKPOINTS_OPEN_MAX, ..at(1) };
        assert_eq!(pace.next(&stop, &settings()), Next::Open { checkpoint: true, last: true });
        assert_eq!(pace.next(&Signs { is_stopping: true, ..at(2) }, &settings()), Next::End);
    }

    #[test]
    fn what_is_opened_and_not_staged_or_not_durable_is_bounded() {
        let held = |unstaged, undurable| {
            let settings = RuntimeSettings { open_epochs_max: 4, ..settings() };
            Pace::is_held_back(&Signs { unstaged, undurable, ..at(0) }, &settings)
        };
        assert!(!held(3, UNDURABLE_EPOCHS_MAX - 1));
        assert!(held(4, 0));
        assert!(held(0, UNDURABLE_EPOCHS_MAX), "a disk that does not answer holds epochs back");
    }

    #[test]
    fn a_checkpoint_each_interval_while_few_are_open() {
        let settings = RuntimeSettings { checkpoint_interval_ms: 10, ..settings() };
        let mut pace = Pace::new(ms(0));
        let mut next = |now, checkpoints| pace.next(&Signs { has_input: true, checkpoints, ..at(now) }, &settings);
        assert_eq!([next(0, 0), next(5, 0), next(10, 0), next(15, 1), next(20, 1)], [TICK, TICK, CUT, TICK, CUT]);
        // The store does not keep up.
        for now in (25..1_000).step_by(5) {
            assert_eq!(next(now, CHECKPOINTS_OPEN_MAX), TICK);
        }
        assert_eq!([next(1_000, 1), next(1_005, 2), next(1_010, 1)], [CUT, TICK, CUT]);
    }
}
