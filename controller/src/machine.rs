//! The controller as a pure machine: start reading here.
//!
//! [`Controller::handle`] takes one [`Event`] and appends [`Effect`]s. It reads no clock and touches no socket.
//! What the outside did wrong is an event; what we did wrong is an assertion ([`Controller::check_invariants`]).
//! Messages of clients and engines pass through as they came: they are moved, never decoded.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use protocol::extension::ExplainRequest;
use protocol::frames::WireMessage;
use protocol::header::Header;
use protocol::id::{EngineId, EngineUuid, MsgId, SessionId};
use protocol::message::execute::{BroadcastMetadata, TaskMetadata};
use protocol::message::hub::{
    DbRequest, PurgeRequest, QueueRequest, RegistrationRequest, ResubmitRequest, ResultRequest,
};
use protocol::message::{Status, control};
use serde_json::Value as Json;

use crate::hub::Hub;
use crate::records::{Change, Question};
use crate::repeats::Repeats;
use crate::scheduler::balanced::{Balanced, Scheme};
use crate::scheduler::broadcast::Broadcasts;
use crate::tasks::{TaskId, TaskTable};

#[cfg(test)]
mod tests;

/// A channel between clients and engines that carries requests one way and replies the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Channel {
    /// To one named engine.
    Mux,
    /// To whichever engine is free.
    Task,
    /// To one named engine, beside what it computes.
    Control,
    /// To many engines at once.
    Broadcast,
}

impl Channel {
    /// All of them, in the order in which they are served: what ends work before what begins it.
    pub const ALL: [Channel; 4] = [Channel::Control, Channel::Mux, Channel::Broadcast, Channel::Task];

    /// Whether its requests wait in an engine's queue; control requests do not.
    pub(crate) fn is_queued(self) -> bool {
        self != Channel::Control
    }

    /// Its name in logs and counters.
    pub fn name(self) -> &'static str {
        match self {
            Channel::Mux => "mux",
            Channel::Task => "task",
            Channel::Control => "control",
            Channel::Broadcast => "broadcast",
        }
    }
}

/// Who asked, on one channel: where replies go.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Client {
    /// The channel.
    pub channel: Channel,
    /// Where on it.
    pub address: Address,
}

/// Where a reply goes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Address {
    /// To the connection of this ZeroMQ identity.
    Connection(Bytes),
    /// To the client of this session, wherever it connects from: it asked an earlier life of this controller.
    Session(SessionId),
    /// To nobody: the hub asked for its own records.
    Nobody,
}

/// A request of a client, verified.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Who asks.
    pub client: Client,
    /// The request's header.
    pub header: Header,
    /// What is asked of whom.
    pub target: Target,
    /// The request as it came.
    pub message: WireMessage,
}

/// Whom a request is for.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// The engine of this identity, by mux.
    Engine(Bytes),
    /// The engine of this identity, by control. Tasks that it aborts are aborted here too if they still wait.
    Control {
        /// Whom.
        engine: Bytes,
        /// Ids that an `abort_request` names; empty for all other requests.
        aborted: Vec<MsgId>,
    },
    /// Whichever engine is free.
    Balanced(Box<TaskMetadata>),
    /// All of these.
    Broadcast(Box<BroadcastMetadata>),
}

/// How a request ended, as the reply's metadata says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Ok, error, aborted.
    pub status: Status,
    /// False: the engine declined; another may do it.
    pub dependencies_met: bool,
}

/// A question to the hub.
#[derive(Clone, Debug, PartialEq)]
pub enum Query {
    /// Who is here?
    Connection,
    /// What waits where?
    Queue(QueueRequest),
    /// How much has each engine to do?
    Load(QueueRequest),
    /// End the cluster.
    Shutdown,
    /// Everything worth seeing.
    ClusterStatus,
    /// How did these tasks end?
    Results(ResultRequest),
    /// What was submitted?
    History,
    /// Which records match?
    Database(DbRequest),
    /// Forget records.
    Purge(PurgeRequest),
    /// Run tasks again.
    Resubmit(ResubmitRequest),
    /// What keeps a task from running?
    Explain(ExplainRequest),
    /// A request of the original's that this controller does not serve, and why.
    Unsupported {
        /// The answer's type.
        reply_type: &'static str,
        /// Why, and what to do.
        reason: &'static str,
    },
    /// A request type that does not exist.
    Unknown(String),
    /// A known request with content that cannot be read: its reply type and why.
    Malformed(String),
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// An engine, perhaps with its world, wants to join.
    Registering {
        /// The ZeroMQ identity to answer to.
        identity: Bytes,
        /// The request's header frame.
        header: Bytes,
        /// What it says.
        request: Box<RegistrationRequest>,
    },
    /// Whoever watches an engine says that it is gone.
    Unregistering {
        /// Who.
        engine: Option<EngineId>,
    },
    /// An engine said that it ends: on the output channel, or to the hub.
    Ending {
        /// Who.
        engine: EngineUuid,
        /// Why, if it said that.
        reason: Option<String>,
    },
    /// An engine was heard on a channel: it can be reached there.
    Reached {
        /// The channel.
        channel: Channel,
        /// Who.
        identity: Bytes,
    },
    /// An engine echoed a heartbeat.
    Beat {
        /// Who.
        identity: Bytes,
    },
    /// The connection of an engine's heart ended.
    Disconnected {
        /// Who.
        identity: Bytes,
    },
    /// Somebody hears from now on who joins and leaves.
    Subscribed,
    /// A client submitted something.
    Submitted(Box<Request>),
    /// An engine answered.
    Replied {
        /// Which channel it answered on.
        channel: Channel,
        /// Who.
        identity: Bytes,
        /// What it answers.
        task: TaskId,
        /// How it ended; `None` where the channel does not tell (mux, control).
        outcome: Option<Outcome>,
        /// The reply as it came.
        message: WireMessage,
    },
    /// A message could not be given to an engine although it was tried for a while.
    Undelivered {
        /// The engine.
        engine: EngineUuid,
        /// What was to be delivered.
        task: TaskId,
    },
    /// A client asked the hub.
    Asked {
        /// Its identity on the query channel.
        client: Bytes,
        /// Its session.
        session: SessionId,
        /// The request's id.
        msg_id: MsgId,
        /// The request's header frame.
        header: Bytes,
        /// The question.
        query: Query,
    },
    /// The store has found requests that are to run again.
    Resubmitted {
        /// Who wants it, by identity on the query channel.
        to: Bytes,
        /// That request's header frame.
        parent: Bytes,
        /// The old name of each, and the request under its new one.
        requests: Vec<(MsgId, Request)>,
    },
    /// So many of the replies of this controller's life have left the process. Told only where a journal is kept.
    Departed {
        /// How many, of those that were remembered as [`Change::Said`].
        count: u64,
    },
    /// Time has passed.
    Deadline,
}

/// What is to be done about it. Values, so that tests compare them.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Give a client's request to an engine as it came.
    Forward {
        /// The channel.
        channel: Channel,
        /// The engine.
        engine: EngineUuid,
        /// By which the reply is recognised.
        task: TaskId,
        /// The request.
        message: WireMessage,
    },
    /// Give an engine its share of a broadcast: the same message under an id and metadata of its own.
    Share {
        /// The engine.
        engine: EngineUuid,
        /// By which the reply is recognised.
        task: TaskId,
        /// Header of the share.
        header: Header,
        /// The request as the client sent it.
        message: WireMessage,
        /// Metadata of the share.
        metadata: Box<BroadcastMetadata>,
    },
    /// Tell an engine to end.
    Stop {
        /// The engine.
        engine: EngineUuid,
    },
    /// Give a client an engine's reply as it came.
    Relay {
        /// Who asked.
        client: Client,
        /// Who answers.
        engine: EngineUuid,
        /// The reply.
        message: WireMessage,
    },
    /// Answer a client in an engine's stead.
    Reply {
        /// Who asked.
        client: Client,
        /// The engine that the request was for, if it was for one.
        engine: Option<EngineUuid>,
        /// The request's header frame.
        parent: Bytes,
        /// The reply's type.
        msg_type: String,
        /// The reply's metadata.
        metadata: Json,
        /// The reply's content.
        content: Json,
        /// The reply's buffers.
        buffers: Vec<Bytes>,
    },
    /// Give a client once more, as a new message of ours, a reply that an earlier controller may have given it.
    Repeat {
        /// Who asked: a session.
        client: Client,
        /// The engine that the reply names, if any.
        engine: Option<EngineUuid>,
        /// The reply as it was, but for its header.
        message: WireMessage,
    },
    /// Say, in an engine's stead, that it is done with a request and that no output of it follows.
    Idle {
        /// The request's header frame.
        parent: Bytes,
        /// The engine, if it was one.
        engine: Option<EngineUuid>,
    },
    /// Answer a question to the hub.
    Answer {
        /// Who asked, by identity on the query channel.
        to: Bytes,
        /// The question's header frame.
        parent: Bytes,
        /// The answer's type.
        msg_type: &'static str,
        /// The answer.
        content: Json,
    },
    /// Answer a question for the whole cluster's status: the shell adds what it has counted.
    AnswerStatus {
        /// Who asked.
        to: Bytes,
        /// The question's header frame.
        parent: Bytes,
        /// What the machine knows.
        status: Box<protocol::extension::ClusterStatus>,
    },
    /// Tell all clients.
    Publish {
        /// The header frame of what caused it, `{}` if nothing did.
        parent: Bytes,
        /// The notification's type.
        msg_type: &'static str,
        /// What it says.
        content: Json,
    },
    /// Keep what happened: it goes before the other effects that tell of it.
    Remember(Change),
    /// Ask the store of records, and answer with what it says.
    Consult {
        /// Who asked, by identity on the query channel.
        to: Bytes,
        /// The question's header frame.
        parent: Bytes,
        /// The question.
        question: Question,
    },
    /// Ask an engine for nothing, on a channel where it may have lost something: what it was asked before is
    /// answered before.
    Probe {
        /// The channel.
        channel: Channel,
        /// The engine.
        engine: EngineUuid,
        /// By which the reply is recognised.
        task: TaskId,
    },
    /// Ask all hearts to echo.
    Ping,
    /// End the process.
    Exit,
}

/// What can be set.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Time between heartbeats.
    pub heartbeat_period: Duration,
    /// Heartbeats that may stay unanswered; one more and the engine is lost.
    pub heartbeat_misses: u32,
    /// How long a lost connection may take to come back.
    pub reconnect_grace: Duration,
    /// How long after its first echo a stock engine, which cannot say that it is ready, is usable.
    pub settle_time: Duration,
    /// How long an engine may take from its registration until it is usable.
    pub registration_timeout: Duration,
    /// Tasks that an engine may hold at once; `None` chooses by kind of engine, 0 is unlimited.
    pub window: Option<usize>,
    /// How an engine is chosen.
    pub scheme: Scheme,
    /// Starts the random schemes.
    pub seed: u64,
    /// What engines are told of our ports.
    pub connection_info: Json,
    /// Whether a later controller may go on with what this one leaves.
    pub restorable: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            heartbeat_period: Duration::from_secs(3),
            heartbeat_misses: 10,
            reconnect_grace: Duration::from_millis(200),
            settle_time: Duration::from_millis(50),
            registration_timeout: Duration::from_secs(30),
            window: None,
            scheme: Scheme::LeastLoad,
            seed: 0,
            connection_info: Json::Object(serde_json::Map::new()),
            restorable: false,
        }
    }
}

/// Hub and schedulers.
pub struct Controller {
    pub(crate) settings: Settings,
    pub(crate) hub: Hub,
    pub(crate) tasks: TaskTable,
    pub(crate) balanced: Balanced,
    pub(crate) broadcasts: Broadcasts,
    /// What was said to clients in the last moment.
    pub(crate) repeats: Repeats,
    /// When it ends, once it was told to.
    pub(crate) stopping: Option<Instant>,
}

/// How long engines have to end when the cluster does.
pub(crate) const STOP_TIME: Duration = Duration::from_secs(1);

impl Controller {
    /// A controller without engines.
    pub fn new(now: Instant, settings: Settings) -> Controller {
        Controller {
            hub: Hub::new(now, &settings),
            tasks: TaskTable::default(),
            balanced: Balanced::new(settings.scheme, settings.seed),
            broadcasts: Broadcasts::default(),
            repeats: Repeats::default(),
            stopping: None,
            settings,
        }
    }

    /// Applies one event. Pure: reads no clock, touches no socket, cannot fail.
    pub fn handle(&mut self, now: Instant, event: Event, effects: &mut Vec<Effect>) {
        let first = effects.len();
        match event {
            Event::Registering { identity, header, request } => {
                self.on_registering(now, identity, header, *request, effects)
            }
            Event::Unregistering { engine } => self.on_unregistering(now, engine, effects),
            Event::Ending { engine, reason } => self.on_ending(now, &engine, reason.as_deref(), effects),
            Event::Reached { channel, identity } => self.on_reached(now, channel, &identity, effects),
            Event::Beat { identity } => self.on_beat(now, &identity, effects),
            Event::Disconnected { identity } => self.on_disconnected(now, &identity, effects),
            Event::Subscribed => self.on_subscribed(now, effects),
            Event::Submitted(request) => self.on_submitted(now, *request, effects),
            Event::Replied { channel, identity, task, outcome, message } => {
                self.on_replied(now, channel, &identity, task, outcome, message, effects)
            }
            Event::Undelivered { engine, task } => self.on_undelivered(now, &engine, task, effects),
            Event::Asked { client, session, msg_id, header, query } => {
                self.note_message(now, &session, &msg_id, false, effects);
                if self.hub.sessions.has_given_up(&session, &msg_id) {
                    tracing::info!(%msg_id, "a question that was told lost has come; it is not answered");
                } else {
                    self.on_asked(now, client, session, header, query, effects)
                }
            }
            Event::Resubmitted { to, parent, requests } => {
                self.on_resubmitted(now, to, parent, requests, effects)
            }
            Event::Departed { count } => self.repeats.on_departed(count),
            Event::Deadline => {}
        }
        self.on_time(now, effects);
        self.note_said(now, first, effects);
    }

    /// When to call again if nothing happens, and what for (shown in traces).
    pub fn next_deadline(&self) -> Option<(Instant, &'static str)> {
        [
            Some(self.hub.next_deadline()),
            self.balanced.next_timeout().map(|at| (at, "task timeout")),
            self.hub.sessions.next_deadline().map(|at| (at, "missing messages")),
            self.repeats.next_deadline().map(|at| (at, "repeats")),
            self.stopping.map(|at| (at, "shutdown")),
        ]
        .into_iter()
        .flatten()
        .min_by_key(|(at, _)| *at)
    }

    fn on_time(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        if self.hub.next_deadline().0 <= now {
            self.on_hub_deadline(now, effects);
        }
        while let Some(task) = self.balanced.take_timed_out(now) {
            self.on_timed_out(now, task, effects);
        }
        if self.hub.sessions.next_deadline().is_some_and(|at| at <= now) {
            self.answer_lost(now, effects);
        }
        if self.repeats.next_deadline().is_some_and(|at| at <= now) {
            self.repeat(now, effects);
        }
        if self.stopping.is_some_and(|at| at <= now || self.hub.is_empty()) {
            self.stopping = None;
            self.answer_all(now, effects);
            effects.push(Effect::Exit);
        }
    }

    /// Nobody will ever answer what is not answered when this controller has ended.
    fn answer_all(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        // Those that are still here end without us.
        let slow: Vec<EngineId> = self.hub.engines().map(|engine| engine.id).collect();
        for id in slow {
            self.lose_engine(now, id, false, "the controller ends", effects);
        }
        while let Some(id) = self.balanced.first_waiting() {
            self.on_farewell(now, id, effects);
        }
    }

    /// Answers everything because this controller ends now and none goes on where it was: a signal says so, which
    /// waits for nobody. Engines may stay for another controller.
    pub fn take_leave(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        tracing::info!(unanswered = self.tasks.len(), "what is not answered is answered with errors");
        self.answer_all(now, effects);
    }

    /// Panics if hub, task table and schedulers disagree. Tests call it after every event.
    pub fn check_invariants(&self) {
        self.hub.check_invariants();
        self.balanced.check_invariants(self.tasks.clients());
        let mut held: BTreeMap<EngineId, Vec<TaskId>> = BTreeMap::new();
        let mut parts: BTreeMap<TaskId, usize> = BTreeMap::new();
        for (id, task) in self.tasks.iter() {
            match task.work.engine() {
                Some(engine) => held.entry(engine).or_default().push(id),
                None => assert!(self.balanced.is_waiting(id), "{id:?} is nowhere: {task:?}"),
            }
            if let Some(broadcast) = task.work.broadcast() {
                *parts.entry(broadcast).or_default() += 1;
            }
        }
        for engine in self.hub.engines() {
            let outstanding: Vec<TaskId> = engine.outstanding.iter().copied().collect();
            assert_eq!(held.remove(&engine.id).unwrap_or_default(), outstanding, "engine {}", engine.id);
            let load = engine
                .outstanding
                .iter()
                .filter(|id| self.tasks.get(**id).is_some_and(|task| task.work.is_balanced()));
            assert_eq!(self.balanced.load(engine.id), Some(load.count()), "load of engine {}", engine.id);
        }
        assert!(held.is_empty(), "tasks at engines that are gone: {held:?}");
        assert_eq!(
            self.balanced.waiting(),
            self.tasks.iter().filter(|(_, task)| task.work.engine().is_none()).count()
        );
        self.broadcasts.check_invariants(&parts);
    }

    /// How many requests have not been answered.
    pub fn unanswered(&self) -> usize {
        self.tasks.len()
    }

    /// How much each table holds. All are empty when every request is answered and no engine is here.
    pub fn sizes(&self) -> Vec<(&'static str, usize)> {
        let mut sizes = vec![("broadcasts", self.broadcasts.len())];
        sizes.extend(self.tasks.sizes());
        sizes.extend(self.hub.sizes());
        sizes.extend(self.balanced.sizes());
        sizes
    }
}

/// The reply type of a request type, if it is a request.
pub(crate) fn reply_type(msg_type: &str) -> Option<String> {
    msg_type.strip_suffix("_request").map(|stem| format!("{stem}_reply"))
}

/// Whether a control request is fulfilled by its engine's end.
pub(crate) fn is_fulfilled_by_loss(msg_type: &str) -> bool {
    matches!(msg_type, control::SIGNAL_REQUEST | control::SHUTDOWN_REQUEST)
}
