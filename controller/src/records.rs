//! What the hub remembers of tasks: [`Change`]s go in, in the order in which things happened; [`Question`]s are
//! answered from what they left.
//!
//! The machine says what happened and what is asked; it holds no record itself. A store does: in
//! memory, in a file, or none at all. Which one it is changes no decision of the machine, and a store that is slow
//! slows nobody down.

pub(crate) mod answer;
pub(crate) mod field;
pub(crate) mod forgotten;
pub(crate) mod frames;
pub mod memory;
pub(crate) mod query;
pub mod record;
#[cfg(test)]
pub(crate) mod testing;

use bytes::Bytes;
use protocol::error::ErrorContent;
use protocol::extension::EngineDescription;
use protocol::frames::WireMessage;
use protocol::id::{EngineId, EngineUuid, MsgId, SessionId};
use protocol::message::Status;
use serde_json::{Map, Value as Json};

use crate::machine::Client;
use crate::repeats::Said;
use crate::tasks::TaskId;

/// Which channel a request came by, as records name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Queue {
    /// To one named engine.
    Mux,
    /// To whichever engine was free.
    Task,
    /// To several engines: each engine's share has a record, or the request as a whole if its replies become one.
    Broadcast,
}

impl Queue {
    /// As in a record's field `queue`.
    pub fn name(self) -> &'static str {
        match self {
            Queue::Mux => "mux",
            Queue::Task => "task",
            Queue::Broadcast => "broadcast",
        }
    }
}

/// Something happened, to a task or to an engine.
///
/// Stores of records keep what is said of tasks that have a name of their own; the journal keeps
/// all that a controller must know to go on where another one ended. Of ids that have no record, stores forget
/// every change but [`Change::Submitted`] and [`Change::Gathering`].
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// A task was accepted. A second one of the same name replaces the record of the first.
    Submitted {
        /// Which task.
        task: TaskId,
        /// Its name. A share of a broadcast has one of its own: the record's header then has it in place of the
        /// request's.
        msg_id: MsgId,
        /// Who asked.
        client: Client,
        /// How it came.
        queue: Queue,
        /// The engine that it is for; balanced tasks have none yet.
        engine: Option<EngineUuid>,
        /// The request as it came.
        request: WireMessage,
    },
    /// A broadcast was accepted whose replies become one. Its record is one as well.
    Gathering {
        /// The first of its shares.
        broadcast: TaskId,
        /// Its name.
        msg_id: MsgId,
        /// Who asked.
        client: Client,
        /// The request as it came.
        request: WireMessage,
    },
    /// One engine's share of such a broadcast.
    Shared {
        /// The share.
        task: TaskId,
        /// Of which broadcast.
        broadcast: TaskId,
        /// Whose: the place in the request's targets.
        place: usize,
        /// Whose.
        engine: EngineUuid,
    },
    /// What one of those engines said. Not told of a share that failed without its engine.
    Gathered {
        /// The share.
        task: TaskId,
        /// How it ended.
        status: Status,
        /// The engine's reply.
        reply: WireMessage,
    },
    /// The scheduler gave a task to an engine.
    Assigned {
        /// Which task.
        task: TaskId,
        /// Its name.
        msg_id: MsgId,
        /// Where it runs.
        engine: EngineUuid,
    },
    /// The engine did not do it; the scheduler will try others.
    Returned {
        /// Which task.
        task: TaskId,
        /// Where it will not be tried again.
        engine: EngineId,
        /// Whether that used up one of its retries.
        retried: bool,
    },
    /// A task ended with an engine's reply.
    Replied {
        /// Which task.
        task: TaskId,
        /// Its name.
        msg_id: MsgId,
        /// Who replied.
        engine: EngineUuid,
        /// How it ended.
        status: Status,
        /// The reply as it came.
        reply: WireMessage,
    },
    /// A task ended with a reply of the controller's own: an error, or what several engines said.
    Answered {
        /// Which task.
        task: TaskId,
        /// Its name.
        msg_id: MsgId,
        /// The engine that it was for, if it was for one.
        engine: Option<EngineUuid>,
        /// The reply's type.
        msg_type: String,
        /// The reply's metadata.
        metadata: Json,
        /// The reply's content.
        content: Json,
        /// The reply's buffers.
        buffers: Vec<Bytes>,
    },
    /// A task printed or displayed something. Output of a share whose broadcast has one record belongs to that one.
    Output {
        /// Its name.
        msg_id: MsgId,
        /// What.
        output: Output,
    },
    /// A task was submitted once more under another name.
    Resubmitted {
        /// Its name.
        msg_id: MsgId,
        /// The new one.
        anew: MsgId,
    },
    /// A control request was given to its engine. It has no record.
    Asked {
        /// Which request.
        task: TaskId,
        /// Its name.
        msg_id: MsgId,
        /// Who asked.
        client: Client,
        /// Of whom.
        engine: EngineUuid,
        /// The request as it came.
        request: WireMessage,
    },
    /// A control request was answered.
    Told {
        /// Which request.
        task: TaskId,
    },
    /// A reply was given to a client's connection. Told only where a journal is kept.
    Said(Said),
    /// So many of them, the oldest, have arrived by now, as far as anybody can know.
    Arrived {
        /// How many.
        count: u64,
    },
    /// What was said until now and has not arrived was said by an earlier controller: it is to be said again.
    Owed,
    /// That was done: what was said again was [`Change::Said`] again.
    Repeated,
    /// A client wants these tasks aborted: they are not given to an engine any more. Told only where a journal is kept.
    Aborted {
        /// Their names.
        msg_ids: Vec<MsgId>,
    },
    /// A message of a client came that begins no task. Told only where a journal is kept.
    Noted {
        /// Whose.
        session: SessionId,
        /// Which: clients number their messages.
        msg_id: MsgId,
    },
    /// A message of a client did not come although later ones did: it may have been lost with an earlier controller.
    Missed {
        /// Whose.
        session: SessionId,
        /// Which.
        msg_id: MsgId,
        /// Whether the client has been told that it is lost.
        told: bool,
    },
    /// How a balanced task ended, once more, for others that depend on it: the journal is written anew.
    Ended {
        /// The task's name, hashed as the scheduler does.
        name: u64,
        /// Whether it succeeded.
        ok: bool,
        /// Where it ran.
        engine: Option<EngineId>,
    },
    /// An engine can be used.
    Joined {
        /// Its id.
        id: EngineId,
        /// Its name.
        engine: EngineUuid,
        /// What it said of itself.
        description: EngineDescription,
    },
    /// An engine has registered, or returns, and cannot be used yet. Its id is its own.
    Joining {
        /// Its id.
        id: EngineId,
        /// Its name.
        engine: EngineUuid,
        /// What it said of itself.
        description: EngineDescription,
    },
    /// An engine was lost, or did not become reachable in time, and joins if it is heard. Another one may get its id
    /// before.
    Expected {
        /// Its id.
        id: EngineId,
        /// Its name.
        engine: EngineUuid,
        /// What it said of itself.
        description: EngineDescription,
    },
    /// An engine was lost, or left, or will not join.
    Left {
        /// Its id.
        id: EngineId,
        /// Its name.
        engine: EngineUuid,
    },
}

impl Change {
    /// Whether records keep something of it; the journal has reasons of its own.
    pub fn is_recorded(&self) -> bool {
        match self {
            Change::Submitted { .. }
            | Change::Gathering { .. }
            | Change::Assigned { .. }
            | Change::Replied { .. }
            | Change::Answered { .. }
            | Change::Output { .. }
            | Change::Resubmitted { .. } => true,
            Change::Shared { .. }
            | Change::Gathered { .. }
            | Change::Returned { .. }
            | Change::Asked { .. }
            | Change::Told { .. }
            | Change::Said(_)
            | Change::Arrived { .. }
            | Change::Owed
            | Change::Repeated
            | Change::Aborted { .. }
            | Change::Noted { .. }
            | Change::Missed { .. }
            | Change::Ended { .. }
            | Change::Joined { .. }
            | Change::Joining { .. }
            | Change::Expected { .. }
            | Change::Left { .. } => false,
        }
    }
}

/// Output that records keep.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// More text of standard output.
    Stdout(String),
    /// More text of standard error.
    Stderr(String),
    /// The code that an engine echoed.
    Input(String),
    /// Content of `execute_result`.
    Result(Json),
    /// Content of `error`.
    Error(Json),
}

/// Something that a client wants to know.
#[derive(Clone, Debug, PartialEq)]
pub enum Question {
    /// `result_request`: which of these ended, and how. What has not ended was found by the machine already.
    Results {
        /// Ended, or unknown.
        msg_ids: Vec<MsgId>,
        /// Not ended: only repeated in the answer.
        pending: Vec<MsgId>,
        /// Without the records.
        status_only: bool,
    },
    /// `history_request`: all names, in order of submission.
    History,
    /// `db_request`: the records that match.
    Query {
        /// In the query language.
        query: Map<String, Json>,
        /// Which fields; none: all but the buffers.
        keys: Option<Vec<String>>,
    },
    /// `purge_request`: forget records. None of them belongs to a task that has not ended.
    Purge {
        /// These.
        msg_ids: Purged,
        /// And those that ended on these engines.
        engines: Vec<EngineUuid>,
    },
    /// `resubmit_request`: the requests of these tasks, ended or not.
    Requests {
        /// The tasks.
        msg_ids: Vec<MsgId>,
    },
}

/// Which records are to be forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purged {
    /// All of tasks that have ended.
    Finished,
    /// These.
    These(Vec<MsgId>),
}

/// What a store says.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// For the client as it is.
    Reply {
        /// The reply's type.
        msg_type: &'static str,
        /// Its content.
        content: Json,
        /// Its buffers.
        buffers: Vec<Bytes>,
    },
    /// For the machine, to submit them again: the requests in the order asked for, or why not.
    Requests(Result<Vec<StoredRequest>, Box<ErrorContent>>),
}

/// A request as it was once submitted.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredRequest {
    /// Its name then.
    pub msg_id: MsgId,
    /// Its header frame.
    pub header: Bytes,
    /// Its content frame.
    pub content: Bytes,
    /// Its buffers.
    pub buffers: Vec<Bytes>,
}
