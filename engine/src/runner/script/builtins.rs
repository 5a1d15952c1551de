//! The builtins: one table that calls, help, completion and `docs/PROMPT.md` are made from.

mod creation;
mod numbers;
mod operators;
mod parallel;
mod session;

use std::any::TypeId;
use std::rc::Rc;

use rhai::{Dynamic, Engine, NativeCallContext};

use crate::array::Array;

pub(crate) use session::summary_of;

use super::arrays::{Scalar, axis_of, shape_text};
use super::convert::{kind, scalar, to_array};
use super::namespace::Session;
use super::raised::{Outcome, type_error, value_error};

/// The most arguments that a builtin takes.
const ARGUMENTS_MAX: usize = 8;

/// A chapter of the reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Category {
    Parallel,
    Creation,
    Shape,
    Math,
    Reduction,
    Linear,
    Session,
}

impl Category {
    pub(crate) const ALL: [Category; 7] = [
        Category::Parallel,
        Category::Creation,
        Category::Shape,
        Category::Math,
        Category::Reduction,
        Category::Linear,
        Category::Session,
    ];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Category::Parallel => "All ranks together (MPI)",
            Category::Creation => "Making arrays and numbers",
            Category::Shape => "Shape, parts and order",
            Category::Math => "Functions of numbers, element by element",
            Category::Reduction => "Reductions of one rank's values",
            Category::Linear => "Linear algebra",
            Category::Session => "The session",
        }
    }
}

/// A function of the prompt language.
pub(crate) struct Builtin {
    pub(crate) name: &'static str,
    pub(crate) signature: &'static str,
    pub(crate) summary: &'static str,
    pub(crate) details: &'static str,
    pub(crate) category: Category,
    /// Fewest and most arguments.
    pub(crate) arity: (usize, usize),
    pub(crate) run: fn(&Call<'_, '_>) -> Outcome<Dynamic>,
}

/// Every builtin, chapter by chapter.
pub(crate) fn all() -> impl Iterator<Item = &'static Builtin> {
    [
        parallel::TABLE,
        creation::TABLE,
        numbers::FUNCTIONS,
        numbers::REDUCTIONS,
        numbers::OTHERS,
        session::TABLE,
    ]
    .into_iter()
    .flatten()
}

/// The builtin of that name.
pub(crate) fn find(name: &str) -> Option<&'static Builtin> {
    all().find(|builtin| builtin.name == name)
}

/// Whether the prompt language has a function of that name.
pub(crate) fn is_builtin(name: &str) -> bool {
    find(name).is_some()
}

/// Names that stand for numbers, with what they say.
pub(crate) const CONSTANTS: &[(&str, f64)] = &[
    ("PI", std::f64::consts::PI),
    ("pi", std::f64::consts::PI),
    ("E", std::f64::consts::E),
    ("inf", f64::INFINITY),
    ("nan", f64::NAN),
];

/// The value of a constant.
pub(crate) fn constant(name: &str) -> Option<Dynamic> {
    if name == "I" {
        return Some(Dynamic::from(num_complex::Complex64::I));
    }
    CONSTANTS.iter().find(|(constant, _)| *constant == name).map(|(_, value)| Dynamic::from(*value))
}

/// Tells Rhai about all of them.
pub(crate) fn register(engine: &mut Engine, session: &Rc<Session>) {
    for builtin in all() {
        for count in builtin.arity.0..=builtin.arity.1 {
            register_one(engine, session, builtin, count);
        }
    }
    // Rhai resolves exact types before any type, and its own `sleep` cannot be interrupted.
    for (name, types) in [("sleep", TypeId::of::<i64>()), ("sleep", TypeId::of::<f64>())] {
        let builtin = find(name).expect("the table has it");
        let session = session.clone();
        engine.register_raw_fn(name, [types], move |context, arguments| {
            Ok((builtin.run)(&Call::new(builtin, &session, &context, arguments))?)
        });
    }
    operators::register(engine);
}

/// Tells Rhai about a function of the engine's program or of a module.
pub(crate) fn register_native(engine: &mut Engine, session: &Rc<Session>, name: &str) {
    for count in 0..=ARGUMENTS_MAX {
        let (session, function) = (session.clone(), name.to_owned());
        engine.register_raw_fn(name, vec![TypeId::of::<Dynamic>(); count], move |_, arguments| {
            let arguments: Vec<Dynamic> = arguments.iter().map(|argument| argument.flatten_clone()).collect();
            Ok(session::call_native(&session, &function, &arguments)?)
        });
    }
}

/// Registers the calls of functions that were unknown when a cell was read.
pub(crate) fn register_late_calls(engine: &mut Engine, session: &Rc<Session>) {
    for count in 1..=ARGUMENTS_MAX + 1 {
        let session = session.clone();
        let types = vec![TypeId::of::<Dynamic>(); count];
        engine.register_raw_fn(super::source::CALL_LATE, types, move |context, arguments| {
            session::call_late(&session, &context, arguments)
        });
    }
}

fn register_one(engine: &mut Engine, session: &Rc<Session>, builtin: &'static Builtin, count: usize) {
    let session = session.clone();
    engine.register_raw_fn(builtin.name, vec![TypeId::of::<Dynamic>(); count], move |context, arguments| {
        Ok((builtin.run)(&Call::new(builtin, &session, &context, arguments))?)
    });
}

/// A call of a builtin: its arguments, read as what they must be.
pub(crate) struct Call<'a, 'c> {
    pub(crate) name: &'static str,
    pub(crate) session: &'a Rc<Session>,
    pub(crate) rhai: &'a NativeCallContext<'c>,
    signature: &'static str,
    arguments: Vec<Dynamic>,
}

impl<'a, 'c> Call<'a, 'c> {
    fn new(
        builtin: &Builtin,
        session: &'a Rc<Session>,
        rhai: &'a NativeCallContext<'c>,
        arguments: &mut [&mut Dynamic],
    ) -> Call<'a, 'c>
    where
        'static: 'a,
    {
        let arguments = arguments.iter().map(|argument| argument.flatten_clone()).collect();
        Call { name: builtin.name, session, rhai, signature: builtin.signature, arguments }
    }

    pub(crate) fn count(&self) -> usize {
        self.arguments.len()
    }

    pub(crate) fn argument(&self, at: usize) -> Option<&Dynamic> {
        self.arguments.get(at)
    }

    pub(crate) fn arguments(&self) -> &[Dynamic] {
        &self.arguments
    }

    fn missing(&self, at: usize) -> super::raised::Raised {
        type_error(format!("{} needs argument {}; call it as {}", self.name, at + 1, self.signature))
    }

    pub(crate) fn value(&self, at: usize) -> Outcome<&Dynamic> {
        self.arguments.get(at).ok_or_else(|| self.missing(at))
    }

    fn wrong(&self, at: usize, wanted: &str, value: &Dynamic) -> super::raised::Raised {
        type_error(format!(
            "argument {} of {} is a {}, but must be {wanted}; call it as {}",
            at + 1,
            self.name,
            kind(value),
            self.signature
        ))
    }

    /// Anything that can be an array.
    pub(crate) fn array(&self, at: usize) -> Outcome<Array> {
        to_array(self.value(at)?)
    }

    pub(crate) fn scalar(&self, at: usize) -> Outcome<Scalar> {
        let value = self.value(at)?;
        scalar(value).ok_or_else(|| self.wrong(at, "a number", value))
    }

    pub(crate) fn int(&self, at: usize) -> Outcome<i64> {
        let value = self.value(at)?;
        value.as_int().map_err(|_| self.wrong(at, "an integer", value))
    }

    pub(crate) fn extent(&self, at: usize) -> Outcome<usize> {
        let number = self.int(at)?;
        usize::try_from(number).map_err(|_| value_error(format!("{}: {number} is negative", self.name)))
    }

    pub(crate) fn float(&self, at: usize) -> Outcome<f64> {
        match self.scalar(at)? {
            Scalar::Int(number) => Ok(number as f64),
            Scalar::Float(number) => Ok(number),
            _ => Err(self.wrong(at, "a real number", self.value(at)?)),
        }
    }

    pub(crate) fn text(&self, at: usize) -> Outcome<String> {
        let value = self.value(at)?;
        value.clone().into_string().map_err(|_| self.wrong(at, "a string", value))
    }

    /// The axis that an optional argument names.
    pub(crate) fn axis(&self, at: usize, axes: usize) -> Outcome<Option<usize>> {
        match self.argument(at) {
            None => Ok(None),
            Some(value) if value.is_unit() => Ok(None),
            Some(_) => axis_of(self.int(at)?, axes).map(Some),
        }
    }

    /// Extents given as numbers from `at` on, or as one list, and the arguments after them.
    pub(crate) fn shape(&self, at: usize) -> Outcome<(Vec<usize>, &[Dynamic])> {
        let rest = self.arguments.get(at..).unwrap_or_default();
        let read = |value: &Dynamic| {
            let number = value.as_int().map_err(|_| self.wrong(at, "an extent (an integer)", value))?;
            usize::try_from(number)
                .map_err(|_| value_error(format!("{}: extent {number} is negative", self.name)))
        };
        if let Some(list) = rest.first().and_then(|first| first.read_lock::<rhai::Array>()) {
            return Ok((list.iter().map(read).collect::<Outcome<_>>()?, &rest[1..]));
        }
        let numbers = rest.iter().take_while(|value| value.is_int()).count();
        if numbers == 0 {
            let value = rest.first().ok_or_else(|| self.missing(at))?;
            return Err(self.wrong(at, "an extent or a list of extents", value));
        }
        Ok((rest[..numbers].iter().map(read).collect::<Outcome<_>>()?, &rest[numbers..]))
    }

    /// Says that an array is not as this builtin needs it.
    pub(crate) fn needs(&self, what: &str, array: &Array) -> super::raised::Raised {
        value_error(format!(
            "{} needs {what}, not an array of shape {}",
            self.name,
            shape_text(array.shape())
        ))
    }
}
