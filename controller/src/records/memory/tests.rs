//! What is kept, what is dropped, and what is answered.

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::json;

use super::super::StoredRequest;
use super::super::testing::*;
use super::*;

const PLENTY: Bounds = Bounds { records: 1000, bytes: 1 << 30 };

fn store(bounds: Bounds, changes: Vec<Change>) -> Memory {
    let mut memory = Memory::new(bounds, "controller".into());
    for change in changes {
        memory.remember(at(100), change);
        memory.check_invariants();
    }
    memory
}

fn content(answer: Answer) -> Json {
    match answer {
        Answer::Reply { content, .. } => content,
        Answer::Requests(requests) => panic!("no reply: {requests:?}"),
    }
}

fn history(memory: &mut Memory) -> Json {
    content(memory.ask(Question::History))["history"].take()
}

/// `ename`, `evalue`.
fn error(answer: Answer) -> (String, String) {
    let content = match answer {
        Answer::Reply { content, buffers, .. } => {
            assert!(buffers.is_empty());
            assert_eq!((&content["status"], &content["engine_info"]), (&json!("error"), &json!({})));
            content
        }
        Answer::Requests(Err(error)) => json!(*error),
        Answer::Requests(Ok(requests)) => panic!("no error: {requests:?}"),
    };
    let text = |key: &str| content[key].as_str().expect("errors are texts").to_owned();
    (text("ename"), text("evalue"))
}

fn key_error(text: &str) -> (String, String) {
    ("KeyError".to_owned(), text.to_owned())
}

fn task(msg_id: &str, second: i64) -> Vec<Change> {
    vec![
        submitted(Queue::Task, None, msg_id, request(msg_id, second, vec![Bytes::from_static(b"in")])),
        assigned(msg_id, "e0"),
        replied(msg_id, "e0", reply("e0", second, vec![Bytes::from_static(b"out")])),
    ]
}

#[test]
fn a_record_has_all_fields_of_its_task() {
    let mut changes = task("s_1", 0);
    changes.push(output("s_1", Output::Stdout("one ".to_owned())));
    changes.push(output("s_1", Output::Stdout("two".to_owned())));
    changes.push(output("s_1", Output::Input("1 + 1".to_owned())));
    changes.push(output("s_1", Output::Result(json!({ "data": { "text/plain": "2" } }))));
    changes.push(Change::Resubmitted { msg_id: "s_1".into(), anew: "s_2".into() });
    let mut memory = store(PLENTY, changes);
    let Answer::Reply { msg_type, content, buffers } = memory.ask(query(json!({}), None)) else {
        panic!("queries get replies")
    };
    let expected = json!({
        "status": "ok",
        "records": [{
            "msg_id": "s_1",
            "header": {
                "msg_id": "s_1", "msg_type": "apply_request", "username": "u", "session": "c", "date": at(0),
                "version": "5.4", "further": [1]
            },
            "metadata": { "label": "label of s_1", "retries": 0 },
            "content": { "code": "s_1" },
            "submitted": "2026-01-02T03:04:05.000000Z",
            "client_uuid": "c",
            "engine_uuid": "e0",
            "started": "2026-01-02T03:04:05.000000Z",
            "completed": "2026-01-02T03:04:06.000000Z",
            "resubmitted": "s_2",
            "received": "2026-01-02T03:05:45.000000Z",
            "result_header": {
                "msg_id": "e0_0", "msg_type": "apply_reply", "username": "u", "session": "e0", "date": at(1),
                "version": "5.4"
            },
            "result_metadata": { "started": at(0), "engine": "e0", "status": "ok" },
            "result_content": { "status": "ok" },
            "queue": "task",
            "execute_input": "1 + 1",
            "execute_result": { "data": { "text/plain": "2" } },
            "error": null,
            "stdout": "one two",
            "stderr": "",
            "label": "label of s_1"
        }],
        "buffer_lens": null,
        "result_buffer_lens": null
    });
    assert_eq!((msg_type, content, buffers), ("db_reply", expected, vec![]));
}

#[test]
fn a_task_that_has_not_ended_has_null_for_what_is_not_there() {
    let changes = vec![submitted(Queue::Mux, Some("e1"), "a", request("a", 0, vec![]))];
    let keys = [
        "engine_uuid",
        "started",
        "completed",
        "received",
        "result_header",
        "result_content",
        "resubmitted",
        "stdout",
    ];
    let mut memory = store(PLENTY, changes);
    let records = &content(memory.ask(query(json!({}), Some(&keys))))["records"];
    assert_eq!(
        *records,
        json!([{
            "msg_id": "a", "engine_uuid": "e1", "started": null, "completed": null, "received": null,
            "result_header": null, "result_content": null, "resubmitted": null, "stdout": ""
        }])
    );
}

#[test]
fn buffers_travel_behind_the_records_and_are_counted_for_each() {
    let changes =
        [task("a", 0), task("b", 1), vec![submitted(Queue::Mux, None, "c", request("c", 2, vec![]))]]
            .concat();
    let mut memory = store(PLENTY, changes);
    let bytes = |texts: &[&'static str]| {
        texts.iter().map(|text| Bytes::from_static(text.as_bytes())).collect::<Vec<_>>()
    };
    for (keys, buffer_lens, result_buffer_lens, expected) in [
        (
            vec!["buffers", "result_buffers"],
            json!([1, 1, 0]),
            json!([1, 1, 0]),
            bytes(&["in", "out", "in", "out"]),
        ),
        (vec!["result_buffers"], json!(null), json!([1, 1, 0]), bytes(&["out", "out"])),
        (vec!["queue"], json!(null), json!(null), vec![]),
    ] {
        let Answer::Reply { content, buffers, .. } = memory.ask(query(json!({}), Some(&keys))) else {
            panic!("queries get replies")
        };
        assert_eq!(
            (&content["buffer_lens"], &content["result_buffer_lens"]),
            (&buffer_lens, &result_buffer_lens)
        );
        assert_eq!(buffers, expected);
        assert!(content["records"][0].get("buffers").is_none());
    }
}

#[test]
fn results_carry_their_buffers_in_the_order_of_names() {
    let mut memory = store(PLENTY, [task("b", 0), task("a", 1)].concat());
    let question =
        Question::Results { msg_ids: ids(&["b", "a", "b"]), pending: ids(&["p"]), status_only: false };
    let Answer::Reply { msg_type, content, buffers } = memory.ask(question) else {
        panic!("results are replies")
    };
    assert_eq!((msg_type, buffers.len()), ("result_reply", 2));
    assert_eq!((&content["pending"], &content["completed"]), (&json!(["p"]), &json!(["a", "b"])));
    let result = content["a"].as_object().expect("a result");
    let names: Vec<&str> = result.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        ["header", "io", "metadata", "received", "result_content", "result_header", "result_metadata"]
    );
    assert_eq!(
        result["io"],
        json!({ "execute_input": null, "execute_result": null, "error": null, "stdout": "", "stderr": "" })
    );
}

#[test]
fn a_status_has_names_only() {
    let mut memory = store(PLENTY, task("a", 0));
    let question = Question::Results { msg_ids: ids(&["a"]), pending: vec![], status_only: true };
    assert_eq!(content(memory.ask(question)), json!({ "status": "ok", "pending": [], "completed": ["a"] }));
}

#[test]
fn an_unknown_name_is_an_error_in_pythons_words() {
    let mut memory = store(PLENTY, task("a", 0));
    assert_eq!(error(memory.ask(results(&["a", "zzz"]))), key_error("'No such message: zzz'"));
    assert_eq!(error(memory.ask(requests(&["zzz", "a"]))), key_error("\"No such msg(s): ['zzz']\""));
    assert_eq!(error(memory.ask(query(json!({}), Some(&["foo"])))), key_error("\"No such field: 'foo'\""));
    assert_eq!(
        error(memory.ask(query(json!({ "a": { "$x": 1 } }), None))),
        key_error("\"No such field: 'a'\"")
    );
}

#[test]
fn a_reply_of_the_controllers_own_is_kept_with_a_header() {
    let changes = vec![
        submitted(Queue::Mux, Some("e1"), "a", request("a", 0, vec![])),
        answered("a", Some("e1"), json!({ "status": "error", "ename": "EngineError" })),
    ];
    let mut memory = store(PLENTY, changes);
    let result = content(memory.ask(results(&["a"])))["a"].take();
    assert_eq!(
        result["result_header"],
        json!({
            "msg_id": "controller_a", "msg_type": "apply_reply", "username": "", "session": "controller",
            "date": at(100), "version": "5.4"
        })
    );
    assert_eq!(result["result_content"], json!({ "status": "error", "ename": "EngineError" }));
}

#[test]
fn history_is_in_order_of_the_dates_of_submission() {
    let mut memory = store(PLENTY, [task("late", 9), task("early", 1), task("later", 9)].concat());
    assert_eq!(history(&mut memory), json!(["early", "late", "later"]));
}

#[test]
fn a_share_is_submitted_again_under_its_own_name() {
    let share = request("s_1", 0, vec![Bytes::from_static(b"in")]);
    let changes = vec![
        submitted(Queue::Broadcast, Some("e0"), "s_1_e0", share),
        gathering("s_2", request("s_2", 0, vec![])),
    ];
    let mut memory = store(PLENTY, changes);
    let Answer::Requests(Ok(found)) = memory.ask(requests(&["s_2", "s_1_e0", "s_2"])) else {
        panic!("both are there")
    };
    let plain = request("s_2", 0, vec![]);
    assert_eq!(
        found[0],
        StoredRequest { msg_id: "s_2".into(), header: plain.header, content: plain.content, buffers: vec![] }
    );
    let header: Json = serde_json::from_slice(&found[1].header).expect("JSON");
    assert_eq!((&header["msg_id"], &header["further"]), (&json!("s_1_e0"), &json!([1])));
    assert_eq!((found.len(), &found[1].buffers), (2, &vec![Bytes::from_static(b"in")]));
}

#[test]
fn output_of_a_share_belongs_to_the_broadcast_that_has_one_record() {
    let changes = vec![
        gathering("s_1", request("s_1", 0, vec![])),
        submitted(Queue::Task, None, "s_2", request("s_2", 0, vec![])),
        output("s_1_e0", Output::Stdout("0".to_owned())),
        output("s_1_e1_x", Output::Stdout("1".to_owned())),
        output("s_2_e0", Output::Stdout("nobody's".to_owned())),
    ];
    let mut memory = store(PLENTY, changes);
    let records = content(memory.ask(query(json!({}), Some(&["stdout"]))))["records"].take();
    assert_eq!(records, json!([{ "msg_id": "s_1", "stdout": "01" }, { "msg_id": "s_2", "stdout": "" }]));
}

#[test]
fn what_happens_to_unknown_tasks_is_forgotten() {
    let changes = vec![
        assigned("a", "e0"),
        replied("a", "e0", reply("e0", 0, vec![])),
        answered("a", None, json!({})),
        output("a", Output::Stdout("x".to_owned())),
        Change::Resubmitted { msg_id: "a".into(), anew: "b".into() },
    ];
    let mut memory = store(PLENTY, changes);
    assert_eq!(history(&mut memory), json!([]));
}

#[test]
fn the_first_end_of_a_task_is_its_end() {
    let mut changes = task("a", 0);
    changes.push(answered("a", None, json!({ "status": "error" })));
    let mut memory = store(PLENTY, changes);
    assert_eq!(content(memory.ask(results(&["a"])))["a"]["result_content"], json!({ "status": "ok" }));
}

#[test]
fn a_second_task_of_the_same_name_replaces_the_first() {
    let mut changes = task("a", 0);
    changes.push(submitted(Queue::Mux, None, "a", request("a", 5, vec![])));
    let mut memory = store(PLENTY, changes);
    let records = content(memory.ask(query(json!({}), Some(&["queue", "completed"]))))["records"].take();
    assert_eq!(records, json!([{ "msg_id": "a", "queue": "mux", "completed": null }]));
}

#[test]
fn the_record_that_ended_longest_ago_makes_room_first() {
    let mut changes = vec![submitted(Queue::Task, None, "running", request("running", 0, vec![]))];
    changes.push(submitted(Queue::Task, None, "slow", request("slow", 1, vec![])));
    changes.extend(task("quick", 2));
    changes.push(replied("slow", "e0", reply("e0", 3, vec![])));
    changes.extend(task("x", 4));
    let mut memory = store(Bounds { records: 3, ..PLENTY }, changes.clone());
    assert_eq!(history(&mut memory), json!(["running", "slow", "x"]));
    changes.extend(task("y", 5));
    let mut memory = store(Bounds { records: 3, ..PLENTY }, changes);
    assert_eq!(history(&mut memory), json!(["running", "x", "y"]));
}

#[test]
fn where_nothing_has_ended_the_oldest_makes_room() {
    let changes = ["a", "b", "c"].map(|name| submitted(Queue::Task, None, name, request(name, 0, vec![])));
    let mut memory = store(Bounds { records: 2, ..PLENTY }, changes.to_vec());
    assert_eq!(history(&mut memory), json!(["b", "c"]));
}

#[test]
fn whoever_asks_for_a_dropped_record_hears_which_flag_keeps_more() {
    let mut memory = store(Bounds { records: 1, ..PLENTY }, [task("a", 0), task("b", 1)].concat());
    for answer in [memory.ask(results(&["a", "b"])), memory.ask(requests(&["a"]))] {
        let (ename, evalue) = error(answer);
        assert!(ename == "KeyError" && evalue.contains("a, whose record was dropped"), "{evalue}");
        assert!(evalue.contains("--db-records") && evalue.contains("--db-bytes"), "{evalue}");
    }
    let question = Question::Results { msg_ids: ids(&["a"]), pending: vec![], status_only: true };
    assert_eq!(content(memory.ask(question))["completed"], json!(["a"]), "that it has ended is known");
}

#[test]
fn bytes_of_all_kinds_are_counted() {
    let one = store(PLENTY, task("a", 0)).bytes;
    let bounds = Bounds { bytes: 3 * one, ..PLENTY };
    let mut changes = [task("a", 0), task("b", 1), task("c", 2)].concat();
    assert_eq!(history(&mut store(bounds, changes.clone())), json!(["a", "b", "c"]));
    changes.push(output("c", Output::Stdout("x".to_owned())));
    assert_eq!(history(&mut store(bounds, changes)), json!(["b", "c"]));
}

#[test]
fn buffers_of_more_than_a_quarter_of_the_bytes_are_not_kept_but_the_record_is() {
    let bounds = Bounds { bytes: 100_000, ..PLENTY };
    let large = || vec![Bytes::from(vec![0; 25_001])];
    let mut memory = store(
        bounds,
        vec![
            submitted(Queue::Task, None, "a", request("a", 0, large())),
            replied("a", "e0", reply("e0", 0, vec![])),
            submitted(Queue::Task, None, "b", request("b", 0, vec![])),
            replied("b", "e0", reply("e0", 0, large())),
        ],
    );
    assert_eq!(history(&mut memory), json!(["a", "b"]));
    assert!(error(memory.ask(requests(&["a"]))).1.contains("The request of a was not kept"));
    assert!(error(memory.ask(results(&["b"]))).1.contains("The result of b was not kept"));
    assert_eq!(content(memory.ask(results(&["a"])))["completed"], json!(["a"]));
    assert!(matches!(memory.ask(requests(&["b"])), Answer::Requests(Ok(_))));
}

#[test]
fn a_message_that_is_too_large_without_its_buffers_has_no_record() {
    let bounds = Bounds { bytes: 100_000, ..PLENTY };
    let mut huge = request("a", 0, vec![]);
    huge.content = Bytes::from(json!({ "code": "x".repeat(30_000) }).to_string());
    let mut reply = reply("e0", 0, vec![]);
    reply.content = huge.content.clone();
    let mut changes = vec![submitted(Queue::Task, None, "a", huge)];
    changes.push(submitted(Queue::Task, None, "b", request("b", 0, vec![])));
    changes.push(replied("b", "e0", reply));
    let mut memory = store(bounds, changes);
    assert_eq!(history(&mut memory), json!([]));
    for name in ["a", "b"] {
        assert!(error(memory.ask(results(&[name]))).1.contains("was dropped"));
    }
}

#[test]
fn a_stream_is_kept_up_to_its_bound_and_says_where_it_was_cut() {
    let mib = |count: usize| Output::Stdout("é".repeat(count * 512 * 1024));
    let mut changes = vec![submitted(Queue::Task, None, "a", request("a", 0, vec![]))];
    changes.extend([mib(3), Output::Stdout("x".to_owned()), mib(2), mib(1)].map(|text| output("a", text)));
    changes.push(output("a", Output::Result(json!({ "data": { "text/plain": "x".repeat(5 << 20) } }))));
    let mut memory = store(PLENTY, changes);
    let record =
        content(memory.ask(query(json!({}), Some(&["stdout", "execute_result"]))))["records"][0].take();
    let stdout = record["stdout"].as_str().expect("text");
    assert!(stdout.ends_with("é\n[more was said than a record keeps: 4 MiB]\n"));
    assert!((4 << 20..(4 << 20) + 100).contains(&stdout.len()), "{}", stdout.len());
    assert_eq!(
        record["execute_result"],
        json!({ "data": { "text/plain": "[more was said than a record keeps: 4 MiB]" }, "metadata": {} })
    );
}

#[test]
fn purging_takes_the_named_the_ended_or_those_of_an_engine() {
    let mut changes = [task("a", 0), task("b", 1)].concat();
    changes.push(submitted(Queue::Mux, Some("e1"), "c", request("c", 2, vec![])));
    changes.push(replied("c", "e1", reply("e1", 2, vec![])));
    changes.push(submitted(Queue::Mux, Some("e1"), "open", request("open", 3, vec![])));
    for (question, left) in [
        (purge(Purged::Finished, &[]), json!(["open"])),
        (purge(Purged::These(ids(&["a", "nobody"])), &[]), json!(["b", "c", "open"])),
        (purge(Purged::These(vec![]), &["e1"]), json!(["a", "b", "open"])),
        (purge(Purged::These(ids(&["a"])), &["e1", "e7"]), json!(["b", "open"])),
    ] {
        let mut memory = store(PLENTY, changes.clone());
        let answer = memory.ask(question);
        assert_eq!(
            answer,
            Answer::Reply { msg_type: "purge_reply", content: json!({ "status": "ok" }), buffers: vec![] }
        );
        memory.check_invariants();
        assert_eq!(history(&mut memory), left);
    }
    let mut memory = store(PLENTY, changes);
    memory.ask(purge(Purged::These(ids(&["a"])), &[]));
    assert!(error(memory.ask(results(&["a"]))).1.contains("a, whose record was purged"));
}

#[test]
fn a_result_whose_end_was_never_told_is_an_error_and_no_endless_wait() {
    let changes = vec![submitted(Queue::Task, None, "a", request("a", 0, vec![]))];
    let mut memory = store(PLENTY, changes);
    assert!(error(memory.ask(results(&["a"]))).1.contains("The result of a was not recorded"));
}

#[test]
fn an_answer_of_more_than_a_gigabyte_asks_for_less() {
    // One piece of memory that nobody touches, in five records.
    let large = Bytes::from(vec![0; 256 << 20]);
    let names = ["a", "b", "c", "d", "e"];
    let changes = names.map(|name| submitted(Queue::Task, None, name, request(name, 0, vec![large.clone()])));
    let mut memory = store(Bounds { bytes: 1 << 40, ..PLENTY }, changes.to_vec());
    let refused = (
        "ValueError".to_owned(),
        "the answer has more than 1 GiB of buffers; ask for fewer records, or fewer of their fields"
            .to_owned(),
    );
    assert_eq!(error(memory.ask(query(json!({}), Some(&["buffers"])))), refused);
    assert_eq!(error(memory.ask(requests(&names))), refused);
    assert!(matches!(memory.ask(requests(&names[..4])), Answer::Requests(Ok(_))));
}

#[test]
fn a_thousand_records_of_which_each_is_asked_for_by_name_are_found_by_name() {
    let names: Vec<String> = (0..1000).map(|number| format!("s_{number}")).collect();
    let mut memory = store(
        PLENTY,
        names.iter().enumerate().flat_map(|(second, name)| task(name, second as i64)).collect(),
    );
    let wanted: Vec<&String> = names.iter().step_by(2).collect();
    let records =
        content(memory.ask(query(json!({ "msg_id": { "$in": wanted } }), Some(&["msg_id"]))))["records"]
            .take();
    let expected: Vec<Json> = wanted.iter().map(|name| json!({ "msg_id": name })).collect();
    assert_eq!(records, Json::from(expected));
}

proptest! {
    #[test]
    fn whatever_happens_the_bounds_hold_and_bytes_are_counted(
        steps in prop::collection::vec(step(), 0..80),
        bounds in prop_oneof![Just(PLENTY), Just(Bounds { records: 4, bytes: 1 << 30 }), Just(Bounds { records: 100, bytes: 40_000 })],
    ) {
        let mut memory = Memory::new(bounds, "controller".into());
        for (second, step) in steps.into_iter().enumerate() {
            match step {
                Step::Remember(change) => memory.remember(at(second as i64), *change),
                Step::Ask(question) => drop(memory.ask(question)),
            }
            memory.check_invariants();
        }
    }
}
