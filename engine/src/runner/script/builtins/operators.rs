//! Operators, indexing, properties and iteration, as Rhai is told about them.
//!
//! Division, remainder and power are replaced for plain numbers too: `7 / 2` is 3.5, `-7 % 3` is 2 as in Python
//! and NumPy, and `2 ** -1` is 0.5.

use num_complex::Complex64;
use rhai::{Dynamic, Engine, EvalAltResult, ImmutableString};

use crate::array::Array;

use super::super::arrays::elementwise::{Binary, Operand, binary, negate, not};
use super::super::arrays::linear;
use super::super::arrays::select::{Pick, Selection, list_of_array, select, selection_of_array, store};
use super::super::arrays::{Scalar, math, only_element};
use super::super::convert::{List, Stride, from_array, from_operand, kind, operand, to_array};
use super::super::display;
use super::super::raised::{Outcome, Raised, overflow_error, type_error, zero_division};

type RhaiOutcome = Result<Dynamic, Box<EvalAltResult>>;

/// Every binary operator between arrays and numbers.
const BINARIES: [Binary; 15] = [
    Binary::Add,
    Binary::Subtract,
    Binary::Multiply,
    Binary::Divide,
    Binary::Modulo,
    Binary::Power,
    Binary::Equal,
    Binary::NotEqual,
    Binary::Less,
    Binary::LessOrEqual,
    Binary::Greater,
    Binary::GreaterOrEqual,
    Binary::And,
    Binary::Or,
    Binary::Xor,
];

pub(super) fn register(engine: &mut Engine) {
    engine.register_type_with_name::<Array>("array").register_type_with_name::<Complex64>("complex");
    engine.register_type_with_name::<Stride>("slice").register_type_with_name::<Raised>("error");
    for op in BINARIES {
        register_binary::<Array>(engine, op);
        register_binary::<Complex64>(engine, op);
    }
    register_arithmetic_of_numbers(engine);
    engine.register_fn("-", |a: Array| -> RhaiOutcome { Ok(from_array(negate(&a)?)) });
    engine.register_fn("-", |z: Complex64| -z);
    engine.register_fn("+", |a: Array| a);
    engine.register_fn("!", |a: Array| -> RhaiOutcome { Ok(from_array(not(&a)?)) });
    register_text(engine);
    register_properties(engine);
    engine.register_indexer_get(|a: &mut Array, index: Dynamic| -> RhaiOutcome {
        Ok(from_array(select(a, &selection(&index, a.shape())?)?))
    });
    engine.register_indexer_set(
        |a: &mut Array, index: Dynamic, value: Dynamic| -> Result<(), Box<EvalAltResult>> {
            let chosen = selection(&index, a.shape())?;
            Ok(store(a, &chosen, &to_array(&value)?)?)
        },
    );
    register_array_iterator(engine);
}

fn register_binary<T: rhai::Variant + Clone>(engine: &mut Engine, op: Binary) {
    engine.register_fn(op.symbol(), move |left: T, right: Dynamic| -> RhaiOutcome {
        Ok(apply(op, &Dynamic::from(left), &right)?)
    });
    engine.register_fn(op.symbol(), move |left: Dynamic, right: T| -> RhaiOutcome {
        Ok(apply(op, &left, &Dynamic::from(right))?)
    });
}

/// Lists beside arrays are arrays.
fn side(value: &Dynamic) -> Option<Operand> {
    operand(value).or_else(|| if value.is_array() { to_array(value).ok().map(Operand::Array) } else { None })
}

fn apply(op: Binary, left: &Dynamic, right: &Dynamic) -> Outcome<Dynamic> {
    match (side(left), side(right)) {
        (Some(left), Some(right)) => Ok(from_operand(binary(op, &left, &right)?)),
        _ if op == Binary::Equal => Ok(Dynamic::from(false)),
        _ if op == Binary::NotEqual => Ok(Dynamic::from(true)),
        _ => Err(type_error(format!(
            "`{}` does not work between {} and {}",
            op.symbol(),
            kind(left),
            kind(right)
        ))),
    }
}

/// Where Rhai's own arithmetic is not a scientist's.
fn register_arithmetic_of_numbers(engine: &mut Engine) {
    fn quotient(x: i64, y: i64) -> RhaiOutcome {
        if y == 0 { Err(zero_division().into()) } else { Ok(Dynamic::from(x as f64 / y as f64)) }
    }
    fn remainder(x: i64, y: i64) -> RhaiOutcome {
        match y {
            0 => Err(zero_division().into()),
            -1 => Ok(Dynamic::from(0_i64)),
            _ => {
                let remainder = x % y;
                Ok(Dynamic::from(if remainder != 0 && (remainder < 0) != (y < 0) {
                    remainder + y
                } else {
                    remainder
                }))
            }
        }
    }
    fn float_remainder(x: f64, y: f64) -> f64 {
        let remainder = x % y;
        if remainder != 0.0 && (remainder < 0.0) != (y < 0.0) { remainder + y } else { remainder }
    }
    fn power(x: i64, y: i64) -> RhaiOutcome {
        match u32::try_from(y) {
            Ok(exponent) => match x.checked_pow(exponent) {
                Some(power) => Ok(Dynamic::from(power)),
                None => Err(overflow_error(format!(
                    "{x} ** {y} does not fit into an integer; write {x}.0 ** {y}"
                ))
                .into()),
            },
            Err(_) if x == 0 && y < 0 => Err(zero_division().into()),
            Err(_) => Ok(Dynamic::from((x as f64).powf(y as f64))),
        }
    }
    engine.register_fn("/", quotient);
    engine.register_fn("%", remainder);
    engine.register_fn("%", float_remainder);
    engine.register_fn("%", |x: i64, y: f64| float_remainder(x as f64, y));
    engine.register_fn("%", |x: f64, y: i64| float_remainder(x, y as f64));
    engine.register_fn("**", power);
    // `x /= y` and its kin assign the result of the operator, whatever its type.
    for (assign, op) in [("/=", Binary::Divide), ("%=", Binary::Modulo), ("**=", Binary::Power)] {
        for types in [
            [std::any::TypeId::of::<i64>(), std::any::TypeId::of::<i64>()],
            [std::any::TypeId::of::<i64>(), std::any::TypeId::of::<f64>()],
            [std::any::TypeId::of::<f64>(), std::any::TypeId::of::<i64>()],
            [std::any::TypeId::of::<f64>(), std::any::TypeId::of::<f64>()],
        ] {
            engine.register_raw_fn(assign, types, move |_, arguments| -> Result<(), Box<EvalAltResult>> {
                let result = match (op, arguments[0].as_int(), arguments[1].as_int()) {
                    (Binary::Divide, Ok(x), Ok(y)) => quotient(x, y)?,
                    (Binary::Modulo, Ok(x), Ok(y)) => remainder(x, y)?,
                    (Binary::Power, Ok(x), Ok(y)) => power(x, y)?,
                    _ => apply(op, arguments[0], arguments[1])?,
                };
                *arguments[0] = result;
                Ok(())
            });
        }
    }
}

fn register_text(engine: &mut Engine) {
    macro_rules! printed {
        ($($type:ty),*) => {$(
            engine.register_fn("print", |value: $type| -> ImmutableString { display::printed(&Dynamic::from(value)).into() });
            engine.register_fn("to_string", |value: $type| -> ImmutableString { display::printed(&Dynamic::from(value)).into() });
            engine.register_fn("debug", |value: $type| -> ImmutableString { display::shown(&Dynamic::from(value)).into() });
            engine.register_fn("to_debug", |value: $type| -> ImmutableString { display::shown(&Dynamic::from(value)).into() });
        )*};
    }
    printed!(Array, Complex64, f64, List, rhai::Map, Raised, Stride, rhai::FnPtr, rhai::Blob);
    engine.register_fn("debug", |text: ImmutableString| -> ImmutableString {
        display::shown(&text.into()).into()
    });
}

fn register_properties(engine: &mut Engine) {
    engine.register_get("shape", |a: &mut Array| super::creation::shape_list(a));
    engine.register_get("dtype", |a: &mut Array| -> ImmutableString { a.dtype().name().into() });
    engine.register_get("ndim", |a: &mut Array| a.shape().len() as i64);
    engine.register_get("len", |a: &mut Array| a.shape().first().map_or(1, |&extent| extent as i64));
    engine.register_get("T", |a: &mut Array| super::super::arrays::make::transpose(a));
    engine.register_get("re", |a: &mut Array| -> RhaiOutcome {
        Ok(from_array(math::part(a, |z| z.re, |x| x)?))
    });
    engine.register_get("im", |a: &mut Array| -> RhaiOutcome {
        Ok(from_array(math::part(a, |z| z.im, |_| 0.0)?))
    });
    engine.register_get("re", |z: &mut Complex64| z.re);
    engine.register_get("im", |z: &mut Complex64| z.im);
    engine.register_get("re", |x: &mut f64| *x);
    engine.register_get("im", |_: &mut f64| 0.0);
    engine.register_get("name", |raised: &mut Raised| -> ImmutableString { raised.name.as_ref().into() });
    engine
        .register_get("message", |raised: &mut Raised| -> ImmutableString { raised.message.as_str().into() });
    engine.register_fn("@", |a: Dynamic, b: Dynamic| -> RhaiOutcome {
        let never = crate::interrupt::Interrupt::new();
        Ok(from_array(linear::product(&to_array(&a)?, &to_array(&b)?, &never)?))
    });
}

/// What is between the brackets: a number, a range, a slice, a mask or positions; in a list one for each axis.
fn selection(index: &Dynamic, shape: &[usize]) -> Outcome<Selection> {
    if let Some(array) = index.read_lock::<Array>() {
        return selection_of_array(&array, shape);
    }
    if let Some(list) = index.read_lock::<List>() {
        return list.iter().map(pick).collect::<Outcome<_>>().map(Selection::Axes);
    }
    Ok(Selection::Axes(vec![pick(index)?]))
}

fn pick(index: &Dynamic) -> Outcome<Pick> {
    if let Ok(at) = index.as_int() {
        return Ok(Pick::At(at));
    }
    if index.is_unit() {
        return Ok(Pick::WHOLE);
    }
    if let Some(range) = index.read_lock::<std::ops::Range<i64>>() {
        return Ok(Pick::Span { start: Some(range.start), stop: Some(range.end), step: 1 });
    }
    if let Some(range) = index.read_lock::<std::ops::RangeInclusive<i64>>() {
        // `..=-1` goes to the end, which no exclusive bound after -1 could say.
        let stop = if *range.end() == -1 { None } else { Some(range.end().saturating_add(1)) };
        return Ok(Pick::Span { start: Some(*range.start()), stop, step: 1 });
    }
    if let Some(stride) = index.read_lock::<Stride>() {
        return Ok(Pick::Span { start: stride.start, stop: stride.stop, step: stride.step });
    }
    if let Some(array) = index.read_lock::<Array>() {
        return match only_element(&array) {
            Some(Scalar::Int(at)) if array.shape().is_empty() => Ok(Pick::At(at)),
            _ => list_of_array(&array),
        };
    }
    if index.is_array() {
        return list_of_array(&to_array(index)?);
    }
    Err(type_error(format!(
        "a {} cannot be an index; use integers, ranges, slices, masks or lists of those",
        kind(index)
    )))
}

fn register_array_iterator(engine: &mut Engine) {
    let mut module = rhai::Module::new();
    module.set_iter(std::any::TypeId::of::<Array>(), |value| {
        let rows = value.try_cast::<Array>().map(|array| super::creation::rows(&array)).unwrap_or_default();
        Box::new(rows.into_iter())
    });
    engine.register_global_module(module.into());
}
