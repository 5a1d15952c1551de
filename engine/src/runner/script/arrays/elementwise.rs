//! Operators between arrays, element by element, with NumPy's broadcasting.

use ndarray::{ArcArray, IxDyn};
use num_complex::Complex64;
use protocol::value::DType;

use crate::array::{Array, Element};

use super::super::raised::{Outcome, Raised, overflow_error, type_error, value_error, zero_division};
use super::cast::{cast, map, promote, promote_scalar, try_map};
use super::{Number, Scalar, element_count, only_element, shape_text, shaped};

/// A binary operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Binary {
    Add,
    Subtract,
    Multiply,
    Divide,
    /// Division rounded down.
    FloorDivide,
    /// The remainder of that; has the divisor's sign.
    Modulo,
    Power,
    Minimum,
    Maximum,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    And,
    Or,
    Xor,
}

impl Binary {
    /// As the user wrote it.
    pub(crate) fn symbol(self) -> &'static str {
        match self {
            Binary::Add => "+",
            Binary::Subtract => "-",
            Binary::Multiply => "*",
            Binary::Divide => "/",
            Binary::FloorDivide => "div",
            Binary::Modulo => "%",
            Binary::Power => "**",
            Binary::Minimum => "minimum",
            Binary::Maximum => "maximum",
            Binary::Equal => "==",
            Binary::NotEqual => "!=",
            Binary::Less => "<",
            Binary::LessOrEqual => "<=",
            Binary::Greater => ">",
            Binary::GreaterOrEqual => ">=",
            Binary::And => "&",
            Binary::Or => "|",
            Binary::Xor => "^",
        }
    }

    fn is_comparison(self) -> bool {
        use Binary::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual, NotEqual};
        matches!(self, Equal | NotEqual | Less | LessOrEqual | Greater | GreaterOrEqual)
    }
}

/// One side of an operator.
#[derive(Clone, Debug)]
pub(crate) enum Operand {
    Array(Array),
    Scalar(Scalar),
}

impl Operand {
    fn dtype(&self) -> DType {
        match self {
            Operand::Array(array) => array.dtype(),
            Operand::Scalar(scalar) => scalar.dtype(),
        }
    }

    fn to_array(&self, dtype: DType) -> Outcome<Array> {
        match self {
            Operand::Array(array) => cast(array, dtype),
            Operand::Scalar(scalar) => cast(&scalar.to_array(), dtype),
        }
    }
}

/// The type that both sides are computed in.
fn common(left: &Operand, right: &Operand) -> DType {
    match (left, right) {
        (Operand::Array(array), Operand::Scalar(scalar))
        | (Operand::Scalar(scalar), Operand::Array(array)) => promote_scalar(array.dtype(), *scalar),
        _ => promote(left.dtype(), right.dtype()),
    }
}

/// Arithmetic that says when an integer result does not fit.
trait Arithmetic: Number {
    fn add(self, other: Self) -> Option<Self>;
    fn subtract(self, other: Self) -> Option<Self>;
    fn multiply(self, other: Self) -> Option<Self>;
}

/// What complex numbers do not have.
trait Ordered: Arithmetic + PartialOrd {
    fn floor_divide(self, other: Self) -> Option<Self>;
    fn modulo(self, other: Self) -> Option<Self>;
}

macro_rules! arithmetic_of_integers {
    ($($type:ty),*) => {$(
        impl Arithmetic for $type {
            fn add(self, other: Self) -> Option<Self> {
                self.checked_add(other)
            }
            fn subtract(self, other: Self) -> Option<Self> {
                self.checked_sub(other)
            }
            fn multiply(self, other: Self) -> Option<Self> {
                self.checked_mul(other)
            }
        }
        impl Ordered for $type {
            fn floor_divide(self, other: Self) -> Option<Self> {
                <$type>::try_from(floor_divide(i64::from(self), i64::from(other))?).ok()
            }
            fn modulo(self, other: Self) -> Option<Self> {
                <$type>::try_from(modulo(i64::from(self), i64::from(other))?).ok()
            }
        }
    )*};
}
arithmetic_of_integers!(i64, i32, u8);

macro_rules! arithmetic_of_floats {
    ($($type:ty),*) => {$(
        impl Arithmetic for $type {
            fn add(self, other: Self) -> Option<Self> {
                Some(self + other)
            }
            fn subtract(self, other: Self) -> Option<Self> {
                Some(self - other)
            }
            fn multiply(self, other: Self) -> Option<Self> {
                Some(self * other)
            }
        }
    )*};
}
arithmetic_of_floats!(f64, f32, Complex64);

macro_rules! order_of_floats {
    ($($type:ty),*) => {$(
        impl Ordered for $type {
            fn floor_divide(self, other: Self) -> Option<Self> {
                Some((self / other).floor())
            }
            fn modulo(self, other: Self) -> Option<Self> {
                let remainder = self % other;
                Some(if remainder != 0.0 && (remainder < 0.0) != (other < 0.0) { remainder + other } else { remainder })
            }
        }
    )*};
}
order_of_floats!(f64, f32);

/// Division rounded down; `None` for zero divisors and the one overflow.
fn floor_divide(left: i64, right: i64) -> Option<i64> {
    let quotient = left.checked_div(right)?;
    Some(if left % right != 0 && (left < 0) != (right < 0) { quotient - 1 } else { quotient })
}

fn modulo(left: i64, right: i64) -> Option<i64> {
    if right == -1 {
        return Some(0); // i64::MIN % -1 overflows, although the remainder is 0.
    }
    let remainder = left.checked_rem(right)?;
    Some(if remainder != 0 && (remainder < 0) != (right < 0) { remainder + right } else { remainder })
}

/// `left op right`, for any mixture of arrays and numbers. The result of two numbers is a number.
pub(crate) fn binary(op: Binary, left: &Operand, right: &Operand) -> Outcome<Operand> {
    let result = binary_array(op, left, right)?;
    match (left, right) {
        (Operand::Scalar(_), Operand::Scalar(_)) => {
            Ok(only_element(&result).map_or(Operand::Array(result), Operand::Scalar))
        }
        _ => Ok(Operand::Array(result)),
    }
}

fn binary_array(op: Binary, left: &Operand, right: &Operand) -> Outcome<Array> {
    let dtype = working_type(op, common(left, right), right)?;
    let (left, right) = (left.to_array(dtype)?, right.to_array(dtype)?);
    if op.is_comparison() {
        return compare(op, &left, &right);
    }
    match (&left, &right) {
        (Array::F64(left), Array::F64(right)) => match op {
            Binary::Divide => {
                combine(left, right, |x, y| Some(x / y)).map_err(|failure| failure.raise(op, dtype))
            }
            Binary::Power => {
                combine(left, right, |x, y| Some(x.powf(y))).map_err(|failure| failure.raise(op, dtype))
            }
            _ => ordered(op, left, right),
        },
        (Array::F32(left), Array::F32(right)) => match op {
            Binary::Divide => {
                combine(left, right, |x, y| Some(x / y)).map_err(|failure| failure.raise(op, dtype))
            }
            Binary::Power => {
                combine(left, right, |x, y| Some(x.powf(y))).map_err(|failure| failure.raise(op, dtype))
            }
            _ => ordered(op, left, right),
        },
        (Array::C64(left), Array::C64(right)) => match op {
            Binary::Divide => combine(left, right, |x, y| Some(x / y)),
            Binary::Power => combine(left, right, |x, y| Some(complex_power(x, y))),
            Binary::Add => combine(left, right, Arithmetic::add),
            Binary::Subtract => combine(left, right, Arithmetic::subtract),
            Binary::Multiply => combine(left, right, Arithmetic::multiply),
            _ => return Err(type_error(format!("complex numbers have no `{}`", op.symbol()))),
        }
        .map_err(|failure| failure.raise(op, dtype)),
        (Array::I64(left), Array::I64(right)) => match op {
            Binary::And => {
                combine(left, right, |x, y| Some(x & y)).map_err(|failure| failure.raise(op, dtype))
            }
            Binary::Or => {
                combine(left, right, |x, y| Some(x | y)).map_err(|failure| failure.raise(op, dtype))
            }
            Binary::Xor => {
                combine(left, right, |x, y| Some(x ^ y)).map_err(|failure| failure.raise(op, dtype))
            }
            Binary::Power => combine(left, right, |x, y| x.checked_pow(u32::try_from(y).ok()?))
                .map_err(|failure| failure.raise(op, dtype)),
            _ => ordered(op, left, right),
        },
        (Array::I32(left), Array::I32(right)) => match op {
            Binary::And => {
                combine(left, right, |x, y| Some(x & y)).map_err(|failure| failure.raise(op, dtype))
            }
            Binary::Or => {
                combine(left, right, |x, y| Some(x | y)).map_err(|failure| failure.raise(op, dtype))
            }
            Binary::Xor => {
                combine(left, right, |x, y| Some(x ^ y)).map_err(|failure| failure.raise(op, dtype))
            }
            Binary::Power => combine(left, right, |x, y| x.checked_pow(u32::try_from(y).ok()?))
                .map_err(|failure| failure.raise(op, dtype)),
            _ => ordered(op, left, right),
        },
        (Array::U8(left), Array::U8(right)) => match op {
            Binary::And => {
                combine(left, right, |x, y| Some(x & y)).map_err(|failure| failure.raise(op, dtype))
            }
            Binary::Or => {
                combine(left, right, |x, y| Some(x | y)).map_err(|failure| failure.raise(op, dtype))
            }
            Binary::Xor => {
                combine(left, right, |x, y| Some(x ^ y)).map_err(|failure| failure.raise(op, dtype))
            }
            Binary::Power => combine(left, right, |x, y| x.checked_pow(u32::from(y)))
                .map_err(|failure| failure.raise(op, dtype)),
            _ => ordered(op, left, right),
        },
        (Array::Bool(left), Array::Bool(right)) => match op {
            Binary::And | Binary::Minimum => combine(left, right, |x, y| Some(x & y)),
            Binary::Or | Binary::Maximum => combine(left, right, |x, y| Some(x | y)),
            _ => combine(left, right, |x, y| Some(x ^ y)),
        }
        .map_err(|failure| failure.raise(op, dtype)),
        _ => unreachable!("both sides were converted to {dtype}"),
    }
}

/// The element type in which `op` is computed, given the common type of its operands.
fn working_type(op: Binary, common: DType, right: &Operand) -> Outcome<DType> {
    Ok(match op {
        Binary::Divide if matches!(common, DType::Bool | DType::U8 | DType::I32 | DType::I64) => DType::F64,
        // 2 ** -1 is a half, and so is an array of them.
        Binary::Power if matches!(common, DType::Bool | DType::U8 | DType::I32 | DType::I64) => {
            if has_negative(right) {
                DType::F64
            } else if common == DType::Bool {
                DType::I64
            } else {
                common
            }
        }
        Binary::And | Binary::Or | Binary::Xor => match common {
            DType::F64 | DType::F32 | DType::C64 => {
                return Err(type_error(format!(
                    "`{}` is for integers and truth values, not {common}",
                    op.symbol()
                )));
            }
            _ => common,
        },
        Binary::Minimum | Binary::Maximum => common,
        // Sums and products of truth values count.
        _ if common == DType::Bool && !op.is_comparison() => DType::I64,
        _ => common,
    })
}

fn has_negative(operand: &Operand) -> bool {
    match operand {
        Operand::Scalar(Scalar::Int(number)) => *number < 0,
        Operand::Array(Array::I64(array)) => array.iter().any(|&x| x < 0),
        Operand::Array(Array::I32(array)) => array.iter().any(|&x| x < 0),
        _ => false,
    }
}

/// Small whole powers by multiplication, so that `i ** 2` is exactly -1.
fn complex_power(base: Complex64, exponent: Complex64) -> Complex64 {
    if exponent.im == 0.0 && exponent.re.fract() == 0.0 && exponent.re.abs() <= 64.0 {
        base.powi(exponent.re as i32)
    } else {
        base.powc(exponent)
    }
}

fn ordered<T: Ordered>(op: Binary, left: &ArcArray<T, IxDyn>, right: &ArcArray<T, IxDyn>) -> Outcome<Array> {
    match op {
        Binary::Add => combine(left, right, T::add),
        Binary::Subtract => combine(left, right, T::subtract),
        Binary::Multiply => combine(left, right, T::multiply),
        Binary::FloorDivide => combine(left, right, T::floor_divide),
        Binary::Modulo => combine(left, right, T::modulo),
        // NaN wins, as in NumPy: a minimum must not hide that something is undefined.
        Binary::Minimum => {
            combine(left, right, |x, y| Some(if x < y || x.partial_cmp(&x).is_none() { x } else { y }))
        }
        Binary::Maximum => {
            combine(left, right, |x, y| Some(if x > y || x.partial_cmp(&x).is_none() { x } else { y }))
        }
        _ => unreachable!("{op:?} is handled by the caller"),
    }
    .map_err(|failure| {
        let divides = matches!(op, Binary::FloorDivide | Binary::Modulo);
        if divides && right.iter().any(|x| !x.truth()) {
            zero_division()
        } else {
            failure.raise(op, T::DTYPE)
        }
    })
}

fn compare(op: Binary, left: &Array, right: &Array) -> Outcome<Array> {
    fn ordered<T: Number + PartialOrd>(
        op: Binary,
        left: &ArcArray<T, IxDyn>,
        right: &ArcArray<T, IxDyn>,
    ) -> Result<Array, Failure> {
        match op {
            Binary::Less => combine(left, right, |x, y| Some(x < y)),
            Binary::LessOrEqual => combine(left, right, |x, y| Some(x <= y)),
            Binary::Greater => combine(left, right, |x, y| Some(x > y)),
            Binary::GreaterOrEqual => combine(left, right, |x, y| Some(x >= y)),
            Binary::Equal => combine(left, right, |x, y| Some(x == y)),
            _ => combine(left, right, |x, y| Some(x != y)),
        }
    }
    let dtype = left.dtype();
    match (left, right) {
        (Array::F64(left), Array::F64(right)) => ordered(op, left, right),
        (Array::F32(left), Array::F32(right)) => ordered(op, left, right),
        (Array::I64(left), Array::I64(right)) => ordered(op, left, right),
        (Array::I32(left), Array::I32(right)) => ordered(op, left, right),
        (Array::U8(left), Array::U8(right)) => ordered(op, left, right),
        (Array::Bool(left), Array::Bool(right)) => ordered(op, left, right),
        (Array::C64(left), Array::C64(right)) => match op {
            Binary::Equal => combine(left, right, |x, y| Some(x == y)),
            Binary::NotEqual => combine(left, right, |x, y| Some(x != y)),
            _ => {
                return Err(type_error(format!(
                    "complex numbers have no order, so `{}` means nothing; compare `abs(x)`",
                    op.symbol()
                )));
            }
        },
        _ => unreachable!("both sides were converted to {dtype}"),
    }
    .map_err(|failure| failure.raise(op, dtype))
}

/// Why two arrays could not be combined.
enum Failure {
    /// The operation failed for some pair.
    Element,
    /// The shapes do not fit, or the result would be too big.
    Shapes(Raised),
}

impl Failure {
    fn raise(self, op: Binary, dtype: DType) -> Raised {
        match self {
            Failure::Shapes(raised) => raised,
            Failure::Element => overflow_error(format!(
                "the result of `{}` does not fit into {dtype}; convert to a wider type first, e.g. `f64(x)`",
                op.symbol()
            )),
        }
    }
}

/// Applies `f` to pairs of elements.
fn combine<T: Element, U: Element + Default>(
    left: &ArcArray<T, IxDyn>,
    right: &ArcArray<T, IxDyn>,
    f: impl Fn(T, T) -> Option<U>,
) -> Result<Array, Failure> {
    let mut failed = false;
    let mut f = |x: T, y: T| {
        f(x, y).unwrap_or_else(|| {
            failed = true;
            U::default()
        })
    };
    let shape = broadcast_shape(left.shape(), right.shape()).map_err(Failure::Shapes)?;
    let count = element_count(&shape, U::DTYPE).map_err(Failure::Shapes)?;
    let mut elements = Vec::with_capacity(count);
    match (left.as_slice(), right.as_slice()) {
        (Some(left), Some(right)) if left.len() == count && right.len() == count => {
            elements.extend(left.iter().zip(right).map(|(&x, &y)| f(x, y)));
        }
        (Some(left), Some(&[y])) if left.len() == count => elements.extend(left.iter().map(|&x| f(x, y))),
        (Some(&[x]), Some(right)) if right.len() == count => elements.extend(right.iter().map(|&y| f(x, y))),
        _ => {
            let left = left.broadcast(IxDyn(&shape)).expect("the shape comes from broadcast_shape");
            let right = right.broadcast(IxDyn(&shape)).expect("the shape comes from broadcast_shape");
            elements.extend(left.iter().zip(right.iter()).map(|(&x, &y)| f(x, y)));
        }
    }
    if failed { Err(Failure::Element) } else { Ok(U::wrap(shaped(&shape, elements))) }
}

/// The shape of the result of an operator (NumPy's rule: align at the last axis; extents must be equal or 1).
pub(crate) fn broadcast_shape(left: &[usize], right: &[usize]) -> Outcome<Vec<usize>> {
    let axes = left.len().max(right.len());
    let extent =
        |shape: &[usize], axis: usize| (axis + shape.len()).checked_sub(axes).map_or(1, |at| shape[at]);
    (0..axes)
        .map(|axis| match (extent(left, axis), extent(right, axis)) {
            (x, y) if x == y => Ok(x),
            (1, other) | (other, 1) => Ok(other),
            _ => Err(value_error(format!(
                "arrays of shapes {} and {} do not fit together; extents must be equal or 1, from the last axis on",
                shape_text(left),
                shape_text(right)
            ))),
        })
        .collect()
}

/// `-x`
pub(crate) fn negate(array: &Array) -> Outcome<Array> {
    let negated = match array {
        Array::F64(a) => Some(map(a, |x| -x)),
        Array::F32(a) => Some(map(a, |x| -x)),
        Array::C64(a) => Some(map(a, |x| -x)),
        Array::I64(a) => try_map(a, i64::checked_neg),
        Array::I32(a) => try_map(a, i32::checked_neg),
        Array::U8(a) => try_map(a, |x| (x == 0).then_some(0)),
        Array::Bool(_) => return Err(type_error("truth values have no negative; use `!x`")),
    };
    negated.ok_or_else(|| Failure::Element.raise(Binary::Subtract, array.dtype()))
}

/// `!x`
pub(crate) fn not(array: &Array) -> Outcome<Array> {
    match array {
        Array::Bool(a) => Ok(map(a, |x| !x)),
        _ => Err(type_error(format!("`!` is for truth values, not {}; write `x == 0`", array.dtype()))),
    }
}

/// `where(condition, x, y)`: from `x` where the condition holds, else from `y`.
pub(crate) fn choose(condition: &Array, yes: &Operand, no: &Operand) -> Outcome<Array> {
    let dtype = common(yes, no);
    let (condition, yes, no) = (cast(condition, DType::Bool)?, yes.to_array(dtype)?, no.to_array(dtype)?);
    let shape = broadcast_shape(condition.shape(), &broadcast_shape(yes.shape(), no.shape())?)?;
    let count = element_count(&shape, dtype)?;
    let Array::Bool(condition) = condition else { unreachable!("it was converted to bool") };
    let condition = condition.broadcast(IxDyn(&shape)).expect("the shape comes from broadcast_shape");
    fn pick<T: Number>(
        shape: &[usize],
        count: usize,
        condition: &ndarray::ArrayViewD<'_, bool>,
        yes: &ArcArray<T, IxDyn>,
        no: &ArcArray<T, IxDyn>,
    ) -> Array {
        let yes = yes.broadcast(IxDyn(shape)).expect("the shape comes from broadcast_shape");
        let no = no.broadcast(IxDyn(shape)).expect("the shape comes from broadcast_shape");
        let mut elements = Vec::with_capacity(count);
        elements.extend(
            condition.iter().zip(yes.iter().zip(no.iter())).map(|(&c, (&x, &y))| if c { x } else { y }),
        );
        T::wrap(shaped(shape, elements))
    }
    Ok(match (&yes, &no) {
        (Array::F64(x), Array::F64(y)) => pick(&shape, count, &condition, x, y),
        (Array::F32(x), Array::F32(y)) => pick(&shape, count, &condition, x, y),
        (Array::I64(x), Array::I64(y)) => pick(&shape, count, &condition, x, y),
        (Array::I32(x), Array::I32(y)) => pick(&shape, count, &condition, x, y),
        (Array::U8(x), Array::U8(y)) => pick(&shape, count, &condition, x, y),
        (Array::Bool(x), Array::Bool(y)) => pick(&shape, count, &condition, x, y),
        (Array::C64(x), Array::C64(y)) => pick(&shape, count, &condition, x, y),
        _ => unreachable!("both sides were converted to {dtype}"),
    })
}
