//! The control thread: heartbeats, abort, interrupt, status and shutdown while user code runs.
//!
//! It owns the control, heartbeat and registration sockets and sleeps until one of them, a signal or a
//! deadline wakes it. It runs no user code and makes no MPI call.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use protocol::error::{ErrorContent, ename};
use protocol::extension::{ENGINE_STATUS_REQUEST, EngineDescription, EngineStatus};
use protocol::message::control::{
    ABORT_REQUEST, AbortRequest, CLEAR_REQUEST, ControlMetadata, SHUTDOWN_REPLY, SHUTDOWN_REQUEST,
    SIGNAL_REQUEST, Shutdown, SignalRequest,
};
use protocol::message::hub::{UNREGISTRATION_REQUEST, UnregistrationRequest};
use protocol::message::output::{ExecutionState, STATUS, StatusUpdate};
use protocol::message::{Empty, Failure, Status, StatusContent};
use protocol::{Date, Message, Receiver, Session};
use serde_json::Value as Json;
use transport::monitor::{Monitor, MonitorEvent};
use transport::poll::{PollItem, poll};
use transport::wake::WakeReceiver;
use transport::{Received, Sent, Socket, TransportError};

use super::open::open;
use super::ready::{self, Ready};
use super::shared::{Ending, Order, Shared};
use super::signals::{self, Meaning, Signals};
use super::sockets::Heart;
use crate::executor::{Name, reply_type};
use crate::module::Crash;
use crate::output::Iopub;
use crate::queries;

/// How long a reply may take to leave before the signal that it announces ends the process.
const SIGNAL_DELAY: Duration = Duration::from_millis(200);

/// How long the message before that may take that this engine leaves.
const UNREGISTRATION_DELAY: Duration = Duration::from_millis(50);

/// How long the running task may go on after a shutdown request before it is interrupted.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(5);

/// How long an interrupted task may take to end before the process ends without it: native code may never look
/// at the flag.
const INTERRUPT_PATIENCE: Duration = Duration::from_secs(10);

/// How often the launcher is looked at. A launcher that dies by SIGKILL ends its ranks by losing their connections,
/// except where the process that dies is a proxy between the two (`hydra_pmi_proxy`, `orted`): its ranks would
/// compute on, in a world that is no more. `PR_SET_PDEATHSIG` would also act when a mere thread of it ends.
const LAUNCHER_INTERVAL: Duration = Duration::from_secs(2);

/// Jupyter's request to interrupt.
const INTERRUPT_REQUEST: &str = "interrupt_request";

/// Messages taken from one socket before the others are looked at.
const BURST_MAX: usize = 64;

/// What the control thread is made of.
pub struct Parts {
    /// Takes control requests.
    pub control: Socket,
    /// Unregisters.
    pub registration: Socket,
    /// Echoes pings.
    pub heart: Heart,
    /// Tells whether the controller is connected.
    pub monitor: Monitor,
    /// The output channel.
    pub iopub: Arc<Iopub>,
    /// What the main thread knows of.
    pub shared: Arc<Shared>,
    /// Wakes this thread.
    pub wake: WakeReceiver,
    /// What reaches the process.
    pub signals: Signals,
    /// Verifies what comes.
    pub receiver: Receiver,
    /// Makes the replies.
    pub session: Session,
    /// Whom to tell that the control channel works.
    pub ready: Ready,
    /// Who answers.
    pub name: Name,
    /// What status queries are told.
    pub description: EngineDescription,
    /// How long the controller may be silent; none: for ever.
    pub silence_max: Option<Duration>,
    /// The process that started this rank, if it must not outlive it.
    pub launcher: Option<u32>,
}

/// The control thread.
pub struct Control {
    parts: Parts,
    last_ping: Instant,
    connected: bool,
    /// A signal to this process, once the reply has left.
    delivery: Option<(Instant, i32)>,
    /// Whether the hub was told that this engine leaves.
    is_unregistered: bool,
    /// When the running task is interrupted because the engine ends, and when the process ends anyway.
    ending: Option<EndingSchedule>,
}

#[derive(Clone, Copy, Debug)]
struct EndingSchedule {
    /// None: done.
    interrupt_at: Option<Instant>,
    /// None: the main thread has answered its last request, and may wait for its world.
    exit_at: Option<Instant>,
    exit_code: u8,
}

impl Control {
    /// A control thread whose heart starts to beat now.
    pub fn new(parts: Parts) -> Control {
        Control {
            parts,
            last_ping: Instant::now(),
            connected: true,
            delivery: None,
            is_unregistered: false,
            ending: None,
        }
    }

    /// Runs until the main thread has left the cluster.
    pub fn run(mut self) {
        let _guard = EndOnPanic;
        let waker = self.parts.wake.waker();
        Crash::wakes(Some(waker.fd()));
        if let Err(error) = self.serve() {
            tracing::error!(%error, "control channel failed");
            self.parts.shared.interrupt.raise();
            self.parts.shared.order(Order::End(Ending::Broken(error.to_string())));
        }
        self.unregister();
        Crash::wakes(None);
        self.into_watch().run();
    }

    /// Closes the sockets, so that their last messages leave while the main thread goes on.
    fn into_watch(self) -> Watch {
        let Parts { shared, wake, signals, .. } = self.parts;
        Watch { shared, wake, signals, ending: self.ending }
    }

    fn serve(&mut self) -> Result<(), TransportError> {
        while !self.parts.shared.is_leaving() {
            let now = Instant::now();
            let timeout = self.next_deadline(now).map(|deadline| deadline.saturating_duration_since(now));
            poll(
                &mut [
                    PollItem::socket(&self.parts.control),
                    PollItem::socket(&self.parts.heart.ping),
                    PollItem::socket(&self.parts.registration),
                    PollItem::from(&self.parts.monitor),
                    PollItem::from(&self.parts.wake),
                ],
                timeout,
            )?;
            self.parts.wake.clear();
            self.on_crash();
            self.on_signals();
            self.on_pings()?;
            self.on_connection_events()?;
            self.on_requests()?;
            self.on_late_answers()?;
            self.on_time(Instant::now());
        }
        Ok(())
    }

    fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let ready = self.parts.ready.is_waiting().then(|| now + ready::RETRY_INTERVAL);
        let silence = match &self.ending {
            None => self.parts.silence_max.map(|silence_max| self.last_ping + silence_max),
            Some(ending) => ending.interrupt_at.or(ending.exit_at),
        };
        let delivery = self.delivery.map(|(at, _)| at);
        let output = self.parts.iopub.flush_due(now);
        let launcher = self.parts.launcher.map(|_| now + LAUNCHER_INTERVAL);
        [ready, silence, delivery, output, launcher].into_iter().flatten().min()
    }

    fn on_time(&mut self, now: Instant) {
        self.parts.ready.attempt(now, &mut self.parts.control);
        if let Some((at, signal)) = self.delivery
            && now >= at
        {
            self.delivery = None;
            if signal == libc::SIGKILL && !self.is_unregistered {
                // Nothing can be said afterwards, and a controller that does not watch connections would take this
                // engine for alive until its heart is missed.
                self.is_unregistered = true;
                self.unregister();
                self.delivery = Some((now + UNREGISTRATION_DELAY, signal));
            } else {
                signals::deliver(signal);
            }
        }
        if let Some(silence_max) = self.parts.silence_max
            && self.ending.is_none()
            && now >= self.last_ping + silence_max
        {
            tracing::error!(
                silent_seconds = silence_max.as_secs_f64(),
                "the controller is lost, the engine ends; give --controller-timeout to wait longer"
            );
            self.end(Ending::ControllerLost, Duration::ZERO, super::EXIT_CONTROLLER_LOST);
        }
        if let Some(launcher) = self.parts.launcher
            && std::os::unix::process::parent_id() != launcher
        {
            tracing::error!(launcher, "the launcher of this rank is gone, the engine ends");
            self.parts.launcher = None;
            self.end(Ending::LauncherLost, Duration::ZERO, super::EXIT_LAUNCHER_LOST);
        }
        self.on_ending_time(now);
    }

    fn on_ending_time(&mut self, now: Instant) {
        let Some(ending) = &mut self.ending else { return };
        if ending.interrupt_at.is_some_and(|at| now >= at) {
            ending.interrupt_at = None;
            if self.parts.shared.interrupt.raise() {
                tracing::warn!("the running task is interrupted because the engine ends");
            }
        }
        if ending.exit_at.is_some_and(|at| now >= at) {
            exit_now("the running task does not end", ending.exit_code);
        }
    }

    /// Ends the engine after the running task, which has `patience` until it is interrupted.
    fn end(&mut self, why: Ending, patience: Duration, exit_code: u8) {
        let interrupt_at = Instant::now() + patience;
        let earlier = self.ending.and_then(|ending| ending.interrupt_at);
        self.ending = Some(EndingSchedule {
            interrupt_at: Some(earlier.map_or(interrupt_at, |earlier| earlier.min(interrupt_at))),
            exit_at: Some(interrupt_at + INTERRUPT_PATIENCE),
            exit_code,
        });
        self.parts.shared.order(Order::End(why));
    }

    /// Says why this process is about to end: its main thread waits for that in a handler of signals.
    fn on_crash(&mut self) {
        let Some(Crash { reason }) = Crash::pending() else { return };
        tracing::error!("the engine ends: {reason}");
        self.parts.shared.interrupt.explain(reason);
        self.is_unregistered = true;
        self.unregister();
        std::thread::sleep(UNREGISTRATION_DELAY);
        Crash::told();
    }

    fn on_signals(&mut self) {
        let received = self.parts.signals.take();
        if received.interrupted && self.parts.shared.activity().running.is_none() {
            tracing::info!("interrupt ignored: nothing runs; SIGTERM ends the engine");
        }
        if received.terminated {
            if self.ending.is_some_and(|ending| ending.exit_code == super::EXIT_TERMINATED) {
                exit_now("second SIGTERM", super::EXIT_TERMINATED);
            }
            let reason = crate::job::why_terminated(|name| std::env::var(name).ok(), SystemTime::now());
            tracing::info!(%reason, "ending because of SIGTERM");
            self.parts.shared.interrupt.explain(reason);
            self.end(Ending::Terminated, Duration::ZERO, super::EXIT_TERMINATED);
        }
    }

    fn on_pings(&mut self) -> Result<(), TransportError> {
        while let Some(received) = self.parts.heart.ping.receive()? {
            let Received::Message(ping) = received else { continue };
            self.last_ping = Instant::now();
            if self.parts.heart.pong.send(&ping.parts)? != Sent::Done {
                tracing::debug!("heartbeat not echoed: the controller does not read");
            }
        }
        Ok(())
    }

    fn on_connection_events(&mut self) -> Result<(), TransportError> {
        while let Some(event) = self.parts.monitor.next_event()? {
            match event {
                MonitorEvent::Disconnected { endpoint, .. } if self.connected => {
                    self.connected = false;
                    let waits = self.parts.silence_max.map(|silence_max| silence_max.as_secs_f64());
                    tracing::warn!(%endpoint, waits_seconds = waits, "connection to the controller lost");
                }
                MonitorEvent::HandshakeSucceeded { endpoint } if !self.connected => {
                    self.connected = true;
                    tracing::info!(%endpoint, "connection to the controller is back");
                }
                MonitorEvent::HandshakeFailed { endpoint, reason, .. } => {
                    tracing::warn!(%endpoint, ?reason, "connection to the controller refused");
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Registration is over: what still comes is of no use.
    fn on_late_answers(&mut self) -> Result<(), TransportError> {
        for _ in 0..BURST_MAX {
            if self.parts.registration.receive()?.is_none() {
                break;
            }
            tracing::debug!("late message on the registration channel dropped");
        }
        Ok(())
    }

    fn on_requests(&mut self) -> Result<(), TransportError> {
        for _ in 0..BURST_MAX {
            let Some(received) = self.parts.control.receive()? else { break };
            if let Some((routing, message)) = open(&mut self.parts.receiver, received, "control") {
                self.on_request(&routing, &message);
            }
        }
        Ok(())
    }

    fn on_request(&mut self, routing: &[Bytes], message: &Message) {
        tracing::debug!(request = %message.header.msg_id, msg_type = %message.header.msg_type, "control");
        // Stock engines are silent about signals, and status is asked for too often to be announced.
        let silent = matches!(message.header.msg_type.as_str(), SIGNAL_REQUEST | ENGINE_STATUS_REQUEST);
        if !silent {
            self.announce(message, ExecutionState::Busy);
        }
        let content = match message.header.msg_type.as_str() {
            ABORT_REQUEST => self.on_abort(message),
            CLEAR_REQUEST => self.on_clear(),
            SIGNAL_REQUEST => self.on_signal(message),
            INTERRUPT_REQUEST => Ok(self.on_interrupt()),
            SHUTDOWN_REQUEST => self.on_shutdown(message),
            ENGINE_STATUS_REQUEST => Ok(to_json(&self.status())),
            _ => queries::answer(message, &self.parts.shared.activity().remembered),
        };
        let content = content.unwrap_or_else(|error| to_json(&Failure::from(*error)));
        self.reply(routing, message, &content);
        if !silent {
            self.announce(message, ExecutionState::Idle);
        }
        if message.header.msg_type == SHUTDOWN_REQUEST && content["status"] == "ok" {
            self.parts.iopub.publish_aside(&message.wire.header, "shutdown", SHUTDOWN_REPLY, &content);
        }
    }

    fn on_abort(&mut self, message: &Message) -> Result<Json, Box<ErrorContent>> {
        let AbortRequest { msg_ids } = content(message)?;
        let order = if msg_ids.is_empty() {
            Order::AbortAll { session: message.header.session.clone(), sent: message.header.date }
        } else {
            Order::AbortNamed(msg_ids)
        };
        self.hand_over(order)
    }

    fn on_clear(&mut self) -> Result<Json, Box<ErrorContent>> {
        self.hand_over(Order::Clear)
    }

    fn hand_over(&mut self, order: Order) -> Result<Json, Box<ErrorContent>> {
        if self.parts.shared.order(order) {
            return Ok(to_json(&StatusContent::OK));
        }
        let text = "too many control requests wait for the running task; interrupt it, or try again later";
        Err(ErrorContent::new(ename::RUNTIME_ERROR, text).into())
    }

    fn on_signal(&mut self, message: &Message) -> Result<Json, Box<ErrorContent>> {
        let SignalRequest { sig } = content(message)?;
        match signals::meaning(&sig)? {
            Meaning::Nothing => Ok(to_json(&StatusContent::OK)),
            Meaning::Interrupt => Ok(self.on_interrupt()),
            Meaning::Deliver(number) => {
                self.delivery = Some((Instant::now() + SIGNAL_DELAY, number));
                Ok(to_json(&StatusContent::OK))
            }
        }
    }

    fn on_interrupt(&mut self) -> Json {
        let hit = self.parts.shared.interrupt.raise();
        tracing::debug!(hit, "interrupt");
        to_json(&StatusContent::OK)
    }

    fn on_shutdown(&mut self, message: &Message) -> Result<Json, Box<ErrorContent>> {
        let Shutdown { restart, .. } = content(message)?;
        tracing::info!("ending because a client or the hub asked for it");
        self.end(Ending::Requested, SHUTDOWN_PATIENCE, super::EXIT_STUCK);
        Ok(to_json(&Shutdown { status: Some(Status::Ok), restart }))
    }

    fn status(&self) -> EngineStatus {
        let activity = self.parts.shared.activity().clone();
        let waiting = self.parts.shared.wait_status.get();
        let mut refused = activity.refused;
        for (reason, count) in self.parts.receiver.refused() {
            *refused.entry(reason).or_default() += count;
        }
        let waiting_seconds = waiting.as_ref().map_or(0.0, |waiting| {
            let now_us = u64::try_from(now().micros()).unwrap_or(0);
            now_us.saturating_sub(waiting.since_us) as f64 / 1e6
        });
        EngineStatus {
            status: Some(Status::Ok),
            engine: self.parts.description.clone(),
            busy: activity.running.is_some(),
            running_seconds: activity
                .running
                .as_ref()
                .map_or(0.0, |(_, since)| since.elapsed().as_secs_f64()),
            running: activity.running.map(|(id, _)| id),
            collectives: waiting
                .as_ref()
                .map_or(activity.collectives, |waiting| waiting.round.max(activity.collectives)),
            waiting_in: waiting.map(|waiting| waiting.operation.name().to_owned()),
            waiting_seconds,
            memory_bytes: resident_bytes(),
            requests: activity.requests,
            refused: refused
                .into_iter()
                .filter(|(_, count)| *count > 0)
                .map(|(reason, count)| (reason.to_owned(), count))
                .collect(),
        }
    }

    fn announce(&self, message: &Message, state: ExecutionState) {
        let content = StatusUpdate { execution_state: state };
        self.parts.iopub.publish_aside(&message.wire.header, "status", STATUS, &content);
    }

    fn reply(&mut self, routing: &[Bytes], request: &Message, content: &Json) {
        let metadata = ControlMetadata { engine: self.parts.name.uuid.clone() };
        let msg_type = reply_type(&request.header.msg_type);
        let parent = &request.wire.header;
        let reply = self.parts.session.reply(now(), &msg_type, parent, &metadata, content, vec![]);
        match self.parts.control.send(&reply.to_parts(routing)) {
            Ok(Sent::Done) => {}
            outcome => tracing::warn!(?outcome, request = %request.header.msg_id, "control reply lost"),
        }
    }

    fn unregister(&mut self) {
        let reason = self.parts.shared.interrupt.reason().map(str::to_owned);
        let content = UnregistrationRequest { id: Some(self.parts.name.id), reason };
        let request = self.parts.session.message(now(), UNREGISTRATION_REQUEST, &Empty {}, &content, vec![]);
        match self.parts.registration.send(&request.to_parts(&[])) {
            Ok(Sent::Done) => tracing::debug!("unregistered"),
            outcome => tracing::debug!(?outcome, "not unregistered"),
        }
    }
}

/// What is left of the control thread when the engine has left its cluster: it sees to it that the process ends
/// while the main thread waits for its world.
struct Watch {
    shared: Arc<Shared>,
    wake: WakeReceiver,
    signals: Signals,
    ending: Option<EndingSchedule>,
}

impl Watch {
    /// Waits until the main thread is done with MPI. A single engine that was shut down may wait there for its
    /// world for as long as the others live; one that was terminated, or lost its controller, must not keep
    /// the allocation.
    fn run(self) {
        let limited = self.ending.filter(|ending| ending.exit_code != super::EXIT_STUCK);
        let until = limited.map(|ending| (Instant::now() + INTERRUPT_PATIENCE, ending.exit_code));
        while !self.shared.is_gone() {
            let timeout = until.map(|(until, _)| until.saturating_duration_since(Instant::now()));
            if let Err(error) = poll(&mut [PollItem::from(&self.wake)], timeout) {
                tracing::error!(%error, "end not watched");
                return;
            }
            self.wake.clear();
            if self.shared.is_gone() {
                return;
            }
            if self.signals.take().terminated {
                exit_now("SIGTERM while the engine ends", super::EXIT_TERMINATED);
            }
            if let Some((until, exit_code)) = until
                && Instant::now() >= until
            {
                exit_now("the other ranks do not end", exit_code);
            }
        }
    }
}

/// An engine whose control thread panicked answers nothing and cannot be ended by anybody: it must not stay.
struct EndOnPanic;

impl Drop for EndOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            exit_now("the control thread panicked", super::EXIT_STUCK);
        }
    }
}

/// Ends the process without MPI's consent: the launcher ends what is left of the world.
fn exit_now(why: &str, code: u8) -> ! {
    tracing::error!(why, code, "the process ends at once");
    // SAFETY: _exit(2) ends the process without running anything of ours.
    unsafe { libc::_exit(i32::from(code)) }
}

fn content<T: serde::de::DeserializeOwned>(message: &Message) -> Result<T, Box<ErrorContent>> {
    message.content().map_err(|error| ErrorContent::new(ename::VALUE_ERROR, error.to_string()).into())
}

fn to_json(content: &impl serde::Serialize) -> Json {
    serde_json::to_value(content).expect("our message types are maps with text keys")
}

fn now() -> Date {
    Date::from_system_time(SystemTime::now())
}

/// Resident memory of this process, as Linux tells it; 0 elsewhere.
fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    // SAFETY: sysconf(3) takes a number and has no side effects.
    let page_bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    pages * u64::try_from(page_bytes).unwrap_or(0)
}
