//! A catalog as a REST server is one: it holds the metadata, checks a commit's requirements and makes it, as one act, and its answers may
//! not come.
//!
//! ```text
//!  commit ─► answered | answer lost | request lost | request late, perhaps after the process that made it has ended | told to come back
//!  load, create ─► answered | answer lost
//! ```
//!
//! It outlives the job's lives, keeps every snapshot that there ever was, and is away for a while. Somebody else writes to its tables too
//! ([`super::meddler`]).

use super::disk::FOLDER;
use super::meddler::Meddler;
use super::outage::{Outages, away};
use crate::dice::Dice;
use crate::life::{Blow, Life, Passage, gone};
use crate::scheduler::Service;
use crate::trace::Trace;
use dataflow_core::{Epoch, Error, Result, stable_hash};
use dataflow_iceberg::{Catalog, CommitError, Loaded, TableName};
use iceberg::spec::TableMetadataBuilder;
use iceberg::{TableCreation, TableRequirement, TableUpdate};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use uuid::Uuid;

/// The path that fuses and traces know the catalog by.
pub(crate) const PATH: &str = "catalog";

/// What the catalog did to its callers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CatalogCounters {
    /// Calls while it was away.
    pub(crate) away: u64,
    /// Commits whose answer the caller did not get.
    pub(crate) unknown: u64,
    /// Of those, the ones that were made, at once or later.
    pub(crate) applied_unseen: u64,
    /// Commits whose requirements did not hold.
    pub(crate) conflicts: u64,
    /// Of those, the ones that arrived late.
    pub(crate) late_refused: u64,
    /// Commits that arrived late and were made.
    pub(crate) late_applied: u64,
    /// Commits of somebody else.
    pub(crate) foreign: u64,
}

/// The server.
pub(crate) struct CatalogServer {
    trace: Arc<Trace>,
    outages: Outages,
    /// Percent of the calls that something happens to.
    fault_percent: u64,
    state: Mutex<State>,
}

struct State {
    dice: Dice,
    tables: BTreeMap<TableName, Loaded>,
    in_flight: Vec<Request>,
    versions: u64,
    meddler: Meddler,
    is_calm: bool,
    counters: CatalogCounters,
}

/// A commit.
struct Request {
    table: TableName,
    requirements: Vec<TableRequirement>,
    updates: Vec<TableUpdate>,
}

/// What becomes of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Answered,
    AnswerLost,
    RequestLost,
    Late,
    ComeBack,
}

impl CatalogServer {
    /// An empty one.
    pub(crate) fn new(
        dice: Dice,
        meddler: Meddler,
        trace: Arc<Trace>,
        outages: Outages,
        fault_percent: u64,
    ) -> Arc<CatalogServer> {
        let (tables, in_flight, versions, is_calm, counters) = Default::default();
        let state = Mutex::new(State { dice, tables, in_flight, versions, meddler, is_calm, counters });
        Arc::new(CatalogServer { trace, outages, fault_percent, state })
    }

    /// What happened.
    pub(crate) fn counters(&self) -> CatalogCounters {
        self.state().counters
    }

    /// Its tables as they are now.
    pub(crate) fn tables(&self) -> BTreeMap<TableName, Loaded> {
        self.state().tables.clone()
    }

    /// Nobody else writes to its tables from now on.
    pub(crate) fn leave_alone(&self) {
        self.state().meddler.times = 0;
    }

    /// Nothing happens to its callers from now on.
    pub(crate) fn calm(&self) {
        self.state().is_calm = true;
    }

    fn is_away(&self, state: &State) -> bool {
        !state.is_calm && self.outages.is_away()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state when a call comes in; somebody else may have been faster.
    fn called(&self) -> MutexGuard<'_, State> {
        let mut state = self.state();
        let State { meddler, tables, .. } = &mut *state;
        if let Some((table, updates)) = meddler.commits(tables) {
            self.trace.note("meddle", PATH, stable_hash(table.name.as_bytes()));
            let made = state.apply(Request { table, requirements: Vec::new(), updates });
            made.expect("a snapshot on top of the newest is no conflict");
            state.counters.foreign += 1;
        }
        state
    }

    /// Whether the answer to a call that may be repeated is lost.
    fn loses(&self, state: &mut State) -> bool {
        !state.is_calm && state.dice.percent(self.fault_percent) && state.dice.percent(30)
    }
}

impl Service for CatalogServer {
    fn has_in_flight(&self) -> bool {
        !self.state().in_flight.is_empty()
    }

    fn deliver(&self) {
        let mut state = self.state();
        let waiting = state.in_flight.len() as u64;
        let at = state.dice.below(waiting) as usize;
        let request = state.in_flight.swap_remove(at);
        let made = state.apply(request);
        state.counters.late_applied += u64::from(made.is_ok());
        state.counters.applied_unseen += u64::from(made.is_ok());
        state.counters.late_refused += u64::from(made.is_err());
        self.trace.note("deliver", PATH, u64::from(made.is_ok()));
    }
}

impl State {
    fn apply(&mut self, request: Request) -> Result<Loaded, CommitError> {
        let Request { table, requirements, updates } = request;
        let refused = |what: String| CommitError::Refused(Error::us(what));
        let old = self.tables.get(&table).ok_or_else(|| refused(format!("commit to '{table}', which is not there")))?;
        if let Some(broken) = requirements.iter().find_map(|of| of.check(Some(&old.metadata)).err()) {
            self.counters.conflicts += 1;
            return Err(CommitError::Conflict(broken.to_string()));
        }
        let mut builder = old.metadata.as_ref().clone().into_builder(Some(old.location.clone()));
        for update in updates {
            builder = update.apply(builder).map_err(|e| refused(e.to_string()))?;
        }
        let metadata = builder.build().map_err(|e| refused(e.to_string()))?.metadata;
        self.versions += 1;
        let location = format!("{}/metadata/{}", metadata.location(), self.versions);
        let made = Loaded { location, metadata: Arc::new(metadata) };
        self.tables.insert(table, made.clone());
        Ok(made)
    }

    fn create(&mut self, table: &TableName, mut creation: TableCreation) -> iceberg::Result<Option<Loaded>> {
        if self.tables.contains_key(table) {
            return Ok(None);
        }
        let location = format!("/{FOLDER}/{}", table.name);
        creation.location = Some(location.clone());
        let id = (u128::from(self.dice.next()) << 64) | u128::from(self.dice.next());
        let builder = TableMetadataBuilder::from_table_creation(creation)?.assign_uuid(Uuid::from_u128(id));
        let metadata = Arc::new(builder.build()?.metadata);
        let made = Loaded { location: format!("{location}/metadata/0"), metadata };
        self.tables.insert(table.clone(), made.clone());
        Ok(Some(made))
    }

    fn fate(&mut self, fault_percent: u64) -> Fate {
        if !self.dice.percent(fault_percent) {
            return Fate::Answered;
        }
        *self.dice.pick(&[Fate::AnswerLost, Fate::AnswerLost, Fate::RequestLost, Fate::Late, Fate::ComeBack])
    }
}

/// The newest epoch that a table has.
pub(crate) fn newest_epoch(table: &Loaded) -> Option<Epoch> {
    let snapshot = table.metadata.current_snapshot()?;
    snapshot.summary().additional_properties.get("dataflow.epoch")?.parse().ok()
}

/// The catalog as one life calls it.
pub(crate) struct LifeCatalog {
    pub(crate) server: Arc<CatalogServer>,
    pub(crate) life: Arc<Life>,
}

impl LifeCatalog {
    /// A call that may be repeated.
    fn ask<T>(&self, what: &str, act: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        let failed = |why: &str| Err(Error::outside(format!("{what}: {}", away(why))).retry());
        match self.life.network_call(what, PATH, 0) {
            Passage::Open => {}
            Passage::Gone => return Err(gone(what, PATH)),
            Passage::Blown(Blow::Fail) => return failed("the connection was reset"),
            Passage::Blown(blow) => {
                if blow == Blow::After {
                    drop(act(&mut self.server.state()));
                }
                self.life.end();
                return Err(gone(what, PATH));
            }
        }
        let mut state = self.server.called();
        if self.server.is_away(&state) {
            state.counters.away += 1;
            return failed("the catalog is away");
        }
        let loses = self.server.loses(&mut state);
        let done = act(&mut state);
        if loses { failed("the answer did not come") } else { done }
    }
}

impl Catalog for LifeCatalog {
    fn create_namespace(&self, _: &[String]) -> Result<()> {
        self.ask("create the namespace", |_| Ok(()))
    }

    fn create_table(&self, table: &TableName, creation: TableCreation) -> Result<Option<Loaded>> {
        self.ask("create the table", |state| {
            state.create(table, creation).map_err(|e| Error::us(format!("create the table '{table}'")).because(e))
        })
    }

    fn load(&self, table: &TableName) -> Result<Option<Loaded>> {
        self.ask("load the table", |state| Ok(state.tables.get(table).cloned()))
    }

    fn commit(
        &self,
        table: &TableName,
        requirements: &[TableRequirement],
        updates: Vec<TableUpdate>,
    ) -> Result<Loaded, CommitError> {
        let request = Request { table: table.clone(), requirements: requirements.to_vec(), updates };
        let unknown = |why: &str| Err(CommitError::Unknown(away(why)));
        let passage = self.life.network_call("commit", PATH, 0);
        let mut state = self.server.called();
        match passage {
            Passage::Open => {}
            Passage::Gone => return unknown("the process is gone"),
            Passage::Blown(Blow::Fail) => return unknown("the connection was reset"),
            Passage::Blown(blow) => {
                if blow == Blow::After {
                    drop(state.apply(request));
                }
                self.life.end();
                return unknown("the process is gone");
            }
        }
        if self.server.is_away(&state) {
            state.counters.away += 1;
            state.counters.unknown += 1;
            return unknown("the catalog is away");
        }
        let fate = state.fate(self.server.fault_percent);
        self.server.trace.note("fate", PATH, fate as u64);
        match fate {
            Fate::Answered => return state.apply(request),
            Fate::ComeBack => return Err(CommitError::Conflict(away("it answers 429"))),
            Fate::RequestLost => {}
            Fate::AnswerLost => {
                let is_made = state.apply(request).is_ok();
                state.counters.applied_unseen += u64::from(is_made);
            }
            Fate::Late => state.in_flight.push(request),
        }
        state.counters.unknown += 1;
        unknown("the answer did not come")
    }
}
