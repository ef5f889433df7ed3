//! Items: prices, stock and names that change in turn, a flash sale every [`SALE_EVERY`] rounds, and new items.
//!
//! What changes in a round changes in its first transaction, so that an order of the round has the price that stands then.

use super::row::{Cents, Item};
use super::{Op, Row, Shop, Step};
use crate::dice::Dice;
use dataflow_core::Micros;
use dataflow_core::time::DAY;

const PRICED: u64 = 2;
const STOCKED: u64 = 3;
const LABELLED: u64 = 1;
/// Changes of the table in a round; the last is of the sale, a new item, or none but in `updated_at`.
pub(super) const CHANGES: u64 = PRICED + STOCKED + LABELLED + 1;

/// Rounds from one sale to the next.
pub(super) const SALE_EVERY: u64 = 24;
/// The rounds of those in which it is on.
const SALE: std::ops::Range<u64> = 6..14;
/// The one in which a new item comes.
const LAUNCH: u64 = 18;

const TAG_LABEL: u64 = 80;
const TAG_PRICE: u64 = 81;
const TAG_STOCK: u64 = 82;
const TAG_SALE: u64 = 83;
const TAG_RANK: u64 = 84;
const TAG_AGE: u64 = 85;

const MAKES: [&str; 12] = [
    "Oak", "Steel", "Linen", "Copper", "Merino", "Bamboo", "Glass", "Cork", "Leather", "Ceramic", "Recycled",
    "Handmade",
];
/// Things, with their categories; some of those in letters whose upper case is longer.
const THINGS: [(&str, &str); 14] = [
    ("Kettle", "Kitchen"),
    ("Pan", "Kitchen"),
    ("Knife, 20 cm", "Kitchen"),
    ("Chair", "Furniture"),
    ("Desk", "Furniture"),
    ("Lamp", "Lighting"),
    ("Headphones", "Electronics"),
    ("Keyboard", "Electronics"),
    ("Notebook \"A5\"", "Stationery"),
    ("Fußmatte", "Maßarbeit"),
    ("Scarf", "Clothing"),
    ("Boots", "Clothing"),
    ("Watering can", "Home & garden"),
    ("Puzzle", "Toys"),
];

impl Shop {
    /// How many new items there are after the first transaction of a round.
    fn launched(&self, round: u64) -> u64 {
        (round + SALE_EVERY - LAUNCH) / SALE_EVERY
    }

    /// The item of the sale, if one is on in a round.
    pub(super) fn on_sale(&self, round: u64) -> Option<u64> {
        SALE.contains(&(round % SALE_EVERY)).then(|| self.sale_item(round / SALE_EVERY))
    }

    /// What a sale is about: the newest item, or one of the others.
    fn sale_item(&self, sale: u64) -> u64 {
        let new = self.launched(sale * SALE_EVERY);
        let mut dice = Dice::of(&[self.settings.seed, TAG_SALE, sale]);
        if new > 0 && dice.chance(0.4) { self.settings.items + new } else { dice.below(self.settings.items) + 1 }
    }

    /// What a visitor of a round is interested in.
    pub(super) fn wanted(&self, round: u64, dice: &mut Dice) -> u64 {
        if let Some(item) = self.on_sale(round).filter(|_| dice.chance(0.3)) {
            return item;
        }
        let new = self.launched(round);
        if new > 0 && dice.chance(0.05) {
            return self.settings.items + new - dice.below(new.min(5));
        }
        let rank = self.demand.draw(dice);
        // The most popular are not those with the lowest ids.
        let mut place = Dice::of(&[self.settings.seed, TAG_RANK]);
        (rank + place.below(self.settings.items)) % self.settings.items + 1
    }

    /// The price after the first transaction of a round.
    pub(super) fn price(&self, item: u64, round: u64) -> Cents {
        let regular = self.regular_price(item, self.turns(&self.prices, item, (round + 1) * PRICED));
        if self.on_sale(round) == Some(item) { Cents(regular / 2) } else { Cents(regular) }
    }

    fn regular_price(&self, item: u64, version: u64) -> i64 {
        let of = |coordinates: &[u64]| Dice::of(coordinates);
        let mut base = of(&[self.settings.seed, TAG_PRICE, item]);
        // Few are dear.
        let first = base.between(199, 4_999) * if base.chance(0.2) { 10 } else { 1 };
        let mut now = of(&[self.settings.seed, TAG_PRICE, item, version]);
        let price = (first * now.between(85, 120) / 100) as i64;
        // A slip of the keyboard, until the next change.
        if version > 0 && now.chance(0.004) { -price } else { price }
    }

    /// How often an item has had its turn; new ones have none.
    fn turns(&self, rota: &super::Rota, item: u64, turns: u64) -> u64 {
        if item <= self.settings.items { rota.turns_of(item - 1, turns) } else { 0 }
    }

    pub(super) fn item_at_first(&self, id: u64) -> Item {
        let age = Dice::of(&[self.settings.seed, TAG_AGE, id]).below(900 * DAY as u64) as i64;
        let created_at = self.settings.start.plus(-DAY - age);
        self.item(id, Cents(self.regular_price(id, 0)), (0, 0, 0), created_at, created_at)
    }

    /// An item after the first transaction of a round, in which it is changed.
    fn item_after(&self, id: u64, round: u64, at: Micros) -> Item {
        let created_at = match id.checked_sub(self.settings.items + 1) {
            Some(launch) => self.time(self.due_us(launch * SALE_EVERY + LAUNCH, 1, 100)),
            None => self.item_at_first(id).created_at,
        };
        let stock = self.turns(&self.stock, id, (round + 1) * STOCKED);
        let labels = self.turns(&self.labels, id, (round + 1) * LABELLED);
        let sold = if self.on_sale(round) == Some(id) { round % SALE_EVERY - SALE.start } else { 0 };
        self.item(id, self.price(id, round), (labels, stock, sold), created_at, at)
    }

    fn item(&self, id: u64, price: Cents, versions: (u64, u64, u64), created_at: Micros, updated_at: Micros) -> Item {
        let (labels, stock, sold) = versions;
        let seed = self.settings.seed;
        // What it is stays; what it is called is changed in turn, its category now and then with it.
        let (thing, category) = *Dice::of(&[seed, TAG_LABEL, id]).pick(&THINGS);
        let mut label = Dice::of(&[seed, TAG_LABEL, id, labels]);
        let name = format!("{} {thing}", label.pick(&MAKES));
        let category = match label.below(20) {
            0 => None,
            1 => Some("Gifts".to_owned()),
            _ => Some(category.to_owned()),
        };
        // Filled up every fifth time, fewer in between.
        let full = Dice::of(&[seed, TAG_STOCK, id, stock / 5]).between(80, 400);
        let left = full.saturating_sub(stock % 5 * full / 6).saturating_sub(sold * full / 8);
        Item { id: id as i32, name, category, price: Some(price), inventory: Some(left as i32), created_at, updated_at }
    }

    /// The transaction of a round that is about items.
    pub(super) fn item_step(&self, round: u64) -> Step {
        let due_us = self.due_us(round, 1, 100);
        let turns = |rota: &super::Rota, each: u64| -> Vec<u64> {
            (0..each).map(|slot| rota.member(round * each + slot) + 1).collect()
        };
        let mut changed = turns(&self.prices, PRICED);
        changed.extend(turns(&self.stock, STOCKED));
        changed.extend(turns(&self.labels, LABELLED));
        let at = self.time(due_us);
        let update = |id| (Op::Update, Row::Item(self.item_after(id, round, at)));
        let (sale, phase) = (round / SALE_EVERY, round % SALE_EVERY);
        let last = match phase {
            LAUNCH => (Op::Create, Row::Item(self.item_after(self.settings.items + self.launched(round), round, at))),
            phase if SALE.contains(&phase) || phase == SALE.end => update(self.sale_item(sale)),
            // The supplier's list is read in: nothing is new.
            _ => update(self.wanted(round, &mut Dice::of(&[self.settings.seed, TAG_SALE, sale, phase]))),
        };
        self.transaction(due_us, changed.into_iter().map(update).chain([last]))
    }
}
