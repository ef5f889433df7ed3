//! The job's clock, which each live epoch is bound with. Pure: the machine's clocks are read by the ticker.
//!
//! It is monotonic time on top of the greater of the wall clock and the last binding, so within a generation it always moves and never
//! jumps, whatever is done to the machine's wall clock. The two may so come apart: that is reported, and a start far past the last binding
//! (a wall clock set wrong, perhaps) is refused unless it is meant, because it would make everything that follows late.

use crate::settings::RuntimeSettings;
use dataflow_core::time::{HOUR, MINUTE};
use dataflow_core::{BindingState, Error, Micros, Result};
use std::time::Duration;

/// How far wall clock and job's clock may be apart unsaid, in microseconds.
const APART_MAX: i64 = MINUTE;
/// How often it is said again while it lasts.
const SAY_AGAIN: Duration = Duration::from_secs(600);

/// The clock of a generation.
pub(crate) struct JobClock {
    /// It begins at or after this.
    floor: Micros,
    /// Clock and monotonic time at which it began.
    base: Option<(Micros, Duration)>,
    /// Monotonic time when it was last said that the clocks are apart.
    said: Option<Duration>,
}

impl JobClock {
    pub(crate) fn new(floor: Micros) -> JobClock {
        JobClock { floor, base: None, said: None }
    }

    /// The clock of an epoch that is opened now and follows one with the clock `last`.
    pub(crate) fn read(&mut self, last: Micros, wall: Micros, now: Duration) -> Micros {
        let least = last.plus(1).max(self.floor);
        let (base, began) = *self.base.get_or_insert((least.max(wall), now));
        base.plus(now.saturating_sub(began).as_micros() as i64).max(least)
    }

    /// By how much the wall clock is ahead of the job's (behind it: negative), when that is to be said now.
    pub(crate) fn apart(&mut self, clock: Micros, wall: Micros, now: Duration) -> Option<i64> {
        let ahead = wall.since(clock);
        if ahead.abs() <= APART_MAX {
            self.said = None;
            return None;
        }
        if self.said.is_some_and(|said| now.saturating_sub(said) < SAY_AGAIN) {
            return None;
        }
        self.said = Some(now);
        Some(ahead)
    }
}

/// Refuses a start at the time `wall` after the epoch of `bound` when it is too far past it.
///
/// # Errors
/// When it is, and the settings do not allow it.
pub(crate) fn check_jump(bound: &BindingState, wall: Micros, settings: &RuntimeSettings) -> Result<()> {
    let ahead = wall.since(bound.clock);
    if bound.epoch == 0 || settings.allow_clock_jump || ahead <= settings.clock_jump_max_hours as i64 * HOUR {
        return Ok(());
    }
    Err(Error::user(format!(
        "starting the job: the clock is {} h past the last binding ({}), more than 'clock_jump_max_hours' allows",
        ahead / HOUR,
        bound.clock
    ))
    .hint("if the job really rested that long, start it once with '--set runtime.allow_clock_jump=true'"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataflow_core::time::{DAY, SECOND};

    const NOON: Micros = Micros(1_772_366_400_000_000);

    fn s(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn it_always_moves_and_never_jumps() {
        // Of a first start, at the wall clock's time; which is then set back, and far ahead.
        let mut clock = JobClock::new(Micros(i64::MIN));
        assert_eq!(clock.read(Micros(0), NOON, s(100)), NOON);
        assert_eq!(clock.read(NOON, NOON.plus(-HOUR), s(101)), NOON.plus(SECOND));
        assert_eq!(clock.read(NOON.plus(SECOND), NOON.plus(DAY), s(101)), NOON.plus(SECOND + 1));
        // Of a start with a wall clock behind the last binding.
        let mut clock = JobClock::new(NOON.plus(1));
        assert_eq!(clock.read(NOON, NOON.plus(-HOUR), s(5)), NOON.plus(1));
        assert_eq!(clock.read(NOON.plus(1), NOON.plus(-HOUR), s(7)), NOON.plus(1 + 2 * SECOND));
    }

    #[test]
    fn more_than_a_minute_apart_is_said_now_and_then_in_both_directions() {
        let mut clock = JobClock::new(NOON);
        let mut apart = |ahead, now| clock.apart(NOON, NOON.plus(ahead), s(now));
        assert_eq!([apart(MINUTE, 0), apart(-MINUTE, 1)], [None, None]);
        assert_eq!([apart(MINUTE + 1, 2), apart(DAY, 3), apart(DAY, 601)], [Some(MINUTE + 1), None, None]);
        assert_eq!([apart(DAY, 602), apart(DAY, 603)], [Some(DAY), None]);
        assert_eq!([apart(0, 604), apart(-MINUTE - 1, 605)], [None, Some(-MINUTE - 1)]);
    }

    #[test]
    fn a_start_long_after_the_last_binding_needs_its_flag() {
        let bound = |epoch| BindingState { epoch, clock: NOON, ..BindingState::default() };
        let settings = RuntimeSettings { clock_jump_max_hours: 48, ..RuntimeSettings::default() };
        let late = NOON.plus(2 * DAY + 1);
        assert!(check_jump(&bound(7), NOON.plus(2 * DAY), &settings).is_ok());
        assert!(check_jump(&bound(7), NOON.plus(-2 * DAY), &settings).is_ok());
        assert!(check_jump(&bound(0), late, &settings).is_ok(), "a first start follows nothing");
        let said = check_jump(&bound(7), late, &settings).unwrap_err().to_string();
        assert!(said.contains("the clock is 48 h past the last binding (2026-03-01T12:00:00"), "{said}");
        assert!(said.contains("runtime.allow_clock_jump=true"), "{said}");
        assert!(check_jump(&bound(7), late, &RuntimeSettings { allow_clock_jump: true, ..settings }).is_ok());
    }
}
