//! What Slurm and PBS have in common: a job with an id, and what became of it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::exit::Exit;
use crate::job::JobSpec;
use crate::template::{self, TemplateError};
use crate::walltime::{Walltime, WalltimeError};
use crate::{pbs, slurm};

/// Ids are a few dozen characters; what is longer is a message that was taken for one.
const JOB_ID_BYTES_MAX: usize = 200;

/// A batch system, in the dialect that its commands speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum System {
    /// Slurm.
    Slurm,
    /// PBS Pro and OpenPBS: `select=`, finished jobs with `qstat -x`.
    OpenPbs,
    /// Torque and what imitates it: `nodes=:ppn=`.
    Torque,
}

/// The name of a job, as its system printed it: `12`, `12.server`, `18[].server`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct JobId(String);

/// A text that is no job id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the id of a job")]
pub struct BadJobId(String);

impl FromStr for JobId {
    type Err = BadJobId;

    /// Begins with a digit, so that no command takes it for an option.
    fn from_str(text: &str) -> Result<JobId, BadJobId> {
        let good = text.starts_with(|c: char| c.is_ascii_digit())
            && text.len() <= JOB_ID_BYTES_MAX
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-[]+".contains(c));
        if good { Ok(JobId(text.to_owned())) } else { Err(BadJobId(text.chars().take(200).collect())) }
    }
}

impl TryFrom<String> for JobId {
    type Error = BadJobId;

    fn try_from(text: String) -> Result<JobId, BadJobId> {
        text.parse()
    }
}

impl From<JobId> for String {
    fn from(id: JobId) -> String {
        id.0
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a job is in its life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "state")]
pub enum JobStatus {
    /// It waits.
    Queued {
        /// The system's own words for why; empty if it said nothing.
        reason: String,
    },
    /// It runs.
    Running {
        /// The nodes as the system writes them: `n[1-2]`, `pbs1/0*2+pbs2/0*2`.
        nodes: String,
        /// What remains of its time limit; none if it has none.
        seconds_left: Option<u64>,
    },
    /// It is being ended.
    Ending,
    /// It has ended.
    Ended {
        /// How.
        #[serde(flatten)]
        end: JobEnd,
    },
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "end")]
pub enum JobEnd {
    /// By itself, and in order.
    Completed,
    /// By itself, with this code or signal.
    Failed {
        /// The exit code, if it was no signal.
        code: Option<i32>,
        /// The signal.
        signal: Option<i32>,
    },
    /// Somebody cancelled it.
    Cancelled,
    /// Its time limit was over.
    TimeLimit,
    /// A node of it was lost.
    NodeFailed,
    /// It used more memory than it was given.
    OutOfMemory,
    /// Another way, in the system's own word.
    Other {
        /// The word.
        word: String,
    },
    /// The system does not know the job any more: it ended some time ago.
    Forgotten,
}

impl JobEnd {
    /// As the exit of a process.
    pub fn failed(exit: Exit) -> JobEnd {
        match exit {
            Exit::Code(0) => JobEnd::Completed,
            Exit::Code(code) => JobEnd::Failed { code: Some(code), signal: None },
            Exit::Signal(signal) => JobEnd::Failed { code: None, signal: Some(signal) },
        }
    }

    /// Whether it ended as it should.
    pub fn is_success(&self) -> bool {
        *self == JobEnd::Completed
    }
}

impl fmt::Display for JobEnd {
    /// Finishes the sentence "job 12 …".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JobEnd::Completed => f.write_str("ended"),
            JobEnd::Failed { signal: Some(signal), .. } => Exit::Signal(*signal).fmt(f),
            JobEnd::Failed { code, .. } => Exit::Code(code.unwrap_or(1)).fmt(f),
            JobEnd::Cancelled => f.write_str("was cancelled"),
            JobEnd::TimeLimit => f.write_str("reached its time limit"),
            JobEnd::NodeFailed => f.write_str("lost a node"),
            JobEnd::OutOfMemory => f.write_str("ran out of memory"),
            JobEnd::Other { word } => write!(f, "ended: {word}"),
            JobEnd::Forgotten => f.write_str("is not known any more"),
        }
    }
}

/// A command of a batch system and its arguments; the last argument may be a script's path.
pub type Argv = Vec<String>;

/// What a command of a batch system answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its exit.
    pub exit: Exit,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Answer {
    /// What it complained about, in one line.
    pub fn complaint(&self) -> String {
        // What imitates Torque complains on standard output.
        let lines = self.stderr.lines().chain(self.stdout.lines());
        let lines = lines.map(str::trim).filter(|line| !line.is_empty());
        let said: Vec<&str> = lines.take(3).collect();
        if said.is_empty() { format!("it {}", self.exit) } else { said.join("; ") }
    }
}

/// A batch system answered what we cannot use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// In its own words.
    #[error("{0}")]
    Refused(String),
    /// An answer in an unknown form.
    #[error("the answer {0:?} was not understood")]
    Unreadable(String),
}

impl System {
    /// Which PBS it is, by what `qstat --version` printed (standard output and error).
    pub fn pbs_from_version_text(text: &str) -> System {
        if text.to_ascii_lowercase().contains("pbs") { System::OpenPbs } else { System::Torque }
    }

    /// Whether it is Slurm.
    pub fn is_slurm(self) -> bool {
        self == System::Slurm
    }

    /// The time limit as this system's users write it.
    pub fn parse_walltime(self, text: &str) -> Result<Walltime, WalltimeError> {
        if self.is_slurm() { Walltime::parse_slurm(text) } else { Walltime::parse_pbs(text) }
    }

    /// The script that comes with us, and its name for messages.
    pub fn template(self) -> (&'static str, &'static str) {
        match self {
            System::Slurm => ("templates/slurm.sh", include_str!("../templates/slurm.sh")),
            System::OpenPbs | System::Torque => ("templates/pbs.sh", include_str!("../templates/pbs.sh")),
        }
    }

    /// The job's script, from a site's template or ours.
    pub fn script(self, spec: &JobSpec, template: Option<(&str, &str)>) -> Result<String, TemplateError> {
        let (origin, text) = template.unwrap_or(self.template());
        template::fill(origin, text, &spec.blanks(self))
    }

    /// Hands in a script. `more` are the user's own arguments; `variables` are those of our environment that the
    /// job is to have (Slurm passes all of them anyway).
    pub fn submit(self, more: &[String], variables: &[&str], script: &str) -> Argv {
        match self {
            System::Slurm => slurm::submit(more, script),
            System::OpenPbs | System::Torque => pbs::submit(more, variables, script),
        }
    }

    /// The id of the job that was handed in.
    pub fn submitted(self, answer: &Answer) -> Result<JobId, BatchError> {
        if !answer.exit.is_success() {
            return Err(BatchError::Refused(answer.complaint()));
        }
        let last = answer.stdout.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default();
        let text = if self.is_slurm() { slurm::id_of(last) } else { last };
        text.parse().map_err(|BadJobId(text)| BatchError::Unreadable(text))
    }

    /// Asks after a job.
    pub fn status(self, id: &JobId) -> Argv {
        match self {
            System::Slurm => slurm::status(id),
            System::OpenPbs | System::Torque => pbs::status(self, id),
        }
    }

    /// The answer to [`System::status`]. An error is a system that cannot answer now; ask again.
    pub fn read_status(self, answer: &Answer) -> Result<JobStatus, BatchError> {
        match self {
            System::Slurm => slurm::read_status(answer),
            System::OpenPbs | System::Torque => pbs::read_status(answer),
        }
    }

    /// Ends a job, whatever it is doing.
    pub fn cancel(self, id: &JobId) -> Argv {
        match self {
            System::Slurm => slurm::cancel(id),
            System::OpenPbs | System::Torque => pbs::cancel(id),
        }
    }

    /// Whether the answer to [`System::cancel`] means that the job is being ended, or is gone already.
    pub fn read_cancel(self, answer: &Answer) -> Result<(), BatchError> {
        let gone = !self.is_slurm() && pbs::is_gone(answer);
        if answer.exit.is_success() || gone { Ok(()) } else { Err(BatchError::Refused(answer.complaint())) }
    }

    /// What a user would do about a refusal.
    pub fn hint(self, complaint: &str) -> &'static str {
        if self.is_slurm() { slurm::hint(complaint) } else { pbs::hint(complaint) }
    }
}

impl fmt::Display for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            System::Slurm => "Slurm",
            System::OpenPbs => "PBS",
            System::Torque => "Torque",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_id_can_be_an_argument_of_any_command() {
        for text in ["4", "12.pbs1", "18[].pbs1", "38+0", "5_1"] {
            assert_eq!(text.parse::<JobId>().unwrap().to_string(), text);
        }
        for text in ["", "-x", "abc", "1 2", "1;rm", "1\n", "$(1)"] {
            assert!(text.parse::<JobId>().is_err(), "{text:?} was taken for a job id");
        }
    }

    #[test]
    fn the_two_families_of_pbs_are_told_apart_by_their_version() {
        assert_eq!(System::pbs_from_version_text("pbs_version = 23.06.06"), System::OpenPbs);
        assert_eq!(System::pbs_from_version_text("Version: 6.1.2"), System::Torque);
        assert_eq!(System::pbs_from_version_text(""), System::Torque);
    }

    #[test]
    fn an_end_finishes_a_sentence() {
        let end = JobEnd::failed(Exit::Signal(9));
        assert_eq!(
            format!("job 12 {end}"),
            "job 12 exited on signal 9 (SIGKILL: killed, by somebody or for lack of memory)"
        );
        assert_eq!(JobEnd::failed(Exit::Code(0)), JobEnd::Completed);
    }
}
