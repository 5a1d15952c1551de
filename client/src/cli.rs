//! The command line: global flags, what all commands share, exit codes.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::{Args, Parser};
use client::{
    AsyncResult, Client, ClientError, ConnectOptions, EngineOutcome, ProfileOptions, Ssh, Targets, View,
};

use crate::commands::Command;
use crate::render::{self, Style};
use crate::watch::{Interrupts, Left, Watch};

/// How the program ends.
mod exit {
    /// What was asked was done.
    pub(crate) const DONE: u8 = 0;
    /// An engine, or the request itself, failed.
    pub(crate) const FAILED: u8 = 1;
    /// The command line is wrong.
    pub(crate) const USAGE: u8 = 2;
    /// No cluster was found, or nobody answers there.
    pub(crate) const NO_CLUSTER: u8 = 3;
    /// The cluster went away.
    pub(crate) const LOST_CONTACT: u8 = 5;
}

const EXAMPLES: &str = "\
Examples:
  client                                 a prompt; `help` there lists its commands
  client px 'a = rand(100); s = psum(a)' run code on all engines
  client pull s --json                   [v,v,v,v]: one value per engine
  client --targets 0,2 px 'rank()'       on two of them
  client push x=data.npy n=3             assign names on all engines
  client scatter x=data.npy              a block of rows to each engine
  client run setup.rhai                  run a file on all engines
  client status                          who is here and what they do
  client interrupt                       end what runs, keep the engines
  client --ssh ada@login px 'psum(1)'    a cluster of another machine, with nothing but ssh

Exit codes: 0 done, 1 an engine failed, 2 wrong usage, 3 no cluster found, 5 lost contact.";

const WHICH: &str = "Which cluster";

/// Talks to a cluster of engines: runs code on them, moves data, shows what they do.
///
/// Without a command it opens a prompt. The cluster is found by --file, --profile-dir, --profile and --cluster-id,
/// else by IPP_PROFILE_DIR and IPP_CLUSTER_ID, else it is the default one.
#[derive(Debug, Parser)]
#[command(name = "client", version, after_help = EXAMPLES, help_expected = true, max_term_width = 100)]
pub(crate) struct Cli {
    /// What all commands share.
    #[command(flatten)]
    pub(crate) global: Global,
    /// What to do; a prompt if absent.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// Flags of all commands.
#[derive(Clone, Debug, Args)]
pub(crate) struct Global {
    /// Name of the profile whose cluster to use.
    #[arg(long, global = true, value_name = "NAME", help_heading = WHICH)]
    pub(crate) profile: Option<String>,
    /// Exactly this profile directory.
    #[arg(long, global = true, value_name = "DIR", help_heading = WHICH)]
    pub(crate) profile_dir: Option<PathBuf>,
    /// Which of the profile's clusters.
    #[arg(long, global = true, value_name = "NAME", help_heading = WHICH)]
    pub(crate) cluster_id: Option<String>,
    /// Exactly this connection file (ipcontroller-client.json).
    #[arg(long, global = true, value_name = "FILE", help_heading = WHICH)]
    pub(crate) file: Option<PathBuf>,
    /// Reach the controller through this machine, `[user@]host[:port]`, or `none`; else as the connection file says. A
    /// connection file that is not here is read there.
    #[arg(long, global = true, value_name = "SERVER", help_heading = WHICH)]
    pub(crate) ssh: Option<String>,
    /// A private key for ssh, if it is not one that ssh finds by itself.
    #[arg(long, global = true, value_name = "FILE", help_heading = WHICH)]
    pub(crate) ssh_key: Option<PathBuf>,
    /// Engines: all, a list like 0,2, or a range like 0..3 (which is 0, 1 and 2).
    #[arg(long, short, global = true, default_value = "all", allow_hyphen_values = true)]
    pub(crate) targets: Targets,
    /// Seconds that an answer may take; without it as long as it takes (the controller itself: 10).
    #[arg(long, global = true, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) timeout: Option<Duration>,
    /// Print JSON for programs instead of text for people.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Never colour; colours appear on terminals only, and not if NO_COLOR is set.
    #[arg(long, global = true)]
    pub(crate) no_color: bool,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 = text.parse().map_err(|_| "write a number of seconds, like 2.5".to_owned())?;
    Duration::try_from_secs_f64(number)
        .map_err(|_| "write a number of seconds, not negative, like 2.5".to_owned())
}

/// A failure whose message was shown already.
#[derive(Debug, thiserror::Error)]
#[error("exit with {code}")]
pub(crate) struct Shown {
    pub(crate) code: u8,
}

/// What every command gets.
pub(crate) struct App {
    pub(crate) global: Global,
    pub(crate) client: Client,
    pub(crate) style: Style,
    pub(crate) interrupts: Interrupts,
}

impl App {
    pub(crate) fn connect(global: Global) -> anyhow::Result<App> {
        let profile = ProfileOptions {
            profile: global.profile.clone(),
            profile_dir: global.profile_dir.clone(),
            cluster_id: global.cluster_id.clone(),
            ..ProfileOptions::default()
        };
        let ssh = match global.ssh.as_deref() {
            None => Ssh::AsTheFileSays,
            Some("none") => Ssh::Never,
            Some(server) => Ssh::Through(server.to_owned()),
        };
        let (file, ssh_key) = (global.file.clone(), global.ssh_key.clone());
        let mut options = ConnectOptions { profile, file, ssh, ssh_key, ..ConnectOptions::default() };
        if let Some(timeout) = global.timeout {
            options.timeout = timeout;
        }
        let client = Client::connect(&options)?;
        let style = style(&global);
        let interrupts = Interrupts::install().context("watch for Ctrl-C")?;
        Ok(App { global, client, style, interrupts })
    }

    /// Connects as soon as there is a cluster to connect to.
    pub(crate) fn connect_patiently(global: Global) -> anyhow::Result<App> {
        let deadline = Instant::now() + global.timeout.unwrap_or(crate::commands::wait::PATIENCE);
        loop {
            match App::connect(global.clone()) {
                Err(error) if is_absent(&error) && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                connected => return connected,
            }
        }
    }

    /// The engines that the flags name.
    pub(crate) fn view(&self) -> View {
        self.client.direct(self.global.targets.clone())
    }

    /// Follows a request to its end, printing output, results and errors as people read them.
    pub(crate) fn show(&self, result: &AsyncResult) -> anyhow::Result<Vec<EngineOutcome>> {
        let outcomes = self.follow(result)?;
        crate::watch::print(&render::results(&outcomes, self.style));
        self.check(&outcomes)?;
        Ok(outcomes)
    }

    /// Follows a request to its end, printing output only.
    pub(crate) fn follow(&self, result: &AsyncResult) -> anyhow::Result<Vec<EngineOutcome>> {
        let watch = Watch {
            client: &self.client,
            interrupts: &self.interrupts,
            style: self.style,
            timeout: self.global.timeout,
            shows_output: !self.global.json,
        };
        let left = match watch.follow(result) {
            Ok(outcomes) => return Ok(outcomes),
            Err(left) => left,
        };
        match left {
            Left::Failed(error) => Err(error.into()),
            Left::Impatient => {
                eprintln!("left; the engines go on, `client status` shows what they do");
                Err(Shown { code: exit::FAILED }.into())
            }
            // Asking once more gives the error with who is missing; the work goes on.
            Left::Timeout => Err(result.join(Duration::ZERO).map_or_else(
                |error| match error {
                    ClientError::Timeout { missing, .. } => {
                        ClientError::Timeout { waited: self.global.timeout.unwrap_or_default(), missing }
                            .into()
                    }
                    other => other.into(),
                },
                |_| Shown { code: exit::FAILED }.into(),
            )),
        }
    }

    /// Shows errors and disagreements between ranks; fails if there is an error.
    pub(crate) fn check(&self, outcomes: &[EngineOutcome]) -> anyhow::Result<()> {
        if let Some(disagreement) = client::async_result::disagreement(outcomes) {
            eprintln!("{}", self.style.warning(&format!("warning: ranks disagree: {disagreement}")));
        }
        let errors = render::errors(outcomes, self.style);
        if errors.is_empty() {
            return Ok(());
        }
        eprint!("{errors}");
        let lost =
            outcomes.iter().any(|outcome| matches!(outcome.result, Err(client::Failure::LostContact(_))));
        Err(Shown { code: if lost { exit::LOST_CONTACT } else { exit::FAILED } }.into())
    }
}

fn style(global: &Global) -> Style {
    let plain = global.no_color || std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    Style { colour: !plain && std::io::stdout().is_terminal() && std::io::stderr().is_terminal() }
}

/// The whole program.
pub(crate) fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_env("CLIENT_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("error"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to standard output and are no failure.
            let code = if error.use_stderr() { exit::USAGE } else { exit::DONE };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    match run(cli) {
        Ok(()) => ExitCode::from(exit::DONE),
        Err(error) => ExitCode::from(report(&error)),
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Some(Command::HelpCommands) => {
            crate::watch::print(&crate::prompt::command::reference());
            Ok(())
        }
        Some(Command::Wait(args)) => args.run(&App::connect_patiently(cli.global)?),
        Some(command) => command.run(&App::connect(cli.global)?),
        None => crate::prompt::run(App::connect(cli.global)?),
    }
}

/// Tells why it failed; returns how to end.
pub(crate) fn report(error: &anyhow::Error) -> u8 {
    if let Some(Shown { code }) = error.downcast_ref() {
        return *code;
    }
    let mut causes = error.chain();
    if let Some(first) = causes.next() {
        eprintln!("error: {first}");
    }
    for cause in causes {
        eprintln!("  caused by: {cause}");
    }
    match error.downcast_ref::<ClientError>() {
        Some(ClientError::Profile(_)) => exit::NO_CLUSTER,
        _ if is_absent(error) => exit::NO_CLUSTER,
        Some(ClientError::LostContact(_)) => exit::LOST_CONTACT,
        Some(_) => exit::FAILED,
        None if error.downcast_ref::<Usage>().is_some() => exit::USAGE,
        None => exit::FAILED,
    }
}

/// Whether there is no cluster, or not yet.
fn is_absent(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref();
    matches!(
        error,
        Some(ClientError::NoCluster { .. } | ClientError::NoAnswer { .. } | ClientError::Tunnel { .. })
    )
}

/// The command line asks for something that makes no sense.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_every_flag_explained() {
        Cli::command().debug_assert();
    }

    #[test]
    fn targets_and_timeouts_are_read() {
        let cli =
            Cli::try_parse_from(["client", "px", "1+1", "--targets", "0,2", "--timeout", "2.5"]).unwrap();
        assert_eq!(cli.global.targets, Targets::from([0, 2]));
        assert_eq!(cli.global.timeout, Some(Duration::from_millis(2500)));
        assert!(Cli::try_parse_from(["client", "run", "setup.rhai"]).unwrap().global.file.is_none());
        assert!(Cli::try_parse_from(["client", "--timeout", "-1", "px", "1"]).is_err());
        assert!(Cli::try_parse_from(["client", "--targets", "x", "px", "1"]).is_err());
    }
}
