//! What can go wrong between a program and its cluster.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use protocol::error::{ErrorContent, ename};
use protocol::id::EngineId;
use protocol::value::ValueError;

use crate::engines::Engine;

/// Why something asked of a cluster failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is no connection file, or none that can be used.
    #[error(
        "find a cluster: {reason}\n  tried: {}\n  hint: start one with `cluster start -n 4`, or name one with \
         --profile, --profile-dir or --file",
        path.display()
    )]
    NoCluster {
        /// The connection file that was looked for.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The connection file is there, but nobody answers.
    #[error(
        "reach the controller at {address}: {reason}\n  tried: {}\n  hint: the controller may have been killed; \
         see `cluster list`, remove what is left of it with `cluster clean`, and start one with `cluster start -n 4`",
        path.display()
    )]
    NoAnswer {
        /// The connection file.
        path: PathBuf,
        /// The hub's address.
        address: String,
        /// What was waited for.
        reason: String,
    },
    /// The controller is to be reached through SSH, and cannot.
    #[error(
        "open a tunnel to the controller of {}: {source}\n  hint: try `ssh` to that server by hand; --ssh names another \
         one, --ssh none goes without",
        path.display()
    )]
    Tunnel {
        /// The connection file.
        path: PathBuf,
        /// What happened.
        source: Box<transport::tunnel::TunnelError>,
    },
    /// Neither options nor environment say where connection files are.
    #[error(transparent)]
    Profile(#[from] transport::profile::ProfileError),
    /// The system refused a socket.
    #[error(transparent)]
    Transport(#[from] transport::TransportError),
    /// The controller went away while something was asked of it.
    #[error("reach the cluster: {0}; see `cluster status`, and connect again once it runs")]
    LostContact(Arc<str>),
    /// It took longer than it may.
    #[error("get an answer within {:.1} s: {missing} did not answer; wait longer, interrupt, or abort", waited.as_secs_f64())]
    Timeout {
        /// How long it was waited for.
        waited: Duration,
        /// Who did not answer.
        missing: String,
    },
    /// One engine failed.
    #[error(transparent)]
    Remote(Box<RemoteError>),
    /// Several engines failed.
    #[error(transparent)]
    Composite(#[from] CompositeError),
    /// A target that is not there.
    #[error("find {what}: the engines are {present}; `client status` shows who is here")]
    NoSuchEngine {
        /// Who was asked for.
        what: String,
        /// Who is here.
        present: String,
    },
    /// An argument that makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// A value that cannot be read.
    #[error("read what came: {0}; are client and engines of the same version?")]
    Value(#[from] ValueError),
    /// Engines that do not speak our additions were asked for what only those can do.
    #[error(
        "{what} on engine {id}: it is a stock engine, which takes functions and data in pickled form only; \
         run code there instead"
    )]
    StockEngine {
        /// What was asked for.
        what: &'static str,
        /// The engine.
        id: EngineId,
    },
    /// A file that cannot be read or written.
    #[error("{what} {}: check the path and its permissions", path.display())]
    File {
        /// `read` or `write`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
}

/// What one engine, or the controller in its name, reported.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RemoteError {
    /// The error's name, as in [`protocol::error::ename`].
    pub ename: String,
    /// What happened.
    pub evalue: String,
    /// Where, line by line.
    pub traceback: Vec<String>,
    /// The engine; none: the controller itself.
    pub engine: Option<EngineId>,
    /// Its rank in its world.
    pub rank: Option<u32>,
    /// Its host.
    pub host: String,
    /// The line of the user's code, from 1.
    pub line: Option<usize>,
    /// The column of that line, from 1.
    pub column: Option<usize>,
}

impl RemoteError {
    /// An error as it came, with what is known of the engine.
    pub fn new(content: ErrorContent, engine: Option<&Engine>) -> RemoteError {
        let from = content.engine_info.as_ref().map(|info| info.engine_id);
        RemoteError {
            ename: content.ename,
            evalue: content.evalue,
            traceback: content.traceback,
            engine: engine.map(|engine| engine.id).or(from),
            rank: engine.and_then(Engine::rank),
            host: engine.map(|engine| engine.host().to_owned()).unwrap_or_default(),
            line: content.line,
            column: content.column,
        }
    }

    /// The error of a request whose engine is gone.
    pub fn engine_lost(engine: &Engine, reason: Option<&str>) -> RemoteError {
        let reason = reason.unwrap_or("it left the cluster");
        let evalue = format!("{engine} is gone: {reason}");
        RemoteError::new(ErrorContent::new(ename::ENGINE_ERROR, evalue), Some(engine))
    }

    /// The error of a request to an engine that is not there (any more).
    pub fn engine_unknown(uuid: &str) -> RemoteError {
        let evalue = format!("engine {uuid} is not in the cluster (any more); see `client status`");
        RemoteError::new(ErrorContent::new(ename::ENGINE_ERROR, evalue), None)
    }

    /// `rank 2`, or `engine 2` where ranks are not known, or `the controller`.
    pub fn origin(&self) -> String {
        match (self.rank, self.engine) {
            (Some(rank), _) => format!("rank {rank}"),
            (None, Some(engine)) => format!("engine {engine}"),
            (None, None) => "the controller".to_owned(),
        }
    }
}

impl fmt::Display for RemoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin(), self.ename)?;
        if !self.evalue.is_empty() {
            write!(f, ": {}", self.evalue)?;
        }
        // Engines of ours say the place in words already.
        if let (Some(line), Some(column)) = (self.line, self.column)
            && !self.evalue.contains("line ")
        {
            write!(f, " (line {line}, column {column})")?;
        }
        Ok(())
    }
}

impl std::error::Error for RemoteError {}

/// Several engines failed; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompositeError {
    /// Each engine's error, in the order of the targets.
    pub errors: Vec<RemoteError>,
}

/// Errors that [`CompositeError`] spells out; the others are counted.
const ERRORS_SHOWN_MAX: usize = 4;

impl fmt::Display for CompositeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} engines failed", self.errors.len())?;
        for error in self.errors.iter().take(ERRORS_SHOWN_MAX) {
            write!(f, "\n  {error}")?;
        }
        match self.errors.len().saturating_sub(ERRORS_SHOWN_MAX) {
            0 => Ok(()),
            more => write!(f, "\n  … and {more} more"),
        }
    }
}

impl std::error::Error for CompositeError {}

/// Why one part of a request failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The engine, or the controller in its name, says so.
    #[error(transparent)]
    Remote(Box<RemoteError>),
    /// The controller went away.
    #[error("the cluster cannot be reached: {0}")]
    LostContact(Arc<str>),
}

impl Failure {
    /// Whether the request was aborted before it ran.
    pub fn is_aborted(&self) -> bool {
        matches!(self, Failure::Remote(error) if error.ename == ename::TASK_ABORTED)
    }
}

impl From<RemoteError> for Failure {
    fn from(error: RemoteError) -> Failure {
        Failure::Remote(Box::new(error))
    }
}

impl From<Failure> for ClientError {
    fn from(failure: Failure) -> ClientError {
        match failure {
            Failure::Remote(error) => ClientError::Remote(error),
            Failure::LostContact(cause) => ClientError::LostContact(cause),
        }
    }
}
