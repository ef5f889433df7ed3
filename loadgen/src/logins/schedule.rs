//! When the records of a partition are due: even, or in rushes of three seconds a minute.
//!
//! Time is counted in cycles of a whole number of records, about a minute each, so that it is exact at any offset.

/// The length of a cycle in seconds, as near as a whole number of records allows.
const CYCLE_S: f64 = 60.0;
/// The part of a cycle that is a rush.
const RUSH: f64 = 3.0 / CYCLE_S;

/// The schedule of a partition.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    cycle_records: u64,
    cycle_us: u64,
    rush_records: u64,
    rush_us: u64,
}

impl Schedule {
    /// `rate` records a second on average, `burst` times the usual rate during a rush.
    pub(super) fn new(rate: f64, burst: f64) -> Schedule {
        let cycle_records = ((rate * CYCLE_S) as u64).max(1);
        let cycle_us = (cycle_records as f64 / rate * 1e6) as u64;
        let share = burst * RUSH / (burst * RUSH + (1.0 - RUSH));
        let rush_records = if burst > 1.0 { (cycle_records as f64 * share) as u64 } else { 0 };
        let rush_us = if rush_records > 0 { (cycle_us as f64 * RUSH) as u64 } else { 0 };
        Schedule { cycle_records, cycle_us, rush_records, rush_us }
    }

    /// When the record at offset `first + part / parts * whole` is due, in microseconds since the beginning.
    pub(super) fn due_us(&self, first: u64, whole: u64, part: u64, parts: u64) -> u64 {
        // Offsets as fractions of `parts`.
        let parts = u128::from(parts);
        let at = u128::from(first) * parts + u128::from(part) * u128::from(whole);
        let cycle = at / (u128::from(self.cycle_records) * parts);
        let rest = at % (u128::from(self.cycle_records) * parts);
        let rush = u128::from(self.rush_records) * parts;
        let within = if rest < rush {
            rest * u128::from(self.rush_us) / rush
        } else {
            let calm_us = u128::from(self.cycle_us - self.rush_us);
            u128::from(self.rush_us) + (rest - rush) * calm_us / (u128::from(self.cycle_records) * parts - rush)
        };
        u64::try_from(cycle * u128::from(self.cycle_us) + within).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn average_and_rush() {
        let even = Schedule::new(100.0, 1.0);
        assert_eq!(even.due_us(0, 1, 0, 1), 0);
        assert_eq!(even.due_us(12_345, 1, 0, 1), 123_450_000);
        assert_eq!(even.due_us(0, 10, 1, 4), 25_000);
        let rush = Schedule::new(100.0, 5.0);
        assert_eq!(rush.due_us(6000, 1, 0, 1), 60_000_000, "the average stays");
        let in_rush = (0..6000).filter(|o| rush.due_us(*o, 1, 0, 1) < 3_000_000).count();
        assert!((1200..1300).contains(&in_rush), "{in_rush}");
        for schedule in [even, rush, Schedule::new(0.001, 1.0), Schedule::new(0.7, 20.0), Schedule::new(1e6, 3.0)] {
            let times: Vec<_> = (0..20_000).map(|o| schedule.due_us(o, 1, 0, 1)).collect();
            assert!(times.is_sorted());
        }
        assert_eq!(Schedule::new(0.001, 1.0).due_us(3, 1, 0, 1), 3_000_000_000);
    }
}
