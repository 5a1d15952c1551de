//! Waiting for sockets and file descriptors: the only call of this crate that blocks.
//!
//! This is not `zmq_poll`, which asks every socket what it has, at two system calls a socket, each time it is called
//! and again each time it wakes. (Fewer calls; throughput with 64 tasks in flight was the same with either.)
//! Each ZeroMQ socket has a descriptor (`ZMQ_FD`) that becomes readable when libzmq's threads have news for
//! it. A socket need be asked (`ZMQ_EVENTS`) only if its descriptor is readable, or if a call of ours has touched it
//! since it was asked last: such a call may have taken in the news, and the descriptor with it, without telling.
//! [`Socket`] keeps that in mind (`Socket::is_settled`), so no loop can forget it.

use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use crate::error::{Errno, TransportError};
use crate::monitor::Monitor;
use crate::socket::Socket;
use crate::wake::WakeReceiver;

/// Something to wait for, and afterwards whether it is ready. Costs nothing to make: build the array anew each
/// round.
pub struct PollItem<'a> {
    source: Source<'a>,
    wants_to_write: bool,
    readable: bool,
    writable: bool,
}

enum Source<'a> {
    Socket(&'a Socket),
    Fd(libc::c_int, PhantomData<BorrowedFd<'a>>),
}

impl<'a> PollItem<'a> {
    /// Ready when a message can be received.
    pub fn socket(socket: &'a Socket) -> PollItem<'a> {
        PollItem::new(Source::Socket(socket))
    }

    /// Ready when bytes can be read, the other end was closed, or an error is pending.
    pub fn fd(fd: BorrowedFd<'a>) -> PollItem<'a> {
        PollItem::new(Source::Fd(fd.as_raw_fd(), PhantomData))
    }

    fn new(source: Source<'a>) -> PollItem<'a> {
        PollItem { source, wants_to_write: false, readable: false, writable: false }
    }

    /// Wait until it can be written to as well: for a send that answered `WouldBlock`.
    ///
    /// Only while something waits to be sent: most sockets are writable all the time.
    #[must_use]
    pub fn or_writable(mut self) -> PollItem<'a> {
        self.wants_to_write = true;
        self
    }

    /// Whether the last [`poll`] found something to receive, or an error that reading will tell.
    pub fn is_readable(&self) -> bool {
        self.readable
    }

    /// Whether the last [`poll`] found room to send.
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    fn is_ready(&self) -> bool {
        self.readable || self.writable
    }

    /// Asks a socket what it has.
    fn ask(&mut self) -> Result<(), TransportError> {
        if let Source::Socket(socket) = self.source {
            let events = socket.events()?;
            self.readable = events.readable;
            self.writable = self.wants_to_write && events.writable;
        }
        Ok(())
    }

    fn to_pollfd(&self) -> libc::pollfd {
        match self.source {
            Source::Socket(socket) => libc::pollfd { fd: socket.fd(), events: libc::POLLIN, revents: 0 },
            Source::Fd(fd, _) => {
                let writable = if self.wants_to_write { libc::POLLOUT } else { 0 };
                libc::pollfd { fd, events: libc::POLLIN | writable, revents: 0 }
            }
        }
    }
}

impl<'a> From<&'a Socket> for PollItem<'a> {
    fn from(socket: &'a Socket) -> Self {
        PollItem::socket(socket)
    }
}

impl<'a> From<&'a Monitor> for PollItem<'a> {
    fn from(monitor: &'a Monitor) -> Self {
        PollItem::socket(monitor.socket())
    }
}

impl<'a> From<&'a WakeReceiver> for PollItem<'a> {
    fn from(receiver: &'a WakeReceiver) -> Self {
        PollItem::fd(receiver.fd())
    }
}

/// Waits until an item is ready or `timeout` has passed (`None`: for ever) and returns how many are ready.
///
/// Returns 0 also when a signal arrived, so that its flag can be looked at: on 0, look at the clock.
pub fn poll(items: &mut [PollItem<'_>], timeout: Option<Duration>) -> Result<usize, TransportError> {
    poll_awake(items, timeout, Duration::ZERO)
}

/// As [`poll`], but goes on looking for the time `awake` before it sleeps, and yields to whoever wants the core.
///
/// For a relay whose next message comes shortly after the last: a core that has gone idle takes longer to wake than
/// the message takes to pass.
pub fn poll_awake(
    items: &mut [PollItem<'_>],
    timeout: Option<Duration>,
    awake: Duration,
) -> Result<usize, TransportError> {
    let awake_until = (!awake.is_zero()).then(|| Instant::now() + awake);
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    for item in items.iter_mut() {
        (item.readable, item.writable) = (false, false);
        // Room to send is no news that the descriptor tells once a call of ours has found none.
        if matches!(item.source, Source::Socket(socket) if item.wants_to_write || !socket.is_settled()) {
            item.ask()?;
        }
    }
    let mut descriptors: Vec<libc::pollfd> = items.iter().map(PollItem::to_pollfd).collect();
    loop {
        let found = items.iter().any(PollItem::is_ready);
        let left = if found {
            Some(Duration::ZERO)
        } else {
            deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
        };
        let sleeps = found || awake_until.is_none_or(|until| Instant::now() >= until);
        if !sleeps {
            std::thread::yield_now();
        }
        if !wait(&mut descriptors, if sleeps { left } else { Some(Duration::ZERO) })? {
            return Ok(0);
        }
        for (item, descriptor) in items.iter_mut().zip(&descriptors) {
            if descriptor.revents == 0 {
                continue;
            }
            match item.source {
                Source::Socket(_) => item.ask()?,
                Source::Fd(..) => {
                    item.readable = descriptor.revents & !libc::POLLOUT != 0;
                    item.writable = descriptor.revents & libc::POLLOUT != 0;
                }
            }
        }
        // News of a socket need not be a message: then the wait goes on.
        let ready = items.iter().filter(|item| item.is_ready()).count();
        if ready > 0 || left.is_some_and(|left| left.is_zero()) {
            return Ok(ready);
        }
    }
}

/// One `ppoll`. False if a signal arrived.
fn wait(descriptors: &mut [libc::pollfd], timeout: Option<Duration>) -> Result<bool, TransportError> {
    let timeout = timeout.map(|timeout| libc::timespec {
        tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: libc::c_long::from(timeout.subsec_nanos()),
    });
    let timeout = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    let count = descriptors.len() as libc::nfds_t;
    // SAFETY: the array has `count` elements, the timeout is null or valid, and a null mask leaves signals alone.
    match unsafe { libc::ppoll(descriptors.as_mut_ptr(), count, timeout, std::ptr::null()) } {
        -1 => {
            let source = Errno::last();
            if source.interrupted() {
                return Ok(false);
            }
            Err(TransportError::Operation { operation: "poll", source })
        }
        _ => Ok(true),
    }
}
