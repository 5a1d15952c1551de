//! Engines in jobs of PBS: a double of OpenPBS, the commands of Torque over a real Slurm, and, where `COMMWORLD_PBS=1`
//! says that there is one, a real server.

use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;
use tests::slurm::{Slurm, runs_for};
use tests::{program, run, signal, wait_until};

use super::Place;

/// One server's directory, and the commands that go to it.
struct OpenPbs {
    state: tempfile::TempDir,
    commands: tempfile::TempDir,
}

impl OpenPbs {
    fn new() -> OpenPbs {
        let temporary =
            || tempfile::Builder::new().prefix("openpbs").tempdir().expect("a temporary directory");
        let (state, commands) = (temporary(), temporary());
        for name in ["qsub", "qstat", "qdel", "qsig"] {
            std::os::unix::fs::symlink(program("openpbs"), commands.path().join(name)).expect("it is new");
        }
        OpenPbs { state, commands }
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = with_path(program, self.commands.path());
        command.env("OPENPBS_DOUBLE", self.state.path());
        allow_root(&mut command);
        command
    }

    fn run(&self, name: &str, arguments: &[&str]) -> tests::Finished {
        run(self.command(&self.commands.path().join(name)).args(arguments))
    }
}

/// Finds the commands of a batch system before any other.
fn with_path(program: &Path, commands: &Path) -> Command {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(commands.to_owned()).chain(std::env::split_paths(&path));
    let mut command = Command::new(program);
    command.env("PATH", std::env::join_paths(folders).expect("no colon in a temporary directory"));
    command
}

/// A user's own `mpiexec` does not need these.
fn allow_root(command: &mut Command) {
    command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
}

fn place(pbs: &OpenPbs) -> Place<'_> {
    Place::new(|program| pbs.command(program))
}

#[test]
fn one_line_starts_a_world_in_a_job_of_pbs() {
    let pbs = OpenPbs::new();
    let place = place(&pbs);

    let started =
        place.cluster(&["start", "-n", "4", "--engines", "pbs", "--nodes", "2", "--daemonize"]).ok();

    assert!(started.contains("4 MPI engines (PBS) ready"), "{started}");
    assert_eq!(place.client(&["px", "psum(rank() + 1)"]).ok(), "[0-3] 10\n");
    let status = place.cluster(&["status"]).ok();
    assert!(status.contains("set 0: job 1.pbs1 of PBS runs on pbs1/0*4, without a time limit"), "{status}");
    place.cluster(&["stop"]).ok();
    let job = pbs.run("qstat", &["-x", "-f", "1"]).ok();
    assert!(
        job.contains("job_state = F") && job.contains("Resource_List.select = 2:ncpus=2:mpiprocs=2"),
        "{job}"
    );
    assert!(!runs_for(place.profile()), "a process is left");
}

#[test]
fn a_job_of_pbs_that_is_deleted_or_over_its_walltime_ends_every_future_with_the_reason() {
    for (walltime, reason) in
        [("1:00:00", "job 1.pbs1 of PBS was cancelled"), ("12", "reached its time limit")]
    {
        let pbs = OpenPbs::new();
        let place = place(&pbs);
        place.cluster(&["start", "-n", "2", "--engines", "pbs", "--walltime", walltime, "--daemonize"]).ok();
        let mut waiting = place.prepare("client", &["px", "sleep(600)"]);
        let waiting = std::thread::spawn(move || run(&mut waiting));
        if walltime == "1:00:00" {
            wait_until("the engines are busy", || {
                place.client(&["status"]).stdout.contains("sleep") || {
                    std::thread::sleep(std::time::Duration::from_secs(1));
                    true
                }
            });
            pbs.run("qdel", &["1"]).ok();
        }

        let ended = waiting.join().expect("it only waits");

        let said = format!("{}{}", ended.stdout, ended.stderr);
        assert!(said.contains(reason), "{said}");
        wait_until("the end of the job is known", || {
            let status = place.cluster(&["status"]).stdout;
            status.contains(&format!(
                "set 0: job 1.pbs1 of PBS {}",
                reason.trim_start_matches("job 1.pbs1 of PBS ")
            ))
        });
    }
}

#[test]
fn what_pbs_refuses_is_told_in_its_words_with_what_to_do() {
    let pbs = OpenPbs::new();
    let place = place(&pbs);
    let start = |more: &[&str]| {
        let refused = place.cluster(&[&["start", "-n", "2", "--engines", "pbs"], more].concat());
        assert!(matches!(refused.code(), 2 | 4), "{}", refused.stderr);
        refused.stderr
    };
    let said = start(&["--queue", "nosuch"]);
    assert!(said.contains("qsub rejected the job") && said.contains("qsub: Unknown queue"), "{said}");
    assert!(said.contains("give another --queue; those that there are: qstat -Q"), "{said}");
    let said = start(&["--walltime", "abc"]);
    assert!(said.contains("\"abc\" is not a walltime of PBS"), "{said}");
    let said = start(&["--", "-l", "bogus=4"]);
    assert!(said.contains("qsub: Unknown resource Resource_List.bogus"), "{said}");
    let said = start(&["--", "-Z"]);
    assert!(said.contains("what follows -- goes to qsub as it is"), "{said}");
}

#[test]
fn a_job_of_pbs_that_can_never_run_says_so_and_leaves_the_queue_at_ctrl_c() {
    let pbs = OpenPbs::new();
    let place = place(&pbs);
    let mut waiting = place.prepare("cluster", &["start", "-n", "400", "--engines", "pbs"]);
    waiting.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let waiting = waiting.spawn().expect("cluster is built");
    wait_until("its reason is known", || place.cluster(&["status"]).stdout.contains("Can Never Run"));

    signal(waiting.id(), Signal::SIGINT);

    let ended = waiting.wait_with_output().expect("it is our child");
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(said.contains("stopped by SIGINT before it was ready"), "{said}");
    let job = pbs.run("qstat", &["-x", "-f", "1"]).ok();
    assert!(job.contains("job_state = F"), "{job}");
}

#[test]
fn a_server_of_pbs_that_is_down_is_told() {
    let pbs = OpenPbs::new();
    let place = Place::new(|program| with_path(program, pbs.commands.path()));

    let failed = place.cluster(&["start", "-n", "2", "--engines", "pbs"]);

    assert_eq!(failed.code(), 4);
    assert!(failed.stderr.contains("cannot connect to server pbs1"), "{}", failed.stderr);
    assert!(failed.stderr.contains("try on a login node"), "{}", failed.stderr);
}

#[test]
fn the_commands_of_torque_start_a_world_too() {
    let slurm = Slurm::start(2);
    let commands = torque_over_slurm();
    let place = Place::new(|program| {
        let mut command = slurm.command(program);
        command.env("PATH", with_path(program, &commands).get_envs().next().expect("PATH").1.expect("set"));
        command
    });

    let started = place.cluster(&[
        "start",
        "-n",
        "4",
        "--engines",
        "pbs",
        "--nodes",
        "2",
        "--walltime",
        "600",
        "--daemonize",
    ]);

    assert!(started.status.success(), "{}", started.stderr);
    assert_eq!(place.client(&["px", "psum(rank() + 1)"]).ok(), "[0-3] 10\n");
    let status = place.cluster(&["status"]).ok();
    assert!(status.contains("job 1 of Torque runs on n1/") && status.contains(" min"), "{status}");
    place.cluster(&["stop"]).ok();
    assert_eq!(slurm.jobs(), [""; 0]);
    assert!(!runs_for(place.profile()), "a process is left");
}

/// `scripts/torque.sh` unpacks them; installed, they would take the name `qsub` on this machine.
fn torque_over_slurm() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace");
    let unpacked = run(Command::new(root.join("scripts/torque.sh")).current_dir(root)).ok();
    PathBuf::from(unpacked.trim())
}

#[test]
fn a_real_server_of_pbs_starts_a_world() {
    if std::env::var_os("COMMWORLD_PBS").is_none() {
        eprintln!("skipped: set COMMWORLD_PBS=1 where qsub reaches a real server of PBS");
        return;
    }
    let place = Place::new(|program| Command::new(program));
    place.cluster(&["start", "-n", "2", "--engines", "pbs", "--walltime", "300", "--daemonize"]).ok();
    assert_eq!(place.client(&["px", "psum(rank() + 1)"]).ok(), "[0, 1] 3\n");
    place.cluster(&["stop"]).ok();
    assert!(!runs_for(place.profile()), "a process is left");
}
