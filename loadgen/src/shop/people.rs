//! Users: long-standing customers whose names and addresses change in turn, those who sign up, and those who have themselves erased.
//!
//! Of a round's sign-ups the last one buys once, two rounds later, and asks to be erased [`HISTORY`] rounds after that sign-up: by then
//! that purchase has come to its end. Nobody else is erased, so nobody else's purchases lose their user.

use super::orders::{HISTORY, ONCE_AFTER};
use super::row::User;
use super::{Change, Op, Row, Shop, Step};
use crate::dice::Dice;
use dataflow_core::Micros;
use dataflow_core::time::{DAY, SECOND};

/// New users in a round.
pub(super) const SIGN_UPS: u64 = 4;
/// Changes of long-standing users in a round.
const PROFILES: u64 = 3;
/// Changes of the table in a round; one is an erasure.
pub(super) const CHANGES: u64 = SIGN_UPS + PROFILES + 1;

const TAG_USER: u64 = 64;
const TAG_PROFILE: u64 = 65;
const TAG_VISITOR: u64 = 66;

const FIRST_NAMES: [&str; 16] = [
    "Ana", "Bo", "Chen", "Dmitri", "Emma", "Fatima", "Jürgen", "Kofi", "Łukasz", "Mary Ann", "Noor", "Olga", "Priya",
    "Sven", "Zoë", "李",
];
const LAST_NAMES: [&str; 16] = [
    "Smith",
    "Müller",
    "de la Cruz",
    "O'Neil",
    "Ng",
    "Иванова",
    "王",
    "Okafor",
    "Silva",
    "Sørensen",
    "Nowak",
    "Haddad",
    "Rossi",
    "Dubois",
    "García",
    "Kim",
];
/// Parts of an e-mail address, for names that have other letters.
const MAIL_NAMES: [&str; 8] = ["ana", "bo", "chen", "emma.k", "j_mueller", "noor+shop", "o%neil", "zoe-s"];
const MAIL_HOSTS: [&str; 4] = ["example.org", "mail.example.com", "post.example.net", "shop-club.example.info"];

/// Of those who sign up: how many rounds they count as new.
const NEW_FOR: u64 = 40;
/// Chance that a visitor is one of those.
const NEW_VISITOR: f64 = 0.15;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Attribute {
    FirstName,
    LastName,
    Email,
}

impl Shop {
    /// The id of a sign-up; `round` counts from [`HISTORY`] rounds before the beginning.
    pub(super) fn sign_up_id(&self, round: u64, slot: u64) -> u64 {
        self.settings.users + round * SIGN_UPS + slot + 1
    }

    /// Who buys once and is erased later, by the round of the sign-up.
    pub(super) fn once_only(&self, round: u64) -> u64 {
        self.sign_up_id(round, SIGN_UPS - 1)
    }

    /// Somebody who comes by in a round.
    pub(super) fn visitor(&self, round: u64, dice: &mut Dice) -> u64 {
        if dice.chance(NEW_VISITOR) {
            let signed_up = round + HISTORY - 1 - dice.below(NEW_FOR);
            return self.sign_up_id(signed_up, dice.below(SIGN_UPS - 1));
        }
        let rank = self.visitors.draw(dice);
        // The most active are not those with the lowest ids.
        let mut place = Dice::of(&[self.settings.seed, TAG_VISITOR]);
        (rank + place.below(self.settings.users)) % self.settings.users + 1
    }

    /// A row of the snapshot.
    pub(super) fn user_at_first(&self, id: u64) -> User {
        let age = Dice::of(&[self.settings.seed, TAG_USER, id]).below(700 * DAY as u64) as i64;
        let recent = id.saturating_sub(self.settings.users);
        let ago = if recent > 0 { (HISTORY * SIGN_UPS + 1 - recent) as i64 * 90 * SECOND } else { DAY + age };
        self.user(id, 0, self.settings.start.plus(-ago), None)
    }

    /// A user whose profile was changed so and so often, the last time at `changed`.
    fn user(&self, id: u64, version: u64, created_at: Micros, changed: Option<Micros>) -> User {
        let of = |attribute, names: &[&str; 16]| {
            let mut dice = self.profile_dice(id, attribute, version);
            let name = (*dice.pick(names)).to_owned();
            (!dice.chance(0.02)).then_some(name)
        };
        User {
            id: id as i32,
            first_name: of(Attribute::FirstName, &FIRST_NAMES),
            last_name: of(Attribute::LastName, &LAST_NAMES),
            email: email(&mut self.profile_dice(id, Attribute::Email, version), id),
            created_at,
            updated_at: changed.unwrap_or(created_at),
        }
    }

    /// The numbers of an attribute as of a version: those of the last one that changed it.
    fn profile_dice(&self, id: u64, attribute: Attribute, version: u64) -> Dice {
        let seed = self.settings.seed;
        let changes = |version: u64| {
            let kind = Dice::of(&[seed, TAG_PROFILE, id, version]).below(10);
            let changed = match kind {
                0..=4 => Attribute::LastName,
                5..=8 => Attribute::Email,
                _ => Attribute::FirstName,
            };
            changed == attribute
        };
        let since = (1..=version).rev().find(|version| changes(*version)).unwrap_or(0);
        Dice::of(&[seed, TAG_USER, id, attribute as u64, since])
    }

    /// The transactions of a round that are about users.
    pub(super) fn user_steps(&self, round: u64) -> Vec<Step> {
        let mut steps = Vec::new();
        for slot in 0..SIGN_UPS {
            let due_us = self.due_us(round, 2 * slot + 1, 2 * SIGN_UPS + 1);
            let id = self.sign_up_id(round + HISTORY, slot);
            let user = self.user(id, 0, self.time(due_us), None);
            steps.push(self.transaction(due_us, [(Op::Create, Row::User(user))]));
        }
        for slot in 0..PROFILES {
            let due_us = self.due_us(round, 2 * slot + 1, 2 * PROFILES);
            let turn = round * PROFILES + slot;
            let member = self.profiles.member(turn);
            let version = self.profiles.turns_of(member, turn + 1);
            let id = member + 1;
            let created_at = self.user_at_first(id).created_at;
            let user = self.user(id, version, created_at, Some(self.time(due_us)));
            steps.push(self.transaction(due_us, [(Op::Update, Row::User(user))]));
        }
        steps.push(self.erasure(round));
        steps
    }

    /// Who signed up [`HISTORY`] rounds ago is forgotten, in one transaction with the purchase.
    fn erasure(&self, round: u64) -> Step {
        let due_us = self.due_us(round, 9, 10);
        let mut purchase = self.purchase_in_the_end(round + ONCE_AFTER, super::orders::ORDERS - 1);
        purchase.user_id = None;
        purchase.updated_at = self.time(due_us);
        let user = self.user(self.once_only(round), 0, self.settings.start, None);
        self.transaction(due_us, [(Op::Update, Row::Purchase(purchase)), (Op::Delete, Row::User(user))])
    }

    /// A step that is a transaction; its log position is given by the round.
    pub(super) fn transaction(&self, due_us: u64, changes: impl IntoIterator<Item = (Op, Row)>) -> Step {
        let at = self.time(due_us);
        let changes = changes.into_iter().map(|(op, row)| Change { op, row, lsn: 0, at }).collect();
        Step { due_us, event: super::Event::Transaction(changes) }
    }
}

/// Valid for nine in ten.
fn email(dice: &mut Dice, id: u64) -> Option<String> {
    let (name, host) = (*dice.pick(&MAIL_NAMES), *dice.pick(&MAIL_HOSTS));
    match dice.below(100) {
        0..=2 => None,
        3..=4 => Some(format!("{name}{id} at {host}")),
        5..=6 => Some(format!("{name}{id}@localhost")),
        7..=8 => Some(format!("{name}{id}@")),
        _ => Some(format!("{name}{id}@{host}")),
    }
}
