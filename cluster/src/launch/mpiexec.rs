//! Engines as one MPI world: `mpiexec -n 4 engine --mpi`, with the `mpiexec` that belongs to the MPI library of
//! the engine.

use std::borrow::Cow;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use slurm_pbs::mpiexec::{Complaint, split_rank_tag};
use slurm_pbs::placement::split_label;
use slurm_pbs::{Allocation, Exit, Flavor, LaunchSpec, Mpiexec, Placement, Ranks};

use super::{EngineKind, Explanation, Launcher, allocation, is_in_a_job, place_arguments};
use crate::failure::{Code, Failure, LastLines};
use crate::log_file::{LAST_LINES_MAX, last_lines, printable, tail};
use crate::process::host_name;
use crate::profile::Profile;
use crate::run_command::{CommandLine, find_in_path, split_words};

/// How long engines in a job wait for the connection file: network file systems keep what they know of a directory for
/// up to a minute.
const FILE_SECONDS: u32 = 90;

/// How messages of Open MPI travel. Each rank opens ports for TCP, on all addresses, although ranks of one machine share
/// memory: there, nothing else is used.
const BTL: &str = "OMPI_MCA_btl";

/// See the module.
pub(super) struct MpiLauncher {
    engine: CommandLine,
    starter: Starter,
    as_root: bool,
}

/// What starts the ranks.
enum Starter {
    Mpiexec {
        program: PathBuf,
        mpiexec: Mpiexec,
        /// The user's own arguments, before ours.
        extra: Vec<String>,
        /// The hosts of the job that we are in, where the launcher does not find them by itself.
        node_file: Option<String>,
    },
    Srun {
        program: PathBuf,
        flavor: Flavor,
        mpi: String,
        overlap: bool,
    },
}

impl MpiLauncher {
    /// Finds what starts `engine`, which needs the MPI `library`; `given` is the user's choice of an `mpiexec`.
    pub(super) fn find(
        engine: CommandLine,
        library: Option<Flavor>,
        given: Option<&str>,
    ) -> Result<MpiLauncher, Failure> {
        let as_root = nix::unistd::geteuid().is_root();
        let starter = match (given, allocation()) {
            (Some(given), _) => given_mpiexec(&engine, library, given)?,
            (None, None) => own_mpiexec(&engine, library)?,
            (None, Some(allocation)) => in_job(&engine, library, &allocation)?,
        };
        Ok(MpiLauncher { engine, starter, as_root })
    }

    fn flavor(&self) -> Flavor {
        match &self.starter {
            Starter::Mpiexec { mpiexec, .. } => mpiexec.flavor,
            Starter::Srun { flavor, .. } => *flavor,
        }
    }

    /// The rank that wrote a line, and the line without its tag.
    fn split_tag<'a>(&self, line: &'a str) -> (Option<u32>, Cow<'a, str>) {
        match &self.starter {
            Starter::Mpiexec { mpiexec, .. } => split_rank_tag(mpiexec.flavor, line),
            Starter::Srun { .. } => {
                let (rank, text) = split_label(line);
                (rank, Cow::Borrowed(text))
            }
        }
    }
}

fn given_mpiexec(engine: &CommandLine, library: Option<Flavor>, given: &str) -> Result<Starter, Failure> {
    let mut words = split_words(given).ok_or_else(|| {
        Failure::usage(format!("--mpiexec {given:?} is no command line")).hint("check its quotes")
    })?;
    let wanted = words.remove(0);
    let program = Some(&wanted).filter(|name| name.contains('/')).map(PathBuf::from);
    let program = program.or_else(|| find_in_path(&wanted)).ok_or_else(|| no_program(&wanted, library))?;
    let mpiexec = probe(&program)?;
    if let Some(library) = library.filter(|library| *library != mpiexec.flavor) {
        return Err(mismatch(&engine.program, library, &program, &mpiexec));
    }
    Ok(Starter::Mpiexec { program, mpiexec, extra: words, node_file: None })
}

/// The `mpiexec` of the engine's MPI.
fn own_mpiexec(engine: &CommandLine, library: Option<Flavor>) -> Result<Starter, Failure> {
    let names = library.unwrap_or(Flavor::OpenMpi).launcher_names();
    let mut of_other_family = None;
    for program in names.iter().filter_map(|name| find_in_path(name)) {
        match probe(&program) {
            Ok(mpiexec) if library.is_none_or(|library| library == mpiexec.flavor) => {
                return Ok(Starter::Mpiexec { program, mpiexec, extra: Vec::new(), node_file: None });
            }
            Ok(mpiexec) => of_other_family = of_other_family.or(Some((program, mpiexec))),
            Err(_) => {} // Some other launcher under that name, e.g. a batch system's: try the next.
        }
    }
    Err(match (library, of_other_family) {
        (Some(library), Some((program, mpiexec))) => mismatch(&engine.program, library, &program, &mpiexec),
        _ => no_program("mpiexec", library),
    })
}

/// What makes all ranks of the job that we are in one world.
fn in_job(
    engine: &CommandLine,
    library: Option<Flavor>,
    allocation: &Allocation,
) -> Result<Starter, Failure> {
    let flavor = library.unwrap_or(Flavor::OpenMpi);
    let srun = allocation.is_slurm.then(|| find_in_path("srun")).flatten();
    let listed = srun.as_ref().and_then(|srun| {
        let output = Command::new(srun).arg("--mpi=list").stdin(Stdio::null()).output().ok()?;
        // Older ones say it on standard error.
        Some(format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        ))
    });
    let own = own_mpiexec(engine, library);
    let placement = Placement::choose(allocation, flavor, listed.as_deref(), own.is_ok());
    match (placement, srun) {
        (Ok(Placement::Srun { mpi, overlap }), Some(program)) => {
            Ok(Starter::Srun { program, flavor, mpi, overlap })
        }
        (Err(error), Some(_)) => {
            Err(Failure::new(Code::LaunchFailed, "nothing here makes all ranks of this job one MPI world")
                .caused_by(error)
                .hint(format!(
                    "load the module that brings the mpiexec of {flavor}, or name one with --mpiexec"
                )))
        }
        (placement, _) => {
            let mut starter = own?;
            if let (Starter::Mpiexec { node_file, .. }, Ok(Placement::Mpiexec { node_file: found })) =
                (&mut starter, placement)
            {
                *node_file = found;
            }
            Ok(starter)
        }
    }
}

impl Launcher for MpiLauncher {
    fn kind(&self) -> EngineKind {
        EngineKind::Mpi
    }

    fn describe(&self) -> String {
        match &self.starter {
            Starter::Mpiexec { mpiexec, .. } => format!("MPI engines ({mpiexec})"),
            Starter::Srun { flavor, mpi, .. } => format!("MPI engines ({flavor}, srun --mpi={mpi})"),
        }
    }

    /// Unless a list of hosts was given, which is in arguments or variables of `mpiexec`.
    fn stays_here(&self) -> bool {
        let names_hosts =
            ["OMPI_MCA_orte_default_hostfile", "PRTE_MCA_prte_default_hostfile", "HYDRA_HOST_FILE"];
        let is_plain = matches!(&self.starter, Starter::Mpiexec { extra, .. } if extra.is_empty());
        is_plain && !is_in_a_job() && names_hosts.iter().all(|name| std::env::var_os(name).is_none())
    }

    fn commands(&self, profile: &Profile, set: u32, ranks: Ranks) -> Vec<CommandLine> {
        let mut arguments = self.engine.arguments.clone();
        arguments.push("--mpi".into());
        // An engine that finds another world size than asked for refuses to run: the wrong launcher starts n
        // worlds of one rank each.
        arguments.push(format!("--expect-size={ranks}"));
        if is_in_a_job() {
            // A network file system may show a file to another machine only after a while.
            arguments.push(format!("--wait-for-file={FILE_SECONDS}"));
        }
        arguments.extend(place_arguments(profile));
        let log = profile.log_file(&format!("engines-{set}"));
        let (program, arguments) = match &self.starter {
            Starter::Mpiexec { program, mpiexec, extra, node_file } => {
                let mut spec = LaunchSpec::new(ranks, self.engine.program.to_string_lossy(), arguments);
                if let Some(shared_memory) = mpiexec.shared_memory_transport()
                    && self.stays_here()
                    && std::env::var_os(BTL).is_none()
                {
                    spec.environment.insert(BTL.to_owned(), shared_memory.to_owned());
                }
                let mut line = extra.clone();
                line.extend(node_file.iter().flat_map(|file| mpiexec.node_file_arguments(file)));
                line.extend(mpiexec.arguments(&spec, self.as_root));
                (program, line)
            }
            Starter::Srun { program, mpi, overlap, .. } => {
                let mut line = Placement::srun_arguments(mpi, *overlap, ranks.get());
                line.push(self.engine.program.to_string_lossy().into_owned());
                line.extend(arguments);
                (program, line)
            }
        };
        vec![CommandLine { program: program.clone(), arguments, log }]
    }

    fn explain(&self, _index: usize, exit: Exit, output: &str) -> Explanation {
        let mpiexec = match &self.starter {
            Starter::Mpiexec { mpiexec, .. } => mpiexec,
            Starter::Srun { .. } => {
                let exit = match exit {
                    Exit::Code(code) => Exit::from_shell_code(code),
                    signal => signal,
                };
                return Explanation { what: format!("a rank under srun {exit}"), hint: None };
            }
        };
        match Complaint::find(mpiexec.flavor, output) {
            Some(complaint) => {
                Explanation { what: complaint.to_string(), hint: complaint.hint().map(str::to_owned) }
            }
            None => Explanation { what: mpiexec.explain_exit(exit), hint: None },
        }
    }

    /// The ranks' own lines, if there are any and what the launcher added has been understood by `explain`.
    fn last_lines(&self, log: &Path) -> Option<LastLines> {
        let text = tail(log).ok()?;
        let understood = Complaint::find(self.flavor(), &text).is_some();
        let tagged = text.lines().map(|line| self.split_tag(line));
        let shown = |(rank, line): (Option<u32>, Cow<'_, str>)| match rank {
            Some(rank) => Some(format!("rank {rank}: {}", printable(&line))),
            None if understood || line.trim().is_empty() => None,
            None => Some(printable(&line)),
        };
        let mut lines: Vec<String> = tagged.filter_map(shown).collect();
        if lines.is_empty() {
            return last_lines(log, LAST_LINES_MAX);
        }
        lines.drain(..lines.len().saturating_sub(LAST_LINES_MAX));
        Some(LastLines { path: log.display().to_string(), lines })
    }
}

/// Open MPI keeps a session directory named by the pid of its mpiexec, which stays when that is killed.
pub(super) fn remove_session_directory(pid: i32) {
    let own_user = nix::unistd::geteuid().as_raw();
    let host = host_name();
    let short = host.split('.').next().unwrap_or_default();
    for host in [host.as_str(), short] {
        let base = std::env::temp_dir().join(format!("ompi.{host}.{own_user}"));
        let session = base.join(format!("pid.{pid}"));
        // The directory for temporary files is shared: what is not ours is not touched.
        let ours = |path: &Path| {
            fs::symlink_metadata(path).is_ok_and(|found| found.is_dir() && found.uid() == own_user)
        };
        if ours(&base) && ours(&session) {
            let _ = fs::remove_dir_all(&session); // Best effort: the next reboot does the same.
            let _ = fs::remove_dir(&base); // Only if it was the last one in it.
        }
    }
}

/// Asks a launcher who it is.
pub(super) fn probe(program: &Path) -> Result<Mpiexec, Failure> {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output().map_err(|error| {
        Failure::new(Code::LaunchFailed, format!("failed to run {} --version", program.display()))
            .caused_by(error)
    })?;
    Mpiexec::from_version_text(&String::from_utf8_lossy(&output.stdout)).map_err(|error| {
        Failure::new(Code::LaunchFailed, format!("failed to recognise {}", program.display()))
            .caused_by(error)
    })
}

fn no_program(wanted: &str, library: Option<Flavor>) -> Failure {
    let (of, package) = match library {
        Some(flavor) => (format!(" of {flavor}"), flavor.debian_package()),
        None => (String::new(), Flavor::OpenMpi.debian_package()),
    };
    Failure::new(Code::LaunchFailed, format!("there is no {wanted}{of} in PATH")).hint(format!(
        "install it (Debian: apt install {package}), name it with --mpiexec, or start single engines with \
         --engines local"
    ))
}

fn mismatch(engine: &Path, library: Flavor, program: &Path, mpiexec: &Mpiexec) -> Failure {
    Failure::new(
        Code::LaunchFailed,
        format!(
            "{} belongs to {mpiexec}, but {} is linked with {library}",
            program.display(),
            engine.display()
        ),
    )
    .because("each engine would be a world of its own")
    .hint(format!(
        "name the mpiexec of {library} with --mpiexec (Debian: apt install {})",
        library.debian_package()
    ))
}
