//! The command line: what the user typed, and what it means.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, ArgAction, CommandFactory, FromArgMatches, Parser};
use transport::profile::ProfileOptions;

const EXAMPLE: &str = "Example:\n  controller --profile demo\n  mpiexec -n 4 engine --mpi --profile demo";

/// Joins a cluster and runs what its clients send.
///
/// Start a controller first: it writes a connection file into its profile, where the engine looks for it.
///
/// With --mpi the processes that mpiexec started are one world: their ids are their ranks, and psum, bcast and
/// the other collectives work between them. Without it the engine is a world of one rank.
#[derive(Debug, Parser)]
#[command(name = "engine", version, after_help = EXAMPLE, max_term_width = 100, help_expected = true)]
struct Typed {
    /// Join the MPI world that mpiexec or srun started; the engine's id is its rank
    #[arg(long)]
    mpi: bool,

    /// Run Python instead of the prompt language: the one of the active environment (VIRTUAL_ENV, CONDA_PREFIX), else
    /// python3, or the INTERPRETER given; it needs a shared libpython. mpi4py shares this engine's MPI world
    #[arg(long, value_name = "INTERPRETER", num_args = 0..=1, require_equals = true)]
    python: Option<Option<PathBuf>>,

    /// Refuse to start unless the MPI world has this many ranks; catches an mpiexec of another MPI, which starts
    /// N worlds of one rank
    #[arg(long, value_name = "N", requires = "mpi")]
    expect_size: Option<usize>,

    /// What becomes of the blocking MPI calls that user code makes itself (mpi4py, C libraries); the same on every rank
    #[arg(long, value_name = "HOW", value_enum, default_value_t = MpiCalls::Interruptible)]
    mpi_calls: MpiCalls,

    /// The profile whose controller to join
    #[arg(long, value_name = "NAME", help_heading = "Which controller")]
    profile: Option<String>,

    /// The profile's directory, instead of its name
    #[arg(long, value_name = "DIR", help_heading = "Which controller")]
    profile_dir: Option<PathBuf>,

    /// The directory of all profiles
    #[arg(long, value_name = "DIR", help_heading = "Which controller")]
    ipython_dir: Option<PathBuf>,

    /// Tells clusters of one profile apart
    #[arg(long, value_name = "ID", help_heading = "Which controller")]
    cluster_id: Option<String>,

    /// The connection file itself, instead of the profile's
    #[arg(long, value_name = "FILE", help_heading = "Which controller")]
    file: Option<PathBuf>,

    /// Register at this address instead of the file's (tcp://host:port)
    #[arg(long, value_name = "URL", help_heading = "Which controller")]
    url: Option<String>,

    /// The controller's host, if the connection file names an address like 0.0.0.0 and the wrong host
    #[arg(long, value_name = "HOST", help_heading = "Which controller")]
    location: Option<String>,

    /// Reach the controller through this machine, [user@]host[:port], or `none`; else as the connection file says
    #[arg(long, value_name = "SERVER", help_heading = "Which controller")]
    ssh: Option<String>,

    /// A private key for ssh, if it is not one that ssh finds by itself
    #[arg(long, alias = "ssh-key", value_name = "FILE", help_heading = "Which controller")]
    sshkey: Option<PathBuf>,

    /// How long to wait for the connection file, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "10", help_heading = "Which controller")]
    wait_for_file: Seconds,

    /// How long to wait for the answer to the registration, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "5", help_heading = "Which controller")]
    timeout: Seconds,

    /// End when the controller has been silent for this many seconds, so that a batch job does not idle out its
    /// allocation; 0: never
    #[arg(long, value_name = "SECONDS", default_value = "60", help_heading = "Which controller")]
    controller_timeout: Seconds,

    /// Ask for this id; with --mpi it is the rank
    #[arg(long, value_name = "N")]
    id: Option<u32>,

    /// Load this module of compiled functions before the engine joins; can be given several times (docs/KERNELS.md)
    #[arg(long = "module", value_name = "FILE")]
    modules: Vec<PathBuf>,

    /// Run this code before the engine joins
    #[arg(short = 'c', long = "code", value_name = "CODE")]
    code: Option<String>,

    /// Run this file before the engine joins
    #[arg(short = 's', long = "script", value_name = "FILE")]
    script: Option<PathBuf>,

    /// Change to this directory first
    #[arg(long, value_name = "DIR")]
    work_dir: Option<PathBuf>,

    /// What to log: error, warn, info, debug, trace, Python's numbers (10 to 50), or a filter (engine=debug)
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log_level: String,

    /// Log to a file in the profile's log directory instead of standard error
    #[arg(long)]
    log_to_file: bool,
}

/// The options of other engines that are understood, as `--Class.trait=value`.
const TRAITS: [(&str, &str); 7] = [
    ("IPEngine.id", "as --id"),
    ("IPEngine.timeout", "as --timeout"),
    ("IPEngine.wait_for_url_file", "as --wait-for-file"),
    (
        "IPEngine.max_heartbeat_misses",
        "heartbeats that may be missed until the controller counts as lost; 0: any number",
    ),
    ("IPEngine.enable_nanny", "no effect: this engine answers signals itself"),
    ("BaseParallelApplication.cluster_id", "as --cluster-id"),
    ("ProfileDir.location", "as --profile-dir"),
];

/// A duration in seconds, as users write it.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Seconds(Duration);

impl std::str::FromStr for Seconds {
    type Err = String;

    fn from_str(text: &str) -> Result<Seconds, String> {
        let seconds: f64 = text.parse().map_err(|_| format!("{text:?} is not a number of seconds"))?;
        Duration::try_from_secs_f64(seconds).map(Seconds).map_err(|error| error.to_string())
    }
}

/// What becomes of user code's own blocking MPI calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum MpiCalls {
    /// An interrupt ends them, and different calls are an error; a collective costs two small all-reduces more
    Interruptible,
    /// They go to MPI as they are, and wait until all ranks come
    Direct,
}

/// What the command line means.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Whether the process is a rank of an MPI world.
    pub mpi: bool,
    /// Whether user code is Python, and the interpreter if one was named.
    pub python: Option<Option<PathBuf>>,
    /// How many ranks that must have.
    pub expect_size: Option<usize>,
    /// What becomes of user code's own MPI calls.
    pub mpi_calls: MpiCalls,
    /// Where the connection file is looked for.
    pub profile: ProfileOptions,
    /// The connection file itself.
    pub file: Option<PathBuf>,
    /// Where to register.
    pub url: Option<String>,
    /// The controller's host.
    pub location: Option<String>,
    /// How long the connection file is waited for.
    pub file_timeout: Duration,
    /// How long the hub's answer is waited for.
    pub registration_timeout: Duration,
    /// How long the controller may be silent.
    pub silence: Silence,
    /// The machine to reach the controller through; `none`: directly, whatever the connection file says.
    pub ssh: Option<String>,
    /// A private key for ssh.
    pub ssh_key: Option<PathBuf>,
    /// The id to ask for.
    pub id: Option<u32>,
    /// Modules to load first.
    pub modules: Vec<PathBuf>,
    /// Code to run first.
    pub code: Option<String>,
    /// A file to run first.
    pub script: Option<PathBuf>,
    /// Where to work.
    pub work_dir: Option<PathBuf>,
    /// What to log.
    pub log_filter: String,
    /// Whether to log to a file.
    pub log_to_file: bool,
    /// Other engines' options that have no meaning for an engine; settings of IPython's, if user code is Python.
    pub others: BTreeMap<String, String>,
}

/// How long the controller may be silent before the engine ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Silence {
    /// For ever.
    Unlimited,
    /// This long.
    Limited(Duration),
    /// So many heartbeats.
    Misses(u32),
}

impl Silence {
    /// As a duration, if heartbeats come at this interval. As stock engines count: half a second is given to
    /// each.
    pub fn limit(self, heartbeat_interval: Duration) -> Option<Duration> {
        match self {
            Silence::Unlimited => None,
            Silence::Limited(limit) => Some(limit),
            Silence::Misses(misses) => Some((heartbeat_interval + Duration::from_millis(500)) * misses),
        }
    }
}

/// What to do instead of running.
#[derive(Debug)]
pub enum Stop {
    /// Help or version was asked for, or the command line is wrong; clap prints it.
    Clap(clap::Error),
    /// A value that clap cannot judge is wrong.
    Usage(String),
}

/// Reads the command line. `libraries` is shown by `--version`: what the program is linked to.
pub fn parse(
    arguments: impl IntoIterator<Item = String>,
    libraries: impl FnOnce() -> String,
) -> Result<Settings, Stop> {
    let (arguments, traits) = split_traits(arguments);
    // clap keeps texts for the rest of the program.
    let version: &'static str = format!("{}\n{}", env!("CARGO_PKG_VERSION"), libraries()).leak();
    let command = Typed::command().long_version(version).arg(
        Arg::new("help-all")
            .long("help-all")
            .action(ArgAction::HelpLong)
            .help("Print everything, also the options of other engines that are understood"),
    );
    let command = if arguments.iter().any(|argument| argument == "--help-all") {
        command.after_long_help(traits_help())
    } else {
        command
    };
    let matches = command.try_get_matches_from(arguments).map_err(Stop::Clap)?;
    let typed = Typed::from_arg_matches(&matches).map_err(Stop::Clap)?;
    typed.meaning(&traits).map_err(Stop::Usage)
}

/// Takes `--Class.trait=value` out of the arguments: other engines' options are accepted, so that scripts that
/// start them go on to work.
fn split_traits(arguments: impl IntoIterator<Item = String>) -> (Vec<String>, BTreeMap<String, String>) {
    let mut traits = BTreeMap::new();
    let rest = arguments.into_iter().filter(|argument| {
        let Some((name, value)) = argument.strip_prefix("--").and_then(|text| text.split_once('=')) else {
            return true;
        };
        let is_trait = name.starts_with(|first: char| first.is_ascii_uppercase()) && name.contains('.');
        if is_trait {
            traits.insert(name.to_owned(), value.to_owned());
        }
        !is_trait
    });
    let rest = rest.collect();
    (rest, traits)
}

fn traits_help() -> String {
    let rows = TRAITS.map(|(name, meaning)| format!("  --{name}=…\n          {meaning}\n"));
    format!(
        "Options of other engines:\n{}  --Class.trait=…\n          with --python a setting of IPython's, else ignored",
        rows.concat()
    )
}

impl Typed {
    fn meaning(self, traits: &BTreeMap<String, String>) -> Result<Settings, String> {
        let is_known = |name: &String| TRAITS.iter().any(|(known, _)| known == name);
        let seconds = |name| read_trait::<Seconds>(traits, name).map(|found| found.map(|Seconds(time)| time));
        let silence = match read_trait::<u32>(traits, "IPEngine.max_heartbeat_misses")? {
            Some(0) => Silence::Unlimited,
            Some(misses) => Silence::Misses(misses),
            None if self.controller_timeout.0.is_zero() => Silence::Unlimited,
            None => Silence::Limited(self.controller_timeout.0),
        };
        Ok(Settings {
            mpi: self.mpi,
            python: self.python,
            expect_size: self.expect_size,
            mpi_calls: self.mpi_calls,
            profile: ProfileOptions {
                ipython_dir: self.ipython_dir,
                profile: self.profile,
                profile_dir: self.profile_dir.or(read_trait(traits, "ProfileDir.location")?),
                cluster_id: self.cluster_id.or(read_trait(traits, "BaseParallelApplication.cluster_id")?),
            },
            file: self.file,
            url: self.url,
            location: self.location,
            file_timeout: seconds("IPEngine.wait_for_url_file")?.unwrap_or(self.wait_for_file.0),
            registration_timeout: seconds("IPEngine.timeout")?.unwrap_or(self.timeout.0),
            silence,
            ssh: self.ssh,
            ssh_key: self.sshkey,
            id: self.id.or(read_trait(traits, "IPEngine.id")?),
            modules: self.modules,
            code: self.code,
            script: self.script,
            work_dir: self.work_dir,
            log_filter: log_filter(&self.log_level),
            log_to_file: self.log_to_file,
            others: traits
                .iter()
                .filter(|(name, _)| !is_known(name))
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
        })
    }
}

fn read_trait<T: std::str::FromStr>(
    traits: &BTreeMap<String, String>,
    name: &str,
) -> Result<Option<T>, String> {
    let Some(value) = traits.get(name).filter(|value| *value != "None") else { return Ok(None) };
    value.parse().map(Some).map_err(|_| format!("--{name}={value}: the value cannot be read"))
}

/// Python's level numbers and names become ours.
fn log_filter(level: &str) -> String {
    match level.to_ascii_lowercase().as_str() {
        "10" => "debug",
        "20" => "info",
        "30" | "warning" => "warn",
        "40" => "error",
        "50" | "critical" => "error",
        _ => return level.to_owned(),
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(arguments: &[&str]) -> Result<Settings, Stop> {
        let arguments = ["engine"].iter().chain(arguments).map(|&argument| argument.to_owned());
        parse(arguments, || "libzmq 4.3.4".to_owned())
    }

    fn said(arguments: &[&str]) -> String {
        match settings(arguments).expect_err("no settings") {
            Stop::Clap(error) => error.to_string(),
            Stop::Usage(text) => text,
        }
    }

    #[test]
    fn every_option_has_a_help_text() {
        Typed::command().debug_assert();
        assert!(said(&["--help"]).contains("mpiexec -n 4 engine --mpi"));
    }

    #[test]
    fn options_of_other_engines_mean_the_same_here() {
        let ours = settings(&["--id=3", "--timeout", "7.5", "--cluster-id=x"]).unwrap();
        let theirs = settings(&[
            "--IPEngine.id=3",
            "--IPEngine.timeout=7.5",
            "--BaseParallelApplication.cluster_id=x",
            "--IPEngine.enable_nanny=False",
        ]);
        assert_eq!(theirs.unwrap(), ours);
        let others = settings(&["--InteractiveShell.colors=NoColor"]).unwrap().others;
        assert_eq!(others, [("InteractiveShell.colors".to_owned(), "NoColor".to_owned())].into());
    }

    #[test]
    fn python_takes_an_interpreter_only_behind_an_equals_sign() {
        let python = |arguments: &[&str]| settings(arguments).unwrap().python;
        assert_eq!(python(&[]), None);
        assert_eq!(python(&["--python", "--mpi"]), Some(None));
        assert_eq!(python(&["--python=/venv/bin/python"]), Some(Some("/venv/bin/python".into())));
        assert!(said(&["--python", "python3"]).contains("unexpected argument"));
    }

    #[test]
    fn heartbeat_misses_are_counted_as_stock_engines_do() {
        let beat = Duration::from_secs(3);
        let limit = |arguments: &[&str]| settings(arguments).unwrap().silence.limit(beat);
        assert_eq!(limit(&[]), Some(Duration::from_secs(60)));
        assert_eq!(limit(&["--IPEngine.max_heartbeat_misses=50"]), Some(Duration::from_secs(175)));
        assert_eq!(limit(&["--IPEngine.max_heartbeat_misses=0"]), None);
        assert_eq!(limit(&["--controller-timeout=0"]), None);
    }

    #[test]
    fn what_cannot_be_is_refused_with_what_to_do() {
        assert_eq!(said(&["--IPEngine.id=x"]), "--IPEngine.id=x: the value cannot be read");
        assert!(said(&["--timeout=soon"]).contains("is not a number of seconds"));
        assert!(said(&["--expect-size=4"]).contains("--mpi"));
    }

    #[test]
    fn the_version_says_what_the_program_is_linked_to() {
        assert!(said(&["--version"]).contains("libzmq 4.3.4"));
        assert!(!said(&["-V"]).contains("libzmq"));
        assert!(said(&["--help-all"]).contains("--IPEngine.max_heartbeat_misses"));
    }

    #[test]
    fn user_codes_mpi_calls_are_interruptible_unless_told_otherwise() {
        assert_eq!(settings(&[]).unwrap().mpi_calls, MpiCalls::Interruptible);
        assert_eq!(settings(&["--mpi-calls=direct"]).unwrap().mpi_calls, MpiCalls::Direct);
        assert!(said(&["--mpi-calls=never"]).contains("interruptible"));
        assert!(said(&["--help"]).contains("costs two small all-reduces"));
    }

    #[test]
    fn pythons_log_levels_are_understood() {
        assert_eq!(log_filter("10"), "debug");
        assert_eq!(log_filter("WARNING"), "warn");
        assert_eq!(log_filter("engine=trace"), "engine=trace");
    }
}
