//! What commands say: results on standard output, progress and notes on standard error; for people, or one JSON
//! object per line for scripts.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::failure::Failure;

mod human;

pub use human::duration;

/// Progress is silent for so long: most starts are over by then.
const PROGRESS_AFTER: Duration = Duration::from_secs(1);

/// What a command that runs for a while has to say.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Report {
    /// What is being waited for.
    Progress {
        /// `2 of 4 engines registered`
        text: String,
    },
    /// All is up.
    Ready(Ready),
    /// Something happened that the cluster survives.
    Note {
        /// In words.
        text: String,
    },
    /// All is down.
    Stopped {
        /// Why, in words.
        text: String,
        /// How long it took.
        seconds: f64,
    },
    /// The command failed.
    Failed(Failure),
}

/// A cluster, or one more set of engines, can be used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ready {
    /// The cluster's name for people.
    pub cluster: String,
    /// Where its files are.
    pub profile_dir: String,
    /// Its id in that profile.
    pub cluster_id: String,
    /// `4 MPI engines (Open MPI 4.1.4)`
    pub engines: String,
    /// Their ids.
    pub ids: Vec<u32>,
    /// From the command to the last registration.
    pub seconds: f64,
    /// The process that watches over them.
    pub supervisor: i32,
    /// Whether that process goes on in the background.
    pub in_background: bool,
    /// What clients need.
    pub client_file: String,
    /// A first thing to try.
    pub next: String,
    /// How to stop it from any shell.
    pub stop: String,
}

/// How to say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// For people.
    Human,
    /// For scripts.
    Json,
    /// To the command that started us in the background; it leaves once we are ready, then to our log.
    Background,
}

/// Where reports go.
pub struct Output {
    form: Form,
    started: Instant,
    /// Whether a progress line stands on the terminal and must be overwritten.
    line_open: bool,
    last_progress: String,
    ready_was_told: bool,
}

impl Output {
    /// Reports in this form, with progress counted from now.
    pub fn new(form: Form) -> Output {
        Output {
            form,
            started: Instant::now(),
            line_open: false,
            last_progress: String::new(),
            ready_was_told: false,
        }
    }

    /// When a progress line is due, if it is not yet.
    pub fn next_progress(&self) -> Option<Instant> {
        let due = self.started + PROGRESS_AFTER;
        (due > Instant::now()).then_some(due)
    }

    /// Reports. An error means that nobody reads any more.
    pub fn tell(&mut self, report: &Report) -> io::Result<()> {
        match self.form {
            Form::Json => self.tell_json(report),
            Form::Background if !self.ready_was_told => self.tell_json(report),
            Form::Human | Form::Background => self.tell_human(report),
        }
    }

    fn tell_json(&mut self, report: &Report) -> io::Result<()> {
        self.ready_was_told |= matches!(report, Report::Ready(_));
        if matches!(report, Report::Progress { .. }) && self.is_too_early_or_known(report) {
            return Ok(());
        }
        let mut line = serde_json::to_string(report).expect("a report holds nothing that JSON cannot say");
        line.push('\n');
        let mut out = io::stdout().lock();
        out.write_all(line.as_bytes())?;
        out.flush()
    }

    fn tell_human(&mut self, report: &Report) -> io::Result<()> {
        self.ready_was_told |= matches!(report, Report::Ready(_));
        let Report::Progress { text } = report else {
            self.close_line()?;
            return self.tell_lasting(report);
        };
        if self.is_too_early_or_known(report) {
            return Ok(());
        }
        let mut err = io::stderr().lock();
        if err.is_terminal() {
            self.line_open = true;
            write!(err, "\r\x1b[2K{text} …")?;
            err.flush()
        } else {
            writeln!(err, "{text} …")
        }
    }

    fn tell_lasting(&self, report: &Report) -> io::Result<()> {
        match report {
            Report::Progress { .. } => Ok(()),
            Report::Ready(ready) => {
                let mut out = io::stdout().lock();
                writeln!(out, "{}", human::ready(ready, colour(&out)))?;
                out.flush()
            }
            Report::Note { text } => writeln!(io::stderr().lock(), "note: {text}"),
            Report::Stopped { text, seconds } => {
                writeln!(
                    io::stderr().lock(),
                    "{text} ({})",
                    duration(Duration::from_secs_f64(seconds.max(0.0)))
                )
            }
            Report::Failed(failure) => {
                let mut err = io::stderr().lock();
                let colour = colour(&err);
                writeln!(err, "{}", human::failure(failure, colour))
            }
        }
    }

    /// The same progress is told once, and none in the first second.
    fn is_too_early_or_known(&mut self, report: &Report) -> bool {
        let Report::Progress { text } = report else { return false };
        if self.started.elapsed() < PROGRESS_AFTER || *text == self.last_progress {
            return true;
        }
        self.last_progress.clone_from(text);
        false
    }

    fn close_line(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.line_open) {
            write!(io::stderr().lock(), "\r\x1b[2K")?;
        }
        Ok(())
    }
}

/// Prints a result of a command; that nobody reads it (`cluster list | head -1`) is no failure.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::failed("failed to write the result").caused_by(error))
        }
        _ => Ok(()),
    }
}

/// Prints a result as JSON.
pub fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    print(&serde_json::to_string_pretty(value).expect("our results hold nothing that JSON cannot say"))
}

/// Colours are for terminals whose user did not say no (no-color.org).
fn colour(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
