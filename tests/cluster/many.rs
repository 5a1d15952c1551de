//! Many engines, many tasks: everything joins, nothing grows.

use std::time::Instant;

use bytes::Bytes;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use protocol::connection_file::{ClientFile, EngineFile};
use tests::stub::{StubClient, StubEngines, wait_for_engines};
use tests::{TestCluster, resident_mib, wait_until};
use transport::Context;

const ENGINES: usize = 1_000;

/// libzmq allows about a thousand sockets a context; an engine has four, and one more while it registers.
const ENGINES_PER_CONTEXT: usize = 125;

/// Connections and sockets of a stub engine.
const FILES_PER_ENGINE: u64 = 11;

fn files(cluster: &TestCluster) -> (ClientFile, EngineFile) {
    let security = cluster.profile().join("security");
    let read = |name: &str| std::fs::read_to_string(security.join(name)).expect("the controller wrote it");
    let client = ClientFile::parse(&read("ipcontroller-client.json")).expect("the controller wrote it well");
    (client, EngineFile::parse(&read("ipcontroller-engine.json")).expect("the controller wrote it well"))
}

#[test]
fn a_thousand_engines_that_register_at_once_all_join() {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("the system tells");
    let needed = ENGINES as u64 * FILES_PER_ENGINE + 1_000;
    assert!(most >= needed, "this test needs {needed} open files and may have {most}: raise `ulimit -Hn`");
    setrlimit(Resource::RLIMIT_NOFILE, most, most).expect("up to the hard limit everybody may");

    let cluster = TestCluster::controller(&["--log-level", "30"]);
    let (client, engine) = files(&cluster);
    let started = Instant::now();
    let engines: Vec<(StubEngines, Context)> = std::thread::scope(|scope| {
        let register = || {
            let context = Context::new(1).expect("a context");
            let engines = StubEngines::register(&context, &engine, ENGINES_PER_CONTEXT);
            (engines.expect("all register"), context)
        };
        let threads: Vec<_> = (0..ENGINES / ENGINES_PER_CONTEXT).map(|_| scope.spawn(register)).collect();
        threads.into_iter().map(|thread| thread.join().expect("it registers")).collect()
    });
    let context = Context::new(1).expect("a context");
    wait_for_engines(&context, &client, ENGINES).expect("all join");
    eprintln!("{ENGINES} engines joined within {:?}", started.elapsed());

    // Every one of them can be reached, and none got another's id.
    let endpoint = client.common.url(client.common.mux);
    let mut stub = StubClient::connect(&context, &endpoint, &client.common.key()).expect("a socket");
    for uuid in engines.iter().flat_map(|(engines, _)| &engines.uuids) {
        stub.submit(Some(uuid), &Bytes::new()).expect("it can be sent");
    }
    (0..ENGINES).for_each(|_| stub.reply().expect("each answers"));

    drop(engines);
    wait_until("all engines are gone from the lists", || {
        let status = cluster.client(&["status", "--json"]).ok();
        let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
        status["cluster"]["engines"].as_object().is_some_and(serde_json::Map::is_empty)
    });
}

/// Names a variable for a longer test: so many tasks after the first.
const TASKS: &str = "COMMWORLD_TASKS";

#[test]
fn a_hundred_thousand_tasks_leave_no_more_memory_than_ten_thousand() {
    let cluster = TestCluster::controller(&["--log-level", "30", "--db-records", "1000"]);
    let (client, engine) = files(&cluster);
    let context = Context::new(1).expect("a context");
    let engines = StubEngines::register(&context, &engine, 4).expect("they register");
    wait_for_engines(&context, &client, 4).expect("they join");
    let endpoint = client.common.url(client.common.task);
    let mut stub = StubClient::connect(&context, &endpoint, &client.common.key()).expect("a socket");
    let mut run = |count: usize| {
        let payload = Bytes::from(vec![0; 500]);
        for index in 0..count + 64 {
            if index >= 64 {
                stub.reply().expect("each task is answered");
            }
            if index < count {
                stub.submit(None, &payload).expect("it can be sent");
            }
        }
    };
    // Until signatures, ends of tasks and records are as many as are remembered.
    run(140_000);
    let before = resident_mib(cluster.controller_pid());
    run(std::env::var(TASKS).map_or(100_000, |text| text.parse().expect("a number of tasks")));
    let grown = resident_mib(cluster.controller_pid()) - before;
    assert!(grown < 4.0, "the controller grew by {grown} MiB from {before} MiB");
    drop(engines);
}
