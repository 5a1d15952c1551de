//! For unit tests: a sink that keeps what it is given, readers of it, and a runner of a few words.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use protocol::id::EngineId;
use protocol::message::output;
use protocol::value::Value;
use protocol::{Key, Message, Receiver, Session, Signer};
use transport::wake::waker;
use transport::{Sent, TransportError};

use crate::output::{Iopub, Sink};
use crate::runner::{
    CellContext, Completeness, Completion, CompletionKind, Displayed, Language, NameSummary, RunError,
    Runner, Stream,
};

/// The key of all tests.
pub(crate) fn key() -> Key {
    Key::new("521c7a5a-cef389d554380fe2641b9678")
}

/// A session of the engine `ENG`.
pub(crate) fn session(process: u32) -> Session {
    Session::new("ENG".into(), "ada", process, &key())
}

/// What a sink was given.
#[derive(Clone, Default)]
pub(crate) struct Captured {
    sent: Arc<Mutex<Vec<Vec<Bytes>>>>,
    full: Arc<AtomicBool>,
}

impl Sink for Captured {
    fn offer(&mut self, parts: &[Bytes]) -> Result<Sent, TransportError> {
        if self.full.load(Ordering::SeqCst) {
            return Ok(Sent::WouldBlock);
        }
        self.sent.lock().unwrap().push(parts.to_vec());
        Ok(Sent::Done)
    }
}

impl Captured {
    pub(crate) fn set_full(&self, full: bool) {
        self.full.store(full, Ordering::SeqCst);
    }

    pub(crate) fn count(&self) -> usize {
        self.sent.lock().unwrap().len()
    }

    /// Routing frames as text, and the message, of all that was sent.
    pub(crate) fn messages(&self) -> Vec<(Vec<String>, Message)> {
        let mut receiver = Receiver::new(Signer::new(&key()));
        let sent = self.sent.lock().unwrap().clone();
        sent.into_iter()
            .map(|parts| {
                let (routing, message) = receiver.open(parts).expect("we sign what we send, once");
                let routing = routing.iter().map(|part| String::from_utf8_lossy(part).into_owned()).collect();
                (routing, message)
            })
            .collect()
    }

    /// The stream messages, as `stdout: text`.
    pub(crate) fn texts(&self) -> Vec<String> {
        let messages = self.messages();
        let streams = messages.iter().filter(|(_, message)| message.header.msg_type == output::STREAM);
        streams
            .map(|(_, message)| {
                let stream: output::Stream = message.content().expect("a stream");
                format!("{}: {}", stream.name.as_str(), stream.text)
            })
            .collect()
    }
}

/// An output channel of engine 0, `ENG`.
pub(crate) fn captured_iopub() -> (Arc<Iopub>, Captured) {
    let captured = Captured::default();
    let (flusher, _receiver) = waker().expect("a pair of sockets");
    let iopub = Iopub::new(Box::new(captured.clone()), session(2), "ENG".into(), EngineId(0), flusher);
    (Arc::new(iopub), captured)
}

/// A runner of a few words: `print TEXT`, `loop`, `fail`, `panic`, or an expression that is its own value.
#[derive(Default)]
pub(crate) struct FakeRunner {
    pub(crate) names: BTreeMap<String, Value>,
}

impl Runner for FakeRunner {
    fn language(&self) -> Language {
        Language::default()
    }

    fn execute(&mut self, code: &str, context: &CellContext) -> Result<Option<Displayed>, RunError> {
        match code.split_once(' ').unwrap_or((code, "")) {
            ("print", text) => {
                context.output.borrow_mut().write(Stream::Stdout, text);
                Ok(None)
            }
            ("loop", _) => {
                while !context.interrupt.is_raised() {
                    std::thread::yield_now();
                }
                Err(RunError::new("KeyboardInterrupt", "interrupted"))
            }
            ("fail", _) => {
                Err(RunError { line: Some(1), column: Some(3), ..RunError::new("NameError", "x") })
            }
            ("panic", _) => panic!("a bug in a function"),
            _ => Ok(Some(Displayed { text: code.to_owned(), value: Some(Value::Str(code.to_owned())) })),
        }
    }

    fn apply(
        &mut self,
        function: &str,
        arguments: Vec<Value>,
        _keywords: BTreeMap<String, Value>,
        context: &CellContext,
    ) -> Result<Value, RunError> {
        match function {
            "barrier" => context
                .communicator
                .barrier()
                .map(|()| Value::None)
                .map_err(|error| RunError::new("CollectiveError", error.to_string())),
            "echo" => Ok(Value::List(arguments)),
            _ => Err(RunError::new("NameError", format!("there is no function {function}"))),
        }
    }

    fn push(&mut self, name: &str, value: Value) -> Result<(), RunError> {
        self.names.insert(name.to_owned(), value);
        Ok(())
    }

    fn pull(&mut self, expression: &str, _context: &CellContext) -> Result<Value, RunError> {
        let missing = || RunError::new("NameError", format!("there is no {expression}"));
        self.names.get(expression).cloned().ok_or_else(missing)
    }

    fn clear(&mut self) {
        self.names.clear();
    }

    fn complete(&self, _line: &str, _cursor: usize) -> Vec<Completion> {
        self.names.keys().map(|name| completion(name)).collect()
    }

    fn inspect(&self, _name: &str) -> Option<String> {
        None
    }

    fn is_complete(&self, _code: &str) -> Completeness {
        Completeness::Complete
    }

    fn names(&self) -> Vec<NameSummary> {
        vec![]
    }
}

fn completion(name: &str) -> Completion {
    Completion { text: name.to_owned(), kind: CompletionKind::Variable, detail: String::new() }
}
