//! Heartbeats and the connections of hearts: which engine's process is still there.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use bytes::Bytes;
use transport::connections::{ConnectionId, Connections};
use transport::monitor::{Monitor, MonitorEvent};
use transport::{Multipart, Received, Socket, TransportError};

use super::channels::RECEIVED_PER_ROUND_MAX;
use crate::machine::Event;

/// Heartbeats whose echo is still accepted: extra ones are sent while engines join, so two are too few.
const PINGS_REMEMBERED: usize = 64;

/// The two heartbeat sockets. What comes here is not signed: it can keep an engine alive, no more.
pub(super) struct Hearts {
    ping: Socket,
    pub(super) pong: Socket,
    pub(super) monitor: Monitor,
    connections: Connections,
    /// Whose heart a connection is, and the reverse; bounded by the process's open files.
    owners: BTreeMap<ConnectionId, Bytes>,
    current: BTreeMap<Bytes, ConnectionId>,
    sent: VecDeque<Bytes>,
    started: Instant,
}

impl Hearts {
    pub(super) fn new(ping: Socket, pong: Socket, monitor: Monitor) -> Hearts {
        Hearts {
            ping,
            pong,
            monitor,
            connections: Connections::default(),
            owners: BTreeMap::new(),
            current: BTreeMap::new(),
            sent: VecDeque::new(),
            started: Instant::now(),
        }
    }

    /// Publishes the monitor's age in seconds, as the original does.
    pub(super) fn beat(&mut self) -> Result<(), TransportError> {
        let payload = Bytes::from(format!("{:.6}", self.started.elapsed().as_secs_f64()));
        // A heart that is too slow to take it misses a beat; nothing else is lost.
        let _ = self.ping.send([&payload])?;
        if self.sent.len() == PINGS_REMEMBERED {
            self.sent.pop_front();
        }
        self.sent.push_back(payload);
        Ok(())
    }

    /// Echoes first, then connections: see [`transport::connections`] for why in this order.
    pub(super) fn receive(&mut self, events: &mut Vec<Event>) -> Result<(), TransportError> {
        let mut echoes = vec![];
        while echoes.len() < RECEIVED_PER_ROUND_MAX
            && let Some(received) = self.pong.receive()?
        {
            if let Received::Message(message) = received {
                echoes.push(message);
            }
        }
        let mut ended = vec![];
        while let Some(event) = self.monitor.next_event()? {
            if let MonitorEvent::AcceptFailed { endpoint, .. } = &event {
                // Another user's, or too many files are open.
                tracing::warn!(%endpoint, "a connection was refused");
            }
            ended.extend(self.connections.on_event(&event));
        }
        for echo in echoes {
            self.on_echo(echo, events);
        }
        for connection in ended {
            self.on_ended(connection, events);
        }
        Ok(())
    }

    fn on_echo(&mut self, echo: Multipart, events: &mut Vec<Event>) {
        let [identity, .., payload] = echo.parts.as_slice() else { return };
        if !self.sent.contains(payload) {
            tracing::debug!(engine = ?identity, "echo of no recent heartbeat");
            return;
        }
        let Some(connection) = self.connections.of(echo.source_fd) else {
            return; // Its connection has ended already: this proves nothing.
        };
        // Frames share memory with their message; what is kept is copied.
        let identity = Bytes::copy_from_slice(identity);
        if self.current.get(&identity).is_none_or(|current| *current < connection) {
            if let Some(before) = self.current.insert(identity.clone(), connection) {
                self.owners.remove(&before);
            }
            self.owners.insert(connection, identity.clone());
        }
        events.push(Event::Beat { identity });
    }

    fn on_ended(&mut self, connection: ConnectionId, events: &mut Vec<Event>) {
        if let Some(identity) = self.owners.remove(&connection) {
            self.current.remove(&identity);
            events.push(Event::Disconnected { identity });
        }
    }
}
