//! The header of a message.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize};

use crate::date::Date;
use crate::id::{MsgId, SessionId};

/// The protocol version that we write. Without one, Python peers assume version 4 and convert.
pub const PROTOCOL_VERSION: &str = "5.4";

/// Who sent which message, and when.
///
/// A reply's parent header is the request's header frame, byte for byte; see [`crate::Session::reply`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Header {
    /// Unique; opaque to everybody but its sender.
    pub msg_id: MsgId,
    /// What the message says: `execute_request`, `apply_reply`, …
    pub msg_type: String,
    /// The sender's user name; for people.
    pub username: String,
    /// The sender's session. An engine's is its uuid.
    pub session: SessionId,
    /// When it was made. Stock peers of odd versions may leave it out or write it oddly.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub date: Option<Date>,
    /// The protocol version, `5.x`.
    pub version: String,
}

/// What a header must be, read in place: to know that a frame is a header costs no allocation.
#[derive(Debug, Deserialize)]
pub(crate) struct BorrowedHeader<'a> {
    #[serde(borrow)]
    msg_id: Cow<'a, str>,
    #[serde(borrow)]
    msg_type: Cow<'a, str>,
    #[serde(borrow, default)]
    username: Cow<'a, str>,
    #[serde(borrow)]
    session: Cow<'a, str>,
    #[serde(borrow, default)]
    date: Option<BorrowedText<'a>>,
    #[serde(borrow, default)]
    version: Cow<'a, str>,
}

/// Serde borrows a text within an option only by a type of its own.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
struct BorrowedText<'a>(#[serde(borrow)] Cow<'a, str>);

impl From<BorrowedHeader<'_>> for Header {
    fn from(header: BorrowedHeader<'_>) -> Header {
        Header {
            msg_id: header.msg_id.as_ref().into(),
            msg_type: header.msg_type.into_owned(),
            username: header.username.into_owned(),
            session: header.session.as_ref().into(),
            // A date that cannot be read is no date: it is no reason to lose the message.
            date: header.date.and_then(|text| Date::parse(&text.0)),
            version: header.version.into_owned(),
        }
    }
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Header, D::Error> {
        BorrowedHeader::deserialize(deserializer).map(Header::from)
    }
}
