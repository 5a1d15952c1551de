//! Who is here: the engines of a cluster as a client sees them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use protocol::extension::EngineDescription;
use protocol::id::{EngineId, EngineUuid, WorldId};

/// One engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Engine {
    /// Its number.
    pub id: EngineId,
    /// Its name.
    pub uuid: EngineUuid,
    /// Host, process, rank and world; none of a stock engine.
    pub description: Option<EngineDescription>,
}

impl Engine {
    /// Whether it speaks our additions.
    pub fn is_ours(&self) -> bool {
        self.description.as_ref().is_some_and(|description| description.version > 0)
    }

    /// Its rank, if it is part of a world.
    pub fn rank(&self) -> Option<u32> {
        let description = self.description.as_ref()?;
        (description.world.is_some() || description.world_size > 1).then_some(description.rank)
    }

    /// Its host, empty if unknown.
    pub fn host(&self) -> &str {
        self.description.as_ref().map(|description| description.host.as_str()).unwrap_or_default()
    }

    /// Its world.
    pub fn world(&self) -> Option<&WorldId> {
        self.description.as_ref()?.world.as_ref()
    }
}

impl fmt::Display for Engine {
    /// `engine 2 (rank 2, host node7)`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "engine {}", self.id)?;
        match (self.rank(), self.host()) {
            (Some(rank), "") => write!(f, " (rank {rank})"),
            (Some(rank), host) => write!(f, " (rank {rank}, host {host})"),
            (None, "") => Ok(()),
            (None, host) => write!(f, " (host {host})"),
        }
    }
}

/// All engines, by id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineTable {
    by_id: BTreeMap<EngineId, Arc<Engine>>,
    ids: BTreeMap<EngineUuid, EngineId>,
}

impl EngineTable {
    /// Adds an engine; a newer one takes over an id.
    pub fn insert(&mut self, engine: Arc<Engine>) {
        self.remove(&engine.uuid);
        self.ids.insert(engine.uuid.clone(), engine.id);
        if let Some(old) = self.by_id.insert(engine.id, engine) {
            self.ids.remove(&old.uuid);
        }
    }

    /// Removes an engine.
    pub fn remove(&mut self, uuid: &EngineUuid) -> Option<Arc<Engine>> {
        self.ids.remove(uuid).and_then(|id| self.by_id.remove(&id))
    }

    /// The engine of that uuid.
    pub fn by_uuid(&self, uuid: &EngineUuid) -> Option<&Arc<Engine>> {
        self.by_id.get(self.ids.get(uuid)?)
    }

    /// The engine of that id.
    pub fn by_id(&self, id: EngineId) -> Option<&Arc<Engine>> {
        self.by_id.get(&id)
    }

    /// All ids in order.
    pub fn ids(&self) -> Vec<EngineId> {
        self.by_id.keys().copied().collect()
    }

    /// All engines in order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Engine>> {
        self.by_id.values()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether nobody is here.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }
}
