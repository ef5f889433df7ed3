//! A shop: its database's changes and its visitors' pageviews, as one story.
//!
//! ```text
//! snapshot: users, items, purchases as they are when the story begins (op r)
//! round r, a pure function of settings and r; each has the same number of events of each feed
//!    catalog -> one transaction: prices, stock, names, the sale's begin and end, new items      first in the round
//!    orders  -> 12 purchases, each at the end of the session that led to it
//!    orders  -> what becomes of earlier ones: shipped; delivered, returned, cancelled (a delete)
//!    people  -> sign-ups, changes of name and address, one erasure (its purchase loses its user)
//!    visits  -> the pages of those sessions and of others, late and malformed lines among them
//! ```
//!
//! Because rounds are alike, the round of any offset is known without those before it, and so is every row: what is changed in turn
//! ([`rota`]) has been changed so and so often by then. So a feed can be read again from any offset, alone, and is always the same.
//! Everything refers to rows that are there, as foreign keys ask; pageviews may name what nobody knows.

mod catalog;
mod orders;
mod people;
mod popularity;
mod rota;
mod round;
mod row;
mod settings;
mod visits;

pub use row::{Change, Item, Op, Purchase, Row, User};
pub use settings::Settings;

use dataflow_core::{Micros, Result};
use orders::HISTORY;
use popularity::Popularity;
use rota::Rota;
use std::collections::VecDeque;

/// Log position of the snapshot.
const SNAPSHOT_LSN: u64 = 24_000_000;
/// Between the log positions of two transactions.
const LSN_STEP: u64 = 64;

/// One of the four streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Feed {
    /// Changes of `users`.
    Users,
    /// Changes of `items`.
    Items,
    /// Changes of `purchases`.
    Purchases,
    /// Lines of pageviews.
    Pageviews,
}

impl Feed {
    /// All of them: the tables in the order in which their foreign keys ask for them.
    pub const ALL: [Feed; 4] = [Feed::Users, Feed::Items, Feed::Purchases, Feed::Pageviews];

    /// Its name: that of the table, or `pageviews`.
    pub fn name(self) -> &'static str {
        match self {
            Feed::Users => "users",
            Feed::Items => "items",
            Feed::Purchases => "purchases",
            Feed::Pageviews => "pageviews",
        }
    }

    /// Events in a round.
    fn of_a_round(self) -> u64 {
        match self {
            Feed::Users => people::CHANGES,
            Feed::Items => catalog::CHANGES,
            Feed::Purchases => orders::CHANGES,
            Feed::Pageviews => visits::PAGEVIEWS,
        }
    }
}

/// Events in a round, of all feeds.
const ROUND: u64 = people::CHANGES + catalog::CHANGES + orders::CHANGES + visits::PAGEVIEWS;

/// Something that happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// When, in microseconds since the story's beginning.
    pub due_us: u64,
    /// What.
    pub event: Event,
}

/// What happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A transaction of the database.
    Transaction(Vec<Change>),
    /// A line of the pageviews, without its end.
    Pageview(Vec<u8>),
}

impl Event {
    /// How many events of a feed it is.
    pub fn count(&self, feed: Feed) -> u64 {
        match self {
            Event::Transaction(changes) => changes.iter().filter(|change| change.feed() == feed).count() as u64,
            Event::Pageview(_) => u64::from(feed == Feed::Pageviews),
        }
    }
}

/// A record of a feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShopRecord {
    /// When, in microseconds since the story's beginning.
    pub due_us: u64,
    /// A change as a line of `oneshop.ndjson`, or a line of pageviews.
    pub value: Vec<u8>,
}

/// The story that some settings stand for.
#[derive(Clone, Debug)]
pub struct Shop {
    settings: Settings,
    round_us: u64,
    /// Who comes, the most active first, and what is looked at.
    visitors: Popularity,
    demand: Popularity,
    profiles: Rota,
    prices: Rota,
    stock: Rota,
    labels: Rota,
    /// The ids of the purchases in the snapshot.
    past: Vec<u64>,
    /// Events of each feed, in the order of [`Feed::ALL`].
    lengths: Option<[u64; 4]>,
}

impl Shop {
    /// Prepares the story; `O(users + items)`.
    ///
    /// # Errors
    /// Settings out of their bounds.
    pub fn new(settings: Settings) -> Result<Shop> {
        settings.check()?;
        let (users, items) = (settings.users, settings.items);
        let mut shop = Shop {
            round_us: ((ROUND as f64 * 1e6 / settings.rate) as u64).max(ROUND),
            visitors: Popularity::new(users),
            demand: Popularity::new(items),
            profiles: Rota::new(users, 1),
            prices: Rota::new(items, 1),
            stock: Rota::new(items, 2),
            labels: Rota::new(items, 3),
            past: Vec::new(),
            lengths: None,
            settings,
        };
        shop.past =
            (0..HISTORY * orders::ORDERS).filter(|past| shop.is_in_snapshot(*past)).map(|past| past + 1).collect();
        shop.lengths = shop.settings.events.map(|events| shop.lengths_of(events));
        Ok(shop)
    }

    /// What it was made from.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// How many records a feed has in all; `None`: without end.
    pub fn length(&self, feed: Feed) -> Option<u64> {
        self.lengths.map(|lengths| lengths[feed as usize])
    }

    /// The rows that are there when the story begins.
    pub fn snapshot(&self) -> impl Iterator<Item = Change> + '_ {
        Feed::ALL
            .into_iter()
            .flat_map(move |feed| (0..self.snapshot_length(feed)).map(move |at| self.snapshot_row(feed, at)))
    }

    /// What happens after the snapshot, in order; a transaction is never cut by the end.
    pub fn steps(&self) -> impl Iterator<Item = Step> + '_ {
        let (mut ready, mut next, mut told) = (VecDeque::new(), 0, 0);
        std::iter::from_fn(move || {
            if self.settings.events.is_some_and(|events| told >= events) {
                return None;
            }
            if ready.is_empty() {
                ready.extend(round::steps(self, next));
                next += 1;
            }
            let step: Step = ready.pop_front()?;
            told += Feed::ALL.map(|feed| step.event.count(feed)).iter().sum::<u64>();
            Some(step)
        })
    }

    /// `count` records of a feed from offset `first`, also past its length.
    pub fn records(&self, feed: Feed, first: u64, count: u64) -> Vec<ShopRecord> {
        let snapshot = self.snapshot_length(feed);
        let end = first + count;
        let of_snapshot = (first.min(snapshot)..end.min(snapshot)).map(|at| self.snapshot_row(feed, at));
        let mut records: Vec<ShopRecord> =
            of_snapshot.map(|change| ShopRecord { due_us: 0, value: change.line() }).collect();
        let (first, end) = (first.max(snapshot) - snapshot, end.max(snapshot) - snapshot);
        let size = feed.of_a_round();
        for number in first / size..end.div_ceil(size) {
            let made = round::steps(self, number).into_iter().flat_map(|step| lines(step, feed));
            let within = (number * size..).zip(made);
            records.extend(within.filter(|(at, _)| (first..end).contains(at)).map(|(_, record)| record));
        }
        records
    }

    fn snapshot_length(&self, feed: Feed) -> u64 {
        match feed {
            Feed::Users => self.settings.users + HISTORY * people::SIGN_UPS,
            Feed::Items => self.settings.items,
            Feed::Purchases => self.past.len() as u64,
            Feed::Pageviews => 0,
        }
    }

    fn snapshot_row(&self, feed: Feed, at: u64) -> Change {
        let row = match feed {
            Feed::Users => Row::User(self.user_at_first(at + 1)),
            Feed::Items => Row::Item(self.item_at_first(at + 1)),
            Feed::Purchases => Row::Purchase(self.purchase_at_first(self.past[at as usize])),
            Feed::Pageviews => unreachable!("the snapshot is of tables"),
        };
        Change { op: Op::Read, row, lsn: SNAPSHOT_LSN, at: self.settings.start }
    }

    fn lengths_of(&self, events: u64) -> [u64; 4] {
        let whole = events / ROUND;
        let mut lengths = Feed::ALL.map(|feed| self.snapshot_length(feed) + whole * feed.of_a_round());
        let mut told = whole * ROUND;
        for step in round::steps(self, whole) {
            if told >= events {
                break;
            }
            for feed in Feed::ALL {
                lengths[feed as usize] += step.event.count(feed);
                told += step.event.count(feed);
            }
        }
        lengths
    }

    /// The instant at `part / parts` of a round, since the beginning.
    fn due_us(&self, round: u64, part: u64, parts: u64) -> u64 {
        round * self.round_us + (u128::from(self.round_us) * u128::from(part) / u128::from(parts)) as u64
    }

    fn time(&self, due_us: u64) -> Micros {
        self.settings.start.plus(i64::try_from(due_us).unwrap_or(i64::MAX))
    }
}

/// The records of a feed in a step.
fn lines(step: Step, feed: Feed) -> Vec<ShopRecord> {
    let due_us = step.due_us;
    let record = |value| ShopRecord { due_us, value };
    match step.event {
        Event::Transaction(changes) => {
            changes.iter().filter(|change| change.feed() == feed).map(|change| record(change.line())).collect()
        }
        Event::Pageview(line) if feed == Feed::Pageviews => vec![record(line)],
        Event::Pageview(_) => Vec::new(),
    }
}
