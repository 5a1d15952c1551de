//! The connection files: written once everything is bound, removed at the end; and one controller a cluster.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::PathBuf;

use anyhow::Context as _;
use protocol::Key;
use protocol::connection_file::{ClientFile, Common, EngineFile};
use transport::connection_file::{self, ConnectionFileError, WrittenFile};
use transport::curve::Keypair;
use transport::profile::Profile;
use transport::reach::own_addresses;

use crate::config::{Config, PeerKeys};
use crate::shell::channels::{Pair, Ports};

/// Why a controller cannot start here.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// Another one is running.
    #[error(
        "take over the cluster in {}: its controller runs already{}; stop it, or choose another --cluster-id or --profile",
        directory.display(), pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
    )]
    Taken {
        /// The profile.
        directory: PathBuf,
        /// The other controller.
        pid: Option<u32>,
    },
    /// The lock file cannot be made.
    #[error("lock {}: check that the directory exists, is yours, and has room", path.display())]
    Lock {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// The right to be the controller of a cluster: a locked file, which the system unlocks however the process ends.
#[derive(Debug)]
pub struct Claim {
    path: PathBuf,
    _file: File,
}

impl Claim {
    /// Claims a cluster for this process.
    pub fn take(profile: &Profile) -> Result<Claim, ClaimError> {
        let name = match profile.cluster_id() {
            "" => "controller.lock".to_owned(),
            id => format!("controller-{id}.lock"),
        };
        let path = profile.pid_dir().join(name);
        let failed = |source| ClaimError::Lock { path: path.clone(), source };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                // The number is a courtesy: without it the message is still right.
                let _ = (&file).take(32).read_to_string(&mut text);
                let directory = profile.dir().to_owned();
                return Err(ClaimError::Taken { directory, pid: text.trim().parse().ok() });
            }
            // Some shared file systems have no locks. Connection files are then simply replaced.
            Err(TryLockError::Error(error)) => tracing::warn!(%error, "no lock on this file system"),
        }
        file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(failed)?;
        Ok(Claim { path, _file: file })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // While still locked: nobody else has it.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The connection files of this controller.
#[derive(Debug)]
pub struct Published {
    files: Vec<WrittenFile>,
}

impl Published {
    /// Writes the clients' file, then the engines'.
    pub fn write(config: &Config, ports: &Ports) -> Result<Published, ConnectionFileError> {
        let (client, engine) = files(config, ports);
        let client = connection_file::write(&config.profile.client_file(), &client)?;
        let engine = match connection_file::write(&config.profile.engine_file(), &engine) {
            Ok(engine) => engine,
            Err(error) => {
                let _ = client.remove_if_ours();
                return Err(error);
            }
        };
        Ok(Published { files: vec![client, engine] })
    }

    /// Files that are used again stay as they are.
    pub fn reused() -> Published {
        Published { files: vec![] }
    }

    /// Removes what was written, unless somebody has replaced it since.
    pub fn remove(self) {
        for file in self.files {
            if let Err(error) = file.remove_if_ours() {
                tracing::warn!(path = %file.path().display(), %error, "connection file not removed");
            }
        }
    }
}

fn files(config: &Config, ports: &Ports) -> (ClientFile, EngineFile) {
    let common = |interface: &str, ssh: &str, pair: &Pair, own: Option<&Keypair>| Common {
        ssh: ssh.to_owned(),
        interface: interface.to_owned(),
        registration: ports.registration,
        control: pair.control,
        mux: pair.mux,
        task: pair.task,
        iopub: pair.iopub,
        key: config.key.reveal().to_owned(),
        curve_serverkey: config.curve.as_ref().map(|keys| keys.public.as_str().to_owned()),
        curve_publickey: own.map(|keys| keys.public.as_str().to_owned()),
        curve_secretkey: own.map(|keys| keys.secret.expose().to_owned()),
        location: config.location.clone(),
        addresses: if matches!(interface, "tcp://*" | "tcp://0.0.0.0") { own_addresses() } else { vec![] },
        buffer_digests: config.digests,
        pack: "json".to_owned(),
        unpack: "json".to_owned(),
        signature_scheme: protocol::signature::SIGNATURE_SCHEME.to_owned(),
    };
    let (clients, engines) = config.peer_keys.as_ref().map(|keys| (&keys.clients, &keys.engines)).unzip();
    let client = ClientFile {
        common: common(&config.client_interface, &config.ssh, &ports.client, clients),
        notification: ports.notification,
        broadcast: ports.client.broadcast,
        task_scheme: config.scheme_name.clone(),
    };
    let engine = EngineFile {
        common: common(&config.engine_interface, &config.engine_ssh, &ports.engine, engines),
        hb_ping: ports.hb_ping,
        hb_pong: ports.hb_pong,
        broadcast: std::iter::once(ports.engine.broadcast)
            .chain(config.ports.leaves.iter().copied())
            .collect(),
    };
    (client, engine)
}

/// The interfaces in the connection files that are there, if any are.
pub fn interfaces_of_before(profile: &Profile) -> Vec<String> {
    let text = |path: PathBuf| {
        connection_file::read_private(&path).ok().map(|text| String::from_utf8_lossy(&text).into_owned())
    };
    let client = text(profile.client_file()).and_then(|text| ClientFile::parse(&text).ok());
    let engine = text(profile.engine_file()).and_then(|text| EngineFile::parse(&text).ok());
    client
        .map(|file| file.common)
        .into_iter()
        .chain(engine.map(|file| file.common))
        .map(|file| file.interface)
        .collect()
}

/// Why files cannot be used again.
#[derive(Debug, thiserror::Error)]
pub enum ReuseError {
    /// One is not there, or not to be trusted.
    #[error(transparent)]
    Read(#[from] ConnectionFileError),
    /// One says what we cannot do.
    #[error(transparent)]
    Content(#[from] protocol::connection_file::ConnectionFileError),
    /// They are not of one controller.
    #[error("the two files differ in {0}")]
    Differ(&'static str),
    /// Their connections were encrypted by another key than ours.
    #[error("the files name another CURVE key; set IPP_CURVE_PUBLICKEY and IPP_CURVE_SECRETKEY")]
    Curve,
    /// Their peers' keys are missing or damaged.
    #[error("the files name no keys of clients and engines, or damaged ones; remove them and start again")]
    PeerKeys,
}

/// The CURVE keys of a profile's controllers that go on after each other; made by the first.
pub fn kept_curve_keys(profile: &Profile) -> anyhow::Result<Keypair> {
    let path = profile.curve_file();
    if path.exists() {
        let [public, secret]: [String; 2] = connection_file::read(&path)?;
        return Keypair::parse(&public, &secret)
            .with_context(|| format!("use the keys in {}", path.display()));
    }
    let keys = Keypair::generate()?;
    let text = serde_json::to_vec(&[keys.public.as_str(), keys.secret.expose()])?;
    connection_file::write_private(&path, &text)
        .with_context(|| format!("write the keys to {}", path.display()))?;
    Ok(keys)
}

/// The keys of peers in a file that is there.
fn kept_keys(file: &Common) -> Result<Option<Keypair>, ReuseError> {
    let pair = file.curve_publickey.as_deref().zip(file.curve_secretkey.as_deref());
    pair.map(|(public, secret)| Keypair::parse(public, secret)).transpose().map_err(|_| ReuseError::PeerKeys)
}

/// Takes key, ports and addresses from the files that are there.
pub fn adopt(config: &mut Config) -> Result<(), ReuseError> {
    let read = |path: PathBuf| -> Result<String, ConnectionFileError> {
        Ok(String::from_utf8_lossy(&connection_file::read_private(&path)?).into_owned())
    };
    let client = ClientFile::parse(&read(config.profile.client_file())?)?;
    let engine = EngineFile::parse(&read(config.profile.engine_file())?)?;
    for (name, differs) in [
        ("key", client.common.key != engine.common.key),
        ("registration", client.common.registration != engine.common.registration),
        ("pack", client.common.pack != engine.common.pack),
        ("unpack", client.common.unpack != engine.common.unpack),
        ("signature_scheme", client.common.signature_scheme != engine.common.signature_scheme),
    ] {
        if differs {
            return Err(ReuseError::Differ(name));
        }
    }
    if client.common.curve_serverkey.as_deref() != config.curve.as_ref().map(|keys| keys.public.as_str()) {
        return Err(ReuseError::Curve);
    }
    config.peer_keys = match (kept_keys(&client.common)?, kept_keys(&engine.common)?) {
        (Some(clients), Some(engines)) => Some(PeerKeys { clients, engines }),
        _ if config.peer_keys.is_some() => return Err(ReuseError::PeerKeys),
        _ => None,
    };
    config.key = Key::new(client.common.key.clone());
    config.digests = client.common.buffer_digests.max(config.digests);
    config.ssh = client.common.ssh;
    config.engine_ssh = engine.common.ssh;
    config.location = engine.common.location;
    config.client_interface = client.common.interface;
    config.engine_interface = engine.common.interface;
    config.ports.engine = [
        engine.common.registration,
        engine.common.control,
        engine.common.mux,
        engine.common.task,
        engine.common.iopub,
        engine.hb_ping,
        engine.hb_pong,
    ]
    .into_iter()
    .chain(engine.broadcast.first().copied())
    .collect();
    config.ports.leaves = engine.broadcast.iter().skip(1).copied().collect();
    config.ports.client = [
        client.common.control,
        client.common.mux,
        client.common.task,
        client.common.iopub,
        client.notification,
        client.broadcast,
    ]
    .into();
    Ok(())
}
