//! Why a task has not ended.

use protocol::extension::{ExplainRequest, TaskExplanation, TaskState};
use protocol::message::execute::Dependency;

use super::*;

fn explain(sim: &mut Sim, msg_id: &str) -> TaskExplanation {
    let (msg_type, content) = answer(&sim.on(asked(msg_id)));
    assert_eq!(msg_type, "task_explain_reply", "{content}");
    serde_json::from_value(content).expect("an explanation")
}

fn asked(msg_id: &str) -> Event {
    queries::asked(Query::Explain(ExplainRequest { msg_id: msg_id.into() }))
}

#[test]
fn a_task_that_waits_for_an_engine_says_which_are_full_and_how_many_are_before_it() {
    let mut sim = Sim::with_engines(2);
    for name in ["a", "b", "c"] {
        sim.on(plain_task(name));
    }
    sim.on(task(
        "d",
        TaskMetadata { timeout: Some(60.0), targets: vec!["e1".into()], ..TaskMetadata::default() },
    ));
    let explained = explain(&mut sim, "d");
    assert_eq!((explained.state, explained.ahead), (TaskState::Waiting, Some(1)));
    assert_eq!(explained.reason, "1 engine may run it, and none has room");
    assert_eq!(explained.engines[&EngineId(0)], "it is not one of the task's targets");
    assert_eq!(explained.engines[&EngineId(1)], "it has 1 balanced task, as many as it may");
    assert_eq!(explained.timeout_seconds, Some(60.0));
}

#[test]
fn a_task_that_waits_for_others_names_them() {
    let mut sim = Sim::with_engines(1);
    sim.on(plain_task("a"));
    sim.on(plain_task("b"));
    let after = Dependency { dependencies: ids(&["a", "b"]), ..Dependency::default() };
    sim.on(task("c", TaskMetadata { after, ..TaskMetadata::default() }));
    sim.on(finished(0, 1));
    let explained = explain(&mut sim, "c");
    assert_eq!(explained.reason, "it runs after 2 tasks, of which 1 did not end as it needs so far");
    assert_eq!((explained.waits_for, explained.ahead), (ids(&["b"]), None));
}

#[test]
fn a_task_that_runs_says_where_and_one_that_failed_says_how() {
    let mut sim = Sim::with_engines(2);
    sim.on(task("t", TaskMetadata { retries: 2, ..TaskMetadata::default() }));
    let header = header("r", "apply_reply");
    let content = json!({ "status": "error", "ename": "ValueError", "evalue": "no" });
    let outcome = Some(Outcome { status: Status::Error, dependencies_met: true });
    let message = wire(&header, json!({}), content, &[]);
    sim.on(Event::Replied {
        channel: Channel::Task,
        identity: identity(1),
        task: TaskId(1),
        outcome,
        message,
    });
    let explained = explain(&mut sim, "t");
    assert_eq!((explained.state, explained.reason.as_str()), (TaskState::Running, "Engine 0 runs it"));
    assert_eq!(explained.retries_left, 1);
    assert_eq!(explained.last_failure.as_deref(), Some("ValueError: no (engine e1)"));
}

#[test]
fn without_engines_the_reason_is_that_there_are_none() {
    let mut sim = Sim::new();
    sim.on(plain_task("t"));
    assert_eq!(explain(&mut sim, "t").reason, "no engine is here");
}

#[test]
fn what_has_ended_has_ended_and_what_nobody_knows_is_a_key_error() {
    let mut sim = Sim::with_engines(1);
    sim.on(plain_task("t"));
    sim.on(finished(0, 1));
    assert_eq!(explain(&mut sim, "t").state, TaskState::Ended);
    let (_, content) = answer(&sim.on(asked("x")));
    assert_eq!((&content["ename"], &content["evalue"]), (&json!("KeyError"), &json!("'No such message: x'")));
}
