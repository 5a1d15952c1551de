//! Errors as builtins raise them: a name that people know from Python, and a message.

use std::borrow::Cow;
use std::fmt;

use rhai::{Dynamic, EvalAltResult, Position};

use crate::communicator::CommError;
use crate::runner::RunError;

/// An error on its way from a builtin to the user, or to a `catch`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Raised {
    /// `TypeError`, `ValueError`, ….
    pub(crate) name: Cow<'static, str>,
    /// What is wrong, and what would be right.
    pub(crate) message: String,
    /// Lines of a traceback that was made elsewhere (a file that was run, a native function).
    pub(crate) traceback: Vec<String>,
}

/// The result of a builtin.
pub(crate) type Outcome<T> = Result<T, Raised>;

impl Raised {
    /// An error of that name.
    pub(crate) fn new(name: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Raised {
        Raised { name: name.into(), message: message.into(), traceback: Vec::new() }
    }

    /// The user's interrupt.
    pub(crate) fn interrupted() -> Raised {
        Raised::new("KeyboardInterrupt", "interrupted")
    }

    /// Whether no `catch` may stop it.
    fn is_final(&self) -> bool {
        matches!(self.name.as_ref(), "KeyboardInterrupt" | "RecursionError")
    }
}

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.message)
    }
}

/// A value of the wrong type.
pub(crate) fn type_error(message: impl Into<String>) -> Raised {
    Raised::new("TypeError", message)
}

/// The right type, but a value that makes no sense.
pub(crate) fn value_error(message: impl Into<String>) -> Raised {
    Raised::new("ValueError", message)
}

/// An index outside its axis.
pub(crate) fn index_error(message: impl Into<String>) -> Raised {
    Raised::new("IndexError", message)
}

/// An integer result that does not fit its type.
pub(crate) fn overflow_error(message: impl Into<String>) -> Raised {
    Raised::new("OverflowError", message)
}

/// An integer division by zero.
pub(crate) fn zero_division() -> Raised {
    Raised::new("ZeroDivisionError", "division by zero")
}

impl From<CommError> for Raised {
    fn from(error: CommError) -> Raised {
        Raised::new(error.ename(), error.to_string())
    }
}

impl From<RunError> for Raised {
    fn from(error: RunError) -> Raised {
        Raised { name: error.ename.into(), message: error.evalue, traceback: error.traceback }
    }
}

impl From<Raised> for Box<EvalAltResult> {
    fn from(raised: Raised) -> Box<EvalAltResult> {
        let is_final = raised.is_final();
        let raised = Dynamic::from(raised);
        Box::new(if is_final {
            EvalAltResult::ErrorTerminated(raised, Position::NONE)
        } else {
            EvalAltResult::ErrorRuntime(raised, Position::NONE)
        })
    }
}
