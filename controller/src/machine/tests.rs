//! The machine without sockets: events in, effects out, invariants after every event.

mod balanced;
mod broadcast;
mod dependency;
mod direct;
mod explain;
mod fairness;
mod liveness;
mod queries;
mod random;
mod records;
mod registration;
mod restore;
mod simulation;

use std::time::{Duration, Instant};

use bytes::Bytes;
use protocol::extension::{EngineDescription, Registration};
use protocol::frames::WireMessage;
use protocol::header::Header;
use protocol::id::{EngineId, MsgId};
use protocol::message::Status;
use protocol::message::execute::TaskMetadata;
use protocol::message::hub::RegistrationRequest;
use serde_json::{Value as Json, json};

use super::*;

/// A controller whose clock stands still until it is moved.
struct Sim {
    controller: Controller,
    now: Instant,
    /// What was to be remembered.
    changes: Vec<Change>,
}

impl Sim {
    fn new() -> Sim {
        Sim::with(Settings::default())
    }

    fn with(settings: Settings) -> Sim {
        let now = Instant::now();
        Sim { controller: Controller::new(now, settings), now, changes: vec![] }
    }

    /// With stock engines `e0`, `e1`, …, which hold one task each.
    fn with_engines(count: u32) -> Sim {
        let mut sim = Sim::with(Settings { window: Some(1), ..Settings::default() });
        (0..count).for_each(|number| sim.join(number));
        sim
    }

    fn on(&mut self, event: Event) -> Vec<Effect> {
        let mut effects = vec![];
        self.controller.handle(self.now, event, &mut effects);
        self.controller.check_invariants();
        self.keep_changes(&mut effects);
        effects
    }

    /// Puts what is to be remembered aside: most tests are not about it.
    fn keep_changes(&mut self, effects: &mut Vec<Effect>) {
        effects.retain(|effect| match effect {
            Effect::Remember(change) => {
                self.changes.push(change.clone());
                false
            }
            _ => true,
        });
    }

    /// Another controller that goes on where this one is killed.
    fn restart(&mut self) -> Vec<Effect> {
        let mut effects = vec![];
        let settings = self.controller.settings.clone();
        let changes = std::mem::take(&mut self.changes);
        self.controller = Controller::restore(self.now, settings, changes.clone(), &mut effects);
        self.controller.check_invariants();
        self.changes = changes;
        self.keep_changes(&mut effects);
        effects
    }

    /// Moves the clock in the steps that the machine asks for.
    fn pass(&mut self, time: Duration) -> Vec<Effect> {
        let end = self.now + time;
        let mut effects = vec![];
        while let Some((at, _)) = self.controller.next_deadline()
            && at <= end
        {
            self.now = self.now.max(at);
            effects.extend(self.on(Event::Deadline));
        }
        self.now = end;
        effects
    }

    /// A stock engine from its registration until it can be used.
    fn join(&mut self, number: u32) {
        self.on(registering(&uuid(number), None));
        self.on(beat(number));
        let joined = without_pings(self.pass(Duration::from_millis(50)));
        assert!(published(&joined).contains(&"registration_notification"), "{joined:?}");
    }
}

fn uuid(number: u32) -> String {
    format!("e{number}")
}

fn identity(number: u32) -> Bytes {
    Bytes::from(uuid(number))
}

fn registering(uuid: &str, id: Option<u32>) -> Event {
    registration(RegistrationRequest { uuid: uuid.into(), id: id.map(EngineId), extension: None })
}

fn registration(request: RegistrationRequest) -> Event {
    Event::Registering {
        identity: Bytes::from(request.uuid.to_string()),
        header: Bytes::from_static(b"{}"),
        request: Box::new(request),
    }
}

fn ours(rank: u32) -> EngineDescription {
    EngineDescription { version: 1, host: "h".into(), pid: 7, rank, world_size: 2, ..Default::default() }
}

fn our_registration(number: u32) -> Event {
    let extension = Some(Registration { engine: ours(number), members: vec![] });
    registration(RegistrationRequest {
        uuid: uuid(number).as_str().into(),
        id: Some(EngineId(number)),
        extension,
    })
}

fn beat(number: u32) -> Event {
    Event::Beat { identity: identity(number) }
}

fn disconnected(number: u32) -> Event {
    Event::Disconnected { identity: identity(number) }
}

fn client(channel: Channel) -> Client {
    Client { channel, address: Address::Connection(Bytes::from_static(b"c")) }
}

fn header(msg_id: &str, msg_type: &str) -> Header {
    Header {
        msg_id: msg_id.into(),
        msg_type: msg_type.into(),
        username: String::new(),
        session: "s".into(),
        date: None,
        version: "5.4".into(),
    }
}

fn wire(header: &Header, metadata: Json, content: Json, buffers: &[&'static str]) -> WireMessage {
    WireMessage {
        signature: Bytes::new(),
        header: Bytes::from(serde_json::to_vec(header).expect("plain data")),
        parent_header: Bytes::from_static(b"{}"),
        metadata: Bytes::from(metadata.to_string()),
        content: Bytes::from(content.to_string()),
        buffers: buffers.iter().map(|buffer| Bytes::from_static(buffer.as_bytes())).collect(),
    }
}

/// The request of that id, as a client would send it.
fn message(msg_id: &str) -> WireMessage {
    wire(&header(msg_id, "apply_request"), json!({}), json!({}), &[])
}

fn submitted(channel: Channel, msg_id: &str, msg_type: &str, target: Target) -> Event {
    let header = header(msg_id, msg_type);
    let message = wire(&header, json!({}), json!({}), &[]);
    Event::Submitted(Box::new(Request { client: client(channel), header, target, message }))
}

fn task(msg_id: &str, metadata: TaskMetadata) -> Event {
    submitted(Channel::Task, msg_id, "apply_request", Target::Balanced(Box::new(metadata)))
}

fn plain_task(msg_id: &str) -> Event {
    task(msg_id, TaskMetadata::default())
}

fn direct(msg_id: &str, engine: u32) -> Event {
    submitted(Channel::Mux, msg_id, "apply_request", Target::Engine(identity(engine)))
}

fn forwarded(channel: Channel, engine: u32, task: u64, msg_id: &str) -> Effect {
    Effect::Forward {
        channel,
        engine: uuid(engine).as_str().into(),
        task: TaskId(task),
        message: message(msg_id),
    }
}

/// A reply that differs from all others.
fn reply_of(engine: u32, task: u64) -> WireMessage {
    wire(&header(&format!("r{engine}-{task}"), "apply_reply"), json!({}), json!({ "status": "ok" }), &["b"])
}

fn replied(channel: Channel, engine: u32, task: u64, outcome: Option<Outcome>) -> Event {
    let message = reply_of(engine, task);
    Event::Replied { channel, identity: identity(engine), task: TaskId(task), outcome, message }
}

fn finished(engine: u32, task: u64) -> Event {
    replied(Channel::Task, engine, task, Some(Outcome { status: Status::Ok, dependencies_met: true }))
}

fn failed(engine: u32, task: u64) -> Event {
    replied(Channel::Task, engine, task, Some(Outcome { status: Status::Error, dependencies_met: true }))
}

fn relayed(channel: Channel, engine: u32, task: u64) -> Effect {
    let message = reply_of(engine, task);
    Effect::Relay { client: client(channel), engine: uuid(engine).as_str().into(), message }
}

fn without_pings(mut effects: Vec<Effect>) -> Vec<Effect> {
    effects.retain(|effect| *effect != Effect::Ping);
    effects
}

fn published(effects: &[Effect]) -> Vec<&'static str> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Publish { msg_type, .. } => Some(*msg_type),
            _ => None,
        })
        .collect()
}

/// Names and words of the replies made by the controller, by the id of their requests.
fn errors(effects: &[Effect]) -> Vec<(String, String, String)> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Reply { parent, content, .. } => {
                let parent: Json = serde_json::from_slice(parent).expect("a header");
                let text = |value: &Json| value.as_str().unwrap_or_default().to_owned();
                let name = if content["ename"].is_string() { &content["ename"] } else { &content["status"] };
                Some((text(&parent["msg_id"]), text(name), text(&content["evalue"])))
            }
            _ => None,
        })
        .collect()
}

fn error_names(effects: &[Effect]) -> Vec<(String, String)> {
    errors(effects).into_iter().map(|(id, name, _)| (id, name)).collect()
}

fn pair(id: &str, name: &str) -> (String, String) {
    (id.to_owned(), name.to_owned())
}

/// The first answer of the hub.
fn answer(effects: &[Effect]) -> (&'static str, Json) {
    effects
        .iter()
        .find_map(|effect| match effect {
            Effect::Answer { msg_type, content, .. } => Some((*msg_type, content.clone())),
            _ => None,
        })
        .expect("the hub answers")
}

fn ids(names: &[&str]) -> Vec<MsgId> {
    names.iter().map(|name| MsgId::from(*name)).collect()
}
