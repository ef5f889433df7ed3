//! The dice that everything in a simulation is decided by: ChaCha8 from the seed, one stream for each purpose, so that a change
//! to the traffic does not reshuffle the crashes.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// What a stream of dice decides.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    /// Sizes, settings and faults of the run.
    Scenario,
    /// The records of the outside log.
    Traffic,
    /// Who runs next, and how far the clock moves.
    Schedule,
    /// What a crash takes with it.
    Crash,
    /// How the source hands records out.
    Source,
    /// What the broker does with a call.
    Broker,
    /// The job's own random numbers: lineage and nonces.
    Identity,
    /// Which calls take long, how much room there is, when the source is away.
    Trouble,
    /// Which bits flip between two lives.
    Rot,
    /// What the schema registry knows, and when.
    Registry,
    /// What the catalog of tables does with a call.
    Catalog,
    /// As [`Purpose::Source`], of a job's second source.
    SecondSource,
    /// And of its third.
    ThirdSource,
    /// Which snapshots the check reads.
    Check,
    /// What somebody else writes to the tables.
    Meddler,
}

/// Seeded dice.
pub(crate) struct Dice(ChaCha8Rng);

impl Dice {
    /// The dice of a seed for one purpose.
    pub(crate) fn new(seed: u64, purpose: Purpose) -> Dice {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(purpose as u64 + 1);
        Dice(rng)
    }

    /// 64 random bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `n`, which is not 0. The bias of the remainder is far below what a simulation notices.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// A number from `low` to `high`, both among them.
    pub(crate) fn range(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// Whether an event of this chance happens.
    pub(crate) fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    /// One of several.
    pub(crate) fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as u64) as usize]
    }
}
