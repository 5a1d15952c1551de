//! Engines die; futures do not hang.

use std::time::{Duration, Instant};

use client::{Failure, Targets};
use nix::sys::signal::Signal;
use tests::{Engines, TestCluster, processes_with, signal, wait_until};

/// Waits until the engine computes, so that the request is on the engine and not on its way.
#[track_caller]
fn wait_until_busy(client: &client::Client, id: client::EngineId) {
    wait_until("the engine computes", || {
        let states =
            client.engine_status(&Targets::from(id), Duration::from_secs(5)).expect("the hub is there");
        states.get(&id).is_some_and(|state| state.busy)
    });
}

fn pid_of(client: &client::Client, id: client::EngineId) -> u32 {
    let engine = client.engines().into_iter().find(|engine| engine.id == id).expect("it is registered");
    engine.description.as_ref().expect("it is one of ours").pid
}

#[test]
fn futures_of_a_killed_engine_end_within_a_second_and_name_it() {
    let cluster = TestCluster::start(Engines::Local, 2);
    let client = cluster.connect();
    let [victim, other] = client.ids()[..] else { panic!("two engines were started") };

    let direct = client.direct(victim).execute("sleep(60)").expect("it can be sent");
    let queued = client.direct(victim).execute("1").expect("it can be sent");
    let broadcast = client.broadcast(vec![victim, other]).execute("rank()").expect("it can be sent");
    wait_until_busy(&client, victim);
    let balanced = client.balanced().targets(victim).execute("1").expect("it can be sent");
    // It has a connection of its own: before it has come, it could not be lost with the engine.
    wait_until("the balanced task has come, too", || {
        let (lengths, _) = client.queue_status(&Targets::from(victim)).expect("the hub is there");
        lengths.get(&victim).is_some_and(|queue| queue.tasks == 1)
    });

    let killed = Instant::now();
    signal(pid_of(&client, victim), Signal::SIGKILL);
    for result in [&direct, &queued, &broadcast, &balanced] {
        let outcomes = result.join(Duration::from_secs(10)).expect("it ends");
        let failure =
            outcomes.iter().find_map(|outcome| outcome.result.as_ref().err()).expect("one part failed");
        let Failure::Remote(error) = failure else { panic!("{failure}") };
        assert_eq!(error.ename, "EngineError", "{error}");
        assert!(error.to_string().contains(&format!("Engine {victim} (host ")), "{error}");
    }
    assert!(killed.elapsed() < Duration::from_secs(1), "it took {:?}", killed.elapsed());
    assert_eq!(client.ids(), [other]);
    assert!(client.direct(other).pull("1 + 1").expect("it can be asked").get().is_ok());
}

#[test]
fn a_task_with_retries_runs_elsewhere_when_its_engine_dies() {
    let cluster = TestCluster::start(Engines::Local, 2);
    let client = cluster.connect();
    let task = client.balanced().retries(2).execute("sleep(1); 42").expect("it can be sent");
    let mut running = None;
    wait_until("an engine runs the task", || {
        let states = client.engine_status(&Targets::All, Duration::from_secs(5)).expect("the hub is there");
        running = states.into_iter().find(|(_, state)| state.busy).map(|(id, _)| id);
        running.is_some()
    });
    let victim = running.expect("just found");
    signal(pid_of(&client, victim), Signal::SIGKILL);
    let outcomes = task.join(Duration::from_secs(20)).expect("it ends");
    assert_eq!(outcomes[0].displayed.as_deref(), Some("42"), "{outcomes:?}");
    assert_ne!(outcomes[0].id(), Some(victim));
}

#[test]
fn futures_end_when_the_controller_is_killed() {
    let cluster = TestCluster::start(Engines::Local, 1);
    let client = cluster.connect();
    let result = client.all().execute("sleep(60)").expect("it can be sent");
    wait_until_busy(&client, client.ids()[0]);
    signal(cluster.controller_pid(), Signal::SIGKILL);
    let outcomes = result.join(Duration::from_secs(30)).expect("it ends");
    assert!(matches!(&outcomes[0].result, Err(Failure::LostContact(_))), "{outcomes:?}");
}

#[test]
fn no_rank_outlives_its_launcher() {
    let cluster = TestCluster::start(Engines::Mpi, 2);
    // Engines, their launcher and its proxies name the profile; the controller does too.
    let others = || {
        let mut pids = processes_with(cluster.profile());
        pids.retain(|pid| *pid != cluster.controller_pid());
        pids
    };
    assert!(others().len() >= 3, "{:?}", others());
    signal(cluster.launcher_pid(0), Signal::SIGKILL);
    wait_until("all ranks have ended", || others().iter().all(|pid| *pid == cluster.launcher_pid(0)));
}

#[test]
fn a_stopped_engine_is_lost_and_returns_with_its_id_and_its_names() {
    let mut cluster = TestCluster::controller(&["--ping", "100", "--heartbeat-misses", "3"]);
    cluster.add_engines(Engines::Local, 2);
    cluster.client(&["wait", "-n", "2"]).ok();
    let client = cluster.connect();
    let [first, second] = client.ids()[..] else { panic!("two engines were started") };
    client.all().execute("x = 7").expect("it can be sent").get().expect("it runs");
    let pid = pid_of(&client, first);
    signal(pid, Signal::SIGSTOP);
    let pending = client.direct(first).execute("x").expect("it can be sent");
    let outcomes = pending.join(Duration::from_secs(20)).expect("it ends");
    assert!(
        matches!(&outcomes[0].result, Err(Failure::Remote(error)) if error.ename == "EngineError"),
        "{outcomes:?}"
    );
    wait_until("everybody knows that it is gone", || client.ids() == [second]);
    signal(pid, Signal::SIGCONT);
    wait_until("everybody knows that it is back", || client.ids() == [first, second]);
    let again = client.direct(first).execute("x").expect("it can be sent");
    let outcomes = again.join(Duration::from_secs(20)).expect("it ends");
    assert_eq!(outcomes[0].displayed.as_deref(), Some("7"), "{outcomes:?}");
}
