//! The wire of ipyparallel 9, and what Commworld adds to it: bytes and types, no IO.
//!
//! Where to look:
//!
//! | question | module |
//! |---|---|
//! | where does one part of a message end? | [`frames`] |
//! | who may speak? | [`signature`], [`mod@receive`] |
//! | what does a message say? | [`header`], [`message`], [`error`], [`value`] |
//! | what have we added, and what does a stock peer see? | [`extension`] |
//! | where is the controller? | [`connection_file`] |
//! | how large may it get? | [`limits`] |
//!
//! `docs/PROTOCOL.md` tells the same, message by message.

pub mod buffer_digest;
pub mod connection_file;
pub mod date;
pub mod error;
pub mod extension;
pub mod frames;
pub mod header;
pub mod id;
mod json;
pub mod limits;
pub mod message;
pub mod receive;
pub mod session;
pub mod signature;
pub mod value;

pub use date::Date;
pub use frames::WireMessage;
pub use header::Header;
pub use message::Message;
pub use receive::{Receiver, Refusal};
pub use session::Session;
pub use signature::{Key, Signer};
