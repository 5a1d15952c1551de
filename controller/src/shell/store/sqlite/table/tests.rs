//! A file answers as memory does, and keeps what it has over the lives of controllers.

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::json;
use tempfile::TempDir;

use super::questions::{narrowed, selection_of};
use super::*;
use crate::records::memory::Memory;
use crate::records::query::Query;
use crate::records::testing::*;
use crate::records::{Answer, Change, Output, Purged, Question};

const PLENTY: Bounds = Bounds { records: 1000, bytes: 1 << 30 };

fn open(place: &TempDir, bounds: Bounds) -> Table {
    Table::open(&place.path().join("tasks.db"), bounds, "controller".into()).expect("a new file")
}

fn place() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn told(table: &mut Table, changes: impl IntoIterator<Item = Change>) {
    table.begin().expect("it is ours");
    for change in changes {
        table.remember(at(100), change).expect("there is room");
    }
    table.commit().expect("there is room");
    table.check_invariants();
}

fn content(table: &mut Table, question: Question) -> Json {
    match table.ask(question).expect("it can be read") {
        Answer::Reply { content, .. } => content,
        Answer::Requests(requests) => panic!("no reply: {requests:?}"),
    }
}

fn history(table: &mut Table) -> Json {
    content(table, Question::History)["history"].take()
}

fn task(msg_id: &str, second: i64) -> Vec<Change> {
    vec![
        submitted(Queue::Task, None, msg_id, request(msg_id, second, vec![Bytes::from_static(b"in")])),
        assigned(msg_id, "e0"),
        replied(msg_id, "e0", reply("e0", second, vec![Bytes::from_static(b"out")])),
    ]
}

#[test]
fn what_was_committed_is_there_for_the_next_controller() {
    let place = place();
    let mut table = open(&place, PLENTY);
    told(&mut table, [task("a", 0), task("b", 1)].concat());
    told(&mut table, [output("a", Output::Stdout("said".to_owned()))]);
    let before = table.ask(results(&["a", "b"])).expect("it can be read");
    drop(table);
    let mut table = open(&place, PLENTY);
    assert_eq!(table.ask(results(&["a", "b"])).expect("it can be read"), before);
    told(&mut table, task("c", 2));
    assert_eq!(history(&mut table), json!(["a", "b", "c"]));
}

#[test]
fn tasks_that_an_earlier_controller_left_open_end_with_an_error_unless_they_go_on() {
    let place = place();
    let mut table = open(&place, PLENTY);
    told(&mut table, [submitted(Queue::Mux, Some("e1"), "a", request("a", 0, vec![]))]);
    told(&mut table, task("b", 1));
    let ended = table.ask(results(&["b"])).expect("it can be read");
    drop(table);

    let mut table = open(&place, PLENTY);
    table.take_over(at(200), true).expect("it can be written");
    assert_eq!(
        content(&mut table, query(json!({ "completed": null }), Some(&["queue"])))["records"],
        json!([{ "msg_id": "a", "queue": "mux" }])
    );
    drop(table);

    let mut table = open(&place, PLENTY);
    table.take_over(at(200), false).expect("it can be written");
    table.check_invariants();
    let result = content(&mut table, results(&["a"]))["a"].take();
    assert_eq!(
        (&result["result_header"]["msg_type"], &result["received"]),
        (&json!("apply_reply"), &json!(at(200)))
    );
    assert_eq!(
        (&result["result_content"]["ename"], &result["result_content"]["evalue"]),
        (&json!("EngineError"), &json!("the controller ended before this task did; submit it again"))
    );
    assert_eq!(table.ask(results(&["b"])).expect("it can be read"), ended);
}

#[test]
fn smaller_bounds_make_room_at_once() {
    let place = place();
    let mut table = open(&place, PLENTY);
    told(&mut table, ["a", "b", "c"].into_iter().flat_map(|name| task(name, 0)));
    drop(table);
    let mut table = open(&place, Bounds { records: 1, ..PLENTY });
    table.take_over(at(0), false).expect("it can be written");
    assert_eq!(history(&mut table), json!(["c"]));
    table.check_invariants();
}

#[test]
fn the_table_of_the_original_is_left_alone() {
    let place = place();
    let path = place.path().join("tasks.db");
    let original = Connection::open(&path).expect("a new file");
    original
        .execute_batch("CREATE TABLE 'ipython-tasks' (msg_id text); INSERT INTO 'ipython-tasks' VALUES ('x')")
        .expect("written");
    drop(original);
    let mut table = open(&place, PLENTY);
    told(&mut table, task("a", 0));
    table.ask(purge(Purged::Finished, &[])).expect("it can be written");
    drop(table);
    let original = Connection::open(&path).expect("the file");
    let kept: String =
        original.query_row("SELECT msg_id FROM 'ipython-tasks'", [], |row| row.get(0)).expect("kept");
    assert_eq!(kept, "x");
}

#[test]
fn a_file_of_another_form_is_not_touched() {
    let place = place();
    drop(open(&place, PLENTY));
    let path = place.path().join("tasks.db");
    Connection::open(&path)
        .expect("the file")
        .execute("UPDATE commworld_schema SET version = 7", [])
        .expect("written");
    let Err(error) = Table::open(&path, PLENTY, "c".into()) else { panic!("it has form 7") };
    assert!(error.to_string().starts_with("its records have form 7"), "{error}");
}

#[test]
fn a_damaged_record_is_an_error_and_not_a_wrong_answer() {
    let place = place();
    let mut table = open(&place, PLENTY);
    told(&mut table, [task("a", 0), task("b", 1)].concat());
    table
        .connection
        .execute("UPDATE commworld_replies SET buffers = x'00' WHERE number = 0", [])
        .expect("written");
    assert!(table.ask(results(&["a"])).is_err());
    assert!(table.ask(query(json!({}), Some(&["result_buffers"]))).is_err());
    assert!(table.ask(results(&["b"])).is_ok());
    table
        .connection
        .execute("UPDATE commworld_requests SET json = x'ffffffff' WHERE number = 0", [])
        .expect("written");
    assert!(table.ask(query(json!({ "content.code": "b" }), None)).is_err());
    assert!(table.ask(query(json!({ "msg_id": "b", "content.code": "b" }), None)).is_ok());
}

#[test]
fn queries_by_columns_read_no_frames_and_use_an_index() {
    let place = place();
    let mut table = open(&place, PLENTY);
    told(&mut table, task("a", 0));
    table.connection.execute("UPDATE commworld_requests SET json = x''", []).expect("written");
    let columns = json!({ "submitted": { "$gte": at(0) }, "engine_uuid": "e0", "label": "label of a" });
    let records = content(&mut table, query(columns, Some(&["label", "completed"])))["records"].take();
    assert_eq!(records, json!([{ "msg_id": "a", "label": "label of a", "completed": at(1) }]));
    for (wanted, index) in [
        (json!({ "submitted": { "$gte": at(0) } }), "commworld_by_submitted"),
        (json!({ "completed": at(0) }), "commworld_by_completed"),
        (json!({ "completed": { "$lt": at(0) } }), "commworld_by_completed"),
        (json!({ "engine_uuid": { "$in": ["e0", "e1"] } }), "commworld_by_engine"),
    ] {
        let Json::Object(wanted) = wanted else { panic!("a query is an object") };
        let (condition, parameters) = narrowed(&Query::parse(&wanted).expect("it can be asked"));
        let plan = format!("EXPLAIN QUERY PLAN {}", selection_of(&condition));
        let mut statement = table.connection.prepare(&plan).expect("a statement");
        let plan: Vec<String> = statement
            .query_map(rusqlite::params_from_iter(parameters), |row| row.get(3))
            .expect("a plan")
            .collect::<Result<_, _>>()
            .expect("a plan");
        assert!(plan.concat().contains(index), "{wanted:?}: {plan:?}");
    }
}

#[test]
fn what_is_rolled_back_is_not_counted() {
    let place = place();
    let mut table = open(&place, PLENTY);
    told(&mut table, task("a", 0));
    table.begin().expect("it is ours");
    table.remember(at(0), submitted(Queue::Task, None, "b", request("b", 0, vec![]))).expect("there is room");
    table.roll_back().expect("it is ours");
    table.check_invariants();
    assert_eq!(history(&mut table), json!(["a"]));
}

proptest! {
    // Each case writes a file.
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn a_file_answers_as_memory_does(
        steps in prop::collection::vec(step(), 1..120),
        bounds in prop_oneof![
            Just(PLENTY),
            Just(Bounds { records: 4, bytes: 1 << 30 }),
            Just(Bounds { records: 100, bytes: 40_000 }),
        ],
    ) {
        let place = place();
        let mut table = open(&place, bounds);
        let mut memory = Memory::new(bounds, "controller".into());
        table.begin().expect("it is ours");
        for (second, step) in steps.into_iter().enumerate() {
            match step {
                Step::Remember(change) => {
                    table.remember(at(second as i64), (*change).clone()).expect("there is room");
                    memory.remember(at(second as i64), *change);
                }
                Step::Ask(question) => {
                    let answer = table.ask(question.clone()).expect("it can be read");
                    prop_assert_eq!(answer, memory.ask(question.clone()), "{:?}", question);
                }
            }
        }
        let everything = query(json!({}), None);
        prop_assert_eq!(table.ask(everything.clone()).expect("it can be read"), memory.ask(everything));
        table.commit().expect("there is room");
        table.check_invariants();
        prop_assert_eq!((table.records, table.bytes), memory.size());
    }
}
