//! What strangers send is counted and dropped, and the cluster goes on.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use bytes::Bytes;
use client::Value;
use protocol::connection_file::{ClientFile, EngineFile};
use protocol::frames::DELIMITER;
use protocol::{Date, Key, Session, Signer};
use tests::{Engines, TestCluster, wait_until};
use transport::{Context, Received, Socket, SocketOptions};

#[test]
fn messages_without_the_key_are_counted_and_dropped_and_psum_goes_on() {
    let cluster = TestCluster::start(Engines::Mpi, 2);
    let text = std::fs::read_to_string(cluster.profile().join("security/ipcontroller-client.json"))
        .expect("it is there");
    let file = ClientFile::parse(&text).expect("our own file");
    let context = Context::new(1).expect("a context");

    let mut stranger = Session::new("stranger".into(), "s", 1, &Key::new("not the key"));
    let mut friend = Session::new("friend".into(), "f", 1, &file.common.key());
    let empty = serde_json::json!({});
    let now = Date::from_micros(1_800_000_000_000_000);
    let request = |session: &mut Session| {
        session.message(now, "connection_request", &empty, &empty, vec![]).to_parts(&[])
    };

    let wrong = request(&mut stranger);
    let mut unsigned = request(&mut friend);
    unsigned[1] = Bytes::new();
    let once = request(&mut friend);
    let mut moved = request(&mut friend);
    let joined = [moved[2].as_ref(), moved[3].as_ref()].concat();
    moved[2] = Bytes::from(joined);
    moved[3] = Bytes::new();
    let truncated = request(&mut friend)[..4].to_vec();
    let noise = vec![Bytes::from_static(b"\xff\xfe"), Bytes::new()];
    let giant = {
        let mut parts = request(&mut friend);
        parts[2] = Bytes::from(vec![b' '; protocol::limits::HEADER_BYTES_MAX + 1]);
        parts
    };
    let many = vec![Bytes::from_static(b"x"); protocol::limits::FRAMES_MAX + 100];

    for port in
        [file.common.registration, file.common.mux, file.common.task, file.common.control, file.broadcast]
    {
        let socket = Socket::dealer(&context, &SocketOptions::default()).expect("a socket");
        socket.connect(&file.common.url(port)).expect("the controller listens");
        for parts in [&wrong, &unsigned, &once, &once, &moved, &truncated, &noise, &giant, &many] {
            let _ = socket.send(parts).expect("libzmq takes it");
        }
        // Closing at once would throw away what has not left yet.
        socket.close(std::time::Duration::from_secs(2)).expect("it was open");
    }

    let client = cluster.connect();
    wait_until("all of it was refused", || {
        let refused = client.cluster_status().expect("the hub answers").refused;
        ["wrongly_signed", "unsigned", "repeated", "not_json", "frames"]
            .iter()
            .all(|reason| refused.get(*reason).is_some_and(|count| *count >= 1))
    });
    cluster.client(&["px", "s = psum(1)"]).ok();
    assert_eq!(cluster.client(&["pull", "s", "--json"]).ok().trim(), "[2,2]");
}

/// How long a `psum` may take beside what strangers send, on a machine that does other things too.
const NORMAL: Duration = Duration::from_secs(2);

/// A cluster of two ranks under attack, over TCP on loopback, where everybody on the machine can connect.
struct Siege {
    cluster: TestCluster,
    client: client::Client,
    file: ClientFile,
    engine_file: EngineFile,
    context: Context,
    /// Somebody who has the key: what is wrong is not the signature.
    friend: Signer,
    count: u32,
}

impl Siege {
    fn begin(arguments: &[&str]) -> Siege {
        let mut cluster = TestCluster::controller(arguments);
        cluster.add_engines(Engines::Mpi, 2);
        cluster.client(&["wait", "-n", "2"]).ok();
        let read = |name: &str| {
            let path = cluster.profile().join(format!("security/ipcontroller-{name}.json"));
            std::fs::read_to_string(path).expect("it is there")
        };
        let file = ClientFile::parse(&read("client")).expect("our own file");
        let engine_file = EngineFile::parse(&read("engine")).expect("our own file");
        let friend = Signer::new(&file.common.key());
        let client = cluster.connect();
        Siege {
            client,
            context: Context::new(1).expect("a context"),
            friend,
            file,
            engine_file,
            cluster,
            count: 0,
        }
    }

    /// Every port where a stranger could send something.
    fn ports(&self) -> [u16; 5] {
        let common = &self.file.common;
        [common.registration, common.mux, common.task, common.control, self.file.broadcast]
    }

    fn header(&mut self, msg_type: &str) -> String {
        self.count += 1;
        format!(
            r#"{{"msg_id":"foe_{}","msg_type":"{msg_type}","session":"foe","username":"x","version":"5.3","date":"2026-01-01T00:00:00.000000Z"}}"#,
            self.count
        )
    }

    /// Frames with a right signature.
    fn signed(&self, frames: [&[u8]; 4]) -> Vec<Bytes> {
        let mut parts = vec![Bytes::from_static(DELIMITER), self.friend.sign(frames)];
        parts.extend(frames.map(Bytes::copy_from_slice));
        parts
    }

    fn request(&mut self, msg_type: &str, metadata: &str, content: &str) -> Vec<Bytes> {
        let header = self.header(msg_type);
        self.signed([header.as_bytes(), b"{}", metadata.as_bytes(), content.as_bytes()])
    }

    fn send_to(&self, port: u16, messages: &[Vec<Bytes>]) {
        let socket = Socket::dealer(&self.context, &SocketOptions::default()).expect("a socket");
        socket.connect(&self.file.common.url(port)).expect("the controller listens");
        for parts in messages {
            let _ = socket.send(parts).expect("libzmq takes it");
        }
        // Closing at once would throw away what has not left yet.
        socket.close(Duration::from_secs(5)).expect("it was open");
    }

    /// The same to every port.
    fn send(&self, messages: &[Vec<Bytes>]) {
        for port in self.ports() {
            self.send_to(port, messages);
        }
    }

    /// What the controller answers to a message with a right signature.
    fn answer(&self, port: u16, parts: &[Bytes]) -> String {
        let socket = Socket::dealer(&self.context, &SocketOptions::default()).expect("a socket");
        socket.connect(&self.file.common.url(port)).expect("the controller listens");
        let _ = socket.send(parts).expect("libzmq takes it");
        let mut answer = None;
        wait_until("there is an answer", || {
            if let Ok(Some(Received::Message(message))) = socket.receive() {
                answer = Some(message.parts.iter().map(|part| String::from_utf8_lossy(part)).collect());
            }
            answer.is_some()
        });
        answer.unwrap_or_default()
    }

    fn connection(&self) -> TcpStream {
        let address = self.file.common.url(self.file.common.registration);
        let address = address.strip_prefix("tcp://").expect("it listens on TCP").to_owned();
        let stream = TcpStream::connect(address).expect("the controller listens");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a time");
        stream
    }

    /// Whether the controller ends a connection on which these bytes came; it may greet first.
    fn is_thrown_out(&self, bytes: &[u8]) -> bool {
        let mut stream = self.connection();
        let _ = stream.write_all(bytes);
        let mut greeting = [0; 1024];
        loop {
            match stream.read(&mut greeting) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
            }
        }
    }

    fn refused(&self) -> BTreeMap<String, u64> {
        self.client.cluster_status().expect("the hub answers").refused.into_iter().collect()
    }

    /// Attacks, waits until it was counted under `reason`, and looks whether the cluster is as before.
    #[track_caller]
    fn expect(&mut self, name: &str, reason: &str, attack: impl FnOnce(&mut Siege)) {
        let count = |siege: &Siege| siege.refused().get(reason).copied().unwrap_or(0);
        let before = count(self);
        attack(self);
        wait_until(&format!("{name} is counted as {reason}"), || count(self) > before);
        self.stands(name);
    }

    #[track_caller]
    fn stands(&self, name: &str) {
        let begun = Instant::now();
        let sums = self.client.all().psum("1").expect("engines").get_within(DEADLINE).expect("it ends");
        assert_eq!(sums, [Value::Int(2), Value::Int(2)], "after {name}");
        assert!(begun.elapsed() < NORMAL, "after {name}, psum took {:?}", begun.elapsed());
    }
}

const DEADLINE: Duration = Duration::from_secs(30);

/// ZMTP 3.1: the greeting of a peer with the mechanism NULL.
fn greeting(mechanism: &str) -> Vec<u8> {
    let mut bytes = vec![0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 3, 1];
    bytes.extend(mechanism.as_bytes());
    bytes.resize(64, 0);
    bytes
}

/// And its READY, as a DEALER.
fn ready() -> Vec<u8> {
    let mut body = b"\x05READY\x0bSocket-Type\0\0\0\x06DEALER".to_vec();
    body.splice(0..0, [0x04, body.len() as u8]);
    body
}

#[test]
fn hostile_input_of_any_kind_is_refused_and_psum_keeps_its_time() {
    let mut siege = Siege::begin(&[]);
    siege.stands("nothing");

    // Messages whose frames or signatures are wrong.
    siege.expect("a wrong key", "wrongly_signed", |siege| {
        let mut stranger = Session::new("stranger".into(), "s", 1, &Key::new("not the key"));
        let empty = serde_json::json!({});
        let now = Date::from_micros(1_800_000_000_000_000);
        let parts = stranger.message(now, "connection_request", &empty, &empty, vec![]).to_parts(&[]);
        siege.send(&[parts]);
    });
    siege.expect("no signature", "unsigned", |siege| {
        let mut parts = siege.request("connection_request", "{}", "{}");
        parts[1] = Bytes::new();
        siege.send(&[parts]);
    });
    siege.expect("half a signature", "wrongly_signed", |siege| {
        let mut parts = siege.request("connection_request", "{}", "{}");
        parts[1] = parts[1].slice(..32);
        siege.send(&[parts]);
    });
    siege.expect("one changed byte", "wrongly_signed", |siege| {
        let mut parts = siege.request("execute_request", "{}", r#"{"code":"1"}"#);
        parts[5] = Bytes::from_static(br#"{"code":"2"}"#);
        siege.send(&[parts]);
    });
    siege.expect("a replay", "repeated", |siege| {
        let parts = siege.request("connection_request", "{}", "{}");
        siege.send(&[parts.clone(), parts]);
    });
    siege.expect("a replay on another connection", "repeated", |siege| {
        let parts = siege.request("connection_request", "{}", "{}");
        let port = siege.file.common.registration;
        siege.send_to(port, std::slice::from_ref(&parts));
        siege.send_to(port, &[parts]);
    });
    siege.expect("frames cut differently", "not_json", |siege| {
        let mut parts = siege.request("connection_request", "{}", "{}");
        parts[3] = Bytes::from([parts[3].as_ref(), parts[4].as_ref()].concat());
        parts[4] = Bytes::new();
        siege.send(&[parts]);
    });
    siege.expect("too few frames", "frames", |siege| {
        let parts = siege.request("connection_request", "{}", "{}");
        siege.send(&[parts[..4].to_vec()]);
    });
    siege.expect("no delimiter", "frames", |siege| {
        siege.send(&[vec![Bytes::from_static(b"\xff\xfe"), Bytes::new()]]);
    });
    siege.expect("an empty message", "frames", |siege| siege.send(&[vec![Bytes::new()]]));
    siege.expect("a million frames", "oversized", |siege| {
        let port = siege.file.common.registration;
        siege.send_to(port, &[vec![Bytes::from_static(b"x"); 1_000_000]]);
    });
    siege.expect("a giant header", "frames", |siege| {
        let mut parts = siege.request("connection_request", "{}", "{}");
        parts[2] = Bytes::from(vec![b' '; protocol::limits::HEADER_BYTES_MAX + 1]);
        siege.send(&[parts]);
    });
    siege.expect("deep JSON", "not_json", |siege| {
        let deep = format!(r#"{{"a":{}1{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
        let parts = siege.request("connection_request", "{}", &deep);
        siege.send(&[parts]);
    });
    siege.expect("bytes that are no UTF-8", "not_json", |siege| {
        let header = siege.header("connection_request");
        let parts = siege.signed([header.as_bytes(), b"{}", b"{}", b"{\"a\":\"\xff\xfe\"}"]);
        siege.send(&[parts]);
    });
    siege.expect("a list for a header", "not_json", |siege| {
        let parts = siege.signed([b"[1,2]", b"{}", b"{}", b"{}"]);
        siege.send(&[parts]);
    });
    siege.expect("a header without a type", "header", |siege| {
        let parts = siege.signed([br#"{"msg_id":"a","session":"foe"}"#, b"{}", b"{}", b"{}"]);
        siege.send(&[parts]);
    });
    siege.expect("a header whose id is a number", "header", |siege| {
        let header = siege.header("connection_request").replace("\"foe_", "1,\"x\":\"foe_");
        let parts = siege.signed([header.as_bytes(), b"{}", b"{}", b"{}"]);
        siege.send(&[parts]);
    });

    // Messages of somebody who has the key, and asks for what makes no sense.
    let [registration, mux, task, ..] = siege.ports();
    let unknown = siege.request("make_coffee", "{}", "{}");
    assert!(siege.answer(registration, &unknown).contains("error"), "it is told");
    siege.stands("an unknown question");
    let hollow =
        siege.request("apply_request", r#"{"after":5,"follow":{"a":1},"targets":"x","retries":-1}"#, "{}");
    assert!(siege.answer(task, &hollow).contains("\"error\""), "it is told");
    siege.stands("dependencies that are none");
    let register = siege.request(
        "registration_request",
        "{}",
        &format!(r#"{{"uuid":"{}","id":0}}"#, "u".repeat(100_000)),
    );
    assert!(siege.answer(siege.engine_file.common.registration, &register).contains("error"));
    siege.stands("an engine with a giant name");
    let uuid = siege.client.engines()[0].uuid.to_string();
    let twin = siege.request("registration_request", "{}", &format!(r#"{{"uuid":"{uuid}"}}"#));
    assert!(siege.answer(siege.engine_file.common.registration, &twin).contains("error"));
    siege.stands("an engine with the name of another one");

    // A pickle that would run a command, to an engine that does not read pickles.
    let marker = siege.cluster.profile().join("owned");
    let bomb = format!("cos\nsystem\n(S'touch {}'\ntR.", marker.display());
    let mut parts = siege.request("apply_request", "{}", "{}");
    parts.insert(0, Bytes::from(uuid));
    parts.extend([Bytes::from(bomb.clone()), Bytes::from(bomb)]);
    assert!(siege.answer(mux, &parts).contains("error"), "the engine says that it cannot read it");
    siege.stands("a pickle bomb");
    assert!(!marker.exists(), "the pickle was run");

    // Connections that are no peers' at all.
    assert!(siege.is_thrown_out(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"), "a browser");
    siege.stands("a browser");
    assert!(siege.is_thrown_out(&greeting("PLAIN")), "a peer with another mechanism");
    siege.stands("another mechanism");
    let giant =
        [greeting("NULL"), ready(), vec![0x02, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]].concat();
    assert!(siege.is_thrown_out(&giant), "a frame of 2^63 - 1 bytes");
    siege.stands("a frame of 2^63 - 1 bytes");
    let half_open: Vec<TcpStream> = (0..500).map(|_| siege.connection()).collect();
    siege.stands("half-open connections");
    let mut slow = siege.connection();
    for byte in &greeting("NULL")[..20] {
        slow.write_all(&[*byte]).expect("it is patient");
        std::thread::sleep(Duration::from_millis(5));
    }
    siege.stands("a slow peer");
    drop((half_open, slow));

    // A flood, while the cluster works.
    let flooding = std::sync::atomic::AtomicBool::new(true);
    let before = siege.refused().get("wrongly_signed").copied().unwrap_or(0);
    let mut forged = siege.request("execute_request", "{}", r#"{"code":"1"}"#);
    forged[1] = Bytes::from(vec![b'0'; 64]);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let socket = Socket::dealer(&siege.context, &SocketOptions::default()).expect("a socket");
            socket.connect(&siege.file.common.url(mux)).expect("the controller listens");
            while flooding.load(std::sync::atomic::Ordering::Relaxed) {
                for _ in 0..100 {
                    let _ = socket.send(&forged).expect("libzmq takes it");
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        for _ in 0..20 {
            siege.stands("a flood has begun");
        }
        flooding.store(false, std::sync::atomic::Ordering::Relaxed);
    });
    let counted = siege.refused().get("wrongly_signed").copied().unwrap_or(0);
    assert!(counted > before + 100, "the flood was counted: {before}, {counted}");
}

#[test]
fn data_that_was_changed_or_not_signed_is_refused_where_digests_are_required_and_whoever_sent_it_is_told() {
    let mut siege = Siege::begin(&["--require-buffer-digest"]);
    siege.cluster.client(&["push", "a=[1.5, 2.5]"]).ok();
    assert_eq!(siege.cluster.client(&["pull", "a", "--json"]).ok().trim(), "[[1.5,2.5],[1.5,2.5]]");
    siege.stands("our own data");

    let mux = siege.file.common.mux;
    let uuid = siege.client.engines()[0].uuid.to_string();
    let another = format!(r#"{{"buffer_digest":"{}"}}"#, "0".repeat(64));
    for (metadata, said) in [("{}", "has no digest"), (another.as_str(), "was changed on its way")] {
        let mut parts = siege.request("apply_request", metadata, "{}");
        parts.insert(0, Bytes::from(uuid.clone()));
        parts.push(Bytes::from_static(b"data"));
        let answer = siege.answer(mux, &parts);
        assert!(answer.contains("BufferError") && answer.contains(said), "{answer}");
        siege.stands(said);
    }
}
