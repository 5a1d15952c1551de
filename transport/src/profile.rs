//! Where a cluster keeps its files: IPython's directory, a profile in it, and the names in the profile.

use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

/// What the command line says about the place; `None` leaves it to the environment and then to the defaults.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProfileOptions {
    /// `--ipython-dir`.
    pub ipython_dir: Option<PathBuf>,
    /// `--profile`: the name of a profile in it.
    pub profile: Option<String>,
    /// `--profile-dir`: exactly this directory, whatever the two above say.
    pub profile_dir: Option<PathBuf>,
    /// `--cluster-id`: tells clusters of one profile apart.
    pub cluster_id: Option<String>,
}

/// The directory and names of one cluster's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    dir: PathBuf,
    cluster_id: String,
}

/// Why there is no place.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ProfileError {
    /// Neither the options nor the environment lead to a directory.
    #[error("find the profile directory: HOME is not set; set it, or give --profile-dir or IPYTHONDIR")]
    NoHome,
    /// A name that would lead out of the profile.
    #[error("use {what} {name:?} in a file name: choose one without '/' and NUL, and not '.' or '..'")]
    Name {
        /// Which name.
        what: &'static str,
        /// As given.
        name: String,
    },
    /// A variable that must be text is none.
    #[error("read {variable}: it is not UTF-8; set it to plain text")]
    NotText {
        /// Its name.
        variable: &'static str,
    },
}

impl Profile {
    /// Finds the profile from options, then environment, then defaults. `environment` looks up a variable.
    ///
    /// In this order: `--profile-dir`; `--profile` or `--ipython-dir`; `IPP_PROFILE_DIR`; `profile_default` in
    /// `IPYTHONDIR` or `~/.ipython`. Empty variables count as absent. Nothing is created or looked at.
    pub fn locate(
        options: &ProfileOptions,
        environment: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Profile, ProfileError> {
        let variable = |name: &str| environment(name).filter(|value| !value.is_empty());
        let home = variable("HOME").map(PathBuf::from);
        let by_name = options.profile.is_some() || options.ipython_dir.is_some();
        let explicit = options.profile_dir.clone().or_else(|| {
            let inherited = variable("IPP_PROFILE_DIR").map(PathBuf::from);
            inherited.filter(|_| !by_name)
        });
        let dir = match explicit {
            Some(dir) => expand_home(&dir, home.as_deref())?,
            None => {
                let name = options.profile.as_deref().unwrap_or("default");
                let ipython_dir =
                    options.ipython_dir.clone().or_else(|| variable("IPYTHONDIR").map(PathBuf::from));
                let ipython_dir = ipython_dir.unwrap_or_else(|| PathBuf::from("~/.ipython"));
                expand_home(&ipython_dir, home.as_deref())?
                    .join(format!("profile_{}", checked("profile", name)?))
            }
        };
        let cluster_id = match (&options.cluster_id, variable("IPP_CLUSTER_ID")) {
            (Some(id), _) => id.clone(),
            (None, Some(id)) => {
                id.into_string().map_err(|_| ProfileError::NotText { variable: "IPP_CLUSTER_ID" })?
            }
            (None, None) => String::new(),
        };
        Ok(Profile { dir, cluster_id: checked("cluster id", &cluster_id)?.to_owned() })
    }

    /// The same profile with another cluster id.
    pub fn with_cluster_id(&self, cluster_id: &str) -> Result<Profile, ProfileError> {
        Ok(Profile { dir: self.dir.clone(), cluster_id: checked("cluster id", cluster_id)?.to_owned() })
    }

    /// The profile directory; pass it to children as `IPP_PROFILE_DIR`.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Empty for the only cluster of a profile; pass it to children as `IPP_CLUSTER_ID`.
    pub fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    /// Holds the connection files; mode 0700.
    pub fn security_dir(&self) -> PathBuf {
        self.dir.join("security")
    }

    /// Holds process ids; mode 0700.
    pub fn pid_dir(&self) -> PathBuf {
        self.dir.join("pid")
    }

    /// Holds logs and the engine table.
    pub fn log_dir(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// What a controller must know of an earlier one: engines, and tasks that have not ended.
    pub fn journal_file(&self) -> PathBuf {
        self.log_dir().join(format!("tasks{}.journal", self.cluster_id))
    }

    /// The CURVE keys of controllers that go on after each other.
    pub fn curve_file(&self) -> PathBuf {
        let id = if self.cluster_id.is_empty() { String::new() } else { format!("-{}", self.cluster_id) };
        self.security_dir().join(format!("curve{id}.json"))
    }

    /// Holds scripts that IPython engines execute at start.
    pub fn startup_dir(&self) -> PathBuf {
        self.dir.join("startup")
    }

    /// What clients read.
    pub fn client_file(&self) -> PathBuf {
        self.security_dir().join(format!("ipcontroller{}-client.json", self.dashed_id()))
    }

    /// What engines read.
    pub fn engine_file(&self) -> PathBuf {
        self.security_dir().join(format!("ipcontroller{}-engine.json", self.dashed_id()))
    }

    /// What describes the processes of a running cluster.
    pub fn cluster_file(&self) -> PathBuf {
        self.security_dir().join(format!("cluster-{}.json", self.cluster_id))
    }

    /// The engine table that a restored controller reads; the id follows without a dash.
    pub fn engine_state_file(&self) -> PathBuf {
        self.log_dir().join(format!("engines{}.json", self.cluster_id))
    }

    fn dashed_id(&self) -> String {
        if self.cluster_id.is_empty() { String::new() } else { format!("-{}", self.cluster_id) }
    }
}

/// Replaces a leading `~`; shells do so only where it is unquoted at the start of a word.
fn expand_home(path: &Path, home: Option<&Path>) -> Result<PathBuf, ProfileError> {
    match path.strip_prefix("~") {
        Ok(rest) => Ok(home.ok_or(ProfileError::NoHome)?.join(rest)),
        Err(_) => Ok(path.to_owned()),
    }
}

/// A name that stays within its directory: a single normal component when something is put before it.
fn checked<'a>(what: &'static str, name: &'a str) -> Result<&'a str, ProfileError> {
    let stays = name.is_empty() || matches!(Path::new(name).components().next(), Some(Component::Normal(_)));
    if !stays || name.contains(['/', '\0']) {
        return Err(ProfileError::Name { what, name: name.to_owned() });
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_given_is_the_default_profile_at_home() {
        let profile = locate(&ProfileOptions::default(), &[("HOME", "/home/ada")]).unwrap();

        assert_eq!(profile.dir(), Path::new("/home/ada/.ipython/profile_default"));
        assert_eq!(profile.client_file(), profile.dir().join("security/ipcontroller-client.json"));
        assert_eq!(profile.engine_file(), profile.dir().join("security/ipcontroller-engine.json"));
        assert_eq!(profile.cluster_file(), profile.dir().join("security/cluster-.json"));
        assert_eq!(profile.engine_state_file(), profile.dir().join("log/engines.json"));
    }

    #[test]
    fn a_cluster_id_is_part_of_every_file_name() {
        let options = ProfileOptions { cluster_id: Some("7".into()), ..ProfileOptions::default() };
        let profile = locate(&options, &[("HOME", "/h"), ("IPP_CLUSTER_ID", "8")]).unwrap();

        assert_eq!(profile.client_file(), profile.dir().join("security/ipcontroller-7-client.json"));
        assert_eq!(profile.cluster_file(), profile.dir().join("security/cluster-7.json"));
        assert_eq!(profile.engine_state_file(), profile.dir().join("log/engines7.json"));
    }

    #[test]
    fn the_environment_is_used_where_options_are_silent() {
        let environment = [("HOME", "/h"), ("IPYTHONDIR", "~/ipy"), ("IPP_CLUSTER_ID", "x")];
        let profile = locate(&ProfileOptions::default(), &environment).unwrap();

        assert_eq!(profile.dir(), Path::new("/h/ipy/profile_default"));
        assert_eq!(profile.cluster_id(), "x");

        let environment = [("IPP_PROFILE_DIR", "/scratch/p"), ("IPYTHONDIR", "/i")];
        assert_eq!(locate(&ProfileOptions::default(), &environment).unwrap().dir(), Path::new("/scratch/p"));
    }

    #[test]
    fn options_win_over_the_environment() {
        let environment = [("HOME", "/h"), ("IPP_PROFILE_DIR", "/scratch/p"), ("IPYTHONDIR", "/i")];

        let named = ProfileOptions { profile: Some("mpi".into()), ..ProfileOptions::default() };
        assert_eq!(locate(&named, &environment).unwrap().dir(), Path::new("/i/profile_mpi"));

        let exact = ProfileOptions { profile_dir: Some("/exact".into()), ..named };
        assert_eq!(locate(&exact, &environment).unwrap().dir(), Path::new("/exact"));
    }

    #[test]
    fn names_cannot_lead_out_of_the_profile() {
        for name in ["../x", "a/b", "/etc", "..", "a\0b"] {
            let options = ProfileOptions { cluster_id: Some(name.into()), ..ProfileOptions::default() };
            let error = locate(&options, &[("HOME", "/h")]).unwrap_err();
            assert_eq!(error, ProfileError::Name { what: "cluster id", name: name.into() });
        }
    }

    #[test]
    fn without_a_home_only_absolute_places_work() {
        assert_eq!(locate(&ProfileOptions::default(), &[]), Err(ProfileError::NoHome));
        assert_eq!(locate(&ProfileOptions::default(), &[("HOME", "")]), Err(ProfileError::NoHome));
        assert!(locate(&ProfileOptions::default(), &[("IPYTHONDIR", "/i")]).is_ok());
    }

    fn locate(options: &ProfileOptions, environment: &[(&str, &str)]) -> Result<Profile, ProfileError> {
        Profile::locate(options, |name| {
            environment.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
        })
    }
}
