//! A controller on one host, and engines and clients on another: what tests of hosts and of tunnels share.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use tests::hosts::Hosts;
use tests::{Finished, program, run, wait_until};

/// The host of the controller, and the other one.
pub(crate) const ALPHA: usize = 0;
/// The host of engines.
pub(crate) const BETA: usize = 1;

/// Two hosts, a profile that both see, and what was started on them.
pub(crate) struct Apart {
    pub(crate) hosts: Hosts,
    profile: tempfile::TempDir,
    children: Vec<Child>,
}

impl Apart {
    /// Nothing runs yet.
    #[track_caller]
    pub(crate) fn new() -> Apart {
        let profile = tempfile::Builder::new().prefix("commworld").tempdir().expect("a temporary directory");
        Apart { hosts: Hosts::new(), profile, children: Vec::new() }
    }

    pub(crate) fn profile(&self) -> &Path {
        self.profile.path()
    }

    /// Names the profile to our programs.
    pub(crate) fn place(&self) -> String {
        format!("--profile-dir={}", self.profile().display())
    }

    /// A controller on alpha, which puts sockets, if it has any, into the profile.
    #[track_caller]
    pub(crate) fn start_controller(&mut self, arguments: &[&str]) {
        let mut command = self.hosts.command(ALPHA, program("controller"));
        command.env("TMPDIR", self.profile());
        self.keep(command.arg(self.place()).args(arguments), "controller");
        let file = self.profile().join("security/ipcontroller-engine.json");
        wait_until("the controller wrote its files", || file.exists());
    }

    /// An MPI world of two engines on beta.
    pub(crate) fn start_engines(&mut self, arguments: &[&str], variables: &[(&str, &str)]) {
        let launcher = std::env::var_os("COMMWORLD_MPIEXEC").unwrap_or_else(|| "mpiexec".into());
        let mut command = self.hosts.command(BETA, launcher);
        command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
        command.env("OMPI_MCA_rmaps_base_oversubscribe", "1").envs(variables.iter().copied());
        command.args(["-n", "2"]).arg(program("engine")).args(["--mpi", "--expect-size=2"]).arg(self.place());
        self.keep(command.args(arguments), "engines");
    }

    /// Starts a program that ends with the test; its output is the log of that name.
    #[track_caller]
    pub(crate) fn keep(&mut self, command: &mut Command, log: &str) {
        let log = std::fs::File::create(self.profile().join(format!("{log}.log"))).expect("it is ours");
        let errors = log.try_clone().expect("a file can be shared");
        let child = command.stdin(Stdio::null()).stdout(log).stderr(errors).spawn();
        self.children.push(child.expect("the program is there"));
    }

    pub(crate) fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.profile().join(format!("{name}.log"))).unwrap_or_default()
    }

    /// The program `client` on a host.
    #[track_caller]
    pub(crate) fn client(&self, host: usize, arguments: &[&str]) -> Finished {
        run(self.hosts.command(host, program("client")).arg(self.place()).args(arguments))
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for name in ["controller", "engines", "sshd"] {
                eprintln!("── {name}.log ──\n{}", self.log(name));
            }
        }
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
