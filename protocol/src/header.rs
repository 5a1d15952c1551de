//! The header of a message.

use serde::{Deserialize, Serialize};

use crate::date::Date;
use crate::id::{MsgId, SessionId};

/// The protocol version that we write. Without one, Python peers assume version 4 and convert.
pub const PROTOCOL_VERSION: &str = "5.4";

/// Who sent which message, and when.
///
/// A reply's parent header is the request's header frame, byte for byte; see [`crate::Session::reply`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Unique; opaque to everybody but its sender.
    pub msg_id: MsgId,
    /// What the message says: `execute_request`, `apply_reply`, …
    pub msg_type: String,
    /// The sender's user name; for people.
    #[serde(default)]
    pub username: String,
    /// The sender's session. An engine's is its uuid.
    pub session: SessionId,
    /// When it was made. Stock peers of odd versions may leave it out or write it oddly.
    #[serde(default, deserialize_with = "date_or_none", skip_serializing_if = "Option::is_none")]
    pub date: Option<Date>,
    /// The protocol version, `5.x`.
    #[serde(default)]
    pub version: String,
}

/// A date that cannot be read is no date: it is no reason to lose the message.
fn date_or_none<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Date>, D::Error> {
    let text = Option::<std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
    Ok(text.and_then(|text| Date::parse(&text)))
}
