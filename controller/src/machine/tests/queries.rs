//! What the hub answers.

use protocol::message::hub::{QueueRequest, Target as HubTarget, Targets};

use super::*;
use protocol::message::execute::Dependency;

pub(super) fn asked(query: Query) -> Event {
    let header = Bytes::from_static(b"{}");
    Event::Asked { client: Bytes::from_static(b"c"), session: "s".into(), msg_id: "q".into(), header, query }
}

fn queue(targets: Option<Targets>, verbose: bool) -> Event {
    asked(Query::Queue(QueueRequest { targets, verbose }))
}

#[test]
fn only_usable_engines_are_listed() {
    let mut sim = Sim::with_engines(2);
    sim.on(registering("joining", None));
    let (msg_type, content) = answer(&sim.on(asked(Query::Connection)));
    assert_eq!(msg_type, "connection_reply");
    assert_eq!(content["engines"], json!({ "0": "e0", "1": "e1" }));
}

#[test]
fn queue_status_tells_what_waits_where() {
    let mut sim = Sim::with_engines(1);
    sim.on(direct("d", 0));
    sim.on(plain_task("a"));
    sim.on(plain_task("b"));
    let (_, content) = answer(&sim.on(queue(None, false)));
    let lengths = json!({ "queue": 1, "completed": 0, "tasks": 1 });
    assert_eq!(content, json!({ "status": "ok", "0": lengths, "unassigned": 1 }));
    sim.on(finished(0, 2));
    let (_, content) = answer(&sim.on(queue(None, true)));
    let contents = json!({ "queue": ["d"], "completed": ["a"], "tasks": ["b"] });
    assert_eq!(content, json!({ "status": "ok", "0": contents, "unassigned": [] }));
    let (_, content) = answer(&sim.on(asked(Query::Load(QueueRequest::default()))));
    assert_eq!(content, json!({ "status": "ok", "0": 2 }));
}

#[test]
fn an_empty_controller_has_a_queue_status() {
    let (_, content) = answer(&Sim::new().on(queue(None, false)));
    assert_eq!(content, json!({ "status": "ok", "unassigned": 0 }));
}

#[test]
fn dead_and_unknown_engines_are_no_targets() {
    let mut sim = Sim::with_engines(1);
    sim.on(Event::Unregistering { engine: Some(EngineId(0)) });
    let many = Targets::Many(vec![HubTarget::Id(77)]);
    for (targets, words) in [
        (many, "No Such Engine: [77]"),
        (Targets::One(HubTarget::Id(0)), "No Such Engine: [0]"),
        (Targets::Many(vec![]), "No Engines Registered"),
    ] {
        let (msg_type, content) = answer(&sim.on(queue(Some(targets), false)));
        assert_eq!(msg_type, "hub_error");
        assert_eq!((&content["ename"], &content["evalue"]), (&json!("IndexError"), &json!(words)));
    }
}

#[test]
fn an_unknown_question_gets_the_words_of_the_original() {
    let (msg_type, content) = answer(&Sim::new().on(asked(Query::Unknown("x".into()))));
    assert_eq!(msg_type, "hub_error");
    assert_eq!(
        (&content["ename"], &content["evalue"]),
        (&json!("KeyError"), &json!("\"Bad Message Type: 'x'\""))
    );
}

#[test]
fn shutdown_tells_everybody_and_ends_when_the_engines_have() {
    let mut sim = Sim::with_engines(1);
    let effects = sim.on(asked(Query::Shutdown));
    assert_eq!(answer(&effects), ("shutdown_reply", json!({ "status": "ok" })));
    assert_eq!(published(&effects), ["shutdown_notification"]);
    assert_eq!(effects.last(), Some(&Effect::Stop { engine: "e0".into() }));
    assert_eq!(sim.on(Event::Ending { engine: "e0".into(), reason: None }).last(), Some(&Effect::Exit));
}

#[test]
fn shutdown_does_not_wait_long_for_engines_and_leaves_no_future_open() {
    let mut sim = Sim::with_engines(1);
    sim.on(direct("d", 0));
    sim.on(plain_task("runs"));
    sim.on(plain_task("waits"));
    sim.on(depends_on("waits"));
    sim.on(asked(Query::Shutdown));
    let effects = sim.pass(Duration::from_secs(1));
    assert_eq!(published(&effects), ["unregistration_notification"]);
    let told = ["d", "runs", "waits"].map(|id| pair(id, "EngineError"));
    assert_eq!(error_names(&effects)[..3], told);
    assert_eq!(error_names(&effects)[3..], [pair("after", "ImpossibleDependency")]);
    assert_eq!(effects.last(), Some(&Effect::Exit));
}

#[test]
fn a_controller_that_takes_leave_answers_everything_and_says_why() {
    let mut sim = Sim::with_engines(1);
    sim.on(plain_task("runs"));
    sim.on(plain_task("waits"));
    let mut effects = vec![];
    sim.controller.take_leave(sim.now, &mut effects);
    sim.controller.check_invariants();
    let told = errors(&effects);
    assert!(told[0].2.contains("the controller ends"), "{told:?}");
    assert!(told[1].2.contains("the controller was shut down"), "{told:?}");
    assert_eq!((told.len(), sim.controller.unanswered()), (2, 0));
}

fn depends_on(id: &str) -> Event {
    let after = Dependency { dependencies: ids(&[id]), ..Dependency::default() };
    task("after", TaskMetadata { after, ..TaskMetadata::default() })
}
