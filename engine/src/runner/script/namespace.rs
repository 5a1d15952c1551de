//! The session: what names stand for between cells, and what builtins share while one runs.
//!
//! Every global has one memory cell (a shared [`Dynamic`]). Code that reads a global gets a local of the same
//! name that holds the same memory cell ([`Session::bind`]), so that an assignment anywhere is seen everywhere
//! and the old value is freed at once: nothing else keeps it.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use rhai::{AST, Dynamic, EvalAltResult, EvalContext, FnPtr, ImmutableString, Position};

use crate::communicator::Communicator;
use crate::interrupt::Interrupt;
use crate::runner::native::Registry;
use crate::runner::{CellContext, Stream};

use super::builtins;
use super::raised::{Outcome, Raised};
use super::random::Random;
use super::source::{BIND_PREFIX, CONST_PREFIX, Known, SET_PREFIX, SourceMap};

/// Stands for the value of a name that has none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Missing;

/// The text of a cell or file, for tracebacks.
#[derive(Debug)]
pub(crate) struct SourceText {
    pub(crate) label: String,
    pub(crate) text: String,
    pub(crate) map: SourceMap,
}

/// What outlives a cell, and what the running one uses.
pub(crate) struct Session {
    globals: RefCell<BTreeMap<ImmutableString, Dynamic>>,
    constants: RefCell<BTreeSet<ImmutableString>>,
    /// Memory cells of names that the running cell reads and that nobody has assigned yet.
    pending: RefCell<BTreeMap<ImmutableString, Dynamic>>,
    /// Whether any local may hold [`Missing`]; every read is checked while it is set.
    has_missing: Cell<bool>,
    bindings: RefCell<Vec<Rc<[ImmutableString]>>>,
    /// Functions that cells defined.
    pub(crate) library: RefCell<AST>,
    /// Where each of them was defined.
    pub(crate) origins: RefCell<BTreeMap<String, Rc<SourceText>>>,
    pub(crate) natives: Registry,
    pub(crate) random: RefCell<Random>,
    context: RefCell<Option<CellContext>>,
    interrupt: RefCell<Interrupt>,
    /// The lowest address that the stack may reach before the recursion is stopped.
    pub(crate) stack_floor: Cell<usize>,
    /// Files that are being run, innermost last.
    pub(crate) files: RefCell<Vec<std::path::PathBuf>>,
}

impl Session {
    pub(crate) fn new(natives: Registry) -> Session {
        Session {
            globals: RefCell::default(),
            constants: RefCell::default(),
            pending: RefCell::default(),
            has_missing: Cell::new(false),
            bindings: RefCell::default(),
            library: RefCell::new(AST::empty()),
            origins: RefCell::default(),
            natives,
            random: RefCell::new(Random::unseeded()),
            context: RefCell::new(None),
            interrupt: RefCell::new(Interrupt::new()),
            stack_floor: Cell::new(0),
            files: RefCell::default(),
        }
    }

    // The running cell.

    pub(crate) fn enter(&self, context: &CellContext) {
        *self.context.borrow_mut() = Some(context.clone());
        *self.interrupt.borrow_mut() = context.interrupt.clone();
    }

    pub(crate) fn leave(&self) {
        *self.context.borrow_mut() = None;
        *self.interrupt.borrow_mut() = Interrupt::new();
        self.pending.borrow_mut().clear();
        self.has_missing.set(false);
    }

    pub(crate) fn context(&self) -> Outcome<CellContext> {
        self.context.borrow().clone().ok_or_else(|| Raised::new("RuntimeError", "no cell is running"))
    }

    pub(crate) fn communicator(&self) -> Outcome<Rc<dyn Communicator>> {
        self.context().map(|context| context.communicator)
    }

    pub(crate) fn interrupt(&self) -> Interrupt {
        self.interrupt.borrow().clone()
    }

    pub(crate) fn is_interrupted(&self) -> bool {
        self.interrupt.borrow().is_raised()
    }

    pub(crate) fn write(&self, stream: Stream, text: &str) {
        // Not while the context is borrowed: what takes the output is not ours.
        let output = self.context.borrow().as_ref().map(|context| context.output.clone());
        if let Some(output) = output {
            output.borrow_mut().write(stream, text);
        }
    }

    // Names.

    pub(crate) fn get(&self, name: &str) -> Option<Dynamic> {
        self.globals.borrow().get(name).map(Dynamic::flatten_clone)
    }

    pub(crate) fn set(&self, name: &str, value: Dynamic) -> Outcome<()> {
        let mut cell = self.cell_for_writing(name)?;
        if let Some(mut place) = cell.write_lock::<Dynamic>() {
            *place = value;
        }
        Ok(())
    }

    /// Forgets a name; says whether it was known. The value is freed even if the running cell has the name bound.
    pub(crate) fn delete(&self, name: &str) -> bool {
        self.constants.borrow_mut().remove(name);
        let Some(mut cell) = self.globals.borrow_mut().remove(name) else { return false };
        if let Some(mut place) = cell.write_lock::<Dynamic>() {
            *place = Dynamic::from(Missing);
        }
        self.has_missing.set(true);
        self.pending.borrow_mut().insert(name.into(), cell);
        true
    }

    pub(crate) fn clear(&self) {
        self.globals.borrow_mut().clear();
        self.constants.borrow_mut().clear();
        self.origins.borrow_mut().clear();
        *self.library.borrow_mut() = AST::empty();
    }

    pub(crate) fn names(&self) -> Vec<(ImmutableString, Dynamic)> {
        self.globals.borrow().iter().map(|(name, cell)| (name.clone(), cell.flatten_clone())).collect()
    }

    fn cell_for_writing(&self, name: &str) -> Outcome<Dynamic> {
        if self.constants.borrow().contains(name) {
            return Err(Raised::new(
                "TypeError",
                format!("`{name}` is a constant; declare it again with `const {name} = …` to change it"),
            ));
        }
        if let Some(cell) = self.globals.borrow().get(name) {
            return Ok(cell.clone());
        }
        let cell =
            self.pending.borrow_mut().remove(name).unwrap_or_else(|| Dynamic::from(Missing).into_shared());
        self.globals.borrow_mut().insert(name.into(), cell.clone());
        Ok(cell)
    }

    /// What a global name stands for where it is read: a memory cell, a constant or a function.
    fn resolve(&self, name: &ImmutableString, at_top: bool) -> Dynamic {
        if let Some(cell) = self.globals.borrow().get(name.as_str()) {
            return cell.clone();
        }
        if at_top && let Some(cell) = self.pending.borrow().get(name.as_str()) {
            return cell.clone();
        }
        if let Some(constant) = builtins::constant(name) {
            return constant;
        }
        if (self.is_function(name) || builtins::find(name).is_some())
            && let Ok(function) = FnPtr::new(name.clone())
        {
            return function.into();
        }
        self.has_missing.set(true);
        if !at_top {
            return Dynamic::from(Missing);
        }
        // The running cell may assign the name later: both must find the same memory cell.
        let cell = Dynamic::from(Missing).into_shared();
        self.pending.borrow_mut().insert(name.clone(), cell.clone());
        cell
    }

    /// Gives the locals that stand for globals their memory cells.
    fn bind(&self, number: usize, context: &mut EvalContext<'_, '_, '_, '_, '_, '_>) {
        let names = self.bindings.borrow().get(number).cloned();
        let at_top = context.call_level() == 0;
        for name in names.iter().flat_map(|names| names.iter()) {
            let value = self.resolve(name, at_top);
            if let Some(place) = context.scope_mut().get_mut(name) {
                *place = value;
            }
        }
    }

    /// Rhai asks this for every variable that it evaluates, so the usual case comes first.
    pub(crate) fn on_variable(
        &self,
        name: &str,
        index: usize,
        mut context: EvalContext<'_, '_, '_, '_, '_, '_>,
    ) -> Result<Option<Dynamic>, Box<EvalAltResult>> {
        if index > 0 {
            if !self.has_missing.get() {
                return Ok(None);
            }
            let missing = context.scope().get(name).is_some_and(is_missing);
            return if missing { Err(not_defined(name)) } else { Ok(None) };
        }
        if let Some(name) = name.strip_prefix(SET_PREFIX) {
            return Ok(Some(self.cell_for_writing(name)?));
        }
        if let Some(name) = name.strip_prefix(CONST_PREFIX) {
            self.constants.borrow_mut().remove(name);
            let cell = self.cell_for_writing(name)?;
            self.constants.borrow_mut().insert(name.into());
            return Ok(Some(cell));
        }
        if let Some(number) = name.strip_prefix(BIND_PREFIX) {
            self.bind(number.parse().unwrap_or(usize::MAX), &mut context);
            return Ok(Some(Dynamic::UNIT));
        }
        Ok(None)
    }
}

fn is_missing(value: &Dynamic) -> bool {
    value.read_lock::<Missing>().is_some()
}

fn not_defined(name: &str) -> Box<EvalAltResult> {
    Box::new(EvalAltResult::ErrorVariableNotFound(name.to_owned(), Position::NONE))
}

impl Known for Session {
    fn is_function(&self, name: &str) -> bool {
        builtins::find(name).is_some()
            || self.natives.contains(name)
            || self.library.borrow().iter_functions().any(|function| function.name == name)
    }

    fn is_variable(&self, name: &str) -> bool {
        self.globals.borrow().contains_key(name)
    }

    fn intern(&self, names: Vec<String>) -> usize {
        let names: Rc<[ImmutableString]> = names.into_iter().map(ImmutableString::from).collect();
        let mut bindings = self.bindings.borrow_mut();
        match bindings.iter().position(|known| *known == names) {
            Some(number) => number,
            None => {
                bindings.push(names);
                bindings.len() - 1
            }
        }
    }
}
