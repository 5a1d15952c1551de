//! Abort, clear, signal, shutdown: requests that engines serve while user code runs.

use serde::{Deserialize, Serialize};

use super::{Status, one_or_many};
use crate::id::MsgId;

/// Ends tasks that have not begun.
pub const ABORT_REQUEST: &str = "abort_request";
/// Answers [`ABORT_REQUEST`].
pub const ABORT_REPLY: &str = "abort_reply";
/// Empties the namespace.
pub const CLEAR_REQUEST: &str = "clear_request";
/// Answers [`CLEAR_REQUEST`].
pub const CLEAR_REPLY: &str = "clear_reply";
/// Ends an engine, or (to the hub) the cluster.
pub const SHUTDOWN_REQUEST: &str = "shutdown_request";
/// Answers [`SHUTDOWN_REQUEST`]; on iopub it says that an engine ends.
pub const SHUTDOWN_REPLY: &str = "shutdown_reply";
/// Sends a signal to an engine's process; SIGINT interrupts the running task.
pub const SIGNAL_REQUEST: &str = "signal_request";
/// Answers [`SIGNAL_REQUEST`].
pub const SIGNAL_REPLY: &str = "signal_reply";
/// Jupyter's question for names that start like this.
pub const COMPLETE_REQUEST: &str = "complete_request";
/// Answers [`COMPLETE_REQUEST`].
pub const COMPLETE_REPLY: &str = "complete_reply";
/// Jupyter's question who the engine is.
pub const KERNEL_INFO_REQUEST: &str = "kernel_info_request";
/// Answers [`KERNEL_INFO_REQUEST`].
pub const KERNEL_INFO_REPLY: &str = "kernel_info_reply";

/// Content of `abort_request`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AbortRequest {
    /// The tasks; empty: everything that waits.
    #[serde(default, deserialize_with = "one_or_many")]
    pub msg_ids: Vec<MsgId>,
}

/// Content of `signal_request`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignalRequest {
    /// The signal.
    pub sig: Signal,
}

/// A signal by number or by name (`SIGINT`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Signal {
    /// By number.
    Number(i32),
    /// By name.
    Name(String),
}

/// Content of `shutdown_request` and `shutdown_reply` of an engine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shutdown {
    /// Only in replies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// Whether it is to start again; engines never do by themselves.
    #[serde(default)]
    pub restart: bool,
}

/// Content of `complete_request` (Jupyter messaging 5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompleteRequest {
    /// The text so far.
    pub code: String,
    /// The cursor, in Unicode characters from the start.
    pub cursor_pos: usize,
}

/// Content of `complete_reply` (Jupyter messaging 5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompleteReply {
    /// Always [`Status::Ok`].
    pub status: Status,
    /// What could stand there.
    pub matches: Vec<String>,
    /// Where the replaced text starts, in characters.
    pub cursor_start: usize,
    /// Where it ends.
    pub cursor_end: usize,
}

/// Metadata of every reply on the control channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlMetadata {
    /// The engine.
    pub engine: crate::id::EngineUuid,
}
