//! What executes user code: cells of the prompt language, and functions called by name.
//!
//! A runner knows neither sockets nor MPI. It is given a place for output, the other ranks and the interrupt
//! flag, and answers with a value or with an error that names its place in the user's own text.

pub mod native;
pub mod script;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

use bytes::Bytes;
use protocol::error::ename;
use protocol::value::Value;
use serde_json::{Value as Json, json};

use crate::communicator::{CommError, Communicator};
use crate::interrupt::Interrupt;

/// Where a piece of output goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stream {
    /// What user code prints.
    Stdout,
    /// What is wrong, but not an error.
    Stderr,
}

impl Stream {
    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}

/// Takes output as it happens.
pub trait Output {
    /// Some text, with the line ends that the user wrote.
    fn write(&mut self, stream: Stream, text: &str);
}

/// What a cell may use while it runs.
#[derive(Clone)]
pub struct CellContext {
    /// How the cell is called in tracebacks: `cell 3`, `setup.rhai`.
    pub label: String,
    /// Where printed text goes.
    pub output: Rc<RefCell<dyn Output>>,
    /// The other ranks.
    pub communicator: Rc<dyn Communicator>,
    /// Ends the cell when raised. The caller arms and disarms it.
    pub interrupt: Interrupt,
    /// How many cells have run, this one included.
    pub count: u64,
    /// Whether the value of the last expression is of no interest.
    pub silent: bool,
    /// Whether the cell is to be remembered as the user's input.
    pub store_history: bool,
    /// The request that it belongs to; empty for start-up code.
    pub msg_id: String,
}

impl CellContext {
    /// What a cell that belongs to no request may use.
    pub fn new(
        label: impl Into<String>,
        output: Rc<RefCell<dyn Output>>,
        communicator: Rc<dyn Communicator>,
        interrupt: Interrupt,
    ) -> CellContext {
        CellContext {
            label: label.into(),
            output,
            communicator,
            interrupt,
            count: 0,
            silent: false,
            store_history: true,
            msg_id: String::new(),
        }
    }
}

impl fmt::Debug for CellContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CellContext").field("label", &self.label).finish_non_exhaustive()
    }
}

/// The value of a cell's last expression.
#[derive(Clone, Debug, PartialEq)]
pub struct Displayed {
    /// As a person reads it; big arrays are summarised.
    pub text: String,
    /// The value itself; `None` for what cannot travel (functions, ranges).
    pub value: Option<Value>,
}

/// Why user code failed. The names are Python's where Python has one, because clients in Python compare them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{ename}: {evalue}")]
pub struct RunError {
    /// The kind of error: `NameError`, `TypeError`, `KeyboardInterrupt`, ….
    pub ename: String,
    /// What is wrong, with line and column where the user's text is to blame.
    pub evalue: String,
    /// Lines for people: the chain of calls, each with its line of source and a caret.
    pub traceback: Vec<String>,
    /// Where in the cell, from 1.
    pub line: Option<usize>,
    /// Where in the line, in characters from 1.
    pub column: Option<usize>,
    /// Whether the user's interrupt ended it.
    pub interrupted: bool,
    /// Whether the runner has told the clients that see the output; otherwise the engine does it.
    pub published: bool,
}

impl RunError {
    /// An error without a place.
    pub fn new(ename: &str, evalue: impl Into<String>) -> RunError {
        let evalue = evalue.into();
        RunError {
            ename: ename.to_owned(),
            traceback: vec![format!("{ename}: {evalue}")],
            evalue,
            line: None,
            column: None,
            interrupted: ename == "KeyboardInterrupt",
            published: false,
        }
    }

    /// The same error with the reason behind it.
    pub(crate) fn because(mut self, reason: &str) -> RunError {
        self.evalue =
            if self.evalue.is_empty() { reason.to_owned() } else { format!("{}: {reason}", self.evalue) };
        self.traceback.push(format!("The engine ends because {reason}"));
        self
    }
}

/// So that native functions can write `?` behind calls to other ranks.
impl From<CommError> for RunError {
    fn from(error: CommError) -> RunError {
        RunError::new(error.ename(), error.to_string())
    }
}

/// What kind of thing a completion inserts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CompletionKind {
    /// A value of the namespace or a constant.
    Variable,
    /// A function, built in or the user's.
    Function,
    /// A word of the language.
    Keyword,
}

/// A proposal to complete what was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The whole word.
    pub text: String,
    /// What it is.
    pub kind: CompletionKind,
    /// A signature or the value's type, for the reader.
    pub detail: String,
}

/// Whether a cell can run as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Completeness {
    /// It can.
    Complete,
    /// More lines are needed: a bracket, a string or a comment is open.
    Incomplete,
    /// No further line can mend it; says what is wrong.
    Invalid(String),
}

/// One name of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameSummary {
    /// The name.
    pub name: String,
    /// The type: `int`, `list`, `f64`, `function`, ….
    pub kind: String,
    /// What is in it, in short: `[100, 3]` for an array's shape, `42`, ….
    pub summary: String,
    /// Bytes of its elements, for arrays.
    pub bytes: usize,
}

/// A language, as Jupyter describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Language {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The type of its files.
    pub mimetype: String,
    /// What the names of its files end in.
    pub file_extension: String,
    /// What runs it, for the first line of a session.
    pub banner: String,
}

/// Executes what clients send, over a namespace that lives as long as the engine.
pub trait Runner {
    /// What it speaks.
    fn language(&self) -> Language;

    /// Runs a cell and gives the value of its last expression.
    fn execute(&mut self, code: &str, context: &CellContext) -> Result<Option<Displayed>, RunError>;

    /// What expressions are worth after a cell, as Jupyter describes it.
    fn user_expressions(
        &mut self,
        expressions: &BTreeMap<String, String>,
        context: &CellContext,
    ) -> BTreeMap<String, Json> {
        let mut answers = BTreeMap::new();
        for (name, expression) in expressions {
            let answer = match self.execute(expression, context) {
                Ok(displayed) => {
                    let text = displayed.map_or_else(String::new, |displayed| displayed.text);
                    json!({ "status": "ok", "data": { "text/plain": text }, "metadata": {} })
                }
                Err(error) => json!({
                    "status": "error", "ename": error.ename, "evalue": error.evalue, "traceback": error.traceback,
                }),
            };
            answers.insert(name.clone(), answer);
        }
        answers
    }

    /// What the last cell asks of the client that sent it, in Jupyter's words. Asked for once.
    fn take_payload(&mut self) -> Vec<Json> {
        vec![]
    }

    /// Calls a function that a client of ipyparallel has pickled; the answer is pickled too.
    fn apply_pickled(&mut self, _buffers: &[Bytes], _context: &CellContext) -> Result<Vec<Bytes>, RunError> {
        Err(RunError::new(
            ename::NOT_IMPLEMENTED_ERROR,
            "this engine runs the prompt language, not Python, and cannot unpickle a function; execute code of the \
             prompt language, call a function by name with the client of this project, or start engines with \
             --python",
        ))
    }

    /// Calls a function by name: a native one, else one defined in a cell, else a builtin.
    fn apply(
        &mut self,
        function: &str,
        arguments: Vec<Value>,
        keywords: BTreeMap<String, Value>,
        context: &CellContext,
    ) -> Result<Value, RunError>;

    /// Gives a name a value.
    fn push(&mut self, name: &str, value: Value) -> Result<(), RunError>;

    /// The value of a name or of any expression.
    fn pull(&mut self, expression: &str, context: &CellContext) -> Result<Value, RunError>;

    /// Forgets every name and every function that cells defined.
    fn clear(&mut self);

    /// What could stand at `cursor` (in bytes) of `line`.
    fn complete(&self, line: &str, cursor: usize) -> Vec<Completion>;

    /// Help on a name.
    fn inspect(&self, name: &str) -> Option<String>;

    /// Whether `code` is a whole cell.
    fn is_complete(&self, code: &str) -> Completeness;

    /// The namespace, sorted by name.
    fn names(&self) -> Vec<NameSummary>;
}
