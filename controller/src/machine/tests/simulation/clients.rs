//! Clients: what they ask of engines and of the hub, and the count of their answers.

use protocol::extension::RequestMetadata;
use protocol::id::EngineUuid;
use protocol::message::execute::{BroadcastMetadata, Dependency};
use protocol::message::hub::QueueRequest;

use super::super::*;
use super::ledger::answers_to;
use super::network::{Down, Peer, Socket, Up};
use super::plan::{Action, Aim, Needed, Order, Question, Shape};
use super::world::{Wish, World};

/// A client's process.
pub(super) struct Person {
    /// Who it is, whatever its connections are called.
    identity: Bytes,
    is_gone: bool,
    /// Numbers its messages, in order.
    sent: usize,
}

impl Person {
    pub(super) fn new(number: u64) -> Person {
        Person { identity: Bytes::from(format!("c{number}")), is_gone: false, sent: 0 }
    }
}

impl World {
    /// The name of a client's next message: after its step, or numbered as stock clients do, so that it can be missed.
    fn name(&self, client: u64, plain: String) -> MsgId {
        if self.plan.has_restarts {
            format!("c{client}_1_{}", self.clients[client as usize].sent + 1).into()
        } else {
            plain.into()
        }
    }

    /// A client does what a step says. Its requests are named after the step.
    pub(super) fn demand(&mut self, step: usize, action: Action) {
        let clients = self.plan.clients;
        let client = |raw: u64| raw % clients;
        match action {
            Action::Direct { client: raw, engine, msg_type } => {
                let engine = self.named(engine);
                let target = Target::Engine(Bytes::copy_from_slice(engine.as_str().as_bytes()));
                let id = self.name(client(raw), format!("d{step}"));
                self.submit(client(raw), Channel::Mux, id, msg_type, target);
            }
            Action::Control { client: raw, engine, order } => {
                let id = self.name(client(raw), format!("x{step}"));
                self.order(client(raw), id, engine, order);
            }
            Action::Tasks { client: raw, count, shape } => {
                let client = client(raw);
                for number in 0..count {
                    let id = self.name(client, format!("t{step}.{number}"));
                    let metadata = self.metadata(&id, &shape);
                    let target = Target::Balanced(Box::new(metadata));
                    self.submit(client, Channel::Task, id.clone(), "apply_request", target);
                    if shape.is_aborted {
                        let order = Wish::Abort(vec![id.clone()]);
                        let engine = shape.targets.first().copied().unwrap_or(Aim::Living(step as u64));
                        let name = self.name(client, format!("x{id}"));
                        self.control(client, name, engine, "abort_request", order);
                    }
                    self.submitted.push(id);
                }
            }
            Action::Broadcast { client: raw, engines, is_coalescing } => {
                let mut targets: Vec<(EngineUuid, EngineId)> = vec![];
                for engine in engines.into_iter().map(|aim| self.named(aim)) {
                    // An engine that is named twice answers twice; if that is gathered, who tells the two apart?
                    if !is_coalescing || targets.iter().all(|(other, _)| *other != engine) {
                        let id = self.id_of(&engine).unwrap_or(EngineId(0));
                        targets.push((engine, id));
                    }
                }
                let metadata =
                    BroadcastMetadata { targets, is_broadcast: true, is_coalescing, ..Default::default() };
                let target = Target::Broadcast(Box::new(metadata));
                let id = self.name(client(raw), format!("b{step}"));
                self.submit(client(raw), Channel::Broadcast, id, "execute_request", target);
            }
            Action::Ask { client: raw, question } => {
                let all = |verbose| QueueRequest { targets: None, verbose };
                let query = match question {
                    Question::Connection => Query::Connection,
                    Question::Queue { is_verbose } => Query::Queue(all(is_verbose)),
                    Question::Load => Query::Load(all(false)),
                    Question::ClusterStatus => Query::ClusterStatus,
                    Question::Records => Query::History,
                    Question::Unknown => Query::Unknown("x".to_owned()),
                };
                let id = self.name(client(raw), format!("q{step}"));
                self.ask(client(raw), id, query);
            }
            Action::Unplug { client: raw, socket, time } => {
                let socket = Socket::OF_CLIENTS[(socket % 5) as usize];
                self.sever(Peer::Client(client(raw)), socket, time);
            }
            Action::Vanish { client: raw } => {
                // The first one stays, to see the end.
                let number = 1 + raw % (self.plan.clients - 1);
                let person = &mut self.clients[number as usize];
                person.is_gone = true;
                let identity = person.identity.clone();
                self.ledger.excuse_client(&identity);
            }
            Action::Launch { .. } | Action::Suffer { .. } | Action::Restart { .. } => {
                unreachable!("others do that")
            }
        }
    }

    fn named(&self, aim: Aim) -> EngineUuid {
        self.aimed(aim).map_or_else(|| "nobody".into(), |number| self.engines[&number].uuid.clone())
    }

    fn metadata(&self, own: &MsgId, shape: &Shape) -> TaskMetadata {
        let needed = |needed: &Needed| {
            let count = self.submitted.len();
            let back = |place: &u64| self.submitted.get(count.checked_sub(1 + *place as usize)?).cloned();
            let mut dependencies: Vec<MsgId> = needed.tasks.iter().filter_map(back).collect();
            if needed.is_unknown {
                dependencies.push(if needed.all { "nothing".into() } else { own.clone() });
            }
            Dependency { dependencies, all: needed.all, success: needed.success, failure: needed.failure }
        };
        TaskMetadata {
            after: needed(&shape.after),
            follow: needed(&shape.follow),
            targets: shape.targets.iter().map(|aim| self.named(*aim)).collect(),
            retries: shape.retries,
            extension: (shape.priority != 0)
                .then(|| RequestMetadata { priority: shape.priority, ..RequestMetadata::default() }),
            timeout: shape.timeout.map(|time| Duration::from_micros(time).as_secs_f64()),
            ..TaskMetadata::default()
        }
    }

    fn order(&mut self, client: u64, id: MsgId, engine: Aim, order: Order) {
        let (msg_type, wish) = match order {
            Order::Abort(places) => {
                let count = self.submitted.len();
                let back = |place: u64| self.submitted.get(count.checked_sub(1 + place as usize)?).cloned();
                ("abort_request", Wish::Abort(places.into_iter().filter_map(back).collect()))
            }
            Order::AbortAll => ("abort_request", Wish::Other(order)),
            Order::Signal => ("signal_request", Wish::Other(order)),
            Order::Shutdown => ("shutdown_request", Wish::Other(order)),
            Order::Clear => ("clear_request", Wish::Other(order)),
        };
        self.control(client, id, engine, msg_type, wish);
    }

    fn control(&mut self, client: u64, id: MsgId, engine: Aim, msg_type: &str, wish: Wish) {
        let engine = Bytes::copy_from_slice(self.named(engine).as_str().as_bytes());
        let aborted = if let Wish::Abort(ids) = &wish { ids.clone() } else { vec![] };
        self.orders.insert(id.clone(), wish);
        self.submit(client, Channel::Control, id, msg_type, Target::Control { engine, aborted });
    }

    fn next_header(&mut self, client: u64, id: &MsgId, msg_type: &str) -> Header {
        let person = &mut self.clients[client as usize];
        person.sent += 1;
        Header {
            username: person.sent.to_string(),
            session: format!("c{client}").into(),
            ..super::super::header(id.as_str(), msg_type)
        }
    }

    fn submit(&mut self, client: u64, channel: Channel, id: MsgId, msg_type: &str, target: Target) {
        if self.clients[client as usize].is_gone {
            return;
        }
        let header = self.next_header(client, &id, msg_type);
        let metadata = match &target {
            Target::Balanced(metadata) => json!(metadata),
            Target::Broadcast(metadata) => json!(metadata),
            Target::Engine(_) | Target::Control { .. } => json!({}),
        };
        let message = wire(&header, metadata, json!({}), &[]);
        let identity = self.clients[client as usize].identity.clone();
        let request = Request {
            client: Client { channel, address: Address::Connection(self.connection_of(client)) },
            header,
            target,
            message,
        };
        self.ledger.expect(&identity, &id, answers_to(&request));
        let parcel = Up::Event(Event::Submitted(Box::new(request)));
        self.send_up(Peer::Client(client), Socket::Channel(channel), parcel);
    }

    fn ask(&mut self, client: u64, id: MsgId, query: Query) {
        if self.clients[client as usize].is_gone {
            return;
        }
        let header = self.next_header(client, &id, "question");
        let identity = self.clients[client as usize].identity.clone();
        self.ledger.expect(&identity, &id, vec![id.clone()]);
        let header = Bytes::from(serde_json::to_vec(&header).expect("plain data"));
        let session = format!("c{client}").as_str().into();
        let event = Event::Asked { client: self.connection_of(client), session, msg_id: id, header, query };
        self.send_up(Peer::Client(client), Socket::Hub, Up::Event(event));
    }

    pub(super) fn client_receives(&mut self, client: u64, parcel: Down) {
        let person = &self.clients[client as usize];
        if person.is_gone {
            return;
        }
        let identity = person.identity.clone();
        match parcel {
            Down::Answer(id) => {
                self.tell(|| format!("c{client} has its answer to {id}"));
                self.ledger.give(&identity, &id);
            }
            Down::Lost(id) => {
                self.tell(|| format!("c{client} knows that {id} was lost"));
                self.ledger.tell_lost(&identity, &id);
            }
            Down::Again(parcel) => match *parcel {
                Down::Answer(id) => self.ledger.repeat(&identity, &id),
                Down::Lost(id) => self.ledger.repeat_lost(&identity, &id),
                other => unreachable!("only answers are given again, not {other:?}"),
            },
            other => unreachable!("clients get answers, not {other:?}"),
        }
    }

    pub(super) fn ask_for_shutdown(&mut self) {
        let id = self.name(0, "q-end".to_owned());
        self.ask(0, id, Query::Shutdown);
    }

    /// At the end of a run, when no engine is left: nothing that waits for one shall.
    pub(super) fn abort_everything(&mut self, rest: Vec<MsgId>) {
        let id = self.name(0, "x-end".to_owned());
        self.control(0, id, Aim::Nobody, "abort_request", Wish::Abort(rest));
    }
}
