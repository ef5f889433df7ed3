//! A job as its author sees it: named inputs, parameters, and topics to write to.

use crate::daily::{CountedBy, DailyFile};
use crate::wiring::{Decoders, Topics};
use dataflow_core::change::{Change, ChangeEvent, Op, TransactionBoundary};
use dataflow_core::{
    Column, ColumnType, Datum, DeadLetter, Epoch, Error, EventTime, Micros, OutputRow, Partition, Position, RawRecord,
    Result, Row, Stamped, TableSchema, TopicId,
};
use dataflow_operators::collection::durable_collection;
use dataflow_operators::table_row;
use dataflow_operators::transactions::{TableChanges, TransactionSettings, whole_transactions};
use dataflow_operators::view::{ClosedDay, EpochClock, TableRow, Text, View};
use dataflow_runtime::job::JobScope;
use dataflow_runtime::{FileOutput, TableMode};
use differential_dataflow::AsCollection;
use serde::{Serialize, de::DeserializeOwned};
use std::collections::{BTreeMap, BTreeSet};
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Operator;
use timely::dataflow::operators::core::Concatenate;
use timely::dataflow::operators::vec::Map;

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
    /// Sink by table.
    pub(crate) tables: BTreeMap<String, String>,
    /// Where each file goes.
    pub(crate) files: BTreeMap<String, FileOutput>,
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
    pub(crate) files: BTreeSet<String>,
    /// With their shapes.
    pub(crate) tables: BTreeMap<String, TableSchema>,
}

/// The scope of a job under construction, on one worker.
pub struct Job<'a, 's> {
    scope: &'a mut JobScope<'s>,
    wiring: &'a JobWiring,
    /// Of the tables and facts read so far.
    dead: Vec<StreamVec<'s, Epoch, DeadLetter>>,
}

/// A source's records and what of it could not be read.
pub struct Input<'s, T: Clone + 'static> {
    /// Records with their event times, late ones among them.
    pub records: StreamVec<'s, Epoch, Stamped<T>>,
    /// Records without a usable content or time.
    pub dead: StreamVec<'s, Epoch, DeadLetter>,
}

/// A source of a table's changes.
pub struct TableSource<'s, R> {
    name: String,
    pub(crate) schema: TableSchema,
    pub(crate) events: StreamVec<'s, Epoch, Stamped<ChangeEvent>>,
    /// What could not be read of it, for [`Job::whole_transactions`].
    dead: StreamVec<'s, Epoch, DeadLetter>,
    rows: PhantomData<fn() -> R>,
}

/// A source of some table's changes.
pub trait ChangeSource<'s> {
    /// The changes as they are, and where those that are to come in their place go.
    fn changes(&mut self) -> (TableChanges<'s>, &mut StreamVec<'s, Epoch, Stamped<ChangeEvent>>);
}

impl<'s, R> ChangeSource<'s> for TableSource<'s, R> {
    fn changes(&mut self) -> (TableChanges<'s>, &mut StreamVec<'s, Epoch, Stamped<ChangeEvent>>) {
        let (source, events, dead) = (self.name.clone(), self.events.clone(), self.dead.clone());
        (TableChanges { source, events, dead }, &mut self.events)
    }
}

/// A source of facts: rows that come and never go.
pub struct FactSource<'s, R, D: Clone + 'static> {
    pub(crate) facts: TableSource<'s, R>,
    /// Records that are none, with their places. These are not kept: they come once, in the epoch that reads them.
    pub refused: View<'s, (Text, D)>,
}

table_row! {
    /// A record that could not be read.
    pub struct DeadRecord("bronze.dead_letters") {
        /// The clock of the epoch that read it.
        pub ingestion_time: Micros,
        /// Where it stood: `source/partition@offset`.
        pub place: Text,
        /// Why it is none.
        pub reason: Text,
        /// Its key, with what is not ASCII escaped.
        pub raw_key: Option<Text>,
        /// Its value, likewise.
        pub raw_value: Option<Text>,
    }
}

/// The names of the columns in front of a fact's own: where it stood, which is its key.
pub(crate) const FACT_PLACE: [(&str, ColumnType); 3] =
    [("_source", ColumnType::Int), ("_partition", ColumnType::Long), ("_offset", ColumnType::Long)];

/// A fact's row as a collection keeps it: by its place, because equal facts each count.
fn fact_schema<R: TableRow>() -> TableSchema {
    let place = FACT_PLACE.map(|(name, kind)| Column { name: name.to_owned(), kind, is_nullable: false });
    TableSchema { columns: place.into_iter().chain(R::schema().columns).collect(), key: vec![0, 1, 2] }
}

fn fact(position: Position, time: Micros, row: Row) -> Stamped<ChangeEvent> {
    let Partition { source, index } = position.partition;
    let place = [Datum::Int(source.0.into()), Datum::Long(index.into()), Datum::Long(position.offset as i64)];
    let key = place.iter().cloned().collect();
    let row = Some(place.into_iter().chain(row.0.iter().cloned()).collect());
    let (op, unavailable) = (Op::Create, Vec::new());
    let change = Change { op, position: None, key, row, unavailable, replaces: None, transaction: None };
    Stamped { time, position, data: ChangeEvent::Change(change) }
}

impl<'a, 's> Job<'a, 's> {
    pub(crate) fn new(scope: &'a mut JobScope<'s>, wiring: &'a JobWiring) -> Job<'a, 's> {
        Job { scope, wiring, dead: Vec::new() }
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

    /// Reads the changes of a table from the source `name`; [`Job::current`] keeps its rows.
    ///
    /// # Errors
    /// When the profile does not wire it, or an operator was built already: sources come first.
    pub fn read_table<R: TableRow>(&mut self, name: &str) -> Result<TableSource<'s, R>> {
        self.asked(|asked| &mut asked.sources, name);
        let schema = R::schema();
        let decoder = self.wiring.decoders.open_changes(name, &schema)?;
        let (events, dead) = self.scope.source(name, decoder)?;
        self.dead.push(dead.clone());
        Ok(TableSource { name: name.to_owned(), schema, events, dead, rows: PhantomData })
    }

    /// Lets no epoch show a part of a source transaction, in whichever of `tables`: their changes come once all of a transaction's have come.
    /// Its ends are read from the source `name`; where the profile wires none of that name, changes come as they are read. To be called when
    /// all other sources are read.
    ///
    /// # Errors
    /// When the source's format does not suit, or the state can not be restored.
    pub fn whole_transactions(
        &mut self,
        name: &str,
        settings: TransactionSettings,
        tables: &mut [&mut dyn ChangeSource<'s>],
    ) -> Result<()> {
        if !self.wiring.decoders.has(name) {
            return Ok(());
        }
        let Input { records, dead } = self.read::<TransactionBoundary>(name, TransactionBoundary::SCHEMA)?;
        self.dead.push(dead);
        let (changes, places): (Vec<_>, Vec<_>) = tables.iter_mut().map(|table| table.changes()).unzip();
        let whole = whole_transactions(self.scope, settings, records, changes)?;
        places.into_iter().zip(whole).for_each(|(place, events)| *place = events);
        Ok(())
    }

    /// The current rows of a table that is read. What can not be read goes to [`Job::dead_letters`].
    ///
    /// # Errors
    /// When `R` has no key, or its state can not be restored.
    pub fn current<R: TableRow>(&mut self, source: TableSource<'s, R>) -> Result<View<'s, R>> {
        let TableSource { schema, events, .. } = source;
        let rows = durable_collection(self.scope, R::TABLE, &schema, events)?;
        View::of_table(&schema, rows.as_collection())
    }

    /// Reads the source `name`, whose records `parse` makes rows of; [`Job::all`] keeps them. A record may be nothing, or what `parse`
    /// refuses, which comes back with its place (`source/partition@offset`, or `object@offset` of a source of objects).
    ///
    /// # Errors
    /// When the profile does not wire it, or an operator was built already: sources come first.
    pub fn read_facts<R, D>(
        &mut self,
        name: &str,
        parse: impl Fn(&[u8]) -> Result<Option<R>, D> + 'static,
    ) -> Result<FactSource<'s, R, D>>
    where
        R: TableRow,
        D: differential_dataflow::ExchangeData,
    {
        self.asked(|asked| &mut asked.sources, name);
        let decoder = self.wiring.decoders.open_raw(name)?;
        let (records, dead) = self.scope.source(name, decoder)?;
        let place_of = {
            let plan = self.scope.plan().clone();
            move |(position, object): (Position, Option<bytes::Bytes>)| match object {
                Some(object) => format!("{}@{}", String::from_utf8_lossy(&object), position.offset),
                None => format!("{}@{}", plan.partition_name(position.partition), position.offset),
            }
        };
        self.dead.push(dead.clone());
        let parsed = records.map(move |record| {
            let RawRecord { key, value } = record.data;
            ((record.position, key), record.time, parse(&value))
        });
        let refused = parsed.clone().unary::<CapacityContainerBuilder<Vec<_>>, _, _, _>(
            Pipeline,
            &format!("Refused {name}"),
            move |_, _| {
                move |input, output| {
                    input.for_each(|stamp, batch| {
                        let epoch = *stamp.least().expect("records are stamped with their epoch");
                        let refused = batch.drain(..).filter_map(|(place, _, parsed)| Some((place, parsed.err()?)));
                        let rows = refused.map(|(place, why)| ((place_of(place).into(), why), epoch, 1));
                        output.session(&stamp).give_iterator(rows);
                    });
                }
            },
        );
        let events =
            parsed.flat_map(|((position, _), time, parsed)| Some(fact(position, time, parsed.ok()??.into_row())));
        let (name, schema) = (name.to_owned(), fact_schema::<R>());
        let facts = TableSource { name: name.clone(), schema, events, dead, rows: PhantomData };
        Ok(FactSource { facts, refused: View::new(&name, refused.as_collection()) })
    }

    /// All rows that a source of facts has brought: each record once, so as often as the row came.
    ///
    /// # Errors
    /// When the state can not be restored.
    pub fn all<R: TableRow, D: Clone + 'static>(&mut self, source: FactSource<'s, R, D>) -> Result<View<'s, R>> {
        self.current(source.facts)
    }

    /// What could not be read of the tables and facts that the job has asked for up to here, as rows of a table.
    pub fn dead_letters(&mut self, clock: &EpochClock<'s>) -> View<'s, DeadRecord> {
        let plan = self.scope.plan().clone();
        let dead = self.scope.scope().concatenate(std::mem::take(&mut self.dead));
        let rows = dead.map(move |letter| {
            let place = format!("{}@{}", plan.partition_name(letter.position.partition), letter.position.offset);
            let bytes = |bytes: Option<bytes::Bytes>| bytes.map(|bytes| bytes.to_vec());
            let letter_of = (Text::from(place), Text::from(letter.reason), bytes(letter.key), bytes(letter.raw));
            (letter_of, letter.epoch, 1)
        });
        View::new(DeadRecord::TABLE, rows.as_collection()).ingested(clock, |now, (place, reason, key, raw)| {
            DeadRecord {
                ingestion_time: now,
                place,
                reason,
                raw_key: key.map(|key| key.escape_ascii().to_string().into()),
                raw_value: raw.map(|raw| raw.escape_ascii().to_string().into()),
            }
        })
    }

    /// Shows how many rows `view` has, under this name, to whoever watches the job.
    pub fn count_rows<R: Clone + 'static>(&mut self, name: &str, view: View<'s, R>) {
        let (control, name) = (self.scope.plan().control.clone(), name.to_owned());
        view.into_collection().inner.sink(Pipeline, &format!("Rows of {name}"), move |(input, _)| {
            input.for_each(|_, batch| {
                control.status.count_rows(&name, batch.drain(..).map(|(_, _, diff)| diff as i64).sum());
            });
        });
    }

    /// Keeps `table` as the rows of `view`.
    ///
    /// # Errors
    /// When no sink of the profile takes the table.
    pub fn write_table<R: TableRow>(&mut self, view: View<'s, R>) -> Result<()> {
        let mode = if view.is_history() { TableMode::History } else { TableMode::Upsert };
        self.keep_table(R::TABLE, R::schema(), mode, view.map(R::into_row))
    }

    /// Appends the rows of `view`, none of which ever goes, to its table. No state grows with the table.
    ///
    /// # Errors
    /// When no sink of the profile takes the table.
    pub fn append_table<R: TableRow>(&mut self, view: View<'s, R>) -> Result<()> {
        self.keep_table(R::TABLE, R::schema(), TableMode::Append, view.map(R::into_row))
    }

    /// Has `rows` written to `table`.
    pub(crate) fn keep_table(
        &mut self,
        table: &str,
        schema: TableSchema,
        mode: TableMode,
        rows: View<'s, Row>,
    ) -> Result<()> {
        self.wiring.asked.lock().expect("no holder panics").tables.insert(table.to_owned(), schema.clone());
        let sink = self.wiring.tables.get(table).ok_or_else(|| {
            let known = self.wiring.tables.keys().map(String::as_str);
            crate::profile::unknown("table", table, known, "no sink of the profile takes it: it")
        })?;
        self.scope.write_table(sink, table, schema, mode, rows.into_collection().inner)
    }

    /// Writes the rows of each day that closes to the CSV file `<file>_<date>.csv`, with the columns of `R`. The file is a function of the
    /// day's last epoch, so a replay writes it again as it was. Where the profile has a mail server, one mail names the file and its counts.
    ///
    /// # Errors
    /// When no sink of the profile takes the file, or `R` does not have the column that is counted.
    pub fn write_daily_csv<R: TableRow>(
        &mut self,
        file: &str,
        days: StreamVec<'s, Epoch, ClosedDay>,
        counted: CountedBy,
    ) -> Result<()> {
        self.asked(|asked| &mut asked.files, file);
        let output = self.wiring.files.get(file).ok_or_else(|| {
            let known = self.wiring.files.keys().map(String::as_str);
            crate::profile::unknown("file", file, known, "no sink of the profile takes it: it")
        })?;
        let plan = self.scope.plan();
        let (control, sink) = (plan.control.clone(), output.sink.clone());
        let daily = DailyFile::new(file, R::schema(), counted, format!("{}.{}", plan.name, plan.lineage))?;
        let files = days.flat_map(move |day| {
            let made = daily.of(&day, |name| sink.location(name));
            made.map_err(|error| control.fail(error)).ok()
        });
        self.scope.write_files(output, files);
        Ok(())
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
