//! What a source's schema ids mean: bound once, asked of a registry when they are new, kept durably before they are used.
//!
//! ```text
//!  decoders (workers) --lookup--> Schemas --ask--> task: registry --> store (synced) --answer--> Schemas --wake--> workers
//! ```
//!
//! Invariants: an id's meaning never changes once it is known; a text is durable before an answer names it; an outage of
//! the registry stalls ids that were never seen, and nothing else; the number of ids is bounded; after a text could not be kept
//! nothing is asked any more and the job ends, since nobody knows what is durable.

pub mod client;
pub mod store;

pub use client::{Answer, Ask, RegistryClient, RegistrySettings, SCHEMA_BYTES_MAX};
pub use store::{SchemaHash, SchemaStore, hash_of};

use dataflow_core::{
    Clock, Environment, Error, Mailbox, Result, SchemaBinding, SourceId, Storage, Task, TaskState, Waker,
};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

/// Ids a source may have. Broken producers may send any: an id beyond the bound is unknown, at once and without a
/// binding. A replay finds the same, since the bound ids alone fill it.
pub const IDS_MAX: usize = 4096;

/// Between two questions about an id that the registry does not know yet.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// The longest wait between attempts to reach the registry.
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// What an id means.
#[derive(Clone, Debug)]
enum Meaning {
    Asked,
    Unknown,
    Known(Arc<str>, SchemaHash),
}

/// The answer to a decoder. The binding is given until it is durable anyway: whoever uses the id first in its epoch binds it.
#[derive(Clone, Debug)]
pub enum Lookup {
    /// The registry is asked; the decoder's waker will be called.
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
    ids: Mutex<BTreeMap<u32, (Meaning, Origin)>>,
    wakers: Mutex<Vec<Waker>>,
    registry: Option<Registry>,
    /// The id whose text could not be kept, and why.
    failure: OnceLock<(u32, Arc<Error>)>,
}

/// Whether a meaning still has to be bound by its users.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Bound,
    Fresh,
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
        let asked = Mailbox::new(IDS_MAX);
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
    /// When a schema could not be kept: then none is asked for any more.
    pub fn check(&self) -> Result<()> {
        let Some((id, cause)) = self.failure.get() else { return Ok(()) };
        let what = format!("keeping the schema of id '{id}' of source '{}'", self.name);
        Err(Error::new(cause.fault, what)
            .because(cause.clone())
            .hint("repair the data folder, then start the job again"))
    }

    /// What `id` means. Asks the registry when nobody did.
    pub fn lookup(&self, id: u32) -> Lookup {
        let binding =
            |origin, hash| (origin == Origin::Fresh).then_some(SchemaBinding { source: self.source, id, hash });
        let mut ids = lock(&self.ids);
        match ids.get(&id) {
            Some((Meaning::Asked, _)) => return Lookup::Asked,
            Some((Meaning::Unknown, origin)) => return Lookup::Unknown(binding(*origin, None)),
            Some((Meaning::Known(text, hash), origin)) => {
                return Lookup::Known(text.clone(), binding(*origin, Some(*hash)));
            }
            None if ids.len() >= IDS_MAX => return Lookup::Refused,
            None => {}
        }
        let Some(registry) = &self.registry else {
            ids.insert(id, (Meaning::Unknown, Origin::Fresh));
            return Lookup::Unknown(binding(Origin::Fresh, None));
        };
        ids.insert(id, (Meaning::Asked, Origin::Fresh));
        drop(ids);
        registry.asked.push(id).expect("the mailbox holds as many ids as there may be, and each is asked once");
        if let Some(waker) = &*lock(&registry.waker) {
            waker.wake();
        }
        Lookup::Asked
    }

    /// Takes in what was bound: from now on the ids mean that.
    ///
    /// # Errors
    /// When the text of a bound schema is missing or differs from its hash, or an id was bound to something else already.
    pub fn bind(&self, schemas: &[SchemaBinding]) -> Result<()> {
        for schema in schemas.iter().filter(|schema| schema.source == self.source) {
            let known = match lock(&self.ids).get(&schema.id) {
                Some((Meaning::Known(_, hash), _)) => Some(Some(*hash)),
                Some((Meaning::Unknown, _)) => Some(None),
                _ => None,
            };
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
            lock(&self.ids).insert(schema.id, (meaning, Origin::Bound));
        }
        Ok(())
    }

    fn answer(&self, id: u32, meaning: Meaning) {
        // What was bound meanwhile stands.
        let mut ids = lock(&self.ids);
        if matches!(ids.get(&id), Some((Meaning::Asked, _))) {
            ids.insert(id, (meaning, Origin::Fresh));
        }
        drop(ids);
        lock(&self.wakers).iter().for_each(Waker::wake);
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
    /// Asks once; the pause before the next attempt, or `None` when the id has its meaning. Fails when the answer could not be kept.
    fn ask(&self, schemas: &Schemas, id: u32, question: &mut Question) -> Result<Option<Duration>> {
        let next = match self.client.get(id) {
            Ok(Answer::Text(text)) => {
                let hash = schemas.store.put(&text)?;
                schemas.answer(id, Meaning::Known(text.into(), hash));
                return Ok(None);
            }
            Ok(Answer::TooLarge) => Next::Unknown,
            Ok(Answer::NotFound) => question.not_found(self.clock.monotonic(), self.grace),
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
                schemas.answer(id, Meaning::Unknown);
                Ok(None)
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
