//! What must be true at the controller's edge: a second, slower opinion, told in terms of events and effects.
//!
//! [`Reference::before`] is shown each event, [`Reference::after`] what the machine made of it. It keeps its own books
//! of who is here, who holds what and how tasks ended, by the rules of the wire and not by how the machine does it,
//! and compares them with the machine's after every event.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use protocol::id::EngineUuid;
use protocol::message::execute::Dependency;

use super::super::*;
use super::ledger::{Ledger, answers_to, id_of, identity_of, share_id};

/// The most balanced tasks that an engine may hold whose window follows its pace.
const PACED_WINDOW_MAX: usize = 16;

pub(super) struct Reference {
    window: Option<usize>,
    engines: BTreeMap<EngineUuid, Here>,
    /// What engines have.
    held: BTreeMap<TaskId, Held>,
    tasks: BTreeMap<MsgId, Work>,
    /// How balanced tasks ended: whether well, and where if they did.
    ended: BTreeMap<MsgId, (bool, Option<EngineId>)>,
    broadcasts: BTreeMap<MsgId, Gathering>,
    aborted: BTreeSet<MsgId>,
    /// The last turn of each client that has balanced tasks, and the latest that was served.
    turns: BTreeMap<Bytes, u64>,
    turn: u64,
    numbered: usize,
    pub(super) ledger: Ledger,
    /// Answers that must be given before the step is over.
    due_now: Vec<MsgId>,
    current: Current,
}

/// An engine that clients were told of.
struct Here {
    id: EngineId,
    is_suspended: bool,
    balanced: usize,
    /// The order of direct requests given to it.
    direct: BTreeMap<(Channel, Bytes), usize>,
}

struct Held {
    engine: EngineUuid,
    channel: Channel,
    answer: MsgId,
    /// The broadcast that gathers it.
    gathered_by: Option<MsgId>,
    /// What is lost if it is not answered before this, which is a question for nothing.
    doubtful: Option<BTreeSet<TaskId>>,
}

/// A balanced task that has not ended.
struct Work {
    client: Bytes,
    header: Bytes,
    /// Where it stands in the queue: its priority, its turn, and its number.
    place: (Reverse<i32>, u64, usize),
    targets: Option<BTreeSet<EngineId>>,
    avoided: BTreeSet<EngineId>,
    after: Dependency,
    follow: Dependency,
    retries: u32,
    retries_given: u32,
    declined: u32,
    forwarded: u32,
    timeout: Option<Duration>,
    has_failed: bool,
    /// Since when it waits; none: an engine has it.
    waits_since: Option<Instant>,
    /// Whether it waited for nothing but an engine when the last step was over: those that a step wakes have no order.
    was_due: bool,
}

/// A broadcast whose replies become one.
struct Gathering {
    targets: Vec<(EngineUuid, EngineId)>,
    left: usize,
    /// How shares ended whose engines replied.
    replied: BTreeMap<MsgId, Status>,
}

/// The event that the machine is busy with.
#[derive(Default)]
struct Current {
    /// A task that ends with the reply that came: how, and where.
    finished: Option<(MsgId, (bool, EngineId))>,
    undelivered: Option<EngineUuid>,
    /// Whether several tasks came back at once: they are placed one after the other.
    has_loss: bool,
    /// Tasks that were given to engines, and those that were before them in the queue then.
    passed_over: Vec<(MsgId, MsgId)>,
    direct: Option<Direct>,
    asked: Option<(Bytes, Option<Json>)>,
    refusal: Option<(MsgId, &'static str)>,
}

/// A request to one engine, which is to be forwarded if that engine is here.
struct Direct {
    order: usize,
    client: Client,
    engine: Option<EngineUuid>,
    msg_id: MsgId,
}

/// What an engine says in a reply of the simulation.
#[derive(serde::Deserialize)]
pub(super) struct Said {
    pub(super) status: Status,
    pub(super) engine: EngineUuid,
    pub(super) of: MsgId,
}

impl Reference {
    pub(super) fn new(settings: &Settings) -> Reference {
        Reference {
            window: settings.window,
            engines: BTreeMap::new(),
            held: BTreeMap::new(),
            tasks: BTreeMap::new(),
            ended: BTreeMap::new(),
            broadcasts: BTreeMap::new(),
            aborted: BTreeSet::new(),
            turns: BTreeMap::new(),
            turn: 0,
            numbered: 0,
            ledger: Ledger::default(),
            due_now: vec![],
            current: Current::default(),
        }
    }

    /// Whether clients were told that an engine is here.
    fn id_of(&self, engine: &EngineUuid) -> Option<EngineId> {
        self.engines.get(engine).map(|here| here.id)
    }

    /// Whether a task is at an engine.
    fn holds(&self, engine: &EngineUuid, task: TaskId) -> bool {
        self.held.get(&task).is_some_and(|held| held.engine == *engine)
    }

    /// Everything at engines, in order.
    fn held(&self) -> impl Iterator<Item = (&EngineUuid, TaskId)> {
        self.held.iter().map(|(task, held)| (&held.engine, *task))
    }

    fn here(&self, identity: &[u8]) -> Option<&EngineUuid> {
        let (uuid, _) = self.engines.get_key_value(std::str::from_utf8(identity).ok()?)?;
        Some(uuid)
    }

    pub(super) fn before(&mut self, now: Instant, event: &Event) {
        self.current = Current::default();
        match event {
            Event::Submitted(request) => self.on_submitted(now, request),
            Event::Replied { channel, identity, task, outcome, message } => {
                self.on_replied(now, *channel, identity, *task, *outcome, message);
            }
            Event::Undelivered { engine, task } => {
                self.current.undelivered = Some(engine.clone());
                if self.holds(engine, *task) {
                    self.lose(now, *task);
                }
            }
            Event::Disconnected { identity } => self.suspend(identity, true),
            Event::Beat { identity } => self.suspend(identity, false),
            Event::Asked { client, header, query, .. } => {
                self.ledger.expect(client, &id_of(header), vec![id_of(header)]);
                self.due_now.push(id_of(header));
                self.current.asked = Some((client.clone(), self.answer_to(query)));
            }
            Event::Registering { .. }
            | Event::Unregistering { .. }
            | Event::Ending { .. }
            | Event::Reached { .. }
            | Event::Resubmitted { .. }
            | Event::Departed { .. }
            | Event::Subscribed
            | Event::Deadline => {}
        }
    }

    fn suspend(&mut self, identity: &Bytes, is_suspended: bool) {
        if let Some(uuid) = self.here(identity).cloned() {
            self.engines.get_mut(&uuid).expect("just found").is_suspended = is_suspended;
        }
    }

    fn on_submitted(&mut self, now: Instant, request: &Request) {
        let msg_id = &request.header.msg_id;
        self.ledger.expect(identity_of(&request.client), msg_id, answers_to(request));
        let is_request = reply_type(&request.header.msg_type).is_some();
        match &request.target {
            Target::Engine(engine) => self.on_direct(request, engine),
            Target::Control { engine, aborted } => {
                self.aborted.extend(aborted.iter().cloned());
                self.on_direct(request, engine);
            }
            Target::Balanced(metadata) if is_request => self.on_task(now, request, metadata),
            Target::Balanced(_) => {}
            Target::Broadcast(metadata) => {
                let targets = &metadata.targets;
                let here = targets.iter().filter(|(engine, _)| self.engines.contains_key(engine)).count();
                if metadata.is_coalescing && !targets.is_empty() {
                    let gathering =
                        Gathering { targets: targets.clone(), left: here, replied: BTreeMap::new() };
                    self.broadcasts.insert(msg_id.clone(), gathering);
                    if here == 0 {
                        self.due_now.push(msg_id.clone());
                    }
                } else if targets.is_empty() {
                    self.due_now.push(msg_id.clone());
                } else {
                    let unknown = targets.iter().filter(|(engine, _)| !self.engines.contains_key(engine));
                    self.due_now.extend(unknown.map(|(engine, _)| share_id(msg_id, engine)));
                }
            }
        }
    }

    fn on_direct(&mut self, request: &Request, engine: &Bytes) {
        let msg_id = request.header.msg_id.clone();
        let engine = self.here(engine).cloned();
        if engine.is_none() && reply_type(&request.header.msg_type).is_some() {
            self.due_now.push(msg_id.clone());
        }
        // Clients of the simulation number their messages in this field.
        let order = request.header.username.parse().expect("a number");
        self.current.direct = Some(Direct { order, client: request.client.clone(), engine, msg_id });
    }

    fn on_task(&mut self, now: Instant, request: &Request, metadata: &TaskMetadata) {
        let msg_id = &request.header.msg_id;
        let targets: Option<BTreeSet<EngineId>> = (!metadata.targets.is_empty())
            .then(|| metadata.targets.iter().filter_map(|engine| self.id_of(engine)).collect());
        let is_unknown =
            |id: &MsgId| id == msg_id || !(self.tasks.contains_key(id) || self.ended.contains_key(id));
        let mut needed = metadata.after.dependencies.iter().chain(&metadata.follow.dependencies);
        let refusal = if targets.as_ref().is_some_and(BTreeSet::is_empty) {
            Some("EngineError")
        } else if needed.any(is_unknown) {
            Some("InvalidDependency")
        } else {
            None
        };
        if let Some(name) = refusal {
            self.due_now.push(msg_id.clone());
            self.current.refusal = Some((msg_id.clone(), name));
            self.ended.insert(msg_id.clone(), (false, None));
            return;
        }
        let client = identity_of(&request.client).clone();
        let turn = self.turns.get(&client).map_or(0, |last| *last).max(self.turn) + 1;
        self.turns.insert(client.clone(), turn);
        let priority = metadata.extension.as_ref().map_or(0, |extension| extension.priority);
        self.numbered += 1;
        let work = Work {
            client,
            place: (Reverse(priority), turn, self.numbered),
            header: request.message.header.clone(),
            targets,
            avoided: BTreeSet::new(),
            after: metadata.after.clone(),
            follow: metadata.follow.clone(),
            retries: metadata.retries,
            retries_given: metadata.retries,
            declined: 0,
            forwarded: 0,
            timeout: metadata.timeout.map(Duration::from_secs_f64),
            has_failed: false,
            waits_since: Some(now),
            was_due: false,
        };
        self.tasks.insert(msg_id.clone(), work);
    }

    fn on_replied(
        &mut self,
        now: Instant,
        channel: Channel,
        identity: &Bytes,
        task: TaskId,
        outcome: Option<Outcome>,
        message: &WireMessage,
    ) {
        let is_awaited = self
            .held
            .get(&task)
            .is_some_and(|held| held.channel == channel && held.engine.as_str().as_bytes() == identity);
        if !is_awaited {
            return;
        }
        let (held, id) = self.release(task);
        if let Some(doubtful) = held.doubtful {
            let said: Said = serde_json::from_slice(&message.content).expect("a reply of ours");
            if said.status != Status::Aborted {
                self.current.undelivered = Some(held.engine.clone());
                self.current.has_loss = true;
                for task in
                    doubtful.into_iter().filter(|task| self.holds(&held.engine, *task)).collect::<Vec<_>>()
                {
                    self.lose(now, task);
                }
            }
            return;
        }
        let Some(work) = self.tasks.get_mut(&held.answer).filter(|_| channel == Channel::Task) else {
            match held.gathered_by {
                Some(broadcast) => {
                    let said: Said = serde_json::from_slice(&message.content).expect("a reply of ours");
                    let gathering = self.broadcasts.get_mut(&broadcast).expect("it is not answered");
                    gathering.replied.insert(held.answer, said.status);
                    self.on_share_ended(&broadcast);
                }
                None => self.due_now.push(held.answer),
            }
            return;
        };
        let outcome = outcome.expect("said on this channel");
        work.waits_since = Some(now);
        if !outcome.dependencies_met {
            work.declined += 1;
        } else if outcome.status == Status::Error && work.retries > 0 {
            work.retries -= 1;
        } else {
            self.current.finished = Some((held.answer.clone(), (outcome.status == Status::Ok, id)));
            self.due_now.push(held.answer);
            return;
        }
        work.avoided.insert(id);
        work.has_failed = true;
    }

    /// An engine no longer has a task.
    fn release(&mut self, task: TaskId) -> (Held, EngineId) {
        let held = self.held.remove(&task).expect("the caller has looked");
        let here = self.engines.get_mut(&held.engine).expect("what is held is held by engines that are here");
        if held.channel == Channel::Task && held.doubtful.is_none() {
            here.balanced -= 1;
        }
        let id = here.id;
        (held, id)
    }

    /// An engine will not do a task: it is lost, or cannot be reached.
    fn lose(&mut self, now: Instant, task: TaskId) {
        let (held, id) = self.release(task);
        if let Some(doubtful) = held.doubtful {
            for task in
                doubtful.into_iter().filter(|task| self.holds(&held.engine, *task)).collect::<Vec<_>>()
            {
                self.lose(now, task);
            }
            return;
        }
        if held.channel == Channel::Task {
            let work = self.tasks.get_mut(&held.answer).expect("it has not ended");
            work.waits_since = Some(now);
            work.has_failed = true;
            if work.retries == 0 {
                self.due_now.push(held.answer);
            } else {
                work.retries -= 1;
                work.avoided.insert(id);
            }
        } else if let Some(broadcast) = held.gathered_by {
            self.on_share_ended(&broadcast);
        } else {
            self.due_now.push(held.answer);
        }
    }

    fn on_share_ended(&mut self, broadcast: &MsgId) {
        let gathering = self.broadcasts.get_mut(broadcast).expect("it is not answered");
        gathering.left -= 1;
        if gathering.left == 0 {
            self.due_now.push(broadcast.clone());
        }
    }

    /// What the machine made of the event.
    pub(super) fn after(&mut self, now: Instant, effects: &[Effect], controller: &Controller) {
        for effect in effects {
            match effect {
                Effect::Publish { msg_type, content, .. } => self.on_published(now, msg_type, content),
                Effect::Forward { channel, engine, task, message } => {
                    self.on_forwarded(*channel, engine, *task, message);
                }
                Effect::Share { engine, task, header, metadata, .. } => {
                    self.on_shared(engine, *task, header, metadata);
                }
                Effect::Relay { client, engine, message } => self.on_relayed(client, engine, message),
                Effect::Reply { client, engine, parent, metadata, content, buffers, .. } => {
                    self.on_made(now, client, engine.as_ref(), parent, metadata, content, buffers);
                }
                Effect::Answer { to, parent, content, .. } => self.on_answered(to, parent, Some(content)),
                Effect::AnswerStatus { to, parent, status } => {
                    self.on_answered(to, parent, None);
                    let counted = self.tasks.values().filter(|work| work.waits_since.is_some()).count();
                    assert_eq!((status.engines.len(), status.waiting_tasks), (self.engines.len(), counted));
                }
                Effect::Stop { engine } => {
                    assert!(self.engines.contains_key(engine), "{engine} is told to end, but not here");
                }
                Effect::Consult { to, parent, .. } => self.on_answered(to, parent, None),
                Effect::Probe { channel, engine, task } => self.on_probe(*channel, engine, *task),
                Effect::Repeat { .. } | Effect::Idle { .. } => panic!("no earlier controller said anything"),
                Effect::Remember(_) | Effect::Ping | Effect::Exit => {}
            }
        }
        let due = std::mem::take(&mut self.due_now);
        due.iter().for_each(|id| self.ledger.fall_due(id));
        for id in due {
            assert!(self.ledger.is_in_time(&id), "{id} was not answered when it ended");
        }
        if let Some(Direct { engine: Some(engine), msg_id, .. }) = &self.current.direct {
            panic!("{msg_id} was not forwarded to {engine}, which is here");
        }
        self.check_waiting(now);
        self.check_order();
        self.check_agreement(controller);
    }

    fn on_published(&mut self, now: Instant, msg_type: &str, content: &Json) {
        let Some(uuid) = content["uuid"].as_str().map(EngineUuid::from) else { return };
        if msg_type == "registration_notification" {
            let id = EngineId(content["id"].as_u64().expect("an id") as u32);
            let here = Here { id, is_suspended: false, balanced: 0, direct: BTreeMap::new() };
            assert!(self.engines.values().all(|other| other.id != id), "id {id} is in use");
            assert!(self.engines.insert(uuid, here).is_none(), "an engine joined twice");
            return;
        }
        assert_eq!(msg_type, "unregistration_notification");
        let tasks: Vec<TaskId> =
            self.held().filter(|(engine, _)| **engine == uuid).map(|(_, task)| task).collect();
        for task in tasks {
            self.lose(now, task);
        }
        self.current.has_loss = true;
        self.engines.remove(&uuid).expect("an engine left that was not here");
    }

    fn hold(&mut self, task: TaskId, held: Held) {
        assert!(
            self.engines.contains_key(&held.engine),
            "{} was given to {}, which is gone",
            held.answer,
            held.engine
        );
        let before = self.held.insert(task, held);
        assert!(before.is_none(), "task {task:?} is at two engines");
    }

    fn on_forwarded(&mut self, channel: Channel, uuid: &EngineUuid, task: TaskId, message: &WireMessage) {
        let msg_id = id_of(&message.header);
        if channel != Channel::Task {
            let direct = self.current.direct.take().expect("only what was just submitted is forwarded");
            assert_eq!(
                (direct.engine.as_ref(), &direct.msg_id, direct.client.channel),
                (Some(uuid), &msg_id, channel)
            );
            let here = self.engines.get_mut(uuid).expect("it is here");
            let before = here.direct.insert((channel, identity_of(&direct.client).clone()), direct.order);
            assert!(before.is_none_or(|before| before < direct.order), "{msg_id} was overtaken");
            if task != TaskId::NONE {
                let held =
                    Held { engine: uuid.clone(), channel, answer: msg_id, gathered_by: None, doubtful: None };
                self.hold(task, held);
            }
            return;
        }
        let here = self.engines.get(uuid).unwrap_or_else(|| panic!("{msg_id} goes to {uuid}, which is gone"));
        let work =
            self.tasks.get(&msg_id).unwrap_or_else(|| panic!("{msg_id} goes to {uuid}, but has ended"));
        assert_eq!(work.header, message.header);
        assert!(work.waits_since.is_some(), "{msg_id} runs at two engines");
        assert!(!here.is_suspended, "{msg_id} goes to {uuid}, whose connection is gone");
        assert!(!self.aborted.contains(&msg_id), "{msg_id} goes to {uuid}, but was aborted");
        assert!(self.permits(work, here.id), "{msg_id} may not run on {uuid}");
        assert!(self.is_met(&work.after, None), "{msg_id} runs before its time");
        let most = match self.window {
            None => PACED_WINDOW_MAX,
            Some(0) => usize::MAX,
            Some(window) => window,
        };
        assert!(here.balanced < most, "{uuid} is given {msg_id} and holds {} already", here.balanced);
        if !self.current.has_loss {
            let is_passed_over =
                |other: &Work| other.was_due && other.place < work.place && self.permits(other, here.id);
            let passed_over = self.tasks.iter().filter(|(_, other)| is_passed_over(other));
            let passed_over: Vec<_> = passed_over.map(|(id, _)| (msg_id.clone(), id.clone())).collect();
            self.current.passed_over.extend(passed_over);
        }
        self.engines.get_mut(uuid).expect("just found").balanced += 1;
        let work = self.tasks.get_mut(&msg_id).expect("just found");
        self.turn = self.turn.max(work.place.1);
        work.waits_since = None;
        work.was_due = false;
        work.forwarded += 1;
        let runs_max = 1 + work.retries_given + work.declined;
        assert!(work.forwarded <= runs_max, "{msg_id} runs more than {runs_max} times");
        self.hold(
            task,
            Held { engine: uuid.clone(), channel, answer: msg_id, gathered_by: None, doubtful: None },
        );
    }

    /// An engine whose connection was gone is asked for nothing: what it had before, it may have lost.
    fn on_probe(&mut self, channel: Channel, engine: &EngineUuid, task: TaskId) {
        let is_doubtful =
            |held: &Held| held.engine == *engine && held.channel == channel && held.doubtful.is_none();
        let doubtful = self.held.iter().filter(|(_, held)| is_doubtful(held)).map(|(task, _)| *task);
        let doubtful = Some(doubtful.collect());
        let answer = MsgId::from(super::network::PROBE);
        self.hold(task, Held { engine: engine.clone(), channel, answer, gathered_by: None, doubtful });
    }

    fn on_shared(
        &mut self,
        engine: &EngineUuid,
        task: TaskId,
        header: &Header,
        metadata: &BroadcastMetadata,
    ) {
        let original = metadata.original_msg_id.clone().expect("shares name their broadcast");
        assert_eq!(header.msg_id, share_id(&original, engine));
        let gathered_by = metadata.is_coalescing.then_some(original);
        let answer = header.msg_id.clone();
        self.hold(
            task,
            Held { engine: engine.clone(), channel: Channel::Broadcast, answer, gathered_by, doubtful: None },
        );
    }

    fn give(&mut self, client: &Client, id: &MsgId, ended: (bool, Option<EngineId>)) {
        self.ledger.give(identity_of(client), id);
        if client.channel == Channel::Task
            && let Some(work) = self.tasks.remove(id)
        {
            self.ended.insert(id.clone(), ended);
            if self.tasks.values().all(|other| other.client != work.client) {
                self.turns.remove(&work.client);
            }
        }
    }

    fn on_relayed(&mut self, client: &Client, engine: &EngineUuid, message: &WireMessage) {
        let said: Said = serde_json::from_slice(&message.content).expect("a reply of ours");
        let id = id_of(&message.parent_header);
        assert_eq!((&said.of, &said.engine), (&id, engine), "another request's reply");
        let ended = match self.current.finished.take() {
            Some((finished, (is_ok, place))) if finished == id => (is_ok, Some(place)),
            other => {
                self.current.finished = other;
                (false, None)
            }
        };
        self.give(client, &id, ended);
    }

    /// The machine answered in an engine's stead, or for several.
    #[expect(clippy::too_many_arguments, reason = "the fields of the effect")]
    fn on_made(
        &mut self,
        now: Instant,
        client: &Client,
        engine: Option<&EngineUuid>,
        parent: &Bytes,
        metadata: &Json,
        content: &Json,
        buffers: &[Bytes],
    ) {
        let id = id_of(parent);
        if metadata["is_coalescing"] == true {
            self.check_gathered(&id, metadata, content, buffers);
            self.give(client, &id, (false, None));
            return;
        }
        let is_gone = engine.is_none_or(|engine| !self.engines.contains_key(engine));
        match content["ename"].as_str() {
            _ if self.current.refusal.as_ref().is_some_and(|(refused, _)| *refused == id) => {
                let (_, expected) = self.current.refusal.take().expect("just looked");
                assert_eq!(content["ename"], expected, "{id}");
            }
            None if content["status"] == "aborted" => {
                assert!(self.aborted.contains(&id), "{id} was not aborted")
            }
            None => {
                assert_eq!(content["status"], "ok");
                assert!(is_gone && client.channel == Channel::Control, "{id} is fulfilled by no loss");
            }
            Some("EngineError") => {
                let is_unreachable = engine.is_some() && self.current.undelivered.as_ref() == engine;
                let gave_up = self.tasks.get(&id).is_some_and(|work| work.has_failed);
                assert!(is_gone || is_unreachable || gave_up, "{id} failed, but {engine:?} is here");
            }
            Some("TaskTimeout") => {
                let work = &self.tasks[&id];
                let (since, timeout) =
                    (work.waits_since.expect("it waits"), work.timeout.expect("it has one"));
                assert!(since + timeout <= now, "{id} timed out early");
            }
            Some("ImpossibleDependency") => {
                assert!(self.is_hopeless(&self.tasks[&id]), "{id} is possible");
            }
            Some("ValueError") => assert_eq!(client.channel, Channel::Broadcast, "{id}: {content}"),
            Some(_) => panic!("{id} failed unexpectedly: {content}"),
        }
        self.give(client, &id, (false, None));
    }

    /// A coalesced reply has everybody's result, in the order of the request.
    fn check_gathered(&mut self, id: &MsgId, metadata: &Json, content: &Json, buffers: &[Bytes]) {
        let gathering = self.broadcasts.remove(id).unwrap_or_else(|| panic!("{id} is no open broadcast"));
        assert_eq!(gathering.left, 0, "{id} was answered before all engines have");
        assert_eq!(metadata["broadcast_targets"], json!(gathering.targets));
        let contents = content["commworld"]["contents"].as_array().expect("everybody's content");
        assert_eq!(contents.len(), gathering.targets.len());
        let mut all_ok = true;
        let mut expected: Vec<Bytes> = vec![];
        for ((engine, _), content) in gathering.targets.iter().zip(contents) {
            let share = share_id(id, engine);
            all_ok &= content["status"] == "ok";
            match gathering.replied.get(&share) {
                Some(status) if content["of"].is_string() => {
                    assert_eq!((&content["of"], &content["status"]), (&json!(share), &json!(status)));
                    expected.push(Bytes::from(share.to_string()));
                }
                _ => assert_eq!(content["ename"], "EngineError", "{share}"),
            }
        }
        assert_eq!(metadata["status"] == "ok", all_ok, "{id}");
        assert_eq!(buffers, if all_ok { &expected[..] } else { &[] }, "{id}");
    }

    fn on_answered(&mut self, to: &Bytes, parent: &Bytes, content: Option<&Json>) {
        let Some((client, expected)) = self.current.asked.take() else { return };
        assert_eq!(client, to, "another client is answered");
        self.ledger.give(to, &id_of(parent));
        if let (Some(content), Some(expected)) = (content, expected) {
            let mut content = content.clone();
            for part in content.as_object_mut().expect("an object").values_mut() {
                // How much an engine has done is no question of what it has.
                part.as_object_mut().map(|lengths| lengths.remove("completed"));
            }
            assert_eq!(content, expected);
        }
    }

    /// What the hub must answer; none if it is not worth a second opinion.
    fn answer_to(&self, query: &Query) -> Option<Json> {
        let waiting = self.tasks.values().filter(|work| work.waits_since.is_some()).count();
        let mut answer = json!({ "status": "ok" });
        match query {
            Query::Queue(request) if !request.verbose && request.targets.is_none() => {
                for here in self.engines.keys() {
                    let queue = self.queued_at(here).filter(|held| held.channel != Channel::Task).count();
                    let tasks = self.queued_at(here).filter(|held| held.channel == Channel::Task).count();
                    answer[self.engines[here].id.to_string()] = json!({ "queue": queue, "tasks": tasks });
                }
                answer["unassigned"] = json!(waiting);
            }
            Query::Load(request) if request.targets.is_none() => {
                for (uuid, here) in &self.engines {
                    answer[here.id.to_string()] = json!(self.queued_at(uuid).count());
                }
            }
            _ => return None,
        }
        Some(answer)
    }

    fn queued_at(&self, engine: &EngineUuid) -> impl Iterator<Item = &Held> {
        self.held.values().filter(move |held| {
            held.engine == *engine && held.channel != Channel::Control && held.doubtful.is_none()
        })
    }

    /// Whether the tasks that a dependency names ended as it needs, on that engine if one is given.
    fn is_met(&self, needed: &Dependency, place: Option<EngineId>) -> bool {
        let ids: BTreeSet<&MsgId> = needed.dependencies.iter().collect();
        let counts = |id: &&MsgId| {
            self.ended.get(*id).is_some_and(|(is_ok, engine)| {
                let counts = if *is_ok { needed.success } else { needed.failure };
                counts && place.is_none_or(|place| *engine == Some(place))
            })
        };
        let count = ids.iter().copied().filter(counts).count();
        ids.is_empty() || if needed.all { count == ids.len() } else { count > 0 }
    }

    /// Whether they can no longer.
    fn is_wasted(&self, needed: &Dependency, on_one_engine: bool) -> bool {
        let ended: Vec<(bool, Option<EngineId>)> =
            needed.dependencies.iter().filter_map(|id| self.ended.get(id)).copied().collect();
        let ids: BTreeSet<&MsgId> = needed.dependencies.iter().collect();
        let wasted = ids
            .iter()
            .filter_map(|id| self.ended.get(*id))
            .filter(|(is_ok, _)| !if *is_ok { needed.success } else { needed.failure });
        let wasted = wasted.count();
        if !needed.all {
            return !ids.is_empty() && wasted == ids.len();
        }
        let places: BTreeSet<EngineId> = ended.iter().filter_map(|(_, engine)| *engine).collect();
        wasted > 0 || (on_one_engine && places.len() > 1)
    }

    fn permits(&self, work: &Work, engine: EngineId) -> bool {
        !work.avoided.contains(&engine)
            && work.targets.as_ref().is_none_or(|targets| targets.contains(&engine))
            && self.is_met(&work.follow, Some(engine))
    }

    fn is_due(&self, work: &Work) -> bool {
        self.is_met(&work.after, None) && self.is_met(&work.follow, None)
    }

    /// Whether a waiting task can never run on an engine that is here, and must not wait for others.
    fn is_hopeless(&self, work: &Work) -> bool {
        if self.is_wasted(&work.after, false) || self.is_wasted(&work.follow, true) {
            return true;
        }
        if !self.is_due(work) || self.engines.values().any(|here| self.permits(work, here.id)) {
            return false;
        }
        let follow = &work.follow.dependencies;
        work.targets.is_some()
            || (!follow.is_empty() && follow.iter().all(|id| self.ended.contains_key(id)))
            || (work.has_failed && work.timeout.is_none())
    }

    /// Nothing waits that could run, or cannot, or was aborted, or has waited too long.
    fn check_waiting(&mut self, now: Instant) {
        let mut woken = vec![];
        for (id, work) in &self.tasks {
            let Some(since) = work.waits_since else { continue };
            assert!(!self.aborted.contains(id), "{id} waits, but was aborted");
            assert!(!self.is_hopeless(work), "{id} waits for nothing");
            assert!(work.timeout.is_none_or(|timeout| since + timeout > now), "{id} has timed out");
            if !self.is_due(work) {
                continue;
            }
            if !work.was_due {
                woken.push(id.clone());
            }
            for (uuid, here) in &self.engines {
                let has_room = match self.window {
                    None => here.balanced == 0,
                    Some(0) => true,
                    Some(window) => here.balanced < window,
                };
                let may_run = has_room && !here.is_suspended && self.permits(work, here.id);
                assert!(!may_run, "{id} waits although {uuid} has room");
            }
        }
        for id in woken {
            self.tasks.get_mut(&id).expect("it waits").was_due = true;
        }
    }

    /// What was given to an engine was first in the queue of those that may run there.
    fn check_order(&self) {
        for (given, other) in &self.current.passed_over {
            let still_waits = self.tasks.get(other).is_some_and(|work| work.waits_since.is_some());
            assert!(!still_waits, "{given} was given to an engine before {other}");
        }
    }

    /// Hub, task table and schedulers think the same of who is here and who has what.
    fn check_agreement(&self, controller: &Controller) {
        let mut count = 0;
        for engine in controller.hub.engines() {
            count += 1;
            let here = self.engines.get(&engine.uuid);
            let here = here.unwrap_or_else(|| panic!("clients do not know that {} is here", engine.uuid));
            assert_eq!(
                (here.id, here.is_suspended),
                (engine.id, engine.lost_at.is_some()),
                "{}",
                engine.uuid
            );
            let held = self.held().filter(|(uuid, _)| **uuid == engine.uuid).map(|(_, task)| task);
            assert!(held.eq(engine.outstanding.iter().copied()), "what {} has", engine.uuid);
        }
        assert_eq!(count, self.engines.len(), "clients think that engines are here which are not");
        let waiting = self.tasks.values().filter(|work| work.waits_since.is_some()).count();
        assert_eq!(controller.balanced.waiting(), waiting, "tasks that wait");
        assert_eq!(controller.unanswered(), self.held.len() + waiting, "requests that are not answered");
    }
}
