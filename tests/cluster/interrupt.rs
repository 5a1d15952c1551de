//! Collectives and loops end when the user says so, and nothing is left behind for the next call.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tests::{Engines, TestCluster, cpu_time, program, wait_until};

/// Starts a cell in the background and waits until an engine runs it.
fn start_cell(
    cluster: &TestCluster,
    code: &str,
    running: impl Fn(&serde_json::Value) -> bool,
) -> std::process::Child {
    let child = Command::new(program("client"))
        .arg("--profile-dir")
        .arg(cluster.profile())
        .args(["px", code])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the client was built");
    let client = cluster.connect();
    wait_until("the cell runs", || {
        let states = client
            .engine_status(&client::Targets::All, Duration::from_secs(5))
            .expect("the engines answer while they compute");
        running(&serde_json::to_value(states).expect("plain data"))
    });
    child
}

/// The processes of the engines.
fn pids_of(client: &client::Client) -> Vec<u32> {
    let engines = client.engines();
    engines
        .iter()
        .filter_map(|engine| engine.description.as_ref())
        .map(|description| description.pid)
        .collect()
}

fn waiting_ranks(states: &serde_json::Value) -> usize {
    states
        .as_object()
        .map_or(0, |engines| engines.values().filter(|state| state["waiting_in"].is_string()).count())
}

#[test]
fn an_interrupt_frees_the_ranks_that_wait_for_one_that_never_comes() {
    let cluster = TestCluster::start(Engines::Mpi, 4);
    let cell = start_cell(&cluster, "if rank() != 3 { barrier() }", |states| waiting_ranks(states) == 3);

    let interrupted = Instant::now();
    cluster.client(&["interrupt"]).ok();
    let output = cell.wait_with_output().expect("it ends");
    let elapsed = interrupted.elapsed();
    assert_eq!(output.status.code(), Some(1), "three ranks failed");
    let shown =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(shown.contains("barrier") && shown.contains("rank 3"), "{shown}");
    // Two programs were started and ended in this time as well; the benchmark measures the interrupt alone.
    assert!(elapsed < Duration::from_millis(1500), "it took {elapsed:?}");

    cluster.client(&["px", "s = psum(rank() + 1)"]).ok();
    assert_eq!(cluster.client(&["pull", "s", "--json"]).ok().trim(), "[10,10,10,10]");
}

#[test]
fn an_interrupt_is_answered_within_250_ms() {
    let cluster = TestCluster::start(Engines::Mpi, 4);
    let client = cluster.connect();
    for attempt in 0..5 {
        let result = client.all().execute("if rank() != 3 { barrier() }").expect("it can be sent");
        wait_until("three ranks wait", || {
            let states =
                client.engine_status(&client::Targets::All, Duration::from_secs(5)).expect("they answer");
            waiting_ranks(&serde_json::to_value(states).expect("plain data")) == 3
        });
        let interrupted = Instant::now();
        client.all().interrupt().expect("the engines are there");
        let outcomes = result.join(Duration::from_secs(10)).expect("it ends");
        let elapsed = interrupted.elapsed();
        assert!(elapsed < Duration::from_millis(250), "attempt {attempt} took {elapsed:?}");
        assert_eq!(outcomes.iter().filter(|outcome| outcome.result.is_err()).count(), 3);
        let sums = client.all().psum("rank()").expect("it can be sent").get().expect("all are there");
        assert_eq!(sums, vec![client::Value::Int(6); 4], "attempt {attempt}");
    }
}

#[test]
fn an_interrupt_ends_an_endless_loop() {
    let cluster = TestCluster::start(Engines::Mpi, 2);
    let cell = start_cell(&cluster, "while true { }", |states| {
        states.as_object().is_some_and(|engines| engines.values().all(|state| state["busy"] == true))
    });
    cluster.client(&["interrupt"]).ok();
    let output = cell.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(1));
    cluster.client(&["px", "s = psum(1)"]).ok();
    assert_eq!(cluster.client(&["pull", "s", "--json"]).ok().trim(), "[2,2]");
}

#[test]
fn a_rank_that_waits_in_an_older_cell_is_told_and_the_next_reduction_is_right() {
    let cluster = TestCluster::start(Engines::Mpi, 4);
    // Rank 0 waits alone in the first cell; the second cell reaches all ranks, rank 0 behind the first.
    let cell = start_cell(&cluster, "if rank() == 0 { psum(100) }", |states| waiting_ranks(states) == 1);
    cluster.client(&["px", "s = psum(1)"]).ok();
    let output = cell.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(1), "rank 0 was left behind");
    let shown =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(shown.contains("without calling it"), "{shown}");
    assert_eq!(cluster.client(&["pull", "s", "--json"]).ok().trim(), "[4,4,4,4]");
}

#[test]
fn ranks_that_call_different_collectives_are_told_who_called_what() {
    let cluster = TestCluster::start(Engines::Mpi, 3);
    let finished = cluster.client(&["px", "if rank() == 1 { barrier() } else { psum(1) }"]);
    assert_eq!(finished.code(), 1);
    let shown = finished.stdout + &finished.stderr;
    assert!(
        shown.contains("rank 1 called barrier") && shown.contains("ranks 0 and 2 called allreduce"),
        "{shown}"
    );
    cluster.client(&["px", "s = psum(1)"]).ok();
    assert_eq!(cluster.client(&["pull", "s", "--json"]).ok().trim(), "[3,3,3]");
}

#[test]
fn idle_engines_use_no_cpu_and_long_waits_next_to_none() {
    let cluster = TestCluster::start(Engines::Mpi, 4);
    let client = cluster.connect();
    let pids: Vec<u32> = pids_of(&client);
    assert_eq!(pids.len(), 4);
    let used = |pids: &[u32]| pids.iter().map(|&pid| cpu_time(pid)).sum::<Duration>();

    let before = used(&pids);
    std::thread::sleep(Duration::from_secs(2));
    let idle = used(&pids) - before;
    assert!(idle <= Duration::from_millis(80), "four idle engines used {idle:?} in 2 s");

    let cell = start_cell(&cluster, "if rank() != 3 { barrier() }", |states| waiting_ranks(states) == 3);
    // The first second of a wait is spent spinning and napping; it is the long wait that must cost nothing.
    std::thread::sleep(Duration::from_millis(1500));
    let before = used(&pids);
    std::thread::sleep(Duration::from_secs(2));
    let waiting = used(&pids) - before;
    assert!(waiting <= Duration::from_millis(400), "three waiting ranks used {waiting:?} in 2 s");
    cluster.client(&["interrupt"]).ok();
    cell.wait_with_output().expect("it ends");
}
