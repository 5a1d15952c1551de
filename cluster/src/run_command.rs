//! The one place that starts programs. It keeps what was run, so that a message about a program that died can
//! show the command line, and where its output went.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use slurm_pbs::Exit;

use crate::failure::{Code, Failure};
use crate::process::ProcessId;

/// Variables that name another cluster than the one we start for. Our children are told by flags.
const FOREIGN_VARIABLES: [&str; 3] = ["IPP_PROFILE_DIR", "IPP_CLUSTER_ID", "IPP_CONNECTION_INFO"];

/// A command line with where its output goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandLine {
    /// The program: an absolute path once found.
    pub program: PathBuf,
    /// Its arguments. Any user of the machine can read these: no secret belongs here.
    pub arguments: Vec<String>,
    /// Receives standard output and error.
    pub log: PathBuf,
}

impl CommandLine {
    /// Starts the program in a session of its own, away from our terminal's Ctrl-C, without input. When this
    /// process dies, however it dies, the kernel sends the child SIGTERM.
    ///
    /// Call it from the main thread only: for the kernel, the parent is the thread. When all threads are killed at
    /// once, the child may get the signal several times, as it is handed from one dying thread to the next. Open
    /// MPI's mpiexec then leaves at once; its ranks end because they lost it.
    pub fn spawn(&self) -> Result<Running, Failure> {
        let log = open_log(&self.log)?;
        let error_log = log.try_clone().map_err(|error| self.failed(error))?;
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).stdin(Stdio::null()).stdout(log).stderr(error_log);
        for name in FOREIGN_VARIABLES {
            command.env_remove(name);
        }
        let parent = nix::unistd::getpid();
        // SAFETY: between fork and exec only async-signal-safe calls are made: setsid, prctl, getppid. The
        // closure allocates nothing and takes no lock.
        unsafe { command.pre_exec(move || leave_terminal_and_follow(parent)) };
        let child = command.spawn().map_err(|error| self.failed(error))?;
        let pid = i32::try_from(child.id()).expect("the kernel's pids fit in i32");
        // Not reaped yet, so the pid is still this child's even if it is already dead.
        let id = ProcessId::of(pid).map_err(|error| self.failed(error))?;
        Ok(Running { line: self.clone(), id, child })
    }

    fn failed(&self, error: io::Error) -> Failure {
        let missing = error.kind() == io::ErrorKind::NotFound;
        let failure = Failure::new(Code::LaunchFailed, format!("failed to run {}", self.program.display()))
            .caused_by(error)
            .because(format!("the command was: {self}"));
        if missing { failure.hint("check the path, or that its interpreter exists") } else { failure }
    }
}

impl fmt::Display for CommandLine {
    /// As it could be typed into a shell.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&quote(&self.program.to_string_lossy()))?;
        for argument in &self.arguments {
            write!(f, " {}", quote(argument))?;
        }
        Ok(())
    }
}

/// A child of ours.
#[derive(Debug)]
pub struct Running {
    /// What was run.
    pub line: CommandLine,
    /// Who it is; it also leads the session and process group of that number.
    pub id: ProcessId,
    child: Child,
}

impl Running {
    /// Calls `tell` from another thread when the child has ended. It stays a zombie until [`Running::reap`], so
    /// that its pid cannot become somebody else's in between.
    pub fn on_end(&self, tell: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let pid = Pid::from_raw(self.id.pid);
        std::thread::Builder::new().name("child watch".into()).spawn(move || {
            let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
            while waitid(Id::Pid(pid), flags) == Err(nix::errno::Errno::EINTR) {}
            tell();
        })?;
        Ok(())
    }

    /// How the child ended; waits if it has not.
    pub fn reap(&mut self) -> Exit {
        match self.child.wait() {
            Ok(status) => exit_of(status),
            Err(_) => Exit::Code(-1), // Somebody else reaped it: it is gone, and nobody knows how.
        }
    }

    /// How the child ended, if it has.
    pub fn try_reap(&mut self) -> Option<Exit> {
        self.child.try_wait().ok().flatten().map(exit_of)
    }
}

/// What a shell would need to read a word back as it is.
pub fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Splits a command given as one text (`--mpiexec 'mpiexec --mca a b'`) into words, with quotes as in a shell
/// but without expanding anything. `None`: a quote is not closed, or there is no word.
pub fn split_words(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\'' | '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        end if end == c => break,
                        '\\' if c == '"' => word.push(chars.next()?),
                        inside => word.push(inside),
                    }
                }
            }
            '\\' => word.get_or_insert_default().push(chars.next()?),
            c if c.is_whitespace() => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    (!words.is_empty()).then_some(words)
}

/// Finds a program as the user means it: a path as it is, a name next to this executable first (one build's
/// programs belong together), then along `PATH`.
pub fn find_program(name: &str) -> Option<PathBuf> {
    if name.contains('/') {
        return std::path::absolute(name).ok();
    }
    let next_to_us = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join(name)));
    next_to_us.filter(|path| is_executable(path)).or_else(|| find_in_path(name))
}

/// Finds a program along `PATH` alone.
pub fn find_in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|path| is_executable(path))
}

fn is_executable(path: &Path) -> bool {
    path.is_file() && nix::unistd::access(path, nix::unistd::AccessFlags::X_OK).is_ok()
}

/// A fresh log that only its owner can read: what users compute is their own affair.
fn open_log(path: &Path) -> Result<File, Failure> {
    let mut options = OpenOptions::new();
    options.create(true).write(true).truncate(true).mode(0o600);
    // Appending keeps the lines of several writers whole.
    options.open(path).and_then(|_| OpenOptions::new().append(true).open(path)).map_err(|error| {
        Failure::new(Code::LaunchFailed, format!("failed to open the log {}", path.display()))
            .caused_by(error)
            .hint("choose a place that can be written with --profile-dir")
    })
}

fn leave_terminal_and_follow(parent: Pid) -> io::Result<()> {
    nix::unistd::setsid()?;
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGTERM)?;
    if nix::unistd::getppid() != parent {
        // The parent died before it could be followed.
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    Ok(())
}

/// As pure code knows it.
pub fn exit_of(status: ExitStatus) -> Exit {
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::Code(-1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_as_a_shell_would() {
        let split = |text| split_words(text).map(|words| words.join("|"));
        assert_eq!(split("mpiexec --mca a b"), Some("mpiexec|--mca|a|b".into()));
        assert_eq!(split(r#" a 'b c'd "e \" f" g\ h '' "#), Some(r#"a|b cd|e " f|g h|"#.into()));
        assert_eq!(split("   "), None);
        assert_eq!(split("'open"), None);
        assert_eq!(split(r"end\"), None);
    }

    #[test]
    fn quoted_words_are_read_back_as_they_were() {
        for word in ["plain", "", "a b", "it's", "$HOME", r"back\slash"] {
            assert_eq!(split_words(&quote(word)).unwrap(), [word]);
        }
    }

    #[test]
    fn a_child_is_watched_and_its_end_told_in_words() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let line = CommandLine {
            program: "/bin/sh".into(),
            arguments: vec!["-c".into(), "echo out; echo err >&2; kill -9 $$".into()],
            log: log.clone(),
        };
        let (tell, told) = std::sync::mpsc::channel();

        let mut running = line.spawn().unwrap();
        running.on_end(move || tell.send(()).unwrap()).unwrap();

        told.recv_timeout(std::time::Duration::from_secs(10)).unwrap();
        assert_eq!(running.reap(), Exit::Signal(9));
        assert_eq!(std::fs::read_to_string(log).unwrap(), "out\nerr\n");
    }

    #[test]
    fn a_program_that_is_not_there_is_named_in_the_failure() {
        let dir = tempfile::tempdir().unwrap();
        let line =
            CommandLine { program: "/nosuch/program".into(), arguments: vec![], log: dir.path().join("log") };
        let failure = line.spawn().unwrap_err();
        assert_eq!(failure.code, Code::LaunchFailed);
        assert_eq!(failure.message, "failed to run /nosuch/program");
    }
}
