//! What Python asks of the engine: to print and to publish, to speak with the other ranks, to call functions of the
//! engine's program, and whether it is interrupted.
//!
//! Output may come from any thread of Python's. The other ranks and the program's functions belong to the main
//! thread.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::ThreadId;

use bytes::Bytes;
use engine_python_abi::{Frame, Port, Service};
use protocol::error::ename;
use protocol::value::{self, ArrayValue, DType, Value};
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::words::FunctionHelp;
use crate::array::{Array, Element};
use crate::communicator::{CommError, Communicator, ReduceOp};
use crate::each_dtype;
use crate::interrupt::Interrupt;
use crate::module;
use crate::output::{Iopub, Made};
use crate::runner::native::Registry;
use crate::runner::{CellContext, RunError, Stream};
use ndarray::{ArcArray, IxDyn};

/// Answers Python's calls. There is one interpreter in a process, hence one host.
#[derive(Debug)]
pub(super) struct Host {
    /// None before the engine has joined a cluster, and after it has ended.
    live: Mutex<Option<Live>>,
}

static HOST: Host = Host { live: Mutex::new(None) };

/// What any thread may use.
#[derive(Clone)]
struct Live {
    iopub: Arc<Iopub>,
    interrupt: Interrupt,
    main: ThreadId,
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live").finish_non_exhaustive()
    }
}

/// What the main thread may use.
struct World {
    communicator: Rc<dyn Communicator>,
    registry: Registry,
    /// While a task runs.
    context: Option<CellContext>,
}

thread_local! {
    /// Set on the main thread alone.
    static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
}

/// A call of Python's: see `python/src/glue`.
#[derive(Debug, Deserialize)]
#[serde(tag = "call", rename_all = "snake_case")]
enum Call {
    Print {
        stream: StreamName,
        text: String,
    },
    Publish {
        msg_type: String,
        topic: String,
        content: Json,
        metadata: serde_json::Map<String, Json>,
    },
    TakeInterrupt,
    Communicate(Communication),
    Function {
        function: String,
        arguments: Vec<Json>,
    },
    /// A module: the bytes of its file are the first buffer, if there is one; else it is read here.
    Load {
        file: String,
        taken: Vec<String>,
    },
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum StreamName {
    Stdout,
    Stderr,
}

/// A call to the other ranks. `dtype` and `shape` describe the first buffer, if the call has an operand.
#[derive(Debug, Deserialize)]
struct Communication {
    operation: String,
    dtype: Option<String>,
    #[serde(default)]
    shape: Vec<u64>,
    op: Option<String>,
    #[serde(default)]
    root: usize,
    to: Option<usize>,
    source: Option<usize>,
    #[serde(default)]
    tag: i32,
}

/// An answer, before it is written down.
type Outcome = Result<(Json, Vec<Frame>), RunError>;

impl Host {
    /// Where Python calls it.
    pub(super) fn port() -> Port {
        Port::of(&HOST)
    }

    /// From now on calls are answered. On the main thread.
    pub(super) fn install(
        iopub: Arc<Iopub>,
        interrupt: Interrupt,
        communicator: Rc<dyn Communicator>,
        registry: Registry,
    ) {
        WORLD.set(Some(World { communicator, registry, context: None }));
        HOST.set(Some(Live { iopub, interrupt, main: std::thread::current().id() }));
    }

    /// Lets go of the world, so that MPI can be left, and of the output channel.
    pub(super) fn uninstall() {
        WORLD.set(None);
        HOST.set(None);
    }

    /// Runs a task of Python's; what it prints goes to the task's output.
    pub(super) fn within<T>(context: &CellContext, task: impl FnOnce() -> T) -> T {
        struct Left;
        impl Drop for Left {
            fn drop(&mut self) {
                set_context(None);
            }
        }
        set_context(Some(context.clone()));
        let _left = Left;
        task()
    }

    fn set(&self, live: Option<Live>) {
        *self.live.lock().unwrap_or_else(PoisonError::into_inner) = live;
    }

    fn live(&self) -> Result<Live, RunError> {
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner).clone();
        live.ok_or_else(|| RunError::new(ename::RUNTIME_ERROR, "the engine has not joined a cluster"))
    }

    fn answer(&self, frames: Vec<Frame>) -> Outcome {
        let mut frames = frames.into_iter();
        let head = frames.next().ok_or_else(|| malformed("it is empty"))?;
        let call = serde_json::from_slice(head.as_ref()).map_err(malformed)?;
        let buffers: Vec<Bytes> = frames.map(Bytes::from_owner).collect();
        match call {
            Call::Print { stream, text } => self.print(stream.into(), &text),
            Call::Publish { msg_type, topic, content, metadata } => {
                let Live { iopub, interrupt, .. } = self.live()?;
                iopub.publish_made(&Made { msg_type, topic, content, metadata, buffers }, &interrupt);
                Ok((Json::Null, vec![]))
            }
            Call::TakeInterrupt => Ok((json!(self.live()?.interrupt.take()), vec![])),
            Call::Communicate(call) => {
                let ranks = self.communicator()?;
                let outcome = communicate(&*ranks, &call, buffers.into_iter().next());
                if matches!(&outcome, Err(CommError::Interrupted { .. })) {
                    // Python raises it with the text that says whom the call waited for.
                    self.live()?.interrupt.take();
                }
                match outcome? {
                    Some(array) => {
                        let head = json!({ "dtype": array.dtype().name(), "shape": array.shape() });
                        Ok((head, vec![given_away(array)]))
                    }
                    None => Ok((Json::Null, vec![])),
                }
            }
            Call::Function { function, arguments } => {
                let outcome = call_function(&function, &arguments, &buffers);
                if matches!(&outcome, Err(error) if error.interrupted) {
                    // Python raises it with the text that says where.
                    self.live()?.interrupt.take();
                }
                outcome
            }
            Call::Load { file, taken } => load(&file, buffers.first(), &taken),
        }
    }

    fn print(&self, stream: Stream, text: &str) -> Outcome {
        let output = with_world(|world| Ok(world.context.as_ref().map(|context| Rc::clone(&context.output))));
        match output {
            Ok(Some(output)) => output.borrow_mut().write(stream, text),
            // Another thread of Python's, or a destructor between two tasks.
            _ => {
                let Live { iopub, interrupt, .. } = self.live()?;
                iopub.print(stream, text, &interrupt);
            }
        }
        Ok((Json::Null, vec![]))
    }

    fn communicator(&self) -> Result<Rc<dyn Communicator>, RunError> {
        if std::thread::current().id() != self.live()?.main {
            return Err(RunError::new(
                ename::RUNTIME_ERROR,
                "only the main thread speaks with the other ranks",
            ));
        }
        with_world(|world| Ok(Rc::clone(&world.communicator)))
    }
}

fn set_context(context: Option<CellContext>) {
    WORLD.with_borrow_mut(|world| {
        if let Some(world) = world {
            world.context = context;
        }
    });
}

fn with_world<T>(use_it: impl FnOnce(&World) -> Result<T, RunError>) -> Result<T, RunError> {
    WORLD.with_borrow(|world| {
        let elsewhere = || RunError::new(ename::RUNTIME_ERROR, "only the main thread can do this");
        use_it(world.as_ref().ok_or_else(elsewhere)?)
    })
}

fn malformed(cause: impl std::fmt::Display) -> RunError {
    RunError::new(ename::RUNTIME_ERROR, format!("a call of the engine's Python plugin is malformed: {cause}"))
}

fn call_function(function: &str, arguments: &[Json], buffers: &[Bytes]) -> Outcome {
    let (function, context) = with_world(|world| {
        let known = world.registry.get(function);
        let unknown =
            || RunError::new(ename::NAME_ERROR, format!("the engine's program has no function {function}"));
        let idle =
            || RunError::new(ename::RUNTIME_ERROR, "functions of the program are called by tasks only");
        Ok((known.ok_or_else(unknown)?, world.context.clone().ok_or_else(idle)?))
    })?;
    let arguments = arguments.iter().map(|argument| value::decode(argument, buffers));
    let arguments: Vec<Value> = arguments.collect::<Result<_, _>>().map_err(malformed)?;
    let result = function.call(&context, arguments)?;
    let mut buffers = vec![];
    let described = value::encode(&result, &mut buffers);
    Ok((described, buffers.into_iter().map(Frame::of).collect()))
}

/// Loads a module, and says what it defines.
fn load(file: &str, bytes: Option<&Bytes>, taken: &[String]) -> Outcome {
    let registry = with_world(|world| Ok(world.registry.clone()))?;
    let is_taken = |name: &str| taken.iter().any(|taken| taken == name);
    let path = Path::new(file);
    let names = match bytes {
        Some(bytes) => registry.load(&module::name_of(path), bytes, is_taken),
        None => registry.load_file(path, is_taken),
    };
    Ok((json!(described(&registry, names?)), vec![]))
}

/// Functions as Python shows them.
pub(super) fn described(registry: &Registry, names: Vec<String>) -> Vec<FunctionHelp> {
    let described = names.into_iter().map(|name| {
        let help = registry.help(&name);
        let (signature, text) = help.map_or_else(Default::default, |help| (help.signature, help.text));
        FunctionHelp { name, signature, text }
    });
    described.collect()
}

impl Service for Host {
    fn serve(&self, frames: Vec<Frame>) -> Vec<Frame> {
        let (head, buffers) = match self.answer(frames) {
            Ok((ok, buffers)) => (json!({ "ok": ok }), buffers),
            Err(error) => (json!({ "error": { "ename": error.ename, "evalue": error.evalue } }), vec![]),
        };
        let mut frames = vec![Frame::from(head.to_string().into_bytes())];
        frames.extend(buffers);
        frames
    }
}

impl From<StreamName> for Stream {
    fn from(name: StreamName) -> Stream {
        match name {
            StreamName::Stdout => Stream::Stdout,
            StreamName::Stderr => Stream::Stderr,
        }
    }
}

/// A call to the other ranks, by name.
fn communicate(
    ranks: &dyn Communicator,
    call: &Communication,
    operand: Option<Bytes>,
) -> Result<Option<Array>, CommError> {
    let wrong = |reason: &str| CommError::Broken { reason: format!("in the Python plugin: {reason}") };
    let array = match (&call.dtype, operand) {
        (Some(dtype), Some(data)) => {
            let dtype = DType::from_name(dtype).ok_or_else(|| wrong("an unknown element type"))?;
            let value = ArrayValue::new(dtype, call.shape.clone(), data);
            Some(Array::from_wire(&value.map_err(|error| wrong(&error.to_string()))?))
        }
        _ => None,
    };
    let given = || array.as_ref().ok_or_else(|| wrong("an operand is missing"));
    let op = || match call.op.as_deref() {
        Some(name) => ReduceOp::from_name(name).ok_or_else(|| wrong("an unknown reduction")),
        None => Err(wrong("a reduction is missing")),
    };
    match call.operation.as_str() {
        "barrier" => ranks.barrier().map(|()| None),
        "bcast" => ranks.broadcast(array.as_ref(), call.root).map(Some),
        "reduce" => ranks.reduce(given()?, op()?, call.root),
        "allreduce" => ranks.all_reduce(given()?, op()?).map(Some),
        "scan" => ranks.scan(given()?, op()?).map(Some),
        "scatter" => ranks.scatter(array.as_ref(), call.root).map(Some),
        "gather" => ranks.gather(given()?, call.root),
        "allgather" => ranks.all_gather(given()?).map(Some),
        "alltoall" => ranks.all_to_all(given()?).map(Some),
        "send" => {
            let to = call.to.ok_or_else(|| wrong("a destination is missing"))?;
            ranks.send(given()?, to, call.tag).map(|()| None)
        }
        "recv" => ranks.receive(call.source, call.tag).map(|(array, _)| Some(array)),
        _ => Err(wrong("an unknown operation")),
    }
}

/// The elements of a result, for Python to keep and to write to.
fn given_away(array: Array) -> Frame {
    fn owned<T: Element + Default>(array: ArcArray<T, IxDyn>) -> Frame {
        let array = array.into_owned();
        let array = if array.is_standard_layout() { array } else { array.as_standard_layout().into_owned() };
        let length = array.len() * std::mem::size_of::<T>();
        let (mut elements, offset) = array.into_raw_vec_and_offset();
        elements.drain(..offset.unwrap_or(0));
        let data = elements.as_mut_ptr().cast::<u8>();
        // SAFETY: the vector has that many initialised bytes and keeps them in place; nobody else knows of it.
        unsafe { Frame::of_memory(data, length, elements) }
    }
    each_dtype!(array, a => owned(a))
}

/// Counts the memory that Python has lent to replies which are on their way.
#[derive(Clone, Debug, Default)]
pub(super) struct Lent(Arc<AtomicUsize>);

struct Counted {
    frame: Frame,
    lent: Lent,
}

impl Lent {
    /// Whether some of it has not come back.
    pub(super) fn is_out(&self) -> bool {
        self.0.load(Ordering::SeqCst) > 0
    }

    /// The frames of an answer as buffers of a reply.
    pub(super) fn bytes(&self, frames: Vec<Frame>) -> Vec<Bytes> {
        let counted = |frame| {
            self.0.fetch_add(1, Ordering::SeqCst);
            Bytes::from_owner(Counted { frame, lent: self.clone() })
        };
        frames.into_iter().map(counted).collect()
    }
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        self.frame.as_ref()
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.lent.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::solo::Solo;
    use crate::testing::captured_iopub;

    fn asked(call: &Json, buffers: Vec<Frame>) -> (Json, Vec<Frame>) {
        let mut frames = vec![Frame::from(call.to_string().into_bytes())];
        frames.extend(buffers);
        let mut answer = HOST.serve(frames).into_iter();
        let head = answer.next().expect("a head");
        (serde_json::from_slice(head.as_ref()).expect("JSON"), answer.collect())
    }

    #[test]
    fn python_prints_communicates_and_is_told_what_it_asks_wrongly() {
        // One test, because there is one host in a process.
        let print = json!({ "call": "print", "stream": "stdout", "text": "hello" });
        assert_eq!(asked(&print, vec![]).0["error"]["ename"], "RuntimeError");

        let (iopub, captured) = captured_iopub();
        Host::install(Arc::clone(&iopub), Interrupt::new(), Rc::new(Solo::new()), Registry::new());
        assert_eq!(asked(&print, vec![]).0, json!({ "ok": null }));
        iopub.finish();
        assert_eq!(captured.texts(), ["stdout: hello"]);

        let reduce = json!({ "call": "communicate", "operation": "allreduce", "op": "sum", "dtype": "f64", "shape": [2] });
        let operand: Vec<u8> = [1.5_f64, 2.0].iter().flat_map(|x| x.to_le_bytes()).collect();
        let (head, frames) = asked(&reduce, vec![operand.clone().into()]);
        assert_eq!(head, json!({ "ok": { "dtype": "f64", "shape": [2] } }));
        assert_eq!(frames[0].as_ref(), operand);

        for wrong in [
            json!({ "call": "communicate", "operation": "allreduce", "op": "sum" }),
            json!({ "call": "communicate", "operation": "dance" }),
            json!({ "call": "nothing" }),
            json!({ "call": "function", "function": "f", "arguments": [] }),
        ] {
            assert!(asked(&wrong, vec![]).0.get("error").is_some(), "{wrong}");
        }
        let elsewhere = std::thread::spawn(move || asked(&reduce, vec![]).0).join().expect("no panic");
        assert!(elsewhere["error"]["evalue"].as_str().is_some_and(|text| text.contains("main thread")));
        Host::uninstall();
        assert_eq!(asked(&print, vec![]).0["error"]["ename"], "RuntimeError");
    }

    #[test]
    fn memory_that_was_lent_is_known_until_the_reply_has_left() {
        let lent = Lent::default();
        let bytes = lent.bytes(vec![vec![1, 2].into(), vec![3].into()]);
        let copy = bytes[0].clone();
        drop(bytes);
        assert!(lent.is_out());
        drop(copy);
        assert!(!lent.is_out());
    }

    #[test]
    fn a_result_is_given_away_in_c_order() {
        let matrix = ndarray::arr2(&[[1i32, 2], [3, 4]]).reversed_axes().into_dyn().into_shared();
        let expected: Vec<u8> = [1i32, 3, 2, 4].iter().flat_map(|x| x.to_le_bytes()).collect();
        assert_eq!(given_away(Array::I32(matrix)).as_ref(), expected);
    }
}
