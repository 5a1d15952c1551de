//! Builtins on numbers: functions element by element, reductions, linear algebra.

use num_complex::Complex64;
use rhai::Dynamic;

use super::super::arrays::elementwise::{Binary, Operand, binary};
use super::super::arrays::reduce::{Reduction, cumulative_sum, reduce};
use super::super::arrays::{linear, math};
use super::super::convert::{from_array, from_operand, operand};
use super::super::raised::Outcome;
use super::{Builtin, Call, Category};

const MATH: Category = Category::Math;
const REDUCTION: Category = Category::Reduction;
const LINEAR: Category = Category::Linear;

macro_rules! functions {
    ($($name:literal, $says:literal;)*) => {
        &[$(Builtin { name: $name, signature: concat!($name, "(x)"), summary: $says, details: "", category: MATH, arity: (1, 1), run: function }),*]
    };
}

macro_rules! reductions {
    ($($name:literal, $says:literal, $details:literal;)*) => {
        &[$(Builtin { name: $name, signature: concat!($name, "(a[, axis])"), summary: $says, details: $details, category: REDUCTION, arity: (1, 2), run: reduction }),*]
    };
}

pub(super) const FUNCTIONS: &[Builtin] = functions! {
    "sqrt", "square root";
    "cbrt", "cube root";
    "exp", "e to the power of x";
    "log", "natural logarithm";
    "log2", "logarithm of base 2";
    "log10", "logarithm of base 10";
    "log1p", "log(1 + x), exact near 0";
    "expm1", "exp(x) - 1, exact near 0";
    "sin", "sine";
    "cos", "cosine";
    "tan", "tangent";
    "asin", "inverse sine";
    "acos", "inverse cosine";
    "atan", "inverse tangent";
    "sinh", "hyperbolic sine";
    "cosh", "hyperbolic cosine";
    "tanh", "hyperbolic tangent";
    "degrees", "radians to degrees";
    "radians", "degrees to radians";
    "floor", "the next whole number below; integers stay as they are";
    "ceil", "the next whole number above; integers stay as they are";
    "round", "the nearest whole number; halves to the even one, as in NumPy";
    "trunc", "the whole part";
};

pub(super) const REDUCTIONS: &[Builtin] = reductions! {
    "sum", "the sum", "Integers are summed as i64 and exactly, floats pairwise. Without an axis: of all elements.";
    "prod", "the product", "";
    "min", "the smallest element", "`min(x, y)` of two numbers is the smaller one. NaN wins.";
    "max", "the largest element", "`max(x, y)` of two numbers is the larger one. NaN wins.";
    "mean", "the mean", "";
    "variance", "the variance of a population", "Also written `var(a)`. Divided by n, as NumPy's `ddof=0`.";
    "std", "the standard deviation of a population", "Divided by n, as NumPy's `ddof=0`.";
    "argmin", "the position of the smallest element", "Without an axis: in the flattened array.";
    "argmax", "the position of the largest element", "Without an axis: in the flattened array.";
    "any", "whether any element is true", "";
    "all", "whether all elements are true", "";
};

#[rustfmt::skip]
pub(super) const OTHERS: &[Builtin] = &[
    Builtin { name: "abs", signature: "abs(x)", summary: "the absolute value", details: "Of complex numbers as f64.", category: MATH, arity: (1, 1), run: |call| Ok(from_array(math::absolute(&call.array(0)?)?)) },
    Builtin { name: "sign", signature: "sign(x)", summary: "-1, 0 or 1", details: "", category: MATH, arity: (1, 1), run: |call| Ok(from_array(math::sign(&call.array(0)?)?)) },
    Builtin { name: "real", signature: "real(z)", summary: "the real part", details: "Also `z.re`.", category: MATH, arity: (1, 1), run: |call| Ok(from_array(math::part(&call.array(0)?, |z| z.re, |x| x)?)) },
    Builtin { name: "imag", signature: "imag(z)", summary: "the imaginary part", details: "Also `z.im`.", category: MATH, arity: (1, 1), run: |call| Ok(from_array(math::part(&call.array(0)?, |z| z.im, |_| 0.0)?)) },
    Builtin { name: "arg", signature: "arg(z)", summary: "the angle of a complex number", details: "", category: MATH, arity: (1, 1), run: |call| Ok(from_array(math::part(&call.array(0)?, Complex64::arg, |x| if x < 0.0 { std::f64::consts::PI } else { 0.0 })?)) },
    Builtin { name: "conj", signature: "conj(z)", summary: "the complex conjugate", details: "", category: MATH, arity: (1, 1), run: |call| Ok(from_array(math::conjugate(&call.array(0)?))) },
    Builtin { name: "isnan", signature: "isnan(x)", summary: "where numbers are NaN", details: "", category: MATH, arity: (1, 1), run: |call| Ok(from_array(math::test(&call.array(0)?, f64::is_nan)?)) },
    Builtin { name: "isinf", signature: "isinf(x)", summary: "where numbers are infinite", details: "", category: MATH, arity: (1, 1), run: |call| Ok(from_array(math::test(&call.array(0)?, f64::is_infinite)?)) },
    Builtin { name: "atan2", signature: "atan2(y, x)", summary: "the angle of the point (x, y)", details: "", category: MATH, arity: (2, 2), run: |call| Ok(Dynamic::from(call.float(0)?.atan2(call.float(1)?))) },
    Builtin { name: "div", signature: "div(x, y)", summary: "division rounded down", details: "`x == div(x, y) * y + x % y` holds for all signs, as with Python's `//`.", category: MATH, arity: (2, 2), run: |call| pair(call, Binary::FloorDivide) },
    Builtin { name: "minimum", signature: "minimum(x, y)", summary: "the smaller of two, element by element", details: "", category: MATH, arity: (2, 2), run: |call| pair(call, Binary::Minimum) },
    Builtin { name: "maximum", signature: "maximum(x, y)", summary: "the larger of two, element by element", details: "", category: MATH, arity: (2, 2), run: |call| pair(call, Binary::Maximum) },
    Builtin { name: "cumsum", signature: "cumsum(a[, axis])", summary: "the running sum", details: "", category: REDUCTION, arity: (1, 2), run: |call| { let a = call.array(0)?; Ok(Dynamic::from(cumulative_sum(&a, call.axis(1, a.shape().len())?)?)) } },
    Builtin { name: "dot", signature: "dot(a, b)", summary: "the product of vectors and matrices", details: "Of two vectors a number. Also `a @ b`. Integers are multiplied exactly.", category: LINEAR, arity: (2, 2), run: product },
    Builtin { name: "matmul", signature: "matmul(a, b)", summary: "the product of matrices", details: "The same as `dot(a, b)` and `a @ b`.", category: LINEAR, arity: (2, 2), run: product },
    Builtin { name: "norm", signature: "norm(a)", summary: "the square root of the sum of squares", details: "Of a matrix: Frobenius.", category: LINEAR, arity: (1, 1), run: |call| Ok(Dynamic::from(linear::norm(&call.array(0)?))) },
    Builtin { name: "solve", signature: "solve(a, b)", summary: "the x with a @ x == b", details: "Gauss elimination with partial pivoting; b is a vector or a matrix of right sides.", category: LINEAR, arity: (2, 2), run: |call| Ok(Dynamic::from(linear::solve(&call.array(0)?, &call.array(1)?, &call.session.interrupt())?)) },
    Builtin { name: "inv", signature: "inv(a)", summary: "the inverse matrix", details: "To solve equations, `solve` is faster and more exact.", category: LINEAR, arity: (1, 1), run: |call| Ok(Dynamic::from(linear::inverse(&call.array(0)?, &call.session.interrupt())?)) },
    Builtin { name: "det", signature: "det(a)", summary: "the determinant", details: "", category: LINEAR, arity: (1, 1), run: |call| Ok(from_array(linear::determinant(&call.array(0)?, &call.session.interrupt())?)) },
    Builtin { name: "diag", signature: "diag(a)", summary: "the diagonal of a matrix, or a matrix with that diagonal", details: "", category: LINEAR, arity: (1, 1), run: |call| Ok(Dynamic::from(linear::diagonal(&call.array(0)?)?)) },
];

fn function(call: &Call<'_, '_>) -> Outcome<Dynamic> {
    let named = |function: &&math::Function| function.name == call.name;
    if let Some(rounding) = math::ROUNDINGS.iter().find(named) {
        return match call.value(0)?.as_float() {
            Ok(number) => Ok(Dynamic::from((rounding.real)(number))),
            Err(_) => Ok(from_array(math::round(rounding, &call.array(0)?)?)),
        };
    }
    let function = math::FUNCTIONS.iter().find(named).expect("the tables have the same names");
    match call.value(0)?.as_float() {
        Ok(number) => Ok(Dynamic::from((function.real)(number))),
        Err(_) => Ok(from_array(math::apply(function, &call.array(0)?)?)),
    }
}

fn reduction(call: &Call<'_, '_>) -> Outcome<Dynamic> {
    let reduction = match call.name {
        "sum" => Reduction::Sum,
        "prod" => Reduction::Product,
        "min" => Reduction::Minimum,
        "max" => Reduction::Maximum,
        "mean" => Reduction::Mean,
        "variance" => Reduction::Variance,
        "std" => Reduction::StandardDeviation,
        "argmin" => Reduction::PositionOfMinimum,
        "argmax" => Reduction::PositionOfMaximum,
        "any" => Reduction::Any,
        _ => Reduction::All,
    };
    let is_number = matches!(operand(call.value(0)?), Some(Operand::Scalar(_)));
    match reduction {
        Reduction::Minimum if is_number && call.count() == 2 => return pair(call, Binary::Minimum),
        Reduction::Maximum if is_number && call.count() == 2 => return pair(call, Binary::Maximum),
        _ => {}
    }
    let array = call.array(0)?;
    Ok(from_array(reduce(&array, reduction, call.axis(1, array.shape().len())?)?))
}

fn pair(call: &Call<'_, '_>, op: Binary) -> Outcome<Dynamic> {
    let side = |at: usize| -> Outcome<Operand> {
        match operand(call.value(at)?) {
            Some(operand) => Ok(operand),
            None => Ok(Operand::Array(call.array(at)?)),
        }
    };
    Ok(from_operand(binary(op, &side(0)?, &side(1)?)?))
}

fn product(call: &Call<'_, '_>) -> Outcome<Dynamic> {
    Ok(from_array(linear::product(&call.array(0)?, &call.array(1)?, &call.session.interrupt())?))
}
