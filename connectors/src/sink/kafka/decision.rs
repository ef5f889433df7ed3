//! Decisions of the sink, apart from all I/O: what a marker found means for who may write, and what to do after an
//! unknown outcome.

use dataflow_core::planted::{Bug, is_planted};
use dataflow_core::{Epoch, Error, Marker, Result, SinkIdentity};

/// What the marker says after a commit whose outcome is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The sink holds the epochs.
    Committed,
    /// The sink holds what it held before: the whole transaction may be sent again.
    Absent,
}

/// Whether we may write, given the marker found.
///
/// # Errors
/// [`dataflow_core::Fault::Fenced`] when a newer generation or another process of our generation has written;
/// [`dataflow_core::Fault::Doubt`] when the sink holds another lineage's output.
pub(super) fn admit(
    sink: &str,
    found: Option<Marker>,
    identity: &SinkIdentity,
    start_over: bool,
) -> Result<Option<Marker>> {
    let Some(marker) = found else { return Ok(None) };
    if marker.lineage != identity.lineage {
        if start_over {
            return Ok(None);
        }
        return Err(Error::doubt(format!(
            "opening sink '{sink}': it holds output of lineage {}, and this job is lineage {}",
            marker.lineage, identity.lineage
        ))
        .hint("use the data folder that this output came from, other topics, or 'start_over = true' to continue behind it"));
    }
    if shut_out(&marker, identity) && !is_planted(Bug::FencedProducerInitialises) {
        return Err(fenced(sink, &marker, identity));
    }
    Ok(Some(marker))
}

/// Whether the marker is of a newer generation, or of ours with another nonce.
fn shut_out(marker: &Marker, identity: &SinkIdentity) -> bool {
    let (theirs, ours) = (marker.generation, identity.generation);
    theirs.number > ours.number || (theirs.number == ours.number && theirs.nonce != ours.nonce)
}

fn fenced(sink: &str, marker: &Marker, identity: &SinkIdentity) -> Error {
    Error::fenced(format!(
        "writing to sink '{sink}': generation {} has taken over from generation {}",
        marker.generation, identity.generation
    ))
    .hint("another process of this job runs; stop one of them")
}

/// What became of a commit of epochs up to `marker`, that followed `before`, given the marker found afterwards.
///
/// # Errors
/// As [`admit`]; and doubt, when the sink holds what neither was there before nor is ours.
pub(super) fn outcome(
    sink: &str,
    found: Option<Marker>,
    before: Marker,
    marker: Marker,
    identity: &SinkIdentity,
) -> Result<Outcome> {
    match admit(sink, found, identity, false)? {
        Some(found) if found == marker => Ok(Outcome::Committed),
        Some(found) if found == before => Ok(Outcome::Absent),
        _ if is_planted(Bug::FencedProducerInitialises) => Ok(Outcome::Absent),
        found => Err(Error::doubt(format!(
            "reading the marker of sink '{sink}': after a commit of epoch {} it names {}",
            marker.epoch,
            found.map_or_else(|| "nothing".to_owned(), |m| format!("epoch {} of generation {}", m.epoch, m.generation)),
        ))),
    }
}

/// That the epochs of a commit follow each other and what the sink holds.
pub(super) fn follows(held: Epoch, epochs: impl Iterator<Item = Epoch>) -> Result<Epoch> {
    let mut last = held;
    for epoch in epochs {
        if epoch <= last {
            return Err(Error::us(format!("committing epoch {epoch} to a sink that holds epoch {last}")));
        }
        last = epoch;
    }
    if last == held { Err(Error::us("committing no epoch")) } else { Ok(last) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataflow_core::{ChainHash, Fault, Generation, Lineage};

    fn identity(number: u64, nonce: u64) -> SinkIdentity {
        SinkIdentity { job: "j".into(), lineage: Lineage(7), generation: Generation { number, nonce } }
    }

    fn marker(number: u64, nonce: u64, epoch: Epoch) -> Marker {
        identity(number, nonce).marker(epoch, ChainHash([epoch as u8; 16]))
    }

    #[test]
    fn who_may_write() {
        let check = |found, start_over, expected: Result<Option<Marker>, Fault>| {
            assert_eq!(admit("s", found, &identity(5, 1), start_over).map_err(|e| e.fault), expected, "{found:?}");
        };
        check(None, false, Ok(None));
        check(Some(marker(4, 9, 3)), false, Ok(Some(marker(4, 9, 3))));
        check(Some(marker(5, 1, 3)), false, Ok(Some(marker(5, 1, 3))));
        check(Some(marker(5, 2, 3)), false, Err(Fault::Fenced));
        check(Some(marker(6, 1, 3)), false, Err(Fault::Fenced));
        let other = Marker { lineage: Lineage(8), ..marker(9, 9, 9) };
        check(Some(other), false, Err(Fault::Doubt));
        check(Some(other), true, Ok(None));
        check(Some(marker(6, 1, 3)), true, Err(Fault::Fenced));
    }

    #[test]
    fn an_unknown_outcome_is_settled_by_the_marker() {
        let (before, after) = (marker(5, 1, 3), marker(5, 1, 6));
        let check = |found, expected: Result<Outcome, Fault>| {
            assert_eq!(outcome("s", found, before, after, &identity(5, 1)).map_err(|e| e.fault), expected, "{found:?}");
        };
        check(Some(after), Ok(Outcome::Committed));
        check(Some(before), Ok(Outcome::Absent));
        check(Some(marker(6, 2, 3)), Err(Fault::Fenced));
        check(Some(marker(5, 2, 6)), Err(Fault::Fenced));
        check(Some(Marker { lineage: Lineage(8), ..after }), Err(Fault::Doubt));
        check(Some(marker(5, 1, 5)), Err(Fault::Doubt));
        check(Some(Marker { chain: ChainHash([9; 16]), ..after }), Err(Fault::Doubt));
        check(None, Err(Fault::Doubt));
    }

    #[test]
    fn epochs_rise() {
        assert_eq!(follows(3, [4, 9].into_iter()).ok(), Some(9));
        assert!(follows(3, [3].into_iter()).is_err());
        assert!(follows(3, [5, 5].into_iter()).is_err());
        assert!(follows(3, [].into_iter()).is_err());
    }
}
