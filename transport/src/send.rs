//! Sending one whole message, or none of it.

use bytes::Bytes;

use crate::error::TransportError;
use crate::message::Message;
use crate::socket::{Socket, SocketKind};

/// Room for this many frames is kept between messages.
const OUTGOING_KEPT_MAX: usize = 1024;

/// What became of a message given to [`Socket::send`].
#[must_use = "a message that was not taken is the caller's to keep or drop"]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// libzmq has it. On a ROUTER without mandatory routing this includes "dropped, nobody has that identity".
    Done,
    /// Nothing was sent: no peer yet (DEALER, PAIR), or the send high-water mark is reached. Try again later.
    WouldBlock,
    /// Nothing was sent: no peer has this identity. Only a ROUTER with
    /// [`SocketOptions::mandatory`](crate::SocketOptions) says so.
    Unreachable,
}

impl Socket {
    /// Sends all frames as one message, without blocking. Frames from 8 KiB on are lent to libzmq, not copied.
    ///
    /// A ROUTER takes the first frame as the receiver's identity.
    pub fn send<'a>(&self, parts: impl IntoIterator<Item = &'a Bytes>) -> Result<Sent, TransportError> {
        self.send_routed(&[], parts)
    }

    /// As [`Socket::send`], behind short frames that are copied: routes need no memory of their own.
    pub fn send_routed<'a>(
        &self,
        routing: &[&[u8]],
        parts: impl IntoIterator<Item = &'a Bytes>,
    ) -> Result<Sent, TransportError> {
        // All memory is found before the first frame goes: what follows cannot stop half way for want of it.
        let mut outgoing = self.outgoing.borrow_mut();
        outgoing.clear();
        for route in routing {
            outgoing.push(Message::copy(route)?);
        }
        for part in parts {
            outgoing.push(Message::from_bytes(part)?);
        }
        let last = outgoing.len().checked_sub(1).ok_or(TransportError::EmptyMessage)?;
        let mut outcome = Sent::Done;
        for (index, message) in outgoing.iter_mut().enumerate() {
            match self.send_frame(message, index < last)? {
                Sent::Done => {}
                refused if index == 0 || self.kind() != SocketKind::Dealer => {
                    outcome = refused;
                    break;
                }
                // The connection ended between two frames and libzmq has taken back the earlier ones. A DEALER
                // goes on to swallow frames until the message ends, so it must be given that end.
                refused => outcome = refused,
            }
        }
        outgoing.clear();
        outgoing.shrink_to(OUTGOING_KEPT_MAX);
        Ok(outcome)
    }

    fn send_frame(&self, message: &mut Message, more: bool) -> Result<Sent, TransportError> {
        loop {
            let Err(errno) = message.send(self.as_ptr(), more) else {
                return Ok(Sent::Done);
            };
            match errno.code() {
                libc::EINTR => {}
                libc::EAGAIN => return Ok(Sent::WouldBlock),
                libc::EHOSTUNREACH => return Ok(Sent::Unreachable),
                _ => return Err(TransportError::Operation { operation: "send", source: errno }),
            }
        }
    }
}
