//! Output of running tasks: the iopub channel.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

/// Whether an engine works.
pub const STATUS: &str = "status";
/// Code that begins to run.
pub const EXECUTE_INPUT: &str = "execute_input";
/// Text printed.
pub const STREAM: &str = "stream";
/// A picture or table shown.
pub const DISPLAY_DATA: &str = "display_data";
/// The value of a cell's last expression.
pub const EXECUTE_RESULT: &str = "execute_result";
/// A failure.
pub const ERROR: &str = "error";

/// Content of `status`. `idle` is the last message of every request: it ends the client's wait for output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusUpdate {
    /// The state.
    pub execution_state: ExecutionState,
}

/// What an engine does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExecutionState {
    /// It has just started.
    Starting,
    /// It serves a request.
    Busy,
    /// It is done with it.
    Idle,
}

/// Content of `execute_input`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecuteInput {
    /// The cell.
    pub code: String,
    /// Its number.
    pub execution_count: u64,
}

/// Content of `stream`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    /// Which stream.
    pub name: StreamName,
    /// The text.
    pub text: String,
}

/// Standard output or standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StreamName {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl StreamName {
    /// Its name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            StreamName::Stdout => "stdout",
            StreamName::Stderr => "stderr",
        }
    }
}

/// Content of `execute_result` and, without a count, of `display_data`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Display {
    /// Representations by MIME type; `text/plain` is always there.
    pub data: BTreeMap<String, Json>,
    /// More about the representations.
    #[serde(default)]
    pub metadata: BTreeMap<String, Json>,
    /// The number of the cell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution_count: Option<u64>,
}

/// Content of `error`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorOutput {
    /// The error's name.
    pub ename: String,
    /// What happened.
    pub evalue: String,
    /// Where, line by line.
    #[serde(default)]
    pub traceback: Vec<String>,
}
