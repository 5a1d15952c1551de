//! Controllers that are killed, and others that go on where they were.

use std::collections::{BTreeMap, BTreeSet};

use super::super::*;
use super::generator::Generator;
use super::ledger::identity_of;
use super::network::{Down, Peer, Socket, Up};
use super::plan::{MILLISECOND, Micros, SECOND};
use super::story;
use super::world::{Happening, World, peer_of};
use crate::journal;

/// How long a message may be missed before its client is told: as the machine says, and a moment for the shell.
const MISSED_TIME: Micros = 2 * SECOND + MILLISECOND;

/// What was said so shortly before a kill is said again: as the machine says, and a moment for the shell.
const SAID_AGAIN_TIME: Micros = 25 * MILLISECOND;

/// How long a reply waits for a client that has not come back (as `shell/returning.rs`).
const HOLD_TIME: Micros = 30 * SECOND;

/// A message tells nothing of those that are farther back than this.
const GAP_MAX: u64 = 64;

/// What outlives the controller, and what is true of its lives.
#[derive(Default)]
pub(super) struct Restarts {
    /// How often it was killed.
    pub(super) life: u32,
    down_until: Option<Micros>,
    /// As it is in its file.
    journal: Vec<u8>,
    /// Replies to sessions that have not come back.
    held: Vec<Held>,
    arrived: BTreeMap<u64, Arrived>,
    /// Messages that must be told lost, since when.
    missing: BTreeMap<MsgId, Micros>,
    told_lost: BTreeSet<MsgId>,
    /// When answers were given to connections last.
    said: BTreeMap<MsgId, Micros>,
    /// How many replies this life of the controller has said.
    said_count: u64,
    /// Tasks that were to be aborted when the controller knew of it.
    pub(super) aborted: BTreeSet<MsgId>,
    /// What is lost now is lost with the controller.
    is_killed: bool,
}

/// Which messages of a client have come.
struct Arrived {
    numbers: BTreeSet<u64>,
    /// The first of them to come.
    first: u64,
    /// The first life that heard of the client.
    life: u32,
}

struct Held {
    client: u64,
    socket: Socket,
    until: Micros,
    parcel: Down,
}

impl Restarts {
    pub(super) fn write_down(&mut self, effects: &[Effect]) {
        for effect in effects {
            if let Effect::Remember(change) = effect {
                journal::encode(change, &mut self.journal);
            }
        }
    }

    fn write_anew(&mut self, changes: &[Change]) {
        self.journal.clear();
        changes.iter().for_each(|change| journal::encode(change, &mut self.journal));
    }

    fn read_back(&self) -> Vec<Change> {
        let mut bytes = Bytes::from(self.journal.clone());
        std::iter::from_fn(|| journal::decode(&mut bytes).expect("nothing damages it")).collect()
    }
}

/// The client and the number of a message that is named as stock clients do.
fn numbered(msg_id: &MsgId) -> Option<(u64, u64)> {
    let (client, number) = msg_id.as_str().strip_prefix('c')?.split_once("_1_")?;
    Some((client.parse().ok()?, number.parse().ok()?))
}

impl World {
    pub(super) fn is_down(&self) -> bool {
        self.restarts.down_until.is_some()
    }

    /// When what needs a controller can happen, if there is none now.
    pub(super) fn postponed(&self) -> Option<Micros> {
        Some(self.restarts.down_until? + self.draw(&[20, self.scheduled]).below(100 * MILLISECOND))
    }

    /// The name of a client's connections: another controller gives others.
    pub(super) fn connection_of(&self, client: u64) -> Bytes {
        Bytes::from(format!("c{client}/{}", self.restarts.life))
    }

    /// Whose connection it is.
    pub(super) fn client_of(&self, identity: &Bytes) -> Peer {
        let life = identity.split(|byte| *byte == b'/').nth(1);
        let life = life.and_then(|life| std::str::from_utf8(life).ok()?.parse().ok());
        assert!(
            life.is_none_or(|life: u32| life == self.restarts.life),
            "an answer goes to a connection that an earlier controller had"
        );
        peer_of(identity)
    }

    /// A connection comes up as soon as there is a controller.
    pub(super) fn first_connection(&mut self, peer: Peer, socket: Socket) {
        match self.postponed() {
            Some(at) => self.schedule(at, Happening::Connected { peer, socket, life: 0 }),
            None => self.links.get(peer, socket).is_up = true,
        }
    }

    /// The controller ends in the midst of it. On every connection, some of what is under way still comes: from
    /// peers, the last of it, which had not left them; to peers, the first of it, which had left already.
    pub(super) fn kill_controller(&mut self, time: Micros) {
        if self.is_down() || self.has_exited {
            return;
        }
        self.count("restarts");
        let mut draw = self.draw(&[21, self.now]);
        if draw.chance(40) {
            self.count("journals written anew");
            let changes = self.controller.snapshot();
            self.restarts.write_anew(&changes);
        }
        let up_at = self.now + time;
        self.restarts.down_until = Some(up_at);
        for process in self.engines.values_mut() {
            process.heart_seen = None;
            process.disturbed_until = process.disturbed_until.max(up_at + 4 * SECOND);
        }
        self.outbox.0.clear();
        self.restarts.is_killed = true;
        for held in std::mem::take(&mut self.restarts.held) {
            self.on_down_lost(Peer::Client(held.client), held.parcel);
        }
        self.cut_what_is_under_way(&mut draw);
        self.restarts.is_killed = false;
        let mut broken = vec![];
        for (peer, socket, link) in self.links.iter_mut().filter(|(_, _, link)| link.is_up) {
            link.is_up = false;
            link.was_up = true;
            link.life += 1;
            broken.push((peer, socket, link.life));
        }
        for (peer, socket, life) in broken {
            let most = draw.pick(&[20, 20, 200, 3_000]) * MILLISECOND;
            self.schedule(up_at + draw.below(most), Happening::Connected { peer, socket, life });
        }
        self.schedule(up_at, Happening::Restarted);
    }

    fn cut_what_is_under_way(&mut self, draw: &mut Generator) {
        let mut under_way: BTreeMap<(Peer, Socket, bool), Vec<(Micros, u64)>> = BTreeMap::new();
        for (key, happening) in &self.happenings {
            let (peer, socket, life, is_up) = match happening {
                Happening::Up { peer, socket, life, .. } => (*peer, *socket, *life, true),
                Happening::Down { peer, socket, life, .. } => (*peer, *socket, *life, false),
                _ => continue,
            };
            if self.links.get(peer, socket).life == life {
                under_way.entry((peer, socket, is_up)).or_default().push(*key);
            }
        }
        for ((peer, socket, _), keys) in under_way {
            let count = keys.len() as u64;
            let some = draw.between(0, count);
            let cut = draw.pick(&[0, some, count]);
            let mut kept = vec![];
            for (place, key) in (0..).zip(keys) {
                let is_first = place < cut;
                if let Happening::Down { life, .. } = self.happenings.get_mut(&key).expect("just found")
                    && is_first
                {
                    *life += 1;
                    continue;
                }
                let happening = self.happenings.remove(&key).expect("just found");
                self.pending -= usize::from(!happening.is_heartbeat());
                match happening {
                    Happening::Up { parcel: parcel @ Up::Event(_), .. } if !is_first => kept.push(parcel),
                    Happening::Up { parcel, .. } => self.on_up_lost(parcel),
                    Happening::Down { parcel, .. } => self.on_down_lost(peer, parcel),
                    _ => unreachable!("nothing else is under way"),
                }
            }
            self.links.get(peer, socket).backlog.splice(0..0, kept);
        }
    }

    pub(super) fn restart_controller(&mut self) {
        self.tell(|| "another controller goes on".to_owned());
        self.restarts.down_until = None;
        self.restarts.life += 1;
        let now = self.now;
        self.restarts.missing.values_mut().for_each(|since| *since = now);
        self.forget_reference();
        self.restarts.said_count = 0;
        let mut effects = vec![];
        let (settings, changes) = (self.plan.settings.clone(), self.restarts.read_back());
        self.controller = Controller::restore(self.instant(), settings, changes, &mut effects);
        self.controller.check_invariants();
        for effect in effects.iter().filter(|effect| !matches!(effect, Effect::Ping | Effect::Remember(_))) {
            self.tell(|| format!("     <- {}", story::effect(effect)));
        }
        self.check_losses(&effects);
        self.perform_all(effects);
    }

    /// A message has come over a connection, which may be another one than when it was made.
    pub(super) fn take_in(&mut self, mut event: Event) {
        match &mut event {
            Event::Submitted(request) => {
                if let Target::Control { aborted, .. } = &request.target {
                    self.restarts.aborted.extend(aborted.iter().cloned());
                }
                let peer = peer_of(identity_of(&request.client));
                let Peer::Client(client) = peer else { unreachable!("clients submit") };
                request.client.address = Address::Connection(self.connection_of(client));
                self.note_arrival(&request.header.msg_id.clone());
            }
            Event::Asked { client, msg_id, .. } => {
                let Peer::Client(number) = peer_of(client) else { unreachable!("clients ask") };
                *client = self.connection_of(number);
                self.note_arrival(&msg_id.clone());
            }
            _ => {}
        }
        self.feed(event);
    }

    fn note_arrival(&mut self, msg_id: &MsgId) {
        let Some((client, number)) = numbered(msg_id) else { return };
        let (now, life) = (self.now, self.restarts.life);
        let Restarts { arrived, missing, told_lost, .. } = &mut self.restarts;
        missing.remove(msg_id);
        let arrived = arrived.entry(client).or_insert_with(|| Arrived {
            numbers: BTreeSet::new(),
            first: number,
            life,
        });
        if arrived.life < life {
            for before in (arrived.first + 1).max(number.saturating_sub(GAP_MAX))..number {
                let name = MsgId::from(format!("c{client}_1_{before}"));
                if !arrived.numbers.contains(&before) && !told_lost.contains(&name) {
                    missing.entry(name).or_insert(now);
                }
            }
        }
        arrived.numbers.insert(number);
    }

    /// A client is told that its message was lost.
    pub(super) fn note_told_lost(&mut self, id: &MsgId) {
        self.count("requests told lost");
        let (client, number) = numbered(id).unwrap_or_else(|| panic!("{id} has no number and is missed"));
        let arrived = self.restarts.arrived.get(&client);
        let has_come = arrived.is_some_and(|arrived| arrived.numbers.contains(&number));
        assert!(!has_come, "{id} has come and is told lost");
        assert!(self.restarts.told_lost.insert(id.clone()), "{id} is told lost twice");
        self.restarts.missing.remove(id);
    }

    /// Nothing is missed for longer than it may be.
    pub(super) fn check_missing(&self) {
        for (id, since) in &self.restarts.missing {
            assert!(since + MISSED_TIME > self.now, "{id} was lost, and its client is not told");
        }
    }

    /// As `shell/departures.rs`: soon it is known that what is said now has left.
    pub(super) fn mark_departures(&mut self, effects: &[Effect]) {
        let said = effects.iter().filter(|effect| matches!(effect, Effect::Remember(Change::Said(_))));
        let more = said.count() as u64;
        if more > 0 {
            self.restarts.said_count += more;
            let (life, count) = (self.restarts.life, self.restarts.said_count);
            let late = self.draw(&[22, self.scheduled]).between(50, 30 * MILLISECOND);
            self.schedule(self.now + late, Happening::Departed { life, count });
        }
    }

    pub(super) fn on_departed(&mut self, life: u32, count: u64) {
        if life == self.restarts.life && !self.is_down() {
            self.feed(Event::Departed { count });
        }
    }

    /// An answer is given to a connection, or waits for it.
    pub(super) fn note_said(&mut self, parcel: &Down) {
        if let Down::Answer(id) | Down::Lost(id) = parcel {
            self.restarts.said.insert(id.clone(), self.now);
        }
    }

    /// Whether an answer that is lost now will be given again.
    pub(super) fn is_said_again(&self, parcel: &Down) -> bool {
        let parcel = if let Down::Again(parcel) = parcel { parcel } else { parcel };
        let (Down::Answer(id) | Down::Lost(id)) = parcel else { return false };
        let said = self.restarts.said.get(id);
        self.restarts.is_killed && said.is_some_and(|said| said + SAID_AGAIN_TIME >= self.now)
    }

    /// A reply is given to a session that may have it, if that is here.
    pub(super) fn answer_again(&mut self, client: &Client, parcel: Down) {
        self.count("replies said again");
        self.note_said(&parcel);
        let Address::Session(session) = &client.address else { panic!("{parcel:?} is for no session") };
        let peer = Peer::Client(session.as_str()[1..].parse().expect("c<number>"));
        let (socket, parcel) = (Socket::Channel(client.channel), Down::Again(Box::new(parcel)));
        if self.links.is_up(peer, socket) {
            self.send_down(peer, socket, parcel);
        } else {
            self.on_down_lost(peer, parcel);
        }
    }

    /// A reply goes to whoever has that session now, or waits for it.
    pub(super) fn answer_session(&mut self, client: u64, socket: Socket, parcel: Down) {
        if self.links.is_up(Peer::Client(client), socket) {
            self.send_down(Peer::Client(client), socket, parcel);
        } else {
            let until = self.now + HOLD_TIME;
            self.restarts.held.push(Held { client, socket, until, parcel });
        }
    }

    /// A client's connection stands.
    pub(super) fn deliver_held(&mut self, client: u64, socket: Socket) {
        let (its, others): (Vec<Held>, Vec<Held>) = std::mem::take(&mut self.restarts.held)
            .into_iter()
            .partition(|held| (held.client, held.socket) == (client, socket));
        self.restarts.held = others;
        for Held { until, parcel, .. } in its {
            if until >= self.now {
                self.send_down(Peer::Client(client), socket, parcel);
            } else {
                self.on_down_lost(Peer::Client(client), parcel);
            }
        }
    }
}
