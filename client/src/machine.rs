//! What a client knows and decides: who is here, what it asked, and which message ends which request.
//!
//! Pure: events in, effects out; time is an argument. Start at [`ClientMachine::handle`].
//!
//! A *submission* is one thing that a program asked for; its *parts* are the answers it needs, one an engine or
//! task. A part ends with the first of: a reply, the loss of its engine, the loss of the controller. It is then
//! kept until its output has ended too: when its engine is idle, or silent for [`OUTPUT_SILENCE_MAX`].

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use protocol::frames::WireMessage;
use protocol::id::{EngineId, EngineUuid, MsgId};

use crate::engines::{Engine, EngineTable};
use crate::error::{Failure, RemoteError};
use crate::outcome::{Answer, EngineOutcome, OutputItem, ReplyFacts};

/// After its reply came, a request's output counts as complete when nothing more is heard of it for this long:
/// its `idle` was lost (an output channel drops what is sent before it is connected).
pub const OUTPUT_SILENCE_MAX: Duration = Duration::from_secs(1);

/// A reply that was sent before its engine was lost may arrive after the news, on another connection.
pub const LOSS_DELAY: Duration = Duration::from_millis(100);

/// How often the hub is asked who is here: a sign of life, and a correction of what notifications missed.
pub const LIVENESS_INTERVAL: Duration = Duration::from_secs(5);

/// The controller counts as gone when nothing at all is heard of it for this long.
pub const CONTROLLER_SILENCE_MAX: Duration = Duration::from_secs(20);

/// Names one submission to whoever waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// The channels that requests go by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Channel {
    /// To the hub.
    Query,
    /// To one engine, in order.
    Mux,
    /// To whichever engine has room.
    Task,
    /// To engines of ours, one or many, in order.
    Broadcast,
    /// To one engine, past what it works on.
    Control,
}

/// A signed message and where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// The channel.
    pub channel: Channel,
    /// The engine that the channel routes it to; mux and control only.
    pub route: Option<EngineUuid>,
    /// The message.
    pub wire: WireMessage,
}

/// Something to send, and the answers that it needs.
#[derive(Clone, Debug)]
pub struct Submission {
    /// Who waits for it.
    pub ticket: Ticket,
    /// The answers.
    pub parts: Vec<PartRequest>,
    /// The messages, in order.
    pub messages: Vec<Outgoing>,
}

/// One answer that is needed.
#[derive(Clone, Debug)]
pub struct PartRequest {
    /// What the reply's parent will be.
    pub msg_id: MsgId,
    /// Who must give it; none: the hub, or any engine.
    pub engine: Option<Arc<Engine>>,
    /// The broadcast that asks for it: a reply to that stands for all its parts that have none of their own.
    pub broadcast: Option<MsgId>,
    /// Whether output will come, ended by `idle`.
    pub has_output: bool,
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// The program asks for something.
    Submitted(Submission),
    /// A reply came.
    Replied(Reply),
    /// An engine printed or showed something.
    Printed {
        /// The request that it belongs to.
        request: MsgId,
        /// Who.
        engine: Option<EngineUuid>,
        /// What.
        item: OutputItem,
    },
    /// An engine is done with a request: there is no more output.
    Idle {
        /// The request.
        request: MsgId,
    },
    /// An engine can be used from now on.
    Joined(Arc<Engine>),
    /// An engine is gone.
    Left {
        /// Who.
        uuid: EngineUuid,
        /// Why, if the hub says so.
        reason: Option<String>,
    },
    /// The hub says who is here.
    Listed(Vec<Arc<Engine>>),
    /// The controller says that it ends.
    ControllerStopped,
    /// A connection to the controller broke.
    Disconnected {
        /// Its channel, for messages.
        channel: &'static str,
    },
    /// All connections to the controller stand (again).
    Connected,
    /// The time of [`ClientMachine::next_deadline`] has come.
    Deadline,
}

/// A reply, decoded.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The request's id.
    pub request: MsgId,
    /// Who replied, if the reply says so.
    pub engine: Option<EngineUuid>,
    /// What.
    pub result: Result<Answer, ReplyError>,
    /// What else it says.
    pub facts: ReplyFacts,
}

/// How a reply says that something failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplyError {
    /// The error.
    pub content: protocol::error::ErrorContent,
    /// Whether it was made by the controller or before the request ran, so that no output can follow.
    pub without_output: bool,
}

/// What is to be done.
#[derive(Debug, PartialEq)]
pub enum Effect {
    /// Send this.
    Send(Outgoing),
    /// Ask the hub who is here.
    AskWhoIsHere,
    /// A part has its answer.
    Answer {
        /// Whose.
        ticket: Ticket,
        /// Which part of it.
        part: usize,
        /// The answer.
        outcome: EngineOutcome,
    },
    /// A part has output.
    Output {
        /// Whose.
        ticket: Ticket,
        /// Which part of it.
        part: usize,
        /// Who printed.
        engine: Option<Arc<Engine>>,
        /// What.
        item: OutputItem,
    },
    /// No more output of a part comes.
    OutputEnded {
        /// Whose.
        ticket: Ticket,
        /// Which part of it.
        part: usize,
    },
    /// [`ClientMachine::engines`] or [`ClientMachine::contact`] changed.
    Changed,
}

/// How it stands with the controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Contact {
    /// It has not answered yet.
    Unknown,
    /// It answers.
    Good,
    /// It does not, and what was asked of it has failed.
    Lost {
        /// Why, for messages.
        cause: Arc<str>,
    },
}

#[derive(Debug)]
struct Part {
    ticket: Ticket,
    index: usize,
    engine: Option<Arc<Engine>>,
    /// The broadcast that it is a part of.
    broadcast: Option<MsgId>,
    progress: Progress,
}

/// A part lives until it has both its reply and the end of its output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    AwaitsReply { output: OutputState },
    AwaitsIdle { heard: Instant },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OutputState {
    None,
    Open,
    Ended,
}

/// The state of one client. See the module's documentation.
#[derive(Debug)]
pub struct ClientMachine {
    contact: Contact,
    heard: Instant,
    asked: Option<Instant>,
    /// Engines that were here when the hub was last asked: only they can be missing from its answer.
    here_when_asked: Vec<EngineUuid>,
    engines: EngineTable,
    parts: HashMap<MsgId, Part>,
    broadcasts: HashMap<MsgId, Broadcast>,
    /// Parts that wait for `idle` only, in order of their replies.
    quiet: VecDeque<(Instant, MsgId)>,
    /// Engines that are gone and whose parts end shortly.
    lost: VecDeque<(Instant, Arc<Engine>, Option<String>)>,
}

#[derive(Debug, Default)]
struct Broadcast {
    parts: Vec<MsgId>,
    unanswered: usize,
}

impl ClientMachine {
    /// A client that has not spoken to its controller yet.
    pub fn new(now: Instant) -> ClientMachine {
        ClientMachine {
            contact: Contact::Unknown,
            heard: now,
            asked: None,
            here_when_asked: vec![],
            engines: EngineTable::default(),
            parts: HashMap::new(),
            broadcasts: HashMap::new(),
            quiet: VecDeque::new(),
            lost: VecDeque::new(),
        }
    }

    /// Applies one event. Reads no clock, touches no socket, cannot fail.
    pub fn handle(&mut self, now: Instant, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Submitted(submission) => self.on_submitted(submission, effects),
            Event::Replied(reply) => self.on_replied(now, reply, effects),
            Event::Printed { request, engine, item } => self.on_printed(now, &request, engine, item, effects),
            Event::Idle { request } => self.on_idle(now, &request, effects),
            Event::Joined(engine) => self.on_joined(now, engine, effects),
            Event::Left { uuid, reason } => self.on_left(now, &uuid, reason, effects),
            Event::Listed(engines) => self.on_listed(now, engines, effects),
            Event::ControllerStopped => self.on_contact_lost("the controller was shut down".into(), effects),
            Event::Disconnected { channel } => self.on_disconnected(channel, effects),
            Event::Connected => self.ask(now, effects),
            Event::Deadline => self.on_deadline(now, effects),
        }
    }

    /// When to call again if nothing happens.
    pub fn next_deadline(&self) -> Option<Instant> {
        let liveness = match (&self.contact, self.asked) {
            (Contact::Lost { .. }, _) => None,
            (_, None) => Some(self.heard + LIVENESS_INTERVAL),
            (_, Some(asked)) => Some(
                (self.heard + CONTROLLER_SILENCE_MAX).min(asked.max(self.heard) + CONTROLLER_SILENCE_MAX),
            ),
        };
        let quiet = self.quiet.front().map(|(at, _)| *at);
        let lost = self.lost.front().map(|(at, ..)| *at);
        [liveness, quiet, lost].into_iter().flatten().min()
    }

    /// Who is here.
    pub fn engines(&self) -> &EngineTable {
        &self.engines
    }

    /// How it stands with the controller.
    pub fn contact(&self) -> &Contact {
        &self.contact
    }

    /// Parts that have not ended: what the machine's memory grows with.
    pub fn outstanding(&self) -> usize {
        self.parts.len()
    }

    /// Panics if the tables disagree. Tests call it after every event.
    pub fn check_invariants(&self) {
        for (id, part) in &self.parts {
            if let Progress::AwaitsIdle { .. } = part.progress {
                assert!(
                    self.quiet.iter().any(|(_, quiet)| quiet == id),
                    "{id} waits for idle without a deadline"
                );
            }
        }
        for (id, broadcast) in &self.broadcasts {
            let unanswered = broadcast.parts.iter().filter(|part| self.awaits_reply(part)).count();
            assert_eq!(unanswered, broadcast.unanswered, "unanswered parts of {id}");
            assert_ne!(unanswered, 0, "{id} is answered but kept");
        }
        if let Contact::Lost { .. } = self.contact {
            assert!(
                !self.parts.keys().any(|part| self.awaits_reply(part)),
                "a part waits for a lost controller"
            );
        }
    }

    fn awaits_reply(&self, part: &MsgId) -> bool {
        matches!(self.parts.get(part), Some(Part { progress: Progress::AwaitsReply { .. }, .. }))
    }

    fn on_submitted(&mut self, submission: Submission, effects: &mut Vec<Effect>) {
        let Submission { ticket, parts, messages } = submission;
        if let Contact::Lost { cause } = &self.contact {
            for (index, part) in parts.into_iter().enumerate() {
                let outcome = EngineOutcome::failed(part.engine, Failure::LostContact(Arc::clone(cause)));
                effects.push(Effect::Answer { ticket, part: index, outcome });
                effects.push(Effect::OutputEnded { ticket, part: index });
            }
            return;
        }
        for (index, PartRequest { msg_id, engine, broadcast, has_output }) in parts.into_iter().enumerate() {
            if let Some(engine) = &engine
                && self.engines.by_uuid(&engine.uuid).is_none()
            {
                let error = RemoteError::engine_lost(engine, None);
                let outcome = EngineOutcome::failed(Some(Arc::clone(engine)), error.into());
                effects.push(Effect::Answer { ticket, part: index, outcome });
                effects.push(Effect::OutputEnded { ticket, part: index });
                continue;
            }
            if let Some(id) = &broadcast {
                let broadcast = self.broadcasts.entry(id.clone()).or_default();
                broadcast.parts.push(msg_id.clone());
                broadcast.unanswered += 1;
            }
            let output = if has_output { OutputState::Open } else { OutputState::None };
            let progress = Progress::AwaitsReply { output };
            self.parts.insert(msg_id, Part { ticket, index, engine, broadcast, progress });
        }
        effects.extend(messages.into_iter().map(Effect::Send));
    }

    fn on_replied(&mut self, now: Instant, reply: Reply, effects: &mut Vec<Effect>) {
        self.heard(now);
        if let Some(broadcast) = self.broadcasts.get(&reply.request) {
            // The controller answers for all engines at once: it refused the broadcast.
            for request in broadcast.parts.clone() {
                self.answer(now, Reply { request, ..reply.clone() }, effects);
            }
            return;
        }
        self.answer(now, reply, effects);
    }

    fn answer(&mut self, now: Instant, reply: Reply, effects: &mut Vec<Effect>) {
        let Some(part) = self.parts.get_mut(&reply.request) else {
            return; // A duplicate, or late: the part has ended already.
        };
        let Progress::AwaitsReply { output } = part.progress else {
            return; // As above.
        };
        let engine = match (&part.engine, &reply.engine) {
            (Some(engine), _) => Some(Arc::clone(engine)),
            (None, Some(uuid)) => self.engines.by_uuid(uuid).cloned(),
            (None, None) => None,
        };
        let without_output = reply.result.as_ref().is_err_and(|error| error.without_output);
        let result = reply.result.map_err(|error| RemoteError::new(error.content, engine.as_deref()).into());
        let outcome = EngineOutcome { engine, result, facts: reply.facts, displayed: None };
        effects.push(Effect::Answer { ticket: part.ticket, part: part.index, outcome });
        let broadcast = part.broadcast.take();
        if output == OutputState::Open && !without_output {
            part.progress = Progress::AwaitsIdle { heard: now };
            self.quiet.push_back((now + OUTPUT_SILENCE_MAX, reply.request));
        } else {
            effects.push(Effect::OutputEnded { ticket: part.ticket, part: part.index });
            self.parts.remove(&reply.request);
        }
        self.count_answer(broadcast);
    }

    /// A part of a broadcast has ended; with the last one nothing is left to remember.
    fn count_answer(&mut self, broadcast: Option<MsgId>) {
        let Some(id) = broadcast else { return };
        if let Some(broadcast) = self.broadcasts.get_mut(&id) {
            broadcast.unanswered -= 1;
            if broadcast.unanswered == 0 {
                self.broadcasts.remove(&id);
            }
        }
    }

    fn on_printed(
        &mut self,
        now: Instant,
        request: &MsgId,
        engine: Option<EngineUuid>,
        item: OutputItem,
        effects: &mut Vec<Effect>,
    ) {
        self.heard(now);
        let Some(part) = self.parts.get_mut(request) else {
            return; // Output of somebody else's request, or later than its engine's `idle`.
        };
        if let Progress::AwaitsIdle { heard } = &mut part.progress {
            *heard = now;
        }
        let engine =
            part.engine.clone().or_else(|| engine.and_then(|uuid| self.engines.by_uuid(&uuid).cloned()));
        effects.push(Effect::Output { ticket: part.ticket, part: part.index, engine, item });
    }

    fn on_idle(&mut self, now: Instant, request: &MsgId, effects: &mut Vec<Effect>) {
        self.heard(now);
        let Some(part) = self.parts.get_mut(request) else {
            return;
        };
        match &mut part.progress {
            // Output and replies travel over different connections: either may be first.
            Progress::AwaitsReply { output } if *output == OutputState::Open => *output = OutputState::Ended,
            Progress::AwaitsReply { .. } => {}
            Progress::AwaitsIdle { .. } => {
                effects.push(Effect::OutputEnded { ticket: part.ticket, part: part.index });
                self.parts.remove(request);
                while self.quiet.front().is_some_and(|(_, id)| !self.parts.contains_key(id)) {
                    self.quiet.pop_front();
                }
            }
        }
    }

    fn on_joined(&mut self, now: Instant, engine: Arc<Engine>, effects: &mut Vec<Effect>) {
        self.heard(now);
        self.engines.insert(engine);
        effects.push(Effect::Changed);
    }

    fn on_left(
        &mut self,
        now: Instant,
        uuid: &EngineUuid,
        reason: Option<String>,
        effects: &mut Vec<Effect>,
    ) {
        self.heard(now);
        if let Some(engine) = self.engines.remove(uuid) {
            self.lost.push_back((now + LOSS_DELAY, engine, reason));
            effects.push(Effect::Changed);
        }
    }

    fn on_listed(&mut self, now: Instant, engines: Vec<Arc<Engine>>, effects: &mut Vec<Effect>) {
        self.heard(now);
        self.asked = None;
        for uuid in std::mem::take(&mut self.here_when_asked) {
            if !engines.iter().any(|engine| engine.uuid == uuid) {
                self.on_left(now, &uuid, Some("the controller does not list it any more".into()), effects);
            }
        }
        for engine in engines {
            let left = self.lost.iter().any(|(_, lost, _)| lost.uuid == engine.uuid);
            if !left && self.engines.by_uuid(&engine.uuid) != Some(&engine) {
                self.engines.insert(engine);
            }
        }
        self.contact = Contact::Good;
        effects.push(Effect::Changed);
    }

    fn on_disconnected(&mut self, channel: &'static str, effects: &mut Vec<Effect>) {
        let cause = format!(
            "the connection to the controller broke ({channel}): it ended, was killed, or the network failed"
        );
        self.on_contact_lost(cause.into(), effects);
    }

    fn on_contact_lost(&mut self, cause: Arc<str>, effects: &mut Vec<Effect>) {
        if let Contact::Lost { .. } = self.contact {
            return; // The first cause is the one to tell.
        }
        self.contact = Contact::Lost { cause: Arc::clone(&cause) };
        self.asked = None;
        self.broadcasts.clear();
        self.quiet.clear();
        self.lost.clear();
        self.engines = EngineTable::default();
        self.here_when_asked.clear();
        // Before the answers: who has one and asks again is told what happened.
        effects.push(Effect::Changed);
        let mut parts: Vec<Part> = self.parts.drain().map(|(_, part)| part).collect();
        parts.sort_by_key(|part| (part.ticket, part.index));
        for part in parts {
            if let Progress::AwaitsReply { .. } = part.progress {
                let outcome = EngineOutcome::failed(part.engine, Failure::LostContact(Arc::clone(&cause)));
                effects.push(Effect::Answer { ticket: part.ticket, part: part.index, outcome });
            }
            effects.push(Effect::OutputEnded { ticket: part.ticket, part: part.index });
        }
    }

    fn ask(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        self.asked = Some(now);
        self.here_when_asked = self.engines.iter().map(|engine| engine.uuid.clone()).collect();
        effects.push(Effect::AskWhoIsHere);
    }

    fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    fn on_deadline(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        self.end_parts_of_lost_engines(now, effects);
        self.end_quiet_output(now, effects);
        if let Contact::Lost { .. } = self.contact {
            return;
        }
        match self.asked {
            None if now >= self.heard + LIVENESS_INTERVAL => self.ask(now, effects),
            Some(asked) if now >= self.heard.max(asked) + CONTROLLER_SILENCE_MAX => {
                let seconds = CONTROLLER_SILENCE_MAX.as_secs();
                let cause = format!(
                    "the controller has not answered for {seconds} s: it hangs, or the network failed"
                );
                self.on_contact_lost(cause.into(), effects);
            }
            _ => {}
        }
    }

    fn end_parts_of_lost_engines(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        while self.lost.front().is_some_and(|(at, ..)| *at <= now) {
            let Some((_, engine, reason)) = self.lost.pop_front() else { break };
            let is_its = |part: &Part| part.engine.as_ref().is_some_and(|of| of.uuid == engine.uuid);
            let mut ended: Vec<(Ticket, usize, MsgId)> = self
                .parts
                .iter()
                .filter(|(_, part)| is_its(part))
                .map(|(id, part)| (part.ticket, part.index, id.clone()))
                .collect();
            ended.sort();
            for (ticket, part, id) in ended {
                let awaits_reply = self.awaits_reply(&id);
                let broadcast = self.parts.remove(&id).and_then(|part| part.broadcast);
                if awaits_reply {
                    let error = RemoteError::engine_lost(&engine, reason.as_deref());
                    let outcome = EngineOutcome::failed(Some(Arc::clone(&engine)), error.into());
                    effects.push(Effect::Answer { ticket, part, outcome });
                    self.count_answer(broadcast);
                }
                effects.push(Effect::OutputEnded { ticket, part });
            }
        }
    }

    fn end_quiet_output(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        while self.quiet.front().is_some_and(|(at, _)| *at <= now) {
            let Some((_, id)) = self.quiet.pop_front() else { break };
            let Some(part) = self.parts.get(&id) else { continue };
            let Progress::AwaitsIdle { heard } = part.progress else { continue };
            if heard + OUTPUT_SILENCE_MAX > now {
                self.quiet.push_back((now + OUTPUT_SILENCE_MAX, id));
                continue;
            }
            effects.push(Effect::OutputEnded { ticket: part.ticket, part: part.index });
            self.parts.remove(&id);
        }
    }

    /// The engine of that id, if it is here.
    pub fn engine(&self, id: EngineId) -> Option<&Arc<Engine>> {
        self.engines.by_id(id)
    }
}

#[cfg(test)]
mod tests;
