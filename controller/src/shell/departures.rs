//! What has left this process: so much does not have to be said again if it is killed.
//!
//! ZeroMQ takes a message from us at once, and its thread writes it a moment later, in the order in which it was told
//! of connections that have something to write. A marker that goes through the same thread over a connection of our
//! own, and comes back, has therefore left behind what was said before it. Only a connection that takes no more at
//! that moment is behind.

use bytes::Bytes;
use transport::{Context, Received, Sent, Socket, SocketOptions, TransportError};

use crate::machine::Event;

/// A connection from us to us, and what has gone over it.
pub(super) struct Departures {
    out: Socket,
    pub(super) back: Socket,
    /// Replies given to sockets.
    said: u64,
    /// So many of them the last marker has behind it.
    marked: u64,
    is_under_way: bool,
}

impl Departures {
    /// `context` must have one thread, which all sockets share.
    pub(super) fn new(context: &Context) -> Result<Departures, TransportError> {
        let plain = SocketOptions::default();
        let back = Socket::dealer(context, &plain)?;
        // A name without a file. Whoever connects as well can keep markers from coming back; then time decides.
        let endpoint = back.bind(&format!("ipc://@commworld-{}", transport::random::id()))?;
        let out = Socket::dealer(context, &plain)?;
        out.connect(&endpoint)?;
        Ok(Departures { out, back, said: 0, marked: 0, is_under_way: false })
    }

    /// A reply was given to a socket.
    pub(super) fn note(&mut self) {
        self.said += 1;
    }

    /// Sends a marker, unless one is under way.
    pub(super) fn mark(&mut self) -> Result<(), TransportError> {
        if self.said > self.marked && !self.is_under_way {
            let marker = Bytes::copy_from_slice(&self.said.to_be_bytes());
            self.is_under_way = self.out.send([&marker])? == Sent::Done;
            self.marked = self.said;
        }
        Ok(())
    }

    pub(super) fn receive(&mut self, events: &mut Vec<Event>) -> Result<(), TransportError> {
        while let Some(received) = self.back.receive()? {
            self.is_under_way = false;
            if let Received::Message(message) = received
                && let [marker] = message.parts.as_slice()
                && let Ok(count) = marker.as_ref().try_into().map(u64::from_be_bytes)
            {
                // Nobody else can make more of it than there is.
                events.push(Event::Departed { count: count.min(self.marked) });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_marker_comes_back_with_what_was_said_before_it() {
        let context = Context::new(1).expect("a context");
        let mut departures = Departures::new(&context).expect("a connection to ourselves");
        let mut events = vec![];
        for said in [1, 3] {
            while departures.said < said {
                departures.note();
            }
            departures.mark().expect("sent");
            departures.note(); // After the marker.
            let end = Instant::now() + Duration::from_secs(10);
            events.clear();
            while events.is_empty() {
                assert!(Instant::now() < end, "no marker came back");
                departures.receive(&mut events).expect("received");
                std::thread::yield_now();
            }
            assert_eq!(events, [Event::Departed { count: said }]);
        }
    }
}
