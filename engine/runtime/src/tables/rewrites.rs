//! At which checkpoint rewrites take effect: the same for all workers, because each remaps its index at the cut of that epoch.
//!
//! ```text
//!  compactor reads snapshot S ─► new files ─► offered ─► the first worker at a cut c decides: at c ─► every worker, at its cut of c:
//!     1. the changes up to c are written, against the index as it was: they may delete rows of the old files;
//!     2. table by table, each moved row of its keys: the index names the old place still? then it names the new one from now on, else the
//!        row is dead in the new file, and the rewrite deletes it there;
//!     3. index, intents of the rows and intents of the rewrite are one cut.
//!  committer: the rows of c, then the rewrite on top of them as a snapshot of its own (`replace`), both with the marker of c.
//! ```
//! Killed before the manifest of c is durable, nothing names the new files. Killed after it, the restored index names them and the rewrite
//! is among the restored intents: it is committed, or found committed, before anything later. A restart from before c, with the rewrite in the
//! table, finds the marker of c ahead of its index and reads the keys anew. So the marker says at any time which files an index speaks of.
//!
//! One round of a sink's tables is under way at a time, and none while intents of before the start wait: their index may name other files than
//! the table has.

use super::agreed::Agreed;
use super::{Schemas, TableConnection};
use crate::link::{InBackground, Link};
use dataflow_core::{Environment, Epoch, Result, TableRewrite, TaskState, Waker};
use std::sync::Arc;

/// The task that rewrites files, as the committer has it.
pub(super) struct RewriteTask {
    connection: Arc<TableConnection>,
    link: Link<(), Result<Vec<TableRewrite>>>,
}

impl RewriteTask {
    /// Starts it; `None` where the sink rewrites nothing.
    pub(super) fn spawn(
        environment: &Environment,
        connection: &Arc<TableConnection>,
        schemas: &Schemas,
        committer: Waker,
    ) -> Option<RewriteTask> {
        let mut compactor = connection.sink.compactor(schemas)?;
        let task = format!("rewrite {}", connection.sink.name());
        let link = Link::spawn(&InBackground(&*environment.spawner), &task, 1, move |requests: Vec<()>, replies| {
            requests.iter().for_each(|()| replies.send(compactor.rewrite()));
            TaskState::Waiting
        });
        link.attach(committer);
        Some(RewriteTask { connection: connection.clone(), link })
    }

    /// Has the tables looked at, unless rewrites are under way. `restored` is the epoch that the start began with.
    pub(super) fn begin(&self, restored: Epoch) {
        if self.connection.begin_rewrites(restored) {
            assert!(self.link.send(()).is_ok(), "one round is under way at a time");
        }
    }

    /// Offers what it has written to the writers.
    pub(super) fn take(&self) {
        for rewrites in self.link.replies() {
            let written = rewrites.unwrap_or_else(|error| {
                tracing::warn!("{error}; small files stay for now");
                Vec::new()
            });
            self.connection.offer_rewrites(written);
        }
    }
}

/// Rewrites that take effect together, each of another table.
pub(crate) type Round = Arc<[TableRewrite]>;

/// The round under way.
#[derive(Default)]
pub(super) struct Rewrites {
    is_under_way: bool,
    /// Written, and not given to a cut.
    offered: Option<Round>,
    /// What each cut does.
    decided: Agreed<Option<Round>>,
    /// The cut that it was given to, until it is committed.
    at: Option<Epoch>,
}

impl Rewrites {
    /// Whether a round may begin; it is under way then.
    pub(super) fn begin(&mut self) -> bool {
        !std::mem::replace(&mut self.is_under_way, true)
    }

    /// It is written; without any there was nothing to rewrite, or it failed.
    pub(super) fn offer(&mut self, rewrites: Vec<TableRewrite>) {
        self.is_under_way = !rewrites.is_empty();
        self.offered = self.is_under_way.then(|| rewrites.into());
    }

    /// What each of `workers` has to do at the cut of `epoch`; each asks once.
    pub(super) fn at(&mut self, epoch: Epoch, workers: usize) -> Option<Round> {
        let round = self.decided.at(epoch, workers, || self.offered.take());
        self.at = self.at.or(round.is_some().then_some(epoch));
        round
    }

    /// All intents up to `epoch` are committed.
    pub(super) fn committed(&mut self, epoch: Epoch) {
        if self.at.is_some_and(|at| at <= epoch) {
            (self.at, self.is_under_way) = (None, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_workers_take_a_round_at_one_cut() {
        let mut rewrites = Rewrites::default();
        assert!(rewrites.begin() && !rewrites.begin());
        assert!(rewrites.at(10, 2).is_none());
        let round = ["t", "u"].map(|t| TableRewrite { table: t.to_owned(), intent: Vec::new(), moved: Vec::new() });
        rewrites.offer(round.to_vec());
        assert!(rewrites.at(10, 2).is_none(), "the other worker cut without it");
        assert_eq!(rewrites.at(20, 2).as_deref(), Some(&round[..]));
        assert!(rewrites.at(30, 2).is_none(), "one worker is ahead");
        assert_eq!(rewrites.at(20, 2).as_deref(), Some(&round[..]));
        rewrites.committed(10);
        assert!(!rewrites.begin());
        rewrites.committed(20);
        assert!(rewrites.begin());
        assert!(rewrites.at(30, 2).is_none());
        rewrites.offer(Vec::new());
        assert!(rewrites.begin(), "there was nothing to rewrite");
    }
}
