//! Entries by their hash. Open addressing over the numbers of entries that are kept elsewhere: 5 to 11 bytes for each.

use std::hash::Hash;

use ahash::RandomState;

/// A slot without an entry.
const FREE: u32 = u32::MAX;

/// Numbers of entries by the hash of their key.
pub(crate) struct Index {
    slots: Box<[u32]>,
    /// Keyed at random, so that no file can choose keys that meet.
    hasher: RandomState,
}

impl Index {
    /// Room for so many entries and a third more, so that what is missing is soon known.
    pub fn with_room(entries: usize) -> Self {
        let slots = (entries + entries / 3 + 1).next_power_of_two();
        Self { slots: vec![FREE; slots].into(), hasher: RandomState::new() }
    }

    /// The entry of `key`; `is` says whether an entry has this key.
    pub fn get(&self, key: impl Hash, is: impl Fn(u32) -> bool) -> Option<u32> {
        Some(self.slots[self.place(key, is)]).filter(|entry| *entry != FREE)
    }

    /// Makes `entry` that of `key`, and returns the one that it was before.
    pub fn put(&mut self, key: impl Hash, entry: u32, is: impl Fn(u32) -> bool) -> Option<u32> {
        let place = self.place(key, is);
        Some(std::mem::replace(&mut self.slots[place], entry)).filter(|entry| *entry != FREE)
    }

    pub fn bytes(&self) -> usize {
        size_of_val(&*self.slots)
    }

    /// The slot of `key`, or the free one where it would be. The hash gives the first place and the odd distance to each next one.
    fn place(&self, key: impl Hash, is: impl Fn(u32) -> bool) -> usize {
        let hash = self.hasher.hash_one(key);
        let (mut place, step) = (hash as usize, (hash >> 32) as usize | 1);
        loop {
            place &= self.slots.len() - 1;
            if self.slots[place] == FREE || is(self.slots[place]) {
                return place;
            }
            place = place.wrapping_add(step);
        }
    }
}
