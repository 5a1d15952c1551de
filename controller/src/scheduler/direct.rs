//! Requests to one named engine, by mux or control: swap two frames, forward.

use std::time::Instant;

use protocol::error::{ErrorContent, ename};
use protocol::id::EngineUuid;
use protocol::message::StatusContent;
use serde_json::json;

use super::{Made, refuse_with};
use crate::machine::{Channel, Controller, Effect, Request, Target, is_fulfilled_by_loss, reply_type};
use crate::records::{Change, Queue};
use crate::tasks::{Task, TaskId, Work};

impl Controller {
    pub(super) fn on_direct(&mut self, now: Instant, request: Request, effects: &mut Vec<Effect>) {
        let (identity, channel) = match &request.target {
            Target::Control { engine, aborted } => {
                let (engine, aborted) = (engine.clone(), aborted.clone());
                if !aborted.is_empty() {
                    self.on_aborted(now, aborted, effects);
                }
                (engine, Channel::Control)
            }
            Target::Engine(engine) => (engine.clone(), Channel::Mux),
            Target::Balanced(_) | Target::Broadcast(_) => unreachable!("the caller has looked"),
        };
        let Some(engine) = self.hub.by_identity(&identity) else {
            let name = String::from_utf8_lossy(&identity).into_owned();
            let error = ErrorContent::new(ename::ENGINE_ERROR, format!("Engine '{name}' is not registered"));
            refuse_with(request, Made::error(Some(&EngineUuid::from(name)), &error), effects);
            return;
        };
        let (id, uuid) = (engine.id, engine.uuid.clone());
        let Request { client, header, message, .. } = request;
        // Widgets' messages (`comm_msg`) travel here as well; nobody answers them.
        let task = if reply_type(&header.msg_type).is_some() {
            let (task, msg_id) = (self.tasks.next_id(), header.msg_id.clone());
            let (asker, request) = (client.clone(), message.clone());
            effects.push(Effect::Remember(if channel == Channel::Control {
                Change::Asked { task, msg_id, client: asker, engine: uuid.clone(), request }
            } else {
                let (queue, engine) = (Queue::Mux, Some(uuid.clone()));
                Change::Submitted { task, msg_id, client: asker, queue, engine, request }
            }));
            let task = self.tasks.begin(Task {
                msg_id: header.msg_id,
                msg_type: header.msg_type,
                client,
                header: message.header.clone(),
                work: Work::Direct { engine: id },
            });
            self.hub.hold(id, task);
            task
        } else {
            TaskId::NONE
        };
        effects.push(Effect::Forward { channel, engine: uuid, task, message });
    }

    /// Answers a direct request in the engine's stead. What asks an engine to end is fulfilled if it may have ended.
    pub(crate) fn fail_direct(
        &mut self,
        id: TaskId,
        task: Task,
        uuid: &EngineUuid,
        error: &str,
        may_have_ended: bool,
        effects: &mut Vec<Effect>,
    ) {
        let is_control = task.client.channel == Channel::Control;
        let answer = if may_have_ended && is_control && is_fulfilled_by_loss(&task.msg_type) {
            Made {
                engine: Some(uuid.clone()),
                metadata: json!({ "engine": uuid }),
                ..Made::new(&StatusContent::OK)
            }
        } else {
            Made::error(Some(uuid), &ErrorContent::new(ename::ENGINE_ERROR, error))
        };
        answer.send(id, &task, effects);
    }
}
