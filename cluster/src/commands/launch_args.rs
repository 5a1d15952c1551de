//! The arguments that `start` and `engines` share, and going to the background.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use clap::Args;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use slurm_pbs::Ranks;

use crate::failure::{Code, Failure};
use crate::launch::{EngineKind, JobOptions, Launcher, Programs, allocation};
use crate::log_file::{LAST_LINES_MAX, last_lines};
use crate::output::{Form, Output, Report};
use crate::process::ProcessId;
use crate::profile::Profile;
use crate::supervisor::background_log;

const BACKGROUND_CHILD: &str = "--background-child";

/// A path that means the same wherever an engine is started.
pub fn whole_path(text: &str) -> Result<PathBuf, String> {
    std::path::absolute(text).map_err(|error| error.to_string())
}

/// How engines are started.
#[derive(Args, Debug)]
pub struct LaunchArgs {
    /// How many engines [default: as many as the job has ranks if this runs inside one, else the number of processors].
    #[arg(short, value_name = "N")]
    n: Option<Ranks>,

    /// What starts the engines [default: mpi if the engine is linked with an MPI library].
    #[arg(long, value_name = "KIND")]
    engines: Option<EngineKind>,

    #[command(flatten)]
    job: JobOptions,

    /// The mpiexec to use, with arguments of its own if need be [default: the one that belongs to the engine's
    /// MPI library]. Flags for root, oversubscription and binding are added as its family needs them.
    #[arg(long, value_name = "COMMAND")]
    mpiexec: Option<String>,

    /// The engine program, with arguments of its own if need be [default: engine, next to cluster or in PATH].
    #[arg(long, value_name = "COMMAND")]
    engine_cmd: Option<String>,

    /// Engines that run Python: the one of the active environment, or the INTERPRETER given; see `engine --help`.
    #[arg(long, value_name = "INTERPRETER", num_args = 0..=1, require_equals = true)]
    python: Option<Option<String>>,

    /// Load this module of compiled functions as the engines start; can be given several times (docs/KERNELS.md).
    #[arg(long = "module", value_name = "FILE", value_parser = whole_path)]
    modules: Vec<PathBuf>,

    /// Give up if the engines are not all there after so many seconds, not counting what a job waits in its queue.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,

    /// Return when all is ready, and leave it running in the background.
    #[arg(long)]
    daemonize: bool,

    /// Keep the logs after an end in order; after a failure they are kept anyway.
    #[arg(long)]
    keep_logs: bool,

    /// Print the commands that would be run, and run nothing.
    #[arg(long)]
    dry_run: bool,

    /// What --daemonize starts.
    #[arg(long, hide = true)]
    background_child: bool,
}

impl LaunchArgs {
    /// How many engines.
    pub fn ranks(&self) -> Ranks {
        let processors =
            || std::thread::available_parallelism().ok().and_then(|count| u32::try_from(count.get()).ok());
        let default = || {
            Ranks::try_from(processors().unwrap_or(1))
                .expect("a machine has some processors, and not millions")
        };
        let of_job = || Ranks::try_from(allocation()?.ranks?).ok();
        self.n.or_else(of_job).unwrap_or_else(default)
    }

    /// Whether a batch system is to start the engines: it gets what follows `--`.
    pub fn is_batch(&self) -> bool {
        self.engines.is_some_and(EngineKind::is_batch)
    }

    /// Gives the batch system arguments of its own.
    pub fn pass_to_batch(&mut self, arguments: Vec<String>) {
        self.job.more = arguments;
    }

    /// The programs that were named.
    pub fn programs(&self, controller: Option<String>) -> Programs {
        Programs {
            controller,
            engine: self.engine_cmd.clone(),
            python: self.python.clone(),
            modules: self.modules.clone(),
            mpiexec: self.mpiexec.clone(),
        }
    }

    /// What starts the engines.
    pub fn launcher(&self, programs: &Programs) -> Result<Box<dyn Launcher>, Failure> {
        programs.launcher(self.engines, &self.job)
    }

    /// How long the start may take.
    pub fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }

    /// Whether logs are kept.
    pub fn keep_logs(&self) -> bool {
        self.keep_logs
    }

    /// Whether commands are only to be shown.
    pub fn dry_run(&self) -> bool {
        self.dry_run
    }

    /// Whether the user wants the prompt back.
    pub fn wants_background(&self) -> bool {
        self.daemonize && !self.background_child
    }

    /// Whether this process was started by [`run_in_background`].
    pub fn is_background_child(&self) -> bool {
        self.background_child
    }
}

/// Starts this same command once more in a session of its own, and returns when that one is ready or has failed.
pub fn run_in_background(profile: &Profile, form: Form) -> Result<(), Failure> {
    let failed = |error| {
        Failure::new(Code::LaunchFailed, "failed to start a process in the background").caused_by(error)
    };
    profile.create()?;
    let signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(failed)?;
    let mut child = spawn_child(profile)?;
    let id =
        ProcessId::of(i32::try_from(child.id()).expect("the kernel's pids fit in i32")).map_err(failed)?;
    pass_on(signals, id).map_err(failed)?;

    let mut output = Output::new(form);
    let reports = BufReader::new(child.stdout.take().expect("its standard output is a pipe"));
    for line in reports.lines() {
        let Ok(report) = line.map_err(drop).and_then(|line| serde_json::from_str(&line).map_err(drop)) else {
            break;
        };
        match report {
            Report::Failed(failure) => {
                let _ = child.wait(); // It is about to end: when we return, nothing is left.
                let _ = crate::cluster_file::remove_if_there(&background_log(profile, id));
                return Err(failure);
            }
            report => {
                let ready = matches!(report, Report::Ready(_));
                let _ = output.tell(&report); // The cluster is there, even if nobody reads this.
                if ready {
                    return Ok(());
                }
            }
        }
    }
    let status = child.wait().map_err(failed)?;
    Err(Failure::new(Code::LaunchFailed, "the process in the background ended before the cluster was ready")
        .because(status.to_string())
        .with_last_lines(last_lines(&background_log(profile, id), LAST_LINES_MAX)))
}

fn spawn_child(profile: &Profile) -> Result<Child, Failure> {
    let failed = |error| {
        Failure::new(Code::LaunchFailed, "failed to start a process in the background").caused_by(error)
    };
    let mut arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let own_end = arguments.iter().position(|argument| argument == "--").unwrap_or(arguments.len());
    arguments.insert(own_end, BACKGROUND_CHILD.into());
    // Its log is named by its pid, which is known only when it runs.
    let log = profile.log_file(&format!("cluster-start-{}", std::process::id()));
    let error_log = OpenOptions::new().create(true).append(true).mode(0o600).open(&log).map_err(failed)?;
    let mut command = Command::new(std::env::current_exe().map_err(failed)?);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(error_log);
    // SAFETY: between fork and exec only setsid is called, which is async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            nix::unistd::setsid()?;
            Ok(())
        });
    }
    let child = command.spawn().map_err(failed)?;
    let id =
        ProcessId { pid: i32::try_from(child.id()).expect("the kernel's pids fit in i32"), start_time: 0 };
    std::fs::rename(&log, background_log(profile, id)).map_err(failed)?;
    Ok(child)
}

/// Ctrl-C while it starts means the cluster, which no longer hears the terminal.
fn pass_on(mut signals: Signals, child: ProcessId) -> std::io::Result<()> {
    let pass = move || {
        for _ in signals.forever() {
            let _ = child.signal(nix::sys::signal::Signal::SIGTERM); // If it is gone, we are about to notice.
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(pass).map(drop)
}
