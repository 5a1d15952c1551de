//! Which connection a message came over, though descriptors are reused.
//!
//! A message carries the number of its descriptor, an event of the [`monitor`](crate::monitor) too, but a number
//! names one connection only until it is closed, and messages and events are not ordered with each other. What is
//! certain: the events of one socket are in order, and libzmq reports a connection before it reads from it. Hence
//! the rule for a loop that ties an identity to its connection:
//!
//! 1. Receive a message, **then** read the monitor until it is empty ([`Connections::on_event`]), then ask
//!    [`Connections::of`] for the message's connection. Its own `Accepted` has then been seen.
//! 2. Tie identities to [`ConnectionId`]s, not to numbers. When a connection ends, those tied to it lost it.
//! 3. A message that was still queued when its connection ended gets either `None` or, if the number was reused
//!    already, the wrong connection. So let a later connection replace an identity's earlier one, never the other
//!    way round, and keep a slow echo as the last word on who is alive.

use std::collections::BTreeMap;
use std::os::fd::RawFd;

use crate::monitor::MonitorEvent;

/// One connection of one socket, never the same as a later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(u64);

/// The open connections of one socket, by descriptor. Bounded by the process's limit of open files.
#[derive(Debug, Default)]
pub struct Connections {
    open: BTreeMap<RawFd, ConnectionId>,
    next: u64,
}

impl Connections {
    /// Learns from an event; returns the connection that it ended.
    pub fn on_event(&mut self, event: &MonitorEvent) -> Option<ConnectionId> {
        match event {
            MonitorEvent::Accepted { fd, .. } | MonitorEvent::Connected { fd, .. } => self.on_opened(*fd),
            MonitorEvent::Disconnected { fd, .. } | MonitorEvent::Closed { fd, .. } => self.open.remove(fd),
            _ => None,
        }
    }

    /// A number that is open again was closed before, even if nobody said so.
    fn on_opened(&mut self, fd: RawFd) -> Option<ConnectionId> {
        self.next += 1;
        self.open.insert(fd, ConnectionId(self.next))
    }

    /// The connection that has this descriptor now.
    pub fn of(&self, source_fd: Option<RawFd>) -> Option<ConnectionId> {
        self.open.get(&source_fd?).copied()
    }

    /// How many are open.
    pub fn count(&self) -> usize {
        self.open.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reused_descriptor_is_another_connection() {
        let mut connections = Connections::default();
        connections.on_event(&accepted(7));
        let first = connections.of(Some(7));

        assert_eq!(connections.on_event(&disconnected(7)), first);
        assert_eq!(connections.of(Some(7)), None);
        connections.on_event(&accepted(7));

        assert!(connections.of(Some(7)) > first);
    }

    #[test]
    fn a_descriptor_accepted_twice_ended_in_between() {
        let mut connections = Connections::default();
        connections.on_event(&accepted(7));
        let first = connections.of(Some(7));

        assert_eq!(connections.on_event(&accepted(7)), first);
        assert_eq!(connections.count(), 1);
    }

    fn accepted(fd: RawFd) -> MonitorEvent {
        MonitorEvent::Accepted { fd, endpoint: String::new() }
    }

    fn disconnected(fd: RawFd) -> MonitorEvent {
        MonitorEvent::Disconnected { fd, endpoint: String::new() }
    }
}
