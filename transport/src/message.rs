//! One frame as libzmq holds it, and how it becomes or is made from [`Bytes`].

use std::ffi::CStr;
use std::os::fd::RawFd;
use std::os::raw::{c_int, c_void};

use bytes::Bytes;
use zmq_sys::zmq_msg_t;

use crate::error::{Errno, TransportError, check};

/// Frames below this many bytes are copied, in both directions.
///
/// Below it, libzmq hands out received frames inside its shared 8 KiB receive buffer: not aligned, and holding
/// all of the buffer alive. Copying such a frame takes less than the allocations that lending it would.
pub(crate) const COPY_BELOW: usize = 8 * 1024;

/// Property of a message; deprecated in `zmq.h` without a replacement, so `zmq-sys` leaves it out.
const ZMQ_SRCFD: c_int = 2;

/// An initialised `zmq_msg_t`, closed when dropped.
pub(crate) struct Message(zmq_msg_t);

// SAFETY: libzmq passes messages between threads itself; contents are reference counted with atomics. What our
// own messages lend is `Bytes`, which is Send.
unsafe impl Send for Message {}
// SAFETY: through a shared reference only the data and size are read, which nothing changes before the drop.
unsafe impl Sync for Message {}

impl Message {
    /// An empty frame, to receive into.
    pub(crate) fn empty() -> Message {
        let mut message = zmq_msg_t::default();
        // SAFETY: the place is valid; this initialises it. It cannot fail (zmq_msg_init(3)).
        unsafe { zmq_sys::zmq_msg_init(&mut message) };
        Message(message)
    }

    /// A frame with the same bytes: a copy if they are few, else a loan that libzmq ends by dropping a clone.
    pub(crate) fn from_bytes(bytes: &Bytes) -> Result<Message, TransportError> {
        if bytes.len() < COPY_BELOW { Message::copy(bytes) } else { Message::lend(bytes.clone()) }
    }

    pub(crate) fn copy(bytes: &[u8]) -> Result<Message, TransportError> {
        let mut message = zmq_msg_t::default();
        // SAFETY: the place is valid; on success it is initialised with room for the bytes.
        check(unsafe { zmq_sys::zmq_msg_init_size(&mut message, bytes.len()) })
            .map_err(|_| TransportError::Memory { bytes: bytes.len() })?;
        // SAFETY: the message was initialised above with exactly this size and is not shared yet.
        unsafe {
            let data = zmq_sys::zmq_msg_data(&mut message).cast::<u8>();
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), data, bytes.len());
        }
        Ok(Message(message))
    }

    fn lend(bytes: Bytes) -> Result<Message, TransportError> {
        let length = bytes.len();
        let data = bytes.as_ptr().cast_mut().cast::<c_void>();
        let owner = Box::into_raw(Box::new(bytes));
        let mut message = zmq_msg_t::default();
        // SAFETY: `data` stays valid and unchanged as long as the boxed `Bytes` lives, which is until libzmq
        // calls `return_loan` with it, exactly once and from any thread (`Bytes` is Send). libzmq never writes
        // to the data of a message that it sends.
        let result = unsafe {
            zmq_sys::zmq_msg_init_data(&mut message, data, length, Some(return_loan), owner.cast())
        };
        if result == -1 {
            // SAFETY: on failure libzmq did not take the data and will not call `return_loan`.
            drop(unsafe { Box::from_raw(owner) });
            return Err(TransportError::Memory { bytes: length });
        }
        Ok(Message(message))
    }

    /// Receives the next frame into `self`, replacing what was there.
    pub(crate) fn receive(&mut self, socket: *mut c_void) -> Result<(), Errno> {
        // SAFETY: `self` is an initialised message; the caller's socket is alive.
        check(unsafe { zmq_sys::zmq_msg_recv(&mut self.0, socket, zmq_sys::ZMQ_DONTWAIT as c_int) }).map(drop)
    }

    /// Sends the frame; on failure it is still ours.
    pub(crate) fn send(&mut self, socket: *mut c_void, more: bool) -> Result<(), Errno> {
        let flags = zmq_sys::ZMQ_DONTWAIT | if more { zmq_sys::ZMQ_SNDMORE } else { 0 };
        // SAFETY: `self` is an initialised message; the caller's socket is alive. On success libzmq leaves an
        // empty initialised message behind, which `drop` closes.
        check(unsafe { zmq_sys::zmq_msg_send(&mut self.0, socket, flags as c_int) }).map(drop)
    }

    /// Whether more frames of the same message follow.
    pub(crate) fn more(&self) -> bool {
        // SAFETY: `self` is an initialised message.
        unsafe { zmq_sys::zmq_msg_more(&self.0) != 0 }
    }

    /// The file descriptor of the connection that it came over; none for `inproc`.
    pub(crate) fn source_fd(&self) -> Option<RawFd> {
        // SAFETY: `self` is an initialised message.
        let fd = unsafe { zmq_sys::zmq_msg_get(&self.0, ZMQ_SRCFD) };
        (fd >= 0).then_some(fd)
    }

    /// The address of the peer without its port.
    pub(crate) fn peer_address(&self) -> Option<Box<str>> {
        // SAFETY: `self` is an initialised message and the name is NUL-terminated. The result belongs to the
        // message and is copied at once.
        unsafe {
            let address = zmq_sys::zmq_msg_gets(&self.0, c"Peer-Address".as_ptr());
            (!address.is_null()).then(|| CStr::from_ptr(address).to_string_lossy().into())
        }
    }
}

/// Ends a loan made by [`Message::lend`].
unsafe extern "C" fn return_loan(_data: *mut c_void, owner: *mut c_void) {
    // SAFETY: `owner` is what `lend` made with `Box::into_raw`; libzmq calls this once per message.
    drop(unsafe { Box::from_raw(owner.cast::<Bytes>()) });
}

impl AsRef<[u8]> for Message {
    fn as_ref(&self) -> &[u8] {
        let message = (&raw const self.0).cast_mut();
        // SAFETY: `self` is an initialised message. zmq_msg_data takes a mutable pointer but only reads. The
        // data stays put until `self` is changed or dropped, which the borrow excludes; if small it lies within
        // `self`, so it moves with it.
        unsafe {
            let length = zmq_sys::zmq_msg_size(message);
            if length == 0 {
                return &[];
            }
            std::slice::from_raw_parts(zmq_sys::zmq_msg_data(message).cast::<u8>(), length)
        }
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        // SAFETY: `self` is an initialised message and closed only here.
        unsafe { zmq_sys::zmq_msg_close(&mut self.0) };
    }
}
