//! Random histories: nothing panics, the parts agree after every event, every request is answered exactly once.

use std::collections::BTreeMap;

use proptest::prelude::*;
use protocol::message::execute::{BroadcastMetadata, Dependency};

use super::*;

/// One thing that may happen, with numbers that are taken modulo what there is.
#[derive(Clone, Debug)]
enum Step {
    Join(u32, bool),
    Beat(u32),
    Disconnect(u32),
    Leave(u32),
    Direct(u32),
    Balanced { retries: u32, timeout: bool, targets: Vec<u32>, after: Option<u64>, follow: Option<u64> },
    Broadcast(Vec<u32>, bool),
    Reply { pick: usize, status: Status, met: bool },
    Undelivered(usize),
    Abort(u64),
    Pass(u64),
}

fn steps() -> impl Strategy<Value = Step> {
    let engine = 0..4_u32;
    let status = prop_oneof![Just(Status::Ok), Just(Status::Error), Just(Status::Aborted)];
    prop_oneof![
        2 => (engine.clone(), any::<bool>()).prop_map(|(engine, ours)| Step::Join(engine, ours)),
        3 => engine.clone().prop_map(Step::Beat),
        1 => engine.clone().prop_map(Step::Disconnect),
        1 => engine.clone().prop_map(Step::Leave),
        2 => engine.clone().prop_map(Step::Direct),
        5 => (
            0..3_u32,
            any::<bool>(),
            prop::collection::vec(engine.clone(), 0..2),
            prop::option::weighted(0.2, 0..20_u64),
            prop::option::weighted(0.2, 0..20_u64),
        )
            .prop_map(|(retries, timeout, targets, after, follow)| {
                Step::Balanced { retries, timeout, targets, after, follow }
            }),
        1 => (prop::collection::vec(engine, 0..4), any::<bool>()).prop_map(|(to, one)| Step::Broadcast(to, one)),
        6 => (any::<usize>(), status, prop::bool::weighted(0.9))
            .prop_map(|(pick, status, met)| Step::Reply { pick, status, met }),
        1 => any::<usize>().prop_map(Step::Undelivered),
        1 => (0..20_u64).prop_map(Step::Abort),
        2 => (0..4000_u64).prop_map(Step::Pass),
    ]
}

/// What is at engines, and how often each request was answered.
#[derive(Default)]
struct Ledger {
    submitted: u64,
    sent: Vec<(Channel, EngineUuid, TaskId, MsgId)>,
    answers: BTreeMap<String, usize>,
    expected: BTreeMap<String, usize>,
}

impl Ledger {
    fn note(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Forward { channel, engine, task, message } => {
                    let header: Header = serde_json::from_slice(&message.header).expect("ours");
                    self.sent.push((channel, engine, task, header.msg_id));
                }
                Effect::Share { engine, task, header, .. } => {
                    self.sent.push((Channel::Broadcast, engine, task, header.msg_id));
                }
                Effect::Reply { parent, .. } => {
                    let parent: Header = serde_json::from_slice(&parent).expect("ours");
                    *self.answers.entry(parent.msg_id.to_string()).or_default() += 1;
                }
                // A reply says in its username what it answers.
                Effect::Relay { message, .. } => {
                    let header: Header = serde_json::from_slice(&message.header).expect("ours");
                    *self.answers.entry(header.username).or_default() += 1;
                }
                _ => {}
            }
        }
    }
}

fn run(steps: Vec<Step>) {
    let mut sim = Sim::new();
    let mut ledger = Ledger::default();
    for step in steps {
        let effects = match step {
            Step::Join(number, is_ours) => {
                sim.on(if is_ours { our_registration(number) } else { registering(&uuid(number), None) })
            }
            Step::Beat(number) => {
                let mut effects = sim.on(beat(number));
                for channel in Channel::ALL {
                    effects.extend(sim.on(Event::Reached { channel, identity: identity(number) }));
                }
                effects
            }
            Step::Disconnect(number) => sim.on(disconnected(number)),
            Step::Leave(number) => sim.on(Event::Unregistering { engine: Some(EngineId(number)) }),
            Step::Direct(number) => {
                ledger.submitted += 1;
                let id = format!("m{}", ledger.submitted);
                ledger.expected.insert(id.clone(), 1);
                sim.on(direct(&id, number))
            }
            Step::Balanced { retries, timeout, targets, after, follow } => {
                ledger.submitted += 1;
                let id = format!("m{}", ledger.submitted);
                ledger.expected.insert(id.clone(), 1);
                let need = |task: Option<u64>| Dependency {
                    dependencies: task.map(|task| format!("m{task}").into()).into_iter().collect(),
                    ..Dependency::default()
                };
                let metadata = TaskMetadata {
                    retries,
                    timeout: timeout.then_some(0.3),
                    targets: targets.into_iter().map(|number| uuid(number).as_str().into()).collect(),
                    after: need(after),
                    follow: need(follow),
                    ..TaskMetadata::default()
                };
                sim.on(task(&id, metadata))
            }
            Step::Broadcast(mut targets, is_coalescing) => {
                targets.sort_unstable();
                targets.dedup();
                ledger.submitted += 1;
                let id = format!("m{}", ledger.submitted);
                if is_coalescing || targets.is_empty() {
                    ledger.expected.insert(id.clone(), 1);
                } else {
                    for number in &targets {
                        ledger.expected.insert(format!("{id}_{}", uuid(*number)), 1);
                    }
                }
                let targets = targets
                    .into_iter()
                    .map(|number| (uuid(number).as_str().into(), EngineId(number)))
                    .collect();
                let metadata =
                    BroadcastMetadata { targets, is_broadcast: true, is_coalescing, ..Default::default() };
                sim.on(submitted(
                    Channel::Broadcast,
                    &id,
                    "apply_request",
                    Target::Broadcast(Box::new(metadata)),
                ))
            }
            Step::Reply { pick, status, met } => {
                if ledger.sent.is_empty() {
                    continue;
                }
                let place = pick % ledger.sent.len();
                let (channel, engine, task, msg_id) = ledger.sent.swap_remove(place);
                let header = Header { username: msg_id.to_string(), ..header("r", "apply_reply") };
                let message = wire(&header, json!({}), json!({ "status": status }), &["b"]);
                let told = matches!(channel, Channel::Task | Channel::Broadcast);
                let outcome = told.then_some(Outcome { status, dependencies_met: met });
                let identity = Bytes::from(engine.to_string());
                sim.on(Event::Replied { channel, identity, task, outcome, message })
            }
            Step::Undelivered(pick) => {
                if ledger.sent.is_empty() {
                    continue;
                }
                let place = pick % ledger.sent.len();
                let (_, engine, task, _) = ledger.sent.swap_remove(place);
                sim.on(Event::Undelivered { engine, task })
            }
            Step::Abort(number) => {
                let aborted = ids(&[&format!("m{number}")]);
                let target = Target::Control { engine: identity(9), aborted };
                let id = format!("abort{}-{number}", ledger.submitted);
                sim.on(submitted(Channel::Control, &id, "abort_request", target))
            }
            Step::Pass(milliseconds) => sim.pass(Duration::from_millis(milliseconds)),
        };
        ledger.note(effects);
    }
    // All engines die, and what still waits for engines is aborted.
    let mut effects = vec![];
    for number in 0..1_000 {
        if sim.controller.hub.is_empty() {
            break;
        }
        effects.extend(sim.on(Event::Unregistering { engine: Some(EngineId(number)) }));
    }
    let rest: Vec<String> = ledger.expected.keys().cloned().collect();
    let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
    let target = Target::Control { engine: identity(9), aborted: ids(&rest) };
    effects.extend(sim.on(submitted(Channel::Control, "the end", "abort_request", target)));
    ledger.note(effects);
    assert_eq!(sim.controller.unanswered(), 0);
    ledger.answers.retain(|id, _| ledger.expected.contains_key(id));
    assert_eq!(ledger.answers, ledger.expected);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn every_request_is_answered_exactly_once(steps in prop::collection::vec(steps(), 0..120)) {
        run(steps);
    }
}
