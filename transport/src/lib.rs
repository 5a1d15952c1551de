//! ZeroMQ sockets, polling, monitors, and what a cluster keeps on disk: connection files and where they live.
//!
//! This is the only crate that names ZeroMQ. Above it a message is a list of [`bytes::Bytes`] and a socket is a
//! [`Socket`] that never blocks; the one blocking call is [`poll::poll`].
//!
//! * [`Context`], [`Socket`], [`SocketOptions`]: every option of every socket is set in `socket.rs`.
//! * [`Socket::receive`] and [`Socket::send`]: whole messages, small frames copied, large ones not.
//! * [`poll`], [`wake`]: wait for sockets and file descriptors; wake a loop from a thread or a signal handler.
//! * [`monitor`], [`connections`]: which connection came, went, and carried a message.
//! * [`connection_file`], [`profile`]: the two JSON files, readable by their owner only, and where they are.
//! * [`reach`]: which of a controller's addresses leads to it from here.
//! * [`tunnel`]: a way to a controller through SSH.
//! * [`curve`], [`random`]: keys and ids; [`hygiene`]: what keeps them from core dumps.
//!
//! `zmq` owns contexts and sockets. Calls that can fail in ways of the user's choosing go to `zmq-sys` directly:
//! `zmq`'s error type panics at an errno it does not know (a file where `ipc://` expects a directory is enough).

pub mod connection_file;
pub mod connections;
mod context;
pub mod curve;
mod error;
pub mod hygiene;
mod message;
pub mod monitor;
pub mod poll;
pub mod profile;
pub mod random;
pub mod reach;
mod receive;
mod send;
mod socket;
pub mod socket_directory;
pub mod tunnel;
pub mod wake;

pub use context::{Context, libzmq_version};
pub use error::{Errno, TransportError};
pub use receive::{Multipart, Oversized, Received};
pub use send::Sent;
pub use socket::{Curve, Heartbeat, Keepalive, Socket, SocketKind, SocketOptions};
