//! What we added to the ipyparallel 9 wire. Every addition is optional, and stock peers ignore it: a key named
//! `commworld` beside the stock ones, or a message type that is only sent to who announced to know it.
//!
//! | addition | where | what a stock peer does |
//! |---|---|---|
//! | [`Registration`] | `registration_request` | a stock hub registers the sender alone; the other ranks then register themselves |
//! | [`RegistrationAnswer`] | `registration_reply` | a stock engine ignores it |
//! | [`ConnectionAnswer`], [`EngineDescription`] | `connection_reply`, `registration_notification` | a stock client ignores them |
//! | [`RequestMetadata`] | request metadata | a stock engine ignores it |
//! | [`ReplyMetadata`] | reply metadata | a stock client ignores it |
//! | [`Call`], [`CallResult`] | `apply_request`, `apply_reply` | not sent to stock engines |
//! | [`Coalesced`] | the reply to a coalescing broadcast | a stock client ignores it |
//! | [`ENGINE_STATUS_REQUEST`] | control channel | not sent to stock engines |
//! | [`READY`] | engine to controller, every channel | not sent to stock hubs |
//! | [`CLUSTER_STATUS_REQUEST`], [`TASK_EXPLAIN_REQUEST`] | query channel | a stock hub answers `hub_error` |

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::id::{EngineId, EngineUuid, MsgId, WorldId};

/// The version of these additions that this build speaks.
pub const VERSION: u32 = 1;

/// Asks an engine what it does (control channel).
pub const ENGINE_STATUS_REQUEST: &str = "engine_status_request";
/// Answers [`ENGINE_STATUS_REQUEST`].
pub const ENGINE_STATUS_REPLY: &str = "engine_status_reply";
/// Asks the hub for everything worth seeing (query channel).
pub const CLUSTER_STATUS_REQUEST: &str = "cluster_status_request";
/// Answers [`CLUSTER_STATUS_REQUEST`].
pub const CLUSTER_STATUS_REPLY: &str = "cluster_status_reply";

/// Asks what keeps a task from running (query channel).
pub const TASK_EXPLAIN_REQUEST: &str = "task_explain_request";
/// Answers [`TASK_EXPLAIN_REQUEST`].
pub const TASK_EXPLAIN_REPLY: &str = "task_explain_reply";

/// Says that its sender can be reached on the channel that it came by (engine to controller, on each of its
/// channels, once; no reply). Sent only to a hub whose registration reply has a [`RegistrationAnswer`].
pub const READY: &str = "ready";

/// The ZeroMQ identities of the controller's engine-side sockets. The wire fixes them only in being distinct;
/// an engine needs them to speak first, with [`READY`].
pub mod identity {
    /// Of the direct channel.
    pub const MUX_OUT: &str = "mux_out";
    /// Of the balanced channel.
    pub const TASK_OUT: &str = "task_out";
    /// Of the control channel.
    pub const CONTROL_OUT: &str = "control_out";

    /// Of a broadcast leaf, by the place of its port in the engine file. Number 0 is the root, where clients
    /// connect.
    pub fn broadcast_leaf(index: usize) -> String {
        format!("sub_scheduler_{}", index + 1)
    }
}

/// Who an engine is: for error messages, status and placement.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineDescription {
    /// The version of these additions that the engine speaks; 0: a stock engine.
    #[serde(default)]
    pub version: u32,
    /// The host's name.
    #[serde(default)]
    pub host: String,
    /// The process id on that host.
    #[serde(default)]
    pub pid: u32,
    /// The world that it is a rank of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub world: Option<WorldId>,
    /// Its rank in that world.
    #[serde(default)]
    pub rank: u32,
    /// How many ranks that world has.
    #[serde(default)]
    pub world_size: u32,
    /// What runs code: `script`, `python`.
    #[serde(default)]
    pub runner: String,
    /// The job that it is a part of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<EngineJob>,
}

/// The job of a batch system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineJob {
    /// For people: `job 12 of Slurm`.
    pub name: String,
    /// What was left of its time limit when the engine registered; none if that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds_left: Option<u64>,
}

/// In `registration_request`: who registers, and (from rank 0) its whole world in one message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// Who registers.
    #[serde(flatten)]
    pub engine: EngineDescription,
    /// The other ranks of the world, in rank order from 1. Empty when every rank registers itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<Member>,
}

/// A rank that another one registers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its name.
    pub uuid: EngineUuid,
    /// Its description.
    #[serde(flatten)]
    pub engine: EngineDescription,
}

/// In `registration_reply`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistrationAnswer {
    /// The version of these additions that the hub speaks.
    pub version: u32,
    /// The ids of the members that were registered with the sender, in the order of
    /// [`Registration::members`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub member_ids: Vec<EngineId>,
}

/// In `connection_reply`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionAnswer {
    /// The version of these additions that the hub speaks.
    pub version: u32,
    /// Who the engines are; stock engines are left out.
    #[serde(default)]
    pub engines: BTreeMap<EngineId, EngineDescription>,
}

/// In the metadata of requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestMetadata {
    /// Balanced tasks of a higher priority run before those of a lower one; 0 if none is given, may be negative.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub priority: i32,
    /// Orders the cells that all ranks of a world run: microseconds since 1970 when the client sent it, the
    /// same number to every rank. 0: unknown.
    #[serde(default)]
    pub cell: i64,
}

/// In the metadata of replies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplyMetadata {
    /// The rank that answers.
    pub rank: u32,
    /// How many collectives this request completed on this rank. Ranks of one cell must agree.
    pub collectives: u64,
    /// Seconds that user code ran.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub elapsed: Option<Seconds>,
}

/// A duration in seconds that can be compared (it is never NaN).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seconds(pub f64);

impl Eq for Seconds {}

/// In `apply_request`: a function by name, with arguments described as in [`crate::value`]; the message's
/// buffers carry their bulk.
///
/// `_push` and `_pull`, as in the stock client's modules, move data: `_push(name=value, …)` assigns,
/// `_pull(expression)` or `_pull([expression, …])` evaluates.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// The function's name in the engine's registry or namespace.
    pub function: String,
    /// Positional arguments.
    #[serde(default)]
    pub arguments: Vec<Json>,
    /// Arguments by name.
    #[serde(default)]
    pub keywords: BTreeMap<String, Json>,
}

/// In `apply_reply`: the result, described as in [`crate::value`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CallResult {
    /// The description.
    pub value: Json,
}

/// In the content of the one reply to a coalescing broadcast: what every engine answered.
///
/// The rest of that content is the first failure's, or the first engine's if all went well: a reply says one thing,
/// and without this the other errors would be lost.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Coalesced {
    /// The content of each engine's reply, in the order of the request's targets.
    pub contents: Vec<Json>,
    /// How many buffers each engine's reply had, in the same order. The coalesced reply carries them one engine after
    /// the other, or none at all if any engine failed (stock clients read buffers as results).
    pub buffer_counts: Vec<usize>,
}

/// The function of [`Call`] that assigns names.
pub const PUSH: &str = "_push";
/// The function of [`Call`] that evaluates expressions.
pub const PULL: &str = "_pull";

/// Content of `task_explain_request`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainRequest {
    /// The task.
    pub msg_id: MsgId,
}

/// Content of `task_explain_reply`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskExplanation {
    /// Always ok; an unknown task is a `KeyError`.
    pub status: crate::message::Status,
    /// The task.
    pub msg_id: MsgId,
    /// Where it is.
    pub state: TaskState,
    /// In words: what it waits for, or where it runs.
    pub reason: String,
    /// The tasks that it waits for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waits_for: Vec<MsgId>,
    /// What keeps it from each engine, in words.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub engines: BTreeMap<EngineId, String>,
    /// Tasks that are before it in the queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ahead: Option<usize>,
    /// Seconds after which it fails if it still waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<f64>,
    /// How often it may still be tried again.
    #[serde(default)]
    pub retries_left: u32,
    /// How it failed last, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<String>,
}

/// Where a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskState {
    /// In the controller's queue.
    Waiting,
    /// At an engine.
    Running,
    /// It has ended.
    Ended,
}

/// Content of `engine_status_reply`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EngineStatus {
    /// Always ok.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub status: Option<crate::message::Status>,
    /// Who it is.
    pub engine: EngineDescription,
    /// Whether user code runs.
    pub busy: bool,
    /// The request that runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<crate::id::MsgId>,
    /// For how many seconds it has run.
    #[serde(default)]
    pub running_seconds: f64,
    /// In which call to other ranks it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_in: Option<String>,
    /// How many collectives it has entered since it started.
    #[serde(default)]
    pub collectives: u64,
    /// For how many seconds it has waited there.
    #[serde(default)]
    pub waiting_seconds: f64,
    /// Resident memory in bytes.
    #[serde(default)]
    pub memory_bytes: u64,
    /// Requests served.
    #[serde(default)]
    pub requests: u64,
    /// Messages refused, by reason.
    #[serde(default)]
    pub refused: BTreeMap<String, u64>,
}

/// Content of `cluster_status_reply`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// Always ok.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub status: Option<crate::message::Status>,
    /// The controller's version.
    pub version: String,
    /// The controller's process id.
    pub pid: u32,
    /// The controller's host.
    pub host: String,
    /// Seconds since it started.
    pub uptime_seconds: f64,
    /// Resident memory in bytes.
    pub memory_bytes: u64,
    /// Every engine.
    pub engines: BTreeMap<EngineId, EngineState>,
    /// Engines that registered but are not yet reachable on every channel.
    pub joining: usize,
    /// Sessions of clients seen lately.
    pub clients: usize,
    /// Balanced tasks that wait for an engine.
    pub waiting_tasks: usize,
    /// Messages relayed, by channel.
    pub relayed: BTreeMap<String, u64>,
    /// Messages refused, by reason.
    pub refused: BTreeMap<String, u64>,
}

/// One engine in [`ClusterStatus`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EngineState {
    /// Its name.
    pub uuid: String,
    /// Who it is; a stock engine has version 0.
    #[serde(flatten)]
    pub engine: EngineDescription,
    /// Direct requests not yet answered.
    pub queue: usize,
    /// Balanced tasks not yet answered.
    pub tasks: usize,
    /// Requests answered.
    pub completed: usize,
    /// Seconds since it was last heard of.
    pub silent_seconds: f64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(number: &i32) -> bool {
    *number == 0
}
