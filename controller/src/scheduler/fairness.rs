//! In which order waiting tasks run: by priority, and within one priority every client in its turn.
//!
//! A client that submits a million tasks must not keep another one's single task waiting until all of them have
//! run. Every task gets a *turn* when it is submitted: one after its client's last one, but not before the turn that
//! the scheduler has come to. Tasks run in the order of their turns, so clients that have tasks waiting are served
//! one task each in rotation, and a client that comes later neither waits for what was queued before nor catches up
//! on what it did not ask for (start-time fair queueing with equal weights: Goyal, Vin, Cheng, 1996). With one
//! client the order is that of submission.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::machine::Client;

/// Where a task stands among those that wait; the smallest runs first. Kept when it is tried again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// As given by the client; larger runs first.
    priority: Reverse<i32>,
    turn: u64,
}

/// Gives turns.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    /// The latest turn that was served.
    now: u64,
    /// The last turn of every client that has turns to come.
    last: BTreeMap<Client, u64>,
}

impl Turns {
    /// The place of a client's next task.
    pub(crate) fn next(&mut self, client: &Client, priority: i32) -> Place {
        let turn = match self.last.get_mut(client) {
            Some(last) => {
                *last = self.now.max(*last) + 1;
                *last
            }
            None => {
                let first = self.now + 1;
                self.last.insert(client.clone(), first);
                first
            }
        };
        Place { priority: Reverse(priority), turn }
    }

    /// A task was given to an engine.
    pub(crate) fn on_served(&mut self, place: Place) {
        self.now = self.now.max(place.turn);
    }

    /// A client has no task any more: its last turn says nothing that the scheduler's own does not.
    pub(crate) fn forget(&mut self, client: &Client) {
        self.last.remove(client);
    }

    /// Clients that turns are remembered of.
    pub(crate) fn clients(&self) -> usize {
        self.last.len()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::machine::{Address, Channel};

    fn client(name: &'static str) -> Client {
        Client { channel: Channel::Task, address: Address::Connection(Bytes::from_static(name.as_bytes())) }
    }

    #[test]
    fn a_late_client_takes_turns_with_one_that_has_submitted_many_before() {
        let mut turns = Turns::default();
        let mut many: Vec<Place> = (0..100).map(|_| turns.next(&client("many"), 0)).collect();
        for served in many.drain(..10) {
            turns.on_served(served);
        }
        let few = [turns.next(&client("few"), 0), turns.next(&client("few"), 0)];
        assert_eq!(many.iter().filter(|place| **place < few[0]).count(), 0);
        assert_eq!(many.iter().filter(|place| **place < few[1]).count(), 1);
    }

    #[test]
    fn a_client_that_was_idle_does_not_catch_up() {
        let mut turns = Turns::default();
        turns.next(&client("idle"), 0);
        for _ in 0..50 {
            let place = turns.next(&client("busy"), 0);
            turns.on_served(place);
        }
        let next = [turns.next(&client("idle"), 0), turns.next(&client("idle"), 0)];
        let other = [turns.next(&client("busy"), 0), turns.next(&client("busy"), 0)];
        assert!(next[1] > other[0], "after a turn each: {next:?} {other:?}");
    }

    #[test]
    fn a_higher_priority_runs_first_whoever_asks() {
        let mut turns = Turns::default();
        let ordinary = turns.next(&client("a"), 0);
        let urgent = turns.next(&client("b"), 5);
        let whenever = turns.next(&client("c"), -1);
        assert!(urgent < ordinary && ordinary < whenever);
    }
}
