//! Clusters of real processes, started and ended by the real `cluster`, with a controller and engines that only
//! pretend: see `fake/main.rs`.

#![expect(unreachable_pub, reason = "the harness is a module of this test, `pub` marks what it offers")]

mod harness;

use std::fs;

use harness::{Lab, MPIEXECS, has_program};

#[test]
fn ctrl_c_ends_every_process_and_leaves_no_file() {
    let lab = Lab::new();
    let mut start = lab.start(&["-n", "2"]);
    let ready = start.ready();
    assert_eq!(ready["ids"], serde_json::json!([0, 1]));
    let processes = lab.processes();
    assert_eq!(processes.len(), 3, "a controller and two engines");

    start.signal("INT");

    let ended = start.wait();
    assert_eq!(ended.code, 0, "{ended:?}");
    lab.assert_gone(&processes);
    lab.assert_no_files();
}

#[test]
fn engines_that_the_hub_has_told_to_end_are_not_hurried() {
    let lab = Lab::new();
    let mut start = lab.start_with("controller", "engine --slow", &["-n", "1", "--keep-logs"]);
    start.ready();

    start.signal("INT");

    assert_eq!(start.wait().code, 0);
    let logs: String = lab.logs().iter().map(|log| fs::read_to_string(log).unwrap()).collect();
    assert!(logs.contains("took its time"), "{logs}");
}

#[test]
fn sigterm_does_the_same() {
    let lab = Lab::new();
    let mut start = lab.start(&["-n", "1"]);
    start.ready();
    let processes = lab.processes();

    start.signal("TERM");

    assert_eq!(start.wait().code, 0);
    lab.assert_gone(&processes);
    lab.assert_no_files();
}

#[test]
fn an_mpi_world_is_started_and_ended_by_each_mpiexec() {
    for mpiexec in MPIEXECS.iter().filter(|mpiexec| has_program(mpiexec)) {
        let lab = Lab::new();
        let mut start = lab.start(&["-n", "3", "--engines", "mpi", "--mpiexec", mpiexec]);
        let ready = start.ready();
        assert_eq!(ready["ids"], serde_json::json!([0, 1, 2]), "{mpiexec}");
        let processes = lab.processes();
        assert!(processes.len() >= 5, "{mpiexec}: a controller, mpiexec and three ranks, but {processes:?}");

        start.signal("TERM");

        let ended = start.wait();
        assert_eq!(ended.code, 0, "{mpiexec}: {ended:?}");
        lab.assert_gone(&processes);
        lab.assert_no_files();
    }
}

#[test]
fn when_the_supervisor_of_an_mpi_world_is_killed_no_rank_is_left() {
    for mpiexec in MPIEXECS.iter().filter(|mpiexec| has_program(mpiexec)) {
        let lab = Lab::new();
        let mut start = lab.start(&["-n", "2", "--engines", "mpi", "--mpiexec", mpiexec]);
        let supervisor = i32::try_from(start.ready()["supervisor"].as_i64().unwrap()).unwrap();
        let processes = lab.processes();

        harness::kill(supervisor, "KILL");

        start.wait();
        lab.wait_until_gone(&processes);
        assert_eq!(lab.run(&["stop"]).code, 0, "{mpiexec}");
        assert!(!lab.cluster_file().exists(), "{mpiexec}");
    }
}

#[test]
fn a_rank_that_is_killed_later_is_named_and_the_controller_lives_on() {
    if !has_program("mpiexec.openmpi") {
        eprintln!("skipped: there is no mpiexec.openmpi");
        return;
    }
    let lab = Lab::new();
    let mut start = lab.start(&["-n", "2", "--engines", "mpi", "--mpiexec", "mpiexec.openmpi"]);
    start.ready();
    let processes = lab.processes();
    let rank_1 = processes.iter().copied().find(|pid| harness::mpi_rank(*pid) == Some(1)).unwrap();

    harness::kill(rank_1, "KILL");

    let note = start.report("note")["text"].as_str().unwrap().to_owned();
    assert!(note.starts_with("rank 1 on ") && note.contains(" exited on signal 9 (SIGKILL"), "{note}");
    assert!(harness::is_alive(processes[0]));
    start.signal("INT");
    assert_eq!(start.wait().code, 0);
    lab.assert_gone(&processes);
    lab.assert_no_files();
}

#[test]
fn a_controller_that_dies_at_start_is_named_with_its_last_lines() {
    let lab = Lab::new();
    let mut start = lab.start_with("controller --exit-with=7", "engine", &["-n", "1"]);
    let ended = start.wait();
    assert_eq!(ended.code, 4);
    let failure = ended.failure();
    assert_eq!(failure["message"], "failed to start the controller: it exited with code 7");
    assert_eq!(failure["last_lines"]["lines"], serde_json::json!(["fake controller: something is wrong"]));
    assert!(!lab.cluster_file().exists());
}

#[test]
fn an_engine_that_dies_at_start_is_named_and_takes_the_start_along() {
    let lab = Lab::new();
    let mut start = lab.start_with("controller", "engine --exit-with=3", &["-n", "1"]);
    let ended = start.wait();
    assert_eq!(ended.code, 4);
    let failure = ended.failure();
    assert_eq!(failure["message"], "failed to start engines: local engine 0 exited with code 3");
    assert_eq!(failure["last_lines"]["lines"], serde_json::json!(["fake engine: something is wrong"]));
    assert!(!lab.cluster_file().exists());
    assert!(!lab.security("ipcontroller-client.json").exists(), "the controller was ended too");
}

#[test]
fn a_rank_that_dies_at_start_is_named() {
    if !has_program("mpiexec.openmpi") {
        eprintln!("skipped: there is no mpiexec.openmpi");
        return;
    }
    let lab = Lab::new();
    let options = ["-n", "2", "--engines", "mpi", "--mpiexec", "mpiexec.openmpi"];
    let mut start = lab.start_with("controller", "engine --exit-with=7 --rank=1", &options);
    let ended = start.wait();
    assert_eq!(ended.code, 4);
    let failure = ended.failure();
    assert_eq!(failure["message"], "failed to start engines: rank 1 exited with code 7", "{failure}");
    let lines = failure["last_lines"]["lines"].to_string();
    assert!(lines.contains("rank 1: fake engine: something is wrong"), "{lines}");
}

#[test]
fn an_engine_that_dies_later_is_told_and_the_cluster_goes_on() {
    let lab = Lab::new();
    let mut start = lab.start(&["-n", "2"]);
    start.ready();
    let processes = lab.processes();

    harness::kill(processes[2], "KILL");

    let note = start.report("note")["text"].as_str().unwrap().to_owned();
    assert!(note.starts_with("local engine 1 exited on signal 9 (SIGKILL"), "{note}");
    assert!(harness::is_alive(processes[0]) && harness::is_alive(processes[1]));
    start.signal("INT");
    assert_eq!(start.wait().code, 0);
    lab.assert_gone(&processes);
}

#[test]
fn a_controller_that_dies_later_ends_everything() {
    let lab = Lab::new();
    let mut start = lab.start(&["-n", "2"]);
    start.ready();
    let processes = lab.processes();

    harness::kill(processes[0], "KILL");

    let ended = start.wait();
    assert_eq!(ended.code, 5);
    let message = ended.failure()["message"].as_str().unwrap().to_owned();
    assert!(message.starts_with("lost the controller: it exited on signal 9"), "{message}");
    lab.assert_gone(&processes);
    assert!(!lab.security("ipcontroller-client.json").exists(), "the dead controller's files are removed");
    assert!(!lab.cluster_file().exists());
}

#[test]
fn engines_that_never_register_are_given_up_in_time() {
    let lab = Lab::new();
    let mut start = lab.start_with("controller", "engine --silent", &["-n", "2", "--timeout", "1"]);
    let ended = start.wait();
    assert_eq!(ended.code, 4);
    assert_eq!(ended.failure()["message"], "failed to start engines: 0 of 2 registered within 1.00 s");
    assert!(!lab.cluster_file().exists());
}

#[test]
fn ctrl_c_before_all_is_ready_ends_what_was_started() {
    let lab = Lab::new();
    let mut start = lab.start_with("controller", "engine --silent", &["-n", "1"]);
    let processes = lab.wait_for_processes(2);

    start.signal("INT");

    let ended = start.wait();
    assert_eq!(ended.code, 1);
    assert_eq!(
        ended.failure()["message"].as_str().unwrap().rsplit(": ").next().unwrap(),
        "stopped by SIGINT before it was ready"
    );
    lab.assert_gone(&processes);
    assert!(!lab.cluster_file().exists());
}

#[test]
fn a_second_start_is_refused_and_the_first_is_left_alone() {
    let lab = Lab::new();
    let mut start = lab.start(&["-n", "1"]);
    start.ready();
    let before = fs::read(lab.cluster_file()).unwrap();

    let second = lab.start(&["-n", "1"]).wait();

    assert_eq!(second.code, 1);
    let failure = second.failure();
    assert!(failure["message"].as_str().unwrap().ends_with("is already running"), "{failure}");
    assert!(failure["hint"].as_str().unwrap().contains(" stop"), "{failure}");
    assert_eq!(fs::read(lab.cluster_file()).unwrap(), before);
    start.signal("INT");
    assert_eq!(start.wait().code, 0);
}

#[test]
fn a_controller_that_was_started_by_hand_is_not_replaced() {
    let lab = Lab::new();
    let mut by_hand = lab.controller_by_hand();

    let start = lab.start(&["-n", "1"]).wait();

    assert_eq!(start.code, 1);
    let failure = start.failure();
    assert!(failure["hint"].as_str().unwrap().starts_with("add engines to it with: cluster"), "{failure}");
    assert!(by_hand.try_wait().unwrap().is_none(), "it still runs");
    by_hand.kill().unwrap();
    by_hand.wait().unwrap();
}

#[test]
fn a_stale_file_does_not_hinder_a_start() {
    let lab = Lab::new();
    let mut start = lab.start(&["-n", "1"]);
    start.ready();
    let file = fs::read_to_string(lab.cluster_file()).unwrap();
    start.signal("INT");
    start.wait();
    fs::write(lab.cluster_file(), file).unwrap();
    fs::write(lab.security("ipcontroller-client.json"), "stale").unwrap();
    assert_eq!(lab.list()[0]["state"], "stale");

    let mut start = lab.start(&["-n", "1"]);

    start.ready();
    start.signal("INT");
    assert_eq!(start.wait().code, 0);
    lab.assert_no_files();
}

#[test]
fn a_cluster_in_the_background_is_stopped_from_another_shell() {
    let lab = Lab::new();
    let mut start = lab.start(&["-n", "2", "--daemonize"]);
    let ready = start.ready();
    assert_eq!(ready["in_background"], true);
    assert_eq!(start.wait().code, 0, "the command returns when all is ready");
    let processes = lab.processes();
    let list = lab.list();
    assert_eq!((&list[0]["state"], &list[0]["engines"]), (&"running".into(), &2.into()));

    let stop = lab.run(&["stop"]);

    assert_eq!(stop.code, 0, "{stop:?}");
    lab.assert_gone(&processes);
    lab.assert_no_files();
}

#[test]
fn a_failure_in_the_background_is_told_in_the_foreground() {
    let lab = Lab::new();
    let mut start = lab.start_with("controller --exit-with=7", "engine", &["-n", "1", "--daemonize"]);
    let ended = start.wait();
    assert_eq!(ended.code, 4);
    assert_eq!(ended.failure()["message"], "failed to start the controller: it exited with code 7");
}

#[test]
fn when_the_supervisor_is_killed_its_children_end_and_stop_cleans_up() {
    let lab = Lab::new();
    let mut start = lab.start(&["-n", "2"]);
    let supervisor = i32::try_from(start.ready()["supervisor"].as_i64().unwrap()).unwrap();
    let processes = lab.processes();

    harness::kill(supervisor, "KILL");
    start.wait();
    lab.wait_until_gone(&processes);
    let stop = lab.run(&["stop"]);

    assert_eq!(stop.code, 0, "{stop:?}");
    assert!(!lab.cluster_file().exists());
    assert!(!lab.security("ipcontroller-client.json").exists());
}

#[test]
fn processes_that_ignore_every_request_are_killed_by_stop() {
    let lab = Lab::new();
    let mut start = lab.start_with("controller --deaf", "engine --deaf", &["-n", "1"]);
    let supervisor = i32::try_from(start.ready()["supervisor"].as_i64().unwrap()).unwrap();
    let processes = lab.processes();
    harness::kill(supervisor, "KILL");
    start.wait();
    assert!(processes.iter().all(|pid| harness::is_alive(*pid)), "they are deaf");

    let stop = lab.run(&["stop"]);

    assert_eq!(stop.code, 0, "{stop:?}");
    assert!(stop.stdout.contains("\"killed\""), "{stop:?}");
    lab.assert_gone(&processes);
    assert!(!lab.cluster_file().exists());
    assert!(!lab.security("ipcontroller-client.json").exists());
}

#[test]
fn engines_are_added_to_a_running_controller_and_end_with_it() {
    let lab = Lab::new();
    let mut start = lab.start(&["-n", "1"]);
    start.ready();
    let mut more = lab.engines(&["-n", "2"]);
    assert_eq!(more.ready()["ids"], serde_json::json!([1, 2]));
    let processes = lab.processes();
    assert_eq!(processes.len(), 4);

    let stop = lab.run(&["stop"]);

    assert_eq!(stop.code, 0, "{stop:?}");
    assert_eq!(start.wait().code, 0);
    assert_eq!(more.wait().code, 0);
    lab.assert_gone(&processes);
    lab.assert_no_files();
}

#[test]
fn added_engines_go_alone() {
    let lab = Lab::new();
    let mut start = lab.start(&["-n", "1"]);
    start.ready();
    let first = lab.processes();
    let mut more = lab.engines(&["-n", "1"]);
    more.ready();
    let added: Vec<i32> = lab.processes().into_iter().filter(|pid| !first.contains(pid)).collect();

    more.signal("INT");

    assert_eq!(more.wait().code, 0);
    lab.assert_gone(&added);
    assert_eq!(lab.processes(), first);
    assert!(first.iter().all(|pid| harness::is_alive(*pid)));
    start.signal("INT");
    assert_eq!(start.wait().code, 0);
    lab.assert_no_files();
}

#[test]
fn a_client_that_shuts_the_cluster_down_ends_the_command_in_order() {
    let lab = Lab::new();
    let mut start = lab.start(&["-n", "1"]);
    start.ready();
    let processes = lab.processes();

    lab.shut_down_as_a_client();

    let ended = start.wait();
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(ended.stdout.contains("shut down by a client"), "{ended:?}");
    lab.assert_gone(&processes);
    lab.assert_no_files();
}

#[test]
fn commands_on_no_cluster_say_so_with_their_own_exit_code() {
    let lab = Lab::new();
    for command in [&["stop"][..], &["status"], &["engines", "-n", "1", "--engine-cmd", "true"], &["logs"]] {
        let ended = lab.run(command);
        assert_eq!(ended.code, 3, "{command:?}: {ended:?}");
    }
    assert_eq!(lab.run(&["start", "-n", "0"]).code, 2);
    assert_eq!(lab.run(&["start", "-n", "1", "--controller-cmd", "no-such-program"]).code, 4);
}

#[test]
fn clean_spares_what_runs_and_removes_what_does_not() {
    let lab = Lab::new();
    let mut start = lab.start(&["-n", "1", "--keep-logs"]);
    start.ready();
    let refused = lab.run(&["clean"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(lab.cluster_file().exists());
    start.signal("INT");
    assert_eq!(start.wait().code, 0);
    assert!(lab.logs().len() == 2, "kept as asked: {:?}", lab.logs());

    let cleaned = lab.run(&["clean"]);

    assert_eq!(cleaned.code, 0, "{cleaned:?}");
    lab.assert_no_files();
}

#[test]
fn no_secret_is_in_the_arguments_of_any_process() {
    let lab = Lab::new();
    let mut start = lab.start(&["-n", "1"]);
    start.ready();
    let file = fs::read_to_string(lab.security("ipcontroller-client.json")).unwrap();
    let key = serde_json::from_str::<serde_json::Value>(&file).unwrap()["key"].as_str().unwrap().to_owned();
    for pid in lab.processes() {
        for what in ["cmdline", "environ"] {
            let text = fs::read(format!("/proc/{pid}/{what}")).unwrap();
            assert!(!String::from_utf8_lossy(&text).contains(&key), "the key is in {what} of {pid}");
        }
    }
    start.signal("INT");
    assert_eq!(start.wait().code, 0);
}
