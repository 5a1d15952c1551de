//! Telling the controller that a channel works: one message to each of its sockets, as soon as it is reachable.
//!
//! Both ends of the shell and control channels are ROUTERs, and a ROUTER can address a peer only once their
//! handshake is done. Stock hubs wait for a heartbeat instead; ours finishes a registration with these.

use std::time::{Duration, Instant};

use bytes::Bytes;
use protocol::extension::READY;
use protocol::message::Empty;
use protocol::{Date, Session};

use crate::output::Sink;
use transport::Sent;

/// How often it is tried.
pub const RETRY_INTERVAL: Duration = Duration::from_millis(2);

/// For how long it is tried: a controller whose sockets have other names still has heartbeats.
const PATIENCE: Duration = Duration::from_secs(30);

/// The messages that have not been sent.
#[derive(Debug)]
pub struct Ready {
    waiting: Vec<Vec<Bytes>>,
    until: Option<Instant>,
}

impl Ready {
    /// Nobody is to be told.
    pub fn nobody() -> Ready {
        Ready { waiting: vec![], until: None }
    }

    /// Each of these identities is to be told.
    pub fn tell(identities: &[&str], session: &mut Session, now: Date) -> Ready {
        let sealed = |identity: &&str| {
            let identity = Bytes::copy_from_slice(identity.as_bytes());
            session.message(now, READY, &Empty {}, &Empty {}, vec![]).to_parts(&[identity])
        };
        Ready { waiting: identities.iter().map(sealed).collect(), until: None }
    }

    /// Whether somebody is still to be told.
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Tells those who are reachable.
    pub fn attempt(&mut self, now: Instant, socket: &mut dyn Sink) {
        if self.waiting.is_empty() {
            return;
        }
        self.waiting.retain(|parts| !matches!(socket.offer(parts), Ok(Sent::Done)));
        let until = *self.until.get_or_insert(now + PATIENCE);
        if now >= until && !self.waiting.is_empty() {
            let names: Vec<_> = self.waiting.iter().map(|parts| String::from_utf8_lossy(&parts[0])).collect();
            tracing::warn!(?names, "the controller's sockets are not reachable under these names");
            self.waiting.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Captured, session};

    #[test]
    fn each_is_told_once_as_soon_as_it_is_reachable() {
        let mut captured = Captured::default();
        let mut ready = Ready::tell(&["mux_out", "task_out"], &mut session(1), Date::from_micros(0));
        captured.set_full(true);
        ready.attempt(Instant::now(), &mut captured);
        assert!(ready.is_waiting());

        captured.set_full(false);
        ready.attempt(Instant::now(), &mut captured);
        ready.attempt(Instant::now(), &mut captured);

        assert!(!ready.is_waiting());
        let routes: Vec<_> = captured.messages().into_iter().map(|(routing, _)| routing).collect();
        assert_eq!(routes, [["mux_out"], ["task_out"]]);
    }

    #[test]
    fn after_a_while_nobody_is_waited_for() {
        let mut captured = Captured::default();
        captured.set_full(true);
        let mut ready = Ready::tell(&["mux_out"], &mut session(1), Date::from_micros(0));
        let now = Instant::now();
        ready.attempt(now, &mut captured);
        ready.attempt(now + PATIENCE, &mut captured);
        assert!(!ready.is_waiting());
    }
}
