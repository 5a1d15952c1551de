//! What clients ask, as statements: SQLite finds what it can, the query language of all stores decides.

use std::cell::{OnceCell, RefCell};
use std::fmt::Write as _;

use bytes::Bytes;
use protocol::Date;
use protocol::error::ErrorContent;
use protocol::id::{EngineUuid, MsgId};
use protocol::message::hub::DB_REPLY;
use rusqlite::types::Value as Sql;
use rusqlite::{OptionalExtension as _, Row, ToSql};
use serde_json::{Value as Json, json};

use super::{Table, queue_named};
use crate::records::answer::{self, Found, Selected, Selection};
use crate::records::field::{Field, Value};
use crate::records::forgotten::Fate;
use crate::records::frames::Frames;
use crate::records::query::{Comparison, Query, Test};
use crate::records::record::{Ending, Kind, Record, Texts};
use crate::records::{Answer, Purged, Question, Queue};

/// Values that SQLite takes beside one statement: a query that lists more is decided without its help.
const PARAMETERS_MAX: usize = 30_000;

/// All columns of a task but its sizes, as [`Task::read`] wants them.
const COLUMNS: &str = "number, msg_id, queue, assigned, came, submitted, client_uuid, label, engine_uuid, started, \
                       completed, received, resubmitted";

type Refusal = Box<ErrorContent>;
impl Table {
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

    pub(super) fn task(&self, condition: &str, parameters: &[&dyn ToSql]) -> rusqlite::Result<Option<Task>> {
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

    pub(super) fn frames(&self, table: &str, number: i64, with_buffers: bool) -> rusqlite::Result<Frames> {
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
pub(super) struct Task {
    number: i64,
    pub(super) msg_id: MsgId,
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

/// Tasks in order of their submission. The condition stands by itself: next to the order, SQLite would rather read all
/// tasks in that order than use an index and sort.
pub(super) fn selection_of(condition: &str) -> String {
    format!(
        "SELECT {COLUMNS} FROM commworld_tasks
            WHERE number IN (SELECT number FROM commworld_tasks WHERE {condition}) ORDER BY number"
    )
}

/// A condition that SQLite can decide, which is true of every task that the query wants and of few others.
pub(super) fn narrowed(query: &Query) -> (String, Vec<Sql>) {
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
