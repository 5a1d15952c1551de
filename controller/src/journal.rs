//! The journal: what a controller must know of an earlier one, as bytes that are only ever appended.
//!
//! An entry is a change: `length` and `checksum` (4 bytes each, little-endian, of what follows), then one line of
//! JSON ended by a line feed, then frames, each `length` (4 bytes) and bytes. A controller that is killed in the
//! middle of an entry leaves a torn one: reading ends there.
//!
//! Not all of a change is kept: of a direct request only what is needed to answer it, of a reply nothing, but for
//! those of the last moment ([`Change::Said`]). What becomes
//! of it says `restore.rs`.

use bytes::Bytes;
use protocol::extension::EngineDescription;
use protocol::frames::WireMessage;
use protocol::id::{EngineId, EngineUuid, MsgId, SessionId};
use protocol::message::Status;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::machine::{Address, Channel, Client};
use crate::records::{Change, Queue};
use crate::repeats::Said;
use crate::tasks::TaskId;

/// Bytes of one engine's share of a coalesced reply that is kept; of a longer one its engine is asked again, in vain.
const SHARE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Bytes before an entry's body.
const PREFIX_BYTES: usize = 8;

/// Why an entry cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EntryError {
    /// The bytes end before the entry does: its writer was killed.
    #[error("the last entry is torn")]
    Torn,
    /// It is not what was written.
    #[error("an entry is damaged")]
    Damaged,
}

/// The JSON line of an entry.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Submitted { task: u64, msg_id: MsgId, channel: u8, nobody: bool, engine: Option<EngineUuid> },
    Gathering { broadcast: u64, msg_id: MsgId, nobody: bool },
    Shared { task: u64, broadcast: u64, place: usize, engine: EngineUuid },
    Gathered { task: u64, status: Status },
    Assigned { task: u64, msg_id: MsgId, engine: EngineUuid },
    Returned { task: u64, engine: EngineId, retried: bool },
    Replied { task: u64, msg_id: MsgId, engine: EngineUuid, status: Status },
    Answered { task: u64, msg_id: MsgId },
    Asked { task: u64, msg_id: MsgId, engine: EngineUuid },
    Told { task: u64 },
    Said { channel: u8, engine: Option<EngineUuid> },
    Arrived { count: u64 },
    Owed,
    Repeated,
    Aborted { msg_ids: Vec<MsgId> },
    Noted { session: SessionId, msg_id: MsgId },
    Missed { session: SessionId, msg_id: MsgId, told: bool },
    Ended { name: u64, ok: bool, engine: Option<EngineId> },
    Joined { id: EngineId, engine: EngineUuid, description: Box<EngineDescription> },
    Joining { id: EngineId, engine: EngineUuid, description: Box<EngineDescription> },
    Expected { id: EngineId, engine: EngineUuid, description: Box<EngineDescription> },
    Left { id: EngineId, engine: EngineUuid },
}

/// Appends a change, if it is one that a later controller must know.
pub(crate) fn encode(change: &Change, out: &mut Vec<u8>) {
    let is_nobody = |client: &Client| client.address == Address::Nobody;
    let (line, message) = match change {
        // Refused in the same step: only that the client spoke matters, and its header tells.
        Change::Submitted { task: TaskId::NONE, request, .. } => match noted(request) {
            Some(line) => (line, None),
            None => return,
        },
        Change::Submitted { task, msg_id, client, queue, engine, request } => {
            let line = Line::Submitted {
                task: task.0,
                msg_id: msg_id.clone(),
                channel: channel_number(client.channel),
                nobody: is_nobody(client),
                engine: engine.clone(),
            };
            (line, Some(if *queue == Queue::Task { request.clone() } else { head(request) }))
        }
        Change::Gathering { broadcast, msg_id, client, request } => {
            let nobody = is_nobody(client);
            (Line::Gathering { broadcast: broadcast.0, msg_id: msg_id.clone(), nobody }, Some(head(request)))
        }
        Change::Shared { task, broadcast, place, engine } => {
            let (task, broadcast, place) = (task.0, broadcast.0, *place);
            (Line::Shared { task, broadcast, place, engine: engine.clone() }, None)
        }
        Change::Gathered { reply, .. } if reply.byte_len() > SHARE_BYTES_MAX => return,
        Change::Gathered { task, status, reply } => {
            (Line::Gathered { task: task.0, status: *status }, Some(reply.clone()))
        }
        Change::Assigned { task, msg_id, engine } => {
            (Line::Assigned { task: task.0, msg_id: msg_id.clone(), engine: engine.clone() }, None)
        }
        Change::Returned { task, engine, retried } => {
            (Line::Returned { task: task.0, engine: *engine, retried: *retried }, None)
        }
        Change::Replied { task, msg_id, engine, status, .. } => {
            let (task, msg_id, engine, status) = (task.0, msg_id.clone(), engine.clone(), *status);
            (Line::Replied { task, msg_id, engine, status }, None)
        }
        Change::Asked { task, msg_id, engine, request, .. } => {
            let line = Line::Asked { task: task.0, msg_id: msg_id.clone(), engine: engine.clone() };
            (line, Some(head(request)))
        }
        Change::Told { task: TaskId::NONE } | Change::Answered { task: TaskId::NONE, .. } => return,
        Change::Told { task } => (Line::Told { task: task.0 }, None),
        Change::Answered { task, msg_id, .. } => {
            (Line::Answered { task: task.0, msg_id: msg_id.clone() }, None)
        }
        Change::Said(Said { channel, engine, message }) => {
            let line = Line::Said { channel: channel_number(*channel), engine: engine.clone() };
            (line, Some(WireMessage { signature: Bytes::new(), ..message.clone() }))
        }
        Change::Arrived { count } => (Line::Arrived { count: *count }, None),
        Change::Owed => (Line::Owed, None),
        Change::Repeated => (Line::Repeated, None),
        Change::Aborted { msg_ids } => (Line::Aborted { msg_ids: msg_ids.clone() }, None),
        Change::Noted { session, msg_id } => {
            (Line::Noted { session: session.clone(), msg_id: msg_id.clone() }, None)
        }
        Change::Missed { session, msg_id, told } => {
            let (session, msg_id) = (session.clone(), msg_id.clone());
            (Line::Missed { session, msg_id, told: *told }, None)
        }
        Change::Ended { name, ok, engine } => (Line::Ended { name: *name, ok: *ok, engine: *engine }, None),
        Change::Joined { id, engine, description } => {
            let description = Box::new(description.clone());
            (Line::Joined { id: *id, engine: engine.clone(), description }, None)
        }
        Change::Joining { id, engine, description } => {
            let description = Box::new(description.clone());
            (Line::Joining { id: *id, engine: engine.clone(), description }, None)
        }
        Change::Expected { id, engine, description } => {
            let description = Box::new(description.clone());
            (Line::Expected { id: *id, engine: engine.clone(), description }, None)
        }
        Change::Left { id, engine } => (Line::Left { id: *id, engine: engine.clone() }, None),
        Change::Output { .. } | Change::Resubmitted { .. } => return,
    };
    append(&line, message.as_ref(), out);
}

fn append(line: &Line, message: Option<&WireMessage>, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; PREFIX_BYTES]);
    serde_json::to_writer(&mut *out, line)
        .expect("our lines are plain data, and a vector takes what is written");
    out.push(b'\n');
    if let Some(message) = message {
        let WireMessage { signature, header, parent_header, metadata, content, buffers } = message;
        for frame in [signature, header, parent_header, metadata, content].into_iter().chain(buffers) {
            out.extend_from_slice(&length_of(frame.len()));
            out.extend_from_slice(frame);
        }
    }
    let body = start + PREFIX_BYTES;
    let (length, sum) = (length_of(out.len() - body), checksum(&out[body..]).to_le_bytes());
    out[start..start + 4].copy_from_slice(&length);
    out[start + 4..body].copy_from_slice(&sum);
}

/// Frames of messages are far below 4 GiB each; an entry beyond that is damaged when it is read.
fn length_of(bytes: usize) -> [u8; 4] {
    u32::try_from(bytes).unwrap_or(u32::MAX).to_le_bytes()
}

/// Takes the first entry off; `None` when nothing is left.
pub(crate) fn decode(bytes: &mut Bytes) -> Result<Option<Change>, EntryError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let number = |at: usize| -> Option<u32> {
        Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().expect("four bytes")))
    };
    let (Some(length), Some(sum)) = (number(0), number(4)) else { return Err(EntryError::Torn) };
    let end = PREFIX_BYTES + usize::try_from(length).map_err(|_| EntryError::Damaged)?;
    if bytes.len() < end {
        return Err(EntryError::Torn);
    }
    let body = bytes.split_to(end).slice(PREFIX_BYTES..);
    if checksum(&body) != sum {
        return Err(EntryError::Damaged);
    }
    let line_end = body.iter().position(|byte| *byte == b'\n').ok_or(EntryError::Damaged)?;
    let line = serde_json::from_slice(&body[..line_end]).map_err(|_| EntryError::Damaged)?;
    change(line, read_message(body.slice(line_end + 1..))?).map(Some)
}

fn read_message(mut body: Bytes) -> Result<Option<WireMessage>, EntryError> {
    if body.is_empty() {
        return Ok(None);
    }
    let mut frames = vec![];
    while !body.is_empty() {
        let length = body.get(..4).ok_or(EntryError::Damaged)?.try_into().expect("four bytes");
        let end = usize::try_from(u32::from_le_bytes(length)).map_err(|_| EntryError::Damaged)? + 4;
        if body.len() < end {
            return Err(EntryError::Damaged);
        }
        frames.push(body.split_to(end).slice(4..));
    }
    let mut frames = frames.into_iter();
    let mut next = || frames.next().ok_or(EntryError::Damaged);
    let (signature, header, parent_header) = (next()?, next()?, next()?);
    let (metadata, content) = (next()?, next()?);
    Ok(Some(WireMessage { signature, header, parent_header, metadata, content, buffers: frames.collect() }))
}

fn change(line: Line, message: Option<WireMessage>) -> Result<Change, EntryError> {
    let needed = |message: Option<WireMessage>| message.ok_or(EntryError::Damaged);
    // Sessions are in the requests' headers; connections ended with the controller that had them.
    let client = |channel, nobody| Client {
        channel,
        address: if nobody { Address::Nobody } else { Address::Connection(Bytes::new()) },
    };
    Ok(match line {
        Line::Submitted { task, msg_id, channel, nobody, engine } => {
            let (channel, queue) = channel_of(channel).ok_or(EntryError::Damaged)?;
            let (task, client, request) = (TaskId(task), client(channel, nobody), needed(message)?);
            Change::Submitted { task, msg_id, client, queue, engine, request }
        }
        Line::Gathering { broadcast, msg_id, nobody } => {
            let (broadcast, client) = (TaskId(broadcast), client(Channel::Broadcast, nobody));
            Change::Gathering { broadcast, msg_id, client, request: needed(message)? }
        }
        Line::Shared { task, broadcast, place, engine } => {
            Change::Shared { task: TaskId(task), broadcast: TaskId(broadcast), place, engine }
        }
        Line::Gathered { task, status } => {
            Change::Gathered { task: TaskId(task), status, reply: needed(message)? }
        }
        Line::Assigned { task, msg_id, engine } => Change::Assigned { task: TaskId(task), msg_id, engine },
        Line::Returned { task, engine, retried } => Change::Returned { task: TaskId(task), engine, retried },
        Line::Replied { task, msg_id, engine, status } => {
            Change::Replied { task: TaskId(task), msg_id, engine, status, reply: nothing() }
        }
        Line::Answered { task, msg_id } => Change::Answered {
            task: TaskId(task),
            msg_id,
            engine: None,
            msg_type: String::new(),
            metadata: Json::Null,
            content: Json::Null,
            buffers: vec![],
        },
        Line::Asked { task, msg_id, engine } => {
            let (client, request) = (client(Channel::Control, false), needed(message)?);
            Change::Asked { task: TaskId(task), msg_id, client, engine, request }
        }
        Line::Told { task } => Change::Told { task: TaskId(task) },
        Line::Said { channel, engine } => {
            let channel = any_channel_of(channel).ok_or(EntryError::Damaged)?;
            Change::Said(Said { channel, engine, message: needed(message)? })
        }
        Line::Arrived { count } => Change::Arrived { count },
        Line::Owed => Change::Owed,
        Line::Repeated => Change::Repeated,
        Line::Aborted { msg_ids } => Change::Aborted { msg_ids },
        Line::Noted { session, msg_id } => Change::Noted { session, msg_id },
        Line::Missed { session, msg_id, told } => Change::Missed { session, msg_id, told },
        Line::Ended { name, ok, engine } => Change::Ended { name, ok, engine },
        Line::Joined { id, engine, description } => Change::Joined { id, engine, description: *description },
        Line::Joining { id, engine, description } => {
            Change::Joining { id, engine, description: *description }
        }
        Line::Expected { id, engine, description } => {
            Change::Expected { id, engine, description: *description }
        }
        Line::Left { id, engine } => Change::Left { id, engine },
    })
}

fn noted(request: &WireMessage) -> Option<Line> {
    let header: protocol::Header = serde_json::from_slice(&request.header).ok()?;
    Some(Line::Noted { session: header.session, msg_id: header.msg_id })
}

/// What is needed to answer a request, without what it carries.
fn head(request: &WireMessage) -> WireMessage {
    let content = Bytes::from_static(b"{}");
    WireMessage { signature: Bytes::new(), content, buffers: vec![], ..request.clone() }
}

/// In place of a reply that was not kept.
fn nothing() -> WireMessage {
    let empty = Bytes::new;
    WireMessage {
        signature: empty(),
        header: empty(),
        parent_header: empty(),
        metadata: empty(),
        content: empty(),
        buffers: vec![],
    }
}

fn channel_number(channel: Channel) -> u8 {
    match channel {
        Channel::Mux => 0,
        Channel::Task => 1,
        Channel::Broadcast => 2,
        Channel::Control => 3,
    }
}

fn any_channel_of(number: u8) -> Option<Channel> {
    Channel::ALL.into_iter().find(|channel| channel_number(*channel) == number)
}

fn channel_of(number: u8) -> Option<(Channel, Queue)> {
    Some(match number {
        0 => (Channel::Mux, Queue::Mux),
        1 => (Channel::Task, Queue::Task),
        2 => (Channel::Broadcast, Queue::Broadcast),
        _ => return None,
    })
}

/// FNV-1a over eight bytes at a time: to tell a torn or damaged entry from a whole one, no more.
fn checksum(bytes: &[u8]) -> u32 {
    let mut sum = 0xcbf2_9ce4_8422_2325_u64;
    let mut words = bytes.chunks_exact(8);
    for word in &mut words {
        let word = u64::from_le_bytes(word.try_into().expect("eight bytes"));
        sum = (sum ^ word).wrapping_mul(0x0100_0000_01b3);
    }
    for byte in words.remainder() {
        sum = (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    (sum ^ (sum >> 32)) as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(buffers: &[&'static [u8]]) -> WireMessage {
        let header = br#"{"msg_id":"s_1_2","msg_type":"apply_request","session":"s","version":"5.4"}"#;
        WireMessage {
            signature: Bytes::from_static(b"f00d"),
            header: Bytes::from_static(header),
            parent_header: Bytes::from_static(b"{}"),
            metadata: Bytes::from_static(b"{\"retries\":1}"),
            content: Bytes::from_static(b"{\"a\":1}"),
            buffers: buffers.iter().map(|buffer| Bytes::from_static(buffer)).collect(),
        }
    }

    fn client(channel: Channel) -> Client {
        Client { channel, address: Address::Connection(Bytes::new()) }
    }

    /// One of each, as they come back.
    fn changes() -> Vec<Change> {
        let (engine, msg_id) = (EngineUuid::from("e0"), MsgId::from("s_1_2"));
        vec![
            Change::Joined {
                id: EngineId(3),
                engine: engine.clone(),
                description: EngineDescription::default(),
            },
            Change::Joining {
                id: EngineId(4),
                engine: "e1".into(),
                description: EngineDescription::default(),
            },
            Change::Expected {
                id: EngineId(4),
                engine: "e1".into(),
                description: EngineDescription::default(),
            },
            Change::Submitted {
                task: TaskId(1),
                msg_id: msg_id.clone(),
                client: client(Channel::Task),
                queue: Queue::Task,
                engine: None,
                request: message(&[b"bulk", b""]),
            },
            Change::Submitted {
                task: TaskId(2),
                msg_id: msg_id.clone(),
                client: Client { channel: Channel::Mux, address: Address::Nobody },
                queue: Queue::Mux,
                engine: Some(engine.clone()),
                request: head(&message(&[])),
            },
            Change::Asked {
                task: TaskId(4),
                msg_id: msg_id.clone(),
                client: client(Channel::Control),
                engine: engine.clone(),
                request: head(&message(&[])),
            },
            Change::Told { task: TaskId(4) },
            Change::Gathering {
                broadcast: TaskId(3),
                msg_id: msg_id.clone(),
                client: client(Channel::Broadcast),
                request: head(&message(&[])),
            },
            Change::Shared { task: TaskId(3), broadcast: TaskId(3), place: 1, engine: engine.clone() },
            Change::Gathered { task: TaskId(3), status: Status::Error, reply: message(&[b"x"]) },
            Change::Assigned { task: TaskId(1), msg_id: msg_id.clone(), engine: engine.clone() },
            Change::Returned { task: TaskId(1), engine: EngineId(3), retried: true },
            Change::Replied {
                task: TaskId(1),
                msg_id: msg_id.clone(),
                engine,
                status: Status::Ok,
                reply: nothing(),
            },
            Change::Said(Said {
                channel: Channel::Control,
                engine: Some("e0".into()),
                message: WireMessage { signature: Bytes::new(), ..message(&[b"result"]) },
            }),
            Change::Arrived { count: 3 },
            Change::Owed,
            Change::Repeated,
            Change::Aborted { msg_ids: vec![msg_id.clone(), "other".into()] },
            Change::Noted { session: "s".into(), msg_id: msg_id.clone() },
            Change::Missed { session: "s".into(), msg_id, told: true },
            Change::Ended { name: 77, ok: true, engine: Some(EngineId(3)) },
            Change::Left { id: EngineId(3), engine: "e0".into() },
        ]
    }

    fn written() -> Vec<u8> {
        let mut bytes = vec![];
        changes().iter().for_each(|change| encode(change, &mut bytes));
        bytes
    }

    fn read(mut bytes: Bytes) -> (Vec<Change>, Option<EntryError>) {
        let mut changes = vec![];
        loop {
            match decode(&mut bytes) {
                Ok(Some(change)) => changes.push(change),
                Ok(None) => return (changes, None),
                Err(error) => return (changes, Some(error)),
            }
        }
    }

    #[test]
    fn changes_come_back_as_they_were_written() {
        assert_eq!(read(written().into()), (changes(), None));
    }

    #[test]
    fn a_direct_request_is_written_without_what_it_carries() {
        let mut bytes = vec![];
        let buffers = [&[7_u8; 100_000][..]];
        let request = WireMessage { buffers: vec![Bytes::from_static(&[7; 100_000])], ..message(&[]) };
        assert_eq!(request.buffers[0], buffers[0]);
        let change = Change::Submitted {
            task: TaskId(2),
            msg_id: "m".into(),
            client: client(Channel::Mux),
            queue: Queue::Mux,
            engine: None,
            request,
        };
        encode(&change, &mut bytes);
        assert!(bytes.len() < 1000, "{}", bytes.len());
    }

    proptest! {
        #[test]
        fn a_torn_journal_is_read_up_to_its_last_whole_entry(cut in any::<prop::sample::Index>()) {
            let bytes = written();
            let cut = cut.index(bytes.len());
            let (found, error) = read(Bytes::from(bytes).slice(..cut));
            prop_assert_eq!(&found[..], &changes()[..found.len()]);
            prop_assert!(error.is_none_or(|error| error == EntryError::Torn));
        }

        #[test]
        fn a_flipped_bit_is_noticed_and_nothing_panics(place in any::<prop::sample::Index>(), bit in 0..8_u8) {
            let mut bytes = written();
            let place = place.index(bytes.len());
            bytes[place] ^= 1 << bit;
            let (found, error) = read(bytes.into());
            prop_assert!(error.is_some());
            prop_assert_eq!(&found[..], &changes()[..found.len()]);
        }
    }
}
