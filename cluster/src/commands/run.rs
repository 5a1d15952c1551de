//! `cluster run`: a cluster for the time of one program.

use std::process::{Command, Stdio};

use clap::Args;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::launch_args::LaunchArgs;
use crate::cli::Place;
use crate::failure::{Code, Failure};
use crate::process::ProcessId;
use crate::profile::Profile;
use crate::run_command::{exit_of, quote};
use slurm_pbs::Exit;

/// Start a cluster, run one program when it is ready, and stop the cluster.
///
/// The program finds the cluster by itself: it gets the profile in its environment. The command ends with the
/// program's exit code (128 + the signal that ended it); 4 if the cluster could not be started. In a job script this
/// is all that is needed: it takes the size of the job, and nothing has to sleep.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  cluster run -n 4 -- client run heat.px
  cluster run -n 16 --engines slurm --walltime 30:00 -- client run heat.px
  cluster run -n 4 --python -- python analysis.py
In a job script:
  #SBATCH --ntasks=64
  cluster run -- client run heat.px")]
pub struct Run {
    #[command(flatten)]
    pub launch: LaunchArgs,

    /// The address the controller listens on; see `cluster start`.
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<String>,

    /// The program and its arguments.
    #[arg(last = true, required = true, value_name = "PROGRAM")]
    program: Vec<String>,
}

impl Run {
    /// Returns when the cluster has ended again.
    pub fn run(self, place: &Place) -> Result<(), Failure> {
        let profile = place.profile()?;
        let signals = Signals::new([SIGINT, SIGTERM, SIGHUP])
            .map_err(|error| Failure::failed("failed to watch for signals").caused_by(error))?;
        start(&profile)?;
        let exit = run_program(&profile, &self.program, signals);
        let stopped = own(&profile, "stop").status();
        let exit = exit?;
        if !stopped.is_ok_and(|status| status.success()) {
            eprintln!("error: failed to stop the cluster; try: {}", profile.command("cluster", "stop"));
        }
        let code = match exit {
            Exit::Code(code) => code,
            Exit::Signal(signal) => 128 + signal,
        };
        std::process::exit(code)
    }
}

/// A command of ours for the same cluster.
fn own(profile: &Profile, command: &str) -> Command {
    let mut own = Command::new("/proc/self/exe");
    own.arg(command).arg(format!("--profile-dir={}", profile.dir().display())).stdin(Stdio::null());
    if !profile.cluster_id().is_empty() {
        own.arg(format!("--cluster-id={}", profile.cluster_id()));
    }
    own.stdout(Stdio::null());
    own
}

/// `cluster start --daemonize` with the same arguments; what it says on its way is for the user.
fn start(profile: &Profile) -> Result<(), Failure> {
    let mut start = own(profile, "start");
    let typed: Vec<std::ffi::OsString> = std::env::args_os().skip(1).collect();
    let ours = typed.iter().position(|argument| argument == "--").unwrap_or(typed.len());
    let place = ["--profile", "--profile-dir", "--cluster-id", "--ipython-dir"];
    let mut words = typed[..ours].iter();
    while let Some(word) = words.next() {
        let text = word.to_string_lossy();
        if text == "run" || place.iter().any(|flag| text.starts_with(&format!("{flag}="))) {
            continue;
        }
        if place.contains(&text.as_ref()) {
            words.next(); // Its value. Where the cluster is has been said above.
            continue;
        }
        start.arg(word);
    }
    let failed = |error| Failure::new(Code::LaunchFailed, "failed to start the cluster").caused_by(error);
    let status = start.arg("--daemonize").status().map_err(failed)?;
    if status.success() {
        return Ok(());
    }
    // It has said why.
    std::process::exit(status.code().unwrap_or(Code::LaunchFailed as i32))
}

/// Ctrl-C reaches the program by the terminal; other signals are passed on to it.
fn run_program(profile: &Profile, program: &[String], mut signals: Signals) -> Result<Exit, Failure> {
    let (name, arguments) = program.split_first().expect("clap asked for it");
    let path = crate::run_command::find_program(name).ok_or_else(|| {
        Failure::new(Code::Failed, format!("there is no program {} next to cluster or in PATH", quote(name)))
    })?;
    let failed = |error| Failure::failed(format!("failed to run {}", path.display())).caused_by(error);
    let mut child = Command::new(&path)
        .args(arguments)
        .env("IPP_PROFILE_DIR", profile.dir())
        .env("IPP_CLUSTER_ID", profile.cluster_id())
        .spawn()
        .map_err(failed)?;
    let id =
        ProcessId::of(i32::try_from(child.id()).expect("the kernel's pids fit in i32")).map_err(failed)?;
    let handle = signals.handle();
    let pass = std::thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever().filter(|signal| *signal != SIGINT) {
            if let Ok(signal) = nix::sys::signal::Signal::try_from(signal) {
                let _ = id.signal(signal); // If it is gone, we are about to notice.
            }
        }
    });
    let status = child.wait().map_err(failed);
    handle.close();
    let _ = pass.map(std::thread::JoinHandle::join); // It ends with its handle.
    Ok(exit_of(status?))
}
