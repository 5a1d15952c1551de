//! What the prompt language does with arrays. Every function here is plain Rust: arrays in, arrays or a
//! [`Raised`](super::raised::Raised) error out.

pub(super) mod cast;
pub(super) mod elementwise;
pub(super) mod linear;
pub(super) mod make;
pub(super) mod math;
pub(super) mod reduce;
pub(super) mod select;

use ndarray::{ArcArray, ArrayD, IxDyn};
use num_complex::Complex64;
use protocol::value::DType;

use crate::array::{Array, Element};

use super::raised::{Outcome, Raised, value_error};

/// One element of an array, or a number of the prompt language.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Scalar {
    Bool(bool),
    Int(i64),
    Float(f64),
    Complex(Complex64),
}

impl Scalar {
    pub(super) fn dtype(self) -> DType {
        match self {
            Scalar::Bool(_) => DType::Bool,
            Scalar::Int(_) => DType::I64,
            Scalar::Float(_) => DType::F64,
            Scalar::Complex(_) => DType::C64,
        }
    }

    /// As an array of no axis.
    pub(super) fn to_array(self) -> Array {
        match self {
            Scalar::Bool(truth) => Array::scalar(truth),
            Scalar::Int(number) => Array::scalar(number),
            Scalar::Float(number) => Array::scalar(number),
            Scalar::Complex(number) => Array::scalar(number),
        }
    }
}

/// The element types, with the conversions that never fail.
pub(super) trait Number: Element + Default {
    fn f64(self) -> f64;
    fn c64(self) -> Complex64;
    fn truth(self) -> bool;
    fn scalar(self) -> Scalar;
    /// The integer part, if it is one that an i64 can hold.
    fn i64(self) -> Option<i64>;
}

macro_rules! integer {
    ($($type:ty),*) => {$(
        impl Number for $type {
            fn f64(self) -> f64 {
                self as f64
            }
            fn c64(self) -> Complex64 {
                Complex64::new(self as f64, 0.0)
            }
            fn truth(self) -> bool {
                self != 0
            }
            fn scalar(self) -> Scalar {
                Scalar::Int(i64::from(self))
            }
            fn i64(self) -> Option<i64> {
                Some(i64::from(self))
            }
        }
    )*};
}
integer!(i64, i32, u8);

macro_rules! float {
    ($($type:ty),*) => {$(
        impl Number for $type {
            fn f64(self) -> f64 {
                f64::from(self)
            }
            fn c64(self) -> Complex64 {
                Complex64::new(f64::from(self), 0.0)
            }
            fn truth(self) -> bool {
                self != 0.0
            }
            fn scalar(self) -> Scalar {
                Scalar::Float(f64::from(self))
            }
            fn i64(self) -> Option<i64> {
                let whole = f64::from(self).trunc();
                // Both bounds are exact in f64; -2^63 is an i64, 2^63 is not.
                (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&whole).then_some(whole as i64)
            }
        }
    )*};
}
float!(f64, f32);

impl Number for bool {
    fn f64(self) -> f64 {
        f64::from(u8::from(self))
    }
    fn c64(self) -> Complex64 {
        Complex64::new(self.f64(), 0.0)
    }
    fn truth(self) -> bool {
        self
    }
    fn scalar(self) -> Scalar {
        Scalar::Bool(self)
    }
    fn i64(self) -> Option<i64> {
        Some(i64::from(self))
    }
}

impl Number for Complex64 {
    fn f64(self) -> f64 {
        self.re
    }
    fn c64(self) -> Complex64 {
        self
    }
    fn truth(self) -> bool {
        self != Complex64::new(0.0, 0.0)
    }
    fn scalar(self) -> Scalar {
        Scalar::Complex(self)
    }
    fn i64(self) -> Option<i64> {
        None
    }
}

/// The only element of an array that has just one.
pub(super) fn only_element(array: &Array) -> Option<Scalar> {
    crate::each_dtype!(array, a => if a.len() == 1 { a.iter().next().map(|&x| x.scalar()) } else { None })
}

/// An array of that shape; the caller counted the elements.
pub(super) fn shaped<T: Element>(shape: &[usize], elements: Vec<T>) -> ArcArray<T, IxDyn> {
    ArrayD::from_shape_vec(IxDyn(shape), elements).expect("as many elements as the shape has").into_shared()
}

/// The number of elements of a shape, if an array of them can be held in this machine's memory.
pub(super) fn element_count(shape: &[usize], dtype: DType) -> Outcome<usize> {
    if shape.len() > protocol::limits::ARRAY_RANK_MAX {
        return Err(value_error(format!("an array has at most {} axes", protocol::limits::ARRAY_RANK_MAX)));
    }
    let bound = physical_memory();
    let count = shape.iter().try_fold(1_usize, |count, &extent| count.checked_mul(extent));
    match count.and_then(|count| Some((count, count.checked_mul(dtype.size())?))) {
        Some((count, bytes)) if bytes as u64 <= bound => Ok(count),
        _ => Err(Raised::new(
            "MemoryError",
            format!(
                "an array of shape {} and type {dtype} does not fit into this machine's {} of memory",
                shape_text(shape),
                byte_text(bound)
            ),
        )),
    }
}

/// Bytes of memory in this machine: the bound of a single array.
fn physical_memory() -> u64 {
    use std::sync::OnceLock;
    static BYTES: OnceLock<u64> = OnceLock::new();
    *BYTES.get_or_init(|| {
        // SAFETY: sysconf takes a number, has no other precondition, and touches no memory of ours.
        let (pages, page_bytes) =
            unsafe { (libc::sysconf(libc::_SC_PHYS_PAGES), libc::sysconf(libc::_SC_PAGESIZE)) };
        match (u64::try_from(pages), u64::try_from(page_bytes)) {
            (Ok(pages), Ok(page_bytes)) if pages > 0 => pages.saturating_mul(page_bytes),
            _ => 1 << 36, // The system does not say; 64 GiB is more than an array at a prompt needs.
        }
    })
}

/// `512 B`, `1.5 GiB`.
pub(super) fn byte_text(bytes: u64) -> String {
    let mut amount = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if amount < 1024.0 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{amount:.1} {unit}") };
        }
        amount /= 1024.0;
    }
    format!("{amount:.1} TiB")
}

/// `[2, 3]`
pub(super) fn shape_text(shape: &[usize]) -> String {
    format!("{shape:?}")
}

/// The axis that a number means; negative ones count from the last.
pub(super) fn axis_of(axis: i64, axes: usize) -> Outcome<usize> {
    let wrapped = if axis < 0 { axis + axes as i64 } else { axis };
    if wrapped >= 0 && (wrapped as usize) < axes {
        Ok(wrapped as usize)
    } else {
        Err(index_axis_error(axis, axes))
    }
}

fn index_axis_error(axis: i64, axes: usize) -> Raised {
    let plural = if axes == 1 { "axis" } else { "axes" };
    super::raised::index_error(format!("axis {axis} does not exist: the array has {axes} {plural}"))
}
