//! Clients and engines on one host reach a controller on another one through a real sshd; the controller listens on
//! loopback only, or has no port at all.

use std::process::Command;

use nix::sys::signal::Signal;
use tests::{Finished, processes_with, program, run, signal, wait_until};

use crate::apart::{ALPHA, Apart, BETA};

/// Alpha runs sshd, which takes one key.
struct Tunnelled {
    apart: Apart,
}

impl Tunnelled {
    #[track_caller]
    fn new() -> Tunnelled {
        let mut apart = Apart::new();
        let path = |name: &str| apart.hosts.path(name).display().to_string();
        for key in ["server-key", "user-key", "other-key"] {
            run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f", &path(key)])).ok();
        }
        let server_key = std::fs::read_to_string(path("server-key.pub")).expect("ssh-keygen wrote it");
        let write = |name: &str, text: &str| std::fs::write(path(name), text).expect("the directory is ours");
        write("known", &format!("alpha {server_key}"));
        let config = "Port 22\nHostKey {server-key}\nAuthorizedKeysFile {user-key}.pub\nStrictModes no\nUsePAM no\n\
                      PidFile none\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n";
        let config = config.replace("{server-key}", &path("server-key"));
        write("sshd_config", &config.replace("{user-key}", &path("user-key")));
        for key in ["user-key", "other-key"] {
            let config = "IdentityFile {key}\nIdentitiesOnly yes\nUserKnownHostsFile {known}\nStrictHostKeyChecking yes\n";
            let config = config.replace("{key}", &path(key)).replace("{known}", &path("known"));
            write(&format!("with-{key}"), &config);
        }
        let start = format!(
            "mount -t tmpfs none /run && mkdir /run/sshd && exec /usr/sbin/sshd -D -e -f {}",
            path("sshd_config")
        );
        let mut sshd = apart.hosts.command(ALPHA, "unshare");
        apart.keep(sshd.args(["--mount", "/bin/sh", "-c", &start]), "sshd");
        wait_until("sshd listens", || apart.log("sshd").contains("Server listening"));
        Tunnelled { apart }
    }

    /// The `ssh` that uses a key.
    fn ssh(&self, key: &str) -> String {
        format!("ssh -F {}", self.apart.hosts.path(&format!("with-{key}")).display())
    }

    /// A program on beta.
    fn on_beta(&self, name: &str, key: &str) -> Command {
        let mut command = self.apart.hosts.command(BETA, program(name));
        command.env("COMMWORLD_SSH", self.ssh(key));
        command
    }

    fn start_engines(&mut self, arguments: &[&str]) {
        let ssh = self.ssh("user-key");
        self.apart.start_engines(arguments, &[("COMMWORLD_SSH", &ssh)]);
    }

    #[track_caller]
    fn client(&self, arguments: &[&str]) -> Finished {
        run(self.on_beta("client", "user-key").arg(self.apart.place()).args(arguments))
    }

    /// The client on beta, where no file is of a cluster.
    #[track_caller]
    fn client_without_files(&self, arguments: &[&str]) -> Finished {
        let mut command = self.on_beta("client", "user-key");
        run(command.env("IPYTHONDIR", self.apart.hosts.path("nothing")).args(arguments))
    }

    /// The tunnels that processes on beta have open.
    fn tunnels(&self) -> Vec<u32> {
        let config = self.apart.hosts.path("with-user-key").display().to_string();
        let is_ssh = |pid: &u32| {
            std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "ssh")
        };
        processes_with(config).into_iter().filter(is_ssh).collect()
    }
}

#[test]
fn clients_and_engines_go_through_sshd_where_the_connection_files_say_so() {
    let mut tunnelled = Tunnelled::new();
    tunnelled.apart.start_controller(&["--ssh=root@alpha", "--enginessh=root@alpha:22"]);
    tunnelled.start_engines(&[]);
    tunnelled.client(&["wait", "-n", "2"]).ok();
    assert_eq!(tunnelled.client(&["px", "psum(rank() + 1)"]).ok(), "[0, 1] 3\n");
    assert_eq!(
        tunnelled.client(&["px", "gather(rank(), 0)[1]"]).code(),
        1,
        "an error of rank 1 comes through, too"
    );

    let open = tunnelled.apart.hosts.shell(ALPHA, "ss -ltnH");
    let others = open.lines().filter(|line| !line.contains("127.0.0.1:") && !line.contains(":22 "));
    assert_eq!(others.count(), 0, "the controller listens on loopback only: {open}");
    let open = tunnelled.apart.hosts.shell(BETA, "ss -ltnpH");
    assert!(!open.contains("\"ssh\""), "this end of a tunnel is no port: {open}");
    assert_eq!(tunnelled.tunnels().len(), 2, "one an engine; those of the clients have ended with them");
}

#[test]
fn a_tunnel_that_breaks_is_made_again_and_ends_with_its_process() {
    let mut tunnelled = Tunnelled::new();
    tunnelled.apart.start_controller(&["--enginessh=alpha"]);
    tunnelled.start_engines(&[]);
    tunnelled.client(&["--ssh=alpha", "wait", "-n", "2"]).ok();
    let before = tunnelled.tunnels();
    signal(before[0], Signal::SIGKILL);
    wait_until("the engine is lost", || tunnelled.apart.log("controller").contains("engine lost"));
    tunnelled.client(&["--ssh=alpha", "wait", "-n", "2"]).ok();
    assert_ne!(tunnelled.tunnels(), before, "there is another one");
    assert_eq!(tunnelled.client(&["--ssh=alpha", "px", "psum(1)"]).ok(), "[0, 1] 2\n");
    assert!(
        tunnelled.apart.log("engines").contains("the tunnel broke"),
        "{}",
        tunnelled.apart.log("engines")
    );

    let client = tunnelled.client(&["--ssh=alpha", "status", "--json"]).ok();
    let status: serde_json::Value = serde_json::from_str(&client).expect("--json prints JSON");
    for rank in ["0", "1"] {
        let pid = status["cluster"]["engines"][rank]["pid"].as_u64().expect("a number");
        signal(u32::try_from(pid).expect("a process"), Signal::SIGKILL);
    }
    wait_until("no tunnel is left", || tunnelled.tunnels().is_empty());
}

#[test]
fn a_controller_without_any_port_is_reached_through_sshd() {
    let mut tunnelled = Tunnelled::new();
    tunnelled.apart.start_controller(&["--transport=ipc"]);
    // Beta sees the connection files, and not the sockets.
    let sockets = tunnelled
        .apart
        .hosts
        .shell(ALPHA, &format!("ls -d {}/commworld-*", tunnelled.apart.profile().display()));
    tunnelled.apart.hosts.shell(BETA, &format!("mount -t tmpfs none {}", sockets.trim()));
    tunnelled.apart.hosts.shell(BETA, &format!("chmod 0 {}", sockets.trim()));
    tunnelled.start_engines(&["--ssh", "alpha"]);
    tunnelled.client(&["--ssh", "alpha", "wait", "-n", "2"]).ok();
    assert_eq!(tunnelled.client(&["--ssh", "alpha", "px", "psum(1)"]).ok(), "[0, 1] 2\n");
    assert_eq!(
        tunnelled.apart.hosts.shell(ALPHA, "ss -ltnH").lines().filter(|line| !line.contains(":22 ")).count(),
        0
    );
}

#[test]
fn a_connection_file_that_is_only_there_is_read_through_ssh() {
    let mut tunnelled = Tunnelled::new();
    tunnelled.apart.start_controller(&[]);
    let mut engine = tunnelled.apart.hosts.command(ALPHA, program("engine"));
    let place = tunnelled.apart.place();
    tunnelled.apart.keep(engine.arg(&place), "engines");
    let there = tunnelled.apart.profile().display().to_string();
    // The hosts share their files: what is hidden from beta can only be read on alpha.
    tunnelled.apart.hosts.shell(BETA, &format!("mount -t tmpfs none {there}"));
    tunnelled.client_without_files(&["--ssh=root@alpha", "--profile-dir", &there, "wait", "-n", "1"]).ok();
    let sum = tunnelled.client_without_files(&["--ssh=root@alpha", "--profile-dir", &there, "px", "1 + 1"]);
    assert_eq!(sum.ok(), "2\n");
    let file = format!("{there}/security/ipcontroller-client.json");
    assert_eq!(
        tunnelled.client_without_files(&["--ssh=root@alpha", "--file", &file, "px", "1 + 1"]).ok(),
        "2\n"
    );
}

#[test]
fn what_ssh_says_is_shown() {
    let mut tunnelled = Tunnelled::new();
    tunnelled.apart.start_controller(&["--ssh=alpha"]);
    let refused =
        run(tunnelled.on_beta("client", "other-key").arg(tunnelled.apart.place()).args(["px", "1"]));
    assert_eq!(refused.code(), 3);
    assert!(refused.stderr.contains("Permission denied (publickey)"), "{}", refused.stderr);
    assert!(refused.stderr.contains("--ssh"), "it says what to do: {}", refused.stderr);

    let nowhere = tunnelled.client(&["--ssh=nowhere.invalid", "px", "1"]);
    assert_eq!(nowhere.code(), 3);
    assert!(nowhere.stderr.contains("Could not resolve hostname"), "{}", nowhere.stderr);

    let absent = tunnelled.client_without_files(&["--profile", "absent", "--ssh=root@alpha", "px", "1"]);
    assert_eq!(absent.code(), 3);
    assert!(absent.stderr.contains("No such file"), "{}", absent.stderr);

    let malformed = tunnelled.client(&["--ssh=-oProxyCommand=touch", "px", "1"]);
    assert_eq!(malformed.code(), 3);
    assert!(malformed.stderr.contains("is not a server for ssh"), "{}", malformed.stderr);

    let engine =
        run(tunnelled.on_beta("engine", "other-key").arg(tunnelled.apart.place()).arg("--ssh=alpha"));
    assert_eq!(engine.code(), 3);
    assert!(engine.stderr.contains("Permission denied (publickey)"), "{}", engine.stderr);

    let mut absent = tunnelled.apart.hosts.command(BETA, program("client"));
    let absent =
        run(absent.env("COMMWORLD_SSH", "/nowhere/ssh").arg(tunnelled.apart.place()).args(["px", "1"]));
    assert_eq!(absent.code(), 3);
    assert!(absent.stderr.contains("cannot run /nowhere/ssh"), "{}", absent.stderr);
}
