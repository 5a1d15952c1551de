//! What each fuzz target does with its input. The same bodies replay the corpus as ordinary tests.
#![allow(dead_code, reason = "each fuzz target is its own program and calls one of them")]

use bytes::Bytes;
use protocol::connection_file::{ClientFile, EngineFile};
use protocol::{Date, Header, Key, Receiver, Session, Signer, frames, value};

/// Cuts the input into frames: each begins with its length in two bytes.
fn cut(mut data: &[u8]) -> Vec<Bytes> {
    let mut parts = Vec::new();
    while let [high, low, rest @ ..] = data {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
        let (part, others) = rest.split_at(length);
        parts.push(Bytes::copy_from_slice(part));
        data = others;
    }
    parts
}

/// Splitting never panics, what was split joins to the same frames, and the whole gate (without a key, so that
/// random input gets behind the signature) never panics; with a key, nothing random passes.
pub(crate) fn frames(data: &[u8]) {
    let parts = cut(data);
    if let Ok((routing, message)) = frames::split(parts.clone()) {
        assert_eq!(message.to_parts(&routing), parts);
    }
    let mut unsigned = Receiver::new(Signer::new(&Key::new("")));
    if let Ok((_, message)) = unsigned.open(parts.clone()) {
        let _ = message.parent();
        let _ = message.content::<protocol::message::execute::ExecuteRequest>();
        let _ = message.content::<protocol::message::execute::ApplyRequest>();
        let _ = message.content::<protocol::message::hub::RegistrationRequest>();
        let _ = message.content::<protocol::message::hub::QueueRequest>();
        let _ = message.content::<protocol::message::control::AbortRequest>();
        let _ = message.content::<protocol::message::control::SignalRequest>();
        let _ = message.content::<protocol::error::ErrorContent>();
        let _ = message.metadata::<protocol::message::execute::TaskMetadata>();
        let _ = message.metadata::<protocol::message::execute::BroadcastMetadata>();
        let _ = message.metadata::<protocol::message::execute::ReplyMetadata>();
    }
    let mut signed = Receiver::new(Signer::new(&Key::new("a key that the fuzzer does not have")));
    assert!(signed.open(parts).is_err());
}

/// Reading a header never panics, and what was read survives being written.
pub(crate) fn header(data: &[u8]) {
    if let Ok(header) = serde_json::from_slice::<Header>(data) {
        let text = serde_json::to_vec(&header).expect("a header is plain data");
        let again: Header = serde_json::from_slice(&text).expect("it was just written");
        assert_eq!(header, again);
    }
    if let Ok(text) = std::str::from_utf8(data)
        && let Some(date) = Date::parse(text)
    {
        assert_eq!(Date::parse(&date.to_string()), Some(date));
    }
    let mut session = Session::new("s".into(), "u", 1, &Key::new("k"));
    let content = serde_json::json!({ "text": String::from_utf8_lossy(data) });
    let message = session.message(Date::from_micros(0), "t", &serde_json::json!({}), &content, vec![]);
    let mut receiver = Receiver::new(session.signer().clone());
    assert!(receiver.open(message.to_parts(&[])).is_ok(), "whatever we write, we read");
}

/// Reading a connection file never panics, and what was read survives being written.
pub(crate) fn connection_file(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(file) = ClientFile::parse(text) {
        let written = serde_json::to_string(&file).expect("plain data");
        assert_eq!(ClientFile::parse(&written), Ok(file));
    }
    if let Ok(file) = EngineFile::parse(text) {
        let _ = file.broadcast_port(protocol::id::EngineId(u32::MAX));
        let written = serde_json::to_string(&file).expect("plain data");
        assert_eq!(EngineFile::parse(&written), Ok(file));
    }
}

/// Reading a value never panics; a value that was read survives the wire (NaN compares by its text).
pub(crate) fn value(data: &[u8]) {
    let parts = cut(data);
    let Some((described, buffers)) = parts.split_first() else { return };
    let Ok(json) = serde_json::from_slice(described) else { return };
    if let Ok(read) = value::decode(&json, buffers) {
        let mut written = Vec::new();
        let description = value::encode(&read, &mut written);
        let again = value::decode(&description, &written).expect("it was just written");
        assert_eq!(format!("{read:?}"), format!("{again:?}"));
    }
}
