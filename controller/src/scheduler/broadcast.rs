//! One request to many engines: a share for each, and one reply or one for each.
//!
//! The fan-out is flat. Neither peer can tell it from the original's tree, and results stay in the order of the
//! request's targets.

use bytes::Bytes;
use protocol::error::{ErrorContent, ename};
use protocol::extension::Coalesced;
use protocol::frames::WireMessage;
use protocol::header::Header;
use protocol::id::{EngineId, EngineUuid, MsgId};
use protocol::message::execute::BroadcastMetadata;
use protocol::message::{Failure, Status};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;

use super::{refuse, reply_type_of};
use crate::hub::registration::json;
use crate::machine::{Client, Controller, Effect, Request, Target, reply_type};
use crate::tasks::{Task, TaskId, Work};

/// Broadcasts whose results become one reply, by their first share's id.
#[derive(Debug, Default)]
pub(crate) struct Broadcasts(BTreeMap<TaskId, Coalescing>);

#[derive(Debug)]
struct Coalescing {
    client: Client,
    header: Bytes,
    original: MsgId,
    reply_type: String,
    targets: Vec<(EngineUuid, EngineId)>,
    results: Vec<Option<Share>>,
    left: usize,
}

/// What became of one engine's share.
#[derive(Debug)]
enum Share {
    Replied { status: Status, message: WireMessage },
    Failed(ErrorContent),
}

impl Broadcasts {
    pub(crate) fn check_invariants(&self, shares: &BTreeMap<TaskId, usize>) {
        for (id, broadcast) in &self.0 {
            let open = broadcast.results.iter().filter(|result| result.is_none()).count();
            assert_eq!(open, broadcast.left);
            assert_eq!(shares.get(id), Some(&open), "{id:?} waits for shares that do not exist");
        }
    }
}

impl Controller {
    pub(super) fn on_broadcast(&mut self, request: Request, effects: &mut Vec<Effect>) {
        let Target::Broadcast(metadata) = &request.target else { unreachable!("the caller has looked") };
        let Some(reply_type) = reply_type(&request.header.msg_type) else {
            tracing::debug!(msg_type = request.header.msg_type, "not a request");
            return;
        };
        if metadata.targets.is_empty() {
            let error = ErrorContent::new(ename::VALUE_ERROR, "a broadcast to no engine; name its targets");
            refuse(request, &error, effects);
            return;
        }
        let metadata = BroadcastMetadata { is_broadcast: true, ..(**metadata).clone() };
        let Request { client, header, message, .. } = request;
        let original = header.msg_id.clone();
        let broadcast = self.tasks.next_id();
        let mut results = vec![];
        results.resize_with(metadata.targets.len(), || None);
        for (place, (uuid, named)) in metadata.targets.iter().enumerate() {
            let msg_id = MsgId::from(format!("{original}_{uuid}"));
            let task = Task {
                msg_id: msg_id.clone(),
                msg_type: header.msg_type.clone(),
                client: client.clone(),
                header: message.header.clone(),
                work: Work::Share { engine: *named, broadcast, place },
            };
            let Some(engine) = self.hub.by_uuid(uuid.as_str()).map(|engine| engine.id) else {
                let error =
                    ErrorContent::new(ename::ENGINE_ERROR, format!("Engine '{uuid}' is not registered"));
                if metadata.is_coalescing {
                    results[place] = Some(Share::Failed(error));
                } else {
                    effects.push(share_reply(task, uuid, &error));
                }
                continue;
            };
            let task = self.tasks.begin(Task { work: Work::Share { engine, broadcast, place }, ..task });
            self.hub.hold(engine, task);
            effects.push(Effect::Share {
                engine: uuid.clone(),
                task,
                header: Header { msg_id, ..header.clone() },
                message: message.clone(),
                metadata: Box::new(BroadcastMetadata {
                    targets: vec![(uuid.clone(), *named)],
                    original_msg_id: Some(original.clone()),
                    label: metadata.label.clone(),
                    extension: metadata.extension.clone(),
                    is_broadcast: true,
                    is_coalescing: metadata.is_coalescing,
                }),
            });
        }
        if metadata.is_coalescing {
            let left = results.iter().filter(|result| result.is_none()).count();
            let targets = metadata.targets;
            let header = message.header;
            let coalescing = Coalescing { client, header, original, reply_type, targets, results, left };
            if left == 0 {
                effects.push(coalesce(coalescing));
            } else {
                self.broadcasts.0.insert(broadcast, coalescing);
            }
        }
    }

    /// Takes a share's reply if it is gathered with others; else gives it back.
    pub(super) fn gather(
        &mut self,
        work: &Work,
        status: Status,
        message: WireMessage,
        effects: &mut Vec<Effect>,
    ) -> Option<WireMessage> {
        let &Work::Share { broadcast, place, .. } = work else { return Some(message) };
        if !self.broadcasts.0.contains_key(&broadcast) {
            return Some(message);
        }
        self.on_share_ended(broadcast, place, Share::Replied { status, message }, effects);
        None
    }

    /// Ends a share in its engine's stead.
    pub(super) fn fail_share(
        &mut self,
        task: Task,
        uuid: &EngineUuid,
        error: &str,
        effects: &mut Vec<Effect>,
    ) {
        let &Work::Share { broadcast, place, .. } = &task.work else { unreachable!("the caller has looked") };
        let error = ErrorContent::new(ename::ENGINE_ERROR, error);
        if self.broadcasts.0.contains_key(&broadcast) {
            self.on_share_ended(broadcast, place, Share::Failed(error), effects);
        } else {
            effects.push(share_reply(task, uuid, &error));
        }
    }

    fn on_share_ended(&mut self, broadcast: TaskId, place: usize, share: Share, effects: &mut Vec<Effect>) {
        let coalescing = self.broadcasts.0.get_mut(&broadcast).expect("the caller has looked");
        coalescing.results[place] = Some(share);
        coalescing.left -= 1;
        if coalescing.left == 0 {
            let coalescing = self.broadcasts.0.remove(&broadcast).expect("just found");
            effects.push(coalesce(coalescing));
        }
    }
}

/// An error reply for one share: its parent is the share, whose id is the engine's own.
fn share_reply(task: Task, uuid: &EngineUuid, error: &ErrorContent) -> Effect {
    let mut header: Json = parse(&task.header);
    let original = header["msg_id"].take();
    header["msg_id"] = json!(task.msg_id);
    let msg_type = reply_type_of(&task);
    Effect::Reply {
        client: task.client,
        engine: Some(uuid.clone()),
        parent: Bytes::from(header.to_string()),
        msg_type,
        metadata: json!({
            "engine": uuid,
            "is_broadcast": true,
            "is_coalescing": false,
            "original_msg_id": original,
            "status": "error",
            "engine_info": {},
        }),
        content: json(&Failure::from(error.clone())),
        buffers: vec![],
    }
}

/// The one reply to a broadcast: all results in the order of its targets, or the first failure in that order.
/// [`Coalesced`] tells every engine's own content, so that no result and no error is lost.
fn coalesce(coalescing: Coalescing) -> Effect {
    let Coalescing { client, header, original, reply_type, targets, results, .. } = coalescing;
    let shares: Vec<Share> = results.into_iter().map(|share| share.expect("none is left")).collect();
    let contents: Vec<Json> = shares
        .iter()
        .map(|share| match share {
            Share::Replied { message, .. } => parse(&message.content),
            Share::Failed(error) => json(&Failure::from(error.clone())),
        })
        .collect();
    let status = |share: &Share| match share {
        Share::Replied { status, .. } => *status,
        Share::Failed(_) => Status::Error,
    };
    let failed = shares.iter().position(|share| status(share) != Status::Ok);
    let mut content = contents[failed.unwrap_or(0)].clone();
    let overall = failed.map_or(Status::Ok, |place| status(&shares[place]));
    let mut metadata = json!({
        "is_broadcast": true,
        "is_coalescing": true,
        "original_msg_id": original,
        "status": overall,
        "dependencies_met": true,
        "broadcast_targets": targets,
    });
    if let Some(place) = failed {
        metadata["engine"] = json!(targets[place].0);
    }
    let buffer_counts: Vec<usize> = shares
        .iter()
        .map(|share| match share {
            Share::Replied { message, .. } => message.buffers.len(),
            Share::Failed(_) => 0,
        })
        .collect();
    content["commworld"] = json(&Coalesced { contents, buffer_counts });
    // With a failure the buffers stay away: stock clients would read them as results.
    let buffers = match failed {
        Some(_) => vec![],
        None => shares
            .into_iter()
            .flat_map(|share| match share {
                Share::Replied { message, .. } => message.buffers,
                Share::Failed(_) => vec![],
            })
            .collect(),
    };
    Effect::Reply { client, engine: None, parent: header, msg_type: reply_type, metadata, content, buffers }
}

/// A JSON frame that was checked to be an object when it came.
fn parse(frame: &Bytes) -> Json {
    serde_json::from_slice(frame).unwrap_or_else(|_| json!({}))
}
