//! What keeps a cluster from working, found from facts: pure. `commands/doctor.rs` gathers them.

use std::time::Duration;

use protocol::connection_file::Common;
use serde::Serialize;
use slurm_pbs::Flavor;
use slurm_pbs::placement::wanted_plugin;

use crate::launch::EngineKind;

/// Connections of one engine to the controller: registration, control, direct, balanced, broadcast, output, and two of
/// its heart.
const CONNECTIONS_PER_ENGINE: u64 = 8;

/// What the controller opens besides: listeners, clients, logs.
const OTHER_FILES: u64 = 256;

/// Clocks that differ by less do no harm.
const SKEW_MAX: Duration = Duration::from_secs(5);

/// What was found out about a cluster, and this machine. What could not be found out is `None`, and not judged.
#[derive(Debug, Default)]
pub struct Facts {
    /// This machine's name.
    pub hostname: String,
    /// This machine's addresses, loopback left out.
    pub own_addresses: Vec<String>,
    /// The connection files of clients and engines.
    pub files: Option<(Common, Common)>,
    /// A connection file that others than its owner can read, and its mode.
    pub readable_file: Option<(String, u32)>,
    /// Whether the controller answers.
    pub answers: Option<bool>,
    /// The command that starts the cluster anew.
    pub start_command: String,
    /// How the engines of each set are started, and how many.
    pub sets: Vec<(EngineKind, u32)>,
    /// Every engine that the hub knows: its host and the size of its world.
    pub engines: Vec<(String, u32)>,
    /// The MPI that the engine program is linked with.
    pub engine_mpi: Option<Flavor>,
    /// The `mpiexec` that is found first in `PATH`, and its family.
    pub mpiexec: Option<(String, Flavor)>,
    /// Whether an `mpiexec` of the engine's family is anywhere in `PATH`.
    pub has_own_mpiexec: Option<bool>,
    /// The plugins that `srun --mpi=list` names.
    pub srun_plugins: Option<Vec<String>>,
    /// How many files a process may open at most.
    pub open_files_max: Option<u64>,
    /// How many engines there are, or shall be.
    pub engines_wanted: u32,
    /// How far the clock of the file server is from ours.
    pub file_skew: Option<Duration>,
    /// How far the controller's clock is from ours, and its host.
    pub controller_skew: Option<(Duration, String)>,
}

/// How one check went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at: stable, for scripts.
    pub check: &'static str,
    /// Whether it is as it should be; none if it could not be looked at.
    pub ok: Option<bool>,
    /// What was found, in one line.
    pub text: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

/// Looks at everything.
pub fn examine(facts: &Facts) -> Vec<Finding> {
    vec![
        one_world(facts),
        reachable(facts),
        interface(facts),
        stale(facts),
        one_controller(facts),
        private(facts),
        encrypted(facts),
        one_mpi(facts),
        pmi(facts),
        open_files(facts),
        clocks(facts),
    ]
}

fn good(check: &'static str, text: impl Into<String>) -> Finding {
    Finding { check, ok: Some(true), text: text.into(), fix: None }
}

fn unknown(check: &'static str, text: impl Into<String>) -> Finding {
    Finding { check, ok: None, text: text.into(), fix: None }
}

fn bad(check: &'static str, text: impl Into<String>, fix: impl Into<String>) -> Finding {
    Finding { check, ok: Some(false), text: text.into(), fix: Some(fix.into()) }
}

/// Several ranks were asked for, and each is a world of its own.
fn one_world(facts: &Facts) -> Finding {
    const CHECK: &str = "world";
    let wants_worlds = facts.sets.iter().any(|(kind, n)| *kind != EngineKind::Local && *n > 1);
    let alone = facts.engines.iter().filter(|(_, size)| *size == 1).count();
    if facts.engines.is_empty() {
        return unknown(CHECK, "no engine is here");
    }
    if !wants_worlds || alone < 2 {
        return good(CHECK, "engines that were started together are one MPI world");
    }
    let fix = match facts.engine_mpi {
        Some(flavor) => format!(
            "start them with the mpiexec of {flavor}, or srun --mpi={}; cluster start chooses by itself",
            wanted_plugin(flavor)
        ),
        None => "build the engine with MPI: cargo build --release --package engine".to_owned(),
    };
    bad(CHECK, format!("{alone} engines are worlds of one rank, although several were started together"), fix)
}

/// A controller on loopback with engines elsewhere.
fn reachable(facts: &Facts) -> Finding {
    const CHECK: &str = "listens";
    let Some((_, engine)) = &facts.files else { return unknown(CHECK, "there is no connection file") };
    let elsewhere = facts.sets.iter().any(|(kind, _)| kind.is_batch())
        || facts.engines.iter().any(|(host, _)| !host.is_empty() && *host != engine.location);
    let is_local = engine.interface.starts_with("ipc:") || is_loopback(&engine.interface);
    if is_local && elsewhere {
        return bad(
            CHECK,
            format!("the controller listens on {} only, and engines are on other machines", engine.interface),
            "start it with --ip='*'",
        );
    }
    good(CHECK, format!("the controller listens on {}", engine.interface))
}

/// An address that no interface of the controller's machine has.
fn interface(facts: &Facts) -> Finding {
    const CHECK: &str = "interface";
    let Some((_, engine)) = &facts.files else { return unknown(CHECK, "there is no connection file") };
    let address = engine.interface.strip_prefix("tcp://").unwrap_or_default();
    let is_here = engine.location == facts.hostname;
    let is_named = address.parse::<std::net::Ipv4Addr>().is_ok_and(|ip| !ip.is_unspecified());
    if !is_here || !is_named || is_loopback(&engine.interface) {
        return good(CHECK, "no address of another machine is in the connection file");
    }
    if facts.own_addresses.iter().any(|own| own == address) {
        return good(CHECK, format!("{address} is an address of this machine"));
    }
    bad(
        CHECK,
        format!(
            "the controller ran here, but {address} is not among this machine's addresses: {}",
            facts.own_addresses.join(", ")
        ),
        "start it with --ip='*': engines then choose the address that answers",
    )
}

/// A connection file whose controller is gone.
fn stale(facts: &Facts) -> Finding {
    const CHECK: &str = "controller";
    match (&facts.files, facts.answers) {
        (Some(_), Some(true)) => good(CHECK, "the controller answers"),
        (Some((client, _)), Some(false)) => bad(
            CHECK,
            format!("the connection file names a controller on {} that does not answer", client.location),
            format!("remove what it left with `cluster clean`, and start anew: {}", facts.start_command),
        ),
        _ => unknown(CHECK, "there is no connection file: the cluster is not running"),
    }
}

/// Two connection files of two controllers.
fn one_controller(facts: &Facts) -> Finding {
    const CHECK: &str = "files";
    let Some((client, engine)) = &facts.files else { return unknown(CHECK, "there is no connection file") };
    for (what, differs) in [
        ("registration port", client.registration != engine.registration),
        ("key", client.key != engine.key),
        ("CURVE key", client.curve_serverkey != engine.curve_serverkey),
    ] {
        if differs {
            return bad(
                CHECK,
                format!("the files of clients and engines differ in the {what}: they are of two controllers"),
                format!("stop both, and start one: {}", facts.start_command),
            );
        }
    }
    good(CHECK, "the files of clients and engines are of one controller")
}

/// A connection file that others can read.
fn private(facts: &Facts) -> Finding {
    const CHECK: &str = "private";
    match &facts.readable_file {
        Some((path, mode)) => bad(
            CHECK,
            format!("{path} has mode {mode:03o}: others can read the key in it"),
            format!("chmod 600 {path}, and start the cluster anew: the key may be known"),
        ),
        None => good(CHECK, "nobody else can read the connection files"),
    }
}

/// Ports that others reach, and nothing is encrypted.
fn encrypted(facts: &Facts) -> Finding {
    const CHECK: &str = "encrypted";
    let Some((client, engine)) = &facts.files else { return unknown(CHECK, "there is no connection file") };
    let leaves = |file: &Common| file.interface.starts_with("tcp:") && !is_loopback(&file.interface);
    let is_plain = |file: &Common| file.curve_serverkey.as_deref().unwrap_or_default().is_empty();
    if [client, engine].iter().any(|file| leaves(file) && is_plain(file)) {
        return bad(
            CHECK,
            "connections over the network are not encrypted",
            "start the controller without --no-curve",
        );
    }
    good(CHECK, "connections that leave the machine are encrypted")
}

/// An engine of one MPI and the launcher of another.
fn one_mpi(facts: &Facts) -> Finding {
    const CHECK: &str = "mpi";
    let Some(engine) = facts.engine_mpi else {
        return unknown(CHECK, "the engine program was not found, or is linked with no MPI");
    };
    match &facts.mpiexec {
        Some((path, family)) if *family != engine => {
            let text = format!("engines are linked with {engine}, and {path} is of {family}");
            if facts.has_own_mpiexec == Some(true) {
                return good(CHECK, format!("{text}; cluster start uses the one of {engine}"));
            }
            bad(
                CHECK,
                text,
                format!(
                    "load {engine}'s module or install it (Debian: apt install {})",
                    engine.debian_package()
                ),
            )
        }
        Some((path, _)) => good(CHECK, format!("engines and {path} are of {engine}")),
        None => unknown(CHECK, format!("engines are linked with {engine}; there is no mpiexec in PATH")),
    }
}

/// `srun` without a way for the engine's MPI to find its ranks.
fn pmi(facts: &Facts) -> Finding {
    const CHECK: &str = "srun";
    let (Some(plugins), Some(engine)) = (&facts.srun_plugins, facts.engine_mpi) else {
        return unknown(CHECK, "there is no srun in PATH");
    };
    let wanted = wanted_plugin(engine);
    if plugins.iter().any(|plugin| plugin == wanted) {
        return good(CHECK, format!("srun has the plugin {wanted} that {engine} needs"));
    }
    let found = plugins.join(", ");
    let text = format!("srun has no plugin {wanted}, which {engine} needs (it has: {found})");
    if facts.has_own_mpiexec == Some(true) {
        return good(CHECK, format!("{text}; jobs use mpiexec"));
    }
    bad(CHECK, text, format!("ask the site for it, or put the mpiexec of {engine} in PATH"))
}

/// Fewer open files than so many engines need.
fn open_files(facts: &Facts) -> Finding {
    const CHECK: &str = "open-files";
    let Some(most) = facts.open_files_max else {
        return unknown(CHECK, "the limit of open files is not known");
    };
    let needed = u64::from(facts.engines_wanted) * CONNECTIONS_PER_ENGINE + OTHER_FILES;
    if most >= needed {
        return good(
            CHECK,
            format!("a process may open {most} files; {} engines need {needed}", facts.engines_wanted),
        );
    }
    bad(
        CHECK,
        format!(
            "a process may open {most} files, but {} engines need {needed} in the controller",
            facts.engines_wanted
        ),
        format!(
            "ulimit -Hn {needed} before the controller is started, or run it where that is allowed (in the job)"
        ),
    )
}

/// Clocks that differ.
fn clocks(facts: &Facts) -> Finding {
    const CHECK: &str = "clocks";
    let file = facts.file_skew.map(|skew| (skew, "the file server".to_owned()));
    let worst = file.into_iter().chain(facts.controller_skew.clone()).max();
    match worst {
        Some((skew, whose)) if skew > SKEW_MAX => bad(
            CHECK,
            format!("the clock of {whose} is {:.0} s off this machine's", skew.as_secs_f64()),
            "time limits and dates will look wrong: synchronise the clocks (chrony, ntpd)",
        ),
        Some(_) => good(CHECK, "clocks agree"),
        None => unknown(CHECK, "there is no other clock to compare with"),
    }
}

fn is_loopback(interface: &str) -> bool {
    let address = interface.strip_prefix("tcp://").unwrap_or_default();
    address == "localhost" || address.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(interface: &str, location: &str) -> Common {
        let text = serde_json::json!({
            "interface": interface, "location": location, "registration": 1, "control": 1, "mux": 1, "task": 1,
            "iopub": 1, "key": "k", "curve_serverkey": "c",
        });
        serde_json::from_value(text).expect("a connection file's part")
    }

    /// A cluster of two engines on two nodes, as it should be.
    fn healthy() -> Facts {
        let file = file("tcp://*", "login");
        Facts {
            hostname: "login".into(),
            own_addresses: vec!["10.0.0.1".into()],
            files: Some((file.clone(), file)),
            answers: Some(true),
            start_command: "cluster start -n 4".into(),
            sets: vec![(EngineKind::Slurm, 2)],
            engines: vec![("n1".into(), 2), ("n2".into(), 2)],
            engine_mpi: Some(Flavor::OpenMpi),
            mpiexec: Some(("/usr/bin/mpiexec".into(), Flavor::OpenMpi)),
            has_own_mpiexec: Some(true),
            srun_plugins: Some(vec!["none".into(), "pmix".into()]),
            open_files_max: Some(4096),
            engines_wanted: 2,
            file_skew: Some(Duration::from_millis(10)),
            controller_skew: Some((Duration::from_millis(3), "login".into())),
            ..Facts::default()
        }
    }

    /// The checks that fail, with what to do.
    fn failing(facts: &Facts) -> Vec<(&'static str, String)> {
        let failed = examine(facts).into_iter().filter(|finding| finding.ok == Some(false));
        failed.map(|finding| (finding.check, finding.fix.expect("every failure says what to do"))).collect()
    }

    /// Breaks a healthy cluster, and expects one failure with these words in what to do.
    #[track_caller]
    fn breaks(check: &str, words: &str, seed: impl FnOnce(&mut Facts)) {
        let mut facts = healthy();
        seed(&mut facts);
        let failing = failing(&facts);
        assert_eq!(failing.len(), 1, "{failing:?}");
        assert_eq!(failing[0].0, check);
        assert!(failing[0].1.contains(words), "{failing:?}");
    }

    #[test]
    fn a_healthy_cluster_has_no_fault_and_an_empty_machine_has_none_either() {
        assert_eq!(failing(&healthy()), []);
        assert_eq!(failing(&Facts::default()), []);
    }

    #[test]
    fn seeded_faults_are_each_recognised_with_what_to_do() {
        breaks("world", "srun --mpi=pmix", |facts| {
            facts.engines = vec![("n1".into(), 1), ("n2".into(), 1)];
        });
        breaks("listens", "--ip='*'", |facts| {
            let loopback = file("tcp://127.0.0.1", "login");
            facts.files = Some((loopback.clone(), loopback));
        });
        breaks("interface", "--ip='*'", |facts| {
            let other = file("tcp://10.9.9.9", "login");
            facts.files = Some((other.clone(), other));
        });
        breaks("controller", "cluster start -n 4", |facts| facts.answers = Some(false));
        breaks("files", "start one", |facts| {
            let Some((client, _)) = &mut facts.files else { unreachable!() };
            client.registration = 2;
        });
        breaks("private", "chmod 600 /p/f", |facts| facts.readable_file = Some(("/p/f".into(), 0o644)));
        breaks("encrypted", "--no-curve", |facts| {
            let mut plain = file("tcp://*", "login");
            plain.curve_serverkey = None;
            facts.files = Some((plain.clone(), plain));
        });
        breaks("mpi", "apt install openmpi-bin", |facts| {
            facts.mpiexec = Some(("/usr/bin/mpiexec".into(), Flavor::Mpich));
            facts.has_own_mpiexec = Some(false);
        });
        breaks("srun", "put the mpiexec of Open MPI in PATH", |facts| {
            facts.srun_plugins = Some(vec!["none".into(), "pmi2".into()]);
            facts.mpiexec = None;
            facts.has_own_mpiexec = Some(false);
        });
        breaks("open-files", "ulimit -Hn 32256", |facts| facts.engines_wanted = 4000);
        breaks("clocks", "synchronise", |facts| {
            facts.controller_skew = Some((Duration::from_secs(90), "login".into()));
        });
    }

    #[test]
    fn the_other_mpis_mpiexec_does_no_harm_while_the_own_one_is_there() {
        let mut facts = healthy();
        facts.mpiexec = Some(("/usr/bin/mpiexec".into(), Flavor::Mpich));
        facts.srun_plugins = Some(vec!["none".into()]);
        assert_eq!(failing(&facts), []);
    }
}
