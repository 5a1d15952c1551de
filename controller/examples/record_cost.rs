//! What it costs to remember a task in memory: `cargo run --release -p controller --example record_cost`.
//!
//! Each task is submitted, assigned and replied to, with half of its bytes in the request and half in the reply, in
//! a store that is full: each new record pushes out an old one. What the machine does to say it (cloning handles of
//! frames) is measured apart and taken off.

use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use controller::TaskId;
use controller::machine::{Address, Channel, Client};
use controller::records::memory::Memory;
use controller::records::record::Bounds;
use controller::records::{Change, Queue};
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
}

/// The time for all tasks; without a store, of what is said only.
fn run(bytes: usize, stores: bool) -> Duration {
    let mut session = Session::new(SessionId::from("5f0e2a7c-90d1f3b2a4c6e8"), "user", 4711, &Key::new("k"));
    let mut memory = Memory::new(Bounds::MEMORY, SessionId::from("controller"));
    let engine = EngineUuid::from("c89231aa-ef70bb59d405111d8bb90ad3");
    let client =
        Client { channel: Channel::Task, address: Address::Connection(Bytes::from_static(b"\0abcd")) };
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
    // Names are there before anything is measured: on the wire they come with the message.
    let names: Vec<MsgId> =
        (0..TASKS).map(|number| format!("5f0e2a7c-90d1f3b2a4c6e8_4711_{number}").into()).collect();
    let start = cpu_time();
    for (number, msg_id) in names.iter().enumerate() {
        for change in changes(number as u64, msg_id, &client, &engine, &request, &reply) {
            if stores {
                memory.remember(now, change);
            } else {
                black_box(change);
            }
        }
    }
    cpu_time() - start
}

/// Of this process: other programs take turns on the cores, but none of this.
fn cpu_time() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("the system counts");
    let of =
        |time: nix::sys::time::TimeVal| Duration::new(time.tv_sec() as u64, time.tv_usec() as u32 * 1000);
    of(usage.user_time()) + of(usage.system_time())
}

fn changes(
    number: u64,
    msg_id: &MsgId,
    client: &Client,
    engine: &EngineUuid,
    request: &WireMessage,
    reply: &WireMessage,
) -> [Change; 3] {
    let task = TaskId(number);
    [
        Change::Submitted {
            task,
            msg_id: msg_id.clone(),
            client: client.clone(),
            queue: Queue::Task,
            engine: None,
            request: request.clone(),
        },
        Change::Assigned { task, msg_id: msg_id.clone(), engine: engine.clone() },
        Change::Replied {
            task,
            msg_id: msg_id.clone(),
            engine: engine.clone(),
            status: Status::Ok,
            reply: reply.clone(),
        },
    ]
}
