//! From records to answers, the same whichever store has the records.

use std::borrow::Borrow;
use std::collections::BTreeSet;
use std::io;

use bytes::Bytes;
use protocol::Date;
use protocol::error::{ErrorContent, ename, python_repr};
use protocol::id::MsgId;
use protocol::limits::CONTENT_BYTES_MAX;
use protocol::message::hub::{DB_REPLY, HISTORY_REPLY, PURGE_REPLY, RESULT_REPLY};
use protocol::message::{Failure, StatusContent};
use serde_json::{Map, Value as Json, json};

use super::field::{Field, Value};
use super::forgotten::Fate;
use super::record::Record;
use super::{Answer, Question, StoredRequest};

/// Bytes of the buffers of one answer: what one client can be expected to want at once, and the controller to send.
const BUFFER_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// Bytes of the JSON of one answer: what receivers accept, less what stands around the records.
const JSON_BYTES_MAX: u64 = CONTENT_BYTES_MAX as u64 - 1024 * 1024;

/// The name of the error of a controller that keeps no records. Python has a class of that name, a kind of `KeyError`.
const NO_DATA: &str = "NoData";

/// Fields of a result, and their names within it.
const RESULT: [Field; 6] = [
    Field::Header,
    Field::Metadata,
    Field::ResultHeader,
    Field::ResultMetadata,
    Field::ResultContent,
    Field::Received,
];

/// What a task has said, which stands apart in a result.
const SAID: [Field; 5] =
    [Field::ExecuteInput, Field::ExecuteResult, Field::Error, Field::Stdout, Field::Stderr];

type Refusal = Box<ErrorContent>;

/// What became of a name.
#[derive(Debug)]
pub(crate) enum Found<R> {
    Record(R),
    Gone(Fate),
    Unknown,
}

/// The answer to `result_request`.
pub(crate) fn results<R: Borrow<Record>>(
    msg_ids: &[MsgId],
    pending: &[MsgId],
    status_only: bool,
    find: impl FnMut(&MsgId) -> Found<R>,
) -> Answer {
    reply(RESULT_REPLY, all_results(msg_ids, pending, status_only, find))
}

fn all_results<R: Borrow<Record>>(
    msg_ids: &[MsgId],
    pending: &[MsgId],
    status_only: bool,
    mut find: impl FnMut(&MsgId) -> Found<R>,
) -> Result<(Json, Vec<Bytes>), Refusal> {
    // Buffers are told apart by this order alone.
    let wanted: BTreeSet<&MsgId> = msg_ids.iter().collect();
    let pending: BTreeSet<&MsgId> = pending.iter().collect();
    let mut content = Map::new();
    let mut buffers = vec![];
    let mut room = Room::new();
    for msg_id in &wanted {
        let record = match find(msg_id) {
            Found::Record(record) => record,
            // It is no secret that it has ended; only how.
            Found::Gone(_) if status_only => continue,
            Found::Gone(fate) => return Err(gone(msg_id, fate)),
            Found::Unknown => return Err(key_error(format!("No such message: {msg_id}"))),
        };
        if status_only {
            continue;
        }
        let record = record.borrow();
        let Some(ending) = &record.ending else {
            return Err(key_error(format!(
                "The result of {msg_id} was not recorded: too much happened at once"
            )));
        };
        if ending.reply.has_lost_buffers() {
            return Err(key_error(format!("The result of {msg_id} {TOO_LARGE}")));
        }
        let mut result = record.to_json(RESULT);
        result.insert("io".to_owned(), Json::Object(record.to_json(SAID)));
        let result = Json::Object(result);
        room.take(&result, ending.reply.buffer_bytes())?;
        buffers.extend(ending.reply.buffers());
        content.insert(msg_id.to_string(), result);
    }
    // After the records: no task may be called like this.
    content.insert("status".to_owned(), json!("ok"));
    content.insert("pending".to_owned(), json!(pending));
    content.insert("completed".to_owned(), json!(wanted));
    Ok((Json::Object(content), buffers))
}

/// The answer to `history_request`. Records come in the order in which they were made, which decides between equal
/// dates.
pub(crate) fn history(records: impl IntoIterator<Item = (Date, MsgId)>) -> Answer {
    let mut records: Vec<(Date, MsgId)> = records.into_iter().collect();
    records.sort_by_key(|(submitted, _)| *submitted);
    let msg_ids: Vec<MsgId> = records.into_iter().map(|(_, msg_id)| msg_id).collect();
    reply(HISTORY_REPLY, Ok((json!({ "status": "ok", "history": msg_ids }), vec![])))
}

/// Which fields of a record are wanted.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    json: Vec<Field>,
    buffers: bool,
    result_buffers: bool,
}

impl Selection {
    /// None or no names at all: everything but the buffers. The name of a record is always wanted.
    pub(crate) fn parse(keys: Option<&[String]>) -> Result<Selection, Refusal> {
        let Some(keys) = keys.filter(|keys| !keys.is_empty()) else {
            let json = Field::ALL.into_iter().filter(|field| !field.is_buffers()).collect();
            return Ok(Selection { json, buffers: false, result_buffers: false });
        };
        let mut fields = BTreeSet::from([Field::MsgId]);
        for key in keys {
            let field = Field::named(key);
            fields.insert(field.ok_or_else(|| key_error(format!("No such field: {}", python_repr(key))))?);
        }
        Ok(Selection {
            buffers: fields.contains(&Field::Buffers),
            result_buffers: fields.contains(&Field::ResultBuffers),
            json: fields.into_iter().filter(|field| !field.is_buffers()).collect(),
        })
    }
}

/// The answer to `db_request`, record by record.
#[derive(Debug)]
pub(crate) struct Selected {
    selection: Selection,
    records: Vec<Json>,
    buffer_counts: Vec<usize>,
    result_buffer_counts: Vec<usize>,
    buffers: Vec<Bytes>,
    room: Room,
}

impl Selected {
    pub(crate) fn new(selection: Selection) -> Selected {
        Selected {
            selection,
            records: vec![],
            buffer_counts: vec![],
            result_buffer_counts: vec![],
            buffers: vec![],
            room: Room::new(),
        }
    }

    /// Takes the wanted parts of a record, if there is room.
    pub(crate) fn add(
        &mut self,
        value_of: impl FnMut(Field) -> Value,
        mut buffers_of: impl FnMut(Field) -> Vec<Bytes>,
    ) -> Result<(), Refusal> {
        let fields = self.selection.json.iter();
        let values = fields.clone().copied().map(value_of).map(Value::into_json);
        let json: Map<String, Json> = fields.map(|field| field.name().to_owned()).zip(values).collect();
        let mut of = |is_wanted: bool, field| if is_wanted { buffers_of(field) } else { vec![] };
        let buffers = of(self.selection.buffers, Field::Buffers);
        let result_buffers = of(self.selection.result_buffers, Field::ResultBuffers);
        let bytes = buffers.iter().chain(&result_buffers).map(|buffer| buffer.len() as u64).sum();
        let json = Json::Object(json);
        self.room.take(&json, bytes)?;
        self.records.push(json);
        self.buffer_counts.push(buffers.len());
        self.result_buffer_counts.push(result_buffers.len());
        self.buffers.extend(buffers.into_iter().chain(result_buffers));
        Ok(())
    }

    pub(crate) fn answer(self) -> Answer {
        let content = json!({
            "status": "ok",
            "records": self.records,
            "buffer_lens": self.selection.buffers.then_some(self.buffer_counts),
            "result_buffer_lens": self.selection.result_buffers.then_some(self.result_buffer_counts),
        });
        reply(DB_REPLY, Ok((content, self.buffers)))
    }
}

/// The answer to `purge_request`.
pub(crate) fn purged() -> Answer {
    reply(PURGE_REPLY, Ok((json_of(&StatusContent::OK), vec![])))
}

/// The requests of tasks, for `resubmit_request`.
pub(crate) fn requests<R: Borrow<Record>>(msg_ids: &[MsgId], find: impl FnMut(&MsgId) -> Found<R>) -> Answer {
    Answer::Requests(all_requests(msg_ids, find))
}

fn all_requests<R: Borrow<Record>>(
    msg_ids: &[MsgId],
    mut find: impl FnMut(&MsgId) -> Found<R>,
) -> Result<Vec<StoredRequest>, Refusal> {
    let (mut seen, mut unknown) = (BTreeSet::new(), vec![]);
    let (mut requests, mut refusal) = (vec![], None);
    let mut room = Room::new();
    for msg_id in msg_ids.iter().filter(|msg_id| seen.insert((*msg_id).clone())) {
        match find(msg_id) {
            Found::Record(record) => {
                let record: &Record = record.borrow();
                if record.request.has_lost_buffers() {
                    refusal.get_or_insert_with(|| key_error(format!("The request of {msg_id} {TOO_LARGE}")));
                    continue;
                }
                room.take_bytes(record.request.content().len() as u64, record.request.buffer_bytes())?;
                requests.push(StoredRequest {
                    msg_id: msg_id.clone(),
                    header: record.header_frame(),
                    content: Bytes::copy_from_slice(record.request.content()),
                    buffers: record.request.buffers().collect(),
                });
            }
            Found::Gone(fate) => {
                refusal.get_or_insert_with(|| gone(msg_id, fate));
            }
            Found::Unknown => unknown.push(python_repr(msg_id.as_str())),
        }
    }
    if !unknown.is_empty() {
        return Err(key_error(format!("No such msg(s): [{}]", unknown.join(", "))));
    }
    refusal.map_or(Ok(requests), Err)
}

/// What a controller says that keeps no records.
pub(crate) fn without_records(question: Question) -> Answer {
    let nothing_is_kept = || {
        let text = "this controller keeps no records of tasks (--nodb); start it without that flag to ask it for \
                    results, to query records and to submit tasks again";
        Refusal::from(ErrorContent::new(NO_DATA, text))
    };
    match question {
        Question::Results { msg_ids, pending, status_only } if msg_ids.is_empty() => {
            results(&[], &pending, status_only, |_| Found::<Record>::Unknown)
        }
        Question::Results { .. } => refused(RESULT_REPLY, nothing_is_kept()),
        Question::History => history([]),
        Question::Query { .. } => refused(DB_REPLY, nothing_is_kept()),
        Question::Purge { .. } => purged(),
        Question::Requests { .. } => Answer::Requests(Err(nothing_is_kept())),
    }
}

/// An answer that cannot be had, under the type that the question's own answer has.
pub(crate) fn refused(msg_type: &'static str, error: Refusal) -> Answer {
    reply(msg_type, Err(error))
}

const TOO_LARGE: &str = "was not kept: its buffers are more than a quarter of --db-bytes, or than 512 MiB; start the \
                         controller with more --db-bytes";

fn gone(msg_id: &MsgId, fate: Fate) -> Refusal {
    key_error(match fate {
        Fate::Dropped => format!(
            "No such message any more: {msg_id}, whose record was dropped to make room; start the controller with \
             more --db-records and --db-bytes to keep more"
        ),
        Fate::Purged => format!("No such message any more: {msg_id}, whose record was purged"),
    })
}

fn reply(msg_type: &'static str, outcome: Result<(Json, Vec<Bytes>), Refusal>) -> Answer {
    let (content, buffers) = outcome.unwrap_or_else(|error| (json_of(&Failure::from(*error)), vec![]));
    Answer::Reply { msg_type, content, buffers }
}

fn json_of(content: &impl serde::Serialize) -> Json {
    serde_json::to_value(content).expect("our message types are maps with text keys")
}

/// Python shows the argument of a `KeyError` in quotes.
fn key_error(text: impl AsRef<str>) -> Refusal {
    ErrorContent::new(ename::KEY_ERROR, python_repr(text.as_ref())).into()
}

/// How much more an answer may hold.
#[derive(Debug)]
struct Room {
    json: u64,
    buffers: u64,
}

impl Room {
    fn new() -> Room {
        Room { json: JSON_BYTES_MAX, buffers: BUFFER_BYTES_MAX }
    }

    fn take(&mut self, json: &Json, buffers: u64) -> Result<(), Refusal> {
        let mut counter = Counter(0);
        serde_json::to_writer(&mut counter, json).expect("counting cannot fail");
        self.take_bytes(counter.0, buffers)
    }

    fn take_bytes(&mut self, json: u64, buffers: u64) -> Result<(), Refusal> {
        match (self.json.checked_sub(json), self.buffers.checked_sub(buffers)) {
            (Some(json), Some(buffers)) => {
                *self = Room { json, buffers };
                Ok(())
            }
            (json, _) => {
                let what = if json.is_none() { "255 MiB of JSON" } else { "1 GiB of buffers" };
                let text = format!(
                    "the answer has more than {what}; ask for fewer records, or fewer of their fields"
                );
                Err(ErrorContent::new(ename::VALUE_ERROR, text).into())
            }
        }
    }
}

/// Counts what is written to it.
struct Counter(u64);

impl io::Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_a_bounded_size_of_which_every_byte_counts() {
        let mut room = Room { json: 10, buffers: 3 };
        room.take(&json!({ "a": 1 }), 3).expect("seven bytes of ten");
        let error = room.take(&json!([10]), 0).expect_err("four bytes of three");
        assert!(
            error.ename == "ValueError"
                && error.evalue.starts_with("the answer has more than 255 MiB of JSON")
        );
        room.take(&json!([1]), 0).expect("three bytes of three");
        assert!(room.take(&json!(1), 1).is_err());
    }
}
