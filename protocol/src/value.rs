//! Values as they travel between our own clients and engines: a JSON description and raw buffers.
//!
//! Small things are described in JSON; bytes and the elements of arrays follow as raw frames, which the
//! controller neither decodes nor copies. See `docs/PROTOCOL.md`, "Values".

use std::collections::BTreeMap;

use bytes::Bytes;
use num_complex::Complex64;
use serde_json::{Value as Json, json};

use crate::limits::{ARRAY_RANK_MAX, VALUE_DEPTH_MAX, VALUE_NODES_MAX};

/// A value that a name stands for in an engine's namespace.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Nothing: `()` at the prompt, `None` in Python.
    None,
    /// A truth value.
    Bool(bool),
    /// A signed integer.
    Int(i64),
    /// A float; may be NaN or infinite.
    Float(f64),
    /// A complex number.
    Complex(Complex64),
    /// Text.
    Str(String),
    /// Raw bytes; travel as a buffer.
    Bytes(Bytes),
    /// Values in order.
    List(Vec<Value>),
    /// Values by name.
    Map(BTreeMap<String, Value>),
    /// An n-dimensional array; its elements travel as a buffer.
    Array(ArrayValue),
}

/// The element types of arrays, named as on the wire and at the prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DType {
    /// 64-bit IEEE float.
    F64,
    /// 32-bit IEEE float.
    F32,
    /// 64-bit signed integer.
    I64,
    /// 32-bit signed integer.
    I32,
    /// 8-bit unsigned integer.
    U8,
    /// One byte per truth value, 0 or 1.
    Bool,
    /// A complex number of two 64-bit floats (NumPy's `complex128`).
    C64,
}

impl DType {
    /// All of them.
    pub const ALL: [DType; 7] =
        [DType::F64, DType::F32, DType::I64, DType::I32, DType::U8, DType::Bool, DType::C64];

    /// Bytes per element.
    pub fn size(self) -> usize {
        match self {
            DType::F64 | DType::I64 => 8,
            DType::F32 | DType::I32 => 4,
            DType::U8 | DType::Bool => 1,
            DType::C64 => 16,
        }
    }

    /// The name on the wire and at the prompt.
    pub fn name(self) -> &'static str {
        match self {
            DType::F64 => "f64",
            DType::F32 => "f32",
            DType::I64 => "i64",
            DType::I32 => "i32",
            DType::U8 => "u8",
            DType::Bool => "bool",
            DType::C64 => "c64",
        }
    }

    /// The type of that name.
    pub fn from_name(name: &str) -> Option<DType> {
        DType::ALL.into_iter().find(|dtype| dtype.name() == name)
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// An array as it travels. The length of `data` always fits `dtype` and `shape`.
#[derive(Clone, Debug, PartialEq)]
pub struct ArrayValue {
    /// The element type.
    pub dtype: DType,
    /// The extent of every axis.
    pub shape: Vec<u64>,
    /// The elements in C order, little-endian.
    pub data: Bytes,
}

/// Why a value could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// The JSON is not one of the descriptions that [`encode`] writes.
    #[error("the description of a value is malformed: {0}")]
    Malformed(&'static str),
    /// A description names a buffer that did not come.
    #[error("the value needs buffer {index}, but the message carries {count}")]
    MissingBuffer {
        /// The buffer named.
        index: usize,
        /// How many came.
        count: usize,
    },
    /// The buffer is not as long as the shape says.
    #[error("an array of shape {shape:?} and type {dtype} takes {expected} bytes, but {found} came")]
    WrongLength {
        /// The element type.
        dtype: DType,
        /// The shape described.
        shape: Vec<u64>,
        /// Bytes that shape and type ask for.
        expected: u64,
        /// Bytes that came.
        found: usize,
    },
    /// The value is nested too deeply, or has too many parts.
    #[error("the value exceeds a limit: {0}")]
    TooLarge(&'static str),
}

impl ArrayValue {
    /// Checks that shape, type and length agree.
    pub fn new(dtype: DType, shape: Vec<u64>, data: Bytes) -> Result<ArrayValue, ValueError> {
        if shape.len() > ARRAY_RANK_MAX {
            return Err(ValueError::TooLarge("an array has at most 32 axes"));
        }
        let expected = shape.iter().try_fold(dtype.size() as u64, |bytes, &extent| bytes.checked_mul(extent));
        match expected {
            Some(expected) if expected == data.len() as u64 => Ok(ArrayValue { dtype, shape, data }),
            _ => Err(ValueError::WrongLength {
                dtype,
                shape,
                expected: expected.unwrap_or(u64::MAX),
                found: data.len(),
            }),
        }
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Value {
        Value::Float(value)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Value {
        Value::Int(value)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Value {
        Value::Bool(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Value {
        Value::Str(value.to_owned())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Value {
        Value::Str(value)
    }
}

impl From<ArrayValue> for Value {
    fn from(value: ArrayValue) -> Value {
        Value::Array(value)
    }
}

impl<V: Into<Value>> From<Vec<V>> for Value {
    fn from(values: Vec<V>) -> Value {
        Value::List(values.into_iter().map(Into::into).collect())
    }
}

/// Describes a value; its bulk is appended to `buffers`, to be sent as frames of the same message.
pub fn encode(value: &Value, buffers: &mut Vec<Bytes>) -> Json {
    match value {
        Value::None => Json::Null,
        Value::Bool(truth) => json!(truth),
        Value::Int(number) => json!(number),
        Value::Float(number) if number.is_finite() => json!({ "f": number }),
        Value::Float(number) => json!({ "f": non_finite(*number) }),
        Value::Complex(z) => json!({ "c": [encode_float(z.re), encode_float(z.im)] }),
        Value::Str(text) => json!(text),
        Value::Bytes(data) => {
            buffers.push(data.clone());
            json!({ "b": buffers.len() - 1 })
        }
        Value::List(items) => Json::Array(items.iter().map(|item| encode(item, buffers)).collect()),
        Value::Map(entries) => {
            let entries: serde_json::Map<String, Json> =
                entries.iter().map(|(name, item)| (name.clone(), encode(item, buffers))).collect();
            json!({ "m": entries })
        }
        Value::Array(array) => {
            buffers.push(array.data.clone());
            json!({ "a": buffers.len() - 1, "dtype": array.dtype.name(), "shape": array.shape })
        }
    }
}

/// Reads a value that [`encode`] described. Shares the buffers, copies none.
pub fn decode(described: &Json, buffers: &[Bytes]) -> Result<Value, ValueError> {
    let mut nodes_left = VALUE_NODES_MAX;
    decode_node(described, buffers, VALUE_DEPTH_MAX, &mut nodes_left)
}

fn decode_node(
    described: &Json,
    buffers: &[Bytes],
    depth_left: usize,
    nodes_left: &mut usize,
) -> Result<Value, ValueError> {
    let depth_left = depth_left.checked_sub(1).ok_or(ValueError::TooLarge("nested too deeply"))?;
    *nodes_left = nodes_left.checked_sub(1).ok_or(ValueError::TooLarge("too many parts"))?;
    match described {
        Json::Null => Ok(Value::None),
        Json::Bool(truth) => Ok(Value::Bool(*truth)),
        Json::Number(number) => match number.as_i64() {
            Some(integer) => Ok(Value::Int(integer)),
            None => number.as_f64().map(Value::Float).ok_or(ValueError::Malformed("number out of range")),
        },
        Json::String(text) => Ok(Value::Str(text.clone())),
        Json::Array(items) => items
            .iter()
            .map(|item| decode_node(item, buffers, depth_left, nodes_left))
            .collect::<Result<_, _>>()
            .map(Value::List),
        Json::Object(object) => {
            if let Some(number) = object.get("f") {
                decode_float(number).map(Value::Float)
            } else if let Some(parts) = object.get("c") {
                match parts.as_array().map(Vec::as_slice) {
                    Some([re, im]) => {
                        Ok(Value::Complex(Complex64::new(decode_float(re)?, decode_float(im)?)))
                    }
                    _ => Err(ValueError::Malformed("a complex number has two parts")),
                }
            } else if let Some(index) = object.get("b") {
                buffer(index, buffers).map(|data| Value::Bytes(data.clone()))
            } else if let Some(entries) = object.get("m") {
                let entries = entries.as_object().ok_or(ValueError::Malformed("a map is a JSON object"))?;
                let decoded = entries.iter().map(|(name, item)| {
                    Ok((name.clone(), decode_node(item, buffers, depth_left, nodes_left)?))
                });
                decoded.collect::<Result<_, _>>().map(Value::Map)
            } else if let Some(index) = object.get("a") {
                decode_array(object, buffer(index, buffers)?).map(Value::Array)
            } else {
                Err(ValueError::Malformed("an object without a known tag"))
            }
        }
    }
}

fn decode_array(object: &serde_json::Map<String, Json>, data: &Bytes) -> Result<ArrayValue, ValueError> {
    let dtype = object
        .get("dtype")
        .and_then(Json::as_str)
        .and_then(DType::from_name)
        .ok_or(ValueError::Malformed("an array needs a known dtype"))?;
    let shape = object
        .get("shape")
        .and_then(Json::as_array)
        .and_then(|extents| extents.iter().map(Json::as_u64).collect::<Option<Vec<u64>>>())
        .ok_or(ValueError::Malformed("an array needs a shape"))?;
    ArrayValue::new(dtype, shape, data.clone())
}

fn buffer<'a>(index: &Json, buffers: &'a [Bytes]) -> Result<&'a Bytes, ValueError> {
    let index = index.as_u64().ok_or(ValueError::Malformed("a buffer is named by its number"))? as usize;
    buffers.get(index).ok_or(ValueError::MissingBuffer { index, count: buffers.len() })
}

fn non_finite(number: f64) -> &'static str {
    if number.is_nan() {
        "nan"
    } else if number > 0.0 {
        "inf"
    } else {
        "-inf"
    }
}

fn encode_float(number: f64) -> Json {
    if number.is_finite() { json!(number) } else { json!(non_finite(number)) }
}

fn decode_float(described: &Json) -> Result<f64, ValueError> {
    match described {
        Json::Number(number) => number.as_f64().ok_or(ValueError::Malformed("number out of range")),
        Json::String(text) => match text.as_str() {
            "nan" => Ok(f64::NAN),
            "inf" => Ok(f64::INFINITY),
            "-inf" => Ok(f64::NEG_INFINITY),
            _ => Err(ValueError::Malformed("not a number")),
        },
        _ => Err(ValueError::Malformed("not a number")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(value: Value) -> Value {
        let mut buffers = vec![Bytes::from_static(b"a buffer of somebody else")];
        let described = encode(&value, &mut buffers);
        let text = serde_json::to_string(&described).expect("a description is JSON");
        decode(&serde_json::from_str(&text).expect("it was just written"), &buffers)
            .expect("it was just encoded")
    }

    #[test]
    fn every_kind_of_value_survives_the_wire() {
        let array = ArrayValue::new(DType::I32, vec![2, 1], Bytes::from_static(&[1, 0, 0, 0, 2, 0, 0, 0]));
        let value = Value::Map(BTreeMap::from([
            ("none".into(), Value::None),
            ("truth".into(), true.into()),
            ("int".into(), i64::MIN.into()),
            ("whole float".into(), 2.0.into()),
            ("infinite".into(), f64::NEG_INFINITY.into()),
            ("complex".into(), Value::Complex(Complex64::new(1.5, f64::INFINITY))),
            ("text".into(), "é\n".into()),
            ("bytes".into(), Value::Bytes(Bytes::from_static(b"\0\xff"))),
            ("list".into(), vec![1_i64, 2].into()),
            ("array".into(), array.expect("eight bytes").into()),
        ]));
        assert_eq!(round_trip(value.clone()), value);
    }

    #[test]
    fn nan_survives_the_wire() {
        assert!(matches!(round_trip(f64::NAN.into()), Value::Float(number) if number.is_nan()));
    }

    #[test]
    fn an_array_whose_length_does_not_fit_its_shape_is_refused() {
        let described = json!({ "a": 0, "dtype": "f64", "shape": [3] });
        let error = decode(&described, &[Bytes::from_static(&[0; 16])]).expect_err("24 bytes are needed");
        assert_eq!(error.to_string(), "an array of shape [3] and type f64 takes 24 bytes, but 16 came");
    }

    #[test]
    fn a_shape_whose_product_overflows_is_refused() {
        let described = json!({ "a": 0, "dtype": "u8", "shape": [u64::MAX, u64::MAX] });
        assert!(matches!(decode(&described, &[Bytes::new()]), Err(ValueError::WrongLength { .. })));
    }

    #[test]
    fn a_buffer_that_did_not_come_is_named() {
        assert_eq!(decode(&json!({ "b": 2 }), &[]), Err(ValueError::MissingBuffer { index: 2, count: 0 }));
    }

    #[test]
    fn deep_nesting_is_refused() {
        let mut deep = Json::Null;
        for _ in 0..VALUE_DEPTH_MAX {
            deep = Json::Array(vec![deep]);
        }
        assert_eq!(decode(&deep, &[]), Err(ValueError::TooLarge("nested too deeply")));
    }
}
