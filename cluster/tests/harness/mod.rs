//! A profile directory of its own per test, commands with deadlines, and a clean-up by pid whatever happens.

use std::cell::RefCell;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Nothing in these tests takes so long, also on a machine with other work.
const DEADLINE: Duration = Duration::from_secs(30);

/// Launchers of both families, if they are installed.
pub const MPIEXECS: [&str; 2] = ["mpiexec.openmpi", "mpiexec.mpich"];

/// A place for one cluster.
pub struct Lab {
    dir: tempfile::TempDir,
    /// Every process that was ever seen, to end what a failed test leaves.
    seen: RefCell<Vec<i32>>,
}

/// A `cluster` command that runs.
pub struct Running {
    child: Child,
    lines: Receiver<String>,
    stdout: String,
}

/// A command that has ended.
#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    pub stdout: String,
    #[expect(dead_code, reason = "shown by assertions that fail")]
    pub stderr: String,
}

impl Lab {
    pub fn new() -> Lab {
        Lab { dir: tempfile::tempdir().unwrap(), seen: RefCell::default() }
    }

    /// `cluster start` with fake programs and local engines, unless `arguments` say otherwise.
    pub fn start(&self, arguments: &[&str]) -> Running {
        self.start_with("controller", "engine", arguments)
    }

    /// The same with fakes that misbehave.
    pub fn start_with(&self, controller: &str, engine: &str, arguments: &[&str]) -> Running {
        let controller = format!("{} {controller}", fake());
        let engine = format!("{} {engine}", fake());
        let mut line = vec!["start", "--controller-cmd", &controller, "--engine-cmd", &engine];
        line.extend(arguments);
        self.spawn(&line)
    }

    /// `cluster engines` with fakes.
    pub fn engines(&self, arguments: &[&str]) -> Running {
        let engine = format!("{} engine", fake());
        let mut line = vec!["engines", "--engine-cmd", &engine];
        line.extend(arguments);
        self.spawn(&line)
    }

    /// A controller that no `cluster` knows of, with its connection files in place.
    pub fn controller_by_hand(&self) -> Child {
        let child = Command::new(fake())
            .arg("controller")
            .arg(format!("--profile-dir={}", self.dir.path().display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        self.seen.borrow_mut().push(i32::try_from(child.id()).unwrap());
        let deadline = Instant::now() + DEADLINE;
        while !self.security("ipcontroller-engine.json").exists() {
            assert!(Instant::now() < deadline, "the controller wrote no files");
            std::thread::yield_now();
        }
        child
    }

    /// Any command, to its end.
    pub fn run(&self, arguments: &[&str]) -> Ended {
        self.spawn(arguments).wait()
    }

    fn spawn(&self, arguments: &[&str]) -> Running {
        let mut child = Command::new(env!("CARGO_BIN_EXE_cluster"))
            .arg("--json")
            .arg("--profile-dir")
            .arg(self.dir.path())
            .args(arguments)
            .env_remove("IPP_CLUSTER_ID")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (tell, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if tell.send(line).is_err() {
                    return;
                }
            }
        });
        self.seen.borrow_mut().push(i32::try_from(child.id()).unwrap());
        Running { child, lines, stdout: String::new() }
    }

    pub fn cluster_file(&self) -> PathBuf {
        self.security("cluster-.json")
    }

    pub fn security(&self, name: &str) -> PathBuf {
        self.dir.path().join("security").join(name)
    }

    pub fn logs(&self) -> Vec<PathBuf> {
        files(&self.dir.path().join("log"))
    }

    pub fn list(&self) -> Value {
        serde_json::from_str(&self.run(&["list"]).stdout).unwrap()
    }

    /// The pids in the cluster file: controller, then engines and what they started.
    pub fn processes(&self) -> Vec<i32> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let file: Value =
                serde_json::from_str(&fs::read_to_string(self.cluster_file()).unwrap()).unwrap();
            let mut pids = Vec::new();
            pids_in(&file["controller"]["state"], &mut pids);
            let sets = file["engines"]["sets"].as_object().unwrap();
            let mut members_known = true;
            for engine in sets.values().flat_map(|set| set["engines"].as_object().unwrap().values()) {
                pids_in(engine, &mut pids);
                // Members of an mpiexec are written right after the announcement.
                let is_launcher = engine["argv"][0].as_str().unwrap().contains("mpiexec");
                members_known &=
                    !is_launcher || engine["members"].as_array().is_some_and(|all| all.len() >= 2);
            }
            if members_known || Instant::now() > deadline {
                self.seen.borrow_mut().extend(&pids);
                return pids;
            }
            std::thread::yield_now();
        }
    }

    pub fn wait_for_processes(&self, count: usize) -> Vec<i32> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if self.cluster_file().exists() && self.processes().len() >= count {
                return self.processes();
            }
            assert!(Instant::now() < deadline, "{count} processes did not appear");
            std::thread::yield_now();
        }
    }

    pub fn assert_gone(&self, pids: &[i32]) {
        let alive: Vec<&i32> = pids.iter().filter(|pid| is_alive(**pid)).collect();
        assert!(alive.is_empty(), "still alive: {alive:?}");
    }

    pub fn wait_until_gone(&self, pids: &[i32]) {
        let deadline = Instant::now() + DEADLINE;
        while let Some(pid) = pids.iter().find(|pid| is_alive(**pid)) {
            let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let command = command.replace('\0', " ");
            assert!(Instant::now() < deadline, "{pid} of {pids:?} did not end: {command}");
            std::thread::yield_now();
        }
    }

    pub fn assert_no_files(&self) {
        let mut left = files(&self.dir.path().join("security"));
        left.extend(self.logs());
        assert!(left.is_empty(), "left behind: {left:?}");
    }

    /// What `client.shutdown(hub=True)` sends.
    pub fn shut_down_as_a_client(&self) {
        use protocol::message::Empty;
        use transport::{Context, Socket, SocketOptions};
        let text = fs::read_to_string(self.security("ipcontroller-client.json")).unwrap();
        let file = protocol::connection_file::ClientFile::parse(&text).unwrap();
        let context = Context::new(1).unwrap();
        let socket = Socket::dealer(&context, &SocketOptions::default()).unwrap();
        socket.connect(&file.common.url(file.common.registration)).unwrap();
        let mut session = protocol::Session::new("test".into(), "test", 1, &file.common.key());
        let now = protocol::Date::from_system_time(std::time::SystemTime::now());
        let request = session.message(now, "shutdown_request", &Empty::default(), &Empty::default(), vec![]);
        assert_eq!(socket.send(&request.to_parts(&[])).unwrap(), transport::Sent::Done);
        socket.close(Duration::from_secs(5)).unwrap();
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for pid in self.seen.borrow().iter().copied().filter(|pid| is_ours(*pid)) {
            kill(pid, "KILL");
        }
    }
}

impl Running {
    /// The report of this kind, which must come in time.
    pub fn report(&mut self, event: &str) -> Value {
        let deadline = Instant::now() + DEADLINE;
        while let Ok(line) = self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            self.stdout.push_str(&line);
            self.stdout.push('\n');
            let report: Value = serde_json::from_str(&line).unwrap();
            if report["event"] == event {
                return report;
            }
        }
        let mut stderr = String::new();
        if let Ok(Some(_)) = self.child.try_wait() {
            self.child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        }
        panic!("no {event} but:\n{}\n{stderr}", self.stdout);
    }

    pub fn ready(&mut self) -> Value {
        self.report("ready")
    }

    pub fn signal(&self, name: &str) {
        kill(i32::try_from(self.child.id()).unwrap(), name);
    }

    /// Until the command ends, which it must in time.
    pub fn wait(&mut self) -> Ended {
        let deadline = Instant::now() + DEADLINE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "the command did not end; it said:\n{}", self.stdout);
            std::thread::sleep(Duration::from_millis(5));
        };
        let mut stderr = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        while let Ok(line) = self.lines.recv_timeout(Duration::from_secs(1)) {
            self.stdout.push_str(&line);
            self.stdout.push('\n');
        }
        Ended { code: status.code().unwrap_or(-1), stdout: std::mem::take(&mut self.stdout), stderr }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

impl Ended {
    /// The report of the failure.
    pub fn failure(&self) -> Value {
        let last = self.stdout.lines().last().unwrap_or_else(|| panic!("no report: {self:?}"));
        let report: Value = serde_json::from_str(last).unwrap();
        assert_eq!(report["event"], "failed", "{self:?}");
        report
    }
}

pub fn kill(pid: i32, signal: &str) {
    let signal: nix::sys::signal::Signal = format!("SIG{signal}").parse().unwrap();
    let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal);
}

/// Alive and no zombie.
pub fn is_alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.trim().is_empty() && !rest.trim_start().starts_with('Z'))
}

/// The rank that Open MPI gave to this process.
pub fn mpi_rank(pid: i32) -> Option<u32> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let text = String::from_utf8_lossy(&environment).into_owned();
    text.split('\0').find_map(|variable| variable.strip_prefix("OMPI_COMM_WORLD_RANK="))?.parse().ok()
}

pub fn has_program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(name).exists())
}

/// Whether a pid still belongs to one of our test programs.
fn is_ours(pid: i32) -> bool {
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let command = String::from_utf8_lossy(&command).into_owned();
    command.contains("fake_cluster") || command.contains(env!("CARGO_BIN_EXE_cluster"))
}

fn fake() -> String {
    let own = std::env::current_exe().unwrap();
    let path = own.parent().and_then(Path::parent).unwrap().join("examples/fake_cluster");
    assert!(path.exists(), "build it with: cargo build -p cluster --examples");
    path.display().to_string()
}

fn pids_in(process: &Value, pids: &mut Vec<i32>) {
    pids.extend(process["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()));
    for member in process["members"].as_array().into_iter().flatten() {
        pids.extend(member["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()));
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}
