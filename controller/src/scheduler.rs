//! Where requests go: by channel and target to one of the schedulers; and where their answers go.

pub(crate) mod balanced;
pub(crate) mod broadcast;
pub(crate) mod dependency;
mod direct;
mod window;

use std::time::Instant;

use bytes::Bytes;
use protocol::error::{ErrorContent, ename};
use protocol::frames::WireMessage;
use protocol::id::{EngineId, EngineUuid, MsgId};
use protocol::limits::{ABORTED_IDS_REMEMBERED, REQUESTS_PER_CLIENT_MAX};
use protocol::message::{Failure, Status};
use serde_json::json;

use crate::hub::Engine;
use crate::hub::registration::json;
use crate::machine::{Channel, Client, Controller, Effect, Outcome, Request, Target, reply_type};
use crate::tasks::{Task, TaskId, Work};

impl Controller {
    pub(crate) fn on_submitted(&mut self, now: Instant, request: Request, effects: &mut Vec<Effect>) {
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
        let completed = task.client.channel.is_queued() && outcome.status != Status::Aborted;
        self.hub.release(engine, id, completed.then_some(&task.msg_id));
        if let Some(message) = self.gather(&task.work, outcome.status, message, effects) {
            effects.push(Effect::Relay { client: task.client, engine: uuid, message });
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
        let (engine, error) = (engine.id, format!("{} cannot be reached", engine.in_words()));
        tracing::warn!(id = %engine, "engine cannot be reached");
        self.hub.release(engine, id, None);
        if self.tasks.get(id).is_some_and(|task| task.work.is_balanced()) {
            self.balanced.release(now, engine);
            self.on_balanced_lost(now, engine, uuid, id, error, effects);
            self.fill(now, engine, effects);
        } else {
            self.fail_at(uuid, id, &error, effects);
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

    /// Ends a direct request or a share in its engine's stead.
    fn fail_at(&mut self, uuid: &EngineUuid, id: TaskId, error: &str, effects: &mut Vec<Effect>) {
        let task = self.tasks.end(id).expect("the caller found it");
        match task.work {
            Work::Direct { .. } => self.fail_direct(task, uuid, error, effects),
            Work::Share { .. } => self.fail_share(task, uuid, error, effects),
            Work::Balanced(_) => unreachable!("the scheduler ends balanced tasks"),
        }
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

/// Answers a request that was never begun. What is no request gets no answer.
pub(crate) fn refuse(request: Request, error: &ErrorContent, effects: &mut Vec<Effect>) {
    tracing::debug!(msg_id = %request.header.msg_id, error = error.evalue, "request refused");
    if let Some(reply_type) = reply_type(&request.header.msg_type) {
        effects.push(made_reply(request.client, None, request.message.header, reply_type, error));
    }
}

/// An error reply of the controller's own, about one engine or about none.
pub(crate) fn made_reply(
    client: Client,
    engine: Option<&EngineUuid>,
    parent: Bytes,
    msg_type: String,
    error: &ErrorContent,
) -> Effect {
    let metadata = match engine {
        Some(engine) => json!({ "engine": engine, "status": "error", "engine_info": {} }),
        None => json!({ "status": "error", "engine_info": {} }),
    };
    let content = json(&Failure::from(error.clone()));
    Effect::Reply { client, engine: engine.cloned(), parent, msg_type, metadata, content, buffers: vec![] }
}

/// The reply type of a request that was begun.
pub(crate) fn reply_type_of(task: &Task) -> String {
    reply_type(&task.msg_type).unwrap_or_else(|| task.msg_type.clone())
}
