//! Connections between the controller and its peers: each keeps order, none keeps time, and some break.

use std::collections::{BTreeMap, VecDeque};

use super::super::*;
use super::generator::Generator;
use super::plan::{MILLISECOND, Micros};

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Peer {
    Engine(u32),
    Client(u64),
}

/// Which of its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Socket {
    Hub,
    Channel(Channel),
    Output,
    Heart,
}

impl Socket {
    pub(super) const OF_CLIENTS: [Socket; 5] = [
        Socket::Hub,
        Socket::Channel(Channel::Control),
        Socket::Channel(Channel::Mux),
        Socket::Channel(Channel::Broadcast),
        Socket::Channel(Channel::Task),
    ];
    pub(super) const OF_ENGINES: [Socket; 7] = [
        Socket::Hub,
        Socket::Channel(Channel::Control),
        Socket::Channel(Channel::Mux),
        Socket::Channel(Channel::Broadcast),
        Socket::Channel(Channel::Task),
        Socket::Output,
        Socket::Heart,
    ];
}

/// To the controller.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "few are under way at once")]
pub(super) enum Up {
    Event(Event),
    /// The echo of a heartbeat.
    Echo(u64),
}

/// From the controller.
#[derive(Clone, Debug)]
pub(super) enum Down {
    Request(Delivery),
    Stop,
    /// The answer to a registration.
    Registered(Json),
    Ping(u64),
    /// Answers a client's request of that id.
    Answer(MsgId),
    /// Tells a client that its request of that id was lost.
    Lost(MsgId),
    /// One of these, which an earlier controller may have given to the client.
    Again(Box<Down>),
}

/// A request as an engine gets it.
#[derive(Clone, Debug)]
pub(super) struct Delivery {
    pub(super) channel: Channel,
    pub(super) task: TaskId,
    pub(super) msg_id: MsgId,
    pub(super) msg_type: String,
    pub(super) header: Bytes,
}

impl Delivery {
    /// Whether it is nothing, asked by a controller that was restarted.
    pub(super) fn is_probe(&self) -> bool {
        self.msg_id.as_str() == PROBE
    }
}

/// What probes are called.
pub(super) const PROBE: &str = "probe";

#[derive(Default)]
pub(super) struct Link {
    pub(super) is_up: bool,
    /// Counts the connections that it has been; what was sent over an earlier one is lost.
    pub(super) life: u32,
    sent: u64,
    /// When the last message comes that is under way, up and down.
    latest: [Micros; 2],
    /// What waits in the peer for a connection.
    pub(super) backlog: Vec<Up>,
    /// Whether it has been up.
    pub(super) was_up: bool,
}

#[derive(Default)]
pub(super) struct Links(BTreeMap<(Peer, Socket), Link>);

impl Links {
    pub(super) fn get(&mut self, peer: Peer, socket: Socket) -> &mut Link {
        self.0.entry((peer, socket)).or_default()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (Peer, Socket, &mut Link)> {
        self.0.iter_mut().map(|((peer, socket), link)| (*peer, *socket, link))
    }

    pub(super) fn is_up(&self, peer: Peer, socket: Socket) -> bool {
        self.0.get(&(peer, socket)).is_some_and(|link| link.is_up)
    }

    /// When a message that is sent now arrives.
    pub(super) fn arrival(
        &mut self,
        seed: u64,
        now: Micros,
        (peer, socket): (Peer, Socket),
        is_up: bool,
        is_slow: bool,
    ) -> Micros {
        let link = self.get(peer, socket);
        link.sent += 1;
        let mut draw = Generator::of(&[seed, 2, code(peer), code_of(socket), link.sent]);
        let most = if draw.chance(3) { 20 * MILLISECOND } else { 300 };
        let delay = draw.between(20, most) * if is_slow { 100 } else { 1 };
        let latest = &mut link.latest[usize::from(is_up)];
        *latest = (*latest).max(now + delay);
        *latest
    }

    /// The moment after everything that is under way to the controller.
    pub(super) fn drained(&mut self, now: Micros, peer: Peer, socket: Socket) -> Micros {
        self.get(peer, socket).latest[1].max(now)
    }
}

fn code(peer: Peer) -> u64 {
    match peer {
        Peer::Engine(number) => u64::from(number) * 2,
        Peer::Client(number) => number * 2 + 1,
    }
}

fn code_of(socket: Socket) -> u64 {
    match socket {
        Socket::Hub => 0,
        Socket::Output => 1,
        Socket::Heart => 2,
        Socket::Channel(channel) => 3 + channel as u64,
    }
}

/// How often the shell tries to send what cannot be sent (as `shell/outbox.rs`).
pub(super) const TRY_INTERVAL: Micros = 5 * MILLISECOND;

/// What waits in the controller for an engine's connection.
#[derive(Default)]
pub(super) struct Outbox(pub(super) BTreeMap<(u32, Channel), VecDeque<Unsent>>);

pub(super) struct Unsent {
    pub(super) until: Micros,
    pub(super) task: TaskId,
    pub(super) parcel: Down,
}
