//! The table of sockets, and both directions between messages and events or effects.
//!
//! | socket | kind | identity | carries |
//! |---|---|---|---|
//! | registration | ROUTER | – | queries of clients, registrations of engines |
//! | notification | XPUB | – | who joined and left |
//! | mux, task, control, clients' side | ROUTER | `mux_in`, `task_in`, `control_in` | requests in, replies out |
//! | mux, task, control, engines' side | ROUTER | `mux_out`, `task_out`, `control_out` | requests out, replies in |
//! | broadcast, clients' and engines' side | ROUTER | `sub_scheduler_0`, `sub_scheduler_1` | the same |
//! | iopub, engines' side and clients' side | SUB, PUB | –, `<session>_iopub` | output |
//! | `hb_ping`, `hb_pong` | PUB, ROUTER | – | heartbeats |
//!
//! Payload frames pass through as they came; only what the controller says itself is made and signed here.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use protocol::buffer_digest::BufferDigests;
use protocol::error::{ErrorContent, ename};
use protocol::extension::{ClusterStatus, identity};
use protocol::frames::WireMessage;
use protocol::id::{EngineUuid, MsgId, SessionId};
use protocol::limits::OUTPUT_MESSAGES_PER_CLIENT_MAX;
use protocol::message::control::{SHUTDOWN_REPLY, SHUTDOWN_REQUEST, Shutdown};
use protocol::message::execute::{EXECUTE_REQUEST, ExecuteRequest};
use protocol::message::hub::RESUBMIT_REPLY;
use protocol::message::output::{ExecutionState, STATUS, StatusUpdate};
use protocol::message::{Empty, Failure};
use protocol::{Date, Key, Message, Receiver, Refusal, Session};
use serde::Deserialize;
use serde_json::{Map, Value as Json};
use transport::monitor::Monitor;
use transport::poll::{PollItem, poll_awake};
use transport::wake::WakeReceiver;
use transport::{Context, Received, Sent, Socket, SocketOptions, TransportError};

use super::awake::Awake;
use super::decode;
use super::departures::Departures;
use super::doorkeeper::{self, Doorkeeper, Known};
use super::hearts::Hearts;
use super::outbox::{Outbox, TRY_INTERVAL};
use super::returning::{LOOK_INTERVAL, Returning};
use super::store::{Store, Ticket, Written};
use crate::machine::{Address, Channel, Client, Effect, Event, Request, Target, reply_type};
use crate::records::{Answer, StoredRequest};
use crate::tasks::TaskId;

/// Messages taken from one socket before the next one has its turn.
pub(super) const RECEIVED_PER_ROUND_MAX: usize = 256;

/// How long last messages (the answer to a shutdown) may take to leave when the controller ends.
const LAST_WORDS_TIME: Duration = Duration::from_millis(500);

/// At most one warning about refused messages in this time; all are counted.
const WARNING_INTERVAL: Duration = Duration::from_secs(10);

/// Where and how to bind.
pub struct Binding {
    /// `tcp://127.0.0.1`, for clients.
    pub client_interface: String,
    /// For engines.
    pub engine_interface: String,
    /// Ports in order of use, see [`Ports`].
    pub ports: PortPools,
    /// Of the cluster.
    pub key: Key,
    /// Of the sockets.
    pub curve: transport::Curve,
    /// The keys of peers, if others are not let in.
    pub known: Option<Known>,
    /// Whether what it makes itself has digests of buffers.
    pub digests: BufferDigests,
    /// By which bytes the routes of tasks begin, if an earlier controller's tasks are gone on with.
    pub epoch: Option<[u8; 8]>,
    /// Whether clients of an earlier controller may return.
    pub restorable: bool,
}

/// Ports to be used before random ones.
#[derive(Clone, Debug, Default)]
pub struct PortPools {
    /// For what engines connect to.
    pub engine: std::collections::VecDeque<u16>,
    /// For what clients connect to.
    pub client: std::collections::VecDeque<u16>,
    /// For either, when its own pool is empty.
    pub common: std::collections::VecDeque<u16>,
    /// Further ports of the broadcast channel, where engines of an earlier controller expect them.
    pub leaves: Vec<u16>,
}

/// The ports that were bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as in the connection files")]
pub struct Ports {
    pub registration: u16,
    pub engine: Pair,
    pub client: Pair,
    pub hb_ping: u16,
    pub hb_pong: u16,
    pub notification: u16,
}

/// Ports of the channels that both sides have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as in the connection files")]
pub struct Pair {
    pub control: u16,
    pub mux: u16,
    pub task: u16,
    pub iopub: u16,
    pub broadcast: u16,
}

/// The two sides of a channel.
struct Relay {
    clients: Socket,
    engines: Socket,
    /// Where clients of an earlier controller are; none if there was none.
    returning: Option<Returning>,
    relayed: u64,
}

/// All sockets.
pub struct Channels {
    registration: Socket,
    notification: Socket,
    /// In the order of [`Channel::ALL`].
    relays: [Relay; 4],
    iopub_in: Socket,
    iopub_out: Socket,
    iopub_relayed: u64,
    hearts: Hearts,
    /// What has left; none if nobody goes on where this controller ends.
    departures: Option<Departures>,
    awake: Awake,
    outbox: Outbox,
    session: Session,
    receiver: Receiver,
    clients: decode::Clients,
    /// Dropped after the sockets, which ask it.
    doorkeeper: Option<Doorkeeper>,
    oversized: u64,
    misrouted: u64,
    warned: Option<Instant>,
    unwarned: u64,
    /// Tells this controller's tasks from an earlier one's.
    epoch: [u8; 8],
    ports: Ports,
}

/// Which sockets have something, by the order of [`Channel::ALL`] where there is one for each channel.
pub(super) struct Ready {
    engines: [bool; 4],
    clients: [bool; 4],
    registration: bool,
    subscribed: bool,
    output: bool,
    hearts: bool,
    departures: bool,
    /// Somebody has woken us.
    pub(super) woken: bool,
}

fn place(channel: Channel) -> usize {
    match channel {
        Channel::Control => 0,
        Channel::Mux => 1,
        Channel::Broadcast => 2,
        Channel::Task => 3,
    }
}

impl Channels {
    /// Binds everything, in the order in which the original uses up its ports.
    pub fn bind(context: &Context, binding: Binding) -> Result<Channels, TransportError> {
        let Binding {
            client_interface,
            engine_interface,
            mut ports,
            key,
            curve,
            known,
            digests,
            epoch,
            restorable,
        } = binding;
        let session = Session::new(
            SessionId::from(transport::random::id()),
            std::env::var("USER").unwrap_or_else(|_| "username".to_owned()),
            std::process::id(),
            &key,
        )
        .with_digests(digests);
        let own_user_only = [&client_interface, &engine_interface].iter().any(|all| all.starts_with("ipc:"));
        // Before anybody can ask for entrance.
        let doorkeeper = known.map(|known| Doorkeeper::open(context, known)).transpose()?;
        let door = |domain| SocketOptions {
            curve: curve.clone(),
            own_user_only,
            domain: doorkeeper.as_ref().map(|_| domain),
            ..SocketOptions::default()
        };
        let (engines, clients) = (door(doorkeeper::ENGINES), door(doorkeeper::CLIENTS));
        // Peers that cannot be reached are noticed, not silently skipped.
        let outward = |side: &SocketOptions, identity: &str| SocketOptions {
            identity: Some(identity.into()),
            mandatory: true,
            ..side.clone()
        };
        let output = |identity: Option<Vec<u8>>| SocketOptions {
            identity,
            send_hwm: OUTPUT_MESSAGES_PER_CLIENT_MAX,
            ..clients.clone()
        };

        let registration = Socket::router(context, &door(doorkeeper::EVERYBODY))?;
        let control_out = Socket::router(context, &outward(&engines, identity::CONTROL_OUT))?;
        let mux_out = Socket::router(context, &outward(&engines, identity::MUX_OUT))?;
        let task_out = Socket::router(context, &outward(&engines, identity::TASK_OUT))?;
        let iopub_in = Socket::subscriber(context, &engines)?;
        let ping = Socket::publisher(context, &engines)?;
        let pong = Socket::router(context, &engines)?;
        let monitor = Monitor::attach(context, &pong)?;
        let leaf = Socket::router(context, &outward(&engines, &identity::broadcast_leaf(0)))?;
        let mut engine_port = Binder::new(&engine_interface, &mut ports.engine, &mut ports.common);
        let mut bound = Ports { registration: engine_port.bind(&registration)?, ..Ports::default() };
        bound.engine.control = engine_port.bind(&control_out)?;
        bound.engine.mux = engine_port.bind(&mux_out)?;
        bound.engine.task = engine_port.bind(&task_out)?;
        bound.engine.iopub = engine_port.bind(&iopub_in)?;
        bound.hb_ping = engine_port.bind(&ping)?;
        bound.hb_pong = engine_port.bind(&pong)?;
        bound.engine.broadcast = engine_port.bind(&leaf)?;
        for port in &ports.leaves {
            leaf.bind(&format!("{engine_interface}:{port}"))?;
        }
        if client_interface != engine_interface {
            registration.bind(&format!("{client_interface}:{}", bound.registration))?;
        }

        // A client that is gone may come back over another connection.
        let control_in = Socket::router(context, &outward(&clients, "control_in"))?;
        let mux_in = Socket::router(context, &outward(&clients, "mux_in"))?;
        let task_in = Socket::router(context, &outward(&clients, "task_in"))?;
        let iopub_out =
            Socket::publisher(context, &output(Some(format!("{}_iopub", session.id()).into_bytes())))?;
        let notification = Socket::announcer(context, &output(None))?;
        let root = Socket::router(context, &outward(&clients, "sub_scheduler_0"))?;
        let returning = |router| restorable.then(|| Returning::learn(context, router)).transpose();
        let returning =
            [returning(&control_in)?, returning(&mux_in)?, returning(&root)?, returning(&task_in)?];
        let mut client_port = Binder::new(&client_interface, &mut ports.client, &mut ports.common);
        bound.client.control = client_port.bind(&control_in)?;
        bound.client.mux = client_port.bind(&mux_in)?;
        bound.client.task = client_port.bind(&task_in)?;
        bound.client.iopub = client_port.bind(&iopub_out)?;
        bound.notification = client_port.bind(&notification)?;
        bound.client.broadcast = client_port.bind(&root)?;

        let [r0, r1, r2, r3] = returning;
        let relay = |clients, engines, returning| Relay { clients, engines, returning, relayed: 0 };
        let epoch = epoch.unwrap_or_else(|| {
            let mut epoch = [0; 8];
            getrandom::fill(&mut epoch).expect("the system gives random numbers");
            epoch
        });
        Ok(Channels {
            registration,
            notification,
            relays: [
                relay(control_in, control_out, r0),
                relay(mux_in, mux_out, r1),
                relay(root, leaf, r2),
                relay(task_in, task_out, r3),
            ],
            iopub_in,
            iopub_out,
            iopub_relayed: 0,
            hearts: Hearts::new(ping, pong, monitor),
            departures: restorable.then(|| Departures::new(context)).transpose()?,
            awake: Awake::new(),
            outbox: Outbox::default(),
            receiver: session.receiver(),
            doorkeeper,
            clients: decode::Clients::default(),
            session,
            oversized: 0,
            misrouted: 0,
            warned: None,
            unwarned: 0,
            epoch,
            ports: bound,
        })
    }

    /// By which bytes the routes of tasks begin.
    pub fn epoch(&self) -> [u8; 8] {
        self.epoch
    }

    /// In whose name the controller speaks.
    pub fn session(&self) -> &SessionId {
        self.session.id()
    }

    /// What was bound.
    pub fn ports(&self) -> Ports {
        self.ports
    }

    /// Sleeps until something can be received, the time is over, or somebody wakes us; says what is ready.
    pub(super) fn wait(
        &mut self,
        time: Option<Duration>,
        wake: &WakeReceiver,
    ) -> Result<Ready, TransportError> {
        let time = if self.outbox.is_empty() {
            time
        } else {
            Some(time.map_or(TRY_INTERVAL, |time| time.min(TRY_INTERVAL)))
        };
        let is_holding = |relay: &Relay| relay.returning.as_ref().is_some_and(Returning::is_holding);
        let time = if self.relays.iter().any(is_holding) {
            Some(time.map_or(LOOK_INTERVAL, |time| time.min(LOOK_INTERVAL)))
        } else {
            time
        };
        let [r0, r1, r2, r3] = &self.relays;
        let mut items = [
            PollItem::from(&r0.engines),
            PollItem::from(&r1.engines),
            PollItem::from(&r2.engines),
            PollItem::from(&r3.engines),
            PollItem::from(&r0.clients),
            PollItem::from(&r1.clients),
            PollItem::from(&r2.clients),
            PollItem::from(&r3.clients),
            PollItem::from(&self.registration),
            PollItem::from(&self.notification),
            PollItem::from(&self.iopub_in),
            PollItem::from(&self.hearts.pong),
            PollItem::from(&self.hearts.monitor),
            PollItem::from(wake),
            self.departures.as_ref().map_or_else(|| PollItem::from(wake), |own| PollItem::from(&own.back)),
        ];
        let count = items.len() - usize::from(self.departures.is_none());
        let began = Instant::now();
        poll_awake(&mut items[..count], time, self.awake.time())?;
        self.awake.on_waited(began.elapsed());
        let [engines @ .., c0, c1, c2, c3, registration, subscribed, output, pong, monitor, woken, departed] =
            items.map(|item| item.is_readable());
        let departures = departed && self.departures.is_some();
        Ok(Ready {
            engines,
            clients: [c0, c1, c2, c3],
            registration,
            subscribed,
            output,
            hearts: pong || monitor,
            departures,
            woken,
        })
    }

    /// One round over the sockets that are ready. Those that are not are left alone: to look at an empty socket
    /// costs a system call, and a lone request passes through here twice.
    pub(super) fn receive(
        &mut self,
        ready: &Ready,
        store: &mut Store,
        events: &mut Vec<Event>,
    ) -> Result<(), TransportError> {
        if !self.outbox.is_empty() {
            let relays = &self.relays;
            self.outbox.retry(|channel| &relays[place(channel)].engines, events)?;
        }
        for Relay { clients, returning, .. } in &mut self.relays {
            if let Some(returning) = returning.as_mut().filter(|returning| returning.is_holding()) {
                returning.look(clients)?;
            }
        }
        if let Some(departures) = self.departures.as_mut().filter(|_| ready.departures) {
            departures.receive(events)?;
        }
        if ready.registration {
            self.receive_queries(events)?;
        }
        // After the lists that were asked for: a client subscribes when it has one.
        if ready.subscribed {
            self.receive_subscriptions(events)?;
        }
        for channel in Channel::ALL {
            if ready.engines[place(channel)] {
                self.receive_replies(channel, events)?;
            }
        }
        // Output before the reply that ends the request it belongs to would be best; over two sockets that
        // cannot be promised, and clients wait for the engine's `idle` instead.
        if ready.output {
            self.relay_output(store, events)?;
        }
        for channel in Channel::ALL {
            if ready.clients[place(channel)] {
                self.receive_requests(channel, events)?;
            }
        }
        if ready.hearts {
            self.hearts.receive(events)?;
        }
        Ok(())
    }

    fn receive_queries(&mut self, events: &mut Vec<Event>) -> Result<(), TransportError> {
        for _ in 0..RECEIVED_PER_ROUND_MAX {
            let Some(received) = self.registration.receive()? else { return Ok(()) };
            let Some((routing, message)) = self.open("registration", received) else { continue };
            match decode::query(routing, message) {
                Ok(event) => events.push(event),
                Err(decode::BadRoute) => self.misrouted += 1,
            }
        }
        Ok(())
    }

    /// Many that come at once are one event: what is said again is said to all.
    fn receive_subscriptions(&mut self, events: &mut Vec<Event>) -> Result<(), TransportError> {
        let mut somebody = false;
        for _ in 0..RECEIVED_PER_ROUND_MAX {
            let Some(received) = self.notification.receive()? else { break };
            // 1 and the topic; 0 is the end of a subscription, and anything else nobody may say here.
            somebody |= matches!(received, Received::Message(message) if message.parts.first().is_some_and(|part| part.first() == Some(&1)));
        }
        events.extend(somebody.then_some(Event::Subscribed));
        Ok(())
    }

    fn receive_replies(&mut self, channel: Channel, events: &mut Vec<Event>) -> Result<(), TransportError> {
        for _ in 0..RECEIVED_PER_ROUND_MAX {
            let Some(received) = self.relays[place(channel)].engines.receive()? else { return Ok(()) };
            let Some((routing, message)) = self.admit(channel.name(), received, Receiver::pass) else {
                continue;
            };
            match decode::reply(channel, &self.epoch, routing, message) {
                Ok(event) => events.push(event),
                Err(decode::BadRoute) => self.misrouted += 1,
            }
        }
        Ok(())
    }

    fn receive_requests(&mut self, channel: Channel, events: &mut Vec<Event>) -> Result<(), TransportError> {
        for _ in 0..RECEIVED_PER_ROUND_MAX {
            let Some(received) = self.relays[place(channel)].clients.receive()? else { return Ok(()) };
            let Some((routing, message)) = self.open(channel.name(), received) else { continue };
            if let Some(returning) = &mut self.relays[place(channel)].returning
                && let Some(identity) = routing.first()
            {
                returning.hear(&message.header.session, identity);
            }
            match decode::request(&mut self.clients, channel, routing, message) {
                Ok(Ok(event)) => events.push(event),
                Ok(Err((client, message, error))) => {
                    tracing::debug!(channel = channel.name(), %error, "request cannot be read");
                    self.refuse(client, &message, &ErrorContent::new(ename::VALUE_ERROR, error.to_string()))?;
                }
                Err(decode::BadRoute) => self.misrouted += 1,
            }
        }
        Ok(())
    }

    /// Output goes from engines to clients in order; only what is forged stays behind.
    fn relay_output(&mut self, store: &mut Store, events: &mut Vec<Event>) -> Result<(), TransportError> {
        for _ in 0..RECEIVED_PER_ROUND_MAX {
            let Some(received) = self.iopub_in.receive()? else { return Ok(()) };
            let Some((routing, message)) = self.open("iopub", received) else { continue };
            // A client that is slower than its output loses what exceeds its bound: PUB drops for it alone.
            let _ = self.iopub_out.send(&message.wire.to_parts(&routing))?;
            self.iopub_relayed += 1;
            if message.header.msg_type == SHUTDOWN_REPLY {
                let engine = message.header.session.as_str().into();
                events.push(Event::Ending { engine, reason: None });
            }
            if store.keeps_records()
                && let Some(change) = decode::output(&message)
            {
                store.remember(today(), change);
            }
        }
        Ok(())
    }

    /// What passes signature and form; the rest is counted, told and dropped.
    fn open(&mut self, channel: &'static str, received: Received) -> Option<(Vec<Bytes>, Message)> {
        self.admit(channel, received, Receiver::open_to_forward)
    }

    fn admit<T>(
        &mut self,
        channel: &'static str,
        received: Received,
        gate: impl FnOnce(&mut Receiver, Vec<Bytes>) -> Result<T, Refusal>,
    ) -> Option<T> {
        let parts = match received {
            Received::Message(message) => message.parts,
            Received::Oversized(oversized) => {
                self.oversized += 1;
                tracing::debug!(channel, sender = ?oversized.first, bytes = oversized.byte_count, "oversized message dropped");
                self.warn_of_refusals();
                return None;
            }
        };
        let sender = parts.first().cloned();
        match gate(&mut self.receiver, parts) {
            Ok(opened) => Some(opened),
            Err(refusal) => {
                tracing::debug!(channel, ?sender, %refusal, "message refused");
                self.warn_of_refusals();
                None
            }
        }
    }

    fn warn_of_refusals(&mut self) {
        self.unwarned += 1;
        let now = Instant::now();
        if self.warned.is_none_or(|at| now.duration_since(at) >= WARNING_INTERVAL) {
            tracing::warn!(count = self.unwarned, "messages refused; who sent them is logged at debug");
            self.warned = Some(now);
            self.unwarned = 0;
        }
    }

    /// Answers a request whose metadata nobody can read.
    fn refuse(
        &mut self,
        client: Client,
        message: &Message,
        error: &ErrorContent,
    ) -> Result<(), TransportError> {
        let Some(msg_type) = reply_type(&message.header.msg_type) else { return Ok(()) };
        let content = Failure::from(error.clone());
        let reply = self.session.reply(today(), &msg_type, &message.wire.header, &Empty {}, &content, vec![]);
        self.send_to_client(&client, None, &reply)
    }

    /// A reply was given to a socket.
    pub(super) fn note_departure(&mut self) {
        if let Some(departures) = &mut self.departures {
            departures.note();
        }
    }

    /// Asks whether what was said until now has left. What waits for its client to come back has not.
    pub(super) fn mark_departures(&mut self) -> Result<(), TransportError> {
        let has_unsent = |relay: &Relay| relay.returning.as_ref().is_some_and(Returning::has_unsent);
        if self.relays.iter().any(has_unsent) {
            return Ok(());
        }
        self.departures.as_mut().map_or(Ok(()), Departures::mark)
    }

    /// Does what the machine wants; true if that is to end.
    pub(super) fn perform(&mut self, effect: Effect) -> Result<bool, TransportError> {
        match effect {
            Effect::Forward { channel, engine, task, message } => {
                self.send_to_engine(channel, engine, task, &message)?;
            }
            Effect::Share { engine, task, header, message, metadata } => {
                let share = self.session.readdress(&message, &header, &*metadata);
                self.send_to_engine(Channel::Broadcast, engine, task, &share)?;
            }
            Effect::Stop { engine } => {
                let content = Shutdown::default();
                let request = self.session.message(today(), SHUTDOWN_REQUEST, &Empty {}, &content, vec![]);
                self.send_to_engine(Channel::Control, engine, TaskId::NONE, &request)?;
            }
            Effect::Relay { client, engine, message } => {
                self.send_to_client(&client, Some(engine.as_str().as_bytes()), &message)?;
            }
            Effect::Reply { client, engine, parent, msg_type, metadata, content, buffers } => {
                let reply = self.session.reply(today(), &msg_type, &parent, &metadata, &content, buffers);
                self.send_to_client(
                    &client,
                    engine.as_ref().map(|engine| engine.as_str().as_bytes()),
                    &reply,
                )?;
            }
            Effect::Repeat { client, engine, message } => self.repeat(&client, engine.as_ref(), &message)?,
            Effect::Idle { parent, engine } => self.say_idle(&parent, engine.as_ref())?,
            Effect::Answer { to, parent, msg_type, content } => {
                self.answer(to, &parent, msg_type, &content)?
            }
            Effect::AnswerStatus { to, parent, status } => {
                let status = self.complete(*status);
                self.answer(to, &parent, protocol::extension::CLUSTER_STATUS_REPLY, &status)?;
            }
            Effect::Publish { parent, msg_type, content } => {
                let message = self.session.reply(today(), msg_type, &parent, &Empty {}, &content, vec![]);
                let _ = self.notification.send(&message.to_parts(&[]))?;
            }
            Effect::Remember(_) | Effect::Consult { .. } => {
                unreachable!("the loop turns to the store with them")
            }
            Effect::Probe { channel, engine, task } => {
                let content =
                    ExecuteRequest { silent: true, stop_on_error: false, ..ExecuteRequest::default() };
                let request = self.session.message(today(), EXECUTE_REQUEST, &Empty {}, &content, vec![]);
                self.send_to_engine(channel, engine, task, &request)?;
            }
            Effect::Ping => self.hearts.beat()?,
            Effect::Exit => return Ok(true),
        }
        Ok(false)
    }

    /// Closes all sockets; what was said last may still leave for a moment.
    pub(super) fn close(self) -> Result<(), TransportError> {
        let Channels { registration, notification, relays, iopub_out, .. } = self;
        let pairs = relays.into_iter().flat_map(|relay| [relay.clients, relay.engines]);
        for socket in pairs.chain([registration, notification, iopub_out]) {
            socket.close(LAST_WORDS_TIME)?;
        }
        Ok(())
    }

    fn send_to_engine(
        &mut self,
        channel: Channel,
        engine: EngineUuid,
        task: TaskId,
        message: &WireMessage,
    ) -> Result<(), TransportError> {
        let relay = &mut self.relays[place(channel)];
        relay.relayed += 1;
        let route = decode::route(&self.epoch, task);
        self.outbox.send(&relay.engines, channel, engine, task, &route, message)
    }

    /// Replies carry the engine's name before the delimiter, as stock ones do. A client that is gone gets nothing.
    fn send_to_client(
        &mut self,
        client: &Client,
        engine: Option<&[u8]>,
        message: &WireMessage,
    ) -> Result<(), TransportError> {
        let relay = &mut self.relays[place(client.channel)];
        relay.relayed += 1;
        let identity = match &client.address {
            Address::Connection(identity) => identity,
            Address::Session(session) => {
                let Some(returning) = &mut relay.returning else { return Ok(()) };
                let engine = engine.map(Bytes::copy_from_slice);
                return returning.send(&relay.clients, session, message.to_parts(engine.as_slice()));
            }
            Address::Nobody => return Ok(()),
        };
        let routing: &[&[u8]] = match engine {
            Some(engine) => &[identity, engine],
            None => &[identity],
        };
        if relay.clients.send_routed(routing, message.frames())? != Sent::Done {
            tracing::debug!(channel = client.channel.name(), "reply to a client that is gone");
        }
        Ok(())
    }

    /// Gives a session once more what an earlier controller may have given it.
    fn repeat(
        &mut self,
        client: &Client,
        engine: Option<&EngineUuid>,
        message: &WireMessage,
    ) -> Result<(), TransportError> {
        #[derive(Deserialize)]
        struct Typed {
            msg_type: String,
        }
        let relay = &mut self.relays[place(client.channel)];
        let (Address::Session(session), Some(returning), Ok(Typed { msg_type })) =
            (&client.address, &mut relay.returning, serde_json::from_slice(&message.header))
        else {
            return Ok(());
        };
        let again = self.session.repeat(today(), &msg_type, message);
        let engine = engine.map(|engine| Bytes::copy_from_slice(engine.as_str().as_bytes()));
        relay.relayed += 1;
        returning.repeat(&relay.clients, session, again.to_parts(engine.as_slice()))
    }

    /// As an engine that has done a request.
    fn say_idle(&mut self, parent: &Bytes, engine: Option<&EngineUuid>) -> Result<(), TransportError> {
        let metadata =
            engine.map_or_else(|| serde_json::json!({}), |engine| serde_json::json!({ "engine": engine }));
        let content = StatusUpdate { execution_state: ExecutionState::Idle };
        let message = self.session.reply(today(), STATUS, parent, &metadata, &content, vec![]);
        let _ = self.iopub_out.send(&message.to_parts(&[Bytes::from_static(b"status")]))?;
        Ok(())
    }

    fn answer(
        &mut self,
        to: Bytes,
        parent: &Bytes,
        msg_type: &str,
        content: &impl serde::Serialize,
    ) -> Result<(), TransportError> {
        let answer = self.session.reply(today(), msg_type, parent, &Empty {}, content, vec![]);
        let _ = self.registration.send(&answer.to_parts(&[to]))?;
        Ok(())
    }

    /// Says what the store has written.
    pub(super) fn deliver_written(&mut self, ticket: Ticket, written: Written) -> Result<(), TransportError> {
        let Ticket { to, parent } = ticket;
        let Written { msg_type, content, buffers } = written;
        let empty = Bytes::from_static(b"{}");
        let (signature, header, metadata) = (Bytes::new(), Bytes::new(), empty);
        let unsigned = WireMessage { signature, header, parent_header: parent, metadata, content, buffers };
        let answer = self.session.repeat(today(), msg_type, &unsigned);
        let _ = self.registration.send(&answer.to_parts(&[to]))?;
        Ok(())
    }

    /// Says what the store says: to its client, or to the machine.
    pub(super) fn deliver(
        &mut self,
        ticket: Ticket,
        answer: Answer,
        events: &mut Vec<Event>,
    ) -> Result<(), TransportError> {
        let Ticket { to, parent } = ticket;
        let (msg_type, content, buffers) = match answer {
            Answer::Reply { msg_type, content, buffers } => (msg_type, content, buffers),
            Answer::Requests(stored) => {
                let requests =
                    stored.and_then(|stored| stored.into_iter().map(|stored| self.anew(stored)).collect());
                match requests {
                    Ok(requests) => {
                        events.push(Event::Resubmitted { to, parent, requests });
                        return Ok(());
                    }
                    Err(error) => (RESUBMIT_REPLY, serde_json::json!(Failure::from(*error)), vec![]),
                }
            }
        };
        let answer = self.session.reply(today(), msg_type, &parent, &Empty {}, &content, buffers);
        let _ = self.registration.send(&answer.to_parts(&[to]))?;
        Ok(())
    }

    /// A stored request once more: its header with a new name and date, and all else in it as it was.
    fn anew(&mut self, stored: StoredRequest) -> Result<(MsgId, Request), Box<ErrorContent>> {
        let damaged = |error: serde_json::Error| {
            let text = format!("the request of {} is stored with a damaged header: {error}", stored.msg_id);
            Box::new(ErrorContent::new(ename::RUNTIME_ERROR, text))
        };
        let mut header: Map<String, Json> = serde_json::from_slice(&stored.header).map_err(damaged)?;
        header.insert("msg_id".to_owned(), serde_json::json!(self.session.next_id()));
        header.insert("date".to_owned(), serde_json::json!(today()));
        let before = WireMessage {
            signature: Bytes::new(),
            header: stored.header.clone(),
            parent_header: stored.header,
            metadata: Bytes::new(),
            content: stored.content,
            buffers: stored.buffers,
        };
        let message = self.session.readdress(&before, &header, &Empty {});
        let header = serde_json::from_value(Json::Object(header)).map_err(damaged)?;
        let client = Client { channel: Channel::Task, address: Address::Nobody };
        let target = Target::Balanced(Box::default());
        Ok((stored.msg_id, Request { client, header, target, message }))
    }

    /// Adds what only the shell knows.
    fn complete(&self, status: ClusterStatus) -> ClusterStatus {
        let mut relayed: BTreeMap<String, u64> = Channel::ALL
            .into_iter()
            .map(|channel| (channel.name().to_owned(), self.relays[place(channel)].relayed))
            .collect();
        relayed.insert("iopub".to_owned(), self.iopub_relayed);
        let mut refused: BTreeMap<String, u64> =
            self.receiver.refused().map(|(reason, count)| (reason.to_owned(), count)).collect();
        refused.insert("oversized".to_owned(), self.oversized);
        refused.insert("misrouted".to_owned(), self.misrouted);
        if let Some(doorkeeper) = &self.doorkeeper {
            refused.insert("unknown_key".to_owned(), doorkeeper.refused());
        }
        ClusterStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            host: hostname(),
            memory_bytes: resident_bytes(),
            relayed,
            refused,
            ..status
        }
    }
}

/// What engines are told of our ports; stock ones read their file instead.
pub fn connection_info(ports: &Ports) -> Json {
    serde_json::json!({
        "registration": ports.registration,
        "control": ports.engine.control,
        "mux": ports.engine.mux,
        "task": ports.engine.task,
        "iopub": ports.engine.iopub,
        "hb_ping": ports.hb_ping,
        "hb_pong": ports.hb_pong,
        "broadcast": [ports.engine.broadcast],
    })
}

/// This machine's name.
pub fn hostname() -> String {
    nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The calendar's time, which the machine does not need.
pub(super) fn today() -> Date {
    Date::from_system_time(SystemTime::now())
}

/// From the second field of `/proc/self/statm`; 0 where there is none.
fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    let page_bytes = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten().unwrap_or(4096);
    pages * u64::try_from(page_bytes).unwrap_or(4096)
}

/// Takes ports from pools, then from the system.
struct Binder<'a> {
    interface: &'a str,
    own: &'a mut std::collections::VecDeque<u16>,
    common: &'a mut std::collections::VecDeque<u16>,
    pooled: bool,
    /// `ipc` has no ports of its own: they are numbers in a file name.
    next_ipc: u16,
}

impl<'a> Binder<'a> {
    fn new(
        interface: &'a str,
        own: &'a mut std::collections::VecDeque<u16>,
        common: &'a mut std::collections::VecDeque<u16>,
    ) -> Binder<'a> {
        let pooled = !own.is_empty() || !common.is_empty();
        Binder { interface, own, common, pooled, next_ipc: 1 }
    }

    fn bind(&mut self, socket: &Socket) -> Result<u16, TransportError> {
        if let Some(port) = self.own.pop_front().or_else(|| self.common.pop_front()) {
            socket.bind(&format!("{}:{port}", self.interface))?;
            return Ok(port);
        }
        if std::mem::take(&mut self.pooled) {
            tracing::warn!("more ports are needed than were given; random ones are used");
        }
        if self.interface.starts_with("ipc:") {
            return self.bind_ipc(socket);
        }
        let endpoint = socket.bind(&format!("{}:*", self.interface))?;
        let port = endpoint.rsplit(':').next().and_then(|port| port.parse().ok());
        Ok(port.expect("libzmq says which port it has bound"))
    }

    /// The next number whose file does not exist: libzmq would take over another controller's file.
    fn bind_ipc(&mut self, socket: &Socket) -> Result<u16, TransportError> {
        let path = self.interface.trim_start_matches("ipc://");
        while self.next_ipc < u16::MAX && std::path::Path::new(&format!("{path}:{}", self.next_ipc)).exists()
        {
            self.next_ipc += 1;
        }
        socket.bind(&format!("{}:{}", self.interface, self.next_ipc))?;
        Ok(self.next_ipc)
    }
}
