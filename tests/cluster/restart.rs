//! A controller is killed, and another one goes on.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use client::Failure;
use protocol::connection_file::ClientFile;
use protocol::id::SessionId;
use protocol::message::execute::EXECUTE_REQUEST;
use protocol::{Date, Receiver, Session};
use serde_json::{Value as Json, json};
use tests::{Engines, TestCluster, wait_until};
use transport::poll::{PollItem, poll};
use transport::{Context, Received, Sent, Socket, SocketOptions};

/// A client that, like stock ones, sends a request once and then waits for its reply.
struct Patient {
    session: Session,
    receiver: Receiver,
    query: Socket,
    mux: Socket,
    task: Socket,
    /// How often each request was answered, and the first answer.
    answers: BTreeMap<String, (usize, Json)>,
    _context: Context,
}

impl Patient {
    fn connect(cluster: &TestCluster) -> Patient {
        let path = cluster.profile().join("security/ipcontroller-client.json");
        let text = std::fs::read_to_string(path).expect("the controller wrote it");
        let file = ClientFile::parse(&text).expect("the controller wrote it well");
        let context = Context::new(1).expect("a context");
        let dealer = |port| {
            let socket = Socket::dealer(&context, &SocketOptions::default()).expect("a socket");
            socket.connect(&file.common.url(port)).expect("an endpoint");
            socket
        };
        let id = SessionId::from(transport::random::id());
        let session = Session::new(id, "patient", std::process::id(), &file.common.key());
        Patient {
            receiver: Receiver::new(session.signer().clone()),
            session,
            query: dealer(file.common.registration),
            mux: dealer(file.common.mux),
            task: dealer(file.common.task),
            answers: BTreeMap::new(),
            _context: context,
        }
    }

    /// Submits code to an engine, or to any.
    fn submit(&mut self, engine: Option<&str>, code: &str) {
        let today = Date::from_system_time(SystemTime::now());
        let content = json!({ "code": code, "silent": true });
        let (id, request) = self.session.request(today, EXECUTE_REQUEST, &json!({}), &content, vec![]);
        let route: Vec<Bytes> = engine.map(|uuid| Bytes::from(uuid.to_owned())).into_iter().collect();
        let socket = if engine.is_some() { &self.mux } else { &self.task };
        assert_eq!(socket.send(&request.to_parts(&route)).expect("it works"), Sent::Done);
        self.answers.insert(id.to_string(), (0, Json::Null));
    }

    /// What the hub answers.
    fn ask(&mut self, msg_type: &str, content: Json) -> Json {
        let today = Date::from_system_time(SystemTime::now());
        let request = self.session.message(today, msg_type, &json!({}), &content, vec![]);
        assert_eq!(self.query.send(&request.to_parts(&[])).expect("it works"), Sent::Done);
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(Received::Message(message)) = self.query.receive().expect("it works") {
                let (_, message) = self.receiver.open(message.parts).expect("signed");
                return message.content().expect("an object");
            }
            assert!(Instant::now() < end, "the hub does not answer");
            poll(&mut [PollItem::socket(&self.query)], Some(Duration::from_millis(50))).expect("it works");
        }
    }

    /// Takes what has come.
    fn take(&mut self) {
        for socket in [&self.mux, &self.task] {
            while let Some(Received::Message(message)) = socket.receive().expect("it works") {
                let (_, message) =
                    self.receiver.open(message.parts).expect("signed, and not for the second time");
                let parent =
                    message.parent().expect("an object").msg_id.expect("replies name what they answer");
                // Replies that may be anybody's come to everybody.
                let Some(answer) = self.answers.get_mut(parent.as_str()) else { continue };
                let content = message.content().expect("an object");
                if answer.0 > 0 {
                    // What may have been lost with a controller is said again, and is the same.
                    assert_eq!(answer.1, content, "another answer");
                }
                *answer = (answer.0 + 1, content);
            }
        }
    }

    fn unanswered(&mut self) -> usize {
        self.take();
        self.answers.values().filter(|(count, _)| *count == 0).count()
    }

    /// What became of the requests, when a late second answer would have come: ok, told lost.
    fn outcome(&mut self) -> (usize, usize) {
        let end = Instant::now() + Duration::from_secs(1);
        while Instant::now() < end {
            self.take();
            let mut items = [PollItem::socket(&self.mux), PollItem::socket(&self.task)];
            poll(&mut items, Some(Duration::from_millis(100))).expect("it works");
        }
        let (mut ok, mut lost) = (0, 0);
        for (id, (count, content)) in &self.answers {
            assert!((1..=2).contains(count), "{id} has {count} answers: {content}");
            match content["status"].as_str() {
                Some("ok") => ok += 1,
                _ => {
                    let words = content["evalue"].as_str().unwrap_or_default();
                    assert!(words.contains("when the controller was restarted"), "{content}");
                    lost += 1;
                }
            }
        }
        (ok, lost)
    }
}

#[test]
fn engines_tasks_and_clients_that_only_wait_outlive_a_killed_controller() {
    let mut cluster = TestCluster::controller(&["--restore", "--ping", "500", "--hwm", "1"]);
    cluster.add_engines(Engines::Local, 2);
    cluster.client(&["wait", "-n", "2"]).ok();
    cluster.client(&["px", "x = 7"]).ok();
    let before = cluster.connect();
    let uuids: Vec<String> = before.engines().iter().map(|engine| engine.uuid.to_string()).collect();
    let interrupted = before.all().execute("sleep(60)");

    let mut patient = Patient::connect(&cluster);
    // First, so that no task of this client is done before it.
    wait_until("the engines have the other client's sleep", || {
        let status = patient.ask("queue_request", json!({}));
        status["0"]["queue"] == 1 && status["1"]["queue"] == 1
    });
    for _ in 0..20 {
        patient.submit(None, "sleep(0.1)");
    }
    // Behind the minute of the other client, whose end frees the engines.
    for uuid in &uuids {
        patient.submit(Some(uuid), "x + 1");
    }
    wait_until("the controller has all requests", || {
        let status = patient.ask("queue_request", json!({}));
        let queued =
            |id: &str| status[id]["queue"].as_u64().unwrap_or(0) + status[id]["tasks"].as_u64().unwrap_or(0);
        // Per engine: the sleep, the direct request, one task.
        status["unassigned"] == 18 && queued("0") == 3 && queued("1") == 3
    });
    cluster.kill_and_restart_controller();
    let outcome = interrupted.expect("it was sent").join(Duration::from_secs(30)).expect("it ends");
    assert!(matches!(&outcome[0].result, Err(Failure::LostContact(_))), "{outcome:?}");

    let ids: Vec<String> = patient.answers.keys().cloned().collect();
    let status = patient.ask("result_request", json!({ "msg_ids": ids, "status_only": true }));
    let found = |list: &str| status[list].as_array().map_or(0, Vec::len);
    assert_eq!(found("pending") + found("completed"), 22, "the hub knows them still: {status}");

    wait_until("both engines are back", || cluster.client(&["wait", "-n", "2"]).status.success());
    cluster.client(&["interrupt"]).ok();
    wait_until("everything is answered", || patient.unanswered() == 0);
    assert_eq!(patient.outcome(), (22, 0));
    assert_eq!(cluster.client(&["pull", "x", "--json"]).ok().matches('7').count(), 2, "their names are kept");
    let after = cluster.connect();
    let same: Vec<String> = after.engines().iter().map(|engine| engine.uuid.to_string()).collect();
    assert_eq!(same, uuids);
}

#[test]
fn under_load_and_kills_every_request_is_answered() {
    let mut cluster = TestCluster::controller(&["--restore", "--ping", "500"]);
    cluster.add_engines(Engines::Local, 2);
    cluster.client(&["wait", "-n", "2"]).ok();
    let uuids: Vec<String> =
        cluster.connect().engines().iter().map(|engine| engine.uuid.to_string()).collect();
    let mut patient = Patient::connect(&cluster);
    for _ in 0..5 {
        let end = Instant::now() + Duration::from_millis(1000);
        let mut number = 0;
        while Instant::now() < end {
            let engine = (number % 5 == 0).then(|| uuids[number / 5 % 2].as_str());
            patient.submit(engine, "sleep(0.002)");
            number += 1;
            patient.take();
            std::thread::sleep(Duration::from_millis(4)); // The load's pace.
        }
        cluster.kill_and_restart_controller();
    }
    // What was lost on its way in is noticed when the client speaks again.
    let (mut speaks, end) = (Instant::now(), Instant::now() + Duration::from_secs(20));
    wait_until("everything is answered", || {
        if speaks.elapsed() > Duration::from_millis(500) {
            patient.submit(None, "1");
            speaks = Instant::now();
        }
        patient.unanswered() == 0 || Instant::now() > end
    });
    let (ok, lost) = patient.outcome();
    assert!(ok > 100 && lost * 20 <= ok, "{ok} ok, {lost} lost");
}

#[test]
fn a_controller_that_a_signal_ends_answers_what_waits() {
    let cluster = TestCluster::controller(&[]);
    let mut patient = Patient::connect(&cluster);
    for _ in 0..3 {
        patient.submit(None, "1");
    }
    wait_until("the controller has them", || patient.ask("queue_request", json!({}))["unassigned"] == 3);
    tests::signal(cluster.controller_pid(), nix::sys::signal::Signal::SIGTERM);
    wait_until("everything is answered", || patient.unanswered() == 0);
    for (count, content) in patient.answers.values() {
        let words = content["evalue"].as_str().unwrap_or_default();
        assert!(*count == 1 && words.contains("the controller was shut down"), "{content}");
    }
}
