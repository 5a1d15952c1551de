//! What it costs to remember a task: `cargo run --release -p controller --example record_cost`.
//!
//! Each task is submitted, assigned and replied to, with half of its bytes in the request and half in the reply. Memory
//! is full: each new record pushes out an old one. What the machine does to say it (cloning handles of frames) is
//! measured apart and taken off. Of a file, all that its thread does is counted.

use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::Bytes;
use controller::TaskId;
use controller::machine::{Address, Channel, Client};
use controller::records::memory::Memory;
use controller::records::record::Bounds;
use controller::records::{Change, Question, Queue};
use controller::shell::store::{Keeping, Store};
use nix::sys::resource::{UsageWho, getrusage};
use protocol::frames::WireMessage;
use protocol::id::{EngineUuid, MsgId, SessionId};
use protocol::message::Status;
use protocol::{Date, Key, Session};
use serde_json::json;

const TASKS: u64 = 200_000;

#[expect(clippy::print_stdout, reason = "a measurement says what it measured")]
fn main() {
    for bytes in [256, 2048, 16 * 1024, 1024 * 1024] {
        let mut best = [Duration::MAX; 2];
        for _ in 0..5 {
            best = [best[0].min(run(bytes, true)), best[1].min(run(bytes, false))];
        }
        let per_task = |time: Duration| time.as_secs_f64() * 1e9 / TASKS as f64;
        println!(
            "{bytes:>8} bytes: {:>6.0} ns a task, after {:.0} ns to say it",
            per_task(best[0].saturating_sub(best[1])),
            per_task(best[1])
        );
    }
    file();
    questions();
}

/// A file's cost for the loop, and for loop and thread together.
#[expect(clippy::print_stdout, reason = "a measurement says what it measured")]
fn file() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let keeping = Keeping::File { path: place.path().join("tasks.db"), spare: None, bounds: Bounds::FILE };
    let (waker, _wake) = transport::wake::waker().expect("a pair of sockets");
    let mut store = Store::open(&keeping, SessionId::from("controller"), false, waker).expect("a new file");
    let tasks = Tasks::new(2048, 50_000);
    let (start, begun) = (cpu_time(), Instant::now());
    tasks.tell(|change| store.remember(tasks.now, change));
    let told = begun.elapsed();
    drop(store);
    let per_task = |time: Duration| time.as_secs_f64() * 1e6 / tasks.names.len() as f64;
    println!(
        "in a file: {:.1} us a task for the loop, {:.1} us of processor time in all, {:.1} us until written",
        per_task(told),
        per_task(cpu_time() - start),
        per_task(begun.elapsed())
    );
}

/// How long the loop stands still while memory answers.
#[expect(clippy::print_stdout, reason = "a measurement says what it measured")]
fn questions() {
    let mut memory = Memory::new(Bounds { bytes: 1 << 30, ..Bounds::MEMORY }, SessionId::from("controller"));
    let tasks = Tasks::new(2048, 10_000);
    tasks.tell(|change| memory.remember(tasks.now, change));
    let query = |query: serde_json::Value, keys: Option<&[&str]>| Question::Query {
        query: query.as_object().expect("an object").clone(),
        keys: keys.map(|keys| keys.iter().map(|key| (*key).to_owned()).collect()),
    };
    for (name, question) in [
        ("history", Question::History),
        ("one record by name", query(json!({ "msg_id": tasks.names[77] }), None)),
        (
            "names of those submitted before",
            query(json!({ "submitted": { "$lt": tasks.now } }), Some(&["msg_id"])),
        ),
        ("all records, all fields", query(json!({}), None)),
    ] {
        let begun = cpu_time();
        black_box(memory.ask(question));
        println!("10000 records, {name}: {:.2} ms", (cpu_time() - begun).as_secs_f64() * 1e3);
    }
}

/// The time for all tasks; without a store, of what is said only.
fn run(bytes: usize, stores: bool) -> Duration {
    let tasks = Tasks::new(bytes, TASKS);
    let mut memory = Memory::new(Bounds::MEMORY, SessionId::from("controller"));
    let start = cpu_time();
    tasks.tell(|change| if stores { memory.remember(tasks.now, change) } else { drop(black_box(change)) });
    cpu_time() - start
}

/// What is said of many tasks. Names are there before: on the wire they come with the message.
struct Tasks {
    now: Date,
    names: Vec<MsgId>,
    client: Client,
    engine: EngineUuid,
    request: WireMessage,
    reply: WireMessage,
}

impl Tasks {
    fn new(bytes: usize, count: u64) -> Tasks {
        let mut session =
            Session::new(SessionId::from("5f0e2a7c-90d1f3b2a4c6e8"), "user", 4711, &Key::new("k"));
        let engine = EngineUuid::from("c89231aa-ef70bb59d405111d8bb90ad3");
        let now = Date::from_micros(1_767_323_045_678_901);
        let (_, request) = session.request(
            now,
            "apply_request",
            &json!({ "after": [], "follow": [], "timeout": null, "targets": [], "retries": 0, "label": null }),
            &json!({}),
            vec![Bytes::from(vec![1; bytes / 2])],
        );
        let metadata = json!({
            "started": now, "dependencies_met": true, "engine": engine, "is_broadcast": false,
            "is_coalescing": false, "original_msg_id": "", "label": null, "status": "ok"
        });
        let content = json!({ "status": "ok" });
        let buffers = vec![Bytes::from(vec![1; bytes / 2])];
        let reply = session.reply(now, "apply_reply", &request.header, &metadata, &content, buffers);
        Tasks {
            now,
            names: (0..count).map(|number| format!("5f0e2a7c-90d1f3b2a4c6e8_4711_{number}").into()).collect(),
            client: Client {
                channel: Channel::Task,
                address: Address::Connection(Bytes::from_static(b"\0abcd")),
            },
            engine,
            request,
            reply,
        }
    }

    fn tell(&self, mut tell: impl FnMut(Change)) {
        for (number, msg_id) in self.names.iter().enumerate() {
            let task = TaskId(number as u64);
            tell(Change::Submitted {
                task,
                msg_id: msg_id.clone(),
                client: self.client.clone(),
                queue: Queue::Task,
                engine: None,
                request: self.request.clone(),
            });
            tell(Change::Assigned { task, msg_id: msg_id.clone(), engine: self.engine.clone() });
            tell(Change::Replied {
                task,
                msg_id: msg_id.clone(),
                engine: self.engine.clone(),
                status: Status::Ok,
                reply: self.reply.clone(),
            });
        }
    }
}

/// Of this process: other programs take turns on the cores, but none of this.
fn cpu_time() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("the system counts");
    let of =
        |time: nix::sys::time::TimeVal| Duration::new(time.tv_sec() as u64, time.tv_usec() as u32 * 1000);
    of(usage.user_time()) + of(usage.system_time())
}
