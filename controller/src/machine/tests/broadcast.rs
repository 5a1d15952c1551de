//! One request to many engines, in both modes.

use protocol::message::execute::BroadcastMetadata;

use super::*;

fn broadcast(targets: &[u32], is_coalescing: bool) -> Event {
    let metadata = BroadcastMetadata {
        targets: targets.iter().map(|number| (uuid(*number).as_str().into(), EngineId(*number))).collect(),
        is_broadcast: true,
        is_coalescing,
        ..Default::default()
    };
    submitted(Channel::Broadcast, "m", "apply_request", Target::Broadcast(Box::new(metadata)))
}

fn share(engine: u32, task: u64, result: &'static str, status: Status) -> Event {
    let header = header(&format!("r{engine}"), "apply_reply");
    let message = wire(&header, json!({}), json!({ "status": status, "from": engine }), &[result]);
    let outcome = Some(Outcome { status, dependencies_met: true });
    Event::Replied {
        channel: Channel::Broadcast,
        identity: identity(engine),
        task: TaskId(task),
        outcome,
        message,
    }
}

fn coalesced(effects: &[Effect]) -> (Json, Json, Vec<String>) {
    match effects {
        [Effect::Reply { metadata, content, buffers, .. }] => {
            let buffers = buffers.iter().map(|buffer| String::from_utf8_lossy(buffer).into_owned()).collect();
            (metadata.clone(), content.clone(), buffers)
        }
        other => panic!("one reply was expected: {other:?}"),
    }
}

#[test]
fn each_engine_gets_the_message_under_an_id_of_its_own() {
    let mut sim = Sim::with_engines(2);
    let effects = sim.on(broadcast(&[1, 0], false));
    let shares: Vec<(String, String, Option<MsgId>)> = effects
        .into_iter()
        .map(|effect| match effect {
            Effect::Share { engine, header, metadata, .. } => {
                (engine.to_string(), header.msg_id.to_string(), metadata.original_msg_id)
            }
            other => panic!("a share was expected: {other:?}"),
        })
        .collect();
    let share = |engine: &str| (engine.to_owned(), format!("m_{engine}"), Some(MsgId::from("m")));
    assert_eq!(shares, [share("e1"), share("e0")]);
    let reply = reply_of(0, 2);
    let effects = sim.on(replied(
        Channel::Broadcast,
        0,
        2,
        Some(Outcome { status: Status::Ok, dependencies_met: true }),
    ));
    let client = client(Channel::Broadcast);
    assert_eq!(effects, [Effect::Relay { client, engine: "e0".into(), message: reply }]);
}

#[test]
fn coalesced_results_are_in_the_order_of_the_targets() {
    let mut sim = Sim::with_engines(2);
    sim.on(broadcast(&[1, 0], true));
    assert_eq!(sim.on(share(0, 2, "zero", Status::Ok)), []);
    let (metadata, content, buffers) = coalesced(&sim.on(share(1, 1, "one", Status::Ok)));
    assert_eq!(buffers, ["one", "zero"]);
    assert_eq!(content["status"], "ok");
    assert_eq!(metadata["broadcast_targets"], json!([["e1", 1], ["e0", 0]]));
    assert_eq!((&metadata["original_msg_id"], &metadata["is_coalescing"]), (&json!("m"), &json!(true)));
}

#[test]
fn one_error_survives_coalescing_whoever_answers_last() {
    let mut sim = Sim::with_engines(2);
    sim.on(broadcast(&[0, 1], true));
    sim.on(share(1, 2, "", Status::Error));
    let (metadata, content, buffers) = coalesced(&sim.on(share(0, 1, "zero", Status::Ok)));
    assert_eq!((&content["status"], &content["from"]), (&json!("error"), &json!(1)));
    assert_eq!((&metadata["status"], &metadata["engine"]), (&json!("error"), &json!("e1")));
    assert!(buffers.is_empty());
    assert_eq!(content["commworld"]["contents"][0]["status"], "ok");
}

#[test]
fn an_unknown_target_ends_its_part_at_once() {
    let mut sim = Sim::with_engines(1);
    let effects = sim.on(broadcast(&[0, 9], false));
    assert_eq!(error_names(&effects), [pair("m_e9", "EngineError")]);
    let mut sim = Sim::with_engines(1);
    assert!(errors(&sim.on(broadcast(&[0, 9], true))).is_empty());
    let (_, content, _) = coalesced(&sim.on(share(0, 1, "zero", Status::Ok)));
    assert_eq!(content["ename"], "EngineError");
}

#[test]
fn a_target_lost_on_the_way_ends_its_part() {
    let mut sim = Sim::with_engines(2);
    sim.on(broadcast(&[0, 1], true));
    sim.on(share(0, 1, "zero", Status::Ok));
    let lost = sim.on(Event::Unregistering { engine: Some(EngineId(1)) });
    assert_eq!(error_names(&lost), [pair("m", "EngineError")]);
    assert_eq!(sim.controller.unanswered(), 0);
}

#[test]
fn a_broadcast_to_nobody_is_answered() {
    let mut sim = Sim::with_engines(1);
    for is_coalescing in [false, true] {
        assert_eq!(error_names(&sim.on(broadcast(&[], is_coalescing))), [pair("m", "ValueError")]);
        assert_eq!(sim.controller.unanswered(), 0);
    }
}
