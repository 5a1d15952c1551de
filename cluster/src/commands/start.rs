//! `cluster start`: a controller and engines.

use std::time::Instant;

use clap::{Args, ValueEnum};

use super::launch_args::{LaunchArgs, run_in_background};
use crate::cli::Place;
use crate::failure::Failure;
use crate::launch::Launcher;
use crate::output::{Form, Output, print, print_json};
use crate::profile::Profile;
use crate::supervisor::{Plan, Supervisor, WhichController};

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
  cluster start -n 64 --engines slurm --controller slurm --walltime 1:00:00
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

    /// Where the controller runs: here, or in the job of its engines.
    #[arg(long, value_name = "WHERE", value_enum, default_value_t = ControllerPlace::Local)]
    controller: ControllerPlace,

    /// What a job script starts in its job.
    #[arg(long, hide = true)]
    part_of_job: bool,

    /// The controller program, with arguments of its own if need be [default: controller, next to cluster or in
    /// PATH].
    #[arg(long, value_name = "COMMAND")]
    controller_cmd: Option<String>,

    /// More arguments for the controller, see `controller --help`; with `--engines slurm` or `pbs`, for sbatch or qsub.
    #[arg(last = true, value_name = "MORE ARGUMENTS")]
    pub controller_arguments: Vec<String>,
}

/// Where a controller runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ControllerPlace {
    /// On this machine.
    Local,
    /// In the job of Slurm that runs the engines.
    Slurm,
    /// In the job of PBS that runs the engines.
    Pbs,
}

impl ControllerPlace {
    fn is_in_job(self) -> bool {
        self != ControllerPlace::Local
    }
}

impl Start {
    /// Runs until the cluster ends.
    pub fn run(mut self, place: &Place, form: Form) -> Result<(), Failure> {
        let asked_at = Instant::now();
        if self.launch.is_batch() {
            self.launch.pass_to_batch(std::mem::take(&mut self.controller_arguments));
        }
        let profile = place.profile()?;
        let programs = self.launch.programs(self.controller_cmd.clone());
        let mut launcher = self.launch.launcher(&programs)?;
        if self.controller.is_in_job() {
            if !launcher.take_controller(self.ip.as_deref().unwrap_or("*")) {
                return Err(Failure::usage("a controller in a job needs engines in the same job")
                    .hint("add --engines slurm or --engines pbs"));
            }
            return self.start(asked_at, profile, launcher, WhichController::InJob, form);
        }
        let controller = programs.controller_command(
            &profile,
            self.ip.as_deref(),
            &self.controller_arguments,
            launcher.as_ref(),
        )?;
        self.start(asked_at, profile, launcher, WhichController::Start(controller), form)
    }

    fn start(
        self,
        asked_at: Instant,
        profile: Profile,
        launcher: Box<dyn Launcher>,
        controller: WhichController,
        form: Form,
    ) -> Result<(), Failure> {
        if self.launch.dry_run() {
            let mut lines = match &controller {
                WhichController::Start(line) => vec![line.to_string()],
                WhichController::InJob | WhichController::Running => Vec::new(),
            };
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
            controller,
            part_of_job: self.part_of_job,
            ranks: self.launch.ranks(),
            timeout: self.launch.timeout(),
            keep_logs: self.launch.keep_logs(),
            in_background: self.launch.is_background_child(),
        };
        Supervisor::run(plan, Output::new(form))
    }
}
