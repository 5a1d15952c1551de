//! Tunnels to a controller's ports through SSH, by OpenSSH's own client: its configuration, keys, agents and prompts are
//! the user's.
//!
//! This end of a tunnel is not a port, which every user of the machine could connect to, but a socket in a directory that
//! only its owner may enter. A channel's address is then formed as usual, and CURVE and signatures go through unchanged.
//! The other end is a port, or such a socket again: a controller that has no port at all can be reached from elsewhere.
//!
//! A tunnel that breaks is made again for as long as its value lives.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::str::FromStr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use protocol::connection_file::Common;
use protocol::limits::CONNECTION_FILE_BYTES_MAX;

use crate::socket_directory::{SocketDirectory, SocketDirectoryError};

/// Another program, with arguments, in place of `ssh`.
pub const SSH_VARIABLE: &str = "COMMWORLD_SSH";

/// How long SSH may take to stand: a person may have to type a password.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked whether it stands.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// What SSH said is kept to be shown: so many lines, so many bytes of each.
const LINES_MAX: usize = 8;
const LINE_BYTES_MAX: u64 = 500;
/// How long it takes until a broken tunnel is made again, at first and at most.
const AGAIN_FIRST: Duration = Duration::from_secs(1);
const AGAIN_MAX: Duration = Duration::from_secs(30);

/// `[user@]host[:port]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    destination: String,
    port: Option<u16>,
}

impl FromStr for Server {
    type Err = TunnelError;

    fn from_str(text: &str) -> Result<Server, TunnelError> {
        let malformed = || TunnelError::Server(text.to_owned());
        let (destination, port) = match text.rsplit_once(':') {
            None => (text, None),
            Some((destination, port)) => (destination, Some(port.parse().map_err(|_| malformed())?)),
        };
        let is_plain = |letter: char| !letter.is_whitespace() && !letter.is_control() && letter != ':';
        // SSH would take it for an option.
        if destination.is_empty() || destination.starts_with('-') || !destination.chars().all(is_plain) {
            return Err(malformed());
        }
        Ok(Server { destination: destination.to_owned(), port })
    }
}

impl std::fmt::Display for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.destination)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// Why there is no tunnel.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// Not `[user@]host[:port]`.
    #[error("{0:?} is not a server for ssh, like ada@login.example.org or login:2222")]
    Server(String),
    /// There is no place for this end.
    #[error(transparent)]
    Directory(#[from] SocketDirectoryError),
    /// SSH is not there.
    #[error("cannot run {program} ({source}); install OpenSSH's client, or name another in {SSH_VARIABLE}")]
    Start {
        /// The program.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// SSH ended.
    #[error("{program} to {server} ended ({status}): {words}")]
    Refused {
        /// The program.
        program: String,
        /// Where to.
        server: Server,
        /// How it ended.
        status: String,
        /// What it said.
        words: String,
    },
    /// SSH took too long.
    #[error("{program} to {server} did not stand within {} s: {words}", PATIENCE.as_secs())]
    TimedOut {
        /// The program.
        program: String,
        /// Where to.
        server: Server,
        /// What it said.
        words: String,
    },
}

/// What a tunnel is to be.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// Through which machine.
    pub server: Server,
    /// A private key's file, if it is not one that SSH finds by itself.
    pub key: Option<&'a Path>,
    /// Where the controller is, as its file says.
    pub file: &'a Common,
    /// Which of its ports.
    pub ports: &'a [u16],
    /// Whether somebody is there to type a password.
    pub may_ask: bool,
}

/// Reads a file of the server's machine. `path` is a word of its shell; see [`quoted`].
pub fn read_file(
    server: &Server,
    key: Option<&Path>,
    may_ask: bool,
    path: &str,
) -> Result<Vec<u8>, TunnelError> {
    let (program, mut arguments) = program(std::env::var_os(SSH_VARIABLE), server, key);
    let name = program.to_string_lossy().into_owned();
    if !may_ask {
        arguments.insert(0, "-oBatchMode=yes".into());
    }
    arguments.extend(["-T", "-x", "--"].map(OsString::from));
    arguments.push(server.destination.clone().into());
    arguments.push(format!("cat {path}").into());
    let mut command = Command::new(&program);
    command.args(&arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let failed = |source| TunnelError::Start { program: name.clone(), source };
    let mut ssh = command.spawn().map_err(failed)?;
    let errors = ssh.stderr.take();
    let said = std::thread::spawn(move || {
        let mut said = Vec::new();
        if let Some(errors) = errors {
            let _ = errors.take(LINES_MAX as u64 * LINE_BYTES_MAX).read_to_end(&mut said); // What came is shown.
        }
        String::from_utf8_lossy(&said).trim().lines().collect::<Vec<_>>().join("; ")
    });
    let mut text = Vec::new();
    let read = match ssh.stdout.take() {
        Some(output) => output.take(CONNECTION_FILE_BYTES_MAX).read_to_end(&mut text),
        None => Ok(0),
    };
    let status = ssh.wait().map_err(failed)?;
    let words = said.join().unwrap_or_default();
    read.map_err(failed)?;
    if status.success() {
        return Ok(text);
    }
    Err(TunnelError::Refused { program: name, server: server.clone(), status: status.to_string(), words })
}

/// A text as one word of a shell.
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// A tunnel; it ends with this value, and with the process whatever ends that.
#[derive(Debug)]
pub struct Tunnel {
    directory: SocketDirectory,
    server: Server,
    shared: Arc<Shared>,
}

/// What the tunnel's thread and its owner have in common.
#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Reaped only under the lock, so that its number is its own.
    ssh: Option<Child>,
    is_closing: bool,
    words: VecDeque<String>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn words(&self) -> String {
        match self.words.is_empty() {
            true => "it said nothing".to_owned(),
            false => self.words.iter().cloned().collect::<Vec<_>>().join("; "),
        }
    }
}

impl Tunnel {
    /// Opens a tunnel, and waits until it stands. Blocks, and should be done before there are threads that must not.
    pub fn open(request: &Request<'_>) -> Result<Tunnel, TunnelError> {
        let directory = SocketDirectory::create(&std::env::temp_dir())?;
        let here = directory.interface();
        let shared = Arc::new(Shared::default());
        let (program, arguments) = command_line(std::env::var_os(SSH_VARIABLE), request, &here);
        let name = program.to_string_lossy().into_owned();
        let tunnel = Tunnel { directory, server: request.server.clone(), shared: Arc::clone(&shared) };

        let (sender, ended) = mpsc::channel();
        let keeper = Keeper { program, arguments, server: request.server.clone(), shared };
        let may_ask = request.may_ask;
        // One thread for all of its life: SSH ends with the thread that started it.
        let thread = std::thread::Builder::new().name("ssh".to_owned());
        thread
            .spawn(move || keeper.run(may_ask, &sender))
            .map_err(|source| TunnelError::Start { program: name.clone(), source })?;

        let begun = Instant::now();
        let server = || request.server.clone();
        loop {
            match ended.recv_timeout(LOOK_INTERVAL) {
                Ok(Ended::NotStarted(source)) => return Err(TunnelError::Start { program: name, source }),
                Ok(Ended::With(status)) => {
                    let words = tunnel.last_words();
                    return Err(TunnelError::Refused {
                        program: name,
                        server: server(),
                        status: status.to_string(),
                        words,
                    });
                }
                Err(_) if tunnel.stands(request.ports) => {
                    // From now on its end is no answer to us.
                    return Ok(tunnel);
                }
                Err(_) if begun.elapsed() > PATIENCE => {
                    let words = tunnel.last_words();
                    return Err(TunnelError::TimedOut { program: name, server: server(), words });
                }
                Err(_) => {}
            }
        }
    }

    /// The interface of its sockets, to which a colon and a number are added, as to the controller's own.
    pub fn interface(&self) -> String {
        self.directory.interface()
    }

    /// Where it goes through.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// What SSH said last.
    pub fn last_words(&self) -> String {
        self.shared.lock().words()
    }

    fn stands(&self, ports: &[u16]) -> bool {
        let interface = self.interface();
        let path = interface.strip_prefix("ipc://").unwrap_or(&interface);
        ports.iter().all(|port| Path::new(&format!("{path}:{port}")).exists())
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.is_closing = true;
        if let Some(ssh) = &state.ssh {
            let pid = nix::unistd::Pid::from_raw(ssh.id() as i32);
            // In order: it tells the other side.
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        }
        drop(state);
        self.shared.changed.notify_all();
    }
}

enum Ended {
    NotStarted(io::Error),
    With(ExitStatus),
}

/// The thread that keeps a tunnel standing.
struct Keeper {
    program: OsString,
    arguments: Vec<OsString>,
    server: Server,
    shared: Arc<Shared>,
}

impl Keeper {
    fn run(&self, may_ask: bool, owner: &mpsc::Sender<Ended>) {
        // Told of the first end only if the owner still waits for it.
        let mut ask = may_ask;
        let mut pause = AGAIN_FIRST;
        loop {
            let begun = Instant::now();
            let ended = match self.start(ask) {
                Ok(errors) => self.follow(errors),
                Err(error) => Err(error),
            };
            if self.shared.lock().is_closing {
                return;
            }
            let (said, is_first) = match ended {
                Ok(status) => (status.to_string(), owner.send(Ended::With(status)).is_ok()),
                Err(error) => (error.to_string(), owner.send(Ended::NotStarted(error)).is_ok()),
            };
            if is_first {
                return;
            }
            if begun.elapsed() > AGAIN_MAX {
                pause = AGAIN_FIRST;
            }
            let words = self.shared.lock().words();
            tracing::warn!(server = %self.server, said, words, again_in = ?pause, "the tunnel broke");
            let state = self.shared.lock();
            let waited = self.shared.changed.wait_timeout_while(state, pause, |state| !state.is_closing);
            let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
            if state.is_closing {
                return;
            }
            drop(state);
            pause = (pause * 2).min(AGAIN_MAX);
            ask = false;
        }
    }

    fn start(&self, may_ask: bool) -> io::Result<ChildStderr> {
        let mut command = Command::new(&self.program);
        if !may_ask {
            command.arg("-oBatchMode=yes");
        }
        command.args(&self.arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        // SAFETY: both calls are async-signal-safe. Ctrl-C is for us, and must not end the tunnel; our end must.
        unsafe {
            command.pre_exec(|| {
                libc::signal(libc::SIGINT, libc::SIG_IGN);
                libc::signal(libc::SIGQUIT, libc::SIG_IGN);
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM);
                Ok(())
            });
        }
        let mut state = self.shared.lock();
        if state.is_closing {
            return Err(io::Error::other("the tunnel is closed"));
        }
        let mut ssh = command.spawn()?;
        state.words.clear();
        let errors = ssh.stderr.take().ok_or_else(|| io::Error::other("it has no standard error"))?;
        state.ssh = Some(ssh);
        Ok(errors)
    }

    /// Keeps what SSH says until it ends.
    fn follow(&self, errors: ChildStderr) -> io::Result<ExitStatus> {
        let mut errors = BufReader::new(errors);
        let mut line = Vec::new();
        while matches!(errors.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line), Ok(1..)) {
            let text = String::from_utf8_lossy(&line).trim().replace(char::is_control, " ");
            line.clear();
            if text.is_empty() {
                continue;
            }
            tracing::debug!(server = %self.server, text, "ssh says");
            let mut state = self.shared.lock();
            if state.words.len() == LINES_MAX {
                state.words.pop_front();
            }
            state.words.push_back(text);
        }
        // It has closed its standard error, and ends.
        loop {
            let mut state = self.shared.lock();
            let Some(ssh) = &mut state.ssh else { return Err(io::Error::other("it is gone")) };
            if let Some(status) = ssh.try_wait()? {
                state.ssh = None;
                return Ok(status);
            }
            drop(state);
            std::thread::sleep(LOOK_INTERVAL);
        }
    }
}

/// The program, and how it gets to that server.
fn program(named: Option<OsString>, server: &Server, key: Option<&Path>) -> (OsString, Vec<OsString>) {
    let named = named.filter(|named| !named.is_empty()).unwrap_or_else(|| "ssh".into());
    let named = named.to_string_lossy().into_owned();
    let mut words = named.split_whitespace().map(OsString::from);
    let program = words.next().unwrap_or_else(|| "ssh".into());
    let mut arguments: Vec<OsString> = words.collect();
    arguments.push("-oConnectTimeout=30".into());
    if let Some(key) = key {
        arguments.push("-i".into());
        arguments.push(key.into());
    }
    if let Some(port) = server.port {
        arguments.push(format!("-p{port}").into());
    }
    (program, arguments)
}

/// The program and its arguments; `here` is the interface of this end.
fn command_line(named: Option<OsString>, request: &Request<'_>, here: &str) -> (OsString, Vec<OsString>) {
    let (program, mut arguments) = program(named, &request.server, request.key);
    arguments.extend(["-N", "-T", "-x", "-Snone"].map(OsString::from));
    for option in [
        "ExitOnForwardFailure=yes",
        "StreamLocalBindUnlink=yes",
        "StreamLocalBindMask=0177",
        "ServerAliveInterval=15",
        "ServerAliveCountMax=4",
    ] {
        arguments.push(format!("-o{option}").into());
    }
    let mut ports = request.ports.to_vec();
    ports.sort_unstable();
    ports.dedup();
    for port in ports {
        arguments.push("-L".into());
        arguments.push(format!("{}:{}", socket(here, port), target(request.file, port)).into());
    }
    arguments.push("--".into());
    arguments.push(request.server.destination.clone().into());
    (program, arguments)
}

/// A socket's path, its colons escaped for SSH.
fn socket(interface: &str, port: u16) -> String {
    let path = interface.strip_prefix("ipc://").unwrap_or(interface);
    format!("{path}:{port}").replace('\\', "\\\\").replace(':', "\\:")
}

/// What SSH's server shall connect to.
fn target(file: &Common, port: u16) -> String {
    match file.interface.split_once("://") {
        Some(("ipc", _)) => socket(&file.interface, port),
        Some((_, address)) if !matches!(address, "*" | "0.0.0.0") => format!("{address}:{port}"),
        // On every address of a machine whose name the server may know.
        _ if file.location.is_empty() => format!("127.0.0.1:{port}"),
        _ => format!("{}:{port}", file.location),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(interface: &str, location: &str) -> Common {
        let text = serde_json::json!({
            "interface": interface, "location": location, "registration": 1, "control": 2, "mux": 3, "task": 4, "iopub": 5,
        });
        serde_json::from_value(text).expect("a connection file's part")
    }

    fn line(named: Option<&str>, server: &str, file: &Common, ports: &[u16]) -> String {
        let server = server.parse().expect("a server");
        let request = Request { server, key: None, file, ports, may_ask: true };
        let (program, arguments) = command_line(named.map(OsString::from), &request, "ipc:///tmp/d/s");
        let words: Vec<_> =
            std::iter::once(&program).chain(&arguments).map(|word| word.to_string_lossy()).collect();
        words.join(" ")
    }

    #[test]
    fn each_port_has_a_socket_here_and_is_sought_where_the_controller_is() {
        let line = line(None, "ada@login:2222", &file("tcp://127.0.0.1", "login"), &[5, 9, 5]);
        assert!(line.starts_with("ssh -oConnectTimeout=30 -p2222 -N "), "{line}");
        let end = " -L /tmp/d/s\\:5:127.0.0.1:5 -L /tmp/d/s\\:9:127.0.0.1:9 -- ada@login";
        assert!(line.ends_with(end), "{line}");
    }

    #[test]
    fn a_controller_on_all_addresses_is_sought_at_its_location_and_one_without_ports_at_its_sockets() {
        assert_eq!(target(&file("tcp://*", "n7"), 5), "n7:5");
        assert_eq!(target(&file("tcp://0.0.0.0", ""), 5), "127.0.0.1:5");
        assert_eq!(target(&file("tcp://10.0.0.1", "n7"), 5), "10.0.0.1:5");
        assert_eq!(target(&file("ipc:///tmp/c/s", "n7"), 5), "/tmp/c/s\\:5");
    }

    #[test]
    fn another_program_can_have_arguments() {
        let line = line(Some("/opt/ssh -F config"), "login", &file("tcp://127.0.0.1", ""), &[]);
        assert!(line.starts_with("/opt/ssh -F config -oConnectTimeout=30 -N "), "{line}");
    }

    #[test]
    fn a_quoted_text_is_one_word_whatever_is_in_it() {
        assert_eq!(quoted("it's; rm -rf $HOME"), "'it'\\''s; rm -rf $HOME'");
    }

    #[test]
    fn what_is_no_server_or_would_be_an_option_is_refused() {
        for text in ["", "-oProxyCommand=x", "a b", ":22", "host:port", "host:99999", "a:b:22"] {
            assert!(text.parse::<Server>().is_err(), "{text:?}");
        }
        let server: Server = "ada@login:22".parse().expect("a server");
        assert_eq!(server.to_string(), "ada@login:22");
    }
}
