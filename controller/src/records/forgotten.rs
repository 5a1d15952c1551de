//! Which records there once were: their names as hashes, so that whoever asks for one hears what became of it.

use std::hash::{BuildHasher, RandomState};

use protocol::id::MsgId;

/// Places for names; one that comes later may take an earlier one's. Of names that were dropped ten thousand names
/// ago six in seven are still known, in half a megabyte. A power of two.
const PLACES: usize = 65_536;

/// Why a record is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It had to make room, or never found it.
    Dropped,
    /// Somebody asked for that.
    Purged,
}

/// Names of records that are gone. A name is taken for another once in 2⁶³: that is not to be expected in a lifetime.
///
/// A table in which each hash has one place, rather than a queue of the latest: this is part of what every task
/// costs once a store is full, and so it is one access to memory.
#[derive(Debug)]
pub(crate) struct Forgotten {
    /// Hashes whose lowest bit says why; 0 where none is.
    places: Vec<u64>,
    hasher: RandomState,
}

impl Default for Forgotten {
    fn default() -> Forgotten {
        // Zeros that nobody has touched are no memory yet.
        Forgotten { places: vec![0; PLACES], hasher: RandomState::new() }
    }
}

impl Forgotten {
    pub(crate) fn remember(&mut self, msg_id: &MsgId, fate: Fate) {
        let hash = self.hasher.hash_one(msg_id);
        self.places[place(hash)] = hash & !1 | u64::from(fate == Fate::Purged);
    }

    pub(crate) fn fate(&self, msg_id: &MsgId) -> Option<Fate> {
        let hash = self.hasher.hash_one(msg_id);
        let found = self.places[place(hash)];
        (found & !1 == hash & !1).then_some(if found & 1 == 0 { Fate::Dropped } else { Fate::Purged })
    }
}

/// From the upper half of a hash: the lowest bit has another use.
fn place(hash: u64) -> usize {
    (hash >> 32) as usize % PLACES
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> MsgId {
        format!("s_1_{number}").into()
    }

    #[test]
    fn a_name_is_known_with_its_latest_fate() {
        let mut forgotten = Forgotten::default();
        assert_eq!(forgotten.fate(&id(0)), None);
        forgotten.remember(&id(0), Fate::Dropped);
        assert_eq!(forgotten.fate(&id(0)), Some(Fate::Dropped));
        forgotten.remember(&id(0), Fate::Purged);
        assert_eq!((forgotten.fate(&id(0)), forgotten.fate(&id(1))), (Some(Fate::Purged), None));
    }

    #[test]
    fn most_of_the_latest_names_are_known_and_none_that_was_never_told() {
        let mut forgotten = Forgotten::default();
        for number in 0..1_000_000 {
            forgotten.remember(&id(number), Fate::Dropped);
        }
        assert_eq!(forgotten.places.len(), PLACES);
        let known = (990_000..1_000_000).filter(|number| forgotten.fate(&id(*number)).is_some()).count();
        assert!(known > 9_000, "{known} of the latest 10000");
        let known = (1_000_000..1_100_000).filter(|number| forgotten.fate(&id(*number)).is_some()).count();
        assert_eq!(known, 0);
    }
}
