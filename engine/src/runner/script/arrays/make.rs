//! Making arrays, and changing their shape.

use ndarray::{Axis, IxDyn};
use num_complex::Complex64;
use protocol::value::DType;

use crate::array::Array;
use crate::each_dtype;

use super::super::raised::{Outcome, type_error, value_error};
use super::cast::cast;
use super::reduce::common_type;
use super::{Number, Scalar, axis_of, element_count, shape_text, shaped};

/// An array filled with one number.
pub(crate) fn full(shape: &[usize], value: Scalar, dtype: DType) -> Outcome<Array> {
    let count = element_count(shape, dtype)?;
    let element = cast(&value.to_array(), dtype)?;
    Ok(each_dtype!(&element, a => {
        let value = *a.iter().next().expect("one element");
        WrapShaped::wrap_shaped(shape, vec![value; count])
    }))
}

/// Wraps elements without naming their type.
trait WrapShaped: Sized {
    fn wrap_shaped(shape: &[usize], elements: Vec<Self>) -> Array;
}

impl<T: Number> WrapShaped for T {
    fn wrap_shaped(shape: &[usize], elements: Vec<T>) -> Array {
        T::wrap(shaped(shape, elements))
    }
}

/// The identity matrix.
pub(crate) fn eye(extent: usize, dtype: DType) -> Outcome<Array> {
    element_count(&[extent, extent], dtype)?;
    let mut matrix = ndarray::ArrayD::<u8>::zeros(IxDyn(&[extent, extent]));
    for at in 0..extent {
        matrix[[at, at]] = 1;
    }
    cast(&Array::U8(matrix.into_shared()), dtype)
}

/// Numbers from `start` to before `stop`.
pub(crate) fn arange(start: Scalar, stop: Scalar, step: Scalar) -> Outcome<Array> {
    if let (Scalar::Int(start), Scalar::Int(stop), Scalar::Int(step)) = (start, stop, step) {
        if step == 0 {
            return Err(value_error("the step of arange cannot be 0"));
        }
        let distance = i128::from(stop) - i128::from(start);
        let step_wide = i128::from(step);
        let count = if (distance > 0) == (step > 0) && distance != 0 {
            (distance.abs() - 1) / step_wide.abs() + 1
        } else {
            0
        };
        let count = element_count(&[usize::try_from(count).unwrap_or(usize::MAX)], DType::I64)?;
        let numbers = (0..count as i128).map(|n| (i128::from(start) + n * step_wide) as i64);
        return Ok(Array::from_vec(numbers.collect::<Vec<i64>>()));
    }
    let real = |number: Scalar| match number {
        Scalar::Int(number) => Ok(number as f64),
        Scalar::Float(number) => Ok(number),
        _ => Err(type_error("arange takes integers or floats")),
    };
    let (start, stop, step) = (real(start)?, real(stop)?, real(step)?);
    let count = ((stop - start) / step).ceil();
    if !count.is_finite() {
        return Err(value_error("arange needs finite bounds and a step that is not 0"));
    }
    // As a cast saturates, a count that no usize holds is refused by element_count.
    let count = element_count(&[count.max(0.0) as usize], DType::F64)?;
    Ok(Array::from_vec((0..count).map(|n| start + n as f64 * step).collect::<Vec<f64>>()))
}

/// `count` numbers from `start` to `stop`, both included.
pub(crate) fn linspace(start: f64, stop: f64, count: usize) -> Outcome<Array> {
    let count = element_count(&[count], DType::F64)?;
    let last = count.saturating_sub(1);
    let numbers = (0..count).map(|n| {
        if n == last && n > 0 { stop } else { start + (stop - start) * (n as f64 / last.max(1) as f64) }
    });
    Ok(Array::from_vec(numbers.collect::<Vec<f64>>()))
}

/// The array with other extents; the elements stay in C order. Shares the memory where it can.
pub(crate) fn reshape(array: &Array, shape: &[usize]) -> Outcome<Array> {
    if element_count(shape, array.dtype())? != array.len() {
        return Err(value_error(format!(
            "cannot reshape {} elements of shape {} into shape {}",
            array.len(),
            shape_text(array.shape()),
            shape_text(shape)
        )));
    }
    each_dtype!(array, a => {
        a.to_shape(IxDyn(shape))
            .map(|view| if view.is_view() && a.is_standard_layout() {
                rewrap(a.clone().into_shape_with_order(IxDyn(shape)).expect("as many elements, in C order"))
            } else {
                rewrap(view.to_owned().into_shared())
            })
            .map_err(|error| value_error(format!("cannot reshape: {error}")))
    })
}

fn rewrap<T: Number>(array: ndarray::ArcArray<T, IxDyn>) -> Array {
    T::wrap(array)
}

/// The axes in reverse order; the elements are copied into C order.
pub(crate) fn transpose(array: &Array) -> Array {
    each_dtype!(array, a => {
        let turned = a.t();
        rewrap(turned.as_standard_layout().to_owned().into_shared())
    })
}

/// Arrays one after the other along an axis that they have.
pub(crate) fn concatenate(arrays: &[Array], axis: i64) -> Outcome<Array> {
    let Some(first) = arrays.first() else {
        return Err(value_error("concat needs at least one array"));
    };
    let axis = axis_of(axis, first.shape().len())?;
    join(
        arrays,
        |a, b| a.len() == b.len() && (0..a.len()).all(|at| at == axis || a[at] == b[at]),
        |views| views.concatenate(axis),
    )
}

/// Arrays of one shape side by side along a new axis.
pub(crate) fn stack(arrays: &[Array], axis: i64) -> Outcome<Array> {
    let Some(first) = arrays.first() else {
        return Err(value_error("stack needs at least one array"));
    };
    let axis = axis_of(axis, first.shape().len() + 1)?;
    join(arrays, |a, b| a == b, |views| views.stack(axis))
}

/// The views of the arrays to join, whatever their element type.
trait Views {
    fn concatenate(&self, axis: usize) -> Array;
    fn stack(&self, axis: usize) -> Array;
}

impl<T: Number> Views for Vec<ndarray::ArrayViewD<'_, T>> {
    fn concatenate(&self, axis: usize) -> Array {
        T::wrap(ndarray::concatenate(Axis(axis), self).expect("the shapes were compared").into_shared())
    }

    fn stack(&self, axis: usize) -> Array {
        T::wrap(ndarray::stack(Axis(axis), self).expect("the shapes were compared").into_shared())
    }
}

fn join(
    arrays: &[Array],
    fits: impl Fn(&[usize], &[usize]) -> bool,
    joined: impl Fn(&dyn Views) -> Array,
) -> Outcome<Array> {
    let shape = arrays[0].shape();
    if let Some(other) = arrays.iter().find(|array| !fits(shape, array.shape())) {
        return Err(value_error(format!(
            "arrays of shapes {} and {} cannot be joined",
            shape_text(shape),
            shape_text(other.shape())
        )));
    }
    let dtype = common_type(arrays);
    let bytes = arrays.iter().map(Array::len).fold(0_usize, usize::saturating_add);
    element_count(&[bytes], dtype)?;
    let arrays = arrays.iter().map(|array| cast(array, dtype)).collect::<Outcome<Vec<Array>>>()?;
    macro_rules! join_as {
        ($variant:ident, $type:ty) => {{
            let views: Vec<ndarray::ArrayViewD<'_, $type>> = arrays
                .iter()
                .filter_map(|array| if let Array::$variant(a) = array { Some(a.view()) } else { None })
                .collect();
            joined(&views)
        }};
    }
    Ok(match dtype {
        DType::F64 => join_as!(F64, f64),
        DType::F32 => join_as!(F32, f32),
        DType::I64 => join_as!(I64, i64),
        DType::I32 => join_as!(I32, i32),
        DType::U8 => join_as!(U8, u8),
        DType::Bool => join_as!(Bool, bool),
        DType::C64 => join_as!(C64, Complex64),
    })
}
