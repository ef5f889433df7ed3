//! What a source's schema ids mean: bound once, asked of a registry when they are new, kept durably before they are used.
//!
//! ```text
//!  decoders (workers) --lookup--> Schemas --ask--> task: registry --> store (synced) --answer--> Schemas --wake--> workers
//! ```
//!
//! Invariants: an id's meaning never changes once it is known; a text is durable before an answer names it; an outage of
//! the registry stalls ids that were never seen, and nothing else; ids and texts are bounded (`ids.rs`); after a text could not be
//! kept nothing is asked any more and the job ends, since nobody knows what is durable. A registry that refuses user and password ends
//! it too.

pub mod client;
mod ids;
pub mod store;

pub use client::{Answer, Ask, RegistryClient, RegistrySettings, SCHEMA_BYTES_MAX};
pub use ids::{IDS_MAX, SCHEMAS_BYTES_MAX, UNKNOWN_MAX};
pub use store::{SchemaHash, SchemaStore, hash_of};

use dataflow_core::{
    Clock, Environment, Epoch, Error, Fault, Mailbox, Result, SchemaBinding, SourceId, Storage, Task, TaskState, Waker,
};
use ids::{ASKED_MAX, Found, Ids, Meaning, Origin};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

/// Between two questions about an id that the registry does not know yet.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// The longest wait between attempts to reach the registry.
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// The answer to a decoder. The binding is given until it is durable anyway: whoever uses the id first in its epoch binds it.
#[derive(Clone, Debug)]
pub enum Lookup {
    /// The registry is asked; the decoder's waker will be called. Or the id means something from the next epoch on.
    Asked,
    /// It means nothing, and there is no room to bind it.
    Refused,
    /// It is known to mean nothing.
    Unknown(Option<SchemaBinding>),
    /// Its schema.
    Known(Arc<str>, Option<SchemaBinding>),
}

/// The schemas of one source, shared by its decoders.
pub struct Schemas {
    source: SourceId,
    name: String,
    store: SchemaStore,
    ids: Mutex<Ids>,
    wakers: Mutex<Vec<Waker>>,
    registry: Option<Registry>,
    /// The id that has no answer and will get none: its text could not be kept, or the registry refused to say it.
    failure: OnceLock<(u32, Arc<Error>)>,
}

struct Registry {
    asked: Mailbox<u32>,
    waker: Mutex<Option<Waker>>,
}

impl Schemas {
    /// The schemas of `source`, which is called `name`. Without a registry every id that is not bound is unknown at once.
    pub fn start(
        source: SourceId,
        name: &str,
        storage: Arc<dyn Storage>,
        registry: Option<&RegistrySettings>,
        environment: &Environment,
    ) -> Arc<Schemas> {
        let client = |settings| -> Box<dyn Ask> { Box::new(RegistryClient::new(settings)) };
        let registry = registry.map(|settings| (client(settings), Duration::from_millis(settings.grace_ms)));
        Schemas::asking(source, name, storage, registry, environment)
    }

    /// As [`Schemas::start`]: of whom ids are asked, and for how long again after "there is none".
    pub fn asking(
        source: SourceId,
        name: &str,
        storage: Arc<dyn Storage>,
        registry: Option<(Box<dyn Ask>, Duration)>,
        environment: &Environment,
    ) -> Arc<Schemas> {
        let store = SchemaStore::new(storage, name);
        let asked = Mailbox::new(ASKED_MAX);
        let schemas = Arc::new(Schemas {
            source,
            name: name.to_owned(),
            store,
            ids: Mutex::default(),
            wakers: Mutex::default(),
            registry: registry.as_ref().map(|_| Registry { asked: asked.clone(), waker: Mutex::default() }),
            failure: OnceLock::new(),
        });
        if let (Some((client, grace)), Some(registry)) = (registry, &schemas.registry) {
            let task = Asking {
                client,
                grace,
                clock: environment.clock.clone(),
                schemas: Arc::downgrade(&schemas),
                asked,
                open: BTreeMap::new(),
            };
            let waker = environment.spawner.spawn(&format!("registry-{name}"), Box::new(task));
            *lock(&registry.waker) = Some(waker);
        }
        schemas
    }

    /// The source's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Calls `wake` too when an answer has come.
    pub fn wake_also(&self, wake: Waker) {
        lock(&self.wakers).push(wake);
    }

    /// Whether ids that are asked for will have an answer, sooner or later.
    ///
    /// # Errors
    /// When a schema could not be kept, or the registry takes nobody with these settings: then none is asked for any more.
    pub fn check(&self) -> Result<()> {
        let Some((id, cause)) = self.failure.get() else { return Ok(()) };
        if cause.fault == Fault::User {
            return Err(Error::user(format!("reading source '{}'", self.name)).because(cause.clone()));
        }
        let what = format!("keeping the schema of id '{id}' of source '{}'", self.name);
        Err(Error::new(cause.fault, what)
            .because(cause.clone())
            .hint("repair the data folder, then start the job again"))
    }

    /// What `id` means to a record of `epoch`. Asks the registry when nobody did.
    pub fn lookup(&self, id: u32, epoch: Epoch) -> Lookup {
        let mut ids = lock(&self.ids);
        let mut found = ids.find(id, epoch);
        if matches!(found, Found::Nothing) {
            ids.ask(id);
            if self.registry.is_none() {
                ids.answer(id, Meaning::Unknown);
                found = ids.find(id, epoch);
            }
        }
        drop(ids);
        let binding =
            |origin, hash| (origin != Origin::Bound).then_some(SchemaBinding { source: self.source, id, hash });
        match found {
            Found::Nothing => {
                self.send(id);
                Lookup::Asked
            }
            Found::Wait => Lookup::Asked,
            Found::Refused => Lookup::Refused,
            Found::Meaning(Meaning::Unknown, origin) => Lookup::Unknown(binding(origin, None)),
            Found::Meaning(Meaning::Known(text, hash), origin) => Lookup::Known(text, binding(origin, Some(hash))),
        }
    }

    /// Asks for an id that a record further on has, so that it need not wait for its turn first.
    pub fn foresee(&self, id: u32) {
        let mut ids = lock(&self.ids);
        if self.registry.is_some() && ids.wants(id) {
            ids.ask(id);
            drop(ids);
            self.send(id);
        }
    }

    fn send(&self, id: u32) {
        let Some(registry) = &self.registry else { return };
        registry.asked.push(id).expect("the mailbox holds as many ids as are asked for at a time");
        if let Some(waker) = &*lock(&registry.waker) {
            waker.wake();
        }
    }

    /// Takes in what was bound: from now on the ids mean that.
    ///
    /// # Errors
    /// When the text of a bound schema is missing or differs from its hash, or an id was bound to something else already.
    pub fn bind(&self, schemas: &[SchemaBinding]) -> Result<()> {
        for schema in schemas.iter().filter(|schema| self.is_of(schema)) {
            let known = lock(&self.ids).known(schema.id);
            let meaning = match (known, schema.hash) {
                (Some(known), bound) if known == bound => continue,
                (Some(_), _) => {
                    return Err(Error::doubt(format!(
                        "binding schema id '{}' of source '{}': it means something else already",
                        schema.id, self.name
                    )));
                }
                (None, None) => Meaning::Unknown,
                (None, Some(hash)) => Meaning::Known(self.store.get(hash)?.into(), hash),
            };
            // Another worker's decoder may have been faster.
            let mut ids = lock(&self.ids);
            if ids.known(schema.id).is_none() {
                ids.bind(schema.id, meaning);
            }
        }
        Ok(())
    }

    /// Whether a binding is of this source.
    pub fn is_of(&self, schema: &SchemaBinding) -> bool {
        schema.source == self.source
    }

    /// Whether there was room for the answer.
    fn answer(&self, id: u32, meaning: Meaning) -> bool {
        let has_room = lock(&self.ids).answer(id, meaning);
        lock(&self.wakers).iter().for_each(Waker::wake);
        has_room
    }

    fn fail(&self, id: u32, cause: Error) {
        let _ = self.failure.set((id, Arc::new(cause))); // there is one task, which ends with it
        lock(&self.wakers).iter().for_each(Waker::wake);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no holder of this lock can panic")
}

/// The task that asks.
struct Asking {
    client: Box<dyn Ask>,
    grace: Duration,
    clock: Arc<dyn Clock>,
    schemas: std::sync::Weak<Schemas>,
    asked: Mailbox<u32>,
    open: BTreeMap<u32, Question>,
}

/// A question without an answer. Times are the monotonic clock's.
#[derive(Clone, Copy, Debug, Default)]
struct Question {
    not_before: Duration,
    first_not_found: Option<Duration>,
    failures: u32,
}

/// What to do after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Unknown,
    AskAgain(Duration),
}

impl Question {
    fn not_found(&mut self, now: Duration, grace: Duration) -> Next {
        let first = *self.first_not_found.get_or_insert(now);
        self.failures = 0;
        if now.saturating_sub(first) >= grace { Next::Unknown } else { Next::AskAgain(ASK_AGAIN.min(grace)) }
    }

    fn failed(&mut self) -> Next {
        self.failures = self.failures.saturating_add(1);
        // An outage says nothing about the id: the grace begins anew.
        self.first_not_found = None;
        Next::AskAgain(BACKOFF_MAX.min(Duration::from_millis(100) * 2u32.saturating_pow(self.failures.min(10))))
    }
}

impl Task for Asking {
    fn run(&mut self) -> TaskState {
        let Some(schemas) = self.schemas.upgrade() else { return TaskState::Done };
        self.open.extend(self.asked.drain().into_iter().map(|id| (id, Question::default())));
        let mut wait: Option<Duration> = None;
        for (id, mut question) in std::mem::take(&mut self.open) {
            let now = self.clock.monotonic();
            let next = if question.not_before > now {
                Some(question.not_before - now)
            } else {
                match self.ask(&schemas, id, &mut question) {
                    Ok(next) => next,
                    Err(error) => {
                        schemas.fail(id, error);
                        return TaskState::Done;
                    }
                }
            };
            if let Some(pause) = next {
                if question.not_before <= now {
                    question.not_before = self.clock.monotonic() + pause;
                }
                wait = Some(wait.map_or(pause, |wait| wait.min(pause)));
                self.open.insert(id, question);
            }
        }
        wait.map_or(TaskState::Waiting, TaskState::Sleeping)
    }
}

impl Asking {
    /// Asks once; the pause before the next attempt, or `None` when the id has its meaning. Fails when there never will be one.
    fn ask(&self, schemas: &Schemas, id: u32, question: &mut Question) -> Result<Option<Duration>> {
        let next = match self.client.get(id) {
            Ok(Answer::Text(text)) => {
                if !lock(&schemas.ids).has_room_for(text.len()) {
                    tracing::warn!(
                        source = schemas.name,
                        id,
                        bytes = text.len(),
                        "there are too many schemas, or too large ones, for one more; its records go to the dead letters"
                    );
                    lock(&schemas.ids).refuse(id);
                    lock(&schemas.wakers).iter().for_each(Waker::wake);
                    return Ok(None);
                }
                let hash = schemas.store.put(&text)?;
                schemas.answer(id, Meaning::Known(text.into(), hash));
                return Ok(None);
            }
            Ok(Answer::TooLarge) => Next::Unknown,
            Ok(Answer::NotFound) => {
                // A producer that makes up ids by the thousand may not hold its partition up for each.
                let grace = if lock(&schemas.ids).unknown_is_full() { Duration::ZERO } else { self.grace };
                question.not_found(self.clock.monotonic(), grace)
            }
            // The settings are wrong: whoever waits would wait for ever.
            Err(error) if error.fault == Fault::User => return Err(error),
            Err(error) => {
                tracing::warn!(source = schemas.name, id, %error, "records with this schema wait until the registry answers");
                question.failed()
            }
        };
        match next {
            Next::AskAgain(pause) => Ok(Some(pause)),
            Next::Unknown => {
                tracing::warn!(
                    source = schemas.name,
                    id,
                    "the registry does not know this schema id; its records go to the dead letters"
                );
                if !schemas.answer(id, Meaning::Unknown) {
                    tracing::debug!(source = schemas.name, id, "there are too many unknown ids to bind one more");
                }
                Ok(None)
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
