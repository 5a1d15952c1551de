//! `cluster launch`: becomes what starts the engines of a job. Job scripts end in it.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use slurm_pbs::{JobStatus, Ranks, System};

use super::launch_args::whole_path;
use crate::cli::Place;
use crate::failure::{Code, Failure};
use crate::job;
use crate::launch::{EngineKind, JobOptions, Programs, allocation};

/// Start engines inside a job, as one MPI world; job scripts end in this.
///
/// Finds out what makes all ranks of this job one world: `srun` with the plugin that the engine's MPI library needs,
/// else the `mpiexec` of that library, with the hosts of the job. Then it becomes that program.
#[derive(Args, Debug)]
#[command(after_help = "\
Example, in a job script of your own:
  exec cluster launch -n \"$SLURM_NTASKS\" --profile lab")]
pub struct Launch {
    /// How many engines.
    #[arg(short, value_name = "N")]
    n: Ranks,

    /// The mpiexec to use, with arguments of its own if need be.
    #[arg(long, value_name = "COMMAND")]
    mpiexec: Option<String>,

    /// The engine program, with arguments of its own if need be [default: engine, next to cluster or in PATH].
    #[arg(long, value_name = "COMMAND")]
    engine_cmd: Option<String>,

    /// Engines that run Python: the one of the active environment, or the INTERPRETER given.
    #[arg(long, value_name = "INTERPRETER", num_args = 0..=1, require_equals = true)]
    python: Option<Option<String>>,

    /// Load this module of compiled functions as the engines start; can be given several times (docs/KERNELS.md).
    #[arg(long = "module", value_name = "FILE", value_parser = whole_path)]
    modules: Vec<PathBuf>,
}

/// When the job that we are in ends at the latest, in seconds since 1970, if its batch system says so.
fn job_ends() -> Option<u64> {
    let allocation = allocation()?;
    let id = allocation.job_id?.parse().ok()?;
    let system = if allocation.is_slurm { System::Slurm } else { job::find_pbs().ok()? };
    let status = system.read_status(&job::run(&system.status(&id)).ok()?).ok()?;
    let JobStatus::Running { seconds_left: Some(left), .. } = status else { return None };
    Some(SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs() + left)
}

impl Launch {
    /// Returns only if it failed.
    pub fn run(self, place: &Place) -> Result<(), Failure> {
        let programs = Programs {
            controller: None,
            engine: self.engine_cmd,
            python: self.python,
            modules: self.modules,
            mpiexec: self.mpiexec,
        };
        let launcher = programs.launcher(Some(EngineKind::Mpi), &JobOptions::default())?;
        let commands = launcher.commands(&place.profile()?, 0, self.n);
        let [line] = commands.as_slice() else { unreachable!("an MPI launcher is one process") };
        eprintln!("cluster: {} {}: {line}", self.n, launcher.describe());
        let mut command = Command::new(&line.program);
        command.args(&line.arguments);
        if let Some(ends) = job_ends() {
            command.env("COMMWORLD_JOB_ENDS", ends.to_string()); // Engines say with it why they end.
        }
        let error = command.exec();
        Err(Failure::new(Code::LaunchFailed, format!("failed to run {}", line.program.display()))
            .caused_by(error))
    }
}
