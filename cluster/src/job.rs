//! Jobs of a batch system: handing one in, asking after it, ending it. What to say and how to read the answers is in
//! `slurm-pbs`; here the commands are run, with a limit on how long each may take.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant, SystemTime};

use protocol::Date;
use serde::{Deserialize, Serialize};
use slurm_pbs::{Answer, BatchError, Exit, JobEnd, JobId, JobStatus, System};

use crate::failure::{Code, Failure};
use crate::run_command::{exit_of, find_in_path, quote};

/// A busy Slurm answers after some ten seconds, and one that is not there after a minute.
const COMMAND_TIME: Duration = Duration::from_secs(90);

/// How long what a command said last may take to come after its end.
const LAST_WORDS_TIME: Duration = Duration::from_millis(500);

/// No answer to what we ask is longer.
const ANSWER_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// How often a job is asked after: soon at first, then at growing intervals. Sites have thousands of jobs, and their
/// schedulers suffer from those who ask all the time.
const ASK_FIRST: Duration = Duration::from_millis(250);
const ASK_MAX: Duration = Duration::from_secs(15);

/// Who waits for a job's end asks more often.
const END_ASK_MAX: Duration = Duration::from_millis(500);

/// How long a job that was cancelled may take: Slurm gives its processes 30 seconds by default (KillWait), PBS 10.
const CANCEL_TIME: Duration = Duration::from_secs(120);

/// A job that a batch system is to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Which one.
    pub system: System,
    /// What it runs.
    pub script: String,
    /// Where the script is written.
    pub script_file: PathBuf,
    /// The command that hands it in.
    pub submit: Vec<String>,
    /// Where its output can be read while it runs.
    pub log: PathBuf,
}

/// A job that was handed in, as cluster files have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobState {
    /// Which batch system has it.
    pub system: System,
    /// Its name there.
    pub id: JobId,
    /// Its script.
    pub script: PathBuf,
    /// Where its output can be read.
    pub output_file: PathBuf,
    /// When it was handed in.
    pub submitted_at: Date,
}

impl Job {
    /// The commands a user could type instead.
    pub fn dry_run(&self) -> Vec<String> {
        let submit: Vec<String> = self.submit.iter().map(|word| quote(word)).collect();
        let mut lines = vec![format!("# {}:", self.script_file.display())];
        lines.extend(self.script.lines().map(str::to_owned));
        lines.push(submit.join(" "));
        lines
    }

    /// Writes the script, hands it in, and forgets an older log of that name.
    pub fn submit(&self) -> Result<JobState, Failure> {
        let script = &self.script_file;
        let failed = |error| {
            Failure::new(Code::LaunchFailed, format!("failed to write the job script {}", script.display()))
                .caused_by(error)
        };
        crate::cluster_file::remove_if_there(&self.log).map_err(failed)?;
        transport::connection_file::write_private(script, self.script.as_bytes()).map_err(failed)?;
        let answer = run(&self.submit)?;
        let id = self.system.submitted(&answer).map_err(|error| {
            let hint = self.system.hint(&error.to_string());
            Failure::new(
                Code::LaunchFailed,
                format!("failed to start engines: {} rejected the job", self.submit[0]),
            )
            .because(error.to_string())
            .hint(format!("{hint}; the script is {}", script.display()))
        })?;
        Ok(JobState {
            system: self.system,
            id,
            script: script.clone(),
            output_file: self.log.clone(),
            submitted_at: Date::from_system_time(SystemTime::now()),
        })
    }
}

impl JobState {
    /// `job 12 of Slurm`
    pub fn label(&self) -> String {
        format!("job {} of {}", self.id, self.system)
    }

    /// Where it is in its life. An error is a system that does not answer now.
    pub fn status(&self) -> Result<JobStatus, Failure> {
        let answer = run(&self.system.status(&self.id))?;
        self.system.read_status(&answer).map_err(|error| self.failed("ask after", &error))
    }

    /// What is left of it when it has ended.
    pub fn files(&self) -> [PathBuf; 3] {
        [self.script.clone(), self.output_file.clone(), self.output_file.with_extension("pbs")]
    }

    /// Whether it has ended, as far as is known.
    pub fn has_ended(&self) -> Result<bool, Failure> {
        Ok(matches!(self.status()?, JobStatus::Ended { .. }))
    }

    /// Gives it `patience` to end by itself, then cancels it, and returns when it has ended.
    pub fn end(&self, patience: Duration, hurry: impl Fn() -> bool) -> Result<JobEnd, Failure> {
        let mut cancel_at = Some(Instant::now() + patience);
        let mut give_up_at = Instant::now() + patience + CANCEL_TIME;
        let mut pause = ASK_FIRST;
        let mut last = None;
        loop {
            match self.status() {
                Ok(JobStatus::Ended { end }) => return Ok(end),
                Ok(JobStatus::Queued { .. }) => cancel_at = cancel_at.map(|_| Instant::now()),
                Ok(_) => {}
                Err(failure) => last = Some(failure),
            }
            if cancel_at.is_some_and(|at| Instant::now() >= at || hurry()) {
                cancel_at = None;
                self.cancel()?;
                give_up_at = Instant::now() + CANCEL_TIME;
                pause = ASK_FIRST;
                continue;
            }
            if Instant::now() >= give_up_at {
                let failure =
                    last.unwrap_or_else(|| Failure::failed(format!("{} does not end", self.label())));
                return Err(failure.hint(format!("see: {}", self.system.status(&self.id).join(" "))));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(END_ASK_MAX);
        }
    }

    fn cancel(&self) -> Result<(), Failure> {
        let answer = run(&self.system.cancel(&self.id))?;
        self.system.read_cancel(&answer).map_err(|error| self.failed("cancel", &error))
    }

    fn failed(&self, what: &str, error: &BatchError) -> Failure {
        Failure::failed(format!("failed to {what} {}", self.label())).because(error.to_string())
    }

    /// Tells of every change from another thread, until the job has ended or nobody listens. Something that comes over
    /// `hasten` makes it look at once.
    pub fn watch(
        &self,
        hasten: mpsc::Receiver<()>,
        mut tell: impl FnMut(Result<JobStatus, Failure>) -> bool + Send + 'static,
    ) -> std::io::Result<()> {
        let job = self.clone();
        let watch = move || {
            let mut pause = ASK_FIRST;
            loop {
                let status = job.status();
                let ended = matches!(status, Ok(JobStatus::Ended { .. }));
                if !tell(status) || ended {
                    return;
                }
                pause = match hasten.recv_timeout(pause) {
                    Ok(()) => {
                        while hasten.try_recv().is_ok() {}
                        ASK_FIRST
                    }
                    Err(mpsc::RecvTimeoutError::Timeout) => (pause * 3 / 2).min(ASK_MAX),
                    Err(mpsc::RecvTimeoutError::Disconnected) => return,
                };
            }
        };
        std::thread::Builder::new().name("job watch".into()).spawn(watch).map(drop)
    }
}

/// The batch system of this machine in the family that was asked for.
pub fn find_pbs() -> Result<System, Failure> {
    let answer = run(&["qstat".to_owned(), "--version".to_owned()])?;
    Ok(System::pbs_from_version_text(&format!("{}{}", answer.stdout, answer.stderr)))
}

/// Runs a command of a batch system to its end.
pub fn run(argv: &[String]) -> Result<Answer, Failure> {
    let (name, arguments) = argv.split_first().expect("a command has a name");
    let program = find_in_path(name).ok_or_else(|| {
        Failure::new(Code::LaunchFailed, format!("there is no {name} in PATH")).hint(
            "batch systems are commanded from their login nodes; where there is none, use --engines mpi",
        )
    })?;
    let failed = |error| Failure::failed(format!("failed to run {}", program.display())).caused_by(error);
    let mut child = Command::new(&program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let stdout = Pipe::read(child.stdout.take()).map_err(failed)?;
    let stderr = Pipe::read(child.stderr.take()).map_err(failed)?;
    let exit = wait(&mut child, &program)?;
    // A program that it left in the background (qsub does) may still hold the pipes: what it said is there already.
    let until = Instant::now() + LAST_WORDS_TIME;
    Ok(Answer { exit, stdout: stdout.take(until), stderr: stderr.take(until) })
}

/// What comes out of a pipe, read as it comes.
struct Pipe {
    bytes: Arc<Mutex<Vec<u8>>>,
    ended: mpsc::Receiver<()>,
}

impl Pipe {
    fn read(pipe: Option<impl Read + Send + 'static>) -> std::io::Result<Pipe> {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let (end, ended) = mpsc::channel();
        let Some(pipe) = pipe else { return Ok(Pipe { bytes, ended }) };
        let into = Arc::clone(&bytes);
        let read = move || {
            let mut pipe = pipe.take(ANSWER_BYTES_MAX);
            let mut chunk = vec![0; 64 * 1024];
            while let Ok(count @ 1..) = pipe.read(&mut chunk) {
                lock(&into).extend_from_slice(&chunk[..count]);
            }
            drop(end); // Whoever waits for the end of the pipe is told by this.
        };
        std::thread::Builder::new().name("answer".into()).spawn(read)?;
        Ok(Pipe { bytes, ended })
    }

    /// What it was, when the pipe has ended or at `until`.
    fn take(self, until: Instant) -> String {
        let _ = self.ended.recv_timeout(until.saturating_duration_since(Instant::now())); // Either way, as said.
        String::from_utf8_lossy(&lock(&self.bytes)).into_owned()
    }
}

fn lock(bytes: &Mutex<Vec<u8>>) -> MutexGuard<'_, Vec<u8>> {
    bytes.lock().unwrap_or_else(PoisonError::into_inner) // Bytes are whole whatever happened to a thread.
}

fn wait(child: &mut Child, program: &Path) -> Result<Exit, Failure> {
    let failed = |error| Failure::failed(format!("failed to run {}", program.display())).caused_by(error);
    let deadline = Instant::now() + COMMAND_TIME;
    loop {
        if let Some(status) = child.try_wait().map_err(failed)? {
            return Ok(exit_of(status));
        }
        if Instant::now() >= deadline {
            let _ = child.kill(); // It may have ended since.
            let _ = child.wait();
            let text = format!("{} did not answer within {} s", program.display(), COMMAND_TIME.as_secs());
            return Err(Failure::new(Code::LostContact, text).hint("its server may be down or overloaded"));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
