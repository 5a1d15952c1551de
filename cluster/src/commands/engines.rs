//! `cluster engines`: more engines for a controller that runs.

use std::time::Instant;

use clap::Args;

use super::launch_args::{LaunchArgs, run_in_background};
use crate::cli::Place;
use crate::cluster_file::not_found;
use crate::failure::Failure;
use crate::output::{Form, Output, print, print_json};
use crate::supervisor::{Plan, Supervisor, WhichController};

/// Add engines to a controller that runs, as a world of their own.
///
/// The controller may have been started by `cluster start` or by hand. The engines live until Ctrl-C, SIGTERM or
/// `cluster stop`; with `--daemonize` the command returns once they are ready.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  cluster engines -n 4
  cluster engines -n 2 --engines local --daemonize
  cluster engines -n 64 --engines slurm --walltime 30:00")]
pub struct Engines {
    #[command(flatten)]
    pub launch: LaunchArgs,

    /// Arguments for sbatch or qsub, with `--engines slurm` or `pbs`.
    #[arg(last = true, value_name = "BATCH ARGUMENTS")]
    batch_arguments: Vec<String>,
}

impl Engines {
    /// Runs until the engines end.
    pub fn run(mut self, place: &Place, form: Form) -> Result<(), Failure> {
        let asked_at = Instant::now();
        if !self.batch_arguments.is_empty() && !self.launch.is_batch() {
            return Err(Failure::usage("what follows -- is for a batch system")
                .hint("add --engines slurm or --engines pbs"));
        }
        self.launch.pass_to_batch(std::mem::take(&mut self.batch_arguments));
        let profile = place.profile()?;
        let programs = self.launch.programs(None);
        let launcher = self.launch.launcher(&programs)?;
        if self.launch.dry_run() {
            let lines = launcher.dry_run(&profile, self.launch.ranks())?;
            return if form == Form::Json { print_json(&lines) } else { print(&lines.join("\n")) };
        }
        if !profile.client_file().exists() || !profile.engine_file().exists() {
            return Err(not_found(&profile).because("there is no controller to join"));
        }
        if self.launch.wants_background() {
            return run_in_background(&profile, form);
        }
        let plan = Plan {
            asked_at,
            profile,
            controller: WhichController::Running,
            part_of_job: false,
            launcher,
            ranks: self.launch.ranks(),
            timeout: self.launch.timeout(),
            keep_logs: self.launch.keep_logs(),
            in_background: self.launch.is_background_child(),
        };
        Supervisor::run(plan, Output::new(form))
    }
}
