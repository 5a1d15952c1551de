//! What happens to tasks, as statements.

use protocol::Date;
use protocol::id::{EngineUuid, MsgId};
use rusqlite::{OptionalExtension as _, params};

use super::{Table, queue_named};
use crate::records::field::Value;
use crate::records::forgotten::Fate;
use crate::records::frames::Frames;
use crate::records::memory::speaker;
use crate::records::record::{self, Kind, Record};
use crate::records::{Change, Output, Queue};
impl Table {
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
            other => {
                debug_assert!(!other.is_recorded(), "a change of records is forgotten: {other:?}");
                Ok(())
            }
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
    pub(super) fn on_ended(
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
    pub(super) fn make_room(&mut self) -> rusqlite::Result<()> {
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

    pub(super) fn remove_named(&mut self, msg_id: &MsgId) -> rusqlite::Result<bool> {
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
}

fn text_of(value: &Value) -> Option<&str> {
    match value {
        Value::Json(json) => json.as_str(),
        Value::Date(_) => None,
    }
}
