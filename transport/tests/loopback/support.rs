//! Waiting with a deadline, so that a failing test fails instead of hanging.

use std::time::{Duration, Instant};

use bytes::Bytes;
use transport::monitor::{Monitor, MonitorEvent};
use transport::poll::{PollItem, poll};
use transport::{Context, Multipart, Received, Sent, Socket, SocketKind, SocketOptions};

/// Far beyond what any of these tests needs, even on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) const TCP: &str = "tcp://127.0.0.1:0";

pub(crate) fn context() -> Context {
    Context::new(1).unwrap()
}

pub(crate) fn defaults() -> SocketOptions {
    SocketOptions::default()
}

pub(crate) fn open(context: &Context, kind: SocketKind, options: &SocketOptions) -> Socket {
    Socket::new(context, kind, options).unwrap()
}

/// A socket bound to a free port, and where.
pub(crate) fn bound(context: &Context, kind: SocketKind, options: &SocketOptions) -> (Socket, String) {
    let socket = open(context, kind, options);
    let endpoint = socket.bind(TCP).unwrap();
    (socket, endpoint)
}

pub(crate) fn connected(context: &Context, kind: SocketKind, options: &SocketOptions, to: &str) -> Socket {
    let socket = open(context, kind, options);
    socket.connect(to).unwrap();
    socket
}

pub(crate) fn parts(texts: &[&str]) -> Vec<Bytes> {
    texts.iter().map(|text| Bytes::copy_from_slice(text.as_bytes())).collect()
}

pub(crate) fn send(socket: &Socket, message: &[Bytes]) {
    assert_eq!(socket.send(message).unwrap(), Sent::Done);
}

/// What `try_it` gives as soon as it gives something; it is asked again whenever an item is ready.
pub(crate) fn until<'a, T>(
    what: &str,
    items: impl Fn() -> Vec<PollItem<'a>>,
    mut try_it: impl FnMut() -> Option<T>,
) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = try_it() {
            return found;
        }
        let left = end.saturating_duration_since(Instant::now());
        assert!(!left.is_zero(), "no {what} within {DEADLINE:?}");
        poll(&mut items(), Some(left)).unwrap();
    }
}

/// What `try_it` gives as soon as it gives something, for what libzmq has no event for: that an identity has
/// become known, or unknown.
pub(crate) fn retry<T>(what: &str, mut try_it: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = try_it() {
            return found;
        }
        assert!(Instant::now() < end, "no {what} within {DEADLINE:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub(crate) fn receive_any(socket: &Socket) -> Received {
    until("message", || vec![socket.into()], || socket.receive().unwrap())
}

pub(crate) fn receive(socket: &Socket) -> Multipart {
    match receive_any(socket) {
        Received::Message(message) => message,
        Received::Oversized(oversized) => panic!("unexpected {oversized:?}"),
    }
}

/// The first event that `select` accepts; earlier ones are dropped.
pub(crate) fn event<T>(monitor: &Monitor, mut select: impl FnMut(MonitorEvent) -> Option<T>) -> T {
    until(
        "event",
        || vec![monitor.into()],
        || {
            while let Some(event) = monitor.next_event().unwrap() {
                if let Some(found) = select(event) {
                    return Some(found);
                }
            }
            None
        },
    )
}

pub(crate) fn accepted(monitor: &Monitor) -> i32 {
    event(monitor, |event| match event {
        MonitorEvent::Accepted { fd, .. } => Some(fd),
        _ => None,
    })
}

pub(crate) fn disconnected(monitor: &Monitor) -> i32 {
    event(monitor, |event| match event {
        MonitorEvent::Disconnected { fd, .. } => Some(fd),
        _ => None,
    })
}
