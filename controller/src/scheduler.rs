//! Where requests go: by channel and target to one of the schedulers; and where their answers go.

pub(crate) mod balanced;
pub(crate) mod broadcast;
pub(crate) mod dependency;
mod direct;
pub(crate) mod explain;
pub(crate) mod fairness;
mod window;

use std::time::Instant;

use bytes::Bytes;
use protocol::error::{ErrorContent, ename};
use protocol::frames::WireMessage;
use protocol::header::Header;
use protocol::id::{EngineId, EngineUuid, MsgId};
use protocol::limits::{ABORTED_IDS_REMEMBERED, REQUESTS_PER_CLIENT_MAX};
use protocol::message::{Failure, Status, StatusContent};
use serde_json::{Value as Json, json};

use crate::hub::Engine;
use crate::hub::registration::json;
use crate::machine::{Channel, Client, Controller, Effect, Outcome, Request, Target, reply_type};
use crate::records::{Change, Queue};
use crate::tasks::{Task, TaskId, Work};

impl Controller {
    pub(crate) fn on_submitted(&mut self, now: Instant, request: Request, effects: &mut Vec<Effect>) {
        let Header { session, msg_id, .. } = &request.header;
        let is_request = reply_type(&request.header.msg_type).is_some();
        let begins_task = is_request && request.client.channel.is_queued();
        self.note_message(now, session, msg_id, begins_task, effects);
        if self.hub.sessions.has_given_up(session, msg_id) {
            tracing::info!(%msg_id, "a request that was told lost has come; it is not run");
            return;
        }
        let more = match &request.target {
            Target::Engine(_) | Target::Control { .. } | Target::Balanced(_) => 1,
            Target::Broadcast(metadata) => metadata.targets.len(),
        };
        if !self.tasks.has_room(&request.client, more) {
            let text = format!(
                "more than {REQUESTS_PER_CLIENT_MAX} requests of this client have not been answered; wait for some"
            );
            refuse(request, &ErrorContent::new(ename::RUNTIME_ERROR, text), effects);
            return;
        }
        match request.target {
            Target::Engine(_) | Target::Control { .. } => self.on_direct(now, request, effects),
            Target::Balanced(_) => self.on_balanced(now, request, effects),
            Target::Broadcast(_) => self.on_broadcast(request, effects),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one for each field of the event")]
    pub(crate) fn on_replied(
        &mut self,
        now: Instant,
        channel: Channel,
        identity: &Bytes,
        id: TaskId,
        outcome: Option<Outcome>,
        message: WireMessage,
        effects: &mut Vec<Effect>,
    ) {
        let Some((engine, uuid)) = self.holder(channel, identity, id) else {
            // Late: the engine was declared lost, or the task was aborted, and the client has its answer.
            tracing::debug!(channel = channel.name(), task = id.0, "reply to nothing dropped");
            self.on_reached(now, channel, identity, effects);
            return;
        };
        self.hub.engine_mut(engine).expect("it holds a task").last_heard = now;
        let is_balanced = self.tasks.get(id).is_some_and(|task| task.work.is_balanced());
        let outcome = outcome.unwrap_or(Outcome { status: Status::Ok, dependencies_met: true });
        if is_balanced {
            self.on_balanced_replied(now, engine, uuid, id, outcome, message, effects);
            return;
        }
        let task = self.tasks.end(id).expect("just found");
        if let Work::Probe { doubtful, doubt, .. } = task.work {
            self.hub.release(engine, id, None);
            if was_aborted(outcome, &message) {
                // Before what is ahead of it, perhaps: that proves nothing, and is asked once more.
                self.hub.engine_mut(engine).expect("just found").doubtful.extend(doubtful);
                self.ask_after_doubtful(engine, doubt, effects);
                return;
            }
            self.on_probed(now, engine, &uuid, doubtful, doubt, effects);
            return;
        }
        let completed = task.client.channel.is_queued() && outcome.status != Status::Aborted;
        self.hub.release(engine, id, completed.then_some(&task.msg_id));
        if let Some(message) = self.gather(id, &task.work, outcome.status, message, effects) {
            relay(id, &task, uuid, outcome.status, message, effects);
        }
    }

    /// The engine that has a task, if the task is at the engine of that identity and came by that channel.
    fn holder(&self, channel: Channel, identity: &Bytes, id: TaskId) -> Option<(EngineId, EngineUuid)> {
        let task = self.tasks.get(id)?;
        let engine = self.hub.engine(task.work.engine()?)?;
        (task.client.channel == channel && engine.uuid.as_str().as_bytes() == identity.as_ref())
            .then(|| (engine.id, engine.uuid.clone()))
    }

    pub(crate) fn on_undelivered(
        &mut self,
        now: Instant,
        uuid: &EngineUuid,
        id: TaskId,
        effects: &mut Vec<Effect>,
    ) {
        let Some(engine) = self.hub.by_uuid(uuid.as_str()) else { return };
        if !engine.outstanding.contains(&id) {
            return;
        }
        let engine = engine.id;
        tracing::warn!(id = %engine, "engine cannot be reached");
        self.take_from(now, engine, uuid, id, "cannot be reached", effects);
    }

    /// Ends or moves one request of an engine that stays.
    pub(crate) fn take_from(
        &mut self,
        now: Instant,
        id: EngineId,
        uuid: &EngineUuid,
        task: TaskId,
        reason: &str,
        effects: &mut Vec<Effect>,
    ) {
        let engine = self.hub.engine(id).expect("the caller found it");
        let error = format!("{} {reason}", engine.in_words());
        self.hub.release(id, task, None);
        if self.tasks.get(task).is_some_and(|task| task.work.is_balanced()) {
            self.on_balanced_lost(now, id, uuid, task, error, effects);
            self.balanced.release(now, id);
            self.fill(now, id, effects);
            return;
        }
        if let Some(Work::Probe { doubtful, doubt, .. }) = self.fail_at(uuid, task, &error, effects) {
            self.on_probed(now, id, uuid, doubtful, doubt, effects);
        }
    }

    /// Ends or moves what an engine had that is no more.
    pub(crate) fn on_engine_gone(
        &mut self,
        now: Instant,
        engine: &Engine,
        reason: &str,
        effects: &mut Vec<Effect>,
    ) {
        let stranded = self.balanced.remove_engine(engine.id);
        let words = engine.in_words();
        for &id in &engine.outstanding {
            let task = self.tasks.get(id).expect("an engine holds live tasks");
            let error = format!("{words} died while running task '{}': {reason}", task.msg_id);
            if task.work.is_balanced() {
                self.on_balanced_lost(now, engine.id, &engine.uuid, id, error, effects);
            } else {
                self.fail_at(&engine.uuid, id, &error, effects);
            }
        }
        for id in stranded {
            self.place_or_wait(now, id, effects);
        }
    }

    /// Ends a direct request or a share in its engine's stead. A probe is given back: nobody waits for it.
    fn fail_at(
        &mut self,
        uuid: &EngineUuid,
        id: TaskId,
        error: &str,
        effects: &mut Vec<Effect>,
    ) -> Option<Work> {
        let task = self.tasks.end(id).expect("the caller found it");
        match task.work {
            Work::Direct { .. } => {
                let is_gone = self.hub.by_uuid(uuid.as_str()).is_none();
                self.fail_direct(id, task, uuid, error, is_gone, effects);
            }
            Work::Share { .. } => self.fail_share(id, task, uuid, error, effects),
            Work::Probe { .. } => return Some(task.work),
            Work::Balanced(_) => unreachable!("the scheduler ends balanced tasks"),
        }
        None
    }

    /// Remembers an aborted id in case its task is still to come.
    pub(crate) fn remember_aborted(&mut self, id: MsgId) {
        if self.balanced.aborted.insert(id.clone()) {
            self.balanced.aborted_order.push_back(id);
        }
        while self.balanced.aborted_order.len() > ABORTED_IDS_REMEMBERED {
            if let Some(oldest) = self.balanced.aborted_order.pop_front() {
                self.balanced.aborted.remove(&oldest);
            }
        }
    }
}

/// Whether an engine did not come to a request of ours. Mux tells no outcome: the content does.
fn was_aborted(outcome: Outcome, message: &WireMessage) -> bool {
    let said = || serde_json::from_slice::<StatusContent>(&message.content);
    outcome.status == Status::Aborted || said().is_ok_and(|said| said == StatusContent::ABORTED)
}

/// Relays an engine's reply, which ends a task.
pub(crate) fn relay(
    id: TaskId,
    task: &Task,
    engine: EngineUuid,
    status: Status,
    message: WireMessage,
    effects: &mut Vec<Effect>,
) {
    effects.push(Effect::Remember(if task.client.channel.is_queued() {
        Change::Replied {
            task: id,
            msg_id: task.msg_id.clone(),
            engine: engine.clone(),
            status,
            reply: message.clone(),
        }
    } else {
        Change::Told { task: id }
    }));
    effects.push(Effect::Relay { client: task.client.clone(), engine, message });
}

/// An answer of the controller's own.
pub(crate) struct Made {
    /// The engine that it is about, if it is about one.
    pub(crate) engine: Option<EngineUuid>,
    pub(crate) metadata: Json,
    pub(crate) content: Json,
    pub(crate) buffers: Vec<Bytes>,
}

impl Made {
    pub(crate) fn new(content: &impl serde::Serialize) -> Made {
        Made { engine: None, metadata: json!({}), content: json(content), buffers: vec![] }
    }

    /// An error, about one engine or about none.
    pub(crate) fn error(engine: Option<&EngineUuid>, error: &ErrorContent) -> Made {
        let metadata = match engine {
            Some(engine) => json!({ "engine": engine, "status": "error", "engine_info": {} }),
            None => json!({ "status": "error", "engine_info": {} }),
        };
        Made { engine: engine.cloned(), metadata, ..Made::new(&Failure::from(error.clone())) }
    }

    /// Ends a task with it.
    pub(crate) fn send(self, id: TaskId, task: &Task, effects: &mut Vec<Effect>) {
        self.send_as(id, &task.msg_id, &task.client, task.header.clone(), reply_type_of(task), effects);
    }

    /// The same for what is no single task: a request that was never begun, or one of several engines.
    pub(crate) fn send_as(
        self,
        id: TaskId,
        msg_id: &MsgId,
        client: &Client,
        parent: Bytes,
        msg_type: String,
        effects: &mut Vec<Effect>,
    ) {
        let Made { engine, metadata, content, buffers } = self;
        effects.push(Effect::Remember(if client.channel.is_queued() {
            Change::Answered {
                task: id,
                msg_id: msg_id.clone(),
                engine: engine.clone(),
                msg_type: msg_type.clone(),
                metadata: metadata.clone(),
                content: content.clone(),
                buffers: buffers.clone(),
            }
        } else {
            Change::Told { task: id }
        }));
        let client = client.clone();
        effects.push(Effect::Reply { client, engine, parent, msg_type, metadata, content, buffers });
    }
}

/// Answers a request that was never begun. What is no request gets no answer.
pub(crate) fn refuse(request: Request, error: &ErrorContent, effects: &mut Vec<Effect>) {
    refuse_with(request, Made::error(None, error), effects);
}

/// The same with an answer that is more than an error.
pub(crate) fn refuse_with(request: Request, answer: Made, effects: &mut Vec<Effect>) {
    let Request { client, header, message, .. } = request;
    tracing::debug!(msg_id = %header.msg_id, answer = %answer.content, "request refused");
    let Some(reply_type) = reply_type(&header.msg_type) else { return };
    let queue = match client.channel {
        Channel::Mux => Some(Queue::Mux),
        Channel::Task => Some(Queue::Task),
        Channel::Broadcast => Some(Queue::Broadcast),
        Channel::Control => None,
    };
    let parent = message.header.clone();
    if let Some(queue) = queue {
        effects.push(Effect::Remember(Change::Submitted {
            task: TaskId::NONE,
            msg_id: header.msg_id.clone(),
            client: client.clone(),
            queue,
            engine: answer.engine.clone(),
            request: message,
        }));
    }
    answer.send_as(TaskId::NONE, &header.msg_id, &client, parent, reply_type, effects);
}

/// The reply type of a request that was begun.
pub(crate) fn reply_type_of(task: &Task) -> String {
    reply_type(&task.msg_type).unwrap_or_else(|| task.msg_type.clone())
}
