//! Load-balanced scheduling: the least loaded engine with room in its window runs the next task.
//!
//! A waiting task is in one of three places. *Open* tasks may run anywhere, so they wait only while no engine has
//! room. *Picky* ones (targets, places where they failed, `follow`) are listed under every engine that they may run
//! on. *Held* ones wait for other tasks. So an engine that gets room looks at two lists' heads, however long the
//! queue: both are in the order of [`fairness`](super::fairness), and a task that is tried again keeps its place.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use protocol::error::{ErrorContent, ename};
use protocol::frames::WireMessage;
use protocol::id::{EngineId, EngineUuid, MsgId};
use protocol::limits::{FINISHED_TASKS_REMEMBERED, TASK_BYTES_MAX};
use protocol::message::execute::TaskMetadata;
use protocol::message::{Status, StatusContent};
use serde_json::json;

use super::dependency::{Finished, Need};
use super::fairness::{Place, Turns};
use super::window::Window;
use super::{Made, refuse};
use crate::machine::{Channel, Controller, Effect, Outcome, Request, Target, reply_type};
use crate::records::{Change, Queue};
use crate::tasks::{BalancedState, BalancedWork, LastFailure, Task, TaskId, Work};

/// How the engine of a task is chosen among those with room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scheme {
    /// The least loaded, of those the one used longest ago.
    #[default]
    LeastLoad,
    /// The one used longest ago.
    Lru,
    /// Any.
    PlainRandom,
    /// Of two random ones the one used longer ago.
    TwoBin,
    /// Of two random ones, drawn the rather the less loaded they are, the less loaded.
    Weighted,
}

/// One engine as the scheduler sees it.
#[derive(Debug)]
struct Slot {
    load: usize,
    window: Window,
    /// Grows with each use; engines that have just come are before all others.
    turn: i64,
    /// Its connection is gone: it may come back in a moment.
    suspended: bool,
}

impl Slot {
    fn has_room(&self) -> bool {
        !self.suspended && self.load < self.window.size()
    }
}

/// A waiting task in the order in which it runs.
type Ticket = (Place, TaskId);

/// Engines with room and tasks that wait.
#[derive(Debug)]
pub(crate) struct Balanced {
    scheme: Scheme,
    random: u64,
    slots: BTreeMap<EngineId, Slot>,
    /// Engines with room in order of preference: load (where the scheme asks for it), then turn.
    roomy: BTreeSet<(usize, i64, EngineId)>,
    turn_last: i64,
    turn_first: i64,
    waiting: BTreeSet<TaskId>,
    open: BTreeSet<Ticket>,
    picky: BTreeMap<EngineId, BTreeSet<Ticket>>,
    turns: Turns,
    timeouts: BTreeSet<(Instant, TaskId)>,
    due: BTreeMap<TaskId, Instant>,
    /// Who waits for whom.
    dependents: BTreeMap<MsgId, BTreeSet<TaskId>>,
    /// Tasks that have not ended, by name, as often as the name was used; only looked up, never iterated.
    live: HashMap<MsgId, u32>,
    finished: History,
    /// Bytes of all tasks that have not ended.
    bytes: usize,
    pub(crate) aborted: BTreeSet<MsgId>,
    pub(crate) aborted_order: VecDeque<MsgId>,
}

/// How the latest tasks ended, by a hash of their names: names are long and there are many.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// Only looked up, never iterated: its order does not matter, and it is on the path of every task.
    ends: HashMap<u64, Finished>,
    order: VecDeque<u64>,
}

impl History {
    pub(crate) fn key(id: &MsgId) -> u64 {
        let mut hasher = DefaultHasher::new();
        id.hash(&mut hasher);
        hasher.finish()
    }

    fn insert(&mut self, id: &MsgId, finished: Finished) {
        self.insert_hashed(History::key(id), finished);
    }

    fn insert_hashed(&mut self, key: u64, finished: Finished) {
        if self.ends.insert(key, finished).is_none() {
            self.order.push_back(key);
        }
        if self.order.len() > FINISHED_TASKS_REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.ends.remove(&oldest);
        }
    }

    fn get(&self, id: &MsgId) -> Option<Finished> {
        self.ends.get(&History::key(id)).copied()
    }

    fn has_forgotten(&self) -> bool {
        self.order.len() == FINISHED_TASKS_REMEMBERED
    }
}

impl Balanced {
    pub(crate) fn new(scheme: Scheme, seed: u64) -> Balanced {
        Balanced {
            scheme,
            random: seed | 1, // Xorshift must not start at zero.
            slots: BTreeMap::new(),
            roomy: BTreeSet::new(),
            turn_last: 0,
            turn_first: 0,
            waiting: BTreeSet::new(),
            open: BTreeSet::new(),
            picky: BTreeMap::new(),
            turns: Turns::default(),
            timeouts: BTreeSet::new(),
            due: BTreeMap::new(),
            dependents: BTreeMap::new(),
            live: HashMap::new(),
            finished: History::default(),
            bytes: 0,
            aborted: BTreeSet::new(),
            aborted_order: VecDeque::new(),
        }
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn waiting_ids(&self) -> impl Iterator<Item = TaskId> {
        self.waiting.iter().copied()
    }

    pub(crate) fn first_waiting(&self) -> Option<TaskId> {
        self.waiting.first().copied()
    }

    pub(crate) fn is_waiting(&self, id: TaskId) -> bool {
        self.waiting.contains(&id)
    }

    pub(crate) fn load(&self, engine: EngineId) -> Option<usize> {
        self.slots.get(&engine).map(|slot| slot.load)
    }

    /// How many tasks an engine has, and may have.
    pub(crate) fn room(&self, engine: EngineId) -> Option<(usize, usize)> {
        self.slots.get(&engine).map(|slot| (slot.load, slot.window.size()))
    }

    /// When a task that waits fails.
    pub(crate) fn timeout_of(&self, id: TaskId) -> Option<Instant> {
        self.due.get(&id).copied()
    }

    /// Whether a task of that name has ended, as far as is remembered.
    pub(crate) fn has_ended(&self, msg_id: &MsgId) -> bool {
        self.finished.get(msg_id).is_some()
    }

    /// How the latest tasks ended, oldest first.
    pub(crate) fn ends(&self) -> impl Iterator<Item = (u64, Finished)> {
        self.finished.order.iter().filter_map(|name| Some((*name, *self.finished.ends.get(name)?)))
    }

    /// How a task ended in an earlier life of the controller.
    pub(crate) fn recall_end(&mut self, name: u64, finished: Finished) {
        self.finished.insert_hashed(name, finished);
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.timeouts.first().map(|(at, _)| *at)
    }

    pub(crate) fn take_timed_out(&mut self, now: Instant) -> Option<TaskId> {
        let (at, id) = *self.timeouts.first()?;
        (at <= now).then_some(id)
    }

    fn key(&self, id: EngineId, slot: &Slot) -> (usize, i64, EngineId) {
        let load = if matches!(self.scheme, Scheme::Lru | Scheme::TwoBin) { 0 } else { slot.load };
        (load, slot.turn, id)
    }

    /// Changes a slot, and its place among those with room.
    fn update(&mut self, id: EngineId, change: impl FnOnce(&mut Slot)) {
        let Some(slot) = self.slots.get(&id) else { return };
        let before = self.key(id, slot);
        self.roomy.remove(&before);
        let slot = self.slots.get_mut(&id).expect("just found");
        change(slot);
        if slot.has_room() {
            let after = self.key(id, &self.slots[&id]);
            self.roomy.insert(after);
        }
    }

    pub(crate) fn suspend(&mut self, id: EngineId) {
        self.update(id, |slot| slot.suspended = true);
    }

    /// An engine has answered a task.
    pub(crate) fn release(&mut self, now: Instant, id: EngineId) {
        self.update(id, |slot| {
            slot.load -= 1;
            slot.window.on_answered(now);
        });
    }

    fn add_engine(&mut self, id: EngineId, window: Window) {
        self.turn_first -= 1;
        let turn = self.turn_first;
        self.slots.insert(id, Slot { load: 0, window, turn, suspended: true });
        self.update(id, |slot| slot.suspended = false);
    }

    /// Forgets an engine; returns the tasks that may now have nowhere to run.
    pub(crate) fn remove_engine(&mut self, id: EngineId) -> BTreeSet<TaskId> {
        self.suspend(id);
        self.slots.remove(&id);
        self.picky.remove(&id).unwrap_or_default().into_iter().map(|(_, task)| task).collect()
    }

    fn next_random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    /// The engine for a task, among those with room that it may run on.
    fn pick(&mut self, permits: impl Fn(EngineId) -> bool) -> Option<EngineId> {
        if matches!(self.scheme, Scheme::LeastLoad | Scheme::Lru) {
            return self.roomy.iter().map(|(.., id)| *id).find(|id| permits(*id));
        }
        let mut candidates: Vec<EngineId> =
            self.roomy.iter().map(|(.., id)| *id).filter(|id| permits(*id)).collect();
        if candidates.is_empty() {
            return None;
        }
        candidates.sort_by_key(|id| self.slots[id].turn);
        let draw = |balanced: &mut Balanced| {
            let random = balanced.next_random();
            if balanced.scheme != Scheme::Weighted {
                return (random % candidates.len() as u64) as usize;
            }
            let weight = |id: &EngineId| 1.0 / (1e-6 + balanced.slots[id].load as f64);
            let total: f64 = candidates.iter().map(weight).sum();
            let mut rest = total * (random >> 11) as f64 / (1_u64 << 53) as f64;
            let found = candidates.iter().position(|id| {
                rest -= weight(id);
                rest <= 0.0
            });
            found.unwrap_or(candidates.len() - 1)
        };
        let first = draw(self);
        let chosen = match self.scheme {
            Scheme::TwoBin => first.min(draw(self)),
            Scheme::Weighted => {
                let second = draw(self);
                let load = |place: usize| self.slots[&candidates[place]].load;
                if load(second) < load(first) { second } else { first }
            }
            Scheme::PlainRandom | Scheme::LeastLoad | Scheme::Lru => first,
        };
        Some(candidates[chosen])
    }

    /// Takes a task out of wherever it waits.
    fn unlist(&mut self, id: TaskId, work: &BalancedWork) {
        if !self.waiting.remove(&id) {
            return;
        }
        if let Some(at) = self.due.remove(&id) {
            self.timeouts.remove(&(at, id));
        }
        if !self.open.remove(&(work.place, id)) {
            self.unlist_picky(id, work);
        }
    }

    fn unlist_picky(&mut self, id: TaskId, work: &BalancedWork) {
        let ticket = (work.place, id);
        match &work.targets {
            Some(targets) => {
                for engine in targets {
                    if let Some(list) = self.picky.get_mut(engine) {
                        list.remove(&ticket);
                    }
                }
            }
            None => {
                for list in self.picky.values_mut() {
                    list.remove(&ticket);
                }
            }
        }
    }

    /// Lists a waiting task under the engines that it may run on.
    fn list(&mut self, id: TaskId, work: &BalancedWork) {
        if work.is_unrestricted() {
            self.open.insert((work.place, id));
            return;
        }
        self.unlist_picky(id, work);
        for engine in self.slots.keys().filter(|engine| work.permits(**engine)) {
            self.picky.entry(*engine).or_default().insert((work.place, id));
        }
    }

    /// The task that an engine with room runs next.
    fn next_for(&self, engine: EngineId) -> Option<TaskId> {
        let open = self.open.first();
        let picky = self.picky.get(&engine).and_then(BTreeSet::first);
        [open, picky].into_iter().flatten().min().map(|(_, task)| *task)
    }

    pub(crate) fn sizes(&self) -> [(&'static str, usize); 11] {
        [
            ("turns of clients", self.turns.clients()),
            ("slots", self.slots.len()),
            ("slots with room", self.roomy.len()),
            ("waiting", self.waiting.len()),
            ("open", self.open.len()),
            ("picky", self.picky.len()),
            ("timeouts", self.timeouts.len()),
            ("due", self.due.len()),
            ("dependents", self.dependents.len()),
            ("live names", self.live.len()),
            ("bytes of tasks", self.bytes),
        ]
    }

    /// How many tasks run before one that waits for an engine; none if it does not wait for one.
    pub(crate) fn ahead_of(&self, id: TaskId, work: &BalancedWork) -> Option<usize> {
        let ticket = (work.place, id);
        let mut lists = std::iter::once(&self.open).chain(self.picky.values());
        if !lists.any(|list| list.contains(&ticket)) {
            return None;
        }
        let mut ahead: BTreeSet<TaskId> = BTreeSet::new();
        for list in std::iter::once(&self.open).chain(self.picky.values()) {
            ahead.extend(list.range(..ticket).map(|(_, task)| *task));
        }
        Some(ahead.len())
    }

    pub(crate) fn check_invariants(&self, clients: usize) {
        assert!(self.turns.clients() <= clients, "turns of clients that have no task");
        for (id, slot) in &self.slots {
            let key = self.key(*id, slot);
            assert_eq!(self.roomy.contains(&key), slot.has_room(), "engine {id}");
            if slot.has_room() {
                assert_eq!(self.next_for(*id), None, "engine {id} has room and tasks wait for it");
            }
        }
        assert!(self.roomy.len() <= self.slots.len());
        assert!(self.open.iter().all(|(_, task)| self.waiting.contains(task)));
        for (engine, tasks) in &self.picky {
            assert!(self.slots.contains_key(engine), "tasks wait for engine {engine}, which is gone");
            assert!(
                tasks.iter().all(|(_, task)| self.waiting.contains(task)) && tasks.is_disjoint(&self.open)
            );
        }
        assert_eq!(self.due.len(), self.timeouts.len());
        assert!(self.due.keys().all(|id| self.waiting.contains(id)));
        assert_eq!(self.aborted.len(), self.aborted_order.len());
    }
}

impl Controller {
    pub(super) fn on_balanced(&mut self, now: Instant, request: Request, effects: &mut Vec<Effect>) {
        let Target::Balanced(metadata) = &request.target else { unreachable!("the caller has looked") };
        if reply_type(&request.header.msg_type).is_none() {
            tracing::debug!(msg_type = request.header.msg_type, "not a task");
            return;
        }
        let msg_id = request.header.msg_id.clone();
        let (mut after, mut follow) = (Need::new(metadata.after.clone()), Need::new(metadata.follow.clone()));
        let targets: Option<BTreeSet<EngineId>> = (!metadata.targets.is_empty()).then(|| {
            metadata.targets.iter().filter_map(|uuid| Some(self.hub.by_uuid(uuid.as_str())?.id)).collect()
        });
        let bytes = request.message.byte_len();
        let error = if self.balanced.bytes.saturating_add(bytes) > TASK_BYTES_MAX {
            let text =
                format!("tasks that have not ended hold {TASK_BYTES_MAX} bytes already; wait for some");
            Some(ErrorContent::new(ename::RUNTIME_ERROR, text))
        } else if targets.as_ref().is_some_and(BTreeSet::is_empty) {
            let names: Vec<&str> = metadata.targets.iter().map(EngineUuid::as_str).collect();
            let text = format!("none of the task's targets is registered: {}", names.join(", "));
            Some(ErrorContent::new(ename::ENGINE_ERROR, text))
        } else {
            self.resolve_need(&msg_id, &mut after).or_else(|| self.resolve_need(&msg_id, &mut follow))
        };
        if let Some(error) = error {
            let finished = Finished { ok: false, engine: None };
            self.balanced.finished.insert(&msg_id, finished);
            if self.settings.restorable {
                let Finished { ok, engine } = finished;
                effects.push(Effect::Remember(Change::Ended { name: History::key(&msg_id), ok, engine }));
            }
            refuse(request, &error, effects);
            return;
        }
        let timeout = positive_seconds(metadata.timeout);
        let retries = metadata.retries;
        let priority = metadata.extension.as_ref().map_or(0, |extension| extension.priority);
        let Request { client, header, message, .. } = request;
        for id in after.ids().chain(follow.ids()) {
            if self.balanced.live.contains_key(id) {
                self.balanced.dependents.entry(id.clone()).or_default().insert(self.tasks.next_id());
            }
        }
        self.balanced.bytes += bytes;
        *self.balanced.live.entry(msg_id.clone()).or_default() += 1;
        let place = self.balanced.turns.next(&client, priority);
        effects.push(Effect::Remember(Change::Submitted {
            task: self.tasks.next_id(),
            msg_id: msg_id.clone(),
            client: client.clone(),
            queue: Queue::Task,
            engine: None,
            request: message.clone(),
        }));
        let id = self.tasks.begin(Task {
            msg_id: msg_id.clone(),
            msg_type: header.msg_type,
            client,
            header: message.header.clone(),
            work: Work::Balanced(Box::new(BalancedWork {
                message,
                place,
                targets,
                avoided: BTreeSet::new(),
                after,
                follow,
                retries,
                timeout,
                last_failure: None,
                state: BalancedState::Waiting,
            })),
        });
        self.place_or_wait(now, id, effects);
    }

    /// Goes on with a task of an earlier controller; where it is, the caller says next.
    pub(crate) fn recall_balanced(
        &mut self,
        task: Task,
        message: WireMessage,
        metadata: TaskMetadata,
        avoided: BTreeSet<EngineId>,
        retried: u32,
    ) {
        let id = self.tasks.next_id();
        let (mut after, mut follow) = (Need::new(metadata.after), Need::new(metadata.follow));
        self.recall_need(&mut after);
        self.recall_need(&mut follow);
        for dependency in after.ids().chain(follow.ids()) {
            if self.balanced.live.contains_key(dependency) {
                self.balanced.dependents.entry(dependency.clone()).or_default().insert(id);
            }
        }
        let targets = (!metadata.targets.is_empty()).then(|| {
            metadata.targets.iter().filter_map(|uuid| Some(self.hub.by_uuid(uuid.as_str())?.id)).collect()
        });
        let last_failure = (!avoided.is_empty()).then(|| LastFailure::Lost {
            engine: EngineUuid::from(""),
            error: "the task failed on every engine that it may run on; how, the earlier controller knew"
                .to_owned(),
        });
        self.balanced.bytes += message.byte_len();
        *self.balanced.live.entry(task.msg_id.clone()).or_default() += 1;
        let priority = metadata.extension.map_or(0, |extension| extension.priority);
        let work = BalancedWork {
            place: self.balanced.turns.next(&task.client, priority),
            message,
            targets,
            avoided,
            after,
            follow,
            retries: metadata.retries.saturating_sub(retried),
            timeout: positive_seconds(metadata.timeout),
            last_failure,
            state: BalancedState::Waiting,
        };
        self.tasks.begin(Task { work: Work::Balanced(Box::new(work)), ..task });
    }

    /// It was at an engine, which will answer it or be asked after it.
    pub(crate) fn recall_assignment(&mut self, now: Instant, id: TaskId, engine: EngineId) {
        self.note_assignment(now, id, engine);
        self.hub.engine_mut(engine).expect("the caller found it").doubtful.insert(id);
    }

    /// Fills in how a need's tasks ended; an error if one was never submitted.
    fn resolve_need(&self, own: &MsgId, need: &mut Need) -> Option<ErrorContent> {
        let ids: Vec<MsgId> = need.ids().cloned().collect();
        for id in ids {
            if id == *own {
                return Some(ErrorContent::new(ename::INVALID_DEPENDENCY, "a task depends on itself"));
            }
            if let Some(finished) = self.balanced.finished.get(&id) {
                need.learn(&id, finished);
            } else if !self.balanced.live.contains_key(&id) {
                let text = if self.balanced.finished.has_forgotten() {
                    format!(
                        "task '{id}' was never submitted here, or ended more than {FINISHED_TASKS_REMEMBERED} tasks ago"
                    )
                } else {
                    format!("task '{id}' was never submitted here")
                };
                return Some(ErrorContent::new(ename::INVALID_DEPENDENCY, text));
            }
        }
        None
    }

    /// Fills in how a need's tasks ended. One that was forgotten since had ended, and nobody knows how: to wait for it
    /// would be to wait for ever.
    fn recall_need(&self, need: &mut Need) {
        let ids: Vec<MsgId> = need.ids().cloned().collect();
        for id in ids.iter().filter(|id| !self.balanced.live.contains_key(*id)) {
            let finished = self.balanced.finished.get(id);
            need.learn(id, finished.unwrap_or(Finished { ok: false, engine: None }));
        }
    }

    /// Gives a waiting task to an engine with room, or lists it, or ends it if it can never run.
    pub(crate) fn place_or_wait(&mut self, now: Instant, id: TaskId, effects: &mut Vec<Effect>) {
        let Some(task) = self.tasks.get(id) else { return };
        let Work::Balanced(work) = &task.work else { unreachable!("the caller has looked") };
        if work.state != BalancedState::Waiting {
            return;
        }
        // It was aborted before it came, or while an engine had it that did not finish it.
        if self.balanced.aborted.contains(&task.msg_id) {
            self.abort_waiting(now, id, effects);
            return;
        }
        if work.after.is_unreachable() || work.follow.is_unreachable() || work.follow.is_scattered() {
            let text = "the tasks that this one depends on did not end as it needs";
            self.end_waiting(now, id, &ErrorContent::new(ename::IMPOSSIBLE_DEPENDENCY, text), effects);
            return;
        }
        let is_due = work.after.is_met() && (work.follow.is_empty() || work.follow.is_met());
        if is_due {
            if let Some(engine) = self.balanced.pick(|engine| work.permits(engine)) {
                self.assign(now, id, engine, effects);
                return;
            }
            if self.is_hopeless(work) {
                self.give_up(now, id, effects);
                return;
            }
            self.balanced.list(id, work);
        }
        let timeout = work.timeout;
        if self.balanced.waiting.insert(id)
            && let Some(at) = timeout.and_then(|timeout| now.checked_add(timeout))
        {
            self.balanced.due.insert(id, at);
            self.balanced.timeouts.insert((at, id));
        }
    }

    /// Whether no engine that is here will ever run a task. One with a timeout may wait for others to come.
    fn is_hopeless(&self, work: &BalancedWork) -> bool {
        if self.balanced.slots.keys().any(|engine| work.permits(*engine)) {
            return false;
        }
        if work.targets.is_some() || (!work.follow.is_empty() && work.follow.is_decided()) {
            return true;
        }
        work.last_failure.is_some() && work.timeout.is_none()
    }

    fn assign(&mut self, now: Instant, id: TaskId, engine: EngineId, effects: &mut Vec<Effect>) {
        self.note_assignment(now, id, engine);
        let task = self.tasks.get(id).expect("the caller found it");
        let Work::Balanced(work) = &task.work else { unreachable!("the caller found a balanced task") };
        let (msg_id, message) = (task.msg_id.clone(), work.message.clone());
        let uuid = self.hub.engine(engine).expect("scheduled engines are here").uuid.clone();
        effects.push(Effect::Remember(Change::Assigned { task: id, msg_id, engine: uuid.clone() }));
        effects.push(Effect::Forward { channel: Channel::Task, engine: uuid, task: id, message });
    }

    fn note_assignment(&mut self, now: Instant, id: TaskId, engine: EngineId) {
        let work = self.tasks.balanced_mut(id).expect("the caller found it");
        work.state = BalancedState::Running { engine };
        let work = self.tasks.balanced(id).expect("just found");
        self.balanced.unlist(id, work);
        self.balanced.turns.on_served(work.place);
        self.balanced.turn_last += 1;
        let turn = self.balanced.turn_last;
        self.balanced.update(engine, |slot| {
            if slot.load == 0 {
                slot.window.on_started(now);
            }
            slot.load += 1;
            slot.turn = turn;
        });
        self.hub.hold(engine, id);
    }

    /// Gives an engine tasks until it has no room or none waits for it.
    pub(crate) fn fill(&mut self, now: Instant, engine: EngineId, effects: &mut Vec<Effect>) {
        while self.balanced.slots.get(&engine).is_some_and(Slot::has_room)
            && let Some(id) = self.balanced.next_for(engine)
        {
            self.assign(now, id, engine, effects);
        }
    }

    pub(crate) fn add_to_schedule(&mut self, now: Instant, engine: EngineId, effects: &mut Vec<Effect>) {
        let window = Window::new(self.settings.window, now);
        self.balanced.add_engine(engine, window);
        let waiting: Vec<TaskId> = self.balanced.waiting.iter().copied().collect();
        for id in waiting {
            let work = self.tasks.balanced(id).expect("waiting tasks are balanced");
            if self.balanced.open.contains(&(work.place, id)) {
                continue;
            }
            if work.after.is_met() && work.follow.is_met() && work.permits(engine) {
                let ticket = (work.place, id);
                self.balanced.picky.entry(engine).or_default().insert(ticket);
            }
        }
        self.fill(now, engine, effects);
    }

    /// An engine whose connection was lost has a new one.
    pub(crate) fn resume_schedule(&mut self, now: Instant, engine: EngineId, effects: &mut Vec<Effect>) {
        self.balanced.update(engine, |slot| slot.suspended = false);
        self.fill(now, engine, effects);
    }

    #[expect(clippy::too_many_arguments, reason = "what is known of a reply")]
    pub(super) fn on_balanced_replied(
        &mut self,
        now: Instant,
        engine: EngineId,
        uuid: EngineUuid,
        id: TaskId,
        outcome: Outcome,
        message: WireMessage,
        effects: &mut Vec<Effect>,
    ) {
        let work = self.tasks.balanced_mut(id).expect("the caller found it");
        let tries_again = !outcome.dependencies_met || (outcome.status == Status::Error && work.retries > 0);
        if tries_again {
            if outcome.dependencies_met {
                work.retries -= 1;
            }
            let retried = outcome.dependencies_met;
            effects.push(Effect::Remember(Change::Returned { task: id, engine, retried }));
            work.avoided.insert(engine);
            if retried {
                work.last_failure = Some(LastFailure::Replied { engine: uuid, message });
            } else if matches!(work.last_failure, None | Some(LastFailure::Declined { .. })) {
                // A failure says more than that others would not even try.
                work.last_failure = Some(LastFailure::Declined { engine: uuid, message });
            }
            work.state = BalancedState::Waiting;
            self.hub.release(engine, id, None);
            self.place_or_wait(now, id, effects);
        } else {
            let task = self.tasks.end(id).expect("just found");
            let completed = outcome.status != Status::Aborted;
            self.hub.release(engine, id, completed.then_some(&task.msg_id));
            super::relay(id, &task, uuid, outcome.status, message, effects);
            let finished = Finished { ok: outcome.status == Status::Ok, engine: Some(engine) };
            self.on_ended(now, &task, finished, effects);
        }
        // Only now: what waited for this task takes its place in the queue, not that of this task at its engine.
        self.balanced.release(now, engine);
        self.fill(now, engine, effects);
    }

    /// A task's engine was lost, or could not be reached: elsewhere, or the end.
    pub(super) fn on_balanced_lost(
        &mut self,
        now: Instant,
        engine: EngineId,
        uuid: &EngineUuid,
        id: TaskId,
        error: String,
        effects: &mut Vec<Effect>,
    ) {
        let work = self.tasks.balanced_mut(id).expect("the caller found it");
        work.state = BalancedState::Waiting;
        work.last_failure = Some(LastFailure::Lost { engine: uuid.clone(), error });
        if work.retries == 0 {
            self.give_up(now, id, effects);
            return;
        }
        work.retries -= 1;
        effects.push(Effect::Remember(Change::Returned { task: id, engine, retried: true }));
        work.avoided.insert(engine);
        self.place_or_wait(now, id, effects);
    }

    /// Ends a task that nobody can run, with how it failed last.
    fn give_up(&mut self, now: Instant, id: TaskId, effects: &mut Vec<Effect>) {
        let work = self.tasks.balanced_mut(id).expect("the caller found it");
        match work.last_failure.take() {
            Some(LastFailure::Replied { engine, message }) => {
                let task = self.take_waiting(id);
                super::relay(id, &task, engine, Status::Error, message, effects);
                self.on_ended(now, &task, Finished { ok: false, engine: None }, effects);
            }
            Some(LastFailure::Lost { engine, error }) => {
                let error = ErrorContent::new(ename::ENGINE_ERROR, error);
                self.answer_waiting(now, id, Made::error(Some(&engine), &error), effects);
            }
            Some(LastFailure::Declined { engine, message }) => {
                let how = super::explain::reply_in_words(&engine, &message);
                let text =
                    format!("every engine that the task may run on has declined it, the last with {how}");
                self.end_waiting(now, id, &ErrorContent::new(ename::IMPOSSIBLE_DEPENDENCY, text), effects);
            }
            None => {
                let text = "no engine that the task may run on is left";
                self.end_waiting(now, id, &ErrorContent::new(ename::IMPOSSIBLE_DEPENDENCY, text), effects);
            }
        }
    }

    fn take_waiting(&mut self, id: TaskId) -> Task {
        let task = self.tasks.end(id).expect("the caller found it");
        if let Work::Balanced(work) = &task.work {
            self.balanced.unlist(id, work);
        }
        task
    }

    fn end_waiting(&mut self, now: Instant, id: TaskId, error: &ErrorContent, effects: &mut Vec<Effect>) {
        self.answer_waiting(now, id, Made::error(None, error), effects);
    }

    /// Ends a task that waits, with an answer of the controller's own.
    fn answer_waiting(&mut self, now: Instant, id: TaskId, answer: Made, effects: &mut Vec<Effect>) {
        let task = self.take_waiting(id);
        answer.send(id, &task, effects);
        self.on_ended(now, &task, Finished { ok: false, engine: None }, effects);
    }

    pub(crate) fn on_timed_out(&mut self, now: Instant, id: TaskId, effects: &mut Vec<Effect>) {
        let text = "the task waited longer than its timeout for an engine";
        self.end_waiting(now, id, &ErrorContent::new(ename::TASK_TIMEOUT, text), effects);
    }

    /// No engine will ever get it: the controller ends.
    pub(crate) fn on_farewell(&mut self, now: Instant, id: TaskId, effects: &mut Vec<Effect>) {
        let text = "the controller was shut down before an engine had room for the task; submit it again";
        self.end_waiting(now, id, &ErrorContent::new(ename::ENGINE_ERROR, text), effects);
    }

    /// Tasks that still wait are aborted here and now; what has an engine is that engine's to abort.
    pub(super) fn on_aborted(&mut self, now: Instant, ids: Vec<MsgId>, effects: &mut Vec<Effect>) {
        let ids: BTreeSet<MsgId> = ids.into_iter().collect();
        let waiting: Vec<TaskId> = self
            .balanced
            .waiting_ids()
            .filter(|id| self.tasks.get(*id).is_some_and(|task| ids.contains(&task.msg_id)))
            .collect();
        if self.settings.restorable {
            effects.push(Effect::Remember(Change::Aborted { msg_ids: ids.iter().cloned().collect() }));
        }
        // Before the first of them ends: what waits for its end may be the next.
        for id in ids {
            self.remember_aborted(id);
        }
        for id in waiting {
            self.abort_waiting(now, id, effects);
        }
    }

    fn abort_waiting(&mut self, now: Instant, id: TaskId, effects: &mut Vec<Effect>) {
        if self.tasks.balanced(id).is_none_or(|work| work.state != BalancedState::Waiting) {
            return; // It depended on one that was aborted before it.
        }
        let answer = Made {
            metadata: json!({ "status": "aborted", "engine_info": {} }),
            ..Made::new(&StatusContent::ABORTED)
        };
        self.answer_waiting(now, id, answer, effects);
    }

    /// Remembers how a task ended and wakes those that wait for it.
    fn on_ended(&mut self, now: Instant, task: &Task, finished: Finished, effects: &mut Vec<Effect>) {
        let Work::Balanced(work) = &task.work else { unreachable!("only balanced tasks are waited for") };
        self.balanced.bytes -= work.message.byte_len();
        if let Some(count) = self.balanced.live.get_mut(&task.msg_id) {
            *count -= 1;
            if *count == 0 {
                self.balanced.live.remove(&task.msg_id);
            }
        }
        if !self.tasks.has_any(&task.client) {
            self.balanced.turns.forget(&task.client);
        }
        self.balanced.finished.insert(&task.msg_id, finished);
        let mut woken: Vec<Ticket> = vec![];
        for id in self.balanced.dependents.remove(&task.msg_id).unwrap_or_default() {
            if let Some(dependent) = self.tasks.balanced_mut(id) {
                dependent.after.learn(&task.msg_id, finished);
                dependent.follow.learn(&task.msg_id, finished);
                woken.push((dependent.place, id));
            }
        }
        woken.sort_unstable();
        for (_, id) in woken {
            self.place_or_wait(now, id, effects);
        }
    }
}

/// Zero, negative and absurd timeouts are none.
fn positive_seconds(timeout: Option<f64>) -> Option<Duration> {
    timeout.filter(|seconds| *seconds > 0.0).and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
}
