//! Names, functions and control flow over several cells.

use std::collections::BTreeMap;

use protocol::value::{ArrayValue, DType, Value};

use super::*;
use crate::runner::{Completeness, CompletionKind};

#[test]
fn plain_values_are_shown_as_typed() {
    assert_shows(&[
        ("7/2", "3.5"),
        ("6/2", "3.0"),
        ("div(7, 2)", "3"),
        ("div(-7, 2)", "-4"),
        ("-7 % 3", "2"),
        ("7.5 % 2", "1.5"),
        ("2**10", "1024"),
        ("2**-1", "0.5"),
        ("2.0**0.5", "1.4142135623730951"),
        ("a = 7; a /= 2; a", "3.5"),
        ("a = 7; a %= 4; a", "3"),
        ("a = 3; a **= 2; a", "9"),
        ("1 + 2.5", "3.5"),
        ("\"a\" + \"b\"", "\"ab\""),
        ("[1, 2.0, \"x\", ()]", "[1, 2.0, \"x\", ()]"),
        ("#{a: 1, b: [2]}", "#{a: 1, b: [2]}"),
        ("complex(1, 2) * complex(0, 1)", "-2.0+1.0i"),
        ("1 + 2 * I", "1.0+2.0i"),
        ("complex(1, -2).im", "-2.0"),
        ("-complex(1, 2)", "-1.0-2.0i"),
        ("complex(3, 4) == complex(3, 4)", "true"),
        ("abs(complex(3, 4))", "5.0"),
        ("abs(-3)", "3"),
        ("sqrt(2)", "1.4142135623730951"),
        ("log(E)", "1.0"),
        ("max(3, 4.5)", "4.5"),
        ("1e300 * 1e10", "inf"),
        ("1e-10", "1e-10"),
        ("()", ""),
        ("a = 5", ""),
        ("5;", "5"),
        ("if true { 1 } else { 2 }", "1"),
        ("s = 0; for i in 0..5 { s += i } s", "10"),
        ("s = 0; i = 0; while i < 3 { i += 1; s = s + i } s", "6"),
        ("x = if 1 > 2 { 3 } else { 4 }; x", "4"),
        ("t = 0; for x in array([1.5, 2.5]) { t += x } t", "4.0"),
        ("t = 0; for x in [1, 2, 3] { if x == 2 { continue; } t += x } t", "4"),
        ("m = 0; try { error(\"no\") } catch (e) { m = e.message } m", "\"no\""),
        ("m = 0; try { 1/0 } catch (e) { m = e.name } m", "\"ZeroDivisionError\""),
        ("[3, 1, 2].map(|x| x * 2)", "[6, 2, 4]"),
        ("k = 3; [1, 2].map(|x| x * k)", "[3, 6]"),
        ("`${1 + 1} and ${\"x\"}`", "\"2 and x\""),
        ("int(\"42\") + int(2.9)", "44"),
        ("switch 2 { 1 => \"a\", 2 => \"b\", _ => \"c\" }", "\"b\""),
        ("kind(1) + kind(1.0) + kind([]) + kind(zeros(1))", "\"intfloatlistarray\""),
    ]);
}

#[test]
fn names_live_from_cell_to_cell_and_functions_see_them() {
    let mut prompt = Prompt::new();
    prompt.shows("a = 5");
    assert_eq!(prompt.shows("a + 1"), "6");
    prompt.shows("fn f(x) { y = x + a; y * 2 }");
    assert_eq!(prompt.shows("f(1)"), "12");
    prompt.shows("a = 10");
    assert_eq!(prompt.shows("f(1)"), "22", "the function sees the new value");
    assert_eq!(prompt.fails("y").ename, "NameError", "what a function assigns is its own");
    prompt.shows("fn f(x, z) { x - z }");
    assert_eq!(prompt.shows("f(5, 3)"), "2");
    assert_eq!(prompt.fails("f(1)").ename, "TypeError", "the old definition is gone");
    prompt.shows("let a = 1; const B = 2;");
    assert_eq!(prompt.shows("a + B"), "3");
    assert_eq!(prompt.fails("B = 3").ename, "TypeError");
    prompt.shows("if true { c = 9 }");
    assert_eq!(prompt.shows("c"), "9", "blocks at top level assign names of the session");
    prompt.shows("if true { let hidden = 9; }");
    assert_eq!(prompt.fails("hidden").ename, "NameError");
    assert_eq!(prompt.shows("names()"), "[\"B\", \"a\", \"c\"]");
    prompt.shows("del(\"a\")");
    assert_eq!(prompt.fails("a").ename, "NameError");
    prompt.script.clear();
    assert_eq!(prompt.fails("f(1, 2)").ename, "NameError");
}

#[test]
fn functions_can_store_into_global_arrays_but_not_rebind_them() {
    let mut prompt = Prompt::new();
    prompt.shows("a = zeros(3); l = [1, 2]; fn touch() { a[0] = 7; l[1] = 9; } touch()");
    assert_eq!(prompt.shows("a"), "array([7., 0., 0.])");
    assert_eq!(prompt.shows("l"), "[1, 9]");
    prompt.shows("fn own() { a = 1; a } own()");
    assert_eq!(prompt.shows("a"), "array([7., 0., 0.])");
    let error = prompt.fails("fn bad() { a += 1 }");
    assert_eq!((error.ename.as_str(), error.line, error.column), ("SyntaxError", Some(1), Some(12)));
}

#[test]
fn functions_are_values() {
    let mut prompt = Prompt::new();
    prompt.shows("f = |x| x * 2; fn twice(g, x) { g(g(x)) }");
    assert_eq!(prompt.shows("f(4)"), "8");
    assert_eq!(prompt.shows("twice(f, 3)"), "12");
    assert_eq!(prompt.shows("twice(sqrt, 16)"), "2.0");
    prompt.shows("fn half(x) { x / 2 }");
    assert_eq!(prompt.shows("twice(half, 8)"), "2.0");
    prompt.shows("k = 2; g = |x| x + k; k = 10");
    assert_eq!(prompt.shows("g(1)"), "11", "a closure sees the present value");
    prompt.shows("fn outer(n) { local = n; inner = |x| x + local; inner(1) }");
    assert_eq!(prompt.shows("outer(5)"), "6");
}

#[test]
fn functions_can_call_what_is_defined_later() {
    let mut prompt = Prompt::new();
    prompt.shows("fn first(x) { second(x) + 1 }");
    assert_eq!(prompt.fails("first(1)").ename, "NameError");
    prompt.shows("fn second(x) { x * 10 }");
    assert_eq!(prompt.shows("first(2)"), "21");
    assert_eq!(prompt.shows("fn even(n) { if n == 0 { true } else { odd(n - 1) } } fn odd(n) { if n == 0 { false } else { even(n - 1) } } even(10)"), "true");
}

#[test]
fn a_file_runs_as_if_it_were_typed() {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::io::Write::write_all(&mut file, b"fn add(x, y) { x + y }\nfn scale(x) { x * factor }\nfactor = 3\n")
        .expect("it can be written");
    let mut prompt = Prompt::new();
    let path = file.path().display().to_string();
    assert_eq!(prompt.shows(&format!("run({path:?}); add(1, 2) + scale(2)")), "9", "in the same cell");
    assert_eq!(prompt.shows("add(1, scale(1))"), "4");
    assert_eq!(prompt.fails("run(\"/nowhere/at all\")").ename, "FileNotFoundError");
}

#[test]
fn an_error_in_a_file_names_the_file() {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::io::Write::write_all(&mut file, b"x = 1\ny = nope + x\n").expect("it can be written");
    let error = Prompt::new().fails(&format!("run({:?})", file.path().display().to_string()));
    assert_eq!(error.ename, "NameError");
    assert!(error.evalue.contains("line 2, column 5"), "{}", error.evalue);
    assert_eq!(error.line, Some(1), "the place in the cell is that of the call");
}

#[test]
fn output_is_written_as_it_happens() {
    let mut prompt = Prompt::new();
    prompt.shows("print(1, 2.5, \"x\", [1, \"y\"]); print(\"one\"); print(); print(arange(3)); print(1.0)");
    assert_eq!(prompt.printed(), "1 2.5 x [1, \"y\"]\none\n\narray([0, 1, 2])\n1.0\n");
    prompt.fails("print(\"before\"); nope");
    assert_eq!(prompt.printed(), "before\n");
    prompt.shows("help(\"psum\")");
    assert!(prompt.printed().starts_with("psum(a): the sum of all elements on all ranks"));
    prompt.shows("help()");
    assert!(prompt.printed().contains("allreduce(x, op)"));
    prompt.shows("a = zeros(4); who()");
    assert_eq!(prompt.printed(), "a                f64        [4]\n");
}

#[test]
fn the_memory_of_an_array_is_freed_with_its_last_name() {
    for code in [
        "a = ()",
        "del(\"a\")",
        "let a = 1",
        "let a = 1; let a = 2",
        "b = a; a = 0; b = 0",
        "f(f(a)); a = 0",
        "for i in 0..3 { let t = a; } a = 0",
        "fn keep() { own = a; sum(own) } keep(); a = 0",
        "l = [a, #{x: a}]; l = (); a = ()",
        "a[0] = 5",
        "a = a + 1",
    ] {
        let mut prompt = Prompt::new();
        prompt.shows("fn f(x) { y = x; y } a = ones(4)");
        let Array::F64(probe) = prompt.script.session.get("a").expect("it is defined").cast::<Array>() else {
            panic!("ones are f64");
        };
        prompt.shows(code);
        assert!(probe.try_into_owned_nocopy().is_ok(), "{code}: something still holds the elements");
    }
}

#[test]
fn values_go_in_and_out() {
    let mut prompt = Prompt::new();
    let array =
        ArrayValue::new(DType::F64, vec![2], 1.5_f64.to_le_bytes().repeat(2).into()).expect("16 bytes");
    prompt.script.push("a", Value::Array(array.clone())).expect("a name");
    assert_eq!(prompt.shows("a"), "array([1.5, 1.5])");
    let context = prompt.context();
    assert_eq!(prompt.script.pull("a", &context), Ok(Value::Array(array)));
    assert_eq!(prompt.script.pull("sum(a) * 2", &context), Ok(Value::Float(6.0)));
    assert_eq!(prompt.script.pull("#{x: [1, true]}", &context).expect("plain"), {
        Value::Map(BTreeMap::from([("x".to_owned(), Value::List(vec![Value::Int(1), Value::Bool(true)]))]))
    });
    assert_eq!(prompt.script.pull("nope", &context).expect_err("unknown").ename, "NameError");
    for name in ["", "a b", "__x", "if", "fn", "1a", "a;b = 1"] {
        assert_eq!(prompt.script.push(name, Value::None).expect_err(name).ename, "NameError", "{name}");
    }
}

#[test]
fn functions_are_applied_by_name_native_ones_first() {
    let mut natives = Registry::new();
    natives
        .register("double", |_, arguments| match arguments.as_slice() {
            [Value::Int(number)] => Ok(Value::Int(number * 2)),
            _ => Err(RunError::new("TypeError", "double takes one integer")),
        })
        .expect("the name is free");
    let mut prompt = Prompt::with(natives);
    let context = prompt.context();
    prompt.shows("k = 4; fn add(x, y) { x + y + k } neg = |x| -x");
    let mut apply = |name: &str, arguments: Vec<Value>| {
        prompt.script.apply(name, arguments, BTreeMap::new(), &context).map_err(|error| error.ename)
    };
    assert_eq!(apply("double", vec![Value::Int(4)]), Ok(Value::Int(8)));
    assert_eq!(apply("double", vec![]), Err("TypeError".into()));
    assert_eq!(apply("add", vec![Value::Int(1), Value::Int(2)]), Ok(Value::Int(7)));
    assert_eq!(apply("neg", vec![Value::Int(1)]), Ok(Value::Int(-1)));
    assert_eq!(apply("sum", vec![Value::from(vec![1_i64, 2])]), Ok(Value::Int(3)));
    assert_eq!(apply("sqrt", vec![Value::Int(4)]), Ok(Value::Float(2.0)));
    assert_eq!(apply("nothing", vec![]), Err("NameError".into()));
    assert_eq!(apply("not a name", vec![]), Err("NameError".into()));
    assert_eq!(prompt.shows("double(21) + add(0, 0)"), "46");
}

#[test]
fn an_interrupt_ends_loops_and_sleeps() {
    for code in [
        "loop { }",
        "while true { x = 1 }",
        "sleep(600)",
        "fn f() { loop { try { loop { } } catch { } } } f()",
    ] {
        let mut prompt = Prompt::new();
        prompt.interrupt.arm();
        let interrupt = prompt.interrupt.clone();
        let raiser = std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(30));
            interrupt.raise();
        });
        let error = prompt.fails(code);
        raiser.join().expect("it only sleeps");
        assert!(error.interrupted, "{code}");
        assert_eq!(error.ename, "KeyboardInterrupt", "{code}");
        prompt.interrupt.disarm();
        assert_eq!(prompt.shows("1 + 1"), "2", "the next cell runs");
    }
}

#[test]
fn completion_offers_names_builtins_and_words() {
    let mut prompt = Prompt::new();
    prompt.shows("psi = 1; fn psquare(x) { x * x }");
    let found = prompt.script.complete("b = ps", 6);
    let texts: Vec<&str> = found.iter().map(|completion| completion.text.as_str()).collect();
    assert_eq!(texts, ["psi", "psquare", "psum"]);
    assert_eq!(found[1].kind, CompletionKind::Function);
    assert!(prompt.script.complete("whi", 3).iter().any(|completion| completion.text == "while"));
    assert!(prompt.script.complete("é", 1).is_empty(), "a cursor inside of a letter is no panic");
    assert!(prompt.script.inspect("psum").expect("a builtin").contains("Collective"));
    assert!(prompt.script.inspect("psquare").expect("a function").contains("cell 1"));
    assert_eq!(prompt.script.inspect("nothing at all"), None);
}

#[test]
fn open_cells_are_told_from_wrong_ones() {
    let prompt = Prompt::new();
    for code in ["1 + 1", "fn f(x) { x }", "", "a = [1,\n2]"] {
        assert_eq!(prompt.script.is_complete(code), Completeness::Complete, "{code}");
    }
    for code in ["fn f(x) {", "a = [1,", "f(", "if x {\n y", "`text", "/* comment", "a ="] {
        assert_eq!(prompt.script.is_complete(code), Completeness::Incomplete, "{code}");
    }
    for code in ["a b", "1 +* 2", "}", "\"text"] {
        assert!(matches!(prompt.script.is_complete(code), Completeness::Invalid(_)), "{code}");
    }
}

#[test]
fn collectives_of_one_rank_give_the_value_itself() {
    assert_shows(&[
        ("rank()", "0"),
        ("size()", "1"),
        ("psum(arange(5))", "10"),
        ("psum([0.5, 0.25])", "0.75"),
        ("psum(3)", "3"),
        ("psum(zeros(0))", "0.0"),
        ("psum(array([true, false, true]))", "2"),
        ("pmin(array([3, 1, 2]))", "1"),
        ("pmax(zeros(0))", "-inf"),
        (
            "pmax(zeros(0, \"i64\"))",
            "ValueError: pmax of arrays that are empty on every rank (cell 1, line 1, column 1)",
        ),
        ("pmean([1, 2])", "1.5"),
        ("pprod([2, 3])", "6"),
        ("psum(complex(1, 2))", "1.0+2.0i"),
        ("allreduce(arange(3), \"max\")", "array([0, 1, 2])"),
        ("allreduce(2, \"sum\")", "2"),
        ("allreduce(true, \"and\")", "true"),
        ("bcast(#{a: [1, \"x\", zeros(2)]}, 0)", "#{a: [1, \"x\", array([0., 0.])]}"),
        ("bcast(2.5)", "2.5"),
        ("gather(7, 0)", "array([7])"),
        ("gather(\"text\", 0)", "[\"text\"]"),
        ("allgather(arange(2))", "array([0, 1])"),
        ("scatter([1, \"two\", [3]], 0)", "[1, \"two\", [3]]"),
        ("scatter(arange(3), 0)", "array([0, 1, 2])"),
        ("scan(2, \"prod\")", "2"),
        ("send(1, 0)", ""),
        ("seed(1); a = rand(); seed(1); a == rand()", "true"),
    ]);
}

#[test]
fn the_reference_in_the_documentation_is_up_to_date() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/PROMPT.md");
    let text = std::fs::read_to_string(&path).expect("docs/PROMPT.md exists");
    let (start, end) = ("<!-- reference: begin -->\n", "<!-- reference: end -->");
    let (before, rest) = text.split_once(start).expect("the reference has a begin");
    let (found, after) = rest.split_once(end).expect("the reference has an end");
    let reference = crate::runner::script::reference();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, format!("{before}{start}{reference}{end}{after}")).expect("it can be written");
    } else {
        assert!(
            found == reference,
            "docs/PROMPT.md is out of date; run: UPDATE_DOCS=1 cargo test -p engine --lib reference"
        );
    }
}

#[test]
fn names_of_builtins_are_unique() {
    let mut names: Vec<&str> = super::super::builtins::all().map(|builtin| builtin.name).collect();
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count);
}
