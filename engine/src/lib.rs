//! An engine: one rank of the MPI world that runs what clients send.
//!
//! The binary `engine` runs the prompt language. A program with functions of its own is an engine too:
//!
//! ```no_run
//! use engine::{Engine, RunError, TaskContext, Value};
//!
//! fn ranks(task: TaskContext<'_>, _arguments: Vec<Value>) -> Result<Value, RunError> {
//!     Ok(Value::Int(task.communicator.size() as i64))
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     Engine::new().function("ranks", ranks).run()
//! }
//! ```
//!
//! | what | where |
//! |---|---|
//! | the command line, and how an engine joins a cluster | [`cli`], [`start`] |
//! | what is done next | [`machine`] |
//! | the messages around one request, and output | [`executor`], [`output`] |
//! | sockets and the two threads | [`shell`] |
//! | user code and its namespace | [`runner`], [`python`] |
//! | compiled kernels, loaded while it runs | [`module`] |
//! | the other ranks | [`communicator`], `mpi`, [`solo`] |

pub mod arguments;
pub mod array;
pub mod cli;
pub mod communicator;
pub mod control_plane;
pub mod executor;
pub mod interrupt;
mod job;
pub mod loopback;
pub mod machine;
pub mod module;
#[cfg(feature = "mpi")]
pub mod mpi;
pub mod output;
pub mod python;
pub mod queries;
pub mod runner;
pub mod shell;
pub mod solo;
pub mod start;
#[cfg(test)]
mod testing;
pub mod wait_status;

use std::process::ExitCode;

pub use protocol::value::Value;
pub use runner::native::TaskContext;
use runner::native::{Help, Registry, RegistryError};
use runner::script::Script;
pub use runner::{RunError, Runner};

/// An engine program: the prompt language, and functions of its own.
#[derive(Debug, Default)]
pub struct Engine {
    registry: Registry,
    /// The first function that could not be registered; told when the program runs.
    wrong: Option<RegistryError>,
}

impl Engine {
    /// An engine with the prompt language only.
    pub fn new() -> Engine {
        Engine::default()
    }

    /// Adds a function that clients and cells can call by that name.
    #[must_use]
    pub fn function(
        mut self,
        name: &str,
        function: impl Fn(TaskContext<'_>, Vec<Value>) -> Result<Value, RunError> + 'static,
    ) -> Engine {
        if let Err(error) = self.registry.register(name, function) {
            self.wrong.get_or_insert(error);
        }
        self
    }

    /// As [`Engine::function`], with how it is called (`pi(n)`) and what it does, for `help` and completion.
    #[must_use]
    pub fn function_with_help(
        mut self,
        name: &str,
        signature: &str,
        text: &str,
        function: impl Fn(TaskContext<'_>, Vec<Value>) -> Result<Value, RunError> + 'static,
    ) -> Engine {
        let help = Help { signature: signature.to_owned(), text: text.to_owned() };
        if let Err(error) = self.registry.register_with_help(name, help, function) {
            self.wrong.get_or_insert(error);
        }
        self
    }

    /// Reads the command line, joins the cluster and serves until the engine is told to end. Returns the
    /// process' exit code; its errors and logs go to standard error.
    ///
    /// To be called from the main thread: MPI and user code run on it.
    pub fn run(self) -> ExitCode {
        self.run_with(|registry, _place| Box::new(Script::new(registry)))
    }

    /// As [`Engine::run`], with another language (but Python is Python: see `--python`): `make_runner` is called once the engine knows its place in the
    /// world.
    pub fn run_with(
        self,
        make_runner: impl FnOnce(Registry, &start::place::Place) -> Box<dyn Runner>,
    ) -> ExitCode {
        let Engine { registry, wrong } = self;
        start::main(wrong, registry, make_runner)
    }
}
