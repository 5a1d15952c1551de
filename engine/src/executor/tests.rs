//! The messages of one request, in their order.

use protocol::Signer;
use protocol::extension::Call;
use protocol::message::execute::{APPLY_REQUEST, EXECUTE_REQUEST};
use serde_json::json;

use super::*;
use crate::solo::Solo;
use crate::testing::{Captured, FakeRunner, captured_iopub, key, session};

#[test]
fn a_cell_is_announced_shown_answered_and_idle_comes_last() {
    let mut bench = Bench::new();
    let request = bench.cell("print hello", json!({ "silent": false }));
    bench.serve(request);

    assert_eq!(bench.iopub_types(), ["status busy", "execute_input", "stream", "status idle"]);
    let (routing, reply) = bench.only_reply();
    assert_eq!(routing, ["mux_out", "client"]);
    assert_eq!(reply.header.msg_type, "execute_reply");
    assert_eq!(
        content(&reply),
        json!({ "status": "ok", "execution_count": 1, "user_expressions": {}, "payload": [] })
    );
}

#[test]
fn everything_carries_the_header_of_its_request_byte_for_byte() {
    let mut bench = Bench::new();
    let request = bench.cell("1", json!({}));
    let header = request.message.wire.header.clone();
    bench.serve(request);

    let messages = bench.iopub.messages().into_iter().chain([bench.only_reply()]);
    for (_, message) in messages {
        assert_eq!(message.wire.parent_header, header, "{}", message.header.msg_type);
    }
}

#[test]
fn the_value_of_the_last_expression_is_shown_unless_silent() {
    let mut bench = Bench::new();
    let request = bench.cell("5", json!({}));
    bench.serve(request);
    let types = bench.iopub_types();
    assert_eq!(types, ["status busy", "execute_input", "execute_result", "status idle"]);
    let (topic, result) = bench.iopub.messages().remove(2);
    assert_eq!(topic, ["engine.0.execute_result"]);
    assert_eq!(
        content(&result),
        json!({ "data": { "text/plain": "5" }, "metadata": {}, "execution_count": 1 })
    );

    let mut silent = Bench::new();
    let request = silent.cell("5", json!({ "silent": true }));
    silent.serve(request);
    assert_eq!(silent.iopub_types(), ["status busy", "status idle"]);
    assert_eq!(content(&silent.only_reply().1)["execution_count"], 0);
}

#[test]
fn the_metadata_of_a_reply_copies_the_request_and_names_the_engine() {
    let mut bench = Bench::new();
    let metadata = json!({
        "label": "lab", "is_broadcast": true, "original_msg_id": "orig", "commworld": { "cell": 7 },
    });
    let request = bench.request(EXECUTE_REQUEST, metadata, json!({ "code": "1" }));
    bench.serve(request);

    let mut metadata: Json = bench.only_reply().1.metadata().unwrap();
    assert!(metadata["started"].as_str().is_some_and(|date| date.ends_with('Z')));
    assert!(metadata["commworld"]["elapsed"].as_f64().is_some());
    metadata["started"].take();
    metadata["commworld"]["elapsed"].take();
    assert_eq!(
        metadata,
        json!({
            "started": null, "dependencies_met": true, "engine": "ENG", "is_broadcast": true,
            "is_coalescing": false, "original_msg_id": "orig", "label": "lab", "status": "ok",
            "commworld": { "rank": 0, "collectives": 0, "elapsed": null },
        })
    );
}

#[test]
fn a_failing_cell_says_where_and_names_the_engine_with_three_keys() {
    let mut bench = Bench::new();
    let request = bench.cell("fail", json!({}));
    let answer = bench.executor.run(request);
    assert!(answer.stops_cells);
    bench.executor.answer(answer);

    assert_eq!(bench.iopub_types(), ["status busy", "execute_input", "error", "status idle"]);
    let (_, reply) = bench.only_reply();
    assert_eq!(
        content(&reply),
        json!({
            "status": "error", "ename": "NameError", "evalue": "x", "traceback": ["NameError: x"],
            "engine_info": { "engine_uuid": "ENG", "engine_id": 0, "method": "execute" },
            "line": 1, "column": 3, "execution_count": 1, "user_expressions": {}, "payload": [],
        })
    );
    let metadata: Json = reply.metadata().unwrap();
    assert_eq!(metadata["engine_info"], json!({ "engine_uuid": "ENG", "engine_id": 0 }));
    assert_eq!(metadata["status"], "error");
}

#[test]
fn a_silent_failure_or_one_that_shall_not_stop_lets_the_cells_behind_it_run() {
    for options in [json!({ "silent": true }), json!({ "stop_on_error": false })] {
        let mut bench = Bench::new();
        let request = bench.cell("fail", options);
        assert!(!bench.executor.run(request).stops_cells);
    }
}

#[test]
fn a_panic_is_the_error_of_its_task_and_the_next_one_runs() {
    let mut bench = Bench::new();
    for code in ["panic", "1"] {
        let request = bench.cell(code, json!({}));
        bench.serve(request);
    }
    let replies = bench.shell.messages();
    let error = content(&replies[0].1);
    assert_eq!(error["evalue"], "the function panicked: a bug in a function");
    assert_eq!(content(&replies[1].1)["status"], "ok");
}

#[test]
fn user_expressions_are_evaluated_one_by_one() {
    let mut bench = Bench::new();
    let request = bench.cell("1", json!({ "user_expressions": { "good": "2", "bad": "fail" } }));
    bench.serve(request);

    let expressions = &content(&bench.only_reply().1)["user_expressions"];
    assert_eq!(expressions["good"], json!({ "status": "ok", "data": { "text/plain": "2" }, "metadata": {} }));
    assert_eq!(expressions["bad"]["ename"], "NameError");
}

#[test]
fn values_are_pushed_and_pulled_back_in_order() {
    let mut bench = Bench::new();
    let push = Call {
        function: "_push".into(),
        keywords: [("a".to_owned(), json!(1)), ("b".to_owned(), json!("two"))].into(),
        ..Call::default()
    };
    let pull = Call { function: "_pull".into(), arguments: vec![json!(["b", "a"])], ..Call::default() };
    for call in [push, pull] {
        let request = bench.call(&call);
        bench.serve(request);
    }

    let replies = bench.shell.messages();
    assert_eq!(content(&replies[0].1)["status"], "ok");
    assert_eq!(content(&replies[1].1)["commworld"]["value"], json!(["two", 1]));
    assert_eq!(bench.iopub_types(), ["status busy", "status idle", "status busy", "status idle"]);
}

#[test]
fn a_called_function_reports_how_many_collectives_it_completed() {
    let mut bench = Bench::new();
    let request = bench.call(&Call { function: "barrier".into(), ..Call::default() });
    bench.serve(request);

    let metadata: Json = bench.only_reply().1.metadata().unwrap();
    assert_eq!(metadata["commworld"]["collectives"], 1);
}

#[test]
fn a_pickled_function_is_refused_with_what_to_do() {
    let mut bench = Bench::new();
    let request = bench.request(APPLY_REQUEST, json!({}), json!({}));
    bench.serve(request);

    let error = content(&bench.only_reply().1);
    assert_eq!(
        (error["ename"].as_str(), &error["engine_info"]["method"]),
        (Some("NotImplementedError"), &json!("apply"),)
    );
    assert_eq!(bench.iopub_types(), ["status busy", "error", "status idle"]);
}

#[test]
fn what_nobody_knows_is_answered_with_an_error() {
    let mut bench = Bench::new();
    let request = bench.request("dance_request", json!({}), json!({}));
    bench.serve(request);

    let (_, reply) = bench.only_reply();
    assert_eq!(reply.header.msg_type, "dance_reply");
    assert_eq!(content(&reply)["ename"], "NotImplementedError");
}

#[test]
fn arguments_that_are_no_values_are_the_tasks_error() {
    let mut bench = Bench::new();
    let broken = json!({ "$array": { "buffer": 7 } });
    let request = bench.call(&Call { function: "echo".into(), arguments: vec![broken], ..Call::default() });
    bench.serve(request);

    assert_eq!(content(&bench.only_reply().1)["status"], "error");
}

#[test]
fn an_aborted_request_is_answered_without_running() {
    let mut bench = Bench::new();
    let request = bench.cell("fail", json!({}));
    bench.executor.abort(&request);

    let (_, reply) = bench.only_reply();
    assert_eq!(reply.header.msg_type, "execute_reply");
    assert_eq!(content(&reply), json!({ "status": "aborted" }));
    let metadata: Json = reply.metadata().unwrap();
    assert_eq!(metadata["status"], "aborted");
    assert_eq!(bench.iopub_types(), ["status busy", "status idle"]);
}

struct Bench {
    executor: Executor,
    shell: Captured,
    iopub: Captured,
    client: Session,
}

impl Bench {
    fn new() -> Bench {
        let (iopub, captured) = captured_iopub();
        let shell = Captured::default();
        let executor = Executor::new(Parts {
            runner: Box::new(FakeRunner::default()),
            communicator: Rc::new(Solo::new()),
            interrupt: Interrupt::new(),
            name: Name { uuid: "ENG".into(), id: EngineId(0) },
            session: session(1),
            shell: Box::new(shell.clone()),
            iopub,
        });
        Bench { executor, shell, iopub: captured, client: Session::new("C".into(), "bob", 9, &key()) }
    }

    fn request(&mut self, msg_type: &str, metadata: Json, content: Json) -> Request {
        let message = self.client.message(Date::from_micros(0), msg_type, &metadata, &content, vec![]);
        let parts = message.to_parts(&["mux_out", "client"].map(Bytes::from_static_str));
        let (routing, message) =
            protocol::Receiver::new(Signer::new(&key())).open(parts).expect("signed just now");
        Request { routing, message }
    }

    fn cell(&mut self, code: &str, mut options: Json) -> Request {
        options["code"] = code.into();
        self.request(EXECUTE_REQUEST, json!({}), options)
    }

    fn call(&mut self, call: &Call) -> Request {
        self.request(APPLY_REQUEST, json!({}), json!({ "commworld": call }))
    }

    fn serve(&mut self, request: Request) {
        let answer = self.executor.run(request);
        self.executor.answer(answer);
    }

    fn only_reply(&self) -> (Vec<String>, Message) {
        let mut replies = self.shell.messages();
        assert_eq!(replies.len(), 1);
        replies.remove(0)
    }

    /// The types of what was published; of states, with the state.
    fn iopub_types(&self) -> Vec<String> {
        let named = |message: &Message| match content(message)["execution_state"].as_str() {
            Some(state) => format!("{} {state}", message.header.msg_type),
            None => message.header.msg_type.clone(),
        };
        self.iopub.messages().iter().map(|(_, message)| named(message)).collect()
    }
}

fn content(message: &Message) -> Json {
    message.content().expect("an object")
}

trait FromStaticStr {
    fn from_static_str(text: &'static str) -> Bytes;
}

impl FromStaticStr for Bytes {
    fn from_static_str(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }
}
