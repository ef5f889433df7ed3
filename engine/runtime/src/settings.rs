//! The runtime's settings: plain data with the defaults of DESIGN sections 3 to 5, durations in milliseconds.

use bytesize::ByteSize;
use dataflow_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// `[runtime]` of a profile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RuntimeSettings {
    /// An epoch with input stays open at least this long.
    pub tick_min_ms: u64,
    /// An epoch with input is closed at the latest after this long, even if the epochs before it are not yet staged, or wait to be committed.
    pub tick_max_ms: u64,
    /// Without input, a heartbeat epoch is opened this often.
    pub tick_idle_ms: u64,
    /// Records an epoch may hold, over all workers; then it is closed early.
    pub epoch_max_records: u64,
    /// Bytes (keys and values, as read) an epoch may hold, over all workers; then it is closed early. A single larger record is an epoch.
    pub epoch_max_bytes: u64,
    /// Epochs that may be open (ticked, not yet staged by every sink) before sources stop reading.
    pub open_epochs_max: usize,
    /// Allowed lateness: how far a watermark stays behind the newest event of its slowest partition.
    pub lateness_ms: u64,
    /// A record further ahead of its epoch's clock than this goes to the dead letters.
    pub future_max_ms: u64,
    /// A partition read to its end that brought nothing for this long is declared idle.
    pub idle_timeout_ms: u64,
    /// A partition whose newest event is further ahead of the watermark than this waits for the others. At least `lateness_ms` counts: the
    /// watermark is that far behind the newest event of the slowest partition itself.
    pub max_drift_ms: u64,
    /// How often operator state is checkpointed.
    pub checkpoint_interval_ms: u64,
    /// Checkpoints that are kept.
    pub checkpoints_kept: usize,
    /// Bytes staged for one sink and not committed; beyond it epochs stay open, which is backpressure.
    pub staged_bytes_max: usize,
    /// Changes of tables that a writer looks up in its index in one step, or rows that it places there or that a rewrite has moved; other operators have
    /// their turn after each.
    pub table_step_rows: usize,
    /// Binding log: bytes of a segment.
    pub bindings_segment_bytes: u64,
    /// Binding log: bytes kept.
    pub bindings_retain_bytes: u64,
    /// Binding log: age kept, in hours of the epoch clock.
    pub bindings_retain_hours: u64,
    /// A start further than this past the last binding needs `allow_clock_jump`.
    pub clock_jump_max_hours: u64,
    /// Allows such a start.
    pub allow_clock_jump: bool,
    /// Starts although another program than this one bound the epochs that are to be replayed.
    pub replay_with_new_code: bool,
    /// Starts a changed program although tables hold what the old one computed: it computes the same rows of what both have read.
    pub views_unchanged: bool,
    /// With more in memory than this, as bytes or a text such as "4GiB", the job stops; without, four fifths of what the machine or the control
    /// group has.
    pub memory_limit: Option<ByteSize>,
    /// Starts although the checkpoint holds state of operators that the job has no more (dropped, or renamed): that state is dropped.
    pub drop_unknown_state: bool,
}

impl Default for RuntimeSettings {
    fn default() -> Self {
        RuntimeSettings {
            tick_min_ms: 5,
            tick_max_ms: 100,
            tick_idle_ms: 1_000,
            // With the two below and `staged_bytes_max`: what is under way in a backlog of small records stays below some 50 MB.
            epoch_max_records: 8_192,
            epoch_max_bytes: 32 << 20,
            open_epochs_max: 8,
            lateness_ms: 5_000,
            future_max_ms: 60_000,
            idle_timeout_ms: 30_000,
            max_drift_ms: 60_000,
            checkpoint_interval_ms: 10_000,
            checkpoints_kept: 3,
            staged_bytes_max: 8 << 20,
            // A key that is on disk takes 25 to 50 µs.
            table_step_rows: 128,
            bindings_segment_bytes: 64 << 20,
            bindings_retain_bytes: 10 << 30,
            bindings_retain_hours: 30 * 24,
            clock_jump_max_hours: 7 * 24,
            allow_clock_jump: false,
            replay_with_new_code: false,
            views_unchanged: false,
            memory_limit: None,
            drop_unknown_state: false,
        }
    }
}

impl RuntimeSettings {
    /// Refuses what can not work.
    ///
    /// # Errors
    /// Names the setting, its value, and what would do.
    pub fn check(&self) -> Result<()> {
        // An epoch is closed by opening the next, so one alone would never be staged.
        let least = [
            ("open_epochs_max", self.open_epochs_max as u64, 2),
            ("epoch_max_records", self.epoch_max_records, 1),
            ("epoch_max_bytes", self.epoch_max_bytes, 1),
            ("checkpoints_kept", self.checkpoints_kept as u64, 1),
            ("tick_idle_ms", self.tick_idle_ms, 1),
            ("staged_bytes_max", self.staged_bytes_max as u64, 1),
            ("table_step_rows", self.table_step_rows as u64, 1),
            ("memory_limit", self.memory_limit.map_or(1, |limit| limit.as_u64()), 1),
        ];
        if let Some((name, value, least)) = least.into_iter().find(|(_, value, least)| value < least) {
            return Err(
                Error::user(format!("reading 'runtime.{name}' = {value}")).hint(format!("it must be at least {least}"))
            );
        }
        if self.tick_min_ms > self.tick_max_ms {
            let (min, max) = (self.tick_min_ms, self.tick_max_ms);
            return Err(Error::user(format!("reading 'runtime.tick_min_ms' = {min}: it is above tick_max_ms = {max}"))
                .hint("an epoch with input is closed between the two"));
        }
        Ok(())
    }

    /// How far ahead of the watermark, in microseconds, a partition is still read.
    pub(crate) fn drift_us(&self) -> i64 {
        i64::try_from(self.max_drift_ms.max(self.lateness_ms)).unwrap_or(i64::MAX).saturating_mul(1_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_not_work_is_refused_by_name() {
        assert!(RuntimeSettings::default().check().is_ok());
        let said = RuntimeSettings { open_epochs_max: 1, ..Default::default() }.check().unwrap_err().to_string();
        assert!(said.contains("'runtime.open_epochs_max' = 1") && said.contains("at least 2"), "{said}");
        let said = RuntimeSettings { tick_min_ms: 200, ..Default::default() }.check().unwrap_err().to_string();
        assert!(said.contains("tick_max_ms = 100"), "{said}");
    }

    #[test]
    fn the_slowest_partition_is_never_ahead() {
        let drift =
            |max_drift_ms| RuntimeSettings { max_drift_ms, lateness_ms: 5_000, ..Default::default() }.drift_us();
        assert_eq!([drift(60_000), drift(5_000), drift(1_000)], [60_000_000, 5_000_000, 5_000_000]);
    }
}
