//! Making signed messages: what every sender needs, whoever it is.

use bytes::Bytes;
use serde::Serialize;

use crate::buffer_digest::{self, BufferDigests};
use crate::date::Date;
use crate::frames::WireMessage;
use crate::header::{Header, PROTOCOL_VERSION};
use crate::id::{MsgId, SessionId};
use crate::receive::Receiver;
use crate::signature::{Key, Signer};

const EMPTY_OBJECT: Bytes = Bytes::from_static(b"{}");

/// Makes messages with one identity and one key, and numbers them.
#[derive(Clone, Debug)]
pub struct Session {
    id: SessionId,
    username: String,
    process: u32,
    sent: u64,
    signer: Signer,
    digests: BufferDigests,
}

impl Session {
    /// A session of that name. `process` tells sessions of forked processes apart.
    pub fn new(id: SessionId, username: impl Into<String>, process: u32, key: &Key) -> Session {
        Session {
            id,
            username: username.into(),
            process,
            sent: 0,
            signer: Signer::new(key),
            digests: BufferDigests::Off,
        }
    }

    /// A session that makes digests of buffers, if that is what peers do.
    #[must_use]
    pub fn with_digests(mut self, digests: BufferDigests) -> Session {
        self.digests = digests;
        self
    }

    /// The session's name.
    pub fn id(&self) -> &SessionId {
        &self.id
    }

    /// The signer, to verify what others send.
    pub fn signer(&self) -> &Signer {
        &self.signer
    }

    /// A receiver of what peers of this session send: of the same key, and with the same demand for digests.
    pub fn receiver(&self) -> Receiver {
        Receiver::new(self.signer.clone()).with_digests(self.digests)
    }

    /// A message that nobody asked for. `metadata` and `content` must serialise to JSON objects.
    pub fn message(
        &mut self,
        now: Date,
        msg_type: &str,
        metadata: &impl Serialize,
        content: &impl Serialize,
        buffers: Vec<Bytes>,
    ) -> WireMessage {
        self.with_parent(now, msg_type, EMPTY_OBJECT, metadata, content, buffers).1
    }

    /// A request; returns its id too.
    pub fn request(
        &mut self,
        now: Date,
        msg_type: &str,
        metadata: &impl Serialize,
        content: &impl Serialize,
        buffers: Vec<Bytes>,
    ) -> (MsgId, WireMessage) {
        self.with_parent(now, msg_type, EMPTY_OBJECT, metadata, content, buffers)
    }

    /// A message caused by another: `parent` is the header frame of that one, as it came.
    pub fn reply(
        &mut self,
        now: Date,
        msg_type: &str,
        parent: &Bytes,
        metadata: &impl Serialize,
        content: &impl Serialize,
        buffers: Vec<Bytes>,
    ) -> WireMessage {
        self.with_parent(now, msg_type, parent.clone(), metadata, content, buffers).1
    }

    /// The id that the next message gets; whoever takes it makes that message otherwise.
    pub fn next_id(&mut self) -> MsgId {
        self.sent += 1;
        MsgId::from(format!("{}_{}_{}", self.id, self.process, self.sent))
    }

    /// The same message once more for another recipient, with its header changed and signed anew.
    pub fn readdress(
        &self,
        message: &WireMessage,
        header: &impl Serialize,
        metadata: &impl Serialize,
    ) -> WireMessage {
        self.sealed(
            to_frame(header),
            message.parent_header.clone(),
            to_frame(metadata),
            message.content.clone(),
            message.buffers.clone(),
        )
    }

    /// What somebody has replied, once more as a message of this session: under a name and a signature of its own.
    pub fn repeat(&mut self, now: Date, msg_type: &str, reply: &WireMessage) -> WireMessage {
        let header = Header {
            msg_id: self.next_id(),
            msg_type: msg_type.to_owned(),
            username: self.username.clone(),
            session: self.id.clone(),
            date: Some(now),
            version: PROTOCOL_VERSION.to_owned(),
        };
        self.sealed(
            to_frame(&header),
            reply.parent_header.clone(),
            reply.metadata.clone(),
            reply.content.clone(),
            reply.buffers.clone(),
        )
    }

    fn with_parent(
        &mut self,
        now: Date,
        msg_type: &str,
        parent_header: Bytes,
        metadata: &impl Serialize,
        content: &impl Serialize,
        buffers: Vec<Bytes>,
    ) -> (MsgId, WireMessage) {
        let msg_id = self.next_id();
        let header = Header {
            msg_id: msg_id.clone(),
            msg_type: msg_type.to_owned(),
            username: self.username.clone(),
            session: self.id.clone(),
            date: Some(now),
            version: PROTOCOL_VERSION.to_owned(),
        };
        let message =
            self.sealed(to_frame(&header), parent_header, to_frame(metadata), to_frame(content), buffers);
        (msg_id, message)
    }

    fn sealed(
        &self,
        header: Bytes,
        parent_header: Bytes,
        metadata: Bytes,
        content: Bytes,
        buffers: Vec<Bytes>,
    ) -> WireMessage {
        let metadata = match self.digests {
            BufferDigests::Off => metadata,
            BufferDigests::On | BufferDigests::Required => buffer_digest::add(metadata, &buffers),
        };
        let signature = self.signer.sign([&header, &parent_header, &metadata, &content]);
        WireMessage { signature, header, parent_header, metadata, content, buffers }
    }
}

/// JSON text of a value of ours.
fn to_frame(value: &impl Serialize) -> Bytes {
    let text = serde_json::to_vec(value).expect("our message types are maps with text keys");
    debug_assert_eq!(text.first(), Some(&b'{'), "every JSON frame is an object");
    Bytes::from(text)
}
