//! Two hosts on one machine: network, name and mount namespaces of their own, joined by a cable. They share the file
//! system, as the nodes of a cluster do. They vanish with the processes in them.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use crate::{run, wait_until};

/// See the module.
pub struct Hosts {
    state: tempfile::TempDir,
    holders: Vec<Child>,
}

/// The hosts' names; their addresses are 10.99.0.1 and 10.99.0.2.
pub const NAMES: [&str; 2] = ["alpha", "beta"];

impl Hosts {
    /// Makes both.
    #[track_caller]
    pub fn new() -> Hosts {
        assert!(
            nix::unistd::geteuid().is_root(),
            "network namespaces need root: run the tests in a container or a virtual machine as root"
        );
        let state = tempfile::Builder::new().prefix("hosts").tempdir().expect("a temporary directory");
        let table = "127.0.0.1 localhost\n10.99.0.1 alpha\n10.99.0.2 beta\n";
        std::fs::write(state.path().join("hosts"), table).expect("the directory is ours");
        let mut hosts = Hosts { state, holders: Vec::new() };
        for name in NAMES {
            hosts.hold(name);
        }
        let (alpha, beta) = (hosts.holders[0].id(), hosts.holders[1].id());
        hosts.shell(0, &format!("ip link add eth0 type veth peer name eth0 netns {beta}"));
        for index in 0..2 {
            let up = format!("ip addr add 10.99.0.{}/24 dev eth0 && ip link set eth0 up", index + 1);
            hosts.shell(index, &up);
        }
        assert_ne!(alpha, beta);
        hosts
    }

    /// A program on one of them.
    pub fn command(&self, host: usize, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("nsenter");
        let holder = self.holders[host].id().to_string();
        command.args(["--target", &holder, "--net", "--uts", "--mount", "--wd=/"]).arg(program.as_ref());
        command
    }

    /// A line of shell on one of them.
    #[track_caller]
    pub fn shell(&self, host: usize, line: &str) -> String {
        run(self.command(host, "/bin/sh").args(["-c", line])).ok()
    }

    /// A file that both see.
    pub fn path(&self, name: &str) -> PathBuf {
        self.state.path().join(name)
    }

    fn hold(&mut self, name: &str) {
        let ready = self.path(&format!("{name}.ready"));
        let script = format!(
            "hostname {name} && ip link set lo up && mount --bind {} /etc/hosts && touch {} && exec sleep infinity",
            self.path("hosts").display(),
            ready.display()
        );
        let mut command = Command::new("unshare");
        command.args(["--net", "--uts", "--mount", "--propagation", "private", "/bin/sh", "-c", &script]);
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let holder = command.stdin(Stdio::null()).spawn().expect("unshare is part of util-linux");
        self.holders.push(holder);
        wait_until("a host is made", || ready.exists());
    }
}

impl Default for Hosts {
    fn default() -> Hosts {
        Hosts::new()
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for holder in &self.holders {
            let own = std::fs::read_link(format!("/proc/{}/ns/net", holder.id())).unwrap_or_default();
            for pid in processes_in(&own) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL); // It may have ended since.
            }
            let _ = killpg(Pid::from_raw(holder.id() as i32), Signal::SIGKILL);
        }
        for holder in &mut self.holders {
            let _ = holder.wait();
        }
    }
}

/// Processes in a network namespace that we made.
fn processes_in(namespace: &Path) -> Vec<i32> {
    let ours = std::fs::read_link("/proc/self/ns/net").unwrap_or_default();
    if namespace.as_os_str().is_empty() || namespace == ours {
        return Vec::new();
    }
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| std::fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|found| found == namespace))
        .collect()
}
