//! `cluster doctor` on real clusters with a fault. Each of its checks has a test of its own beside it
//! (cluster/src/doctor.rs).

use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use super::Place;

/// What it says of one check, after the faults were counted.
#[track_caller]
fn said(place: &Place<'_>, faults: usize, check: &str) -> String {
    let seen = place.cluster(&["doctor"]);
    assert_eq!(seen.code(), i32::from(faults > 0), "{}{}", seen.stdout, seen.stderr);
    assert_eq!(seen.stdout.matches("FAULT").count(), faults, "{}", seen.stdout);
    let line = seen.stdout.lines().position(|line| line[6..].trim_start().starts_with(check));
    let line = line.unwrap_or_else(|| panic!("{check} is not in {}", seen.stdout));
    seen.stdout.lines().skip(line).take(2).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_cluster_that_works_has_no_fault_and_what_a_killed_one_left_has() {
    let place = Place::new(|program| Command::new(program));
    place.cluster(&["start", "-n", "2", "--daemonize", "--", "--transport=tcp"]).ok();
    assert!(said(&place, 0, "world").contains("are one MPI world"));

    let file = std::fs::read(place.profile().join("security/ipcontroller-client.json")).expect("it is there");
    let other =
        std::fs::read(place.profile().join("security/ipcontroller-engine.json")).expect("it is there");
    place.cluster(&["stop"]).ok();
    for (name, text) in [("client", file), ("engine", other)] {
        let path = place.profile().join(format!("security/ipcontroller-{name}.json"));
        std::fs::write(&path, text).expect("it is ours");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("it is ours");
    }

    let stale = said(&place, 1, "controller");
    assert!(stale.contains("does not answer") && stale.contains("fix: remove what it left"), "{stale}");
    let path = place.profile().join("security/ipcontroller-client.json");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("it is ours");
    let readable = said(&place, 1, "private");
    assert!(readable.contains("has mode 644") && readable.contains("fix: chmod 600"), "{readable}");
}

#[test]
fn engines_that_came_up_as_worlds_of_one_rank_are_recognised() {
    let place = Place::new(|program| Command::new(program));
    place.cluster(&["start", "-n", "2", "--engines", "local", "--daemonize"]).ok();
    pretend_they_were_started_together(&place.profile().join("security"));

    let found = said(&place, 1, "world");

    assert!(
        found.contains("2 engines are worlds of one rank") && found.contains("fix: start them with"),
        "{found}"
    );
}

/// Says in the cluster file that one launcher started the engines. The supervisor still notes there which processes
/// they are, so it is changed under the lock that every writer of it takes.
fn pretend_they_were_started_together(security: &Path) {
    let lock = File::open(security).expect("it is there");
    lock.lock().expect("nobody keeps it");
    let path = security.join("cluster-.json");
    let text = std::fs::read_to_string(&path).expect("it is there");
    let (controller, engines) = text.split_once("\"engines\"").expect("it tells of engines");
    let engines = engines.replace("\"class\": \"local\"", "\"class\": \"mpi\"");
    std::fs::write(&path, format!("{controller}\"engines\"{engines}")).expect("it is ours");
}
