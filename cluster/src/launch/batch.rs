//! Engines as a job of Slurm or PBS. The job runs `cluster launch`, which finds out on the job's own nodes what makes
//! its ranks one MPI world.

use std::path::{Path, PathBuf};

use clap::Args;
use slurm_pbs::{Exit, JobSpec, Ranks, System};

use super::{EngineKind, Explanation, Launcher, Programs};
use crate::failure::{Failure, LastLines};
use crate::job::{self, Job};
use crate::log_file::{LAST_LINES_MAX, last_lines};
use crate::profile::Profile;
use crate::run_command::{CommandLine, quote};

/// What a PBS job is to have of our environment; Slurm passes all of it. No key is ever there.
const VARIABLES: [&str; 7] =
    ["PATH", "LD_LIBRARY_PATH", "HOME", "VIRTUAL_ENV", "CONDA_PREFIX", "IPYTHONDIR", "PYTHONPATH"];

const HEADING: &str = "Batch systems (--engines slurm or pbs)";

/// What a batch system is asked for.
#[derive(Args, Clone, Debug, Default)]
pub struct JobOptions {
    /// Slurm's partition, the queue of PBS [default: the system's].
    #[arg(long, value_name = "NAME", help_heading = HEADING)]
    queue: Option<String>,

    /// How long the job may run: hours:minutes:seconds; a bare number is minutes to Slurm and seconds to PBS [default:
    /// the system's].
    #[arg(long, value_name = "TIME", help_heading = HEADING)]
    walltime: Option<String>,

    /// Over how many nodes the engines are spread [default: as the system likes].
    #[arg(long, value_name = "N", help_heading = HEADING)]
    nodes: Option<Ranks>,

    /// Who pays.
    #[arg(long, value_name = "NAME", help_heading = HEADING)]
    account: Option<String>,

    /// The site's own job script, with blanks such as {{ranks}}, {{queue}} and {{command}}; --dry-run shows ours.
    #[arg(long, value_name = "FILE", help_heading = HEADING)]
    template: Option<PathBuf>,

    /// Arguments for sbatch or qsub; set from what follows `--`.
    #[arg(skip)]
    pub more: Vec<String>,
}

impl JobOptions {
    /// The first option that was given, if any was.
    pub(super) fn first_given(&self) -> Option<&'static str> {
        let given = [
            ("--queue", self.queue.is_some()),
            ("--walltime", self.walltime.is_some()),
            ("--nodes", self.nodes.is_some()),
            ("--account", self.account.is_some()),
            ("--template", self.template.is_some()),
        ];
        given.iter().find(|(_, is_given)| *is_given).map(|(name, _)| *name)
    }
}

/// See the module.
pub(super) struct Batch {
    kind: EngineKind,
    system: System,
    programs: Programs,
    options: JobOptions,
    walltime: Option<slurm_pbs::Walltime>,
    /// Where the controller listens, if the job starts it too.
    controller_ip: Option<String>,
    template: Option<(String, String)>,
}

impl Batch {
    pub(super) fn new(kind: EngineKind, programs: Programs, options: &JobOptions) -> Result<Batch, Failure> {
        let system = if kind == EngineKind::Slurm { System::Slurm } else { job::find_pbs()? };
        let walltime = options.walltime.as_deref().map(|text| system.parse_walltime(text)).transpose();
        let walltime =
            walltime.map_err(|error| Failure::usage("--walltime cannot be used").caused_by(error))?;
        let template = options.template.as_deref().map(read_template).transpose()?;
        Ok(Batch {
            kind,
            system,
            programs,
            options: options.clone(),
            walltime,
            controller_ip: None,
            template,
        })
    }
}

fn read_template(path: &Path) -> Result<(String, String), Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::usage(format!("failed to read the template {}", path.display())).caused_by(error)
    })?;
    Ok((path.display().to_string(), text))
}

impl Launcher for Batch {
    fn kind(&self) -> EngineKind {
        self.kind
    }

    fn describe(&self) -> String {
        format!("MPI engines ({})", self.system)
    }

    fn stays_here(&self) -> bool {
        false
    }

    fn commands(&self, _profile: &Profile, _set: u32, _ranks: Ranks) -> Vec<CommandLine> {
        Vec::new()
    }

    fn take_controller(&mut self, ip: &str) -> bool {
        self.controller_ip = Some(ip.to_owned());
        true
    }

    fn job(&self, profile: &Profile, set: u32, ranks: Ranks) -> Result<Option<Job>, Failure> {
        if let Some(nodes) = self.options.nodes.filter(|nodes| *nodes > ranks) {
            return Err(Failure::usage(format!("{ranks} engines cannot be spread over {nodes} nodes")));
        }
        // The logs of engines and controller have the usual names; the job's own has what is said about both.
        let name = if self.controller_ip.is_some() { format!("job-{set}") } else { format!("engines-{set}") };
        let log = profile.log_file(&name);
        // What PBS puts there at the end must not overwrite the log.
        let output = if self.system.is_slurm() { log.clone() } else { log.with_extension("pbs") };
        let spec = JobSpec {
            name: JobSpec::name_from(&match profile.cluster_id() {
                "" => "engines".to_owned(),
                id => format!("engines-{id}"),
            }),
            ranks,
            nodes: self.options.nodes,
            walltime: self.walltime,
            queue: self.options.queue.clone(),
            account: self.options.account.clone(),
            output: output.display().to_string(),
            log: quote(&log.to_string_lossy()),
            command: match &self.controller_ip {
                None => self.programs.inner_command(profile, ranks)?,
                Some(ip) => self.programs.inner_cluster(profile, ranks, ip)?,
            }
            .to_string(),
        };
        let template = self.template.as_ref().map(|(origin, text)| (origin.as_str(), text.as_str()));
        let script = self
            .system
            .script(&spec, template)
            .map_err(|error| Failure::usage("failed to write a job script").caused_by(error))?;
        let script_file = log.with_extension("sh");
        let variables: Vec<&str> =
            VARIABLES.into_iter().filter(|name| std::env::var_os(name).is_some()).collect();
        let submit = self.system.submit(&self.options.more, &variables, &script_file.to_string_lossy());
        Ok(Some(Job { system: self.system, script, script_file, submit, log }))
    }

    fn explain(&self, _index: usize, exit: Exit, _output: &str) -> Explanation {
        Explanation { what: format!("its job {exit}"), hint: None }
    }

    fn last_lines(&self, log: &Path) -> Option<LastLines> {
        last_lines(log, LAST_LINES_MAX)
    }
}
