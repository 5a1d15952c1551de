//! What all handles of one client share: the session that signs, the way to the background thread, and what that
//! thread has learnt.

use std::collections::BTreeSet;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use protocol::extension::{self, RequestMetadata};
use protocol::id::{EngineUuid, MsgId};
use protocol::message::control::{ABORT_REQUEST, AbortRequest};
use protocol::message::execute::{
    APPLY_REQUEST, ApplyRequest, BroadcastMetadata, DirectMetadata, EXECUTE_REQUEST, ExecuteRequest,
    TaskMetadata,
};
use protocol::value::{Value, encode};
use protocol::{Date, Session};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;
use transport::wake::Waker;

use crate::async_result::{AsyncResult, ResultCell};
use crate::engines::{Engine, EngineTable};
use crate::error::ClientError;
use crate::machine::{Channel, Contact, Outgoing, PartRequest, Submission, Ticket};
use crate::outcome::Answer;

/// Tells the background thread what to do.
pub(crate) enum Command {
    /// Send this; put what comes there.
    Submit(Submission, Weak<ResultCell>),
    /// End.
    Stop,
}

/// What the background thread has learnt, for everybody to see.
#[derive(Default)]
pub(crate) struct Board {
    pub(crate) news: Mutex<News>,
    pub(crate) changed: Condvar,
}

/// See [`Board`].
pub(crate) struct News {
    pub(crate) engines: Arc<EngineTable>,
    pub(crate) contact: Contact,
    /// Whether all connections stand, and why not if that is known.
    pub(crate) connected: bool,
    pub(crate) obstacle: Option<String>,
}

impl Default for News {
    fn default() -> News {
        News { engines: Arc::default(), contact: Contact::Unknown, connected: false, obstacle: None }
    }
}

impl Board {
    pub(crate) fn lock(&self) -> MutexGuard<'_, News> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `found` sees what it wants, or `timeout` has passed.
    pub(crate) fn wait<T>(&self, timeout: Duration, mut found: impl FnMut(&News) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + timeout;
        let mut news = self.lock();
        loop {
            if let Some(found) = found(&news) {
                return Some(found);
            }
            let left = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
            news = self.changed.wait_timeout(news, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// A handle; clones share the connection, and the last one closes it.
#[derive(Clone)]
pub(crate) struct Connection(Arc<Shared>);

struct Shared {
    desk: Mutex<Desk>,
    waker: Waker,
    board: Arc<Board>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Where requests are written. Requests are signed and queued under its lock, so that all channels see them in the
/// order of their cells.
struct Desk {
    session: Session,
    commands: Sender<Command>,
    last_cell: i64,
    last_ticket: u64,
}

/// What engines are asked to run.
#[derive(Clone, Debug)]
pub(crate) enum Work {
    /// A cell.
    Execute {
        /// Its text.
        code: String,
        /// Whether the last expression's value is not shown.
        silent: bool,
    },
    /// A function by name.
    Call(CallWork),
}

/// See [`Work::Call`].
#[derive(Clone, Debug)]
pub(crate) struct CallWork {
    call: extension::Call,
    buffers: Vec<Bytes>,
}

impl CallWork {
    pub(crate) fn new<'a>(
        function: &str,
        arguments: &[Value],
        keywords: impl IntoIterator<Item = (&'a str, &'a Value)>,
    ) -> CallWork {
        let mut buffers = Vec::new();
        let arguments = arguments.iter().map(|value| encode(value, &mut buffers)).collect();
        let keywords = keywords
            .into_iter()
            .map(|(name, value)| (name.to_owned(), encode(value, &mut buffers)))
            .collect();
        CallWork { call: extension::Call { function: function.to_owned(), arguments, keywords }, buffers }
    }
}

impl Desk {
    /// Microseconds now, but later than every earlier cell of this client.
    fn next_cell(&mut self) -> i64 {
        self.last_cell = date_now().micros().max(self.last_cell + 1);
        self.last_cell
    }

    fn next_ticket(&mut self) -> Ticket {
        self.last_ticket += 1;
        Ticket(self.last_ticket)
    }

    fn write(&mut self, work: &Work, metadata: &impl Serialize) -> (MsgId, protocol::WireMessage) {
        let now = date_now();
        match work {
            Work::Execute { code, silent } => {
                let content = ExecuteRequest {
                    code: code.clone(),
                    silent: *silent,
                    store_history: None,
                    user_expressions: Default::default(),
                    // A rank that failed must not skip the next cell: its peers would wait for it there.
                    stop_on_error: false,
                };
                self.session.request(now, EXECUTE_REQUEST, metadata, &content, vec![])
            }
            Work::Call(CallWork { call, buffers }) => {
                let content = ApplyRequest { extension: Some(call.clone()) };
                self.session.request(now, APPLY_REQUEST, metadata, &content, buffers.clone())
            }
        }
    }

    /// One message to engines of ours by the broadcast channel.
    ///
    /// A single engine is asked the same way, not by mux: one channel keeps all requests to an engine in order.
    fn broadcast(&mut self, engines: &[Arc<Engine>], cell: i64, work: &Work, submission: &mut Submission) {
        let metadata = BroadcastMetadata {
            targets: engines.iter().map(|engine| (engine.uuid.clone(), engine.id)).collect(),
            is_broadcast: true,
            is_coalescing: false,
            original_msg_id: None,
            label: Json::Null,
            extension: Some(RequestMetadata { cell, ..RequestMetadata::default() }),
            buffer_digest: None,
        };
        let (id, wire) = self.write(work, &metadata);
        submission.messages.push(Outgoing { channel: Channel::Broadcast, route: None, wire });
        submission.parts.extend(engines.iter().map(|engine| PartRequest {
            msg_id: format!("{id}_{}", engine.uuid).into(),
            engine: Some(Arc::clone(engine)),
            broadcast: Some(id.clone()),
            has_output: true,
        }));
    }

    /// One message to a stock engine by the mux channel.
    fn direct(&mut self, engine: &Arc<Engine>, cell: i64, work: &Work, submission: &mut Submission) {
        let metadata = DirectMetadata {
            label: Json::Null,
            extension: Some(RequestMetadata { cell, ..RequestMetadata::default() }),
        };
        let (msg_id, wire) = self.write(work, &metadata);
        let route = Some(engine.uuid.clone());
        submission.messages.push(Outgoing { channel: Channel::Mux, route, wire });
        submission.parts.push(PartRequest {
            msg_id,
            engine: Some(Arc::clone(engine)),
            broadcast: None,
            has_output: true,
        });
    }
}

impl Connection {
    pub(crate) fn new(
        session: Session,
        commands: Sender<Command>,
        waker: Waker,
        board: Arc<Board>,
        thread: JoinHandle<()>,
    ) -> Connection {
        let desk = Mutex::new(Desk { session, commands, last_cell: 0, last_ticket: 0 });
        Connection(Arc::new(Shared { desk, waker, board, thread: Mutex::new(Some(thread)) }))
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.0.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn board(&self) -> &Board {
        &self.0.board
    }

    /// Who is here now.
    pub(crate) fn engines(&self) -> Arc<EngineTable> {
        Arc::clone(&self.board().lock().engines)
    }

    /// Asks several engines for the same.
    pub(crate) fn ask_all(&self, engines: &[Arc<Engine>], work: &Work) -> Result<AsyncResult, ClientError> {
        for engine in engines {
            understands(engine, work)?;
        }
        Ok(self.submit(matches!(work, Work::Call(_)), |desk, submission| {
            let cell = desk.next_cell();
            if engines.iter().all(|engine| engine.is_ours()) {
                desk.broadcast(engines, cell, work, submission);
                return;
            }
            for engine in engines {
                if engine.is_ours() {
                    desk.broadcast(std::slice::from_ref(engine), cell, work, submission);
                } else {
                    desk.direct(engine, cell, work, submission);
                }
            }
        }))
    }

    /// Asks each engine for something of its own; all parts are one cell.
    pub(crate) fn ask_each(&self, works: &[(Arc<Engine>, Work)]) -> Result<AsyncResult, ClientError> {
        for (engine, work) in works {
            understands(engine, work)?;
        }
        let calls = works.iter().all(|(_, work)| matches!(work, Work::Call(_)));
        Ok(self.submit(calls, |desk, submission| {
            let cell = desk.next_cell();
            for (engine, work) in works {
                if engine.is_ours() {
                    desk.broadcast(std::slice::from_ref(engine), cell, work, submission);
                } else {
                    desk.direct(engine, cell, work, submission);
                }
            }
        }))
    }

    /// Asks whichever engines have room.
    pub(crate) fn ask_anybody(
        &self,
        works: impl IntoIterator<Item = Work>,
        metadata: &TaskMetadata,
    ) -> AsyncResult {
        let mut works = works.into_iter().peekable();
        let calls = !matches!(works.peek(), Some(Work::Execute { .. }));
        self.submit(calls, |desk, submission| {
            for work in works {
                let (msg_id, wire) = desk.write(&work, metadata);
                submission.messages.push(Outgoing { channel: Channel::Task, route: None, wire });
                submission.parts.push(PartRequest {
                    msg_id,
                    engine: None,
                    broadcast: None,
                    has_output: true,
                });
            }
        })
    }

    /// Asks each engine's control thread.
    pub(crate) fn control(
        &self,
        engines: &[Arc<Engine>],
        msg_type: &str,
        content: &impl Serialize,
    ) -> AsyncResult {
        self.submit(true, |desk, submission| {
            for engine in engines {
                let empty = protocol::message::Empty {};
                let (msg_id, wire) = desk.session.request(date_now(), msg_type, &empty, content, vec![]);
                let route = Some(engine.uuid.clone());
                submission.messages.push(Outgoing { channel: Channel::Control, route, wire });
                submission.parts.push(PartRequest {
                    msg_id,
                    engine: Some(Arc::clone(engine)),
                    broadcast: None,
                    has_output: false,
                });
            }
        })
    }

    /// Asks the hub.
    pub(crate) fn query(&self, msg_type: &str, content: &impl Serialize) -> AsyncResult {
        self.submit(true, |desk, submission| {
            let empty = protocol::message::Empty {};
            let (msg_id, wire) = desk.session.request(date_now(), msg_type, &empty, content, vec![]);
            submission.messages.push(Outgoing { channel: Channel::Query, route: None, wire });
            submission.parts.push(PartRequest { msg_id, engine: None, broadcast: None, has_output: false });
        })
    }

    /// Asks the hub, waits, and reads the answer.
    pub(crate) fn query_now<T: DeserializeOwned>(
        &self,
        msg_type: &str,
        content: &impl Serialize,
        timeout: Duration,
    ) -> Result<T, ClientError> {
        let mut outcomes = self.query(msg_type, content).join(timeout)?;
        crate::async_result::check(&outcomes)?;
        match outcomes.pop().map(|outcome| outcome.result) {
            Some(Ok(Answer::Content(content))) => serde_json::from_value(content).map_err(|error| {
                ClientError::Invalid(format!("understand the answer to {msg_type}: {error}"))
            }),
            _ => Err(ClientError::Invalid(format!("understand the answer to {msg_type}: it has no content"))),
        }
    }

    /// Ends requests that have not begun.
    pub(crate) fn abort(
        &self,
        requests: &[(MsgId, Option<Arc<Engine>>)],
    ) -> Result<AsyncResult, ClientError> {
        let everybody: Vec<Arc<Engine>> = self.engines().iter().cloned().collect();
        let mut involved: BTreeSet<&EngineUuid> = BTreeSet::new();
        let mut anybody = false;
        for (_, engine) in requests {
            match engine {
                Some(engine) => drop(involved.insert(&engine.uuid)),
                None => anybody = true,
            }
        }
        let engines: Vec<Arc<Engine>> =
            everybody.into_iter().filter(|engine| anybody || involved.contains(&engine.uuid)).collect();
        let msg_ids: Vec<MsgId> = requests.iter().map(|(id, _)| id.clone()).collect();
        if msg_ids.is_empty() {
            return Ok(self.control(&[], ABORT_REQUEST, &AbortRequest { msg_ids })); // Empty would mean everything.
        }
        Ok(self.control(&engines, ABORT_REQUEST, &AbortRequest { msg_ids }))
    }

    fn submit(&self, calls: bool, write: impl FnOnce(&mut Desk, &mut Submission)) -> AsyncResult {
        let mut desk = self.desk();
        let ticket = desk.next_ticket();
        let mut submission = Submission { ticket, parts: vec![], messages: vec![] };
        write(&mut desk, &mut submission);
        let msg_ids =
            submission.parts.iter().map(|part| (part.msg_id.clone(), part.engine.clone())).collect();
        let cell = Arc::new(ResultCell::new(submission.parts.len(), calls));
        let command = Command::Submit(submission, Arc::downgrade(&cell));
        let delivered = desk.commands.send(command).is_ok();
        drop(desk);
        if delivered {
            self.0.waker.wake();
        } else {
            cell.abandon("the client's background thread has ended");
        }
        AsyncResult::new(cell, self.clone(), msg_ids)
    }
}

/// Stock engines take functions pickled, which we do not write.
fn understands(engine: &Engine, work: &Work) -> Result<(), ClientError> {
    match work {
        Work::Call(_) if !engine.is_ours() => {
            Err(ClientError::StockEngine { what: "call a function or move data", id: engine.id })
        }
        _ => Ok(()),
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let desk = self.desk.get_mut().unwrap_or_else(PoisonError::into_inner);
        // The thread may have ended by itself; then there is nobody to tell.
        let _ = desk.commands.send(Command::Stop);
        self.waker.wake();
        let thread = self.thread.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.thread().id() != std::thread::current().id()
        {
            // Waits for what was sent to leave, for at most the sockets' linger.
            let _ = thread.join();
        }
    }
}

/// Now, as wire dates are made.
pub(crate) fn date_now() -> Date {
    Date::from_system_time(SystemTime::now())
}
