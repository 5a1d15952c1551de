//! Functions that clients and cells call by name: those that a program with its own engine brings along, and those of
//! modules that are loaded while it runs.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::rc::Rc;

use protocol::value::Value;

use super::{CellContext, RunError};
use crate::module::{self, Argument, Function, ModuleError};

/// What a native function may use: the same things as a cell.
pub type TaskContext<'a> = &'a CellContext;

/// A function written in Rust that clients call by name.
pub type NativeFunction = dyn Fn(TaskContext<'_>, Vec<Value>) -> Result<Value, RunError>;

/// Why a function cannot be registered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// Two functions of one name: which one a client means would depend on the order of registration.
    #[error("a function named `{name}` is registered already; give one of the two another name")]
    Duplicate {
        /// The name.
        name: String,
    },
    /// The name could not be written in a cell.
    #[error("`{name}` is not a name that a cell could call; use letters, digits and underscores")]
    InvalidName {
        /// The name.
        name: String,
    },
}

/// What a person is told of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Help {
    /// How it is called: `psum(a)`.
    pub signature: String,
    /// What it does.
    pub text: String,
}

/// A function that is registered.
#[derive(Clone)]
pub enum Callable {
    /// Of the engine's program.
    Program(Rc<NativeFunction>),
    /// Of a module.
    Module(Rc<Function>),
}

impl Callable {
    /// Calls it with values from elsewhere.
    pub fn call(&self, context: TaskContext<'_>, arguments: Vec<Value>) -> Result<Value, RunError> {
        match self {
            Callable::Program(function) => function(context, arguments),
            Callable::Module(function) => {
                let arguments = arguments.into_iter().map(Argument::of).collect::<Result<Vec<_>, _>>()?;
                function.call(context, &arguments).map(Value::from)
            }
        }
    }
}

struct Entry {
    callable: Callable,
    help: Help,
}

/// Functions by name. Clones are the same registry: what is loaded into one is in all.
#[derive(Clone, Default)]
pub struct Registry {
    functions: Rc<RefCell<BTreeMap<String, Entry>>>,
    changes: Rc<Cell<u64>>,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.functions.borrow().keys()).finish()
    }
}

/// Whether a cell could call a function of this name.
pub fn is_callable_name(name: &str) -> bool {
    let mut letters = name.chars();
    let starts = letters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_');
    starts && letters.all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
}

impl Registry {
    /// No function.
    pub fn new() -> Registry {
        Registry::default()
    }

    /// Adds a function. A name can be taken only once; builtins of the prompt language can be replaced.
    pub fn register(
        &mut self,
        name: &str,
        function: impl Fn(TaskContext<'_>, Vec<Value>) -> Result<Value, RunError> + 'static,
    ) -> Result<(), RegistryError> {
        let text = "a function of this engine, written in Rust".to_owned();
        self.register_with_help(name, Help { signature: format!("{name}(…)"), text }, function)
    }

    /// As [`Registry::register`], with what `help(name)` and completion say.
    pub fn register_with_help(
        &mut self,
        name: &str,
        help: Help,
        function: impl Fn(TaskContext<'_>, Vec<Value>) -> Result<Value, RunError> + 'static,
    ) -> Result<(), RegistryError> {
        if !is_callable_name(name) {
            return Err(RegistryError::InvalidName { name: name.to_owned() });
        }
        let mut functions = self.functions.borrow_mut();
        if functions.contains_key(name) {
            return Err(RegistryError::Duplicate { name: name.to_owned() });
        }
        functions.insert(name.to_owned(), Entry { callable: Callable::Program(Rc::new(function)), help });
        self.changes.set(self.changes.get() + 1);
        Ok(())
    }

    /// Loads a module from the bytes of the file of that name; gives the names of its functions. Those of a module of
    /// the same name that was loaded before are replaced. Nothing changes if a name is taken: by the program, by another
    /// module, or, as `is_taken` says, by the language.
    pub fn load(
        &self,
        name: &str,
        bytes: &[u8],
        is_taken: impl Fn(&str) -> bool,
    ) -> Result<Vec<String>, ModuleError> {
        let loaded = module::open(name, bytes)?;
        let mut functions = self.functions.borrow_mut();
        let wrong = |reason| Err(ModuleError::Wrong { name: name.to_owned(), reason });
        for function in &loaded {
            let own = function.name();
            if is_taken(own) {
                return wrong(format!("`{own}` is a builtin; give the function another name"));
            }
            match functions.get(own).map(|entry| &entry.callable) {
                Some(Callable::Program(_)) => {
                    return wrong(format!("the engine has a function `{own}` already"));
                }
                Some(Callable::Module(other)) if other.module() != function.module() => {
                    return wrong(format!("{} has a function `{own}` already", other.module()));
                }
                _ => {}
            }
        }
        functions
            .retain(|_, entry| !matches!(&entry.callable, Callable::Module(old) if old.module() == name));
        let names = loaded.iter().map(|function| function.name().to_owned()).collect();
        for function in loaded {
            let text = match function.help.as_str() {
                "" => format!("a function of {name}"),
                text => format!("{text} (from {name})"),
            };
            let help = Help { signature: function.signature.clone(), text };
            let own = function.name().to_owned();
            functions.insert(own, Entry { callable: Callable::Module(Rc::new(function)), help });
        }
        self.changes.set(self.changes.get() + 1);
        Ok(names)
    }

    /// Loads a module from a file of this machine.
    pub fn load_file(
        &self,
        path: &Path,
        is_taken: impl Fn(&str) -> bool,
    ) -> Result<Vec<String>, ModuleError> {
        self.load(&module::name_of(path), &module::read(path)?, is_taken)
    }

    /// How often functions were added: whether there can be new names.
    pub fn changes(&self) -> u64 {
        self.changes.get()
    }

    /// The function of that name.
    pub fn get(&self, name: &str) -> Option<Callable> {
        self.functions.borrow().get(name).map(|entry| entry.callable.clone())
    }

    /// What is told of the function of that name.
    pub fn help(&self, name: &str) -> Option<Help> {
        self.functions.borrow().get(name).map(|entry| entry.help.clone())
    }

    /// Whether there is one.
    pub fn contains(&self, name: &str) -> bool {
        self.functions.borrow().contains_key(name)
    }

    /// All names, sorted.
    pub fn names(&self) -> Vec<String> {
        self.functions.borrow().keys().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_registered_once() {
        let mut registry = Registry::new();
        registry.register("twice", |_, _| Ok(Value::None)).expect("the name is free");
        let error = registry.register("twice", |_, _| Ok(Value::None)).expect_err("the name is taken");
        assert_eq!(error, RegistryError::Duplicate { name: "twice".into() });
    }

    #[test]
    fn a_name_that_no_cell_could_write_is_refused() {
        let error = Registry::new().register("a-b", |_, _| Ok(Value::None)).expect_err("a hyphen");
        assert_eq!(error, RegistryError::InvalidName { name: "a-b".into() });
    }
}
