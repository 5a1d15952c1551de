//! Which cluster: from options, environment and defaults to a checked connection file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use protocol::connection_file::ClientFile;
use transport::connection_file::read_private;
use transport::profile::{Profile, ProfileOptions};
use transport::socket_directory;

use crate::error::ClientError;

/// How to find a cluster and how long to try.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// Profile, profile directory, cluster id. What is absent comes from `IPP_PROFILE_DIR`, `IPP_CLUSTER_ID`,
    /// `IPYTHONDIR`, and then from the defaults.
    pub profile: ProfileOptions,
    /// Exactly this connection file, whatever the profile says.
    pub file: Option<PathBuf>,
    /// How long the controller may take to answer.
    pub timeout: Duration,
}

impl Default for ConnectOptions {
    fn default() -> ConnectOptions {
        ConnectOptions { profile: ProfileOptions::default(), file: None, timeout: Duration::from_secs(10) }
    }
}

impl ConnectOptions {
    /// The cluster of that profile directory.
    pub fn profile_dir(dir: impl Into<PathBuf>) -> ConnectOptions {
        let profile = ProfileOptions { profile_dir: Some(dir.into()), ..ProfileOptions::default() };
        ConnectOptions { profile, ..ConnectOptions::default() }
    }

    /// The cluster of that connection file.
    pub fn file(path: impl Into<PathBuf>) -> ConnectOptions {
        ConnectOptions { file: Some(path.into()), ..ConnectOptions::default() }
    }

    /// Where the connection file must be.
    pub fn path(&self) -> Result<PathBuf, ClientError> {
        match &self.file {
            Some(path) => Ok(path.clone()),
            None => Ok(Profile::locate(&self.profile, |name| std::env::var_os(name))?.client_file()),
        }
    }

    /// Reads the connection file.
    pub fn load(&self) -> Result<(PathBuf, ClientFile), ClientError> {
        let path = self.path()?;
        let no_cluster = |reason: String| ClientError::NoCluster { path: path.clone(), reason };
        // One that may not be looked at is there: reading it says more.
        if matches!(path.try_exists(), Ok(false)) {
            return Err(no_cluster("its connection file does not exist".to_owned()));
        }
        let bytes = read_private(&path).map_err(|error| no_cluster(error.to_string()))?;
        let text = std::str::from_utf8(&bytes)
            .map_err(|_| no_cluster("the connection file is not text".to_owned()))?;
        let file = ClientFile::parse(text).map_err(|error| no_cluster(error.to_string()))?;
        if let Some(directory) = socket_directory::missing(&file.common.interface) {
            return Err(no_cluster(format!(
                "the controller has no ports, and its sockets in {} are not here: it runs on {} alone, or no more",
                directory.display(),
                file.common.location
            )));
        }
        Ok((path, file))
    }
}

/// The interface to connect to, as seen from this machine.
pub(crate) fn interface(file: &ClientFile) -> String {
    transport::reach::choose(&file.common, &file.common.location).interface
}

/// How to tunnel, for messages, if the file asks for it.
pub(crate) fn tunnel_hint(file: &ClientFile, path: &Path) -> Option<String> {
    let ssh = file.common.ssh.as_str();
    (!ssh.is_empty()).then(|| {
        format!(
            "the connection file {} asks for a tunnel through {ssh}; forward its ports with ssh -L",
            path.display()
        )
    })
}
