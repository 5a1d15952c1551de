//! Why a command did not do what it was asked: a message, its causes, the last words of the program concerned,
//! what to do about it, and the exit code.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The exit codes of all our programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// Something went wrong that has no code of its own.
    Failed = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// There is no such cluster.
    NotFound = 3,
    /// A controller or engine could not be started.
    LaunchFailed = 4,
    /// What was running is gone or does not answer.
    LostContact = 5,
}

/// The end of a log file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastLines {
    /// Whose.
    pub path: String,
    /// The lines, oldest first.
    pub lines: Vec<String>,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// For the shell.
    pub code: Code,
    /// One line.
    pub message: String,
    /// Each the cause of the one before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<String>,
    /// What the program concerned said last; boxed, to keep results small.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_lines: Option<Box<LastLines>>,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Failure {
    /// A failure with the given exit code.
    pub fn new(code: Code, message: impl Into<String>) -> Failure {
        Failure { code, message: message.into(), causes: Vec::new(), last_lines: None, hint: None }
    }

    /// Without a code of its own.
    pub fn failed(message: impl Into<String>) -> Failure {
        Failure::new(Code::Failed, message)
    }

    /// A command line that makes no sense.
    pub fn usage(message: impl Into<String>) -> Failure {
        Failure::new(Code::Usage, message)
    }

    /// Adds an error and what lies under it.
    pub fn caused_by(mut self, error: impl std::error::Error) -> Failure {
        self.causes.push(error.to_string());
        let mut source = error.source();
        while let Some(error) = source {
            self.causes.push(error.to_string());
            source = error.source();
        }
        self
    }

    /// Adds a cause in words.
    pub fn because(mut self, cause: impl Into<String>) -> Failure {
        self.causes.push(cause.into());
        self
    }

    /// Says what to do.
    pub fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the end of a log.
    pub fn with_last_lines(mut self, last_lines: Option<LastLines>) -> Failure {
        self.last_lines = last_lines.map(Box::new);
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.message)?;
        for cause in &self.causes {
            write!(f, "\n  caused by: {cause}")?;
        }
        match &self.last_lines {
            Some(last) if last.lines.is_empty() => write!(f, "\n  it wrote nothing to {}", last.path)?,
            Some(last) => {
                write!(f, "\n  last lines of {}:", last.path)?;
                for line in &last.lines {
                    write!(f, "\n    | {line}")?;
                }
            }
            None => {}
        }
        match &self.hint {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Failure {}
