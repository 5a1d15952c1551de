//! Engines in jobs of a real Slurm with two nodes.

use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tests::slurm::{Slurm, runs_for};
use tests::{run, signal, wait_until};

use super::Place;

fn place(slurm: &Slurm) -> Place<'_> {
    Place::new(|program| slurm.command(program))
}

#[test]
fn one_line_starts_a_world_over_two_nodes_and_another_adds_a_second_world() {
    let slurm = Slurm::start(2);
    let place = place(&slurm);

    let started =
        place.cluster(&["start", "-n", "4", "--engines", "slurm", "--nodes", "2", "--daemonize"]).ok();

    assert!(started.contains("4 MPI engines (Slurm) ready"), "{started}");
    place.client(&["px", "s = psum(rank() + 1)"]).ok();
    assert_eq!(place.client(&["px", "s"]).ok(), "[0-3] 10\n");
    place.cluster(&["engines", "-n", "2", "--engines", "slurm", "--daemonize"]).ok();
    place.client(&["--targets", "4,5", "px", "s = psum(rank() + 1)"]).ok();
    assert_eq!(place.client(&["px", "s"]).ok(), "[0-3] 10\n[4, 5] 3\n");
    let status = place.cluster(&["status"]).ok();
    assert!(status.contains("set 0: job 1 of Slurm runs on n[1-2], "), "{status}");
    assert!(status.contains("set 1: job 2 of Slurm runs on n"), "{status}");
    assert!(status.contains("rank 3 of 4") && status.contains("rank 1 of 2"), "{status}");
    let logs = place.cluster(&["logs", "engines"]).ok();
    assert!(logs.contains("Completed registration with id 3") && logs.contains("srun --mpi="), "{logs}");
    let list = place.cluster(&["list", "--json"]).ok();
    assert!(list.contains("\"jobs\": [\n      \"1\",\n      \"2\"\n    ]"), "{list}");

    place.cluster(&["stop"]).ok();

    assert_eq!(slurm.jobs(), [""; 0]);
    assert!(!runs_for(place.profile()), "a process is left");
}

#[test]
fn a_job_that_somebody_cancels_ends_every_future_with_the_reason() {
    let slurm = Slurm::start(2);
    let place = place(&slurm);
    place.cluster(&["start", "-n", "4", "--engines", "slurm", "--nodes", "2", "--daemonize"]).ok();
    let mut waiting = place.prepare("client", &["px", "if rank() == 0 { sleep(600) } else { barrier() }"]);
    let waiting = std::thread::spawn(move || run(&mut waiting));
    wait_until("all ranks are busy", || {
        let queues = place.client(&["queue"]);
        queues.stdout.matches("barrier").count() >= 3 || place.client(&["status"]).stdout.contains("barrier")
    });

    let cancelled = Instant::now();
    slurm.run("scancel", &["1"]).ok();

    let ended = waiting.join().expect("it only waits");
    let said = format!("{}{}", ended.stdout, ended.stderr);
    assert_eq!(ended.code(), 1, "{said}");
    assert!(said.contains("job 1 of Slurm was cancelled"), "{said}");
    assert!(cancelled.elapsed() < Duration::from_secs(10), "{:?}", cancelled.elapsed());
    wait_until("the end of the job is known", || {
        place.cluster(&["status"]).stdout.contains("set 0: job 1 of Slurm was cancelled")
    });
    place.cluster(&["engines", "-n", "2", "--engines", "slurm", "--daemonize"]).ok();
    assert_eq!(place.client(&["px", "psum(1)"]).ok().matches('2').count(), 1);
}

#[test]
fn at_the_time_limit_every_future_ends_with_the_reason() {
    let slurm = Slurm::start(1);
    let place = place(&slurm);
    let walltime = ["--walltime", "0:01:00"];
    place.cluster(&[&["start", "-n", "2", "--engines", "slurm", "--daemonize"], &walltime[..]].concat()).ok();
    let mut waiting = place.prepare("client", &["px", "sleep(600)"]);
    waiting.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let waiting = waiting.spawn().expect("client is built");

    let ended = waiting.wait_with_output().expect("it is our child"); // Slurm looks at limits every 30 s.

    let said =
        format!("{}{}", String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert!(said.contains("job 1 of Slurm reached its time limit"), "{said}");
    wait_until("the end of the job is known", || {
        place.cluster(&["status"]).stdout.contains("set 0: job 1 of Slurm reached its time limit")
    });
}

#[test]
fn a_node_that_goes_down_is_told() {
    let slurm = Slurm::start(2);
    let place = place(&slurm);
    place.cluster(&["start", "-n", "4", "--engines", "slurm", "--nodes", "2", "--daemonize"]).ok();

    slurm.run("scontrol", &["update", "nodename=n2", "state=down", "reason=test"]).ok();

    wait_until("the loss is known", || {
        place.cluster(&["status"]).stdout.contains("set 0: job 1 of Slurm lost a node")
    });
    wait_until("the engines are gone", || place.cluster(&["status"]).stdout.contains(": 0 engines"));
    place.cluster(&["stop"]).ok();
    assert_eq!(slurm.jobs(), [""; 0]);
    assert!(!runs_for(place.profile()), "a process is left");
}

#[test]
fn what_slurm_refuses_is_told_in_its_words_with_what_to_do() {
    let slurm = Slurm::start(1);
    let place = place(&slurm);

    let refused = place.cluster(&["start", "-n", "2", "--engines", "slurm", "--queue", "nosuch"]);

    assert_eq!(refused.code(), 4, "{}", refused.stderr);
    let said = refused.stderr;
    assert!(said.contains("sbatch rejected the job"), "{said}");
    assert!(said.contains("invalid partition specified: nosuch"), "{said}");
    assert!(said.contains("give another --queue; those that there are: sinfo"), "{said}");
    let refused = place.cluster(&["start", "-n", "2", "--engines", "slurm", "--", "--bogus=1"]);
    assert!(refused.stderr.contains("what follows -- goes to sbatch as it is"), "{}", refused.stderr);
    assert!(!runs_for(place.profile()), "a process is left");
}

#[test]
fn a_job_that_waits_shows_why_and_leaves_the_queue_at_ctrl_c() {
    let slurm = Slurm::start(1);
    let place = place(&slurm);
    let mut waiting = place.prepare("cluster", &["start", "-n", "64", "--engines", "slurm"]);
    waiting.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let waiting = waiting.spawn().expect("cluster is built");
    wait_until("the job is in the queue", || slurm.jobs() == ["1"]);
    std::thread::sleep(Duration::from_millis(1500)); // Its first second passes without progress.
    wait_until("its reason is known", || place.cluster(&["status"]).stdout.contains("waits in the queue: "));

    signal(waiting.id(), Signal::SIGINT);

    let ended = waiting.wait_with_output().expect("it is our child");
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(said.contains("job 1 of Slurm waits in the queue: "), "{said}");
    assert!(said.contains("stopped by SIGINT before it was ready"), "{said}");
    assert_eq!(slurm.jobs(), [""; 0]);
}

#[test]
fn a_cluster_is_stopped_from_its_file_alone() {
    let slurm = Slurm::start(1);
    let place = place(&slurm);
    place.cluster(&["start", "-n", "2", "--engines", "slurm", "--daemonize"]).ok();
    let file = std::fs::read_to_string(place.profile().join("security/cluster-.json")).expect("it is there");
    let file: serde_json::Value = serde_json::from_str(&file).expect("it is JSON");
    let pid = |value: &serde_json::Value| value["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
    let supervisor = pid(&file["controller"]["supervisor"]).expect("it has one");

    signal(supervisor, Signal::SIGKILL); // The controller follows it; the job does not.
    wait_until("the controller is gone", || {
        pid(&file["controller"]["state"])
            .is_some_and(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists())
    });
    let refused = place.cluster(&["start", "-n", "2", "--engines", "slurm", "--daemonize"]);

    if !slurm.jobs().is_empty() {
        assert!(refused.stderr.contains("still has job 1 of Slurm"), "{}", refused.stderr);
    }
    place.cluster(&["stop"]).ok();
    assert_eq!(slurm.jobs(), [""; 0]);
    assert!(!runs_for(place.profile()), "a process is left");
}

#[test]
fn a_job_script_needs_one_line_to_run_a_program_on_its_whole_size() {
    let slurm = Slurm::start(2);
    let place = place(&slurm);
    let script = place.profile().join("job.sh");
    let output = place.profile().join("job.out");
    let line = |name: &str| tests::program(name).display().to_string();
    let program = format!(
        "#!/bin/sh\n#SBATCH --ntasks=4 --nodes=2 --output={}\n\
         exec {} run --profile-dir={} -- {} px 'psum(1)'\n",
        output.display(),
        line("cluster"),
        place.profile().display(),
        line("client")
    );
    std::fs::write(&script, program).expect("the directory is ours");

    let submitted = slurm.run("sbatch", &["--wait", &script.display().to_string()]);

    let said = std::fs::read_to_string(&output).unwrap_or_default();
    assert!(submitted.status.success(), "{}{said}", submitted.stderr);
    assert!(said.ends_with("[0-3] 4\n"), "{said}");
    assert!(!runs_for(place.profile()), "a process is left");
}

#[test]
fn a_program_runs_here_while_its_engines_are_a_job_and_its_exit_code_is_ours() {
    let slurm = Slurm::start(1);
    let place = place(&slurm);

    let finished = place.cluster(&["run", "-n", "2", "--engines", "slurm", "--", "client", "px", "psum(2)"]);

    assert_eq!(finished.stdout, "[0, 1] 4\n", "{}", finished.stderr);
    assert_eq!(slurm.jobs(), [""; 0]);
    let failed = place.cluster(&["run", "-n", "2", "--engines", "slurm", "--", "sh", "-c", "exit 7"]);
    assert_eq!(failed.code(), 7, "{}", failed.stderr);
    assert_eq!(slurm.jobs(), [""; 0]);
}

#[test]
fn a_controller_in_the_job_serves_clients_outside_and_ends_with_it() {
    let slurm = Slurm::start(2);
    let place = place(&slurm);

    let start =
        ["start", "-n", "4", "--engines", "slurm", "--controller", "slurm", "--nodes", "2", "--daemonize"];
    let started = place.cluster(&start);

    assert!(started.status.success(), "{}", started.stderr);
    assert_eq!(place.client(&["px", "psum(rank() + 1)"]).ok(), "[0-3] 10\n");
    let status = place.cluster(&["status"]).ok();
    assert!(status.contains("set 0: job 1 of Slurm runs on n[1-2], "), "{status}");
    place.cluster(&["stop"]).ok();
    assert_eq!(slurm.jobs(), [""; 0]);
    assert!(!runs_for(place.profile()), "a process is left");
    let refused = place.cluster(&["start", "-n", "2", "--controller", "slurm"]);
    assert_eq!(refused.code(), 2);
    assert!(refused.stderr.contains("add --engines slurm or --engines pbs"), "{}", refused.stderr);
}

#[test]
fn no_key_is_in_a_job_script_its_environment_or_its_output() {
    let slurm = Slurm::start(1);
    let place = place(&slurm);
    place.cluster(&["start", "-n", "2", "--engines", "slurm", "--daemonize"]).ok();
    let file = place.profile().join("security/ipcontroller-client.json");
    let file: serde_json::Value =
        serde_json::from_slice(&std::fs::read(file).expect("it is there")).expect("it is JSON");
    let key = file["key"].as_str().expect("a key").to_owned();
    assert!(key.len() >= 32, "{key}");

    for file in ["engines-0.sh", "engines-0.log"] {
        let text = std::fs::read_to_string(place.profile().join("log").join(file)).expect("it is there");
        assert!(!text.contains(&key), "{file} has the key");
    }
    let job = slurm.run("scontrol", &["show", "job", "1"]).ok();
    assert!(!job.contains(&key));
    let engines = tests::processes_with("--expect-size=2");
    assert!(!engines.is_empty());
    for pid in engines {
        for what in ["environ", "cmdline"] {
            let bytes = std::fs::read(format!("/proc/{pid}/{what}")).unwrap_or_default();
            assert!(!String::from_utf8_lossy(&bytes).contains(&key), "{what} of {pid} has the key");
        }
    }
}

#[test]
fn an_ordinary_user_needs_nothing_that_root_has() {
    const NOBODY: u32 = 65534;
    assert!(
        nix::unistd::geteuid().is_root(),
        "to become another user needs root; as an ordinary user you ran the others"
    );
    let slurm = Slurm::start(2);
    let programs = tests::for_everybody(&["cluster", "client", "controller", "engine"]);
    let place = Place::new(|program| {
        let mut command = slurm.command("setpriv");
        let ids = [format!("--reuid={NOBODY}"), format!("--regid={NOBODY}"), "--clear-groups".to_owned()];
        command.args(ids).arg(programs.path().join(program.file_name().expect("a program")));
        command.env("HOME", "/nonexistent").env("USER", "nobody").env_remove("CARGO_TARGET_DIR");
        command
    });
    let nobody = nix::unistd::Uid::from_raw(NOBODY);
    nix::unistd::chown(place.profile(), Some(nobody), None).expect("root may");

    let started = place.cluster(&["start", "-n", "4", "--engines", "slurm", "--nodes", "2", "--daemonize"]);

    assert!(started.status.success(), "{}", started.stderr);
    assert_eq!(place.client(&["px", "psum(rank() + 1)"]).ok(), "[0-3] 10\n");
    let jobs = slurm.run("squeue", &["--noheader", "--format=%u"]).ok();
    assert_eq!(jobs.trim(), "nobody");
    place.cluster(&["stop"]).ok();
    assert_eq!(slurm.jobs(), [""; 0]);
    assert!(!runs_for(place.profile()), "a process is left");
}
