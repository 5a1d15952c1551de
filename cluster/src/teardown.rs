//! Ending processes: first by asking the hub, then with SIGTERM, then with SIGKILL, and looking each time
//! whether they are really gone. Only what we started is touched, recognised by pid and start time.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::cluster_file::{ProcessState, remove_if_there};
use crate::failure::Failure;
use crate::hub::HubLink;
use crate::process::{ProcessId, wait_until_gone};
use crate::profile::Profile;

/// The hub answers a shutdown request at once, if it is not stuck.
const HUB_ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// After the hub has told them, engines end within milliseconds, unless user code does not listen.
const ORDERLY_GRACE: Duration = Duration::from_secs(2);

/// Open MPI's mpiexec ends its ranks one second after SIGTERM and kills them one more second later.
const TERM_GRACE: Duration = Duration::from_secs(4);

/// SIGKILL works at once; a machine out of memory takes longer.
const KILL_GRACE: Duration = Duration::from_secs(5);

/// What is to be ended.
#[derive(Debug, Default)]
pub struct Teardown {
    /// Processes of engines: each engine, or `mpiexec`.
    pub engines: Vec<ProcessState>,
    /// The controller, if it is to go too.
    pub controller: Option<ProcessState>,
    /// Where to find the hub, to ask it for an orderly end.
    pub client_file: Option<PathBuf>,
}

/// How it went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Leaders that had to be killed.
    pub killed: Vec<ProcessId>,
    /// Processes that are still there.
    pub survivors: Vec<ProcessId>,
}

impl Teardown {
    /// Ends everything. `hurry` cuts the waiting short: somebody pressed Ctrl-C twice.
    pub fn run(mut self, hurry: impl Fn() -> bool + Copy) -> Outcome {
        for process in self.engines.iter_mut().chain(&mut self.controller) {
            // Ranks that appeared since the file was written, seen before their parent goes.
            process.members.extend(process.id.descendants());
            process.members.sort();
            process.members.dedup();
        }
        let engines = everyone(&self.engines);
        let controller: Vec<ProcessId> = self.controller.iter().map(|state| state.id).collect();

        let mut left = living(&engines);
        let told = !hurry() && !controller.iter().all(|id| !id.is_alive()) && self.ask_hub();
        if told && !left.is_empty() {
            left = wait_until_gone(&engines, Instant::now() + ORDERLY_GRACE, hurry);
        }
        if !left.is_empty() {
            for process in &self.engines {
                let _ = process.id.signal(Signal::SIGTERM); // Whether it worked is looked at below.
            }
            left = wait_until_gone(&engines, Instant::now() + TERM_GRACE, hurry);
        }
        for id in &controller {
            let _ = id.signal(Signal::SIGTERM);
        }
        left.extend(wait_until_gone(
            &everyone(self.controller.as_slice()),
            Instant::now() + TERM_GRACE,
            hurry,
        ));
        if left.is_empty() {
            return Outcome::default();
        }
        self.kill(&left)
    }

    fn kill(&self, left: &[ProcessId]) -> Outcome {
        let mut killed = Vec::new();
        for process in self.engines.iter().chain(&self.controller) {
            if left.contains(&process.id) {
                killed.push(process.id);
            }
            let _ = process.id.signal_group(Signal::SIGKILL); // What survives is reported below.
        }
        for member in left {
            let _ = member.signal(Signal::SIGKILL);
        }
        let survivors = wait_until_gone(left, Instant::now() + KILL_GRACE, || false);
        Outcome { killed, survivors }
    }

    fn ask_hub(&self) -> bool {
        let Some(client_file) = &self.client_file else { return false };
        HubLink::connect(client_file).and_then(|mut hub| hub.shut_down(HUB_ANSWER_TIMEOUT)).is_ok()
    }
}

impl Outcome {
    /// A failure if anything survived.
    pub fn check(&self) -> Result<(), Failure> {
        if self.survivors.is_empty() {
            return Ok(());
        }
        let pids: Vec<String> = self.survivors.iter().map(|id| id.pid.to_string()).collect();
        Err(Failure::failed(format!("failed to end the processes {}", pids.join(", ")))
            .because("they are still there after SIGKILL")
            .hint("they may hang in the kernel (a file system that does not answer?); see: ps -o pid,stat,wchan,cmd"))
    }
}

/// Removes the connection files of a controller that is gone, unless they are kept for its successor.
pub fn remove_connection_files(profile: &Profile, controller: &ProcessState) -> Result<(), Failure> {
    let kept = controller.argv.iter().any(|argument| matches!(argument.as_str(), "--reuse" | "--restore"));
    if kept {
        return Ok(());
    }
    for path in [profile.client_file(), profile.engine_file()] {
        remove_if_there(&path).map_err(|error| {
            Failure::failed(format!("failed to remove {}", path.display())).caused_by(error)
        })?;
    }
    Ok(())
}

fn everyone(processes: &[ProcessState]) -> Vec<ProcessId> {
    processes
        .iter()
        .flat_map(|process| std::iter::once(process.id).chain(process.members.iter().copied()))
        .collect()
}

fn living(processes: &[ProcessId]) -> Vec<ProcessId> {
    processes.iter().copied().filter(|process| process.is_alive()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run_command::{CommandLine, Running};

    fn shell(dir: &std::path::Path, script: &str) -> Running {
        let line = CommandLine {
            program: "/bin/sh".into(),
            arguments: vec![
                "-c".into(),
                format!("{script}; touch {}; sleep 60 & wait", dir.join("up").display()),
            ],
            log: dir.join("log"),
        };
        let running = line.spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while !dir.join("up").exists() {
            assert!(Instant::now() < deadline, "the shell did not come up");
            std::thread::yield_now();
        }
        running
    }

    fn teardown(running: &Running) -> Teardown {
        Teardown { engines: vec![ProcessState::of(running)], ..Teardown::default() }
    }

    #[test]
    fn a_process_that_obeys_is_not_killed() {
        let dir = tempfile::tempdir().unwrap();
        let mut running = shell(dir.path(), "trap 'kill %1; exit 0' TERM");
        assert_eq!(teardown(&running).run(|| false), Outcome::default());
        assert!(running.reap().is_success());
    }

    #[test]
    fn a_process_that_ignores_sigterm_is_killed_with_its_children() {
        let dir = tempfile::tempdir().unwrap();
        let mut running = shell(dir.path(), "trap '' TERM");
        let outcome = teardown(&running).run(|| true);
        assert_eq!(outcome, Outcome { killed: vec![running.id], survivors: vec![] });
        assert_eq!(running.reap(), slurm_pbs::Exit::Signal(9));
    }

    #[test]
    fn ending_what_is_gone_is_nothing_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let mut running = shell(dir.path(), "trap 'kill %1; exit 0' TERM");
        running.id.signal(Signal::SIGTERM).unwrap();
        running.reap();
        assert_eq!(teardown(&running).run(|| false), Outcome::default());
    }
}
