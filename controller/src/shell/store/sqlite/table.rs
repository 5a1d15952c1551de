//! Records in a SQLite file: the statements, and nothing that waits.
//!
//! What a record is, what it costs, what makes room first and what an answer says are as in
//! [`memory`](crate::records::memory); a test compares the two. Here are small columns for what can be found quickly,
//! and apart from them the frames, which are read only when they are wanted.

use std::cell::{OnceCell, RefCell};
use std::fmt::Write as _;
use std::path::Path;

use bytes::Bytes;
use protocol::Date;
use protocol::error::{ErrorContent, ename};
use protocol::id::{EngineUuid, MsgId, SessionId};
use protocol::message::Failure;
use protocol::message::hub::DB_REPLY;
use rusqlite::types::Value as Sql;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Row, ToSql, params};
use serde_json::{Value as Json, json};

use crate::machine::reply_type;
use crate::records::answer::{self, Found, Selected, Selection};
use crate::records::field::{Field, Value};
use crate::records::forgotten::{Fate, Forgotten};
use crate::records::frames::Frames;
use crate::records::memory::speaker;
use crate::records::query::{Comparison, Query, Test};
use crate::records::record::{self, Bounds, Ending, Kind, Record, Texts};
use crate::records::{Answer, Change, Output, Purged, Question, Queue};

/// How long a predecessor may take to let go of the file.
const LOCK_TIME: std::time::Duration = std::time::Duration::from_secs(1);

/// The form of our tables. Another one is not read.
const VERSION: i64 = 1;

/// Bytes of the log that goes before the file, once it was written back.
const LOG_BYTES_KEPT: i64 = 64 * 1024 * 1024;

/// Values that SQLite takes beside one statement: a query that lists more is decided without its help.
const PARAMETERS_MAX: usize = 30_000;

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

/// All columns of a task but its sizes, as [`Task::read`] wants them.
const COLUMNS: &str = "number, msg_id, queue, assigned, came, submitted, client_uuid, label, engine_uuid, started, \
                       completed, received, resubmitted";

type Refusal = Box<ErrorContent>;

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
            Some(rusqlite::ErrorCode::NotADatabase | rusqlite::ErrorCode::DatabaseCorrupt) => {
                TableError::Foreign(error)
            }
            _ => TableError::Other(error),
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

    /// Notes what happened.
    pub(crate) fn remember(&mut self, today: Date, change: Change) -> rusqlite::Result<()> {
        let bytes_max = self.bounds.message_bytes_max();
        match change {
            Change::Submitted { msg_id, queue, engine, request, .. } => {
                let request = record::keep(&request, bytes_max);
                self.on_submitted(today, &msg_id, queue, engine.as_ref(), request)
            }
            Change::Gathering { msg_id, request, .. } => {
                let request = record::keep(&request, bytes_max);
                self.on_submitted(today, &msg_id, Queue::Broadcast, None, request)
            }
            Change::Assigned { msg_id, engine, .. } => self.on_assigned(&msg_id, &engine),
            Change::Replied { msg_id, engine, reply, .. } => {
                let reply = record::keep(&reply, bytes_max);
                self.on_ended(today, &msg_id, Some(engine), reply)
            }
            Change::Answered { msg_id, engine, msg_type, metadata, content, buffers, .. } => {
                let parts = (&metadata, &content, buffers.as_slice());
                let reply = record::keep_answer(&self.author, today, &msg_id, msg_type, parts, bytes_max);
                self.on_ended(today, &msg_id, engine, reply)
            }
            Change::Output { msg_id, output } => self.on_output(&msg_id, output),
            Change::Resubmitted { msg_id, anew } => self
                .run(
                    "UPDATE commworld_tasks SET resubmitted = ? WHERE msg_id = ?",
                    params![anew.as_str(), msg_id.as_str()],
                )
                .map(drop),
            Change::Shared { .. }
            | Change::Gathered { .. }
            | Change::Returned { .. }
            | Change::Asked { .. }
            | Change::Told { .. }
            | Change::Noted { .. }
            | Change::Missed { .. }
            | Change::Ended { .. }
            | Change::Joined { .. }
            | Change::Left { .. } => Ok(()),
        }
    }

    fn on_submitted(
        &mut self,
        today: Date,
        msg_id: &MsgId,
        queue: Queue,
        engine: Option<&EngineUuid>,
        request: Option<Frames>,
    ) -> rusqlite::Result<()> {
        self.remove_named(msg_id)?;
        let Some(request) = request else {
            self.forgotten.remember(msg_id, Fate::Dropped);
            return Ok(());
        };
        let (number, cost) = (self.number(), Record::cost_at_first(msg_id, &request));
        let engine = engine.map(EngineUuid::as_str);
        self.run(
            "INSERT INTO commworld_tasks (number, msg_id, queue, assigned, engine_uuid, came, submitted, client_uuid,
                label, bytes) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            params![
                number,
                msg_id.as_str(),
                queue.name(),
                engine,
                engine,
                today.micros(),
                record::submitted(&request, today).micros(),
                text_of(&record::client_uuid(&request)),
                record::label(&request).to_string(),
                cost as i64,
            ],
        )?;
        let (json, buffers) = request.to_blobs();
        self.run(
            "INSERT INTO commworld_requests VALUES (?, ?, ?)",
            params![number, &json[..], &buffers[..]],
        )?;
        self.records += 1;
        self.bytes += cost;
        self.make_room()
    }

    fn on_assigned(&mut self, msg_id: &MsgId, engine: &EngineUuid) -> rusqlite::Result<()> {
        let Some((number, ended)) = self.place_of(msg_id.as_str())? else { return Ok(()) };
        let reply = if ended.is_some() { Some(self.frames("replies", number, false)?) } else { None };
        let engine_uuid = record::engine_uuid(reply.as_ref(), Some(engine));
        self.run(
            "UPDATE commworld_tasks SET assigned = ?, engine_uuid = ? WHERE number = ?",
            params![engine.as_str(), engine_uuid.as_ref().map(EngineUuid::as_str), number],
        )?;
        Ok(())
    }

    /// The first end counts. A reply that is too large to keep takes its record with it.
    fn on_ended(
        &mut self,
        today: Date,
        msg_id: &MsgId,
        engine: Option<EngineUuid>,
        reply: Option<Frames>,
    ) -> rusqlite::Result<()> {
        let known = "SELECT number, assigned FROM commworld_tasks WHERE msg_id = ? AND ended IS NULL";
        let found: Option<(i64, Option<String>)> = self
            .connection
            .prepare_cached(known)?
            .query_row([msg_id.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let Some((number, assigned)) = found else { return Ok(()) };
        let Some(reply) = reply else {
            self.remove_named(msg_id)?;
            self.forgotten.remember(msg_id, Fate::Dropped);
            return Ok(());
        };
        let end = self.number();
        let assigned = engine.or(assigned.map(EngineUuid::from));
        let engine_uuid = record::engine_uuid(Some(&reply), assigned.as_ref());
        self.run(
            "UPDATE commworld_tasks SET ended = ?, assigned = ?, engine_uuid = ?, started = ?, completed = ?,
                received = ?, bytes = bytes + ? WHERE number = ?",
            params![
                end,
                assigned.as_ref().map(EngineUuid::as_str),
                engine_uuid.as_ref().map(EngineUuid::as_str),
                record::started(&reply).map(Date::micros),
                record::completed(&reply, today).micros(),
                today.micros(),
                reply.cost() as i64,
                number,
            ],
        )?;
        let (json, buffers) = reply.to_blobs();
        self.run("INSERT INTO commworld_replies VALUES (?, ?, ?)", params![number, &json[..], &buffers[..]])?;
        self.bytes += reply.cost();
        self.make_room()
    }

    fn on_output(&mut self, msg_id: &MsgId, output: Output) -> rusqlite::Result<()> {
        let mut failure = None;
        let name = speaker(msg_id.as_str(), |name| {
            self.queue_of(name).unwrap_or_else(|error| {
                failure = Some(error);
                None
            })
        });
        if let Some(error) = failure {
            return Err(error);
        }
        let Some(name) = name else { return Ok(()) };
        let (number, stdout, stderr): (i64, i64, i64) = self
            .connection
            .prepare_cached(
                "SELECT number, stdout_bytes, stderr_bytes FROM commworld_tasks WHERE msg_id = ?",
            )?
            .query_row([name], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        let kept = |kind: Kind| match kind {
            Kind::Stdout => stdout as usize,
            Kind::Stderr => stderr as usize,
            Kind::Input | Kind::Result | Kind::Error => 0,
        };
        let Some((kind, text)) = record::text_of(output, kept) else { return Ok(()) };
        let mut growth = text.len() as i64;
        if !kind.is_stream() {
            let replaced =
                "DELETE FROM commworld_texts WHERE number = ? AND kind = ? RETURNING octet_length(text)";
            let before: Option<i64> = self
                .connection
                .prepare_cached(replaced)?
                .query_row(params![number, kind as i64], |row| row.get(0))
                .optional()?;
            growth -= before.unwrap_or(0);
        }
        self.run(
            "INSERT INTO commworld_texts (number, kind, text) VALUES (?, ?, ?)",
            params![number, kind as i64, text],
        )?;
        let in_stream = |of: Kind| if kind == of { text.len() as i64 } else { 0 };
        self.run(
            "UPDATE commworld_tasks SET stdout_bytes = stdout_bytes + ?, stderr_bytes = stderr_bytes + ?,
                bytes = bytes + ? WHERE number = ?",
            params![in_stream(Kind::Stdout), in_stream(Kind::Stderr), growth, number],
        )?;
        self.bytes = self.bytes.saturating_add_signed(growth);
        self.make_room()
    }

    fn number(&mut self) -> i64 {
        self.next += 1;
        self.next - 1
    }

    /// What ended longest ago goes first; if nothing has ended, what was submitted longest ago.
    fn make_room(&mut self) -> rusqlite::Result<()> {
        while self.records > self.bounds.records || self.bytes > self.bounds.bytes {
            let ended = "SELECT msg_id FROM commworld_tasks WHERE ended IS NOT NULL ORDER BY ended LIMIT 1";
            let open = "SELECT msg_id FROM commworld_tasks WHERE ended IS NULL ORDER BY number LIMIT 1";
            let first = |statement: &str| -> rusqlite::Result<Option<String>> {
                self.connection.prepare_cached(statement)?.query_row([], |row| row.get(0)).optional()
            };
            let oldest = match first(ended)? {
                Some(oldest) => Some(oldest),
                None => first(open)?,
            };
            let Some(oldest) = oldest.map(MsgId::from) else { break };
            self.remove_named(&oldest)?;
            self.forgotten.remember(&oldest, Fate::Dropped);
        }
        Ok(())
    }

    fn remove_named(&mut self, msg_id: &MsgId) -> rusqlite::Result<bool> {
        let removed: Option<(i64, i64)> = self
            .connection
            .prepare_cached("DELETE FROM commworld_tasks WHERE msg_id = ? RETURNING number, bytes")?
            .query_row([msg_id.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let Some((number, bytes)) = removed else { return Ok(false) };
        self.run("DELETE FROM commworld_requests WHERE number = ?", [number])?;
        self.run("DELETE FROM commworld_replies WHERE number = ?", [number])?;
        self.run("DELETE FROM commworld_texts WHERE number = ?", [number])?;
        self.records -= 1;
        self.bytes = self.bytes.saturating_sub(bytes as u64);
        Ok(true)
    }

    fn run(&self, statement: &str, parameters: impl rusqlite::Params) -> rusqlite::Result<usize> {
        self.connection.prepare_cached(statement)?.execute(parameters)
    }

    fn place_of(&self, name: &str) -> rusqlite::Result<Option<(i64, Option<i64>)>> {
        self.connection
            .prepare_cached("SELECT number, ended FROM commworld_tasks WHERE msg_id = ?")?
            .query_row([name], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()
    }

    fn queue_of(&self, name: &str) -> rusqlite::Result<Option<Queue>> {
        self.connection
            .prepare_cached("SELECT queue FROM commworld_tasks WHERE msg_id = ?")?
            .query_row([name], |row| Ok(queue_named(row.get_ref(0)?.as_str()?)))
            .optional()
    }

    /// Answers a question.
    pub(crate) fn ask(&mut self, question: Question) -> rusqlite::Result<Answer> {
        Ok(match question {
            Question::Results { msg_ids, pending, status_only } => {
                let parts = if status_only { Parts::NONE } else { Parts::RESULT };
                let mut failure = None;
                let answer = answer::results(&msg_ids, &pending, status_only, |msg_id| {
                    caught(self.find(msg_id, parts), &mut failure)
                });
                failure.map_or(Ok(answer), Err)?
            }
            Question::History => {
                let mut statement = self.connection.prepare_cached(
                    "SELECT submitted, msg_id FROM commworld_tasks ORDER BY submitted, number",
                )?;
                let rows = statement.query_map([], |row| {
                    Ok((Date::from_micros(row.get(0)?), MsgId::from(row.get::<_, String>(1)?)))
                })?;
                answer::history(rows.collect::<Result<Vec<_>, _>>()?)
            }
            Question::Query { query, keys } => {
                match (Query::parse(&query), Selection::parse(keys.as_deref())) {
                    (Ok(query), Ok(selection)) => self.select(&query, selection)?,
                    (Err(error), _) | (_, Err(error)) => answer::refused(DB_REPLY, error),
                }
            }
            Question::Purge { msg_ids, engines } => {
                self.purge(msg_ids, &engines)?;
                answer::purged()
            }
            Question::Requests { msg_ids } => {
                let mut failure = None;
                let answer = answer::requests(&msg_ids, |msg_id| {
                    caught(self.find(msg_id, Parts::REQUEST), &mut failure)
                });
                failure.map_or(Ok(answer), Err)?
            }
        })
    }

    fn find(&self, msg_id: &MsgId, parts: Parts) -> rusqlite::Result<Found<Record>> {
        Ok(match self.task("msg_id = ?", &[&msg_id.as_str()])? {
            Some(task) => Found::Record(self.record(&task, parts)?),
            None => self.forgotten.fate(msg_id).map_or(Found::Unknown, Found::Gone),
        })
    }

    fn select(&self, query: &Query, selection: Selection) -> rusqlite::Result<Answer> {
        let mut selected = Selected::new(selection);
        let refusal = match query.msg_ids() {
            Some(names) => {
                let mut tasks = vec![];
                for name in names {
                    tasks.extend(self.task("msg_id = ?", &[&name])?);
                }
                tasks.sort_unstable_by_key(|task| task.number);
                self.take(query, &mut selected, tasks.into_iter().map(Ok))?
            }
            None => {
                let (condition, parameters) = narrowed(query);
                let mut statement = self.connection.prepare(&selection_of(&condition))?;
                let rows = statement.query_map(rusqlite::params_from_iter(parameters), Task::read)?;
                self.take(query, &mut selected, rows)?
            }
        };
        Ok(refusal.map_or_else(|| selected.answer(), |error| answer::refused(DB_REPLY, error)))
    }

    /// Takes what matches; says why no more can be taken.
    fn take(
        &self,
        query: &Query,
        selected: &mut Selected,
        tasks: impl Iterator<Item = rusqlite::Result<Task>>,
    ) -> rusqlite::Result<Option<Refusal>> {
        for task in tasks {
            let task = task?;
            let view =
                View { table: self, task: &task, record: OnceCell::new(), failure: RefCell::new(None) };
            let is_wanted = query.matches(|field| view.value(field));
            let taken = if is_wanted {
                selected.add(|field| view.value(field), |field| view.buffers(field))
            } else {
                Ok(())
            };
            if let Some(error) = view.failure.into_inner() {
                return Err(error);
            }
            if let Err(refusal) = taken {
                return Ok(Some(refusal));
            }
        }
        Ok(None)
    }

    fn purge(&mut self, msg_ids: Purged, engines: &[EngineUuid]) -> rusqlite::Result<()> {
        let mut names = match msg_ids {
            Purged::Finished => self.names("ended IS NOT NULL", &[])?,
            Purged::These(msg_ids) => msg_ids,
        };
        for engine in engines {
            names.extend(self.names("engine_uuid = ? AND ended IS NOT NULL", &[&engine.as_str()])?);
        }
        for msg_id in names {
            if self.remove_named(&msg_id)? {
                self.forgotten.remember(&msg_id, Fate::Purged);
            }
        }
        Ok(())
    }

    fn names(&self, condition: &str, parameters: &[&dyn ToSql]) -> rusqlite::Result<Vec<MsgId>> {
        let statement = format!("SELECT msg_id FROM commworld_tasks WHERE {condition}");
        let mut statement = self.connection.prepare_cached(&statement)?;
        let names = statement.query_map(parameters, |row| row.get::<_, String>(0).map(MsgId::from))?;
        names.collect()
    }

    fn task(&self, condition: &str, parameters: &[&dyn ToSql]) -> rusqlite::Result<Option<Task>> {
        let statement = format!("SELECT {COLUMNS} FROM commworld_tasks WHERE {condition}");
        self.connection.prepare_cached(&statement)?.query_row(parameters, Task::read).optional()
    }

    fn record(&self, task: &Task, parts: Parts) -> rusqlite::Result<Record> {
        let part = |table: &str, wanted: Option<WithBuffers>| match wanted {
            Some(WithBuffers(buffers)) => self.frames(table, task.number, buffers),
            None => Ok(Frames::empty()),
        };
        let ending = match task.received {
            Some(received) => Some(Ending { received, reply: part("replies", parts.reply)? }),
            None => None,
        };
        Ok(Record {
            msg_id: task.msg_id.clone(),
            queue: task.queue,
            engine: task.assigned.clone(),
            came: task.came,
            request: part("requests", parts.request)?,
            ending,
            texts: if parts.texts { self.texts(task.number)? } else { Texts::default() },
            resubmitted: task.resubmitted.clone(),
        })
    }

    fn frames(&self, table: &str, number: i64, with_buffers: bool) -> rusqlite::Result<Frames> {
        let buffers = if with_buffers { "buffers" } else { "NULL" };
        let statement = format!("SELECT json, {buffers} FROM commworld_{table} WHERE number = ?");
        let (json, buffers) = self
            .connection
            .prepare_cached(&statement)?
            .query_row([number], |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, Option<Vec<u8>>>(1)?)))?;
        Frames::from_blobs(json, buffers).ok_or_else(|| {
            let text = format!("the {table} of record {number} are damaged");
            rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Blob, text.into())
        })
    }

    fn texts(&self, number: i64) -> rusqlite::Result<Texts> {
        let mut texts = Texts::default();
        let mut statement = self
            .connection
            .prepare_cached("SELECT kind, text FROM commworld_texts WHERE number = ? ORDER BY place")?;
        let mut rows = statement.query([number])?;
        while let Some(row) = rows.next()? {
            let kind: u8 = row.get(0)?;
            if let Some(kind) = Kind::ALL.get(usize::from(kind)) {
                texts.add(*kind, row.get_ref(1)?.as_str()?);
            }
        }
        Ok(texts)
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

/// A failure where an answer asks for records: it is kept, and the answer thrown away.
fn caught<T>(found: rusqlite::Result<Found<T>>, failure: &mut Option<rusqlite::Error>) -> Found<T> {
    found.unwrap_or_else(|error| {
        failure.get_or_insert(error);
        Found::Unknown
    })
}

/// Frames, and whether their buffers are wanted too.
#[derive(Clone, Copy)]
struct WithBuffers(bool);

/// What of a record is to be read beside its columns.
#[derive(Clone, Copy)]
struct Parts {
    request: Option<WithBuffers>,
    reply: Option<WithBuffers>,
    texts: bool,
}

impl Parts {
    const NONE: Parts = Parts { request: None, reply: None, texts: false };
    const REQUEST: Parts = Parts { request: Some(WithBuffers(true)), ..Parts::NONE };
    const RESULT: Parts =
        Parts { request: Some(WithBuffers(false)), reply: Some(WithBuffers(true)), texts: true };
    const JSON: Parts =
        Parts { request: Some(WithBuffers(false)), reply: Some(WithBuffers(false)), texts: true };
}

/// The columns of a task.
struct Task {
    number: i64,
    msg_id: MsgId,
    queue: Queue,
    assigned: Option<EngineUuid>,
    came: Date,
    submitted: Date,
    client_uuid: Option<String>,
    label: String,
    engine_uuid: Option<String>,
    started: Option<Date>,
    completed: Option<Date>,
    received: Option<Date>,
    resubmitted: Option<MsgId>,
}

impl Task {
    fn read(row: &Row<'_>) -> rusqlite::Result<Task> {
        let date = |column: usize| -> rusqlite::Result<Option<Date>> {
            Ok(row.get::<_, Option<i64>>(column)?.map(Date::from_micros))
        };
        Ok(Task {
            number: row.get(0)?,
            msg_id: row.get::<_, String>(1)?.into(),
            queue: queue_named(row.get_ref(2)?.as_str()?),
            assigned: row.get::<_, Option<String>>(3)?.map(EngineUuid::from),
            came: Date::from_micros(row.get(4)?),
            submitted: Date::from_micros(row.get(5)?),
            client_uuid: row.get(6)?,
            label: row.get(7)?,
            engine_uuid: row.get(8)?,
            started: date(9)?,
            completed: date(10)?,
            received: date(11)?,
            resubmitted: row.get::<_, Option<String>>(12)?.map(MsgId::from),
        })
    }

    /// What the columns know; `None` for what only the frames do.
    fn value(&self, field: Field) -> Option<Value> {
        let text = |text: &Option<String>| text.as_ref().map_or(Value::NULL, Value::text);
        let is_there = |is_there: bool| if is_there { Value::Json(json!([])) } else { Value::NULL };
        Some(match field {
            Field::MsgId => Value::text(self.msg_id.as_str()),
            Field::Queue => Value::text(self.queue.name()),
            Field::Submitted => Value::Date(self.submitted),
            Field::ClientUuid => text(&self.client_uuid),
            Field::EngineUuid => text(&self.engine_uuid),
            Field::Started => Value::date(self.started),
            Field::Completed => Value::date(self.completed),
            Field::Received => Value::date(self.received),
            Field::Resubmitted => {
                self.resubmitted.as_ref().map_or(Value::NULL, |name| Value::text(name.as_str()))
            }
            Field::Label => Value::Json(serde_json::from_str(&self.label).unwrap_or_default()),
            Field::Buffers => is_there(true),
            Field::ResultBuffers => is_there(self.received.is_some()),
            Field::Header
            | Field::Metadata
            | Field::Content
            | Field::ResultHeader
            | Field::ResultMetadata
            | Field::ResultContent
            | Field::ExecuteInput
            | Field::ExecuteResult
            | Field::Error
            | Field::Stdout
            | Field::Stderr => return None,
        })
    }
}

/// A record that is being looked at: its frames are read when they are wanted.
struct View<'a> {
    table: &'a Table,
    task: &'a Task,
    record: OnceCell<Record>,
    /// Why something could not be read: what is looked at is null instead, and thrown away.
    failure: RefCell<Option<rusqlite::Error>>,
}

impl View<'_> {
    fn value(&self, field: Field) -> Value {
        if let Some(value) = self.task.value(field) {
            return value;
        }
        if self.record.get().is_none() {
            match self.table.record(self.task, Parts::JSON) {
                Ok(record) => drop(self.record.set(record)),
                Err(error) => drop(self.failure.replace(Some(error))),
            }
        }
        self.record.get().map_or(Value::NULL, |record| record.value(field))
    }

    fn buffers(&self, field: Field) -> Vec<Bytes> {
        let table = match field {
            Field::ResultBuffers if self.task.received.is_none() => return vec![],
            Field::ResultBuffers => "replies",
            _ => "requests",
        };
        match self.table.frames(table, self.task.number, true) {
            Ok(frames) => frames.buffers().collect(),
            Err(error) => {
                self.failure.replace(Some(error));
                vec![]
            }
        }
    }
}

fn text_of(value: &Value) -> Option<&str> {
    match value {
        Value::Json(json) => json.as_str(),
        Value::Date(_) => None,
    }
}

fn queue_named(name: &str) -> Queue {
    [Queue::Mux, Queue::Task].into_iter().find(|queue| queue.name() == name).unwrap_or(Queue::Broadcast)
}

/// Tasks in order of their submission. The condition stands by itself: next to the order, SQLite would rather read all
/// tasks in that order than use an index and sort.
fn selection_of(condition: &str) -> String {
    format!(
        "SELECT {COLUMNS} FROM commworld_tasks
            WHERE number IN (SELECT number FROM commworld_tasks WHERE {condition}) ORDER BY number"
    )
}

/// A condition that SQLite can decide, which is true of every task that the query wants and of few others.
fn narrowed(query: &Query) -> (String, Vec<Sql>) {
    let (mut condition, mut parameters) = ("TRUE".to_owned(), vec![]);
    for (field, test) in query.conditions() {
        let Some(column) = column(field) else { continue };
        let sql = |value: &Value| match value {
            Value::Date(date) if field.is_date() => Some(Sql::Integer(date.micros())),
            Value::Json(Json::String(text)) if !field.is_date() => Some(Sql::Text(text.clone())),
            Value::Json(Json::Null) => Some(Sql::Null),
            _ => None,
        };
        let added = match test {
            Test::Equals(value) if value.is_null() => Some(("IS NULL", vec![])),
            Test::Equals(value) => sql(value).map(|value| ("= ?", vec![value])),
            Test::Ordered(comparison, value) => sql(value).map(|value| {
                let operator = match comparison {
                    Comparison::Less => "< ?",
                    Comparison::LessOrEqual => "<= ?",
                    Comparison::Greater => "> ?",
                    Comparison::GreaterOrEqual => ">= ?",
                };
                (operator, vec![value])
            }),
            Test::In(values) if values.len() <= PARAMETERS_MAX && !values.contains(&Value::NULL) => {
                values.iter().map(sql).collect::<Option<Vec<Sql>>>().map(|values| ("IN", values))
            }
            Test::Exists(true) => Some(("IS NOT NULL", vec![])),
            Test::Exists(false) => Some(("IS NULL", vec![])),
            Test::Differs(value) if value.is_null() => Some(("IS NOT NULL", vec![])),
            _ => None,
        };
        if let Some((operator, mut values)) = added
            && parameters.len() + values.len() <= PARAMETERS_MAX
        {
            write!(condition, " AND {column} {operator}").expect("a string takes what is written to it");
            if operator == "IN" {
                let marks = vec!["?"; values.len()].join(", ");
                write!(condition, " ({marks})").expect("a string takes what is written to it");
            }
            parameters.append(&mut values);
        }
    }
    (condition, parameters)
}

/// The column that has exactly what a field holds.
fn column(field: Field) -> Option<&'static str> {
    match field {
        Field::Queue
        | Field::Submitted
        | Field::ClientUuid
        | Field::EngineUuid
        | Field::Started
        | Field::Completed
        | Field::Received
        | Field::Resubmitted => Some(field.name()),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
