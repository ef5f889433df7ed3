//! Event-time progress: the watermark and idleness rules, as pure functions of what was bound (SEMANTICS "Login records").
//!
//! W(e) = max(W(e-1), C). C = min newest(p) - lateness over the partitions not idle, none if one of them has no newest;
//! all idle: max newest(p) + 1 us; an ended input: the end of time.

use crate::binding::PartitionState;
use crate::{Micros, Partition};
use std::collections::{BTreeMap, BTreeSet};

/// W(e) from W(e-1) and the state of the partitions at the end of e.
///
/// ```
/// use dataflow_core::{binding::PartitionState, watermark, Micros, Partition, SourceId};
/// let p = |index| Partition { source: SourceId(0), index };
/// let state = |newest| PartitionState { end: 1, newest: Some(Micros(newest)) };
/// let partitions = [(p(0), state(9_000_000)), (p(1), state(7_000_000))].into();
/// let w = watermark::advance(None, &partitions, &Default::default(), false, 5_000_000);
/// assert_eq!(w, Some(Micros(2_000_000)));
/// ```
pub fn advance(
    before: Option<Micros>,
    partitions: &BTreeMap<Partition, PartitionState>,
    idle: &BTreeSet<Partition>,
    is_final: bool,
    lateness_us: i64,
) -> Option<Micros> {
    let candidate = if is_final {
        Some(Micros::END_OF_TIME)
    } else if partitions.keys().all(|p| idle.contains(p)) {
        partitions.values().filter_map(|p| p.newest).max().map(|t| t.plus(1))
    } else {
        let mut active = partitions.iter().filter(|(p, _)| !idle.contains(p)).map(|(_, state)| state.newest);
        active
            .try_fold(Micros(i64::MAX), |least, newest| newest.map(|t| least.min(t)))
            .map(|least| least.plus(-lateness_us))
    };
    before.max(candidate)
}

/// Whether a partition may be declared idle in an epoch with this clock: read to its end, and nothing but dead letters
/// for `timeout_us` since `active`, the clock of the newest epoch that brought it a record, listed it, or began this generation.
pub fn may_be_idle(at_end: bool, clock: Micros, active: Micros, timeout_us: i64) -> bool {
    at_end && clock.since(active) >= timeout_us
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SourceId;

    fn partitions(newest: &[Option<i64>]) -> BTreeMap<Partition, PartitionState> {
        let of = |(index, newest): (usize, &Option<i64>)| {
            let partition = Partition { source: SourceId(0), index: index as u32 };
            (partition, PartitionState { end: 0, newest: newest.map(Micros) })
        };
        newest.iter().enumerate().map(of).collect()
    }

    fn check(before: Option<i64>, newest: &[Option<i64>], idle: &[u32], is_final: bool, expected: Option<i64>) {
        let idle = idle.iter().map(|index| Partition { source: SourceId(0), index: *index }).collect();
        let got = advance(before.map(Micros), &partitions(newest), &idle, is_final, 5);
        assert_eq!(got, expected.map(Micros), "{before:?} {newest:?} {idle:?} {is_final}");
    }

    #[test]
    fn each_rule() {
        check(None, &[Some(10), Some(8)], &[], false, Some(3));
        check(None, &[Some(10), None], &[], false, None);
        check(None, &[Some(10), None], &[1], false, Some(5));
        check(Some(7), &[Some(10), None], &[], false, Some(7));
        check(Some(4), &[Some(10), Some(8)], &[0, 1], false, Some(11));
        check(None, &[None, None], &[0, 1], false, None);
        check(Some(4), &[Some(10)], &[], true, Some(Micros::END_OF_TIME.0));
        check(Some(9), &[Some(10)], &[], false, Some(9));
        check(None, &[], &[], false, None);
    }
}
