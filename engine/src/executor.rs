//! Runs one request at a time: the messages of the ipyparallel 9 wire around it, in their order.
//!
//! Busy, input, output, (result or error), the reply, idle; all with the request's header as their parent. What
//! runs is behind the trait [`Runner`]; where messages go is behind [`Sink`].

mod task;

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use protocol::error::{ErrorContent, ename};
use protocol::extension::{self, CallResult, Seconds};
use protocol::id::{EngineId, EngineUuid};
use protocol::message::execute::{AnyRequestMetadata, ApplyOk, ExecuteFailed, ExecuteOk, ReplyMetadata};
use protocol::message::output::{self, Display, ErrorOutput, ExecuteInput, ExecutionState, StatusUpdate};
use protocol::message::{Failure, Status, StatusContent};
use protocol::{Date, Message, Session, value};
use serde::Serialize;
use serde_json::{Value as Json, json};
use transport::Sent;

use crate::communicator::Communicator;
use crate::interrupt::Interrupt;
use crate::output::{Iopub, Printer, Sink};
use crate::queries;
use crate::runner::{CellContext, Output, RunError, Runner, Stream};
use task::Task;

/// The error of a function that asks for an engine with something that this one lacks.
const UNMET_DEPENDENCY: &str = "UnmetDependency";

/// A request on the shell channel, with where its answer goes.
#[derive(Clone, Debug)]
pub struct Request {
    /// The routing frames, to be put before the reply.
    pub routing: Vec<Bytes>,
    /// The request.
    pub message: Message,
}

/// The name of an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// Its socket identity.
    pub uuid: EngineUuid,
    /// Its number.
    pub id: EngineId,
}

/// What an executor is made of.
pub struct Parts {
    /// Runs user code.
    pub runner: Box<dyn Runner>,
    /// The other ranks.
    pub communicator: Rc<dyn Communicator>,
    /// Ends a task; armed while one runs.
    pub interrupt: Interrupt,
    /// Who answers.
    pub name: Name,
    /// Makes the replies.
    pub session: Session,
    /// Takes the replies.
    pub shell: Box<dyn Sink>,
    /// Takes output and states.
    pub iopub: Arc<Iopub>,
}

/// Runs requests and answers them.
pub struct Executor {
    parts: Parts,
    output: Rc<RefCell<dyn Output>>,
    execution_count: u64,
}

/// A request that ran, before it is answered.
#[derive(Debug)]
pub struct Answer {
    request: Request,
    metadata: ReplyMetadata,
    content: Json,
    buffers: Vec<Bytes>,
    /// Whether the cells that wait are to be aborted.
    pub stops_cells: bool,
}

/// What a task gave.
struct Outcome {
    content: Json,
    buffers: Vec<Bytes>,
    /// Shown on the output channel.
    shown: Shown,
    stops_cells: bool,
    elapsed: Duration,
}

enum Shown {
    Nothing,
    Result(Display),
    Error(ErrorOutput),
}

impl Executor {
    /// An executor that has run nothing.
    pub fn new(parts: Parts) -> Executor {
        let printer = Printer { iopub: Arc::clone(&parts.iopub), interrupt: parts.interrupt.clone() };
        Executor { output: Rc::new(RefCell::new(printer)), parts, execution_count: 0 }
    }

    /// What runs user code, for questions between requests.
    pub fn runner(&self) -> &dyn Runner {
        &*self.parts.runner
    }

    /// How many collectives this rank has completed.
    pub fn collectives(&self) -> u64 {
        self.parts.communicator.completed()
    }

    /// Empties the namespace.
    pub fn clear(&mut self) {
        if catch_unwind(AssertUnwindSafe(|| self.parts.runner.clear())).is_err() {
            tracing::error!("the namespace was not cleared: the runner panicked");
        }
    }

    /// Runs a request; everything is published but the reply and `idle`, which [`Executor::answer`] sends.
    pub fn run(&mut self, request: Request) -> Answer {
        let message = &request.message;
        self.parts.iopub.begin(&message.wire.header);
        self.announce_busy();
        let started = now();
        let read = read_metadata(message);
        self.parts.communicator.enter_cell(read.extension.as_ref().map_or(0, |extension| extension.cell));
        let collectives = self.parts.communicator.completed();

        let outcome = match Task::read(message) {
            Task::Cell(cell) => self.run_cell(cell),
            Task::Call(call) => self.run_call(call, &message.wire.buffers),
            Task::PickledCall => self.run_pickled_call(message),
            Task::Query => self.answer_query(message),
            Task::Refused(error) => self.failed(error, "apply", |failure| to_json(&failure)),
        };

        self.parts.iopub.finish();
        match &outcome.shown {
            Shown::Nothing => {}
            Shown::Result(display) => {
                self.parts.iopub.publish(output::EXECUTE_RESULT, output::EXECUTE_RESULT, display);
            }
            Shown::Error(error) => self.parts.iopub.publish(output::ERROR, output::ERROR, error),
        }
        let status = status_of(&outcome.content);
        let extension = extension::ReplyMetadata {
            rank: u32::try_from(self.parts.communicator.rank()).unwrap_or(u32::MAX),
            collectives: self.parts.communicator.completed().saturating_sub(collectives),
            elapsed: Some(Seconds(outcome.elapsed.as_secs_f64())),
        };
        let mut metadata = self.reply_metadata(read, started, status, Some(extension));
        // A scheduler tries the task elsewhere.
        metadata.dependencies_met = outcome.content.get("ename").is_none_or(|name| name != UNMET_DEPENDENCY);
        Answer {
            request,
            metadata,
            content: outcome.content,
            buffers: outcome.buffers,
            stops_cells: outcome.stops_cells,
        }
    }

    fn announce_busy(&self) {
        let busy = StatusUpdate { execution_state: ExecutionState::Busy };
        self.parts.iopub.announce("status", output::STATUS, &busy);
    }

    /// Sends the reply, then `idle`.
    pub fn answer(&mut self, answer: Answer) {
        let Answer { request, metadata, content, buffers, .. } = answer;
        self.reply(&request, &metadata, &content, buffers);
        self.parts.iopub.status(ExecutionState::Idle);
    }

    /// Answers a request that was aborted before it ran.
    pub fn abort(&mut self, request: &Request) {
        self.parts.iopub.begin(&request.message.wire.header);
        self.announce_busy();
        let metadata = self.reply_metadata(read_metadata(&request.message), now(), Status::Aborted, None);
        self.reply(request, &metadata, &to_json(&StatusContent::ABORTED), vec![]);
        self.parts.iopub.status(ExecutionState::Idle);
    }

    /// Runs code before there is any client: what it prints goes to this process' own streams.
    pub fn run_at_start(&mut self, label: &str, code: &str) -> Result<(), RunError> {
        let console: Rc<RefCell<dyn Output>> = Rc::new(RefCell::new(Console));
        let context = CellContext { output: console, store_history: false, ..self.context(label) };
        self.guarded(|runner| runner.execute(code, &context)).0.map(drop)
    }

    fn run_cell(&mut self, cell: protocol::message::execute::ExecuteRequest) -> Outcome {
        if !cell.silent {
            self.execution_count += 1;
            let input = ExecuteInput { code: cell.code.clone(), execution_count: self.execution_count };
            self.parts.iopub.announce(output::EXECUTE_INPUT, output::EXECUTE_INPUT, &input);
        }
        let count = self.execution_count;
        let context = CellContext {
            silent: cell.silent,
            store_history: cell.store_history.unwrap_or(!cell.silent),
            ..self.context(&format!("cell {count}"))
        };
        let (result, elapsed) = self.guarded(|runner| {
            let displayed = runner.execute(&cell.code, &context)?;
            let expressions = runner.user_expressions(&cell.user_expressions, &context);
            Ok((displayed, expressions, runner.take_payload()))
        });
        match result {
            Ok((displayed, user_expressions, payload)) => {
                let content =
                    ExecuteOk { status: Status::Ok, execution_count: count, user_expressions, payload };
                let shown = match displayed {
                    Some(displayed) if !cell.silent => {
                        let data = [("text/plain".to_owned(), Json::from(displayed.text))].into();
                        Shown::Result(Display { data, metadata: [].into(), execution_count: Some(count) })
                    }
                    _ => Shown::Nothing,
                };
                Outcome { shown, elapsed, ..Outcome::of(&content) }
            }
            Err(error) => {
                let content = |failure| {
                    to_json(&ExecuteFailed {
                        failure,
                        execution_count: count,
                        user_expressions: [].into(),
                        payload: vec![],
                    })
                };
                let outcome = self.failed_to_run(error, "execute", content);
                Outcome { stops_cells: !cell.silent && cell.stop_on_error, elapsed, ..outcome }
            }
        }
    }

    fn run_call(&mut self, call: extension::Call, buffers: &[Bytes]) -> Outcome {
        let context = self.context(&call.function);
        let (result, elapsed) = self.guarded(|runner| task::call(runner, &call, buffers, &context));
        match result {
            Ok(value) => {
                let mut buffers = vec![];
                let value = value::encode(&value, &mut buffers);
                let content = ApplyOk { status: Status::Ok, extension: Some(CallResult { value }) };
                Outcome { buffers, elapsed, ..Outcome::of(&content) }
            }
            Err(error) => {
                let outcome = self.failed_to_run(error, "apply", |failure| to_json(&failure));
                Outcome { elapsed, ..outcome }
            }
        }
    }

    fn run_pickled_call(&mut self, message: &Message) -> Outcome {
        let context =
            CellContext { msg_id: message.header.msg_id.to_string(), ..self.context("a pickled call") };
        let buffers = &message.wire.buffers;
        let (result, elapsed) = self.guarded(|runner| runner.apply_pickled(buffers, &context));
        match result {
            Ok(buffers) => {
                Outcome { buffers, elapsed, ..Outcome::of(&ApplyOk { status: Status::Ok, extension: None }) }
            }
            Err(error) => {
                let outcome = self.failed_to_run(error, "apply", |failure| to_json(&failure));
                Outcome { elapsed, ..outcome }
            }
        }
    }

    fn answer_query(&mut self, message: &Message) -> Outcome {
        match queries::answer(message, &queries::Live(&*self.parts.runner)) {
            Ok(content) => Outcome::of(&content),
            Err(error) => Outcome::of(&Failure::from(*error)),
        }
    }

    /// Runs user code: interruptible, and a panic is the task's error.
    fn guarded<T>(
        &mut self,
        task: impl FnOnce(&mut dyn Runner) -> Result<T, RunError>,
    ) -> (Result<T, RunError>, Duration) {
        let start = Instant::now();
        self.parts.interrupt.arm();
        let result = catch_unwind(AssertUnwindSafe(|| task(&mut *self.parts.runner)));
        self.parts.interrupt.disarm();
        let result = result.unwrap_or_else(|panic| {
            let text = panic_text(&*panic);
            Err(RunError::new(ename::RUNTIME_ERROR, format!("the function panicked: {text}")))
        });
        let result = result.map_err(|error| match self.parts.interrupt.reason() {
            Some(reason) if error.interrupted => error.because(reason),
            _ => error,
        });
        (result, start.elapsed())
    }

    fn failed_to_run(&self, error: RunError, method: &str, content: impl FnOnce(Failure) -> Json) -> Outcome {
        let published = error.published;
        let outcome = self.failed(error_content(error), method, content);
        Outcome { shown: if published { Shown::Nothing } else { outcome.shown }, ..outcome }
    }

    fn failed(&self, error: ErrorContent, method: &str, content: impl FnOnce(Failure) -> Json) -> Outcome {
        let shown = Shown::Error(ErrorOutput {
            ename: error.ename.clone(),
            evalue: error.evalue.clone(),
            traceback: error.traceback.clone(),
        });
        let error = error.from_engine(self.parts.name.uuid.clone(), self.parts.name.id, method);
        let content = content(Failure::from(error));
        Outcome { content, buffers: vec![], shown, stops_cells: false, elapsed: Duration::ZERO }
    }

    fn context(&self, label: &str) -> CellContext {
        let output = Rc::clone(&self.output);
        let communicator = Rc::clone(&self.parts.communicator);
        let count = self.execution_count;
        CellContext { count, ..CellContext::new(label, output, communicator, self.parts.interrupt.clone()) }
    }

    fn reply_metadata(
        &self,
        request: AnyRequestMetadata,
        started: Date,
        status: Status,
        extension: Option<extension::ReplyMetadata>,
    ) -> ReplyMetadata {
        let Name { uuid, id } = &self.parts.name;
        ReplyMetadata {
            started: Some(started),
            dependencies_met: true,
            engine: Some(uuid.clone()),
            is_broadcast: request.is_broadcast,
            is_coalescing: request.is_coalescing,
            original_msg_id: request.original_msg_id.map_or_else(String::new, |id| id.to_string()),
            label: request.label,
            status: Some(status),
            engine_info: (status == Status::Error).then(|| json!({ "engine_uuid": uuid, "engine_id": id })),
            broadcast_targets: None,
            extension,
        }
    }

    fn reply(&mut self, request: &Request, metadata: &ReplyMetadata, content: &Json, buffers: Vec<Bytes>) {
        let parent = &request.message.wire.header;
        let msg_type = reply_type(&request.message.header.msg_type);
        let reply = self.parts.session.reply(now(), &msg_type, parent, metadata, content, buffers);
        match self.parts.shell.offer(&reply.to_parts(&request.routing)) {
            Ok(Sent::Done) => {}
            Ok(Sent::WouldBlock | Sent::Unreachable) => {
                tracing::warn!(request = %request.message.header.msg_id, "reply lost: the controller is gone");
            }
            Err(error) => tracing::error!(%error, request = %request.message.header.msg_id, "reply lost"),
        }
    }
}

impl Outcome {
    fn of(content: &impl Serialize) -> Outcome {
        Outcome {
            content: to_json(content),
            buffers: vec![],
            shown: Shown::Nothing,
            stops_cells: false,
            elapsed: Duration::ZERO,
        }
    }
}

/// Prints to the process' own streams.
struct Console;

impl Output for Console {
    fn write(&mut self, stream: Stream, text: &str) {
        use std::io::Write;
        // Nobody may be reading them any more; that is no reason to stop.
        let _ = match stream {
            Stream::Stdout => std::io::stdout().write_all(text.as_bytes()),
            Stream::Stderr => std::io::stderr().write_all(text.as_bytes()),
        };
    }
}

fn error_content(error: RunError) -> ErrorContent {
    ErrorContent {
        ename: error.ename,
        evalue: error.evalue,
        traceback: error.traceback,
        engine_info: None,
        line: error.line,
        column: error.column,
    }
}

fn read_metadata(message: &Message) -> AnyRequestMetadata {
    message.metadata().unwrap_or_else(|error| {
        tracing::warn!(%error, request = %message.header.msg_id, "metadata ignored");
        AnyRequestMetadata::default()
    })
}

/// `execute_request` is answered by `execute_reply`.
pub fn reply_type(request_type: &str) -> String {
    format!("{}_reply", request_type.strip_suffix("_request").unwrap_or(request_type))
}

fn status_of(content: &Json) -> Status {
    match content.get("status").and_then(Json::as_str) {
        Some("error") => Status::Error,
        Some("aborted") => Status::Aborted,
        _ => Status::Ok,
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

fn to_json(content: &impl Serialize) -> Json {
    serde_json::to_value(content).expect("our message types are maps with text keys")
}

fn now() -> Date {
    Date::from_system_time(SystemTime::now())
}

#[cfg(test)]
mod tests;
