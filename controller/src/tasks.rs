//! Every request that has not been answered: it is begun once and ended once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use protocol::frames::WireMessage;
use protocol::id::{EngineId, EngineUuid, MsgId};
use protocol::limits::REQUESTS_PER_CLIENT_MAX;

use crate::machine::Client;

/// A request on its way, numbered in order of submission. Travels to the engine and back as a routing frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(pub u64);

impl TaskId {
    /// Of messages that are not answered.
    pub const NONE: TaskId = TaskId(0);
}

/// What must be known to answer a request.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) msg_id: MsgId,
    pub(crate) msg_type: String,
    pub(crate) client: Client,
    /// The request's header frame: the parent of every answer.
    pub(crate) header: Bytes,
    pub(crate) work: Work,
}

/// What kind of request it is, and what is true of that kind only.
#[derive(Debug)]
pub(crate) enum Work {
    /// At a named engine, by mux or control.
    Direct { engine: EngineId },
    /// One engine's share of a broadcast, which goes by the id of its first share.
    Share { engine: EngineId, broadcast: TaskId, place: usize },
    /// Wherever there is room.
    Balanced(Box<BalancedWork>),
}

/// A task that may run on several engines, and perhaps on several in turn.
#[derive(Debug)]
pub(crate) struct BalancedWork {
    pub(crate) message: WireMessage,
    /// Where it may run; `None`: anywhere.
    pub(crate) targets: Option<BTreeSet<EngineId>>,
    /// Where it has failed or was declined.
    pub(crate) avoided: BTreeSet<EngineId>,
    pub(crate) after: crate::scheduler::dependency::Need,
    pub(crate) follow: crate::scheduler::dependency::Need,
    pub(crate) retries: u32,
    /// How long it may wait, each time that it waits.
    pub(crate) timeout: Option<Duration>,
    /// How it failed last.
    pub(crate) last_failure: Option<LastFailure>,
    pub(crate) state: BalancedState,
}

/// Where a balanced task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BalancedState {
    /// For an engine, or for other tasks.
    Waiting,
    /// At an engine.
    Running { engine: EngineId },
}

/// What a task that nobody can run any more is answered with.
#[derive(Debug)]
pub(crate) enum LastFailure {
    /// What an engine replied.
    Replied { engine: EngineUuid, message: WireMessage },
    /// The engine was lost; the error says which and why.
    Lost { engine: EngineUuid, error: String },
}

impl Work {
    /// The engine that has it now.
    pub(crate) fn engine(&self) -> Option<EngineId> {
        match self {
            Work::Direct { engine } | Work::Share { engine, .. } => Some(*engine),
            Work::Balanced(work) => match work.state {
                BalancedState::Waiting => None,
                BalancedState::Running { engine } => Some(engine),
            },
        }
    }

    pub(crate) fn broadcast(&self) -> Option<TaskId> {
        match self {
            Work::Share { broadcast, .. } => Some(*broadcast),
            Work::Direct { .. } | Work::Balanced(_) => None,
        }
    }

    pub(crate) fn is_balanced(&self) -> bool {
        matches!(self, Work::Balanced(_))
    }
}

impl BalancedWork {
    /// Whether the task may run on an engine, as far as it and its past say.
    pub(crate) fn permits(&self, engine: EngineId) -> bool {
        !self.avoided.contains(&engine)
            && self.targets.as_ref().is_none_or(|targets| targets.contains(&engine))
            && self.follow.permits(engine)
    }

    /// Whether it may run on every engine, those to come included.
    pub(crate) fn is_unrestricted(&self) -> bool {
        self.avoided.is_empty() && self.targets.is_none() && self.follow.is_empty()
    }
}

/// All unanswered requests, in order of submission, and how many each client has.
#[derive(Debug, Default)]
pub(crate) struct TaskTable {
    tasks: BTreeMap<TaskId, Task>,
    per_client: BTreeMap<Client, usize>,
    begun: u64,
}

impl TaskTable {
    /// Whether a client may have that many requests more.
    pub(crate) fn has_room(&self, client: &Client, more: usize) -> bool {
        self.per_client.get(client).copied().unwrap_or(0) + more <= REQUESTS_PER_CLIENT_MAX
    }

    /// The id that the next task gets.
    pub(crate) fn next_id(&self) -> TaskId {
        TaskId(self.begun + 1)
    }

    pub(crate) fn begin(&mut self, task: Task) -> TaskId {
        self.begun += 1;
        let id = TaskId(self.begun);
        match self.per_client.get_mut(&task.client) {
            Some(count) => *count += 1,
            None => {
                self.per_client.insert(task.client.clone(), 1);
            }
        }
        self.tasks.insert(id, task);
        id
    }

    /// Ends a task: who gets it answers it. `None` if it has ended before.
    pub(crate) fn end(&mut self, id: TaskId) -> Option<Task> {
        let task = self.tasks.remove(&id)?;
        let count = self.per_client.get_mut(&task.client).expect("begin has counted it");
        *count -= 1;
        if *count == 0 {
            self.per_client.remove(&task.client);
        }
        Some(task)
    }

    pub(crate) fn get(&self, id: TaskId) -> Option<&Task> {
        self.tasks.get(&id)
    }

    pub(crate) fn balanced_mut(&mut self, id: TaskId) -> Option<&mut BalancedWork> {
        match &mut self.tasks.get_mut(&id)?.work {
            Work::Balanced(work) => Some(work),
            Work::Direct { .. } | Work::Share { .. } => None,
        }
    }

    pub(crate) fn balanced(&self, id: TaskId) -> Option<&BalancedWork> {
        match &self.tasks.get(&id)?.work {
            Work::Balanced(work) => Some(work),
            Work::Direct { .. } | Work::Share { .. } => None,
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (TaskId, &Task)> {
        self.tasks.iter().map(|(id, task)| (*id, task))
    }

    pub(crate) fn len(&self) -> usize {
        self.tasks.len()
    }
}
