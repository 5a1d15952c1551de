//! What engines and clients ask of the hub.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::{Status, one_or_many};
use crate::extension;
use crate::id::{EngineId, EngineUuid, MsgId};

/// An engine wants to join.
pub const REGISTRATION_REQUEST: &str = "registration_request";
/// Answers [`REGISTRATION_REQUEST`].
pub const REGISTRATION_REPLY: &str = "registration_reply";
/// An engine leaves; there is no reply.
pub const UNREGISTRATION_REQUEST: &str = "unregistration_request";
/// A client asks who is here.
pub const CONNECTION_REQUEST: &str = "connection_request";
/// Answers [`CONNECTION_REQUEST`].
pub const CONNECTION_REPLY: &str = "connection_reply";
/// How much waits where.
pub const QUEUE_REQUEST: &str = "queue_request";
/// Answers [`QUEUE_REQUEST`].
pub const QUEUE_REPLY: &str = "queue_reply";
/// How busy engines are.
pub const LOAD_REQUEST: &str = "load_request";
/// Answers [`LOAD_REQUEST`].
pub const LOAD_REPLY: &str = "load_reply";
/// Results of tasks, also of other clients'.
pub const RESULT_REQUEST: &str = "result_request";
/// Answers [`RESULT_REQUEST`].
pub const RESULT_REPLY: &str = "result_reply";
/// Ids of all tasks.
pub const HISTORY_REQUEST: &str = "history_request";
/// Answers [`HISTORY_REQUEST`].
pub const HISTORY_REPLY: &str = "history_reply";
/// A query over task records.
pub const DB_REQUEST: &str = "db_request";
/// Answers [`DB_REQUEST`].
pub const DB_REPLY: &str = "db_reply";
/// Forgets records.
pub const PURGE_REQUEST: &str = "purge_request";
/// Answers [`PURGE_REQUEST`].
pub const PURGE_REPLY: &str = "purge_reply";
/// Runs tasks again.
pub const RESUBMIT_REQUEST: &str = "resubmit_request";
/// Answers [`RESUBMIT_REQUEST`].
pub const RESUBMIT_REPLY: &str = "resubmit_reply";
/// Starts a dask scheduler beside the hub.
pub const BECOME_DASK_REQUEST: &str = "become_dask_request";
/// Answers [`BECOME_DASK_REQUEST`].
pub const BECOME_DASK_REPLY: &str = "become_dask_reply";
/// Ends that scheduler.
pub const STOP_DISTRIBUTED_REQUEST: &str = "stop_distributed_request";
/// Answers [`STOP_DISTRIBUTED_REQUEST`].
pub const STOP_DISTRIBUTED_REPLY: &str = "stop_distributed_reply";
/// Says why a request to the hub failed.
pub const HUB_ERROR: &str = "hub_error";

/// Content of `registration_request`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RegistrationRequest {
    /// The engine's name.
    pub uuid: EngineUuid,
    /// The id that it would like: its MPI rank.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<EngineId>,
    /// Our additions.
    #[serde(default, rename = "commworld", skip_serializing_if = "Option::is_none")]
    pub extension: Option<extension::Registration>,
}

/// Content of `registration_reply` when the engine may join.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RegistrationReply {
    /// Always [`Status::Ok`].
    pub status: Status,
    /// The engine's id.
    pub id: EngineId,
    /// Milliseconds between heartbeats.
    pub hb_period: u64,
    /// The engine connection file's ports; stock engines read their own file.
    #[serde(default)]
    pub connection_info: Json,
    /// Our additions.
    #[serde(default, rename = "commworld", skip_serializing_if = "Option::is_none")]
    pub extension: Option<extension::RegistrationAnswer>,
}

/// Content of `unregistration_request`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnregistrationRequest {
    /// Who leaves; stock engines that were never registered send null.
    #[serde(default)]
    pub id: Option<EngineId>,
    /// Why, in words; an addition of ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Content of `connection_reply`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConnectionReply {
    /// Always [`Status::Ok`].
    pub status: Status,
    /// Every engine that can be used now. The keys are numbers written as text.
    pub engines: BTreeMap<EngineId, EngineUuid>,
    /// Our additions.
    #[serde(default, rename = "commworld", skip_serializing_if = "Option::is_none")]
    pub extension: Option<extension::ConnectionAnswer>,
}

/// Content of `queue_request` and `load_request`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct QueueRequest {
    /// Whose queues; none: everybody's.
    #[serde(default)]
    pub targets: Option<Targets>,
    /// Ids of tasks instead of their numbers.
    #[serde(default)]
    pub verbose: bool,
}

/// Engines as clients name them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Targets {
    /// One engine; a client that means all of them may write `"all"`.
    One(Target),
    /// Several.
    Many(Vec<Target>),
}

/// An engine by id or by uuid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Target {
    /// By id; negative and huge numbers are nobody's.
    Id(i64),
    /// By uuid.
    Uuid(EngineUuid),
}

/// One engine's part of a `queue_reply` that is not verbose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueLengths {
    /// Direct requests that have not been answered.
    pub queue: usize,
    /// Requests answered.
    pub completed: usize,
    /// Balanced tasks that were given to the engine and have not been answered.
    pub tasks: usize,
}

/// One engine's part of a verbose `queue_reply`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueContents {
    /// Direct requests that have not been answered.
    pub queue: Vec<MsgId>,
    /// Requests answered lately.
    pub completed: Vec<MsgId>,
    /// Balanced tasks that were given to the engine and have not been answered.
    pub tasks: Vec<MsgId>,
}

/// Content of `result_request`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultRequest {
    /// The tasks.
    #[serde(default, deserialize_with = "one_or_many")]
    pub msg_ids: Vec<MsgId>,
    /// Only whether they have ended, without their results.
    #[serde(default)]
    pub status_only: bool,
}

/// Content of `db_request`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DbRequest {
    /// Which records: field names, each with a value or with operators and operands.
    #[serde(default)]
    pub query: serde_json::Map<String, Json>,
    /// Which fields; none: all but the buffers.
    #[serde(default)]
    pub keys: Option<Vec<String>>,
}

/// Content of `purge_request`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PurgeRequest {
    /// Records of these tasks.
    #[serde(default)]
    pub msg_ids: PurgedTasks,
    /// Records of tasks that ended on these engines.
    #[serde(default)]
    pub engine_ids: Vec<i64>,
}

/// Tasks whose records are forgotten.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PurgedTasks {
    /// `"all"`: every task that has ended. A client that means one task may write its name.
    One(MsgId),
    /// These.
    Many(Vec<MsgId>),
}

impl Default for PurgedTasks {
    fn default() -> PurgedTasks {
        PurgedTasks::Many(vec![])
    }
}

/// Content of `resubmit_request`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResubmitRequest {
    /// The tasks.
    #[serde(default, deserialize_with = "one_or_many")]
    pub msg_ids: Vec<MsgId>,
}
