//! What the engine says to the glue in Python, and how it is answered. The other direction is in `host.rs`.

use std::collections::BTreeMap;

use engine_python_abi::Frame;
use protocol::error::ename;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::runner::{NameSummary, RunError};

/// A call of a function of `python/src/glue/_requests.py`; its text says what it does.
#[derive(Debug, Serialize)]
#[serde(tag = "call", rename_all = "snake_case")]
pub(super) enum Request<'a> {
    Prepare,
    Start {
        engine_id: u32,
        uuid: &'a str,
        rank: usize,
        size: usize,
        options: &'a BTreeMap<String, String>,
        functions: Vec<FunctionHelp>,
        profile_dir: String,
    },
    Execute {
        code: &'a str,
        count: u64,
        silent: bool,
        store_history: bool,
    },
    UserExpressions {
        expressions: &'a BTreeMap<String, String>,
    },
    ApplyPickled {
        msg_id: &'a str,
    },
    Apply {
        function: &'a str,
        arguments: Vec<Json>,
        keywords: BTreeMap<&'a str, Json>,
    },
    Push {
        name: &'a str,
        value: Json,
    },
    Pull {
        expression: &'a str,
    },
    Clear,
    Complete {
        line: &'a str,
        cursor: usize,
    },
    Inspect {
        name: &'a str,
    },
    IsComplete {
        code: &'a str,
    },
    Names,
}

/// A function of the engine's program or of a module.
#[derive(Debug, Serialize)]
pub(super) struct FunctionHelp {
    pub(super) name: String,
    pub(super) signature: String,
    pub(super) text: String,
}

/// What the glue answered.
#[derive(Debug)]
pub(super) struct Answer {
    /// Depends on the request.
    pub(super) ok: Json,
    /// Buffers of it.
    pub(super) frames: Vec<Frame>,
}

/// The head of an answer.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Head {
    Ok(Json),
    Error(Failed),
}

/// An error of user code, or of the glue.
#[derive(Debug, Deserialize)]
pub(super) struct Failed {
    ename: String,
    evalue: String,
    #[serde(default)]
    traceback: Vec<String>,
    #[serde(default)]
    published: bool,
}

impl Failed {
    /// The plugin does not answer as it should.
    pub(super) fn of_the_glue(evalue: &str) -> RunError {
        RunError::new(ename::RUNTIME_ERROR, format!("in the engine's Python plugin: {evalue}"))
    }
}

impl From<Failed> for RunError {
    fn from(failed: Failed) -> RunError {
        let plain = RunError::new(&failed.ename, failed.evalue);
        let traceback = if failed.traceback.is_empty() { plain.traceback } else { failed.traceback };
        RunError { traceback, published: failed.published, ..plain }
    }
}

impl Answer {
    /// Reads what the plugin answered.
    pub(super) fn read(frames: Vec<Frame>) -> Result<Answer, RunError> {
        let mut frames = frames.into_iter();
        let head = frames.next().ok_or_else(|| Failed::of_the_glue("it failed without an answer"))?;
        match serde_json::from_slice(head.as_ref()) {
            Ok(Head::Ok(ok)) => Ok(Answer { ok, frames: frames.collect() }),
            Ok(Head::Error(failed)) => Err(failed.into()),
            Err(error) => Err(Failed::of_the_glue(&format!("its answer is malformed: {error}"))),
        }
    }

    /// The answer as what the request asks for.
    pub(super) fn content<T: DeserializeOwned>(self) -> Result<T, RunError> {
        serde_json::from_value(self.ok)
            .map_err(|error| Failed::of_the_glue(&format!("its answer is malformed: {error}")))
    }
}

/// The answer to [`Request::Start`].
#[derive(Debug, Deserialize)]
pub(super) struct Started {
    /// Its version.
    pub(super) python: String,
    /// What it takes itself for.
    pub(super) executable: String,
    /// Which kind of shell runs cells.
    pub(super) shell: String,
}

/// An element of the answer to [`Request::Names`].
#[derive(Debug, Deserialize)]
pub(super) struct Name {
    name: String,
    kind: String,
    summary: String,
    bytes: u64,
}

impl From<Name> for NameSummary {
    fn from(name: Name) -> NameSummary {
        let Name { name, kind, summary, bytes } = name;
        NameSummary { name, kind, summary, bytes: usize::try_from(bytes).unwrap_or(usize::MAX) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(head: &str) -> Result<Answer, RunError> {
        Answer::read(vec![Frame::from(head.as_bytes().to_vec())])
    }

    #[test]
    fn an_error_of_user_code_keeps_its_name_text_and_traceback() {
        let error = answered(
            r#"{"error": {"ename": "NameError", "evalue": "x", "traceback": ["a", "b"], "published": true}}"#,
        );
        let error = error.expect_err("it says error");
        assert_eq!((error.ename.as_str(), error.evalue.as_str()), ("NameError", "x"));
        assert_eq!((error.traceback.len(), error.published), (2, true));
    }

    #[test]
    fn answers_that_cannot_be_read_are_errors_of_the_plugin() {
        for head in ["", "{", "[]", r#"{"error": 3}"#, r#"{"maybe": 1}"#] {
            assert_eq!(answered(head).expect_err(head).ename, "RuntimeError");
        }
        assert!(Answer::read(vec![]).is_err());
        let rows: Result<Vec<Name>, RunError> =
            answered(r#"{"ok": [{"name": 3}]}"#).expect("an answer").content();
        assert!(rows.is_err());
    }
}
