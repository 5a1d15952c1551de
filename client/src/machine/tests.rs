//! The machine without sockets: events in, effects out, the invariants after every event.

use bytes::Bytes;
use protocol::error::ErrorContent;
use protocol::extension::EngineDescription;
use serde_json::json;

use super::*;

#[test]
fn a_cell_ends_with_its_reply_and_the_end_of_its_output() {
    let mut sim = Sim::with_engines(1);
    assert_eq!(sim.submit(T1, &["1"], &[0]), [send("1")]);

    assert_eq!(sim.printed("1", "hello"), [output(T1, 0, E0, "hello")]);
    assert_eq!(sim.on(replied("1")), [answer(T1, 0, E0)]);
    assert_eq!(sim.on(idle("1")), [ended(T1, 0)]);
    assert_eq!(sim.machine.outstanding(), 0);
}

#[test]
fn idle_may_come_before_the_reply() {
    let mut sim = Sim::with_engines(1);
    sim.submit(T1, &["1"], &[0]);

    assert_eq!(sim.on(idle("1")), []);
    assert_eq!(sim.on(replied("1")), [answer(T1, 0, E0), ended(T1, 0)]);
}

#[test]
fn a_lost_idle_is_waited_for_while_output_comes_and_then_a_second() {
    let mut sim = Sim::with_engines(1);
    sim.submit(T1, &["1"], &[0]);
    sim.on(replied("1"));

    sim.pass(OUTPUT_SILENCE_MAX / 2);
    sim.printed("1", "late");
    assert_eq!(sim.pass(OUTPUT_SILENCE_MAX / 2), []);
    assert_eq!(sim.pass(OUTPUT_SILENCE_MAX), [ended(T1, 0)]);
    assert_eq!(sim.machine.outstanding(), 0);
}

#[test]
fn a_repeated_or_late_reply_is_ignored() {
    let mut sim = Sim::with_engines(1);
    sim.submit(T1, &["1"], &[0]);
    sim.on(replied("1"));

    assert_eq!(sim.on(replied("1")), []);
    sim.on(idle("1"));
    assert_eq!(sim.on(replied("1")), []);
    assert_eq!(sim.on(idle("1")), []);
    assert_eq!(sim.on(replied("never asked")), []);
}

#[test]
fn each_engine_of_a_broadcast_answers_for_itself() {
    let mut sim = Sim::with_engines(2);
    assert_eq!(sim.broadcast(T1, "b", &[0, 1]), [send("b")]);

    assert_eq!(sim.on(replied("b_u1")), [answer(T1, 1, E1)]);
    assert_eq!(sim.on(replied("b_u0")), [answer(T1, 0, E0)]);
    assert_eq!(sim.machine.broadcasts.len(), 0);
}

#[test]
fn a_refusal_of_a_broadcast_answers_for_all_that_have_not() {
    let mut sim = Sim::with_engines(2);
    sim.broadcast(T1, "b", &[0, 1]);
    sim.on(replied("b_u0"));
    sim.on(idle("b_u0"));

    let effects = sim.on(refused("b", "too many requests"));

    assert_eq!(failures(&effects), ["rank 1: ValueError: too many requests"]);
    assert_eq!(sim.machine.outstanding(), 0);
}

#[test]
fn the_loss_of_an_engine_ends_its_part_and_no_other() {
    let mut sim = Sim::with_engines(2);
    sim.broadcast(T1, "b", &[0, 1]);

    assert_eq!(sim.on(left("u1", "killed by signal 9")), [Effect::Changed]);
    let effects = sim.pass(LOSS_DELAY);

    assert_eq!(
        failures(&effects),
        ["rank 1: EngineError: engine 1 (rank 1, host node1) is gone: killed by signal 9"]
    );
    assert_eq!(effects.last(), Some(&ended(T1, 1)));
    assert_eq!(sim.on(replied("b_u1")), [], "late");
    assert_eq!(sim.on(replied("b_u0")), [answer(T1, 0, E0)]);
}

#[test]
fn a_reply_that_crosses_the_news_of_its_engines_loss_counts() {
    let mut sim = Sim::with_engines(1);
    sim.submit(T1, &["1"], &[0]);
    sim.on(left("u0", "shut down"));

    assert_eq!(sim.on(replied("1")), [answer(T1, 0, E0)]);
    assert_eq!(sim.pass(LOSS_DELAY), [ended(T1, 0)]);
}

#[test]
fn a_request_to_an_engine_that_is_gone_fails_at_once() {
    let mut sim = Sim::with_engines(1);
    sim.on(left("u0", "gone"));
    sim.pass(LOSS_DELAY);

    let effects = sim.submit(T1, &["1"], &[0]);

    assert_eq!(failures(&effects).len(), 1);
    assert_eq!(sim.machine.outstanding(), 0);
}

#[test]
fn a_task_is_answered_by_whoever_ran_it() {
    let mut sim = Sim::with_engines(2);
    sim.task(T1, "t");

    assert_eq!(sim.on(left("u0", "gone")), [Effect::Changed]);
    assert_eq!(sim.pass(LOSS_DELAY), [], "the scheduler may run it elsewhere");
    let effects = sim.on(replied_by("t", "u1"));

    assert_eq!(effects, [answer(T1, 0, E1)]);
}

#[test]
fn a_task_that_the_scheduler_gave_up_has_no_output() {
    let mut sim = Sim::with_engines(1);
    sim.task(T1, "t");

    let effects = sim.on(refused("t", "waited 3 s"));

    assert_eq!(failures(&effects), ["the controller: ValueError: waited 3 s"]);
    assert_eq!(effects.last(), Some(&ended(T1, 0)));
}

#[test]
fn everything_ends_when_the_controller_does_and_says_why() {
    for (event, cause) in [
        (Event::ControllerStopped, "the controller was shut down"),
        (Event::Disconnected { channel: "mux" }, "the connection to the controller broke (mux)"),
    ] {
        let mut sim = Sim::with_engines(2);
        sim.broadcast(T1, "b", &[0, 1]);
        sim.task(T2, "t");

        let effects = sim.on(event);

        let failures = failures(&effects);
        assert_eq!(failures.len(), 3);
        assert!(failures.iter().all(|failure| failure.contains(cause)), "{failures:?}");
        assert_eq!(sim.machine.outstanding(), 0);
        assert!(sim.machine.engines().is_empty());
        let later = sim.submit(T2, &["2"], &[0]);
        assert!(matches!(later[0], Effect::Answer { .. }), "a request to a lost controller fails at once");
    }
}

#[test]
fn silence_is_first_asked_about_and_then_means_loss() {
    let mut sim = Sim::with_engines(1);
    sim.submit(T1, &["1"], &[0]);

    assert_eq!(sim.pass(LIVENESS_INTERVAL), [Effect::AskWhoIsHere]);
    assert_eq!(sim.pass(LIVENESS_INTERVAL), []);
    let effects = sim.pass(CONTROLLER_SILENCE_MAX);

    assert_eq!(failures(&effects).len(), 1);
    assert!(failures(&effects)[0].contains("has not answered for 20 s"));
    assert_eq!(sim.machine.next_deadline(), None);
}

#[test]
fn a_controller_that_comes_back_is_believed() {
    let mut sim = Sim::with_engines(2);
    sim.on(Event::Disconnected { channel: "query" });

    assert_eq!(sim.on(Event::Connected), [Effect::AskWhoIsHere]);
    assert_eq!(sim.on(Event::Listed(vec![engine(1)])), [Effect::Changed]);

    assert_eq!(sim.machine.contact(), &Contact::Good);
    assert_eq!(sim.machine.engines().ids(), [EngineId(1)]);
}

#[test]
fn a_list_corrects_missed_news_but_not_newer_ones() {
    let mut sim = Sim::with_engines(2);
    sim.pass(LIVENESS_INTERVAL);
    sim.on(Event::Joined(engine(2)));

    sim.on(Event::Listed(vec![engine(0)]));

    assert_eq!(sim.machine.engines().ids(), [EngineId(0), EngineId(2)]);
}

#[test]
fn output_of_others_is_ignored() {
    let mut sim = Sim::with_engines(1);
    assert_eq!(sim.printed("not ours", "x"), []);
}

#[test]
fn a_hundred_thousand_tasks_leave_nothing_behind() {
    let mut sim = Sim::with_engines(2);
    for number in 0..100_000 {
        let id = format!("t{number}");
        sim.task(Ticket(number), &id);
        sim.machine.handle(sim.now, replied_by(&id, "u0"), &mut Vec::new());
        sim.machine.handle(sim.now, idle(&id), &mut Vec::new());
        assert_eq!(sim.machine.outstanding(), 0);
        assert!(sim.machine.quiet.is_empty());
    }
    assert!(sim.machine.parts.capacity() < 64);
}

const T1: Ticket = Ticket(1);
const T2: Ticket = Ticket(2);
const E0: u32 = 0;
const E1: u32 = 1;

struct Sim {
    machine: ClientMachine,
    now: Instant,
}

impl Sim {
    fn with_engines(count: u32) -> Sim {
        let now = Instant::now();
        let mut sim = Sim { machine: ClientMachine::new(now), now };
        assert_eq!(sim.on(Event::Connected), [Effect::AskWhoIsHere]);
        sim.on(Event::Listed((0..count).map(engine).collect()));
        sim
    }

    fn on(&mut self, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.machine.handle(self.now, event, &mut effects);
        self.machine.check_invariants();
        effects
    }

    fn pass(&mut self, time: Duration) -> Vec<Effect> {
        self.now += time;
        self.on(Event::Deadline)
    }

    fn submit(&mut self, ticket: Ticket, ids: &[&str], engines: &[u32]) -> Vec<Effect> {
        let part = |(id, &number): (&&str, &u32)| part(id, Some(engine(number)), None);
        let parts = ids.iter().zip(engines).map(part).collect();
        let messages = ids.iter().map(|id| outgoing(id)).collect();
        self.on(Event::Submitted(Submission { ticket, parts, messages }))
    }

    fn broadcast(&mut self, ticket: Ticket, id: &str, engines: &[u32]) -> Vec<Effect> {
        let parts = engines
            .iter()
            .map(|&number| part(&format!("{id}_u{number}"), Some(engine(number)), Some(id)))
            .collect();
        self.on(Event::Submitted(Submission { ticket, parts, messages: vec![outgoing(id)] }))
    }

    fn task(&mut self, ticket: Ticket, id: &str) {
        let submission =
            Submission { ticket, parts: vec![part(id, None, None)], messages: vec![outgoing(id)] };
        let mut effects = Vec::new();
        self.machine.handle(self.now, Event::Submitted(submission), &mut effects);
        assert_eq!(effects, [send(id)]);
    }

    fn printed(&mut self, id: &str, text: &str) -> Vec<Effect> {
        self.on(Event::Printed { request: id.into(), engine: None, item: OutputItem::Stdout(text.into()) })
    }
}

fn engine(id: u32) -> Arc<Engine> {
    let description = EngineDescription {
        version: 1,
        host: format!("node{id}"),
        pid: 100 + id,
        world: Some("u0".into()),
        rank: id,
        world_size: 4,
        runner: "script".into(),
        job: None,
    };
    Arc::new(Engine {
        id: EngineId(id),
        uuid: format!("u{id}").as_str().into(),
        description: Some(description),
    })
}

fn part(id: &str, engine: Option<Arc<Engine>>, broadcast: Option<&str>) -> PartRequest {
    PartRequest { msg_id: id.into(), engine, broadcast: broadcast.map(MsgId::from), has_output: true }
}

fn outgoing(id: &str) -> Outgoing {
    let empty = Bytes::from_static(b"{}");
    let wire = WireMessage {
        signature: Bytes::new(),
        header: Bytes::from(id.to_owned()),
        parent_header: empty.clone(),
        metadata: empty.clone(),
        content: empty,
        buffers: vec![],
    };
    Outgoing { channel: Channel::Mux, route: None, wire }
}

fn replied(id: &str) -> Event {
    reply(id, None, Ok(Answer::Content(json!({}))))
}

fn replied_by(id: &str, uuid: &str) -> Event {
    reply(id, Some(uuid), Ok(Answer::Content(json!({}))))
}

fn refused(id: &str, why: &str) -> Event {
    let content = ErrorContent::new("ValueError", why);
    reply(id, None, Err(ReplyError { content, without_output: true }))
}

fn reply(id: &str, engine: Option<&str>, result: Result<Answer, ReplyError>) -> Event {
    let engine = engine.map(EngineUuid::from);
    Event::Replied(Reply { request: id.into(), engine, result, facts: ReplyFacts::default() })
}

fn idle(id: &str) -> Event {
    Event::Idle { request: id.into() }
}

fn left(uuid: &str, reason: &str) -> Event {
    Event::Left { uuid: uuid.into(), reason: Some(reason.into()) }
}

fn send(id: &str) -> Effect {
    Effect::Send(outgoing(id))
}

fn answer(ticket: Ticket, part: usize, by: u32) -> Effect {
    let outcome = EngineOutcome {
        engine: Some(engine(by)),
        result: Ok(Answer::Content(json!({}))),
        facts: ReplyFacts::default(),
        displayed: None,
    };
    Effect::Answer { ticket, part, outcome }
}

fn output(ticket: Ticket, part: usize, by: u32, text: &str) -> Effect {
    Effect::Output { ticket, part, engine: Some(engine(by)), item: OutputItem::Stdout(text.into()) }
}

fn ended(ticket: Ticket, part: usize) -> Effect {
    Effect::OutputEnded { ticket, part }
}

fn failures(effects: &[Effect]) -> Vec<String> {
    let failure = |effect: &Effect| match effect {
        Effect::Answer { outcome: EngineOutcome { result: Err(failure), .. }, .. } => {
            Some(failure.to_string())
        }
        _ => None,
    };
    effects.iter().filter_map(failure).collect()
}
