//! `cluster doctor`: looks for what keeps a cluster from working.

use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use clap::Args;
use protocol::connection_file::{ClientFile, EngineFile};
use slurm_pbs::Ranks;
use slurm_pbs::placement::plugins;

use crate::cli::Place;
use crate::cluster_file::ClusterFile;
use crate::doctor::{Facts, Finding, examine};
use crate::failure::Failure;
use crate::hub::HubLink;
use crate::launch::{self, Programs};
use crate::output::{print, print_json};
use crate::profile::Profile;
use crate::run_command::find_in_path;

/// Look for what keeps a cluster from working, and say what to do about each fault.
///
/// Looks at the connection files, the controller, its engines, the MPI of the engine program, the launchers of this
/// machine, limits and clocks. It changes nothing. The exit code is 1 if a fault was found.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  cluster doctor
  cluster doctor -n 4000 --json")]
pub struct Doctor {
    /// Judge limits for so many engines [default: those that are there].
    #[arg(short, value_name = "N")]
    n: Option<Ranks>,

    /// The engine program [default: engine, next to cluster or in PATH].
    #[arg(long, value_name = "COMMAND")]
    engine_cmd: Option<String>,
}

impl Doctor {
    /// Prints what it finds.
    pub fn run(self, place: &Place, json: bool) -> Result<(), Failure> {
        let profile = place.profile()?;
        let findings = examine(&self.gather(&profile)?);
        let faults = findings.iter().filter(|finding| finding.ok == Some(false)).count();
        if json {
            print_json(&findings)?;
        } else {
            print(&findings.iter().map(text).collect::<Vec<_>>().join("\n"))?;
        }
        match faults {
            0 => Ok(()),
            1 => Err(Failure::failed("1 fault was found")),
            faults => Err(Failure::failed(format!("{faults} faults were found"))),
        }
    }

    fn gather(&self, profile: &Profile) -> Result<Facts, Failure> {
        let mut facts = Facts {
            hostname: transport::reach::hostname(),
            own_addresses: transport::reach::own_addresses(),
            start_command: profile.command("cluster", "start -n 4"),
            open_files_max: nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)
                .ok()
                .map(|(_, most)| most),
            file_skew: file_skew(profile),
            ..Facts::default()
        };
        if let Some(file) = ClusterFile::read(&profile.cluster_file())? {
            facts.sets = file.engines.sets.values().map(|set| (set.class, set.n)).collect();
        }
        self.gather_files(profile, &mut facts);
        self.gather_launchers(&mut facts);
        let asked_for = facts.sets.iter().map(|(_, n)| n).sum();
        let here = u32::try_from(facts.engines.len()).unwrap_or(u32::MAX);
        facts.engines_wanted = self.n.map_or(here.max(asked_for), Ranks::get);
        Ok(facts)
    }

    fn gather_files(&self, profile: &Profile, facts: &mut Facts) {
        let paths = [profile.client_file(), profile.engine_file()];
        let others_can_read = |mode: u32| mode & 0o077 != 0;
        facts.readable_file = paths.iter().find_map(|path| {
            let mode = std::fs::metadata(path).ok()?.mode() & 0o777;
            others_can_read(mode).then(|| (path.display().to_string(), mode))
        });
        let [client, engine] = paths.map(|path| std::fs::read_to_string(path).unwrap_or_default());
        if let (Ok(client), Ok(engine)) = (ClientFile::parse(&client), EngineFile::parse(&engine)) {
            facts.files = Some((client.common, engine.common));
        }
        if facts.files.is_none() || facts.readable_file.is_some() {
            return; // Nobody of ours would use them.
        }
        let answer = HubLink::connect(&profile.client_file()).and_then(|mut hub| {
            let status = hub.status()?;
            Ok((status, hub.clock_skew()))
        });
        facts.answers = Some(answer.is_ok());
        if let Ok((status, skew)) = answer {
            facts.controller_skew = skew.map(|skew| (skew, status.host.clone()));
            let engines = status.engines.values().map(|state| &state.engine);
            facts.engines = engines.map(|engine| (engine.host.clone(), engine.world_size)).collect();
        }
    }

    fn gather_launchers(&self, facts: &mut Facts) {
        let programs = Programs { engine: self.engine_cmd.clone(), ..Programs::default() };
        facts.engine_mpi = programs.engine_mpi();
        facts.mpiexec = find_in_path("mpiexec").and_then(|path| {
            let family = launch::family_of(&path)?;
            Some((path.display().to_string(), family))
        });
        facts.has_own_mpiexec = facts.engine_mpi.map(|flavor| {
            let programs = flavor.launcher_names().iter().filter_map(|name| find_in_path(name));
            programs.into_iter().any(|path| launch::family_of(&path) == Some(flavor))
        });
        facts.srun_plugins = find_in_path("srun").and_then(|srun| {
            let output = Command::new(srun).arg("--mpi=list").stdin(Stdio::null()).output().ok()?;
            let said = [output.stdout, output.stderr].concat();
            // Without a Slurm that answers it names none.
            output.status.success().then(|| plugins(&String::from_utf8_lossy(&said)))
        });
    }
}

/// How far the clock that dates files is from ours: that of the file server.
fn file_skew(profile: &Profile) -> Option<Duration> {
    let directory =
        if profile.security_dir().is_dir() { profile.security_dir() } else { std::env::temp_dir() };
    let file = tempfile_in(&directory)?;
    let dated = file.1.metadata().ok()?.modified().ok()?;
    let _ = std::fs::remove_file(&file.0); // It was only made to look at its date.
    let now = SystemTime::now();
    Some(now.duration_since(dated).or_else(|_| dated.duration_since(now)).unwrap_or_default())
}

fn tempfile_in(directory: &std::path::Path) -> Option<(std::path::PathBuf, std::fs::File)> {
    let path = directory.join(format!(".doctor-{}", transport::random::id()));
    let file = std::fs::OpenOptions::new().write(true).create_new(true).open(&path).ok()?;
    Some((path, file))
}

fn text(finding: &Finding) -> String {
    let mark = match finding.ok {
        Some(true) => "ok    ",
        Some(false) => "FAULT ",
        None => "-     ",
    };
    let fix = finding.fix.iter().map(|fix| format!("\n         fix: {fix}")).collect::<String>();
    format!("{mark} {:<10}  {}{fix}", finding.check, finding.text)
}
