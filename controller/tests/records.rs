//! A real controller that is killed, and the records that the next one finds.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use protocol::connection_file::ClientFile;
use protocol::id::SessionId;
use protocol::{Date, Key, Receiver, Session};
use serde_json::{Value as Json, json};
use tempfile::TempDir;
use transport::poll::{PollItem, poll};
use transport::{Context, Received, Sent, Socket, SocketOptions};

const PATIENCE: Duration = Duration::from_secs(30);

/// A controller, and a client of it.
struct Running {
    process: Child,
    session: Session,
    receiver: Receiver,
    query: Socket,
    mux: Socket,
    task: Socket,
    context: Context,
}

fn start(profile: &Path, flags: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_controller"))
        .arg("--profile-dir")
        .arg(profile)
        .args(flags)
        .stderr(Stdio::piped())
        .spawn()
        .expect("the controller was built with this test")
}

impl Running {
    fn start(place: &TempDir, name: &str) -> Running {
        Running::start_as(place, name, "")
    }

    fn start_as(place: &TempDir, name: &str, cluster_id: &str) -> Running {
        let profile = place.path();
        let dash = if cluster_id.is_empty() { "" } else { "-" };
        let file = profile.join(format!("security/ipcontroller{dash}{cluster_id}-client.json"));
        let _ = std::fs::remove_file(&file);
        let process = start(profile, &["--sqlitedb", "--quiet", "--cluster-id", cluster_id]);
        let end = Instant::now() + PATIENCE;
        let text = loop {
            match std::fs::read_to_string(&file) {
                Ok(text) => break text,
                Err(error) => assert!(Instant::now() < end, "no connection file: {error}"),
            }
            std::thread::yield_now();
        };
        let file = ClientFile::parse(&text).expect("just written");
        let session = Session::new(SessionId::from(name), "tester", 1, &Key::new(file.common.key.clone()));
        let context = Context::new(1).expect("a context");
        let dealer = |port: u16| {
            let socket = Socket::dealer(&context, &SocketOptions::default()).expect("a socket");
            socket.connect(&format!("tcp://127.0.0.1:{port}")).expect("an endpoint");
            socket
        };
        Running {
            process,
            receiver: Receiver::new(session.signer().clone()),
            session,
            query: dealer(file.common.registration),
            mux: dealer(file.common.mux),
            task: dealer(file.common.task),
            context,
        }
    }

    fn ask(&mut self, msg_type: &str, content: Json) -> Json {
        let request = self.session.message(today(), msg_type, &json!({}), &content, vec![]);
        assert_eq!(self.query.send(&request.to_parts(&[])).expect("it works"), Sent::Done);
        let ready = poll(&mut [PollItem::from(&self.query)], Some(PATIENCE)).expect("it works");
        assert_eq!(ready, 1, "no answer within {PATIENCE:?}");
        let Some(Received::Message(message)) = self.query.receive().expect("it works") else {
            panic!("no answer")
        };
        let (_, message) = self.receiver.open(message.parts).expect("signed by the controller");
        message.content().expect("JSON")
    }

    /// Whether `count` tasks are known, and then what the records say of all.
    fn records(&mut self, count: usize) -> Json {
        let end = Instant::now() + PATIENCE;
        loop {
            let keys = json!(["result_content", "completed", "content"]);
            let mut content = self.ask("db_request", json!({ "query": {}, "keys": keys }));
            if content["records"].as_array().map(Vec::len) == Some(count) {
                return content["records"].take();
            }
            assert!(Instant::now() < end, "not {count} records within {PATIENCE:?}: {content}");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn today() -> Date {
    Date::from_system_time(SystemTime::now())
}

#[test]
fn a_killed_controllers_records_are_there_for_the_next_and_what_had_not_ended_has() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let mut running = Running::start(&place, "one");
    // Nobody is there: one task ends at once with an error, the other waits.
    let content = json!({ "f": 1 });
    let to_nobody = running.session.message(today(), "apply_request", &json!({}), &content, vec![]);
    let parts = to_nobody.to_parts(&[Bytes::from_static(b"nobody")]);
    assert_eq!(running.mux.send(&parts).expect("it works"), Sent::Done);
    let ended = running.records(1);
    assert_eq!(ended[0]["result_content"]["ename"], "EngineError");
    let waits = running.session.message(today(), "execute_request", &json!({}), &content, vec![]);
    assert_eq!(running.task.send(&waits.to_parts(&[])).expect("it works"), Sent::Done);
    let before = running.records(2);
    assert_eq!((&before[0], &before[1]["completed"]), (&ended[0], &Json::Null));
    running.process.kill().expect("it runs");
    running.process.wait().expect("it was killed");
    drop(running);

    let mut running = Running::start(&place, "two");
    let after = running.records(2);
    assert_eq!(after[0], before[0]);
    assert_eq!((&after[1]["msg_id"], &after[1]["content"]), (&before[1]["msg_id"], &before[1]["content"]));
    assert_eq!(
        after[1]["result_content"]["evalue"],
        "the controller ended before this task did; submit it again"
    );
    let result =
        running.ask("result_request", json!({ "msg_ids": [after[1]["msg_id"]], "status_only": false }));
    let name = after[1]["msg_id"].as_str().expect("a name");
    assert_eq!(result[name]["result_header"]["msg_type"], "execute_reply");
    let _ = &running.context;
}

#[test]
fn a_second_cluster_of_a_profile_has_a_file_of_its_own_or_says_why_it_does_not_start() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let mut first = Running::start(&place, "one");
    let mut second = Running::start_as(&place, "two", "other");
    let request = second.session.message(today(), "apply_request", &json!({}), &json!({}), vec![]);
    let parts = request.to_parts(&[Bytes::from_static(b"nobody")]);
    assert_eq!(second.mux.send(&parts).expect("it works"), Sent::Done);
    second.records(1);
    first.records(0);
    for name in ["tasks.db", "tasks-other.db"] {
        assert!(place.path().join(name).exists(), "{name}");
    }

    let flags = ["--sqlitedb", "--quiet", "--cluster-id", "third", "--db-file", "tasks.db"];
    let output = start(place.path(), &flags).wait_with_output().expect("it ends");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.starts_with("error: failed to keep records in /"), "{text}");
    assert!(text.contains("tasks.db: another program uses it"), "{text}");
    let files = std::fs::read_dir(place.path().join("security")).expect("it is there");
    let names: Vec<String> =
        files.map(|file| file.expect("it is there").file_name().to_string_lossy().into_owned()).collect();
    assert!(names.iter().all(|name| !name.contains("third")), "{names:?}");
}
