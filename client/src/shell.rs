//! The background thread: owns the sockets and the [`ClientMachine`], and does what the machine says.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver as CommandReceiver, TryRecvError};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use protocol::id::SessionId;
use protocol::message::hub::CONNECTION_REQUEST;
use protocol::{Receiver, Session};
use tracing::{debug, trace, warn};
use transport::TransportError;
use transport::tunnel::Tunnel;
use transport::wake::WakeReceiver;

use crate::async_result::ResultCell;
use crate::connection::{Board, Command, date_now};
use crate::machine::{Channel, ClientMachine, Contact, Effect, Event, Outgoing, Ticket};
use crate::outcome::Output;

mod channels;
mod incoming;

pub(crate) use channels::Channels;
use channels::Source;

/// What was sent may take this long to leave when the client ends.
const LINGER: Duration = Duration::from_secs(2);

/// Everything that the background thread owns.
pub(crate) struct Shell {
    channels: Channels,
    machine: ClientMachine,
    /// For the client's own questions; requests of users are signed by their threads.
    session: Session,
    session_id: SessionId,
    receiver: Receiver,
    commands: CommandReceiver<Command>,
    wake: WakeReceiver,
    board: Arc<Board>,
    waiting: HashMap<Ticket, Waiting>,
    /// What the connections go through; it ends after them.
    _tunnel: Option<Arc<Tunnel>>,
}

/// Who waits for a submission, and how many of its parts have not ended.
struct Waiting {
    cell: Weak<ResultCell>,
    parts_left: usize,
}

impl Shell {
    /// `session` is the client's own half of the session of that name; see [`Session::new`].
    pub(crate) fn new(
        channels: Channels,
        session: Session,
        commands: CommandReceiver<Command>,
        wake: WakeReceiver,
        board: Arc<Board>,
        tunnel: Option<Arc<Tunnel>>,
    ) -> Shell {
        let receiver = session.receiver();
        let machine = ClientMachine::new(Instant::now());
        Shell {
            channels,
            machine,
            session_id: session.id().clone(),
            session,
            receiver,
            commands,
            wake,
            board,
            waiting: HashMap::new(),
            _tunnel: tunnel,
        }
    }

    /// Runs until the last handle is dropped.
    pub(crate) fn run(mut self) {
        let cause = match self.serve() {
            Ok(()) => "the client was closed".to_owned(),
            Err(error) => {
                warn!(%error, "client stopped");
                error.to_string()
            }
        };
        for waiting in self.waiting.values() {
            if let Some(cell) = waiting.cell.upgrade() {
                cell.abandon(&cause);
            }
        }
        // Requests that were queued after the last look end as well.
        while let Ok(Command::Submit(_, cell)) = self.commands.try_recv() {
            if let Some(cell) = cell.upgrade() {
                cell.abandon(&cause);
            }
        }
        let mut news = self.board.lock();
        news.contact = Contact::Lost { cause: cause.into() };
        self.board.changed.notify_all();
        drop(news);
        self.channels.close(LINGER);
    }

    fn serve(&mut self) -> Result<(), TransportError> {
        let mut effects = Vec::new();
        loop {
            let timeout = self
                .machine
                .next_deadline()
                .map(|deadline| deadline.saturating_duration_since(Instant::now()));
            self.channels.wait(&self.wake, timeout)?;
            let now = Instant::now();
            if self.wake.clear() && !self.take_commands(now, &mut effects)? {
                return Ok(());
            }
            self.take_connection_events(now, &mut effects)?;
            self.take_messages(now, &mut effects)?;
            if self.machine.next_deadline().is_some_and(|deadline| deadline <= now) {
                self.machine.handle(now, Event::Deadline, &mut effects);
            }
            self.perform(now, &mut effects)?;
        }
    }

    /// Returns whether to go on.
    fn take_commands(&mut self, now: Instant, effects: &mut Vec<Effect>) -> Result<bool, TransportError> {
        loop {
            match self.commands.try_recv() {
                Ok(Command::Submit(submission, cell)) => {
                    if !submission.parts.is_empty() {
                        let waiting = Waiting { cell, parts_left: submission.parts.len() };
                        self.waiting.insert(submission.ticket, waiting);
                    }
                    self.machine.handle(now, Event::Submitted(submission), effects);
                    self.perform(now, effects)?;
                }
                Ok(Command::Stop) | Err(TryRecvError::Disconnected) => return Ok(false),
                Err(TryRecvError::Empty) => return Ok(true),
            }
        }
    }

    fn take_connection_events(
        &mut self,
        now: Instant,
        effects: &mut Vec<Effect>,
    ) -> Result<(), TransportError> {
        let before = self.channels.all_connected();
        for channel in self.channels.take_events()? {
            debug!(channel, "connection lost");
            self.machine.handle(now, Event::Disconnected { channel }, effects);
        }
        let connected = self.channels.all_connected();
        if connected != before || self.channels.obstacle().is_some() {
            let mut news = self.board.lock();
            news.connected = connected;
            news.obstacle = self.channels.obstacle().map(str::to_owned);
            self.board.changed.notify_all();
        }
        if connected && !before {
            self.machine.handle(now, Event::Connected, effects);
        }
        Ok(())
    }

    fn take_messages(&mut self, now: Instant, effects: &mut Vec<Effect>) -> Result<(), TransportError> {
        /// Messages taken from one socket before the others get their turn.
        const BURST_MAX: usize = 256;
        for source in Source::ALL {
            for _ in 0..BURST_MAX {
                let Some(parts) = self.channels.receive(source)? else { break };
                if source == Source::Output && !incoming::mentions(&parts, &self.session_id) {
                    continue; // Another client's output.
                }
                let message = match self.receiver.open(parts) {
                    Ok((_, message)) => message,
                    Err(refusal) => {
                        warn!(channel = source.name(), reason = refusal.reason(), %refusal, "message refused");
                        continue;
                    }
                };
                trace!(channel = source.name(), msg_type = %message.header.msg_type, "received");
                match incoming::event(source, &message) {
                    Ok(Some(event)) => self.machine.handle(now, event, effects),
                    Ok(None) => {}
                    Err(error) => warn!(channel = source.name(), %error, "message not understood"),
                }
                self.perform(now, effects)?;
            }
        }
        Ok(())
    }

    fn perform(&mut self, now: Instant, effects: &mut Vec<Effect>) -> Result<(), TransportError> {
        let mut unsent = None;
        for effect in effects.drain(..) {
            match effect {
                Effect::Send(outgoing) => {
                    if !self.channels.send(&outgoing)? {
                        unsent.get_or_insert(outgoing.channel.name());
                    }
                }
                Effect::AskWhoIsHere => {
                    let empty = protocol::message::Empty {};
                    let wire = self.session.message(date_now(), CONNECTION_REQUEST, &empty, &empty, vec![]);
                    // A question that cannot be sent is one that is not answered: the machine notices.
                    self.channels.send(&Outgoing { channel: Channel::Query, route: None, wire })?;
                }
                Effect::Answer { ticket, part, outcome } => {
                    if let Some(cell) = self.waiting.get(&ticket).and_then(|waiting| waiting.cell.upgrade()) {
                        cell.answer(part, outcome);
                    }
                }
                Effect::Output { ticket, part, engine, item } => {
                    if let Some(cell) = self.waiting.get(&ticket).and_then(|waiting| waiting.cell.upgrade()) {
                        cell.output(Output { engine, part, item });
                    }
                }
                Effect::OutputEnded { ticket, part } => {
                    let Some(waiting) = self.waiting.get_mut(&ticket) else { continue };
                    if let Some(cell) = waiting.cell.upgrade() {
                        cell.output_ended(part);
                    }
                    waiting.parts_left -= 1;
                    if waiting.parts_left == 0 {
                        self.waiting.remove(&ticket);
                    }
                }
                Effect::Changed => {
                    let mut news = self.board.lock();
                    news.engines = Arc::new(self.machine.engines().clone());
                    news.contact = self.machine.contact().clone();
                    self.board.changed.notify_all();
                }
            }
        }
        // There was no connection to send over: what was asked cannot be answered.
        if let Some(channel) = unsent {
            self.machine.handle(now, Event::Disconnected { channel }, effects);
            self.perform(now, effects)?;
        }
        Ok(())
    }
}

impl Channel {
    /// Its name in logs.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Channel::Query => "query",
            Channel::Mux => "mux",
            Channel::Task => "task",
            Channel::Broadcast => "broadcast",
            Channel::Control => "control",
        }
    }
}
