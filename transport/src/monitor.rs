//! Connections that come and go, as events of one socket.
//!
//! Events of one socket are in the order in which they happened: `Disconnected` of a descriptor is always before
//! the `Accepted` that reuses its number, because libzmq reports the loss before it closes the descriptor. There is
//! **no** order between events and messages: they come over different sockets. See
//! [`connections`](crate::connections) for what to do about it.

use std::os::fd::RawFd;
use std::os::raw::c_int;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use crate::context::Context;
use crate::error::{TransportError, check};
use crate::receive::Received;
use crate::socket::{Socket, SocketKind, SocketOptions};

/// What happened to a connection. Descriptors are this process's numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MonitorEvent {
    /// A bound socket took a connection; its handshake is still to come.
    Accepted {
        /// Of the connection; the same number as [`Multipart::source_fd`](crate::Multipart).
        fd: RawFd,
        /// Our own end.
        endpoint: String,
    },
    /// A connecting socket reached its peer; the handshake is still to come.
    Connected {
        /// Of the connection.
        fd: RawFd,
        /// The peer's end.
        endpoint: String,
    },
    /// Messages flow from here on. libzmq does not say over which descriptor.
    HandshakeSucceeded {
        /// Our own end of a bound socket, the peer's of a connecting one.
        endpoint: String,
    },
    /// The peer spoke another protocol or mechanism, or its keys were refused.
    HandshakeFailed {
        /// As in [`MonitorEvent::HandshakeSucceeded`].
        endpoint: String,
        /// Why.
        reason: HandshakeFailure,
        /// libzmq's code: an errno, or one of `ZMQ_PROTOCOL_ERROR_*`.
        code: i32,
    },
    /// The connection ended, whoever ended it.
    Disconnected {
        /// Of the connection; still open while this is reported, reusable afterwards.
        fd: RawFd,
        /// As in [`MonitorEvent::HandshakeSucceeded`].
        endpoint: String,
    },
    /// We closed a connection or stopped listening.
    Closed {
        /// What was closed.
        fd: RawFd,
        /// As in [`MonitorEvent::HandshakeSucceeded`].
        endpoint: String,
    },
    /// A connection could not be accepted: descriptors have run out, most often.
    AcceptFailed {
        /// Our own end.
        endpoint: String,
        /// The system's reason.
        errno: i32,
    },
    /// The monitored socket was closed; no event follows.
    Stopped,
}

/// Why a handshake failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandshakeFailure {
    /// The peer closed the connection or the handshake took too long: also what a wrong server key looks like.
    NoDetail,
    /// The peer does not speak ZMTP, or speaks it with another mechanism (CURVE against none).
    Protocol,
    /// The peer was refused by an authenticator.
    Refused,
}

/// The events of one socket. Poll it with `PollItem::from(&monitor)`.
#[derive(Debug)]
pub struct Monitor(Socket);

/// Only what has a [`MonitorEvent`]: libzmq makes and queues no other.
const EVENTS: u32 = zmq_sys::ZMQ_EVENT_ACCEPTED
    | zmq_sys::ZMQ_EVENT_ACCEPT_FAILED
    | zmq_sys::ZMQ_EVENT_CONNECTED
    | zmq_sys::ZMQ_EVENT_CLOSED
    | zmq_sys::ZMQ_EVENT_DISCONNECTED
    | zmq_sys::ZMQ_EVENT_HANDSHAKE_SUCCEEDED
    | zmq_sys::ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq_sys::ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq_sys::ZMQ_EVENT_HANDSHAKE_FAILED_AUTH
    | zmq_sys::ZMQ_EVENT_MONITOR_STOPPED;

impl Monitor {
    /// Begins to monitor. Do so before `bind` and `connect`: earlier events are not told.
    pub fn attach(context: &Context, socket: &Socket) -> Result<Monitor, TransportError> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let endpoint = format!("inproc://monitor-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let address = std::ffi::CString::new(endpoint.as_str()).expect("the name has no NUL byte");
        // SAFETY: the socket is alive, the address NUL-terminated.
        check(unsafe { zmq_sys::zmq_socket_monitor(socket.as_ptr(), address.as_ptr(), EVENTS as c_int) })
            .map_err(|source| TransportError::Operation { operation: "monitor", source })?;
        // The default has no high-water mark, and here that is vital: libzmq's IO thread blocks on a full
        // monitor, and with it every connection.
        let receiver = Socket::new(context, SocketKind::Pair, &SocketOptions::default())?;
        receiver.connect(&endpoint)?;
        Ok(Monitor(receiver))
    }

    /// The next event, if there is one. Never blocks.
    pub fn next_event(&self) -> Result<Option<MonitorEvent>, TransportError> {
        while let Some(received) = self.0.receive()? {
            let Received::Message(message) = received else { continue };
            if let Some(event) = parse(&message.parts) {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    pub(crate) fn socket(&self) -> &Socket {
        &self.0
    }
}

/// Reads the two frames of an event: number and value in the machine's byte order, endpoint.
fn parse(parts: &[Bytes]) -> Option<MonitorEvent> {
    let [head, endpoint] = parts else { return None };
    let [e0, e1, value @ ..] = head.as_ref() else { return None };
    let value = i32::from_ne_bytes(value.try_into().ok()?);
    let endpoint = String::from_utf8_lossy(endpoint).into_owned();
    let failed = |reason| MonitorEvent::HandshakeFailed { endpoint: endpoint.clone(), reason, code: value };
    Some(match u32::from(u16::from_ne_bytes([*e0, *e1])) {
        zmq_sys::ZMQ_EVENT_ACCEPTED => MonitorEvent::Accepted { fd: value, endpoint },
        zmq_sys::ZMQ_EVENT_CONNECTED => MonitorEvent::Connected { fd: value, endpoint },
        zmq_sys::ZMQ_EVENT_HANDSHAKE_SUCCEEDED => MonitorEvent::HandshakeSucceeded { endpoint },
        zmq_sys::ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL => failed(HandshakeFailure::NoDetail),
        zmq_sys::ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL => failed(HandshakeFailure::Protocol),
        zmq_sys::ZMQ_EVENT_HANDSHAKE_FAILED_AUTH => failed(HandshakeFailure::Refused),
        zmq_sys::ZMQ_EVENT_DISCONNECTED => MonitorEvent::Disconnected { fd: value, endpoint },
        zmq_sys::ZMQ_EVENT_CLOSED => MonitorEvent::Closed { fd: value, endpoint },
        zmq_sys::ZMQ_EVENT_ACCEPT_FAILED => MonitorEvent::AcceptFailed { endpoint, errno: value },
        zmq_sys::ZMQ_EVENT_MONITOR_STOPPED => MonitorEvent::Stopped,
        _ => return None,
    })
}
