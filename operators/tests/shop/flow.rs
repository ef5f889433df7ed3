//! The views run over a case by timely alone, with any number of workers, and what they say.

use crate::feed::{Feed, TABLES, schema};
use dataflow_core::{ColumnType, Datum, Epoch, Micros, Row, TableSchema};
use dataflow_operators::view::shop::*;
use dataflow_operators::view::{ClosedDay, Date, TableRow, View};
use differential_dataflow::AsCollection;
use serde_json::{Map, Value, json};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use timely::dataflow::operators::vec::Input;
use timely::dataflow::operators::{Inspect, Probe};
use timely::dataflow::{InputHandleVec, ProbeHandle, StreamVec};

/// Epochs that are open at once, so that messages hold several.
const OPEN_EPOCHS: usize = 5;

/// The changes of an epoch.
pub(crate) type Batch = (Epoch, Vec<(Row, isize)>);

/// What the views of a run said.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Said {
    /// The batches of each table, in order.
    pub(crate) changes: BTreeMap<&'static str, Vec<Batch>>,
    /// The days that closed.
    pub(crate) closed: Vec<(Epoch, ClosedDay)>,
    /// Purchases whose total does not fit, at the end.
    pub(crate) misfits: isize,
}

/// The schemas of all views by name.
pub(crate) fn schemas() -> BTreeMap<&'static str, TableSchema> {
    fn of<R: TableRow>() -> (&'static str, TableSchema) {
        (R::TABLE, R::schema())
    }
    BTreeMap::from([
        of::<SilverUser>(),
        of::<SilverItem>(),
        of::<PurchaseEnriched>(),
        of::<PageviewByItem>(),
        of::<TopSellingItem>(),
        of::<SalesByHour>(),
        of::<TopConvertingItem>(),
        of::<PageviewsByChannel>(),
        of::<UserEngagement>(),
    ])
}

/// Runs the views over `feeds`.
pub(crate) fn run(feeds: &[Feed], workers: usize) -> Said {
    let feeds = feeds.to_vec();
    let guards = timely::execute(timely::Config::process(workers), move |worker| {
        let (index, peers) = (worker.index(), worker.peers());
        let mut inputs: [InputHandleVec<Epoch, (Row, Epoch, isize)>; 4] = Default::default();
        let mut clock = InputHandleVec::<Epoch, (Epoch, Micros)>::new();
        let (said, probe) = (Rc::new(RefCell::new(Said::default())), ProbeHandle::new());
        worker.dataflow::<Epoch, _, _>(|scope| {
            let [users, items, purchases, pageviews] =
                inputs.each_mut().map(|input| scope.input_from(input).as_collection());
            let tables = ShopTables {
                users: View::of_table(&schema(TABLES[0]), users).unwrap(),
                items: View::of_table(&schema(TABLES[1]), items).unwrap(),
                purchases: View::of_table(&schema(TABLES[2]), purchases).unwrap(),
                pageviews: View::of_table(&schema(TABLES[3]), pageviews).unwrap(),
                clock: scope.input_from(&mut clock),
            };
            record(shop_views(&tables), &said, &probe);
        });
        for (at, feed) in feeds.iter().enumerate() {
            clock.send((feed.epoch, feed.clock));
            for (input, changes) in inputs.iter_mut().zip(&feed.changes) {
                let mine = changes.iter().enumerate().filter(|(at, _)| at % peers == index);
                mine.for_each(|(_, (row, diff))| input.send((row.clone(), feed.epoch, *diff)));
                input.advance_to(feed.epoch + 1);
            }
            clock.advance_to(feed.epoch + 1);
            if at % OPEN_EPOCHS == OPEN_EPOCHS - 1 {
                worker.step_while(|| probe.less_than(clock.time()));
            }
        }
        drop((inputs, clock));
        while worker.step_or_park(None) {}
        said.take()
    });
    let said: Vec<Said> = guards.unwrap().join().into_iter().map(|said| said.unwrap()).collect();
    assert!(said[1..].iter().all(|other| other.changes.is_empty() && other.closed.is_empty()), "worker 0 says all");
    let misfits = said.iter().map(|said| said.misfits).sum();
    Said { misfits, ..said.into_iter().next().unwrap() }
}

fn record(views: ShopViews<'_>, said: &Rc<RefCell<Said>>, probe: &ProbeHandle<Epoch>) {
    fn one<R: TableRow + Clone>(view: View<'_, R>, said: &Rc<RefCell<Said>>, probe: &ProbeHandle<Epoch>) {
        let said = said.clone();
        each_batch(view.changes(), probe, move |epoch, batch| {
            said.borrow_mut().changes.entry(R::TABLE).or_default().push((epoch, batch.to_vec()));
        });
    }
    one(views.users, said, probe);
    one(views.items, said, probe);
    one(views.purchases_enriched, said, probe);
    one(views.pageviews_by_items, said, probe);
    one(views.top_selling_items, said, probe);
    one(views.sales_performance_24h, said, probe);
    one(views.top_converting_items, said, probe);
    one(views.pageviews_by_channel, said, probe);
    one(views.user_engagement_segments, said, probe);
    let closed = said.clone();
    each_batch(views.closed_days, probe, move |epoch, days| {
        closed.borrow_mut().closed.extend(days.iter().map(|day| (epoch, day.clone())));
    });
    let misfits = said.clone();
    let ids = views.totals_that_do_not_fit.into_collection().inner;
    each_batch(ids, probe, move |_, ids| {
        misfits.borrow_mut().misfits += ids.iter().map(|(_, _, diff)| diff).sum::<isize>()
    });
}

fn each_batch<D: Clone + 'static>(
    stream: StreamVec<'_, Epoch, D>,
    probe: &ProbeHandle<Epoch>,
    mut seen: impl FnMut(Epoch, &[D]) + 'static,
) {
    let inspected = stream.inspect_core(move |event| {
        if let Ok((stamp, batch)) = event {
            seen(*stamp.least().unwrap(), batch);
        }
    });
    inspected.probe_with(probe);
}

/// A row as the expected files write it.
pub(crate) fn json_of(schema: &TableSchema, row: &Row) -> Value {
    schema.check(row).unwrap();
    let value = |(at, datum): (usize, &Datum)| {
        let value = match datum {
            Datum::Null => Value::Null,
            Datum::Boolean(value) => json!(value),
            Datum::Int(value) => json!(value),
            Datum::Long(value) => json!(value),
            Datum::Double(value) => json!(value.0),
            Datum::Decimal(value) => {
                let ColumnType::Decimal { scale: 2, .. } = schema.columns[at].kind else { panic!("no amount") };
                let digits = format!("{:03}", value.abs());
                let (whole, part) = digits.split_at(digits.len() - 2);
                json!(format!("{}{whole}.{part}", if *value < 0 { "-" } else { "" }))
            }
            Datum::Date(days) => json!(Date(*days).to_string()),
            Datum::Timestamp(at) => json!(at.to_string()),
            Datum::Text(text) => json!(text),
            Datum::Bytes(_) => panic!("no view has bytes"),
        };
        (schema.columns[at].name.clone(), value)
    };
    row.0.iter().enumerate().map(value).collect::<Map<_, _>>().into()
}
