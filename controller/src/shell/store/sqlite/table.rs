//! Records in a SQLite file: the statements, and nothing that waits.
//!
//! What a record is, what it costs, what makes room first and what an answer says are as in
//! [`memory`](crate::records::memory); a test compares the two. Here are small columns for what can be found quickly,
//! and apart from them the frames, which are read only when they are wanted.

mod changes;
mod questions;

use std::path::Path;
use std::time::Duration;

use protocol::Date;
use protocol::error::{ErrorContent, ename};
use protocol::id::SessionId;
use protocol::message::Failure;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _};
use serde_json::{Value as Json, json};

use crate::machine::reply_type;
use crate::records::Queue;
use crate::records::forgotten::Forgotten;
use crate::records::record::{self, Bounds};

/// How long a predecessor may take to let go of the file.
const LOCK_TIME: Duration = Duration::from_secs(1);

/// The form of our tables. Another one is not read.
const VERSION: i64 = 1;

/// Bytes of the log that goes before the file, once it was written back.
const LOG_BYTES_KEPT: i64 = 64 * 1024 * 1024;

/// The original's table is called `ipython-tasks`, and left alone.
const SCHEMA: &str = "
    CREATE TABLE commworld_schema (version INTEGER NOT NULL) STRICT;
    CREATE TABLE commworld_tasks (
        number INTEGER PRIMARY KEY,
        msg_id TEXT NOT NULL UNIQUE,
        queue TEXT NOT NULL,
        assigned TEXT,
        came INTEGER NOT NULL,
        submitted INTEGER NOT NULL,
        client_uuid TEXT,
        label TEXT NOT NULL,
        engine_uuid TEXT,
        started INTEGER,
        completed INTEGER,
        received INTEGER,
        resubmitted TEXT,
        ended INTEGER,
        stdout_bytes INTEGER NOT NULL DEFAULT 0,
        stderr_bytes INTEGER NOT NULL DEFAULT 0,
        bytes INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX commworld_by_submitted ON commworld_tasks (submitted);
    CREATE INDEX commworld_by_completed ON commworld_tasks (completed) WHERE completed IS NOT NULL;
    CREATE INDEX commworld_by_engine ON commworld_tasks (engine_uuid);
    CREATE INDEX commworld_by_end ON commworld_tasks (ended) WHERE ended IS NOT NULL;
    CREATE INDEX commworld_open ON commworld_tasks (number) WHERE ended IS NULL;
    CREATE TABLE commworld_requests (number INTEGER PRIMARY KEY, json BLOB NOT NULL, buffers BLOB NOT NULL) STRICT;
    CREATE TABLE commworld_replies (number INTEGER PRIMARY KEY, json BLOB NOT NULL, buffers BLOB NOT NULL) STRICT;
    CREATE TABLE commworld_texts (
        place INTEGER PRIMARY KEY,
        number INTEGER NOT NULL,
        kind INTEGER NOT NULL,
        text TEXT NOT NULL
    ) STRICT;
    CREATE INDEX commworld_texts_by_task ON commworld_texts (number);
";

/// Why a file cannot be used, in our words.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TableError {
    /// Somebody has it.
    #[error(
        "another program uses it, perhaps the controller of another cluster in this profile; give this one a file of \
         its own with --db-file"
    )]
    Locked,
    /// Not a database.
    #[error("it is not a SQLite file, or a damaged one; move it away, or give another with --db-file")]
    Foreign(#[source] rusqlite::Error),
    /// Tables of another form.
    #[error(
        "its records have form {0}, and this version reads form {VERSION} only; give another file with --db-file"
    )]
    Version(i64),
    /// Not to be written to, or anything else.
    #[error(
        "check that the file and its directory are yours to write to and have room, or give another with --db-file"
    )]
    Other(#[source] rusqlite::Error),
}

impl TableError {
    /// What SQLite says, where we do not say it all.
    pub(crate) fn into_cause(self) -> Option<Box<dyn std::error::Error + Send + Sync>> {
        match self {
            TableError::Foreign(error) | TableError::Other(error) => Some(error.into()),
            TableError::Locked | TableError::Version(_) => None,
        }
    }
}

impl From<rusqlite::Error> for TableError {
    fn from(error: rusqlite::Error) -> TableError {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked) => {
                TableError::Locked
            }
            // No code: what was read is not what was written.
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) | None => TableError::Foreign(error),
            Some(_) => TableError::Other(error),
        }
    }
}

/// The records of all controllers that had this file.
pub(crate) struct Table {
    connection: Connection,
    bounds: Bounds,
    /// The controller's session, in whose name it answers.
    author: SessionId,
    /// The next number of a submission or an end.
    next: i64,
    /// How many records there are, and what they cost.
    records: usize,
    bytes: u64,
    forgotten: Forgotten,
}

impl Table {
    /// Opens or makes a file, for this process alone.
    pub(crate) fn open(path: &Path, bounds: Bounds, author: SessionId) -> Result<Table, TableError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(LOCK_TIME)?;
        connection.set_prepared_statement_cache_capacity(64);
        // Alone from the first access to the end: a second controller is told at its start. The log (WAL) makes a
        // commit an append; what was committed outlives the process, though the last moments not a power failure.
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        connection.pragma_update(None, "journal_size_limit", LOG_BYTES_KEPT)?;
        connection.execute_batch("BEGIN IMMEDIATE")?;
        let is_ours = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'commworld_schema'";
        if connection.query_row(is_ours, [], |_| Ok(())).optional()?.is_none() {
            connection.execute_batch(SCHEMA)?;
            connection.execute("INSERT INTO commworld_schema VALUES (?)", [VERSION])?;
        }
        let version = connection.query_row("SELECT version FROM commworld_schema", [], |row| row.get(0))?;
        if version != VERSION {
            return Err(TableError::Version(version));
        }
        connection.execute_batch("COMMIT")?;
        let forgotten = Forgotten::default();
        let mut table = Table { connection, bounds, author, next: 0, records: 0, bytes: 0, forgotten };
        table.count()?;
        Ok(table)
    }

    /// Counts what there is.
    fn count(&mut self) -> rusqlite::Result<()> {
        let (records, bytes): (i64, i64) = self.connection.query_row(
            "SELECT count(*), coalesce(sum(bytes), 0) FROM commworld_tasks",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        let last: i64 = self.connection.query_row(
            "SELECT max(coalesce((SELECT max(number) FROM commworld_tasks), -1),
                        coalesce((SELECT max(ended) FROM commworld_tasks WHERE ended IS NOT NULL), -1))",
            [],
            |row| row.get(0),
        )?;
        (self.records, self.bytes, self.next) = (records as usize, bytes as u64, last + 1);
        Ok(())
    }

    /// Begins to gather changes.
    pub(crate) fn begin(&mut self) -> rusqlite::Result<()> {
        self.connection.execute_batch("BEGIN IMMEDIATE")
    }

    /// Puts what was gathered into the file.
    pub(crate) fn commit(&mut self) -> rusqlite::Result<()> {
        self.connection.execute_batch("COMMIT")
    }

    /// Takes back what was gathered.
    pub(crate) fn roll_back(&mut self) -> rusqlite::Result<()> {
        if !self.connection.is_autocommit() {
            self.connection.execute_batch("ROLLBACK")?;
        }
        self.count()
    }

    /// Makes what an earlier controller left fit this one: its bounds, and, unless this one goes on with them, an end
    /// for tasks that nobody will reply to any more.
    pub(crate) fn take_over(&mut self, today: Date, goes_on: bool) -> rusqlite::Result<()> {
        self.begin()?;
        if !goes_on {
            self.end_all(today)?;
        }
        self.make_room()?;
        self.commit()
    }

    fn end_all(&mut self, today: Date) -> rusqlite::Result<()> {
        let open: Vec<i64> = self
            .connection
            .prepare("SELECT number FROM commworld_tasks WHERE ended IS NULL")?
            .query_map([], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        if !open.is_empty() {
            tracing::info!(tasks = open.len(), "tasks of an earlier controller had not ended; they are lost");
        }
        let text = "the controller ended before this task did; submit it again";
        let error = Failure::from(ErrorContent::new(ename::ENGINE_ERROR, text));
        let content = serde_json::to_value(&error).expect("an error has text keys");
        let metadata = json!({ "status": "error", "engine_info": {} });
        for number in open {
            let task = self.task("number = ?", &[&number])?.expect("it was listed just now");
            let request = self.frames("requests", number, false)?;
            let msg_type: Json = serde_json::from_slice(request.header()).unwrap_or_default();
            let msg_type = msg_type["msg_type"].as_str().and_then(reply_type).unwrap_or_default();
            let reply = record::keep_answer(
                &self.author,
                today,
                &task.msg_id,
                msg_type,
                (&metadata, &content, &[]),
                self.bounds.message_bytes_max(),
            );
            self.on_ended(today, &task.msg_id, None, reply)?;
        }
        Ok(())
    }

    /// As on a full disk.
    #[cfg(test)]
    pub(super) fn limit_pages_for_tests(&self) {
        let pages: i64 =
            self.connection.query_row("PRAGMA page_count", [], |row| row.get(0)).expect("a number");
        self.connection
            .query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))
            .expect("a file may be limited to its size");
    }

    #[cfg(test)]
    fn check_invariants(&mut self) {
        let (records, bytes, next) = (self.records, self.bytes, self.next);
        assert!(records <= self.bounds.records && bytes <= self.bounds.bytes);
        self.count().expect("it can be read");
        assert_eq!((self.records, self.bytes), (records, bytes));
        assert!(self.next <= next);
        self.next = next;
        for table in ["requests", "replies", "texts"] {
            let statement = format!(
                "SELECT count(*) FROM commworld_{table} WHERE number NOT IN (SELECT number FROM commworld_tasks)"
            );
            let left: i64 =
                self.connection.query_row(&statement, [], |row| row.get(0)).expect("it can be read");
            assert_eq!(left, 0, "{table} of no record");
        }
    }
}

fn queue_named(name: &str) -> Queue {
    [Queue::Mux, Queue::Task].into_iter().find(|queue| queue.name() == name).unwrap_or(Queue::Broadcast)
}

#[cfg(test)]
mod tests;
