//! Which connection a message came over, and that its end is told at once.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use transport::connections::Connections;
use transport::monitor::{Monitor, MonitorEvent};
use transport::{Context, Sent, Socket, SocketKind, SocketOptions};

use crate::support::*;

#[test]
fn a_message_and_the_events_of_its_connection_name_one_descriptor_over_tcp() {
    message_and_events_name_one_descriptor(TCP);
}

#[test]
fn a_message_and_the_events_of_its_connection_name_one_descriptor_over_ipc() {
    let directory = tempfile::tempdir().unwrap();
    message_and_events_name_one_descriptor(&format!("ipc://{}/socket", directory.path().display()));
}

fn message_and_events_name_one_descriptor(endpoint: &str) {
    let context = context();
    let (router, monitor, endpoint) = monitored(&context, endpoint);
    let first = connected(&context, SocketKind::Dealer, &SocketOptions::identified("first"), &endpoint);
    let first_fd = accepted(&monitor);
    let second = connected(&context, SocketKind::Dealer, &SocketOptions::identified("second"), &endpoint);
    let second_fd = accepted(&monitor);
    assert_ne!(first_fd, second_fd);

    send(&second, &parts(&["x"]));
    let message = receive(&router);
    assert_eq!((&message.parts[0][..], message.source_fd), (&b"second"[..], Some(second_fd)));
    send(&first, &parts(&["x"]));
    let message = receive(&router);
    assert_eq!((&message.parts[0][..], message.source_fd), (&b"first"[..], Some(first_fd)));

    drop(second);
    assert_eq!(disconnected(&monitor), second_fd);
    drop(first);
    assert_eq!(disconnected(&monitor), first_fd);
}

#[test]
fn a_peer_that_is_killed_is_reported_at_once() {
    let context = context();
    let (router, monitor, endpoint) = monitored(&context, TCP);
    let mut peer = Peer::start(&endpoint);
    let message = receive(&router);
    assert_eq!(message.parts, parts(&["peer", "here"]));

    let killed = Instant::now();
    peer.0.kill().unwrap();
    let fd = disconnected(&monitor);
    let noticed = killed.elapsed();

    assert_eq!(Some(fd), message.source_fd);
    // It takes a millisecond; the bound leaves room for a busy machine.
    assert!(noticed < Duration::from_millis(100), "{noticed:?}");
    let reply = parts(&["peer", "still there?"]);
    retry("loss", || (router.send(&reply).unwrap() == Sent::Unreachable).then_some(()));
}

#[test]
fn a_reconnecting_peer_takes_its_identity_over() {
    let context = context();
    let (router, monitor, endpoint) = monitored(&context, TCP);
    let mut connections = Connections::default();
    let options = SocketOptions::identified("engine");
    let old = connected(&context, SocketKind::Dealer, &options, &endpoint);
    send(&old, &parts(&["old"]));
    let old_fd = receive(&router).source_fd;
    drain(&monitor, &mut connections);
    let old_connection = connections.of(old_fd).expect("accepted before its message");

    let new = connected(&context, SocketKind::Dealer, &options, &endpoint);
    send(&new, &parts(&["new"]));
    let message = receive(&router);
    drain(&monitor, &mut connections);
    let new_connection = connections.of(message.source_fd).expect("accepted before its message");
    assert!(new_connection > old_connection);
    assert_eq!(message.parts, parts(&["engine", "new"]));

    send(&router, &parts(&["engine", "to whom?"]));
    assert_eq!(receive(&new).parts, parts(&["to whom?"]));
    assert!(old.receive().unwrap().is_none());

    // The end of the old connection is told as that and leaves the new one alone.
    drop(old);
    let ended = event(&monitor, |event| connections.on_event(&event));
    assert_eq!(ended, old_connection);
    send(&router, &parts(&["engine", "still you"]));
    assert_eq!(receive(&new).parts, parts(&["still you"]));
}

#[test]
fn descriptors_are_reused_and_told_apart() {
    let context = context();
    let (router, monitor, endpoint) = monitored(&context, TCP);
    let mut connections = Connections::default();
    let mut seen = Vec::new();
    for _ in 0..20 {
        let peer = connected(&context, SocketKind::Dealer, &SocketOptions::identified("engine"), &endpoint);
        send(&peer, &parts(&["x"]));
        let message = receive(&router);
        drain(&monitor, &mut connections);
        let connection = connections.of(message.source_fd).expect("accepted before its message");
        drop(peer);
        assert_eq!(event(&monitor, |event| connections.on_event(&event)), connection);
        seen.push((connection, message.source_fd));
    }

    assert!(seen.is_sorted_by_key(|(connection, _)| *connection));
    assert_eq!(connections.count(), 0);
    let mut descriptors: Vec<_> = seen.iter().map(|(_, fd)| *fd).collect();
    descriptors.sort_unstable();
    descriptors.dedup();
    assert!(descriptors.len() < seen.len(), "no descriptor was reused: {seen:?}");
}

#[test]
fn a_frame_beyond_the_bound_ends_its_connection_and_no_other() {
    let context = context();
    let options = SocketOptions { frame_bytes_max: 1 << 20, ..defaults() };
    let router = open(&context, SocketKind::Router, &options);
    let monitor = Monitor::attach(&context, &router).unwrap();
    let endpoint = router.bind(TCP).unwrap();
    let good = connected(&context, SocketKind::Dealer, &SocketOptions::identified("good"), &endpoint);
    send(&good, &parts(&["before"]));
    let good_fd = receive(&router).source_fd;
    let bad = connected(&context, SocketKind::Dealer, &SocketOptions::identified("bad"), &endpoint);
    send(&bad, &parts(&["before"]));
    let bad_fd = receive(&router).source_fd;

    send(&bad, &[vec![0; (1 << 20) + 1].into()]);

    assert_eq!(Some(disconnected(&monitor)), bad_fd);
    send(&good, &[vec![0; 1 << 20].into()]);
    let message = receive(&router);
    assert_eq!((&message.parts[0][..], message.source_fd), (&b"good"[..], good_fd));
}

#[test]
fn bytes_that_are_no_protocol_end_their_connection_only() {
    use std::io::Write;
    let context = context();
    let (router, monitor, endpoint) = monitored(&context, TCP);
    let mut stranger = std::net::TcpStream::connect(endpoint.trim_start_matches("tcp://")).unwrap();
    let fd = accepted(&monitor);

    stranger.write_all(&[0; 256]).unwrap();
    drop(stranger);

    assert_eq!(disconnected_or_failed(&monitor), fd);
    let peer = connected(&context, SocketKind::Dealer, &SocketOptions::identified("peer"), &endpoint);
    send(&peer, &parts(&["x"]));
    assert_eq!(receive(&router).parts, parts(&["peer", "x"]));
}

#[test]
fn a_monitor_that_nobody_reads_stalls_nobody() {
    let context = context();
    let (router, monitor, endpoint) = monitored(&context, TCP);
    // Each stranger makes at least three events; libzmq's default bound is a thousand.
    for _ in 0..700 {
        drop(std::net::TcpStream::connect(endpoint.trim_start_matches("tcp://")).unwrap());
    }

    let peer = connected(&context, SocketKind::Dealer, &SocketOptions::identified("peer"), &endpoint);
    send(&peer, &parts(&["x"]));

    assert_eq!(receive(&router).parts, parts(&["peer", "x"]));
    let mut connections = Connections::default();
    let mut events = 0;
    until(
        "end of 700 connections",
        || vec![(&monitor).into()],
        || {
            while let Some(event) = monitor.next_event().unwrap() {
                connections.on_event(&event);
                events += 1;
            }
            (events > 1400 && connections.count() == 1).then_some(())
        },
    );
}

#[test]
fn a_connecting_socket_learns_that_its_peer_is_gone() {
    let context = context();
    let (router, endpoint) = bound(&context, SocketKind::Router, &defaults());
    let dealer = open(&context, SocketKind::Dealer, &defaults());
    let monitor = Monitor::attach(&context, &dealer).unwrap();
    dealer.connect(&endpoint).unwrap();
    event(&monitor, |event| matches!(event, MonitorEvent::HandshakeSucceeded { .. }).then_some(()));

    drop(router);

    disconnected(&monitor);
}

#[test]
fn the_monitor_of_a_closed_socket_says_so() {
    let context = context();
    let (router, monitor, _) = monitored(&context, TCP);

    drop(router);

    event(&monitor, |event| (event == MonitorEvent::Stopped).then_some(()));
}

/// Not a test of its own: what [`Peer`] runs in a process that can be killed.
#[test]
fn peer_process() {
    let Ok(endpoint) = std::env::var(PEER_ENDPOINT) else { return };
    let context = context();
    let dealer = connected(&context, SocketKind::Dealer, &SocketOptions::identified("peer"), &endpoint);
    send(&dealer, &parts(&["here"]));
    // Ends at the latest when the test has given up.
    let _ = transport::poll::poll(&mut [(&dealer).into()], Some(2 * DEADLINE));
}

const PEER_ENDPOINT: &str = "TRANSPORT_TEST_PEER_ENDPOINT";

struct Peer(Child);

impl Peer {
    fn start(endpoint: &str) -> Peer {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "connections::peer_process"])
            .env(PEER_ENDPOINT, endpoint)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Peer(child)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn monitored(context: &Context, endpoint: &str) -> (Socket, Monitor, String) {
    let options = SocketOptions { mandatory: true, ..defaults() };
    let router = open(context, SocketKind::Router, &options);
    let monitor = Monitor::attach(context, &router).unwrap();
    let endpoint = router.bind(endpoint).unwrap();
    (router, monitor, endpoint)
}

fn drain(monitor: &Monitor, connections: &mut Connections) {
    while let Some(event) = monitor.next_event().unwrap() {
        connections.on_event(&event);
    }
}

fn disconnected_or_failed(monitor: &Monitor) -> i32 {
    event(monitor, |event| match event {
        MonitorEvent::Disconnected { fd, .. } | MonitorEvent::Closed { fd, .. } => Some(fd),
        _ => None,
    })
}
