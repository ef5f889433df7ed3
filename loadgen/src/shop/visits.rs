//! Sessions of pageviews: one before each order of a round, the others of people who only look.

use super::orders::{HISTORY, ORDERS, Order};
use super::{Event, Shop, Step};
use crate::dice::Dice;
use dataflow_core::Micros;
use dataflow_core::time::{HOUR, MINUTE, SECOND};
use serde_json::json;

/// Lines in a round.
pub(super) const PAGEVIEWS: u64 = 192;
/// Lines of a session that ends with an order.
const OF_AN_ORDER: u64 = 6;
/// Lines of another one, at most.
const LOOKS_MAX: u64 = 8;

const TAG_SESSION: u64 = 112;
const TAG_LINE: u64 = 113;

const CHANNELS: [&str; 5] = ["organic search", "paid search", "referral", "social", "display"];
/// Pages about an item.
const PAGES: [&str; 3] = ["products", "products", "reviews"];
/// Pages about none.
const OTHERS: [&str; 4] = ["/", "/search?q=lamp", "/cart", "/help/returns"];

impl Shop {
    /// The pageviews of a round.
    pub(super) fn visit_steps(&self, round: u64) -> Vec<Step> {
        let mut steps = Vec::with_capacity(PAGEVIEWS as usize);
        for slot in 0..ORDERS {
            let Order { user, item } = self.order(round + HISTORY, slot);
            let mut dice = Dice::of(&[self.settings.seed, TAG_SESSION, round, slot]);
            let channel = channel(&mut dice);
            for page in 0..OF_AN_ORDER {
                // The item itself is looked at twice at least.
                let seen = if page % 3 == 0 || page == 5 { item } else { self.wanted(round, &mut dice) };
                let url = if page == 4 { OTHERS[2].to_owned() } else { url(&mut dice, seen, page % 3 == 0) };
                let due_us = self.due_us(round, 100 * slot + 5 + 12 * page, 100 * ORDERS);
                steps.push(self.pageview(round, steps.len() as u64, due_us, user.unwrap_or_default(), &url, channel));
            }
        }
        let mut session = ORDERS;
        while (steps.len() as u64) < PAGEVIEWS {
            let mut dice = Dice::of(&[self.settings.seed, TAG_SESSION, round, session]);
            session += 1;
            let (user, item, channel) =
                (self.visitor(round, &mut dice), self.wanted(round, &mut dice), channel(&mut dice));
            let left = PAGEVIEWS - steps.len() as u64;
            let begins = dice.below(800);
            for page in 0..dice.between(1, LOOKS_MAX).min(left) {
                let seen = if dice.chance(0.5) { item } else { self.wanted(round, &mut dice) };
                let url = match dice.below(100) {
                    0..=14 => (*dice.pick(&OTHERS)).to_owned(),
                    // A link to what is not there any more, or never was.
                    15 => format!("/products/{}", self.settings.items + 1_000_000 + dice.below(50)),
                    _ => url(&mut dice, seen, page == 0),
                };
                let due_us = self.due_us(round, begins + 20 * page, 1000);
                steps.push(self.pageview(round, steps.len() as u64, due_us, user, &url, channel));
            }
        }
        steps
    }

    fn pageview(&self, round: u64, slot: u64, due_us: u64, user: u64, url: &str, channel: Option<&str>) -> Step {
        let mut dice = Dice::of(&[self.settings.seed, TAG_LINE, round, slot]);
        let behind = if dice.chance(self.settings.late) {
            dice.between(MINUTE as u64, 36 * HOUR as u64) as i64
        } else {
            dice.below(3) as i64 * SECOND
        };
        let received_at = Micros(self.time(due_us).0 - behind).0.div_euclid(SECOND);
        let line = if dice.chance(self.settings.malformed) {
            malformed(&mut dice, user, url, received_at)
        } else {
            let line = json!({"user_id": user, "url": url, "channel": channel, "received_at": received_at});
            line.to_string().into_bytes()
        };
        Step { due_us, event: Event::Pageview(line) }
    }
}

fn channel(dice: &mut Dice) -> Option<&'static str> {
    match dice.below(50) {
        0 => None,
        1 => Some("newsletter"),
        _ => Some(*dice.pick(&CHANNELS)),
    }
}

fn url(dice: &mut Dice, item: u64, is_product: bool) -> String {
    let page = if is_product { PAGES[0] } else { dice.pick(&PAGES) };
    format!("/{page}/{item}")
}

/// A line that is no pageview: one of each defect, or an empty one.
fn malformed(dice: &mut Dice, user: u64, url: &str, received_at: i64) -> Vec<u8> {
    let text = match dice.below(9) {
        0 => format!("{{\"user_id\":{user},\"url\":\"{url}"),
        1 => format!("[{user},\"{url}\",{received_at}]"),
        2 => json!({"user_id": user.to_string(), "url": url, "received_at": received_at}).to_string(),
        3 => json!({"url": url, "channel": "social", "received_at": received_at}).to_string(),
        4 => json!({"user_id": user, "url": null, "received_at": received_at}).to_string(),
        5 => json!({"user_id": user, "url": url, "received_at": format!("{received_at}")}).to_string(),
        6 => json!({"user_id": user, "url": url, "received_at": -1}).to_string(),
        7 => return [b"{\"user_id\":1,\"url\":\"/\xff\xfe\"}".as_slice()].concat(),
        _ => String::new(),
    };
    text.into_bytes()
}
