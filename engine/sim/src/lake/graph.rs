//! The job's graph: two tables and the pageviews as durable collections, views of every kind over them, all in one sink of tables.
//!
//! ```text
//!  items ──► rows ──┬──────────────────────────────► lake.items      (filter)
//!  sales ──► rows ──┼──────────────────────────────► lake.sales      (left join)
//!                   └─► sums by item ──────────────► lake.totals     (group, a key that may be null)
//!                            ├─────────────────────► lake.best       (top k)
//!                            └─────────────────────► lake.days       (one snapshot a day; a day that is over stands)
//!  views ──► rows ─────────────────────────────────► lake.pageviews  (no key: equal rows each count)
//!    └ no pageview ────────────────────────────────► lake.bad_views  (appended, with the epoch's clock)
//!  what can not be read ───────────────────────────► lake.dead       (likewise)
//! ```
//!
//! What `jobs/lakehouse.rs` composes through the facade, which cannot be linked here, is composed here from the same parts.

use dataflow_connectors::decode::raw::RawDecoder;
use dataflow_connectors::envelope::CaseChangeDecoder;
use dataflow_core::change::{Change, ChangeEvent, Op};
use dataflow_core::{
    Column, ColumnType, Datum, DeadLetter, Epoch, Micros, Position, RawRecord, Result, Row, Stamped, TableSchema,
};
use dataflow_operators::collection::durable_collection;
use dataflow_operators::table_row;
use dataflow_operators::view::shop::Pageview;
use dataflow_operators::view::shop::pageview::{DefectiveLine, Line, dead_pageviews, parse};
use dataflow_operators::view::{Date, TableRow, Text, View};
use dataflow_runtime::{JobScope, TableMode};
use differential_dataflow::AsCollection;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use timely::dataflow::StreamVec;
use timely::dataflow::operators::Concatenate;
use timely::dataflow::operators::vec::Map;

/// The sources, in their order.
pub(crate) const SOURCES: [&str; 3] = ["items", "sales", "views"];
/// The sink.
pub(crate) const SINK: &str = "lake";
/// The tables that are their view's rows, whatever others do to them.
pub(crate) const VIEWS: [&str; 5] = ["lake.items", "lake.pageviews", "lake.sales", "lake.totals", "lake.best"];
/// By what some tables are divided, in some runs.
pub(crate) const PARTITIONS: [(&str, &str); 4] = [
    ("lake.sales", "bucket(2, item)"),
    ("lake.totals", "item"),
    ("lake.pageviews", "channel"),
    ("lake.days", "month(date)"),
];
/// Rows of `lake.best`.
pub(crate) const BEST: usize = 3;

table_row! {
    /// A row of `items`.
    pub(crate) struct Item("items", key: id) {
        pub(crate) id: i32,
        pub(crate) name: Option<Text>,
        pub(crate) price: Option<i64>,
    }
}

table_row! {
    /// A row of `sales`.
    pub(crate) struct Sale("sales", key: id) {
        pub(crate) id: i32,
        pub(crate) item: Option<i32>,
        pub(crate) cents: Option<i64>,
    }
}

table_row! {
    /// A sale with its item's name.
    pub(crate) struct NamedSale("lake.sales", key: id) {
        pub(crate) id: i32,
        pub(crate) item: Option<i32>,
        pub(crate) name: Option<Text>,
        pub(crate) cents: Option<i64>,
    }
}

table_row! {
    /// What an item brought.
    pub(crate) struct Total("lake.totals", key: item) {
        pub(crate) item: Option<i32>,
        pub(crate) sales: i64,
        pub(crate) cents: i64,
    }
}

table_row! {
    /// An item that brought the most.
    pub(crate) struct Best("lake.best", key: rank) {
        pub(crate) rank: i32,
        pub(crate) item: Option<i32>,
        pub(crate) cents: i64,
    }
}

table_row! {
    /// What an item had brought at the end of a day.
    pub(crate) struct DayTotal("lake.days", key: date, item) {
        pub(crate) date: Date,
        pub(crate) item: Option<i32>,
        pub(crate) cents: i64,
    }
}

table_row! {
    /// A record that can not be read.
    pub(crate) struct Dead("lake.dead") {
        pub(crate) at: Micros,
        pub(crate) place: Text,
    }
}

/// The tables of the sink with their shapes.
pub(crate) fn tables() -> BTreeMap<&'static str, TableSchema> {
    BTreeMap::from([
        ("lake.items", Item::schema()),
        ("lake.pageviews", Pageview::schema()),
        ("lake.bad_views", dataflow_operators::view::shop::pageview::DeadPageview::schema()),
        (NamedSale::TABLE, NamedSale::schema()),
        (Total::TABLE, Total::schema()),
        (Best::TABLE, Best::schema()),
        (DayTotal::TABLE, DayTotal::schema()),
        (Dead::TABLE, Dead::schema()),
    ])
}

/// Builds the graph on one worker.
pub(crate) fn build(job: &mut JobScope<'_>) -> Result<()> {
    let changes = |name: &str, schema| CaseChangeDecoder::new(name, schema).map(Box::new);
    let (items, dead_items) = job.source(SOURCES[0], changes(SOURCES[0], Item::schema())?)?;
    let (sales, dead_sales) = job.source(SOURCES[1], changes(SOURCES[1], Sale::schema())?)?;
    let (lines, dead_lines) = job.source(SOURCES[2], Box::new(RawDecoder))?;
    let clock = job.clock();

    let items = current::<Item>(job, items)?;
    let sales = current::<Sale>(job, sales)?;
    let (pageviews, refused) = pageviews(job, lines)?;
    let names = items.index(|item| (item.id, item.name));
    let totals = sales.clone().named("totals").group(
        |sale| sale.item,
        |sale| [sale.cents.unwrap_or(0).into()],
        |item, sums| Total { item: *item, sales: sums.rows, cents: sums.of[0] as i64 },
    );
    let best = totals.clone().named("best").top_k(
        BEST,
        |total| (Reverse(total.cents), total.item),
        |rank, total| Best { rank, item: total.item, cents: total.cents },
    );
    let days = totals.clone().named("days").daily_snapshot(&clock, |date, total| DayTotal {
        date,
        item: total.item,
        cents: total.cents,
    });
    let named = sales.left_join(
        |sale| sale.item,
        &names,
        |sale, name| NamedSale { id: sale.id, item: sale.item, name: name.cloned().flatten(), cents: sale.cents },
    );
    let dead = dead_records(job, [dead_items, dead_sales, dead_lines]);
    let dead = dead.ingested(&clock, |at, place| Dead { at, place });

    write(job, "lake.items", TableMode::Upsert, items.filter(|item| item.price.is_some_and(|price| price > 0)))?;
    write(job, "lake.pageviews", TableMode::Upsert, pageviews)?;
    write(job, "lake.bad_views", TableMode::Append, dead_pageviews(&refused, &clock))?;
    write(job, NamedSale::TABLE, TableMode::Upsert, named)?;
    write(job, Total::TABLE, TableMode::Upsert, totals)?;
    write(job, Best::TABLE, TableMode::Upsert, best)?;
    write(job, DayTotal::TABLE, TableMode::History, days.rows)?;
    write(job, Dead::TABLE, TableMode::Append, dead)
}

fn write<'s, R: TableRow>(job: &mut JobScope<'s>, table: &str, mode: TableMode, view: View<'s, R>) -> Result<()> {
    job.write_table(SINK, table, R::schema(), mode, view.map(R::into_row).into_collection().inner)
}

/// The current rows of a table.
fn current<'s, R: TableRow>(
    job: &mut JobScope<'s>,
    events: StreamVec<'s, Epoch, Stamped<ChangeEvent>>,
) -> Result<View<'s, R>> {
    let rows = durable_collection(job, R::TABLE, &R::schema(), events)?;
    View::of_table(&R::schema(), rows.as_collection())
}

/// Lines that are no pageviews, with their places.
type Refused<'s> = View<'s, (Text, DefectiveLine)>;

/// The pageviews so far, and the lines that are none.
fn pageviews<'s>(
    job: &mut JobScope<'s>,
    lines: StreamVec<'s, Epoch, Stamped<RawRecord>>,
) -> Result<(View<'s, Pageview>, Refused<'s>)> {
    let name_of = names(job);
    let parsed = lines.map(|line| (line.position, line.time, parse(&line.data.value)));
    let facts = parsed.clone().flat_map(|(position, time, line)| match line {
        Line::Pageview(view) => Some(fact(position, time, view.into_row())),
        Line::Blank | Line::Defective(_) => None,
    });
    let refused = with_epochs(parsed.flat_map(move |(position, _, line)| match line {
        Line::Defective(line) => Some((name_of(position), line)),
        Line::Blank | Line::Pageview(_) => None,
    }));
    let place = ["_source", "_partition", "_offset"];
    let place = place.map(|name| Column { name: name.to_owned(), kind: ColumnType::Long, is_nullable: false });
    let columns = place.into_iter().chain(Pageview::schema().columns).collect();
    let schema = TableSchema { columns, key: vec![0, 1, 2] };
    let rows = durable_collection(job, "views", &schema, facts)?;
    Ok((View::of_table(&schema, rows.as_collection())?, View::new("views", refused.as_collection())))
}

/// A pageview as a change of a table whose key is where it stood.
fn fact(position: Position, time: Micros, row: Row) -> Stamped<ChangeEvent> {
    let place = [position.partition.source.0.into(), position.partition.index.into(), position.offset as i64];
    let key: Row = place.iter().map(|n| Datum::Long(*n)).collect();
    let row = Some(key.0.iter().chain(row.0.iter()).cloned().collect());
    let (position_in_log, replaces, transaction) = (None, None, None);
    let (op, unavailable) = (Op::Create, Vec::new());
    let change = Change { op, position: position_in_log, key, row, unavailable, replaces, transaction };
    Stamped { time, position, data: ChangeEvent::Change(change) }
}

/// The places of what can not be read.
fn dead_records<'s>(job: &mut JobScope<'s>, dead: [StreamVec<'s, Epoch, DeadLetter>; 3]) -> View<'s, Text> {
    let name_of = names(job);
    let dead = job.scope().concatenate(dead);
    let places = dead.map(move |letter| (name_of(letter.position), letter.epoch, 1));
    View::new("dead", places.as_collection())
}

/// How a place is written: `source/partition@offset`.
fn names(job: &JobScope<'_>) -> impl Fn(Position) -> Text + use<> {
    let plan = job.plan().clone();
    move |at: Position| format!("{}@{}", plan.partition_name(at.partition), at.offset).into()
}

/// Each item once, in the epoch that brings it.
fn with_epochs<D: Clone + 'static>(items: StreamVec<'_, Epoch, D>) -> StreamVec<'_, Epoch, (D, Epoch, isize)> {
    use timely::container::CapacityContainerBuilder;
    use timely::dataflow::channels::pact::Pipeline;
    use timely::dataflow::operators::Operator;
    items.unary::<CapacityContainerBuilder<Vec<_>>, _, _, _>(Pipeline, "WithEpochs", |_, _| {
        |input, output| {
            input.for_each(|stamp, batch| {
                let epoch = *stamp.least().expect("records are stamped with their epoch");
                output.session(&stamp).give_iterator(batch.drain(..).map(|item| (item, epoch, 1)));
            });
        }
    })
}
