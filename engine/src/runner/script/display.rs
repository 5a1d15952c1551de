//! Values as people read them.

use std::fmt::Write;

use num_complex::Complex64;
use protocol::value::DType;
use rhai::{Blob, Dynamic, FnPtr, ImmutableString, Map};

use crate::array::Array;
use crate::each_dtype;

use super::arrays::{Number, Scalar};
use super::convert::{List, Stride, kind, scalar};
use super::raised::Raised;

/// Arrays with more elements show only the first and last of every axis, as in NumPy.
const SUMMARY_ELEMENTS: usize = 1000;
/// How many at either end of an axis.
const SUMMARY_EDGE: usize = 3;
/// Items of lists and maps that are shown.
const ITEMS_SHOWN: usize = 200;
/// Lists in lists that are shown.
const DEPTH_SHOWN: usize = 20;
/// Columns of a line of an array.
const LINE_WIDTH: usize = 78;

/// As the prompt shows a result: strings in quotes.
pub(crate) fn shown(value: &Dynamic) -> String {
    let mut text = String::new();
    write_value(&mut text, value, true, DEPTH_SHOWN);
    text
}

/// As `print` writes it: strings as they are.
pub(crate) fn printed(value: &Dynamic) -> String {
    let mut text = String::new();
    write_value(&mut text, value, false, DEPTH_SHOWN);
    text
}

fn write_value(text: &mut String, value: &Dynamic, quoted: bool, depth: usize) {
    if let Some(string) = value.read_lock::<ImmutableString>() {
        if quoted {
            let _ = write!(text, "{:?}", string.as_str());
        } else {
            text.push_str(&string);
        }
    } else if let Some(number) = scalar(value) {
        text.push_str(&scalar_text(number));
    } else if let Some(array) = value.read_lock::<Array>() {
        text.push_str(&array_text(&array));
    } else if depth == 0 {
        text.push('…');
    } else if let Some(list) = value.read_lock::<List>() {
        text.push('[');
        for (at, item) in list.iter().take(ITEMS_SHOWN).enumerate() {
            text.push_str(if at == 0 { "" } else { ", " });
            write_value(text, item, true, depth - 1);
        }
        write_rest(text, list.len());
        text.push(']');
    } else if let Some(map) = value.read_lock::<Map>() {
        text.push_str("#{");
        for (at, (name, item)) in map.iter().take(ITEMS_SHOWN).enumerate() {
            text.push_str(if at == 0 { "" } else { ", " });
            let plain = rhai::is_valid_identifier(name);
            let _ = if plain { write!(text, "{name}: ") } else { write!(text, "{:?}: ", name.as_str()) };
            write_value(text, item, true, depth - 1);
        }
        write_rest(text, map.len());
        text.push('}');
    } else if let Some(bytes) = value.read_lock::<Blob>() {
        let shown: Vec<String> = bytes.iter().take(32).map(|byte| format!("{byte:02x}")).collect();
        let _ = write!(
            text,
            "bytes({}; {}{})",
            bytes.len(),
            shown.join(" "),
            if bytes.len() > 32 { " …" } else { "" }
        );
    } else if let Some(function) = value.read_lock::<FnPtr>() {
        let name = function.fn_name();
        let _ = write!(text, "function {}", if name.starts_with("anon$") { "|…|" } else { name });
    } else if let Some(raised) = value.read_lock::<Raised>() {
        let _ = write!(text, "{}", *raised);
    } else if let Some(stride) = value.read_lock::<Stride>() {
        let _ = write!(text, "{:?}", *stride);
    } else if value.is_unit() {
        text.push_str("()");
    } else if let Ok(letter) = value.as_char() {
        let _ = if quoted { write!(text, "{letter:?}") } else { write!(text, "{letter}") };
    } else if kind(value) == "range" {
        let _ = write!(text, "{value}");
    } else {
        text.push_str(kind(value));
    }
}

fn write_rest(text: &mut String, count: usize) {
    if count > ITEMS_SHOWN {
        let _ = write!(text, ", … {} more", count - ITEMS_SHOWN);
    }
}

/// A number by itself, with all its digits.
pub(crate) fn scalar_text(number: Scalar) -> String {
    match number {
        Scalar::Bool(truth) => truth.to_string(),
        Scalar::Int(number) => number.to_string(),
        Scalar::Float(number) => float_text(number),
        Scalar::Complex(number) => complex_text(number, float_text),
    }
}

/// The shortest digits that give the number back; very large and small ones with an exponent.
fn float_text(number: f64) -> String {
    let size = number.abs();
    if number.is_nan() {
        "nan".to_owned()
    } else if number.is_infinite() {
        if number > 0.0 { "inf".to_owned() } else { "-inf".to_owned() }
    } else if size != 0.0 && !(1e-4..1e16).contains(&size) {
        format!("{number:e}")
    } else {
        format!("{number:?}")
    }
}

fn complex_text(number: Complex64, part: impl Fn(f64) -> String) -> String {
    let imaginary = part(number.im);
    let sign = if imaginary.starts_with('-') { "" } else { "+" };
    format!("{}{sign}{imaginary}i", part(number.re))
}

/// Like NumPy's: aligned columns, eight digits, the type where the elements do not say it.
pub(crate) fn array_text(array: &Array) -> String {
    let summarised = array.len() > SUMMARY_ELEMENTS;
    let mut elements = Vec::new();
    collect(array, summarised, &mut elements);
    let cells = cells(&elements);
    let width = cells.iter().map(|cell| cell.chars().count()).max().unwrap_or(0);
    let mut cells = cells.into_iter();
    let mut text = String::from("array(");
    write_axis(&mut text, array.shape(), summarised, width, &mut cells, "array(".len());
    let obvious =
        matches!(array.dtype(), DType::F64 | DType::I64 | DType::Bool | DType::C64) && !array.is_empty();
    if !obvious {
        let _ = write!(text, ", {}", array.dtype());
    }
    if summarised || (array.is_empty() && array.shape() != [0]) {
        let _ = write!(text, ", shape {:?}", array.shape());
    }
    text.push(')');
    text
}

fn shown_positions(extent: usize, summarised: bool) -> Vec<usize> {
    if summarised && extent > 2 * SUMMARY_EDGE {
        (0..SUMMARY_EDGE).chain(extent - SUMMARY_EDGE..extent).collect()
    } else {
        (0..extent).collect()
    }
}

/// The elements that are shown, in order.
fn collect(array: &Array, summarised: bool, elements: &mut Vec<Scalar>) {
    fn walk<T: Number>(view: &ndarray::ArrayViewD<'_, T>, summarised: bool, elements: &mut Vec<Scalar>) {
        match view.shape().first() {
            None => elements.extend(view.iter().map(|&x| x.scalar())),
            Some(&extent) => {
                for at in shown_positions(extent, summarised) {
                    walk(&view.index_axis(ndarray::Axis(0), at), summarised, elements);
                }
            }
        }
    }
    if !array.is_empty() {
        each_dtype!(array, a => walk(&a.view(), summarised, elements));
    }
}

fn cells(elements: &[Scalar]) -> Vec<String> {
    let parts = elements.iter().flat_map(|element| match element {
        Scalar::Float(number) => vec![*number],
        Scalar::Complex(number) => vec![number.re, number.im],
        _ => Vec::new(),
    });
    let finite: Vec<f64> = parts.filter(|part| part.is_finite()).collect();
    let largest = finite.iter().fold(0.0_f64, |largest, x| largest.max(x.abs()));
    let smallest =
        finite.iter().filter(|x| **x != 0.0).fold(f64::INFINITY, |smallest, x| smallest.min(x.abs()));
    let scientific = largest >= 1e8 || smallest < 1e-4;
    let digits = finite.iter().map(|&x| digits_needed(x, scientific)).max().unwrap_or(0);
    let float = |number: f64| {
        if !number.is_finite() {
            float_text(number)
        } else if scientific {
            format!("{number:.digits$e}")
        } else if digits == 0 {
            format!("{number:.0}.")
        } else {
            format!("{number:.digits$}")
        }
    };
    let cell = |element: &Scalar| match element {
        Scalar::Bool(truth) => truth.to_string(),
        Scalar::Int(number) => number.to_string(),
        Scalar::Float(number) => float(*number),
        Scalar::Complex(number) => complex_text(*number, float),
    };
    elements.iter().map(cell).collect()
}

/// Digits after the point, at most eight, that the number needs.
fn digits_needed(number: f64, scientific: bool) -> usize {
    let text = if scientific { format!("{number:.8e}") } else { format!("{number:.8}") };
    let mantissa = text.split('e').next().unwrap_or_default();
    mantissa.split('.').nth(1).map_or(0, |fraction| fraction.trim_end_matches('0').len())
}

fn write_axis(
    text: &mut String,
    shape: &[usize],
    summarised: bool,
    width: usize,
    cells: &mut impl Iterator<Item = String>,
    indent: usize,
) {
    let Some((&extent, inner)) = shape.split_first() else {
        text.push_str(&cells.next().unwrap_or_default());
        return;
    };
    if shape.contains(&0) {
        text.push_str("[]");
        return;
    }
    text.push('[');
    let gap = summarised && extent > 2 * SUMMARY_EDGE;
    let mut column = indent + 1;
    for (at, _) in shown_positions(extent, summarised).into_iter().enumerate() {
        let after_gap = gap && at == SUMMARY_EDGE;
        if inner.is_empty() {
            let cell = cells.next().unwrap_or_default();
            let needed = width + 2 + if after_gap { 5 } else { 0 };
            if at > 0 {
                text.push(',');
                if column + needed > LINE_WIDTH {
                    let _ = write!(text, "\n{:indent$} ", "");
                    column = indent + 1;
                } else {
                    text.push(' ');
                }
            }
            if after_gap {
                text.push_str("..., ");
            }
            let _ = write!(text, "{cell:>width$}");
            column += needed;
        } else {
            if at > 0 {
                let _ = write!(text, ",{}{:indent$} ", "\n".repeat(inner.len()), "");
            }
            if after_gap {
                let _ = write!(text, "...,{}{:indent$} ", "\n".repeat(inner.len()), "");
            }
            write_axis(text, inner, summarised, width, cells, indent + 1);
        }
    }
    text.push(']');
}
