//! Arrays between `ndarray` and the wire, and their division over engines.

use std::ops::Range;

use bytes::Bytes;
use ndarray::{ArrayD, ArrayViewD, CowArray, IxDyn};
use num_complex::Complex64;
use protocol::value::{ArrayValue, DType, Value};

use crate::error::ClientError;

mod sealed {
    pub trait Sealed {}
}

/// An element type that travels. Every one is plain memory without padding.
pub trait Element: Copy + Send + Sync + sealed::Sealed + 'static {
    /// Its name on the wire.
    const DTYPE: DType;

    /// Whether these bytes are elements, each bit pattern valid.
    fn is_valid(bytes: &[u8]) -> bool;
}

macro_rules! element {
    ($($type:ty => $variant:ident, $valid:expr;)*) => {$(
        impl sealed::Sealed for $type {}
        impl Element for $type {
            const DTYPE: DType = DType::$variant;

            fn is_valid(bytes: &[u8]) -> bool {
                let valid: fn(&[u8]) -> bool = $valid;
                valid(bytes)
            }
        }
    )*};
}
element! {
    f64 => F64, |_| true;
    f32 => F32, |_| true;
    i64 => I64, |_| true;
    i32 => I32, |_| true;
    u8 => U8, |_| true;
    bool => Bool, |bytes| bytes.iter().all(|&byte| byte <= 1);
    Complex64 => C64, |_| true;
}

/// Keeps an array alive while its bytes are in use.
struct Owned<T>(ArrayD<T>);

impl<T: Element> AsRef<[u8]> for Owned<T> {
    fn as_ref(&self) -> &[u8] {
        let elements = self.0.as_slice().expect("made contiguous by to_wire");
        // SAFETY: elements are initialised plain memory without padding (see `Element`), so that each byte may be
        // read; the lifetime is that of `self`.
        unsafe { std::slice::from_raw_parts(elements.as_ptr().cast::<u8>(), std::mem::size_of_val(elements)) }
    }
}

/// The array as it travels. Takes over its memory where it is in C order, copies it otherwise.
pub fn to_wire<T: Element>(array: ArrayD<T>) -> ArrayValue {
    let contiguous = if array.is_standard_layout() { array } else { array.as_standard_layout().into_owned() };
    let shape = contiguous.shape().iter().map(|&extent| extent as u64).collect();
    ArrayValue { dtype: T::DTYPE, shape, data: Bytes::from_owner(Owned(contiguous)) }
}

/// The array that came, its memory shared where it is aligned (as received arrays are), copied otherwise.
pub fn from_wire<T: Element>(array: &ArrayValue) -> Result<CowArray<'_, T, IxDyn>, ClientError> {
    if array.dtype != T::DTYPE {
        let reason = format!("read an array of {} as {}: pull it as what it is", array.dtype, T::DTYPE);
        return Err(ClientError::Invalid(reason));
    }
    let shape: Option<Vec<usize>> = array.shape.iter().map(|&extent| usize::try_from(extent).ok()).collect();
    let shape = shape.ok_or_else(|| ClientError::Invalid("read an array: it is too large".to_owned()))?;
    let malformed =
        || ClientError::Invalid("read an array: its bytes are no elements of its type".to_owned());
    if !array.data.len().is_multiple_of(size_of::<T>()) || !T::is_valid(&array.data) {
        return Err(malformed());
    }
    let count = array.data.len() / size_of::<T>();
    if array.data.as_ptr().cast::<T>().is_aligned() {
        // SAFETY: the bytes are aligned, initialised, `count` times the size of `T`, and valid as was checked;
        // they are borrowed for as long as `array`.
        let elements = unsafe { std::slice::from_raw_parts(array.data.as_ptr().cast::<T>(), count) };
        let view = ArrayViewD::from_shape(IxDyn(&shape), elements).map_err(|_| malformed())?;
        return Ok(CowArray::from(view));
    }
    let mut elements: Vec<T> = Vec::with_capacity(count);
    // SAFETY: there is room for `count` elements, whose bytes are valid as was checked; the memory is new, so
    // that the two do not overlap.
    unsafe {
        let bytes = elements.as_mut_ptr().cast::<u8>();
        std::ptr::copy_nonoverlapping(array.data.as_ptr(), bytes, array.data.len());
        elements.set_len(count);
    }
    let owned = ArrayD::from_shape_vec(IxDyn(&shape), elements).map_err(|_| malformed())?;
    Ok(CowArray::from(owned))
}

/// A value made of a 1-dimensional array.
pub fn vector<T: Element>(elements: Vec<T>) -> Value {
    Value::Array(to_wire(ndarray::Array1::from_vec(elements).into_dyn()))
}

/// The block of each of `parts` when `length` things are divided: the first `length mod parts` get one more.
pub(crate) fn blocks(length: usize, parts: usize) -> impl Iterator<Item = Range<usize>> {
    let (least, extra) = (length / parts.max(1), length % parts.max(1));
    (0..parts).map(move |part| {
        let start = part * least + part.min(extra);
        start..start + least + usize::from(part < extra)
    })
}

/// Divides a list, or an array along its first axis. Shares the array's memory.
pub fn partition(value: &Value, parts: usize) -> Result<Vec<Value>, ClientError> {
    match value {
        Value::List(items) => {
            Ok(blocks(items.len(), parts).map(|block| Value::List(items[block].to_vec())).collect())
        }
        Value::Array(array) => {
            let [rows, rest @ ..] = array.shape.as_slice() else {
                return Err(ClientError::Invalid(
                    "scatter an array without axes: push it instead".to_owned(),
                ));
            };
            let rows =
                usize::try_from(*rows).map_err(|_| ClientError::Invalid("scatter: too large".to_owned()))?;
            let row_bytes = array.data.len().checked_div(rows).unwrap_or(0);
            let part = |block: Range<usize>| {
                let mut shape = vec![block.len() as u64];
                shape.extend_from_slice(rest);
                let data = array.data.slice(block.start * row_bytes..block.end * row_bytes);
                Value::Array(ArrayValue { dtype: array.dtype, shape, data })
            };
            Ok(blocks(rows, parts).map(part).collect())
        }
        other => Err(ClientError::Invalid(format!("scatter {}: only lists and arrays divide", kind(other)))),
    }
}

/// Joins what [`partition`] divided: arrays along the first axis, lists one after the other, anything else as a
/// list of the parts. Arrays without axes count as one element.
pub fn join(parts: Vec<Value>) -> Result<Value, ClientError> {
    if parts.is_empty() {
        return Ok(Value::List(parts));
    }
    if parts.iter().all(|part| matches!(part, Value::List(_))) {
        let items =
            parts.into_iter().flat_map(|part| if let Value::List(items) = part { items } else { vec![] });
        return Ok(Value::List(items.collect()));
    }
    let arrays: Option<Vec<&ArrayValue>> =
        parts.iter().map(|part| if let Value::Array(array) = part { Some(array) } else { None }).collect();
    let Some(arrays) = arrays else {
        return Ok(Value::List(parts));
    };
    let (dtype, rest) = (arrays[0].dtype, arrays[0].shape.get(1..).unwrap_or_default());
    let mut rows = 0_u64;
    let mut data = Vec::with_capacity(arrays.iter().map(|array| array.data.len()).sum());
    for array in &arrays {
        if array.dtype != dtype || array.shape.get(1..).unwrap_or_default() != rest {
            let (a, b) = (describe(arrays[0]), describe(array));
            return Err(ClientError::Invalid(format!(
                "join {a} and {b}: types and all axes but the first must agree"
            )));
        }
        rows += array.shape.first().copied().unwrap_or(1);
        data.extend_from_slice(&array.data);
    }
    let mut shape = vec![rows];
    shape.extend_from_slice(rest);
    Ok(Value::Array(ArrayValue::new(dtype, shape, data.into())?))
}

/// `f64[3, 4]`
pub fn describe(array: &ArrayValue) -> String {
    let extents: Vec<String> = array.shape.iter().map(u64::to_string).collect();
    format!("{}[{}]", array.dtype, extents.join(", "))
}

/// What a value is, in one word with its article.
pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::None => "nothing",
        Value::Bool(_) => "a truth value",
        Value::Int(_) => "an integer",
        Value::Float(_) => "a float",
        Value::Complex(_) => "a complex number",
        Value::Str(_) => "a string",
        Value::Bytes(_) => "bytes",
        Value::List(_) => "a list",
        Value::Map(_) => "a map",
        Value::Array(_) => "an array",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_array_keeps_its_memory_on_the_way_out_and_on_the_way_in() {
        let array =
            ndarray::Array2::from_shape_fn((3, 4), |(row, column)| (row * 4 + column) as f64).into_dyn();
        let memory = array.as_ptr().cast::<u8>();

        let wire = to_wire(array.clone());
        assert_eq!(wire.shape, [3, 4]);
        let moved = to_wire(array);
        assert_eq!(moved.data.as_ptr(), memory);

        let back = from_wire::<f64>(&moved).unwrap();
        assert_eq!(back.as_ptr().cast::<u8>(), memory);
        assert_eq!(back, from_wire::<f64>(&wire).unwrap());
    }

    #[test]
    fn a_transposed_array_travels_in_c_order() {
        let array = ndarray::arr2(&[[1_i32, 2], [3, 4]]).reversed_axes().into_dyn();
        let wire = to_wire(array.clone());
        assert_eq!(from_wire::<i32>(&wire).unwrap(), array);
        assert_eq!(wire.data[4], 3);
    }

    #[test]
    fn unaligned_bytes_are_copied_and_false_truths_refused() {
        let data = Bytes::from(vec![0, 1, 0, 0, 0, 2, 0, 0, 0]).slice(1..);
        let array = ArrayValue::new(DType::I32, vec![2], data).unwrap();
        assert_eq!(from_wire::<i32>(&array).unwrap(), ndarray::arr1(&[1, 2]).into_dyn());

        let truths = ArrayValue::new(DType::Bool, vec![2], Bytes::from_static(&[1, 2])).unwrap();
        assert!(from_wire::<bool>(&truths).is_err());
        assert!(from_wire::<f64>(&truths).is_err());
    }

    #[test]
    fn the_first_parts_get_one_more() {
        let sizes: Vec<usize> = blocks(10, 4).map(|block| block.len()).collect();
        assert_eq!(sizes, [3, 3, 2, 2]);
        let sizes: Vec<usize> = blocks(2, 4).map(|block| block.len()).collect();
        assert_eq!(sizes, [1, 1, 0, 0]);
    }

    #[test]
    fn scalars_are_joined_into_a_list_and_differing_arrays_refused() {
        let parts = vec![Value::Float(1.0), Value::Float(2.0)];
        assert_eq!(join(parts.clone()).unwrap(), Value::List(parts));
        let error = join(vec![vector(vec![1.0]), vector(vec![1_i32])]).unwrap_err();
        assert!(error.to_string().contains("f64[1] and i32[1]"), "{error}");
        assert_eq!(join(vec![]).unwrap(), Value::List(vec![]));
    }

    proptest! {
        #[test]
        fn join_undoes_partition(rows in 0_usize..20, columns in 0_usize..4, parts in 1_usize..9) {
            let array = ndarray::Array2::from_shape_fn((rows, columns), |(r, c)| (r * 7 + c) as i64);
            let value = Value::Array(to_wire(array.into_dyn()));
            let divided = partition(&value, parts).unwrap();
            prop_assert_eq!(divided.len(), parts);
            prop_assert_eq!(join(divided).unwrap(), value);
        }
    }
}
