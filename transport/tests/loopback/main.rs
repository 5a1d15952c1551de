//! Sockets of this crate talking to each other over loopback.

mod connections;
mod curve;
mod poll;
mod sockets;
mod support;
