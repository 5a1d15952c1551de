//! Code, functions and data: what clients ask engines to run, and what engines answer.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value as Json;

use super::Status;
use crate::date::Date;
use crate::extension;
use crate::id::{EngineId, EngineUuid, MsgId};

/// Runs a cell.
pub const EXECUTE_REQUEST: &str = "execute_request";
/// Answers [`EXECUTE_REQUEST`].
pub const EXECUTE_REPLY: &str = "execute_reply";
/// Calls a function.
pub const APPLY_REQUEST: &str = "apply_request";
/// Answers [`APPLY_REQUEST`]; also what schedulers make when a task cannot run.
pub const APPLY_REPLY: &str = "apply_reply";

/// Content of `execute_request`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ExecuteRequest {
    /// The cell.
    #[serde(default)]
    pub code: String,
    /// Whether neither the input nor the last expression's value is published.
    #[serde(default)]
    pub silent: bool,
    /// Whether the cell is to be remembered as input; if it is not said, unless it is silent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store_history: Option<bool>,
    /// Expressions to evaluate afterwards, by name.
    #[serde(default)]
    pub user_expressions: BTreeMap<String, String>,
    /// Whether an error aborts the `execute_request`s that wait behind this one.
    #[serde(default = "yes")]
    pub stop_on_error: bool,
}

fn yes() -> bool {
    true
}

/// Content of `execute_reply` when all went well.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExecuteOk {
    /// Always [`Status::Ok`].
    pub status: Status,
    /// Number of the cell, from 1.
    pub execution_count: u64,
    /// What the user expressions gave, by name.
    #[serde(default)]
    pub user_expressions: BTreeMap<String, Json>,
    /// Always empty; old front ends read it.
    #[serde(default)]
    pub payload: Vec<Json>,
}

/// Content of `execute_reply` when the cell failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExecuteFailed {
    /// What went wrong.
    #[serde(flatten)]
    pub failure: super::Failure,
    /// Number of the cell, from 1.
    pub execution_count: u64,
    /// Always empty.
    #[serde(default)]
    pub user_expressions: BTreeMap<String, Json>,
    /// Always empty.
    #[serde(default)]
    pub payload: Vec<Json>,
}

/// Which tasks must have ended before another may run, or where it may run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Dependency {
    /// The tasks.
    pub dependencies: Vec<MsgId>,
    /// Whether all of them are needed, or any one.
    pub all: bool,
    /// Whether their success counts.
    pub success: bool,
    /// Whether their failure counts.
    pub failure: bool,
}

impl Default for Dependency {
    fn default() -> Dependency {
        Dependency { dependencies: vec![], all: true, success: true, failure: false }
    }
}

impl<'de> Deserialize<'de> for Dependency {
    /// A bare list means: all of them, with success.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Dependency, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            List(Vec<MsgId>),
            Full {
                #[serde(default)]
                dependencies: Vec<MsgId>,
                #[serde(default = "yes")]
                all: bool,
                #[serde(default = "yes")]
                success: bool,
                #[serde(default)]
                failure: bool,
            },
        }
        Ok(match Option::<Form>::deserialize(deserializer)? {
            None => Dependency::default(),
            Some(Form::List(dependencies)) => Dependency { dependencies, ..Dependency::default() },
            Some(Form::Full { dependencies, all, success, failure }) => {
                Dependency { dependencies, all, success, failure }
            }
        })
    }
}

/// Metadata of a task for the balanced scheduler. Everything is optional.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TaskMetadata {
    /// Tasks that must have ended before.
    #[serde(default)]
    pub after: Dependency,
    /// Tasks where this one must run.
    #[serde(default)]
    pub follow: Dependency,
    /// Engines that may run it; empty: any.
    #[serde(default, deserialize_with = "null_as_default")]
    pub targets: Vec<EngineUuid>,
    /// How often it is tried again after a failure.
    #[serde(default, deserialize_with = "null_as_default")]
    pub retries: u32,
    /// Seconds that it may wait for an engine; none or 0: for ever.
    #[serde(default)]
    pub timeout: Option<f64>,
    /// Whatever the client wants to find it by.
    #[serde(default)]
    pub label: Json,
    /// Our additions.
    #[serde(default, rename = "commworld", skip_serializing_if = "Option::is_none")]
    pub extension: Option<extension::RequestMetadata>,
}

/// Metadata of a request to one named engine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DirectMetadata {
    /// Whatever the client wants to find it by.
    #[serde(default)]
    pub label: Json,
    /// Our additions.
    #[serde(default, rename = "commworld", skip_serializing_if = "Option::is_none")]
    pub extension: Option<extension::RequestMetadata>,
}

/// Metadata of a request to many engines.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BroadcastMetadata {
    /// The engines, in the order in which coalesced results are wanted.
    #[serde(default)]
    pub targets: Vec<(EngineUuid, EngineId)>,
    /// Always true.
    #[serde(default)]
    pub is_broadcast: bool,
    /// Whether one reply carries all results.
    #[serde(default)]
    pub is_coalescing: bool,
    /// The id that the client gave; set by the scheduler, which gives each engine an id of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original_msg_id: Option<MsgId>,
    /// Whatever the client wants to find it by.
    #[serde(default, skip_serializing_if = "Json::is_null")]
    pub label: Json,
    /// Our additions.
    #[serde(default, rename = "commworld", skip_serializing_if = "Option::is_none")]
    pub extension: Option<extension::RequestMetadata>,
    /// The digest of the buffers, which each engine gets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub buffer_digest: Option<String>,
}

/// What an engine reads of a request's metadata, whichever channel it came by.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct AnyRequestMetadata {
    /// Copied into the reply.
    #[serde(default)]
    pub is_broadcast: bool,
    /// Copied into the reply.
    #[serde(default)]
    pub is_coalescing: bool,
    /// Copied into the reply.
    #[serde(default)]
    pub original_msg_id: Option<MsgId>,
    /// Copied into the reply.
    #[serde(default)]
    pub label: Json,
    /// Our additions.
    #[serde(default, rename = "commworld")]
    pub extension: Option<extension::RequestMetadata>,
}

/// Metadata of an engine's reply to a request on its shell channel. `engine` and `status` are mandatory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReplyMetadata {
    /// When the engine began.
    #[serde(default)]
    pub started: Option<Date>,
    /// False: the engine cannot run this task; another may.
    #[serde(default = "yes")]
    pub dependencies_met: bool,
    /// The engine.
    #[serde(default)]
    pub engine: Option<EngineUuid>,
    /// Copied from the request.
    #[serde(default)]
    pub is_broadcast: bool,
    /// Copied from the request.
    #[serde(default)]
    pub is_coalescing: bool,
    /// Copied from the request; empty when it has none.
    #[serde(default)]
    pub original_msg_id: String,
    /// Copied from the request.
    #[serde(default)]
    pub label: Json,
    /// Same as in the content.
    #[serde(default)]
    pub status: Option<Status>,
    /// Only with an error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine_info: Option<Json>,
    /// Whose results a coalesced reply carries, in order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broadcast_targets: Option<Vec<(EngineUuid, EngineId)>>,
    /// Our additions.
    #[serde(default, rename = "commworld", skip_serializing_if = "Option::is_none")]
    pub extension: Option<extension::ReplyMetadata>,
}

/// Content of `apply_reply` when all went well. Results of stock engines are pickled in the buffers; our own
/// engines describe theirs in `commworld`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ApplyOk {
    /// Always [`Status::Ok`].
    pub status: Status,
    /// The result of a [`extension::Call`], see [`crate::value`].
    #[serde(default, rename = "commworld", skip_serializing_if = "Option::is_none")]
    pub extension: Option<extension::CallResult>,
}

/// Content of `apply_request`: empty from stock clients, whose function is pickled in the buffers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ApplyRequest {
    /// A function by name.
    #[serde(default, rename = "commworld", skip_serializing_if = "Option::is_none")]
    pub extension: Option<extension::Call>,
}

fn null_as_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}
