//! Messages: whole, unchanged, bounded.

use std::sync::mpsc;

use bytes::Bytes;
use proptest::prelude::*;
use transport::{Context, Oversized, Received, Sent, Socket, SocketKind, SocketOptions, TransportError};

use crate::support::*;

#[test]
fn dealer_and_router_exchange_messages() {
    let context = context();
    let (router, endpoint) = bound(&context, SocketKind::Router, &defaults());
    let dealer = connected(&context, SocketKind::Dealer, &SocketOptions::identified("ada"), &endpoint);

    send(&dealer, &parts(&["hello", "", "world"]));
    let request = receive(&router);
    assert_eq!(request.parts, parts(&["ada", "hello", "", "world"]));

    send(&router, &request.parts);
    assert_eq!(receive(&dealer).parts, parts(&["hello", "", "world"]));
}

#[test]
fn two_routers_reach_each_other_by_identity() {
    let context = context();
    let mandatory = SocketOptions { mandatory: true, ..SocketOptions::identified("mux_out") };
    let (controller, endpoint) = bound(&context, SocketKind::Router, &mandatory);
    let engine = connected(&context, SocketKind::Router, &SocketOptions::identified("engine"), &endpoint);

    let request = parts(&["engine", "request"]);
    retry_until_sent(&controller, &request);
    assert_eq!(receive(&engine).parts, parts(&["mux_out", "request"]));
    send(&engine, &parts(&["mux_out", "reply"]));
    assert_eq!(receive(&controller).parts, parts(&["engine", "reply"]));
}

#[test]
fn a_publisher_reaches_those_who_subscribed_to_the_topic() {
    let context = context();
    let (publisher, endpoint) = bound(&context, SocketKind::XPub, &defaults());
    let all = Socket::subscriber(&context, &defaults()).unwrap();
    all.connect(&endpoint).unwrap();
    assert_eq!(receive(&publisher).parts, [Bytes::from_static(b"\x01")]);
    let one = connected(&context, SocketKind::Sub, &defaults(), &endpoint);
    one.subscribe(b"b").unwrap();
    assert_eq!(receive(&publisher).parts, [Bytes::from_static(b"\x01b")]);

    send(&publisher, &parts(&["a", "first"]));
    send(&publisher, &parts(&["b", "second"]));

    assert_eq!(receive(&all).parts, parts(&["a", "first"]));
    assert_eq!(receive(&all).parts, parts(&["b", "second"]));
    assert_eq!(receive(&one).parts, parts(&["b", "second"]));
    one.unsubscribe(b"b").unwrap();
    assert_eq!(receive(&publisher).parts, [Bytes::from_static(b"\x00b")]);
}

#[test]
fn a_plain_publisher_and_an_xsub_work_together() {
    let context = context();
    let (subscriber, endpoint) = bound(&context, SocketKind::XSub, &defaults());
    send(&subscriber, &[Bytes::from_static(b"\x01")]);
    let publisher = Socket::publisher(&context, &defaults()).unwrap();
    publisher.connect(&endpoint).unwrap();

    // A PUB does not tell when the subscription has arrived, so it repeats itself.
    let message = retry("message", || {
        send(&publisher, &parts(&["tick"]));
        subscriber.receive().unwrap()
    });
    assert!(matches!(message, Received::Message(message) if message.parts == parts(&["tick"])));
}

#[test]
fn a_pair_works_within_the_process_and_has_no_descriptor() {
    let context = context();
    let left = open(&context, SocketKind::Pair, &defaults());
    assert_eq!(left.bind("inproc://pair").unwrap(), "inproc://pair");
    let right = connected(&context, SocketKind::Pair, &defaults(), "inproc://pair");

    send(&left, &parts(&["x"]));

    let message = receive(&right);
    assert_eq!((message.parts, message.source_fd), (parts(&["x"]), None));
}

#[test]
fn an_ipc_endpoint_may_have_a_colon_in_its_path() {
    let directory = tempfile::tempdir().unwrap();
    let context = context();
    let router = open(&context, SocketKind::Router, &defaults());
    let endpoint = router.bind(&format!("ipc://{}/socket:1234", directory.path().display())).unwrap();
    let dealer = connected(&context, SocketKind::Dealer, &defaults(), &endpoint);

    send(&dealer, &parts(&["over ipc"]));

    assert_eq!(receive(&router).parts[1], "over ipc");
}

#[test]
fn the_address_of_the_peer_is_told_on_request() {
    let context = context();
    let options = SocketOptions { peer_address: true, ..defaults() };
    let (router, endpoint) = bound(&context, SocketKind::Router, &options);
    let dealer = connected(&context, SocketKind::Dealer, &defaults(), &endpoint);

    send(&dealer, &parts(&["x"]));

    assert_eq!(receive(&router).peer_address.as_deref(), Some("127.0.0.1"));
}

#[test]
fn frames_of_every_size_around_the_copying_bound_arrive_unchanged_and_aligned() {
    let (left, right, _context) = pair();
    let sizes = [0, 1, 2, 7, 8, 29, 33, 34, 255, 256, 4095, 4096, 8190, 8191, 8192, 8193, 65_537, 1 << 20];
    let message: Vec<Bytes> = sizes.iter().enumerate().map(|(seed, &size)| pattern(size, seed)).collect();

    send(&left, &message);

    let received = receive(&right).parts;
    assert_eq!(received, message);
    for part in received.iter().filter(|part| !part.is_empty()) {
        assert_eq!(part.as_ptr().addr() % 8, 0, "frame of {} bytes", part.len());
    }
}

#[test]
fn small_frames_share_one_allocation() {
    let (left, right, _context) = pair();
    send(&left, &parts(&["12345678", "abcdefgh", "x"]));

    let received = receive(&right).parts;

    let start = received[0].as_ptr().addr();
    assert_eq!(received.iter().map(|part| part.as_ptr().addr() - start).collect::<Vec<_>>(), [0, 8, 16]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn any_message_arrives_as_it_was_sent(
        messages in proptest::collection::vec(proptest::collection::vec(0_usize..20_000, 1..12), 1..6),
    ) {
        let (left, right, _context) = pair();
        let messages: Vec<Vec<Bytes>> = messages
            .iter()
            .map(|sizes| sizes.iter().enumerate().map(|(seed, &size)| pattern(size, seed)).collect())
            .collect();
        for message in &messages {
            send(&left, message);
        }
        for message in &messages {
            prop_assert_eq!(&receive(&right).parts, message);
        }
    }
}

#[test]
fn a_large_frame_is_lent_and_given_back() {
    const BYTES: usize = 100 << 20;
    let (left, right, _context) = pair();
    let (dropped, owner_dropped) = mpsc::channel();
    let large = Bytes::from_owner(Owner { memory: vec![7; BYTES], dropped });

    send(&left, &[large.clone(), Bytes::from_static(b"end")]);
    assert!(owner_dropped.try_recv().is_err(), "libzmq still reads it");
    let received = receive(&right).parts;
    drop(large);

    owner_dropped.recv_timeout(DEADLINE).expect("the loan ends once the bytes are sent");
    assert_eq!(received[0].len(), BYTES);
    assert!(received[0].iter().all(|&byte| byte == 7));
    assert_eq!(received[1], "end");
}

#[test]
fn a_large_frame_that_is_not_sent_is_given_back_at_once() {
    let context = context();
    let lonely = open(&context, SocketKind::Dealer, &defaults());
    let (dropped, owner_dropped) = mpsc::channel();
    let large = Bytes::from_owner(Owner { memory: vec![7; 1 << 20], dropped });

    assert_eq!(lonely.send(&[large]).unwrap(), Sent::WouldBlock);

    owner_dropped.try_recv().expect("nobody else has it");
}

#[test]
fn a_message_published_to_many_is_lent_once_and_given_back_when_all_have_it() {
    let context = context();
    let (publisher, endpoint) = bound(&context, SocketKind::XPub, &defaults());
    let subscribers: Vec<Socket> = (0..4)
        .map(|_| {
            let options = SocketOptions { identity: None, ..defaults() };
            let socket = Socket::subscriber(&context, &options).unwrap();
            socket.connect(&endpoint).unwrap();
            socket
        })
        .collect();
    // The first subscription alone is passed on; a topic each tells of the others.
    for (index, subscriber) in subscribers.iter().enumerate() {
        subscriber.subscribe(format!("ready{index}").as_bytes()).unwrap();
    }
    for _ in 0..=subscribers.len() {
        receive(&publisher);
    }
    let (dropped, owner_dropped) = mpsc::channel();

    send(&publisher, &[Bytes::from_owner(Owner { memory: vec![3; 1 << 20], dropped })]);

    for subscriber in &subscribers {
        assert_eq!(receive(subscriber).parts[0].len(), 1 << 20);
    }
    owner_dropped.recv_timeout(DEADLINE).unwrap();
}

#[test]
fn nothing_to_receive_is_none() {
    let (left, _right, _context) = pair();

    assert!(left.receive().unwrap().is_none());
}

#[test]
fn a_dealer_without_a_peer_would_block() {
    let context = context();
    let dealer = open(&context, SocketKind::Dealer, &defaults());
    assert_eq!(dealer.send(&parts(&["a", "b"])).unwrap(), Sent::WouldBlock);

    let options = SocketOptions { immediate: true, ..defaults() };
    let unanswered = connected(&context, SocketKind::Dealer, &options, "tcp://127.0.0.1:1");
    assert_eq!(unanswered.send(&parts(&["a", "b"])).unwrap(), Sent::WouldBlock);
}

#[test]
fn at_the_high_water_mark_a_message_is_refused_as_a_whole() {
    let context = context();
    let options = SocketOptions { send_hwm: 2, ..defaults() };
    let dealer = connected(&context, SocketKind::Dealer, &options, "inproc://later");
    assert_eq!(dealer.send(&parts(&["1", "a"])).unwrap(), Sent::Done);
    assert_eq!(dealer.send(&parts(&["2", "b"])).unwrap(), Sent::Done);
    assert_eq!(dealer.send(&parts(&["3", "c"])).unwrap(), Sent::WouldBlock);

    let router = open(&context, SocketKind::Router, &SocketOptions { receive_hwm: 2, ..defaults() });
    router.bind("inproc://later").unwrap();

    assert_eq!(receive(&router).parts[1..], parts(&["1", "a"]));
    assert_eq!(receive(&router).parts[1..], parts(&["2", "b"]));
    assert!(router.receive().unwrap().is_none());
}

#[test]
fn a_mandatory_router_tells_that_nobody_has_the_identity() {
    let context = context();
    let options = SocketOptions { mandatory: true, ..defaults() };
    let (mandatory, _) = bound(&context, SocketKind::Router, &options);
    let (silent, _) = bound(&context, SocketKind::Router, &defaults());

    assert_eq!(mandatory.send(&parts(&["nobody", "x"])).unwrap(), Sent::Unreachable);
    assert_eq!(silent.send(&parts(&["nobody", "x"])).unwrap(), Sent::Done);
}

#[test]
fn a_message_without_frames_is_refused() {
    let (left, _right, _context) = pair();

    assert!(matches!(left.send(&[]), Err(TransportError::EmptyMessage)));
}

#[test]
fn a_message_of_too_many_frames_is_dropped_and_the_next_arrives() {
    let context = context();
    let options = SocketOptions { parts_max: 3, ..defaults() };
    let (router, endpoint) = bound(&context, SocketKind::Router, &options);
    let dealer = connected(&context, SocketKind::Dealer, &SocketOptions::identified("ada"), &endpoint);
    send(&dealer, &parts(&["1", "2", "3", "4"]));
    send(&dealer, &parts(&["1", "2"]));

    let Received::Oversized(oversized) = receive_any(&router) else { panic!("five frames are beyond three") };

    let source_fd = oversized.source_fd;
    assert!(source_fd.is_some());
    let expected =
        Oversized { first: Some(Bytes::from_static(b"ada")), part_count: 5, byte_count: 7, source_fd };
    assert_eq!(oversized, expected);
    assert_eq!(receive(&router).parts, parts(&["ada", "1", "2"]));
}

#[test]
fn a_message_of_too_many_bytes_is_dropped_and_the_next_arrives() {
    let context = context();
    let options = SocketOptions { message_bytes_max: 20_000, ..defaults() };
    let (router, endpoint) = bound(&context, SocketKind::Router, &options);
    let dealer = connected(&context, SocketKind::Dealer, &SocketOptions::identified("ada"), &endpoint);
    send(&dealer, &[pattern(10_000, 1), pattern(9_998, 2)]);
    send(&dealer, &[pattern(10_000, 1), pattern(9_997, 2)]);

    let Received::Oversized(oversized) = receive_any(&router) else { panic!("one byte too many") };

    assert_eq!((oversized.part_count, oversized.byte_count), (3, 20_001));
    assert_eq!(receive(&router).parts[1..], [pattern(10_000, 1), pattern(9_997, 2)]);
}

#[test]
fn what_was_sent_before_a_lingering_close_arrives() {
    let context = context();
    let (router, endpoint) = bound(&context, SocketKind::Router, &defaults());
    let sender = std::thread::spawn(move || {
        let context = Context::new(1).unwrap();
        let dealer = connected(&context, SocketKind::Dealer, &defaults(), &endpoint);
        send(&dealer, &[pattern(1 << 20, 1)]);
        dealer.close(DEADLINE).unwrap();
    });

    assert_eq!(receive(&router).parts[1], pattern(1 << 20, 1));
    sender.join().unwrap();
}

#[test]
fn endpoints_that_cannot_be_bound_are_errors_with_a_hint() {
    let context = context();
    let (_taken, endpoint) = bound(&context, SocketKind::Router, &defaults());
    let router = open(&context, SocketKind::Router, &defaults());
    let failure = |endpoint: &str| router.bind(endpoint).unwrap_err().to_string();

    assert_eq!(
        failure(&endpoint),
        format!(
            "bind {endpoint}: stop the process that holds the address, or choose another port (0 takes a free one)"
        )
    );
    assert_eq!(failure("nonsense"), "bind nonsense: write it as tcp://address:port or ipc://path");
    assert_eq!(failure("warp://x"), "bind warp://x: use tcp://, ipc:// or inproc://");
    assert_eq!(
        failure("tcp://192.0.2.1:0"),
        "bind tcp://192.0.2.1:0: choose an address or interface of this machine"
    );
    assert!(
        failure("ipc:///dev/null/x").starts_with("bind ipc:///dev/null/x: "),
        "not a directory is no panic"
    );
    assert!(failure("tcp://a\0b").contains("NUL"));
}

#[test]
fn an_identity_that_libzmq_refuses_is_an_error_with_a_hint() {
    for identity in [vec![], vec![b'x'; 256]] {
        let error = Socket::router(&context(), &SocketOptions::identified(identity)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "set socket option ZMQ_ROUTING_ID: choose an identity of 1 to 255 bytes that does not begin with a zero byte"
        );
    }
}

struct Owner {
    memory: Vec<u8>,
    dropped: mpsc::Sender<()>,
}

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        &self.memory
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let _ = self.dropped.send(());
    }
}

/// Two connected PAIRs over TCP; the context last, so that it ends last.
fn pair() -> (Socket, Socket, Context) {
    let context = context();
    let (left, endpoint) = bound(&context, SocketKind::Pair, &defaults());
    let right = connected(&context, SocketKind::Pair, &defaults(), &endpoint);
    // A PAIR that was bound has no peer to queue for until the other has connected.
    retry_until_sent(&left, &parts(&["ready"]));
    receive(&right);
    (left, right, context)
}

fn retry_until_sent(socket: &Socket, message: &[Bytes]) {
    retry("peer", || (socket.send(message).unwrap() == Sent::Done).then_some(()));
}

/// Recognisable bytes.
fn pattern(size: usize, seed: usize) -> Bytes {
    (0..size).map(|index| (index * 31 + seed * 17) as u8).collect()
}
