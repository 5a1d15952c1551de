//! Builtins of the session: output, names, files, time, help.

use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rhai::{Dynamic, FnPtr, NativeCallContext};

use crate::array::Array;
use crate::module::{self, Argument, Output};
use crate::runner::native::Callable;
use crate::runner::{RunError, Stream};

use super::super::convert::{from_value, kind, to_value};
use super::super::namespace::Session;
use super::super::raised::{Outcome, Raised, type_error, value_error};
use super::super::{display, interpreter};
use super::{Builtin, Call, Category, is_builtin};

const SESSION: Category = Category::Session;

/// How long a sleep goes on without a look at the interrupt flag.
const NAP: Duration = Duration::from_millis(10);
/// The longest sleep, so that a mistyped number does not block an engine for a year.
const SLEEP_MAX_SECONDS: f64 = 7.0 * 86_400.0;
/// The largest file that `run` reads.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// How deep files may run each other.
const FILES_MAX: usize = 16;

#[rustfmt::skip]
pub(super) const TABLE: &[Builtin] = &[
    Builtin { name: "print", signature: "print(x, …)", summary: "writes values and ends the line", details: "Between the values is a space. The output reaches the client at once.", category: SESSION, arity: (0, 8), run: print },
    Builtin { name: "run", signature: "run(file)", summary: "runs a file on this engine, as if it were typed here", details: "Paths are the engine's; the functions and names that the file defines stay.", category: SESSION, arity: (1, 1), run: run_file },
    Builtin { name: "load", signature: "load(file)", summary: "loads a module of compiled functions (C, Fortran, Rust), and gives their names", details: "Paths are the engine's; `client load` sends a file that only the client has. A file of the same name replaces what it defined before.", category: SESSION, arity: (1, 2), run: load },
    Builtin { name: "load_all", signature: "load_all(file, bytes)", summary: "loads the module on all ranks whose bytes rank 0 has", details: "All ranks call it; what others than rank 0 pass is ignored.", category: SESSION, arity: (1, 2), run: load_all },
    Builtin { name: "del", signature: "del(name)", summary: "forgets a name and frees its value", details: "`del(\"a\")`. `a = ()` frees the value and keeps the name.", category: SESSION, arity: (1, 1), run: delete },
    Builtin { name: "has", signature: "has(name)", summary: "whether a name has a value", details: "", category: SESSION, arity: (1, 1), run: |call| Ok(Dynamic::from(call.session.get(&call.text(0)?).is_some())) },
    Builtin { name: "names", signature: "names()", summary: "the names of the namespace, as a list", details: "", category: SESSION, arity: (0, 0), run: |call| Ok(Dynamic::from_array(call.session.names().into_iter().map(|(name, _)| name.into()).collect())) },
    Builtin { name: "who", signature: "who()", summary: "prints the namespace: names, types, shapes, bytes", details: "", category: SESSION, arity: (0, 0), run: who },
    Builtin { name: "nbytes", signature: "nbytes(a)", summary: "bytes that an array's elements take", details: "", category: SESSION, arity: (1, 1), run: |call| Ok(Dynamic::from(call.array(0)?.byte_len() as i64)) },
    Builtin { name: "kind", signature: "kind(x)", summary: "the name of a value's type", details: "int, float, complex, bool, string, list, map, array, function, range, bytes or ().", category: SESSION, arity: (1, 1), run: |call| Ok(kind(call.value(0)?).into()) },
    Builtin { name: "repr", signature: "repr(x)", summary: "the text that the prompt shows for a value", details: "", category: SESSION, arity: (1, 1), run: |call| Ok(display::shown(call.value(0)?).into()) },
    Builtin { name: "sleep", signature: "sleep(seconds)", summary: "waits; an interrupt ends it at once", details: "", category: SESSION, arity: (1, 1), run: sleep },
    Builtin { name: "time", signature: "time()", summary: "seconds since 1970, as a float", details: "", category: SESSION, arity: (0, 0), run: |_| Ok(Dynamic::from(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64()))) },
    Builtin { name: "error", signature: "error(message)", summary: "raises an error", details: "`try { … } catch (e) { e.message }` catches it; an interrupt cannot be caught.", category: SESSION, arity: (1, 1), run: |call| Err(Raised::new("RuntimeError", call.text(0)?)) },
    Builtin { name: "help", signature: "help([name])", summary: "prints all builtins, or help on one", details: "`help(\"psum\")` or `help(psum)`.", category: SESSION, arity: (0, 1), run: help },
];

/// Calls of functions that were unknown when the cell was read (see `CALL_LATE`).
pub(super) fn call_late(
    session: &Rc<Session>,
    context: &NativeCallContext<'_>,
    arguments: &mut [&mut Dynamic],
) -> Result<Dynamic, Box<rhai::EvalAltResult>> {
    let Some((name, rest)) = arguments.split_first() else { return Ok(Dynamic::UNIT) };
    let name = (**name).clone().into_string().unwrap_or_default();
    let rest: Vec<Dynamic> = rest.iter().map(|argument| argument.flatten_clone()).collect();
    if let Some(function) = session.get(&name).as_ref().and_then(super::super::convert::function) {
        return function.call_within_context(context, rest);
    }
    if session.library.borrow().iter_functions().any(|function| function.name == name) {
        return interpreter::call_function(context.engine(), session, &name, rest);
    }
    if session.natives.contains(&name) {
        // Loaded by this very cell.
        return Ok(call_native(session, &name, &rest)?);
    }
    FnPtr::new(name)?.call_within_context(context, rest)
}

/// Calls a function of the engine's program or of a module.
pub(super) fn call_native(session: &Session, name: &str, arguments: &[Dynamic]) -> Outcome<Dynamic> {
    let context = session.context()?;
    match session.natives.get(name) {
        Some(Callable::Program(function)) => {
            let values = arguments.iter().map(to_value).collect::<Outcome<Vec<_>>>()?;
            Ok(from_value(&function(&context, values)?))
        }
        Some(Callable::Module(function)) => {
            let arguments = arguments.iter().map(to_argument).collect::<Outcome<Vec<_>>>()?;
            Ok(from_output(function.call(&context, &arguments)?))
        }
        None => Err(Raised::new("NameError", format!("the function `{name}` is not loaded any more"))),
    }
}

/// Arrays of the namespace are passed as they are.
fn to_argument(value: &Dynamic) -> Outcome<Argument> {
    match value.read_lock::<Array>() {
        Some(array) => Ok(Argument::Array(array.clone())),
        None => Ok(Argument::of(to_value(value)?)?),
    }
}

/// Arrays that a module made are taken over.
fn from_output(output: Output) -> Dynamic {
    match output {
        Output::None => Dynamic::UNIT,
        Output::Value(value) => from_value(&value),
        Output::Array(array) => Dynamic::from(array),
        Output::List(items) => Dynamic::from_array(items.into_iter().map(from_output).collect()),
    }
}

/// Loads a module from a file of this engine's machine, or from bytes that came another way.
fn load(call: &Call<'_, '_>) -> Outcome<Dynamic> {
    let path = PathBuf::from(call.text(0)?);
    let natives = &call.session.natives;
    let loaded = match call.argument(1) {
        None => natives.load_file(&path, is_builtin),
        Some(_) => natives.load(&module::name_of(&path), &bytes_of(&call.array(1)?)?, is_builtin),
    };
    Ok(listed(loaded.map_err(RunError::from)?))
}

/// As `load`, with the bytes that rank 0 has.
fn load_all(call: &Call<'_, '_>) -> Outcome<Dynamic> {
    let name = module::name_of(&PathBuf::from(call.text(0)?));
    let own = match call.argument(1) {
        Some(value) if !value.is_unit() => Some(call.array(1)?),
        _ => None,
    };
    let bytes = call.session.communicator()?.broadcast(own.as_ref(), 0)?;
    let loaded = call.session.natives.load(&name, &bytes_of(&bytes)?, is_builtin);
    Ok(listed(loaded.map_err(RunError::from)?))
}

fn bytes_of(array: &Array) -> Outcome<Vec<u8>> {
    match array {
        Array::U8(bytes) => Ok(bytes.iter().copied().collect()),
        other => Err(type_error(format!("a module is given as bytes, not as {}", other.dtype()))),
    }
}

fn listed(names: Vec<String>) -> Dynamic {
    Dynamic::from_array(names.into_iter().map(Dynamic::from).collect())
}

fn print(call: &Call<'_, '_>) -> Outcome<Dynamic> {
    // Rhai takes the text from any function of this name, and hands it to `on_print`.
    Ok(call.arguments().iter().map(display::printed).collect::<Vec<String>>().join(" ").into())
}

fn delete(call: &Call<'_, '_>) -> Outcome<Dynamic> {
    let name = call.text(0)?;
    if call.session.delete(&name) {
        Ok(Dynamic::UNIT)
    } else {
        Err(Raised::new("NameError", format!("name '{name}' is not defined")))
    }
}

fn who(call: &Call<'_, '_>) -> Outcome<Dynamic> {
    let mut text = String::new();
    for summary in interpreter::summaries(call.session) {
        text += &format!("{:<16} {:<10} {}\n", summary.name, summary.kind, summary.summary);
    }
    call.session.write(Stream::Stdout, &text);
    Ok(Dynamic::UNIT)
}

fn sleep(call: &Call<'_, '_>) -> Outcome<Dynamic> {
    let seconds = call.float(0)?;
    if !(0.0..=SLEEP_MAX_SECONDS).contains(&seconds) {
        return Err(value_error(format!("sleep: {seconds} is not from 0 to {SLEEP_MAX_SECONDS} seconds")));
    }
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    loop {
        if call.session.is_interrupted() {
            return Err(Raised::interrupted());
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(Dynamic::UNIT);
        }
        std::thread::sleep(left.min(NAP));
    }
}

fn run_file(call: &Call<'_, '_>) -> Outcome<Dynamic> {
    let path = PathBuf::from(call.text(0)?);
    let failed = |error: std::io::Error| {
        let name = if error.kind() == std::io::ErrorKind::NotFound { "FileNotFoundError" } else { "OSError" };
        Raised::new(name, format!("cannot run {}: {error}; paths are the engine's", path.display()))
    };
    let metadata = std::fs::metadata(&path).map_err(failed)?;
    if !metadata.is_file() || metadata.len() > FILE_BYTES_MAX {
        return Err(value_error(format!("{} is not a file of at most 16 MiB", path.display())));
    }
    let code = std::fs::read_to_string(&path).map_err(failed)?;
    if call.session.files.borrow().len() >= FILES_MAX {
        return Err(Raised::new("RecursionError", format!("more than {FILES_MAX} files run each other")));
    }
    call.session.files.borrow_mut().push(path.clone());
    let result = interpreter::run(call.rhai.engine(), call.session, &code, &path.display().to_string());
    call.session.files.borrow_mut().pop();
    match result {
        Ok(value) => Ok(value),
        Err(error) => Err(error.into()),
    }
}

fn help(call: &Call<'_, '_>) -> Outcome<Dynamic> {
    let text = match call.argument(0) {
        None => overview(),
        Some(value) => {
            let name = match super::super::convert::function(value) {
                Some(function) => function.fn_name().to_owned(),
                None => call.text(0)?,
            };
            interpreter::describe(call.session, &name).ok_or_else(|| {
                Raised::new("NameError", format!("nothing is known of `{name}`; `help()` lists the builtins"))
            })?
        }
    };
    call.session.write(Stream::Stdout, &text);
    Ok(Dynamic::UNIT)
}

fn overview() -> String {
    let mut text = String::new();
    for category in Category::ALL {
        text += &format!("{}\n", category.title());
        for builtin in super::all().filter(|builtin| builtin.category == category) {
            text += &format!("  {:<36} {}\n", builtin.signature, builtin.summary);
        }
    }
    text + "help(\"name\") says more.\n"
}

/// Type, content in short, and bytes of a value.
pub(crate) fn summary_of(value: &Dynamic) -> (String, String, usize) {
    if let Some(array) = value.read_lock::<Array>() {
        return (array.dtype().name().to_owned(), format!("{:?}", array.shape()), array.byte_len());
    }
    let mut text: String = display::shown(value);
    if text.chars().count() > 60 {
        text = text.chars().take(59).collect::<String>() + "…";
    }
    (kind(value).to_owned(), text, 0)
}
