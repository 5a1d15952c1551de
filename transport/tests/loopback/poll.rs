//! Waiting: for messages, for wake-ups, for time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use transport::SocketKind;
use transport::poll::{PollItem, poll};
use transport::wake::waker;

use crate::support::*;

#[test]
fn poll_tells_which_socket_has_a_message() {
    let context = context();
    let (first, endpoint) = bound(&context, SocketKind::Router, &defaults());
    let (second, _) = bound(&context, SocketKind::Router, &defaults());
    let dealer = connected(&context, SocketKind::Dealer, &defaults(), &endpoint);
    send(&dealer, &parts(&["x"]));

    let mut items = [PollItem::from(&first), PollItem::from(&second)];
    assert_eq!(poll(&mut items, Some(DEADLINE)).unwrap(), 1);

    assert_eq!(items.map(|item| item.is_readable()), [true, false]);
}

#[test]
fn poll_returns_nothing_after_the_timeout_and_not_before() {
    let context = context();
    let (socket, _) = bound(&context, SocketKind::Router, &defaults());
    let start = Instant::now();

    let mut items = [PollItem::from(&socket)];
    assert_eq!(poll(&mut items, Some(Duration::from_micros(10_500))).unwrap(), 0);

    assert!(start.elapsed() >= Duration::from_micros(10_500));
    assert!(!items[0].is_readable());
}

#[test]
fn a_message_that_was_left_is_found_again() {
    let context = context();
    let (router, endpoint) = bound(&context, SocketKind::Router, &defaults());
    let dealer = connected(&context, SocketKind::Dealer, &defaults(), &endpoint);
    send(&dealer, &parts(&["1"]));
    send(&dealer, &parts(&["2"]));
    receive(&router);

    // With an edge-triggered descriptor the second message would be slept on.
    assert_eq!(poll(&mut [PollItem::from(&router)], Some(DEADLINE)).unwrap(), 1);
    assert_eq!(receive(&router).parts[1], "2");
}

#[test]
fn a_socket_without_a_peer_is_not_writable() {
    let context = context();
    let dealer = transport::Socket::dealer(&context, &defaults()).unwrap();
    let mut items = [PollItem::socket(&dealer).or_writable()];
    assert_eq!(poll(&mut items, Some(Duration::ZERO)).unwrap(), 0);

    let (_router, endpoint) = bound(&context, SocketKind::Router, &defaults());
    dealer.connect(&endpoint).unwrap();
    assert_eq!(poll(&mut items, Some(DEADLINE)).unwrap(), 1);
    assert!(items[0].is_writable() && !items[0].is_readable());
}

#[test]
fn a_waker_wakes_a_loop_that_waits_for_ever() {
    let context = context();
    let (socket, _) = bound(&context, SocketKind::Router, &defaults());
    let (waker, receiver) = waker().unwrap();
    let thread = thread::spawn(move || waker.wake());

    let mut items = [PollItem::from(&socket), PollItem::from(&receiver)];
    poll(&mut items, Some(DEADLINE)).unwrap();

    assert_eq!(items.map(|item| item.is_readable()), [false, true]);
    assert!(receiver.clear());
    assert!(!receiver.clear());
    assert_eq!(poll(&mut [PollItem::from(&receiver)], Some(Duration::ZERO)).unwrap(), 0);
    thread.join().unwrap();
}

#[test]
fn no_wake_up_is_lost_among_many_threads() {
    const THREADS: usize = 4;
    const ROUNDS: usize = 20_000;
    let (waker, receiver) = waker().unwrap();
    let done = Arc::new(AtomicUsize::new(0));
    for _ in 0..THREADS {
        let (waker, done) = (waker.clone(), Arc::clone(&done));
        thread::spawn(move || {
            for _ in 0..ROUNDS {
                done.fetch_add(1, Ordering::Relaxed);
                waker.wake();
            }
        });
    }

    // Looks at the count only after a wake-up: a lost one would leave it short for ever.
    until(
        "last wake-up",
        || vec![PollItem::from(&receiver)],
        || {
            let woken = receiver.clear();
            (woken && done.load(Ordering::Relaxed) == THREADS * ROUNDS).then_some(())
        },
    );
}

#[test]
fn a_byte_from_elsewhere_wakes_too() {
    use std::io::Write;
    use std::os::unix::net::UnixStream;
    let (waker, receiver) = waker().unwrap();
    let mut other = UnixStream::from(waker.fd().try_clone_to_owned().unwrap());

    other.write_all(b"X").unwrap();

    assert_eq!(poll(&mut [PollItem::from(&receiver)], Some(DEADLINE)).unwrap(), 1);
    assert!(receiver.clear());
    receiver.waker().wake();
    assert!(receiver.clear());
}
