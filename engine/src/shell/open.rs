//! Opening what a socket received: refusals are counted, logged with their sender, and dropped.

use bytes::Bytes;
use protocol::{Message, Receiver};
use transport::Received;

/// The routing frames and the message; none if it was refused.
pub fn open(receiver: &mut Receiver, received: Received, channel: &str) -> Option<(Vec<Bytes>, Message)> {
    match received {
        Received::Message(multipart) => {
            let sender = multipart.parts.first().cloned().unwrap_or_default();
            match receiver.open(multipart.parts) {
                Ok(opened) => Some(opened),
                Err(refusal) => {
                    tracing::warn!(channel, sender = %name(&sender), reason = %refusal, "message refused");
                    None
                }
            }
        }
        Received::Oversized(oversized) => {
            let sender = oversized.first.unwrap_or_default();
            let (frames, bytes) = (oversized.part_count, oversized.byte_count);
            tracing::warn!(channel, sender = %name(&sender), frames, bytes, "oversized message refused");
            None
        }
    }
}

/// An identity for people: what is not printable is escaped, what is long is cut.
fn name(identity: &[u8]) -> String {
    const SHOWN_MAX: usize = 64;
    identity.get(..SHOWN_MAX).unwrap_or(identity).escape_ascii().to_string()
}
