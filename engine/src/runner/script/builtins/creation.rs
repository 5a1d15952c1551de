//! Builtins that make arrays, convert them, and change their shape.

use num_complex::Complex64;
use protocol::value::DType;
use rhai::Dynamic;

use crate::array::Array;

use super::super::arrays::cast::{cast, dtype_named};
use super::super::arrays::{Scalar, element_count, elementwise, make, reduce, select, shaped};
use super::super::convert::{List, Stride, from_array, operand, to_array, to_list};
use super::super::raised::{Outcome, type_error, value_error};
use super::{Builtin, Call, Category};

const CREATION: Category = Category::Creation;
const SHAPE: Category = Category::Shape;

#[rustfmt::skip]
pub(super) const TABLE: &[Builtin] = &[
    Builtin { name: "zeros", signature: "zeros(shape…[, dtype])", summary: "an array of zeros", details: "`zeros(3)`, `zeros(2, 3)` or `zeros([2, 3])`; `zeros(3, \"i64\")` for another element type than f64.", category: CREATION, arity: (1, 8), run: |call| filled(call, Scalar::Int(0)) },
    Builtin { name: "ones", signature: "ones(shape…[, dtype])", summary: "an array of ones", details: "As `zeros`.", category: CREATION, arity: (1, 8), run: |call| filled(call, Scalar::Int(1)) },
    Builtin { name: "full", signature: "full(shape, value[, dtype])", summary: "an array filled with one value", details: "The shape is a number or a list; the element type is that of the value.", category: CREATION, arity: (2, 3), run: full },
    Builtin { name: "eye", signature: "eye(n[, dtype])", summary: "the identity matrix", details: "", category: CREATION, arity: (1, 2), run: |call| Ok(Dynamic::from(make::eye(call.extent(0)?, dtype_at(call, 1)?.unwrap_or(DType::F64))?)) },
    Builtin { name: "arange", signature: "arange([start, ]stop[, step])", summary: "numbers from start to before stop", details: "Integers give i64, floats f64.", category: CREATION, arity: (1, 3), run: arange },
    Builtin { name: "linspace", signature: "linspace(start, stop, count)", summary: "evenly spaced numbers, both ends included", details: "", category: CREATION, arity: (3, 3), run: |call| Ok(Dynamic::from(make::linspace(call.float(0)?, call.float(1)?, call.extent(2)?)?)) },
    Builtin { name: "array", signature: "array(values[, dtype])", summary: "an array of a list, of lists in a list, or of a range", details: "`array([[1, 2], [3, 4]])` has shape [2, 2]. Integers give i64, floats f64, truth values bool, and one complex number makes all of them complex.", category: CREATION, arity: (1, 2), run: array },
    Builtin { name: "rand", signature: "rand(shape…)", summary: "uniform random numbers in [0, 1)", details: "`rand()` is one number. Every rank has its own stream; see `seed`.", category: CREATION, arity: (0, 8), run: rand },
    Builtin { name: "randn", signature: "randn(shape…)", summary: "random numbers of the standard normal distribution", details: "As `rand`.", category: CREATION, arity: (0, 8), run: randn },
    Builtin { name: "randint", signature: "randint(low, high[, shape…])", summary: "random integers from low to before high", details: "As `rand`.", category: CREATION, arity: (2, 8), run: randint },
    Builtin { name: "seed", signature: "seed(n)", summary: "starts this rank's random numbers anew", details: "The stream is a function of n and the rank: the same n gives the same numbers in every run, and different ones on every rank. Without `seed` every engine starts from the system's entropy.", category: CREATION, arity: (1, 1), run: seed },
    Builtin { name: "complex", signature: "complex(re[, im])", summary: "a complex number, or an array of them", details: "Also written with the constant `I`: `1 + 2 * I`. Parts are `z.re`, `z.im`, or `real(z)`, `imag(z)`.", category: CREATION, arity: (1, 2), run: complex },
    Builtin { name: "astype", signature: "astype(x, dtype)", summary: "converts to another element type", details: "f64, f32, i64, i32, u8, bool or c64. Floats are cut towards zero; what is out of range is an error, as is complex to real.", category: CREATION, arity: (2, 2), run: |call| Ok(from_array(cast(&call.array(0)?, dtype_named(&call.text(1)?)?)?)) },
    Builtin { name: "f64", signature: "f64(x)", summary: "converts to 64-bit floats", details: "", category: CREATION, arity: (1, 1), run: convert },
    Builtin { name: "f32", signature: "f32(x)", summary: "converts to 32-bit floats", details: "", category: CREATION, arity: (1, 1), run: convert },
    Builtin { name: "i64", signature: "i64(x)", summary: "converts to 64-bit integers", details: "", category: CREATION, arity: (1, 1), run: convert },
    Builtin { name: "i32", signature: "i32(x)", summary: "converts to 32-bit integers", details: "", category: CREATION, arity: (1, 1), run: convert },
    Builtin { name: "u8", signature: "u8(x)", summary: "converts to bytes", details: "", category: CREATION, arity: (1, 1), run: convert },
    Builtin { name: "c64", signature: "c64(x)", summary: "converts to complex numbers of two 64-bit floats", details: "", category: CREATION, arity: (1, 1), run: convert },
    Builtin { name: "int", signature: "int(x)", summary: "a whole number of a float or of text", details: "Cut towards zero.", category: CREATION, arity: (1, 1), run: int },
    Builtin { name: "float", signature: "float(x)", summary: "a float of an integer or of text", details: "", category: CREATION, arity: (1, 1), run: float },
    Builtin { name: "shape", signature: "shape(a)", summary: "the extents of all axes, as a list", details: "Also `a.shape`.", category: SHAPE, arity: (1, 1), run: |call| Ok(shape_list(&call.array(0)?)) },
    Builtin { name: "dtype", signature: "dtype(a)", summary: "the name of the element type", details: "Also `a.dtype`.", category: SHAPE, arity: (1, 1), run: |call| Ok(call.array(0)?.dtype().name().into()) },
    Builtin { name: "ndim", signature: "ndim(a)", summary: "how many axes", details: "", category: SHAPE, arity: (1, 1), run: |call| Ok(Dynamic::from(call.array(0)?.shape().len() as i64)) },
    Builtin { name: "len", signature: "len(x)", summary: "the extent of the first axis; items of a list or map; letters of a string", details: "`count(a)` is the number of all elements.", category: SHAPE, arity: (1, 1), run: |call| Ok(Dynamic::from(call.array(0)?.shape().first().map_or(1, |&extent| extent as i64))) },
    Builtin { name: "count", signature: "count(a)", summary: "how many elements", details: "", category: SHAPE, arity: (1, 1), run: |call| Ok(Dynamic::from(call.array(0)?.len() as i64)) },
    Builtin { name: "reshape", signature: "reshape(a, shape…)", summary: "the same elements with other extents", details: "One extent may be -1: it follows from the others.", category: SHAPE, arity: (2, 8), run: reshape },
    Builtin { name: "transpose", signature: "transpose(a)", summary: "the axes in reverse order", details: "", category: SHAPE, arity: (1, 1), run: |call| Ok(Dynamic::from(make::transpose(&call.array(0)?))) },
    Builtin { name: "flatten", signature: "flatten(a)", summary: "all elements along one axis", details: "", category: SHAPE, arity: (1, 1), run: |call| { let a = call.array(0)?; Ok(Dynamic::from(make::reshape(&a, &[a.len()])?)) } },
    Builtin { name: "concat", signature: "concat(list[, axis]) or concat(a, b, …)", summary: "arrays one after the other along an axis", details: "Along the first axis, if none is given.", category: SHAPE, arity: (1, 8), run: |call| joined(call, make::concatenate) },
    Builtin { name: "stack", signature: "stack(list[, axis]) or stack(a, b, …)", summary: "arrays of one shape side by side along a new axis", details: "", category: SHAPE, arity: (1, 8), run: |call| joined(call, make::stack) },
    Builtin { name: "sort", signature: "sort(a)", summary: "sorted along the last axis", details: "NaN comes last. Lists have `list.sort()`, which sorts in place.", category: SHAPE, arity: (1, 1), run: |call| Ok(Dynamic::from(reduce::sort(&call.array(0)?)?)) },
    Builtin { name: "argsort", signature: "argsort(a)", summary: "the positions that sort an array of one axis", details: "", category: SHAPE, arity: (1, 1), run: |call| Ok(Dynamic::from(reduce::argsort(&call.array(0)?)?)) },
    Builtin { name: "unique", signature: "unique(a)", summary: "the different elements, sorted", details: "", category: SHAPE, arity: (1, 1), run: |call| Ok(Dynamic::from(reduce::unique(&call.array(0)?)?)) },
    Builtin { name: "where", signature: "where(condition[, x, y])", summary: "x where the condition holds, else y; or the positions where it holds", details: "", category: SHAPE, arity: (1, 3), run: choose },
    Builtin { name: "slice", signature: "slice(start, stop, step)", summary: "a slice with a step, for `a[slice(0, 10, 2)]`", details: "`()` for start or stop means the end of the axis: `a[slice((), (), -1)]` is reversed.", category: SHAPE, arity: (3, 3), run: slice },
    Builtin { name: "list", signature: "list(x)", summary: "the nested lists of an array's elements", details: "", category: SHAPE, arity: (1, 1), run: |call| Ok(to_list(&call.array(0)?)) },
];

pub(super) fn shape_list(array: &Array) -> Dynamic {
    Dynamic::from_array(array.shape().iter().map(|&extent| Dynamic::from(extent as i64)).collect())
}

fn dtype_at(call: &Call<'_, '_>, at: usize) -> Outcome<Option<DType>> {
    if call.argument(at).is_none() {
        return Ok(None);
    }
    dtype_named(&call.text(at)?).map(Some)
}

fn dtype_after_shape(call: &Call<'_, '_>, rest: &[Dynamic]) -> Outcome<Option<DType>> {
    match rest {
        [] => Ok(None),
        [name] if name.is_string() => dtype_named(&name.clone().into_string().unwrap_or_default()).map(Some),
        _ => Err(type_error(format!(
            "{}: after the extents comes the name of an element type, or nothing",
            call.name
        ))),
    }
}

fn filled(call: &Call<'_, '_>, value: Scalar) -> Outcome<Dynamic> {
    let (shape, rest) = call.shape(0)?;
    let dtype = dtype_after_shape(call, rest)?.unwrap_or(DType::F64);
    Ok(Dynamic::from(make::full(&shape, value, dtype)?))
}

fn full(call: &Call<'_, '_>) -> Outcome<Dynamic> {
    let shape = match call.value(0)?.read_lock::<List>() {
        Some(list) => shape_of_array(call, &to_array(&Dynamic::from_array(list.clone()))?)?,
        None => vec![call.extent(0)?],
    };
    let value = call.scalar(1)?;
    Ok(Dynamic::from(make::full(&shape, value, dtype_at(call, 2)?.unwrap_or(value.dtype()))?))
}

fn shape_of_array(call: &Call<'_, '_>, extents: &Array) -> Outcome<Vec<usize>> {
    match cast(extents, DType::I64)? {
        Array::I64(extents) => extents
            .iter()
            .map(|&extent| {
                usize::try_from(extent)
                    .map_err(|_| value_error(format!("{}: extent {extent} is negative", call.name)))
            })
            .collect(),
        _ => Err(value_error("extents are integers")),
    }
}

fn arange(call: &Call<'_, '_>) -> Outcome<Dynamic> {
    let (start, stop) = match call.count() {
        1 => (Scalar::Int(0), call.scalar(0)?),
        _ => (call.scalar(0)?, call.scalar(1)?),
    };
    let step = if call.count() == 3 { call.scalar(2)? } else { Scalar::Int(1) };
    Ok(Dynamic::from(make::arange(start, stop, step)?))
}

fn array(call: &Call<'_, '_>) -> Outcome<Dynamic> {
    let array = call.array(0)?;
    Ok(Dynamic::from(match dtype_at(call, 1)? {
        Some(dtype) => cast(&array, dtype)?,
        None => array,
    }))
}

fn random(call: &Call<'_, '_>, at: usize, mut next: impl FnMut() -> f64) -> Outcome<Dynamic> {
    if call.count() == at {
        return Ok(Dynamic::from(next()));
    }
    let (shape, rest) = call.shape(at)?;
    let dtype = dtype_after_shape(call, rest)?.unwrap_or(DType::F64);
    let count = element_count(&shape, DType::F64)?;
    let mut numbers = Vec::with_capacity(count);
    numbers.extend((0..count).map(|_| next()));
    Ok(Dynamic::from(cast(&Array::F64(shaped(&shape, numbers)), dtype)?))
}

fn rand(call: &Call<'_, '_>) -> Outcome<Dynamic> {
    let mut stream = call.session.random.borrow_mut();
    random(call, 0, || stream.uniform())
}

fn randn(call: &Call<'_, '_>) -> Outcome<Dynamic> {
    let mut stream = call.session.random.borrow_mut();
    let mut spare = None;
    random(call, 0, || {
        spare.take().unwrap_or_else(|| {
            let (first, second) = stream.normal_pair();
            spare = Some(second);
            first
        })
    })
}

fn randint(call: &Call<'_, '_>) -> Outcome<Dynamic> {
    let (low, high) = (call.int(0)?, call.int(1)?);
    if low >= high {
        return Err(value_error(format!("randint: no integer lies from {low} to before {high}")));
    }
    let mut stream = call.session.random.borrow_mut();
    if call.count() == 2 {
        return Ok(Dynamic::from(stream.integer(low, high)));
    }
    let (shape, rest) = call.shape(2)?;
    let dtype = dtype_after_shape(call, rest)?.unwrap_or(DType::I64);
    let count = element_count(&shape, DType::I64)?;
    let numbers = (0..count).map(|_| stream.integer(low, high)).collect();
    Ok(Dynamic::from(cast(&Array::I64(shaped(&shape, numbers)), dtype)?))
}

fn seed(call: &Call<'_, '_>) -> Outcome<Dynamic> {
    let rank = call.session.communicator()?.rank() as u64;
    *call.session.random.borrow_mut() = super::super::random::Random::seeded(call.int(0)? as u64, rank);
    Ok(Dynamic::UNIT)
}

fn complex(call: &Call<'_, '_>) -> Outcome<Dynamic> {
    let re = Dynamic::from(cast(&call.array(0)?, DType::C64)?);
    if call.count() == 1 {
        return Ok(from_array(to_array(&re)?));
    }
    let factor = elementwise::Operand::Scalar(Scalar::Complex(Complex64::I));
    let im = operand(call.value(1)?).unwrap_or(elementwise::Operand::Array(call.array(1)?));
    let re = operand(call.value(0)?).unwrap_or(elementwise::Operand::Array(call.array(0)?));
    let im = elementwise::binary(elementwise::Binary::Multiply, &im, &factor)?;
    Ok(super::super::convert::from_operand(elementwise::binary(elementwise::Binary::Add, &re, &im)?))
}

fn convert(call: &Call<'_, '_>) -> Outcome<Dynamic> {
    Ok(from_array(cast(&call.array(0)?, dtype_named(call.name)?)?))
}

fn int(call: &Call<'_, '_>) -> Outcome<Dynamic> {
    let value = call.value(0)?;
    if let Ok(text) = value.clone().into_string() {
        let number = text.trim().parse::<i64>();
        return number.map(Dynamic::from).map_err(|_| value_error(format!("{text:?} is not an integer")));
    }
    Ok(from_array(cast(&call.array(0)?, DType::I64)?))
}

fn float(call: &Call<'_, '_>) -> Outcome<Dynamic> {
    let value = call.value(0)?;
    if let Ok(text) = value.clone().into_string() {
        let number = text.trim().parse::<f64>();
        return number.map(Dynamic::from).map_err(|_| value_error(format!("{text:?} is not a number")));
    }
    Ok(from_array(cast(&call.array(0)?, DType::F64)?))
}

fn reshape(call: &Call<'_, '_>) -> Outcome<Dynamic> {
    let array = call.array(0)?;
    let mut extents = match call.value(1)?.read_lock::<List>() {
        Some(list) => match cast(&to_array(&Dynamic::from_array(list.clone()))?, DType::I64)? {
            Array::I64(extents) => extents.iter().copied().collect(),
            _ => Vec::new(),
        },
        None => (1..call.count()).map(|at| call.int(at)).collect::<Outcome<Vec<i64>>>()?,
    };
    let open = extents.iter().filter(|&&extent| extent == -1).count();
    if open > 1 {
        return Err(value_error("reshape: only one extent can be -1"));
    }
    if open == 1 {
        let known =
            extents.iter().filter(|&&extent| extent != -1).try_fold(1_i64, |all, &x| all.checked_mul(x));
        let missing = match known {
            Some(known) if known > 0 && array.len() as i64 % known == 0 => array.len() as i64 / known,
            _ => {
                return Err(value_error(format!(
                    "reshape: no extent in place of -1 gives {} elements",
                    array.len()
                )));
            }
        };
        extents.iter_mut().filter(|extent| **extent == -1).for_each(|extent| *extent = missing);
    }
    let shape = shape_of_array(call, &Array::from_vec(extents))?;
    Ok(Dynamic::from(make::reshape(&array, &shape)?))
}

fn joined(call: &Call<'_, '_>, join: fn(&[Array], i64) -> Outcome<Array>) -> Outcome<Dynamic> {
    let (arrays, axis) = match call.value(0)?.read_lock::<List>() {
        Some(list) => (
            list.iter().map(to_array).collect::<Outcome<Vec<Array>>>()?,
            if call.count() > 1 { call.int(1)? } else { 0 },
        ),
        None => ((0..call.count()).map(|at| call.array(at)).collect::<Outcome<Vec<Array>>>()?, 0),
    };
    Ok(Dynamic::from(join(&arrays, axis)?))
}

fn choose(call: &Call<'_, '_>) -> Outcome<Dynamic> {
    let condition = call.array(0)?;
    match call.count() {
        1 => {
            if condition.shape().len() != 1 {
                return Err(call.needs("one axis to give positions", &condition));
            }
            match select::list_of_array(&cast(&condition, DType::Bool)?)? {
                select::Pick::List(positions) => Ok(Dynamic::from(Array::from_vec(positions))),
                _ => Err(type_error("where needs a condition")),
            }
        }
        3 => {
            let side = |at: usize| -> Outcome<elementwise::Operand> {
                match operand(call.value(at)?) {
                    Some(operand) => Ok(operand),
                    None => Ok(elementwise::Operand::Array(call.array(at)?)),
                }
            };
            Ok(from_array(elementwise::choose(&condition, &side(1)?, &side(2)?)?))
        }
        _ => Err(type_error("where takes a condition, or a condition and two values")),
    }
}

fn slice(call: &Call<'_, '_>) -> Outcome<Dynamic> {
    let bound = |at: usize| -> Outcome<Option<i64>> {
        if call.value(at)?.is_unit() { Ok(None) } else { call.int(at).map(Some) }
    };
    let step = call.int(2)?;
    if step == 0 {
        return Err(value_error("the step of a slice cannot be 0"));
    }
    Ok(Dynamic::from(Stride { start: bound(0)?, stop: bound(1)?, step }))
}

/// The rows of an array, for `for row in a`.
pub(super) fn rows(array: &Array) -> Vec<Dynamic> {
    let Some(&extent) = array.shape().first() else { return vec![from_array(array.clone())] };
    (0..extent as i64)
        .filter_map(|row| select::select(array, &select::Selection::Axes(vec![select::Pick::At(row)])).ok())
        .map(from_array)
        .collect()
}
