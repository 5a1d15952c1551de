//! One command starts all of it, one command ends all of it.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tests::{Finished, processes_with, program, run, wait_until};

fn cluster(profile: &Path, arguments: &[&str]) -> Finished {
    let (command, rest) = arguments.split_first().expect("a subcommand");
    run(Command::new(program("cluster")).arg(command).arg("--profile-dir").arg(profile).args(rest))
}

fn client(profile: &Path, arguments: &[&str]) -> Finished {
    run(Command::new(program("client")).arg("--profile-dir").arg(profile).args(arguments))
}

/// Ends the cluster also when the test fails in the middle.
struct Stopped<'a>(&'a Path);

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        let _ = Command::new(program("cluster")).arg("stop").arg("--profile-dir").arg(self.0).output();
    }
}

#[test]
fn four_mpi_engines_start_with_one_command_and_stop_without_a_trace() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let profile = folder.path();
    let _stopped = Stopped(profile);
    cluster(profile, &["start", "-n", "4", "--daemonize"]).ok();
    client(profile, &["px", "s = psum(rank())"]).ok();
    assert_eq!(client(profile, &["pull", "s", "--json"]).ok().trim(), "[6,6,6,6]");

    let again = cluster(profile, &["start", "-n", "4", "--daemonize"]);
    assert!(!again.status.success(), "a second cluster in the same profile is refused");
    assert!(again.stderr.contains("is already running"), "{}", again.stderr);

    cluster(profile, &["stop"]).ok();
    wait_until("no process is left", || processes_with(profile.as_os_str()).is_empty());
    let left: Vec<_> = std::fs::read_dir(profile.join("security")).expect("it was made").flatten().collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(cluster(profile, &["stop"]).code(), 3, "there is no cluster any more");
    assert_eq!(client(profile, &["px", "1"]).code(), 3);
}

#[test]
fn a_terminated_foreground_cluster_leaves_no_process_and_no_file() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let profile = folder.path();
    let mut foreground = Command::new(program("cluster"))
        .args(["start", "-n", "2", "--engines", "local", "--profile-dir"])
        .arg(profile)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("the program was built");
    let ready = client(profile, &["wait", "-n", "2"]);
    tests::signal(foreground.id(), nix::sys::signal::Signal::SIGINT);
    let mut status = None;
    wait_until("the foreground cluster ended", || {
        status = foreground.try_wait().expect("it is our child");
        status.is_some()
    });
    ready.ok();
    wait_until("no process is left", || processes_with(profile.as_os_str()).is_empty());
    let left: Vec<_> = std::fs::read_dir(profile.join("security")).expect("it was made").flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn engines_that_cannot_start_are_named_with_their_last_words() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let broken = folder.path().join("broken-engine");
    std::fs::write(&broken, "#!/bin/sh\necho 'no licence for today' >&2\nexit 7\n").expect("ours");
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&broken, std::fs::Permissions::from_mode(0o755)).expect("ours");
    let command = broken.to_str().expect("UTF-8");
    let finished = cluster(
        folder.path(),
        &["start", "-n", "2", "--engines", "local", "--engine-cmd", command, "--daemonize"],
    );
    assert_eq!(finished.code(), 4, "{}", finished.stderr);
    for word in ["engine", "7", "no licence for today"] {
        assert!(finished.stderr.contains(word), "{word:?} is missing in:\n{}", finished.stderr);
    }
    assert!(finished.elapsed < Duration::from_secs(20));
    wait_until("no process is left", || processes_with(folder.path().as_os_str()).is_empty());
}
