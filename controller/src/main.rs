//! The program `controller`: arguments in, exit code out (0 done, 1 failed, 2 wrong usage).

mod logging;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Context as _;
use clap::Parser as _;
use controller::compat;
use controller::config::{Config, ConfigError, Flags, PeerKeys};
use controller::publish::{self, Claim, ClaimError, Published};
use controller::shell::Shell;
use controller::shell::channels::{Binding, Channels, connection_info, hostname};
use controller::shell::store::Store;
use signal_hook::consts::{SIGABRT, SIGHUP, SIGINT, SIGTERM};
use transport::Curve;
use transport::socket_directory::{SocketDirectory, SocketDirectoryError};

fn main() -> ExitCode {
    transport::hygiene::keep_key_out_of_core_dumps();
    let typed = compat::translate(std::env::args());
    let flags = Flags::parse_from(typed.arguments);
    if flags.version {
        #[expect(clippy::print_stdout, reason = "what --version is for")]
        {
            println!("{}", env!("CARGO_PKG_VERSION"));
        }
        return ExitCode::SUCCESS;
    }
    match run(flags, &typed.ignored) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            let is_usage = error.is::<ConfigError>();
            ExitCode::from(if is_usage { 2 } else { 1 })
        }
    }
}

/// `error: failed to …`, then every cause on its own line.
#[expect(clippy::print_stderr, reason = "the last words of a program")]
fn complain(error: &anyhow::Error) {
    eprintln!("error: failed to {error}");
    for cause in error.chain().skip(1) {
        eprintln!("  caused by: {cause}");
    }
}

fn run(flags: Flags, ignored: &[String]) -> anyhow::Result<()> {
    if let Some(directory) = &flags.work_dir {
        std::env::set_current_dir(directory).with_context(|| format!("enter {}", directory.display()))?;
    }
    let (level, log_to_file, log_url) = (flags.level(), flags.log_to_file, flags.log_url.clone());
    let mut config = flags.resolve(|name| std::env::var_os(name), hostname())?;
    transport::connection_file::create_directories(&config.profile)?;

    raise_open_files();
    let context = transport::Context::new(1)?;
    let log_file = log_to_file.then(|| {
        let name = format!("controller-{}-{}.log", config.profile.cluster_id(), std::process::id());
        config.profile.log_dir().join(name)
    });
    logging::start(level, log_file.as_deref(), log_url.as_deref(), &context)?;
    if transport::hygiene::is_root() {
        tracing::warn!("{}", transport::hygiene::ROOT_WARNING);
    }
    if config.is_open {
        tracing::warn!(
            "connections are NOT encrypted although an address is not loopback: whoever is on the network can read \
             what is sent; leave --no-curve out"
        );
    }
    if !ignored.is_empty() {
        tracing::debug!(options = ?ignored, "options without a meaning here ignored");
    }

    // Before anything is bound, so that no signal finds us without a way to clean up.
    let stop = Arc::new(AtomicBool::new(false));
    let (waker, wake) = transport::wake::waker()?;
    for signal in [SIGINT, SIGTERM, SIGHUP, SIGABRT] {
        // The flag first: handlers run in the order of their registration.
        signal_hook::flag::register(signal, Arc::clone(&stop)).context("handle signals")?;
        let end = waker.fd().try_clone_to_owned().context("handle signals")?;
        signal_hook::low_level::pipe::register(signal, end).context("handle signals")?;
    }

    let _claim = claim(&config)?;
    if config.reuse && config.curve_is_new {
        // A later controller must have the same, or nobody could return to it.
        config.curve = Some(controller::publish::kept_curve_keys(&config.profile)?);
    }
    let reuses = config.reuse && adopt(&mut config);
    let journal = config.restore.then(|| config.profile.journal_file());
    // Without the earlier controller's key and ports none of its peers can return.
    let left = match &journal {
        Some(path) if reuses => controller::shell::journal::read(path)?,
        _ => None,
    };
    // Dropped last, when the sockets are closed.
    let _socket_directories = socket_directories(&mut config, reuses)?;
    let curve = config.curve.clone().map_or(Curve::Off, Curve::Server);
    let channels = Channels::bind(
        &context,
        Binding {
            client_interface: config.client_interface.clone(),
            engine_interface: config.engine_interface.clone(),
            ports: config.ports.clone(),
            key: config.key.clone(),
            curve,
            known: config.peer_keys.as_ref().map(PeerKeys::known),
            digests: config.digests,
            epoch: left.as_ref().map(|left| left.epoch),
            restorable: config.restore,
        },
    )?;
    let author = channels.session().clone();
    let store = Store::open(&config.records, author, left.is_some(), waker.clone())?;
    let ports = channels.ports();
    let published = if reuses { Published::reused() } else { Published::write(&config, &ports)? };
    tracing::info!(
        profile = %config.profile.dir().display(),
        cluster_id = config.profile.cluster_id(),
        registration = ports.registration,
        version = env!("CARGO_PKG_VERSION"),
        "controller started"
    );
    config.settings.connection_info = connection_info(&ports);
    let shell = Shell {
        channels,
        settings: config.settings.clone(),
        journal: journal.map(|path| (path, left)),
        store,
    };
    let ended = controller::shell::run(shell, &stop, &wake);
    if !config.reuse {
        published.remove();
    }
    tracing::info!("controller ended");
    ended.context("go on serving")
}

/// Every engine has seven connections: a thousand of them need more than the 1,024 open files that are usual. What
/// the system allows at most is taken; a refusal is met when connections are.
fn raise_open_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
}

/// The directories of `ipc` sockets: new ones for interfaces that name none, and the earlier ones again.
fn socket_directories(
    config: &mut Config,
    reuses: bool,
) -> Result<Vec<SocketDirectory>, SocketDirectoryError> {
    if !reuses {
        // The cluster is claimed: whoever wrote the file that is there has ended without cleaning up.
        publish::interfaces_of_before(&config.profile)
            .iter()
            .for_each(|of| SocketDirectory::remove_leftover(of));
    }
    let mut made: Option<String> = None;
    let mut directories = vec![];
    let is_kept = config.reuse;
    for interface in [&mut config.client_interface, &mut config.engine_interface] {
        if interface == "ipc://" {
            let place = match &made {
                Some(place) => place.clone(),
                None => {
                    let mut directory = SocketDirectory::create(&std::env::temp_dir())?;
                    if is_kept {
                        directory.keep();
                    }
                    let place = directory.interface();
                    directories.push(directory);
                    made.insert(place).clone()
                }
            };
            *interface = place;
        } else if reuses && interface.starts_with("ipc://") {
            directories.push(SocketDirectory::again(interface)?);
        }
    }
    Ok(directories)
}

fn claim(config: &Config) -> Result<Claim, ClaimError> {
    Claim::take(&config.profile)
}

/// As the original does: what cannot be used again is replaced.
fn adopt(config: &mut Config) -> bool {
    if !config.profile.client_file().exists() && !config.profile.engine_file().exists() {
        tracing::info!("no connection files yet: new ones are written, and kept at the end");
        return false;
    }
    match publish::adopt(config) {
        Ok(()) => true,
        Err(error) => {
            tracing::error!(%error, "connection files cannot be used again; new ones are written");
            false
        }
    }
}
