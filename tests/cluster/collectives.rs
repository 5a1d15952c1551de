//! Every collective of the prompt on real ranks, with every kind of value, against what is worked out here.

use client::{ArrayValue, Client, DType, Failure, Value};
use num_complex::Complex64;
use tests::{DEADLINE, Engines, TestCluster};

const SIZES: [usize; 3] = [1, 2, 4];

/// A cluster of so many ranks, and a client of it.
fn world(n: usize) -> (TestCluster, Client) {
    let cluster = TestCluster::start(Engines::Mpi, n);
    let client = cluster.connect();
    (cluster, client)
}

/// Runs a cell on all ranks and returns what an expression has on each.
#[track_caller]
fn after(client: &Client, cell: &str, expression: &str) -> Vec<Value> {
    if let Err(error) = client.all().execute(cell).and_then(|result| result.get_within(DEADLINE)) {
        panic!("`{cell}`: {error}");
    }
    match client.all().pull(expression).and_then(|result| result.get_within(DEADLINE)) {
        Ok(values) => values,
        Err(error) => panic!("`{expression}` after `{cell}`: {error}"),
    }
}

/// The errors of a cell that fails on every rank, by rank.
#[track_caller]
fn errors(client: &Client, cell: &str) -> Vec<String> {
    let outcomes = client.all().execute(cell).and_then(|result| result.join(DEADLINE)).expect("all answer");
    let error = |outcome: &client::EngineOutcome| match &outcome.result {
        Err(Failure::Remote(error)) => error.to_string(),
        other => panic!("`{cell}` was to fail: {other:?}"),
    };
    let errors = outcomes.iter().map(error).collect();
    // Whatever failed, the next collective is right.
    let n = outcomes.len() as i64;
    assert_eq!(after(client, "n = psum(1)", "n"), vec![Value::Int(n); outcomes.len()], "after `{cell}`");
    errors
}

/// How many of `rows` rows a rank gets.
fn part(rows: usize, n: usize, rank: usize) -> usize {
    rows / n + usize::from(rank < rows % n)
}

/// What the root has, `()` elsewhere.
fn only(n: usize, root: usize, value: &Value) -> Vec<Value> {
    (0..n).map(|rank| if rank == root { value.clone() } else { Value::None }).collect()
}

/// Rows of an array.
fn rows(array: &ArrayValue, from: usize, count: usize) -> Value {
    let row = array.shape[1..].iter().product::<u64>() as usize * array.dtype.size();
    let mut shape = array.shape.clone();
    shape[0] = count as u64;
    let bytes = array.data.slice(from * row..(from + count) * row);
    Value::Array(ArrayValue::new(array.dtype, shape, bytes).expect("length and shape agree"))
}

fn repeated(array: &Value, n: usize) -> Value {
    let Value::Array(array) = array else { panic!("{array:?} is no array") };
    let mut shape = array.shape.clone();
    shape[0] *= n as u64;
    Value::Array(ArrayValue::new(array.dtype, shape, array.data.repeat(n).into()).expect("they agree"))
}

#[test]
fn arrays_of_every_type_are_moved_as_they_are() {
    for n in SIZES {
        let (_cluster, client) = world(n);
        for dtype in DType::ALL {
            for shape in [vec![7_u64], vec![5, 3], vec![0], vec![9, 500]] {
                let length = shape.iter().product::<u64>() as usize * dtype.size();
                let bytes: Vec<u8> = match dtype {
                    DType::Bool => (0..length).map(|index| u8::from(index % 3 == 0)).collect(),
                    _ => (0..length).map(|index| (index % 120) as u8).collect(),
                };
                let array = ArrayValue::new(dtype, shape, bytes.into()).expect("length and shape agree");
                let whole = Value::Array(array.clone());
                let context = format!("{dtype}{:?} on {n} ranks", array.shape);
                client.all().push(&[("a", whole.clone())]).expect("sent").get().expect("it arrives");
                let root = n - 1;
                let count = array.shape[0] as usize;
                let parts: Vec<Value> = (0..n)
                    .scan(0, |from, rank| {
                        let mine = part(count, n, rank);
                        *from += mine;
                        Some(rows(&array, *from - mine, mine))
                    })
                    .collect();

                let cell = format!(
                    "root = {root}; given = if rank() == root {{ a }} else {{ () }}; b = bcast(given, root)"
                );
                assert_eq!(after(&client, &cell, "b"), vec![whole.clone(); n], "bcast of {context}");
                assert_eq!(after(&client, "p = scatter(given, root)", "p"), parts, "scatter of {context}");
                assert_eq!(
                    after(&client, "g = gather(p, root)", "g"),
                    only(n, root, &whole),
                    "gather of {context}"
                );
                assert_eq!(
                    after(&client, "g = allgather(p)", "g"),
                    vec![whole.clone(); n],
                    "allgather of {context}"
                );
                let exchanged: Vec<Value> = parts.iter().map(|part| repeated(part, n)).collect();
                assert_eq!(after(&client, "x = alltoall(a)", "x"), exchanged, "alltoall of {context}");
                let ring = "next = (rank() + 1) % size(); last = (rank() + size() - 1) % size()\n\
                    if rank() == 0 { send(a, next); r = recv(last) } else { r = recv(last); send(r, next) }";
                assert_eq!(after(&client, ring, "r"), vec![whole; n], "send of {context}");
            }
        }
    }
}

#[test]
fn values_of_every_kind_are_moved_as_they_are() {
    let text = |text: &str| Value::Str(text.to_owned());
    let kinds = [
        ("7", Value::Int(7)),
        ("-0.125", Value::Float(-0.125)),
        ("true", Value::Bool(true)),
        ("complex(1.5, -2)", Value::Complex(Complex64::new(1.5, -2.0))),
        ("()", Value::None),
        ("\"\"", text("")),
        ("\"žluťoučký kůň\"", text("žluťoučký kůň")),
        ("blob(3, 200)", Value::Bytes(vec![200_u8; 3].into())),
        ("[]", Value::List(vec![])),
        (
            "[1, \"two\", [3.5, ()]]",
            Value::List(vec![Value::Int(1), text("two"), Value::List(vec![Value::Float(3.5), Value::None])]),
        ),
        (
            "#{ a: 1, b: #{ c: \"d\" } }",
            Value::Map(
                [
                    ("a".to_owned(), Value::Int(1)),
                    ("b".to_owned(), Value::Map([("c".to_owned(), text("d"))].into())),
                ]
                .into(),
            ),
        ),
    ];
    for n in SIZES {
        let (_cluster, client) = world(n);
        let root = n / 2;
        for (code, value) in &kinds {
            let cell = format!("v = {code}; b = bcast(if rank() == {root} {{ v }} else {{ 0 }}, {root})");
            assert_eq!(after(&client, &cell, "b"), vec![value.clone(); n], "bcast of {code} on {n} ranks");
            let ring = "next = (rank() + 1) % size(); last = (rank() + size() - 1) % size()\n\
                send(v, next, 5); r = recv(last, 5)";
            assert_eq!(after(&client, ring, "r"), vec![value.clone(); n], "send of {code} on {n} ranks");
            let is_number =
                matches!(value, Value::Int(_) | Value::Float(_) | Value::Bool(_) | Value::Complex(_));
            if !is_number {
                let all = Value::List(vec![value.clone(); n]);
                let gathered = after(&client, &format!("g = gather(v, {root})"), "g");
                assert_eq!(gathered, only(n, root, &all), "gather of {code} on {n} ranks");
                assert_eq!(after(&client, "g = allgather(v)", "g"), vec![all; n], "allgather of {code}");
            }
        }
    }
}

#[test]
fn what_ranks_hold_is_gathered_in_the_order_of_ranks() {
    for n in SIZES {
        let (_cluster, client) = world(n);
        let ranks = || 0..n as i64;
        let maps = ranks().map(|rank| Value::Map([("a".to_owned(), Value::Int(rank))].into())).collect();
        assert_eq!(after(&client, "g = gather(#{a: rank()}, 0)", "g"), only(n, 0, &Value::List(maps)));
        let texts = ranks().map(|rank| Value::Str("x".repeat(rank as usize * 100))).collect();
        let cell = "t = \"\"; for i in 0..rank() * 100 { t += \"x\" }; g = allgather(t)";
        assert_eq!(after(&client, cell, "g"), vec![Value::List(texts); n]);
        let numbers = Value::from(ranks().collect::<Vec<i64>>());
        assert_eq!(after(&client, "g = list(allgather(rank()))", "g"), vec![numbers; n]);
        let uneven = Value::from(ranks().flat_map(|rank| vec![rank; rank as usize]).collect::<Vec<i64>>());
        let cell = "g = list(allgather(i64(zeros(rank())) + rank()))";
        assert_eq!(after(&client, cell, "g"), vec![uneven; n]);
    }
}

#[test]
fn lists_are_scattered_item_by_item() {
    let items = [Value::Int(1), Value::Str("two".to_owned()), Value::List(vec![Value::Int(3)])];
    for n in SIZES {
        let (_cluster, client) = world(n);
        let mut from = 0;
        let parts: Vec<Value> = (0..n)
            .map(|rank| {
                let mine = part(items.len(), n, rank);
                from += mine;
                Value::List(items[from - mine..from].to_vec())
            })
            .collect();
        assert_eq!(after(&client, "s = scatter([1, \"two\", [3]], 0)", "s"), parts);
        assert_eq!(after(&client, "s = scatter([], size() - 1)", "s"), vec![Value::List(vec![]); n]);
    }
}

#[test]
fn reductions_of_all_elements_agree_with_those_of_the_parts() {
    for n in SIZES {
        let (_cluster, client) = world(n);
        let pulled = after(&client, "a = rand(3 + 5 * rank()) + 0.5", "a");
        let elements: Vec<f64> = pulled
            .iter()
            .flat_map(|part| match part {
                Value::Array(part) => floats(part),
                other => panic!("{other:?} is no array"),
            })
            .collect();
        let (sum, product): (f64, f64) = (elements.iter().sum(), elements.iter().product());
        for (name, expected) in [
            ("psum", sum),
            ("pprod", product),
            ("pmin", elements.iter().copied().fold(f64::INFINITY, f64::min)),
            ("pmax", elements.iter().copied().fold(f64::NEG_INFINITY, f64::max)),
            ("pmean", sum / elements.len() as f64),
        ] {
            let results = after(&client, &format!("s = {name}(a)"), "s");
            for result in &results {
                let Value::Float(found) = result else { panic!("{name}: {result:?} is no float") };
                assert!(
                    (found - expected).abs() <= 1e-12 * expected.abs(),
                    "{name}: {found}, not {expected}"
                );
                assert_eq!(result, &results[0], "{name} is the same on all ranks");
            }
        }
        // Integers stay integers, truth values are counted, and an empty part adds nothing.
        let ranks = 0..n as i64;
        for (code, expected) in [
            ("psum(rank() + 1)", ranks.clone().map(|rank| rank + 1).sum::<i64>()),
            ("pprod(rank() + 1)", ranks.clone().map(|rank| rank + 1).product()),
            ("pmin(10 - rank())", 11 - n as i64),
            ("pmax(i32(array([rank(), -1])))", n as i64 - 1),
            ("psum(array([true, rank() == 0]))", n as i64 + 1),
            ("psum(u8(zeros(3) + 255))", 765 * n as i64),
            ("psum(i64(zeros(rank())) + 2)", ranks.map(|rank| 2 * rank).sum()),
        ] {
            assert_eq!(after(&client, &format!("s = {code}"), "s"), vec![Value::Int(expected); n], "{code}");
        }
        let complex = after(&client, "s = psum(complex(1, rank()))", "s");
        assert_eq!(complex, vec![Value::Complex(Complex64::new(n as f64, (n * (n - 1) / 2) as f64)); n]);
    }
}

#[test]
fn elementwise_reductions_agree_with_those_worked_out_here() {
    type Join = fn(i64, i64) -> i64;
    const OPS: [(&str, Join); 4] =
        [("sum", |x, y| x + y), ("prod", |x, y| x * y), ("min", |x, y| x.min(y)), ("max", |x, y| x.max(y))];
    for n in SIZES {
        let (_cluster, client) = world(n);
        let of_rank = |rank: i64| [rank + 2, 3 - 2 * rank, -rank];
        for (op, join) in OPS {
            let upto = |last: usize| {
                let joined = (1..=last as i64).fold(of_rank(0), |sums, rank| {
                    let mine = of_rank(rank);
                    std::array::from_fn(|at| join(sums[at], mine[at]))
                });
                Value::from(joined.to_vec())
            };
            let vector = "x = array([rank() + 2, 3 - 2 * rank(), -rank()])";
            for kind in ["i64", "i32", "f64", "f32"] {
                let cell = |call: &str| {
                    format!("{vector}; r = {call}; r = if r == () {{ () }} else {{ list(i64(r)) }}")
                };
                let all = after(&client, &cell(&format!("allreduce({kind}(x), \"{op}\")")), "r");
                assert_eq!(all, vec![upto(n - 1); n], "allreduce {op} of {kind} on {n} ranks");
                let at_root = after(&client, &cell(&format!("reduce({kind}(x), \"{op}\", size() - 1)")), "r");
                assert_eq!(at_root, only(n, n - 1, &upto(n - 1)), "reduce {op} of {kind} on {n} ranks");
                let prefix = after(&client, &cell(&format!("scan({kind}(x), \"{op}\")")), "r");
                let expected: Vec<Value> = (0..n).map(upto).collect();
                assert_eq!(prefix, expected, "scan {op} of {kind} on {n} ranks");
            }
        }
        let all = after(&client, "r = list(allreduce(array([true, rank() == 0]), \"and\"))", "r");
        assert_eq!(all, vec![Value::List(vec![Value::Bool(true), Value::Bool(n == 1)]); n]);
        let any = after(&client, "r = list(allreduce(array([false, rank() == 0]), \"or\"))", "r");
        assert_eq!(any, vec![Value::List(vec![Value::Bool(false), Value::Bool(true)]); n]);
    }
}

#[test]
fn wrong_calls_say_what_is_wrong_and_the_world_goes_on() {
    let (_cluster, client) = world(4);
    for (cell, wanted) in [
        ("bcast(1, 4)", vec!["bcast", "rank 4 does not exist", "0 to 3"]),
        ("gather(1, -1)", vec!["gather", "rank -1 does not exist"]),
        ("send(1, 9)", vec!["send", "rank 9 does not exist"]),
        ("recv(0, 99999)", vec!["recv", "tag 99999", "32767"]),
        ("allreduce(1, \"median\")", vec!["`median` is not a reduction", "sum, prod, min, max, and, or"]),
        ("allreduce(array([true]), \"sum\")", vec!["allreduce", "not defined for bool", "i64(x)"]),
        ("scan(1.5, \"and\")", vec!["scan", "not defined for f64", "x != 0"]),
        ("pmin(complex(1, 1))", vec!["pmin", "complex", "abs(x)"]),
        ("psum(\"text\")", vec!["string"]),
        ("pmean(zeros(0))", vec!["pmean", "empty on every rank"]),
        (
            "allreduce(zeros(2 + rank() % 2))",
            vec![
                "the ranks disagree",
                "ranks 0 and 2 called allreduce(f64[2], sum)",
                "ranks 1 and 3 called allreduce(f64[3], sum)",
            ],
        ),
        (
            "allreduce(1, if rank() == 3 { \"max\" } else { \"sum\" })",
            vec!["ranks 0, 1 and 2 called allreduce(i64, sum)", "rank 3 called allreduce(i64, max)"],
        ),
        ("gather(1, rank() % 2)", vec!["the ranks disagree", "root 0", "root 1"]),
        (
            "if rank() == 0 { barrier() } else { psum(1) }",
            vec!["rank 0 called barrier()", "ranks 1, 2 and 3"],
        ),
    ] {
        for error in errors(&client, cell) {
            for word in &wanted {
                assert!(error.contains(word), "`{cell}`: {word:?} is missing in: {error}");
            }
        }
    }
}

fn floats(array: &ArrayValue) -> Vec<f64> {
    assert_eq!(array.dtype, DType::F64);
    array.data.as_chunks::<8>().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect()
}
