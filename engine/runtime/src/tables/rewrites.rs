//! At which checkpoint a rewrite takes effect: the same for all workers, because each remaps its index at the cut of that epoch.
//!
//! ```text
//!  compactor reads snapshot S ─► new files ─► offered ─► the first worker at a cut c decides: at c ─► every worker, at its cut of c:
//!     1. the changes up to c are written, against the index as it was: they may delete rows of the old files;
//!     2. each moved row of its keys: the index names the old place still? then it names the new one from now on, else the row is dead
//!        in the new file, and the rewrite deletes it there;
//!     3. index, intents of the rows and intents of the rewrite are one cut.
//!  committer: the rows of c, then the rewrite on top of them as a snapshot of its own (`replace`), both with the marker of c.
//! ```
//! Killed before the manifest of c is durable, nothing names the new files. Killed after it, the restored index names them and the rewrite
//! is among the restored intents: it is committed, or found committed, before anything later. A restart from before c, with the rewrite in the
//! table, finds the marker of c ahead of its index and reads the keys anew. So the marker says at any time which files an index speaks of.
//!
//! One rewrite of a sink is under way at a time, and none while intents of before the start wait: their index may name other files than
//! the table has.

use super::{Schemas, TableConnection};
use crate::link::Link;
use dataflow_core::{Environment, Epoch, Result, TableRewrite, TaskState, Waker};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The task that rewrites files, as the committer has it.
pub(super) struct RewriteTask {
    connection: Arc<TableConnection>,
    link: Link<(), Result<Option<TableRewrite>>>,
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
        let link = Link::spawn(&*environment.spawner, &task, 1, move |requests: Vec<()>, replies| {
            requests.iter().for_each(|()| replies.send(compactor.rewrite()));
            TaskState::Waiting
        });
        link.attach(committer);
        Some(RewriteTask { connection: connection.clone(), link })
    }

    /// Has a table looked at, unless a rewrite is under way. `restored` is the epoch that the start began with.
    pub(super) fn begin(&self, restored: Epoch) {
        if self.connection.begin_rewrite(restored) {
            assert!(self.link.send(()).is_ok(), "one rewrite is under way at a time");
        }
    }

    /// Offers what it has written to the writers.
    pub(super) fn take(&self) {
        for rewrite in self.link.replies() {
            let written = rewrite.unwrap_or_else(|error| {
                tracing::warn!("{error}; small files stay for now");
                None
            });
            self.connection.offer_rewrite(written);
        }
    }
}

/// The rewrite under way.
#[derive(Default)]
pub(super) struct Rewrites {
    is_under_way: bool,
    /// Written, and not given to a cut.
    offered: Option<Arc<TableRewrite>>,
    /// What a cut does, until all workers have asked.
    decided: BTreeMap<Epoch, (Option<Arc<TableRewrite>>, usize)>,
    /// The cut that it was given to, until it is committed.
    at: Option<Epoch>,
}

impl Rewrites {
    /// Whether a rewrite may begin; it is under way then.
    pub(super) fn begin(&mut self) -> bool {
        !std::mem::replace(&mut self.is_under_way, true)
    }

    /// There is nothing to rewrite, or it failed.
    pub(super) fn none(&mut self) {
        self.is_under_way = false;
    }

    /// It is written.
    pub(super) fn offer(&mut self, rewrite: TableRewrite) {
        self.offered = Some(Arc::new(rewrite));
    }

    /// What each of `workers` has to do at the cut of `epoch`; each asks once.
    pub(super) fn at(&mut self, epoch: Epoch, workers: usize) -> Option<Arc<TableRewrite>> {
        let (rewrite, asked) = self.decided.entry(epoch).or_insert_with(|| (self.offered.take(), 0));
        *asked += 1;
        let (rewrite, is_last) = (rewrite.clone(), *asked == workers);
        if is_last {
            self.decided.remove(&epoch);
        }
        self.at = self.at.or(rewrite.is_some().then_some(epoch));
        rewrite
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
    fn all_workers_take_a_rewrite_at_one_cut() {
        let mut rewrites = Rewrites::default();
        assert!(rewrites.begin() && !rewrites.begin());
        assert!(rewrites.at(10, 2).is_none());
        let rewrite = TableRewrite { table: "t".to_owned(), intent: Vec::new(), moved: Vec::new() };
        rewrites.offer(rewrite.clone());
        assert!(rewrites.at(10, 2).is_none(), "the other worker cut without it");
        assert_eq!(rewrites.at(20, 2).as_deref(), Some(&rewrite));
        assert!(rewrites.at(30, 2).is_none(), "one worker is ahead");
        assert_eq!(rewrites.at(20, 2).as_deref(), Some(&rewrite));
        rewrites.committed(10);
        assert!(!rewrites.begin());
        rewrites.committed(20);
        assert!(rewrites.begin());
        assert!(rewrites.at(30, 2).is_none());
    }
}
