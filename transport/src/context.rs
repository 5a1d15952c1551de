//! The context: libzmq's threads that move bytes, shared by the sockets of a process.

use crate::error::{Errno, TransportError};

/// A handle to libzmq's IO threads. Clones share them; they end when the last clone and the last socket are gone.
///
/// The last one to go waits for messages that sockets were closed with a linger for
/// (see [`Socket::close`](crate::Socket::close)).
#[derive(Clone)]
pub struct Context(zmq::Context);

impl Context {
    /// A context with `io_threads` threads. One moves about a gigabyte per second; 0 serves `inproc` only.
    pub fn new(io_threads: u16) -> Result<Context, TransportError> {
        let context = zmq::Context::new();
        context
            .set_io_threads(i32::from(io_threads))
            .map_err(|error| TransportError::Create { what: "ZeroMQ context", source: Errno::of(error) })?;
        Ok(Context(context))
    }

    pub(crate) fn socket(&self, kind: zmq::SocketType) -> Result<zmq::Socket, zmq::Error> {
        self.0.socket(kind)
    }
}

/// The version of the libzmq that is loaded, for `--version` and diagnosis.
pub fn libzmq_version() -> (i32, i32, i32) {
    let (mut major, mut minor, mut patch) = (0, 0, 0);
    // SAFETY: three valid places to write to.
    unsafe { zmq_sys::zmq_version(&mut major, &mut minor, &mut patch) };
    (major, minor, patch)
}
