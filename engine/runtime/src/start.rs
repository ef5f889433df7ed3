//! The start check: log, checkpoint and sinks belong together, and the start proves it before anything is written (invariant 8).
//!
//! Pure: it takes what was read and says what is wrong, one variant for each way it can be. With c the restored epoch, b the
//! last durable binding and out(s, c) the last epoch <= c in which sink s had output: for every sink
//! out(s, c) <= marker(s) <= b, the marker's hash equals the log's at that epoch, and the log reaches from c to b without a gap.

use dataflow_core::{ChainHash, Epoch, Error, Lineage, Marker};
use dataflow_state::checkpoint::SinkPosition;
use dataflow_state::folder::programs::Program;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::RangeInclusive;

/// What the log holds.
#[derive(Clone, Debug, Default)]
pub struct LogFacts {
    /// The first epoch it still holds; 0 when it is empty.
    pub first: Epoch,
    /// The last durable one; 0 when it is empty.
    pub last: Epoch,
    /// Whether it begins with the job's first epoch.
    pub is_whole: bool,
    /// The segment and byte offset of a torn tail.
    pub torn: Option<(String, u64)>,
}

/// What the newest intact manifest says.
#[derive(Clone, Debug)]
pub struct CheckpointFacts {
    /// c.
    pub epoch: Epoch,
    /// The hash of c's binding, in the manifest.
    pub chain: ChainHash,
    /// The hash of c's row in the log, if it is there.
    pub chain_in_log: Option<ChainHash>,
    /// Whose history it is.
    pub lineage: Lineage,
    /// out(s, c) by sink.
    pub last_outputs: BTreeMap<String, SinkPosition>,
}

/// What a sink says of itself.
#[derive(Clone, Debug)]
pub struct SinkFacts {
    /// The sink.
    pub name: String,
    /// The marker in it.
    pub marker: Option<Marker>,
    /// The hash of the marker's epoch in the log, if it is there.
    pub chain_in_log: Option<ChainHash>,
}

/// Everything the check looks at.
#[derive(Clone, Debug)]
pub struct StartFacts {
    /// The data folder's lineage.
    pub lineage: Lineage,
    /// The job's fingerprint now.
    pub fingerprint: String,
    /// Whether another fingerprint may replay bound epochs.
    pub replay_with_new_code: bool,
    /// Which programs bound the log's epochs, ascending.
    pub bound_by: Vec<Program>,
    /// The log.
    pub log: LogFacts,
    /// The checkpoint, if there is one.
    pub checkpoint: Option<CheckpointFacts>,
    /// The sinks.
    pub sinks: Vec<SinkFacts>,
}

#[expect(missing_docs, reason = "the variant says what its fields are; `Display` says it in words")]
/// A way in which log, checkpoint and sinks do not belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// The checkpoint is of another history.
    ForeignCheckpoint { checkpoint: Lineage, folder: Lineage },
    /// The log ends before the checkpoint: it was lost, rolled back, or its end is rotten.
    LogBehindCheckpoint { last: Epoch, checkpoint: Epoch, torn: Option<(String, u64)> },
    /// The log has the checkpoint's epoch with another hash, or lacks it.
    LogDiffersFromCheckpoint { epoch: Epoch, log: Option<ChainHash>, checkpoint: ChainHash },
    /// The log's older part was removed and no checkpoint is left that it could be replayed from.
    NoCheckpointForLog { first: Epoch },
    /// The sink is of another history.
    ForeignSink { sink: String, marker: Lineage, folder: Lineage },
    /// The sink has output of an epoch that the log does not have.
    SinkAheadOfLog { sink: String, marker: Epoch, last: Epoch, torn: Option<(String, u64)> },
    /// The sink's epoch has another hash in the log.
    SinkDiffersFromLog { sink: String, epoch: Epoch, log: Option<ChainHash>, marker: ChainHash },
    /// The sink's epoch has another hash in the checkpoint, and is too old for the log.
    SinkDiffersFromCheckpoint { sink: String, epoch: Epoch, checkpoint: ChainHash, marker: ChainHash },
    /// The sink lacks output that the checkpoint relies on.
    SinkBehindCheckpoint { sink: String, marker: Option<Epoch>, expected: Epoch, checkpoint: Epoch },
    /// Another program, with epochs bound that the old one computed.
    OtherFingerprint { restored: Epoch, last: Epoch },
    /// Epochs are bound, and nothing says which program computed them.
    UnknownFingerprint { restored: Epoch, last: Epoch },
    /// The state of an operator has a version that the job can not read.
    OtherStateVersion { operator: String, checkpoint: Epoch, stored: u16, reads: RangeInclusive<u16> },
    /// The checkpoint holds state of operators that the job does not have.
    DroppedState { operators: Vec<String>, checkpoint: Epoch },
}

/// Checks; on success nothing contradicts a start. A torn tail may then be cut: nothing is past it.
///
/// # Errors
/// The first contradiction found.
pub fn check(facts: &StartFacts) -> Result<(), Doubt> {
    let log = &facts.log;
    if let Some(c) = &facts.checkpoint {
        if c.lineage != facts.lineage {
            return Err(Doubt::ForeignCheckpoint { checkpoint: c.lineage, folder: facts.lineage });
        }
        if log.last < c.epoch {
            return Err(Doubt::LogBehindCheckpoint { last: log.last, checkpoint: c.epoch, torn: log.torn.clone() });
        }
        if c.chain_in_log != Some(c.chain) {
            let (epoch, log, checkpoint) = (c.epoch, c.chain_in_log, c.chain);
            return Err(Doubt::LogDiffersFromCheckpoint { epoch, log, checkpoint });
        }
    } else if log.last > 0 && !log.is_whole {
        return Err(Doubt::NoCheckpointForLog { first: log.first });
    }
    for sink in &facts.sinks {
        check_sink(facts, sink)?;
    }
    if !facts.replay_with_new_code {
        let restored = facts.checkpoint.as_ref().map_or(0, |c| c.epoch);
        check_program(&facts.fingerprint, &facts.bound_by, restored, log.last)?;
    }
    Ok(())
}

/// Whether the program `fingerprint` is the one that computed all the epochs it would replay, those after `restored` up to `last`. What
/// program made the restored state does not matter here: a changed one may go on from there.
///
/// # Errors
/// When it is another one, or that is not known.
pub fn check_program(fingerprint: &str, bound_by: &[Program], restored: Epoch, last: Epoch) -> Result<(), Doubt> {
    if restored >= last {
        return Ok(());
    }
    if bound_by.first().is_none_or(|first| first.after > restored) {
        return Err(Doubt::UnknownFingerprint { restored, last });
    }
    // The last one that began at or before the restored epoch, and those that began before the last bound one.
    let from = bound_by.partition_point(|p| p.after <= restored) - 1;
    if bound_by[from..].iter().take_while(|p| p.after < last).any(|p| p.fingerprint != fingerprint) {
        return Err(Doubt::OtherFingerprint { restored, last });
    }
    Ok(())
}

/// Whether the values that the checkpoint holds of an operator (none, if it does not know it) are of a version that the job reads. Which
/// operators a job has is known when its graph is built: after [`check`], and before an epoch is opened.
///
/// # Errors
/// When they are not.
pub fn check_state(
    operator: &str,
    checkpoint: Epoch,
    stored: Option<u16>,
    reads: RangeInclusive<u16>,
) -> Result<(), Doubt> {
    match stored.filter(|version| !reads.contains(version)) {
        Some(stored) => Err(Doubt::OtherStateVersion { operator: operator.to_owned(), checkpoint, stored, reads }),
        None => Ok(()),
    }
}

/// Whether the job has all operators whose state the checkpoint holds.
///
/// # Errors
/// When it does not.
pub fn check_operators(stored: &BTreeSet<&str>, job: &BTreeSet<String>, checkpoint: Epoch) -> Result<(), Doubt> {
    let operators: Vec<String> = stored.iter().filter(|name| !job.contains(**name)).map(|s| (*s).to_owned()).collect();
    if operators.is_empty() { Ok(()) } else { Err(Doubt::DroppedState { operators, checkpoint }) }
}

fn check_sink(facts: &StartFacts, sink: &SinkFacts) -> Result<(), Doubt> {
    let name = || sink.name.clone();
    let last = facts.log.last;
    let checkpoint = facts.checkpoint.as_ref();
    // Absent from the manifest: a sink added since; it begins with what comes after c.
    let SinkPosition { last_output: expected, chain: in_checkpoint, .. } =
        checkpoint.and_then(|c| c.last_outputs.get(&sink.name)).copied().unwrap_or_default();
    if let Some(marker) = &sink.marker {
        if marker.lineage != facts.lineage {
            return Err(Doubt::ForeignSink { sink: name(), marker: marker.lineage, folder: facts.lineage });
        }
        if marker.epoch > last {
            return Err(Doubt::SinkAheadOfLog {
                sink: name(),
                marker: marker.epoch,
                last,
                torn: facts.log.torn.clone(),
            });
        }
        // A marker as old as the manifest says may lie in a part of the log that was removed for its age; the manifest has its hash.
        let was_removed = marker.epoch == expected && marker.epoch < facts.log.first;
        if marker.epoch > 0 && sink.chain_in_log != Some(marker.chain) && !was_removed {
            let (epoch, log, marker) = (marker.epoch, sink.chain_in_log, marker.chain);
            return Err(Doubt::SinkDiffersFromLog { sink: name(), epoch, log, marker });
        }
        if let Some(checkpoint) = in_checkpoint.filter(|chain| marker.epoch == expected && *chain != marker.chain) {
            let (epoch, marker) = (marker.epoch, marker.chain);
            return Err(Doubt::SinkDiffersFromCheckpoint { sink: name(), epoch, checkpoint, marker });
        }
    }
    let has = sink.marker.map_or(0, |m| m.epoch);
    if has < expected {
        let (marker, checkpoint) = (sink.marker.map(|m| m.epoch), checkpoint.map_or(0, |c| c.epoch));
        return Err(Doubt::SinkBehindCheckpoint { sink: name(), marker, expected, checkpoint });
    }
    Ok(())
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hash = |h: &Option<ChainHash>| h.map_or("nothing".to_owned(), |h| h.to_string());
        let rotten = |torn: &Option<(String, u64)>| match torn {
            Some((segment, offset)) => format!(" (segment '{segment}' is broken from byte {offset} on)"),
            None => String::new(),
        };
        write!(f, "starting the job: ")?;
        match self {
            Doubt::ForeignCheckpoint { checkpoint, folder } => {
                write!(f, "the checkpoint is of lineage {checkpoint}, the data folder of {folder}")
            }
            Doubt::LogBehindCheckpoint { last, checkpoint, torn } => {
                write!(
                    f,
                    "the binding log ends at epoch {last}{}, the checkpoint is of epoch {checkpoint}",
                    rotten(torn)
                )
            }
            Doubt::LogDiffersFromCheckpoint { epoch, log, checkpoint } => {
                write!(f, "for epoch {epoch} the binding log has hash {}, the checkpoint {checkpoint}", hash(log))
            }
            Doubt::NoCheckpointForLog { first } => {
                write!(f, "the binding log begins at epoch {first} and there is no intact checkpoint to begin from")
            }
            Doubt::ForeignSink { sink, marker, folder } => {
                write!(f, "sink '{sink}' holds output of lineage {marker}, the data folder is of {folder}")
            }
            Doubt::SinkAheadOfLog { sink, marker, last, torn } => {
                write!(
                    f,
                    "sink '{sink}' has output up to epoch {marker}, the binding log ends at epoch {last}{}",
                    rotten(torn)
                )
            }
            Doubt::SinkDiffersFromLog { sink, epoch, log, marker } => {
                write!(f, "for epoch {epoch} sink '{sink}' has hash {marker}, the binding log {}", hash(log))
            }
            Doubt::SinkDiffersFromCheckpoint { sink, epoch, checkpoint, marker } => {
                write!(f, "for epoch {epoch} sink '{sink}' has hash {marker}, the checkpoint {checkpoint}")
            }
            Doubt::SinkBehindCheckpoint { sink, marker, expected, checkpoint } => {
                let has = marker.map_or("no output of this job".to_owned(), |m| format!("output up to epoch {m}"));
                write!(
                    f,
                    "sink '{sink}' has {has}, the checkpoint of epoch {checkpoint} relies on its output of epoch {expected}"
                )
            }
            Doubt::OtherFingerprint { restored, last } => {
                write!(
                    f,
                    "the job's code or parameters changed while epochs up to {last} are bound after epoch {restored}"
                )
            }
            Doubt::UnknownFingerprint { restored, last } => {
                write!(f, "epochs up to {last} are bound after epoch {restored}, and nothing says by which program")
            }
            Doubt::OtherStateVersion { operator, checkpoint, stored, reads } => {
                let (oldest, newest) = (reads.start(), reads.end());
                write!(
                    f,
                    "the state of operator '{operator}' in the checkpoint of epoch {checkpoint} has version {stored}, the job reads "
                )?;
                if oldest == newest {
                    write!(f, "version {newest}")
                } else {
                    write!(f, "versions {oldest} to {newest}")
                }
            }
            Doubt::DroppedState { operators, checkpoint } => {
                write!(
                    f,
                    "the checkpoint of epoch {checkpoint} holds state of '{}', which the job does not have",
                    operators.join("', '")
                )
            }
        }
    }
}

impl From<Doubt> for Error {
    fn from(doubt: Doubt) -> Error {
        let hint = match &doubt {
            Doubt::OtherFingerprint { .. } | Doubt::UnknownFingerprint { .. } => {
                "stop the old program cleanly first (Ctrl-C), or, if it can not run any more, start with '--set runtime.replay_with_new_code=true': epochs that are already committed may then differ"
            }
            Doubt::OtherStateVersion { .. } => {
                "run the program that wrote it, give the state a migration from that version, or start over with a new data folder and new outputs"
            }
            Doubt::DroppedState { .. } => {
                "give renamed operators their names back, or, if their state may go, start once with '--set runtime.drop_unknown_state=true'"
            }
            Doubt::ForeignSink { .. } | Doubt::ForeignCheckpoint { .. } => {
                "point the job at its own data folder and outputs, or start over with a new folder and new outputs"
            }
            _ => {
                "nothing was written; bring back the newest copy of the part that is behind, or start over with a new data folder and new outputs"
            }
        };
        let text = doubt.to_string();
        match doubt {
            Doubt::OtherFingerprint { .. }
            | Doubt::UnknownFingerprint { .. }
            | Doubt::OtherStateVersion { .. }
            | Doubt::DroppedState { .. } => Error::user(text).hint(hint),
            _ => Error::doubt(text).hint(hint),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataflow_core::Generation;

    const LINEAGE: Lineage = Lineage(7);

    fn chain(epoch: Epoch) -> ChainHash {
        ChainHash([epoch as u8; 16])
    }

    fn program(after: Epoch, fingerprint: &str) -> Program {
        Program { after, fingerprint: fingerprint.to_owned() }
    }

    fn marker(epoch: Epoch) -> Marker {
        Marker { lineage: LINEAGE, generation: Generation { number: 1, nonce: 1 }, epoch, chain: chain(epoch) }
    }

    /// c = 10 with out(s, c) = 8, b = 20, the marker at 15.
    fn sound() -> StartFacts {
        StartFacts {
            lineage: LINEAGE,
            fingerprint: "f".into(),
            replay_with_new_code: false,
            bound_by: vec![program(0, "f")],
            log: LogFacts { first: 1, last: 20, is_whole: true, torn: None },
            checkpoint: Some(CheckpointFacts {
                epoch: 10,
                chain: chain(10),
                chain_in_log: Some(chain(10)),
                lineage: LINEAGE,
                last_outputs: [("s".to_owned(), SinkPosition { last_output: 8, committed: 8, chain: Some(chain(8)) })]
                    .into(),
            }),
            sinks: vec![SinkFacts { name: "s".into(), marker: Some(marker(15)), chain_in_log: Some(chain(15)) }],
        }
    }

    /// A log that begins at 9, and a sink that holds `marker`.
    fn idle(marker: Marker) -> StartFacts {
        let mut facts = sound();
        (facts.log.first, facts.log.is_whole) = (9, false);
        facts.sinks[0] = SinkFacts { name: "s".into(), marker: Some(marker), chain_in_log: None };
        facts
    }

    fn checkpoint(facts: &mut StartFacts) -> &mut CheckpointFacts {
        facts.checkpoint.as_mut().expect("sound has one")
    }

    #[test]
    fn a_sound_start_passes() {
        assert_eq!(check(&sound()), Ok(()));
        let mut fresh = sound();
        fresh.checkpoint = None;
        (fresh.log, fresh.sinks[0].marker) = (LogFacts::default(), None);
        assert_eq!(check(&fresh), Ok(()));
        let mut added = sound();
        added.sinks.push(SinkFacts { name: "new".into(), marker: None, chain_in_log: None });
        assert_eq!(check(&added), Ok(()));
        // Without output for so long that the log has lost the marker's row.
        assert_eq!(check(&idle(marker(8))), Ok(()));
        let mut before_hashes = idle(marker(8));
        checkpoint(&mut before_hashes).last_outputs.get_mut("s").expect("sound has it").chain = None;
        assert_eq!(check(&before_hashes), Ok(()));
    }

    #[test]
    fn each_way_to_fail_has_its_message() {
        type Break = fn(&mut StartFacts);
        let cases: Vec<(Break, &str)> = vec![
            (|f| checkpoint(f).lineage = Lineage(8), "the checkpoint is of lineage 0000000000000008"),
            (|f| f.log.last = 9, "the binding log ends at epoch 9, the checkpoint is of epoch 10"),
            (|f| (f.log.last, f.log.torn) = (9, Some(("a.log".into(), 77))), "segment 'a.log' is broken from byte 77"),
            (|f| checkpoint(f).chain_in_log = None, "for epoch 10 the binding log has hash nothing"),
            (|f| checkpoint(f).chain_in_log = Some(chain(3)), "for epoch 10 the binding log has hash 0303"),
            (
                |f| (f.checkpoint, f.log.first, f.log.is_whole) = (None, 5, false),
                "begins at epoch 5 and there is no intact",
            ),
            (|f| f.sinks[0].marker.as_mut().expect("has").lineage = Lineage(1), "sink 's' holds output of lineage"),
            (
                |f| f.sinks[0].marker = Some(marker(21)),
                "sink 's' has output up to epoch 21, the binding log ends at epoch 20",
            ),
            (|f| f.sinks[0].chain_in_log = Some(chain(2)), "for epoch 15 sink 's' has hash 0f0f"),
            (|f| f.sinks[0].marker = None, "sink 's' has no output of this job"),
            (
                |f| (f.sinks[0].marker, f.sinks[0].chain_in_log) = (Some(marker(7)), Some(chain(7))),
                "output up to epoch 7, the checkpoint of epoch 10 relies on its output of epoch 8",
            ),
            (|f| *f = idle(Marker { chain: chain(2), ..marker(8) }), "for epoch 8 sink 's' has hash 0202"),
            (|f| *f = idle(marker(7)), "for epoch 7 sink 's' has hash 0707"),
            (
                |f| f.fingerprint = "g".into(),
                "code or parameters changed while epochs up to 20 are bound after epoch 10",
            ),
            (|f| f.bound_by.clear(), "epochs up to 20 are bound after epoch 10, and nothing says by which program"),
        ];
        for (spoil, message) in cases {
            let mut facts = sound();
            spoil(&mut facts);
            let said = Error::from(check(&facts).expect_err(message)).to_string();
            assert!(said.contains(message), "{said:?} lacks {message:?}");
        }
    }
    /// The program is that of the epochs to be replayed, whoever made the state that they are replayed from.
    #[test]
    fn only_the_program_that_bound_them_replays_epochs() {
        let check = |bound_by: &[(Epoch, &str)], restored, last, expected: bool| {
            let bound_by: Vec<Program> = bound_by.iter().map(|(after, f)| program(*after, f)).collect();
            let found = check_program("f", &bound_by, restored, last);
            assert_eq!(found.is_ok(), expected, "{bound_by:?} after {restored} up to {last}: {found:?}");
        };
        check(&[], 0, 0, true);
        check(&[], 0, 3, false);
        check(&[(0, "f")], 0, 3, true);
        check(&[(0, "g")], 0, 3, false); // killed before its first checkpoint, then changed
        check(&[(0, "g")], 3, 3, true); // stopped cleanly
        check(&[(0, "g"), (3, "f")], 3, 9, true); // changed after a clean stop, then killed before its first checkpoint
        check(&[(0, "f"), (3, "g")], 3, 9, false); // and back
        check(&[(0, "g"), (3, "f")], 2, 9, false); // the newer checkpoint is damaged
        check(&[(0, "f"), (3, "g"), (5, "f")], 2, 9, false);
        check(&[(0, "f"), (3, "g"), (5, "f")], 5, 9, true);
        check(&[(0, "f"), (9, "g")], 5, 9, true); // that one was only tried
        check(&[(5, "f")], 3, 9, false); // what is not covered is not known
        let mut told = sound();
        (told.fingerprint, told.replay_with_new_code) = ("g".into(), true);
        assert_eq!(super::check(&told), Ok(()));
        let mut without_checkpoint = sound();
        (without_checkpoint.fingerprint, without_checkpoint.checkpoint) = ("g".into(), None);
        assert_eq!(super::check(&without_checkpoint), Err(Doubt::OtherFingerprint { restored: 0, last: 20 }));
    }

    #[test]
    fn state_finds_its_operator_in_a_version_that_it_reads() {
        assert_eq!(check_state("a", 7, None, 3..=3), Ok(()));
        assert_eq!(check_state("a", 7, Some(3), 3..=3), Ok(()));
        assert_eq!(check_state("a", 7, Some(2), 2..=3), Ok(()));
        for (stored, reads, message) in [
            (2, 3..=3, "has version 2, the job reads version 3"),
            (4, 2..=3, "has version 4, the job reads versions 2 to 3"),
        ] {
            let said = Error::from(check_state("a", 7, Some(stored), reads).unwrap_err()).to_string();
            assert!(said.contains("operator 'a' in the checkpoint of epoch 7") && said.contains(message), "{said}");
        }
        let job = ["a".to_owned(), "new".to_owned()].into();
        assert_eq!(check_operators(&["a"].into(), &job, 7), Ok(()));
        let said = Error::from(check_operators(&["a", "b", "c"].into(), &job, 7).unwrap_err()).to_string();
        assert!(said.contains("holds state of 'b', 'c'") && said.contains("runtime.drop_unknown_state=true"), "{said}");
    }
}
