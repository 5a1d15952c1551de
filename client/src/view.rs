//! Sets of engines to ask: by name ([`View`]), or whichever has room ([`BalancedView`]).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use protocol::extension::{PULL, PUSH};
use protocol::id::MsgId;
use protocol::message::Empty;
use protocol::message::control::{
    ABORT_REQUEST, AbortRequest, CLEAR_REQUEST, COMPLETE_REQUEST, CompleteReply, CompleteRequest,
    SHUTDOWN_REQUEST, SIGNAL_REQUEST, Shutdown, Signal, SignalRequest,
};
use protocol::value::Value;

use crate::array::{join, partition};
use crate::async_result::AsyncResult;
use crate::connection::{CallWork, Connection, Work};
use crate::engines::{Engine, EngineTable};
use crate::error::ClientError;
use crate::outcome::Answer;
use crate::targets::Targets;

mod balanced;

pub use balanced::{BalancedView, TaskOptions};

/// Engines addressed by name. What `Targets::All` means is looked up anew for each request.
///
/// Requests to one engine run in the order in which one program made them.
#[derive(Clone)]
pub struct View {
    connection: Connection,
    targets: Targets,
    timeout: Duration,
}

impl View {
    pub(crate) fn new(connection: Connection, targets: Targets, timeout: Duration) -> View {
        View { connection, targets, timeout }
    }

    /// The engines meant, as of now.
    pub fn engines(&self) -> Result<Vec<Arc<Engine>>, ClientError> {
        match self.targets.resolve(&self.connection.engines()) {
            Ok(engines) => Ok(engines),
            // Nobody is here because the controller is not: that is what to tell.
            Err(error) => Err(self.lost_contact().unwrap_or(error)),
        }
    }

    fn lost_contact(&self) -> Option<ClientError> {
        match &self.connection.board().lock().contact {
            crate::machine::Contact::Lost { cause } => Some(ClientError::LostContact(Arc::clone(cause))),
            _ => None,
        }
    }

    /// Runs a cell on every engine; the value of its last expression is shown.
    pub fn execute(&self, code: &str) -> Result<AsyncResult, ClientError> {
        self.ask(&Work::Execute { code: code.to_owned(), silent: false })
    }

    /// Runs a cell without showing its value.
    pub fn execute_silently(&self, code: &str) -> Result<AsyncResult, ClientError> {
        self.ask(&Work::Execute { code: code.to_owned(), silent: true })
    }

    /// Runs the text of a file, read here, on every engine.
    pub fn run_file(&self, path: &Path) -> Result<AsyncResult, ClientError> {
        self.execute(&read_text(path)?)
    }

    /// Assigns names on every engine. Arrays travel once, as they lie in memory.
    pub fn push(&self, values: &[(&str, Value)]) -> Result<AsyncResult, ClientError> {
        let keywords = values.iter().map(|(name, value)| (*name, value));
        self.ask(&Work::Call(CallWork::new(PUSH, &[], keywords)))
    }

    /// Evaluates an expression (a name, most often) on every engine and brings the values here.
    pub fn pull(&self, expression: &str) -> Result<AsyncResult, ClientError> {
        self.ask(&Work::Call(CallWork::new(PULL, &[expression.into()], [])))
    }

    /// As [`View::pull`] for several expressions: each engine's value is a list.
    pub fn pull_all(&self, expressions: &[&str]) -> Result<AsyncResult, ClientError> {
        let list = Value::List(expressions.iter().map(|&expression| expression.into()).collect());
        self.ask(&Work::Call(CallWork::new(PULL, &[list], [])))
    }

    /// Splits a list, or an array along its first axis, into one block an engine; the first engines get one more
    /// where it does not divide evenly.
    pub fn scatter(&self, name: &str, value: &Value) -> Result<AsyncResult, ClientError> {
        let engines = self.engines()?;
        let parts = partition(value, engines.len())?;
        let push = |part: &Value| Work::Call(CallWork::new(PUSH, &[], [(name, part)]));
        let works: Vec<_> =
            engines.into_iter().zip(&parts).map(|(engine, part)| (engine, push(part))).collect();
        self.connection.ask_each(&works)
    }

    /// Brings the engines' parts here and joins them in the order of the targets: the opposite of
    /// [`View::scatter`]. Waits.
    pub fn gather(&self, expression: &str) -> Result<Value, ClientError> {
        join(self.pull(expression)?.get()?)
    }

    /// Calls a function of the engines' namespace by name.
    pub fn apply(
        &self,
        function: &str,
        arguments: &[Value],
        keywords: &[(&str, Value)],
    ) -> Result<AsyncResult, ClientError> {
        let keywords = keywords.iter().map(|(name, value)| (*name, value));
        self.ask(&Work::Call(CallWork::new(function, arguments, keywords)))
    }

    /// Loads a module of compiled functions, read here, on every engine; each gives the names of its functions. The file
    /// is sent to rank 0 of each world and spread over MPI, so the targets must be whole worlds.
    pub fn load(&self, path: &Path) -> Result<AsyncResult, ClientError> {
        let engines = self.engines()?;
        let table = self.connection.engines();
        let all = with_worlds(engines.clone(), &table);
        if let Some(other) = all.get(engines.len()) {
            let reason = format!(
                "load {}: engine {} is of the same MPI world, and all ranks load a module together; target it as well",
                path.display(),
                other.id
            );
            return Err(ClientError::Invalid(reason));
        }
        let bytes = read_module(path)?;
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        let load = |engine: &Arc<Engine>| {
            let rank = engine.description.as_ref().map_or(0, |description| description.rank);
            let bytes = if rank == 0 { bytes.clone() } else { Value::None };
            let arguments = [Value::Str(name.to_string()), bytes];
            (Arc::clone(engine), Work::Call(CallWork::new("load_all", &arguments, [])))
        };
        let works: Vec<_> = engines.iter().map(load).collect();
        self.connection.ask_each(&works)
    }

    /// Calls a function once for each item; engine 0 gets the first block of items, and so on. The results are in
    /// the order of the items.
    pub fn map(&self, function: &str, items: &[Value]) -> Result<AsyncResult, ClientError> {
        let engines = self.engines()?;
        let blocks = crate::array::blocks(items.len(), engines.len());
        let mut works = Vec::with_capacity(items.len());
        for (engine, block) in engines.iter().zip(blocks) {
            works.extend(items[block].iter().map(|item| {
                let call = CallWork::new(function, std::slice::from_ref(item), []);
                (Arc::clone(engine), Work::Call(call))
            }));
        }
        self.connection.ask_each(&works)
    }

    /// # Collective
    /// The sum of all elements over all targets, which must be whole worlds; the same value from each.
    pub fn psum(&self, expression: &str) -> Result<AsyncResult, ClientError> {
        self.pull(&format!("psum({expression})"))
    }

    /// # Collective
    /// The smallest of all elements over all targets.
    pub fn pmin(&self, expression: &str) -> Result<AsyncResult, ClientError> {
        self.pull(&format!("pmin({expression})"))
    }

    /// # Collective
    /// The largest of all elements over all targets.
    pub fn pmax(&self, expression: &str) -> Result<AsyncResult, ClientError> {
        self.pull(&format!("pmax({expression})"))
    }

    /// # Collective
    /// The product of all elements over all targets.
    pub fn pprod(&self, expression: &str) -> Result<AsyncResult, ClientError> {
        self.pull(&format!("pprod({expression})"))
    }

    /// # Collective
    /// The mean of all elements over all targets.
    pub fn pmean(&self, expression: &str) -> Result<AsyncResult, ClientError> {
        self.pull(&format!("pmean({expression})"))
    }

    /// Interrupts what runs on these engines **and on all ranks of their worlds**: a collective waits on all of
    /// them. Idle engines ignore it.
    pub fn interrupt(&self) -> Result<AsyncResult, ClientError> {
        let engines = with_worlds(self.engines()?, &self.connection.engines());
        Ok(self.signal_engines(&engines, "SIGINT"))
    }

    /// Sends a signal by its name to exactly these engines' processes.
    pub fn signal(&self, name: &str) -> Result<AsyncResult, ClientError> {
        Ok(self.signal_engines(&self.engines()?, name))
    }

    fn signal_engines(&self, engines: &[Arc<Engine>], name: &str) -> AsyncResult {
        let content = SignalRequest { sig: Signal::Name(name.to_owned()) };
        self.connection.control(engines, SIGNAL_REQUEST, &content)
    }

    /// Ends everything that waits on these engines, whoever asked for it. What runs goes on.
    pub fn abort(&self) -> Result<AsyncResult, ClientError> {
        let content = AbortRequest { msg_ids: vec![] };
        Ok(self.connection.control(&self.engines()?, ABORT_REQUEST, &content))
    }

    /// Empties the engines' namespaces.
    pub fn clear(&self) -> Result<AsyncResult, ClientError> {
        Ok(self.connection.control(&self.engines()?, CLEAR_REQUEST, &Empty {}))
    }

    /// Ends these engines after what runs now. Ends the MPI job of those that are ranks.
    pub fn shutdown(&self) -> Result<AsyncResult, ClientError> {
        Ok(self.connection.control(&self.engines()?, SHUTDOWN_REQUEST, &Shutdown::default()))
    }

    /// What could stand at `cursor` (in characters) of `code`, as the first engine sees it.
    pub fn complete(
        &self,
        code: &str,
        cursor: usize,
        timeout: Duration,
    ) -> Result<CompleteReply, ClientError> {
        let engines = self.engines()?;
        let first = engines.get(..1).unwrap_or_default();
        let content = CompleteRequest { code: code.to_owned(), cursor_pos: cursor };
        let mut outcomes = self.connection.control(first, COMPLETE_REQUEST, &content).join(timeout)?;
        crate::async_result::check(&outcomes)?;
        match outcomes.pop().map(|outcome| outcome.result) {
            Some(Ok(Answer::Content(content))) => serde_json::from_value(content)
                .map_err(|error| ClientError::Invalid(format!("understand a completion: {error}"))),
            _ => Err(ClientError::Invalid("understand a completion: it has no content".to_owned())),
        }
    }

    /// How long requests to the controller may take.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    fn ask(&self, work: &Work) -> Result<AsyncResult, ClientError> {
        self.connection.ask_all(&self.engines()?, work)
    }
}

/// These engines and all others of their worlds.
fn with_worlds(engines: Vec<Arc<Engine>>, table: &EngineTable) -> Vec<Arc<Engine>> {
    let shares_world = |engine: &Engine| {
        engine.world().is_some() && engines.iter().any(|chosen| chosen.world() == engine.world())
    };
    let others = table
        .iter()
        .filter(|engine| shares_world(engine) && !engines.iter().any(|chosen| chosen.uuid == engine.uuid));
    let others: Vec<Arc<Engine>> = others.cloned().collect();
    engines.into_iter().chain(others).collect()
}

/// Bytes of a module's file: debug builds of large kernels have some tens of MB.
const MODULE_BYTES_MAX: u64 = 256 << 20;

/// Bytes of a file of code: what a message's content may have, with room for JSON's escapes.
const CODE_BYTES_MAX: u64 = (protocol::limits::CONTENT_BYTES_MAX / 4) as u64;

fn read_text(path: &Path) -> Result<String, ClientError> {
    let failed = |source| ClientError::File { what: "read", path: PathBuf::from(path), source };
    let length = std::fs::metadata(path).map_err(failed)?.len();
    if length > CODE_BYTES_MAX {
        let reason = format!("run {}: it has {length} bytes, code may have {CODE_BYTES_MAX}", path.display());
        return Err(ClientError::Invalid(reason));
    }
    std::fs::read_to_string(path).map_err(failed)
}

/// A module's file as an array of bytes.
fn read_module(path: &Path) -> Result<Value, ClientError> {
    let failed = |source| ClientError::File { what: "read", path: PathBuf::from(path), source };
    let length = std::fs::metadata(path).map_err(failed)?.len();
    if length > MODULE_BYTES_MAX {
        let reason = format!(
            "load {}: it has {length} bytes, a module may have {MODULE_BYTES_MAX}; put it where engines can read it, and \
             run load(path) there",
            path.display()
        );
        return Err(ClientError::Invalid(reason));
    }
    Ok(crate::array::vector(std::fs::read(path).map_err(failed)?))
}

/// Names tasks for dependencies: results, or ids.
pub trait TaskIds {
    /// The ids.
    fn task_ids(&self) -> Vec<MsgId>;
}

impl TaskIds for AsyncResult {
    fn task_ids(&self) -> Vec<MsgId> {
        self.msg_ids().cloned().collect()
    }
}

impl TaskIds for [MsgId] {
    fn task_ids(&self) -> Vec<MsgId> {
        self.to_vec()
    }
}
