//! Messages for engines that cannot be reached at this moment: kept a little, in order, then given up.
//!
//! An engine's connections may need a moment longer than its registration, or be lost and made again.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use protocol::frames::WireMessage;
use protocol::id::EngineUuid;
use transport::{Sent, Socket, TransportError};

use crate::machine::{Channel, Event};
use crate::tasks::TaskId;

/// How long a message is tried. An engine that is gone is found by its heart's connection, at once; this is for one
/// whose connections are made anew, by a peer that may try again only every two seconds.
const TRY_TIME: Duration = Duration::from_secs(5);

/// How often.
pub(super) const TRY_INTERVAL: Duration = Duration::from_millis(5);

/// A message that could not be sent.
struct Waiting {
    until: Instant,
    task: TaskId,
    parts: Vec<Bytes>,
}

/// Unsent messages by channel and engine. Bounded by the requests that clients may have.
#[derive(Default)]
pub(super) struct Outbox {
    queues: BTreeMap<(Channel, EngineUuid), VecDeque<Waiting>>,
}

impl Outbox {
    pub(super) fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    /// Sends, or keeps the message behind those that wait already.
    pub(super) fn send(
        &mut self,
        socket: &Socket,
        channel: Channel,
        engine: EngineUuid,
        task: TaskId,
        route: &[u8],
        message: &WireMessage,
    ) -> Result<(), TransportError> {
        let identity = engine.as_str().as_bytes();
        let waits = !self.queues.is_empty() && self.queues.contains_key(&(channel, engine.clone()));
        if !waits && socket.send_routed(&[identity, route], message.frames())? == Sent::Done {
            return Ok(());
        }
        let parts = message.to_parts(&[identity, route].map(Bytes::copy_from_slice));
        let waiting = Waiting { until: Instant::now() + TRY_TIME, task, parts };
        self.queues.entry((channel, engine)).or_default().push_back(waiting);
        Ok(())
    }

    /// Tries again; says what is given up.
    pub(super) fn retry<'a>(
        &mut self,
        socket_of: impl Fn(Channel) -> &'a Socket,
        events: &mut Vec<Event>,
    ) -> Result<(), TransportError> {
        let now = Instant::now();
        let mut failure = None;
        self.queues.retain(|(channel, engine), queue| {
            while let Some(first) = queue.front() {
                match socket_of(*channel).send(&first.parts) {
                    Ok(Sent::Done) => {}
                    Ok(Sent::WouldBlock | Sent::Unreachable) if first.until > now => break,
                    Ok(Sent::WouldBlock | Sent::Unreachable) => {
                        events.push(Event::Undelivered { engine: engine.clone(), task: first.task });
                    }
                    Err(error) => {
                        failure = Some(error);
                        break;
                    }
                }
                queue.pop_front();
            }
            !queue.is_empty()
        });
        failure.map_or(Ok(()), Err)
    }
}
