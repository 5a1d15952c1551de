//! The one table of a client's sockets: name, kind, port.

use std::time::Duration;

use bytes::Bytes;
use protocol::connection_file::ClientFile;
use tracing::warn;
use transport::monitor::{HandshakeFailure, Monitor, MonitorEvent};
use transport::poll::{PollItem, poll};
use transport::wake::WakeReceiver;
use transport::{Context, Curve, Received, Sent, Socket, SocketOptions, TransportError};

use crate::machine::{Channel, Outgoing};

/// Where messages come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Query,
    Mux,
    Task,
    Broadcast,
    Control,
    Output,
    Notification,
}

impl Source {
    /// News first, then replies, output last: it is the most.
    pub(crate) const ALL: [Source; 7] = [
        Source::Notification,
        Source::Query,
        Source::Control,
        Source::Broadcast,
        Source::Mux,
        Source::Task,
        Source::Output,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Source::Query => "query",
            Source::Mux => "mux",
            Source::Task => "task",
            Source::Broadcast => "broadcast",
            Source::Control => "control",
            Source::Output => "iopub",
            Source::Notification => "notification",
        }
    }

    fn port(self, file: &ClientFile) -> u16 {
        match self {
            Source::Query => file.common.registration,
            Source::Mux => file.common.mux,
            Source::Task => file.common.task,
            Source::Broadcast => file.broadcast,
            Source::Control => file.common.control,
            Source::Output => file.common.iopub,
            Source::Notification => file.notification,
        }
    }

    fn index(self) -> usize {
        Source::ALL.iter().position(|source| *source == self).expect("ALL lists every source")
    }
}

impl From<Channel> for Source {
    fn from(channel: Channel) -> Source {
        match channel {
            Channel::Query => Source::Query,
            Channel::Mux => Source::Mux,
            Channel::Task => Source::Task,
            Channel::Broadcast => Source::Broadcast,
            Channel::Control => Source::Control,
        }
    }
}

struct Wire {
    socket: Socket,
    monitor: Monitor,
    connected: bool,
}

/// The sockets, in the order of [`Source::ALL`].
pub(crate) struct Channels {
    wires: Vec<Wire>,
    obstacle: Option<String>,
    /// Dropped after the sockets: it waits for what they still have to send.
    _context: Context,
}

impl Channels {
    /// Begins to connect to every channel of the controller.
    pub(crate) fn connect(file: &ClientFile, interface: &str) -> Result<Channels, TransportError> {
        let context = Context::new(1)?;
        let server = match &file.common.curve_serverkey {
            Some(key) => Some(key.clone()),
            None => std::env::var("IPP_CURVE_SERVERKEY").ok().filter(|key| !key.is_empty()),
        };
        let curve = Curve::of_peer(server.as_deref(), &file.common)?;
        // A request must not wait in a queue for a controller that is gone and then run in another one.
        let options = SocketOptions { immediate: true, curve, ..SocketOptions::default() };
        let mut wires = Vec::with_capacity(Source::ALL.len());
        for source in Source::ALL {
            let socket = match source {
                Source::Output | Source::Notification => Socket::subscriber(&context, &options)?,
                _ => Socket::dealer(&context, &options)?,
            };
            let monitor = Monitor::attach(&context, &socket)?;
            socket.connect(&format!("{interface}:{}", source.port(file)))?;
            wires.push(Wire { socket, monitor, connected: false });
        }
        Ok(Channels { wires, obstacle: None, _context: context })
    }

    /// Waits for a message, a connection's news or a wake-up.
    pub(crate) fn wait(&self, wake: &WakeReceiver, timeout: Option<Duration>) -> Result<(), TransportError> {
        let sockets =
            self.wires.iter().flat_map(|wire| [PollItem::from(&wire.socket), PollItem::from(&wire.monitor)]);
        let mut items: Vec<PollItem<'_>> = sockets.chain([PollItem::from(wake)]).collect();
        poll(&mut items, timeout).map(drop)
    }

    /// Reads the news of all connections; returns the names of channels that lost theirs.
    pub(crate) fn take_events(&mut self) -> Result<Vec<&'static str>, TransportError> {
        let mut lost = Vec::new();
        for (source, wire) in Source::ALL.into_iter().zip(&mut self.wires) {
            while let Some(event) = wire.monitor.next_event()? {
                match event {
                    MonitorEvent::HandshakeSucceeded { .. } => wire.connected = true,
                    MonitorEvent::Disconnected { .. } if wire.connected => {
                        wire.connected = false;
                        lost.push(source.name());
                    }
                    MonitorEvent::HandshakeFailed { reason, endpoint, .. } => {
                        let why = match reason {
                            HandshakeFailure::NoDetail => {
                                "the handshake failed: a wrong curve_serverkey, or it is not a controller"
                            }
                            HandshakeFailure::Protocol => {
                                "it speaks another protocol: CURVE on one side only, or it is not a controller"
                            }
                            HandshakeFailure::Refused => "it refused this client's keys",
                        };
                        self.obstacle = Some(format!("{why} (channel {}, {endpoint})", source.name()));
                    }
                    _ => {}
                }
            }
        }
        Ok(lost)
    }

    /// Whether every channel has its connection.
    pub(crate) fn all_connected(&self) -> bool {
        self.wires.iter().all(|wire| wire.connected)
    }

    /// What last stood in the way of a connection.
    pub(crate) fn obstacle(&self) -> Option<&str> {
        self.obstacle.as_deref()
    }

    /// The next message's frames. Messages beyond the bounds are dropped.
    pub(crate) fn receive(&self, source: Source) -> Result<Option<Vec<Bytes>>, TransportError> {
        let socket = &self.wires[source.index()].socket;
        loop {
            match socket.receive()? {
                None => return Ok(None),
                Some(Received::Message(message)) => return Ok(Some(message.parts)),
                Some(Received::Oversized(oversized)) => {
                    let (parts, bytes) = (oversized.part_count, oversized.byte_count);
                    warn!(channel = source.name(), parts, bytes, "oversized message dropped");
                }
            }
        }
    }

    /// Sends a message; returns whether there was a connection to send it over.
    pub(crate) fn send(&self, outgoing: &Outgoing) -> Result<bool, TransportError> {
        let socket = &self.wires[Source::from(outgoing.channel).index()].socket;
        let routing: Vec<Bytes> =
            outgoing.route.iter().map(|uuid| Bytes::copy_from_slice(uuid.as_str().as_bytes())).collect();
        match socket.send(&outgoing.wire.to_parts(&routing))? {
            Sent::Done => Ok(true),
            Sent::WouldBlock | Sent::Unreachable => Ok(false),
        }
    }

    /// Closes all sockets; what was sent may still leave for as long as `linger`.
    pub(crate) fn close(self, linger: Duration) {
        for Wire { socket, .. } in self.wires {
            if let Err(error) = socket.close(linger) {
                warn!(%error, "socket not closed in order");
            }
        }
    }
}
