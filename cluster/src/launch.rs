//! Launchers: how engines are started, and how to read what became of them. A launcher says which command lines
//! to run and explains their ends; running and watching them is the same for all (`run_command.rs`,
//! `supervisor.rs`).

use std::fmt;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use slurm_pbs::{Allocation, Exit, Flavor, Ranks};

use crate::failure::{Code, Failure, LastLines};
use crate::job::Job;
use crate::log_file::{LAST_LINES_MAX, last_lines};
use crate::profile::Profile;
use crate::run_command::{CommandLine, find_program, split_words};

mod batch;
mod local;
mod mpi_library;
mod mpiexec;

pub use batch::JobOptions;

/// What starts engines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    /// One MPI world under mpiexec: engines can talk to each other.
    Mpi,
    /// Separate processes on this machine, each a world of its own.
    Local,
    /// One MPI world in a job of Slurm.
    Slurm,
    /// One MPI world in a job of PBS: PBS Pro, OpenPBS or Torque.
    Pbs,
}

impl EngineKind {
    /// Whether a batch system starts them.
    pub fn is_batch(self) -> bool {
        matches!(self, EngineKind::Slurm | EngineKind::Pbs)
    }
}

impl fmt::Display for EngineKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            EngineKind::Mpi => "mpi",
            EngineKind::Local => "local",
            EngineKind::Slurm => "slurm",
            EngineKind::Pbs => "pbs",
        })
    }
}

/// What became of one process of an engine set, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// `rank 1 exited on signal 9 (…)`
    pub what: String,
    /// What to do, if that is known.
    pub hint: Option<String>,
}

/// See the module.
pub trait Launcher {
    /// Its name in cluster files.
    fn kind(&self) -> EngineKind;

    /// For people: `MPI engines (Open MPI 4.1.4)`.
    fn describe(&self) -> String;

    /// Whether its engines are on this machine for certain.
    fn stays_here(&self) -> bool;

    /// What to run to get the engines of a set. `set` numbers the engine sets of a cluster.
    fn commands(&self, profile: &Profile, set: u32, ranks: Ranks) -> Vec<CommandLine>;

    /// The job to hand in to get them, for launchers that have no processes of their own.
    fn job(&self, _profile: &Profile, _set: u32, _ranks: Ranks) -> Result<Option<Job>, Failure> {
        Ok(None)
    }

    /// Makes the job start the controller too, listening on this address; whether there is a job.
    fn take_controller(&mut self, _ip: &str) -> bool {
        false
    }

    /// What a user could type instead.
    fn dry_run(&self, profile: &Profile, ranks: Ranks) -> Result<Vec<String>, Failure> {
        let job = self.job(profile, 0, ranks)?;
        let commands = self.commands(profile, 0, ranks);
        Ok(job.iter().flat_map(Job::dry_run).chain(commands.iter().map(ToString::to_string)).collect())
    }

    /// What the end of the process at `index` of [`Launcher::commands`] means, given the end of its output.
    fn explain(&self, index: usize, exit: Exit, output: &str) -> Explanation;

    /// What engines wrote last to a log of [`Launcher::commands`], fit to be shown.
    fn last_lines(&self, log: &Path) -> Option<LastLines> {
        last_lines(log, LAST_LINES_MAX)
    }
}

/// Removes what a launcher leaves behind when it is killed; `pid` was one of its processes.
pub fn remove_leftovers(kind: EngineKind, pid: i32) {
    match kind {
        EngineKind::Mpi => mpiexec::remove_session_directory(pid),
        EngineKind::Local | EngineKind::Slurm | EngineKind::Pbs => {}
    }
}

/// What flags say about the programs to run.
#[derive(Clone, Debug, Default)]
pub struct Programs {
    /// `--controller-cmd`
    pub controller: Option<String>,
    /// `--engine-cmd`
    pub engine: Option<String>,
    /// `--python`, and the interpreter if one was named
    pub python: Option<Option<String>>,
    /// `--module`, each as a whole path
    pub modules: Vec<PathBuf>,
    /// `--mpiexec`
    pub mpiexec: Option<String>,
}

impl Programs {
    /// The command that starts the controller of a profile.
    pub fn controller_command(
        &self,
        profile: &Profile,
        ip: Option<&str>,
        arguments: &[String],
        launcher: &dyn Launcher,
    ) -> Result<CommandLine, Failure> {
        let mut command = command_of("controller", "--controller-cmd", self.controller.as_deref())?;
        command.arguments.extend(place_arguments(profile));
        command.arguments.extend(ip.map(|ip| format!("--ip={ip}")));
        // Nobody asked for an address, and all peers are here. Another's controller may not know this.
        let is_free = ip.is_none() && !arguments.iter().any(|argument| names_an_address(argument));
        if is_free && launcher.kind().is_batch() {
            // Its nodes are other machines: loopback would be of no use to them.
            command.arguments.push("--ip=*".to_owned());
        } else if is_free && self.controller.is_none() && launcher.stays_here() {
            command.arguments.push("--transport=ipc".to_owned());
        }
        command.arguments.extend(arguments.iter().cloned());
        command.log = profile.log_file("controller");
        Ok(command)
    }

    /// The MPI that the engine program is linked with, if it is there and is.
    pub fn engine_mpi(&self) -> Option<Flavor> {
        mpi_library::find(&command_of("engine", "--engine-cmd", self.engine.as_deref()).ok()?.program)
    }

    /// The command that becomes the launcher of `ranks` engines inside a job.
    fn inner_command(&self, profile: &Profile, ranks: Ranks) -> Result<CommandLine, Failure> {
        let program = std::env::current_exe()
            .map_err(|error| Failure::failed("failed to find this program").caused_by(error))?;
        let mut arguments = vec!["launch".to_owned(), "-n".to_owned(), ranks.to_string()];
        arguments.extend(place_arguments(profile));
        arguments.extend(self.engine.iter().map(|command| format!("--engine-cmd={command}")));
        arguments.extend(self.engine_arguments());
        arguments.extend(self.mpiexec.iter().map(|command| format!("--mpiexec={command}")));
        Ok(CommandLine { program, arguments, log: PathBuf::new() })
    }

    /// The command that becomes a controller and its engines inside a job.
    fn inner_cluster(&self, profile: &Profile, ranks: Ranks, ip: &str) -> Result<CommandLine, Failure> {
        let mut line = self.inner_command(profile, ranks)?;
        line.arguments[0] = "start".to_owned();
        line.arguments.extend(["--part-of-job", "--engines=mpi", "--keep-logs"].map(str::to_owned));
        line.arguments.push(format!("--ip={ip}"));
        line.arguments.extend(self.controller.iter().map(|command| format!("--controller-cmd={command}")));
        Ok(line)
    }

    /// What an engine is told; the same words as ours.
    fn engine_arguments(&self) -> impl Iterator<Item = String> {
        let python = self.python.as_ref().map(|interpreter| match interpreter {
            Some(interpreter) => format!("--python={interpreter}"),
            None => "--python".to_owned(),
        });
        python.into_iter().chain(self.modules.iter().map(|module| format!("--module={}", module.display())))
    }

    /// The launcher for the wanted kind of engines. When nothing is wanted, an engine that is linked with an MPI
    /// library gets its `mpiexec` and any other is started locally.
    pub fn launcher(&self, kind: Option<EngineKind>, job: &JobOptions) -> Result<Box<dyn Launcher>, Failure> {
        if let Some(kind) = kind.filter(|kind| kind.is_batch()) {
            // The engine is looked for here too: a job that fails for this would have waited in vain.
            command_of("engine", "--engine-cmd", self.engine.as_deref())?;
            return Ok(Box::new(batch::Batch::new(kind, self.clone(), job)?));
        }
        if let Some(option) = job.first_given() {
            return Err(Failure::usage(format!("{option} is for batch systems"))
                .hint("add --engines slurm or --engines pbs"));
        }
        let mut engine = command_of("engine", "--engine-cmd", self.engine.as_deref())?;
        engine.arguments.extend(self.engine_arguments());
        let library = mpi_library::find(&engine.program);
        let kind = kind.unwrap_or(match (library, &self.mpiexec) {
            (None, None) => EngineKind::Local,
            _ => EngineKind::Mpi,
        });
        match kind {
            EngineKind::Local => Ok(Box::new(local::Local::new(engine))),
            EngineKind::Slurm | EngineKind::Pbs => unreachable!("answered above"),
            EngineKind::Mpi => {
                Ok(Box::new(mpiexec::MpiLauncher::find(engine, library, self.mpiexec.as_deref())?))
            }
        }
    }
}

/// Whether an argument of the controller says how or where it is to be reached.
fn names_an_address(argument: &str) -> bool {
    const FLAGS: [&str; 12] = [
        "--transport",
        "--ip",
        "--client-ip",
        "--engine-ip",
        "--port",
        "--ports",
        "--client-ports",
        "--engine-ports",
        "--location",
        "--ssh",
        "--enginessh",
        "--enable-curve",
    ];
    let name = argument.split_once('=').map_or(argument, |(name, _)| name);
    FLAGS.contains(&name) || name.starts_with("--IPController.")
}

/// The job of a batch system in which this process runs, if it does.
pub fn allocation() -> Option<Allocation> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let lines_of = |path: &str| {
        let text = std::fs::read_to_string(path).ok()?;
        u32::try_from(text.lines().filter(|line| !line.trim().is_empty()).count()).ok()
    };
    Allocation::find(variable, lines_of)
}

/// The family of an `mpiexec`, if it is one that we know.
pub fn family_of(mpiexec: &Path) -> Option<Flavor> {
    mpiexec::probe(mpiexec).ok().map(|mpiexec| mpiexec.flavor)
}

/// Whether this shell is inside a job of a batch system, whose mpiexec starts ranks on the job's nodes.
fn is_in_a_job() -> bool {
    let others = ["LSB_JOBID", "COBALT_JOBID", "JOB_ID", "OAR_JOB_ID"];
    allocation().is_some() || others.iter().any(|name| std::env::var_os(name).is_some())
}

/// The flags by which a controller or engine finds the connection files. The key never travels this way.
fn place_arguments(profile: &Profile) -> Vec<String> {
    let mut arguments = vec![format!("--profile-dir={}", profile.dir().display())];
    if !profile.cluster_id().is_empty() {
        arguments.push(format!("--cluster-id={}", profile.cluster_id()));
    }
    arguments
}

fn command_of(name: &str, flag: &str, given: Option<&str>) -> Result<CommandLine, Failure> {
    let mut words = split_words(given.unwrap_or(name)).ok_or_else(|| {
        Failure::usage(format!("{flag} {:?} is no command line", given.unwrap_or_default()))
            .hint("check its quotes")
    })?;
    let wanted = words.remove(0);
    let program = find_program(&wanted).ok_or_else(|| {
        Failure::new(Code::LaunchFailed, format!("there is no program {wanted} next to cluster or in PATH"))
            .hint(format!("build it (cargo build), or name it with {flag}"))
    })?;
    Ok(CommandLine { program, arguments: words, log: PathBuf::new() })
}
