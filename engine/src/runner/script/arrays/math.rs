//! Functions of one number, applied to every element.

use num_complex::Complex64;
use protocol::value::DType;

use crate::array::Array;

use super::super::raised::{Outcome, overflow_error, type_error};
use super::cast::{cast, map, try_map};

/// A function on floats and, where it has one, on complex numbers.
pub(crate) struct Function {
    pub(crate) name: &'static str,
    pub(crate) real: fn(f64) -> f64,
    pub(crate) complex: Option<fn(Complex64) -> Complex64>,
}

/// All of them.
pub(crate) const FUNCTIONS: &[Function] = &[
    Function { name: "sqrt", real: f64::sqrt, complex: Some(Complex64::sqrt) },
    Function { name: "cbrt", real: f64::cbrt, complex: None },
    Function { name: "exp", real: f64::exp, complex: Some(Complex64::exp) },
    Function { name: "log", real: f64::ln, complex: Some(Complex64::ln) },
    Function { name: "log2", real: f64::log2, complex: None },
    Function { name: "log10", real: f64::log10, complex: Some(Complex64::log10) },
    Function { name: "log1p", real: f64::ln_1p, complex: None },
    Function { name: "expm1", real: f64::exp_m1, complex: None },
    Function { name: "sin", real: f64::sin, complex: Some(Complex64::sin) },
    Function { name: "cos", real: f64::cos, complex: Some(Complex64::cos) },
    Function { name: "tan", real: f64::tan, complex: Some(Complex64::tan) },
    Function { name: "asin", real: f64::asin, complex: Some(Complex64::asin) },
    Function { name: "acos", real: f64::acos, complex: Some(Complex64::acos) },
    Function { name: "atan", real: f64::atan, complex: Some(Complex64::atan) },
    Function { name: "sinh", real: f64::sinh, complex: Some(Complex64::sinh) },
    Function { name: "cosh", real: f64::cosh, complex: Some(Complex64::cosh) },
    Function { name: "tanh", real: f64::tanh, complex: Some(Complex64::tanh) },
    Function { name: "degrees", real: f64::to_degrees, complex: None },
    Function { name: "radians", real: f64::to_radians, complex: None },
];

/// Functions that keep integers as they are.
pub(crate) const ROUNDINGS: &[Function] = &[
    Function { name: "floor", real: f64::floor, complex: None },
    Function { name: "ceil", real: f64::ceil, complex: None },
    Function { name: "round", real: f64::round_ties_even, complex: None },
    Function { name: "trunc", real: f64::trunc, complex: None },
];

/// Applies a function; integers become f64, f32 stays f32.
pub(crate) fn apply(function: &Function, array: &Array) -> Outcome<Array> {
    match (array, function.complex) {
        (Array::F64(a), _) => Ok(map(a, function.real)),
        (Array::F32(a), _) => Ok(map(a, |x| (function.real)(f64::from(x)) as f32)),
        (Array::C64(a), Some(complex)) => Ok(map(a, complex)),
        (Array::C64(_), None) => {
            Err(type_error(format!("{} is not defined for complex numbers", function.name)))
        }
        _ => apply(function, &cast(array, DType::F64)?),
    }
}

/// Applies a rounding; the result of integers is the argument itself.
pub(crate) fn round(function: &Function, array: &Array) -> Outcome<Array> {
    match array.dtype() {
        DType::I64 | DType::I32 | DType::U8 | DType::Bool => Ok(array.clone()),
        _ => apply(function, array),
    }
}

/// Absolute values; of complex numbers as f64.
pub(crate) fn absolute(array: &Array) -> Outcome<Array> {
    let too_large =
        || overflow_error("the absolute value of the smallest integer does not fit into its type");
    match array {
        Array::F64(a) => Ok(map(a, f64::abs)),
        Array::F32(a) => Ok(map(a, f32::abs)),
        Array::C64(a) => Ok(map(a, |z| z.norm())),
        Array::I64(a) => try_map(a, i64::checked_abs).ok_or_else(too_large),
        Array::I32(a) => try_map(a, i32::checked_abs).ok_or_else(too_large),
        Array::U8(_) | Array::Bool(_) => Ok(array.clone()),
    }
}

/// -1, 0 or 1; NaN stays NaN.
pub(crate) fn sign(array: &Array) -> Outcome<Array> {
    let of_float = |x: f64| {
        if x > 0.0 {
            1.0
        } else if x < 0.0 {
            -1.0
        } else {
            x
        }
    };
    match array {
        Array::F64(a) => Ok(map(a, of_float)),
        Array::F32(a) => Ok(map(a, |x| of_float(f64::from(x)) as f32)),
        Array::I64(a) => Ok(map(a, i64::signum)),
        Array::I32(a) => Ok(map(a, i32::signum)),
        Array::U8(a) => Ok(map(a, |x| x.min(1))),
        Array::Bool(_) => Ok(array.clone()),
        Array::C64(_) => Err(type_error("complex numbers have no sign; use `x / abs(x)`")),
    }
}

/// A part of complex numbers; `of_real` says what it is of a real number.
pub(crate) fn part(
    array: &Array,
    of_complex: fn(Complex64) -> f64,
    of_real: fn(f64) -> f64,
) -> Outcome<Array> {
    match array {
        Array::C64(a) => Ok(map(a, of_complex)),
        Array::F64(a) => Ok(map(a, of_real)),
        _ => part(&cast(array, DType::F64)?, of_complex, of_real),
    }
}

/// Complex conjugates; real numbers are their own.
pub(crate) fn conjugate(array: &Array) -> Array {
    match array {
        Array::C64(a) => map(a, |z| z.conj()),
        _ => array.clone(),
    }
}

/// A test of floats; integers are always finite.
pub(crate) fn test(array: &Array, holds: fn(f64) -> bool) -> Outcome<Array> {
    match array {
        Array::C64(a) => Ok(map(a, |z| holds(z.re) || holds(z.im))),
        Array::F64(a) => Ok(map(a, holds)),
        _ => test(&cast(array, DType::F64)?, holds),
    }
}
