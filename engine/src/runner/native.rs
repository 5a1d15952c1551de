//! Named functions written in Rust: the registry that a program with its own engine fills before it starts.

use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

use protocol::value::Value;

use super::{CellContext, RunError};

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

/// Functions by name.
#[derive(Clone, Default)]
pub struct Registry {
    functions: BTreeMap<String, Rc<NativeFunction>>,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.functions.keys()).finish()
    }
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
        let mut letters = name.chars();
        let starts = letters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_');
        if !starts || !letters.all(|letter| letter.is_ascii_alphanumeric() || letter == '_') {
            return Err(RegistryError::InvalidName { name: name.to_owned() });
        }
        if self.functions.contains_key(name) {
            return Err(RegistryError::Duplicate { name: name.to_owned() });
        }
        self.functions.insert(name.to_owned(), Rc::new(function));
        Ok(())
    }

    /// The function of that name.
    pub fn get(&self, name: &str) -> Option<&Rc<NativeFunction>> {
        self.functions.get(name)
    }

    /// All names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.functions.keys().map(String::as_str)
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
