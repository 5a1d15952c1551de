//! Between the values of Rhai and those that travel.

use num_complex::Complex64;
use protocol::limits::{VALUE_DEPTH_MAX, VALUE_NODES_MAX};
use protocol::value::Value;
use rhai::{Blob, Dynamic, FnPtr, ImmutableString, Map};

use crate::array::Array;

use super::arrays::elementwise::Operand;
use super::arrays::{Scalar, only_element};
use super::namespace::Missing;
use super::raised::{Outcome, type_error, value_error};

/// Rhai's lists; `Array` is ours.
pub(crate) type List = rhai::Array;

/// A slice with a step, made by `slice(start, stop, step)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stride {
    pub(crate) start: Option<i64>,
    pub(crate) stop: Option<i64>,
    pub(crate) step: i64,
}

/// The name of a value's type, as messages and `type_of` say it.
pub(crate) fn kind(value: &Dynamic) -> &'static str {
    if value.is_unit() {
        "()"
    } else if value.is_bool() {
        "bool"
    } else if value.is_int() {
        "int"
    } else if value.is_float() {
        "float"
    } else if value.is_string() {
        "string"
    } else if value.is_char() {
        "char"
    } else if value.is_array() {
        "list"
    } else if value.is_map() {
        "map"
    } else if value.is_blob() {
        "bytes"
    } else if value.is_fnptr() {
        "function"
    } else if value.is::<Complex64>() {
        "complex"
    } else if value.is::<Array>() {
        "array"
    } else if value.is::<Missing>() {
        "undefined"
    } else if value.is::<Stride>() {
        "slice"
    } else if value.is::<std::ops::Range<i64>>() || value.is::<std::ops::RangeInclusive<i64>>() {
        "range"
    } else {
        "object"
    }
}

/// The value as it travels. Arrays share their memory with the namespace.
pub(crate) fn to_value(value: &Dynamic) -> Outcome<Value> {
    let mut nodes_left = VALUE_NODES_MAX;
    to_value_within(value, VALUE_DEPTH_MAX, &mut nodes_left)
}

fn to_value_within(value: &Dynamic, depth_left: usize, nodes_left: &mut usize) -> Outcome<Value> {
    let depth_left = depth_left
        .checked_sub(1)
        .ok_or_else(|| value_error(format!("the value is nested deeper than {VALUE_DEPTH_MAX} levels")))?;
    *nodes_left = nodes_left.checked_sub(1).ok_or_else(|| {
        value_error(format!(
            "the value has more than {VALUE_NODES_MAX} parts; make an array of numbers: `array(x)`"
        ))
    })?;
    if let Some(array) = value.read_lock::<Array>() {
        return Ok(Value::Array(array.to_wire()));
    }
    if let Some(list) = value.read_lock::<List>() {
        let items = list.iter().map(|item| to_value_within(item, depth_left, nodes_left));
        return items.collect::<Outcome<_>>().map(Value::List);
    }
    if let Some(map) = value.read_lock::<Map>() {
        let entries = map
            .iter()
            .map(|(name, item)| Ok((name.to_string(), to_value_within(item, depth_left, nodes_left)?)));
        return entries.collect::<Outcome<_>>().map(Value::Map);
    }
    if let Some(text) = value.read_lock::<ImmutableString>() {
        return Ok(Value::Str(text.to_string()));
    }
    if let Some(bytes) = value.read_lock::<Blob>() {
        return Ok(Value::Bytes(bytes.to_vec().into()));
    }
    if let Ok(letter) = value.as_char() {
        return Ok(Value::Str(letter.to_string()));
    }
    if value.is_unit() {
        return Ok(Value::None);
    }
    match scalar(value) {
        Some(Scalar::Bool(truth)) => Ok(Value::Bool(truth)),
        Some(Scalar::Int(number)) => Ok(Value::Int(number)),
        Some(Scalar::Float(number)) => Ok(Value::Float(number)),
        Some(Scalar::Complex(number)) => Ok(Value::Complex(number)),
        None => Err(type_error(format!(
            "a {} cannot leave the engine; make a list or an array of it",
            kind(value)
        ))),
    }
}

/// The value as the language has it. The elements of arrays are copied once.
pub(crate) fn from_value(value: &Value) -> Dynamic {
    match value {
        Value::None => Dynamic::UNIT,
        Value::Bool(truth) => Dynamic::from(*truth),
        Value::Int(number) => Dynamic::from(*number),
        Value::Float(number) => Dynamic::from(*number),
        Value::Complex(number) => Dynamic::from(*number),
        Value::Str(text) => text.as_str().into(),
        Value::Bytes(bytes) => Dynamic::from_blob(bytes.to_vec()),
        Value::List(items) => Dynamic::from_array(items.iter().map(from_value).collect()),
        Value::Map(entries) => {
            let entries: Map =
                entries.iter().map(|(name, item)| (name.as_str().into(), from_value(item))).collect();
            Dynamic::from_map(entries)
        }
        Value::Array(array) => Dynamic::from(Array::from_wire(array)),
    }
}

/// The number that a value is, if it is one.
pub(crate) fn scalar(value: &Dynamic) -> Option<Scalar> {
    if let Ok(number) = value.as_int() {
        Some(Scalar::Int(number))
    } else if let Ok(number) = value.as_float() {
        Some(Scalar::Float(number))
    } else if let Ok(truth) = value.as_bool() {
        Some(Scalar::Bool(truth))
    } else {
        value.read_lock::<Complex64>().map(|number| Scalar::Complex(*number))
    }
}

/// A number as a value.
pub(crate) fn from_scalar(scalar: Scalar) -> Dynamic {
    match scalar {
        Scalar::Bool(truth) => Dynamic::from(truth),
        Scalar::Int(number) => Dynamic::from(number),
        Scalar::Float(number) => Dynamic::from(number),
        Scalar::Complex(number) => Dynamic::from(number),
    }
}

/// An array without axes as the number that it is; any other as an array.
pub(crate) fn from_array(array: Array) -> Dynamic {
    match only_element(&array) {
        Some(scalar) if array.shape().is_empty() => from_scalar(scalar),
        _ => Dynamic::from(array),
    }
}

/// An array or a number.
pub(crate) fn operand(value: &Dynamic) -> Option<Operand> {
    if let Some(scalar) = scalar(value) {
        return Some(Operand::Scalar(scalar));
    }
    value.read_lock::<Array>().map(|array| Operand::Array(array.clone()))
}

/// What an operator gave.
pub(crate) fn from_operand(operand: Operand) -> Dynamic {
    match operand {
        Operand::Scalar(scalar) => from_scalar(scalar),
        Operand::Array(array) => Dynamic::from(array),
    }
}

/// Anything that can be an array: arrays, numbers, nested lists of equal lengths, ranges.
pub(crate) fn to_array(value: &Dynamic) -> Outcome<Array> {
    match operand(value) {
        Some(Operand::Array(array)) => return Ok(array),
        Some(Operand::Scalar(scalar)) => return Ok(scalar.to_array()),
        None => {}
    }
    if let Some(range) = value.read_lock::<std::ops::Range<i64>>() {
        return super::arrays::make::arange(Scalar::Int(range.start), Scalar::Int(range.end), Scalar::Int(1));
    }
    if let Some(bytes) = value.read_lock::<Blob>() {
        return Ok(Array::from_vec(bytes.to_vec()));
    }
    let Some(list) = value.read_lock::<List>() else {
        return Err(type_error(format!("a {} is not an array, a number or a list of numbers", kind(value))));
    };
    if list.is_empty() {
        return Ok(Array::from_vec(Vec::<f64>::new()));
    }
    if let Some(numbers) = list.iter().map(scalar).collect::<Option<Vec<Scalar>>>() {
        return Ok(array_of_scalars(&numbers));
    }
    let rows = list.iter().map(to_array).collect::<Outcome<Vec<Array>>>()?;
    super::arrays::make::stack(&rows, 0)
        .map_err(|_| value_error("the lists inside of a list must have equal lengths to become an array"))
}

fn array_of_scalars(numbers: &[Scalar]) -> Array {
    let real = |number: &Scalar| match number {
        Scalar::Bool(truth) => f64::from(u8::from(*truth)),
        Scalar::Int(number) => *number as f64,
        Scalar::Float(number) => *number,
        Scalar::Complex(number) => number.re,
    };
    let all = |kind: fn(&Scalar) -> bool| numbers.iter().all(kind);
    if all(|number| matches!(number, Scalar::Bool(_))) {
        Array::from_vec(numbers.iter().map(|number| *number == Scalar::Bool(true)).collect::<Vec<bool>>())
    } else if all(|number| matches!(number, Scalar::Bool(_) | Scalar::Int(_))) {
        let whole = numbers.iter().map(|number| match number {
            Scalar::Int(number) => *number,
            other => i64::from(*other == Scalar::Bool(true)),
        });
        Array::from_vec(whole.collect::<Vec<i64>>())
    } else if all(|number| !matches!(number, Scalar::Complex(_))) {
        Array::from_vec(numbers.iter().map(real).collect::<Vec<f64>>())
    } else {
        let complex = numbers.iter().map(|number| match number {
            Scalar::Complex(number) => *number,
            other => Complex64::new(real(other), 0.0),
        });
        Array::from_vec(complex.collect::<Vec<Complex64>>())
    }
}

/// The nested lists of an array's elements.
pub(crate) fn to_list(array: &Array) -> Dynamic {
    let Some(&extent) = array.shape().first() else { return from_array(array.clone()) };
    if array.shape().len() == 1 {
        use super::arrays::Number;
        return Dynamic::from_array(
            crate::each_dtype!(array, a => a.iter().map(|&x| from_scalar(x.scalar())).collect()),
        );
    }
    let rows = (0..extent).map(|row| {
        let row: Array = crate::each_dtype!(array, a => wrap(a.index_axis(ndarray::Axis(0), row).to_owned().into_shared()));
        to_list(&row)
    });
    Dynamic::from_array(rows.collect())
}

fn wrap<T: crate::array::Element>(array: ndarray::ArcArray<T, ndarray::IxDyn>) -> Array {
    T::wrap(array)
}

/// Whether a value is a function.
pub(crate) fn function(value: &Dynamic) -> Option<FnPtr> {
    value.read_lock::<FnPtr>().map(|function| function.clone())
}
