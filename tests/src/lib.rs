//! What the process tests share: real clusters in temporary profiles, and programs run against them.
//!
//! Every wait has a deadline. Everything that a test starts ends with it: controllers and launchers run in process
//! groups of their own, which are ended when the [`TestCluster`] goes.

pub mod hosts;
pub mod slurm;
pub mod stub;

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

/// How long anything here may take before the test fails: generous, because test machines are shared.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// How engines are started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engines {
    /// One MPI world under mpiexec.
    Mpi,
    /// One process each, without MPI.
    Local,
}

/// A controller and its engines in a temporary profile.
pub struct TestCluster {
    profile: tempfile::TempDir,
    controller: Child,
    controller_program: PathBuf,
    controller_arguments: Vec<String>,
    launchers: Vec<Child>,
}

/// What a program printed, and how it ended.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// How long it took.
    pub elapsed: Duration,
}

impl Finished {
    /// Fails the test unless the program succeeded; returns what it printed.
    #[track_caller]
    pub fn ok(self) -> String {
        assert!(self.status.success(), "{}\nstdout: {}\nstderr: {}", self.status, self.stdout, self.stderr);
        self.stdout
    }

    /// The exit code; 128 + signal if a signal ended it.
    pub fn code(&self) -> i32 {
        use std::os::unix::process::ExitStatusExt;
        self.status.code().or(self.status.signal().map(|signal| 128 + signal)).unwrap_or(-1)
    }
}

/// The path of one of our programs, built beside this test.
#[track_caller]
pub fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a running program has a path");
    let folder = test.ancestors().find(|folder| folder.join(name).is_file());
    match folder {
        Some(folder) => folder.join(name),
        None => {
            panic!("the program {name} was not built: run `cargo build --workspace --bins --examples` first")
        }
    }
}

/// Copies of programs in a directory that every user of the machine may enter; where this test was built, they may not.
#[track_caller]
pub fn for_everybody(names: &[&str]) -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::Builder::new().prefix("programs").tempdir().expect("a temporary directory");
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(directory.path(), open).expect("the directory is ours");
    for name in names {
        std::fs::copy(program(name), directory.path().join(name)).expect("there is room for a copy");
    }
    directory
}

/// The command that starts `n` ranks on this machine whatever its number of cores, as any user.
pub fn mpiexec(n: usize) -> Command {
    let launcher = std::env::var_os("COMMWORLD_MPIEXEC").unwrap_or_else(|| "mpiexec".into());
    let mut command = Command::new(launcher);
    command
        .env("OMPI_ALLOW_RUN_AS_ROOT", "1")
        .env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
        .env("OMPI_MCA_rmaps_base_oversubscribe", "1")
        .env("OMPI_MCA_hwloc_base_binding_policy", "none")
        .arg("-n")
        .arg(n.to_string());
    command
}

impl TestCluster {
    /// Starts a controller with extra arguments, and waits for its connection files.
    #[track_caller]
    pub fn controller(arguments: &[&str]) -> TestCluster {
        TestCluster::of(&program("controller"), arguments)
    }

    /// As [`TestCluster::controller`], with another program that is told the profile the same way.
    #[track_caller]
    pub fn of(controller_program: &Path, arguments: &[&str]) -> TestCluster {
        let profile = tempfile::Builder::new().prefix("commworld").tempdir().expect("a temporary directory");
        let controller_arguments: Vec<String> =
            arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let controller = start_controller(controller_program, profile.path(), &controller_arguments);
        let mut cluster = TestCluster {
            profile,
            controller,
            controller_program: controller_program.to_owned(),
            controller_arguments,
            launchers: Vec::new(),
        };
        let security = cluster.profile().join("security");
        wait_until("the controller wrote its connection files", || {
            if let Some(status) = cluster.controller.try_wait().expect("it is our child") {
                panic!("the controller ended with {status}:\n{}", cluster.log("controller"));
            }
            security.join("ipcontroller-client.json").is_file()
                && security.join("ipcontroller-engine.json").is_file()
        });
        cluster
    }

    /// Kills the controller, so that it can do nothing about it, and starts another one in its place.
    #[track_caller]
    pub fn kill_and_restart_controller(&mut self) {
        signal(self.controller_pid(), Signal::SIGKILL);
        self.controller.wait().expect("it is our child");
        self.controller =
            start_controller(&self.controller_program, self.profile.path(), &self.controller_arguments);
    }

    /// Starts a cluster of `n` engines and waits until all can be used.
    #[track_caller]
    pub fn start(engines: Engines, n: usize) -> TestCluster {
        TestCluster::start_program("engine", engines, n)
    }

    /// As [`TestCluster::start`], with an engine program of one's own.
    #[track_caller]
    pub fn start_program(engine: &str, engines: Engines, n: usize) -> TestCluster {
        let mut cluster = TestCluster::controller(&[]);
        cluster.add_program(engine, engines, n);
        cluster.client(&["wait", "-n", &n.to_string()]).ok();
        cluster
    }

    /// Starts engines; does not wait for them.
    #[track_caller]
    pub fn add_engines(&mut self, engines: Engines, n: usize) {
        self.add_program("engine", engines, n);
    }

    /// As [`TestCluster::add_engines`], with an engine program of one's own.
    #[track_caller]
    pub fn add_program(&mut self, engine: &str, engines: Engines, n: usize) {
        self.add_program_with(engine, engines, n, &[]);
    }

    /// As [`TestCluster::add_program`], with more arguments.
    #[track_caller]
    pub fn add_program_with(&mut self, engine: &str, engines: Engines, n: usize, arguments: &[&str]) {
        let profile = self.profile().to_owned();
        match engines {
            Engines::Mpi => {
                let mut command = mpiexec(n);
                command.arg(program(engine)).args(["--mpi", "--expect-size", &n.to_string()]);
                command.arg("--profile-dir").arg(&profile).args(arguments);
                self.add_launcher(&mut command, "engines");
            }
            Engines::Local => {
                for _ in 0..n {
                    let mut command = Command::new(program(engine));
                    command.arg("--profile-dir").arg(&profile).args(arguments);
                    self.add_launcher(&mut command, &format!("engine-{}", self.launchers.len()));
                }
            }
        }
    }

    /// Starts a process that ends with the cluster; its output is the log of this name.
    #[track_caller]
    pub fn add_launcher(&mut self, command: &mut Command, log: &str) {
        let log = self.profile().join(format!("{log}.log"));
        self.launchers.push(start(command, &log));
    }

    /// The profile's directory.
    pub fn profile(&self) -> &Path {
        self.profile.path()
    }

    /// The process id of the controller.
    pub fn controller_pid(&self) -> u32 {
        self.controller.id()
    }

    /// The process id of the `index`th launcher: a local engine, or an `mpiexec`.
    pub fn launcher_pid(&self, index: usize) -> u32 {
        self.launchers[index].id()
    }

    /// The log of `controller`, `engines` or `engine-<i>`, for messages of failing tests.
    pub fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.profile().join(format!("{name}.log"))).unwrap_or_default()
    }

    /// Runs the program `client` against this cluster.
    #[track_caller]
    pub fn client(&self, arguments: &[&str]) -> Finished {
        let mut command = Command::new(program("client"));
        command.arg("--profile-dir").arg(self.profile()).args(arguments);
        run(&mut command)
    }

    /// Connects with the client library.
    #[track_caller]
    pub fn connect(&self) -> client::Client {
        client::Client::connect(&client::ConnectOptions::profile_dir(self.profile()))
            .expect("the controller is up")
    }

    /// Ends everything and waits for it.
    fn end(&mut self) {
        for child in self.launchers.iter_mut().chain([&mut self.controller]) {
            if matches!(child.try_wait(), Ok(None)) {
                let group = Pid::from_raw(child.id() as i32);
                // The group was made by `start`; its leader has not been waited for, so the number is still its.
                let _ = killpg(group, Signal::SIGTERM);
                let patience = Instant::now() + Duration::from_secs(5);
                while matches!(child.try_wait(), Ok(None)) && Instant::now() < patience {
                    std::thread::sleep(Duration::from_millis(10));
                }
                let _ = killpg(group, Signal::SIGKILL);
                let _ = child.wait();
            }
        }
    }
}

impl Drop for TestCluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for name in ["controller", "engines", "engine-0", "engine-1", "engine-2"] {
                let log = self.log(name);
                if !log.is_empty() {
                    eprintln!("── {name}.log ──\n{log}");
                }
            }
        }
        self.end();
    }
}

#[track_caller]
fn start_controller(program: &Path, profile: &Path, arguments: &[String]) -> Child {
    let mut command = Command::new(program);
    command.args(arguments).arg(format!("--profile-dir={}", profile.display()));
    start(&mut command, &profile.join("controller.log"))
}

/// Starts a program in a process group of its own, with its output in a file.
#[track_caller]
fn start(command: &mut Command, log: &Path) -> Child {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(log);
    let log = log.expect("the temporary directory is ours");
    let errors = log.try_clone().expect("a file can be shared");
    command.stdin(Stdio::null()).stdout(log).stderr(errors).process_group(0);
    command.spawn().unwrap_or_else(|error| panic!("failed to start {command:?}: {error}"))
}

/// Runs a program to its end; kills it and fails the test if it takes longer than [`DEADLINE`].
#[track_caller]
pub fn run(command: &mut Command) -> Finished {
    let started = Instant::now();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("failed to start {command:?}: {error}"));
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let status = loop {
        if let Some(status) = child.try_wait().expect("it is our child") {
            break Some(status);
        }
        if started.elapsed() > DEADLINE {
            let _ = child.kill();
            let _ = child.wait();
            break None;
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let elapsed = started.elapsed();
    let (stdout, stderr) = (text(stdout), text(stderr));
    match status {
        Some(status) => Finished { status, stdout, stderr, elapsed },
        None => panic!("{command:?} did not end within {DEADLINE:?}\nstdout: {stdout}\nstderr: {stderr}"),
    }
}

type Collector = std::thread::JoinHandle<String>;

/// Reads a pipe on a thread, so that a program that prints much never waits for us.
fn collect(pipe: Option<impl Read + Send + 'static>) -> Option<Collector> {
    pipe.map(|mut pipe| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = pipe.read_to_end(&mut bytes);
            String::from_utf8_lossy(&bytes).into_owned()
        })
    })
}

fn text(collector: Option<Collector>) -> String {
    collector.and_then(|collector| collector.join().ok()).unwrap_or_default()
}

/// Waits until a condition holds; fails the test if it does not within [`DEADLINE`].
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < DEADLINE, "waited {DEADLINE:?} in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Sends a signal to one process that this test started, or that one of its programs reported as its own.
#[track_caller]
pub fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid as i32), signal).expect("the process exists and is ours");
}

/// Resident memory of a process in MiB.
#[track_caller]
pub fn resident_mib(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process exists");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("Linux reports it");
    let kib: f64 =
        line.split_whitespace().nth(1).and_then(|text| text.parse().ok()).expect("a number of KiB");
    kib / 1024.0
}

/// CPU time that a process has used.
#[track_caller]
pub fn cpu_time(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process exists");
    let fields: Vec<&str> = stat.rsplit(") ").next().expect("the name ends").split_whitespace().collect();
    let ticks: u64 =
        fields[11].parse::<u64>().expect("user time") + fields[12].parse::<u64>().expect("system time");
    Duration::from_millis(ticks * 10)
}

/// All processes whose command line holds `needle`, zombies left out.
pub fn processes_with(needle: impl AsRef<OsStr>) -> Vec<u32> {
    use std::os::unix::ffi::OsStrExt;
    let needle = needle.as_ref().as_bytes();
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        command.windows(needle.len()).any(|window| window == needle)
    })
    .collect()
}
