//! The gate that every received message passes: frames, signature, repeat, four JSON objects, header.
//!
//! Nothing is sliced before its length is known, and nothing decoded before its signature is verified. What is
//! refused is counted by reason; the caller logs it with its sender and drops it.

use bytes::Bytes;

use crate::buffer_digest::{self, BufferDigests};
use crate::frames::{self, FrameError, WireMessage};
use crate::header::{BorrowedHeader, Header};
use crate::json::is_one_object;
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
    digests: BufferDigests,
    seen: SeenSignatures,
    refused: [u64; Refusal::REASONS.len()],
}

impl Receiver {
    /// A receiver that accepts what `signer`'s key has signed.
    pub fn new(signer: Signer) -> Receiver {
        let refused = [0; Refusal::REASONS.len()];
        Receiver { signer, digests: BufferDigests::Off, seen: SeenSignatures::new(), refused }
    }

    /// A receiver that may demand digests of buffers.
    #[must_use]
    pub fn with_digests(mut self, digests: BufferDigests) -> Receiver {
        self.digests = digests;
        self
    }

    /// Verifies one multipart message; returns its routing frames and what it says. A message whose buffers are damaged
    /// is one all the same: somebody waits for an answer.
    pub fn open(&mut self, parts: Vec<Bytes>) -> Result<(Vec<Bytes>, Message), Refusal> {
        let (routing, mut message) = self.open_to_forward(parts)?;
        message.damage = buffer_digest::check(self.digests, &message.wire.metadata, &message.wire.buffers);
        Ok((routing, message))
    }

    /// As [`Receiver::open`], for those who hand a message on with its buffers, which they do not read.
    pub fn open_to_forward(&mut self, parts: Vec<Bytes>) -> Result<(Vec<Bytes>, Message), Refusal> {
        self.admit(parts, |header| Header::from(header))
            .map(|(routing, header, wire)| (routing, Message { header, wire, damage: None }))
    }

    /// As [`Receiver::open_to_forward`], for those who need not know its header either: the gate is the same.
    pub fn pass(&mut self, parts: Vec<Bytes>) -> Result<(Vec<Bytes>, WireMessage), Refusal> {
        self.admit(parts, |_| ()).map(|(routing, (), wire)| (routing, wire))
    }

    /// How many messages were refused, by reason.
    pub fn refused(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Refusal::REASONS.into_iter().zip(self.refused)
    }

    fn admit<T>(
        &mut self,
        parts: Vec<Bytes>,
        read: impl FnOnce(BorrowedHeader<'_>) -> T,
    ) -> Result<(Vec<Bytes>, T, WireMessage), Refusal> {
        let admitted = frames::split(parts).map_err(Refusal::from).and_then(|(routing, wire)| {
            let header = read(self.verify(&wire)?);
            Ok((routing, header, wire))
        });
        if let Err(refusal) = &admitted {
            self.refused[refusal.index()] += 1;
        }
        admitted
    }

    fn verify<'a>(&mut self, wire: &'a WireMessage) -> Result<BorrowedHeader<'a>, Refusal> {
        let digest = self.signer.verify(wire.signed_frames(), &wire.signature)?;
        let header = check_objects(wire)?;
        if let Some(digest) = digest
            && !self.seen.insert(digest)
        {
            return Err(Refusal::Repeated);
        }
        Ok(header)
    }
}

/// Demands one JSON object per frame: objects delimit themselves, so that frames cannot be cut differently
/// under the same signature.
fn check_objects(wire: &WireMessage) -> Result<BorrowedHeader<'_>, Refusal> {
    for (name, frame) in [
        ("parent header", &wire.parent_header),
        ("metadata", &wire.metadata),
        ("content", &wire.content),
        ("header", &wire.header),
    ] {
        if !is_one_object(frame) {
            return Err(Refusal::NotAnObject(name));
        }
    }
    serde_json::from_slice(&wire.header).map_err(|error| Refusal::Header(error.to_string()))
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
    fn passing_a_message_on_asks_as_much_as_opening_it() {
        let session = session("k");
        let signer = session.signer();
        let sealed = |header: &'static [u8], metadata: &'static [u8]| {
            let signature = signer.sign([header, b"{}", metadata, b"{}"]);
            let rest = [header, b"{}", metadata, b"{}"].map(Bytes::from_static);
            [vec![Bytes::from_static(b"<IDS|MSG>"), signature], rest.to_vec()].concat()
        };
        let good: &[u8] = br#"{"msg_id":"a","msg_type":"t","session":"s"}"#;
        for (header, metadata) in [
            (good, &b"{}"[..]),
            (good, b"[]"),
            (good, b"{} {}"),
            (b"[\"a\",\"t\",\"u\",\"s\",null,\"5\"]", b"{}"),
            (b"{\"msg_id\":\"a\",\"msg_type\":\"t\"}", b"{}"),
            (b"{\"msg_id\":\"a\",\"msg_type\":\"t\",\"session\":7}", b"{}"),
            (b"{\"msg_id\":\"a\",\"msg_type\":\"t\",\"session\":\"s\",\"date\":7}", b"{}"),
            (b"{\"msg_id\":\"a\",\"msg_type\":\"t\",\"session\":\"s\",\"session\":\"s\"}", b"{}"),
            (b"{\"msg_id\":\"a\",\"msg_type\":\"\\ud800\",\"session\":\"s\"}", b"{}"),
        ] {
            let parts = sealed(header, metadata);
            let opened = Receiver::new(signer.clone()).open(parts.clone());
            let passed = Receiver::new(signer.clone()).pass(parts);
            assert_eq!(passed, opened.map(|(routing, message)| (routing, message.wire)));
            assert_eq!(passed.is_ok(), header == good && metadata == b"{}", "{}", header.escape_ascii());
        }
        let mut receiver = Receiver::new(signer.clone());
        assert!(receiver.pass(sealed(good, b"{}")).is_ok());
        assert_eq!(receiver.pass(sealed(good, b"{}")), Err(Refusal::Repeated));
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
