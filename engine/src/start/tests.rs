//! An engine with real sockets on loopback, and a controller that is played by the test.

use std::path::PathBuf;
use std::thread::JoinHandle;

use bytes::Bytes;
use protocol::connection_file::{Common, EngineFile};
use protocol::extension::{READY, identity};
use protocol::message::execute::EXECUTE_REQUEST;
use protocol::{Message, Signer};
use serde_json::{Value as Json, json};
use transport::{Received, Sent, SocketOptions};

use super::*;
use crate::testing::{FakeRunner, key};

const PATIENCE: Duration = Duration::from_secs(10);

#[test]
fn an_engine_registers_says_ready_beats_runs_and_is_interrupted_and_shut_down() {
    let mut hub = FakeController::new(true);
    let engine = hub.start_engine(&[]);
    let uuid = hub.register();

    // Each channel is told once that it works.
    let mut ready: Vec<&str> = vec![];
    for (channel, name) in [(0, "mux"), (1, "task"), (2, "leaf"), (3, "control")] {
        let (routing, message) = hub.receive(channel);
        assert_eq!((routing[0].as_str(), message.header.msg_type.as_str()), (uuid.as_str(), READY));
        ready.push(name);
    }
    assert_eq!(ready, ["mux", "task", "leaf", "control"]);
    hub.beat(&uuid);

    // A cell: output, reply, idle.
    hub.request(0, &uuid, EXECUTE_REQUEST, json!({ "code": "print hello" }));
    let (routing, reply) = hub.receive(0);
    assert_eq!(routing, [uuid.as_str(), "client"]);
    assert_eq!(content(&reply)["status"], "ok");
    assert_eq!(hub.iopub_until_idle(), ["status", "execute_input", "stream", "status"]);

    // While a cell runs for ever: status, completion, an interrupt.
    hub.request(0, &uuid, EXECUTE_REQUEST, json!({ "code": "loop" }));
    hub.wait_until_busy(&uuid);
    let asked = Instant::now();
    hub.request(3, &uuid, "signal_request", json!({ "sig": "SIGINT" }));
    let (_, signalled) = hub.receive(3);
    assert_eq!(signalled.header.msg_type, "signal_reply");
    let (_, reply) = hub.receive(0);
    let took = asked.elapsed();
    assert_eq!(content(&reply)["ename"], "KeyboardInterrupt");
    assert!(took < Duration::from_millis(250), "{took:?}");
    hub.iopub_until_idle();

    // An interrupt while idle hits nothing.
    hub.request(3, &uuid, "signal_request", json!({ "sig": 2 }));
    hub.receive(3);
    hub.request(0, &uuid, EXECUTE_REQUEST, json!({ "code": "1" }));
    assert_eq!(content(&hub.receive(0).1)["status"], "ok");

    hub.request(3, &uuid, "shutdown_request", json!({ "restart": false }));
    let (_, reply) = hub.receive(3);
    assert_eq!(content(&reply), json!({ "status": "ok", "restart": false }));
    let (_, gone) = hub.receive(4);
    assert_eq!((gone.header.msg_type.as_str(), &content(&gone)["id"]), ("unregistration_request", &json!(0)));
    assert_eq!(engine.join().expect("no panic"), Ok(Ending::Requested));
}

#[test]
fn an_engine_does_not_wait_for_a_controller_that_has_shut_it_down_and_is_gone() {
    // Whether its farewell still finds somebody is a matter of luck.
    for _ in 0..10 {
        let mut hub = FakeController::new(true);
        let engine = hub.start_engine(&[]);
        let uuid = hub.register();
        hub.beat(&uuid);
        hub.request(3, &uuid, "shutdown_request", json!({}));
        while hub.receive(3).1.header.msg_type != "shutdown_reply" {}
        drop(hub);
        let gone = Instant::now();
        assert_eq!(engine.join().expect("no panic"), Ok(Ending::Requested));
        assert!(gone.elapsed() < Duration::from_millis(1500), "it took {:?}", gone.elapsed());
    }
}

#[test]
fn a_stock_hub_is_not_told_ready() {
    let mut hub = FakeController::new(false);
    let engine = hub.start_engine(&[]);
    let uuid = hub.register();
    hub.beat(&uuid);
    // Both ends of the channel are ROUTERs: it can be used once the engine's identity is known.
    hub.request(0, &uuid, EXECUTE_REQUEST, json!({ "code": "1" }));
    let (_, first) = hub.receive(0);
    assert_eq!(first.header.msg_type, "execute_reply");
    hub.request(3, &uuid, "shutdown_request", json!({}));
    assert_eq!(engine.join().expect("no panic"), Ok(Ending::Requested));
}

#[test]
fn an_engine_whose_controller_is_silent_ends_even_while_a_task_runs() {
    let mut hub = FakeController::new(true);
    let engine = hub.start_engine(&["--controller-timeout=0.5"]);
    let uuid = hub.register();
    hub.beat(&uuid);
    hub.request(0, &uuid, EXECUTE_REQUEST, json!({ "code": "loop" }));
    assert_eq!(engine.join().expect("no panic"), Ok(Ending::ControllerLost));
}

#[test]
fn a_registration_that_nobody_answers_is_told_with_its_address() {
    let hub = FakeController::new(true);
    let engine = hub.start_engine(&["--timeout=0.2"]);
    let failure = engine.join().expect("no panic").expect_err("nobody answers");
    assert!(failure.contains("no answer within 0.2 s"), "{failure}");
    assert!(failure.contains("tcp://127.0.0.1:"), "{failure}");
}

#[test]
fn a_refused_registration_is_told_in_the_hubs_words() {
    let mut hub = FakeController::new(true);
    let engine = hub.start_engine(&[]);
    let (routing, _) = hub.receive(4);
    let refusal = json!({ "status": "error", "ename": "KeyError", "evalue": "in use", "traceback": [] });
    hub.send(4, &routing[..1], "registration_reply", refusal);
    let failure = engine.join().expect("no panic").expect_err("refused");
    assert!(failure.contains("the hub refused it: KeyError: in use"), "{failure}");
}

#[test]
fn messages_without_the_key_are_dropped_and_counted() {
    let mut hub = FakeController::new(true);
    let engine = hub.start_engine(&[]);
    let uuid = hub.register();
    hub.beat(&uuid);
    for channel in 0..4 {
        hub.receive(channel);
    }
    let mut forger = Session::new("F".into(), "eve", 1, &protocol::Key::new("wrong"));
    let forged = forger.message(now(), EXECUTE_REQUEST, &json!({}), &json!({ "code": "1" }), vec![]);
    let route = [Bytes::from(uuid.clone()), Bytes::from_static(b"client")];
    assert_eq!(hub.sockets[0].send(&forged.to_parts(&route)).unwrap(), Sent::Done);
    hub.request(0, &uuid, EXECUTE_REQUEST, json!({ "code": "1" }));
    hub.receive(0);

    hub.request(3, &uuid, "engine_status_request", json!({}));
    let status = content(&hub.receive(3).1);
    assert_eq!(status["refused"], json!({ "wrongly_signed": 1 }));
    assert_eq!((&status["requests"], &status["busy"]), (&json!(1), &json!(false)));
    assert!(status["memory_bytes"].as_u64().is_some_and(|bytes| bytes > 0));

    hub.request(3, &uuid, "shutdown_request", json!({}));
    assert_eq!(engine.join().expect("no panic"), Ok(Ending::Requested));
}

/// A controller with one socket per channel: 0 mux, 1 task, 2 broadcast leaf, 3 control, 4 registration.
struct FakeController {
    sockets: Vec<Socket>,
    iopub: Socket,
    ping: Socket,
    pong: Socket,
    session: Session,
    receiver: Receiver,
    extended: bool,
    file: PathBuf,
    _directory: tempfile::TempDir,
}

impl FakeController {
    fn new(extended: bool) -> FakeController {
        let context = Context::new(1).unwrap();
        let mut ports = vec![];
        let mut bound = |socket: Socket| {
            let endpoint = socket.bind("tcp://127.0.0.1:0").unwrap();
            ports.push(endpoint.rsplit(':').next().unwrap().parse::<u16>().unwrap());
            socket
        };
        let leaf = identity::broadcast_leaf(0);
        let identities = [identity::MUX_OUT, identity::TASK_OUT, &leaf, identity::CONTROL_OUT];
        let mut sockets: Vec<Socket> = identities
            .iter()
            .map(|&identity| {
                let options = SocketOptions { mandatory: true, ..SocketOptions::identified(identity) };
                bound(Socket::router(&context, &options).unwrap())
            })
            .collect();
        let options = SocketOptions::default();
        sockets.push(bound(Socket::router(&context, &options).unwrap()));
        let iopub = bound(Socket::subscriber(&context, &options).unwrap());
        let ping = bound(Socket::publisher(&context, &options).unwrap());
        let pong = bound(Socket::router(&context, &options).unwrap());
        let [mux, task, leaf, control, registration, iopub_port, hb_ping, hb_pong] = ports[..] else {
            panic!("eight sockets are bound");
        };
        let file = EngineFile {
            common: Common {
                ssh: String::new(),
                interface: "tcp://127.0.0.1".into(),
                registration,
                control,
                mux,
                task,
                iopub: iopub_port,
                key: key().reveal().into(),
                curve_serverkey: None,
                curve_publickey: None,
                curve_secretkey: None,
                location: String::new(),
                addresses: vec![],
                buffer_digests: Default::default(),
                pack: "json".into(),
                unpack: "json".into(),
                signature_scheme: "hmac-sha256".into(),
            },
            hb_ping,
            hb_pong,
            broadcast: vec![leaf],
        };
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("engine.json");
        transport::connection_file::write(&path, &file).unwrap();
        FakeController {
            sockets,
            iopub,
            ping,
            pong,
            session: Session::new("HUB".into(), "hub", 1, &key()),
            receiver: Receiver::new(Signer::new(&key())),
            extended,
            file: path,
            _directory: directory,
        }
    }

    /// An engine on a thread of its own.
    fn start_engine(&self, arguments: &[&str]) -> JoinHandle<Result<Ending, String>> {
        let file = self.file.display().to_string();
        let fixed = ["engine", "--log-level=off", "--profile-dir=/nonexistent", "--file", &file];
        let arguments: Vec<String> = fixed.iter().chain(arguments).map(|&text| text.to_owned()).collect();
        std::thread::spawn(move || {
            let settings = cli::parse(arguments, String::new).expect("a good command line");
            let place = Place::alone();
            let runner = |_: Backdrop<'_>| Ok(Box::new(FakeRunner::default()) as Box<dyn Runner>);
            let served =
                run(&settings, &place, Interrupt::new(), runner).map_err(|error| error.to_string())?;
            let ending = served.ending.clone();
            served.finish();
            Ok(ending)
        })
    }

    /// Answers the registration; returns the engine's uuid.
    fn register(&mut self) -> String {
        let (routing, request) = self.receive(4);
        let asked = content(&request);
        assert_eq!(asked["uuid"], routing[0]);
        assert_eq!(asked["commworld"]["world_size"], 1);
        let mut reply = json!({ "status": "ok", "id": 0, "hb_period": 100, "connection_info": {} });
        if self.extended {
            reply["commworld"] = json!({ "version": 1 });
        }
        self.send(4, &routing, "registration_reply", reply);
        let (topic, starting) = receive(&self.iopub, &mut self.receiver);
        assert_eq!(topic, ["engine.0.status"]);
        assert_eq!(content(&starting), json!({ "execution_state": "starting" }));
        routing[0].clone()
    }

    /// Pings until the engine echoes.
    fn beat(&self, uuid: &str) {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            assert_eq!(self.ping.send(&[Bytes::from_static(b"3.25")]).unwrap(), Sent::Done);
            poll(&mut [PollItem::socket(&self.pong)], Some(Duration::from_millis(20))).unwrap();
            if let Some(Received::Message(pong)) = self.pong.receive().unwrap() {
                assert_eq!(pong.parts, [uuid.as_bytes(), b"3.25"]);
                return;
            }
        }
        panic!("no heartbeat");
    }

    fn request(&mut self, channel: usize, uuid: &str, msg_type: &str, content: Json) {
        self.send(channel, &[uuid.to_owned(), "client".to_owned()], msg_type, content);
    }

    /// Sends as soon as the engine is reachable.
    fn send(&mut self, channel: usize, routing: &[String], msg_type: &str, content: Json) {
        let now = Date::from_system_time(SystemTime::now());
        let message = self.session.message(now, msg_type, &json!({}), &content, vec![]);
        let routing: Vec<Bytes> = routing.iter().map(|frame| Bytes::from(frame.clone())).collect();
        let parts = message.to_parts(&routing);
        let deadline = Instant::now() + PATIENCE;
        while self.sockets[channel].send(&parts).unwrap() != Sent::Done {
            assert!(Instant::now() < deadline, "{msg_type} cannot be sent");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn receive(&mut self, channel: usize) -> (Vec<String>, Message) {
        receive(&self.sockets[channel], &mut self.receiver)
    }

    /// The types of output messages up to the next `idle` of a shell request.
    fn iopub_until_idle(&mut self) -> Vec<String> {
        let mut types = vec![];
        loop {
            let (_, message) = receive(&self.iopub, &mut self.receiver);
            types.push(message.header.msg_type.clone());
            if content(&message)["execution_state"] == "idle" {
                return types;
            }
        }
    }

    fn wait_until_busy(&mut self, uuid: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.request(3, uuid, "engine_status_request", json!({}));
            if content(&self.receive(3).1)["busy"] == true {
                return;
            }
            assert!(Instant::now() < deadline, "the engine does not get busy");
        }
    }
}

fn receive(socket: &Socket, receiver: &mut Receiver) -> (Vec<String>, Message) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(Received::Message(multipart)) = socket.receive().unwrap() {
            let (routing, message) = receiver.open(multipart.parts).expect("the engine signs");
            let routing = routing.iter().map(|frame| String::from_utf8_lossy(frame).into_owned()).collect();
            return (routing, message);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        assert!(!left.is_zero(), "no message");
        poll(&mut [PollItem::socket(socket)], Some(left)).unwrap();
    }
}

fn content(message: &Message) -> Json {
    message.content().expect("an object")
}
