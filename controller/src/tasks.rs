//! Every request that has not been answered: it is begun once and ended once.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use bytes::Bytes;
use protocol::frames::WireMessage;
use protocol::id::{EngineId, EngineUuid, MsgId};
use protocol::limits::REQUESTS_PER_CLIENT_MAX;

use crate::machine::Client;
use crate::scheduler::fairness::Place;

/// A request on its way, numbered in order of submission. Travels to the engine and back as a routing frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
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

impl Task {
    /// Whether it counts as work of its engine: control requests do not, nor does what nobody asked for.
    pub(crate) fn counts(&self) -> bool {
        self.client.channel.is_queued() && !matches!(self.work, Work::Probe { .. })
    }
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
    /// Of the controller's own: nothing, asked of an engine that had these when an earlier controller ended, or when
    /// its connection did. What it has not answered when it answers this, it has lost.
    Probe { engine: EngineId, doubtful: BTreeSet<TaskId>, doubt: Doubt },
}

/// Why it is doubtful whether an engine has what it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doubt {
    /// Another controller had given it.
    Restart,
    /// Its connection has ended since, and come back.
    Connection,
}

/// A task that may run on several engines, and perhaps on several in turn.
#[derive(Debug)]
pub(crate) struct BalancedWork {
    pub(crate) message: WireMessage,
    /// Where it stands among those that wait.
    pub(crate) place: Place,
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
    /// An engine replied that a dependency that the task checks itself is not met there: no failure of the task.
    Declined { engine: EngineUuid, message: WireMessage },
    /// The engine was lost; the error says which and why.
    Lost { engine: EngineUuid, error: String },
}

impl Work {
    /// The engine that has it now.
    pub(crate) fn engine(&self) -> Option<EngineId> {
        match self {
            Work::Direct { engine } | Work::Share { engine, .. } | Work::Probe { engine, .. } => {
                Some(*engine)
            }
            Work::Balanced(work) => match work.state {
                BalancedState::Waiting => None,
                BalancedState::Running { engine } => Some(engine),
            },
        }
    }

    pub(crate) fn broadcast(&self) -> Option<TaskId> {
        match self {
            Work::Share { broadcast, .. } => Some(*broadcast),
            Work::Direct { .. } | Work::Balanced(_) | Work::Probe { .. } => None,
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
    /// Names of queued requests that have not ended, as often as they are used; only looked up, never iterated.
    names: HashMap<MsgId, u32>,
    begun: u64,
}

impl TaskTable {
    /// Whether a client may have that many requests more.
    pub(crate) fn has_room(&self, client: &Client, more: usize) -> bool {
        self.per_client.get(client).copied().unwrap_or(0) + more <= REQUESTS_PER_CLIENT_MAX
    }

    /// Whether a client has requests that have not ended.
    pub(crate) fn has_any(&self, client: &Client) -> bool {
        self.per_client.contains_key(client)
    }

    /// How many clients have requests that have not ended.
    pub(crate) fn clients(&self) -> usize {
        self.per_client.len()
    }

    /// The id that the next task gets.
    pub(crate) fn next_id(&self) -> TaskId {
        TaskId(self.begun + 1)
    }

    /// The id that a task got last.
    pub(crate) fn last_id(&self) -> TaskId {
        TaskId(self.begun)
    }

    /// Goes on counting where an earlier controller ended.
    pub(crate) fn count_from(&mut self, id: TaskId) {
        self.begun = self.begun.max(id.0);
    }

    /// Whether a queued request of that name has not ended.
    pub(crate) fn is_pending(&self, msg_id: &MsgId) -> bool {
        self.names.contains_key(msg_id)
    }

    /// A name that is in use by more than one task: that of a broadcast whose replies become one.
    pub(crate) fn take_name(&mut self, msg_id: &MsgId) {
        match self.names.get_mut(msg_id) {
            Some(count) => *count += 1,
            None => {
                self.names.insert(msg_id.clone(), 1);
            }
        }
    }

    pub(crate) fn free_name(&mut self, msg_id: &MsgId) {
        let count = self.names.get_mut(msg_id).expect("it was taken");
        *count -= 1;
        if *count == 0 {
            self.names.remove(msg_id);
        }
    }

    pub(crate) fn begin(&mut self, task: Task) -> TaskId {
        self.begun += 1;
        let id = TaskId(self.begun);
        if task.client.channel.is_queued() {
            self.take_name(&task.msg_id);
        }
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
        if task.client.channel.is_queued() {
            self.free_name(&task.msg_id);
        }
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
            Work::Direct { .. } | Work::Share { .. } | Work::Probe { .. } => None,
        }
    }

    pub(crate) fn balanced(&self, id: TaskId) -> Option<&BalancedWork> {
        match &self.tasks.get(&id)?.work {
            Work::Balanced(work) => Some(work),
            Work::Direct { .. } | Work::Share { .. } | Work::Probe { .. } => None,
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (TaskId, &Task)> {
        self.tasks.iter().map(|(id, task)| (*id, task))
    }

    pub(crate) fn len(&self) -> usize {
        self.tasks.len()
    }

    pub(crate) fn sizes(&self) -> [(&'static str, usize); 3] {
        [
            ("tasks", self.tasks.len()),
            ("clients with tasks", self.per_client.len()),
            ("names of tasks", self.names.len()),
        ]
    }
}
