//! The loop around the machine: the only place that blocks, and the only clock.

mod awake;
pub mod channels;
mod decode;
mod departures;
pub mod doorkeeper;
mod hearts;
pub mod journal;
mod outbox;
mod returning;
pub mod store;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use transport::TransportError;
use transport::wake::WakeReceiver;

use crate::machine::{Controller, Effect, Event, Settings};
use crate::records::{Change, Queue};
use channels::Channels;
use journal::{Journal, Left};
use store::{Store, Ticket};

/// What a controller needs to run.
pub struct Shell {
    /// Its sockets.
    pub channels: Channels,
    /// What can be set.
    pub settings: Settings,
    /// Where the journal is, if one is kept, and what is in it.
    pub journal: Option<(PathBuf, Option<Left>)>,
    /// Where records of tasks are kept.
    pub store: Store,
}

/// Runs until the machine says so or `stop` is set and the receiver woken.
pub fn run(shell: Shell, stop: &Arc<AtomicBool>, wake: &WakeReceiver) -> Result<(), TransportError> {
    let Shell { mut channels, settings, journal, mut store } = shell;
    let mut events: Vec<Event> = vec![];
    let mut effects: Vec<Effect> = vec![];
    let (path, left) = journal.map_or((None, None), |(path, left)| (Some(path), left));
    let changes = left.map(|left| left.changes).unwrap_or_default();
    let mut controller = Controller::restore(Instant::now(), settings, changes, &mut effects);
    // A file knows the tasks of an earlier controller. Memory learns here of those that the journal has whole; of
    // direct requests it has not what they carry, and a record without it would run again as something else.
    if matches!(store, Store::Memory(_)) {
        let is_whole = |change: &Change| match change {
            Change::Submitted { queue, .. } => *queue == Queue::Task,
            Change::Gathering { .. } => false,
            _ => true,
        };
        let known = controller.snapshot().into_iter().filter(is_whole);
        known.for_each(|change| store.remember(channels::today(), change));
    }
    let mut journal = path.and_then(|path| {
        let created = Journal::create(&path, channels.epoch(), &controller, &effects);
        created.inspect_err(|error| tracing::error!(%error, "a restart will lose tasks")).ok()
    });
    loop {
        for effect in effects.drain(..) {
            if perform(&mut channels, &mut store, effect, &mut events)? {
                if let Some(journal) = journal {
                    journal.remove();
                }
                return channels.close();
            }
        }
        channels.mark_departures()?;
        let before = Instant::now();
        // What the store had at once for the machine is not kept waiting.
        let deadline =
            if events.is_empty() { controller.next_deadline().map(|(at, _)| at) } else { Some(before) };
        let wait = deadline.map(|at| at.saturating_duration_since(before));
        let ready = channels.wait(wait, wake)?;
        if ready.woken {
            wake.clear();
            for (ticket, answer) in store.answers() {
                channels.deliver(ticket, answer, &mut events)?;
            }
            for (ticket, written) in store.written() {
                channels.deliver_written(ticket, written)?;
            }
        }
        if stop.load(Ordering::Acquire) {
            tracing::info!("stopped by a signal");
            // With a journal, the next controller goes on.
            if journal.is_none() {
                controller.take_leave(Instant::now(), &mut effects);
                for effect in effects.drain(..) {
                    perform(&mut channels, &mut store, effect, &mut events)?;
                }
            }
            return channels.close();
        }
        channels.receive(&ready, &mut store, &mut events)?;
        let now = Instant::now();
        if controller.next_deadline().is_some_and(|(at, _)| at <= now) {
            events.push(Event::Deadline);
        }
        for event in events.drain(..) {
            controller.handle(now, event, &mut effects);
        }
        write_down(&mut journal, &controller, &effects);
    }
}

/// Does what the machine wants; true if that is to end.
fn perform(
    channels: &mut Channels,
    store: &mut Store,
    effect: Effect,
    events: &mut Vec<Event>,
) -> Result<bool, TransportError> {
    match effect {
        Effect::Remember(change) => {
            if matches!(change, Change::Said(_)) {
                channels.note_departure();
            }
            store.remember(channels::today(), change);
        }
        Effect::Consult { to, parent, question } => {
            if let Some((ticket, answer)) = store.ask(Ticket { to, parent }, question) {
                channels.deliver(ticket, answer, events)?;
            }
        }
        effect => return channels.perform(effect),
    }
    Ok(false)
}

/// What effects tell of is in the journal before any of them is performed.
fn write_down(journal: &mut Option<Journal>, controller: &Controller, effects: &[Effect]) {
    let Some(open) = journal else { return };
    let written = open.write(effects);
    let shortened = written.and_then(|()| journal.take().map(|open| open.shorten(controller)).transpose());
    match shortened {
        Ok(open) => *journal = open,
        Err(error) => {
            tracing::error!(%error, "no journal is kept from now on: a restart will lose tasks");
            *journal = None;
        }
    }
}
