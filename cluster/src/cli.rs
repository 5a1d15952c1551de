//! What can be typed. Each subcommand has its own file with its arguments and what it does.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use transport::profile::ProfileOptions;

use crate::commands;
use crate::failure::Failure;
use crate::output::Form;
use crate::profile::Profile;

const EXAMPLES: &str = "\
Examples:
  cluster start -n 4                 a controller and 4 engines, until Ctrl-C
  cluster start -n 4 --daemonize     the same in the background
  client px 's = psum(rand(100))'    run a cell on all engines
  cluster status                     who is there, and what is queued
  cluster engines -n 4               4 more engines, a second MPI world
  cluster logs -f engines            what the engines write
  cluster doctor                     what keeps it from working, and what to do
  cluster stop                       end everything
  cluster start -n 64 --engines slurm --walltime 1:00:00
                                     the engines as a job of Slurm (or pbs)
  cluster run -n 16 -- client run a.px
                                     start, run one program, stop

Exit codes:
  0 done   1 failed   2 usage   3 cluster not found   4 launch failed   5 lost contact

Environment:
  IPP_PROFILE_DIR, IPP_CLUSTER_ID    as --profile-dir and --cluster-id
  IPYTHONDIR                         as --ipython-dir
  NO_COLOR                           no colours, also on a terminal";

/// Starts, watches and stops clusters: one controller and the engines that joined it.
///
/// A cluster belongs to a profile, a directory that holds its connection files (readable by you alone) and its
/// logs. Clients find the cluster by the same --profile, --profile-dir and --cluster-id.
#[derive(Debug, Parser)]
#[command(name = "cluster", version, help_expected = true, after_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    /// Write JSON to standard output: one object per line from `start` and `engines`, one value from the others.
    #[arg(long, global = true)]
    json: bool,

    #[command(flatten)]
    place: Place,

    #[command(subcommand)]
    command: Command,
}

/// Which cluster is meant.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Which cluster")]
pub struct Place {
    /// The profile: the directory profile_NAME in the IPython directory [default: default].
    #[arg(long, global = true, value_name = "NAME", conflicts_with = "profile_dir")]
    profile: Option<String>,

    /// The profile as a directory, wherever it is.
    #[arg(long, global = true, value_name = "DIR")]
    profile_dir: Option<PathBuf>,

    /// Tells several clusters of one profile apart [default: empty].
    #[arg(long, global = true, value_name = "ID")]
    cluster_id: Option<String>,

    /// Where profiles are [default: ~/.ipython].
    #[arg(long, global = true, value_name = "DIR")]
    ipython_dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Start(commands::start::Start),
    Engines(commands::engines::Engines),
    Stop(commands::stop::Stop),
    List(commands::list::List),
    Status(commands::status::Status),
    Clean(commands::clean::Clean),
    Logs(commands::logs::Logs),
    Run(commands::run::Run),
    Doctor(commands::doctor::Doctor),
    Launch(commands::launch::Launch),
}

impl Cli {
    /// How to report.
    pub fn form(&self) -> Form {
        let in_background = match &self.command {
            Command::Start(start) => start.launch.is_background_child(),
            Command::Engines(engines) => engines.launch.is_background_child(),
            _ => false,
        };
        match (in_background, self.json) {
            (true, _) => Form::Background,
            (false, true) => Form::Json,
            (false, false) => Form::Human,
        }
    }

    /// Does what was typed.
    pub fn run(self) -> Result<(), Failure> {
        let (form, json) = (self.form(), self.json);
        match self.command {
            Command::Start(start) => start.run(&self.place, form),
            Command::Engines(engines) => engines.run(&self.place, form),
            Command::Stop(stop) => stop.run(&self.place, json),
            Command::List(list) => list.run(&self.place, json),
            Command::Status(status) => status.run(&self.place, json),
            Command::Clean(clean) => clean.run(&self.place, json),
            Command::Logs(logs) => logs.run(&self.place),
            Command::Doctor(doctor) => doctor.run(&self.place, json),
            Command::Run(run) => run.run(&self.place),
            Command::Launch(launch) => launch.run(&self.place),
        }
    }
}

impl Place {
    /// As options of a profile.
    pub fn options(&self) -> ProfileOptions {
        ProfileOptions {
            ipython_dir: self.ipython_dir.clone(),
            profile: self.profile.clone(),
            profile_dir: self.profile_dir.clone(),
            cluster_id: self.cluster_id.clone(),
        }
    }

    /// The profile that is meant.
    pub fn profile(&self) -> Result<Profile, Failure> {
        Profile::resolve(&self.options())
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_argument_is_documented_and_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn arguments_after_two_dashes_go_to_the_controller() {
        let cli = Cli::try_parse_from([
            "cluster",
            "start",
            "-n",
            "2",
            "--profile",
            "x",
            "--",
            "--ping=250",
            "--reuse",
        ])
        .unwrap();
        let Command::Start(start) = cli.command else { panic!("not start") };
        assert_eq!(start.controller_arguments, ["--ping=250", "--reuse"]);
    }

    #[test]
    fn nonsense_is_a_usage_error() {
        for line in [
            &["cluster", "start", "-n", "0"][..],
            &["cluster", "start", "-n", "x"],
            &["cluster", "start", "--engines", "ssh"],
            &["cluster"],
        ] {
            assert_eq!(Cli::try_parse_from(line).unwrap_err().exit_code(), 2, "{line:?}");
        }
    }
}
