//! `loadgen shop`: what the command line says, and the targets that it names.

use crate::{Machine, Output, instant, stop_on_signals};
use clap::Args;
use dataflow_core::{Clock, Error, Micros, Result};
use dataflow_loadgen::output::shop::{
    Target, Telling, Told, folder::Folder, objects::Objects, postgres::Postgres, tell,
};
use dataflow_loadgen::shop::{Feed, Settings, Shop};
use serde_json::json;
use std::path::PathBuf;
use std::time::Duration;

pub(crate) const EXAMPLES: &str = "Examples:\n  loadgen shop --bulk --events 20000 --out /tmp/shop\n  \
    loadgen shop --rate 100 --postgres postgresql://postgres@localhost/oneshop --objects s3://pageviews/raw --gzip\n\nExit codes: see loadgen --help.";

/// How often a run says how far it is.
const SAY_EVERY: Duration = Duration::from_secs(5);

#[derive(Args)]
pub(crate) struct ShopArgs {
    /// Write oneshop.ndjson (changes) and pageviews.ndjson into this folder; they grow at --rate.
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Write the transactions into this Postgres database (without TLS); makes the tables when they are missing.
    #[arg(long, value_name = "URL", conflicts_with = "out")]
    postgres: Option<String>,
    /// Write the pageviews as objects into this folder, or to s3://BUCKET/PREFIX (S3_ENDPOINT, AWS_REGION, AWS_ACCESS_KEY_ID,
    /// AWS_SECRET_ACCESS_KEY).
    #[arg(long, value_name = "PLACE")]
    objects: Option<String>,
    /// Seconds of event time in an object.
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0, requires = "objects")]
    objects_every: f64,
    /// Objects are compressed.
    #[arg(long, requires = "objects")]
    gzip: bool,
    /// As fast as it goes instead of at --rate.
    #[arg(long)]
    bulk: bool,
    /// Another seed, another shop.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many people have been customers for long; some more have just signed up.
    #[arg(long, default_value_t = Settings::default().users)]
    users: u64,
    /// How many items there are at first.
    #[arg(long, default_value_t = Settings::default().items)]
    items: u64,
    /// Events a second of event time, pageviews and changes together.
    #[arg(long, default_value_t = Settings::default().rate)]
    rate: f64,
    /// Events in all, beside the snapshot.
    #[arg(long)]
    events: Option<u64>,
    /// Seconds of event time in all.
    #[arg(long, conflicts_with = "events")]
    seconds: Option<f64>,
    /// Event time of the beginning [default: now; with --bulk 2026-03-02T08:00:00Z].
    #[arg(long, value_parser = instant)]
    start: Option<Micros>,
    /// Share of pageviews that are minutes to a day and a half behind.
    #[arg(long, default_value_t = Settings::default().late)]
    late: f64,
    /// Share of lines that are no pageview.
    #[arg(long, default_value_t = Settings::default().malformed)]
    malformed: f64,
}

impl ShopArgs {
    fn settings(&self, clock: &dyn Clock) -> Settings {
        let start = if self.bulk { Settings::default().start } else { clock.wall() };
        Settings {
            seed: self.seed,
            users: self.users,
            items: self.items,
            rate: self.rate,
            events: self.events.or(self.seconds.map(|seconds| (seconds * self.rate) as u64)),
            start: self.start.unwrap_or(start),
            late: self.late,
            malformed: self.malformed,
        }
    }

    fn targets(&self) -> Result<Vec<Box<dyn Target>>> {
        let mut targets: Vec<Box<dyn Target>> = Vec::new();
        if let Some(folder) = &self.out {
            targets.push(Box::new(Folder::create(folder, self.objects.is_none())?));
        }
        if let Some(place) = &self.objects {
            targets.push(Box::new(Objects::open(place, self.objects_every, self.gzip)?));
        }
        if let Some(url) = &self.postgres {
            let (postgres, done) = Postgres::open(url)?;
            done.iter().for_each(|line| eprintln!("{line}"));
            targets.push(Box::new(postgres));
        }
        if targets.is_empty() {
            return Err(Error::user("write a shop nowhere").hint("say --out, --postgres or --objects"));
        }
        Ok(targets)
    }
}

pub(crate) fn run(arguments: &ShopArgs, output: Output) -> Result<()> {
    let clock = Machine::new();
    let shop = Shop::new(arguments.settings(&clock))?;
    if arguments.bulk && shop.settings().events.is_none() {
        return Err(Error::user("write an endless shop as fast as it goes").hint("say --events or --seconds"));
    }
    let stop = stop_on_signals()?;
    let mut targets = arguments.targets()?;
    let mut said = Duration::ZERO;
    let telling = Telling { clock: &clock, is_paced: !arguments.bulk, stop: &stop };
    let told = tell(&shop, &telling, &mut targets, |told| {
        if clock.monotonic() >= said + SAY_EVERY {
            said = clock.monotonic();
            eprintln!("{} events after {:.0} s", told.iter().sum::<u64>(), said.as_secs_f64());
        }
    })?;
    report(&shop, &told, clock.monotonic(), output);
    Ok(())
}

fn report(shop: &Shop, told: &Told, took: Duration, output: Output) {
    let seconds = took.as_secs_f64();
    let of = |feed: Feed| told[feed as usize];
    let start = shop.settings().start;
    if output == Output::Json {
        let feeds: serde_json::Map<_, _> =
            Feed::ALL.iter().map(|feed| (feed.name().to_owned(), of(*feed).into())).collect();
        println!(
            "{}",
            json!({"events": told.iter().sum::<u64>(), "of_feeds": feeds, "start": start, "seconds": seconds})
        );
        return;
    }
    println!("{} events in {seconds:.1} s, from {start} on", told.iter().sum::<u64>());
    for feed in Feed::ALL {
        println!("  {:<10}{}", feed.name(), of(feed));
    }
}
