//! A controller on one host and engines on another, with addresses of their own.

use std::process::{Child, Command, Stdio};

use tests::hosts::Hosts;
use tests::{Finished, program, run, wait_until};

/// A controller on alpha with an MPI world of two engines on beta.
struct Apart {
    hosts: Hosts,
    profile: tempfile::TempDir,
    children: Vec<Child>,
}

impl Apart {
    fn new() -> Apart {
        let profile = tempfile::Builder::new().prefix("commworld").tempdir().expect("a temporary directory");
        Apart { hosts: Hosts::new(), profile, children: Vec::new() }
    }

    fn place(&self) -> String {
        format!("--profile-dir={}", self.profile.path().display())
    }

    fn start_controller(&mut self, arguments: &[&str]) {
        let mut command = self.hosts.command(0, program("controller"));
        self.keep(command.arg(self.place()).args(arguments), "controller");
        let file = self.profile.path().join("security/ipcontroller-engine.json");
        wait_until("the controller wrote its files", || file.exists());
    }

    fn start_engines(&mut self) {
        let launcher = std::env::var_os("COMMWORLD_MPIEXEC").unwrap_or_else(|| "mpiexec".into());
        let mut command = self.hosts.command(1, launcher);
        command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
        command.env("OMPI_MCA_rmaps_base_oversubscribe", "1").args(["-n", "2"]).arg(program("engine"));
        command.args(["--mpi", "--expect-size=2"]).arg(self.place());
        self.keep(&mut command, "engines");
    }

    fn keep(&mut self, command: &mut Command, log: &str) {
        let log = std::fs::File::create(self.profile.path().join(format!("{log}.log"))).expect("it is ours");
        let errors = log.try_clone().expect("a file can be shared");
        let child = command.stdin(Stdio::null()).stdout(log).stderr(errors).spawn();
        self.children.push(child.expect("the program is there"));
    }

    fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.profile.path().join(format!("{name}.log"))).unwrap_or_default()
    }

    fn client(&self, host: usize, arguments: &[&str]) -> Finished {
        run(self.hosts.command(host, program("client")).arg(self.place()).args(arguments))
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn engines_on_another_host_find_the_controller_and_nobody_on_the_way_can_read_what_is_sent() {
    let mut apart = Apart::new();
    let capture = apart.hosts.path("capture");
    apart.start_controller(&["--ip=*"]);
    let mut tcpdump = apart.hosts.command(1, "tcpdump");
    let pcap = capture.display().to_string();
    apart.keep(tcpdump.args(["-i", "eth0", "-U", "-w", &pcap, "-s", "0"]), "tcpdump");
    wait_until("the traffic is captured", || apart.log("tcpdump").contains("listening on eth0"));
    apart.start_engines();
    apart.client(0, &["wait", "-n", "2"]).ok();

    let secret = "correct horse battery staple, 42 times over";
    apart.client(0, &["px", &format!("secret = \"{secret}\"; s = psum(rank() + 1)")]).ok();
    assert_eq!(apart.client(0, &["px", "s"]).ok(), "[0, 1] 3\n");
    assert_eq!(apart.client(1, &["px", "secret"]).ok().matches(secret).count(), 1);

    wait_until("the capture is written", || {
        std::fs::metadata(&capture).is_ok_and(|metadata| metadata.len() > 10_000)
    });
    let traffic = std::fs::read(&capture).expect("it is there");
    let holds = |text: &str| traffic.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(!holds("correct horse"), "the secret can be read on the network");
    assert!(!holds("execute_request") && !holds("msg_type"), "messages can be read on the network");
    assert!(holds("CURVE"), "nothing was captured");
}

#[test]
fn without_encryption_the_same_traffic_can_be_read_and_the_controller_warns() {
    let mut apart = Apart::new();
    let capture = apart.hosts.path("capture");
    apart.start_controller(&["--ip=*", "--no-curve"]);
    assert!(apart.log("controller").contains("NOT encrypted"), "{}", apart.log("controller"));
    let mut tcpdump = apart.hosts.command(1, "tcpdump");
    let pcap = capture.display().to_string();
    apart.keep(tcpdump.args(["-i", "eth0", "-U", "-w", &pcap, "-s", "0"]), "tcpdump");
    wait_until("the traffic is captured", || apart.log("tcpdump").contains("listening on eth0"));
    apart.start_engines();
    apart.client(0, &["wait", "-n", "2"]).ok();
    apart.client(0, &["px", "secret = \"correct horse\""]).ok();

    wait_until("what was sent can be read", || {
        let traffic = std::fs::read(&capture).unwrap_or_default();
        traffic.windows(13).any(|window| window == b"correct horse")
    });
}

#[test]
fn engines_are_told_that_a_controller_listens_for_its_own_host_only() {
    let mut apart = Apart::new();
    apart.start_controller(&[]);
    apart.start_engines();

    wait_until("the engines have said why", || apart.log("engines").contains("hint: "));

    let said = apart.log("engines");
    assert!(
        said.contains("failed to reach the controller on alpha, which listens for its own machine only"),
        "{said}"
    );
    assert!(said.contains("start the controller with --ip='*'"), "{said}");
}

#[test]
fn a_host_name_that_leads_nowhere_does_not_matter_while_an_address_does() {
    let mut apart = Apart::new();
    apart.start_controller(&["--ip=*", "--location=192.0.2.99"]);
    apart.hosts.shell(1, "ip route add blackhole 192.0.2.0/24");
    apart.start_engines();

    apart.client(0, &["wait", "-n", "2"]).ok();

    assert_eq!(apart.client(1, &["px", "psum(1)"]).ok(), "[0, 1] 2\n");
}
