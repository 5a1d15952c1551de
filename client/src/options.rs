//! Which cluster: from options, environment and defaults to a checked connection file.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

use protocol::connection_file::ClientFile;
use transport::connection_file::read_private;
use transport::profile::{Profile, ProfileOptions};
use transport::tunnel::{self, Server, Tunnel};
use transport::{reach, socket_directory};

use crate::error::ClientError;

/// Whether to reach the controller through SSH.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Ssh {
    /// If the connection file says so, and the controller is on another machine.
    #[default]
    AsTheFileSays,
    /// Through this server, `[user@]host[:port]`.
    Through(String),
    /// Not at all.
    Never,
}

/// How to find a cluster and how long to try.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// Profile, profile directory, cluster id. What is absent comes from `IPP_PROFILE_DIR`, `IPP_CLUSTER_ID`,
    /// `IPYTHONDIR`, and then from the defaults.
    pub profile: ProfileOptions,
    /// Exactly this connection file, whatever the profile says.
    pub file: Option<PathBuf>,
    /// Whether to reach the controller through SSH.
    pub ssh: Ssh,
    /// A private key for SSH, if it is not one that OpenSSH finds by itself.
    pub ssh_key: Option<PathBuf>,
    /// How long the controller may take to answer. SSH has a minute of its own, to ask for a password.
    pub timeout: Duration,
}

impl Default for ConnectOptions {
    fn default() -> ConnectOptions {
        ConnectOptions {
            profile: ProfileOptions::default(),
            file: None,
            ssh: Ssh::default(),
            ssh_key: None,
            timeout: Duration::from_secs(10),
        }
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
        if let Some((server, word)) = self.elsewhere(&path)? {
            return self.fetch(server, &word);
        }
        let no_cluster = |reason: String| ClientError::NoCluster { path: path.clone(), reason };
        // One that may not be looked at is there: reading it says more.
        if matches!(path.try_exists(), Ok(false)) {
            return Err(no_cluster("its connection file does not exist".to_owned()));
        }
        let bytes = read_private(&path).map_err(|error| no_cluster(error.to_string()))?;
        let text = std::str::from_utf8(&bytes)
            .map_err(|_| no_cluster("the connection file is not text".to_owned()))?;
        let file = ClientFile::parse(text).map_err(|error| no_cluster(error.to_string()))?;
        if self.server(&file).is_some() {
            return Ok((path, file));
        }
        if let Some(directory) = socket_directory::missing(&file.common.interface) {
            return Err(no_cluster(format!(
                "the controller has no ports, and its sockets in {} are not here: it runs on {} alone, which --ssh can \
                 reach, or no more",
                directory.display(),
                file.common.location
            )));
        }
        Ok((path, file))
    }

    /// The server that has the connection file, and the file as a word of its shell; `None`: it is here. A file here that a
    /// controller of this machine has written is not meant: one does not go through SSH to it.
    fn elsewhere(&self, here: &Path) -> Result<Option<(&str, String)>, ClientError> {
        let Ssh::Through(server) = &self.ssh else { return Ok(None) };
        let is_meant = |text: &str| {
            let file = ClientFile::parse(text).ok();
            self.file.is_some() || file.is_some_and(|file| !reach::is_here(&file.common.location))
        };
        match std::fs::read_to_string(here) {
            Ok(text) if is_meant(&text) => return Ok(None),
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Ok(None), // It will be complained of.
            Ok(_) | Err(_) => {}
        }
        let quoted = |path: &Path| tunnel::quoted(&path.to_string_lossy());
        let name = here.file_name().map_or_else(String::new, |name| quoted(Path::new(name)));
        let word = match (&self.file, &self.profile.profile_dir) {
            (Some(file), _) => quoted(file),
            (None, Some(directory)) => format!("{}/security/{name}", quoted(directory)),
            (None, None) => {
                let profile = self.profile.profile.as_deref().unwrap_or("default");
                let profile = tunnel::quoted(&format!("profile_{profile}"));
                format!("\"${{IPYTHONDIR:-$HOME/.ipython}}\"/{profile}/security/{name}")
            }
        };
        Ok(Some((server, word)))
    }

    /// The connection file that a server has.
    fn fetch(&self, server: &str, word: &str) -> Result<(PathBuf, ClientFile), ClientError> {
        let path = PathBuf::from(format!("{server}:{word}"));
        let failed = |source| ClientError::Tunnel { path: path.clone(), source: Box::new(source) };
        let server = server.parse::<Server>().map_err(failed)?;
        let may_ask = std::io::stderr().is_terminal();
        let text = tunnel::read_file(&server, self.ssh_key.as_deref(), may_ask, word).map_err(failed)?;
        let file = ClientFile::parse(&String::from_utf8_lossy(&text));
        let file =
            file.map_err(|error| ClientError::NoCluster { path: path.clone(), reason: error.to_string() })?;
        Ok((path, file))
    }

    /// The machine to go through, if any.
    fn server<'a>(&'a self, file: &'a ClientFile) -> Option<&'a str> {
        match &self.ssh {
            Ssh::Never => None,
            Ssh::Through(server) => Some(server),
            Ssh::AsTheFileSays => {
                let named = Some(file.common.ssh.as_str()).filter(|server| !server.is_empty());
                named.filter(|_| !reach::is_here(&file.common.location))
            }
        }
    }

    /// Opens the tunnel, if there is to be one.
    pub(crate) fn tunnel(&self, path: &Path, file: &ClientFile) -> Result<Option<Tunnel>, ClientError> {
        let Some(server) = self.server(file) else { return Ok(None) };
        let failed = |source| ClientError::Tunnel { path: path.to_owned(), source: Box::new(source) };
        let common = &file.common;
        let request = tunnel::Request {
            server: server.parse::<Server>().map_err(failed)?,
            key: self.ssh_key.as_deref(),
            file: common,
            ports: &[
                common.registration,
                common.control,
                common.mux,
                common.task,
                common.iopub,
                file.notification,
                file.broadcast,
            ],
            may_ask: std::io::stderr().is_terminal(),
        };
        Tunnel::open(&request).map(Some).map_err(failed)
    }
}

/// The interface to connect to, as seen from this machine.
pub(crate) fn interface(file: &ClientFile) -> String {
    reach::choose(&file.common, &file.common.location).interface
}
