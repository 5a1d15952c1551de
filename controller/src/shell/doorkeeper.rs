//! Who may connect where connections are encrypted and keys are required: ZeroMQ asks about every new peer (ZAP, RFC 27),
//! and a thread of its own answers, so that no handshake waits for the controller and the controller waits for none.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use transport::curve::PublicKey;
use transport::poll::{PollItem, poll};
use transport::wake::{WakeReceiver, Waker, waker};
use transport::{Context, Received, Socket, SocketOptions, TransportError};

/// Where ZeroMQ asks.
const ENDPOINT: &str = "inproc://zeromq.zap.01";
const VERSION: &[u8] = b"1.0";
/// At most one warning in this time; all refusals are counted.
const WARN_INTERVAL: Duration = Duration::from_secs(10);

/// The domain of sockets for clients, for engines, and for both.
pub(super) const CLIENTS: &str = "clients";
pub(super) const ENGINES: &str = "engines";
pub(super) const EVERYBODY: &str = "everybody";

/// The public keys that are let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Of clients.
    pub clients: PublicKey,
    /// Of engines.
    pub engines: PublicKey,
}

impl Known {
    fn admits(&self, domain: &[u8], key: &[u8]) -> bool {
        let is = |known: &PublicKey| known.bytes().is_ok_and(|bytes| bytes == key);
        match domain {
            domain if domain == CLIENTS.as_bytes() => is(&self.clients),
            domain if domain == ENGINES.as_bytes() => is(&self.engines),
            domain if domain == EVERYBODY.as_bytes() => is(&self.clients) || is(&self.engines),
            _ => false,
        }
    }
}

/// What is answered to a question, and whether that lets the peer in; `None`: it is no question.
fn answer(known: &Known, question: &[Bytes]) -> Option<(Vec<Bytes>, bool)> {
    let [asker, empty, version, request, domain, _address, _identity, mechanism, credentials @ ..] = question
    else {
        return None;
    };
    let is_let_in = version == VERSION
        && mechanism.as_ref() == b"CURVE"
        && matches!(credentials, [key] if known.admits(domain, key));
    let (code, why) = if is_let_in { ("200", "OK") } else { ("400", "this key is not known here") };
    let text = |text: &'static str| Bytes::from_static(text.as_bytes());
    let reply = vec![
        asker.clone(),
        empty.clone(),
        Bytes::from_static(VERSION),
        request.clone(),
        text(code),
        text(why),
        Bytes::new(),
        Bytes::new(),
    ];
    Some((reply, is_let_in))
}

/// The thread; it ends with this value.
pub(super) struct Doorkeeper {
    refused: Arc<AtomicU64>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
}

impl Doorkeeper {
    /// Begins to answer. To be called before any socket is bound that has a domain.
    pub(super) fn open(context: &Context, known: Known) -> Result<Doorkeeper, TransportError> {
        let (waker, wake) = waker()?;
        let (told, opened) = mpsc::channel();
        let refused = Arc::new(AtomicU64::new(0));
        let (context, count) = (context.clone(), Arc::clone(&refused));
        let thread = std::thread::Builder::new().name("doorkeeper".to_owned());
        let thread = thread.spawn(move || {
            let open = || {
                let socket = Socket::router(&context, &SocketOptions::default())?;
                socket.bind(ENDPOINT)?;
                Ok(socket)
            };
            match open() {
                Ok(socket) => {
                    let _ = told.send(Ok(())); // Whoever opened it waits.
                    keep(&socket, &wake, &known, &count);
                }
                Err(error) => {
                    let _ = told.send(Err(error));
                }
            }
        });
        let thread = thread.map_err(TransportError::Waker)?;
        match opened.recv() {
            Ok(Err(error)) => Err(error),
            Ok(Ok(())) | Err(_) => Ok(Doorkeeper { refused, waker, thread: Some(thread) }),
        }
    }

    /// How many connections were refused.
    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

impl Drop for Doorkeeper {
    fn drop(&mut self) {
        self.waker.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // A panic of it has been reported.
        }
    }
}

fn keep(socket: &Socket, wake: &WakeReceiver, known: &Known, refused: &AtomicU64) {
    let mut warned: Option<Instant> = None;
    loop {
        let mut items = [PollItem::from(socket), PollItem::from(wake)];
        if poll(&mut items, None).is_err() || wake.clear() {
            return;
        }
        while let Ok(Some(received)) = socket.receive() {
            let Received::Message(question) = received else { continue };
            let Some((reply, is_let_in)) = answer(known, &question.parts) else { continue };
            if !is_let_in {
                refused.fetch_add(1, Ordering::Relaxed);
                let address =
                    question.parts.get(5).map(|address| String::from_utf8_lossy(address).into_owned());
                if warned.is_none_or(|warned| warned.elapsed() >= WARN_INTERVAL) {
                    warned = Some(Instant::now());
                    tracing::warn!(?address, "a connection with a key that is not known here was refused");
                }
            }
            let _ = socket.send(&reply); // The peer is gone: nobody waits for it.
        }
    }
}

#[cfg(test)]
mod tests {
    use transport::curve::Keypair;

    use super::*;

    fn question(domain: &str, mechanism: &'static str, key: &[u8]) -> Vec<Bytes> {
        let texts = ["asker", "", "1.0", "7", domain, "10.0.0.1", "", mechanism];
        let mut question: Vec<Bytes> =
            texts.iter().map(|text| Bytes::copy_from_slice(text.as_bytes())).collect();
        question.push(Bytes::copy_from_slice(key));
        question
    }

    #[test]
    fn clients_and_engines_are_let_in_at_their_own_doors_and_both_at_the_hubs() {
        let [clients, engines, stranger] =
            std::array::from_fn(|_| Keypair::generate().expect("CURVE").public);
        let known = Known { clients: clients.clone(), engines: engines.clone() };
        let lets_in = |domain: &str, key: &PublicKey| {
            let key = key.bytes().expect("a key");
            let (reply, is_let_in) = answer(&known, &question(domain, "CURVE", &key)).expect("a question");
            assert_eq!(reply[4].as_ref(), if is_let_in { b"200" } else { b"400" });
            assert_eq!(reply[3].as_ref(), b"7");
            is_let_in
        };
        for (domain, expected) in
            [(CLIENTS, [true, false]), (ENGINES, [false, true]), (EVERYBODY, [true, true])]
        {
            assert_eq!([lets_in(domain, &clients), lets_in(domain, &engines)], expected, "{domain}");
            assert!(!lets_in(domain, &stranger), "{domain}");
        }
        assert!(!lets_in("elsewhere", &clients));
    }

    #[test]
    fn another_mechanism_or_no_key_is_refused_and_what_is_no_question_not_answered() {
        let keys = Keypair::generate().expect("CURVE").public;
        let known = Known { clients: keys.clone(), engines: keys.clone() };
        let key = keys.bytes().expect("a key");
        let is_let_in = |question: &[Bytes]| answer(&known, question).expect("a question").1;
        assert!(!is_let_in(&question(CLIENTS, "NULL", &key)));
        assert!(!is_let_in(&question(CLIENTS, "CURVE", &key)[..8]));
        assert!(!is_let_in(&question(CLIENTS, "CURVE", &key[..31])));
        assert!(answer(&known, &question(CLIENTS, "CURVE", &key)[..5]).is_none());
    }
}
