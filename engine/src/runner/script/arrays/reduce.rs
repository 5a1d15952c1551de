//! Reductions, of a whole array or along one axis, and what is made of them.

use ndarray::{ArcArray, ArrayViewD, Axis, IxDyn};
use num_complex::Complex64;
use protocol::value::DType;

use crate::array::{Array, Element};
use crate::each_dtype;

use super::super::raised::{Outcome, overflow_error, type_error, value_error};
use super::cast::{cast, promote};
use super::{Number, shaped};

/// A reduction of some elements to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reduction {
    Sum,
    Product,
    Minimum,
    Maximum,
    Mean,
    /// Of a population (NumPy's `ddof=0`).
    Variance,
    StandardDeviation,
    PositionOfMinimum,
    PositionOfMaximum,
    Any,
    All,
}

impl Reduction {
    /// The name at the prompt.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Reduction::Sum => "sum",
            Reduction::Product => "prod",
            Reduction::Minimum => "min",
            Reduction::Maximum => "max",
            Reduction::Mean => "mean",
            Reduction::Variance => "variance",
            Reduction::StandardDeviation => "std",
            Reduction::PositionOfMinimum => "argmin",
            Reduction::PositionOfMaximum => "argmax",
            Reduction::Any => "any",
            Reduction::All => "all",
        }
    }
}

/// The reduction of the whole array (an array without axes), or along one axis.
pub(crate) fn reduce(array: &Array, reduction: Reduction, axis: Option<usize>) -> Outcome<Array> {
    let array = prepare(array, reduction)?;
    let reduced = match &array {
        Array::F64(a) => along(a, axis, |lane| reduce_floats(lane, reduction)),
        Array::F32(a) => match reduction {
            Reduction::PositionOfMinimum | Reduction::PositionOfMaximum => {
                along(a, axis, |lane| position(lane, reduction))
            }
            // Summed in f64, rounded once.
            _ => {
                return reduce(&cast(&array, DType::F64)?, reduction, axis)
                    .and_then(|wide| cast(&wide, DType::F32));
            }
        },
        Array::I64(a) => along(a, axis, |lane| reduce_integers(lane, reduction)),
        Array::I32(a) => along(a, axis, |lane| reduce_narrow(lane, reduction)),
        Array::U8(a) => along(a, axis, |lane| reduce_narrow(lane, reduction)),
        Array::C64(a) => along(a, axis, |lane| reduce_complex(lane, reduction)),
        Array::Bool(a) => match reduction {
            Reduction::Any | Reduction::Maximum => along(a, axis, |lane| Ok(lane.iter().any(|&x| x))),
            _ => along(a, axis, |lane| Ok(lane.iter().all(|&x| x))),
        },
    }?;
    if matches!(reduction, Reduction::PositionOfMinimum | Reduction::PositionOfMaximum) {
        return cast(&reduced, DType::I64);
    }
    match (reduction, array.dtype()) {
        (Reduction::Minimum | Reduction::Maximum, dtype @ (DType::I32 | DType::U8)) => cast(&reduced, dtype),
        _ => Ok(reduced),
    }
}

/// Converts to the type that the reduction works in: integers are summed as i64, means are floats.
fn prepare(array: &Array, reduction: Reduction) -> Outcome<Array> {
    let dtype = array.dtype();
    let complex = dtype == DType::C64;
    match reduction {
        Reduction::Any | Reduction::All => cast(array, DType::Bool),
        Reduction::Sum | Reduction::Product if matches!(dtype, DType::Bool) => cast(array, DType::I64),
        Reduction::Mean | Reduction::Variance | Reduction::StandardDeviation
            if !matches!(dtype, DType::F32 | DType::C64) =>
        {
            cast(array, DType::F64)
        }
        Reduction::PositionOfMinimum | Reduction::PositionOfMaximum if dtype == DType::Bool => {
            cast(array, DType::U8)
        }
        Reduction::Minimum
        | Reduction::Maximum
        | Reduction::PositionOfMinimum
        | Reduction::PositionOfMaximum
            if complex =>
        {
            Err(type_error(format!(
                "complex numbers have no order, so no {}; use `abs(x)`",
                reduction.name()
            )))
        }
        Reduction::Variance | Reduction::StandardDeviation if complex => Err(type_error(format!(
            "{} of complex numbers: take `real(x)`, `imag(x)` or `abs(x)`",
            reduction.name()
        ))),
        _ => Ok(array.clone()),
    }
}

fn along<T: Element, U: Element>(
    array: &ArcArray<T, IxDyn>,
    axis: Option<usize>,
    f: impl Fn(&ArrayViewD<'_, T>) -> Outcome<U>,
) -> Outcome<Array> {
    let Some(axis) = axis else {
        return Ok(Array::scalar(f(&array.view())?));
    };
    let mut shape = array.shape().to_vec();
    shape.remove(axis);
    super::element_count(&shape, U::DTYPE)?;
    let reduced =
        array.lanes(Axis(axis)).into_iter().map(|lane| f(&lane.into_dyn())).collect::<Outcome<Vec<U>>>()?;
    Ok(U::wrap(shaped(&shape, reduced)))
}

fn empty(reduction: Reduction) -> super::super::raised::Raised {
    value_error(format!("{} of an empty array is not defined", reduction.name()))
}

/// Sums pairwise in blocks, so that the error grows with the logarithm of the length.
fn pairwise_sum(lane: &ArrayViewD<'_, f64>) -> f64 {
    fn of_slice(values: &[f64]) -> f64 {
        if values.len() <= 256 {
            let mut partial = [0.0; 8];
            let chunks = values.chunks_exact(8);
            let rest: f64 = chunks.remainder().iter().sum();
            for chunk in chunks {
                for (sum, x) in partial.iter_mut().zip(chunk) {
                    *sum += x;
                }
            }
            return partial.iter().sum::<f64>() + rest;
        }
        let (left, right) = values.split_at(values.len() / 2);
        of_slice(left) + of_slice(right)
    }
    match lane.as_slice_memory_order() {
        Some(values) => of_slice(values),
        None => of_slice(&lane.iter().copied().collect::<Vec<f64>>()),
    }
}

fn reduce_floats(lane: &ArrayViewD<'_, f64>, reduction: Reduction) -> Outcome<f64> {
    let count = lane.len() as f64;
    Ok(match reduction {
        Reduction::Sum => pairwise_sum(lane),
        Reduction::Product => lane.iter().product(),
        Reduction::Mean => {
            if lane.is_empty() {
                return Err(empty(reduction));
            }
            pairwise_sum(lane) / count
        }
        Reduction::Variance | Reduction::StandardDeviation => {
            if lane.is_empty() {
                return Err(empty(reduction));
            }
            let mean = pairwise_sum(lane) / count;
            let squares = lane.map(|x| (x - mean) * (x - mean));
            let variance = pairwise_sum(&squares.view()) / count;
            if reduction == Reduction::Variance { variance } else { variance.sqrt() }
        }
        Reduction::Minimum | Reduction::Maximum => {
            let at = position(lane, reduction)? as usize;
            *lane.iter().nth(at).expect("position is inside")
        }
        _ => position(lane, reduction)? as f64,
    })
}

/// Where the extreme is; the first NaN, if there is one, because it makes the extreme NaN.
fn position<T: Number + PartialOrd>(lane: &ArrayViewD<'_, T>, reduction: Reduction) -> Outcome<i64> {
    let smallest = matches!(reduction, Reduction::Minimum | Reduction::PositionOfMinimum);
    let mut elements = lane.iter().copied().enumerate();
    let (mut at, mut best) = elements.next().ok_or_else(|| empty(reduction))?;
    for (here, x) in elements {
        if best.partial_cmp(&best).is_none() {
            break;
        }
        if (if smallest { x < best } else { x > best }) || x.partial_cmp(&x).is_none() {
            (at, best) = (here, x);
        }
    }
    Ok(at as i64)
}

fn reduce_integers(lane: &ArrayViewD<'_, i64>, reduction: Reduction) -> Outcome<i64> {
    match reduction {
        Reduction::PositionOfMinimum | Reduction::PositionOfMaximum => position(lane, reduction),
        _ => reduce_narrow(lane, reduction),
    }
}

/// Integers are reduced as i64 whatever their own type.
fn reduce_narrow<T: Number + PartialOrd>(lane: &ArrayViewD<'_, T>, reduction: Reduction) -> Outcome<i64> {
    let wide = |x: &T| x.i64().expect("an integer type");
    let too_large =
        || overflow_error(format!("{} does not fit into i64; convert first: `f64(x)`", reduction.name()));
    match reduction {
        Reduction::Sum => {
            // 2^64 elements of 64 bits cannot overflow 128 bits.
            let sum: i128 = lane.iter().map(|x| i128::from(wide(x))).sum();
            i64::try_from(sum).map_err(|_| too_large())
        }
        Reduction::Product => {
            lane.iter().try_fold(1_i64, |product, x| product.checked_mul(wide(x))).ok_or_else(too_large)
        }
        Reduction::Minimum => lane.iter().map(wide).min().ok_or_else(|| empty(reduction)),
        Reduction::Maximum => lane.iter().map(wide).max().ok_or_else(|| empty(reduction)),
        _ => position(lane, reduction),
    }
}

fn reduce_complex(lane: &ArrayViewD<'_, Complex64>, reduction: Reduction) -> Outcome<Complex64> {
    match reduction {
        Reduction::Sum => Ok(Complex64::new(
            pairwise_sum(&lane.map(|z| z.re).view()),
            pairwise_sum(&lane.map(|z| z.im).view()),
        )),
        Reduction::Product => Ok(lane.iter().product()),
        _ if lane.is_empty() => Err(empty(reduction)),
        _ => Ok(reduce_complex(lane, Reduction::Sum)? / lane.len() as f64),
    }
}

/// The running sum: of all elements in order, or along an axis.
pub(crate) fn cumulative_sum(array: &Array, axis: Option<usize>) -> Outcome<Array> {
    let array = if matches!(array.dtype(), DType::Bool | DType::U8 | DType::I32) {
        cast(array, DType::I64)?
    } else {
        array.clone()
    };
    let (array, axis) = match axis {
        Some(axis) => (array, axis),
        None => (super::make::reshape(&array, &[array.len()])?, 0),
    };
    fn scan<T: Number>(
        array: &ArcArray<T, IxDyn>,
        axis: usize,
        add: impl Fn(T, T) -> Option<T>,
    ) -> Outcome<Array> {
        let mut sums = array.to_owned();
        let mut overflow = false;
        for mut lane in sums.lanes_mut(Axis(axis)) {
            let mut sum: Option<T> = None;
            for x in &mut lane {
                let next = match sum {
                    None => Some(*x),
                    Some(sum) => add(sum, *x),
                };
                overflow |= next.is_none();
                *x = next.unwrap_or_default();
                sum = next.or(sum);
            }
        }
        if overflow {
            return Err(overflow_error("cumsum does not fit into i64; convert first: `f64(x)`"));
        }
        Ok(T::wrap(sums.into_shared()))
    }
    match &array {
        Array::F64(a) => scan(a, axis, |x, y| Some(x + y)),
        Array::F32(a) => scan(a, axis, |x, y| Some(x + y)),
        Array::C64(a) => scan(a, axis, |x, y| Some(x + y)),
        Array::I64(a) => scan(a, axis, i64::checked_add),
        _ => unreachable!("narrow integers were converted to i64"),
    }
}

/// Sorted along the last axis; NaN comes last.
pub(crate) fn sort(array: &Array) -> Outcome<Array> {
    fn sorted<T: Number + PartialOrd>(array: &ArcArray<T, IxDyn>) -> Outcome<Array> {
        let Some(last) = array.ndim().checked_sub(1) else {
            return Ok(T::wrap(array.clone()));
        };
        let mut result = array.to_owned();
        for mut lane in result.lanes_mut(Axis(last)) {
            let mut elements: Vec<T> = lane.iter().copied().collect();
            elements.sort_unstable_by(nan_last);
            for (place, element) in lane.iter_mut().zip(elements) {
                *place = element;
            }
        }
        Ok(T::wrap(result.into_shared()))
    }
    match array {
        Array::F64(a) => sorted(a),
        Array::F32(a) => sorted(a),
        Array::I64(a) => sorted(a),
        Array::I32(a) => sorted(a),
        Array::U8(a) => sorted(a),
        Array::Bool(a) => sorted(a),
        Array::C64(_) => Err(type_error("complex numbers have no order; sort `abs(x)` or `real(x)`")),
    }
}

fn nan_last<T: PartialOrd>(left: &T, right: &T) -> std::cmp::Ordering {
    left.partial_cmp(right).unwrap_or_else(|| {
        let is_nan = |x: &T| x.partial_cmp(x).is_none();
        is_nan(left).cmp(&is_nan(right))
    })
}

/// The positions that sort an array of one axis; equal elements keep their order.
pub(crate) fn argsort(array: &Array) -> Outcome<Array> {
    fn order<T: PartialOrd>(elements: &[T]) -> Array {
        let mut positions: Vec<i64> = (0..elements.len() as i64).collect();
        positions.sort_by(|&i, &j| nan_last(&elements[i as usize], &elements[j as usize]));
        Array::from_vec(positions)
    }
    if array.shape().len() != 1 {
        return Err(value_error("argsort is for arrays of one axis; use `flatten(x)`"));
    }
    match array {
        Array::F64(a) => Ok(order(&a.to_vec_of_one_axis())),
        Array::F32(a) => Ok(order(&a.to_vec_of_one_axis())),
        Array::I64(a) => Ok(order(&a.to_vec_of_one_axis())),
        Array::I32(a) => Ok(order(&a.to_vec_of_one_axis())),
        Array::U8(a) => Ok(order(&a.to_vec_of_one_axis())),
        Array::Bool(a) => Ok(order(&a.to_vec_of_one_axis())),
        Array::C64(_) => Err(type_error("complex numbers have no order; sort `abs(x)` or `real(x)`")),
    }
}

trait Elements<T> {
    fn to_vec_of_one_axis(&self) -> Vec<T>;
}

impl<T: Copy> Elements<T> for ArcArray<T, IxDyn> {
    fn to_vec_of_one_axis(&self) -> Vec<T> {
        self.iter().copied().collect()
    }
}

/// The different elements, sorted.
pub(crate) fn unique(array: &Array) -> Outcome<Array> {
    let sorted = sort(&super::make::reshape(array, &[array.len()])?)?;
    Ok(each_dtype!(&sorted, a => {
        let mut elements: Vec<_> = a.iter().copied().collect();
        elements.dedup();
        Array::from_vec(elements)
    }))
}

/// The type of the result of joining arrays of these types.
pub(crate) fn common_type(arrays: &[Array]) -> DType {
    arrays.iter().map(Array::dtype).reduce(promote).unwrap_or(DType::F64)
}
