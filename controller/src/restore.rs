//! A controller that goes on where an earlier one ended, from the [changes](Change) that one wrote down.
//!
//! The rules, in the order in which they matter to a client:
//!
//! * A task that waited still waits. A balanced task keeps its engine, its retries, its place.
//! * An engine counts as here, and has what it had, but nothing new is given to it until its heart beats; if it does
//!   not in [`RETURN_TIME`], it is lost like any other.
//! * What an engine finished meanwhile arrives when its connection is back. What it had told the earlier controller
//!   in its last moment is lost with it. To find that out, the engine is asked for nothing ([`Effect::Probe`]) by
//!   every channel where it has something: a channel keeps its order, so what is not answered before is not answered
//!   at all. Such a task is tried elsewhere if it may be tried again, else its client is told.
//! * A reply that the earlier controller had given to its sockets counts as delivered, but for those of its last
//!   moment, which are said again: see [`repeats`](crate::repeats).
//! * A request that was lost on its way in is unknown here; see [`sessions`](crate::hub::sessions).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use protocol::error::{ErrorContent, ename};
use protocol::extension::EngineDescription;
use protocol::frames::WireMessage;
use protocol::header::Header;
use protocol::id::{EngineId, EngineUuid, MsgId, SessionId};
use protocol::limits::ABORTED_IDS_REMEMBERED;
use protocol::message::Status;
use protocol::message::execute::{BroadcastMetadata, TaskMetadata};
use serde_json::json;

use crate::machine::{Address, Channel, Client, Controller, Effect, Settings};
use crate::records::{Change, Queue};
use crate::repeats::Said;
use crate::scheduler::balanced::History;
use crate::scheduler::broadcast::GatheredBefore;
use crate::scheduler::dependency::Finished;
use crate::scheduler::{Made, reply_type_of};
use crate::tasks::{Doubt, Task, TaskId, Work};

/// How long an engine of an earlier controller may take to be heard again.
pub(crate) const RETURN_TIME: Duration = Duration::from_secs(30);

/// What an earlier controller left, as far as it matters.
#[derive(Debug, Default)]
struct Past {
    engines: BTreeMap<EngineId, (EngineUuid, EngineDescription)>,
    /// Engines that have an id and could not be used yet.
    joining: BTreeMap<EngineUuid, (EngineId, EngineDescription)>,
    /// Engines that may be heard although they are not here.
    expected: BTreeMap<EngineUuid, (EngineId, EngineDescription)>,
    /// Ids of engines that are gone: they are not given again.
    last_id: Option<EngineId>,
    tasks: BTreeMap<TaskId, PastTask>,
    gatherings: BTreeMap<TaskId, PastGathering>,
    last_task: TaskId,
    ends: Vec<(u64, Finished)>,
    sessions: Vec<(SessionId, MsgId)>,
    /// Tasks that clients wanted aborted.
    aborted: Vec<MsgId>,
    /// Replies that may not have arrived.
    said: VecDeque<Said>,
    /// The same, of a controller before that.
    owed: Vec<Said>,
    /// Messages that did not come, and whether their clients were told.
    missed: BTreeMap<MsgId, (SessionId, bool)>,
}

#[derive(Debug)]
struct PastTask {
    msg_id: MsgId,
    client: Client,
    kind: Kind,
    engine: Option<EngineUuid>,
    request: WireMessage,
    avoided: BTreeSet<EngineId>,
    retried: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Direct,
    Control,
    Balanced,
    Share { broadcast: TaskId, place: usize },
}

#[derive(Debug)]
struct PastGathering {
    msg_id: MsgId,
    client: Client,
    request: WireMessage,
    /// Which engines were asked, by place.
    asked: BTreeSet<usize>,
    gathered: BTreeMap<usize, (Status, WireMessage)>,
}

impl Past {
    fn apply(&mut self, change: Change) {
        match change {
            Change::Submitted { task, msg_id, client, queue, engine, request } => {
                let client = self.client_of(client, &request);
                if task == TaskId::NONE {
                    return; // It was refused in the same step.
                }
                self.last_task = self.last_task.max(task);
                let kind = match queue {
                    Queue::Mux => Kind::Direct,
                    Queue::Task => Kind::Balanced,
                    // Its replies are not gathered: it stands for itself.
                    Queue::Broadcast => Kind::Share { broadcast: task, place: 0 },
                };
                let (avoided, retried) = (BTreeSet::new(), 0);
                self.tasks.insert(task, PastTask { msg_id, client, kind, engine, request, avoided, retried });
            }
            Change::Asked { task, msg_id, client, engine, request } => {
                let client = self.client_of(client, &request);
                self.last_task = self.last_task.max(task);
                let (kind, engine) = (Kind::Control, Some(engine));
                let (avoided, retried) = (BTreeSet::new(), 0);
                self.tasks.insert(task, PastTask { msg_id, client, kind, engine, request, avoided, retried });
            }
            Change::Told { task } => {
                self.last_task = self.last_task.max(task);
                self.tasks.remove(&task);
            }
            Change::Gathering { broadcast, msg_id, client, request } => {
                let client = self.client_of(client, &request);
                let (asked, gathered) = (BTreeSet::new(), BTreeMap::new());
                self.gatherings.insert(broadcast, PastGathering { msg_id, client, request, asked, gathered });
            }
            Change::Shared { task, broadcast, place, engine } => {
                self.last_task = self.last_task.max(task);
                let Some(gathering) = self.gatherings.get_mut(&broadcast) else { return };
                gathering.asked.insert(place);
                let share = PastTask {
                    msg_id: MsgId::from(format!("{}_{engine}", gathering.msg_id)),
                    client: gathering.client.clone(),
                    kind: Kind::Share { broadcast, place },
                    engine: Some(engine),
                    request: without_payload(&gathering.request),
                    avoided: BTreeSet::new(),
                    retried: 0,
                };
                self.tasks.insert(task, share);
            }
            Change::Gathered { task, status, reply } => {
                if let Some(PastTask { kind: Kind::Share { broadcast, place }, .. }) =
                    self.tasks.remove(&task)
                    && let Some(gathering) = self.gatherings.get_mut(&broadcast)
                {
                    gathering.gathered.insert(place, (status, reply));
                }
            }
            Change::Assigned { task, engine, .. } => {
                if let Some(task) = self.tasks.get_mut(&task) {
                    task.engine = Some(engine);
                }
            }
            Change::Returned { task, engine, retried } => {
                if let Some(task) = self.tasks.get_mut(&task) {
                    task.engine = None;
                    task.avoided.insert(engine);
                    task.retried += u32::from(retried);
                }
            }
            Change::Replied { task, msg_id, engine, status, .. } => {
                let Some(past) = self.end(task, &msg_id) else { return };
                if past.kind == Kind::Balanced {
                    let ran = self.engines.iter().find(|(_, (uuid, _))| *uuid == engine).map(|(id, _)| *id);
                    let finished = Finished { ok: status == Status::Ok, engine: ran };
                    self.ends.push((History::key(&msg_id), finished));
                }
            }
            Change::Answered { task, msg_id, .. } => {
                if self.gatherings.get(&task).is_some_and(|gathering| gathering.msg_id == msg_id) {
                    self.gatherings.remove(&task);
                    let is_its = |kind| matches!(kind, Kind::Share { broadcast, .. } if broadcast == task);
                    self.tasks.retain(|_, past| !is_its(past.kind));
                } else if let Some(PastTask { kind: Kind::Balanced, .. }) = self.end(task, &msg_id) {
                    self.ends.push((History::key(&msg_id), Finished { ok: false, engine: None }));
                }
            }
            Change::Owed => self.owed.extend(self.said.drain(..)),
            Change::Repeated => self.owed.clear(),
            Change::Aborted { msg_ids } => {
                self.aborted.extend(msg_ids);
                let surplus = self.aborted.len().saturating_sub(ABORTED_IDS_REMEMBERED);
                drop(self.aborted.drain(..surplus));
            }
            Change::Said(said) => self.said.push_back(said),
            Change::Arrived { count } => {
                let count = usize::try_from(count).unwrap_or(usize::MAX).min(self.said.len());
                drop(self.said.drain(..count));
            }
            Change::Noted { session, msg_id } => self.hear(session, msg_id),
            Change::Missed { session, msg_id, told } => {
                self.missed.insert(msg_id, (session, told));
            }
            Change::Ended { name, ok, engine } => self.ends.push((name, Finished { ok, engine })),
            Change::Joining { id, engine, description } => {
                self.last_id = self.last_id.max(Some(id));
                self.expected.remove(&engine);
                self.joining.insert(engine, (id, description));
            }
            Change::Expected { id, engine, description } => {
                self.last_id = self.last_id.max(Some(id));
                self.joining.remove(&engine);
                self.expected.insert(engine, (id, description));
            }
            Change::Joined { id, engine, description } => {
                self.last_id = self.last_id.max(Some(id));
                self.joining.remove(&engine);
                self.expected.remove(&engine);
                self.engines.insert(id, (engine, description));
            }
            Change::Left { id, engine } => {
                self.last_id = self.last_id.max(Some(id));
                self.joining.remove(&engine);
                self.expected.remove(&engine);
                if self.engines.get(&id).is_some_and(|(uuid, _)| *uuid == engine) {
                    self.engines.remove(&id);
                }
            }
            Change::Output { .. } | Change::Resubmitted { .. } => {}
        }
    }

    /// The connection that a request came by is gone with the controller that had it.
    fn client_of(&mut self, client: Client, request: &WireMessage) -> Client {
        let Ok(header) = serde_json::from_slice::<Header>(&request.header) else {
            return Client { address: Address::Nobody, ..client };
        };
        let Header { session, msg_id, .. } = header;
        if client.address == Address::Nobody {
            return client;
        }
        self.hear(session.clone(), msg_id);
        Client { address: Address::Session(session), ..client }
    }

    fn hear(&mut self, session: SessionId, msg_id: MsgId) {
        if self.missed.get(&msg_id).is_some_and(|(_, told)| !told) {
            self.missed.remove(&msg_id);
        }
        self.sessions.push((session, msg_id));
        // Messages are numbered: the last one tells what the earlier ones did.
        if self.sessions.len() > 4 * protocol::limits::SESSIONS_REMEMBERED {
            let last: BTreeMap<SessionId, MsgId> = self.sessions.drain(..).collect();
            self.sessions.extend(last);
        }
    }

    fn end(&mut self, task: TaskId, msg_id: &MsgId) -> Option<PastTask> {
        if self.tasks.get(&task)?.msg_id != *msg_id {
            return None;
        }
        self.tasks.remove(&task)
    }
}

/// Only what is needed to answer it.
fn without_payload(request: &WireMessage) -> WireMessage {
    WireMessage { content: Bytes::from_static(b"{}"), buffers: vec![], ..request.clone() }
}

impl Controller {
    /// A controller that goes on where an earlier one ended. The effects are due before it handles any event.
    pub fn restore(
        now: Instant,
        settings: Settings,
        changes: impl IntoIterator<Item = Change>,
        effects: &mut Vec<Effect>,
    ) -> Controller {
        let mut past = Past::default();
        for change in changes {
            past.apply(change);
        }
        let mut controller = Controller::new(now, settings);
        for (session, msg_id) in &past.sessions {
            controller.hub.sessions.recall(now, session, msg_id);
        }
        for (msg_id, (session, told)) in &past.missed {
            controller.hub.sessions.recall_missed(now, session, msg_id, *told);
        }
        for id in std::mem::take(&mut past.aborted) {
            controller.remember_aborted(id);
        }
        for (name, finished) in std::mem::take(&mut past.ends) {
            controller.balanced.recall_end(name, finished);
        }
        if let Some(id) = past.last_id {
            controller.hub.give_no_id_up_to(id);
        }
        for (id, (uuid, description)) in std::mem::take(&mut past.engines) {
            controller.hub.take_back(now, id, uuid, description, now + RETURN_TIME);
            controller.add_to_schedule(now, id, effects);
            controller.balanced.suspend(id);
        }
        for (uuid, (id, description)) in std::mem::take(&mut past.expected) {
            controller.hub.expect_back(uuid, id, description);
        }
        for (uuid, (id, description)) in std::mem::take(&mut past.joining) {
            controller.hub.expect_back(uuid.clone(), id, description);
            let _ = controller.hub.rejoin(now, uuid.as_str(), &controller.settings);
        }
        let tasks = std::mem::take(&mut past.tasks);
        tracing::info!(tasks = tasks.len(), engines = controller.hub.engines().count(), "restored");
        for (broadcast, gathering) in std::mem::take(&mut past.gatherings) {
            controller.restore_gathering(broadcast, gathering, effects);
        }
        for (id, task) in tasks {
            controller.restore_task(now, id, task, effects);
        }
        controller.tasks.count_from(past.last_task);
        controller.ping_now(now, effects);
        past.apply(Change::Owed);
        controller.recall_said(now, std::mem::take(&mut past.owed), effects);
        controller
    }

    fn restore_gathering(&mut self, broadcast: TaskId, past: PastGathering, effects: &mut Vec<Effect>) {
        let metadata: BroadcastMetadata = serde_json::from_slice(&past.request.metadata).unwrap_or_default();
        let Ok(header) = serde_json::from_slice::<Header>(&past.request.header) else { return };
        let results = (0..metadata.targets.len()).map(|place| match past.gathered.get(&place) {
            Some((status, reply)) => GatheredBefore::Replied(*status, reply.clone()),
            None if past.asked.contains(&place) => GatheredBefore::Open,
            None => GatheredBefore::Unknown,
        });
        self.recall_broadcast(
            broadcast,
            past.client,
            &header,
            past.request.header,
            metadata.targets.clone(),
            results.collect(),
            effects,
        );
    }

    fn restore_task(&mut self, now: Instant, id: TaskId, past: PastTask, effects: &mut Vec<Effect>) {
        let Ok(header) = serde_json::from_slice::<Header>(&past.request.header) else { return };
        let engine =
            past.engine.as_ref().and_then(|uuid| self.hub.by_uuid(uuid.as_str())).map(|engine| engine.id);
        let (client, msg_id, frame) = (past.client, past.msg_id, past.request.header.clone());
        self.tasks.count_from(TaskId(id.0 - 1));
        let task = |work| Task { msg_id, msg_type: header.msg_type.clone(), client, header: frame, work };
        if past.kind == Kind::Balanced {
            let metadata: TaskMetadata = serde_json::from_slice(&past.request.metadata).unwrap_or_default();
            let task = task(Work::Direct { engine: EngineId(0) });
            self.recall_balanced(task, past.request, metadata, past.avoided, past.retried);
            match engine {
                Some(engine) => self.recall_assignment(now, id, engine),
                // Effects of a new assignment or an end are real ones: the earlier controller had not got so far.
                None => self.place_or_wait(now, id, effects),
            }
            return;
        }
        if past.kind == Kind::Control {
            let uuid = past.engine.unwrap_or_else(|| EngineUuid::from(""));
            let error = "the controller was restarted while the engine was asked; ask again";
            self.fail_direct(id, task(Work::Direct { engine: EngineId(0) }), &uuid, error, true, effects);
            return;
        }
        let Some(engine) = engine else {
            let uuid = past.engine.unwrap_or_else(|| EngineUuid::from(""));
            let error = format!("Engine '{uuid}' was lost when the controller was restarted");
            let share = matches!(past.kind, Kind::Share { .. });
            let work = match past.kind {
                Kind::Share { broadcast, place } => Work::Share { engine: EngineId(0), broadcast, place },
                _ => Work::Direct { engine: EngineId(0) },
            };
            self.fail_unbegun(id, task(work), &uuid, &error, share, effects);
            return;
        };
        let work = match past.kind {
            Kind::Share { broadcast, place } => Work::Share { engine, broadcast, place },
            _ => Work::Direct { engine },
        };
        self.tasks.begin(task(work));
        self.hub.hold(engine, id);
        self.hub.engine_mut(engine).expect("just found").doubtful.insert(id);
    }

    /// An engine is back: what it had is asked after, channel by channel.
    pub(crate) fn ask_after_doubtful(&mut self, id: EngineId, doubt: Doubt, effects: &mut Vec<Effect>) {
        let Some(engine) = self.hub.engine_mut(id) else { return };
        let uuid = engine.uuid.clone();
        let mut by_channel: BTreeMap<Channel, BTreeSet<TaskId>> = BTreeMap::new();
        for task in std::mem::take(&mut engine.doubtful) {
            if let Some(channel) = self.tasks.get(task).map(|task| task.client.channel) {
                by_channel.entry(channel).or_default().insert(task);
            }
        }
        for (channel, doubtful) in by_channel {
            let task = self.tasks.begin(Task {
                msg_id: MsgId::from(""),
                msg_type: String::new(),
                // Beside the channel's queue: nobody asks after it.
                client: Client { channel, address: Address::Nobody },
                header: Bytes::from_static(b"{}"),
                work: Work::Probe { engine: id, doubtful, doubt },
            });
            self.hub.hold(id, task);
            // A later controller must not take its answer for another task's.
            effects.push(Effect::Remember(Change::Told { task }));
            effects.push(Effect::Probe { channel, engine: uuid.clone(), task });
        }
    }

    /// An engine has answered a probe: what it had before and has not answered by now, it never will.
    pub(crate) fn on_probed(
        &mut self,
        now: Instant,
        engine: EngineId,
        uuid: &EngineUuid,
        doubtful: BTreeSet<TaskId>,
        doubt: Doubt,
        effects: &mut Vec<Effect>,
    ) {
        let words = match doubt {
            Doubt::Restart => "lost the task or its answer when the controller was restarted",
            Doubt::Connection => "lost the task or its answer when its connection was lost for a moment",
        };
        for id in doubtful {
            if self.tasks.get(id).and_then(|task| task.work.engine()) != Some(engine) {
                continue;
            }
            tracing::info!(%engine, task = id.0, ?doubt, "a task or its answer was lost on its way");
            self.take_from(now, engine, uuid, id, words, effects);
        }
    }

    /// Requests that were lost on their way to an earlier controller.
    pub(crate) fn answer_lost(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        for (session, msg_id) in self.hub.sessions.take_lost(now) {
            tracing::info!(%session, %msg_id, "a request was lost with the earlier controller");
            let told = true;
            effects.push(Effect::Remember(Change::Missed {
                session: session.clone(),
                msg_id: msg_id.clone(),
                told,
            }));
            let text = "the request was lost when the controller was restarted; submit it again";
            let error = ErrorContent::new(ename::ENGINE_ERROR, text);
            let Made { metadata, content, .. } = Made::error(None, &error);
            let parent = json!({ "msg_id": msg_id, "session": session, "msg_type": "apply_request", "version": "5.4" });
            effects.push(Effect::Reply {
                client: Client { channel: Channel::Task, address: Address::Session(session) },
                engine: None,
                parent: Bytes::from(parent.to_string()),
                msg_type: "apply_reply".to_owned(),
                metadata,
                content,
                buffers: vec![],
            });
        }
    }

    /// Everything that a later controller must know, as changes: to write a journal anew that has grown too long.
    pub fn snapshot(&self) -> Vec<Change> {
        let mut changes = vec![Change::Told { task: self.tasks.last_id() }];
        if let Some(id) = self.hub.last_id() {
            // Nobody's: only that the id was given matters.
            changes.push(Change::Left { id, engine: EngineUuid::from("") });
        }
        for engine in self.hub.engines() {
            changes.push(Change::Joined {
                id: engine.id,
                engine: engine.uuid.clone(),
                description: engine.description.clone(),
            });
        }
        changes.extend(self.hub.outside());
        for (session, msg_id) in self.hub.sessions.last_messages() {
            changes.push(Change::Noted { session, msg_id });
        }
        for (session, msg_id, told) in self.hub.sessions.missed() {
            changes.push(Change::Missed { session, msg_id, told });
        }
        for (name, Finished { ok, engine }) in self.balanced.ends() {
            changes.push(Change::Ended { name, ok, engine });
        }
        if !self.balanced.aborted_order.is_empty() {
            changes.push(Change::Aborted { msg_ids: self.balanced.aborted_order.iter().cloned().collect() });
        }
        changes.extend(self.repeats.snapshot());
        self.snapshot_broadcasts(&mut changes);
        for (id, task) in self.tasks.iter() {
            self.snapshot_task(id, task, &mut changes);
        }
        changes
    }

    fn snapshot_task(&self, id: TaskId, task: &Task, changes: &mut Vec<Change>) {
        let engine =
            task.work.engine().and_then(|engine| self.hub.engine(engine)).map(|engine| engine.uuid.clone());
        let submitted = |queue, engine, request| Change::Submitted {
            task: id,
            msg_id: task.msg_id.clone(),
            client: task.client.clone(),
            queue,
            engine,
            request,
        };
        let bare = || WireMessage {
            signature: Bytes::new(),
            header: task.header.clone(),
            parent_header: Bytes::from_static(b"{}"),
            metadata: Bytes::from_static(b"{}"),
            content: Bytes::from_static(b"{}"),
            buffers: vec![],
        };
        match &task.work {
            Work::Probe { .. } => {}
            Work::Direct { .. } if task.client.channel == Channel::Control => {
                changes.extend(engine.map(|engine| Change::Asked {
                    task: id,
                    msg_id: task.msg_id.clone(),
                    client: task.client.clone(),
                    engine,
                    request: bare(),
                }));
            }
            Work::Direct { .. } => changes.push(submitted(Queue::Mux, engine, bare())),
            Work::Share { broadcast, place, .. } => match engine {
                Some(engine) if self.broadcasts.is_gathering(*broadcast) => {
                    changes.push(Change::Shared { task: id, broadcast: *broadcast, place: *place, engine });
                }
                engine => changes.push(submitted(Queue::Broadcast, engine, bare())),
            },
            Work::Balanced(work) => {
                changes.push(submitted(Queue::Task, None, work.message.clone()));
                let metadata: TaskMetadata =
                    serde_json::from_slice(&work.message.metadata).unwrap_or_default();
                let used = metadata.retries.saturating_sub(work.retries);
                for (count, engine) in work.avoided.iter().enumerate() {
                    let retried = count < used as usize;
                    changes.push(Change::Returned { task: id, engine: *engine, retried });
                }
                if let Some(engine) = engine {
                    changes.push(Change::Assigned { task: id, msg_id: task.msg_id.clone(), engine });
                }
            }
        }
    }

    /// Notes that a client's message came, for what a later controller may miss. One that begins a task is remembered
    /// with that.
    pub(crate) fn note_message(
        &mut self,
        now: Instant,
        session: &SessionId,
        msg_id: &MsgId,
        begins_task: bool,
        effects: &mut Vec<Effect>,
    ) {
        if !self.settings.restorable {
            return;
        }
        for msg_id in self.hub.sessions.hear_message(now, session, msg_id) {
            let (session, told) = (session.clone(), false);
            effects.push(Effect::Remember(Change::Missed { session, msg_id, told }));
        }
        if !begins_task {
            let (session, msg_id) = (session.clone(), msg_id.clone());
            effects.push(Effect::Remember(Change::Noted { session, msg_id }));
        }
    }

    fn fail_unbegun(
        &mut self,
        id: TaskId,
        task: Task,
        uuid: &EngineUuid,
        error: &str,
        is_share: bool,
        effects: &mut Vec<Effect>,
    ) {
        if is_share {
            self.fail_share(id, task, uuid, error, effects);
            return;
        }
        let error = ErrorContent::new(ename::ENGINE_ERROR, error);
        let (parent, msg_type) = (task.header.clone(), reply_type_of(&task));
        Made::error(Some(uuid), &error).send_as(id, &task.msg_id, &task.client, parent, msg_type, effects);
    }
}
