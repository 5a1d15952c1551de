//! `cluster start`: a controller and engines.

use std::time::Instant;

use clap::Args;

use super::launch_args::{LaunchArgs, run_in_background};
use crate::cli::Place;
use crate::failure::Failure;
use crate::output::{Form, Output, print, print_json};
use crate::supervisor::{Plan, Supervisor};

/// Start a controller and engines, and stay until Ctrl-C.
///
/// When every engine is registered, a line says so and how long it took. Ctrl-C, SIGTERM or `cluster stop` end
/// everything, and no process and no file is left. With `--daemonize`, the command returns once all is ready.
/// If the controller or an engine dies, the command says which, why, and shows its last lines.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  cluster start -n 4
  cluster start -n 4 --python
  cluster start -n 4 --engines local --profile lab --daemonize
  cluster start -n 64 --engines slurm --queue debug --walltime 1:00:00
  cluster start -n 64 --engines pbs --nodes 4 --walltime 1:00:00 -- -l place=excl
  cluster start -n 8 --mpiexec 'mpiexec.mpich -f hosts' --ip '*'
  cluster start -n 2 -- --ping=250 --reuse")]
pub struct Start {
    #[command(flatten)]
    pub launch: LaunchArgs,

    /// The address the controller listens on; '*' is every one of this machine [default: none while all engines are
    /// on this machine, where files that only you can open take the place of ports; else 127.0.0.1].
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<String>,

    /// The controller program, with arguments of its own if need be [default: controller, next to cluster or in
    /// PATH].
    #[arg(long, value_name = "COMMAND")]
    controller_cmd: Option<String>,

    /// More arguments for the controller, see `controller --help`; with `--engines slurm` or `pbs`, for sbatch or qsub.
    #[arg(last = true, value_name = "MORE ARGUMENTS")]
    pub controller_arguments: Vec<String>,
}

impl Start {
    /// Runs until the cluster ends.
    pub fn run(mut self, place: &Place, form: Form) -> Result<(), Failure> {
        let asked_at = Instant::now();
        if self.launch.is_batch() {
            self.launch.pass_to_batch(std::mem::take(&mut self.controller_arguments));
        }
        let profile = place.profile()?;
        let programs = self.launch.programs(self.controller_cmd);
        let launcher = self.launch.launcher(&programs)?;
        let controller = programs.controller_command(
            &profile,
            self.ip.as_deref(),
            &self.controller_arguments,
            launcher.as_ref(),
        )?;
        if self.launch.dry_run() {
            let mut lines = vec![controller.to_string()];
            lines.extend(launcher.dry_run(&profile, self.launch.ranks())?);
            return if form == Form::Json { print_json(&lines) } else { print(&lines.join("\n")) };
        }
        if self.launch.wants_background() {
            return run_in_background(&profile, form);
        }
        let plan = Plan {
            asked_at,
            launcher,
            profile,
            controller: Some(controller),
            ranks: self.launch.ranks(),
            timeout: self.launch.timeout(),
            keep_logs: self.launch.keep_logs(),
            in_background: self.launch.is_background_child(),
        };
        Supervisor::run(plan, Output::new(form))
    }
}
