//! Flags as typed, and what they mean.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{ArgAction, Parser};
use protocol::Key;
use protocol::buffer_digest::BufferDigests;
use tracing_subscriber::filter::LevelFilter;
use transport::curve::Keypair;
use transport::profile::{Profile, ProfileError, ProfileOptions};

use crate::Scheme;
use crate::machine::Settings;
use crate::records::record::Bounds;
use crate::shell::channels::PortPools;
use crate::shell::doorkeeper::Known;
use crate::shell::store::Keeping;

const AFTER_HELP: &str = "\
Examples:
  controller                            a cluster in the default profile, for this machine only
  controller --profile mine &           then: mpiexec -n 4 engine --mpi --profile mine
  controller --ip '*'                   engines and clients may be on other machines

Exit codes: 0 done, 1 failed, 2 wrong usage.";

/// Runs hub and schedulers of a cluster, until Ctrl-C or until a client ends it.
///
/// Writes two connection files into the profile's directory `security`, readable by their owner only: engines and
/// clients find the controller by them. `cluster start` starts a controller and engines together.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "controller",
    disable_version_flag = true,
    args_override_self = true,
    help_expected = true,
    max_term_width = 100,
    after_help = AFTER_HELP
)]
pub struct Flags {
    /// Address to listen on, for engines and clients; `*` for every interface [default: 127.0.0.1]
    #[arg(long, value_name = "ADDRESS")]
    pub ip: Option<String>,
    /// Address to listen on for clients, if it is another one
    #[arg(long, value_name = "ADDRESS", hide_short_help = true)]
    pub client_ip: Option<String>,
    /// Address to listen on for engines, if it is another one
    #[arg(long, value_name = "ADDRESS", hide_short_help = true)]
    pub engine_ip: Option<String>,
    /// `tcp`, or `ipc`: no port is opened, and only you, on this machine, can connect
    ///
    /// The sockets of `ipc` are files, in a new directory that nobody else may enter unless --ip gives the start of
    /// a path for them.
    #[arg(long, default_value = "tcp", value_parser = ["tcp", "ipc"])]
    pub transport: String,
    /// Ports to use before random ones, such as 10101-10110,10200
    #[arg(long, value_name = "RANGES")]
    pub ports: Option<String>,
    /// Port of registrations and queries
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,
    /// Ports for what clients connect to
    #[arg(long, value_name = "RANGES", hide_short_help = true)]
    pub client_ports: Option<String>,
    /// Ports for what engines connect to
    #[arg(long, value_name = "RANGES", hide_short_help = true)]
    pub engine_ports: Option<String>,
    /// Name of the profile, whose directory holds the connection files
    #[arg(long, value_name = "NAME")]
    pub profile: Option<String>,
    /// The profile's directory itself
    #[arg(long, value_name = "DIR")]
    pub profile_dir: Option<PathBuf>,
    /// Directory of all profiles [default: $IPYTHONDIR, else ~/.ipython]
    #[arg(long, value_name = "DIR")]
    pub ipython_dir: Option<PathBuf>,
    /// Tells clusters of one profile apart
    #[arg(long, value_name = "NAME")]
    pub cluster_id: Option<String>,
    /// Directory to run in
    #[arg(long, value_name = "DIR", hide_short_help = true)]
    pub work_dir: Option<PathBuf>,
    /// Use key, ports and addresses of the connection files that are there, and keep the files at the end
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", hide_default_value = true, value_name = "BOOL", value_parser = parse_bool)]
    pub reuse: bool,
    /// Go on where an earlier controller with this flag ended, however it ended: its engines, its clients, its tasks
    ///
    /// Implies --reuse and keeps a journal of tasks that have not ended, in the profile's log directory. Give it from
    /// the first start on.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", hide_default_value = true, value_name = "BOOL", value_parser = parse_bool)]
    pub restore: bool,
    /// This machine's name or address as others see it [default: its host name]
    #[arg(long, value_name = "HOST")]
    pub location: Option<String>,
    /// Server through which clients tunnel: `[user@]host[:port]`
    #[arg(long, default_value = "", hide_default_value = true, value_name = "SERVER")]
    pub ssh: String,
    /// Server through which engines tunnel
    #[arg(long, default_value = "", hide_default_value = true, value_name = "SERVER")]
    pub enginessh: String,
    /// Sign messages (the default)
    #[arg(long, overrides_with = "no_secure")]
    pub secure: bool,
    /// Neither sign messages nor check signatures: whoever reaches a port runs code
    #[arg(long, overrides_with = "secure")]
    pub no_secure: bool,
    /// Let in only who has the keys of a connection file, those of clients and those of engines each to their own sockets
    ///
    /// With CURVE only. Stock clients and engines make keys of their own and are shut out.
    #[arg(long)]
    pub require_client_keys: bool,
    /// Refuse data without a digest under the signature, which stock clients and engines do not make
    ///
    /// The wire's signature does not cover arrays. With --no-curve on a network, our own peers make digests unasked.
    #[arg(long)]
    pub require_buffer_digest: bool,
    /// File with the key [default: $IPP_SESSION_KEY, else a new one]
    #[arg(long, value_name = "FILE")]
    pub keyfile: Option<PathBuf>,
    /// Encrypt connections by CURVE, with the keys of $IPP_CURVE_PUBLICKEY and $IPP_CURVE_SECRETKEY or new ones [default:
    /// wherever an address is not loopback]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", value_parser = parse_bool, hide_short_help = true)]
    pub enable_curve: Option<bool>,
    /// Do not encrypt, although an address is not loopback: whoever is on the network can read what is sent
    #[arg(long, conflicts_with = "enable_curve")]
    pub no_curve: bool,
    /// Milliseconds between heartbeats
    #[arg(long, default_value_t = 3000, value_name = "MS", value_parser = clap::value_parser!(u64).range(10..=86_400_000))]
    pub ping: u64,
    /// Heartbeats in a row that an engine may miss
    #[arg(long, default_value_t = 10, value_name = "COUNT", hide_short_help = true)]
    pub heartbeat_misses: u32,
    /// Seconds that an engine may take to become reachable; at least ten heartbeats
    #[arg(long, default_value_t = 30, value_name = "SECONDS", hide_short_help = true, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub registration_timeout: u64,
    /// Balanced tasks that an engine may hold at once, 0: any number [default: 1, and up to 16 while the engine answers within milliseconds]
    #[arg(long, value_name = "COUNT")]
    pub hwm: Option<usize>,
    /// How the engine of a balanced task is chosen
    #[arg(long, default_value = "leastload", value_parser = ["leastload", "lru", "plainrandom", "twobin", "weighted", "pure"])]
    pub scheme: String,
    /// What to log: 10 (debug) to 50 (errors only), or debug, info, warning, error
    #[arg(long, value_name = "LEVEL", default_value = "20", value_parser = parse_level)]
    pub log_level: LevelFilter,
    /// Log every decision (--log-level debug)
    #[arg(long)]
    pub debug: bool,
    /// Log errors only (--log-level error)
    #[arg(long)]
    pub quiet: bool,
    /// Log to a file in the profile's log directory
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", hide_default_value = true, value_name = "BOOL", value_parser = parse_bool)]
    pub log_to_file: bool,
    /// Publish the log to a collector that listens there, such as tcp://127.0.0.1:20202
    #[arg(long, value_name = "URL")]
    pub log_url: Option<String>,
    /// Keep records of tasks in memory, for whoever asks for results later or elsewhere (the default)
    #[arg(long, overrides_with_all = ["sqlitedb", "nodb", "mongodb"])]
    pub dictdb: bool,
    /// Keep records of tasks in a file, for later controllers of this profile as well
    #[arg(long, overrides_with_all = ["dictdb", "nodb", "mongodb"])]
    pub sqlitedb: bool,
    /// Keep no records: who asks for results, queries or resubmission is answered NoData
    #[arg(long, overrides_with_all = ["dictdb", "sqlitedb", "mongodb"])]
    pub nodb: bool,
    /// Keep records of tasks in MongoDB (not supported)
    #[arg(long, hide_short_help = true, overrides_with_all = ["dictdb", "sqlitedb", "nodb"])]
    pub mongodb: bool,
    /// Records to keep; what ended longest ago makes room [default: 10000 in memory, 1000000 in a file]
    #[arg(long, value_name = "COUNT")]
    pub db_records: Option<usize>,
    /// Bytes of all records, such as 500M; a task's buffers are kept up to a quarter of it [default: 16M in memory, 4G in a file]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub db_bytes: Option<u64>,
    /// File of --sqlitedb, for this controller alone; a relative name is within the profile's directory [default: tasks.db, or tasks-ID.db if another cluster of the profile has that]
    #[arg(long, value_name = "FILE")]
    pub db_file: Option<PathBuf>,
    /// Directory of --db-file, if it is not the profile's
    #[arg(long, value_name = "DIR", hide_short_help = true)]
    pub db_dir: Option<PathBuf>,
    /// Taken for the original's sake: there is one thread
    #[arg(long, hide_short_help = true)]
    pub usethreads: bool,
    /// Taken for the original's sake: the profile is always created
    #[arg(long, hide_short_help = true)]
    pub init: bool,
    /// Taken for the original's sake: there are no configuration files
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    pub config: Option<String>,
    /// Taken for the original's sake: logs are never deleted
    #[arg(long, value_name = "BOOL", hide_short_help = true, num_args = 0..=1)]
    pub clean_logs: Option<String>,
    /// Print the version
    #[arg(long, short = 'V', action = ArgAction::SetTrue)]
    pub version: bool,
    /// Print all flags, also those that are rarely wanted
    #[arg(long, action = ArgAction::HelpLong)]
    pub help_all: Option<bool>,
}

/// Why flags make no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not built yet, or never.
    #[error("use {flag}: {why}")]
    Unsupported {
        /// The flag.
        flag: &'static str,
        /// Why not, and what to do.
        why: &'static str,
    },
    /// Not a list of ports.
    #[error("read {flag} {text:?}: write ports and ranges, such as 10101-10110,10200")]
    Ports {
        /// The flag.
        flag: &'static str,
        /// As given.
        text: String,
    },
    /// No place for the files.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// The key cannot be read.
    #[error("read the key from {}: give a readable text file", path.display())]
    Keyfile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// No CURVE keys.
    #[error("use CURVE: check IPP_CURVE_PUBLICKEY and IPP_CURVE_SECRETKEY, or unset both")]
    Curve(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// What the controller is to do.
#[derive(Debug)]
pub struct Config {
    /// Where its files are.
    pub profile: Profile,
    /// `tcp://127.0.0.1`, for clients; `ipc://` alone: in a directory that is still to be made.
    pub client_interface: String,
    /// For engines.
    pub engine_interface: String,
    /// Ports to use first.
    pub ports: PortPools,
    /// Signs messages.
    pub key: Key,
    /// Encrypts connections.
    pub curve: Option<Keypair>,
    /// The keys that clients and engines must have.
    pub peer_keys: Option<PeerKeys>,
    /// Whether they were made because an address is not loopback, and nobody named any.
    pub curve_is_new: bool,
    /// Whether the network can read what is sent.
    pub is_open: bool,
    /// Whether peers make digests of buffers.
    pub digests: BufferDigests,
    /// This machine for others.
    pub location: String,
    /// `ssh` of the client file.
    pub ssh: String,
    /// `ssh` of the engine file.
    pub engine_ssh: String,
    /// Whether to use and keep the connection files that are there.
    pub reuse: bool,
    /// Whether to go on where an earlier controller ended, and to let a later one do so.
    pub restore: bool,
    /// `task_scheme` of the client file.
    pub scheme_name: String,
    /// Where records of tasks are kept.
    pub records: Keeping,
    /// What the machine must know.
    pub settings: Settings,
}

impl Flags {
    /// How much is logged.
    pub fn level(&self) -> LevelFilter {
        match (self.quiet, self.debug) {
            (true, _) => LevelFilter::ERROR,
            (false, true) => LevelFilter::DEBUG,
            (false, false) => self.log_level,
        }
    }

    /// What the flags mean. `environment` looks up a variable.
    pub fn resolve(
        self,
        environment: impl Fn(&str) -> Option<std::ffi::OsString>,
        hostname: String,
    ) -> Result<Config, ConfigError> {
        for (is_set, flag, why) in [
            (
                self.mongodb,
                "--mongodb",
                "it needs a server of its own, which records of tasks do not; use --sqlitedb, which keeps them too",
            ),
            (
                self.scheme == "pure",
                "--scheme=pure",
                "tasks are always scheduled here; use lru, which is nearest to it",
            ),
        ] {
            if is_set {
                return Err(ConfigError::Unsupported { flag, why });
            }
        }
        let text = |name: &str| environment(name).and_then(|value| value.into_string().ok());
        let profile = Profile::locate(
            &ProfileOptions {
                ipython_dir: self.ipython_dir,
                profile: self.profile,
                profile_dir: self.profile_dir,
                cluster_id: self.cluster_id,
            },
            &environment,
        )?;
        let bounds = |usual: Bounds| Bounds {
            records: self.db_records.unwrap_or(usual.records),
            bytes: self.db_bytes.unwrap_or(usual.bytes),
        };
        let records = if self.nodb {
            Keeping::Nothing
        } else if self.sqlitedb {
            let directory = self.db_dir.as_deref().unwrap_or(profile.dir());
            let id = profile.cluster_id();
            let spare =
                (self.db_file.is_none() && !id.is_empty()).then(|| directory.join(format!("tasks-{id}.db")));
            let file = self.db_file.as_deref().unwrap_or(Path::new("tasks.db"));
            Keeping::File { path: directory.join(file), spare, bounds: bounds(Bounds::FILE) }
        } else {
            Keeping::Memory(bounds(Bounds::MEMORY))
        };
        let mut ports = PortPools {
            engine: parse_ports("--engine-ports", self.engine_ports.as_deref())?,
            client: parse_ports("--client-ports", self.client_ports.as_deref())?,
            common: parse_ports("--ports", self.ports.as_deref())?,
            leaves: vec![],
        };
        if let Some(port) = self.port {
            ports.engine.push_front(port); // Registration is bound first.
        }
        let usual = if self.transport == "ipc" { "" } else { "127.0.0.1" };
        let address = |own: &Option<String>| own.clone().or(self.ip.clone()).unwrap_or(usual.to_owned());
        let (client_address, engine_address) = (address(&self.client_ip), address(&self.engine_ip));
        let leaves_machine =
            self.transport == "tcp" && ![&client_address, &engine_address].iter().all(|ip| is_loopback(ip));
        let wished = if self.no_curve { Some(false) } else { self.enable_curve };
        let wished =
            wished.or_else(|| text("IPP_ENABLE_CURVE").map(|value| parse_bool(&value).unwrap_or(false)));
        let wants_curve = wished.unwrap_or(leaves_machine);
        let curve_is_new = wants_curve && wished.is_none() && text("IPP_CURVE_PUBLICKEY").is_none();
        let curve = if wants_curve { Some(curve_keys(text)?) } else { None };
        let peer_keys = match (self.require_client_keys, wants_curve) {
            (false, _) => None,
            (true, true) => Some(PeerKeys::generate()?),
            (true, false) => {
                let why = "connections are not encrypted; add --enable-curve";
                return Err(ConfigError::Unsupported { flag: "--require-client-keys", why });
            }
        };
        let is_open = leaves_machine && !wants_curve;
        let digests = match (self.require_buffer_digest, is_open) {
            (true, _) => BufferDigests::Required,
            (false, true) => BufferDigests::On,
            (false, false) => BufferDigests::Off,
        };
        let named_key = match &self.keyfile {
            Some(path) => Some(
                std::fs::read_to_string(path)
                    .map_err(|source| ConfigError::Keyfile { path: path.clone(), source })?
                    .trim()
                    .to_owned(),
            ),
            None => text("IPP_SESSION_KEY").filter(|key| !key.is_empty()),
        };
        // CURVE that was asked for keeps strangers out already, so that unless a key is given none is made: as in the
        // original. Where it is ours to choose, messages are signed too.
        let key = match named_key {
            _ if self.no_secure => String::new(),
            Some(key) => key,
            None if wished == Some(true) => String::new(),
            None => transport::random::key(),
        };
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).expect("the system gives random numbers");
        Ok(Config {
            client_interface: format!("{}://{client_address}", self.transport),
            engine_interface: format!("{}://{engine_address}", self.transport),
            profile,
            ports,
            key: Key::new(key),
            curve,
            peer_keys,
            curve_is_new,
            is_open,
            digests,
            location: self.location.unwrap_or(hostname),
            ssh: self.ssh,
            engine_ssh: self.enginessh,
            reuse: self.reuse || self.restore,
            restore: self.restore,
            settings: Settings {
                heartbeat_period: Duration::from_millis(self.ping),
                heartbeat_misses: self.heartbeat_misses.min(1_000_000),
                registration_timeout: Duration::from_secs(self.registration_timeout),
                window: self.hwm,
                scheme: scheme(&self.scheme),
                seed: u64::from_ne_bytes(seed),
                restorable: self.restore,
                ..Settings::default()
            },
            scheme_name: self.scheme,
            records,
        })
    }
}

fn scheme(name: &str) -> Scheme {
    match name {
        "lru" => Scheme::Lru,
        "plainrandom" => Scheme::PlainRandom,
        "twobin" => Scheme::TwoBin,
        "weighted" => Scheme::Weighted,
        _ => Scheme::LeastLoad,
    }
}

/// Whether nobody else can connect to an address.
fn is_loopback(address: &str) -> bool {
    let address = address.trim_start_matches('[').trim_end_matches(']');
    address == "localhost" || address.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The keys by which clients and engines prove themselves.
#[derive(Clone, Debug)]
pub struct PeerKeys {
    /// Of all clients.
    pub clients: Keypair,
    /// Of all engines.
    pub engines: Keypair,
}

impl PeerKeys {
    fn generate() -> Result<PeerKeys, ConfigError> {
        let pair = || Keypair::generate().map_err(|error| ConfigError::Curve(error.into()));
        Ok(PeerKeys { clients: pair()?, engines: pair()? })
    }

    /// What the doorkeeper must know.
    pub fn known(&self) -> Known {
        Known { clients: self.clients.public.clone(), engines: self.engines.public.clone() }
    }
}

fn curve_keys(text: impl Fn(&str) -> Option<String>) -> Result<Keypair, ConfigError> {
    match (text("IPP_CURVE_PUBLICKEY"), text("IPP_CURVE_SECRETKEY")) {
        (Some(public), Some(secret)) => {
            Keypair::parse(&public, &secret).map_err(|error| ConfigError::Curve(error.into()))
        }
        (None, None) => Keypair::generate().map_err(|error| ConfigError::Curve(error.into())),
        _ => Err(ConfigError::Curve("only one of the two is set".into())),
    }
}

/// `True`, `false`, `1`, … as configuration scripts write them.
fn parse_bool(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" | "" => Ok(false),
        _ => Err("write true or false".to_owned()),
    }
}

/// Python's numbers (10 debug, 20 info, 30 warning, 40 error, 50 critical) and names, or ours.
fn parse_level(text: &str) -> Result<LevelFilter, String> {
    if let Ok(number) = text.parse::<u32>() {
        return Ok(match number {
            0..=9 => LevelFilter::TRACE,
            10..=19 => LevelFilter::DEBUG,
            20..=29 => LevelFilter::INFO,
            30..=39 => LevelFilter::WARN,
            _ => LevelFilter::ERROR,
        });
    }
    match text.to_ascii_lowercase().as_str() {
        "trace" => Ok(LevelFilter::TRACE),
        "debug" => Ok(LevelFilter::DEBUG),
        "info" => Ok(LevelFilter::INFO),
        "warn" | "warning" => Ok(LevelFilter::WARN),
        "error" | "critical" => Ok(LevelFilter::ERROR),
        _ => Err("write a number from 10 to 50, or debug, info, warning, error, critical".to_owned()),
    }
}

/// A number of bytes, or of units of 1024: `1000000`, `64M`, `64MiB`, `4G`.
fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|character: char| !character.is_ascii_digit());
    let shift =
        match text[digits.len()..].trim().to_ascii_lowercase().trim_end_matches("ib").trim_end_matches('b') {
            "" => 0,
            "k" => 10,
            "m" => 20,
            "g" => 30,
            "t" => 40,
            _ => return Err("write a number of bytes, or one with K, M, G or T behind it".to_owned()),
        };
    let number: u64 = digits.trim().parse().map_err(|_| "write a number, such as 500M".to_owned())?;
    number.checked_mul(1 << shift).ok_or_else(|| "write a smaller number".to_owned())
}

fn parse_ports(flag: &'static str, text: Option<&str>) -> Result<VecDeque<u16>, ConfigError> {
    let mut ports = VecDeque::new();
    let Some(text) = text else { return Ok(ports) };
    let bad = || ConfigError::Ports { flag, text: text.to_owned() };
    let port = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port > 0);
    for part in text.trim_matches(['[', ']']).split(',').filter(|part| !part.trim().is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        match (port(first), port(last)) {
            (Some(first), Some(last)) if first <= last => ports.extend(first..=last),
            _ => return Err(bad()),
        }
    }
    Ok(ports)
}

#[cfg(test)]
mod tests;
