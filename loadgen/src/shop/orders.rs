//! Purchases: placed at the end of a session, shipped, and then delivered, returned in part or whole, or cancelled.
//!
//! The slot of an order in its round says how many rounds later the next thing happens to it, so that every round has as many of
//! each. Orders of [`HISTORY`] rounds are there when the story begins; rounds are counted from the first of those here, and their
//! orders were placed over the last day and a half.

use super::row::Purchase;
use super::{Op, Row, Shop, Step};
use crate::dice::Dice;
use dataflow_core::Micros;
use dataflow_core::time::{HOUR, MINUTE};

/// Orders in a round.
pub(super) const ORDERS: u64 = 12;
/// Changes of the table in a round: placed, shipped, closed, and one that loses its user.
pub(super) const CHANGES: u64 = 3 * ORDERS + 1;
/// Rounds before the beginning whose orders are in the snapshot: all that something still happens to are younger.
pub(super) const HISTORY: u64 = 64;
/// Rounds from the sign-up to the order of those who buy once.
pub(super) const ONCE_AFTER: u64 = 2;

/// By slot: rounds until it is shipped, and until it is closed. Before the erasure of who buys once, `HISTORY - ONCE_AFTER` rounds later.
const SHIPPED: [u64; ORDERS as usize] = [3, 9, 5, 14, 7, 4, 11, 6, 18, 8, 3, 12];
const CLOSED: [u64; ORDERS as usize] = [20, 41, 33, 58, 25, 30, 47, 22, 60, 36, 28, 51];
const _: () = {
    let mut slot = 0;
    while slot < ORDERS as usize {
        assert!(SHIPPED[slot] < CLOSED[slot] && CLOSED[slot] < HISTORY - ONCE_AFTER);
        slot += 1;
    }
};

/// Over how long the orders of the snapshot were placed.
const PAST: i64 = 36 * HOUR;

const TAG_ORDER: u64 = 96;
const TAG_FATE: u64 = 97;

/// What becomes of an order.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Delivered,
    /// Fewer pieces are kept.
    KeptInPart,
    Returned,
    /// The row goes.
    Cancelled,
}

/// Who orders what.
pub(super) struct Order {
    pub(super) user: Option<u64>,
    pub(super) item: u64,
}

/// How far an order has come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Placed,
    Shipped,
    Closed,
}

impl Shop {
    /// The order of a slot of a round, which counts from the beginning of the history.
    pub(super) fn order(&self, round: u64, slot: u64) -> Order {
        let mut dice = Dice::of(&[self.settings.seed, TAG_ORDER, round, slot]);
        // In the history there were no sales.
        let now = round.saturating_sub(HISTORY);
        let item = if round < HISTORY { dice.below(self.settings.items) + 1 } else { self.wanted(now, &mut dice) };
        let user = if slot == ORDERS - 1 {
            // Who signed up before the history is erased already.
            round.checked_sub(ONCE_AFTER).map(|signed_up| self.once_only(signed_up))
        } else {
            Some(self.visitor(now, &mut dice))
        };
        Order { user, item }
    }

    fn fate(&self, round: u64, slot: u64) -> Fate {
        match Dice::of(&[self.settings.seed, TAG_FATE, round, slot]).below(100) {
            // The order of who buys once is still there when that user is erased.
            0..=3 if slot < ORDERS - 1 => Fate::Cancelled,
            0..=12 => Fate::Returned,
            13..=19 => Fate::KeptInPart,
            _ => Fate::Delivered,
        }
    }

    /// When an order was placed.
    fn placed_at(&self, round: u64, slot: u64) -> Micros {
        match round.checked_sub(HISTORY) {
            Some(round) => self.time(self.order_due_us(round, slot)),
            None => {
                let (all, before) = ((HISTORY * ORDERS) as i64, (round * ORDERS + slot) as i64);
                self.settings.start.plus(-PAST / all * (all - before))
            }
        }
    }

    /// When an order of a round is placed, since the beginning.
    pub(super) fn order_due_us(&self, round: u64, slot: u64) -> u64 {
        self.due_us(round, 100 * slot + 85, 100 * ORDERS)
    }

    fn purchase(&self, round: u64, slot: u64, stage: Stage, updated_at: Option<Micros>) -> Purchase {
        let Order { user, item } = self.order(round, slot);
        let mut dice = Dice::of(&[self.settings.seed, TAG_ORDER, round, slot, 1]);
        let fate = (stage == Stage::Closed).then(|| self.fate(round, slot));
        let ordered = if dice.chance(0.6) { 1 } else { dice.between(2, 5) };
        let now = round.saturating_sub(HISTORY);
        let is_sale = round >= HISTORY && self.on_sale(now) == Some(item);
        let campaign = match dice.below(10) {
            _ if is_sale => Some(format!("flash-{}", now / super::catalog::SALE_EVERY + 1)),
            0 | 1 => Some("spring".to_owned()),
            2 => Some("newsletter".to_owned()),
            _ => None,
        };
        // A slip in the list is not what customers pay.
        let price = super::row::Cents(self.price(item, now).0.abs());
        let created_at = self.placed_at(round, slot);
        Purchase {
            id: (round * ORDERS + slot + 1) as i32,
            user_id: user.map(|user| user as i64),
            item_id: Some(item as i64),
            campaign_id: campaign,
            status: match (stage, fate) {
                (_, Some(Fate::Returned)) => 4,
                (Stage::Placed, _) => 1,
                (Stage::Shipped, _) => 2,
                (Stage::Closed, _) => 3,
            },
            quantity: if fate == Some(Fate::KeptInPart) { ordered.div_ceil(2) } else { ordered } as i32,
            purchase_price: price,
            deleted: fate == Some(Fate::Returned),
            created_at,
            updated_at: updated_at.unwrap_or(created_at),
        }
    }

    /// An order that nothing more happens to.
    pub(super) fn purchase_in_the_end(&self, round: u64, slot: u64) -> Purchase {
        self.purchase(round, slot, Stage::Closed, None)
    }

    /// How far an order of the history has come when the story begins.
    fn stage_at_first(&self, round: u64, slot: u64) -> Stage {
        match HISTORY - round {
            age if age > CLOSED[slot as usize] => Stage::Closed,
            age if age > SHIPPED[slot as usize] => Stage::Shipped,
            _ => Stage::Placed,
        }
    }

    /// Whether the order of this number, from 0, is there when the story begins.
    pub(super) fn is_in_snapshot(&self, past: u64) -> bool {
        let (round, slot) = (past / ORDERS, past % ORDERS);
        self.stage_at_first(round, slot) < Stage::Closed || self.fate(round, slot) != Fate::Cancelled
    }

    pub(super) fn purchase_at_first(&self, id: u64) -> Purchase {
        let (round, slot) = ((id - 1) / ORDERS, (id - 1) % ORDERS);
        let stage = self.stage_at_first(round, slot);
        let changed = self.placed_at(round, slot).plus(stage as i64 * 5 * MINUTE);
        self.purchase(round, slot, stage, Some(changed))
    }

    /// The transactions of a round, which counts from the beginning, that are about purchases alone.
    pub(super) fn purchase_steps(&self, round: u64) -> Vec<Step> {
        let mut steps = Vec::new();
        let now = round + HISTORY;
        for slot in 0..ORDERS {
            let at = slot as usize;
            let due_us = self.order_due_us(round, slot);
            let placed = self.purchase(now, slot, Stage::Placed, None);
            steps.push(self.transaction(due_us, [(Op::Create, Row::Purchase(placed))]));
            let due_us = self.due_us(round, 100 * slot + 40, 100 * ORDERS);
            let shipped = self.purchase(now - SHIPPED[at], slot, Stage::Shipped, Some(self.time(due_us)));
            steps.push(self.transaction(due_us, [(Op::Update, Row::Purchase(shipped))]));
            let due_us = self.due_us(round, 100 * slot + 60, 100 * ORDERS);
            let ordered = now - CLOSED[at];
            let op = if self.fate(ordered, slot) == Fate::Cancelled { Op::Delete } else { Op::Update };
            let closed = self.purchase(ordered, slot, Stage::Closed, Some(self.time(due_us)));
            steps.push(self.transaction(due_us, [(op, Row::Purchase(closed))]));
        }
        steps
    }
}
