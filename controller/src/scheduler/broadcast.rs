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

use super::{Made, refuse, reply_type_of};
use crate::hub::registration::json;
use crate::machine::{Client, Controller, Effect, Request, Target, reply_type};
use crate::records::{Change, Queue};
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

/// What an earlier controller knew of one engine's share.
pub(crate) enum GatheredBefore {
    /// What the engine replied.
    Replied(Status, WireMessage),
    /// It was asked.
    Open,
    /// It was not known.
    Unknown,
}

impl Broadcasts {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether a broadcast's replies become one.
    pub(crate) fn is_gathering(&self, broadcast: TaskId) -> bool {
        self.0.contains_key(&broadcast)
    }

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
        if metadata.is_coalescing {
            effects.push(Effect::Remember(Change::Gathering {
                broadcast,
                msg_id: original.clone(),
                client: client.clone(),
                request: message.clone(),
            }));
        }
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
                let error = unknown_engine(uuid);
                if metadata.is_coalescing {
                    results[place] = Some(Share::Failed(error));
                } else {
                    effects.push(Effect::Remember(share_submitted(TaskId::NONE, &task, uuid, &message)));
                    answer_share(TaskId::NONE, &task, uuid, &error, effects);
                }
                continue;
            };
            let next = self.tasks.next_id();
            effects.push(Effect::Remember(if metadata.is_coalescing {
                Change::Shared { task: next, broadcast, place, engine: uuid.clone() }
            } else {
                share_submitted(next, &task, uuid, &message)
            }));
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
                    buffer_digest: metadata.buffer_digest.clone(),
                }),
            });
        }
        if metadata.is_coalescing {
            let left = results.iter().filter(|result| result.is_none()).count();
            let targets = metadata.targets;
            let header = message.header;
            let coalescing = Coalescing { client, header, original, reply_type, targets, results, left };
            self.tasks.take_name(&coalescing.original);
            if left == 0 {
                self.end_broadcast(broadcast, coalescing, effects);
            } else {
                self.broadcasts.0.insert(broadcast, coalescing);
            }
        }
    }

    /// Takes a share's reply if it is gathered with others; else gives it back.
    pub(super) fn gather(
        &mut self,
        id: TaskId,
        work: &Work,
        status: Status,
        message: WireMessage,
        effects: &mut Vec<Effect>,
    ) -> Option<WireMessage> {
        let &Work::Share { broadcast, place, .. } = work else { return Some(message) };
        if !self.broadcasts.0.contains_key(&broadcast) {
            return Some(message);
        }
        effects.push(Effect::Remember(Change::Gathered { task: id, status, reply: message.clone() }));
        self.on_share_ended(broadcast, place, Share::Replied { status, message }, effects);
        None
    }

    /// Ends a share in its engine's stead.
    pub(crate) fn fail_share(
        &mut self,
        id: TaskId,
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
            answer_share(id, &task, uuid, &error, effects);
        }
    }

    fn on_share_ended(&mut self, broadcast: TaskId, place: usize, share: Share, effects: &mut Vec<Effect>) {
        let coalescing = self.broadcasts.0.get_mut(&broadcast).expect("the caller has looked");
        coalescing.results[place] = Some(share);
        coalescing.left -= 1;
        if coalescing.left == 0 {
            let coalescing = self.broadcasts.0.remove(&broadcast).expect("just found");
            self.end_broadcast(broadcast, coalescing, effects);
        }
    }

    /// Goes on with a broadcast of an earlier controller; its open shares are restored as tasks of their own.
    #[expect(clippy::too_many_arguments, reason = "what is known of a broadcast")]
    pub(crate) fn recall_broadcast(
        &mut self,
        broadcast: TaskId,
        client: Client,
        header: &Header,
        frame: Bytes,
        targets: Vec<(EngineUuid, EngineId)>,
        gathered: Vec<GatheredBefore>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(reply_type) = reply_type(&header.msg_type) else { return };
        let mut results = vec![];
        for (gathered, (uuid, _)) in gathered.into_iter().zip(&targets) {
            results.push(match gathered {
                GatheredBefore::Replied(status, message) => Some(Share::Replied { status, message }),
                GatheredBefore::Open => None,
                GatheredBefore::Unknown => Some(Share::Failed(unknown_engine(uuid))),
            });
        }
        let left = results.iter().filter(|result| result.is_none()).count();
        let original = header.msg_id.clone();
        self.tasks.take_name(&original);
        let coalescing = Coalescing { client, header: frame, original, reply_type, targets, results, left };
        if left == 0 {
            self.end_broadcast(broadcast, coalescing, effects);
        } else {
            self.broadcasts.0.insert(broadcast, coalescing);
        }
    }

    /// Broadcasts as changes, for a later controller.
    pub(crate) fn snapshot_broadcasts(&self, changes: &mut Vec<Change>) {
        for (broadcast, coalescing) in &self.broadcasts.0 {
            let metadata = BroadcastMetadata {
                targets: coalescing.targets.clone(),
                is_broadcast: true,
                is_coalescing: true,
                ..BroadcastMetadata::default()
            };
            let empty = || Bytes::from_static(b"{}");
            changes.push(Change::Gathering {
                broadcast: *broadcast,
                msg_id: coalescing.original.clone(),
                client: coalescing.client.clone(),
                request: WireMessage {
                    signature: Bytes::new(),
                    header: coalescing.header.clone(),
                    parent_header: empty(),
                    metadata: Bytes::from(json(&metadata).to_string()),
                    content: empty(),
                    buffers: vec![],
                },
            });
            for (place, result) in coalescing.results.iter().enumerate() {
                let Some(Share::Replied { status, message }) = result else { continue };
                // A share that has ended has no task any more.
                let (task, engine) = (TaskId::NONE, coalescing.targets[place].0.clone());
                changes.push(Change::Shared { task, broadcast: *broadcast, place, engine });
                changes.push(Change::Gathered { task, status: *status, reply: message.clone() });
            }
        }
    }

    fn end_broadcast(&mut self, broadcast: TaskId, coalescing: Coalescing, effects: &mut Vec<Effect>) {
        self.tasks.free_name(&coalescing.original);
        let (client, original) = (coalescing.client.clone(), coalescing.original.clone());
        let (parent, msg_type) = (coalescing.header.clone(), coalescing.reply_type.clone());
        coalesce(coalescing).send_as(broadcast, &original, &client, parent, msg_type, effects);
    }
}

fn unknown_engine(uuid: &EngineUuid) -> ErrorContent {
    ErrorContent::new(ename::ENGINE_ERROR, format!("Engine '{uuid}' is not registered"))
}

fn share_submitted(id: TaskId, task: &Task, engine: &EngineUuid, request: &WireMessage) -> Change {
    Change::Submitted {
        task: id,
        msg_id: task.msg_id.clone(),
        client: task.client.clone(),
        queue: Queue::Broadcast,
        engine: Some(engine.clone()),
        request: request.clone(),
    }
}

/// Answers one share with an error: the parent is the share, whose id is the engine's own.
fn answer_share(id: TaskId, task: &Task, uuid: &EngineUuid, error: &ErrorContent, effects: &mut Vec<Effect>) {
    let mut header: Json = parse(&task.header);
    let original = header["msg_id"].take();
    header["msg_id"] = json!(task.msg_id);
    let parent = Bytes::from(header.to_string());
    let answer = Made {
        metadata: json!({
            "engine": uuid,
            "is_broadcast": true,
            "is_coalescing": false,
            "original_msg_id": original,
            "status": "error",
            "engine_info": {},
        }),
        ..Made::error(Some(uuid), error)
    };
    answer.send_as(id, &task.msg_id, &task.client, parent, reply_type_of(task), effects);
}

/// The one reply to a broadcast: all results in the order of its targets, or the first failure in that order.
/// [`Coalesced`] tells every engine's own content, so that no result and no error is lost.
fn coalesce(coalescing: Coalescing) -> Made {
    let Coalescing { original, targets, results, .. } = coalescing;
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
    Made { engine: None, metadata, content, buffers }
}

/// A JSON frame that was checked to be an object when it came.
fn parse(frame: &Bytes) -> Json {
    serde_json::from_slice(frame).unwrap_or_else(|_| json!({}))
}
