//! Replies that may not have arrived: what was said in the last moment of a controller that was killed is said again.
//!
//! The wire has no acknowledgements. What a controller gave to its sockets in its last moment may have left, or may
//! be gone with it, and then a stock client waits for ever. So the journal keeps the replies that are
//! not known to have left, and those of the last [`ARRIVAL_TIME`]; and the next controller says them once more, as new messages of its own: the same bytes would
//! stop a stock client, which takes them for an attack and then reads nothing more from that channel.
//!
//! A stock client that has the reply already prints that it got a stale one, and goes on, unless it still waits for the
//! engine's `idle`: to end the same future twice stops its channel as well. An `idle` may have been lost with the same
//! controller. Therefore the `idle` of each such reply is published again first, several times, because nobody knows
//! when a client's subscription is back, and the reply follows [`REPEAT_DELAY`] after the restart.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use protocol::frames::WireMessage;
use protocol::id::{EngineUuid, SessionId};
use serde::Deserialize;
use serde_json::json;

use crate::machine::{Address, Channel, Client, Controller, Effect};
use crate::records::Change;

/// How long a reply that has left this process may be on its way: a connection that is cut may lose it.
const ARRIVAL_TIME: Duration = Duration::from_millis(25);

/// How long one that is not known to have left. The longer this is, the more stale results a stock client prints.
const DEPARTURE_TIME: Duration = Duration::from_secs(2);

/// How often it is noted which have arrived.
const SETTLING_INTERVAL: Duration = Duration::from_millis(10);

/// When a restarted controller says replies again. Stock clients connect again after 0.1 to 0.2 s.
pub(crate) const REPEAT_DELAY: Duration = Duration::from_secs(5);

/// When it says before that engines are idle.
const IDLE_DELAYS: [Duration; 3] =
    [Duration::from_millis(500), Duration::from_millis(1500), Duration::from_millis(3000)];

/// Replies kept: a second and more of the fastest scheduling that was measured. More push out the oldest.
const SAID_MAX: usize = 65_536;

/// Bytes of them.
const SAID_BYTES_MAX: usize = 256 * 1024 * 1024;

/// A longer reply is not kept: to write it down would keep everybody waiting.
const SAID_EACH_MAX: usize = 32 * 1024 * 1024;

/// A reply that was given to a client's connection.
#[derive(Clone, Debug, PartialEq)]
pub struct Said {
    /// The channel.
    pub channel: Channel,
    /// The engine that it names before the delimiter, if any.
    pub engine: Option<EngineUuid>,
    /// The reply. Only the type in its header matters.
    pub message: WireMessage,
}

impl Said {
    /// What an effect says to a client.
    fn of(effect: &Effect) -> Option<Said> {
        let (client, engine, message) = match effect {
            Effect::Relay { client, engine, message } => (client, Some(engine), message.clone()),
            Effect::Repeat { client, engine, message } => (client, engine.as_ref(), message.clone()),
            Effect::Reply { client, engine, parent, msg_type, metadata, content, buffers } => {
                let message = WireMessage {
                    signature: Bytes::new(),
                    header: Bytes::from(json!({ "msg_type": msg_type }).to_string()),
                    parent_header: parent.clone(),
                    metadata: Bytes::from(metadata.to_string()),
                    content: Bytes::from(content.to_string()),
                    buffers: buffers.clone(),
                };
                (client, engine.as_ref(), message)
            }
            _ => return None,
        };
        if client.address == Address::Nobody || message.byte_len() > SAID_EACH_MAX {
            return None;
        }
        Some(Said { channel: client.channel, engine: engine.cloned(), message })
    }

    /// Who is to get it: the session of the request, which the reply has as its parent.
    fn client(&self) -> Option<Client> {
        #[derive(Deserialize)]
        struct Parent {
            session: SessionId,
        }
        let Parent { session } = serde_json::from_slice(&self.message.parent_header).ok()?;
        Some(Client { channel: self.channel, address: Address::Session(session) })
    }
}

#[derive(Debug)]
struct Kept {
    at: Instant,
    /// Its number in this life.
    number: u64,
    said: Said,
}

impl Kept {
    /// Whether it has arrived `spare` ago, as far as anybody can know.
    fn has_arrived(&self, now: Instant, departed: u64, spare: Duration) -> bool {
        let time = if self.number <= departed { ARRIVAL_TIME } else { DEPARTURE_TIME };
        self.at + time + spare <= now
    }
}

/// The latest replies, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Repeats {
    said: VecDeque<Kept>,
    bytes: usize,
    /// How many replies of this life were kept, and how many of them have left.
    count: u64,
    departed: u64,
    /// What an earlier controller said, and is to be said again.
    owed: Vec<Said>,
    again_at: Option<Instant>,
    idle_at: VecDeque<Instant>,
    /// Said while the controller was restored: they follow those of the journal that it begins with.
    at_restore: Vec<Said>,
}

impl Repeats {
    fn push(&mut self, at: Instant, number: u64, said: Said) {
        self.bytes += said.message.byte_len();
        self.said.push_back(Kept { at, number, said });
    }

    /// The number of a reply that is said now.
    fn next_number(&mut self) -> u64 {
        self.count += 1;
        self.count
    }

    fn pop(&mut self) {
        if let Some(kept) = self.said.pop_front() {
            self.bytes -= kept.said.message.byte_len();
        }
    }

    pub(crate) fn on_departed(&mut self, count: u64) {
        self.departed = self.departed.max(count);
    }

    /// Forgets what has arrived as far as anybody can know, and what is too much. Returns how many.
    fn settle(&mut self, now: Instant) -> u64 {
        let mut count = 0;
        let departed = self.departed;
        // Several at a time: each time is an entry of the journal.
        let first = self.said.front();
        let is_due = first.is_some_and(|first| first.has_arrived(now, departed, SETTLING_INTERVAL));
        while let Some(first) = self.said.front()
            && ((is_due && first.has_arrived(now, departed, Duration::ZERO))
                || self.said.len() > SAID_MAX
                || self.bytes > SAID_BYTES_MAX)
        {
            self.pop();
            count += 1;
        }
        count
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.idle_at.front().copied().into_iter().chain(self.again_at).min()
    }

    /// What may not have arrived, for a later controller.
    pub(crate) fn snapshot(&self) -> impl Iterator<Item = Change> {
        let owed = self.owed.iter().cloned().map(Change::Said).chain([Change::Owed]);
        let said = self.said.iter().map(|kept| Change::Said(kept.said.clone()));
        owed.filter(|_| !self.owed.is_empty()).chain(said)
    }
}

impl Controller {
    /// Says again what is to be said again by now.
    pub(crate) fn repeat(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        while self.repeats.idle_at.front().is_some_and(|at| *at <= now) {
            self.repeats.idle_at.pop_front();
            let begun = self.repeats.owed.iter().filter(|said| said.channel.is_queued());
            effects.extend(begun.map(|Said { engine, message, .. }| Effect::Idle {
                parent: message.parent_header.clone(),
                engine: engine.clone(),
            }));
        }
        if self.repeats.again_at.is_some_and(|at| at <= now) {
            self.repeats.again_at = None;
            let owed = std::mem::take(&mut self.repeats.owed);
            tracing::info!(replies = owed.len(), "what the earlier controller said last is said again");
            effects.push(Effect::Remember(Change::Repeated));
            effects.extend(owed.into_iter().filter_map(|said| {
                let client = said.client()?;
                Some(Effect::Repeat { client, engine: said.engine, message: said.message })
            }));
        }
    }

    /// Notes which of these effects say something to a client, and forgets what was said long ago.
    pub(crate) fn note_said(&mut self, now: Instant, first: usize, effects: &mut Vec<Effect>) {
        if !self.settings.restorable {
            return;
        }
        for said in std::mem::take(&mut self.repeats.at_restore) {
            let number = self.repeats.next_number();
            self.repeats.push(now, number, said);
        }
        let said: Vec<Said> = effects[first..].iter().filter_map(Said::of).collect();
        for said in said {
            let number = self.repeats.next_number();
            self.repeats.push(now, number, said.clone());
            effects.push(Effect::Remember(Change::Said(said)));
        }
        let count = self.repeats.settle(now);
        if count > 0 {
            effects.push(Effect::Remember(Change::Arrived { count }));
        }
    }

    /// Goes on with what an earlier controller said in its last moment; and notes what is said while this one is
    /// restored.
    pub(crate) fn recall_said(&mut self, now: Instant, mut owed: Vec<Said>, effects: &mut Vec<Effect>) {
        if !self.settings.restorable {
            return;
        }
        let mut bytes = 0;
        // Controllers that were killed one soon after the other leave more and more.
        let is_kept = |said: &&Said| {
            bytes += said.message.byte_len();
            bytes <= SAID_BYTES_MAX
        };
        let count = owed.iter().rev().take(SAID_MAX).take_while(is_kept).count();
        let owed = owed.split_off(owed.len() - count);
        if !owed.is_empty() {
            self.repeats.again_at = Some(now + REPEAT_DELAY);
            self.repeats.idle_at = IDLE_DELAYS.into_iter().map(|delay| now + delay).collect();
            self.repeats.owed = owed;
            effects.push(Effect::Remember(Change::Owed));
        }
        let said: Vec<Said> = effects.iter().filter_map(Said::of).collect();
        effects.extend(said.iter().cloned().map(|said| Effect::Remember(Change::Said(said))));
        self.repeats.at_restore = said;
    }
}
