//! Why an engine did not start: what failed, because of what, and what to do.

use std::io;
use std::path::Path;
use std::process::ExitCode;

use transport::TransportError;
use transport::tunnel::TunnelError;

use crate::runner::RunError;

/// Exit code of any failure without a code of its own.
pub const EXIT_FAILED: u8 = 1;
/// Exit code of a wrong command line.
pub const EXIT_USAGE: u8 = 2;
/// Exit code when there is no controller to join.
pub const EXIT_NO_CONTROLLER: u8 = 3;

/// A failure to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Finishes "failed to …".
    what: String,
    cause: Option<String>,
    hint: Option<String>,
    code: u8,
    /// Whether another rank has told the user.
    told_elsewhere: bool,
}

impl Failure {
    fn new(what: impl Into<String>) -> Failure {
        Failure { what: what.into(), cause: None, hint: None, code: EXIT_FAILED, told_elsewhere: false }
    }

    fn because(mut self, cause: impl ToString) -> Failure {
        self.cause = Some(cause.to_string());
        self
    }

    fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }

    fn code(mut self, code: u8) -> Failure {
        self.code = code;
        self
    }

    /// The command line or the environment is wrong.
    pub fn usage(what: impl Into<String>) -> Failure {
        Failure::new(what).code(EXIT_USAGE)
    }

    /// The program was put together wrongly.
    pub fn internal(cause: String) -> Failure {
        Failure::new("set up the engine's functions").because(cause)
    }

    /// There is no MPI world, or the wrong one.
    pub fn world(cause: impl ToString) -> Failure {
        Failure::new("join the MPI world").because(cause)
    }

    /// There is no Python, or it cannot be loaded.
    pub fn python(cause: impl ToString) -> Failure {
        Failure::new("be a Python engine").because(cause)
    }

    /// The ranks could not talk to each other.
    pub fn between_ranks(cause: impl ToString) -> Failure {
        Failure::new("agree with the other ranks on how to join the cluster").because(cause)
    }

    /// A socket could not be made or connected.
    pub fn transport(error: TransportError) -> Failure {
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        Failure { cause, ..Failure::new(error.to_string()) }
    }

    /// A module cannot be loaded.
    pub fn module(path: &Path, cause: impl ToString) -> Failure {
        Failure::usage(format!("load the module {}", path.display())).because(cause)
    }

    /// The working directory cannot be used.
    pub fn work_dir(directory: &Path, error: io::Error) -> Failure {
        Failure::usage(format!("change to directory {}", directory.display()))
            .because(error)
            .hint("create it on every node, or give another --work-dir")
    }

    /// There is no connection file.
    pub fn no_file(what: impl ToString, controller: &str) -> Failure {
        Failure::new(what.to_string())
            .hint(format!("start a controller first: {controller}"))
            .code(EXIT_NO_CONTROLLER)
    }

    /// The connection file cannot be used.
    pub fn file(what: impl Into<String>, cause: impl ToString) -> Failure {
        Failure::new(what).because(cause).code(EXIT_NO_CONTROLLER)
    }

    /// The controller's sockets are files, and not here.
    pub fn elsewhere(location: &str, directory: &Path, here: &str) -> Failure {
        Failure::new(format!("reach the controller on {location}, which has sockets for its own machine only"))
            .because(format!("there is no {} on {here}", directory.display()))
            .hint(
                "start the cluster with --ip='*' if engines run on other machines; on the same one its connection \
                 file is a leftover: start it again",
            )
            .code(EXIT_NO_CONTROLLER)
    }

    /// The controller listens where only its own machine can reach it.
    pub fn loopback_elsewhere(location: &str, interface: &str, here: &str) -> Failure {
        Failure::new(format!("reach the controller on {location}, which listens for its own machine only"))
            .because(format!("it listens on {interface}, and this engine is on {here}"))
            .hint(
                "start the controller with --ip='*' (cluster start --ip '*'), so that other machines can reach it; or go \
                 through ssh: --ssh [user@]host",
            )
            .code(EXIT_NO_CONTROLLER)
    }

    /// The controller is to be reached through SSH, and cannot.
    pub fn tunnel(error: TunnelError) -> Failure {
        Failure::new("open a tunnel to the controller")
            .because(error)
            .hint("try `ssh` to that server by hand, without a password; --ssh names another one, --ssh none goes without")
            .code(EXIT_NO_CONTROLLER)
    }

    /// Nobody answered the registration.
    pub fn no_answer(url: &str, seconds: f64) -> Failure {
        Failure::new(format!("register at {url}"))
            .because(format!("no answer within {seconds} s"))
            .hint(
                "look whether the controller still runs (its file may be a leftover), whether a firewall blocks \
                 the port, and whether both use the same connection file; --timeout waits longer",
            )
            .code(EXIT_NO_CONTROLLER)
    }

    /// The hub refused the engine.
    pub fn refused(url: &str, cause: impl ToString) -> Failure {
        Failure::new(format!("register at {url}")).because(cause)
    }

    /// Start-up code failed.
    pub fn startup(label: &str, error: &RunError) -> Failure {
        Failure::new(format!("run start-up code ({label})")).because(error.traceback.join("\n    "))
    }

    /// A script cannot be read.
    pub fn script(path: &Path, error: io::Error) -> Failure {
        Failure::usage(format!("read start-up script {}", path.display())).because(error)
    }

    /// Signal handlers cannot be installed.
    pub fn signals(error: io::Error) -> Failure {
        Failure::new("install signal handlers").because(error)
    }

    /// The control thread cannot be started.
    pub fn thread(error: io::Error) -> Failure {
        Failure::new("start a thread").because(error).hint("raise the limit of processes (ulimit -u)")
    }

    /// The log cannot be written.
    pub fn log(path: &Path, error: io::Error) -> Failure {
        Failure::new(format!("write log {}", path.display())).because(error).hint("leave out --log-to-file")
    }

    /// The same failure on a rank that need not tell it again.
    pub fn told_by_rank_0(code: u8) -> Failure {
        Failure { told_elsewhere: true, ..Failure::new("follow rank 0, which failed").code(code) }
    }

    /// The process' exit code.
    pub fn exit_code(&self) -> u8 {
        self.code
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "failed to {}", self.what)?;
        if let Some(cause) = &self.cause {
            write!(f, "\n  caused by: {cause}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}

/// Tells the user, unless another rank has; returns the exit code.
pub fn report(failure: &Failure) -> ExitCode {
    if !failure.told_elsewhere {
        use std::io::Write;
        // Nobody may be reading.
        let _ = writeln!(std::io::stderr(), "error: {failure}");
    }
    ExitCode::from(failure.code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_why_and_what_to_do() {
        let text = Failure::no_answer("tcp://127.0.0.1:4711", 5.0).to_string();
        assert!(
            text.starts_with("failed to register at tcp://127.0.0.1:4711\n  caused by: no answer within 5 s")
        );
        assert!(text.contains("\n  hint: look whether the controller still runs"));
    }
}
