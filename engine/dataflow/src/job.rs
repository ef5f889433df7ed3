//! A job as its author sees it: named inputs, parameters, and topics to write to.

use crate::wiring::{Decoders, Topics};
use dataflow_core::{DeadLetter, Epoch, Error, EventTime, OutputRow, Result, Stamped, TopicId};
use dataflow_runtime::job::JobScope;
use serde::{Serialize, de::DeserializeOwned};
use std::collections::BTreeSet;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Operator;

/// A job file: what [`crate::main`] is given.
pub struct JobFile {
    /// The job's name: its data folder and its ids in outside systems carry it.
    pub name: &'static str,
    /// The file's text (`include_str!`), for the fingerprint.
    pub source: &'static str,
    /// Builds the graph, the same on every worker.
    pub build: fn(&mut Job<'_, '_>) -> Result<()>,
}

/// What the profile says that the graph needs.
#[derive(Clone)]
pub(crate) struct JobWiring {
    pub(crate) params: toml::Table,
    pub(crate) topics: Topics,
    pub(crate) decoders: Arc<Decoders>,
    /// What the graph asked for while it was built.
    pub(crate) asked: Arc<Mutex<Asked>>,
}

/// Names that a job's build function used.
#[derive(Default)]
pub(crate) struct Asked {
    pub(crate) params: BTreeSet<String>,
    pub(crate) sources: BTreeSet<String>,
    pub(crate) topics: BTreeSet<String>,
}

/// The scope of a job under construction, on one worker.
pub struct Job<'a, 's> {
    scope: &'a mut JobScope<'s>,
    wiring: &'a JobWiring,
}

/// A source's records and what of it could not be read.
pub struct Input<'s, T: Clone + 'static> {
    /// Records with their event times, late ones among them.
    pub records: StreamVec<'s, Epoch, Stamped<T>>,
    /// Records without a usable content or time.
    pub dead: StreamVec<'s, Epoch, DeadLetter>,
}

impl<'a, 's> Job<'a, 's> {
    pub(crate) fn new(scope: &'a mut JobScope<'s>, wiring: &'a JobWiring) -> Job<'a, 's> {
        Job { scope, wiring }
    }

    /// A parameter of the settings, which `--set name=value` changes.
    ///
    /// # Errors
    /// When it is missing or no `T`.
    pub fn param<T: DeserializeOwned>(&self, name: &str) -> Result<T> {
        self.asked(|asked| &mut asked.params, name);
        let params = &self.wiring.params;
        let value = params.get(name).ok_or_else(|| {
            let given = params.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            Error::user(format!("reading parameter '{name}', which the job asks for: [params] does not set it"))
                .hint(format!("set it there; what it sets now: {given}"))
        })?;
        let text = value.to_string();
        value.clone().try_into().map_err(|cause: toml::de::Error| {
            Error::user(format!("reading parameter '{name}' = {text}: {}", cause.message()))
        })
    }

    /// Reads the source `name`; its records are decoded as the profile says. `schema` is the reader's Avro schema.
    ///
    /// # Errors
    /// When the profile does not wire it.
    pub fn read<T>(&mut self, name: &str, schema: &str) -> Result<Input<'s, T>>
    where
        T: EventTime + Clone + Serialize + DeserializeOwned + Send + 'static,
    {
        self.asked(|asked| &mut asked.sources, name);
        let decoder = self.wiring.decoders.open::<T>(name, schema)?;
        let (records, dead) = self.scope.source(name, decoder)?;
        Ok(Input { records, dead })
    }

    /// Writes `items` to the output topic `topic`, each as the row that `row` makes of it.
    ///
    /// # Errors
    /// When no sink of the profile takes the topic.
    pub fn write<D: Clone + 'static>(
        &mut self,
        topic: &str,
        items: StreamVec<'s, Epoch, D>,
        row: impl Fn(TopicId, &D) -> OutputRow + 'static,
    ) -> Result<()> {
        self.asked(|asked| &mut asked.topics, topic);
        let (sink, id) = self.wiring.topics.get(topic).ok_or_else(|| {
            crate::profile::unknown(
                "topic",
                topic,
                self.wiring.topics.keys().map(String::as_str),
                "no sink of the profile takes it: it",
            )
        })?;
        let id = *id;
        // Not `map`, for its name: rows of each topic are an operator of their own to whoever watches.
        let rows = items.unary::<CapacityContainerBuilder<Vec<_>>, _, _, _>(
            Pipeline,
            &format!("Rows {topic}"),
            move |_, _| {
                move |input, output| {
                    input.for_each(|stamp, batch| {
                        output.session(&stamp).give_iterator(batch.drain(..).map(|item| row(id, &item)));
                    });
                }
            },
        );
        self.scope.write(sink, rows)
    }

    fn asked(&self, of: impl FnOnce(&mut Asked) -> &mut BTreeSet<String>, name: &str) {
        of(&mut self.wiring.asked.lock().expect("no holder panics")).insert(name.to_owned());
    }
}

impl<'s> Deref for Job<'_, 's> {
    type Target = JobScope<'s>;

    fn deref(&self) -> &JobScope<'s> {
        self.scope
    }
}

impl<'s> DerefMut for Job<'_, 's> {
    fn deref_mut(&mut self) -> &mut JobScope<'s> {
        self.scope
    }
}
