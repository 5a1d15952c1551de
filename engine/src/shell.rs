//! The engine with its sockets: the main thread's loop, and the control thread beside it.
//!
//! Exactly two threads of ours. The main thread owns MPI, the runner and the shell socket, which it polls itself
//! (a hop through another thread would cost a wake-up per request). The control thread owns everything that must
//! work while user code runs; see [`control`]. They share [`shared::Shared`] and the output channel.
//!
//! Each thread remembers the signatures that it has seen for itself, without a lock between them: a message
//! recorded on one channel and repeated on the other is of a type that the other one does not serve, or asks for
//! something harmless (completion, `kernel_info`).

pub mod control;
pub mod open;
pub mod ready;
pub mod shared;
pub mod signals;
pub mod sockets;

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use protocol::Receiver;
use protocol::message::execute::EXECUTE_REQUEST;
use transport::poll::{PollItem, poll};
use transport::wake::WakeReceiver;
use transport::{Socket, TransportError};

use crate::executor::{Executor, Request};
use crate::machine::{EngineMachine, Event, Kind, Step, Waiting};
use crate::queries::Remembered;
use open::open;
use ready::Ready;
use shared::{Ending, Order, Shared};

/// How long an engine is idle before it describes its names for completion while it is busy.
const NAMES_DELAY: Duration = Duration::from_millis(20);

/// Exit code of an engine whose controller was lost.
pub const EXIT_CONTROLLER_LOST: u8 = 5;
/// Exit code of a rank whose launcher was lost; nobody is left to read it but the log.
pub const EXIT_LAUNCHER_LOST: u8 = 6;
/// Exit code of an engine that did not end within its time after SIGTERM: what a shell reports for it.
pub const EXIT_TERMINATED: u8 = 128 + 15;
/// Exit code of an engine whose last task did not end.
pub const EXIT_STUCK: u8 = 1;

/// How often an idle rank looks after a collective that was interrupted and that some rank has still to enter.
const DRIVE_INTERVAL: Duration = Duration::from_millis(20);

/// The main thread's part of an engine.
pub struct Shell {
    /// Takes requests; the executor sends replies on it.
    pub socket: Rc<Socket>,
    /// Runs them.
    pub executor: Executor,
    /// Verifies what comes.
    pub receiver: Receiver,
    /// Whom to tell that the channels work.
    pub ready: Ready,
    /// What the control thread knows of.
    pub shared: Arc<Shared>,
    /// Wakes this thread.
    pub wake: WakeReceiver,
    /// Drives what interrupted collectives have left behind, because other ranks may wait for it; says whether
    /// something is left.
    pub drive: Box<dyn FnMut() -> bool>,
    /// Whether what the control thread tells of names is out of date.
    pub names_changed: bool,
}

impl Shell {
    /// Serves requests until the engine ends; says why it did.
    pub fn serve(&mut self) -> Result<Ending, TransportError> {
        let mut machine = EngineMachine::new();
        let mut ending = None;
        loop {
            self.take_events(&mut machine, &mut ending)?;
            match machine.next_step() {
                Some(Step::Run(request)) => self.run(request, &mut machine)?,
                Some(Step::Abort(request)) => self.executor.abort(&request),
                Some(Step::Clear) => {
                    self.executor.clear();
                    self.names_changed = true;
                }
                Some(Step::Stop) => return Ok(ending.unwrap_or(Ending::Requested)),
                None => self.wait()?,
            }
        }
    }

    /// Runs a request. What arrived meanwhile is taken before its answer leaves: what a failed cell aborts is
    /// what its sender had sent before knowing of the failure.
    fn run(&mut self, request: Request, machine: &mut EngineMachine<Request>) -> Result<(), TransportError> {
        let id = request.message.header.msg_id.clone();
        tracing::debug!(request = %id, msg_type = %request.message.header.msg_type, "runs");
        self.shared.activity().running = Some((id, Instant::now()));
        let answer = self.executor.run(request);
        {
            let mut activity = self.shared.activity();
            activity.running = None;
            activity.requests += 1;
            activity.collectives = self.executor.collectives();
        }
        if answer.stops_cells {
            self.take_requests(machine)?;
            machine.on(Event::CellFailed);
        }
        self.executor.answer(answer);
        self.names_changed = true;
        Ok(())
    }

    fn take_events(
        &mut self,
        machine: &mut EngineMachine<Request>,
        ending: &mut Option<Ending>,
    ) -> Result<(), TransportError> {
        self.wake.clear();
        self.ready.attempt(Instant::now(), &mut self.socket);
        // Requests first: an order to abort everything means what came before it.
        self.take_requests(machine)?;
        for order in self.shared.take_orders() {
            machine.on(match order {
                Order::AbortNamed(ids) => Event::AbortNamed(ids),
                Order::AbortAll { session, sent } => Event::AbortAll { session, sent },
                Order::Clear => Event::Clear,
                Order::End(why) => {
                    ending.get_or_insert(why);
                    Event::Shutdown
                }
            });
        }
        Ok(())
    }

    fn take_requests(&mut self, machine: &mut EngineMachine<Request>) -> Result<(), TransportError> {
        while machine.has_room() {
            let Some(received) = self.socket.receive()? else { break };
            let Some((routing, message)) = open(&mut self.receiver, received, "shell") else {
                self.shared.activity().refused =
                    self.receiver.refused().filter(|(_, count)| *count > 0).collect();
                continue;
            };
            let header = &message.header;
            machine.on(Event::Arrived(Waiting {
                id: header.msg_id.clone(),
                session: header.session.clone(),
                sent: header.date,
                kind: if header.msg_type == EXECUTE_REQUEST { Kind::Cell } else { Kind::Other },
                bytes: message.wire.byte_len(),
                request: Request { routing, message },
            }));
        }
        Ok(())
    }

    /// Sleeps until there is something to do.
    fn wait(&mut self) -> Result<(), TransportError> {
        // Names are described in time that nobody waits for, and not between the cells of a burst.
        if self.names_changed && !self.poll(Some(NAMES_DELAY))? {
            self.names_changed = false;
            let remembered = Remembered::of(self.executor.runner());
            self.shared.activity().remembered = remembered;
        }
        let driving = (self.drive)().then_some(DRIVE_INTERVAL);
        let telling = self.ready.is_waiting().then_some(ready::RETRY_INTERVAL);
        self.poll(driving.into_iter().chain(telling).min()).map(drop)
    }

    /// Whether anything came within `timeout`.
    fn poll(&self, timeout: Option<Duration>) -> Result<bool, TransportError> {
        let mut items = [PollItem::socket(&self.socket), PollItem::from(&self.wake)];
        Ok(poll(&mut items, timeout)? > 0)
    }
}
