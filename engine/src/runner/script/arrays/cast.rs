//! Element types: which one an operation works in, and converting between them.

use ndarray::{ArcArray, IxDyn};
use protocol::value::DType;

use crate::array::{Array, Element};
use crate::each_dtype;

use super::super::raised::{Outcome, overflow_error, type_error, value_error};
use super::{Number, Scalar};

/// The type that two arrays are computed in: the smallest that holds both exactly, as in NumPy, except that
/// i64 with floats is f64. An f32 stays f32 only beside f32, u8 and bool.
pub(crate) fn promote(left: DType, right: DType) -> DType {
    use DType::{Bool, C64, F32, F64, I32, I64, U8};
    match (left, right) {
        (same, other) if same == other => same,
        (C64, _) | (_, C64) => C64,
        (F64, _) | (_, F64) => F64,
        (F32, U8 | Bool) | (U8 | Bool, F32) => F32,
        (F32, _) | (_, F32) => F64,
        (I64, _) | (_, I64) => I64,
        (I32, _) | (_, I32) => I32,
        _ => U8,
    }
}

/// The type that an array and a single number are computed in: the array's own, if it can hold the number's
/// kind; a Python number would behave the same way in NumPy 2.
pub(crate) fn promote_scalar(array: DType, scalar: Scalar) -> DType {
    use DType::{Bool, C64, F32, F64, I32, I64, U8};
    match (array, scalar) {
        (dtype, Scalar::Bool(_)) => dtype,
        (F32 | F64 | C64 | I64, Scalar::Int(_)) => array,
        (I32, Scalar::Int(number)) if i32::try_from(number).is_ok() => I32,
        (U8, Scalar::Int(number)) if u8::try_from(number).is_ok() => U8,
        (I32 | U8 | Bool, Scalar::Int(_)) => I64,
        (F32 | C64, Scalar::Float(_)) => array,
        (_, Scalar::Float(_)) => F64,
        (_, Scalar::Complex(_)) => C64,
    }
}

/// Applies a function that cannot fail to every element.
pub(crate) fn map<T: Element, U: Element>(array: &ArcArray<T, IxDyn>, f: impl Fn(T) -> U) -> Array {
    U::wrap(array.map(|&x| f(x)).into_shared())
}

/// Applies a function to every element; `None` if it failed for any.
pub(crate) fn try_map<T: Element, U: Element + Default>(
    array: &ArcArray<T, IxDyn>,
    f: impl Fn(T) -> Option<U>,
) -> Option<Array> {
    let mut failed = false;
    let mapped = array.map(|&x| {
        f(x).unwrap_or_else(|| {
            failed = true;
            U::default()
        })
    });
    (!failed).then(|| U::wrap(mapped.into_shared()))
}

/// Converts an array. What would lose more than digits is refused: complex to real, floats that no integer
/// of the type can hold, integers out of range. Floats are cut towards zero.
pub(crate) fn cast(array: &Array, dtype: DType) -> Outcome<Array> {
    if array.dtype() == dtype {
        return Ok(array.clone());
    }
    if array.dtype() == DType::C64 && !matches!(dtype, DType::C64 | DType::Bool) {
        return Err(type_error(format!(
            "complex numbers do not fit into {dtype}; take the real part with `real(x)` or `abs(x)` first"
        )));
    }
    let converted = match dtype {
        DType::F64 => Some(each_dtype!(array, a => map(a, |x| x.f64()))),
        DType::F32 => Some(each_dtype!(array, a => map(a, |x| x.f64() as f32))),
        DType::C64 => Some(each_dtype!(array, a => map(a, |x| x.c64()))),
        DType::Bool => Some(each_dtype!(array, a => map(a, |x| x.truth()))),
        DType::I64 => each_dtype!(array, a => try_map(a, |x| x.i64())),
        DType::I32 => each_dtype!(array, a => try_map(a, |x| i32::try_from(x.i64()?).ok())),
        DType::U8 => each_dtype!(array, a => try_map(a, |x| u8::try_from(x.i64()?).ok())),
    };
    converted.ok_or_else(|| {
        let message = format!("some elements of the {} array are out of range for {dtype}", array.dtype());
        if matches!(array.dtype(), DType::F64 | DType::F32) {
            value_error(message)
        } else {
            overflow_error(message)
        }
    })
}

/// Converts what is stored into an existing array of `dtype`. A kind that the array cannot hold (a float in
/// an array of integers) is refused rather than cut.
pub(crate) fn cast_for_store(array: &Array, dtype: DType) -> Outcome<Array> {
    let kind = |dtype: DType| match dtype {
        DType::Bool => 0,
        DType::U8 | DType::I32 | DType::I64 => 1,
        DType::F32 | DType::F64 => 2,
        DType::C64 => 3,
    };
    if kind(array.dtype()) > kind(dtype) {
        return Err(type_error(format!(
            "cannot store {} in an array of {dtype} without loss; convert the array first: `astype(a, \"{}\")`",
            array.dtype(),
            array.dtype()
        )));
    }
    cast(array, dtype)
}

/// The type of that name, or an error that lists them.
pub(crate) fn dtype_named(name: &str) -> Outcome<DType> {
    let known = match name {
        "float" | "float64" => Some(DType::F64),
        "float32" => Some(DType::F32),
        "int" | "int64" => Some(DType::I64),
        "int32" => Some(DType::I32),
        "uint8" => Some(DType::U8),
        "complex" | "complex128" => Some(DType::C64),
        _ => DType::from_name(name),
    };
    known.ok_or_else(|| {
        let names: Vec<&str> = DType::ALL.into_iter().map(DType::name).collect();
        value_error(format!("`{name}` is not an element type; choose from {}", names.join(", ")))
    })
}
