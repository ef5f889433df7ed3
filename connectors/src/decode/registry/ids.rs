//! What a source's schema ids mean and how many there is room for: decisions alone, no I/O.
//!
//! Invariants: the number of ids and the bytes of their texts are bounded, and unknown ids have a part of the room for themselves,
//! so that a broken producer does not use up that of good ones. What finds no room is *refused*: it means nothing and is not bound.
//! A replay refuses the same records, because it knows only what its epoch's row and those before it have bound; for that no epoch
//! both refuses an id and binds it.

use super::store::SchemaHash;
use dataflow_core::Epoch;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Ids a source may have. Broken producers may send any.
pub const IDS_MAX: usize = 4096;

/// How many of them may be unknown. Once they are, an id that the registry does not know is asked for without a grace, and
/// refused.
pub const UNKNOWN_MAX: usize = 1024;

/// Bytes of all known texts: what a topic's schemas come to is a hundredth of it. A worker holds some twenty times a hostile
/// text in its compiled form.
pub const SCHEMAS_BYTES_MAX: usize = 16 << 20;

/// Ids that the registry is asked for at a time. What is beyond waits.
pub(super) const ASKED_MAX: usize = 256;

/// Refused ids that are remembered, so as not to ask for them again at once.
const REFUSED_MAX: usize = 4096;

/// What an id means.
#[derive(Clone, Debug)]
pub(super) enum Meaning {
    Unknown,
    Known(Arc<str>, SchemaHash),
}

/// Whether a meaning still has to be bound by its users.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Bound,
    /// `refused`: the newest epoch that may have refused the id before it found room.
    Fresh {
        refused: Option<Epoch>,
    },
}

#[derive(Clone, Debug)]
enum Entry {
    Asked,
    Meaning(Meaning, Origin),
}

/// What is found under an id.
#[derive(Clone, Debug)]
pub(super) enum Found {
    /// Nothing: it is to be asked for.
    Nothing,
    /// It is asked for, or will be, or means something from the next epoch on.
    Wait,
    Refused,
    Meaning(Meaning, Origin),
}

/// The ids of one source.
#[derive(Debug, Default)]
pub(super) struct Ids {
    entries: BTreeMap<u32, Entry>,
    asked: usize,
    unknown: usize,
    known: usize,
    bytes: usize,
    /// Ids refused by an answer, with the newest epoch that was told so.
    refused: BTreeMap<u32, Option<Epoch>>,
    /// The newest epoch that any forgotten one of them was told to.
    forgotten: Option<Epoch>,
}

impl Ids {
    /// What `id` means to a record of `epoch`.
    pub(super) fn find(&mut self, id: u32, epoch: Epoch) -> Found {
        match self.entries.get(&id) {
            Some(Entry::Asked) => Found::Wait,
            Some(Entry::Meaning(_, Origin::Fresh { refused: Some(refused) })) if epoch <= *refused => Found::Wait,
            Some(Entry::Meaning(meaning, origin)) => Found::Meaning(meaning.clone(), *origin),
            None => {
                if let Some(told) = self.refused.get_mut(&id) {
                    *told = (*told).max(Some(epoch));
                    return Found::Refused;
                }
                match self.known_is_full() {
                    true => Found::Refused,
                    false if self.asked >= ASKED_MAX => Found::Wait,
                    false => Found::Nothing,
                }
            }
        }
    }

    /// Whether asking for `id` would tell something new.
    pub(super) fn wants(&self, id: u32) -> bool {
        let is_new = !self.entries.contains_key(&id) && !self.refused.contains_key(&id);
        is_new && self.asked < ASKED_MAX && !self.known_is_full()
    }

    /// `id` is being asked for.
    pub(super) fn ask(&mut self, id: u32) {
        if self.entries.insert(id, Entry::Asked).is_none() {
            self.asked += 1;
        }
    }

    /// The meaning that was bound, if any is known.
    pub(super) fn known(&self, id: u32) -> Option<Option<SchemaHash>> {
        match self.entries.get(&id)? {
            Entry::Asked => None,
            Entry::Meaning(Meaning::Unknown, _) => Some(None),
            Entry::Meaning(Meaning::Known(_, hash), _) => Some(Some(*hash)),
        }
    }

    /// Takes in what was bound, for which there was room when it was.
    pub(super) fn bind(&mut self, id: u32, meaning: Meaning) {
        self.insert(id, meaning, Origin::Bound);
    }

    /// Takes in an answer; false when there is no room for it. What was bound meanwhile stands.
    pub(super) fn answer(&mut self, id: u32, meaning: Meaning) -> bool {
        if !matches!(self.entries.get(&id), Some(Entry::Asked)) {
            return true;
        }
        let has_room = match &meaning {
            Meaning::Unknown => !self.unknown_is_full(),
            Meaning::Known(text, _) => self.has_room_for(text.len()),
        };
        if has_room {
            let refused = self.forgotten;
            self.insert(id, meaning, Origin::Fresh { refused });
        } else {
            self.refuse(id);
        }
        has_room
    }

    /// There is no room for `id`.
    pub(super) fn refuse(&mut self, id: u32) {
        if matches!(self.entries.get(&id), Some(Entry::Asked)) {
            self.entries.remove(&id);
            self.asked -= 1;
        }
        if self.refused.len() >= REFUSED_MAX {
            let newest = std::mem::take(&mut self.refused).into_values().max().flatten();
            self.forgotten = self.forgotten.max(newest);
        }
        self.refused.insert(id, None);
    }

    /// Whether a text of so many bytes may be known.
    pub(super) fn has_room_for(&self, bytes: usize) -> bool {
        !self.known_is_full() && self.bytes.saturating_add(bytes) <= SCHEMAS_BYTES_MAX
    }

    /// Whether no further id may be unknown.
    pub(super) fn unknown_is_full(&self) -> bool {
        self.unknown >= UNKNOWN_MAX
    }

    fn known_is_full(&self) -> bool {
        self.known >= IDS_MAX - UNKNOWN_MAX
    }

    fn insert(&mut self, id: u32, meaning: Meaning, origin: Origin) {
        self.refused.remove(&id);
        match &meaning {
            Meaning::Unknown => self.unknown += 1,
            Meaning::Known(text, _) => (self.known, self.bytes) = (self.known + 1, self.bytes + text.len()),
        }
        if let Some(Entry::Asked) = self.entries.insert(id, Entry::Meaning(meaning, origin)) {
            self.asked -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(bytes: usize) -> Meaning {
        Meaning::Known("x".repeat(bytes).into(), [0; 16])
    }

    fn answered(ids: &mut Ids, id: u32, meaning: Meaning) -> bool {
        assert!(matches!(ids.find(id, 1), Found::Nothing), "{id}");
        ids.ask(id);
        ids.answer(id, meaning)
    }

    #[test]
    fn unknown_ids_leave_the_room_of_good_ones() {
        let mut ids = Ids::default();
        for id in 0..UNKNOWN_MAX as u32 {
            assert!(answered(&mut ids, id, Meaning::Unknown));
        }
        for id in 5_000..5_100 {
            assert!(!answered(&mut ids, id, Meaning::Unknown));
            assert!(matches!(ids.find(id, 1), Found::Refused) && !ids.wants(id));
        }
        for id in 10_000..10_000 + (IDS_MAX - UNKNOWN_MAX) as u32 {
            assert!(answered(&mut ids, id, known(1)));
        }
        assert!(matches!(ids.find(20_000, 1), Found::Refused), "the room for good ones is used up by good ones only");
        assert!(matches!(ids.find(0, 1), Found::Meaning(Meaning::Unknown, _)));
    }

    #[test]
    fn texts_are_bounded_in_sum_with_what_was_bound() {
        let mut ids = Ids::default();
        ids.bind(1, known(SCHEMAS_BYTES_MAX - 10));
        assert!(!answered(&mut ids, 2, known(11)));
        assert!(matches!(ids.find(2, 1), Found::Refused));
        assert!(answered(&mut ids, 3, known(10)));
    }

    #[test]
    fn questions_are_bounded_and_what_is_beyond_waits() {
        let mut ids = Ids::default();
        (0..ASKED_MAX as u32).for_each(|id| ids.ask(id));
        assert!(matches!(ids.find(9_999, 1), Found::Wait) && !ids.wants(9_999));
        assert!(ids.answer(0, known(1)));
        assert!(matches!(ids.find(9_999, 1), Found::Nothing) && ids.wants(9_999));
    }

    #[test]
    fn no_epoch_both_refuses_an_id_and_uses_it() {
        let mut ids = Ids::default();
        for id in 0..UNKNOWN_MAX as u32 {
            ids.bind(id, Meaning::Unknown);
        }
        ids.ask(7_777);
        assert!(!ids.answer(7_777, Meaning::Unknown));
        assert!(matches!(ids.find(7_777, 5), Found::Refused));
        // So many others that it is forgotten and asked for again; by now the registry knows it.
        for id in 10_000..10_000 + REFUSED_MAX as u32 {
            ids.ask(id);
            ids.answer(id, Meaning::Unknown);
        }
        assert!(answered(&mut ids, 7_777, known(1)));
        assert!(matches!(ids.find(7_777, 5), Found::Wait), "epoch 5 has refused it");
        assert!(matches!(ids.find(7_777, 6), Found::Meaning(Meaning::Known(..), _)));
    }
}
