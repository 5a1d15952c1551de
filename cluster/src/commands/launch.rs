//! `cluster launch`: becomes what starts the engines of a job. Job scripts end in it.

use std::os::unix::process::CommandExt;
use std::process::Command;

use clap::Args;
use slurm_pbs::Ranks;

use crate::cli::Place;
use crate::failure::{Code, Failure};
use crate::launch::{EngineKind, JobOptions, Programs};

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
}

impl Launch {
    /// Returns only if it failed.
    pub fn run(self, place: &Place) -> Result<(), Failure> {
        let programs = Programs {
            controller: None,
            engine: self.engine_cmd,
            python: self.python,
            mpiexec: self.mpiexec,
        };
        let launcher = programs.launcher(Some(EngineKind::Mpi), &JobOptions::default())?;
        let commands = launcher.commands(&place.profile()?, 0, self.n);
        let [line] = commands.as_slice() else { unreachable!("an MPI launcher is one process") };
        eprintln!("cluster: {} {}: {line}", self.n, launcher.describe());
        let error = Command::new(&line.program).args(&line.arguments).exec();
        Err(Failure::new(Code::LaunchFailed, format!("failed to run {}", line.program.display()))
            .caused_by(error))
    }
}
