//! Planted bugs: deliberate violations of an invariant, compiled in only with the feature `planted-bugs`.
//!
//! Each is caught by a test of its own name (`engine/sim/tests/planted.rs`): a suite that does not notice them proves
//! nothing. Without the feature [`is_planted`] is a constant `false` and the branches vanish.

/// The bugs that can be planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Bug {
    /// A sink commits its rows first and its marker afterwards, in a second step.
    MarkerOutsideTransaction = 1,
    /// Sinks do not wait for the durable frontier.
    OutputBeforeBinding,
    /// The binding log reports rows durable without an fsync.
    NoFsync,
    /// A new segment of a log is not followed by an fsync of its folder.
    NoFolderFsync,
    /// The cut for epoch c is taken after epoch c + 1 was applied.
    CheckpointWithNextEpoch,
    /// Replay reads one record less of each bound range.
    ReplayOffByOne,
    /// The watermark advances by the wall clock.
    WatermarkFromWallClock,
    /// Rows of an epoch leave in the order of a hash map.
    HashOrderOutput,
    /// An error of the sink's write is ignored.
    SwallowedProduceError,
    /// One transactional id is left out of the fencing.
    SlotLeftUnfenced,
    /// A producer that finds itself fenced initialises again.
    FencedProducerInitialises,
    /// What was said for pending events is not part of the checkpoint.
    SaidNotInState,
    /// A sink does not drop the epochs it already has.
    MarkerIgnoredOnRecovery,
    /// The manifest is written before the sinks committed through its epoch.
    ManifestBeforeSinks,
    /// Tables are committed before the manifest that holds their intents is durable.
    CommitBeforeManifest,
    /// A restart takes the intents in its checkpoint for committed.
    IntentsDropped,
    /// A commit of unknown outcome is made again without a look at the table.
    UnknownOutcomeRepeated,
    /// Rows that a table has already, by its marker, are written again.
    TableMarkerIgnored,
    /// A start takes the restored index for that of a table which is ahead of it.
    IndexNotRebuilt,
    /// Files of a table are not synced.
    TableFilesNotSynced,
    /// A process whose table another generation has goes on committing.
    FencedCommitterGoesOn,
    /// A start that passes over a damaged checkpoint leaves the commits under way that only that one knows.
    OthersNotShutOut,
}

#[cfg(feature = "planted-bugs")]
static PLANTED: std::sync::atomic::AtomicU8 = std::sync::atomic::AtomicU8::new(0);

/// Plants one bug for the whole process, or none.
#[cfg(feature = "planted-bugs")]
pub fn plant(bug: Option<Bug>) {
    PLANTED.store(bug.map_or(0, |b| b as u8), std::sync::atomic::Ordering::SeqCst);
}

/// Whether `bug` is planted. Constant `false` without the feature.
#[inline]
pub fn is_planted(bug: Bug) -> bool {
    #[cfg(feature = "planted-bugs")]
    return PLANTED.load(std::sync::atomic::Ordering::Relaxed) == bug as u8;
    #[cfg(not(feature = "planted-bugs"))]
    {
        let _ = bug;
        false
    }
}
