//! On one machine a cluster has no open port, and other users of the machine get nothing.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use protocol::connection_file::ClientFile;
use tests::{Engines, Finished, TestCluster, program, run};

/// `nobody`, who is on every machine and owns nothing.
const STRANGER: u32 = 65534;

/// A private cluster as `cluster start` makes it, ended when dropped.
struct Started {
    profile: tempfile::TempDir,
}

impl Started {
    fn cluster(&self, arguments: &[&str]) -> Finished {
        let mut command = Command::new(program("cluster"));
        run(command.arg("--profile-dir").arg(self.profile.path()).args(arguments))
    }

    fn client(&self, arguments: &[&str]) -> Finished {
        let mut command = Command::new(program("client"));
        run(command.arg("--profile-dir").arg(self.profile.path()).args(arguments))
    }

    fn file(&self) -> ClientFile {
        client_file(self.profile.path())
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.cluster(&["stop"]);
    }
}

fn start(engines: &str) -> Started {
    let started = Started { profile: tempfile::tempdir().expect("a temporary directory") };
    started.cluster(&["start", "-n", "2", "--engines", engines, "--daemonize"]).ok();
    started
}

fn client_file(profile: &Path) -> ClientFile {
    let path = profile.join("security/ipcontroller-client.json");
    let text = std::fs::read_to_string(path).expect("the controller has written it");
    ClientFile::parse(&text).expect("it is whole")
}

fn socket_of(file: &ClientFile) -> PathBuf {
    let url = file.common.url(file.common.registration);
    url.strip_prefix("ipc://").unwrap_or_else(|| panic!("{url} is not a file")).into()
}

/// The processes whose command lines name a directory.
fn processes_of(profile: &Path) -> Vec<PathBuf> {
    let profile = profile.to_str().expect("a path in UTF-8");
    let processes = std::fs::read_dir("/proc").expect("Linux").map(|entry| entry.expect("an entry").path());
    let names = |process: &PathBuf| {
        std::fs::read(process.join("cmdline"))
            .is_ok_and(|line| String::from_utf8_lossy(&line).contains(profile))
    };
    processes.filter(names).collect()
}

/// The inodes of listening TCP sockets.
fn listening() -> BTreeSet<String> {
    let tables =
        ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| std::fs::read_to_string(table).unwrap_or_default());
    let rows = tables.iter().flat_map(|table| table.lines().skip(1));
    let fields = rows.map(|row| row.split_whitespace().collect::<Vec<_>>());
    fields.filter(|row| row[3] == "0A").map(|row| format!("socket:[{}]", row[9])).collect()
}

fn listens(process: &Path) -> bool {
    let listening = listening();
    let open = std::fs::read_dir(process.join("fd")).expect("our own process");
    open.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .any(|target| listening.contains(&target.to_string_lossy().into_owned()))
}

/// What a program does for another user of this machine, without any of ours.
fn as_stranger(command: &mut Command) -> Finished {
    assert!(nix::unistd::geteuid().is_root(), "run this test as root: only root can become another user");
    run(command.uid(STRANGER).gid(STRANGER).current_dir("/"))
}

/// Says what became of a connection to a socket's file: what the other side greets with, or the error.
const KNOCK: &str = "import socket, sys
peer = socket.socket(socket.AF_UNIX)
peer.settimeout(10)
try:
    peer.connect(sys.argv[1])
    print(peer.recv(1))
except OSError as error:
    print(type(error).__name__)";

fn knock(socket: &Path) -> Command {
    let mut command = Command::new("python3");
    command.arg("-c").arg(KNOCK).arg(socket);
    command
}

#[test]
fn a_cluster_of_one_machine_has_no_open_port_and_leaves_no_sockets_behind() {
    let started = start("local");
    let processes = processes_of(started.profile.path());
    assert!(processes.len() >= 4, "cluster, controller and two engines: {processes:?}");
    for process in &processes {
        assert!(!listens(process), "{} has an open port", process.display());
    }
    let directory = socket_of(&started.file()).parent().expect("a file in a directory").to_owned();
    assert_eq!(std::fs::metadata(&directory).expect("there").permissions().mode() & 0o7777, 0o700);
    assert_eq!(started.client(&["pull", "1 + 1", "--json"]).ok().trim(), "[2,2]");

    started.cluster(&["stop"]).ok();
    assert!(!directory.exists(), "{} is left", directory.display());
}

#[test]
fn an_mpi_world_of_one_machine_meets_its_controller_without_ports() {
    let started = start("mpi");
    // What MPI's own launcher opens is not ours (docs/SECURITY.md); with Open MPI, ranks open nothing.
    let of_open_mpi = started.cluster(&["start", "--dry-run"]).ok().contains("OMPI_MCA_btl");
    let ours: Vec<PathBuf> = processes_of(started.profile.path())
        .into_iter()
        .filter(|process| {
            let name = std::fs::read_to_string(process.join("comm")).unwrap_or_default();
            matches!(name.trim(), "controller" | "cluster") || (of_open_mpi && name.trim() == "engine")
        })
        .collect();
    assert_eq!(ours.len(), if of_open_mpi { 4 } else { 2 }, "{ours:?}");
    assert!(!ours.iter().any(|process| listens(process)), "{ours:?}");
    started.client(&["px", "s = psum(1)"]).ok();
    assert_eq!(started.client(&["pull", "s", "--json"]).ok().trim(), "[2,2]");
}

#[test]
fn a_key_is_in_no_command_line_no_environment_and_no_file_that_others_can_read() {
    let started = start("local");
    let key = started.file().common.key;
    assert!(key.len() >= 32);
    for process in processes_of(started.profile.path()) {
        for name in ["cmdline", "environ"] {
            let told = std::fs::read(process.join(name)).expect("our own process");
            assert!(!String::from_utf8_lossy(&told).contains(&key), "{}/{name}", process.display());
        }
    }
    let mut folders = vec![started.profile.path().to_owned()];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("our own directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            files += 1;
            let Ok(content) = std::fs::read(&path) else { continue };
            let mode = path.metadata().expect("there").permissions().mode();
            let tells = String::from_utf8_lossy(&content).contains(&key);
            assert!(
                !tells || mode & 0o077 == 0,
                "{} tells the key to others (mode {mode:o})",
                path.display()
            );
        }
    }
    assert!(files >= 4, "connection files and logs");
}

#[test]
fn another_user_can_neither_read_the_files_nor_connect_nor_join() {
    let started = start("local");
    // What is under test is below: the way to it is open.
    std::fs::set_permissions(started.profile.path(), std::fs::Permissions::from_mode(0o755)).expect("ours");
    let profile = started.profile.path();
    let read = as_stranger(Command::new("cat").arg(profile.join("security/ipcontroller-client.json")));
    assert_ne!(read.code(), 0);
    let socket = socket_of(&started.file());
    assert_eq!(as_stranger(&mut knock(&socket)).ok().trim(), "PermissionError");
    for (name, arguments) in [("client", &["px", "1"][..]), ("engine", &[])] {
        // A copy where the stranger can run it.
        let folder = tempfile::tempdir().expect("a temporary directory");
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).expect("ours");
        let copy = folder.path().join(name);
        std::fs::copy(program(name), &copy).expect("copied");
        let tried = as_stranger(
            Command::new(&copy).arg("--profile-dir").arg(profile).args(arguments).env("HOME", "/"),
        );
        assert_ne!(tried.code(), 0, "{name}");
        assert!(tried.stderr.contains("only the user who started"), "{name}: {}", tried.stderr);
    }
    assert_eq!(started.client(&["pull", "1 + 1", "--json"]).ok().trim(), "[2,2]");
}

#[test]
fn sockets_that_others_may_open_are_closed_to_other_users_and_that_is_logged() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().join("s");
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).expect("ours");
    let mut cluster = TestCluster::controller(&["--transport=ipc", "--ip", path.to_str().expect("UTF-8")]);
    cluster.add_engines(Engines::Local, 1);
    cluster.client(&["wait", "-n", "1"]).ok();
    let mut sockets = vec![];
    for entry in std::fs::read_dir(folder.path()).expect("ours") {
        let socket = entry.expect("an entry").path();
        std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o777)).expect("ours");
        sockets.push(socket);
    }
    assert!(sockets.len() >= 12, "{sockets:?}");

    for socket in &sockets {
        // A peer that is welcome is greeted with 0xff.
        assert_eq!(run(&mut knock(socket)).ok().trim(), r"b'\xff'");
        assert_ne!(as_stranger(&mut knock(socket)).ok().trim(), r"b'\xff'", "{}", socket.display());
    }

    tests::wait_until("it is logged", || cluster.log("controller").contains("a connection was refused"));
    assert_eq!(cluster.client(&["pull", "1 + 1", "--json"]).ok().trim(), "[2]");
}

#[test]
fn no_process_that_holds_the_key_leaves_a_core_dump_and_root_is_warned() {
    let started = start("local");
    let processes = processes_of(started.profile.path());
    assert!(processes.len() >= 4, "cluster, controller and two engines: {processes:?}");
    for process in processes {
        let limits = std::fs::read_to_string(process.join("limits")).expect("our own process");
        let line = limits.lines().find(|line| line.starts_with("Max core file size")).expect("Linux says it");
        let soft = line.split_whitespace().nth(4);
        assert_eq!(soft, Some("0"), "{}: {line}", process.display());
    }
    assert!(nix::unistd::geteuid().is_root(), "run this test as root: only root is warned");
    let logs = std::fs::read_dir(started.profile.path().join("log")).expect("there").flatten();
    let texts: Vec<String> = logs.filter_map(|log| std::fs::read_to_string(log.path()).ok()).collect();
    assert!(texts.iter().any(|text| text.contains("runs as root")), "{texts:?}");
}

#[test]
fn who_has_not_the_keys_of_the_connection_file_is_not_let_in_where_they_are_required() {
    let mut cluster = TestCluster::controller(&["--enable-curve", "--require-client-keys"]);
    cluster.add_engines(Engines::Local, 2);
    cluster.client(&["wait", "-n", "2"]).ok();
    assert_eq!(cluster.client(&["pull", "1 + 1", "--json"]).ok().trim(), "[2,2]");

    // The server's key, which is all that ipyparallel's own peers need, is not enough here.
    let security = cluster.profile().join("security");
    let read = |name: &str| -> serde_json::Value {
        let text = std::fs::read_to_string(security.join(name)).expect("it is there");
        serde_json::from_str(&text).expect("it is JSON")
    };
    let (client, engine) = (read("ipcontroller-client.json"), read("ipcontroller-engine.json"));
    assert_ne!(client["curve_publickey"], engine["curve_publickey"]);
    let mut stranger = client.clone();
    for name in ["curve_publickey", "curve_secretkey"] {
        stranger.as_object_mut().expect("an object").remove(name);
    }
    // Nor are those of an engine at the doors of clients.
    let mut of_an_engine = client;
    for name in ["curve_publickey", "curve_secretkey"] {
        of_an_engine[name] = engine[name].clone();
    }
    let mut plain = stranger.clone();
    plain["curve_serverkey"] = serde_json::Value::Null;
    let files = [("stranger.json", stranger), ("of-an-engine.json", of_an_engine), ("plain.json", plain)];
    for (name, file) in files {
        let path = security.join(name);
        std::fs::write(&path, file.to_string()).expect("ours");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("ours");
        let path = path.to_str().expect("UTF-8").to_owned();
        let refused = cluster.client(&["--file", &path, "--timeout", "3", "px", "1"]);
        assert_eq!(refused.code(), 3, "{name}: {refused:?}");
    }
    tests::wait_until("it is counted and logged", || {
        let refused = cluster.connect().cluster_status().expect("the hub answers").refused;
        refused["unknown_key"] >= 2
            && cluster.log("controller").contains("a key that is not known here was refused")
    });
    assert_eq!(cluster.client(&["pull", "1 + 1", "--json"]).ok().trim(), "[2,2]");
}

#[test]
fn keys_of_clients_need_encryption() {
    let mut command = Command::new(program("controller"));
    let folder = tempfile::tempdir().expect("a temporary directory");
    let refused = run(command.arg("--require-client-keys").arg("--profile-dir").arg(folder.path()));
    assert_eq!(refused.code(), 2);
    assert!(refused.stderr.contains("add --enable-curve"), "{}", refused.stderr);
}
