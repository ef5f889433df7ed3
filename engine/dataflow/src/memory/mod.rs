//! The memory budget: measured each second, shown, and kept. Arrangements of views live in memory and nothing takes them out of it; so a job
//! that has more than its limit is stopped, with what it knows of where the memory went, before the kernel kills it without a word. A worker
//! sees that between two steps, and a step that builds a large arrangement may take long and much: then the process is ended as it stands.
//!
//! Nothing is lost by it: what was committed stays, and a start with more memory goes on from the last checkpoint.

mod machine;

use bytesize::ByteSize;
use dataflow_core::Error;
use dataflow_runtime::Plan;
use dataflow_state::backend::BackendKind;
use indicatif::HumanCount;
use std::collections::BTreeMap;
use std::time::Duration;

/// How often memory is measured.
const EVERY: Duration = Duration::from_secs(1);
/// Of the memory that there is, unless the settings say how much: the rest is for the kernel's caches, which RocksDB reads through, and for
/// what a worker takes in the step in which the limit is passed.
const DEFAULT_PERCENT: u64 = 80;
/// Of the limit: from here on the job warns.
const WARN_PERCENT: u64 = 90;
/// Of the limit: below it the job will warn again.
const CALM_PERCENT: u64 = 80;
/// How long the workers have to see that the job has failed.
const GRACE: Duration = Duration::from_secs(10);
/// Collections that are named in the message.
const LARGEST_MAX: usize = 4;

/// Keeps the process within its memory.
pub(crate) struct Budget {
    /// Bytes; `None` when the machine does not say what it has.
    limit: Option<u64>,
    /// Bytes that there are.
    available: u64,
    backend: BackendKind,
    measured: Option<Duration>,
    has_warned: bool,
    /// When it was found that there are more than the limit.
    exceeded: Option<Duration>,
}

/// What is to be done about so many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Fine,
    Warn,
    Stop,
    End,
}

impl Budget {
    /// That of the settings, or a share of what there is. `backend` is the one whose stores the job has.
    pub(crate) fn new(set: Option<ByteSize>, backend: BackendKind) -> Budget {
        let available = machine::available();
        let limit = set.map(|size| size.as_u64()).or_else(|| Some(available? / 100 * DEFAULT_PERCENT));
        if limit.is_none() {
            tracing::warn!(
                "how much memory there is can not be found out: no limit is kept; set 'runtime.memory_limit'"
            );
        }
        let available = available.unwrap_or(u64::MAX);
        Budget { limit, available, backend, measured: None, has_warned: false, exceeded: None }
    }

    /// Measures, when it is time to, and ends the generation of `plan` when it has more than it may. Whether the process is to be ended as it
    /// stands, because its workers do not end.
    pub(crate) fn keep(&mut self, plan: &Plan, now: Duration) -> bool {
        if self.measured.is_some_and(|at| now < at + EVERY) {
            return false;
        }
        self.measured = Some(now);
        let Some(used) = machine::resident() else { return false };
        let memory = &plan.control.measures.memory;
        memory.used.set(used);
        let Some(limit) = self.limit else { return false };
        memory.limit.set(limit);
        match self.judge(used, limit, now) {
            Verdict::Fine => {}
            Verdict::Warn => {
                let (used, limit) = (size(used), size(limit));
                tracing::warn!(used, limit, "the job is near its memory limit, at which it will stop");
            }
            Verdict::Stop if plan.control.has_failed() => {}
            Verdict::Stop => plan.control.fail(self.error(plan, used, limit)),
            Verdict::End => return true,
        }
        false
    }

    fn judge(&mut self, used: u64, limit: u64, now: Duration) -> Verdict {
        let percent = |percent: u64| limit / 100 * percent;
        if used > limit {
            let since = *self.exceeded.get_or_insert(now);
            // Half of what is left beside the limit is the workers', the other half the kernel's.
            let is_urgent = used > limit + self.available.saturating_sub(limit) / 2 || now >= since + GRACE;
            return if is_urgent && now > since { Verdict::End } else { Verdict::Stop };
        }
        let warns = used > percent(WARN_PERCENT) && !self.has_warned;
        self.has_warned = warns || (self.has_warned && used > percent(CALM_PERCENT));
        if warns { Verdict::Warn } else { Verdict::Fine }
    }

    fn error(&self, plan: &Plan, used: u64, limit: u64) -> Error {
        let shared = self.backend.shared_bytes();
        let cached: u64 = plan.control.measures.state.snapshot().iter().map(|state| state.cached_bytes).sum();
        let rest = used.saturating_sub(shared).saturating_sub(cached);
        Error::outside(format!(
            "keeping job '{}' within its memory: it has {}, the limit is {}; {} are RocksDB's block cache and write buffers, {} values that \
             operators cache, and {} the rest: arrangements of views over {}, and what is under way",
            plan.name,
            size(used),
            size(limit),
            size(shared),
            size(cached),
            size(rest),
            largest(plan.control.status.snapshot().rows),
        ))
        .hint(
            "nothing is lost, a start goes on from the last checkpoint: raise 'runtime.memory_limit', give the machine more memory, or lower \
             'state.rocksdb_mb' and 'state.cache_mb'",
        )
    }
}

/// The collections with the most rows, largest first.
fn largest(rows: BTreeMap<String, i64>) -> String {
    let mut rows: Vec<(String, i64)> = rows.into_iter().filter(|(_, rows)| *rows > 0).collect();
    rows.sort_by_key(|(_, rows)| std::cmp::Reverse(*rows));
    let told =
        rows.iter().take(LARGEST_MAX).map(|(name, rows)| format!("{} rows of '{name}'", HumanCount(*rows as u64)));
    let told = told.collect::<Vec<_>>().join(", ");
    if told.is_empty() { "no rows of durable collections yet".to_owned() } else { told }
}

/// As people read it.
fn size(bytes: u64) -> String {
    ByteSize(bytes).display().iec().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_warns_once_and_stops() {
        let mut budget = Budget::new(Some(ByteSize(1_000)), BackendKind::Heap);
        let mut check =
            |used, expected| assert_eq!(budget.judge(used, 1_000, Duration::ZERO), expected, "{used} bytes");
        check(900, Verdict::Fine);
        check(901, Verdict::Warn);
        check(1_000, Verdict::Fine);
        check(850, Verdict::Fine);
        check(950, Verdict::Fine);
        check(800, Verdict::Fine);
        check(950, Verdict::Warn);
        check(1_001, Verdict::Stop);
    }

    #[test]
    fn workers_that_do_not_end_are_ended() {
        let check = |looks: &[(u64, u64)], expected: &[Verdict]| {
            let mut budget = Budget { available: 2_000, ..Budget::new(Some(ByteSize(1_000)), BackendKind::Heap) };
            let found = looks.iter().map(|(used, seconds)| budget.judge(*used, 1_000, Duration::from_secs(*seconds)));
            assert_eq!(found.collect::<Vec<_>>(), expected, "{looks:?}");
        };
        check(
            &[(1_001, 3), (1_400, 4), (1_400, 12), (1_400, 13)],
            &[Verdict::Stop, Verdict::Stop, Verdict::Stop, Verdict::End],
        );
        check(&[(1_001, 3), (1_501, 4)], &[Verdict::Stop, Verdict::End]);
        // The message comes first, however much it is.
        check(&[(5_000, 3), (5_000, 4)], &[Verdict::Stop, Verdict::End]);
        check(&[(1_001, 3), (600, 30)], &[Verdict::Stop, Verdict::Fine]);
    }

    #[test]
    fn the_largest_collections_are_named() {
        let check = |rows: &[(&str, i64)], expected| {
            let rows = rows.iter().map(|(name, rows)| ((*name).to_owned(), *rows)).collect();
            assert_eq!(largest(rows), expected);
        };
        check(&[("none", 0)], "no rows of durable collections yet");
        let many = [("a", 1), ("items", 200), ("b", 2), ("users", 1_234_567), ("purchases", 30_000)];
        check(&many, "1,234,567 rows of 'users', 30,000 rows of 'purchases', 200 rows of 'items', 2 rows of 'b'");
    }

    #[test]
    fn without_a_setting_it_is_most_of_what_there_is() {
        let limit = Budget::new(None, BackendKind::Heap).limit.unwrap();
        assert!(limit < machine::available().unwrap() && limit > machine::available().unwrap() / 2, "{limit}");
    }
}
