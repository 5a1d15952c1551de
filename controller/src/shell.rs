//! The loop around the machine: the only place that blocks, and the only clock.

pub mod channels;
mod decode;
mod hearts;
mod outbox;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use transport::TransportError;
use transport::wake::WakeReceiver;

use crate::machine::{Controller, Effect, Event, Settings};
use channels::Channels;

/// Runs until the machine says so or `stop` is set and the receiver woken.
pub fn run(
    mut channels: Channels,
    settings: Settings,
    stop: &Arc<AtomicBool>,
    wake: &WakeReceiver,
) -> Result<(), TransportError> {
    let mut controller = Controller::new(Instant::now(), settings);
    let mut events: Vec<Event> = vec![];
    let mut effects: Vec<Effect> = vec![];
    loop {
        let before = Instant::now();
        let wait = controller.next_deadline().map(|(at, _)| at.saturating_duration_since(before));
        let ready = channels.wait(wait, wake)?;
        if ready.woken {
            wake.clear();
        }
        if stop.load(Ordering::Acquire) {
            tracing::info!("stopped by a signal");
            return channels.close();
        }
        channels.receive(&ready, &mut events)?;
        let now = Instant::now();
        if controller.next_deadline().is_some_and(|(at, _)| at <= now) {
            events.push(Event::Deadline);
        }
        for event in events.drain(..) {
            controller.handle(now, event, &mut effects);
            for effect in effects.drain(..) {
                if channels.perform(effect)? {
                    return channels.close();
                }
            }
        }
    }
}
