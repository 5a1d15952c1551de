//! Linear algebra in plain Rust: products, norms, and what Gauss elimination with partial pivoting gives.

use ndarray::linalg::Dot;
use ndarray::{Array1, Array2, ArrayView2, Axis, Ix1, Ix2, LinalgScalar, s};
use num_complex::Complex64;
use protocol::value::DType;

use crate::array::{Array, Element};
use crate::each_dtype;
use crate::interrupt::Interrupt;

use super::super::raised::{Outcome, Raised, overflow_error, value_error};
use super::cast::{cast, promote};
use super::{Number, element_count, shape_text};

/// How many multiplications may pass before the interrupt is looked at: about 10 ms of them.
const MULTIPLICATIONS_PER_CHECK: usize = 1 << 24;

fn check(interrupt: &Interrupt) -> Outcome<()> {
    if interrupt.is_raised() { Err(Raised::interrupted()) } else { Ok(()) }
}

/// The product of vectors and matrices (NumPy's `dot` for one and two axes).
pub(crate) fn product(left: &Array, right: &Array, interrupt: &Interrupt) -> Outcome<Array> {
    let (left_shape, right_shape) = (left.shape().to_vec(), right.shape().to_vec());
    if !(1..=2).contains(&left_shape.len()) || !(1..=2).contains(&right_shape.len()) {
        return Err(value_error("products are for vectors and matrices (one or two axes)"));
    }
    if left_shape[left_shape.len() - 1] != right_shape[0] {
        return Err(value_error(format!(
            "the product of shapes {} and {} does not exist: {} columns meet {} rows",
            shape_text(&left_shape),
            shape_text(&right_shape),
            left_shape[left_shape.len() - 1],
            right_shape[0]
        )));
    }
    let shape: Vec<usize> =
        left_shape[..left_shape.len() - 1].iter().chain(&right_shape[1..]).copied().collect();
    let dtype = match promote(left.dtype(), right.dtype()) {
        DType::Bool | DType::U8 | DType::I32 => DType::I64,
        dtype => dtype,
    };
    element_count(&shape, dtype)?;
    // As matrices: a vector on the left is a row, on the right a column.
    let inner = right_shape[0];
    let rows = if left_shape.len() == 2 { left_shape[0] } else { 1 };
    let columns = if right_shape.len() == 2 { right_shape[1] } else { 1 };
    let left = super::make::reshape(&cast(left, dtype)?, &[rows, inner])?;
    let right = super::make::reshape(&cast(right, dtype)?, &[inner, columns])?;
    let matrix = match (&left, &right) {
        (Array::F64(l), Array::F64(r)) => by_rows(&matrix(l), &matrix(r), interrupt)?,
        (Array::F32(l), Array::F32(r)) => by_rows(&matrix(l), &matrix(r), interrupt)?,
        (Array::C64(l), Array::C64(r)) => by_rows(&matrix(l), &matrix(r), interrupt)?,
        (Array::I64(l), Array::I64(r)) => of_integers(&matrix(l), &matrix(r), interrupt)?,
        _ => unreachable!("both were converted to {dtype}"),
    };
    super::make::reshape(&matrix, &shape)
}

fn matrix<'a, T: Element>(array: &'a ndarray::ArcArray<T, ndarray::IxDyn>) -> ArrayView2<'a, T> {
    array.view().into_dimensionality::<Ix2>().expect("it was given two axes")
}

/// Some rows at a time, so that an interrupt does not wait for the whole product.
fn by_rows<T>(left: &ArrayView2<'_, T>, right: &ArrayView2<'_, T>, interrupt: &Interrupt) -> Outcome<Array>
where
    T: Number + LinalgScalar,
    for<'a> ArrayView2<'a, T>: Dot<ArrayView2<'a, T>, Output = Array2<T>>,
{
    let row_cost = (right.nrows() * right.ncols()).max(1);
    let rows_at_once = (MULTIPLICATIONS_PER_CHECK / row_cost).max(1);
    let mut result = Array2::<T>::zeros((left.nrows(), right.ncols()));
    for (block, mut target) in
        left.axis_chunks_iter(Axis(0), rows_at_once).zip(result.axis_chunks_iter_mut(Axis(0), rows_at_once))
    {
        check(interrupt)?;
        ndarray::linalg::general_mat_mul(T::one(), &block, right, T::zero(), &mut target);
    }
    Ok(T::wrap(result.into_dyn().into_shared()))
}

fn of_integers(
    left: &ArrayView2<'_, i64>,
    right: &ArrayView2<'_, i64>,
    interrupt: &Interrupt,
) -> Outcome<Array> {
    let right = right.t().as_standard_layout().to_owned();
    let mut result = Array2::<i64>::zeros((left.nrows(), right.nrows()));
    for (row, mut target) in left.outer_iter().zip(result.outer_iter_mut()) {
        check(interrupt)?;
        for (column, place) in right.outer_iter().zip(target.iter_mut()) {
            let sum: i128 = row.iter().zip(column.iter()).map(|(&x, &y)| i128::from(x) * i128::from(y)).sum();
            *place = i64::try_from(sum)
                .map_err(|_| overflow_error("the product does not fit into i64; convert first: `f64(x)`"))?;
        }
    }
    Ok(Array::I64(result.into_dyn().into_shared()))
}

/// The square root of the sum of squares, scaled so that it neither overflows nor underflows on the way.
pub(crate) fn norm(array: &Array) -> f64 {
    let (largest, any_nan) = each_dtype!(array, a => {
        a.iter().fold((0.0_f64, false), |(largest, nan), &x| {
            let size = x.c64().norm();
            (largest.max(size), nan || size.is_nan())
        })
    });
    if any_nan {
        return f64::NAN;
    }
    if largest == 0.0 || largest.is_infinite() {
        return largest;
    }
    let squares: f64 = each_dtype!(array, a => a.iter().map(|&x| (x.c64() / largest).norm_sqr()).sum());
    largest * squares.sqrt()
}

/// The numbers that elimination works with.
trait Field: Number + LinalgScalar + std::ops::Neg<Output = Self> {
    fn size(self) -> f64;
}

impl Field for f64 {
    fn size(self) -> f64 {
        self.abs()
    }
}

impl Field for Complex64 {
    fn size(self) -> f64 {
        self.norm()
    }
}

/// Rows of a triangular factorisation, the order they are in, and the sign of that permutation.
struct Factors<T> {
    lu: Array2<T>,
    order: Vec<usize>,
    odd: bool,
    singular: bool,
}

fn factorise<T: Field>(mut lu: Array2<T>, interrupt: &Interrupt) -> Outcome<Factors<T>> {
    let extent = lu.nrows();
    let mut order: Vec<usize> = (0..extent).collect();
    let (mut odd, mut singular) = (false, false);
    for k in 0..extent {
        check(interrupt)?;
        let pivot = (k..extent)
            .max_by(|&i, &j| lu[[i, k]].size().total_cmp(&lu[[j, k]].size()))
            .expect("at least row k");
        if lu[[pivot, k]].size() == 0.0 {
            singular = true;
            continue;
        }
        if pivot != k {
            let (mut upper, mut lower) = lu.multi_slice_mut((s![k, ..], s![pivot, ..]));
            ndarray::Zip::from(&mut upper).and(&mut lower).for_each(std::mem::swap);
            order.swap(k, pivot);
            odd = !odd;
        }
        let (head, mut below) = lu.view_mut().split_at(Axis(0), k + 1);
        let pivot_row = head.row(k);
        for mut row in below.rows_mut() {
            let factor = row[k] / pivot_row[k];
            row[k] = factor;
            if factor.size() != 0.0 {
                row.slice_mut(s![k + 1..]).scaled_add(-factor, &pivot_row.slice(s![k + 1..]));
            }
        }
    }
    Ok(Factors { lu, order, odd, singular })
}

impl<T: Field> Factors<T> {
    fn solve(&self, right: &ArrayView2<'_, T>, interrupt: &Interrupt) -> Outcome<Array2<T>> {
        if self.singular {
            return Err(Raised::new("LinAlgError", "the matrix is singular: it has no inverse"));
        }
        let mut x = right.select(Axis(0), &self.order);
        let extent = x.nrows();
        for i in 0..extent {
            check(interrupt)?;
            let (head, mut tail) = x.view_mut().split_at(Axis(0), i);
            let mut row = tail.row_mut(0);
            for (j, known) in head.outer_iter().enumerate() {
                row.scaled_add(-self.lu[[i, j]], &known);
            }
        }
        for i in (0..extent).rev() {
            check(interrupt)?;
            let (mut head, tail) = x.view_mut().split_at(Axis(0), i + 1);
            let mut row = head.row_mut(i);
            for (j, known) in tail.outer_iter().enumerate() {
                row.scaled_add(-self.lu[[i, i + 1 + j]], &known);
            }
            let pivot = self.lu[[i, i]];
            row.mapv_inplace(|value| value / pivot);
        }
        Ok(x)
    }

    fn determinant(&self) -> T {
        if self.singular {
            return T::zero();
        }
        let product = self.lu.diag().iter().fold(T::one(), |product, &x| product * x);
        if self.odd { -product } else { product }
    }
}

/// A square matrix in the numbers that elimination works with.
enum Square {
    Real(Array2<f64>),
    Complex(Array2<Complex64>),
}

fn square(array: &Array, as_complex: bool) -> Outcome<Square> {
    match array.shape() {
        [rows, columns] if rows == columns => {}
        shape => {
            return Err(value_error(format!("a square matrix is needed, not shape {}", shape_text(shape))));
        }
    }
    let dtype = if as_complex { DType::C64 } else { DType::F64 };
    match cast(array, dtype)? {
        Array::F64(a) => Ok(Square::Real(a.into_owned().into_dimensionality().expect("two axes"))),
        Array::C64(a) => Ok(Square::Complex(a.into_owned().into_dimensionality().expect("two axes"))),
        _ => unreachable!("it was converted to {dtype}"),
    }
}

/// The x with `a @ x == b`.
pub(crate) fn solve(a: &Array, b: &Array, interrupt: &Interrupt) -> Outcome<Array> {
    let as_complex = a.dtype() == DType::C64 || b.dtype() == DType::C64;
    let matrix = square(a, as_complex)?;
    let shape = b.shape().to_vec();
    let columns = match shape[..] {
        [rows] if rows == a.shape()[0] => 1,
        [rows, columns] if rows == a.shape()[0] => columns,
        _ => {
            return Err(value_error(format!(
                "a matrix of shape {} needs a right side with {} rows, not shape {}",
                shape_text(a.shape()),
                a.shape()[0],
                shape_text(&shape)
            )));
        }
    };
    let right = super::make::reshape(
        &cast(b, if as_complex { DType::C64 } else { DType::F64 })?,
        &[shape[0], columns],
    )?;
    let solution = match (matrix, &right) {
        (Square::Real(matrix), Array::F64(right)) => Array::F64(
            factorise(matrix, interrupt)?.solve(&self::matrix(right), interrupt)?.into_dyn().into_shared(),
        ),
        (Square::Complex(matrix), Array::C64(right)) => Array::C64(
            factorise(matrix, interrupt)?.solve(&self::matrix(right), interrupt)?.into_dyn().into_shared(),
        ),
        _ => unreachable!("both sides were converted to one type"),
    };
    super::make::reshape(&solution, &shape)
}

/// The inverse.
pub(crate) fn inverse(a: &Array, interrupt: &Interrupt) -> Outcome<Array> {
    let extent = a.shape().first().copied().unwrap_or(0);
    square(a, a.dtype() == DType::C64)?;
    solve(a, &super::make::eye(extent, DType::F64)?, interrupt)
}

/// The determinant, as an array without axes.
pub(crate) fn determinant(a: &Array, interrupt: &Interrupt) -> Outcome<Array> {
    Ok(match square(a, a.dtype() == DType::C64)? {
        Square::Real(matrix) => Array::scalar(factorise(matrix, interrupt)?.determinant()),
        Square::Complex(matrix) => Array::scalar(factorise(matrix, interrupt)?.determinant()),
    })
}

/// The diagonal of a matrix, or the matrix that has a vector as its diagonal.
pub(crate) fn diagonal(array: &Array) -> Outcome<Array> {
    each_dtype!(array, a => match a.ndim() {
        1 => {
            element_count(&[a.len(), a.len()], array.dtype())?;
            let vector = a.view().into_dimensionality::<Ix1>().expect("one axis");
            Ok(diagonal_matrix(&vector.to_owned()))
        }
        2 => Ok(Array::from_vec(a.diag().to_vec())),
        _ => Err(value_error("diag is for vectors and matrices")),
    })
}

fn diagonal_matrix<T: Number>(vector: &Array1<T>) -> Array {
    let mut matrix = Array2::from_elem((vector.len(), vector.len()), T::default());
    for (at, &x) in vector.iter().enumerate() {
        matrix[[at, at]] = x;
    }
    T::wrap(matrix.into_dyn().into_shared())
}
