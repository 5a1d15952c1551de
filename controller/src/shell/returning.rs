//! Replies to clients that asked an earlier life of this controller.
//!
//! A stock client's sockets have no names: each of its connections gets a number from our ROUTER, and after a restart
//! another one, which says nothing about who it is until the client speaks. A client that only waits for its results
//! never does. But the numbers are given in sequence, so all connections can be found: a reply to a session that has
//! not spoken yet is sent to every connection that may be its, once, and to those that come within [`HOLD_TIME`]. The
//! others drop it, as a reply to nothing they asked.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use protocol::id::SessionId;
use transport::{Context, Received, Sent, Socket, SocketOptions, TransportError};

/// How long a connection that may be a reply's is waited for.
const HOLD_TIME: Duration = Duration::from_secs(30);

/// How often connections are looked for while a reply is held.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Numbers beyond the last known one that are tried: so many connections may come between two looks.
const LOOK_AHEAD: u32 = 64;

/// Replies held; more push out the oldest.
const HELD_MAX: usize = 65_536;

/// Bytes of held replies.
const HELD_BYTES_MAX: usize = 256 * 1024 * 1024;

/// The connections of one channel's client side, as far as they matter to sessions that return.
pub(super) struct Returning {
    /// The number before the first connection's; none if this ROUTER numbers in a way that we do not know.
    base: Option<u32>,
    /// The largest number that is known to have been given, counted from the base.
    last: u32,
    sessions: BTreeMap<SessionId, Bytes>,
    owners: BTreeMap<u32, SessionId>,
    held: VecDeque<Held>,
    held_bytes: usize,
}

struct Held {
    session: SessionId,
    parts: Vec<Bytes>,
    bytes: usize,
    sent_to: BTreeSet<u32>,
    until: Instant,
}

impl Returning {
    /// Learns how a ROUTER numbers its connections. It must have none yet.
    pub(super) fn learn(context: &Context, router: &Socket) -> Result<Returning, TransportError> {
        let endpoint = format!("inproc://numbers-{}", transport::random::id());
        router.bind(&endpoint)?;
        let dealer = Socket::dealer(context, &SocketOptions::default())?;
        dealer.connect(&endpoint)?;
        let _ = dealer.send([&Bytes::from_static(b"?")])?;
        let identity = match router.receive()? {
            Some(Received::Message(message)) => message.parts.into_iter().next(),
            _ => None,
        };
        let base = identity.and_then(|identity| number_of(&identity));
        if base.is_none() {
            tracing::warn!(
                "connections are numbered in an unknown way: stock clients that only wait are not found"
            );
        }
        Ok(Returning {
            base,
            last: 0,
            sessions: BTreeMap::new(),
            owners: BTreeMap::new(),
            held: VecDeque::new(),
            held_bytes: 0,
        })
    }

    /// A session has spoken over a connection.
    pub(super) fn hear(&mut self, session: &SessionId, identity: &[u8]) {
        if self.sessions.get(session).is_some_and(|known| known == identity) {
            return;
        }
        if self.sessions.len() >= protocol::limits::SESSIONS_REMEMBERED {
            self.sessions.clear();
            self.owners.clear();
        }
        self.sessions.insert(session.clone(), Bytes::copy_from_slice(identity));
        if let Some(place) = self.place_of(identity) {
            self.last = self.last.max(place);
            self.owners.insert(place, session.clone());
        }
    }

    /// Sends a reply to a session, or holds it until its connection is found.
    pub(super) fn send(
        &mut self,
        router: &Socket,
        session: &SessionId,
        parts: Vec<Bytes>,
    ) -> Result<(), TransportError> {
        let bytes = parts.iter().map(Bytes::len).sum();
        let until = Instant::now() + HOLD_TIME;
        let mut held = Held { session: session.clone(), parts, bytes, sent_to: BTreeSet::new(), until };
        if !self.deliver(router, &mut held)? {
            self.held_bytes += bytes;
            self.held.push_back(held);
            while self.held.len() > HELD_MAX || self.held_bytes > HELD_BYTES_MAX {
                self.held_bytes -= self.held.pop_front().map_or(0, |oldest| oldest.bytes);
            }
        }
        Ok(())
    }

    /// Sends what a session may have got before, if it is there: not to one that comes later (see
    /// [`repeats`](crate::repeats)).
    pub(super) fn repeat(
        &mut self,
        router: &Socket,
        session: &SessionId,
        parts: Vec<Bytes>,
    ) -> Result<(), TransportError> {
        let (session, bytes, until) = (session.clone(), 0, Instant::now());
        let mut once = Held { session, parts, bytes, sent_to: BTreeSet::new(), until };
        self.deliver(router, &mut once).map(drop)
    }

    /// Whether a reply is held that nobody was given yet.
    pub(super) fn has_unsent(&self) -> bool {
        self.held.iter().any(|held| held.sent_to.is_empty())
    }

    pub(super) fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// Looks for connections that have come since.
    pub(super) fn look(&mut self, router: &Socket) -> Result<(), TransportError> {
        let now = Instant::now();
        for mut held in std::mem::take(&mut self.held) {
            if held.until <= now || self.deliver(router, &mut held)? {
                self.held_bytes -= held.bytes;
            } else {
                self.held.push_back(held);
            }
        }
        Ok(())
    }

    /// True if the session's own connection has it.
    fn deliver(&mut self, router: &Socket, held: &mut Held) -> Result<bool, TransportError> {
        if let Some(identity) = self.sessions.get(&held.session) {
            let has_it = self.place_of(identity).is_some_and(|place| held.sent_to.contains(&place));
            if has_it || send_to(router, identity.clone(), &held.parts)? == Sent::Done {
                return Ok(true);
            }
            return Ok(false); // It may come back over another connection.
        }
        let Some(base) = self.base else { return Ok(false) };
        let mut place = 1;
        while place <= self.last + LOOK_AHEAD {
            if !self.owners.contains_key(&place)
                && !held.sent_to.contains(&place)
                && send_to(router, identity_of(base.wrapping_add(place)), &held.parts)? == Sent::Done
            {
                held.sent_to.insert(place);
                self.last = self.last.max(place);
            }
            place += 1;
        }
        Ok(false)
    }

    /// The place of a connection in the sequence, from 1.
    fn place_of(&self, identity: &[u8]) -> Option<u32> {
        Some(number_of(identity)?.wrapping_sub(self.base?))
    }
}

fn send_to(router: &Socket, identity: Bytes, parts: &[Bytes]) -> Result<Sent, TransportError> {
    router.send(std::iter::once(&identity).chain(parts))
}

/// libzmq's own identities: a zero, then four bytes that count connections, big-endian.
fn number_of(identity: &[u8]) -> Option<u32> {
    let number = identity.strip_prefix(&[0])?;
    Some(u32::from_be_bytes(number.try_into().ok()?))
}

fn identity_of(number: u32) -> Bytes {
    let [a, b, c, d] = number.to_be_bytes();
    Bytes::copy_from_slice(&[0, a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    struct Sockets {
        context: Context,
        router: Socket,
        endpoint: String,
        returning: Returning,
    }

    impl Sockets {
        fn new() -> Sockets {
            let context = Context::new(1).expect("a context");
            let options = SocketOptions { mandatory: true, ..SocketOptions::default() };
            let router = Socket::router(&context, &options).expect("a socket");
            let returning = Returning::learn(&context, &router).expect("learnt");
            let endpoint = router.bind("tcp://127.0.0.1:*").expect("a port");
            Sockets { context, router, endpoint, returning }
        }

        fn client(&self) -> Socket {
            let dealer = Socket::dealer(&self.context, &SocketOptions::default()).expect("a socket");
            dealer.connect(&self.endpoint).expect("connecting");
            dealer
        }

        /// Looks until every client has what it should, or the time is over.
        fn look_until(&mut self, mut done: impl FnMut() -> bool) {
            let end = Instant::now() + Duration::from_secs(10);
            while !done() {
                assert!(Instant::now() < end, "no reply came");
                self.returning.look(&self.router).expect("looked");
                std::thread::yield_now();
            }
        }
    }

    fn received(dealer: &Socket) -> Vec<Bytes> {
        match dealer.receive().expect("receiving") {
            Some(Received::Message(message)) => message.parts,
            _ => vec![],
        }
    }

    #[test]
    fn a_client_that_only_waits_gets_its_reply_once() {
        let mut sockets = Sockets::new();
        let (router, session) = (&sockets.router, SessionId::from("s"));
        sockets.returning.send(router, &session, vec![part("reply")]).expect("sent or held");
        assert!(sockets.returning.is_holding() && sockets.returning.has_unsent());
        let clients = [sockets.client(), sockets.client()];
        let mut counts = [0, 0];
        sockets.look_until(|| {
            for (count, client) in counts.iter_mut().zip(&clients) {
                *count += received(client).len();
            }
            counts == [1, 1]
        });
        assert!(sockets.returning.is_holding() && !sockets.returning.has_unsent());
        for _ in 0..50 {
            sockets.returning.look(&sockets.router).expect("looked");
        }
        assert!(clients.iter().all(|client| received(client).is_empty()), "a second time");
    }

    #[test]
    fn a_client_that_has_spoken_gets_its_own_replies_and_no_others() {
        let mut sockets = Sockets::new();
        let (speaker, silent) = (sockets.client(), sockets.client());
        let _ = speaker.send([&part("hello")]).expect("sent");
        let end = Instant::now() + Duration::from_secs(10);
        let identity = loop {
            if let Some(Received::Message(message)) = sockets.router.receive().expect("receiving") {
                break message.parts[0].clone();
            }
            assert!(Instant::now() < end, "nothing came");
        };
        sockets.returning.hear(&"speaker".into(), &identity);
        let router = &sockets.router;
        sockets.returning.send(router, &"speaker".into(), vec![part("yours")]).expect("sent");
        assert!(!sockets.returning.is_holding());
        sockets.returning.send(router, &"other".into(), vec![part("another's")]).expect("held");
        let mut got = vec![];
        sockets.look_until(|| {
            got.extend(received(&silent));
            !got.is_empty()
        });
        assert_eq!(got, [part("another's")]);
        let mut heard = vec![];
        sockets.look_until(|| {
            heard.extend(received(&speaker));
            !heard.is_empty()
        });
        assert_eq!(heard, [part("yours")]);
    }
}
