//! The prompt language: Rhai, made to behave as a scientist expects of a prompt, over native arrays.
//!
//! `docs/PROMPT.md` describes it to users. The parts: `source` resolves names, `namespace` keeps values
//! between cells, `interpreter` runs, `report` explains errors, `builtins` is the table of functions,
//! `arrays` what they do, `convert` and `display` the way out.

mod arrays;
mod builtins;
mod convert;
mod display;
mod interpreter;
mod namespace;
mod raised;
mod random;
mod report;
mod source;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use protocol::value::Value;
use rhai::{Dynamic, Engine};

use super::native::Registry;
use super::{
    CellContext, Completeness, Completion, CompletionKind, Displayed, Language, NameSummary, RunError, Runner,
};
pub(crate) use builtins::is_builtin;
use convert::{from_value, to_value};
use namespace::{Session, SourceText};
use raised::Raised;
use source::{RESERVED_PREFIX, SourceMap};

/// Words of the language, for completion.
const KEYWORDS: &[&str] = &[
    "let", "const", "if", "else", "while", "loop", "for", "in", "do", "until", "break", "continue", "fn",
    "return", "throw", "try", "catch", "switch", "true", "false",
];

/// Runs cells of the prompt language.
pub struct Script {
    engine: Engine,
    session: Rc<Session>,
    /// The native functions that Rhai knows.
    known_natives: BTreeSet<String>,
    /// The registry's changes that it knows of.
    known_changes: u64,
}

impl Script {
    /// An empty namespace. The native functions can be called from cells by name.
    pub fn new(natives: Registry) -> Script {
        let session = Rc::new(Session::new(natives));
        let engine = interpreter::new_engine(&session);
        let mut script = Script { engine, session, known_natives: BTreeSet::new(), known_changes: 0 };
        script.learn_natives();
        script
    }

    /// Tells Rhai of functions that were loaded since; while a cell runs it cannot be told.
    fn learn_natives(&mut self) {
        let changes = self.session.natives.changes();
        if changes == self.known_changes {
            return; // As before nearly every cell.
        }
        self.known_changes = changes;
        for name in self.session.natives.names() {
            if !self.known_natives.contains(&name) {
                builtins::register_native(&mut self.engine, &self.session, &name);
                self.known_natives.insert(name);
            }
        }
    }

    fn within<T>(
        &self,
        context: &CellContext,
        body: impl FnOnce() -> Result<T, RunError>,
    ) -> Result<T, RunError> {
        self.session.enter(context);
        let result = body();
        self.session.leave();
        result
    }

    fn call(&self, name: &str, arguments: Vec<Value>, context: &CellContext) -> Result<Value, RunError> {
        let session = &self.session;
        if let Some(function) = session.natives.get(name) {
            return function.call(context, arguments);
        }
        let arguments: Vec<Dynamic> = arguments.iter().map(from_value).collect();
        let source =
            Rc::new(SourceText { label: name.to_owned(), text: String::new(), map: SourceMap::default() });
        session.stack_floor.set(interpreter::stack_floor());
        let is_scripts = session.library.borrow().iter_functions().any(|function| function.name == name);
        let result = if is_scripts {
            interpreter::call_function(&self.engine, session, name, arguments)
        } else {
            let function = session.get(name).as_ref().and_then(convert::function);
            match function.map_or_else(|| rhai::FnPtr::new(name), Ok) {
                Ok(function) => {
                    let library = session.library.borrow().clone();
                    function.call::<Dynamic>(&self.engine, &library, arguments)
                }
                Err(_) => {
                    let message = format!("`{name}` is not the name of a function");
                    return Err(report::of_raised(Raised::new("NameError", message)));
                }
            }
        };
        let value = result.map_err(|error| report::of_run(session, &source, *error))?;
        to_value(&value.flatten()).map_err(report::of_raised)
    }
}

impl std::fmt::Debug for Script {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Script").finish_non_exhaustive()
    }
}

impl Runner for Script {
    fn language(&self) -> Language {
        Language {
            name: "rhai".to_owned(),
            version: "1".to_owned(),
            mimetype: "text/rhai".to_owned(),
            file_extension: ".rhai".to_owned(),
            banner: "Commworld engine: the prompt language".to_owned(),
        }
    }

    fn execute(&mut self, code: &str, context: &CellContext) -> Result<Option<Displayed>, RunError> {
        self.learn_natives();
        self.within(context, || {
            let value = interpreter::run(&self.engine, &self.session, code, &context.label)?;
            if value.is_unit() {
                return Ok(None);
            }
            Ok(Some(Displayed { text: display::shown(&value), value: to_value(&value).ok() }))
        })
    }

    fn apply(
        &mut self,
        function: &str,
        mut arguments: Vec<Value>,
        keywords: BTreeMap<String, Value>,
        context: &CellContext,
    ) -> Result<Value, RunError> {
        if !keywords.is_empty() {
            // The language has no keyword arguments: they come as one map after the others.
            arguments.push(Value::Map(keywords));
        }
        self.learn_natives();
        self.within(context, || self.call(function, arguments, context))
    }

    fn push(&mut self, name: &str, value: Value) -> Result<(), RunError> {
        if !rhai::is_valid_identifier(name)
            || name.starts_with(RESERVED_PREFIX)
            || KEYWORDS.contains(&name)
            || self.engine.compile(name).is_err()
        {
            let message = format!("`{name}` cannot be a name; use letters, digits and underscores");
            return Err(report::of_raised(Raised::new("NameError", message)));
        }
        self.session.set(name, from_value(&value)).map_err(report::of_raised)
    }

    fn pull(&mut self, expression: &str, context: &CellContext) -> Result<Value, RunError> {
        if let Some(value) = self.session.get(expression) {
            return to_value(&value).map_err(report::of_raised);
        }
        self.learn_natives();
        self.within(context, || {
            let value = interpreter::run(&self.engine, &self.session, expression, "pull")?;
            to_value(&value).map_err(report::of_raised)
        })
    }

    fn clear(&mut self) {
        self.session.clear();
    }

    fn complete(&self, line: &str, cursor: usize) -> Vec<Completion> {
        let before = line.get(..cursor).unwrap_or(line);
        let start = before
            .rfind(|letter: char| !letter.is_alphanumeric() && letter != '_')
            .map_or(0, |at| at + before[at..].chars().next().map_or(1, char::len_utf8));
        let prefix = &before[start..];
        let is_member = before[..start].ends_with('.') && !before[..start].ends_with("..");
        let mut found: Vec<Completion> = Vec::new();
        let mut offer = |text: &str, kind: CompletionKind, detail: String| {
            if text.starts_with(prefix) && found.iter().all(|known| known.text != text) {
                found.push(Completion { text: text.to_owned(), kind, detail });
            }
        };
        if !is_member {
            for summary in interpreter::summaries(&self.session) {
                let kind = if summary.kind == "function" {
                    CompletionKind::Function
                } else {
                    CompletionKind::Variable
                };
                offer(&summary.name, kind, format!("{} {}", summary.kind, summary.summary));
            }
            for name in self.session.natives.names() {
                let help = self.session.natives.help(&name);
                let detail =
                    help.map_or_else(String::new, |help| format!("{}: {}", help.signature, help.text));
                offer(&name, CompletionKind::Function, detail);
            }
        }
        for builtin in builtins::all() {
            offer(
                builtin.name,
                CompletionKind::Function,
                format!("{}: {}", builtin.signature, builtin.summary),
            );
        }
        if !is_member {
            for (name, value) in builtins::CONSTANTS {
                offer(name, CompletionKind::Variable, value.to_string());
            }
            for keyword in KEYWORDS {
                offer(keyword, CompletionKind::Keyword, String::new());
            }
        }
        found.sort_by(|left, right| left.text.cmp(&right.text));
        found
    }

    fn inspect(&self, name: &str) -> Option<String> {
        interpreter::describe(&self.session, name)
    }

    fn is_complete(&self, code: &str) -> Completeness {
        match self.engine.compile(source::terminated(&self.engine, code).0) {
            // Rhai takes a comment without an end for one that ends with the text.
            Ok(_) if source::is_open(&self.engine, code) => Completeness::Incomplete,
            Ok(_) => Completeness::Complete,
            Err(error) => {
                let text = error.err_type().to_string();
                let open_text = matches!(
                    error.err_type(),
                    rhai::ParseErrorType::BadInput(rhai::LexError::UnterminatedString)
                ) && code.contains('`');
                if open_text
                    || source::is_open(&self.engine, code)
                    || code.trim_end().ends_with(['=', '+', ','])
                {
                    Completeness::Incomplete
                } else {
                    Completeness::Invalid(text)
                }
            }
        }
    }

    fn names(&self) -> Vec<NameSummary> {
        interpreter::summaries(&self.session)
    }
}

/// The reference of all builtins, for `docs/PROMPT.md`.
pub fn reference() -> String {
    let mut text = String::new();
    for category in builtins::Category::ALL {
        text += &format!("### {}\n\n| call | what it gives |\n|---|---|\n", category.title());
        for builtin in builtins::all().filter(|builtin| builtin.category == category) {
            let details =
                if builtin.details.is_empty() { String::new() } else { format!(" — {}", builtin.details) };
            text +=
                &format!("| `{}` | {}{details} |\n", builtin.signature, builtin.summary.replace('|', "\\|"));
        }
        text += "\n";
    }
    text
}
