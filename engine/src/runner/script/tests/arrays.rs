//! Arrays at the prompt.

use super::*;

#[test]
fn arrays_are_made_and_shown() {
    assert_shows(&[
        ("zeros(3)", "array([0., 0., 0.])"),
        ("ones(2, 2)", "array([[1., 1.],\n       [1., 1.]])"),
        ("zeros([2], \"i32\")", "array([0, 0], i32)"),
        ("full(2, 7)", "array([7, 7])"),
        ("full([1, 2], 1.5)", "array([[1.5, 1.5]])"),
        ("eye(2)", "array([[1., 0.],\n       [0., 1.]])"),
        ("arange(4)", "array([0, 1, 2, 3])"),
        ("arange(1, 2, 0.25)", "array([1.00, 1.25, 1.50, 1.75])"),
        ("arange(5, 0, -2)", "array([5, 3, 1])"),
        ("linspace(0, 1, 3)", "array([0.0, 0.5, 1.0])"),
        ("array([[1, 2], [3, 4]])", "array([[1, 2],\n       [3, 4]])"),
        ("array([1, 2.5])", "array([1.0, 2.5])"),
        ("array([true, false])", "array([ true, false])"),
        ("array([1, complex(0, 1)])", "array([1.+0.i, 0.+1.i])"),
        ("array([1, 2], \"f32\")", "array([1., 2.], f32)"),
        ("zeros(0)", "array([], f64)"),
        ("zeros(2, 0)", "array([], f64, shape [2, 0])"),
        ("arange(2000)", "array([   0,    1,    2, ..., 1997, 1998, 1999], shape [2000])"),
        ("array([1e10, 1.0])", "array([1e10,  1e0])"),
        ("array([nan, inf, 1.5])", "array([nan, inf, 1.5])"),
        ("shape(rand(3, 4))", "[3, 4]"),
        ("rand(3).shape", "[3]"),
        ("f32(arange(2))", "array([0., 1.], f32)"),
        ("astype([1.9, -1.9], \"i64\")", "array([ 1, -1])"),
        ("i64(2.7)", "2"),
        ("dtype(u8([1]))", "\"u8\""),
        ("len(zeros(3, 2)) + count(zeros(3, 2))", "9"),
        ("x = rand(1000); all(x >= 0 & x < 1)", "true"),
    ]);
}

#[test]
fn operators_broadcast_and_promote() {
    assert_shows(&[
        ("arange(3) + 1", "array([1, 2, 3])"),
        ("10 - arange(3)", "array([10,  9,  8])"),
        ("2.0 - arange(3)", "array([2., 1., 0.])"),
        ("arange(3) / 2", "array([0.0, 0.5, 1.0])"),
        ("arange(4) % 3", "array([0, 1, 2, 0])"),
        ("div(arange(4), 2)", "array([0, 0, 1, 1])"),
        ("arange(4) ** 2", "array([0, 1, 4, 9])"),
        ("-arange(3)", "array([ 0, -1, -2])"),
        ("ones(2, 1) * arange(3)", "array([[0., 1., 2.],\n       [0., 1., 2.]])"),
        ("f32([1, 2]) * 2", "array([2., 4.], f32)"),
        ("f32([1, 2]) * f64([1, 1])", "array([1., 2.])"),
        ("u8([1, 2]) + 1", "array([2, 3], u8)"),
        ("u8([1, 2]) + 1000", "array([1001, 1002])"),
        ("i32([1]) + i64([1])", "array([2])"),
        ("arange(2) * I", "array([0.+0.i, 0.+1.i])"),
        ("(arange(3) > 0) + (arange(3) > 1)", "array([0, 1, 2])"),
        ("arange(3) == 1", "array([false,  true, false])"),
        ("1 < arange(3)", "array([false, false,  true])"),
        ("!(arange(2) == 0)", "array([false,  true])"),
        ("(arange(4) > 0) & (arange(4) < 3)", "array([false,  true,  true, false])"),
        ("[1, 2] + arange(2)", "array([1, 3])"),
        ("a = arange(3); a += 1; a *= 2; a", "array([2, 4, 6])"),
        ("a = arange(3); a /= 2; a", "array([0.0, 0.5, 1.0])"),
        ("sqrt(array([1, 4]))", "array([1., 2.])"),
        ("exp(zeros(2))", "array([1., 1.])"),
        ("round(array([0.5, 1.5]))", "array([0., 2.])"),
        ("floor(array([1, 2]))", "array([1, 2])"),
        ("sqrt(complex(-4, 0))", "0.0+2.0i"),
        ("where(arange(3) > 0, 1, -1)", "array([-1,  1,  1])"),
        ("where([false, true, true])", "array([1, 2])"),
        ("maximum(arange(3), 1)", "array([1, 1, 2])"),
        ("abs(array([-1, 2]))", "array([1, 2])"),
        ("a = arange(3); a == ()", "false"),
    ]);
}

#[test]
fn parts_are_taken() {
    assert_shows(&[
        ("a = arange(5); a[0]", "0"),
        ("a = arange(5); a[-1]", "4"),
        ("a = arange(5); a[1..4]", "array([1, 2, 3])"),
        ("a = arange(5); a[1..-1]", "array([1, 2, 3])"),
        ("a = arange(5); a[3..=-1]", "array([3, 4])"),
        ("a = arange(5); a[2..100]", "array([2, 3, 4])"),
        ("a = arange(5); a[slice((), (), -1)]", "array([4, 3, 2, 1, 0])"),
        ("a = arange(5); a[slice(0, 5, 2)]", "array([0, 2, 4])"),
        ("a = arange(5); a[a > 2]", "array([3, 4])"),
        ("a = arange(5) * 10; a[array([3, 0, -1])]", "array([30,  0, 40])"),
        ("m = arange(6).reshape(2, 3); m[1]", "array([3, 4, 5])"),
        ("m = arange(6).reshape(2, 3); m[[1, 2]]", "5"),
        ("m = arange(6).reshape(2, 3); m[[(), 1]]", "array([1, 4])"),
        ("m = arange(6).reshape(2, 3); m[[0..2, 1..3]]", "array([[1, 2],\n       [4, 5]])"),
        ("m = arange(6).reshape(2, 3); m[m % 2 == 0]", "array([0, 2, 4])"),
        ("m = arange(6).reshape(2, 3); m[1][2]", "5"),
        ("arange(6).reshape(-1, 2).shape", "[3, 2]"),
        ("transpose(arange(6).reshape(2, 3))", "array([[0, 3],\n       [1, 4],\n       [2, 5]])"),
        ("concat([arange(2), [9.5]])", "array([0.0, 1.0, 9.5])"),
        ("concat(arange(2), arange(1))", "array([0, 1, 0])"),
        ("stack([arange(2), arange(2)], 1)", "array([[0, 0],\n       [1, 1]])"),
        ("sort(array([3, 1, 2]))", "array([1, 2, 3])"),
        ("argsort(array([3, 1, 2]))", "array([1, 2, 0])"),
        ("unique(array([3, 1, 3]))", "array([1, 3])"),
        ("list(arange(4).reshape(2, 2))", "[[0, 1], [2, 3]]"),
        ("flatten(eye(2))", "array([1., 0., 0., 1.])"),
    ]);
}

#[test]
fn parts_are_stored_into_and_copies_stay_as_they_are() {
    assert_shows(&[
        ("a = zeros(3); a[0] = 1; a", "array([1., 0., 0.])"),
        ("a = zeros(3); b = a; a[-1] = 1; b", "array([0., 0., 0.])"),
        ("a = arange(5); a[1..4] = 0; a", "array([0, 0, 0, 0, 4])"),
        ("a = arange(5); a[a > 2] = -1; a", "array([ 0,  1,  2, -1, -1])"),
        ("a = arange(4); a[array([0, 2])] = [7, 8]; a", "array([7, 1, 8, 3])"),
        ("m = zeros(2, 2); m[[0, 1]] = 5; m[1] = [1, 2]; m", "array([[0., 5.],\n       [1., 2.]])"),
        ("m = zeros(2, 3); m[[(), 1]] = [1, 2]; m", "array([[0., 1., 0.],\n       [0., 2., 0.]])"),
        ("m = zeros(2, 3); m[[0..2, 0..2]] = eye(2); m", "array([[1., 0., 0.],\n       [0., 1., 0.]])"),
        ("a = arange(3); a[0] += 5; a", "array([5, 1, 2])"),
        ("a = zeros(2); for i in 0..2 { a[i] = i * 2 } a", "array([0., 2.])"),
        ("d = #{x: zeros(2)}; d.x[1] = 3; d", "#{x: array([0., 3.])}"),
        ("l = [zeros(1), 2]; l[0][0] = 4; l", "[array([4.]), 2]"),
    ]);
}

#[test]
fn reductions_work_overall_and_along_axes() {
    assert_shows(&[
        ("sum(arange(5))", "10"),
        ("arange(5).sum()", "10"),
        ("sum([1, 2.5])", "3.5"),
        ("m = arange(6).reshape(2, 3); sum(m, 0)", "array([3, 5, 7])"),
        ("m = arange(6).reshape(2, 3); m.sum(1)", "array([ 3, 12])"),
        ("m = arange(6).reshape(2, 3); mean(m, -1)", "array([1., 4.])"),
        ("max(array([1, 5, 2]))", "5"),
        ("min(array([1.5, nan]))", "nan"),
        ("std(array([1, 3]))", "1.0"),
        ("var(array([1, 3]))", "1.0"),
        ("argmax(array([1, 5, 2]))", "1"),
        ("prod(arange(1, 5))", "24"),
        ("cumsum(arange(4))", "array([0, 1, 3, 6])"),
        ("any(arange(3) > 1)", "true"),
        ("all(arange(3) > 1)", "false"),
        ("sum(u8([200, 100]))", "300"),
        ("sum(f32([0.5, 0.25]))", "0.75"),
        ("sum(array([1, complex(0, 2)]))", "1.0+2.0i"),
        ("sum(zeros(0))", "0.0"),
    ]);
}

#[test]
fn linear_algebra_is_right() {
    assert_shows(&[
        ("dot(arange(3), arange(3))", "5"),
        ("eye(2) @ array([1.5, 2])", "array([1.5, 2.0])"),
        ("a = arange(4).reshape(2, 2); a @ a", "array([[ 2,  3],\n       [ 6, 11]])"),
        ("norm([3, 4])", "5.0"),
        ("det(array([[1, 2], [3, 4]]))", "-2.0"),
        ("round(inv(array([[2, 0], [0, 4]])) * 100)", "array([[50.,  0.],\n       [ 0., 25.]])"),
        ("solve(array([[0, 1], [2, 0]]), [3, 4])", "array([2., 3.])"),
        ("diag(eye(2) * 3)", "array([3., 3.])"),
        ("det(array([[complex(0, 1), 0], [0, 1]]))", "0.0+1.0i"),
        ("seed(3); a = rand(50, 50); norm(a @ inv(a) - eye(50)) < 1e-9", "true"),
        ("seed(3); a = rand(40, 40); b = rand(40); norm(a @ solve(a, b) - b) < 1e-9", "true"),
    ]);
}
