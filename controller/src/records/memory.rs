//! Records in memory: as many as the bounds allow, the oldest dropped first.
//!
//! The hot path of every task passes here three times, so a change costs a few look-ups and one copy.

use std::collections::{BTreeMap, HashMap};

use protocol::Date;
use protocol::error::ErrorContent;
use protocol::frames::WireMessage;
use protocol::id::{EngineUuid, MsgId, SessionId};
use protocol::message::hub::DB_REPLY;
use serde_json::{Map, Value as Json};

use super::answer::{self, Found, Selected, Selection};
use super::field::{Field, Value};
use super::forgotten::{Fate, Forgotten};
use super::frames::Frames;
use super::query::Query;
use super::record::{self, Bounds, Ending, Record, Texts};
use super::{Answer, Change, Output, Purged, Question, Queue};

/// The records of one controller's life.
#[derive(Debug)]
pub struct Memory {
    bounds: Bounds,
    /// The controller's session, in whose name it answers.
    author: SessionId,
    records: HashMap<MsgId, Box<Kept>>,
    /// What has not ended, by the number of its submission.
    open: BTreeMap<u64, MsgId>,
    /// What has, by the number of its end: what ended long ago goes first, however late it was submitted.
    ended: BTreeMap<u64, MsgId>,
    /// The next number.
    next: u64,
    /// What all records cost.
    bytes: u64,
    forgotten: Forgotten,
}

#[derive(Debug)]
struct Kept {
    submission: u64,
    end: Option<u64>,
    record: Record,
}

/// A query, and copies of the records that it may mean. Frames are shared, not copied.
#[derive(Debug)]
pub struct Search {
    query: Query,
    selection: Selection,
    candidates: Vec<Record>,
}

impl Search {
    /// How many records are looked at.
    pub(crate) fn records(&self) -> usize {
        self.candidates.len()
    }

    /// Looks at them. Long: a millisecond for thirty records.
    pub(crate) fn answer(self) -> Answer {
        let mut selected = Selected::new(self.selection);
        for record in &self.candidates {
            if self.query.matches(|field| record.value(field))
                && let Err(error) = selected.add(|field| record.value(field), |field| record.buffers(field))
            {
                return answer::refused(DB_REPLY, error);
            }
        }
        selected.answer()
    }
}

impl Memory {
    /// An empty store. `author` is the controller's session.
    pub fn new(bounds: Bounds, author: SessionId) -> Memory {
        Memory {
            bounds,
            author,
            records: HashMap::new(),
            open: BTreeMap::new(),
            ended: BTreeMap::new(),
            next: 0,
            bytes: 0,
            forgotten: Forgotten::default(),
        }
    }

    /// Notes what happened.
    pub fn remember(&mut self, today: Date, change: Change) {
        match change {
            Change::Submitted { msg_id, queue, engine, request, .. } => {
                self.on_submitted(today, msg_id, queue, engine, &request);
            }
            Change::Gathering { msg_id, request, .. } => {
                self.on_submitted(today, msg_id, Queue::Broadcast, None, &request);
            }
            Change::Assigned { msg_id, engine, .. } => {
                if let Some(kept) = self.records.get_mut(&msg_id) {
                    kept.record.engine = Some(engine);
                }
            }
            Change::Replied { msg_id, engine, reply, .. } => {
                let reply = record::keep(&reply, self.bounds.message_bytes_max());
                self.on_ended(today, &msg_id, Some(engine), reply);
            }
            Change::Answered { msg_id, engine, msg_type, metadata, content, buffers, .. } => {
                let bytes_max = self.bounds.message_bytes_max();
                let parts = (&metadata, &content, buffers.as_slice());
                let reply = record::keep_answer(&self.author, today, &msg_id, msg_type, parts, bytes_max);
                self.on_ended(today, &msg_id, engine, reply);
            }
            Change::Output { msg_id, output } => self.on_output(&msg_id, output),
            Change::Resubmitted { msg_id, anew } => {
                if let Some(kept) = self.records.get_mut(&msg_id) {
                    kept.record.resubmitted = Some(anew);
                }
            }
            other => debug_assert!(!other.is_recorded(), "a change of records is forgotten: {other:?}"),
        }
    }

    fn on_submitted(
        &mut self,
        today: Date,
        msg_id: MsgId,
        queue: Queue,
        engine: Option<EngineUuid>,
        request: &WireMessage,
    ) {
        let Some(request) = record::keep(request, self.bounds.message_bytes_max()) else {
            self.drop_record(&msg_id);
            return;
        };
        let submission = self.next;
        self.next += 1;
        self.bytes += Record::cost_at_first(&msg_id, &request);
        self.open.insert(submission, msg_id.clone());
        let record = Record {
            msg_id: msg_id.clone(),
            queue,
            engine,
            came: today,
            request,
            ending: None,
            texts: Texts::default(),
            resubmitted: None,
        };
        let before = self.records.insert(msg_id, Box::new(Kept { submission, end: None, record }));
        if let Some(before) = before {
            self.count_out(&before);
        }
        self.make_room();
    }

    /// The first end counts. A reply that is too large to keep takes its record with it.
    fn on_ended(&mut self, today: Date, msg_id: &MsgId, engine: Option<EngineUuid>, reply: Option<Frames>) {
        let end = self.next;
        let Some(kept) = self.records.get_mut(msg_id).filter(|kept| kept.end.is_none()) else { return };
        let Some(reply) = reply else {
            self.drop_record(msg_id);
            return;
        };
        self.next += 1;
        self.bytes += reply.cost();
        kept.end = Some(end);
        kept.record.ending = Some(Ending { received: today, reply });
        if engine.is_some() {
            kept.record.engine = engine;
        }
        if let Some(msg_id) = self.open.remove(&kept.submission) {
            self.ended.insert(end, msg_id);
        }
        self.make_room();
    }

    fn on_output(&mut self, msg_id: &MsgId, output: Output) {
        let Some(kept) =
            speaker(msg_id.as_str(), |name| self.records.get(name).map(|kept| kept.record.queue))
                .and_then(|name| self.records.get_mut(name))
        else {
            return;
        };
        let texts = &mut kept.record.texts;
        if let Some((kind, text)) = record::text_of(output, |kind| texts.bytes(kind)) {
            self.bytes -= texts.cost();
            texts.add(kind, &text);
            self.bytes += texts.cost();
            self.make_room();
        }
    }

    fn make_room(&mut self) {
        while self.records.len() > self.bounds.records || self.bytes > self.bounds.bytes {
            let oldest = self.ended.pop_first().or_else(|| self.open.pop_first());
            let Some((_, msg_id)) = oldest else { return };
            self.drop_record(&msg_id);
        }
    }

    fn drop_record(&mut self, msg_id: &MsgId) {
        self.remove(msg_id);
        self.forgotten.remember(msg_id, Fate::Dropped);
    }

    fn remove(&mut self, msg_id: &MsgId) -> bool {
        let Some(kept) = self.records.remove(msg_id) else { return false };
        self.count_out(&kept);
        true
    }

    /// Takes a record that is no longer there out of everything that counts it.
    fn count_out(&mut self, kept: &Kept) {
        match kept.end {
            Some(end) => self.ended.remove(&end),
            None => self.open.remove(&kept.submission),
        };
        self.bytes -= kept.record.cost();
    }

    /// Answers a question.
    pub fn ask(&mut self, question: Question) -> Answer {
        match question {
            Question::Results { msg_ids, pending, status_only } => {
                answer::results(&msg_ids, &pending, status_only, |msg_id| self.find(msg_id))
            }
            Question::History => answer::history(
                self.in_order()
                    .into_iter()
                    .map(|record| (record::submitted(&record.request, record.came), record.msg_id.clone())),
            ),
            Question::Query { query, keys } => match self.search(&query, keys.as_deref()) {
                Ok(search) => search.answer(),
                Err(error) => answer::refused(DB_REPLY, error),
            },
            Question::Purge { msg_ids, engines } => {
                self.purge(msg_ids, &engines);
                answer::purged()
            }
            Question::Requests { msg_ids } => answer::requests(&msg_ids, |msg_id| self.find(msg_id)),
        }
    }

    fn find(&self, msg_id: &MsgId) -> Found<&Record> {
        match (self.records.get(msg_id), self.forgotten.fate(msg_id)) {
            (Some(kept), _) => Found::Record(&kept.record),
            (None, Some(fate)) => Found::Gone(fate),
            (None, None) => Found::Unknown,
        }
    }

    /// All records in order of their submission.
    fn in_order(&self) -> Vec<&Record> {
        let mut kept: Vec<&Kept> = self.records.values().map(Box::as_ref).collect();
        kept.sort_unstable_by_key(|kept| kept.submission);
        kept.into_iter().map(|kept| &kept.record).collect()
    }

    /// What a query is about, as it is now.
    pub(crate) fn search(
        &self,
        query: &Map<String, Json>,
        keys: Option<&[String]>,
    ) -> Result<Search, Box<ErrorContent>> {
        let query = Query::parse(query)?;
        let selection = Selection::parse(keys)?;
        let candidates = match query.msg_ids() {
            Some(msg_ids) => {
                let mut kept: Vec<&Kept> =
                    msg_ids.into_iter().filter_map(|name| self.records.get(name)).map(Box::as_ref).collect();
                kept.sort_unstable_by_key(|kept| kept.submission);
                kept.into_iter().map(|kept| &kept.record).collect()
            }
            None => self.in_order(),
        };
        let candidates = candidates.into_iter().cloned().collect();
        Ok(Search { query, selection, candidates })
    }

    fn purge(&mut self, msg_ids: Purged, engines: &[EngineUuid]) {
        let mut names = match msg_ids {
            Purged::Finished => self.ended.values().cloned().collect(),
            Purged::These(msg_ids) => msg_ids,
        };
        if !engines.is_empty() {
            let ran_there = |record: &Record| match record.value(Field::EngineUuid) {
                Value::Json(Json::String(engine)) => engines.iter().any(|other| other.as_str() == engine),
                Value::Json(_) | Value::Date(_) => false,
            };
            let records = self.ended.values().filter_map(|msg_id| self.records.get(msg_id));
            names.extend(
                records
                    .map(|kept| &kept.record)
                    .filter(|record| ran_there(record))
                    .map(|record| record.msg_id.clone()),
            );
        }
        for msg_id in names {
            if self.remove(&msg_id) {
                self.forgotten.remember(&msg_id, Fate::Purged);
            }
        }
    }

    /// How many records there are, and what they cost.
    #[cfg(test)]
    pub(crate) fn size(&self) -> (usize, u64) {
        (self.records.len(), self.bytes)
    }

    #[cfg(test)]
    fn check_invariants(&self) {
        assert_eq!(self.bytes, self.records.values().map(|kept| kept.record.cost()).sum::<u64>());
        assert_eq!(self.records.len(), self.open.len() + self.ended.len());
        for (submission, msg_id) in &self.open {
            let kept = &self.records[msg_id];
            assert_eq!((kept.submission, kept.end, kept.record.ending.is_some()), (*submission, None, false));
        }
        for (end, msg_id) in &self.ended {
            let kept = &self.records[msg_id];
            assert_eq!((kept.end, kept.record.ending.is_some()), (Some(*end), true));
        }
        assert!(self.records.len() <= self.bounds.records && self.bytes <= self.bounds.bytes);
    }
}

/// Whose record gets the output of a task: its own, or that of the broadcast of which it is a share. Names of
/// shares are the broadcast's, an underscore, and the engine's.
pub(crate) fn speaker(name: &str, mut queue_of: impl FnMut(&str) -> Option<Queue>) -> Option<&str> {
    if queue_of(name).is_some() {
        return Some(name);
    }
    // Names of engines have no underscore as a rule; one that has a few is found too.
    let mut broadcasts = name.rmatch_indices('_').take(4).map(|(end, _)| &name[..end]);
    broadcasts.find(|name| queue_of(name) == Some(Queue::Broadcast))
}

#[cfg(test)]
mod tests;
