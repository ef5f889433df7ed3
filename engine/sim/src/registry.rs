//! A schema registry, and records in its framing: half of the seeds read Avro through the decoder and the schema store as shipped.
//!
//! The registry is away for a while, knows the second schema only when it is asked for the second time, and has for an id that poison
//! carries no schema, one that is too large, or nonsense.

use crate::clock::SimTime;
use crate::dice::{Dice, Purpose};
use crate::life::{Life, Passage, gone};
use crate::scenario::Scenario;
use dataflow_connectors::decode::framing;
use dataflow_connectors::decode::registry::{Answer, Ask};
use dataflow_core::{Error, Result};
use dataflow_oracle::Event;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Ids of the two schemas of a login event.
const IDS: [u32; 2] = [1, 2];
/// How long a 404 is asked again.
pub(crate) const GRACE: Duration = Duration::from_secs(5);

/// The registry, which outlives the job's lives.
pub(crate) struct SimRegistry {
    time: Arc<SimTime>,
    outages: Vec<(u64, u64)>,
    /// What it says of an id that is none of [`IDS`].
    otherwise: Answer,
    /// Whether the second schema is still to be registered.
    is_late: Mutex<bool>,
    /// Questions.
    pub(crate) asked: AtomicU64,
    /// Questions during an outage.
    pub(crate) away: AtomicU64,
    /// Questions that came before the schema did.
    pub(crate) too_early: AtomicU64,
    /// Questions about an id that has no schema, or no sensible one.
    pub(crate) senseless: AtomicU64,
}

impl SimRegistry {
    /// The registry of a seed.
    pub(crate) fn new(seed: u64, time: Arc<SimTime>, scenario: &Scenario) -> Arc<SimRegistry> {
        let mut dice = Dice::new(seed, Purpose::Registry);
        let (span_us, mut outages) = (scenario.traffic.span_us, Vec::new());
        if dice.percent(60) {
            let from = dice.below(3) * dice.below(span_us / 2);
            outages.push((from, from + dice.range(1_000, span_us / 2)));
        }
        let answers = [Answer::NotFound, Answer::TooLarge, Answer::Text("{\"type\":".to_owned())];
        let (otherwise, is_late) = (dice.pick(&answers).clone(), Mutex::new(dice.percent(50)));
        let (asked, away, too_early, senseless) = Default::default();
        Arc::new(SimRegistry { time, outages, otherwise, is_late, asked, away, too_early, senseless })
    }

    fn answer(&self, id: u32) -> Result<Answer> {
        let now = self.time.now_us();
        self.asked.fetch_add(1, SeqCst);
        if self.outages.iter().any(|(from, to)| (*from..*to).contains(&now)) {
            self.away.fetch_add(1, SeqCst);
            return Err(Error::outside(format!("asking for schema {id}: the registry is away")).retry());
        }
        if id == IDS[1] && std::mem::take(&mut *self.is_late.lock().unwrap_or_else(PoisonError::into_inner)) {
            self.too_early.fetch_add(1, SeqCst);
            return Ok(Answer::NotFound);
        }
        match IDS.iter().position(|known| *known == id) {
            Some(version) => Ok(Answer::Text(schema(version == 1))),
            None => {
                self.senseless.fetch_add(1, SeqCst);
                Ok(self.otherwise.clone())
            }
        }
    }
}

/// The registry as one life asks it.
pub(crate) struct SimRegistryClient {
    pub(crate) registry: Arc<SimRegistry>,
    pub(crate) life: Arc<Life>,
}

impl Ask for SimRegistryClient {
    fn get(&self, id: u32) -> Result<Answer> {
        match self.life.network_call("schema", "registry", u64::from(id)) {
            Passage::Open => self.registry.answer(id),
            Passage::Gone => Err(gone("ask", "registry")),
            Passage::Blown(_) => {
                self.life.end();
                Err(gone("ask", "registry"))
            }
        }
    }
}

/// A writer's schema.
fn schema(with_success: bool) -> String {
    let texts = ["user_id", "timestamp", "ip", "device", "platform", "user_agent"];
    let texts = texts.map(|name| format!(r#"{{"name":"{name}","type":"string"}}"#)).join(",");
    let success = if with_success { r#",{"name":"success","type":"boolean","default":true}"# } else { "" };
    format!(r#"{{"type":"record","name":"LoginEvent","namespace":"com.shop.events","fields":[{texts}{success}]}}"#)
}

/// An event as its producer writes it.
pub(crate) fn framed(event: &Event) -> Vec<u8> {
    let mut body = Vec::new();
    for text in [&event.user_id, &event.timestamp, &event.ip, &event.device, &event.platform, &event.user_agent] {
        // Avro: the length, doubled since it is not negative, in groups of seven bits; then the bytes.
        let mut length = 2 * text.len();
        while length > 127 {
            body.push((length % 128 + 128) as u8);
            length /= 128;
        }
        body.push(length as u8);
        body.extend_from_slice(text.as_bytes());
    }
    body.extend(event.success.map(u8::from));
    framing::join(IDS[usize::from(event.success.is_some())], &body)
}
