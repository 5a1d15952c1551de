//! What is running, where: `security/cluster-<id>.json`. Stopping and listing work from this file alone, in any
//! shell, also when the process that started the cluster was killed.
//!
//! The outer shape is that of ipyparallel 9, so that its tools can list our clusters. There are no secrets in it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use protocol::Date;
use serde::{Deserialize, Serialize};

use crate::failure::{Code, Failure};
use crate::job::JobState;
use crate::launch::EngineKind;
use crate::process::{ProcessId, boot_id, host_name};
use crate::profile::Profile;
use crate::run_command::Running;

/// The largest file that is read. One with ten thousand local engines has about 10 MB.
const CLUSTER_FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// See the module.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClusterFile {
    /// What was asked for.
    pub cluster: Cluster,
    /// The controller; none if it was started by other means.
    pub controller: Option<Controller>,
    /// The engines.
    pub engines: Engines,
}

/// What was asked for, and where it runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cluster {
    /// Empty for the only cluster of a profile.
    pub cluster_id: String,
    /// Absolute.
    pub profile_dir: PathBuf,
    /// How many engines were asked for at first.
    pub n: u32,
    /// When.
    pub started_at: Date,
    /// The host whose pids these are.
    pub host: String,
    /// The boot of that host whose pids these are.
    pub boot_id: String,
}

/// The controller's process, and who watches it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Controller {
    /// Where it is: `local`, or `slurm` or `pbs` for one that its engines' job started.
    pub class: String,
    /// The `cluster start` that watches over it.
    pub supervisor: ProcessId,
    /// None while it is being started.
    pub state: Option<ProcessState>,
}

/// All engine sets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Engines {
    /// The launcher of the first set.
    pub class: EngineKind,
    /// By number.
    pub sets: BTreeMap<u32, EngineSet>,
}

/// Engines that were started by one command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EngineSet {
    /// How they were started.
    pub class: EngineKind,
    /// How many were asked for.
    pub n: u32,
    /// When.
    pub started_at: Date,
    /// The process that watches over them.
    pub supervisor: ProcessId,
    /// The process of each engine, or the one `mpiexec`.
    pub engines: BTreeMap<usize, ProcessState>,
    /// The job that runs them, if a batch system does. It outlives its supervisor, and this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobState>,
}

/// A process that we started.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProcessState {
    /// Who it is: also the leader of its session and process group.
    #[serde(flatten)]
    pub id: ProcessId,
    /// What it started, as seen when the cluster was ready: the ranks of `mpiexec`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<ProcessId>,
    /// What was run.
    pub argv: Vec<String>,
    /// Where its output goes.
    pub output_file: PathBuf,
    /// `running`: a process that is gone is recognised by its pid and start time.
    pub state: String,
}

impl ProcessState {
    /// The state of a child that has just been started.
    pub fn of(running: &Running) -> ProcessState {
        let program = running.line.program.to_string_lossy().into_owned();
        ProcessState {
            id: running.id,
            members: Vec::new(),
            argv: std::iter::once(program).chain(running.line.arguments.iter().cloned()).collect(),
            output_file: running.line.log.clone(),
            state: "running".to_owned(),
        }
    }
}

impl ClusterFile {
    /// A cluster of which nothing runs yet.
    pub fn new(profile: &Profile, class: EngineKind, n: u32, now: Date) -> ClusterFile {
        ClusterFile {
            cluster: Cluster {
                cluster_id: profile.cluster_id().to_owned(),
                profile_dir: profile.dir().to_path_buf(),
                n,
                started_at: now,
                host: host_name(),
                boot_id: boot_id(),
            },
            controller: None,
            engines: Engines { class, sets: BTreeMap::new() },
        }
    }

    /// Reads the file of a profile; `None` if there is none.
    pub fn read(path: &Path) -> Result<Option<ClusterFile>, Failure> {
        let failed = || Failure::failed(format!("failed to read the cluster file {}", path.display()));
        let mut text = String::new();
        match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed().caused_by(error)),
            Ok(file) => file
                .take(CLUSTER_FILE_BYTES_MAX)
                .read_to_string(&mut text)
                .map_err(|error| failed().caused_by(error))?,
        };
        match serde_json::from_str(&text) {
            Ok(file) => Ok(Some(file)),
            Err(error) => Err(failed().caused_by(error).hint(
                "another program wrote it (ipcluster?): stop that cluster with it, or remove the file with: \
                 cluster clean --force",
            )),
        }
    }

    /// Reads the file, or says that there is no such cluster.
    pub fn read_existing(profile: &Profile) -> Result<ClusterFile, Failure> {
        ClusterFile::read(&profile.cluster_file())?.ok_or_else(|| not_found(profile))
    }

    /// Puts the file in place in one step, or removes it if nothing is left in it.
    pub fn write(&self, profile: &Profile) -> Result<(), Failure> {
        let path = profile.cluster_file();
        let failed = |error: io::Error| {
            Failure::failed(format!("failed to write the cluster file {}", path.display())).caused_by(error)
        };
        if self.is_empty() {
            return remove_if_there(&path).map_err(failed);
        }
        let mut text =
            serde_json::to_vec_pretty(self).expect("a cluster file holds nothing that JSON cannot say");
        text.push(b'\n');
        transport::connection_file::write_private(&path, &text).map_err(failed)
    }

    /// Whether it describes nothing.
    pub fn is_empty(&self) -> bool {
        self.controller.is_none() && self.engines.sets.is_empty()
    }

    /// Whether the pids are those of this machine since its last start.
    pub fn is_of_this_boot(&self) -> bool {
        self.is_of_this_host() && self.cluster.boot_id == boot_id()
    }

    /// Whether the pids are those of this machine.
    pub fn is_of_this_host(&self) -> bool {
        self.cluster.host == host_name()
    }

    /// The supervisors that still run.
    pub fn live_supervisors(&self) -> Vec<ProcessId> {
        if !self.is_of_this_boot() {
            return Vec::new();
        }
        let controller = self.controller.iter().map(|controller| controller.supervisor);
        let sets = self.engines.sets.values().map(|set| set.supervisor);
        let mut found: Vec<ProcessId> = controller.chain(sets).filter(|id| id.is_alive()).collect();
        found.sort();
        found.dedup();
        found
    }

    /// Every job that was handed in.
    pub fn jobs(&self) -> impl Iterator<Item = &JobState> {
        self.engines.sets.values().filter_map(|set| set.job.as_ref())
    }

    /// Every process that was started.
    pub fn processes(&self) -> impl Iterator<Item = &ProcessState> {
        let controller = self.controller.iter().filter_map(|controller| controller.state.as_ref());
        controller.chain(self.engine_processes())
    }

    /// Every process that was started for engines.
    pub fn engine_processes(&self) -> impl Iterator<Item = &ProcessState> {
        self.engines.sets.values().flat_map(|set| set.engines.values())
    }

    /// Whether anything of it still runs. A cluster of another host counts as running: nobody can tell here.
    pub fn is_live(&self) -> bool {
        if !self.is_of_this_host() {
            return true;
        }
        self.is_of_this_boot()
            && (!self.live_supervisors().is_empty()
                || self.processes().any(|process| {
                    process.id.is_alive() || process.members.iter().any(|member| member.is_alive())
                }))
    }

    /// Whether the controller still runs.
    pub fn controller_is_live(&self) -> bool {
        let state = self.controller.as_ref().and_then(|controller| controller.state.as_ref());
        self.is_of_this_boot() && state.is_some_and(|state| state.id.is_alive())
    }

    /// How many engine processes or launchers of a set still run.
    pub fn live_count(&self, set: &EngineSet) -> usize {
        if !self.is_of_this_boot() {
            return 0;
        }
        set.engines.values().filter(|process| process.id.is_alive()).count()
    }
}

/// Keeps every other `cluster` command from changing the file while it is held. The lock is on the directory: no
/// lock file stays behind, and the kernel drops it when the holder dies.
pub struct Lock {
    _directory: File,
}

impl Lock {
    /// Waits for its turn: holders keep it for milliseconds.
    pub fn take(profile: &Profile) -> Result<Lock, Failure> {
        let path = profile.security_dir();
        let failed = |error| Failure::failed(format!("failed to lock {}", path.display())).caused_by(error);
        let directory = File::open(&path).map_err(failed)?;
        directory.lock().map_err(failed)?;
        Ok(Lock { _directory: directory })
    }
}

/// Changes the file under the lock; `change` gets what is there.
pub fn update(
    profile: &Profile,
    change: impl FnOnce(Option<ClusterFile>) -> Result<ClusterFile, Failure>,
) -> Result<ClusterFile, Failure> {
    let _lock = Lock::take(profile)?;
    let changed = change(ClusterFile::read(&profile.cluster_file())?)?;
    changed.write(profile)?;
    Ok(changed)
}

/// Removes a file; that it is not there is as good.
pub fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// There is no such cluster.
pub fn not_found(profile: &Profile) -> Failure {
    Failure::new(Code::NotFound, format!("there is no cluster {}", profile.label()))
        .because(format!("{} does not exist", profile.cluster_file().display()))
        .hint(format!(
            "see all with: cluster list; start one with: {}",
            profile.command("cluster", "start -n 4")
        ))
}

#[cfg(test)]
mod tests {
    use transport::profile::ProfileOptions;

    use super::*;

    fn profile(dir: &Path) -> Profile {
        let options = ProfileOptions { profile_dir: Some(dir.into()), ..ProfileOptions::default() };
        let profile = Profile::resolve(&options).unwrap();
        profile.create().unwrap();
        profile
    }

    fn file(profile: &Profile, supervisor: ProcessId) -> ClusterFile {
        let mut file = ClusterFile::new(profile, EngineKind::Mpi, 4, Date::from_micros(0));
        file.controller = Some(Controller { class: "local".into(), supervisor, state: None });
        file
    }

    #[test]
    fn a_file_is_read_back_as_written_and_only_its_owner_can_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let profile = profile(dir.path());
        let written = file(&profile, ProcessId::own());

        written.write(&profile).unwrap();

        assert_eq!(ClusterFile::read_existing(&profile).unwrap(), written);
        let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(profile.cluster_file()).unwrap());
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn an_empty_file_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let profile = profile(dir.path());
        let mut file = file(&profile, ProcessId::own());
        file.write(&profile).unwrap();
        file.controller = None;

        file.write(&profile).unwrap();

        assert_eq!(ClusterFile::read_existing(&profile).unwrap_err().code, Code::NotFound);
    }

    #[test]
    fn a_pid_that_now_is_another_process_makes_a_file_stale() {
        let dir = tempfile::tempdir().unwrap();
        let profile = profile(dir.path());
        let own = ProcessId::own();
        assert!(file(&profile, own).is_live());
        assert!(!file(&profile, ProcessId { start_time: own.start_time + 1, ..own }).is_live());
    }

    #[test]
    fn a_reboot_makes_a_file_stale_and_another_host_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let profile = profile(dir.path());
        let mut file = file(&profile, ProcessId::own());
        file.cluster.boot_id = "another".into();
        assert!(!file.is_live());
        file.cluster.host = "another".into();
        assert!(file.is_live());
    }

    #[test]
    fn a_file_of_another_program_is_refused_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let profile = profile(dir.path());
        fs::write(profile.cluster_file(), r#"{"cluster":{"n":4},"controller":{"class":"local"}}"#).unwrap();
        let failure = ClusterFile::read(&profile.cluster_file()).unwrap_err();
        assert!(failure.hint.unwrap().contains("ipcluster"));
    }
}
