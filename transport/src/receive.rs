//! Receiving one whole message: few allocations, bounded in frames and bytes.

use std::cell::RefCell;
use std::os::fd::RawFd;

use bytes::Bytes;

use crate::error::TransportError;
use crate::message::{COPY_BELOW, Message};
use crate::socket::{Socket, SocketKind};

/// Scratch memory above this is given back after a message, so that one large message does not cost for ever.
const SCRATCH_KEPT_BYTES_MAX: usize = 256 * 1024;

/// What [`Socket::receive`] took from the socket.
#[derive(Debug)]
pub enum Received {
    /// A message within the bounds.
    Message(Multipart),
    /// A message beyond the socket's bounds. It was read to its end and dropped; the socket is fine.
    Oversized(Oversized),
}

/// All frames of one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Multipart {
    /// The frames, at least one. Of a ROUTER socket the first is the sender's identity.
    ///
    /// Frames below 8 KiB share one allocation, each aligned to 8 bytes; larger ones are libzmq's own memory,
    /// aligned as well. Keep a small frame for long only as a copy: it holds its neighbours alive.
    pub parts: Vec<Bytes>,
    /// The connection that it came over (none for `inproc`). Numbers are reused: see
    /// [`connections`](crate::connections).
    pub source_fd: Option<RawFd>,
    /// The peer's address without port, if [`SocketOptions::peer_address`](crate::SocketOptions) asked for it.
    pub peer_address: Option<Box<str>>,
}

/// What is known of a message that was too large to keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Oversized {
    /// Its first frame if that was below 8 KiB: of a ROUTER socket the sender's identity.
    pub first: Option<Bytes>,
    /// How many frames it had.
    pub part_count: usize,
    /// How many bytes.
    pub byte_count: u64,
    /// The connection that it came over.
    pub source_fd: Option<RawFd>,
}

/// Where a message came from.
#[derive(Default)]
struct Origin {
    source_fd: Option<RawFd>,
    peer_address: Option<Box<str>>,
}

impl Origin {
    /// What is known already, else what the frame knows.
    fn or_of(self, frame: &Message, with_address: bool) -> Origin {
        if self.source_fd.is_some() {
            return self;
        }
        let peer_address = if with_address { frame.peer_address() } else { None };
        Origin { source_fd: frame.source_fd(), peer_address }
    }
}

/// Where small frames are gathered before their one allocation; kept by the socket between messages.
#[derive(Default)]
pub(crate) struct Scratch {
    bytes: Vec<u8>,
    /// Index of the frame, where it starts in `bytes`, its length.
    small: Vec<(usize, usize, usize)>,
}

impl Socket {
    /// Takes the next whole message, or `None` if there is none now. Never blocks.
    ///
    /// A poll loop should call it until it returns `None`, or a bounded number of times per socket and round.
    pub fn receive(&self) -> Result<Option<Received>, TransportError> {
        let mut frame = Message::empty();
        if !self.receive_frame(&mut frame)? {
            return Ok(None);
        }
        let mut origin = Origin::default();
        let mut collector = Collector::new(&self.scratch);
        loop {
            let more = frame.more();
            let length = frame.as_ref().len() as u64;
            if collector.part_count() == self.origin_part() {
                origin = origin.or_of(&frame, self.bounds.peer_address);
            }
            if collector.part_count() == self.bounds.parts_max
                || collector.byte_count.saturating_add(length) > self.bounds.message_bytes_max
            {
                return self.drop_rest(frame, collector, origin).map(Some);
            }
            frame = collector.push(frame);
            if !more {
                break;
            }
            // The parts of a message arrive together, so this cannot find nothing.
            if !self.receive_frame(&mut frame)? {
                break;
            }
        }
        let Origin { source_fd, peer_address } = origin;
        Ok(Some(Received::Message(Multipart { parts: collector.finish(), source_fd, peer_address })))
    }

    /// Which frame tells where a message came from: a ROUTER makes the identity frame itself, and while polling
    /// it makes one without that knowledge.
    fn origin_part(&self) -> usize {
        usize::from(self.kind() == SocketKind::Router)
    }

    fn drop_rest(
        &self,
        mut frame: Message,
        collector: Collector<'_>,
        origin: Origin,
    ) -> Result<Received, TransportError> {
        let mut oversized = Oversized {
            part_count: collector.part_count() + 1,
            byte_count: collector.byte_count.saturating_add(frame.as_ref().len() as u64),
            first: collector.into_first(),
            source_fd: origin.or_of(&frame, false).source_fd,
        };
        while frame.more() && self.receive_frame(&mut frame)? {
            oversized.part_count = oversized.part_count.saturating_add(1);
            oversized.byte_count = oversized.byte_count.saturating_add(frame.as_ref().len() as u64);
        }
        Ok(Received::Oversized(oversized))
    }

    /// `false` if there is nothing to receive.
    fn receive_frame(&self, frame: &mut Message) -> Result<bool, TransportError> {
        loop {
            match frame.receive(self.as_ptr()) {
                Ok(()) => return Ok(true),
                Err(errno) if errno.would_block() => {
                    // libzmq has looked for news before it said so.
                    self.settle();
                    return Ok(false);
                }
                Err(errno) if errno.interrupted() => {}
                Err(source) => return Err(TransportError::Operation { operation: "receive", source }),
            }
        }
    }
}

/// Sorts frames into copied and lent ones.
struct Collector<'a> {
    scratch: std::cell::RefMut<'a, Scratch>,
    parts: Vec<Bytes>,
    byte_count: u64,
}

impl<'a> Collector<'a> {
    fn new(scratch: &'a RefCell<Scratch>) -> Self {
        let mut scratch = scratch.borrow_mut();
        scratch.bytes.clear();
        scratch.small.clear();
        // Nine frames is a request or reply with two buffers.
        Collector { scratch, parts: Vec::with_capacity(9), byte_count: 0 }
    }

    fn part_count(&self) -> usize {
        self.parts.len()
    }

    /// Takes the frame, returns one to receive the next into.
    fn push(&mut self, frame: Message) -> Message {
        let data = frame.as_ref();
        let length = data.len();
        self.byte_count += length as u64;
        if length >= COPY_BELOW {
            self.parts.push(Bytes::from_owner(frame));
            return Message::empty();
        }
        if length > 0 {
            let scratch = &mut *self.scratch;
            let start = scratch.bytes.len().next_multiple_of(8);
            scratch.bytes.resize(start, 0);
            scratch.bytes.extend_from_slice(data);
            scratch.small.push((self.parts.len(), start, length));
        }
        self.parts.push(Bytes::new());
        frame
    }

    /// A copy of the first frame if it is small, so that what is dropped is not held alive by it.
    fn into_first(self) -> Option<Bytes> {
        let first = self.finish().into_iter().next().filter(|first| first.len() < COPY_BELOW)?;
        Some(Bytes::copy_from_slice(&first))
    }

    fn finish(mut self) -> Vec<Bytes> {
        let scratch = &mut *self.scratch;
        let gathered = Bytes::copy_from_slice(&scratch.bytes);
        for &(index, start, length) in &scratch.small {
            self.parts[index] = gathered.slice(start..start + length);
        }
        if scratch.bytes.capacity() > SCRATCH_KEPT_BYTES_MAX {
            *scratch = Scratch::default();
        }
        std::mem::take(&mut self.parts)
    }
}
