//! Who is alive.

use protocol::extension::EngineJob;

use super::*;

#[test]
fn a_lost_connection_is_a_lost_engine_after_the_grace() {
    let mut sim = Sim::with_engines(1);
    assert_eq!(sim.on(disconnected(0)), [Effect::Ping]);
    assert_eq!(published(&sim.pass(Duration::from_millis(199))), [""; 0]);
    let lost = without_pings(sim.pass(Duration::from_millis(1)));
    assert_eq!(
        lost,
        [Effect::Publish {
            parent: Bytes::from_static(b"{}"),
            msg_type: "unregistration_notification",
            content: json!({ "id": 0, "uuid": "e0", "reason": "its connection was lost" }),
        }]
    );
}

#[test]
fn an_engine_that_reconnects_within_the_grace_stays() {
    let mut sim = Sim::with_engines(1);
    sim.on(disconnected(0));
    assert_eq!(sim.on(plain_task("t")), [], "nothing is given to it meanwhile");
    assert_eq!(sim.on(beat(0)), [forwarded(Channel::Task, 0, 1, "t")]);
    assert_eq!(published(&sim.pass(Duration::from_secs(1))), [""; 0]);
}

#[test]
fn a_silent_engine_is_lost_in_the_end_and_taken_back_with_its_id_when_it_returns() {
    let mut sim = Sim::with_engines(2);
    let mut lost = vec![];
    for _ in 0..13 {
        lost.extend(sim.pass(Duration::from_secs(3)));
        lost.extend(sim.on(beat(1)));
    }
    assert_eq!(published(&lost), ["unregistration_notification"]);
    sim.on(registering("other", None));
    let back = sim.on(beat(0));
    assert!(back.iter().any(|effect| matches!(
        effect,
        Effect::Publish { msg_type: "registration_notification", content, .. } if content["id"] == 0
    )));
}

#[test]
fn an_engine_that_said_goodbye_does_not_return_by_a_late_echo() {
    let mut sim = Sim::with_engines(1);
    let left = sim.on(Event::Ending { engine: "e0".into(), reason: None });
    assert_eq!(published(&left), ["unregistration_notification"]);
    assert_eq!(sim.on(Event::Unregistering { engine: Some(EngineId(0)) }), []);
    sim.on(beat(0));
    assert_eq!(published(&sim.pass(Duration::from_secs(1))), [""; 0]);
}

#[test]
fn an_engine_that_registers_anew_after_losing_its_connection_keeps_its_id() {
    let mut sim = Sim::with_engines(2);
    sim.on(direct("d", 0));
    sim.on(disconnected(0));
    let again = sim.on(registering("e0", None));
    assert_eq!(answer(&again).1["id"], 0);
    assert_eq!(published(&again), ["unregistration_notification"]);
    assert_eq!(error_names(&again), [pair("d", "EngineError")]);
}

#[test]
fn everything_that_a_lost_engine_had_ends_with_an_error_that_names_it() {
    let mut sim = Sim::new();
    sim.on(our_registration(0));
    for channel in Channel::ALL {
        sim.on(Event::Reached { channel, identity: identity(0) });
    }
    sim.on(beat(0));
    sim.on(direct("d", 0));
    sim.on(plain_task("t"));
    let lost = sim.on(Event::Unregistering { engine: Some(EngineId(0)) });
    let words = |id: &str| {
        format!("Engine 0 (rank 0, host h, pid 7) died while running task '{id}': it unregistered")
    };
    assert_eq!(
        errors(&lost),
        [("d".into(), "EngineError".into(), words("d")), ("t".into(), "EngineError".into(), words("t"))]
    );
    assert_eq!(sim.controller.unanswered(), 0);
}

#[test]
fn what_was_lost_with_a_connection_that_comes_back_is_noticed() {
    let mut sim = Sim::with_engines(2);
    sim.on(plain_task("t"));
    sim.on(direct("d", 1));
    sim.on(submitted(
        Channel::Control,
        "x",
        "clear_request",
        Target::Control { engine: identity(1), aborted: vec![] },
    ));
    sim.on(disconnected(1));
    let asked = |channel, task| Effect::Probe { channel, engine: "e1".into(), task: TaskId(task) };
    assert_eq!(sim.on(beat(1)), [asked(Channel::Mux, 4), asked(Channel::Task, 5)]);
    sim.on(direct("later", 1));
    assert_eq!(sim.on(finished(1, 1)), [relayed(Channel::Task, 1, 1)], "this was not lost");
    assert_eq!(sim.on(finished(1, 5)), []);
    let told = errors(&sim.on(replied(Channel::Mux, 1, 4, None)));
    let [(id, name, words)] = &told[..] else { panic!("{told:?}") };
    assert_eq!((id.as_str(), name.as_str()), ("d", "EngineError"));
    assert!(words.contains("connection was lost for a moment"), "{words}");
    assert_eq!(sim.on(replied(Channel::Mux, 1, 6, None)), [relayed(Channel::Mux, 1, 6)]);
}

#[test]
fn an_engine_whose_job_was_at_its_time_limit_is_lost_for_that_reason() {
    let job = |seconds_left| Some(EngineJob { name: "job 8 of Slurm".into(), seconds_left });
    for (seconds_left, passed, reason) in [
        (Some(60), 58, "job 8 of Slurm reached its time limit"),
        (Some(600), 58, "its connection was lost (job 8 of Slurm)"),
        (None, 58, "its connection was lost (job 8 of Slurm)"),
    ] {
        let mut sim = Sim::new();
        let mut request = our_registration(0);
        let Event::Registering { request: registration, .. } = &mut request else { unreachable!() };
        registration.extension.as_mut().expect("ours").engine.job = job(seconds_left);
        sim.on(request);
        sim.on(beat(0));
        sim.pass(Duration::from_secs(2));
        for _ in 2..passed {
            sim.on(beat(0));
            sim.pass(Duration::from_secs(1));
        }

        sim.on(Event::Disconnected { identity: identity(0) });
        let told = sim.pass(Duration::from_secs(3));

        assert!(format!("{told:?}").contains(reason), "{reason:?} is not in {told:?}");
    }
}
