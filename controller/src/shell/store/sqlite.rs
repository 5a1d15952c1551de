//! Records in a file: a thread that writes them, and the queue before it.
//!
//! The loop never waits for the file. What does not fit into the queue is lost for the records, counted, and warned
//! of; the tasks themselves are not concerned.

mod table;

use std::collections::VecDeque;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use protocol::Date;
use protocol::error::{ErrorContent, ename};
use protocol::frames::WireMessage;
use protocol::id::SessionId;
use protocol::message::hub::{DB_REPLY, HISTORY_REPLY, PURGE_REPLY, RESULT_REPLY};
use transport::wake::Waker;

use super::Ticket;
use crate::records::record::Bounds;
use crate::records::{Answer, Change, Output, Question, answer};
use table::{Table, TableError};

/// How long a change may be in memory only: what a controller that is killed may lose.
const COMMIT_INTERVAL: Duration = Duration::from_millis(500);

/// Changes after which the interval is not waited for.
const BATCH: usize = 4096;

/// Changes that wait for the file: a minute of tasks while somebody's query reads all of a large file.
const WAITING_MAX: usize = 500_000;

/// Bytes of what waits. A single change may exceed it.
const WAITING_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// What a change costs beside its frames.
const CHANGE_OVERHEAD: u64 = 256;

/// At most one warning about changes that were lost in this time; all are counted.
const WARNING_INTERVAL: Duration = Duration::from_secs(10);

/// Why there are no records in a file.
#[derive(Debug, thiserror::Error)]
#[error("keep records in {}: {why}", path.display())]
pub struct StoreError {
    path: PathBuf,
    why: String,
    is_locked: bool,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl StoreError {
    /// Whether another program has the file.
    pub(super) fn is_locked(&self) -> bool {
        self.is_locked
    }
}

/// The loop's side of a file.
#[derive(Debug)]
pub struct File {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    warned: Option<Instant>,
    lost: u64,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    /// The thread has something to do that cannot wait.
    wanted: Condvar,
    answers: Mutex<Vec<(Ticket, Answer)>>,
    waker: Waker,
}

#[derive(Debug, Default)]
struct Queue {
    jobs: VecDeque<Job>,
    /// Of all jobs, those that the thread has taken and not yet done included.
    waiting: usize,
    bytes: u64,
    /// The thread sleeps until the first change comes.
    is_idle: bool,
    /// Somebody waits for an answer.
    has_question: bool,
    is_closing: bool,
}

#[derive(Debug)]
enum Job {
    Change { today: Date, change: Change, bytes: u64 },
    Question { ticket: Ticket, question: Question },
}

impl File {
    /// Opens the file for this process alone, and starts its thread.
    pub(super) fn open(
        path: &Path,
        bounds: Bounds,
        author: SessionId,
        goes_on: bool,
        waker: Waker,
    ) -> Result<File, StoreError> {
        let failed = |why: String, source: Option<Box<dyn std::error::Error + Send + Sync>>| StoreError {
            path: path.to_owned(),
            why,
            is_locked: false,
            source,
        };
        make_private(path).map_err(|error| {
            let why =
                "check that the file and its directory are yours to write to, or give another with --db-file";
            failed(why.to_owned(), Some(error.into()))
        })?;
        let opened = Table::open(path, bounds, author)
            .and_then(|mut table| Ok(table.take_over(today(), goes_on).map(|()| table)?));
        let table = opened.map_err(|error: TableError| {
            let is_locked = matches!(error, TableError::Locked);
            StoreError { is_locked, ..failed(error.to_string(), error.into_cause()) }
        })?;
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            wanted: Condvar::new(),
            answers: Mutex::default(),
            waker,
        });
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("records".to_owned()).spawn(move || theirs.work(table));
        let thread = thread.map_err(|error| failed("start its thread".to_owned(), Some(error.into())))?;
        Ok(File { shared, thread: Some(thread), warned: None, lost: 0 })
    }

    pub(super) fn remember(&mut self, today: Date, change: Change) {
        let Some(bytes) = cost(&change) else { return };
        let mut queue = self.shared.lock();
        let fits = queue.waiting < WAITING_MAX && queue.bytes + bytes <= WAITING_BYTES_MAX;
        if !fits && queue.waiting > 0 {
            drop(queue);
            self.warn();
            return;
        }
        queue.waiting += 1;
        queue.bytes += bytes;
        queue.jobs.push_back(Job::Change { today, change, bytes });
        let is_wanted = queue.is_idle || queue.jobs.len() == BATCH;
        queue.is_idle = false;
        drop(queue);
        if is_wanted {
            self.shared.wanted.notify_one();
        }
    }

    fn warn(&mut self) {
        self.lost += 1;
        let now = Instant::now();
        if self.warned.is_none_or(|at| now.duration_since(at) >= WARNING_INTERVAL) {
            tracing::warn!(count = self.lost, "records fall behind: changes are lost to them; tasks go on");
            self.warned = Some(now);
            self.lost = 0;
        }
    }

    pub(super) fn ask(&mut self, ticket: Ticket, question: Question) {
        let mut queue = self.shared.lock();
        queue.jobs.push_back(Job::Question { ticket, question });
        queue.has_question = true;
        queue.is_idle = false;
        drop(queue);
        self.shared.wanted.notify_one();
    }

    pub(super) fn answers(&mut self) -> Vec<(Ticket, Answer)> {
        std::mem::take(&mut *self.shared.answers.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for File {
    /// What was told is in the file before this ends.
    fn drop(&mut self) {
        self.shared.lock().is_closing = true;
        self.shared.wanted.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the records has panicked");
        }
        if self.lost > 0 {
            tracing::warn!(count = self.lost, "changes were lost to the records");
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Whoever panicked did so between two whole changes of the queue.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self, mut table: Table) {
        loop {
            let (jobs, is_closing) = self.next_jobs();
            self.do_jobs(&mut table, jobs);
            if is_closing {
                return;
            }
        }
    }

    /// Waits for jobs, then a little longer, so that many of them go into the file at once.
    fn next_jobs(&self) -> (VecDeque<Job>, bool) {
        let mut queue = self.lock();
        while queue.jobs.is_empty() && !queue.is_closing {
            queue.is_idle = true;
            queue = self.wanted.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        let end = Instant::now() + COMMIT_INTERVAL;
        while !queue.has_question && !queue.is_closing && queue.jobs.len() < BATCH {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            queue = self.wanted.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        queue.has_question = false;
        (std::mem::take(&mut queue.jobs), queue.is_closing)
    }

    /// Changes that stand together are committed together; a question finds all that stand before it.
    fn do_jobs(&self, table: &mut Table, jobs: VecDeque<Job>) {
        let mut changes = vec![];
        for job in jobs {
            match job {
                Job::Change { today, change, bytes } => changes.push((today, change, bytes)),
                Job::Question { ticket, question } => {
                    self.write(table, std::mem::take(&mut changes));
                    self.answer(table, ticket, question);
                }
            }
        }
        self.write(table, changes);
    }

    fn write(&self, table: &mut Table, changes: Vec<(Date, Change, u64)>) {
        if changes.is_empty() {
            return;
        }
        let (count, bytes) = (changes.len(), changes.iter().map(|(_, _, bytes)| bytes).sum::<u64>());
        let written = in_one(table, |table| {
            changes.into_iter().try_for_each(|(today, change, _)| table.remember(today, change))
        });
        if let Err(error) = written {
            tracing::error!(count, %error, "changes not written to the records; check the disk");
        }
        let mut queue = self.lock();
        queue.waiting -= count;
        queue.bytes -= bytes;
    }

    fn answer(&self, table: &mut Table, ticket: Ticket, question: Question) {
        let reply_type = match &question {
            Question::Results { .. } => Some(RESULT_REPLY),
            Question::History => Some(HISTORY_REPLY),
            Question::Query { .. } => Some(DB_REPLY),
            Question::Purge { .. } => Some(PURGE_REPLY),
            Question::Requests { .. } => None,
        };
        let answer = in_one(table, |table| table.ask(question)).unwrap_or_else(|error| {
            tracing::error!(%error, "records cannot be read");
            let text = format!("the file of records cannot be used: {error}");
            let error = Box::new(ErrorContent::new(ename::RUNTIME_ERROR, text));
            match reply_type {
                Some(reply_type) => answer::refused(reply_type, error),
                None => Answer::Requests(Err(error)),
            }
        });
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).push((ticket, answer));
        self.waker.wake();
    }
}

/// All of it, or nothing.
fn in_one<T>(table: &mut Table, act: impl FnOnce(&mut Table) -> rusqlite::Result<T>) -> rusqlite::Result<T> {
    let done = table.begin().and_then(|()| act(table)).and_then(|result| table.commit().map(|()| result));
    if done.is_err()
        && let Err(error) = table.roll_back()
    {
        tracing::error!(%error, "records cannot be counted");
    }
    done
}

/// The memory that a change takes while it waits; `None` if records do not keep it.
fn cost(change: &Change) -> Option<u64> {
    if !change.is_recorded() {
        return None;
    }
    let bytes = match change {
        Change::Submitted { request: message, .. }
        | Change::Gathering { request: message, .. }
        | Change::Replied { reply: message, .. } => WireMessage::byte_len(message),
        Change::Answered { buffers, .. } => buffers.iter().map(bytes::Bytes::len).sum(),
        Change::Output { output, .. } => match output {
            Output::Stdout(text) | Output::Stderr(text) | Output::Input(text) => text.len(),
            // Trees of JSON take more than their text; none is so large that it matters.
            Output::Result(_) | Output::Error(_) => 4096,
        },
        _ => 0,
    };
    Some(bytes as u64 + CHANGE_OVERHEAD)
}

/// Code and results are nobody else's business. SQLite gives its log the mode of the file.
fn make_private(path: &Path) -> std::io::Result<()> {
    let file = std::fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    let mode = file.metadata()?.permissions().mode();
    if mode & 0o077 != 0 {
        tracing::warn!(path = %path.display(), "others could read the records; now they cannot");
        file.set_permissions(std::fs::Permissions::from_mode(mode & 0o700))?;
    }
    Ok(())
}

fn today() -> Date {
    Date::from_system_time(SystemTime::now())
}

#[cfg(test)]
mod tests;
