//! The context: libzmq's threads that move bytes, shared by the sockets of a process.

use std::os::raw::{c_int, c_void};
use std::sync::Arc;

use crate::error::{Errno, TransportError, check};

/// A handle to libzmq's IO threads. Clones share them; they end when the last clone and the last socket are gone.
///
/// The last one to go waits for messages that sockets were closed with a linger for
/// (see [`Socket::close`](crate::Socket::close)).
#[derive(Clone)]
pub struct Context {
    raw: Arc<RawContext>,
}

struct RawContext(*mut c_void);

// SAFETY: libzmq documents contexts as thread safe.
unsafe impl Send for RawContext {}
// SAFETY: as above.
unsafe impl Sync for RawContext {}

impl Context {
    /// A context with `io_threads` threads. One moves about a gigabyte per second; 0 serves `inproc` only.
    pub fn new(io_threads: u16) -> Result<Context, TransportError> {
        let create = |source| TransportError::Create { what: "ZeroMQ context", source };
        // SAFETY: no arguments; null is handled below.
        let raw = unsafe { zmq_sys::zmq_ctx_new() };
        if raw.is_null() {
            return Err(create(Errno::last()));
        }
        let context = Context { raw: Arc::new(RawContext(raw)) };
        // SAFETY: the context is alive, it was made above.
        check(unsafe {
            zmq_sys::zmq_ctx_set(raw, zmq_sys::ZMQ_IO_THREADS as c_int, c_int::from(io_threads))
        })
        .map_err(create)?;
        Ok(context)
    }

    pub(crate) fn as_ptr(&self) -> *mut c_void {
        self.raw.0
    }
}

impl std::fmt::Debug for Context {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Context").finish_non_exhaustive()
    }
}

impl Drop for RawContext {
    fn drop(&mut self) {
        // SAFETY: this is the only owner, and every socket holds a clone of the context, so all are closed.
        while let Err(errno) = check(unsafe { zmq_sys::zmq_ctx_term(self.0) }) {
            if !errno.interrupted() {
                tracing::warn!(%errno, "context not terminated");
                return;
            }
        }
    }
}

/// The version of the libzmq that is loaded, for `--version` and diagnosis.
pub fn libzmq_version() -> (i32, i32, i32) {
    let (mut major, mut minor, mut patch) = (0, 0, 0);
    // SAFETY: three valid places to write to.
    unsafe { zmq_sys::zmq_version(&mut major, &mut minor, &mut patch) };
    (major, minor, patch)
}
