//! Engines as the controller sees them, stock ones and ours: they join, queue what they get, run one request at a
//! time, answer, fall ill and die.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use protocol::extension::Member;
use protocol::id::EngineUuid;

use super::super::*;
use super::network::{Delivery, Down, Peer, Socket, Up};
use super::plan::{Aim, Fault, MILLISECOND, Micros, Order, SECOND};
use super::world::{Happening, Wish, World};

/// How long an engine waits for the answer to its registration.
const REGISTRATION_PATIENCE: Micros = 10 * SECOND;

/// How late what a slow engine sends, or is sent, may come.
const SLOWEST: Micros = 3 * SECOND;

/// One engine's process.
pub(super) struct Process {
    pub(super) number: u32,
    pub(super) uuid: EngineUuid,
    pub(super) identity: Bytes,
    is_ours: bool,
    /// Ranks that it registers beside itself, or is registered with.
    members: Vec<u32>,
    wish: Option<EngineId>,
    /// Once it was given one.
    pub(super) id: Option<EngineId>,
    pub(super) is_dead: bool,
    /// It said goodbye.
    pub(super) has_left: bool,
    pub(super) is_stopped: bool,
    pub(super) stops: u32,
    /// What happened to it while it was stopped.
    pub(super) frozen: Vec<Happening>,
    pub(super) mute_until: Micros,
    pub(super) slow_until: Micros,
    /// Until when something was wrong with it.
    pub(super) disturbed_until: Micros,
    /// The connection over which its heart was heard last.
    pub(super) heart_seen: Option<u32>,
    /// Whether clients were ever told that it is here.
    pub(super) was_admitted: bool,
    queue: VecDeque<Delivery>,
    running: Option<Running>,
    runs: u64,
    /// Requests that were aborted before they came.
    tombstones: BTreeSet<MsgId>,
    /// The latest request of each client on each channel that keeps order.
    received: BTreeMap<(String, Channel), usize>,
}

struct Running {
    delivery: Delivery,
    run: u64,
    end: End,
}

/// How a request ends on an engine.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Ok,
    Error,
    Aborted,
    /// The engine cannot do it; others may.
    Declined,
    Crash,
}

impl Process {
    fn new(number: u32, is_ours: bool, wish: Option<u32>) -> Process {
        Process {
            number,
            uuid: uuid(number).into(),
            identity: identity(number),
            is_ours,
            members: vec![],
            wish: wish.map(EngineId),
            id: None,
            is_dead: false,
            has_left: false,
            is_stopped: false,
            stops: 0,
            frozen: vec![],
            mute_until: 0,
            slow_until: 0,
            disturbed_until: 0,
            heart_seen: None,
            was_admitted: false,
            queue: VecDeque::new(),
            running: None,
            runs: 0,
            tombstones: BTreeSet::new(),
            received: BTreeMap::new(),
        }
    }
}

impl World {
    fn process(&mut self, number: u32) -> &mut Process {
        self.engines.get_mut(&number).expect("it was launched")
    }

    /// Engines of one launcher start; the first registers all.
    pub(super) fn launch(&mut self, first: u32, ranks: u32, is_ours: bool, wish: Option<u32>) {
        for number in first..first + ranks {
            let mut process = Process::new(number, is_ours, wish.filter(|_| number == first));
            if number == first {
                process.members = (first + 1..first + ranks).collect();
            }
            self.engines.insert(number, process);
            self.first_connection(Peer::Engine(number), Socket::Hub);
            self.schedule(self.now + REGISTRATION_PATIENCE, Happening::Impatient { engine: number });
        }
        self.register(first);
    }

    fn register(&mut self, number: u32) {
        let process = &self.engines[&number];
        let ranks = process.members.len() as u32 + 1;
        let described =
            |rank: u32| protocol::extension::EngineDescription { world_size: ranks, ..ours(rank) };
        let members = process
            .members
            .iter()
            .map(|member| Member { uuid: uuid(*member).into(), engine: described(member - number) });
        let extension =
            process.is_ours.then(|| Registration { engine: described(0), members: members.collect() });
        let request = RegistrationRequest { uuid: process.uuid.clone(), id: process.wish, extension };
        self.send_up(Peer::Engine(number), Socket::Hub, Up::Event(registration(request)));
    }

    fn on_registered(&mut self, number: u32, answer: &Json) {
        let Some(id) = answer["id"].as_u64() else {
            self.count("registrations refused");
            // Who is refused ends; who had registered before goes on.
            if self.engines[&number].id.is_none() {
                self.die(number, true);
            }
            return;
        };
        let ids = std::iter::once(id).chain(
            answer["commworld"]["member_ids"].as_array().into_iter().flatten().filter_map(Json::as_u64),
        );
        let ids: Vec<EngineId> = ids.map(|id| EngineId(u32::try_from(id).expect("ids are small"))).collect();
        let ranks: Vec<u32> =
            std::iter::once(number).chain(self.engines[&number].members.iter().copied()).collect();
        assert_eq!(ids.len(), ranks.len(), "an id for each rank");
        for (number, id) in ranks.into_iter().zip(ids) {
            let process = self.process(number);
            if process.is_dead {
                continue;
            }
            let is_first = process.id.replace(id).is_none();
            for (place, socket) in Socket::OF_ENGINES.into_iter().enumerate().skip(1) {
                if is_first {
                    let late = self.draw(&[10, u64::from(number), place as u64]).between(1, 60) * MILLISECOND;
                    let (peer, life) = (Peer::Engine(number), 0);
                    self.schedule(self.now + late, Happening::Connected { peer, socket, life });
                } else if let Socket::Channel(channel) = socket {
                    self.greet(number, channel);
                }
            }
        }
    }

    /// An engine of ours says on a channel that it can be reached there.
    pub(super) fn greet(&mut self, number: u32, channel: Channel) {
        let process = &self.engines[&number];
        if process.is_ours {
            let identity = process.identity.clone();
            let parcel = Up::Event(Event::Reached { channel, identity });
            self.send_up(Peer::Engine(number), Socket::Channel(channel), parcel);
        }
    }

    /// The engine that is meant.
    pub(super) fn aimed(&self, aim: Aim) -> Option<u32> {
        let choose = |numbers: Vec<u32>, raw: u64| {
            let place = raw.checked_rem(numbers.len() as u64)?;
            Some(numbers[place as usize])
        };
        match aim {
            Aim::Living(raw) => {
                let living = self.engines.values().filter(|process| !process.is_dead);
                choose(living.map(|process| process.number).collect(), raw)
            }
            Aim::Anyone(raw) => choose(self.engines.keys().copied().collect(), raw),
            Aim::Nobody => None,
        }
    }

    pub(super) fn engine_receives(&mut self, number: u32, parcel: Down) {
        if self.engines[&number].is_dead {
            return;
        }
        match parcel {
            Down::Ping(ping) => {
                if self.engines[&number].mute_until <= self.now {
                    self.send_up(Peer::Engine(number), Socket::Heart, Up::Echo(ping));
                }
            }
            Down::Registered(answer) => self.on_registered(number, &answer),
            Down::Stop => self.leave(number, true),
            Down::Request(delivery) => self.on_request(number, delivery),
            Down::Answer(_) | Down::Lost(_) | Down::Again(_) => unreachable!("answers go to clients"),
        }
    }

    fn on_request(&mut self, number: u32, delivery: Delivery) {
        if !delivery.is_probe() {
            self.check_order(number, &delivery);
        }
        if delivery.task == TaskId::NONE {
            return; // Nobody answers it.
        }
        if delivery.channel == Channel::Control {
            self.serve(number, delivery);
            return;
        }
        if self.process(number).tombstones.contains(&delivery.msg_id) {
            self.count("aborts that overtook their request");
            self.reply(number, delivery, End::Aborted);
            return;
        }
        self.process(number).queue.push_back(delivery);
        self.run_next(number);
    }

    /// Whatever one client sent over one channel comes in that order; only balanced tasks overtake each other.
    fn check_order(&mut self, number: u32, delivery: &Delivery) {
        let header: Header = serde_json::from_slice(&delivery.header).expect("a header");
        let order: usize = header.username.parse().expect("a number");
        if delivery.channel != Channel::Task {
            let key = (header.session.to_string(), delivery.channel);
            let before = self.process(number).received.insert(key, order);
            // The shares of one broadcast to one engine have the same number.
            assert!(before.is_none_or(|before| before <= order), "{} was overtaken", delivery.msg_id);
        }
    }

    /// A control request is served at once, whatever runs.
    fn serve(&mut self, number: u32, delivery: Delivery) {
        let wish = self.orders.get(&delivery.msg_id).cloned().expect("control requests say what they want");
        match wish {
            Wish::Abort(ids) => {
                let mut ids: BTreeSet<MsgId> = ids.into_iter().collect();
                self.abort_where(number, |waiting| ids.remove(&waiting.msg_id));
                self.process(number).tombstones.extend(ids);
            }
            Wish::Other(Order::AbortAll) => self.abort_where(number, |_| true),
            Wish::Other(Order::Signal) => {
                let now = self.now;
                if let Some(running) = &mut self.process(number).running {
                    running.end = End::Error;
                    running.run += 1_000_000; // Its own end comes too late.
                    let run = running.run;
                    self.schedule(now, Happening::Finished { engine: number, run });
                }
            }
            Wish::Other(Order::Shutdown) => {
                if self.draw(&[11, u64::from(number)]).chance(70) {
                    self.reply(number, delivery, End::Ok);
                }
                self.leave(number, true);
                return;
            }
            Wish::Other(Order::Clear | Order::Abort(_)) => {}
        }
        self.reply(number, delivery, End::Ok);
    }

    fn abort_where(&mut self, number: u32, mut goes: impl FnMut(&Delivery) -> bool) {
        let queue = std::mem::take(&mut self.process(number).queue);
        for delivery in queue {
            if goes(&delivery) {
                self.count("requests aborted by engines");
                self.reply(number, delivery, End::Aborted);
            } else {
                self.process(number).queue.push_back(delivery);
            }
        }
    }

    fn run_next(&mut self, number: u32) {
        if self.engines[&number].running.is_some() {
            return;
        }
        let Some(delivery) = self.process(number).queue.pop_front() else { return };
        let habits = self.plan.habits.clone();
        let is_balanced = delivery.channel == Channel::Task;
        let mut draw = self.draw(&[12, u64::from(number), hash(delivery.msg_id.as_str())]);
        let end = if delivery.is_probe() {
            End::Ok
        } else if draw.chance(habits.crashes) {
            End::Crash
        } else if is_balanced && draw.chance(habits.declines) {
            End::Declined
        } else if draw.chance(habits.fails) {
            End::Error
        } else {
            End::Ok
        };
        let most = if draw.chance(habits.takes_long) { 3 * SECOND } else { draw.pick(&[200, 2_000, 40_000]) };
        let time = draw.between(20, most);
        let process = self.process(number);
        process.runs += 1;
        let run = process.runs;
        process.running = Some(Running { delivery, run, end });
        self.schedule(self.now + time, Happening::Finished { engine: number, run });
    }

    pub(super) fn on_finished(&mut self, number: u32, run: u64) {
        let process = self.process(number);
        if process.is_dead || process.running.as_ref().is_none_or(|running| running.run != run) {
            return;
        }
        let Running { delivery, end, .. } = process.running.take().expect("just looked");
        if end == End::Crash {
            self.count("crashes of busy engines");
            let is_seen = self.draw(&[13, u64::from(number)]).chance(80);
            self.die(number, is_seen);
            return;
        }
        let is_cell = delivery.msg_type == "execute_request";
        self.reply(number, delivery, end);
        if end == End::Error && is_cell {
            self.abort_where(number, |waiting| waiting.msg_type == "execute_request");
        }
        self.run_next(number);
    }

    fn reply(&mut self, number: u32, delivery: Delivery, end: End) {
        let Delivery { channel, task, msg_id, msg_type, header } = delivery;
        let process = self.process(number);
        let status = match end {
            End::Ok => Status::Ok,
            End::Aborted => Status::Aborted,
            End::Error | End::Declined | End::Crash => Status::Error,
        };
        let (identity, uuid) = (process.identity.clone(), process.uuid.clone());
        let told = matches!(channel, Channel::Task | Channel::Broadcast);
        let outcome = told.then_some(Outcome { status, dependencies_met: end != End::Declined });
        let reply_type = reply_type(&msg_type).expect("a request");
        let own = super::super::header(&format!("{uuid}-{}", task.0), &reply_type);
        let content = json!({ "status": status, "engine": uuid, "of": msg_id });
        let message = WireMessage {
            signature: Bytes::new(),
            header: Bytes::from(serde_json::to_vec(&own).expect("plain data")),
            parent_header: header,
            metadata: Bytes::from_static(b"{}"),
            content: Bytes::from(content.to_string()),
            buffers: vec![Bytes::from(msg_id.to_string())],
        };
        let event = Event::Replied { channel, identity, task, outcome, message };
        let answers_twice = self.plan.habits.answers_twice;
        if self.draw(&[14, u64::from(number), task.0]).chance(answers_twice) {
            self.count("replies that came twice");
            self.send_up(Peer::Engine(number), Socket::Channel(channel), Up::Event(event.clone()));
        }
        self.send_up(Peer::Engine(number), Socket::Channel(channel), Up::Event(event));
    }

    /// Ends in order: says so, then dies.
    fn leave(&mut self, number: u32, by_output: bool) {
        let process = self.process(number);
        process.has_left = true;
        let event = Event::Ending { engine: process.uuid.clone(), reason: None };
        let socket = if by_output { Socket::Output } else { Socket::Hub };
        self.send_up(Peer::Engine(number), socket, Up::Event(event));
        self.end(number, true, false);
    }

    /// A process ends without a word.
    pub(super) fn die(&mut self, number: u32, is_seen: bool) {
        let takes_along = self.draw(&[15, u64::from(number)]).chance(50);
        self.end(number, is_seen, takes_along);
    }

    /// If nobody sees it, connections stand, and nobody is there. What it said last may go with it.
    fn end(&mut self, number: u32, is_seen: bool, takes_along: bool) {
        let process = self.process(number);
        if process.is_dead {
            return;
        }
        process.is_dead = true;
        process.disturbed_until = process.disturbed_until.max(1);
        process.running = None;
        process.queue.clear();
        process.frozen.clear();
        self.tell(|| format!("e{number} is dead (seen: {is_seen})"));
        if !is_seen {
            self.count("deaths that nobody saw");
            return;
        }
        let peer = Peer::Engine(number);
        let drained = self.links.drained(self.now, peer, Socket::Heart);
        for socket in Socket::OF_ENGINES {
            let link = self.links.get(peer, socket);
            link.is_up = false;
            if socket == Socket::Heart {
                let life = link.life;
                self.schedule(drained + 200, Happening::HeartEnded { engine: number, life });
            } else if takes_along {
                link.life += 1;
            }
        }
    }

    /// Something happens to a living engine.
    pub(super) fn suffer(&mut self, raw: u64, fault: Fault) {
        let Some(number) = self.aimed(Aim::Living(raw)) else { return };
        self.tell(|| format!("e{number} suffers {fault:?}"));
        let (now, peer) = (self.now, Peer::Engine(number));
        let disturb = |process: &mut Process, until: Micros| {
            process.disturbed_until = process.disturbed_until.max(until);
        };
        disturb(self.process(number), now);
        match fault {
            Fault::Kill { is_seen, told_after } => {
                self.die(number, is_seen);
                if let Some(time) = told_after {
                    self.schedule(now + time, Happening::Told { engine: number });
                }
            }
            Fault::Stop(time) => {
                let process = self.process(number);
                process.is_stopped = true;
                process.stops += 1;
                let stops = process.stops;
                disturb(process, now + time);
                self.schedule(now + time, Happening::Continued { engine: number, stops });
            }
            Fault::Mute(time) => {
                let process = self.process(number);
                process.mute_until = process.mute_until.max(now + time);
                disturb(process, now + time);
            }
            Fault::BreakHeart(time) => {
                disturb(self.process(number), now + time);
                self.sever(peer, Socket::Heart, time);
            }
            Fault::BreakAll(time) => {
                disturb(self.process(number), now + time);
                for (place, socket) in Socket::OF_ENGINES.into_iter().enumerate() {
                    let more = self.draw(&[16, now, place as u64]).below(30) * MILLISECOND;
                    self.sever(peer, socket, time + more);
                }
            }
            Fault::BreakOne { socket, time } => {
                let sockets = &Socket::OF_ENGINES[..6];
                disturb(self.process(number), now + time);
                self.sever(peer, sockets[(socket % sockets.len() as u64) as usize], time);
            }
            Fault::Slow(time) => {
                let process = self.process(number);
                process.slow_until = process.slow_until.max(now + time);
                disturb(process, now + time + SLOWEST);
            }
            Fault::Leave { by_output } => self.leave(number, by_output),
            Fault::RegisterAnew => {
                let process = &self.engines[&number];
                if process.id.is_some() && process.members.is_empty() && !process.is_stopped {
                    self.count("registrations anew");
                    self.register(number);
                }
            }
        }
    }

    /// A stopped engine goes on.
    pub(super) fn resume(&mut self, number: u32) {
        let now = self.now;
        let process = self.process(number);
        if !std::mem::take(&mut process.is_stopped) || process.is_dead {
            return;
        }
        process.disturbed_until = process.disturbed_until.max(now);
        for happening in std::mem::take(&mut process.frozen) {
            self.schedule(now, happening);
        }
    }

    /// All that is wrong with a living engine ends.
    pub(super) fn recover(&mut self, number: u32) {
        let now = self.now;
        self.resume(number);
        let process = self.process(number);
        process.disturbed_until = process.disturbed_until.min(now + SLOWEST);
        process.mute_until = process.mute_until.min(now);
        process.slow_until = process.slow_until.min(now);
        for socket in Socket::OF_ENGINES {
            let peer = Peer::Engine(number);
            let link = self.links.get(peer, socket);
            if link.was_up && !link.is_up {
                let life = link.life;
                self.schedule(now, Happening::Connected { peer, socket, life });
            }
        }
    }

    /// At the end of a run: one way or another, an engine goes.
    pub(super) fn retire(&mut self, number: u32, place: usize) {
        match self.draw(&[17, place as u64]).below(4) {
            0 => self.leave(number, true),
            1 => self.leave(number, false),
            2 => self.die(number, true),
            _ => self.die(number, false),
        }
    }
}

/// FNV-1a.
fn hash(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
