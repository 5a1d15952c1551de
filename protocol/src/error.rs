//! The error dictionary: how failures travel, and the names that Python clients compare.

use serde::{Deserialize, Deserializer, Serialize};

use crate::id::{EngineId, EngineUuid};

/// Names of errors. Clients compare them with Python's exception classes.
pub mod ename {
    /// An engine died, is unknown, or cannot be reached.
    pub const ENGINE_ERROR: &str = "EngineError";
    /// The data of a message is not what its sender signed.
    pub const BUFFER_ERROR: &str = "BufferError";
    /// A task waited longer than its `timeout`.
    pub const TASK_TIMEOUT: &str = "TaskTimeout";
    /// A task was aborted before it ran.
    pub const TASK_ABORTED: &str = "TaskAborted";
    /// Dependencies name a task that was never submitted.
    pub const INVALID_DEPENDENCY: &str = "InvalidDependency";
    /// Dependencies can no longer be met.
    pub const IMPOSSIBLE_DEPENDENCY: &str = "ImpossibleDependency";
    /// There is nobody to run a task.
    pub const NO_ENGINES_REGISTERED: &str = "NoEnginesRegistered";
    /// An unknown key: a message id, a message type.
    pub const KEY_ERROR: &str = "KeyError";
    /// An unknown engine.
    pub const INDEX_ERROR: &str = "IndexError";
    /// A value of the wrong kind.
    pub const TYPE_ERROR: &str = "TypeError";
    /// A value out of range.
    pub const VALUE_ERROR: &str = "ValueError";
    /// A name that stands for nothing.
    pub const NAME_ERROR: &str = "NameError";
    /// Code that cannot be parsed.
    pub const SYNTAX_ERROR: &str = "SyntaxError";
    /// A missing attribute; Python peers use it for unknown signals.
    pub const ATTRIBUTE_ERROR: &str = "AttributeError";
    /// Any other failure.
    pub const RUNTIME_ERROR: &str = "RuntimeError";
    /// The user interrupted the task.
    pub const KEYBOARD_INTERRUPT: &str = "KeyboardInterrupt";
    /// Ranks disagreed about a collective, or MPI failed in one.
    pub const COLLECTIVE_ERROR: &str = "CollectiveError";
    /// The peer does not have this feature.
    pub const NOT_IMPLEMENTED_ERROR: &str = "NotImplementedError";
}

/// Which engine an error comes from. Absent for errors made by the controller: clients then expect no output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineInfo {
    /// The engine's uuid.
    pub engine_uuid: EngineUuid,
    /// The engine's id.
    pub engine_id: EngineId,
    /// `apply` or `execute`.
    pub method: String,
}

/// The content of a reply that reports a failure, without its `status` (see [`crate::message::Status`]).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorContent {
    /// The error's name; see [`ename`].
    #[serde(default)]
    pub ename: String,
    /// What happened, in words.
    #[serde(default)]
    pub evalue: String,
    /// Where it happened, line by line; may hold ANSI colours.
    #[serde(default)]
    pub traceback: Vec<String>,
    /// Where it comes from; written as `{}` for the controller's own errors.
    #[serde(default, serialize_with = "info_or_empty", deserialize_with = "info_or_none")]
    pub engine_info: Option<EngineInfo>,
    /// Extension: the line of the user's code, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// Extension: the column of that line, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
}

impl ErrorContent {
    /// An error made by the controller.
    pub fn new(ename: &str, evalue: impl Into<String>) -> ErrorContent {
        let evalue = evalue.into();
        let traceback = vec![format!("{ename}: {evalue}")];
        ErrorContent { ename: ename.to_owned(), evalue, traceback, ..ErrorContent::default() }
    }

    /// The same error, said to come from an engine.
    pub fn from_engine(mut self, engine_uuid: EngineUuid, engine_id: EngineId, method: &str) -> ErrorContent {
        self.engine_info = Some(EngineInfo { engine_uuid, engine_id, method: method.to_owned() });
        self
    }
}

/// Text as Python's `repr` writes it; `KeyError` shows its argument that way.
pub fn python_repr(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut repr = String::with_capacity(text.len() + 2);
    repr.push(quote);
    for character in text.chars() {
        match character {
            '\\' => repr.push_str("\\\\"),
            '\n' => repr.push_str("\\n"),
            '\r' => repr.push_str("\\r"),
            '\t' => repr.push_str("\\t"),
            _ if character == quote => {
                repr.push('\\');
                repr.push(quote);
            }
            _ if character.is_control() => repr.push_str(&format!("\\x{:02x}", u32::from(character))),
            _ => repr.push(character),
        }
    }
    repr.push(quote);
    repr
}

fn info_or_empty<S: serde::Serializer>(info: &Option<EngineInfo>, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Empty {}
    match info {
        Some(info) => info.serialize(serializer),
        None => Empty {}.serialize(serializer),
    }
}

/// `{}` and anything that is not an engine's description mean "not from an engine".
fn info_or_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<EngineInfo>, D::Error> {
    #[derive(Deserialize)]
    struct Loose {
        #[serde(default)]
        engine_uuid: Option<EngineUuid>,
        #[serde(default)]
        engine_id: Option<EngineId>,
        #[serde(default)]
        method: Option<String>,
    }
    let loose = Option::<Loose>::deserialize(deserializer)?;
    Ok(loose.and_then(|loose| {
        Some(EngineInfo {
            engine_uuid: loose.engine_uuid?,
            engine_id: loose.engine_id?,
            method: loose.method.unwrap_or_default(),
        })
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn python_shows_the_argument_of_a_key_error_with_these_quotes() {
        assert_eq!(python_repr("No such message: zzz"), "'No such message: zzz'");
        assert_eq!(python_repr("Bad Message Type: 'x'"), "\"Bad Message Type: 'x'\"");
        assert_eq!(python_repr("both ' and \""), "'both \\' and \"'");
    }

    #[test]
    fn an_error_of_the_controller_has_an_empty_engine_info() {
        let json = serde_json::to_value(ErrorContent::new(ename::KEY_ERROR, "'x'")).expect("plain data");
        assert_eq!(json["engine_info"], serde_json::json!({}));
        let back: ErrorContent = serde_json::from_value(json).expect("just written");
        assert_eq!(back.engine_info, None);
    }

    #[test]
    fn the_engine_info_of_an_engine_has_exactly_three_keys() {
        let error = ErrorContent::new("E", "v").from_engine("u".into(), EngineId(3), "apply");
        let json = serde_json::to_value(error).expect("plain data");
        assert_eq!(
            json["engine_info"],
            serde_json::json!({ "engine_uuid": "u", "engine_id": 3, "method": "apply" })
        );
    }
}
