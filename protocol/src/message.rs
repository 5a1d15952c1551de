//! A verified message, and what its content can be.
//!
//! One module a subject: [`execute`] (code, functions, data), [`control`] (abort, signal, clear, shutdown),
//! [`hub`] (registration, queries), [`output`] (iopub), [`notification`] (who joined and left).

pub mod control;
pub mod execute;
pub mod hub;
pub mod notification;
pub mod output;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};

use crate::buffer_digest::Damage;
use crate::error::ErrorContent;
use crate::frames::WireMessage;
use crate::header::Header;
use crate::id::MsgId;

/// A message whose signature was verified and whose four JSON frames are known to be objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who sent it, and what it is.
    pub header: Header,
    /// All of it, as it came.
    pub wire: WireMessage,
    /// What is wrong with its buffers.
    pub damage: Option<Damage>,
}

/// A part of a message that does not have the form that its type asks for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {part} of {msg_type} cannot be read: {reason}")]
pub struct MalformedContent {
    /// `content`, `metadata` or `parent header`.
    pub part: &'static str,
    /// The message's type.
    pub msg_type: String,
    /// What serde found.
    pub reason: String,
}

impl Message {
    /// Reads the content.
    pub fn content<T: DeserializeOwned>(&self) -> Result<T, MalformedContent> {
        self.read("content", &self.wire.content)
    }

    /// Reads the metadata.
    pub fn metadata<T: DeserializeOwned>(&self) -> Result<T, MalformedContent> {
        self.read("metadata", &self.wire.metadata)
    }

    /// The id and session of the message that caused this one, if one did.
    pub fn parent(&self) -> Result<Parent, MalformedContent> {
        self.read("parent header", &self.wire.parent_header)
    }

    fn read<T: DeserializeOwned>(&self, part: &'static str, frame: &[u8]) -> Result<T, MalformedContent> {
        serde_json::from_slice(frame).map_err(|error| MalformedContent {
            part,
            msg_type: self.header.msg_type.clone(),
            reason: error.to_string(),
        })
    }
}

/// What replies and output say of the request that caused them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Parent {
    /// The request's id.
    #[serde(default)]
    pub msg_id: Option<MsgId>,
    /// The request's type.
    #[serde(default)]
    pub msg_type: Option<String>,
    /// The requester's session.
    #[serde(default)]
    pub session: Option<crate::id::SessionId>,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It did what was asked.
    Ok,
    /// It failed; the rest of the content is an [`ErrorContent`].
    Error,
    /// It was aborted before it ran.
    Aborted,
}

/// Content with a status and nothing else that matters: `{"status": "ok"}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusContent {
    /// How it ended.
    pub status: Status,
}

impl StatusContent {
    /// It did what was asked.
    pub const OK: StatusContent = StatusContent { status: Status::Ok };
    /// It was aborted.
    pub const ABORTED: StatusContent = StatusContent { status: Status::Aborted };
}

/// `{"status": "error", "ename": …}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Always [`Status::Error`].
    pub status: Status,
    /// What went wrong.
    #[serde(flatten)]
    pub error: ErrorContent,
}

impl From<ErrorContent> for Failure {
    fn from(error: ErrorContent) -> Failure {
        Failure { status: Status::Error, error }
    }
}

/// An object without fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// Stock clients send a list or one id; null means nothing.
fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<MsgId>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        One(MsgId),
        Many(Vec<MsgId>),
    }
    Ok(match Option::<Form>::deserialize(deserializer)? {
        None => vec![],
        Some(Form::One(one)) => vec![one],
        Some(Form::Many(many)) => many,
    })
}
