//! The virtual world around one controller: its clock, what is under way, and who is out there.

use std::collections::{BTreeMap, BTreeSet};

use protocol::id::EngineUuid;

use super::super::*;
use super::clients::Person;
use super::engines::Process;
use super::generator::Generator;
use super::ledger::{Ledger, id_of};
use super::network::{Delivery, Down, Links, Outbox, PROBE, Peer, Socket, TRY_INTERVAL, Unsent, Up};
use super::plan::{Action, MILLISECOND, Micros, Order, Plan, SECOND};
use super::reference::Reference;
use super::restart::Restarts;
use super::sabotage::Saboteur;
use super::story;

/// How late the shell may notice that a deadline has passed.
const LATENESS_MAX: Micros = 500;

/// Heartbeats whose echoes are accepted (as `shell/hearts.rs`).
const PINGS_REMEMBERED: u64 = 64;

/// By when everything that can end has ended, once nothing breaks any more; nothing here takes that long.
const SETTLED_AFTER: Micros = 200 * SECOND;

pub(super) struct World {
    pub(super) plan: Plan,
    /// An arbitrary moment: only differences count.
    origin: Instant,
    pub(super) now: Micros,
    pub(super) happenings: BTreeMap<(Micros, u64), Happening>,
    pub(super) scheduled: u64,
    /// Happenings that are no heartbeats: with none left, nothing more happens by itself.
    pub(super) pending: usize,
    pub(super) controller: Controller,
    /// Until the controller is killed for the first time: it does not know what is remembered and what is not.
    reference: Option<Reference>,
    pub(super) restarts: Restarts,
    pub(super) links: Links,
    pub(super) outbox: Outbox,
    pub(super) engines: BTreeMap<u32, Process>,
    pub(super) clients: Vec<Person>,
    /// What users are owed.
    pub(super) ledger: Ledger,
    /// Tasks that were lost on their way to an engine, or their replies.
    pub(super) lost: BTreeSet<(EngineUuid, TaskId)>,
    /// Names of all balanced tasks so far.
    pub(super) submitted: Vec<MsgId>,
    /// What control requests want.
    pub(super) orders: BTreeMap<MsgId, Wish>,
    pings: u64,
    /// To which engine an id was given last.
    given: BTreeMap<EngineId, u32>,
    pub(super) has_exited: bool,
    pub(super) saboteur: Option<Saboteur>,
    /// How often it came to what is worth testing.
    pub(super) tally: BTreeMap<&'static str, u64>,
    /// What happened, in words, if somebody wants to read it.
    pub(super) story: Option<Vec<String>>,
}

/// What a control request wants of its engine.
#[derive(Clone, Debug)]
pub(super) enum Wish {
    Abort(Vec<MsgId>),
    Other(Order),
}

#[derive(Debug)]
pub(super) enum Happening {
    Step(usize),
    Up {
        peer: Peer,
        socket: Socket,
        life: u32,
        parcel: Up,
    },
    Down {
        peer: Peer,
        socket: Socket,
        life: u32,
        parcel: Down,
    },
    /// A connection stands.
    Connected {
        peer: Peer,
        socket: Socket,
        life: u32,
    },
    /// The controller notices that a heart's connection has ended.
    HeartEnded {
        engine: u32,
        life: u32,
    },
    /// An engine is done with what it runs.
    Finished {
        engine: u32,
        run: u64,
    },
    /// A stopped engine goes on.
    Continued {
        engine: u32,
        stops: u32,
    },
    /// An engine that waits for its registration loses patience.
    Impatient {
        engine: u32,
    },
    /// A supervisor has seen that an engine is dead.
    Told {
        engine: u32,
    },
    /// The shell tries to send what it could not.
    Retry,
    /// So many of the replies of a controller's life have left it.
    Departed {
        life: u32,
        count: u64,
    },
    /// A controller goes on where another one was killed.
    Restarted,
}

impl Happening {
    pub(super) fn is_heartbeat(&self) -> bool {
        matches!(
            self,
            Happening::Up { parcel: Up::Echo(_), .. } | Happening::Down { parcel: Down::Ping(_), .. }
        )
    }
}

impl World {
    pub(super) fn new(plan: Plan, saboteur: Option<Saboteur>, is_told: bool) -> World {
        let origin = Instant::now();
        let mut world = World {
            origin,
            now: 0,
            happenings: BTreeMap::new(),
            scheduled: 0,
            pending: 0,
            controller: Controller::new(origin, plan.settings.clone()),
            reference: Some(Reference::new(&plan.settings)),
            restarts: Restarts::default(),
            links: Links::default(),
            outbox: Outbox::default(),
            engines: BTreeMap::new(),
            clients: (0..plan.clients).map(Person::new).collect(),
            ledger: Ledger::default(),
            lost: BTreeSet::new(),
            submitted: vec![],
            orders: BTreeMap::new(),
            pings: 0,
            given: BTreeMap::new(),
            has_exited: false,
            saboteur,
            tally: BTreeMap::new(),
            story: is_told.then(Vec::new),
            plan,
        };
        for client in 0..world.plan.clients {
            for socket in Socket::OF_CLIENTS {
                world.links.get(Peer::Client(client), socket).is_up = true;
            }
        }
        for place in 0..world.plan.steps.len() {
            world.schedule(world.plan.steps[place].at, Happening::Step(place));
        }
        world
    }

    /// From the first step to the end of the last engine.
    pub(super) fn run(&mut self) {
        while self.advance(self.plan.healed_at) {}
        self.heal();
        self.settle();
        if self.plan.is_shut_down {
            self.shut_down();
        } else {
            self.wind_up();
        }
    }

    pub(super) fn instant(&self) -> Instant {
        self.origin + Duration::from_micros(self.now)
    }

    pub(super) fn count(&mut self, what: &'static str) {
        *self.tally.entry(what).or_default() += 1;
    }

    /// Adds a line to the story. The words are made only if somebody reads them.
    pub(super) fn tell(&mut self, words: impl FnOnce() -> String) {
        if let Some(story) = &mut self.story {
            story.push(format!("{:12.6}  {}", self.now as f64 / SECOND as f64, words()));
        }
    }

    pub(super) fn schedule(&mut self, at: Micros, happening: Happening) {
        self.scheduled += 1;
        self.pending += usize::from(!happening.is_heartbeat());
        self.happenings.insert((at.max(self.now), self.scheduled), happening);
    }

    /// When the shell notices the machine's next deadline.
    fn next_deadline(&self) -> Option<Micros> {
        let (at, _) = self.controller.next_deadline()?;
        let at = at.saturating_duration_since(self.origin).as_nanos().div_ceil(1_000);
        let at = u64::try_from(at).expect("virtual time is short");
        Some(at.max(self.now) + Generator::of(&[self.plan.seed, 3, at]).below(LATENESS_MAX))
    }

    /// The next thing that happens, if it happens by then.
    fn advance(&mut self, until: Micros) -> bool {
        let next = self.happenings.first_key_value().map(|((at, _), _)| *at);
        let deadline = self.next_deadline().filter(|_| !self.has_exited && !self.is_down());
        let at = next.into_iter().chain(deadline).min().unwrap_or(Micros::MAX);
        if at > until {
            self.now = self.now.max(until);
            return false;
        }
        self.now = self.now.max(at);
        if next.is_none_or(|next| deadline.is_some_and(|deadline| deadline < next)) {
            self.feed(Event::Deadline);
            let again = self.controller.next_deadline();
            assert!(
                self.has_exited || again.is_none_or(|(at, _)| at > self.instant()),
                "the machine asks to be called at once, again and again: {again:?}"
            );
            return true;
        }
        let (_, happening) = self.happenings.pop_first().expect("just seen");
        self.pending -= usize::from(!happening.is_heartbeat());
        self.happen(happening);
        true
    }

    fn happen(&mut self, happening: Happening) {
        let Some(happening) = self.hold_back(happening) else { return };
        match happening {
            Happening::Step(place) => {
                let step = self.plan.steps[place].clone();
                self.tell(|| format!("step {}: {:?}", step.number, step.action));
                match step.action {
                    Action::Launch { first, ranks, is_ours, wish } => {
                        self.launch(first, ranks, is_ours, wish)
                    }
                    Action::Suffer { engine, fault } => self.suffer(engine, fault),
                    Action::Restart { time } => self.kill_controller(time),
                    action => self.demand(step.number, action),
                }
            }
            Happening::Up { peer, socket, life, parcel } => self.on_up(peer, socket, life, parcel),
            Happening::Down { peer, socket, life, parcel } => {
                if self.links.get(peer, socket).life != life {
                    self.on_down_lost(peer, parcel);
                    return;
                }
                match peer {
                    Peer::Engine(number) => self.engine_receives(number, parcel),
                    Peer::Client(number) => self.client_receives(number, parcel),
                }
            }
            Happening::Connected { peer, socket, life } => {
                if let Some(at) = self.postponed() {
                    self.schedule(at, Happening::Connected { peer, socket, life });
                } else if self.links.get(peer, socket).life == life {
                    self.connect(peer, socket);
                }
            }
            Happening::HeartEnded { engine, life } => {
                let process = self.engines.get_mut(&engine).expect("it was launched");
                // The end of a connection that was replaced by another since says nothing.
                if process.heart_seen == Some(life) {
                    process.heart_seen = None;
                    let identity = process.identity.clone();
                    self.feed(Event::Disconnected { identity });
                }
            }
            Happening::Finished { engine, run } => self.on_finished(engine, run),
            Happening::Continued { engine, stops } => {
                if self.engines[&engine].stops == stops {
                    self.resume(engine);
                }
            }
            Happening::Impatient { engine } => {
                let process = &self.engines[&engine];
                if process.id.is_none() && !process.is_dead {
                    self.die(engine, true);
                }
            }
            Happening::Told { engine } => {
                if let Some(at) = self.postponed() {
                    self.schedule(at, Happening::Told { engine });
                    return;
                }
                // It knows an id and no name. If another engine has that id by now, nobody can tell the two apart.
                let id = self.engines[&engine].id;
                if let Some(id) = id.filter(|id| self.given[id] == engine) {
                    self.count("deaths told by a supervisor");
                    self.feed(Event::Unregistering { engine: Some(id) });
                }
            }
            Happening::Retry => self.retry(),
            Happening::Departed { life, count } => self.on_departed(life, count),
            Happening::Restarted => self.restart_controller(),
        }
    }

    /// A stopped engine does nothing; what happens to it happens when it goes on.
    fn hold_back(&mut self, happening: Happening) -> Option<Happening> {
        let engine = match &happening {
            Happening::Down { peer: Peer::Engine(engine), .. }
            | Happening::Finished { engine, .. }
            | Happening::Impatient { engine } => *engine,
            _ => return Some(happening),
        };
        let process = self.engines.get_mut(&engine).expect("it was launched");
        if process.is_stopped && !process.is_dead {
            process.frozen.push(happening);
            return None;
        }
        Some(happening)
    }

    pub(super) fn send_up(&mut self, peer: Peer, socket: Socket, parcel: Up) {
        let is_slow = self.is_slow(peer);
        let link = self.links.get(peer, socket);
        if !link.is_up {
            link.backlog.push(parcel);
            return;
        }
        let life = link.life;
        let at = self.links.arrival(self.plan.seed, self.now, (peer, socket), true, is_slow);
        self.schedule(at, Happening::Up { peer, socket, life, parcel });
    }

    pub(super) fn send_down(&mut self, peer: Peer, socket: Socket, parcel: Down) {
        let is_slow = self.is_slow(peer);
        let life = self.links.get(peer, socket).life;
        let at = self.links.arrival(self.plan.seed, self.now, (peer, socket), false, is_slow);
        self.schedule(at, Happening::Down { peer, socket, life, parcel });
    }

    fn is_slow(&self, peer: Peer) -> bool {
        match peer {
            Peer::Engine(number) => self.engines[&number].slow_until > self.now,
            Peer::Client(_) => false,
        }
    }

    /// A connection ends: what is under way is lost. It comes back after a time.
    pub(super) fn sever(&mut self, peer: Peer, socket: Socket, time: Micros) {
        let link = self.links.get(peer, socket);
        if !link.is_up {
            return;
        }
        link.is_up = false;
        let before = link.life;
        link.life += 1;
        let life = link.life;
        if let (Peer::Engine(engine), Socket::Heart) = (peer, socket) {
            let late = Generator::of(&[self.plan.seed, 4, u64::from(engine), u64::from(before)]).below(3_000);
            self.schedule(self.now + late, Happening::HeartEnded { engine, life: before });
        }
        self.schedule(self.now + time, Happening::Connected { peer, socket, life });
    }

    fn connect(&mut self, peer: Peer, socket: Socket) {
        if let Peer::Engine(number) = peer
            && self.engines[&number].is_dead
        {
            return;
        }
        let link = self.links.get(peer, socket);
        link.is_up = true;
        let is_first = !std::mem::replace(&mut link.was_up, true);
        let backlog = std::mem::take(&mut link.backlog);
        if let Peer::Client(client) = peer {
            self.deliver_held(client, socket);
        }
        if let (Peer::Engine(number), Socket::Channel(channel), true) = (peer, socket, is_first) {
            self.greet(number, channel);
        }
        for parcel in backlog {
            self.send_up(peer, socket, parcel);
        }
    }

    fn on_up(&mut self, peer: Peer, socket: Socket, life: u32, parcel: Up) {
        let is_lost = self.links.get(peer, socket).life != life;
        match parcel {
            Up::Echo(ping) => {
                let Peer::Engine(number) = peer else { unreachable!("clients have no hearts") };
                if is_lost || ping + PINGS_REMEMBERED <= self.pings {
                    self.count("echoes that prove nothing");
                    return;
                }
                let process = self.engines.get_mut(&number).expect("it was launched");
                process.heart_seen = Some(life);
                let identity = process.identity.clone();
                self.feed(Event::Beat { identity });
            }
            Up::Event(event) if !is_lost => self.take_in(event),
            parcel @ Up::Event(_) => self.on_up_lost(parcel),
        }
    }

    pub(super) fn on_up_lost(&mut self, parcel: Up) {
        match parcel {
            Up::Echo(_) => {}
            Up::Event(event) => {
                self.tell(|| format!("lost: {}", story::event(&event)));
                self.count("messages lost on their way in");
                match event {
                    Event::Submitted(request) => self.ledger.excuse_request(&request.header.msg_id),
                    Event::Asked { header, .. } => self.ledger.excuse_request(&id_of(&header)),
                    Event::Replied { identity, task, .. } => {
                        let engine = EngineUuid::from(String::from_utf8_lossy(&identity).into_owned());
                        self.lost.insert((engine, task));
                    }
                    _ => {}
                }
            }
        }
    }

    pub(super) fn on_down_lost(&mut self, peer: Peer, parcel: Down) {
        self.tell(|| format!("lost on the way to {peer:?}: {parcel:?}"));
        self.count("messages lost on their way out");
        if self.is_said_again(&parcel) {
            return;
        }
        match (peer, parcel) {
            (_, Down::Again(parcel)) => match *parcel {
                Down::Lost(id) => self.ledger.excuse_request(&id),
                Down::Answer(id) => self.ledger.excuse(&id),
                _ => {}
            },
            (_, Down::Answer(id)) => self.ledger.excuse(&id),
            (_, Down::Lost(id)) => self.ledger.excuse_request(&id),
            (Peer::Engine(number), Down::Request(delivery)) => {
                let engine = self.engines[&number].uuid.clone();
                self.lost.insert((engine, delivery.task));
            }
            _ => {}
        }
    }

    /// Gives the machine an event, looks at what it makes of it, and does that.
    pub(super) fn feed(&mut self, event: Event) {
        if self.has_exited {
            return;
        }
        let words = self.story.is_some().then(|| story::event(&event));
        let is_routine = matches!(event, Event::Deadline | Event::Beat { .. } | Event::Departed { .. });
        self.note_event(&event);
        let now = self.instant();
        let mut effects = vec![];
        if let Some(reference) = &mut self.reference {
            reference.before(now, &event);
        }
        self.controller.handle(now, event, &mut effects);
        self.controller.check_invariants();
        if let Some(saboteur) = &mut self.saboteur {
            saboteur.meddle(&mut effects);
        }
        let is_told = |effect: &&Effect| !matches!(effect, Effect::Ping | Effect::Remember(_));
        let told = || effects.iter().filter(is_told);
        if let Some(words) = words.filter(|_| !is_routine || told().next().is_some()) {
            self.tell(|| format!("-> {words}"));
            told().for_each(|effect| self.tell(|| format!("     <- {}", story::effect(effect))));
        }
        self.check_losses(&effects);
        if let Some(reference) = &mut self.reference {
            reference.after(now, &effects, &self.controller);
        }
        self.perform_all(effects);
        self.check_missing();
    }

    /// What is to be remembered is written down before anything else is done.
    pub(super) fn perform_all(&mut self, effects: Vec<Effect>) {
        if self.plan.has_restarts {
            self.restarts.write_down(&effects);
            self.mark_departures(&effects);
        }
        for effect in effects {
            self.perform(effect);
        }
    }

    pub(super) fn forget_reference(&mut self) {
        self.reference = None;
    }

    pub(super) fn id_of(&self, engine: &EngineUuid) -> Option<EngineId> {
        self.controller.hub.by_uuid(engine.as_str()).map(|engine| engine.id)
    }

    fn holds(&self, engine: &EngineUuid, task: TaskId) -> bool {
        let engine = self.controller.hub.by_uuid(engine.as_str());
        engine.is_some_and(|engine| engine.outstanding.contains(&task))
    }

    fn note_event(&mut self, event: &Event) {
        match event {
            Event::Replied { identity, task, .. } => {
                let engine = EngineUuid::from(String::from_utf8_lossy(identity).into_owned());
                if !self.holds(&engine, *task) {
                    self.count("late replies");
                }
            }
            Event::Undelivered { engine, task } if self.holds(engine, *task) => {
                self.count("undelivered requests");
            }
            Event::Disconnected { .. } => self.count("disconnects"),
            _ => {}
        }
    }

    /// Only who gave a reason is lost.
    pub(super) fn check_losses(&mut self, effects: &[Effect]) {
        for effect in effects {
            let Effect::Publish { msg_type, content, .. } = effect else { continue };
            let Some(number) = content["uuid"].as_str().and_then(number_of) else { continue };
            if *msg_type == "registration_notification" {
                let process = self.engines.get_mut(&number).expect("it was launched");
                if std::mem::replace(&mut process.was_admitted, true) {
                    self.count("engines that returned");
                }
                continue;
            }
            let reason = content["reason"].as_str().expect("losses have reasons");
            let process = &self.engines[&number];
            let settings = &self.plan.settings;
            let patience = settings.heartbeat_period * (settings.heartbeat_misses + 2);
            let patience = u64::try_from(patience.as_micros()).expect("it is short") + 100 * MILLISECOND;
            if reason.contains("did not answer") {
                let is_ill = process.is_dead || process.is_stopped || process.mute_until > self.now;
                assert!(
                    is_ill || process.disturbed_until + patience >= self.now,
                    "e{number} is lost, but well: {reason}"
                );
                self.count("losses by silence");
            } else if reason.contains("connection") {
                assert!(
                    process.is_dead || process.disturbed_until > 0,
                    "e{number} is lost, but well: {reason}"
                );
                self.count("losses by disconnect");
            } else {
                let is_known = process.is_dead
                    || process.has_left
                    || reason.contains("anew")
                    || (reason == "the controller ends" && effects.contains(&Effect::Exit));
                assert!(is_known, "e{number} is taken for another that left: {reason}");
                self.count("departures");
            }
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Forward { channel, engine, task, message } => {
                let header: Header = serde_json::from_slice(&message.header).expect("a header");
                let is_aborted = channel == Channel::Task && self.restarts.aborted.contains(&header.msg_id);
                assert!(!is_aborted, "{} goes to {engine}, but was aborted", header.msg_id);
                self.deliver(&engine, channel, task, header, message.header);
            }
            Effect::Share { engine, task, header, .. } => {
                let frame = Bytes::from(serde_json::to_vec(&header).expect("plain data"));
                self.deliver(&engine, Channel::Broadcast, task, header, frame);
            }
            Effect::Stop { engine } => {
                let number = number_of(engine.as_str()).expect("an engine of ours");
                self.send_to_engine(number, Channel::Control, TaskId::NONE, Down::Stop);
            }
            Effect::Relay { client, message, .. } => {
                self.answer(&client, Down::Answer(id_of(&message.parent_header)));
            }
            Effect::Reply { client, parent, content, .. } => {
                if let Some(name) = content["ename"].as_str() {
                    self.count(match name {
                        "TaskTimeout" => "timeouts",
                        "ImpossibleDependency" => "impossible dependencies",
                        "InvalidDependency" => "invalid dependencies",
                        _ => "errors made by the controller",
                    });
                } else if content["status"] == "aborted" {
                    self.count("tasks aborted while they waited");
                }
                let id = id_of(&parent);
                let parcel = answer_in(id, &content);
                if let Down::Lost(id) = &parcel {
                    self.note_told_lost(id);
                }
                self.answer(&client, parcel);
            }
            Effect::Repeat { client, message, .. } => {
                let content = serde_json::from_slice(&message.content).expect("an object");
                self.answer_again(&client, answer_in(id_of(&message.parent_header), &content));
            }
            Effect::Idle { .. } => {}
            Effect::Answer { to, parent, content, .. } => match peer_of(&to) {
                Peer::Client(_) => self.send_to_client(&to, Socket::Hub, Down::Answer(id_of(&parent))),
                peer @ Peer::Engine(first) => {
                    let ids = std::iter::once(&content["id"])
                        .chain(content["commworld"]["member_ids"].as_array().into_iter().flatten());
                    for (number, id) in (first..).zip(ids.filter_map(Json::as_u64)) {
                        self.given.insert(EngineId(u32::try_from(id).expect("ids are small")), number);
                    }
                    if self.links.is_up(peer, Socket::Hub) {
                        self.send_down(peer, Socket::Hub, Down::Registered(content));
                    }
                }
            },
            Effect::AnswerStatus { to, parent, .. } => {
                self.send_to_client(&to, Socket::Hub, Down::Answer(id_of(&parent)))
            }
            // The store, which is no part of this, answers at once.
            Effect::Consult { to, parent, .. } => {
                self.send_to_client(&to, Socket::Hub, Down::Answer(id_of(&parent)))
            }
            Effect::Probe { channel, engine, task } => self.probe(&engine, channel, task),
            Effect::Publish { .. } | Effect::Remember(_) => {}
            Effect::Ping => {
                self.pings += 1;
                let engines: Vec<u32> = self.engines.keys().copied().collect();
                for engine in engines {
                    if self.links.is_up(Peer::Engine(engine), Socket::Heart) && !self.engines[&engine].is_dead
                    {
                        self.send_down(Peer::Engine(engine), Socket::Heart, Down::Ping(self.pings));
                    }
                }
            }
            Effect::Exit => self.has_exited = true,
        }
    }

    fn deliver(&mut self, engine: &EngineUuid, channel: Channel, task: TaskId, header: Header, frame: Bytes) {
        let number = number_of(engine.as_str()).expect("requests go to engines of ours");
        let Header { msg_id, msg_type, .. } = header;
        let delivery = Delivery { channel, task, msg_id, msg_type, header: frame };
        self.send_to_engine(number, channel, task, Down::Request(delivery));
    }

    fn probe(&mut self, engine: &EngineUuid, channel: Channel, task: TaskId) {
        self.count("probes");
        let header = super::super::header(PROBE, "execute_request");
        let frame = Bytes::from(serde_json::to_vec(&header).expect("plain data"));
        self.deliver(engine, channel, task, header, frame);
    }

    /// As `shell/outbox.rs`: what cannot be sent waits a little, behind what waits already.
    fn send_to_engine(&mut self, number: u32, channel: Channel, task: TaskId, parcel: Down) {
        let (peer, socket) = (Peer::Engine(number), Socket::Channel(channel));
        if self.links.is_up(peer, socket) && !self.outbox.0.contains_key(&(number, channel)) {
            self.send_down(peer, socket, parcel);
            return;
        }
        if self.outbox.0.is_empty() {
            self.schedule(self.now + TRY_INTERVAL, Happening::Retry);
        }
        let unsent = Unsent { until: self.now + self.plan.try_time, task, parcel };
        self.outbox.0.entry((number, channel)).or_default().push_back(unsent);
    }

    fn retry(&mut self) {
        let mut given_up = vec![];
        for ((number, channel), mut waiting) in std::mem::take(&mut self.outbox.0) {
            let (peer, socket) = (Peer::Engine(number), Socket::Channel(channel));
            while let Some(first) = waiting.pop_front() {
                if self.links.is_up(peer, socket) {
                    self.send_down(peer, socket, first.parcel);
                } else if first.until > self.now {
                    waiting.push_front(first);
                    break;
                } else {
                    given_up.push((self.engines[&number].uuid.clone(), first.task));
                }
            }
            if !waiting.is_empty() {
                self.outbox.0.insert((number, channel), waiting);
            }
        }
        if !self.outbox.0.is_empty() {
            self.schedule(self.now + TRY_INTERVAL, Happening::Retry);
        }
        for (engine, task) in given_up {
            self.feed(Event::Undelivered { engine, task });
        }
    }

    fn answer(&mut self, client: &Client, parcel: Down) {
        self.note_said(&parcel);
        let socket = Socket::Channel(client.channel);
        match &client.address {
            Address::Connection(identity) => self.send_to_client(identity, socket, parcel),
            Address::Session(session) => {
                let number = session.as_str()[1..].parse().expect("c<number>");
                self.answer_session(number, socket, parcel);
            }
            Address::Nobody => panic!("nobody gets {parcel:?}"),
        }
    }

    fn send_to_client(&mut self, identity: &Bytes, socket: Socket, parcel: Down) {
        let peer = self.client_of(identity);
        if self.links.is_up(peer, socket) {
            self.send_down(peer, socket, parcel);
        } else {
            self.on_down_lost(peer, parcel);
        }
    }

    /// Nothing breaks any more, and what can come back does.
    fn heal(&mut self) {
        self.tell(|| "all faults end".to_owned());
        let engines: Vec<u32> = self.engines.keys().copied().collect();
        for number in engines {
            if !self.engines[&number].is_dead {
                self.recover(number);
            }
        }
        for client in 0..self.plan.clients {
            for socket in Socket::OF_CLIENTS {
                self.connect(Peer::Client(client), socket);
            }
        }
        self.plan.habits.crashes = 0;
        self.plan.habits.takes_long = 0;
        self.ensure_life();
    }

    /// Somebody starts new engines when all are dead.
    fn ensure_life(&mut self) {
        if self.engines.values().all(|process| process.is_dead) {
            let first = self.engines.keys().last().map_or(0, |last| last + 100);
            self.launch(first, 1, false, None);
            self.launch(first + 1, 1, true, None);
        }
    }

    /// Lets the clock run until nothing more will happen: then everything is answered, and the hub knows who lives.
    fn settle(&mut self) {
        let end = self.now + SETTLED_AFTER;
        while !self.is_calm() {
            assert!(self.advance(end), "it does not come to rest: {}", self.unrest());
            self.ensure_life();
        }
        let stuck = self.held();
        for held in &stuck {
            assert!(self.lost.contains(held), "{held:?} is not answered, but nothing was lost");
        }
        if stuck.is_empty() {
            assert_eq!(self.controller.unanswered(), 0, "tasks wait although all is well");
            let owed = self.ledger.owed();
            assert!(owed.is_empty(), "never answered: {owed:?}");
        } else {
            self.count("requests lost with a connection that came back");
        }
    }

    /// Everything at engines.
    fn held(&self) -> Vec<(EngineUuid, TaskId)> {
        let engines = self.controller.hub.engines();
        let held =
            engines.flat_map(|engine| engine.outstanding.iter().map(|task| (engine.uuid.clone(), *task)));
        held.collect()
    }

    fn is_calm(&self) -> bool {
        let misses_messages = self.controller.hub.sessions.next_deadline().is_some();
        self.pending == 0
            && !misses_messages
            && self.controller.repeats.next_deadline().is_none()
            && self.controller.balanced.next_timeout().is_none()
            && self.unrest().is_empty()
    }

    /// How the hub errs about who lives, in words.
    fn unrest(&self) -> String {
        let mut words = String::new();
        for process in self.engines.values() {
            let is_here = self.id_of(&process.uuid).is_some();
            if is_here != self.must_be_here(process) && !(is_here && self.may_be_here(process)) {
                words += &format!("{} is here: {is_here}. ", process.uuid);
            }
        }
        if self.controller.hub.joining_count() > 0 {
            words += "Somebody joins.";
        }
        words
    }

    fn may_be_here(&self, process: &Process) -> bool {
        !process.is_dead && !process.has_left
    }

    /// Whether the hub must know an engine. It cannot know one whose id another one has got while it was away.
    fn must_be_here(&self, process: &Process) -> bool {
        let Some(id) = process.id else { return false };
        let holder = self.controller.hub.engine(id);
        self.may_be_here(process) && holder.is_none_or(|engine| engine.uuid == process.uuid)
    }

    /// Engines leave one by one; then nothing is left in any table.
    fn wind_up(&mut self) {
        let engines: Vec<u32> = self.engines.keys().copied().collect();
        for (place, number) in engines.into_iter().enumerate() {
            if !self.engines[&number].is_dead {
                self.retire(number, place);
                let end = self.now + 20 * MILLISECOND;
                while self.advance(end) {}
            }
        }
        let end = self.now + SETTLED_AFTER;
        while self.pending > 0 || !self.controller.hub.is_empty() {
            assert!(self.advance(end), "engines are gone, but not for the hub");
        }
        // What was lost with a connection has ended with its engine; what waited behind it waits for engines.
        let rest: Vec<MsgId> = self.controller.tasks.iter().map(|(_, task)| task.msg_id.clone()).collect();
        if !rest.is_empty() {
            self.abort_everything(rest);
            while self.pending > 0 && self.advance(end) {}
        }
        let owed = self.ledger.owed();
        assert!(owed.is_empty(), "never answered: {owed:?}");
        if let Some(reference) = &self.reference {
            let owed = reference.ledger.owed();
            assert!(owed.is_empty(), "never answered by the controller: {owed:?}");
        }
        let left: Vec<_> = self.controller.sizes().into_iter().filter(|(_, size)| *size > 0).collect();
        assert!(left.is_empty(), "left in tables when all is over: {left:?}");
    }

    /// A client ends the cluster: all engines are told, and the controller does not wait long for them.
    fn shut_down(&mut self) {
        self.count("shutdowns");
        let told = self.controller.hub.engines().count();
        self.ask_for_shutdown();
        let end = self.now + SECOND;
        while self.controller.stopping.is_none() && !self.has_exited {
            assert!(self.advance(end), "the shutdown was not noticed");
        }
        let end = self.now + STOP_TIME.as_micros() as u64 + LATENESS_MAX;
        while !self.has_exited {
            assert!(self.advance(end), "the controller does not end; {told} engines were told to");
        }
        assert_eq!(self.controller.unanswered(), 0, "requests are left behind");
        if let Some(reference) = &self.reference {
            let owed = reference.ledger.owed();
            assert!(owed.is_empty(), "never answered by the controller: {owed:?}");
        }
    }

    /// A stream of random numbers for one purpose of this run.
    pub(super) fn draw(&self, purpose: &[u64]) -> Generator {
        let mut parts = vec![self.plan.seed];
        parts.extend_from_slice(purpose);
        Generator::of(&parts)
    }
}

/// What a reply is to its client.
fn answer_in(id: MsgId, content: &Json) -> Down {
    let words = content["evalue"].as_str().unwrap_or_default();
    if words.starts_with("the request was lost") { Down::Lost(id) } else { Down::Answer(id) }
}

/// The number in an engine's uuid, `e<number>`.
pub(super) fn number_of(uuid: &str) -> Option<u32> {
    uuid.strip_prefix('e')?.parse().ok()
}

pub(super) fn peer_of(identity: &Bytes) -> Peer {
    let text = std::str::from_utf8(identity).expect("identities of the simulation are text");
    match number_of(text) {
        Some(number) => Peer::Engine(number),
        // With the number of the controller's life that gave it.
        None => {
            let number = text[1..].split('/').next().expect("a first part");
            Peer::Client(number.parse().expect("c<number>"))
        }
    }
}
