//! A client against a controller played on loopback: real sockets, real signatures, no other process. Every wait
//! is bounded.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver as Inbox, Sender, channel};
use std::time::{Duration, Instant};

use bytes::Bytes;
use client::{Client, ClientError, ConnectOptions, EngineId, OutputItem, Targets, Value};
use protocol::connection_file::{ClientFile, Common};
use protocol::{Date, Key, Message, Receiver, Session};
use serde_json::{Value as Json, json};
use transport::poll::{PollItem, poll};
use transport::{Context, Received, Socket, SocketOptions};

const PATIENCE: Duration = Duration::from_secs(10);

#[test]
fn a_cell_runs_on_all_engines_with_one_message_and_its_output_comes() {
    let cluster = Cluster::start(4);
    let client = cluster.connect();
    assert_eq!(client.ids(), [0, 1, 2, 3].map(EngineId));

    let result = client.all().execute("1 + 1").unwrap();
    let outcomes = result.join(PATIENCE).unwrap();

    assert_eq!(outcomes.len(), 4);
    for (rank, outcome) in (0_u32..).zip(&outcomes) {
        assert_eq!(outcome.rank(), Some(rank));
        assert_eq!(outcome.displayed.as_deref(), Some(format!("1 + 1 on {rank}").as_str()));
        assert!(outcome.result.is_ok());
    }
    let mut printed: Vec<String> = result
        .stream()
        .filter_map(|output| if let OutputItem::Stdout(text) = output.item { Some(text) } else { None })
        .collect();
    printed.sort();
    assert_eq!(printed, ["hello 0", "hello 1", "hello 2", "hello 3"]);
    assert_eq!(cluster.seen("broadcast"), 1);
}

#[test]
fn values_come_back_as_they_left() {
    let cluster = Cluster::start(2);
    let client = cluster.connect();
    let array = client::array::vector((0..100_000).map(|x| f64::from(x) * 0.1).collect());

    let echoed = client.all().apply("echo", std::slice::from_ref(&array), &[]).unwrap();
    assert_eq!(echoed.get_within(PATIENCE).unwrap(), [array.clone(), array]);

    // The last bit of a float counts.
    let float = Value::Float(192.375_585_717_631_14);
    let echoed = client.direct(0).apply("echo", std::slice::from_ref(&float), &[]).unwrap();
    assert_eq!(echoed.get_within(PATIENCE).unwrap(), [float]);
}

#[test]
fn tasks_go_to_the_task_channel_and_come_back_in_order() {
    let cluster = Cluster::start(2);
    let client = cluster.connect();
    let items: Vec<Value> = (0..50_i64).map(Value::Int).collect();

    let results = client.balanced().retries(2).map("echo", &items).unwrap();

    assert_eq!(results.get_within(PATIENCE).unwrap(), items);
    assert_eq!(cluster.seen("task"), 50);
}

#[test]
fn a_lost_engine_ends_its_part_within_a_second_and_says_which_and_why() {
    let cluster = Cluster::start(2);
    let client = cluster.connect();
    let result = client.all().execute("never").unwrap();
    assert!(!result.wait(Duration::from_millis(200)));

    let begun = Instant::now();
    cluster.tell(Order::Lose(1, "killed by signal 9"));
    let deadline = begun + PATIENCE;
    while result.progress().0 == 0 && Instant::now() < deadline {
        result.next_event(Duration::from_millis(10));
    }

    assert!(begun.elapsed() < Duration::from_secs(1));
    let outcomes = result.outcomes();
    assert!(outcomes[0].is_none());
    let error = outcomes[1].as_ref().unwrap().result.as_ref().unwrap_err().to_string();
    assert_eq!(error, "rank 1: EngineError: engine 1 (rank 1, host here) is gone: killed by signal 9");
    assert_eq!(client.ids(), [EngineId(0)]);
    assert!(matches!(client.direct(1).execute("x"), Err(ClientError::NoSuchEngine { .. })));
}

#[test]
fn the_controllers_end_ends_every_wait() {
    for order in [Order::SayGoodbye, Order::Vanish] {
        let cluster = Cluster::start(2);
        let client = cluster.connect();
        let result = client.all().execute("never").unwrap();
        let task = client.balanced().apply("never", &[], &[]).unwrap();

        cluster.tell(order);

        for result in [result, task] {
            let error = result.get_within(PATIENCE).unwrap_err();
            assert!(matches!(error, ClientError::LostContact(_)), "{error}");
        }
        assert!(matches!(client.all().execute("x"), Err(ClientError::LostContact(_))));
    }
}

#[test]
fn a_late_engine_is_waited_for() {
    let cluster = Cluster::start(1);
    let client = cluster.connect();
    assert!(matches!(
        client.wait_for_engines(2, Duration::from_millis(50)),
        Err(ClientError::Timeout { .. })
    ));

    cluster.tell(Order::Join(1));

    assert_eq!(client.wait_for_engines(2, PATIENCE).unwrap(), [EngineId(0), EngineId(1)]);
}

#[test]
fn a_wrong_key_and_a_dead_address_are_told_apart() {
    let cluster = Cluster::start(1);
    let mut file = cluster.file.clone();
    file.common.key = "another".into();
    let options = ConnectOptions { timeout: Duration::from_millis(700), ..cluster.write(&file) };
    let error = Client::connect(&options).unwrap_err().to_string();
    assert!(error.contains("the key in the file is not its own"), "{error}");

    let mut file = cluster.file.clone();
    file.common.registration = 1;
    let error = Client::connect(&cluster.write(&file)).unwrap_err().to_string();
    assert!(error.contains("nobody listens there") && error.contains("cluster start"), "{error}");
}

#[test]
fn many_results_that_nobody_keeps_are_answered_all_the_same() {
    let cluster = Cluster::start(1);
    let client = cluster.connect();
    for _ in 0..500 {
        drop(client.all().execute("dropped").unwrap());
    }
    let last = client.direct(Targets::All).apply("echo", &[Value::Int(1)], &[]).unwrap();
    assert_eq!(last.get_within(PATIENCE).unwrap(), [Value::Int(1)]);
}

/// What a test tells the controller to do.
enum Order {
    Join(u32),
    Lose(u32, &'static str),
    SayGoodbye,
    Vanish,
    Count(&'static str, Sender<usize>),
}

/// A controller and its engines, played by one thread.
struct Cluster {
    file: ClientFile,
    directory: tempfile::TempDir,
    orders: Sender<Order>,
}

impl Cluster {
    fn start(engines: u32) -> Cluster {
        let context = Context::new(1).unwrap();
        let options = SocketOptions::default();
        let bind = |socket: Socket| {
            let endpoint = socket.bind("tcp://127.0.0.1:0").unwrap();
            let port: u16 = endpoint.rsplit_once(':').unwrap().1.parse().unwrap();
            (socket, port)
        };
        let names = ["query", "mux", "task", "broadcast", "control"];
        let routers: Vec<(Socket, u16)> =
            names.iter().map(|_| bind(Socket::router(&context, &options).unwrap())).collect();
        let (iopub, iopub_port) = bind(Socket::publisher(&context, &options).unwrap());
        let (notification, notification_port) = bind(Socket::publisher(&context, &options).unwrap());
        let file = ClientFile {
            common: Common {
                ssh: String::new(),
                interface: "tcp://127.0.0.1".into(),
                registration: routers[0].1,
                mux: routers[1].1,
                task: routers[2].1,
                control: routers[4].1,
                iopub: iopub_port,
                key: "secret".into(),
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
            notification: notification_port,
            broadcast: routers[3].1,
            task_scheme: "leastload".into(),
        };
        let session = Session::new("hub".into(), "u", 1, &Key::new("secret"));
        let (orders, inbox) = channel();
        let controller = Controller {
            receiver: Receiver::new(session.signer().clone()),
            session,
            routers: names.into_iter().zip(routers.into_iter().map(|(socket, _)| socket)).collect(),
            iopub,
            notification,
            engines: (0..engines).collect(),
            seen: VecDeque::new(),
        };
        std::thread::spawn(move || controller.run(&inbox));
        Cluster { file, directory: tempfile::tempdir().unwrap(), orders }
    }

    fn write(&self, file: &ClientFile) -> ConnectOptions {
        let path: PathBuf = self.directory.path().join(format!("{}.json", transport::random::id()));
        transport::connection_file::write(&path, file).unwrap();
        ConnectOptions { timeout: PATIENCE, ..ConnectOptions::file(path) }
    }

    fn connect(&self) -> Client {
        Client::connect(&self.write(&self.file)).unwrap()
    }

    fn tell(&self, order: Order) {
        self.orders.send(order).unwrap();
    }

    /// Messages that came by that channel.
    fn seen(&self, channel_name: &'static str) -> usize {
        let (answer, answered) = channel();
        self.tell(Order::Count(channel_name, answer));
        answered.recv_timeout(PATIENCE).unwrap()
    }
}

struct Controller {
    session: Session,
    receiver: Receiver,
    routers: Vec<(&'static str, Socket)>,
    iopub: Socket,
    notification: Socket,
    engines: Vec<u32>,
    seen: VecDeque<&'static str>,
}

impl Controller {
    /// Serves until the test ends.
    fn run(mut self, orders: &Inbox<Order>) {
        loop {
            match orders.try_recv() {
                Ok(Order::Vanish) | Err(std::sync::mpsc::TryRecvError::Disconnected) => return,
                Ok(order) => self.obey(order),
                Err(std::sync::mpsc::TryRecvError::Empty) => {}
            }
            let mut items: Vec<PollItem<'_>> =
                self.routers.iter().map(|(_, socket)| PollItem::from(socket)).collect();
            poll(&mut items, Some(Duration::from_millis(5))).unwrap();
            drop(items);
            for index in 0..self.routers.len() {
                while let Some(Received::Message(message)) = self.routers[index].1.receive().unwrap() {
                    // A message with a wrong signature gets no answer.
                    let Ok((routing, message)) = self.receiver.open(message.parts) else { continue };
                    let name = self.routers[index].0;
                    self.seen.push_back(name);
                    self.serve(index, name, &routing, &message);
                }
            }
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Join(id) => {
                self.engines.push(id);
                let content = json!({ "id": id, "uuid": uuid(id), "commworld": description(id) });
                self.notify("registration_notification", &content);
            }
            Order::Lose(id, reason) => {
                self.engines.retain(|engine| *engine != id);
                let content = json!({ "id": id, "uuid": uuid(id), "reason": reason });
                self.notify("unregistration_notification", &content);
            }
            Order::SayGoodbye => self.notify("shutdown_notification", &json!({})),
            Order::Count(name, answer) => {
                answer.send(self.seen.iter().filter(|seen| **seen == name).count()).unwrap();
            }
            Order::Vanish => unreachable!("handled by the loop"),
        }
    }

    fn notify(&mut self, msg_type: &str, content: &Json) {
        let wire = self.session.message(now(), msg_type, &json!({}), content, vec![]);
        assert_eq!(self.notification.send(&wire.to_parts(&[])).unwrap(), transport::Sent::Done);
    }

    fn serve(&mut self, index: usize, name: &str, routing: &[Bytes], request: &Message) {
        let parent = request.wire.header.clone();
        match name {
            "query" => {
                let engines: serde_json::Map<String, Json> =
                    self.engines.iter().map(|id| (id.to_string(), uuid(*id).into())).collect();
                let described: serde_json::Map<String, Json> =
                    self.engines.iter().map(|id| (id.to_string(), description(*id))).collect();
                let content = json!({
                    "status": "ok", "engines": engines, "commworld": { "version": 1, "engines": described },
                });
                self.reply(index, &routing[..1], "connection_reply", &parent, &json!({}), &content, vec![]);
            }
            "broadcast" => {
                let targets = request.metadata::<Json>().unwrap()["targets"].as_array().unwrap().clone();
                for target in targets {
                    let id = u32::try_from(target[1].as_u64().unwrap()).unwrap();
                    let mut header: Json = serde_json::from_slice(&parent).unwrap();
                    header["msg_id"] = format!("{}_{}", request.header.msg_id, uuid(id)).into();
                    let parent = Bytes::from(header.to_string());
                    self.execute(index, &routing[..1], id, request, &parent);
                }
            }
            _ => self.execute(index, &routing[..1], 0, request, &parent),
        }
    }

    /// Plays an engine: output, reply, idle.
    fn execute(&mut self, index: usize, route: &[Bytes], id: u32, request: &Message, parent: &Bytes) {
        let content: Json = request.content().unwrap();
        let code = content["code"].as_str().unwrap_or_default().to_owned();
        if code == "never" || content["commworld"]["function"] == "never" {
            return;
        }
        let metadata =
            json!({ "engine": uuid(id), "status": "ok", "commworld": { "rank": id, "collectives": 0 } });
        self.publish(parent, "status", &json!({ "execution_state": "busy" }));
        if request.header.msg_type == "execute_request" {
            self.publish(parent, "stream", &json!({ "name": "stdout", "text": format!("hello {id}") }));
            let shown = json!({ "data": { "text/plain": format!("{code} on {id}") }, "metadata": {}, "execution_count": 1 });
            self.publish(parent, "execute_result", &shown);
            let content =
                json!({ "status": "ok", "execution_count": 1, "user_expressions": {}, "payload": [] });
            self.reply(index, route, "execute_reply", parent, &metadata, &content, vec![]);
        } else {
            let content =
                json!({ "status": "ok", "commworld": { "value": content["commworld"]["arguments"][0] } });
            self.reply(
                index,
                route,
                "apply_reply",
                parent,
                &metadata,
                &content,
                request.wire.buffers.clone(),
            );
        }
        self.publish(parent, "status", &json!({ "execution_state": "idle" }));
    }

    fn publish(&mut self, parent: &Bytes, msg_type: &str, content: &Json) {
        let wire = self.session.reply(now(), msg_type, parent, &json!({}), content, vec![]);
        let topic = Bytes::from_static(b"engine.0.stream");
        assert_eq!(self.iopub.send(&wire.to_parts(&[topic])).unwrap(), transport::Sent::Done);
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of a message, in their order on the wire")]
    fn reply(
        &mut self,
        index: usize,
        route: &[Bytes],
        msg_type: &str,
        parent: &Bytes,
        metadata: &Json,
        content: &Json,
        buffers: Vec<Bytes>,
    ) {
        let wire = self.session.reply(now(), msg_type, parent, metadata, content, buffers);
        assert_eq!(self.routers[index].1.send(&wire.to_parts(route)).unwrap(), transport::Sent::Done);
    }
}

fn uuid(id: u32) -> String {
    format!("uuid-{id}")
}

fn description(id: u32) -> Json {
    json!({
        "version": 1, "host": "here", "pid": 100 + id, "world": "uuid-0", "rank": id, "world_size": 4,
        "runner": "script",
    })
}

fn now() -> Date {
    Date::from_system_time(std::time::SystemTime::now())
}
