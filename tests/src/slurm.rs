//! A private Slurm for one test: munged, slurmctld and a slurmd for each of its nodes, all on loopback, all in a
//! temporary directory, all ended with the test. The nodes are virtual: they share this machine.

use std::fmt::Write as _;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use crate::{Finished, processes_with, run, start, wait_until};

/// Processors that each node claims to have.
const PROCESSORS: u32 = 4;

/// The file system's own limit for the paths of sockets is 108 bytes, so the directory's name is short.
const PREFIX: &str = "cwslurm";

/// See the module.
pub struct Slurm {
    state: tempfile::TempDir,
    daemons: Vec<std::process::Child>,
}

impl Slurm {
    /// Brings it up with so many nodes (`n1`, `n2`, …), and returns when all can be used.
    #[track_caller]
    pub fn start(nodes: u32) -> Slurm {
        for program in ["munged", "slurmctld", "slurmd", "sbatch", "srun"] {
            assert!(
                find(program).is_some(),
                "{program} is not installed: run scripts/setup.sh (Debian: slurm-wlm, munge)"
            );
        }
        let state = tempfile::Builder::new().prefix(PREFIX).tempdir().expect("a temporary directory");
        // Jobs of any user read their scripts and write below it.
        set_mode(state.path(), 0o755);
        let mut slurm = Slurm { state, daemons: Vec::new() };
        fs::create_dir(slurm.path("tmp")).expect("the directory is ours");
        set_mode(&slurm.path("tmp"), 0o1777);
        slurm.start_munged();
        let ports = free_ports(nodes as usize + 1);
        fs::write(slurm.configuration(), slurm.configuration_text(&ports)).expect("the directory is ours");
        let configuration = slurm.configuration();
        slurm.daemon("slurmctld", &["-D", "-i", "-f", &text(&configuration)]);
        for node in 1..=nodes {
            for folder in [format!("spool-n{node}"), format!("tmp-n{node}")] {
                fs::create_dir(slurm.path(&folder)).expect("the directory is ours");
                set_mode(&slurm.path(&folder), if folder.starts_with("tmp") { 0o1777 } else { 0o755 });
            }
            slurm.daemon("slurmd", &["-D", "-N", &format!("n{node}"), "-f", &text(&configuration)]);
        }
        wait_until("the nodes of Slurm are idle", || slurm.idle_nodes() == nodes);
        slurm
    }

    /// A program that finds this Slurm.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env("SLURM_CONF", self.configuration());
        // Ranks of different jobs of the same number share this machine, and would share the names of their memory and files.
        command.env("OMPI_MCA_btl", "tcp,self");
        command.env("TMPDIR", self.path("tmp"));
        command
    }

    /// Runs a command of Slurm to its end.
    #[track_caller]
    pub fn run(&self, program: &str, arguments: &[&str]) -> Finished {
        run(self.command(find(program).unwrap_or_else(|| PathBuf::from(program))).args(arguments))
    }

    /// The ids of all jobs that have not ended.
    #[track_caller]
    pub fn jobs(&self) -> Vec<String> {
        self.run("squeue", &["--noheader", "--format=%i"]).ok().lines().map(str::to_owned).collect()
    }

    /// What Slurm's daemons wrote, for messages of failing tests.
    pub fn logs(&self) -> String {
        let mut logs = String::new();
        for entry in fs::read_dir(self.path("")).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "log") {
                let log = fs::read_to_string(&path).unwrap_or_default();
                let last: Vec<&str> = log.lines().rev().take(15).collect();
                let last: Vec<&str> = last.into_iter().rev().collect();
                let _ = writeln!(logs, "── {} ──\n{}", path.display(), last.join("\n"));
            }
        }
        logs
    }

    fn idle_nodes(&self) -> u32 {
        let answer = self.run("sinfo", &["--noheader", "--Node", "--format=%T"]);
        u32::try_from(answer.stdout.lines().filter(|state| *state == "idle").count()).expect("few nodes")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.state.path().join(name)
    }

    fn configuration(&self) -> PathBuf {
        self.path("slurm.conf")
    }

    fn start_munged(&mut self) {
        fs::create_dir(self.path("munge")).expect("the directory is ours");
        set_mode(&self.path("munge"), 0o711);
        let key = self.path("munge/key");
        let mut random = [0; 1024];
        fs::File::open("/dev/urandom")
            .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut random))
            .expect("the system gives random numbers");
        fs::write(&key, random).expect("the directory is ours");
        set_mode(&key, 0o400);
        let option = |name: &str, file: &str| format!("--{name}={}", self.path(file).display());
        let options = [
            "--foreground".to_owned(),
            "--force".to_owned(),
            "--num-threads=2".to_owned(),
            option("key-file", "munge/key"),
            option("socket", "munge/sock"),
            option("pid-file", "munge/pid"),
            option("log-file", "munged.log"),
            option("seed-file", "munge/seed"),
        ];
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        self.daemon("munged", &options);
        wait_until("munged listens", || self.path("munge/sock").exists());
    }

    fn daemon(&mut self, name: &str, arguments: &[&str]) {
        let log = self.path(&format!("{name}-{}.out", self.daemons.len()));
        let mut command = self.command(find(name).expect("looked for at the start"));
        self.daemons.push(start(command.args(arguments), &log));
    }

    fn configuration_text(&self, ports: &[u16]) -> String {
        let user = nix::unistd::User::from_uid(nix::unistd::geteuid());
        let user = user.ok().flatten().expect("this user has a name").name;
        let host = nix::unistd::gethostname().expect("this machine has a name");
        let host = host.to_string_lossy().split('.').next().expect("a first part").to_owned();
        let state = text(self.state.path());
        let mut lines = format!(
            "ClusterName=test\n\
             SlurmctldHost={host}(127.0.0.1)\n\
             SlurmctldPort={}\n\
             SlurmUser={user}\n\
             SlurmdUser={user}\n\
             AuthType=auth/munge\n\
             CredType=cred/munge\n\
             AuthInfo=socket={state}/munge/sock\n\
             CommunicationParameters=NoCtldInAddrAny,NoInAddrAny\n\
             StateSaveLocation={state}/ctld\n\
             SlurmdSpoolDir={state}/spool-%n\n\
             TmpFS={state}/tmp-%n\n\
             SlurmctldPidFile={state}/slurmctld.pid\n\
             SlurmdPidFile={state}/slurmd-%n.pid\n\
             SlurmctldLogFile={state}/slurmctld.log\n\
             SlurmdLogFile={state}/slurmd-%n.log\n\
             ProctrackType=proctrack/linuxproc\n\
             TaskPlugin=task/none\n\
             SwitchType=switch/none\n\
             MpiDefault=none\n\
             JobAcctGatherType=jobacct_gather/none\n\
             AccountingStorageType=accounting_storage/none\n\
             SelectType=select/cons_tres\n\
             SelectTypeParameters=CR_CPU\n\
             SchedulerType=sched/backfill\n\
             SchedulerParameters=bf_interval=1,sched_min_interval=50000,batch_sched_delay=0,sched_interval=5\n\
             SlurmdParameters=config_overrides\n\
             ReturnToService=2\n\
             MailProg=/bin/true\n\
             KillWait=5\n\
             MinJobAge=300\n\
             PropagateResourceLimits=NONE\n",
            ports[0]
        );
        fs::create_dir(self.path("ctld")).expect("the directory is ours");
        for (index, port) in ports[1..].iter().enumerate() {
            let node = index + 1;
            let _ = writeln!(
                lines,
                "NodeName=n{node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={PROCESSORS} \
                 RealMemory=1000 State=UNKNOWN"
            );
        }
        let last = ports.len() - 1;
        let _ = writeln!(
            lines,
            "PartitionName=debug Nodes=n[1-{last}] Default=YES MaxTime=INFINITE DefaultTime=60 State=UP"
        );
        lines
    }

    /// Processes of jobs, by their environment; nobody else has our configuration file in it.
    fn leftovers(&self) -> Vec<u32> {
        let needle = format!("SLURM_CONF={}", self.configuration().display()).into_bytes();
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        pids.filter(|pid| *pid != std::process::id())
            .filter(|pid| {
                let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
                environment.split(|byte| *byte == 0).any(|variable| variable == needle)
            })
            .collect()
    }
}

impl Drop for Slurm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
        for daemon in &mut self.daemons {
            // The group was made by `start`; its leader has not been waited for, so the number is still its.
            let _ = killpg(Pid::from_raw(daemon.id() as i32), Signal::SIGTERM);
        }
        let patience = Instant::now() + Duration::from_secs(5);
        for daemon in &mut self.daemons {
            while matches!(daemon.try_wait(), Ok(None)) && Instant::now() < patience {
                std::thread::sleep(Duration::from_millis(10));
            }
            let _ = killpg(Pid::from_raw(daemon.id() as i32), Signal::SIGKILL);
            let _ = daemon.wait();
        }
        for pid in self.leftovers() {
            let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
        }
    }
}

/// Daemons are where ordinary users do not look.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    folders.map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// Ports that nobody uses now. Slurm wants to be told its ports before it binds them.
fn free_ports(count: usize) -> Vec<u16> {
    let sockets: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind(("127.0.0.1", 0)).expect("a free port")).collect();
    sockets.iter().map(|socket| socket.local_addr().expect("it is bound").port()).collect()
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("the file is ours");
}

fn text(path: &Path) -> String {
    path.to_str().expect("temporary directories have plain names").to_owned()
}

/// Whether any of our programs still runs for this profile.
pub fn runs_for(profile: &Path) -> bool {
    !processes_with(profile.as_os_str()).is_empty()
}
