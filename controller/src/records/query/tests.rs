//! Queries against a plain reading of the same rules, and against whatever else may come.

use proptest::prelude::*;
use serde_json::{Map, Value as Json, json};

use super::*;

/// A record as a map of fields; those that are not there are null.
fn matches_record(query: Json, record: &Json) -> Result<bool, (String, String)> {
    let query = query.as_object().expect("a query is an object");
    let query = Query::parse(query).map_err(|error| (error.ename, error.evalue))?;
    Ok(query.matches(|field| {
        let json = record.get(field.name()).cloned().unwrap_or_default();
        match json.as_str().filter(|_| field.is_date()).and_then(Date::parse) {
            Some(date) => Value::Date(date),
            None => Value::Json(json),
        }
    }))
}

fn record() -> Json {
    json!({
        "msg_id": "s_1_2",
        "submitted": "2026-01-02T03:04:05.000000Z",
        "engine_uuid": "e1",
        "queue": "mux",
        "label": 7,
        "stdout": "a\nb",
        "metadata": { "retries": 2, "targets": ["e1", "e2"] },
        "buffers": [],
    })
}

#[test]
fn every_operator_means_what_it_says() {
    for (query, expected) in [
        (json!({}), true),
        (json!({ "msg_id": "s_1_2" }), true),
        (json!({ "msg_id": "s_1_3" }), false),
        (json!({ "msg_id": null }), false),
        (json!({ "completed": null }), true),
        (json!({ "label": 7.0 }), true),
        (json!({ "label": {} }), true),
        (json!({ "label": { "$eq": 7 } }), true),
        (json!({ "label": { "$ne": 7 } }), false),
        (json!({ "error": { "$ne": "x" } }), true),
        (json!({ "error": { "$eq": null } }), true),
        (json!({ "label": { "$lt": 8 } }), true),
        (json!({ "label": { "$lt": 7 } }), false),
        (json!({ "label": { "$lte": 7 } }), true),
        (json!({ "label": { "$gt": 6.5 } }), true),
        (json!({ "label": { "$gt": 7 } }), false),
        (json!({ "label": { "$gte": 7 } }), true),
        (json!({ "label": { "$lt": "8" } }), false),
        (json!({ "error": { "$lt": "8" } }), false),
        (json!({ "msg_id": { "$gt": "s_1_1", "$lt": "s_1_3" } }), true),
        (json!({ "msg_id": { "$in": ["x", "s_1_2"] } }), true),
        (json!({ "msg_id": { "$in": [] } }), false),
        (json!({ "error": { "$in": [null] } }), true),
        (json!({ "msg_id": { "$nin": ["x", "s_1_2"] } }), false),
        (json!({ "msg_id": { "$nin": [null] } }), true),
        (json!({ "metadata.targets": { "$all": ["e2", "e1"] } }), true),
        (json!({ "metadata.targets": { "$all": ["e2", "e3"] } }), false),
        (json!({ "metadata.targets": { "$all": [] } }), false),
        (json!({ "queue": { "$all": ["mux"] } }), true),
        (json!({ "queue": { "$all": ["mux", "task"] } }), false),
        (json!({ "label": { "$mod": [4, 3] } }), true),
        (json!({ "label": { "$mod": [4, 2] } }), false),
        (json!({ "label": { "$mod": [-4, -1] } }), true),
        (json!({ "label": { "$mod": [2.5, 2] } }), true),
        (json!({ "msg_id": { "$mod": [4, 2] } }), false),
        (json!({ "label": { "$exists": true } }), true),
        (json!({ "label": { "$exists": 0 } }), false),
        (json!({ "error": { "$exists": false } }), true),
        (json!({ "buffers": { "$exists": true } }), true),
        (json!({ "result_buffers": null }), true),
        (json!({ "msg_id": { "$glob": "s_?_[!3]" } }), true),
        (json!({ "stdout": { "$glob": "a*b" } }), true),
        (json!({ "label": { "$glob": "*" } }), false),
        (json!({ "submitted": { "$glob": "2026-01-*" } }), true),
        (json!({ "metadata.retries": 2 }), true),
        (json!({ "metadata.retries.more": null }), true),
        (json!({ "metadata.targets": ["e1", "e2"] }), true),
        (json!({ "queue": "mux", "engine_uuid": "e1" }), true),
        (json!({ "queue": "mux", "engine_uuid": "e2" }), false),
        (json!({ "queue": "task", "engine_uuid": "e1" }), false),
    ] {
        assert_eq!(matches_record(query.clone(), &record()), Ok(expected), "{query}");
    }
}

#[test]
fn dates_are_compared_as_instants_however_they_are_written() {
    for (query, expected) in [
        (json!({ "submitted": "2026-01-02T05:04:05+02:00" }), true),
        (json!({ "submitted": { "$lt": "2026-01-02T03:04:05.000001Z" } }), true),
        (json!({ "submitted": { "$gte": "2026-01-02T03:04:05Z" } }), true),
        (json!({ "submitted": { "$gt": "2026-01-02T03:04:05Z" } }), false),
        (json!({ "submitted": { "$gt": "2026-01-02T04:04:04+01:00" } }), true),
        (json!({ "submitted": { "$in": ["2026-01-02T03:04:05.0", null] } }), true),
        (json!({ "submitted": { "$eq": "yesterday" } }), false),
        (json!({ "completed": { "$lt": "2026-01-02T03:04:05Z" } }), false),
        // A text that looks like a date stays one where no date is.
        (json!({ "msg_id": { "$lt": "2026-01-02T03:04:05Z" } }), false),
    ] {
        assert_eq!(matches_record(query.clone(), &record()), Ok(expected), "{query}");
    }
}

#[test]
fn what_cannot_be_asked_is_refused_under_the_name_that_python_gives_it() {
    for (query, ename, evalue) in [
        (json!({ "msg_id": { "$near": 1 } }), "KeyError", "\"Unsupported operator: '$near'\""),
        (json!({ "header": { "msg_id": "x" } }), "KeyError", "\"Unsupported operator: 'msg_id'\""),
        (json!({ "engine": 1 }), "KeyError", "\"No such field: 'engine'\""),
        (json!({ "engine.x": 1 }), "KeyError", "\"No such field: 'engine.x'\""),
        (
            json!({ "label": { "$lt": null } }),
            "TypeError",
            "$lt of 'label' needs a text, a number, a truth or a list, not this: null",
        ),
        (
            json!({ "completed": { "$gt": 5 } }),
            "TypeError",
            "$gt of 'completed' needs an ISO date, not this: a number",
        ),
        (
            json!({ "completed": { "$gt": "soon" } }),
            "TypeError",
            "$gt of 'completed' needs an ISO date, not this: a text",
        ),
        (
            json!({ "msg_id": { "$in": "abc" } }),
            "TypeError",
            "$in of 'msg_id' needs a list, not this: a text",
        ),
        (json!({ "label": { "$mod": [0, 1] } }), "ValueError", "$mod of 'label': the divisor is zero"),
        (json!({ "label": { "$mod": [0.0, 1] } }), "ValueError", "$mod of 'label': the divisor is zero"),
        (
            json!({ "label": { "$mod": [2] } }),
            "TypeError",
            "$mod of 'label' needs a list of two numbers, not this: a list",
        ),
        (
            json!({ "label": { "$exists": "yes" } }),
            "TypeError",
            "$exists of 'label' needs true or false, not this: a text",
        ),
        (
            json!({ "label": { "$glob": 1 } }),
            "TypeError",
            "$glob of 'label' needs a pattern, not this: a number",
        ),
        (
            json!({ "buffers": "x" }),
            "TypeError",
            "= of 'buffers': buffers can only be tested with $exists, or for null",
        ),
    ] {
        let expected = Err((ename.to_owned(), evalue.to_owned()));
        assert_eq!(matches_record(query.clone(), &record()), expected, "{query}");
    }
}

#[test]
fn a_query_has_a_bounded_size_and_depth() {
    let many = json!({ "label": { "$in": vec![0; VALUES_MAX] } });
    let deep = (0..=JSON_DEPTH_MAX).fold(json!(0), |inner, _| json!([inner]));
    let far = vec!["metadata"; JSON_DEPTH_MAX + 2].join(".");
    for (query, evalue) in [
        (many, "more than 1000000 values in a query"),
        (json!({ "label": deep }), "a query nests deeper than 100"),
        (json!({ far: 1 }), "more than 100 names in a path"),
        (json!({ "label": { "$glob": "a".repeat(5000) } }), "the pattern of $glob is too long"),
    ] {
        assert_eq!(matches_record(query, &record()), Err(("ValueError".to_owned(), evalue.to_owned())));
    }
    let conditions: Map<String, Json> =
        (0..=CONDITIONS_MAX).map(|number| (format!("metadata.{number}"), Json::Null)).collect();
    let refused = Err(("ValueError".to_owned(), "more than 1000 conditions in a query".to_owned()));
    assert_eq!(matches_record(Json::Object(conditions), &record()), refused);
}

#[test]
fn a_query_for_names_says_so() {
    let names = |query: Json| {
        let query = Query::parse(query.as_object().expect("an object")).expect("it can be asked");
        query.msg_ids().map(|names| names.into_iter().map(str::to_owned).collect::<Vec<_>>())
    };
    assert_eq!(names(json!({ "msg_id": "a", "queue": "mux" })), Some(vec!["a".to_owned()]));
    assert_eq!(
        names(json!({ "msg_id": { "$in": ["b", 1, "a"] } })),
        Some(vec!["a".to_owned(), "b".to_owned()])
    );
    assert_eq!(names(json!({ "msg_id": null })), Some(vec![]));
    assert_eq!(names(json!({ "msg_id": { "$ne": "" } })), None);
    assert_eq!(names(json!({ "msg_id.x": "a" })), None);
}

/// The rules read plainly, on JSON; dates are whole seconds of one form, which sort as text.
fn naive(query: &Map<String, Json>, record: &Json) -> bool {
    query.iter().all(|(name, wanted)| {
        let value = record.get(name).cloned().unwrap_or_default();
        match wanted {
            Json::Object(operators) => {
                operators.iter().all(|(operator, operand)| holds(&value, operator, operand))
            }
            wanted => same(&value, wanted),
        }
    })
}

fn same(one: &Json, two: &Json) -> bool {
    match (one.as_f64(), two.as_f64()) {
        (Some(one), Some(two)) => one == two,
        _ => one == two,
    }
}

fn holds(value: &Json, operator: &str, operand: &Json) -> bool {
    let order = match (value, operand) {
        (Json::Number(one), Json::Number(two)) => one.as_f64().partial_cmp(&two.as_f64()),
        (Json::String(one), Json::String(two)) => Some(one.cmp(two)),
        _ => None,
    };
    let list = || operand.as_array().cloned().unwrap_or_default();
    match operator {
        "$eq" => same(value, operand),
        "$ne" => !same(value, operand),
        "$lt" => order == Some(Ordering::Less),
        "$lte" => matches!(order, Some(Ordering::Less | Ordering::Equal)),
        "$gt" => order == Some(Ordering::Greater),
        "$gte" => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
        "$in" => list().iter().any(|item| same(item, value)),
        "$nin" => !list().iter().any(|item| same(item, value)),
        "$all" => {
            let has = |item: &Json| {
                value.as_array().is_some_and(|items| items.iter().any(|other| same(item, other)))
            };
            let list = list();
            !list.is_empty() && (list.iter().all(has) || list.iter().all(|item| same(item, value)))
        }
        "$mod" => {
            let of = |index: usize| operand[index].as_i64().expect("the test gives whole numbers");
            value.as_f64().is_some_and(|number| {
                let floor = (number / of(0) as f64).floor();
                number - floor * of(0) as f64 == of(1) as f64
            })
        }
        "$exists" => value.is_null() != (*operand == json!(true)),
        "$glob" => value.as_str().is_some_and(|text| {
            Glob::parse(operand.as_str().expect("a pattern")).expect("short").matches(text)
        }),
        other => unreachable!("{other}"),
    }
}

fn label() -> impl Strategy<Value = Json> {
    prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        (-4_i64..4).prop_map(Json::from),
        (-4_i32..4).prop_map(|half| Json::from(f64::from(half) / 2.0)),
        "[ab]{0,2}".prop_map(Json::from),
        prop::collection::vec("[ab]", 0..3).prop_map(Json::from),
    ]
}

fn date() -> impl Strategy<Value = Json> {
    prop_oneof![
        Just(Json::Null),
        (0_i64..4).prop_map(|second| Json::from(Date::from_micros(second * 1_000_000).to_string())),
    ]
}

fn some_record() -> impl Strategy<Value = Json> {
    ("[ab]{1,2}", label(), date()).prop_map(
        |(msg_id, label, completed)| json!({ "msg_id": msg_id, "label": label, "completed": completed }),
    )
}

fn some_test(operand: BoxedStrategy<Json>, is_date: bool) -> BoxedStrategy<(String, Json)> {
    let equality = prop_oneof![Just("$eq"), Just("$ne")];
    let ordering = prop_oneof![Just("$lt"), Just("$lte"), Just("$gt"), Just("$gte")];
    let listing = prop_oneof![Just("$in"), Just("$nin"), Just("$all")];
    let comparable = operand.clone().prop_filter("an operand that has an order", move |operand| {
        operand.is_string() || (!is_date && operand.is_number())
    });
    let owned = |(operator, operand): (&str, Json)| (operator.to_owned(), operand);
    let remainder = (1_i64..4, any::<bool>(), -3_i64..4)
        .prop_map(|(divisor, negative, rest)| json!([if negative { -divisor } else { divisor }, rest]));
    prop_oneof![
        (equality, operand.clone()).prop_map(owned),
        (ordering, comparable).prop_map(owned),
        (listing, prop::collection::vec(operand, 0..3).prop_map(Json::from)).prop_map(owned),
        remainder.prop_map(|operand| ("$mod".to_owned(), operand)),
        any::<bool>().prop_map(|operand| ("$exists".to_owned(), json!(operand))),
        "[a*?1-]{0,3}".prop_map(|operand| ("$glob".to_owned(), json!(operand))),
    ]
    .boxed()
}

fn some_query() -> impl Strategy<Value = Map<String, Json>> {
    let text = "[ab]{0,2}".prop_map(Json::from).boxed();
    let one = |name: &'static str, operand: BoxedStrategy<Json>, is_date: bool| {
        let plain = operand.clone().prop_filter("no operators", |operand| !operand.is_object());
        let operators = prop::collection::vec(some_test(operand, is_date), 0..3)
            .prop_map(|tests| Json::Object(tests.into_iter().collect()));
        prop_oneof![plain.boxed(), operators.boxed()]
            .prop_map(move |wanted| (name.to_owned(), wanted))
            .boxed()
    };
    let fields = prop_oneof![
        one("msg_id", text, false),
        one("label", label().boxed(), false),
        one("completed", date().boxed(), true)
    ];
    prop::collection::vec(fields, 0..4).prop_map(|conditions| conditions.into_iter().collect())
}

/// Anything that JSON can say, with words that mean something more often than chance would have them.
fn anything() -> impl Strategy<Value = Json> {
    let word = prop_oneof![
        prop::sample::select(Field::ALL.map(Field::name).to_vec()).prop_map(str::to_owned),
        prop::sample::select(vec![
            "$eq",
            "$ne",
            "$lt",
            "$lte",
            "$gt",
            "$gte",
            "$in",
            "$nin",
            "$all",
            "$mod",
            "$exists",
            "$glob",
            "header.date",
            "."
        ])
        .prop_map(str::to_owned),
        ".{0,6}",
    ];
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<u64>().prop_map(Json::from),
        any::<f64>().prop_map(Json::from),
        word.clone().prop_map(Json::from),
        Just(json!("2026-01-02T03:04:05Z")),
    ];
    leaf.prop_recursive(4, 24, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            prop::collection::btree_map(word.clone(), inner, 0..4)
                .prop_map(|map| Json::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn queries_agree_with_a_plain_reading_of_the_rules(query in some_query(), records in prop::collection::vec(some_record(), 1..8)) {
        for record in records {
            prop_assert_eq!(
                matches_record(Json::Object(query.clone()), &record),
                Ok(naive(&query, &record)),
                "{:?} of {}", query, record
            );
        }
    }

    #[test]
    fn whatever_is_asked_nothing_panics(query in anything(), values in prop::collection::vec(anything(), 1..4)) {
        let Json::Object(query) = query else { return Ok(()) };
        let Ok(query) = Query::parse(&query) else { return Ok(()) };
        for value in values {
            let _ = query.matches(|_| Value::Json(value.clone()));
        }
        let _ = query.matches(|_| Value::Date(Date::from_micros(0)));
        let _ = (query.msg_ids(), query.conditions().count());
    }
}
