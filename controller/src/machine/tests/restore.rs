//! A controller that goes on where another one was killed.

use protocol::message::execute::Dependency;

use super::*;

fn restorable(engines: u32) -> Sim {
    let mut sim = Sim::with(Settings { window: Some(1), restorable: true, ..Settings::default() });
    (0..engines).for_each(|number| sim.join(number));
    sim
}

/// Where replies go to a client that asked the earlier controller.
fn returned(channel: Channel) -> Client {
    Client { channel, address: Address::Session("s".into()) }
}

fn relayed_to_session(channel: Channel, engine: u32, task: u64) -> Effect {
    let message = reply_of(engine, task);
    Effect::Relay { client: returned(channel), engine: uuid(engine).as_str().into(), message }
}

fn probed(channel: Channel, engine: u32, task: u64) -> Effect {
    Effect::Probe { channel, engine: uuid(engine).as_str().into(), task: TaskId(task) }
}

/// A task whose frames say what its metadata is: an earlier controller's frames are all that a later one has.
fn wired_task(msg_id: &str, metadata: TaskMetadata) -> Event {
    let header = header(msg_id, "apply_request");
    let message = wire(&header, serde_json::to_value(&metadata).expect("plain data"), json!({}), &[]);
    let target = Target::Balanced(Box::new(metadata));
    Event::Submitted(Box::new(Request { client: client(Channel::Task), header, target, message }))
}

/// A broadcast to the first engines whose replies the controller gathers into one.
fn gathered_broadcast(engines: u32) -> Event {
    let targets = (0..engines).map(|number| (uuid(number).as_str().into(), EngineId(number))).collect();
    let metadata = BroadcastMetadata {
        targets,
        is_broadcast: true,
        is_coalescing: true,
        ..BroadcastMetadata::default()
    };
    let mut header = header("b", "apply_request");
    header.session = "s".into();
    let message = wire(&header, serde_json::to_value(&metadata).expect("plain data"), json!({}), &[]);
    let (client, target) = (client(Channel::Broadcast), Target::Broadcast(Box::new(metadata)));
    Event::Submitted(Box::new(Request { client, header, target, message }))
}

/// Which task went to which engine.
fn assignments(effects: &[Effect]) -> Vec<(String, u64)> {
    let forwarded = effects.iter().filter_map(|effect| match effect {
        Effect::Forward { engine, task, .. } => Some((engine.to_string(), task.0)),
        _ => None,
    });
    forwarded.collect()
}

#[test]
fn what_waited_still_waits_and_what_ran_is_answered_by_its_engine() {
    let mut sim = restorable(1);
    sim.on(plain_task("runs"));
    sim.on(plain_task("waits"));
    sim.on(direct("d", 0));
    assert_eq!(sim.restart(), [Effect::Ping]);
    assert_eq!(sim.controller.unanswered(), 3);
    assert_eq!(sim.on(beat(0)), [probed(Channel::Mux, 0, 4), probed(Channel::Task, 0, 5)]);
    assert_eq!(
        sim.on(finished(0, 1)),
        [relayed_to_session(Channel::Task, 0, 1), forwarded(Channel::Task, 0, 2, "waits")]
    );
    assert_eq!(sim.on(replied(Channel::Mux, 0, 3, None)), [relayed_to_session(Channel::Mux, 0, 3)]);
    assert_eq!(sim.on(finished(0, 2)), [relayed_to_session(Channel::Task, 0, 2)]);
    sim.on(replied(Channel::Mux, 0, 4, None));
    sim.on(finished(0, 5));
    assert_eq!(sim.controller.unanswered(), 0);
}

#[test]
fn an_answer_that_was_lost_with_the_controller_is_an_error_unless_the_task_may_run_again() {
    let mut sim = restorable(2);
    sim.on(task("once", TaskMetadata::default()));
    sim.on(wired_task("twice", TaskMetadata { retries: 1, ..TaskMetadata::default() }));
    sim.on(direct("d", 0));
    sim.restart();
    sim.on(beat(0));
    sim.on(beat(1));
    // Engine 1 had "once", engine 0 had "twice" and "d". They answer what they are asked now, and nothing else.
    assert_eq!(error_names(&sim.on(finished(1, 6))), [pair("once", "EngineError")]);
    assert_eq!(error_names(&sim.on(replied(Channel::Mux, 0, 4, None))), [pair("d", "EngineError")]);
    assert_eq!(assignments(&sim.on(finished(0, 5))), [("e1".to_owned(), 2)]);
    assert_eq!(sim.on(finished(1, 2)), [relayed_to_session(Channel::Task, 1, 2)]);
    assert_eq!(sim.controller.unanswered(), 0);
}

#[test]
fn an_engine_that_does_not_come_back_is_lost_with_what_it_had() {
    let mut sim = restorable(1);
    sim.on(plain_task("t"));
    sim.on(direct("d", 0));
    sim.restart();
    let effects = without_pings(sim.pass(crate::restore::RETURN_TIME));
    assert_eq!(published(&effects), ["unregistration_notification"]);
    assert_eq!(error_names(&effects), [pair("t", "EngineError"), pair("d", "EngineError")]);
}

#[test]
fn what_had_ended_has_ended_and_is_not_answered_again() {
    let mut sim = restorable(1);
    sim.on(plain_task("t"));
    sim.on(finished(0, 1));
    assert_eq!(sim.restart(), [Effect::Ping]);
    assert_eq!(sim.controller.unanswered(), 0);
    // Others may still depend on it.
    let after = Dependency { dependencies: ids(&["t"]), ..Dependency::default() };
    sim.on(beat(0));
    let dependent = task("after", TaskMetadata { after, ..TaskMetadata::default() });
    assert_eq!(sim.on(dependent), [forwarded(Channel::Task, 0, 2, "after")]);
}

#[test]
fn ids_of_engines_and_tasks_go_on() {
    let mut sim = restorable(2);
    sim.on(plain_task("t"));
    sim.on(Event::Unregistering { engine: Some(EngineId(1)) });
    sim.restart();
    sim.join(2);
    let (_, content) = answer(&sim.on(queries::asked(Query::Connection)));
    assert_eq!(content["engines"], json!({ "0": "e0", "2": "e2" }));
    assert_eq!(sim.on(direct("d", 2)), [forwarded(Channel::Mux, 2, 2, "d")]);
}

#[test]
fn retries_and_places_where_it_failed_are_remembered() {
    let mut sim = restorable(3);
    sim.on(wired_task("t", TaskMetadata { retries: 2, ..TaskMetadata::default() }));
    assert_eq!(assignments(&sim.on(failed(2, 1))), [("e1".to_owned(), 1)]);
    sim.restart();
    (0..3).for_each(|number| drop(sim.on(beat(number))));
    assert_eq!(assignments(&sim.on(failed(1, 1))), [("e0".to_owned(), 1)]);
    assert_eq!(sim.on(failed(0, 1)), [relayed_to_session(Channel::Task, 0, 1)], "no retry is left");
}

#[test]
fn a_coalesced_broadcast_goes_on_with_what_was_gathered() {
    let mut sim = restorable(3);
    sim.on(gathered_broadcast(3));
    let ok = Some(Outcome { status: Status::Ok, dependencies_met: true });
    sim.on(replied(Channel::Broadcast, 1, 2, ok));
    sim.restart();
    sim.restart();
    sim.on(beat(0));
    sim.on(replied(Channel::Broadcast, 0, 1, ok));
    sim.on(beat(2));
    let effects = sim.on(replied(Channel::Broadcast, 2, 3, ok));
    let [Effect::Reply { client, metadata, buffers, .. }] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(*client, returned(Channel::Broadcast));
    assert_eq!(metadata["broadcast_targets"], json!([["e0", 0], ["e1", 1], ["e2", 2]]));
    assert_eq!(buffers.len(), 3);
}

#[test]
fn a_request_that_was_lost_on_its_way_in_is_told_to_the_client_that_speaks_again() {
    let mut sim = restorable(1);
    sim.on(direct("s_7_1", 0));
    sim.restart();
    sim.on(beat(0));
    sim.on(direct("s_7_4", 0));
    sim.on(direct("s_7_3", 0));
    sim.restart(); // It is still missed.
    let effects = sim.pass(Duration::from_secs(2));
    assert_eq!(error_names(&effects), [pair("s_7_2", "EngineError")]);
    assert_eq!(error_names(&sim.restart()), [], "it was told already");
    assert_eq!(error_names(&sim.pass(Duration::from_secs(2))), []);
    sim.on(beat(0));
    // Should it come all the same, it has its answer.
    assert_eq!(sim.on(direct("s_7_2", 0)), []);
    assert_eq!(sim.on(plain_task("s_7_2")), []);
}

#[test]
fn a_snapshot_says_all_that_the_changes_before_it_said() {
    let mut sim = restorable(3);
    sim.on(plain_task("a"));
    sim.on(wired_task("b", TaskMetadata { retries: 2, ..TaskMetadata::default() }));
    sim.on(direct("d", 1));
    sim.on(failed(1, 2));
    for number in 3..20 {
        sim.on(plain_task(&format!("w{number}")));
    }
    sim.on(finished(2, 1));
    sim.on(Event::Unregistering { engine: Some(EngineId(0)) });
    sim.restart();
    let before = sim.controller.snapshot();
    sim.changes.clone_from(&before);
    sim.restart();
    assert_eq!(sim.controller.snapshot(), before);
}

#[test]
fn nothing_is_noted_of_messages_where_no_journal_is_kept() {
    let mut sim = Sim::with_engines(1);
    sim.changes.clear();
    sim.on(queries::asked(Query::Connection));
    assert_eq!(sim.changes, []);
}

#[test]
fn a_control_request_that_was_under_way_is_answered() {
    let mut sim = restorable(1);
    for (id, msg_type) in
        [("clear", "clear_request"), ("stop", "shutdown_request"), ("done", "abort_request")]
    {
        let target = Target::Control { engine: identity(0), aborted: vec![] };
        sim.on(submitted(Channel::Control, id, msg_type, target));
    }
    sim.on(replied(Channel::Control, 0, 3, None));
    assert_eq!(error_names(&sim.restart()), [pair("clear", "EngineError"), pair("stop", "ok")]);
    assert_eq!(sim.on(replied(Channel::Control, 0, 1, None)), [], "its client has an answer");
    assert_eq!(error_names(&sim.restart()), []);
}

#[test]
fn what_is_no_request_is_not_missed_when_it_has_come() {
    let mut sim = restorable(1);
    sim.on(direct("s_7_1", 0));
    sim.on(submitted(Channel::Mux, "s_7_2", "comm_msg", Target::Engine(identity(0))));
    sim.restart();
    sim.on(beat(0));
    sim.on(direct("s_7_3", 0));
    assert_eq!(error_names(&sim.pass(Duration::from_secs(2))), []);
}

#[test]
fn a_request_that_was_overtaken_before_it_was_lost_is_told_to_its_client() {
    for is_rewritten in [false, true] {
        let mut sim = restorable(1);
        sim.on(direct("s_7_1", 0));
        sim.on(direct("s_7_5", 0));
        sim.on(direct("s_7_3", 0));
        sim.on(direct("s_7_2", 0));
        if is_rewritten {
            sim.changes = sim.controller.snapshot();
        }
        sim.restart();
        sim.on(beat(0));
        assert_eq!(error_names(&sim.pass(Duration::from_secs(2))), [pair("s_7_4", "EngineError")]);
    }
}

#[test]
fn what_depends_on_a_task_that_was_refused_does_not_wait_for_ever() {
    let mut sim = restorable(0);
    let depends = |id: &str| {
        let after = Dependency { dependencies: ids(&[id]), failure: true, ..Dependency::default() };
        TaskMetadata { after, ..TaskMetadata::default() }
    };
    assert_eq!(error_names(&sim.on(wired_task("a", depends("unknown")))), [pair("a", "InvalidDependency")]);
    sim.on(wired_task("b", depends("a")));
    sim.restart();
    sim.join(0);
    assert_eq!(sim.controller.balanced.waiting(), 0, "it runs");
}

#[test]
fn ids_go_on_behind_a_journal_that_was_written_anew() {
    let mut sim = restorable(2);
    sim.on(gathered_broadcast(2));
    let ok = Some(Outcome { status: Status::Ok, dependencies_met: true });
    sim.on(replied(Channel::Broadcast, 1, 2, ok));
    sim.on(direct("d", 1));
    sim.on(replied(Channel::Mux, 1, 3, None));
    sim.changes = sim.controller.snapshot();
    sim.restart();
    assert_eq!(
        sim.controller.tasks.next_id(),
        TaskId(4),
        "one that an engine may still answer is not used again"
    );
    sim.on(beat(0));
    sim.restart();
    assert_eq!(sim.controller.tasks.next_id(), TaskId(5), "nor is that of a probe");
}

#[test]
fn an_engine_that_was_joining_or_lost_joins_when_it_is_heard() {
    for is_rewritten in [false, true] {
        let mut sim = restorable(1);
        sim.on(disconnected(0));
        sim.pass(Duration::from_secs(10));
        sim.on(registering("e1", None));
        if is_rewritten {
            sim.changes = sim.controller.snapshot();
        }
        sim.restart();
        sim.on(beat(0));
        sim.on(beat(1));
        let joined = without_pings(sim.pass(Duration::from_millis(50)));
        assert_eq!(published(&joined), ["registration_notification"; 2]);
        assert_eq!(sim.controller.hub.by_uuid("e0").map(|engine| engine.id), Some(EngineId(0)));
    }
}

#[test]
fn an_engine_that_said_goodbye_while_it_joined_is_not_expected() {
    let mut sim = restorable(0);
    sim.on(registering("e0", None));
    sim.on(Event::Ending { engine: "e0".into(), reason: None });
    sim.restart();
    sim.on(beat(0));
    assert_eq!(published(&sim.pass(Duration::from_millis(50))), [""; 0]);
}

#[test]
fn a_question_that_was_told_lost_is_not_answered_when_it_comes() {
    let mut sim = restorable(1);
    sim.on(direct("s_7_1", 0));
    sim.restart();
    sim.on(beat(0));
    sim.on(direct("s_7_3", 0));
    assert_eq!(error_names(&sim.pass(Duration::from_secs(2))), [pair("s_7_2", "EngineError")]);
    let Event::Asked { client, session, header, query, .. } = queries::asked(Query::Connection) else {
        unreachable!("just made")
    };
    assert_eq!(sim.on(Event::Asked { client, session, msg_id: "s_7_2".into(), header, query }), []);
}

#[test]
fn of_two_engines_that_expect_one_id_the_one_that_leaves_takes_nothing_from_the_other() {
    let mut sim = restorable(1);
    sim.on(disconnected(0));
    sim.pass(Duration::from_secs(10));
    sim.restart();
    sim.on(registering("e2", Some(0)));
    sim.on(Event::Ending { engine: "e2".into(), reason: None });
    sim.restart();
    sim.on(beat(0));
    let joined = sim.pass(Duration::from_millis(50));
    assert_eq!(published(&joined), ["registration_notification"]);
}

/// The id that an engine gets which wants to be engine 0.
fn id_given_to(sim: &mut Sim, uuid: &str) -> Json {
    answer(&sim.on(registering(uuid, Some(0)))).1["id"].clone()
}

#[test]
fn the_id_of_an_engine_that_was_joining_is_given_to_no_other() {
    for is_rewritten in [false, true] {
        let mut sim = restorable(0);
        assert_eq!(id_given_to(&mut sim, "e7"), 0);
        if is_rewritten {
            sim.changes = sim.controller.snapshot();
        }
        sim.restart();
        assert_eq!(id_given_to(&mut sim, "e8"), 1);
        // Whoever watches the first one knows no more than its id.
        sim.on(Event::Unregistering { engine: Some(EngineId(0)) });
        sim.on(beat(7));
        sim.on(beat(8));
        sim.pass(Duration::from_millis(50));
        let here: Vec<&str> = sim.controller.hub.engines().map(|engine| engine.uuid.as_str()).collect();
        assert_eq!(here, ["e8"]);
    }
}

#[test]
fn the_id_of_an_engine_that_was_about_to_return_is_given_to_no_other() {
    let mut sim = restorable(1);
    sim.on(disconnected(0));
    sim.pass(Duration::from_secs(10));
    sim.on(beat(0));
    sim.restart();
    assert_eq!(id_given_to(&mut sim, "e8"), 1);
}

#[test]
fn the_id_of_an_engine_that_did_not_join_in_time_is_free_after_a_restart_too() {
    let mut sim = restorable(0);
    assert_eq!(id_given_to(&mut sim, "e7"), 0);
    sim.pass(Duration::from_secs(40));
    sim.restart();
    assert_eq!(id_given_to(&mut sim, "e8"), 0);
    sim.restart();
}

/// An engine's reply to a task, which names the task's session as replies do.
fn finished_in_words(task: u64, msg_id: &str) -> (Event, WireMessage) {
    let parent = Bytes::from(serde_json::to_vec(&header(msg_id, "apply_request")).expect("plain data"));
    let reply = WireMessage { parent_header: parent, ..reply_of(0, task) };
    let Event::Replied { channel, identity, task, outcome, .. } = finished(0, task) else {
        unreachable!("just made")
    };
    (Event::Replied { channel, identity, task, outcome, message: reply.clone() }, reply)
}

fn idle(reply: &WireMessage) -> Effect {
    Effect::Idle { parent: reply.parent_header.clone(), engine: Some("e0".into()) }
}

fn repeated(reply: &WireMessage) -> Effect {
    let message = reply.clone();
    Effect::Repeat { client: returned(Channel::Task), engine: Some("e0".into()), message }
}

#[test]
fn what_was_said_in_the_last_moment_is_said_again_after_the_engines_idle() {
    for is_rewritten in [false, true] {
        let mut sim = restorable(1);
        sim.on(plain_task("t"));
        let (event, reply) = finished_in_words(1, "t");
        sim.on(event);
        if is_rewritten {
            sim.changes = sim.controller.snapshot();
        }
        assert_eq!(sim.restart(), [Effect::Ping]);
        let said = without_pings(sim.pass(Duration::from_millis(4999)));
        assert_eq!(said, [idle(&reply), idle(&reply), idle(&reply)]);
        assert_eq!(without_pings(sim.pass(Duration::from_millis(1))), [repeated(&reply)]);
        sim.on(Event::Departed { count: 1 });
        assert_eq!(without_pings(sim.pass(Duration::from_secs(5))), []);
        sim.restart();
        assert_eq!(without_pings(sim.pass(Duration::from_secs(5))), [], "it has arrived by now");
    }
}

#[test]
fn what_was_to_be_said_again_is_owed_until_it_was() {
    let mut sim = restorable(1);
    sim.on(plain_task("t"));
    sim.on(plain_task("u"));
    let (event, first) = finished_in_words(1, "t");
    sim.on(event);
    sim.restart();
    sim.on(beat(0));
    // It does not keep what this controller says from having arrived.
    let (event, _) = finished_in_words(2, "u");
    sim.on(event);
    sim.on(Event::Departed { count: 1 });
    sim.pass(Duration::from_millis(50));
    sim.on(beat(0));
    for is_rewritten in [false, true] {
        if is_rewritten {
            sim.changes = sim.controller.snapshot();
        }
        sim.restart();
    }
    let effects = sim.pass(Duration::from_secs(5));
    let again: Vec<&Effect> =
        effects.iter().filter(|effect| matches!(effect, Effect::Repeat { .. })).collect();
    assert_eq!(again, [&repeated(&first)]);
}

#[test]
fn what_was_said_long_before_the_kill_is_not_said_again() {
    let mut sim = restorable(1);
    sim.on(plain_task("old"));
    sim.on(plain_task("new"));
    let (old, _) = finished_in_words(1, "old");
    sim.on(old);
    sim.on(Event::Departed { count: 1 });
    sim.pass(Duration::from_millis(50));
    let (new, reply) = finished_in_words(2, "new");
    sim.on(new);
    sim.restart();
    let effects = sim.pass(Duration::from_secs(5));
    let again: Vec<&Effect> =
        effects.iter().filter(|effect| matches!(effect, Effect::Repeat { .. })).collect();
    assert_eq!(again, [&repeated(&reply)]);
}

#[test]
fn what_a_controller_says_while_it_is_restored_is_said_again_by_the_next() {
    let mut sim = restorable(1);
    sim.on(submitted(
        Channel::Control,
        "clear",
        "clear_request",
        Target::Control { engine: identity(0), aborted: vec![] },
    ));
    assert_eq!(error_names(&sim.restart()), [pair("clear", "EngineError")]);
    for _ in 0..2 {
        assert_eq!(error_names(&sim.restart()), [], "it was answered");
    }
    let effects = without_pings(sim.pass(Duration::from_secs(5)));
    let [Effect::Repeat { client, .. }] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(*client, returned(Channel::Control));
}

#[test]
fn nothing_is_kept_of_replies_where_no_journal_is_kept() {
    let mut sim = Sim::with_engines(1);
    sim.on(plain_task("t"));
    sim.on(finished(0, 1));
    assert_eq!(sim.controller.repeats.snapshot().count(), 0);
}

#[test]
fn replies_that_are_kept_have_a_bound() {
    let mut sim = restorable(0);
    for number in 0..70_000 {
        sim.controller.handle(sim.now, direct(&format!("d{number}"), 7), &mut vec![]);
    }
    assert_eq!(sim.controller.repeats.snapshot().count(), 65_536);
}

#[test]
fn a_task_that_was_aborted_is_not_tried_again_by_another_controller() {
    for is_rewritten in [false, true] {
        let mut sim = restorable(2);
        sim.on(wired_task("t", TaskMetadata { retries: 3, ..TaskMetadata::default() }));
        let target = Target::Control { engine: identity(1), aborted: ids(&["t", "later"]) };
        sim.on(submitted(Channel::Control, "x", "abort_request", target));
        if is_rewritten {
            sim.changes = sim.controller.snapshot();
        }
        sim.restart();
        (0..2).for_each(|number| drop(sim.on(beat(number))));
        assert_eq!(error_names(&sim.on(failed(1, 1))), [pair("t", "aborted")]);
        assert_eq!(error_names(&sim.on(plain_task("later"))), [pair("later", "aborted")]);
    }
}

#[test]
fn a_probe_that_was_aborted_is_no_evidence_and_is_sent_again() {
    let mut sim = restorable(1);
    sim.on(plain_task("t"));
    sim.on(direct("d", 0));
    sim.restart();
    assert_eq!(sim.on(beat(0)), [probed(Channel::Mux, 0, 3), probed(Channel::Task, 0, 4)]);
    // Somebody aborts all that waits at the engine: what it runs goes on.
    let aborted = Outcome { status: Status::Aborted, dependencies_met: true };
    let again = sim.on(replied(Channel::Task, 0, 4, Some(aborted)));
    assert_eq!(again, [probed(Channel::Task, 0, 5)]);
    let Event::Replied { channel, identity, task, outcome, message } = replied(Channel::Mux, 0, 3, None)
    else {
        unreachable!("just made")
    };
    let message = WireMessage { content: Bytes::from_static(br#"{"status":"aborted"}"#), ..message };
    let again = sim.on(Event::Replied { channel, identity, task, outcome, message });
    assert_eq!(again, [probed(Channel::Mux, 0, 6)]);
    assert_eq!(sim.on(finished(0, 1)), [relayed_to_session(Channel::Task, 0, 1)]);
    assert_eq!(error_names(&sim.on(replied(Channel::Mux, 0, 6, None))), [pair("d", "EngineError")]);
    assert_eq!(error_names(&sim.on(finished(0, 5))), []);
}
