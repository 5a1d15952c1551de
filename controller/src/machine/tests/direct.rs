//! Requests to one named engine.

use protocol::message::execute::Dependency;

use super::*;

fn control(msg_id: &str, msg_type: &str, engine: u32, aborted: &[&str]) -> Event {
    let target = Target::Control { engine: identity(engine), aborted: ids(aborted) };
    submitted(Channel::Control, msg_id, msg_type, target)
}

#[test]
fn a_request_goes_to_its_engine_and_the_reply_to_its_client() {
    let mut sim = Sim::with_engines(2);
    assert_eq!(sim.on(direct("d", 1)), [forwarded(Channel::Mux, 1, 1, "d")]);
    assert_eq!(sim.on(replied(Channel::Mux, 1, 1, None)), [relayed(Channel::Mux, 1, 1)]);
    assert_eq!(sim.controller.unanswered(), 0);
}

#[test]
fn a_reply_counts_once_and_only_from_the_engine_that_was_asked() {
    let mut sim = Sim::with_engines(2);
    sim.on(direct("d", 1));
    assert_eq!(sim.on(replied(Channel::Mux, 0, 1, None)), [], "another engine");
    assert_eq!(sim.on(replied(Channel::Control, 1, 1, None)), [], "another channel");
    sim.on(replied(Channel::Mux, 1, 1, None));
    assert_eq!(sim.on(replied(Channel::Mux, 1, 1, None)), [], "a second time");
}

#[test]
fn late_result_of_a_lost_engine_is_dropped() {
    let mut sim = Sim::with_engines(1);
    sim.on(direct("d", 0));
    sim.on(Event::Unregistering { engine: Some(EngineId(0)) });
    assert_eq!(sim.on(replied(Channel::Mux, 0, 1, None)), []);
}

#[test]
fn a_request_to_nobody_is_answered_at_once() {
    let mut sim = Sim::with_engines(1);
    let effects = sim.on(direct("d", 9));
    assert_eq!(error_names(&effects), [pair("d", "EngineError")]);
    assert!(matches!(&effects[..], [Effect::Reply { engine: Some(engine), msg_type, metadata, .. }]
        if engine.as_str() == "e9" && msg_type == "apply_reply" && metadata["engine"] == "e9"));
}

#[test]
fn open_control_requests_of_a_lost_engine_are_answered_ok_where_its_end_fulfils_them() {
    let mut sim = Sim::with_engines(1);
    for (id, msg_type) in [("k", "signal_request"), ("s", "shutdown_request"), ("c", "clear_request")] {
        sim.on(control(id, msg_type, 0, &[]));
    }
    let lost = sim.on(Event::Unregistering { engine: Some(EngineId(0)) });
    assert_eq!(error_names(&lost), [pair("k", "ok"), pair("s", "ok"), pair("c", "EngineError")]);
}

#[test]
fn what_is_no_request_is_passed_on_and_not_waited_for() {
    let mut sim = Sim::with_engines(1);
    let comm = submitted(Channel::Mux, "m", "comm_msg", Target::Engine(identity(0)));
    assert!(matches!(&sim.on(comm)[..], [Effect::Forward { task: TaskId::NONE, .. }]));
    assert_eq!(sim.controller.unanswered(), 0);
}

#[test]
fn an_undelivered_request_fails_while_its_engine_stays() {
    let mut sim = Sim::with_engines(1);
    sim.on(direct("d", 0));
    let effects = sim.on(Event::Undelivered { engine: "e0".into(), task: TaskId(1) });
    assert_eq!(error_names(&effects), [pair("d", "EngineError")]);
    assert_eq!(sim.on(Event::Undelivered { engine: "e0".into(), task: TaskId(1) }), []);
}

#[test]
fn a_shutdown_that_cannot_be_delivered_is_no_success_while_its_engine_stays() {
    let mut sim = Sim::with_engines(1);
    sim.on(control("s", "shutdown_request", 0, &[]));
    let effects = sim.on(Event::Undelivered { engine: "e0".into(), task: TaskId(1) });
    assert_eq!(error_names(&effects), [pair("s", "EngineError")]);
}

#[test]
fn an_abort_ends_waiting_tasks_and_goes_on_to_the_engine() {
    let mut sim = Sim::with_engines(1);
    sim.on(plain_task("a"));
    sim.on(plain_task("b"));
    let effects = sim.on(control("x", "abort_request", 0, &["a", "b"]));
    assert_eq!(error_names(&effects), [pair("b", "aborted")], "a has an engine: that one's to abort");
    assert!(matches!(effects.last(), Some(Effect::Forward { channel: Channel::Control, .. })));
}

#[test]
fn an_abort_that_overtakes_its_task_is_not_lost() {
    let mut sim = Sim::with_engines(1);
    sim.on(control("x", "abort_request", 0, &["late"]));
    assert_eq!(error_names(&sim.on(plain_task("late"))), [pair("late", "aborted")]);
}

#[test]
fn a_task_that_was_aborted_while_it_ran_is_not_tried_again() {
    let mut sim = Sim::with_engines(3);
    let metadata = TaskMetadata { retries: 3, ..TaskMetadata::default() };
    for id in ["failed", "lost"] {
        sim.on(task(id, metadata.clone()));
    }
    sim.on(control("x", "abort_request", 0, &["failed", "lost"]));
    assert_eq!(error_names(&sim.on(failed(2, 1))), [pair("failed", "aborted")]);
    let lost = sim.on(Event::Unregistering { engine: Some(EngineId(1)) });
    assert_eq!(error_names(&lost), [pair("lost", "aborted")]);
}

#[test]
fn of_two_aborted_tasks_the_one_that_runs_if_the_other_fails_does_not_run() {
    let mut sim = Sim::with_engines(2);
    let on_one = TaskMetadata { targets: vec!["e0".into()], ..TaskMetadata::default() };
    sim.on(task("a", on_one.clone()));
    sim.on(task("b", on_one));
    let after = Dependency { dependencies: ids(&["b"]), all: true, success: false, failure: true };
    sim.on(task("c", TaskMetadata { after, ..TaskMetadata::default() }));
    let effects = sim.on(control("x", "abort_request", 9, &["b", "c"]));
    assert_eq!(error_names(&effects), [pair("b", "aborted"), pair("c", "aborted"), pair("x", "EngineError")]);
    assert_eq!(sim.controller.unanswered(), 1, "an engine has the first");
}
