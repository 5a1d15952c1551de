//! The gate that every received message passes: frames, signature, repeat, four JSON objects, header.
//!
//! Nothing is sliced before its length is known, and nothing decoded before its signature is verified. What is
//! refused is counted by reason; the caller logs it with its sender and drops it.

use bytes::Bytes;
use serde::de::IgnoredAny;

use crate::frames::{self, FrameError, WireMessage};
use crate::header::Header;
use crate::limits::JSON_DEPTH_MAX;
use crate::message::Message;
use crate::signature::{SeenSignatures, SignatureError, Signer};

/// Why a message was dropped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The frames are not a message.
    #[error("malformed message: {0}")]
    Frames(#[from] FrameError),
    /// The signature is missing or wrong.
    #[error("{0}: the sender does not have the key of this cluster")]
    Signature(#[from] SignatureError),
    /// The same signed message came before.
    #[error("repeated message")]
    Repeated,
    /// A frame is not exactly one JSON object.
    #[error("the {0} is not one JSON object")]
    NotAnObject(&'static str),
    /// The header lacks a field, or has one of the wrong type.
    #[error("unreadable header: {0}")]
    Header(String),
}

impl Refusal {
    /// All reasons, as they are named in counters.
    pub const REASONS: [&'static str; 6] =
        ["frames", "unsigned", "wrongly_signed", "repeated", "not_json", "header"];

    /// The reason's place in [`Refusal::REASONS`].
    fn index(&self) -> usize {
        match self {
            Refusal::Frames(_) => 0,
            Refusal::Signature(SignatureError::Missing) => 1,
            Refusal::Signature(SignatureError::Wrong) => 2,
            Refusal::Repeated => 3,
            Refusal::NotAnObject(_) => 4,
            Refusal::Header(_) => 5,
        }
    }

    /// The reason's name in counters.
    pub fn reason(&self) -> &'static str {
        Refusal::REASONS[self.index()]
    }
}

/// Verifies what one process receives, on all of its sockets.
#[derive(Debug)]
pub struct Receiver {
    signer: Signer,
    seen: SeenSignatures,
    refused: [u64; Refusal::REASONS.len()],
}

impl Receiver {
    /// A receiver that accepts what `signer`'s key has signed.
    pub fn new(signer: Signer) -> Receiver {
        Receiver { signer, seen: SeenSignatures::new(), refused: [0; Refusal::REASONS.len()] }
    }

    /// Verifies one multipart message; returns its routing frames and what it says.
    pub fn open(&mut self, parts: Vec<Bytes>) -> Result<(Vec<Bytes>, Message), Refusal> {
        let opened = frames::split(parts)
            .map_err(Refusal::from)
            .and_then(|(routing, wire)| Ok((routing, self.verify(wire)?)));
        if let Err(refusal) = &opened {
            self.refused[refusal.index()] += 1;
        }
        opened
    }

    /// How many messages were refused, by reason.
    pub fn refused(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Refusal::REASONS.into_iter().zip(self.refused)
    }

    fn verify(&mut self, wire: WireMessage) -> Result<Message, Refusal> {
        let digest = self.signer.verify(wire.signed_frames(), &wire.signature)?;
        let header = check_objects(&wire)?;
        if let Some(digest) = digest
            && !self.seen.insert(digest)
        {
            return Err(Refusal::Repeated);
        }
        Ok(Message { header, wire })
    }
}

/// Demands one JSON object per frame: objects delimit themselves, so that frames cannot be cut differently
/// under the same signature.
fn check_objects(wire: &WireMessage) -> Result<Header, Refusal> {
    for (name, frame) in
        [("parent header", &wire.parent_header), ("metadata", &wire.metadata), ("content", &wire.content)]
    {
        if !is_object(frame) {
            return Err(Refusal::NotAnObject(name));
        }
    }
    if !is_object(&wire.header) {
        return Err(Refusal::NotAnObject("header"));
    }
    serde_json::from_slice(&wire.header).map_err(|error| Refusal::Header(error.to_string()))
}

fn is_object(frame: &[u8]) -> bool {
    if frame == b"{}" {
        return true;
    }
    // Strings are checked too: `IgnoredAny` alone would let invalid UTF-8 pass.
    let Ok(text) = std::str::from_utf8(frame) else {
        return false;
    };
    text.trim_ascii_start().starts_with('{')
        && depth_is_bounded(frame)
        && serde_json::from_str::<IgnoredAny>(text).is_ok()
}

/// Whether brackets nest at most [`JSON_DEPTH_MAX`] deep; brackets inside strings do not count.
fn depth_is_bounded(json: &[u8]) -> bool {
    // Nearly every message has fewer brackets than the limit anyway: counting them is quicker than following them.
    let openings = json.iter().filter(|byte| matches!(byte, b'{' | b'[')).count();
    openings <= JSON_DEPTH_MAX || follow_depth(json)
}

fn follow_depth(json: &[u8]) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for &byte in json {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > JSON_DEPTH_MAX {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::date::Date;
    use crate::id::SessionId;
    use crate::session::Session;
    use crate::signature::Key;

    fn session(key: &str) -> Session {
        Session::new(SessionId::from("s"), "u", 1, &Key::new(key))
    }

    fn request(session: &mut Session) -> Vec<Bytes> {
        let content = serde_json::json!({ "code": "1" });
        session
            .message(Date::from_micros(0), "execute_request", &serde_json::json!({}), &content, vec![])
            .to_parts(&[Bytes::from_static(b"route")])
    }

    #[test]
    fn a_signed_message_is_opened_once() {
        let mut session = session("k");
        let mut receiver = Receiver::new(session.signer().clone());
        let parts = request(&mut session);
        let (routing, message) = receiver.open(parts.clone()).expect("it is well signed");
        assert_eq!(routing, [Bytes::from_static(b"route")]);
        assert_eq!(message.header.msg_type, "execute_request");
        assert_eq!(receiver.open(parts), Err(Refusal::Repeated));
        assert_eq!(receiver.refused().find(|(reason, _)| *reason == "repeated"), Some(("repeated", 1)));
    }

    #[test]
    fn frames_shifted_against_each_other_are_refused_although_the_signature_fits() {
        let session = session("k");
        let signer = session.signer();
        let header = br#"{"msg_id":"a","msg_type":"t","session":"s","version":"5.4"}"#;
        let joined = [&header[..], b"{}"].concat();
        let signature = signer.sign([header, b"{}", b"{}", b"{}"]);
        let parts =
            [b"<IDS|MSG>".to_vec(), signature.to_vec(), joined, vec![], b"{}".to_vec(), b"{}".to_vec()];
        let parts = parts.into_iter().map(Bytes::from).collect();
        assert_eq!(Receiver::new(signer.clone()).open(parts), Err(Refusal::NotAnObject("parent header")));
    }

    #[test]
    fn a_message_of_another_key_is_refused_before_it_is_decoded() {
        let parts = request(&mut session("other"));
        let mut receiver = Receiver::new(session("k").signer().clone());
        assert_eq!(receiver.open(parts), Err(Refusal::Signature(SignatureError::Wrong)));
    }

    #[test]
    fn deep_nesting_and_invalid_utf8_are_refused() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(!is_object(deep.as_bytes()));
        assert!(!is_object(b"{\"a\":\"\xff\"}"));
        assert!(!is_object(b"{} {}"));
        assert!(!is_object(b"[]"));
        assert!(!is_object(b""));
        let many = format!("{{\"a\":[{}0]}}", "[],".repeat(1000));
        assert!(is_object(many.as_bytes()), "many brackets are not deep ones");
        assert!(is_object(br#" {"a": "[[[[\"{{{"} "#));
    }

    proptest! {
        #[test]
        fn changing_any_byte_of_a_signed_frame_is_noticed(frame in 3_usize..7, position in any::<prop::sample::Index>(), flip in 1_u8..) {
            let mut session = session("k");
            let mut parts = request(&mut session);
            let mut bytes = parts[frame].to_vec();
            let position = position.index(bytes.len());
            bytes[position] ^= flip;
            parts[frame] = Bytes::from(bytes);
            prop_assert!(Receiver::new(session.signer().clone()).open(parts).is_err());
        }

        #[test]
        fn opening_never_panics(parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..12), delimiter in 0_usize..12) {
            let mut parts: Vec<Bytes> = parts.into_iter().map(Bytes::from).collect();
            if delimiter < parts.len() {
                parts[delimiter] = Bytes::from_static(b"<IDS|MSG>");
            }
            let _ = Receiver::new(session("").signer().clone()).open(parts);
        }
    }
}
