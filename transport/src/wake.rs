//! Waking a poll loop from another thread or from a signal handler.

use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::TransportError;

/// The side that wakes. Clones wake the same loop.
#[derive(Clone, Debug)]
pub struct Waker(Arc<Pair>);

/// The side of the loop: poll it with `PollItem::from(&receiver)`, and [`clear`](WakeReceiver::clear) it *before*
/// looking at what may have caused the wake-up.
#[derive(Debug)]
pub struct WakeReceiver(Arc<Pair>);

/// Both ends, owned by both sides: no side ever writes to a closed socket.
#[derive(Debug)]
struct Pair {
    /// Set while a byte of ours is on its way, so that a thousand wake-ups cost one system call.
    pending: AtomicBool,
    writer: UnixStream,
    reader: UnixStream,
}

/// A connected pair.
pub fn waker() -> Result<(Waker, WakeReceiver), TransportError> {
    let (writer, reader) = UnixStream::pair().map_err(TransportError::Waker)?;
    for end in [&writer, &reader] {
        end.set_nonblocking(true).map_err(TransportError::Waker)?;
    }
    let pair = Arc::new(Pair { pending: AtomicBool::new(false), writer, reader });
    Ok((Waker(Arc::clone(&pair)), WakeReceiver(pair)))
}

impl Waker {
    /// Makes the receiver readable. What was written to memory before is seen by whoever clears it.
    ///
    /// Never blocks, takes no lock and allocates nothing, so a signal handler may call it (it may change `errno`).
    pub fn wake(&self) {
        if !self.0.pending.swap(true, Ordering::AcqRel) {
            // A full buffer is as good as a byte: the receiver is readable. There is no other error, as both
            // ends are open for as long as `self`.
            let _ = (&self.0.writer).write(&[1]);
        }
    }

    /// The end to write a byte to by other means, such as `signal_hook::low_level::pipe::register`.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.writer.as_fd()
    }
}

impl WakeReceiver {
    /// Takes back all wake-ups so far; returns whether there was one.
    pub fn clear(&self) -> bool {
        let mut woken = false;
        let mut buffer = [0_u8; 64];
        while let Ok(count @ 1..) = (&self.0.reader).read(&mut buffer) {
            woken = true;
            if count < buffer.len() {
                break; // That was all: a byte that comes later is a wake-up of its own.
            }
        }
        // After the read: were it before, a byte written between the two would be eaten and the mark left set.
        // A waker that still sees the mark has made its change before this, and the loop looks after this.
        self.0.pending.swap(false, Ordering::AcqRel);
        woken
    }

    /// The end to poll.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.reader.as_fd()
    }

    /// Another waker of this loop.
    pub fn waker(&self) -> Waker {
        Waker(Arc::clone(&self.0))
    }
}
