//! How long to wait before something is tried again that failed and may succeed later.

use std::time::Duration;

/// After the first failure.
const MIN: Duration = Duration::from_millis(100);
/// The longest pause.
const MAX: Duration = Duration::from_secs(5);

/// Pauses that double with each failure in a row.
pub(crate) struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Backoff {
        Backoff(MIN)
    }
}

impl Backoff {
    /// It has succeeded: the next failure is a first one.
    pub(crate) fn reset(&mut self) {
        self.0 = MIN;
    }

    /// It has failed once more: the pause.
    pub(crate) fn pause(&mut self) -> Duration {
        let pause = self.0;
        self.0 = MAX.min(2 * pause);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound_and_begin_anew_after_a_success() {
        let mut backoff = Backoff::default();
        let pauses: Vec<u128> = (0..8).map(|_| backoff.pause().as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]);
        backoff.reset();
        assert_eq!(backoff.pause(), MIN);
    }
}
