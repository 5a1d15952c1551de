//! Who is here: engines that can be used, engines that are joining, engines that were lost and may return.

pub(crate) mod liveness;
mod news;
pub(crate) mod queries;
pub(crate) mod registration;
pub(crate) mod sessions;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use protocol::extension::EngineDescription;
use protocol::id::{EngineId, EngineUuid, MsgId};
use protocol::limits::{COMPLETED_IDS_REMEMBERED, DEPARTED_ENGINES_REMEMBERED};

use crate::machine::Settings;
use crate::records::Change;
use crate::tasks::TaskId;
use liveness::Pulse;
use news::News;
use registration::{Heard, Joining};
use sessions::Sessions;

/// An engine that can be used.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) id: EngineId,
    pub(crate) uuid: EngineUuid,
    pub(crate) description: EngineDescription,
    pub(crate) last_heard: Instant,
    /// When the job that it is a part of reaches its time limit.
    pub(crate) job_ends: Option<Instant>,
    /// Set while its heart's connection is gone: when it counts as lost.
    pub(crate) lost_at: Option<Instant>,
    /// Every request that it has and has not answered.
    pub(crate) outstanding: BTreeSet<TaskId>,
    /// Requests answered.
    pub(crate) completed: usize,
    /// The latest of them.
    pub(crate) completed_ids: VecDeque<MsgId>,
    /// What it had when an earlier life of the controller ended, until it is back and was asked.
    pub(crate) doubtful: BTreeSet<TaskId>,
    /// Whether it is still to be heard since then.
    pub(crate) returning: bool,
}

impl Engine {
    fn new(now: Instant, id: EngineId, uuid: EngineUuid, description: EngineDescription) -> Engine {
        let left = description.job.as_ref().and_then(|job| job.seconds_left);
        Engine {
            id,
            uuid,
            description,
            job_ends: left.and_then(|left| now.checked_add(Duration::from_secs(left))),
            last_heard: now,
            lost_at: None,
            outstanding: BTreeSet::new(),
            completed: 0,
            completed_ids: VecDeque::new(),
            doubtful: BTreeSet::new(),
            returning: false,
        }
    }
}

/// An engine that was lost without saying goodbye.
#[derive(Clone, Debug)]
struct Departed {
    id: EngineId,
    description: EngineDescription,
    /// Channels that it was heard on.
    heard: Heard,
}

/// Engines by id and by name, and the clock of heartbeats.
#[derive(Debug)]
pub(crate) struct Hub {
    engines: BTreeMap<EngineId, Engine>,
    ids: BTreeMap<EngineUuid, EngineId>,
    joining: BTreeMap<EngineUuid, Joining>,
    departed: BTreeMap<EngineUuid, Departed>,
    departed_order: VecDeque<EngineUuid>,
    next_id: u32,
    pulse: Pulse,
    pub(crate) news: News,
    pub(crate) sessions: Sessions,
    pub(crate) started: Instant,
}

impl Hub {
    pub(crate) fn new(now: Instant, settings: &Settings) -> Hub {
        Hub {
            engines: BTreeMap::new(),
            ids: BTreeMap::new(),
            joining: BTreeMap::new(),
            departed: BTreeMap::new(),
            departed_order: VecDeque::new(),
            next_id: 0,
            pulse: Pulse::new(now, settings),
            news: News::default(),
            sessions: Sessions::default(),
            started: now,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.engines.is_empty() && self.joining.is_empty()
    }

    pub(crate) fn engines(&self) -> impl Iterator<Item = &Engine> {
        self.engines.values()
    }

    pub(crate) fn engine(&self, id: EngineId) -> Option<&Engine> {
        self.engines.get(&id)
    }

    pub(crate) fn engine_mut(&mut self, id: EngineId) -> Option<&mut Engine> {
        self.engines.get_mut(&id)
    }

    /// The usable engine of that name.
    pub(crate) fn by_uuid(&self, uuid: &str) -> Option<&Engine> {
        self.engines.get(self.ids.get(uuid)?)
    }

    /// The usable engine whose sockets have that identity.
    pub(crate) fn by_identity(&self, identity: &[u8]) -> Option<&Engine> {
        self.by_uuid(std::str::from_utf8(identity).ok()?)
    }

    /// The name of the engine of that id, if it is here or was lost not long ago.
    pub(crate) fn uuid_of(&self, id: EngineId) -> Option<EngineUuid> {
        let departed = || self.departed.iter().find(|(_, departed)| departed.id == id);
        let here = self.engines.get(&id).map(|engine| engine.uuid.clone());
        here.or_else(|| departed().map(|(uuid, _)| uuid.clone()))
    }

    pub(crate) fn joining_count(&self) -> usize {
        self.joining.len()
    }

    /// A request given to an engine.
    pub(crate) fn hold(&mut self, engine: EngineId, task: TaskId) {
        let engine = self.engines.get_mut(&engine).expect("requests go to engines that are here");
        engine.outstanding.insert(task);
    }

    /// A request that an engine has answered, or that it was asked in vain.
    pub(crate) fn release(&mut self, engine: EngineId, task: TaskId, completed: Option<&MsgId>) {
        let engine = self.engines.get_mut(&engine).expect("its tasks end before an engine goes");
        engine.outstanding.remove(&task);
        if let Some(msg_id) = completed {
            engine.completed += 1;
            if engine.completed_ids.len() == COMPLETED_IDS_REMEMBERED {
                engine.completed_ids.pop_front();
            }
            engine.completed_ids.push_back(msg_id.clone());
        }
    }

    /// Makes a joining engine usable.
    fn admit(&mut self, now: Instant, uuid: EngineUuid, joining: Joining) -> &Engine {
        self.ids.insert(uuid.clone(), joining.id);
        let engine = Engine::new(now, joining.id, uuid, joining.description);
        let id = joining.id;
        self.engines.insert(id, engine);
        &self.engines[&id]
    }

    /// An engine of an earlier controller, which must be heard again in time.
    pub(crate) fn take_back(
        &mut self,
        now: Instant,
        id: EngineId,
        uuid: EngineUuid,
        description: EngineDescription,
        until: Instant,
    ) {
        self.ids.insert(uuid.clone(), id);
        let engine =
            Engine { lost_at: Some(until), returning: true, ..Engine::new(now, id, uuid, description) };
        self.engines.insert(id, engine);
        self.give_no_id_up_to(id);
    }

    /// An engine of an earlier controller that joins if it is heard.
    pub(crate) fn expect_back(&mut self, uuid: EngineUuid, id: EngineId, description: EngineDescription) {
        self.remember(uuid, Departed { id, description, heard: 0 });
        self.give_no_id_up_to(id);
    }

    /// Engines that cannot be used now and join if they are heard, as changes.
    pub(crate) fn outside(&self) -> impl Iterator<Item = Change> {
        let departed = self.departed_order.iter().filter_map(|engine| {
            let Departed { id, description, .. } = self.departed.get(engine)?.clone();
            Some(Change::Expected { id, engine: engine.clone(), description })
        });
        let joining = self.joining.iter().map(|(engine, joining)| {
            let (id, description) = (joining.id, joining.description.clone());
            Change::Joining { id, engine: engine.clone(), description }
        });
        departed.chain(joining)
    }

    /// Ids are never given twice, also not by a later controller.
    pub(crate) fn give_no_id_up_to(&mut self, id: EngineId) {
        self.next_id = self.next_id.max(id.0.saturating_add(1));
    }

    /// The largest id that was given.
    pub(crate) fn last_id(&self) -> Option<EngineId> {
        self.next_id.checked_sub(1).map(EngineId)
    }

    /// Takes an engine out. One that may come back is remembered.
    fn remove(&mut self, id: EngineId, may_return: bool) -> Option<Engine> {
        let engine = self.engines.remove(&id)?;
        self.ids.remove(&engine.uuid);
        if may_return {
            let (description, heard) = (engine.description.clone(), registration::ALL_CHANNELS);
            self.remember(engine.uuid.clone(), Departed { id, description, heard });
        }
        Some(engine)
    }

    fn remember(&mut self, uuid: EngineUuid, departed: Departed) {
        if self.departed.insert(uuid.clone(), departed).is_none() {
            self.departed_order.push_back(uuid);
        }
        while self.departed_order.len() > DEPARTED_ENGINES_REMEMBERED {
            if let Some(oldest) = self.departed_order.pop_front() {
                self.departed.remove(&oldest);
            }
        }
    }

    /// A lost engine that has come back, if its id is free; if not, it may be later.
    fn recall(&mut self, uuid: &str) -> Option<(EngineUuid, Departed)> {
        let id = self.departed.get(uuid)?.id;
        let is_taken =
            self.engines.contains_key(&id) || self.joining.values().any(|joining| joining.id == id);
        if is_taken { None } else { self.forget(uuid) }
    }

    fn forget(&mut self, uuid: &str) -> Option<(EngineUuid, Departed)> {
        let (uuid, departed) = self.departed.remove_entry(uuid)?;
        self.departed_order.retain(|other| *other != uuid);
        Some((uuid, departed))
    }

    pub(crate) fn sizes(&self) -> [(&'static str, usize); 3] {
        [("engines", self.engines.len()), ("engine names", self.ids.len()), ("joining", self.joining.len())]
    }

    pub(crate) fn check_invariants(&self) {
        assert_eq!(self.ids.len(), self.engines.len());
        for (uuid, id) in &self.ids {
            assert_eq!(self.engines[id].uuid, *uuid);
            assert_eq!(self.engines[id].id, *id);
            assert!(!self.joining.contains_key(uuid), "{uuid} is here and joining");
            assert!(!self.departed.contains_key(uuid), "{uuid} is here and gone");
        }
        let mut ids: Vec<EngineId> =
            self.engines.keys().copied().chain(self.joining.values().map(|joining| joining.id)).collect();
        ids.sort_unstable();
        assert!(ids.windows(2).all(|pair| pair[0] != pair[1]), "an id was given twice: {ids:?}");
        assert_eq!(self.departed.len(), self.departed_order.len());
    }
}
