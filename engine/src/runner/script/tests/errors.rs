//! Errors: their names, words and places.

use super::*;

#[test]
fn errors_name_the_place_in_the_users_text() {
    let cases = [
        ("x + 1", "NameError", 1, 1, "name 'x' is not defined"),
        ("a = 1;\nb = a + nope", "NameError", 2, 9, "name 'nope' is not defined"),
        ("let a = 1; let b = undefined_name", "NameError", 1, 20, "name 'undefined_name' is not defined"),
        ("psun(1)", "NameError", 1, 1, "function 'psun' is not defined; did you mean `psum`?"),
        (
            "a = arange(3); b = 5; a[b]",
            "IndexError",
            1,
            24,
            "index 5 is outside axis 0, which has 3 elements",
        ),
        (
            "zeros(2) + zeros(3)",
            "ValueError",
            1,
            10,
            "arrays of shapes [2] and [3] do not fit together; extents must be equal or 1, from the last axis on",
        ),
        ("1/0", "ZeroDivisionError", 1, 2, "division by zero"),
        ("9223372036854775807 + 1", "OverflowError", 1, 21, "the result does not fit into an integer"),
        (
            "sum(1, 2, 3)",
            "TypeError",
            1,
            1,
            "sum cannot be called with (int, int, int); call it as sum(a[, axis])",
        ),
        (
            "zeros(\"x\")",
            "TypeError",
            1,
            1,
            "argument 1 of zeros is a string, but must be an extent or a list of extents",
        ),
        ("[1, 2][7]", "IndexError", 1, 8, "index 7 is outside a list of 2 items"),
        ("zeros(-1)", "ValueError", 1, 1, "zeros: extent -1 is negative"),
        ("zeros(1000000000000)", "MemoryError", 1, 1, "does not fit into this machine's"),
        ("u8([200]) + u8([100])", "OverflowError", 1, 11, "the result of `+` does not fit into u8"),
        ("a = arange(3); a[0] = 1.5", "TypeError", 1, 17, "cannot store f64 in an array of i64 without loss"),
        ("complex(1, 2) < 3", "TypeError", 1, 15, "complex numbers have no order"),
        ("\"a\" * 2", "TypeError", 1, 5, "`*` does not work between string and int"),
        ("throw \"broken\"", "RuntimeError", 1, 1, "broken"),
        ("inv(zeros(2, 2))", "LinAlgError", 1, 1, "the matrix is singular"),
        ("allreduce(true, \"sum\")", "TypeError", 1, 1, "\"sum\" is not defined for bool"),
        ("barrier()", "KeyboardInterrupt", 1, 1, "barrier was interrupted while it waited for rank 3"),
        ("recv(0)", "CollectiveError", 1, 1, "the ranks disagree"),
        ("send(1, 5)", "ValueError", 1, 1, "rank 5 does not exist"),
        ("a = ", "SyntaxError", 1, 5, ""),
        ("a b", "SyntaxError", 1, 3, ""),
        ("__x = 1", "SyntaxError", 1, 1, "reserved"),
        ("import \"x\" as y", "SyntaxError", 1, 1, ""),
        ("print(b); b = 5", "NameError", 1, 7, "name 'b' is not defined"),
    ];
    let mut wrong = Vec::new();
    for (code, ename, line, column, says) in cases {
        let error = Prompt::new().fails(code);
        let found = (error.ename.as_str(), error.line, error.column);
        if found != (ename, Some(line), Some(column)) || !error.evalue.contains(says) {
            wrong.push(format!(
                "{code}\n  {found:?} {}\n  expected {ename} {line} {column} {says}",
                error.evalue
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_traceback_goes_through_functions_of_other_cells() {
    let mut prompt = Prompt::new();
    prompt.shows("fn inner(x) {\n    y = x + 1;\n    zeros(y)[10]\n}");
    prompt.shows("fn outer(x) { inner(x) }");
    let error = prompt.fails("a = 1;\nouter(a)");
    assert_eq!(
        error.traceback.join("\n"),
        "Traceback (most recent call last):\n\
         \x20 cell 3, line 2, column 1\n\
         \x20   outer(a)\n\
         \x20   ^\n\
         \x20 cell 2, line 1, column 15, in outer\n\
         \x20   fn outer(x) { inner(x) }\n\
         \x20                 ^\n\
         \x20 cell 1, line 3, column 13, in inner\n\
         \x20       zeros(y)[10]\n\
         \x20               ^\n\
         IndexError: index 10 is outside axis 0, which has 2 elements"
    );
    assert_eq!(error.evalue, "index 10 is outside axis 0, which has 2 elements (cell 1, line 3, column 13)");
}

#[test]
fn endless_recursion_is_an_error_also_on_a_small_stack() {
    let thread = std::thread::Builder::new().stack_size(2 << 20);
    let run = || {
        let mut prompt = Prompt::new();
        for code in [
            "fn f(n) { f(n + 1) + 1 } f(0)",
            "fn g(n) { if n > 0 { [1].map(|x| g(n)) } else { 0 } } g(1)",
            "fn a(n) { b(n) } fn b(n) { a(n) } a(1)",
            "f = |x| x; fn h(k) { later(k) } fn later(k) { (((h(((k)))))) } h(1)",
        ] {
            assert_eq!(prompt.fails(code).ename, "RecursionError", "{code}");
        }
        assert_eq!(prompt.shows("fn d(n) { if n == 0 { 0 } else { 1 + d(n - 1) } } d(20)"), "20");
    };
    thread.spawn(run).expect("a thread").join().expect("no overflow of the stack");
}

#[test]
fn deep_nesting_is_refused_by_the_reader() {
    let thread = std::thread::Builder::new().stack_size(2 << 20);
    let run = || {
        for (open, close) in
            [("(", ")"), ("[", "]"), ("-", ""), ("#{a:", "}"), ("if true {", "}"), ("|x| ", "")]
        {
            let code = format!("{}1{}", open.repeat(5000), close.repeat(5000));
            assert_eq!(Prompt::new().fails(&code).ename, "SyntaxError", "{open}");
        }
    };
    thread.spawn(run).expect("a thread").join().expect("no overflow of the stack");
}

#[test]
fn lists_and_strings_have_bounds() {
    let mut prompt = Prompt::new();
    let error = prompt.fails("s = \"0123456789\"; loop { s += s; }");
    assert_eq!(error.ename, "MemoryError");
    let error = prompt.fails("l = [1]; loop { l += l; }");
    assert_eq!(error.ename, "MemoryError");
}

#[test]
fn errors_can_be_caught_and_thrown_again() {
    let mut prompt = Prompt::new();
    assert_eq!(prompt.shows("n = 0; try { zeros(2)[5] } catch (e) { n = e.name } n"), "\"IndexError\"");
    let error = prompt.fails("try { zeros(2)[5] } catch (e) { throw e }");
    assert_eq!(error.ename, "IndexError");
}
