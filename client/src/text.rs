//! Values as people and programs write them: `NAME=JSON`, `NAME=FILE.npy`, and back.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, bail};
use client::array::{describe, from_wire, kind, vector};
use client::{ArrayValue, DType, Value, npy};
use serde_json::Value as Json;

use crate::cli::Usage;

/// Bytes of JSON read from standard input: what a message's content may have.
const INPUT_BYTES_MAX: u64 = protocol::limits::CONTENT_BYTES_MAX as u64;

/// Reads `NAME=VALUE`. See [`value`].
pub(crate) fn assignment(text: &str) -> anyhow::Result<(String, Value)> {
    let Some((name, value_text)) = text.split_once('=') else {
        let reason = format!("read {text:?}: write NAME=VALUE, like n=3, x=[1,2.5] or a=data.npy");
        return Err(Usage(reason).into());
    };
    let name = name.trim();
    check_name(name)?;
    Ok((name.to_owned(), value(value_text.trim()).with_context(|| format!("push {name}"))?))
}

/// Whether engines can have a variable of that name.
pub(crate) fn check_name(name: &str) -> anyhow::Result<()> {
    let mut characters = name.chars();
    let starts = characters.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    if !starts || !characters.all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.') {
        let reason =
            format!("use {name:?} as a name: it needs a letter or _ first, then letters, digits and _");
        return Err(Usage(reason).into());
    }
    Ok(())
}

/// JSON; or a file `….npy`; or `-` for JSON or `.npy` from standard input; or, if it is none of these, the text
/// itself as a string.
pub(crate) fn value(text: &str) -> anyhow::Result<Value> {
    if text == "-" {
        let mut bytes = Vec::new();
        std::io::stdin()
            .lock()
            .take(INPUT_BYTES_MAX + 1)
            .read_to_end(&mut bytes)
            .context("read standard input")?;
        if bytes.starts_with(b"\x93NUMPY") {
            return Ok(Value::Array(npy::read(bytes.as_slice()).context("read standard input")?));
        }
        if bytes.len() as u64 > INPUT_BYTES_MAX {
            bail!("read standard input: JSON may have {INPUT_BYTES_MAX} bytes; send large arrays as .npy");
        }
        let json: Json =
            serde_json::from_slice(&bytes).context("read standard input: it is neither JSON nor .npy")?;
        return Ok(from_json(&json));
    }
    if text.ends_with(".npy") {
        return Ok(Value::Array(npy::load(Path::new(text))?));
    }
    match serde_json::from_str::<Json>(text) {
        Ok(json) => Ok(from_json(&json)),
        Err(error) if text.starts_with(['[', '{', '"']) => {
            Err(error).context(format!("read {text:?} as JSON"))
        }
        Err(_) => Ok(Value::Str(text.to_owned())),
    }
}

/// JSON as a value. Lists of integers become `i64` arrays, lists with a float `f64` arrays, lists of truth values
/// `bool` arrays, evenly nested lists arrays of several axes; all other lists stay lists.
pub(crate) fn from_json(json: &Json) -> Value {
    match json {
        Json::Null => Value::None,
        Json::Bool(truth) => Value::Bool(*truth),
        Json::Number(number) => {
            number.as_i64().map_or_else(|| Value::Float(number.as_f64().unwrap_or(f64::NAN)), Value::Int)
        }
        Json::String(text) => Value::Str(text.clone()),
        Json::Array(items) => {
            array(json).unwrap_or_else(|| Value::List(items.iter().map(from_json).collect()))
        }
        Json::Object(entries) => Value::Map(
            entries.iter().map(|(name, item)| (name.clone(), from_json(item))).collect::<BTreeMap<_, _>>(),
        ),
    }
}

/// The array that evenly nested lists of one kind are.
fn array(json: &Json) -> Option<Value> {
    let mut shape = Vec::new();
    let mut level = json;
    while let Json::Array(items) = level {
        shape.push(items.len());
        level = items.first()?;
    }
    let mut leaves = Vec::new();
    flatten(json, &shape, &mut leaves)?;
    let flat = if leaves.iter().all(|leaf| leaf.is_i64()) {
        vector(leaves.iter().filter_map(|leaf| leaf.as_i64()).collect::<Vec<i64>>())
    } else if leaves.iter().all(|leaf| leaf.is_number()) {
        vector(leaves.iter().filter_map(|leaf| leaf.as_f64()).collect::<Vec<f64>>())
    } else if leaves.iter().all(|leaf| leaf.is_boolean()) {
        vector(leaves.iter().filter_map(|leaf| leaf.as_bool()).collect::<Vec<bool>>())
    } else {
        return None;
    };
    let Value::Array(ArrayValue { dtype, data, .. }) = flat else { return None };
    let shape = shape.into_iter().map(|extent| extent as u64).collect();
    ArrayValue::new(dtype, shape, data).ok().map(Value::Array)
}

fn flatten<'a>(json: &'a Json, shape: &[usize], leaves: &mut Vec<&'a Json>) -> Option<()> {
    match (json, shape) {
        (Json::Array(items), [extent, rest @ ..]) if items.len() == *extent => {
            items.iter().try_for_each(|item| flatten(item, rest, leaves))
        }
        (Json::Array(_), _) | (_, [_, ..]) => None,
        (leaf, []) => {
            leaves.push(leaf);
            Some(())
        }
    }
}

/// A value as JSON. Arrays are nested lists; what JSON lacks (NaN, infinities, complex numbers, bytes) is text.
pub(crate) fn to_json(value: &Value) -> Json {
    match value {
        Value::None => Json::Null,
        Value::Bool(truth) => (*truth).into(),
        Value::Int(number) => (*number).into(),
        Value::Float(number) => float(*number),
        Value::Complex(z) => complex(z.re, z.im).into(),
        Value::Str(text) => text.as_str().into(),
        Value::Bytes(bytes) => bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into(),
        Value::List(items) => items.iter().map(to_json).collect(),
        Value::Map(entries) => entries.iter().map(|(name, item)| (name.clone(), to_json(item))).collect(),
        Value::Array(array) => nested(&elements(array), &array.shape),
    }
}

fn float(number: f64) -> Json {
    if number.is_finite() { number.into() } else { number.to_string().into() }
}

fn complex(re: f64, im: f64) -> String {
    format!("{re}{}{}i", if im.is_sign_negative() { "-" } else { "+" }, im.abs())
}

fn elements(array: &ArrayValue) -> Vec<Json> {
    macro_rules! each {
        ($type:ty, $json:expr) => {
            from_wire::<$type>(array).map(|a| a.iter().map($json).collect()).unwrap_or_default()
        };
    }
    match array.dtype {
        DType::F64 => each!(f64, |x| float(*x)),
        // Through text, so that 0.1 does not become 0.10000000149011612.
        DType::F32 => each!(f32, |x| float(x.to_string().parse().unwrap_or(f64::NAN))),
        DType::I64 => each!(i64, |x| Json::from(*x)),
        DType::I32 => each!(i32, |x| Json::from(*x)),
        DType::U8 => each!(u8, |x| Json::from(*x)),
        DType::Bool => each!(bool, |x| Json::from(*x)),
        DType::C64 => each!(num_complex::Complex64, |z| Json::from(complex(z.re, z.im))),
    }
}

fn nested(elements: &[Json], shape: &[u64]) -> Json {
    match shape {
        [] => elements.first().cloned().unwrap_or(Json::Null),
        [_] => Json::Array(elements.to_vec()),
        [extent, rest @ ..] => {
            let extent = usize::try_from(*extent).unwrap_or(0);
            let size = elements.len().checked_div(extent).unwrap_or(0);
            (0..extent).map(|row| nested(&elements[row * size..(row + 1) * size], rest)).collect()
        }
    }
}

/// Elements of an array that are shown before it is shortened.
const ELEMENTS_SHOWN_MAX: usize = 12;

/// A value for people: short, arrays with their type.
pub(crate) fn show(value: &Value) -> String {
    match value {
        Value::Array(array) if array.shape.is_empty() => to_json(value).to_string(),
        Value::Array(array) => {
            let count: u64 = array.shape.iter().product();
            if count as usize > ELEMENTS_SHOWN_MAX {
                let head = leading(array, ELEMENTS_SHOWN_MAX / 2);
                return format!("{} [{}, …]", describe(array), head.join(", "));
            }
            format!("{} {}", describe(array), to_json(value))
        }
        Value::Bytes(bytes) => format!("{} bytes", bytes.len()),
        Value::Str(text) => text.clone(),
        Value::None => kind(value).to_owned(),
        other => to_json(other).to_string(),
    }
}

fn leading(array: &ArrayValue, count: usize) -> Vec<String> {
    let data = array.data.slice(..array.data.len().min(count * array.dtype.size()));
    let head = ArrayValue { dtype: array.dtype, shape: vec![(data.len() / array.dtype.size()) as u64], data };
    elements(&head).iter().map(Json::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(text: &str) -> String {
        show(&value(text).unwrap())
    }

    #[test]
    fn even_lists_of_numbers_become_arrays_and_others_stay_lists() {
        assert_eq!(round("[1, 2, 3]"), "i64[3] [1,2,3]");
        assert_eq!(round("[1, 2.5]"), "f64[2] [1.0,2.5]");
        assert_eq!(round("[[1, 2], [3, 4]]"), "i64[2, 2] [[1,2],[3,4]]");
        assert_eq!(round("[true, false]"), "bool[2] [true,false]");
        assert_eq!(round("[[1, 2], [3]]"), r#"["#.to_owned() + r#"[1,2],[3]]"#);
        assert_eq!(round(r#"[1, "a"]"#), r#"[1,"a"]"#);
        assert_eq!(round("[]"), "[]");
    }

    #[test]
    fn what_is_no_json_is_a_string_unless_it_begins_like_json() {
        assert_eq!(value("hello world").unwrap(), Value::Str("hello world".into()));
        assert_eq!(value("\"3\"").unwrap(), Value::Str("3".into()));
        assert_eq!(value("3").unwrap(), Value::Int(3));
        assert!(value("[1, 2").is_err());
        assert!(value("missing.npy").is_err());
    }

    #[test]
    fn assignments_need_a_name() {
        assert_eq!(assignment("n = 3").unwrap(), ("n".to_owned(), Value::Int(3)));
        assert_eq!(assignment("s=a=b").unwrap(), ("s".to_owned(), Value::Str("a=b".into())));
        for text in ["n", "=3", "1a=3", "a b=3"] {
            let error = assignment(text).expect_err(text);
            assert!(error.is::<Usage>(), "{text:?} is wrong usage: {error}");
        }
    }

    #[test]
    fn long_arrays_are_shortened() {
        let long = vector((0..100).collect::<Vec<i64>>());
        assert_eq!(show(&long), "i64[100] [0, 1, 2, 3, 4, 5, …]");
    }
}
