//! Engines that are Python: `engine --python`.
//!
//! CPython lives in this process, on the main thread, behind a plugin that is loaded only when Python is asked for
//! (`library.rs`), with the libpython and the environment of the interpreter that the user named
//! (`interpreter.rs`). The plugin's own part, in Python, is in `python/src/glue`; what the two say to each other
//! is in `words.rs`, and what Python asks of the engine is answered by `host.rs`. What C code writes to the
//! process' standard output is captured by `capture.rs`.
//!
//! An interrupt reaches Python as SIGINT on the main thread, whose handler, in Python, asks [`Interrupt::take`]
//! whether it is meant: so an interrupt that comes late never hits the next task.

mod capture;
mod host;
mod interpreter;
mod library;
mod words;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use engine_python_abi::{Frame, Port};
use protocol::error::ename;
use protocol::value::{self, Value};
use serde_json::{Value as Json, json};

use crate::communicator::Communicator;
use crate::interrupt::Interrupt;
use crate::output::Iopub;
use crate::runner::native::Registry;
use crate::runner::{
    CellContext, Completeness, Completion, CompletionKind, Displayed, Language, NameSummary, RunError, Runner,
};
use capture::Capture;
pub(crate) use capture::stderr_for_the_log;
use host::{Host, Lent};
pub use interpreter::{Interpreter, InterpreterError};
pub use library::LoadError;
use words::{Answer, Failed, Request};

/// How long a task waits until what the one before it returned has left, because it may change that memory.
const LOAN_PATIENCE: Duration = Duration::from_secs(60);

/// Lets a rank that waits in a blocking call of mpi4py's leave its processor to the others. With more ranks than
/// processors, which is every laptop, a reduction takes milliseconds otherwise. What the user has set stays. To be
/// called before MPI starts, and before any other thread.
pub(crate) fn let_blocking_calls_yield() {
    const VARIABLE: &str = "OMPI_MCA_mpi_yield_when_idle";
    if std::env::var_os(VARIABLE).is_none() {
        // SAFETY: there is no other thread yet that could read the environment.
        unsafe { std::env::set_var(VARIABLE, "1") };
    }
}

/// A Python that is loaded and has no cluster yet.
#[derive(Debug)]
pub struct Python {
    port: Port,
}

/// What a Python engine is made of, once it has a place in a cluster.
pub struct Parts {
    /// Its number.
    pub engine_id: u32,
    /// Its socket identity.
    pub uuid: String,
    /// The other ranks.
    pub communicator: Rc<dyn Communicator>,
    /// Takes output.
    pub iopub: Arc<Iopub>,
    /// Ends a task.
    pub interrupt: Interrupt,
    /// Functions of the engine's program.
    pub registry: Registry,
    /// Settings of IPython's, as `Class.trait`.
    pub options: BTreeMap<String, String>,
    /// The profile, whose start-up files are run.
    pub profile_dir: PathBuf,
}

impl Python {
    /// Loads the interpreter's library and the plugin, starts Python, and imports what engines use, which takes
    /// its time. On the main thread, before the cluster waits for this engine.
    pub fn load(interpreter: &Interpreter) -> Result<Python, LoadError> {
        let port = library::open(interpreter, Host::port())?;
        let python = Python { port };
        python.ask(&Request::Prepare, vec![]).map_err(|error| LoadError::Start(error.to_string()))?;
        Ok(python)
    }

    fn ask(&self, request: &Request<'_>, buffers: Vec<Frame>) -> Result<Answer, RunError> {
        let head = serde_json::to_vec(request).expect("our requests are maps with text keys");
        let mut frames = vec![Frame::from(head)];
        frames.extend(buffers);
        Answer::read(self.port.call(frames))
    }
}

/// Runs what clients send in Python.
pub struct PythonRunner {
    python: Python,
    lent: Lent,
    language: Language,
    payload: Vec<Json>,
    capture: Option<Capture>,
}

impl PythonRunner {
    /// Starts the shell: user code can run from now on.
    pub fn start(python: Python, parts: Parts) -> Result<PythonRunner, RunError> {
        let Parts { engine_id, uuid, communicator, iopub, interrupt, registry, options, profile_dir } = parts;
        let functions = host::described(&registry, registry.names());
        let (rank, size) = (communicator.rank(), communicator.size());
        let capture = Capture::begin(Arc::clone(&iopub), interrupt.clone())
            .inspect_err(|error| tracing::warn!(%error, "what C code prints stays in this process' output"));
        interrupt.nudge_this_thread();
        Host::install(iopub, interrupt, communicator, registry);
        let profile_dir = profile_dir.to_string_lossy().into_owned();
        let request =
            Request::Start { engine_id, uuid: &uuid, rank, size, options: &options, functions, profile_dir };
        let started: words::Started = python.ask(&request, vec![])?.content()?;
        tracing::info!(
            python = started.python,
            executable = started.executable,
            shell = started.shell,
            "Python runs"
        );
        let language = Language {
            name: "python".to_owned(),
            version: started.python.clone(),
            mimetype: "text/x-python".to_owned(),
            file_extension: ".py".to_owned(),
            banner: format!("Commworld engine: Python {}", started.python),
        };
        Ok(PythonRunner { python, lent: Lent::default(), language, payload: vec![], capture: capture.ok() })
    }

    /// Runs a task: what the task before it lent has left, and output of C code comes before the answer.
    fn task(
        &mut self,
        request: &Request<'_>,
        buffers: Vec<Frame>,
        context: &CellContext,
    ) -> Result<Answer, RunError> {
        self.wait_for_loans(&context.interrupt)?;
        let answer = Host::within(context, || self.python.ask(request, buffers));
        if let Some(capture) = &self.capture {
            capture.drain();
        }
        answer
    }

    /// What was returned to a client without a copy may be on its way still; the next task could change it.
    fn wait_for_loans(&self, interrupt: &Interrupt) -> Result<(), RunError> {
        let start = Instant::now();
        while self.lent.is_out() {
            if interrupt.take() {
                return Err(RunError::new(ename::KEYBOARD_INTERRUPT, "interrupted before the task began"));
            }
            if start.elapsed() > LOAN_PATIENCE {
                tracing::warn!(
                    "the controller does not read a result; the next task may change what it is sent"
                );
                return Ok(());
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        Ok(())
    }

    /// Asks something between tasks. The glue answers it without user code, or nearly so.
    fn look<T: serde::de::DeserializeOwned>(&self, request: &Request<'_>) -> Option<T> {
        let answer = self.python.ask(request, vec![]).and_then(Answer::content);
        answer.inspect_err(|error| tracing::debug!(%error, "a question to Python failed")).ok()
    }
}

impl Drop for PythonRunner {
    fn drop(&mut self) {
        Host::uninstall();
    }
}

/// The description of values, and their buffers as frames.
fn described(values: &[Value]) -> (Vec<Json>, Vec<Bytes>) {
    let mut buffers = vec![];
    let described = values.iter().map(|value| value::encode(value, &mut buffers)).collect();
    (described, buffers)
}

fn frames(buffers: impl IntoIterator<Item = Bytes>) -> Vec<Frame> {
    buffers.into_iter().map(Frame::of).collect()
}

impl Runner for PythonRunner {
    fn language(&self) -> Language {
        self.language.clone()
    }

    fn execute(&mut self, code: &str, context: &CellContext) -> Result<Option<Displayed>, RunError> {
        let request = Request::Execute {
            code,
            count: context.count,
            silent: context.silent,
            store_history: context.store_history,
        };
        self.payload = self.task(&request, vec![], context)?.content()?;
        Ok(None) // Python has displayed it.
    }

    fn user_expressions(
        &mut self,
        expressions: &BTreeMap<String, String>,
        context: &CellContext,
    ) -> BTreeMap<String, Json> {
        if expressions.is_empty() {
            return BTreeMap::new();
        }
        let answer = self.task(&Request::UserExpressions { expressions }, vec![], context);
        answer.and_then(Answer::content).unwrap_or_else(|error: RunError| {
            let answer = json!({
                "status": "error", "ename": error.ename, "evalue": error.evalue, "traceback": error.traceback,
            });
            expressions.keys().map(|name| (name.clone(), answer.clone())).collect()
        })
    }

    fn take_payload(&mut self) -> Vec<Json> {
        std::mem::take(&mut self.payload)
    }

    fn apply_pickled(&mut self, buffers: &[Bytes], context: &CellContext) -> Result<Vec<Bytes>, RunError> {
        let request = Request::ApplyPickled { msg_id: &context.msg_id };
        let answer = self.task(&request, frames(buffers.iter().cloned()), context)?;
        Ok(self.lent.bytes(answer.frames))
    }

    fn apply(
        &mut self,
        function: &str,
        arguments: Vec<Value>,
        keywords: BTreeMap<String, Value>,
        context: &CellContext,
    ) -> Result<Value, RunError> {
        let (arguments, mut buffers) = described(&arguments);
        let keywords: BTreeMap<&str, Json> = keywords
            .iter()
            .map(|(name, value)| (name.as_str(), value::encode(value, &mut buffers)))
            .collect();
        let request = Request::Apply { function, arguments, keywords };
        let answer = self.task(&request, frames(buffers), context)?;
        self.value(answer)
    }

    fn push(&mut self, name: &str, value: Value) -> Result<(), RunError> {
        let (mut described, buffers) = described(&[value]);
        let value = described.pop().unwrap_or_default();
        self.python.ask(&Request::Push { name, value }, frames(buffers)).map(drop)
    }

    fn pull(&mut self, expression: &str, context: &CellContext) -> Result<Value, RunError> {
        let answer = self.task(&Request::Pull { expression }, vec![], context)?;
        self.value(answer)
    }

    fn clear(&mut self) {
        if let Err(error) = self.python.ask(&Request::Clear, vec![]) {
            tracing::error!(%error, "the namespace was not cleared");
        }
    }

    fn complete(&self, line: &str, cursor: usize) -> Vec<Completion> {
        let characters = line.get(..cursor).map_or(0, |before| before.chars().count());
        let words: Vec<String> =
            self.look(&Request::Complete { line, cursor: characters }).unwrap_or_default();
        let completion = |text| Completion { text, kind: CompletionKind::Variable, detail: String::new() };
        words.into_iter().map(completion).collect()
    }

    fn inspect(&self, name: &str) -> Option<String> {
        self.look(&Request::Inspect { name }).flatten()
    }

    fn is_complete(&self, code: &str) -> Completeness {
        match self.look::<String>(&Request::IsComplete { code }).as_deref() {
            Some("incomplete") => Completeness::Incomplete,
            Some("invalid") => Completeness::Invalid("a syntax error".to_owned()),
            _ => Completeness::Complete,
        }
    }

    fn names(&self) -> Vec<NameSummary> {
        let names: Vec<words::Name> = self.look(&Request::Names).unwrap_or_default();
        names.into_iter().map(NameSummary::from).collect()
    }
}

impl PythonRunner {
    fn value(&self, answer: Answer) -> Result<Value, RunError> {
        let Answer { ok, frames } = answer;
        value::decode(&ok, &self.lent.bytes(frames))
            .map_err(|error| Failed::of_the_glue(&format!("an answer cannot be read: {error}")))
    }
}
