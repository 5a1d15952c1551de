//! Where a cluster keeps its files: the profile directory of the ipyparallel 9 layout.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use transport::connection_file;
use transport::profile::{Profile as Files, ProfileOptions};

use crate::failure::Failure;

/// One cluster's place: a profile directory and the cluster's id in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    files: Files,
    /// The flags that lead another command to the same cluster.
    flags: Vec<String>,
}

impl Profile {
    /// Finds the directory from flags, environment and defaults, and makes it absolute: children and later
    /// commands have other working directories.
    pub fn resolve(options: &ProfileOptions) -> Result<Profile, Failure> {
        let failed = |error| Failure::usage("failed to find the profile").caused_by(error);
        let located = Files::locate(options, |name| std::env::var_os(name)).map_err(failed)?;
        let dir = std::path::absolute(located.dir()).map_err(|error| {
            Failure::failed(format!("failed to resolve {}", located.dir().display())).caused_by(error)
        })?;
        let absolute = ProfileOptions {
            profile_dir: Some(dir),
            cluster_id: Some(located.cluster_id().to_owned()),
            ..ProfileOptions::default()
        };
        let files = Files::locate(&absolute, |_| None).map_err(failed)?;
        let mut flags = Vec::new();
        if let Some(dir) = &options.profile_dir {
            flags.push(format!("--profile-dir={}", dir.display()));
        } else {
            flags.extend(options.profile.as_ref().map(|name| format!("--profile={name}")));
            flags.extend(options.ipython_dir.as_ref().map(|dir| format!("--ipython-dir={}", dir.display())));
        }
        flags.extend(
            options.cluster_id.iter().filter(|id| !id.is_empty()).map(|id| format!("--cluster-id={id}")),
        );
        Ok(Profile { files, flags })
    }

    /// The cluster of a file in some profile's `security` directory; none if the name is not one.
    pub fn of_cluster_file(path: &Path) -> Option<Profile> {
        let name = path.file_name()?.to_str()?;
        let cluster_id = name.strip_prefix("cluster-")?.strip_suffix(".json")?;
        let dir = path.parent()?.parent()?;
        let options = ProfileOptions {
            profile_dir: Some(dir.to_path_buf()),
            cluster_id: Some(cluster_id.to_owned()),
            ..ProfileOptions::default()
        };
        let mut profile = Profile::resolve(&options).ok()?;
        if let Some(name) = dir.file_name()?.to_str()?.strip_prefix("profile_") {
            profile.flags.remove(0);
            if name != "default" {
                profile.flags.insert(0, format!("--profile={name}"));
            }
        }
        Some(profile)
    }

    /// Makes the directories that the programs of a cluster expect.
    pub fn create(&self) -> Result<(), Failure> {
        connection_file::create_directories(&self.files)
            .map_err(|error| Failure::failed("failed to prepare the profile").caused_by(error))
    }

    /// The profile directory, absolute.
    pub fn dir(&self) -> &Path {
        self.files.dir()
    }

    /// Empty for the usual, only cluster of a profile.
    pub fn cluster_id(&self) -> &str {
        self.files.cluster_id()
    }

    /// Where files live that only their owner may read.
    pub fn security_dir(&self) -> PathBuf {
        self.files.security_dir()
    }

    /// Where output goes.
    pub fn log_dir(&self) -> PathBuf {
        self.files.log_dir()
    }

    /// What is running: see `cluster_file.rs`.
    pub fn cluster_file(&self) -> PathBuf {
        self.files.cluster_file()
    }

    /// Written by the controller for clients.
    pub fn client_file(&self) -> PathBuf {
        self.files.client_file()
    }

    /// Written by the controller for engines.
    pub fn engine_file(&self) -> PathBuf {
        self.files.engine_file()
    }

    /// Written by the controller for its successor.
    pub fn engine_state_file(&self) -> PathBuf {
        self.files.engine_state_file()
    }

    /// The log of `what`, which is `controller`, `cluster` or an engine set.
    pub fn log_file(&self, what: &str) -> PathBuf {
        self.log_dir().join(format!("{what}{}.log", self.dashed_id()))
    }

    /// For people: `default`, or `default cluster night`.
    pub fn label(&self) -> String {
        let dir_name =
            self.dir().file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let name = dir_name.strip_prefix("profile_").map(str::to_owned);
        let name = name.unwrap_or_else(|| self.dir().display().to_string());
        if self.cluster_id().is_empty() { name } else { format!("{name} cluster {}", self.cluster_id()) }
    }

    /// `program arguments` as one would type it to reach this cluster.
    pub fn command(&self, program: &str, arguments: &str) -> String {
        let mut line = program.to_owned();
        for flag in &self.flags {
            line.push(' ');
            line.push_str(&crate::run_command::quote(flag));
        }
        if !arguments.is_empty() {
            line.push(' ');
            line.push_str(arguments);
        }
        line
    }

    fn dashed_id(&self) -> String {
        if self.cluster_id().is_empty() { String::new() } else { format!("-{}", self.cluster_id()) }
    }
}

/// The cluster files of all profiles in the IPython directory, or of the one profile that was named.
pub fn all_cluster_files(options: &ProfileOptions) -> Result<Vec<PathBuf>, Failure> {
    let one = Profile::resolve(options)?;
    let by_directory = options.profile_dir.is_some() || options.profile.is_some();
    let profiles = match one.dir().parent() {
        Some(ipython_dir) if !by_directory => entries(ipython_dir, |name| name.starts_with("profile_"))?,
        _ => vec![one.dir().to_path_buf()],
    };
    let mut files = Vec::new();
    for profile in profiles {
        let security = profile.join("security");
        files.extend(entries(&security, |name| name.starts_with("cluster-") && name.ends_with(".json"))?);
    }
    files.sort();
    Ok(files)
}

/// What is in a directory under a wanted name; nothing if there is no directory.
pub fn entries(dir: &Path, wanted: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>, Failure> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => {
            return Err(Failure::failed(format!("failed to read {}", dir.display())).caused_by(error));
        }
    };
    let named = entries.flatten().filter(|entry| entry.file_name().to_str().is_some_and(&wanted));
    Ok(named.map(|entry| entry.path()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_file_leads_back_to_its_profile() {
        let profile = Profile::of_cluster_file(Path::new("/i/profile_lab/security/cluster-x.json")).unwrap();
        assert_eq!(profile.dir(), Path::new("/i/profile_lab"));
        assert_eq!(profile.command("cluster", "stop"), "cluster --profile=lab --cluster-id=x stop");
        assert_eq!(profile.label(), "lab cluster x");
        assert_eq!(Profile::of_cluster_file(Path::new("/i/profile_lab/security/other.json")), None);

        let profile = Profile::of_cluster_file(Path::new("/i/here/security/cluster-.json")).unwrap();
        assert_eq!(profile.command("cluster", ""), "cluster --profile-dir=/i/here");
        assert_eq!(profile.log_file("controller"), Path::new("/i/here/log/controller.log"));
    }
}
