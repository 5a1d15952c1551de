//! Ids, and when an engine can be used.

use protocol::extension::Member;

use super::*;

fn reached(channel: Channel, number: u32) -> Event {
    Event::Reached { channel, identity: identity(number) }
}

fn given_id(effects: &[Effect]) -> Json {
    answer(effects).1["id"].clone()
}

#[test]
fn ids_are_given_in_order_and_never_again() {
    let mut sim = Sim::with_engines(2);
    sim.on(Event::Unregistering { engine: Some(EngineId(1)) });
    assert_eq!(given_id(&sim.on(registering("new", None))), json!(2));
}

#[test]
fn a_wished_id_is_given_if_it_is_free_and_the_counter_goes_on_behind_it() {
    let mut sim = Sim::new();
    assert_eq!(given_id(&sim.on(registering("a", Some(5)))), json!(5));
    assert_eq!(given_id(&sim.on(registering("b", Some(5)))), json!(6));
    assert_eq!(given_id(&sim.on(registering("c", Some(2)))), json!(2));
    assert_eq!(given_id(&sim.on(registering("d", Some(u32::MAX)))), json!(7));
}

#[test]
fn a_uuid_in_use_is_refused_with_the_words_of_the_original() {
    let mut sim = Sim::with_engines(1);
    let (msg_type, content) = answer(&sim.on(registering("e0", None)));
    assert_eq!(msg_type, "registration_reply");
    assert_eq!((&content["ename"], &content["evalue"]), (&json!("KeyError"), &json!("\"uuid 'e0' in use\"")));
}

#[test]
fn a_stock_engine_can_be_used_a_moment_after_its_first_echo() {
    let mut sim = Sim::new();
    let asked = sim.on(registering("e0", None));
    assert_eq!(asked.last(), Some(&Effect::Ping));
    assert_eq!(published(&sim.pass(Duration::from_secs(5))), [""; 0]);
    sim.on(beat(0));
    assert_eq!(published(&sim.pass(Duration::from_millis(49))), [""; 0]);
    assert_eq!(published(&sim.pass(Duration::from_millis(1))), ["registration_notification"]);
}

#[test]
fn an_engine_of_ours_can_be_used_as_soon_as_it_was_heard_everywhere() {
    let mut sim = Sim::new();
    sim.on(our_registration(0));
    for channel in [Channel::Mux, Channel::Task, Channel::Control] {
        assert_eq!(sim.on(reached(channel, 0)), []);
    }
    assert_eq!(without_pings(sim.on(beat(0))), []);
    assert_eq!(published(&sim.on(reached(Channel::Broadcast, 0))), ["registration_notification"]);
}

#[test]
fn a_world_joins_in_one_message_and_each_rank_when_it_can_be_reached() {
    let mut sim = Sim::new();
    let members =
        (1..4).map(|rank| Member { uuid: uuid(rank).as_str().into(), engine: ours(rank) }).collect();
    let extension = Some(Registration { engine: ours(0), members });
    let request = RegistrationRequest { uuid: "e0".into(), id: Some(EngineId(0)), extension };
    let (_, content) = answer(&sim.on(registration(request)));
    assert_eq!(content["commworld"]["member_ids"], json!([1, 2, 3]));
    for channel in Channel::ALL {
        sim.on(reached(channel, 2));
    }
    let joined = sim.on(beat(2));
    assert_eq!(published(&joined), ["registration_notification"]);
    assert_eq!(sim.controller.hub.joining_count(), 3);
}

#[test]
fn a_world_whose_ranks_are_taken_gets_the_next_ids_in_rank_order() {
    let mut sim = Sim::with_engines(2);
    let members = vec![Member { uuid: "w1".into(), engine: ours(1) }];
    let extension = Some(Registration { engine: ours(0), members });
    let request = RegistrationRequest { uuid: "w0".into(), id: Some(EngineId(0)), extension };
    let (_, content) = answer(&sim.on(registration(request)));
    assert_eq!((&content["id"], &content["commworld"]["member_ids"]), (&json!(2), &json!([3])));
}

#[test]
fn an_engine_that_becomes_reachable_too_late_joins_then() {
    let mut sim = Sim::new();
    sim.on(registering("e0", None));
    assert_eq!(published(&sim.pass(Duration::from_secs(31))), [""; 0]);
    assert_eq!(sim.controller.hub.joining_count(), 0, "nobody waits for it");
    assert_eq!(without_pings(sim.on(beat(0))), []);
    assert_eq!(published(&sim.pass(Duration::from_millis(50))), ["registration_notification"]);
}

#[test]
fn an_engine_whose_heart_echoes_in_the_last_moment_is_not_given_up() {
    let mut sim = Sim::new();
    sim.on(our_registration(0));
    sim.pass(Duration::from_millis(29_900));
    sim.on(beat(0));
    sim.pass(Duration::from_millis(500));
    sim.on(registering("other", None));
    assert_eq!(sim.controller.hub.joining_count(), 2);
    assert_eq!(published(&sim.pass(Duration::from_millis(500))), ["registration_notification"]);
}

#[test]
fn a_registration_can_be_cancelled_by_its_id() {
    let mut sim = Sim::new();
    sim.on(registering("e0", None));
    sim.on(Event::Unregistering { engine: Some(EngineId(0)) });
    assert_eq!(sim.controller.hub.joining_count(), 0);
}

#[test]
fn an_engine_whose_id_another_one_has_joins_when_that_one_is_gone() {
    let mut sim = Sim::with_engines(1);
    sim.on(disconnected(0));
    sim.pass(Duration::from_millis(200));
    assert_eq!(given_id(&sim.on(registering("new", Some(0)))), json!(0));
    assert_eq!(without_pings(sim.on(beat(0))), []);
    sim.on(Event::Ending { engine: "new".into(), reason: None });
    assert_eq!(published(&sim.on(beat(0))), ["registration_notification"]);
}

#[test]
fn an_engine_that_says_goodbye_while_it_joins_does_not_join() {
    let mut sim = Sim::new();
    sim.on(registering("e0", None));
    sim.on(Event::Ending { engine: "e0".into(), reason: None });
    sim.on(beat(0));
    assert_eq!(published(&sim.pass(Duration::from_secs(1))), [""; 0]);
}

#[test]
fn who_subscribes_after_it_was_told_who_is_here_hears_what_changed_in_between() {
    let mut sim = Sim::with_engines(1);
    sim.on(queries::asked(Query::Connection));
    sim.on(registering("e1", None));
    sim.on(beat(1));
    sim.pass(Duration::from_millis(50)); // It joins.
    sim.on(Event::Unregistering { engine: Some(EngineId(0)) });

    let again = sim.on(Event::Subscribed);

    assert_eq!(published(&again), ["registration_notification", "unregistration_notification"]);
    assert_eq!(sim.on(Event::Subscribed), again, "whose subscription it was is not known");
}

#[test]
fn a_subscription_repeats_nothing_that_is_older_than_the_lists_that_were_given() {
    let mut sim = Sim::with_engines(1);
    assert_eq!(sim.on(Event::Subscribed), []);
    sim.on(queries::asked(Query::Connection));
    assert_eq!(sim.on(Event::Subscribed), []);
    sim.on(Event::Unregistering { engine: Some(EngineId(0)) });
    sim.pass(Duration::from_secs(10));
    assert_eq!(sim.on(Event::Subscribed), []);
}

#[test]
fn many_engines_that_register_at_once_are_not_asked_for_each_of_them() {
    let mut sim = Sim::new();
    let mut asked = 0;
    for number in 0..1000 {
        let name = format!("e{number}");
        let effects = sim.on(registering(&name, None));
        asked += effects.iter().filter(|effect| **effect == Effect::Ping).count();
        let effects = sim.pass(Duration::from_millis(1));
        asked += effects.iter().filter(|effect| **effect == Effect::Ping).count();
    }
    // Within a second; the last of them is asked soon all the same.
    assert!(asked < 100, "{asked} heartbeats");
    let effects = sim.pass(Duration::from_millis(200));
    assert!(effects.contains(&Effect::Ping), "{effects:?}");
}
