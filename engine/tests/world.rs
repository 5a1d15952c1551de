//! The MPI world under `mpiexec`, with 1 to 4 ranks.
//!
//! Started by cargo, this program starts itself under the `mpiexec` of the MPI library that it is linked to;
//! started there, it is one rank and runs all checks. Every check ends with calls of all ranks whose results
//! are compared: whatever was interrupted before must not show in them.

#[path = "world/checks.rs"]
mod checks;
#[path = "world/users.rs"]
mod users;

use std::io::Read;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use engine::mpi::launch::Family;
use engine::mpi::library_version;

const RANK_MARK: &str = "WORLD_TEST_RANKS";
const MARKS_FOLDER: &str = "WORLD_TEST_MARKS";
const TIMEOUT: Duration = Duration::from_secs(240);

fn main() -> ExitCode {
    if let Ok(ranks) = std::env::var(RANK_MARK) {
        let marks = std::env::var_os(MARKS_FOLDER).expect("set below").into();
        checks::run_all(ranks.parse().expect("set below"), marks);
        return ExitCode::SUCCESS;
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        (1..=4).for_each(|ranks| println!("world_of_{ranks}: test"));
        return ExitCode::SUCCESS;
    }
    let filters: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let mut failed = false;
    for ranks in 1..=4usize {
        let name = format!("world_of_{ranks}");
        if !filters.is_empty() && !filters.iter().any(|filter| name.contains(filter.as_str())) {
            continue;
        }
        let started = Instant::now();
        match run_ranks(ranks) {
            Ok(output) => {
                println!("test {name} ... ok ({:.1} s)", started.elapsed().as_secs_f64());
                output.lines().filter(|line| line.contains("seed")).for_each(|line| println!("  {line}"));
            }
            Err(problem) => {
                println!("test {name} ... FAILED\n{problem}");
                failed = true;
            }
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Runs all checks on so many ranks and returns what they printed.
fn run_ranks(ranks: usize) -> Result<String, String> {
    let mut command = Command::new(mpiexec());
    if Family::of(&library_version()) == Family::OpenMpi {
        command.args(["--allow-run-as-root", "--oversubscribe"]);
    }
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let marks = tempfile::tempdir().map_err(|error| error.to_string())?;
    users::compile(marks.path())?;
    let mut child = command
        .args(["-n", &ranks.to_string()])
        .arg(program)
        .env(RANK_MARK, ranks.to_string())
        .env(MARKS_FOLDER, marks.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("mpiexec did not start: {error}"))?;
    let readers = [
        read_in_background(child.stdout.take().expect("piped")),
        read_in_background(child.stderr.take().expect("piped")),
    ];
    let deadline = Instant::now() + TIMEOUT;
    let status = loop {
        match child.try_wait().map_err(|error| error.to_string())? {
            Some(status) => break Some(status),
            None if Instant::now() > deadline => {
                // SAFETY: a signal to the child that we started; mpiexec passes it on to its ranks.
                unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGTERM) };
                std::thread::sleep(Duration::from_secs(2));
                let _ = child.kill();
                let _ = child.wait();
                break None;
            }
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    let output: String =
        readers.into_iter().map(|reader| reader.join().unwrap_or_default()).collect::<Vec<_>>().join("\n");
    let passed = output.lines().filter(|line| line.starts_with("ok ")).count();
    match status {
        Some(status) if status.success() && passed == checks::COUNT => Ok(output),
        Some(status) => Err(format!("{status}; {passed} of {} checks passed\n{output}", checks::COUNT)),
        None => Err(format!("no end after {TIMEOUT:?}; {passed} checks passed\n{output}")),
    }
}

fn read_in_background(mut pipe: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Debian installs several MPIs side by side, each with its own launcher.
fn mpiexec() -> &'static str {
    let own = match Family::of(&library_version()) {
        Family::OpenMpi => "mpiexec.openmpi",
        Family::Mpich => "mpiexec.mpich",
        Family::Other => "mpiexec",
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let exists = std::env::split_paths(&path).any(|directory| Path::new(&directory).join(own).exists());
    if exists { own } else { "mpiexec" }
}
