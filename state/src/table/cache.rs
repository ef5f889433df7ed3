//! The table's cache: slots found by hash, evicted by a clock hand (second chance).
//!
//! Nothing leaves here in hash order: the hash index is only searched, and what is dirty is listed in the order of its
//! first change. Weights of values that are being changed are stale until [`Cache::weigh_changed`] at the epoch's end.

use super::StateValue;
use crate::backend::{SHARD_BYTES, state_key};
use dataflow_core::{Micros, stable_hash};
use hashbrown::HashTable;
use std::collections::VecDeque;

/// What an entry costs beside its key and value: the slot, the index entry, an allocation.
const ENTRY_OVERHEAD: usize = 64;

/// A cached value.
pub(super) struct Entry<V> {
    /// The stored form, shard first.
    pub(super) key: Box<[u8]>,
    /// Whether the backend has, or had, something under the key.
    pub(super) stored: bool,
    value: V,
    hash: u64,
    weight: usize,
    dirty: bool,
    changed: bool,
    referenced: bool,
}

impl<V: StateValue> Entry<V> {
    /// The value, or the default in its place if it has expired.
    pub(super) fn value_for_write(&mut self, watermark: Option<Micros>) -> &mut V {
        if Some(self.value.expires()) < watermark {
            self.value = V::default();
        }
        &mut self.value
    }
}

pub(super) struct Cache<V> {
    index: HashTable<usize>,
    slots: Vec<Option<Entry<V>>>,
    free: Vec<usize>,
    /// Slots changed since the last weighing.
    changed: Vec<usize>,
    /// Slots that differ from the backend, in the order of their first change, and the epoch that made it.
    dirty: VecDeque<(usize, u64)>,
    /// Epochs ended.
    epoch: u64,
    bytes: usize,
    dirty_bytes: usize,
    hand: usize,
}

impl<V> Default for Cache<V> {
    fn default() -> Self {
        Cache {
            index: HashTable::new(),
            slots: Vec::new(),
            free: Vec::new(),
            changed: Vec::new(),
            dirty: VecDeque::new(),
            epoch: 0,
            bytes: 0,
            dirty_bytes: 0,
            hand: 0,
        }
    }
}

impl<V: StateValue> Cache<V> {
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn dirty_bytes(&self) -> usize {
        self.dirty_bytes
    }

    pub(super) fn find(&self, key: &[u8]) -> Option<usize> {
        let same = |slot: &usize| self.slots[*slot].as_ref().is_some_and(|e| &e.key[SHARD_BYTES..] == key);
        self.index.find(stable_hash(key), same).copied()
    }

    /// Adds a clean entry under a stored key that is not there.
    pub(super) fn insert(&mut self, key: Vec<u8>, value: V, stored: bool) -> usize {
        debug_assert!(key == state_key(&key[SHARD_BYTES..]), "keys are inserted in their stored form");
        let hash = stable_hash(&key[SHARD_BYTES..]);
        let weight = ENTRY_OVERHEAD + key.len() + value.weight();
        let entry =
            Entry { key: key.into(), stored, value, hash, weight, dirty: false, changed: false, referenced: true };
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[slot] = Some(entry);
        self.bytes += weight;
        let slots = &self.slots;
        self.index.insert_unique(hash, slot, |slot| slots[*slot].as_ref().map_or(0, |e| e.hash));
        slot
    }

    pub(super) fn entry(&mut self, slot: usize) -> &mut Entry<V> {
        self.slots[slot].as_mut().expect("a slot in the index or a list is taken")
    }

    pub(super) fn read(&mut self, slot: usize) -> &V {
        let entry = self.entry(slot);
        entry.referenced = true;
        &entry.value
    }

    pub(super) fn change(&mut self, slot: usize) -> &mut V {
        let entry = self.slots[slot].as_mut().expect("a slot in the index is taken");
        entry.referenced = true;
        if !entry.changed {
            entry.changed = true;
            self.changed.push(slot);
        }
        if !entry.dirty {
            entry.dirty = true;
            self.dirty.push_back((slot, self.epoch));
            self.dirty_bytes += entry.weight;
        }
        &mut entry.value
    }

    /// Puts the default in place of a value that has expired. The entry stays as dirty as it was: what the backend holds
    /// has expired too.
    pub(super) fn expire(&mut self, slot: usize, watermark: Option<Micros>) {
        let entry = self.entry(slot);
        if Some(entry.value.expires()) < watermark {
            entry.value = V::default();
            self.weigh(slot);
        }
    }

    /// Takes the new weight of every value changed since the last call.
    pub(super) fn weigh_changed(&mut self) {
        for slot in std::mem::take(&mut self.changed) {
            self.entry(slot).changed = false;
            self.weigh(slot);
        }
    }

    pub(super) fn weigh(&mut self, slot: usize) {
        let entry = self.entry(slot);
        let before = entry.weight;
        entry.weight = ENTRY_OVERHEAD + entry.key.len() + entry.value.weight();
        let (after, dirty) = (entry.weight, entry.dirty);
        self.bytes = self.bytes - before + after;
        if dirty {
            self.dirty_bytes = self.dirty_bytes - before + after;
        }
    }

    /// An epoch has ended.
    pub(super) fn end_epoch(&mut self) {
        self.epoch += 1;
    }

    /// Slots that differ from the backend, those changed first before the others: all that differ for more than `age_max` epochs, and
    /// as many as bring the bytes of the rest to `bytes_max`. They count as clean from now on.
    pub(super) fn take_dirty(&mut self, age_max: u64, bytes_max: usize) -> Vec<usize> {
        let mut taken = Vec::new();
        while let Some((slot, since)) = self.dirty.front().copied() {
            if self.epoch - since <= age_max && self.dirty_bytes <= bytes_max {
                break;
            }
            self.dirty.pop_front();
            let entry = self.entry(slot);
            entry.dirty = false;
            self.dirty_bytes -= entry.weight;
            taken.push(slot);
        }
        debug_assert!(!self.dirty.is_empty() || self.dirty_bytes == 0, "the bytes of no entry");
        taken
    }

    /// Evicts clean entries, those not used since the hand last came by first, until at most `bound` bytes are left or
    /// only dirty entries are.
    pub(super) fn evict_to(&mut self, bound: usize) {
        self.weigh_changed();
        // Two rounds: the first may only take second chances away.
        let mut steps = 2 * self.slots.len();
        while self.bytes > bound && steps > 0 {
            steps -= 1;
            self.hand = if self.hand + 1 < self.slots.len() { self.hand + 1 } else { 0 };
            let hand = self.hand;
            match &mut self.slots[hand] {
                Some(entry) if !entry.dirty && entry.referenced => entry.referenced = false,
                Some(entry) if !entry.dirty => self.evict(hand),
                _ => (),
            }
        }
    }

    fn evict(&mut self, slot: usize) {
        let entry = self.slots[slot].take().expect("the hand stands on a taken slot");
        self.bytes -= entry.weight;
        if let Ok(found) = self.index.find_entry(entry.hash, |s| *s == slot) {
            found.remove();
        }
        self.free.push(slot);
    }
}
