//! Talks to a cluster: runs code and functions on its engines, moves data, waits for results.
//!
//! ```no_run
//! use client::{Client, ConnectOptions};
//!
//! let client = Client::connect(&ConnectOptions::default())?;
//! client.wait_for_engines(4, std::time::Duration::from_secs(30))?;
//! client.all().execute("a = rand(100)")?.get()?;
//! let sums = client.all().psum("a")?.get()?;
//! println!("{sums:?}");
//! # Ok::<(), client::ClientError>(())
//! ```
//!
//! Where to look:
//!
//! | question | module |
//! |---|---|
//! | which cluster? | [`options`], [`Client`] |
//! | whom to ask, and for what? | [`view`], [`targets`] |
//! | what came of it? | [`async_result`], [`outcome`], [`error`] |
//! | which message ends which request? | [`machine`] (pure) |
//! | how do arrays travel, and lie in files? | [`mod@array`], [`npy`] |
//!
//! One background thread a client owns the sockets and the machine (`shell.rs`); all handles may be used from any
//! thread.

pub mod array;
pub mod async_result;
mod client;
mod connection;
pub mod engines;
pub mod error;
pub mod machine;
pub mod npy;
pub mod options;
pub mod outcome;
mod shell;
pub mod targets;
pub mod view;

pub use async_result::{AsyncResult, ResultEvent};
pub use client::Client;
pub use engines::{Engine, EngineTable};
pub use error::{ClientError, CompositeError, Failure, RemoteError};
pub use options::{ConnectOptions, Ssh};
pub use outcome::{Answer, EngineOutcome, Output, OutputItem};
pub use protocol::id::EngineId;
pub use protocol::value::{ArrayValue, DType, Value};
pub use targets::Targets;
pub use transport::profile::ProfileOptions;
pub use view::{BalancedView, TaskOptions, View};
