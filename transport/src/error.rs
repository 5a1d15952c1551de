//! What can fail here, with libzmq's own words as the cause.

use std::ffi::CStr;
use std::fmt;

/// Why a socket operation failed. None of these is something a peer can bring about.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// No context or socket could be made.
    #[error("create a {what}: raise the limit of open files (ulimit -n) if it was reached")]
    Create {
        /// What was to be made.
        what: &'static str,
        /// libzmq's reason.
        #[source]
        source: Errno,
    },
    /// libzmq refused an option.
    #[error("set socket option {option}: {hint}")]
    Option {
        /// The option's name in libzmq.
        option: &'static str,
        /// What to do.
        hint: &'static str,
        /// libzmq's reason.
        #[source]
        source: Errno,
    },
    /// An endpoint that cannot be bound.
    #[error("bind {endpoint}: {hint}")]
    Bind {
        /// The endpoint as given.
        endpoint: String,
        /// What to do.
        hint: &'static str,
        /// libzmq's reason.
        #[source]
        source: Errno,
    },
    /// An endpoint that cannot be connected to, ever: an absent peer is no error, libzmq keeps trying.
    #[error("connect to {endpoint}: {hint}")]
    Connect {
        /// The endpoint as given.
        endpoint: String,
        /// What to do.
        hint: &'static str,
        /// libzmq's reason.
        #[source]
        source: Errno,
    },
    /// An endpoint with a NUL byte in it.
    #[error("use endpoint {endpoint:?}: it contains a NUL byte, write it as transport://address:port")]
    Endpoint {
        /// The endpoint as given.
        endpoint: String,
    },
    /// A send, receive, poll or close failed.
    #[error("{operation} on a socket: the process is shutting down or used the socket wrongly")]
    Operation {
        /// Which.
        operation: &'static str,
        /// libzmq's reason.
        #[source]
        source: Errno,
    },
    /// A message without a part cannot be sent.
    #[error("send a message without frames: give it at least one")]
    EmptyMessage,
    /// No memory for a message.
    #[error("allocate {bytes} bytes for a message: send it in smaller pieces")]
    Memory {
        /// How many were asked for.
        bytes: usize,
    },
    /// A CURVE key that is none.
    #[error(
        "read a CURVE key: expected 40 characters of Z85, found {found}; check IPP_CURVE_* and curve_serverkey"
    )]
    CurveKey {
        /// Number of characters, never the characters: they may be a secret.
        found: usize,
    },
    /// The installed libzmq was built without CURVE.
    #[error("use CURVE: the installed libzmq was built without libsodium; install one that has it")]
    CurveMissing {
        /// libzmq's reason.
        #[source]
        source: Errno,
    },
    /// A pair of file descriptors to wake a loop could not be made.
    #[error("create a waker: raise the limit of open files (ulimit -n) if it was reached")]
    Waker(#[source] std::io::Error),
}

/// An error number of libzmq or of the system, shown in libzmq's words.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno(i32);

impl Errno {
    /// The error of the last libzmq call on this thread.
    pub(crate) fn last() -> Errno {
        // SAFETY: reads this thread's errno, no arguments.
        Errno(unsafe { zmq_sys::zmq_errno() })
    }

    /// The number behind an error of `zmq`.
    pub(crate) fn of(error: zmq::Error) -> Errno {
        Errno(error.to_raw())
    }

    /// The number, as in `errno.h` or `zmq.h`.
    pub fn code(self) -> i32 {
        self.0
    }

    pub(crate) fn would_block(self) -> bool {
        self.0 == libc::EAGAIN
    }

    pub(crate) fn interrupted(self) -> bool {
        self.0 == libc::EINTR
    }

    /// What the person who wrote the endpoint can do.
    pub(crate) fn endpoint_hint(self) -> &'static str {
        match self.0 {
            libc::EADDRINUSE => {
                "stop the process that holds the address, or choose another port (0 takes a free one)"
            }
            libc::EADDRNOTAVAIL | libc::ENODEV => "choose an address or interface of this machine",
            libc::EACCES | libc::EPERM => "choose a port above 1023 or a directory you may write to",
            libc::ENAMETOOLONG => "choose a shorter path: a socket's may have 107 bytes",
            libc::EPROTONOSUPPORT => "use tcp://, ipc:// or inproc://",
            libc::EMFILE | libc::ENFILE => "raise the limit of open files (ulimit -n)",
            _ => "write it as tcp://address:port or ipc://path",
        }
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // SAFETY: zmq_strerror returns a NUL-terminated string for every number; it is static, or the C
        // library's buffer that stays valid until the next call on this thread. It is copied out at once.
        let text = unsafe { CStr::from_ptr(zmq_sys::zmq_strerror(self.0)) };
        formatter.write_str(&text.to_string_lossy())
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Errno({}: {self})", self.0)
    }
}

impl std::error::Error for Errno {}

/// `0` or a positive result of a libzmq call, or its error.
pub(crate) fn check(result: i32) -> Result<i32, Errno> {
    if result == -1 { Err(Errno::last()) } else { Ok(result) }
}
