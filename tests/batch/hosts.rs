//! A controller on one host and engines on another, with addresses of their own.

use tests::wait_until;

use crate::apart::{ALPHA, Apart, BETA};

#[test]
fn engines_on_another_host_find_the_controller_and_nobody_on_the_way_can_read_what_is_sent() {
    let mut apart = Apart::new();
    let capture = apart.hosts.path("capture");
    apart.start_controller(&["--ip=*"]);
    let mut tcpdump = apart.hosts.command(BETA, "tcpdump");
    let pcap = capture.display().to_string();
    apart.keep(tcpdump.args(["-i", "eth0", "-U", "-w", &pcap, "-s", "0"]), "tcpdump");
    wait_until("the traffic is captured", || apart.log("tcpdump").contains("listening on eth0"));
    apart.start_engines(&[], &[]);
    apart.client(ALPHA, &["wait", "-n", "2"]).ok();

    let secret = "correct horse battery staple, 42 times over";
    apart.client(ALPHA, &["px", &format!("secret = \"{secret}\"; s = psum(rank() + 1)")]).ok();
    assert_eq!(apart.client(ALPHA, &["px", "s"]).ok(), "[0, 1] 3\n");
    assert_eq!(apart.client(BETA, &["px", "secret"]).ok().matches(secret).count(), 1);

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
    let mut tcpdump = apart.hosts.command(BETA, "tcpdump");
    let pcap = capture.display().to_string();
    apart.keep(tcpdump.args(["-i", "eth0", "-U", "-w", &pcap, "-s", "0"]), "tcpdump");
    wait_until("the traffic is captured", || apart.log("tcpdump").contains("listening on eth0"));
    apart.start_engines(&[], &[]);
    apart.client(ALPHA, &["wait", "-n", "2"]).ok();
    apart.client(ALPHA, &["px", "secret = \"correct horse\""]).ok();

    wait_until("what was sent can be read", || {
        let traffic = std::fs::read(&capture).unwrap_or_default();
        traffic.windows(13).any(|window| window == b"correct horse")
    });
}

#[test]
fn engines_are_told_that_a_controller_listens_for_its_own_host_only() {
    let mut apart = Apart::new();
    apart.start_controller(&[]);
    apart.start_engines(&[], &[]);

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
    apart.hosts.shell(BETA, "ip route add blackhole 192.0.2.0/24");
    apart.start_engines(&[], &[]);

    apart.client(ALPHA, &["wait", "-n", "2"]).ok();

    assert_eq!(apart.client(BETA, &["px", "psum(1)"]).ok(), "[0, 1] 2\n");
}
