//! The shell over loopback: a hand-made engine and client against a controller in a thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use controller::machine::Settings;
use controller::records::record::Bounds;
use controller::shell::Shell;
use controller::shell::channels::{Binding, Channels, PortPools, Ports};
use controller::shell::store::{Keeping, Store};
use protocol::id::SessionId;
use protocol::{Date, Key, Message, Receiver, Session};
use serde_json::{Value as Json, json};
use transport::poll::{PollItem, poll};
use transport::wake::Waker;
use transport::{Context, Curve, Received, Sent, Socket, SocketOptions};

const KEY: &str = "a key for tests";
const PATIENCE: Duration = Duration::from_secs(20);

struct Running {
    context: Context,
    ports: Ports,
    stop: Arc<AtomicBool>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    fn start() -> Running {
        Running::keeping(Keeping::Memory(Bounds::MEMORY))
    }

    fn keeping(keeping: Keeping) -> Running {
        let context = Context::new(1).expect("a context");
        let interface = "tcp://127.0.0.1".to_owned();
        let channels = Channels::bind(
            &context,
            Binding {
                client_interface: interface.clone(),
                engine_interface: interface,
                ports: PortPools::default(),
                key: Key::new(KEY),
                curve: Curve::Off,
                known: None,
                digests: Default::default(),
                epoch: None,
                restorable: false,
            },
        )
        .expect("loopback has ports");
        let ports = channels.ports();
        let stop = Arc::new(AtomicBool::new(false));
        let (waker, wake) = transport::wake::waker().expect("a pair of sockets");
        let stopped = Arc::clone(&stop);
        let author = channels.session().clone();
        let store = Store::open(&keeping, author, false, waker.clone()).expect("it can be opened");
        let thread = std::thread::spawn(move || {
            let shell = Shell { channels, settings: Settings::default(), journal: None, store };
            controller::shell::run(shell, &stopped, &wake).expect("it runs");
        });
        Running { context, ports, stop, waker, thread: Some(thread) }
    }

    fn connected(&self, socket: Socket, ports: &[u16]) -> Socket {
        for port in ports {
            socket.connect(&format!("tcp://127.0.0.1:{port}")).expect("an endpoint");
        }
        socket
    }

    fn dealer(&self, identity: Option<&str>, port: u16) -> Socket {
        let identity = identity.map(Into::into);
        let options = SocketOptions { identity, ..SocketOptions::default() };
        self.connected(Socket::dealer(&self.context, &options).expect("a socket"), &[port])
    }

    fn router(&self, identity: &str, ports: &[u16]) -> Socket {
        let options = SocketOptions { mandatory: true, ..SocketOptions::identified(identity) };
        self.connected(Socket::router(&self.context, &options).expect("a socket"), ports)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.waker.wake();
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(std::thread::panicking() || matches!(ended, Some(Ok(()))), "the controller panicked");
    }
}

/// One peer's session: makes, sends, receives and checks messages.
struct Peer {
    session: Session,
    receiver: Receiver,
}

impl Peer {
    fn new(name: &str) -> Peer {
        let session = Session::new(SessionId::from(name), "tester", 1, &Key::new(KEY));
        Peer { receiver: Receiver::new(session.signer().clone()), session }
    }

    fn send(&mut self, socket: &Socket, routing: &[&str], msg_type: &str, metadata: Json, content: Json) {
        let message = self.session.message(today(), msg_type, &metadata, &content, vec![]);
        let routing: Vec<Bytes> = routing.iter().map(|route| Bytes::from((*route).to_owned())).collect();
        eventually(|| {
            (socket.send(&message.to_parts(&routing)).expect("it works") == Sent::Done).then_some(())
        });
    }

    fn receive(&mut self, socket: &Socket) -> (Vec<Bytes>, Message) {
        let parts = receive_parts(socket);
        self.receiver.open(parts).expect("signed by the controller or by who it relays")
    }

    fn answer(&mut self, socket: &Socket, routing: &[Bytes], request: &Message, result: &'static str) {
        let metadata = json!({ "engine": self.session.id(), "status": "ok", "dependencies_met": true });
        let content = json!({ "status": "ok" });
        let buffers = vec![Bytes::from_static(result.as_bytes())];
        let parent = &request.wire.header;
        let reply = self.session.reply(today(), "apply_reply", parent, &metadata, &content, buffers);
        assert_eq!(socket.send(&reply.to_parts(routing)).expect("it works"), Sent::Done);
    }
}

fn today() -> Date {
    Date::from_system_time(SystemTime::now())
}

fn receive_parts(socket: &Socket) -> Vec<Bytes> {
    eventually(|| {
        poll(&mut [PollItem::from(socket)], Some(Duration::from_millis(100))).expect("it works");
        match socket.receive().expect("it works")? {
            Received::Message(message) => Some(message.parts),
            Received::Oversized(oversized) => panic!("{oversized:?}"),
        }
    })
}

fn eventually<T>(mut attempt: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = attempt() {
            return found;
        }
        assert!(Instant::now() < end, "nothing happened within {PATIENCE:?}");
        std::thread::yield_now();
    }
}

/// An engine as ours are: says `ready` on every channel and echoes heartbeats.
struct Engine {
    peer: Peer,
    shell: Socket,
    iopub: Socket,
    _control: Socket,
    _ping: Socket,
    _pong: Socket,
}

impl Engine {
    fn join(running: &Running, uuid: &str) -> Engine {
        let ports = running.ports;
        let mut peer = Peer::new(uuid);
        let registration = running.dealer(Some(uuid), ports.registration);
        let content = json!({ "uuid": uuid, "commworld": { "version": 1, "host": "h", "pid": 7 } });
        peer.send(&registration, &[], "registration_request", json!({}), content);
        let (_, reply) = peer.receive(&registration);
        assert_eq!(reply.content::<Json>().expect("JSON")["status"], "ok");

        let leaf = protocol::extension::identity::broadcast_leaf(0);
        let shell = running.router(uuid, &[ports.engine.mux, ports.engine.task, ports.engine.broadcast]);
        let control = running.router(uuid, &[ports.engine.control]);
        let iopub = Socket::publisher(&running.context, &SocketOptions::default()).expect("a socket");
        let iopub = running.connected(iopub, &[ports.engine.iopub]);
        let ping = Socket::subscriber(&running.context, &SocketOptions::default()).expect("a socket");
        let ping = running.connected(ping, &[ports.hb_ping]);
        let pong = running.dealer(Some(uuid), ports.hb_pong);
        for (socket, name) in
            [(&shell, "mux_out"), (&shell, "task_out"), (&shell, leaf.as_str()), (&control, "control_out")]
        {
            peer.send(socket, &[name], "ready", json!({}), json!({}));
        }
        let beat = receive_parts(&ping);
        assert_eq!(pong.send(&beat).expect("it works"), Sent::Done);
        Engine { peer, shell, iopub, _control: control, _ping: ping, _pong: pong }
    }
}

fn wait_until_joined(running: &Running, client: &mut Peer, count: usize) {
    let query = running.dealer(None, running.ports.registration);
    eventually(|| {
        client.send(&query, &[], "connection_request", json!({}), json!({}));
        let (_, reply) = client.receive(&query);
        let engines = reply.content::<Json>().expect("JSON")["engines"].as_object().map(serde_json::Map::len);
        (engines == Some(count)).then_some(())
    });
}

#[test]
fn requests_go_to_an_engine_and_back_on_every_channel_and_its_death_is_told_at_once() {
    let running = Running::start();
    let mut client = Peer::new("client");
    let notification = Socket::subscriber(&running.context, &SocketOptions::default()).expect("a socket");
    let notification = running.connected(notification, &[running.ports.notification]);
    let output = Socket::subscriber(&running.context, &SocketOptions::default()).expect("a socket");
    let output = running.connected(output, &[running.ports.client.iopub]);
    let mut engine = Engine::join(&running, "e0");
    wait_until_joined(&running, &mut client, 1);

    let mux = running.dealer(None, running.ports.client.mux);
    let task = running.dealer(None, running.ports.client.task);
    let broadcast = running.dealer(None, running.ports.client.broadcast);
    let targets = json!({ "targets": [["e0", 0]], "is_broadcast": true, "is_coalescing": true });
    for (socket, routing, metadata) in
        [(&mux, &["e0"][..], json!({})), (&task, &[], json!({})), (&broadcast, &[], targets)]
    {
        client.send(socket, routing, "apply_request", metadata, json!({}));
        let (routing, request) = engine.peer.receive(&engine.shell);
        engine.peer.answer(&engine.shell, &routing, &request, "result");
        let (_, reply) = client.receive(socket);
        assert_eq!(reply.header.msg_type, "apply_reply");
        assert_eq!(reply.wire.buffers, [Bytes::from_static(b"result")]);
    }

    // The subscription may still be on its way: repeat until it is there.
    eventually(|| {
        engine.peer.send(&engine.iopub, &["engine.0.stdout"], "stream", json!({}), json!({ "text": "hi" }));
        poll(&mut [PollItem::from(&output)], Some(Duration::from_millis(20))).expect("it works");
        output.receive().expect("it works").map(|_| ())
    });

    client.send(&mux, &["e0"], "apply_request", json!({}), json!({}));
    let _ = engine.peer.receive(&engine.shell);
    drop(engine);
    let died = Instant::now();
    let (routing, reply) = client.receive(&mux);
    assert!(died.elapsed() < Duration::from_secs(5), "{:?}", died.elapsed());
    assert_eq!(routing, [Bytes::from_static(b"e0")]);
    let content = reply.content::<Json>().expect("JSON");
    assert_eq!(content["ename"], "EngineError");
    assert!(content["evalue"].as_str().is_some_and(|text| text.contains("pid 7")), "{content}");
    eventually(|| {
        let (_, message) = client.receive(&notification);
        (message.header.msg_type == "unregistration_notification").then_some(())
    });
}

#[test]
fn forged_and_repeated_messages_are_counted_and_dropped() {
    let running = Running::start();
    let mut client = Peer::new("client");
    let query = running.dealer(None, running.ports.registration);
    let mut stranger = Session::new(SessionId::from("stranger"), "x", 1, &Key::new("another key"));
    let forged = stranger.message(today(), "shutdown_request", &json!({}), &json!({}), vec![]);
    assert_eq!(query.send(&forged.to_parts(&[])).expect("it works"), Sent::Done);
    let request = client.session.message(today(), "connection_request", &json!({}), &json!({}), vec![]);
    for _ in 0..2 {
        assert_eq!(query.send(&request.to_parts(&[])).expect("it works"), Sent::Done);
    }
    assert_eq!(query.send(&[Bytes::from_static(b"noise")]).expect("it works"), Sent::Done);
    assert_eq!(client.receive(&query).1.header.msg_type, "connection_reply");
    client.send(&query, &[], "cluster_status_request", json!({}), json!({}));
    let (_, reply) = client.receive(&query);
    assert_eq!(reply.header.msg_type, "cluster_status_reply");
    let refused = reply.content::<Json>().expect("JSON")["refused"].clone();
    assert_eq!(
        (&refused["wrongly_signed"], &refused["repeated"], &refused["frames"]),
        (&json!(1), &json!(1), &json!(1))
    );
}

#[test]
fn records_in_memory_and_in_a_file_are_asked_for_and_submitted_again() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let file = Keeping::File { path: place.path().join("tasks.db"), spare: None, bounds: Bounds::FILE };
    for keeping in [Keeping::Memory(Bounds::MEMORY), file] {
        asked_for_and_submitted_again(&Running::keeping(keeping));
    }
}

fn asked_for_and_submitted_again(running: &Running) {
    let mut client = Peer::new("client");
    let mut engine = Engine::join(running, "e0");
    wait_until_joined(running, &mut client, 1);
    let mux = running.dealer(None, running.ports.client.mux);
    let query = running.dealer(None, running.ports.registration);
    let output = Socket::subscriber(&running.context, &SocketOptions::default()).expect("a socket");
    let output = running.connected(output, &[running.ports.client.iopub]);
    let ask = |client: &mut Peer, msg_type: &str, content: Json| {
        client.send(&query, &[], msg_type, json!({}), content);
        client.receive(&query).1
    };

    // The controller does not send an unknown header on; it must keep it all the same.
    let header = json!({
        "msg_id": "client_1_77", "msg_type": "apply_request", "session": "client", "username": "tester",
        "date": today(), "version": "5.4", "subshell_id": 5
    });
    let plain = client.session.message(
        today(),
        "apply_request",
        &json!({}),
        &json!({ "f": 1 }),
        vec![Bytes::from_static(b"argument")],
    );
    let request = client.session.readdress(&plain, &header, &json!({ "label": "mine" }));
    assert_eq!(mux.send(&request.to_parts(&[Bytes::from_static(b"e0")])).expect("it works"), Sent::Done);
    let (routing, received) = engine.peer.receive(&engine.shell);
    let said = json!({ "name": "stdout", "text": "x" });
    // The subscriptions may still be on their way: repeat until both are there.
    eventually(|| {
        let parent = &received.wire.header;
        let stream = engine.peer.session.reply(today(), "stream", parent, &json!({}), &said, vec![]);
        let _ =
            engine.iopub.send(&stream.to_parts(&[Bytes::from_static(b"engine.0.stdout")])).expect("it works");
        poll(&mut [PollItem::from(&output)], Some(Duration::from_millis(20))).expect("it works");
        output.receive().expect("it works").map(|_| ())
    });
    let pending =
        ask(&mut client, "result_request", json!({ "msg_ids": ["client_1_77"], "status_only": true }));
    assert_eq!(pending.content::<Json>().expect("JSON")["pending"], json!(["client_1_77"]));
    engine.peer.answer(&engine.shell, &routing, &received, "result");
    client.receive(&mux);

    let found = ask(&mut client, "db_request", json!({ "query": { "label": "mine" }, "keys": null }));
    let record = &found.content::<Json>().expect("JSON")["records"][0];
    assert_eq!((&record["header"], &record["engine_uuid"]), (&header, &json!("e0")));
    assert!(
        record["stdout"]
            .as_str()
            .is_some_and(|text| text.trim_start_matches('x').is_empty() && !text.is_empty()),
        "{record}"
    );
    let result =
        ask(&mut client, "result_request", json!({ "msg_ids": ["client_1_77"], "status_only": false }));
    assert_eq!(
        (result.header.msg_type.as_str(), &result.wire.buffers),
        ("result_reply", &vec![Bytes::from_static(b"result")])
    );

    let again = ask(&mut client, "resubmit_request", json!({ "msg_ids": ["client_1_77"] }));
    let content = again.content::<Json>().expect("JSON");
    assert_eq!((again.header.msg_type.as_str(), &content["status"]), ("resubmit_reply", &json!("ok")));
    let anew = content["resubmitted"]["client_1_77"].clone();
    let (routing, received) = engine.peer.receive(&engine.shell);
    let mut sent: Json = serde_json::from_slice(&received.wire.header).expect("JSON");
    assert_eq!(sent["msg_id"], anew);
    for key in ["msg_id", "date"] {
        assert_ne!(sent[key], header[key], "{key}");
        sent[key] = header[key].clone();
    }
    assert_eq!(sent, header, "all else is as it was");
    assert_eq!(received.wire.parent_header, Bytes::from(serde_json::to_vec(&header).expect("JSON")));
    assert_eq!((&received.wire.metadata[..], &received.wire.content), (&b"{}"[..], &plain.content));
    assert_eq!(received.wire.buffers, plain.buffers);
    engine.peer.answer(&engine.shell, &routing, &received, "second");
    eventually(|| {
        let result = ask(&mut client, "result_request", json!({ "msg_ids": [anew], "status_only": false }));
        (result.wire.buffers == [Bytes::from_static(b"second")]).then_some(())
    });
    let history = ask(&mut client, "history_request", json!({}));
    assert_eq!(history.content::<Json>().expect("JSON")["history"], json!(["client_1_77", anew]));
    let unknown = ask(&mut client, "resubmit_request", json!({ "msg_ids": ["zzz"] }));
    let error = unknown.content::<Json>().expect("JSON");
    assert_eq!(
        (unknown.header.msg_type.as_str(), &error["ename"], &error["evalue"]),
        ("resubmit_reply", &json!("KeyError"), &json!("\"No such msg(s): ['zzz']\""))
    );
}
