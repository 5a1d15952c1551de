//! In which order waiting tasks run.

use protocol::extension::RequestMetadata;
use protocol::message::execute::Dependency;

use super::*;

fn task_of(client: &'static str, msg_id: &str, priority: i32) -> Event {
    let header = Header { session: client.into(), ..header(msg_id, "apply_request") };
    let message = wire(&header, json!({}), json!({}), &[]);
    let address = Address::Connection(Bytes::from_static(client.as_bytes()));
    let extension = (priority != 0).then(|| RequestMetadata { priority, ..RequestMetadata::default() });
    let target = Target::Balanced(Box::new(TaskMetadata { extension, ..TaskMetadata::default() }));
    let client = Client { channel: Channel::Task, address };
    Event::Submitted(Box::new(Request { client, header, target, message }))
}

/// The order in which the one engine gets what waits, when it finishes one after the other.
fn order(sim: &mut Sim) -> Vec<String> {
    let mut names = vec![];
    let mut running = TaskId(1);
    while sim.controller.unanswered() > 0 {
        let effects = sim.on(finished(0, running.0));
        for effect in effects {
            if let Effect::Forward { task, message, .. } = effect {
                let header: Header = serde_json::from_slice(&message.header).expect("ours");
                names.push(header.msg_id.to_string());
                running = task;
            }
        }
    }
    names
}

#[test]
fn clients_take_turns_however_much_one_of_them_has_submitted_before() {
    let mut sim = Sim::with_engines(1);
    for number in 0..6 {
        sim.on(task_of("greedy", &format!("g{number}"), 0));
    }
    for number in 0..2 {
        sim.on(task_of("modest", &format!("m{number}"), 0));
    }
    assert_eq!(order(&mut sim), ["g1", "m0", "g2", "m1", "g3", "g4", "g5"]);
}

#[test]
fn a_higher_priority_goes_first_and_a_lower_one_last() {
    let mut sim = Sim::with_engines(1);
    for (name, priority) in [("runs", 0), ("low", -3), ("plain", 0), ("high", 7), ("plain too", 0)] {
        sim.on(task_of("c", name, priority));
    }
    assert_eq!(order(&mut sim), ["high", "plain", "plain too", "low"]);
}

#[test]
fn turns_of_clients_are_forgotten_with_their_tasks() {
    // check_invariants, after every event, compares the clients that have turns with those that have tasks.
    let mut sim = Sim::with_engines(1);
    for number in 0..100_u64 {
        let client: &'static str = Box::leak(format!("client {number}").into_boxed_str());
        sim.on(task_of(client, "t", 0));
        sim.on(finished(0, number + 1));
    }
}

#[test]
fn what_waited_for_a_task_does_not_get_its_engine_before_its_turn() {
    let mut sim = Sim::with_engines(1);
    sim.on(plain_task("a"));
    sim.on(task_of("other", "b", 0));
    let after = Dependency { dependencies: ids(&["a"]), ..Dependency::default() };
    sim.on(task("c", TaskMetadata { after, ..TaskMetadata::default() }));
    assert_eq!(order(&mut sim), ["b", "c"]);
}
