//! Waiting for sockets and file descriptors: the only call of this crate that blocks.
//!
//! This is `zmq_poll`, not `epoll` on `ZMQ_FD`: that descriptor is edge-triggered, becomes readable for libzmq's
//! own reasons, and a loop that forgets to look at `ZMQ_EVENTS` after every send sleeps on a full queue.

use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::raw::{c_int, c_long};
use std::time::Duration;

use zmq_sys::zmq_pollitem_t;

use crate::error::{TransportError, check};
use crate::monitor::Monitor;
use crate::socket::Socket;
use crate::wake::WakeReceiver;

/// Something to wait for, and afterwards whether it is ready. Costs nothing to make: build the array anew each
/// round.
#[repr(transparent)]
pub struct PollItem<'a> {
    raw: zmq_pollitem_t,
    source: PhantomData<&'a Socket>,
}

impl<'a> PollItem<'a> {
    /// Ready when a message can be received.
    pub fn socket(socket: &'a Socket) -> PollItem<'a> {
        PollItem::new(zmq_pollitem_t {
            socket: socket.as_ptr(),
            events: READABLE,
            ..zmq_pollitem_t::default()
        })
    }

    /// Ready when bytes can be read, the other end was closed, or an error is pending.
    pub fn fd(fd: BorrowedFd<'a>) -> PollItem<'a> {
        let events = READABLE | zmq_sys::ZMQ_POLLERR as i16;
        PollItem::new(zmq_pollitem_t { fd: fd.as_raw_fd(), events, ..zmq_pollitem_t::default() })
    }

    fn new(raw: zmq_pollitem_t) -> PollItem<'a> {
        PollItem { raw, source: PhantomData }
    }

    /// Wait until it can be written to as well: for a send that answered `WouldBlock`.
    ///
    /// Only while something waits to be sent: most sockets are writable all the time.
    #[must_use]
    pub fn or_writable(mut self) -> PollItem<'a> {
        self.raw.events |= WRITABLE;
        self
    }

    /// Whether the last [`poll`] found something to receive, or an error that reading will tell.
    pub fn is_readable(&self) -> bool {
        self.raw.revents & (READABLE | zmq_sys::ZMQ_POLLERR as i16) != 0
    }

    /// Whether the last [`poll`] found room to send.
    pub fn is_writable(&self) -> bool {
        self.raw.revents & WRITABLE != 0
    }
}

const READABLE: i16 = zmq_sys::ZMQ_POLLIN as i16;
const WRITABLE: i16 = zmq_sys::ZMQ_POLLOUT as i16;

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
/// Returns 0 also when a signal arrived, so that its flag can be looked at: on 0, look at the clock. The timeout
/// is rounded up to milliseconds, so that a deadline has passed when it was waited for, and down to 24 days.
pub fn poll(items: &mut [PollItem<'_>], timeout: Option<Duration>) -> Result<usize, TransportError> {
    let timeout = timeout.map_or(-1, |timeout| {
        c_long::from(i32::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX))
    });
    let count = c_int::try_from(items.len()).expect("a process has fewer sockets than an int can count");
    // SAFETY: `PollItem` has the layout of `zmq_pollitem_t`; the items borrow their sockets and descriptors,
    // so these are open.
    let ready = check(unsafe { zmq_sys::zmq_poll(items.as_mut_ptr().cast(), count, timeout) });
    match ready {
        Ok(ready) => Ok(usize::try_from(ready).unwrap_or(0)),
        Err(errno) if errno.interrupted() => {
            // libzmq may not have written the results; those of an earlier round must not be taken for ours.
            items.iter_mut().for_each(|item| item.raw.revents = 0);
            Ok(0)
        }
        Err(source) => Err(TransportError::Operation { operation: "poll", source }),
    }
}
