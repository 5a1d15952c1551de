//! What changed since a client was told who is here, for the moment until it hears of changes.
//!
//! A client asks for the list of engines, and hears of changes over another connection; stock clients open that one
//! only when they have the list. What changes in between reaches nobody, and a client that waits for an engine would
//! wait for ever. So whenever somebody subscribes, all are told again what changed since the earliest recent list:
//! to hear it twice does no harm.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use protocol::id::{EngineId, EngineUuid};

/// Who has a list and has not subscribed after this time asks again, or never will.
const SUBSCRIPTION_TIME: Duration = Duration::from_secs(10);

/// Lists given in that time: more are given by clients that ask over and over.
const LISTS_MAX: usize = 1024;

/// Engines that come or go in that time, at most: the ranks of a large world.
const CHANGES_MAX: usize = 16 * 1024;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct News {
    listed: VecDeque<Instant>,
    changed: VecDeque<(Instant, EngineId, EngineUuid)>,
}

impl News {
    /// A client was told who is here.
    pub(super) fn on_listed(&mut self, now: Instant) {
        self.expire(now);
        if self.listed.len() < LISTS_MAX {
            self.listed.push_back(now); // Else the earlier ones stand for it.
        }
    }

    /// An engine came or went.
    pub(super) fn on_changed(&mut self, now: Instant, id: EngineId, engine: &EngineUuid) {
        self.expire(now);
        if self.listed.is_empty() {
            return; // Nobody has a list that this would make wrong.
        }
        if self.changed.len() >= CHANGES_MAX {
            self.changed.pop_front();
        }
        self.changed.push_back((now, id, engine.clone()));
    }

    /// What came or went since the earliest recent list, each engine once, in the order of the latest changes.
    pub(super) fn since_listed(&mut self, now: Instant) -> Vec<(EngineId, EngineUuid)> {
        self.expire(now);
        let mut seen = std::collections::BTreeSet::new();
        let mut changes: Vec<_> =
            self.changed.iter().rev().filter(|(_, _, engine)| seen.insert(engine)).collect();
        changes.reverse();
        changes.into_iter().map(|(_, id, engine)| (*id, engine.clone())).collect()
    }

    fn expire(&mut self, now: Instant) {
        while self.listed.front().is_some_and(|listed| *listed + SUBSCRIPTION_TIME <= now) {
            self.listed.pop_front();
        }
        let earliest = self.listed.front().copied();
        while self
            .changed
            .front()
            .is_some_and(|(changed, ..)| earliest.is_none_or(|earliest| *changed < earliest))
        {
            self.changed.pop_front();
        }
    }
}
