//! Answers to questions: read from memory, in one step.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use bytes::Bytes;
use protocol::error::{ErrorContent, ename, python_repr};
use protocol::extension::{self, ClusterStatus, ConnectionAnswer, EngineState, TASK_EXPLAIN_REPLY};
use protocol::id::{EngineId, MsgId, SessionId};
use protocol::message::control::SHUTDOWN_REPLY;
use protocol::message::hub::{
    CONNECTION_REPLY, ConnectionReply, DbRequest, HUB_ERROR, LOAD_REPLY, PURGE_REPLY, PurgeRequest,
    PurgedTasks, QUEUE_REPLY, QueueContents, QueueLengths, QueueRequest, RESUBMIT_REPLY, ResultRequest,
    Target, Targets,
};
use protocol::message::notification::SHUTDOWN_NOTIFICATION;
use protocol::message::{Failure, Status, StatusContent};
use serde_json::{Value as Json, json};

use super::registration::json;
use crate::machine::{Controller, Effect, Query, Request, STOP_TIME};
use crate::records::{Change, Purged, Question};

/// An answer's type and content.
type Answer = (&'static str, Json);

impl Controller {
    pub(crate) fn on_asked(
        &mut self,
        now: Instant,
        client: Bytes,
        session: SessionId,
        header: Bytes,
        query: Query,
        effects: &mut Vec<Effect>,
    ) {
        self.hub.sessions.hear(now, &session);
        let answer = match query {
            Query::Connection => {
                self.hub.news.on_listed(now);
                Ok(self.connection_reply())
            }
            Query::Queue(request) => self.queue_reply(&request),
            Query::Load(request) => self.load_reply(&request),
            Query::Shutdown => Ok((SHUTDOWN_REPLY, json(&StatusContent::OK))),
            Query::ClusterStatus => {
                let status = Box::new(self.cluster_status(now));
                effects.push(Effect::AnswerStatus { to: client, parent: header, status });
                return;
            }
            Query::Results(request) => {
                let question = self.ask_results(request);
                effects.push(Effect::Consult { to: client, parent: header, question });
                return;
            }
            Query::History => {
                effects.push(Effect::Consult { to: client, parent: header, question: Question::History });
                return;
            }
            Query::Database(DbRequest { query, keys }) => {
                let question = Question::Query { query, keys };
                effects.push(Effect::Consult { to: client, parent: header, question });
                return;
            }
            Query::Purge(request) => match self.ask_purge(request) {
                Ok(question) => {
                    effects.push(Effect::Consult { to: client, parent: header, question });
                    return;
                }
                Err(error) => Ok((PURGE_REPLY, json(&Failure::from(*error)))),
            },
            Query::Resubmit(request) => {
                let question = Question::Requests { msg_ids: request.msg_ids };
                effects.push(Effect::Consult { to: client, parent: header, question });
                return;
            }
            Query::Explain(request) => {
                self.explain(now, &request.msg_id).map(|explanation| (TASK_EXPLAIN_REPLY, json(&explanation)))
            }
            Query::Unsupported { reply_type, reason } => {
                let error = ErrorContent::new(ename::NOT_IMPLEMENTED_ERROR, reason);
                Ok((reply_type, json(&Failure::from(error))))
            }
            Query::Unknown(msg_type) => Err(Box::new(ErrorContent::new(
                ename::KEY_ERROR,
                python_repr(&format!("Bad Message Type: {}", python_repr(&msg_type))),
            ))),
            Query::Malformed(reason) => Err(Box::new(ErrorContent::new(ename::VALUE_ERROR, reason))),
        };
        let (msg_type, content) = answer.unwrap_or_else(|error| (HUB_ERROR, json(&Failure::from(*error))));
        let stops = msg_type == SHUTDOWN_REPLY;
        effects.push(Effect::Answer { to: client, parent: header.clone(), msg_type, content });
        if stops {
            self.on_shutdown(now, header, effects);
        }
    }

    fn on_shutdown(&mut self, now: Instant, header: Bytes, effects: &mut Vec<Effect>) {
        tracing::info!(engines = self.hub.engines.len(), "shutdown requested");
        let content = json(&StatusContent::OK);
        effects.push(Effect::Publish { parent: header, msg_type: SHUTDOWN_NOTIFICATION, content });
        for engine in self.hub.engines.values() {
            effects.push(Effect::Stop { engine: engine.uuid.clone() });
        }
        self.stopping.get_or_insert(now + STOP_TIME);
    }

    /// What has not ended is known here; the rest is the store's to know.
    fn ask_results(&self, request: ResultRequest) -> Question {
        let distinct: BTreeSet<MsgId> = request.msg_ids.into_iter().collect();
        let (pending, msg_ids) = distinct.into_iter().partition(|id| self.tasks.is_pending(id));
        Question::Results { msg_ids, pending, status_only: request.status_only }
    }

    fn ask_purge(&self, request: PurgeRequest) -> Result<Question, Box<ErrorContent>> {
        let msg_ids = match request.msg_ids {
            PurgedTasks::One(all) if all.as_str() == "all" => Purged::Finished,
            PurgedTasks::One(one) => Purged::These(vec![one]),
            PurgedTasks::Many(many) => Purged::These(many),
        };
        if let Purged::These(ids) = &msg_ids
            && let Some(pending) = ids.iter().find(|id| self.tasks.is_pending(id))
        {
            let text = format!("msg pending: {}", python_repr(pending.as_str()));
            return Err(ErrorContent::new(ename::INDEX_ERROR, text).into());
        }
        let engine = |id: &i64| {
            let found = u32::try_from(*id).ok().and_then(|id| self.hub.uuid_of(EngineId(id)));
            let text = || format!("No such engine: {id}");
            found.ok_or_else(|| Box::new(ErrorContent::new(ename::INDEX_ERROR, text())))
        };
        let engines = request.engine_ids.iter().map(engine).collect::<Result<_, _>>()?;
        Ok(Question::Purge { msg_ids, engines })
    }

    /// The store has found what is to run again.
    pub(crate) fn on_resubmitted(
        &mut self,
        now: Instant,
        to: Bytes,
        parent: Bytes,
        requests: Vec<(MsgId, Request)>,
        effects: &mut Vec<Effect>,
    ) {
        let mut resubmitted = serde_json::Map::new();
        for (msg_id, request) in requests {
            let anew = request.header.msg_id.clone();
            resubmitted.insert(msg_id.to_string(), json!(anew));
            self.on_submitted(now, request, effects);
            effects.push(Effect::Remember(Change::Resubmitted { msg_id, anew }));
        }
        let content = json!({ "status": "ok", "resubmitted": resubmitted });
        effects.push(Effect::Answer { to, parent, msg_type: RESUBMIT_REPLY, content });
    }

    fn connection_reply(&self) -> Answer {
        let ours = self.hub.engines.values().filter(|engine| engine.description.version > 0);
        let reply = ConnectionReply {
            status: Status::Ok,
            engines: self.hub.engines.values().map(|engine| (engine.id, engine.uuid.clone())).collect(),
            extension: Some(ConnectionAnswer {
                version: extension::VERSION,
                engines: ours.map(|engine| (engine.id, engine.description.clone())).collect(),
            }),
        };
        (CONNECTION_REPLY, json(&reply))
    }

    fn queue_reply(&self, request: &QueueRequest) -> Result<Answer, Box<ErrorContent>> {
        let mut reply = serde_json::Map::new();
        reply.insert("status".to_owned(), json!("ok"));
        for id in self.resolve(request.targets.as_ref())? {
            let part =
                if request.verbose { json(&self.queue_contents(id)) } else { json(&self.queue_lengths(id)) };
            reply.insert(id.to_string(), part);
        }
        let waiting = self.balanced.waiting_ids();
        let unassigned = if request.verbose {
            let ids: Vec<&MsgId> = waiting.filter_map(|id| Some(&self.tasks.get(id)?.msg_id)).collect();
            json(&ids)
        } else {
            json!(self.balanced.waiting())
        };
        reply.insert("unassigned".to_owned(), unassigned);
        Ok((QUEUE_REPLY, Json::Object(reply)))
    }

    fn load_reply(&self, request: &QueueRequest) -> Result<Answer, Box<ErrorContent>> {
        let mut reply = serde_json::Map::new();
        reply.insert("status".to_owned(), json!("ok"));
        for id in self.resolve(request.targets.as_ref())? {
            let lengths = self.queue_lengths(id);
            reply.insert(id.to_string(), json!(lengths.queue + lengths.tasks));
        }
        Ok((LOAD_REPLY, Json::Object(reply)))
    }

    /// The engines that a client means, or the error that stock clients know.
    fn resolve(&self, targets: Option<&Targets>) -> Result<Vec<EngineId>, Box<ErrorContent>> {
        let all = || self.hub.engines.keys().copied().collect();
        let targets = match targets {
            None => return Ok(all()),
            Some(Targets::One(Target::Uuid(uuid))) if uuid.as_str() == "all" => return Ok(all()),
            Some(Targets::One(one)) => std::slice::from_ref(one),
            Some(Targets::Many(many)) => many,
        };
        if targets.is_empty() {
            return Err(ErrorContent::new(ename::INDEX_ERROR, "No Engines Registered").into());
        }
        let find = |target: &Target| match target {
            Target::Id(id) => {
                let id = EngineId(u32::try_from(*id).ok()?);
                self.hub.engines.contains_key(&id).then_some(id)
            }
            Target::Uuid(uuid) => self.hub.by_uuid(uuid.as_str()).map(|engine| engine.id),
        };
        let name = |target: &Target| match target {
            Target::Id(id) => id.to_string(),
            Target::Uuid(uuid) => python_repr(uuid.as_str()),
        };
        let unknown: Vec<String> = targets.iter().filter(|target| find(target).is_none()).map(name).collect();
        if !unknown.is_empty() {
            let text = format!("No Such Engine: [{}]", unknown.join(", "));
            return Err(ErrorContent::new(ename::INDEX_ERROR, text).into());
        }
        Ok(targets.iter().filter_map(find).collect())
    }

    fn queue_contents(&self, id: EngineId) -> QueueContents {
        let mut contents = QueueContents::default();
        let Some(engine) = self.hub.engine(id) else { return contents };
        for task in engine.outstanding.iter().filter_map(|task| self.tasks.get(*task)) {
            let list = if task.work.is_balanced() { &mut contents.tasks } else { &mut contents.queue };
            if task.counts() {
                list.push(task.msg_id.clone());
            }
        }
        contents.completed = engine.completed_ids.iter().cloned().collect();
        contents
    }

    fn queue_lengths(&self, id: EngineId) -> QueueLengths {
        let mut lengths = QueueLengths::default();
        let Some(engine) = self.hub.engine(id) else { return lengths };
        for task in engine.outstanding.iter().filter_map(|task| self.tasks.get(*task)) {
            let count = if task.work.is_balanced() { &mut lengths.tasks } else { &mut lengths.queue };
            *count += usize::from(task.counts());
        }
        lengths.completed = engine.completed;
        lengths
    }

    fn cluster_status(&self, now: Instant) -> ClusterStatus {
        let state = |engine: &super::Engine| {
            let lengths = self.queue_lengths(engine.id);
            EngineState {
                uuid: engine.uuid.to_string(),
                engine: engine.description.clone(),
                queue: lengths.queue,
                tasks: lengths.tasks,
                completed: lengths.completed,
                silent_seconds: now.saturating_duration_since(engine.last_heard).as_secs_f64(),
            }
        };
        let engines: BTreeMap<EngineId, EngineState> =
            self.hub.engines.values().map(|engine| (engine.id, state(engine))).collect();
        ClusterStatus {
            status: Some(Status::Ok),
            uptime_seconds: now.saturating_duration_since(self.hub.started).as_secs_f64(),
            engines,
            joining: self.hub.joining_count(),
            clients: self.hub.sessions.len(),
            waiting_tasks: self.balanced.waiting(),
            ..ClusterStatus::default()
        }
    }
}
