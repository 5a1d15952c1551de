//! Running prepared text in Rhai, within limits.

use std::cell::Cell;
use std::rc::Rc;

use rhai::packages::{
    BasicArrayPackage, BasicBlobPackage, BasicMapPackage, CorePackage, MoreStringPackage, Package,
};
use rhai::{AST, CallFnOptions, Dynamic, Engine, OptimizationLevel, Scope};

use crate::runner::{NameSummary, RunError, Stream};

use super::namespace::{Missing, Session, SourceText};
use super::raised::Raised;
use super::source::{RESERVED_PREFIX, prepare, terminated};
use super::{builtins, report};

/// Calls inside of calls; the stack itself is watched as well.
const CALL_DEPTH_MAX: usize = 1000;
/// Brackets and operators inside of each other. Each takes some kilobytes of stack to read.
const EXPRESSION_DEPTH_MAX: usize = 64;
/// Bytes of a string.
const STRING_BYTES_MAX: usize = 64 << 20;
/// Items of a list or map; for more numbers there are arrays.
const ITEMS_MAX: usize = 10_000_000;
/// Stack that is left to the builtins and to unwinding when a recursion is stopped.
const STACK_RESERVE: usize = 384 << 10;

/// The Rhai engine, with our builtins, names and limits.
pub(super) fn new_engine(session: &Rc<Session>) -> Engine {
    let mut engine = Engine::new_raw();
    CorePackage::new().register_into_engine(&mut engine);
    BasicArrayPackage::new().register_into_engine(&mut engine);
    BasicBlobPackage::new().register_into_engine(&mut engine);
    BasicMapPackage::new().register_into_engine(&mut engine);
    MoreStringPackage::new().register_into_engine(&mut engine);
    engine
        .set_optimization_level(OptimizationLevel::None)
        .set_max_call_levels(CALL_DEPTH_MAX)
        .set_max_expr_depths(EXPRESSION_DEPTH_MAX, EXPRESSION_DEPTH_MAX)
        .set_max_string_size(STRING_BYTES_MAX)
        .set_max_array_size(ITEMS_MAX)
        .set_max_map_size(ITEMS_MAX)
        // Rhai's shortcut for numbers would bypass our `/`, `%` and `**`.
        .set_fast_operators(false);
    // `eval` would see Rhai's scopes instead of the namespace; modules would read files behind `run`.
    for symbol in ["eval", "import", "export"] {
        engine.disable_symbol(symbol);
    }
    engine
        .register_custom_operator("@", 180)
        .expect("`@` is no operator of Rhai's, and 180 is the precedence of products");
    builtins::register(&mut engine, session);
    builtins::register_late_calls(&mut engine, session);
    let weak = Rc::downgrade(session);
    #[expect(deprecated, reason = "Rhai marks the hook as volatile, and has no other for variables")]
    engine.on_var(move |name, index, context| match weak.upgrade() {
        Some(session) => session.on_variable(name, index, context),
        None => Ok(None),
    });
    let weak = Rc::downgrade(session);
    engine.on_progress(move |_| {
        let session = weak.upgrade()?;
        if session.is_interrupted() {
            return Some(Dynamic::from(Raised::interrupted()));
        }
        let here = Cell::new(0_u8);
        if (here.as_ptr() as usize) < session.stack_floor.get() {
            return Some(Dynamic::from(report::recursion()));
        }
        None
    });
    let weak = Rc::downgrade(session);
    engine.on_print(move |text| {
        if let Some(session) = weak.upgrade() {
            session.write(Stream::Stdout, &format!("{text}\n"));
        }
    });
    let weak = Rc::downgrade(session);
    engine.on_debug(move |text, _, _| {
        if let Some(session) = weak.upgrade() {
            session.write(Stream::Stderr, &format!("{text}\n"));
        }
    });
    engine
}

/// Runs a cell or a file; its functions and names stay.
pub(super) fn run(
    engine: &Engine,
    session: &Rc<Session>,
    code: &str,
    label: &str,
) -> Result<Dynamic, RunError> {
    // Syntax errors speak of the text as it was typed.
    let (ended, map) = terminated(engine, code);
    let typed = |map| SourceText { label: label.to_owned(), text: code.to_owned(), map };
    engine.compile(&ended).map_err(|error| report::of_parsing(&typed(map.clone()), &error))?;
    let prepared = prepare(engine, &ended, session.as_ref())
        .map_err(|complaint| report::of_complaint(&typed(map.clone()), complaint))?;
    let source = Rc::new(typed(prepared.map.after(map)));
    let cell = engine
        .compile(&prepared.text)
        .map_err(|error| report::of_run(session, &source, *Box::<rhai::EvalAltResult>::from(error)))?;
    let runnable = {
        let mut library = session.library.borrow_mut();
        // A function is replaced by its new definition, whatever number of parameters either has.
        library.retain_functions(|_, _, name, _| !prepared.functions.contains(name));
        library.combine(cell.clone_functions_only());
        let mut origins = session.origins.borrow_mut();
        for function in cell.iter_functions() {
            origins.insert(function.name.to_owned(), source.clone());
        }
        library.merge(&cell.clone_statements_only())
    };
    session.stack_floor.set(stack_floor());
    let mut scope = Scope::new();
    let result = engine.eval_ast_with_scope::<Dynamic>(&mut scope, &runnable).map(Dynamic::flatten);
    match result {
        Ok(value) if value.is::<Missing>() => Ok(Dynamic::UNIT),
        Ok(value) => Ok(value),
        Err(error) => Err(report::of_run(session, &source, *error)),
    }
}

/// Calls a function that a cell defined.
pub(super) fn call_function(
    engine: &Engine,
    session: &Session,
    name: &str,
    arguments: Vec<Dynamic>,
) -> Result<Dynamic, Box<rhai::EvalAltResult>> {
    let library: AST = session.library.borrow().clone();
    let options = CallFnOptions::new().eval_ast(false).rewind_scope(true);
    engine
        .call_fn_with_options::<Dynamic>(options, &mut Scope::new(), &library, name, arguments)
        .map(Dynamic::flatten)
}

/// The lowest address that the stack of this thread may grow to.
///
/// Found once a thread: on the main one glibc reads all of `/proc/self/maps` for it, which in a process that has
/// loaded MPI takes over a millisecond, twenty times as long as a small cell.
pub(super) fn stack_floor() -> usize {
    thread_local! {
        static FLOOR: usize = find_stack_floor();
    }
    FLOOR.with(|floor| *floor)
}

fn find_stack_floor() -> usize {
    // SAFETY: `attributes` is initialised by pthread_getattr_np before it is read, and destroyed after;
    // pthread_self is always valid; all pointers are to locals that outlive the calls.
    unsafe {
        let mut attributes = std::mem::MaybeUninit::<libc::pthread_attr_t>::zeroed();
        if libc::pthread_getattr_np(libc::pthread_self(), attributes.as_mut_ptr()) != 0 {
            return 0; // Then the depth of calls alone bounds the recursion.
        }
        let mut lowest = std::ptr::null_mut();
        let mut bytes = 0;
        let failed = libc::pthread_attr_getstack(attributes.as_ptr(), &mut lowest, &mut bytes) != 0;
        libc::pthread_attr_destroy(attributes.as_mut_ptr());
        if failed { 0 } else { lowest as usize + STACK_RESERVE.min(bytes / 2) }
    }
}

/// The namespace, sorted by name.
pub(super) fn summaries(session: &Session) -> Vec<NameSummary> {
    let values = session.names().into_iter().map(|(name, value)| {
        let (kind, summary, bytes) = builtins::summary_of(&value);
        NameSummary { name: name.to_string(), kind, summary, bytes }
    });
    let library = session.library.borrow();
    let functions =
        library.iter_functions().filter(|function| is_users(function.name)).map(|function| NameSummary {
            name: function.name.to_owned(),
            kind: "function".to_owned(),
            summary: function.to_string(),
            bytes: 0,
        });
    let mut all: Vec<NameSummary> = values.chain(functions).collect();
    all.sort_by(|left, right| left.name.cmp(&right.name));
    all
}

/// Whether a function has a name that the user gave it.
pub(super) fn is_users(name: &str) -> bool {
    !name.starts_with("anon$") && !name.starts_with(RESERVED_PREFIX)
}

/// Help on a builtin, a function or a value.
pub(super) fn describe(session: &Session, name: &str) -> Option<String> {
    if let Some(value) = session.get(name) {
        let (kind, summary, _) = builtins::summary_of(&value);
        return Some(format!("{name}: {kind} {summary}\n"));
    }
    if let Some(help) = session.natives.help(name) {
        return Some(format!("{}: {}\n", help.signature, help.text));
    }
    if let Some(function) = session.library.borrow().iter_functions().find(|function| function.name == name) {
        let origin = session
            .origins
            .borrow()
            .get(name)
            .map_or(String::new(), |origin| format!(", from {}", origin.label));
        return Some(format!("{function}{origin}\n"));
    }
    let builtin = builtins::find(name)?;
    let details = if builtin.details.is_empty() { String::new() } else { format!("{}\n", builtin.details) };
    Some(format!("{}: {}\n{details}", builtin.signature, builtin.summary))
}
