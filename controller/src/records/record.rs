//! One task's record: frames as they came, and its 23 fields when somebody asks for them.

use bytes::Bytes;
use protocol::Date;
use protocol::frames::WireMessage;
use protocol::header::{Header, PROTOCOL_VERSION};
use protocol::id::{EngineUuid, MsgId, SessionId};
use serde::Deserialize;
use serde_json::{Map, Value as Json, json};

use super::field::{Field, Value};
use super::frames::Frames;
use super::{Output, Queue};

/// Bytes of standard output, of standard error, of code, of a displayed result or of an error that a record keeps.
/// A client has had all of it already; the record is for those who were not there.
const TEXT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Ends a text that was longer.
const CUT: &str = "\n[more was said than a record keeps: 4 MiB]\n";

/// What a record costs beside its frames and texts: itself, its places in tables and queues, and their slack.
const RECORD_OVERHEAD: u64 = 640;

/// How much a store keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Records.
    pub records: usize,
    /// Bytes of all records, everything counted.
    pub bytes: u64,
}

impl Bounds {
    /// No message is kept with more buffers than this, whatever the bounds: a cell of a SQLite file holds a
    /// gigabyte at most.
    const MESSAGE_BYTES_MAX: u64 = 512 * 1024 * 1024;

    /// In memory, unless told otherwise.
    pub const MEMORY: Bounds = Bounds { records: 10_000, bytes: 16 * 1024 * 1024 };

    /// In a file, unless told otherwise.
    pub const FILE: Bounds = Bounds { records: 1_000_000, bytes: 4 * 1024 * 1024 * 1024 };

    /// Bytes of the buffers of one request or one reply: one task must not push out all others.
    pub(crate) fn message_bytes_max(self) -> usize {
        (self.bytes / 4).min(Bounds::MESSAGE_BYTES_MAX) as usize
    }
}

/// One task, from its submission on.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Record {
    pub(crate) msg_id: MsgId,
    pub(crate) queue: Queue,
    /// Where it runs or ran, as far as the controller knows.
    pub(crate) engine: Option<EngineUuid>,
    /// When it came: the date of requests that have none of their own.
    pub(crate) came: Date,
    pub(crate) request: Frames,
    pub(crate) ending: Option<Ending>,
    pub(crate) texts: Texts,
    /// Its latest name since.
    pub(crate) resubmitted: Option<MsgId>,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ending {
    /// When that came.
    pub(crate) received: Date,
    pub(crate) reply: Frames,
}

/// What a task said while it ran. Most say nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Texts(Option<Box<[Option<String>; 5]>>);

/// Which text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Stdout,
    Stderr,
    /// Code.
    Input,
    /// JSON.
    Result,
    /// JSON.
    Error,
}

impl Kind {
    pub(crate) const ALL: [Kind; 5] = [Kind::Stdout, Kind::Stderr, Kind::Input, Kind::Result, Kind::Error];

    /// Whether more of it goes behind what is there; else it takes its place.
    pub(crate) fn is_stream(self) -> bool {
        matches!(self, Kind::Stdout | Kind::Stderr)
    }
}

impl Record {
    /// What a record costs before its task has ended or said anything.
    pub(crate) fn cost_at_first(msg_id: &MsgId, request: &Frames) -> u64 {
        RECORD_OVERHEAD + msg_id.as_str().len() as u64 + request.cost()
    }

    /// What it costs to keep it, everything counted.
    pub(crate) fn cost(&self) -> u64 {
        Record::cost_at_first(&self.msg_id, &self.request)
            + self.ending.as_ref().map_or(0, |ending| ending.reply.cost())
            + self.texts.cost()
    }

    /// What a query compares, and an answer shows.
    pub(crate) fn value(&self, field: Field) -> Value {
        let reply = self.ending.as_ref().map(|ending| &ending.reply);
        let of_reply = |part: fn(&Frames) -> &[u8]| Value::Json(reply.map(part).map_or(Json::Null, parse));
        // Buffers are not JSON: they travel beside it. Here they are there, or not.
        let are_there = |frames: Option<&Frames>| Value::Json(frames.map_or(Json::Null, |_| json!([])));
        match field {
            Field::MsgId => Value::text(self.msg_id.as_str()),
            Field::Header => Value::Json(self.header()),
            Field::Metadata => Value::Json(parse(self.request.metadata())),
            Field::Content => Value::Json(parse(self.request.content())),
            Field::Buffers => are_there(Some(&self.request)),
            Field::Submitted => Value::Date(submitted(&self.request, self.came)),
            Field::ClientUuid => client_uuid(&self.request),
            Field::EngineUuid => {
                text_or_null(engine_uuid(reply, self.engine.as_ref()).as_ref().map(EngineUuid::as_str))
            }
            Field::Started => Value::date(reply.and_then(started)),
            Field::Completed => {
                Value::date(self.ending.as_ref().map(|ending| completed(&ending.reply, ending.received)))
            }
            Field::Resubmitted => text_or_null(self.resubmitted.as_ref().map(MsgId::as_str)),
            Field::Received => Value::date(self.ending.as_ref().map(|ending| ending.received)),
            Field::ResultHeader => of_reply(Frames::header),
            Field::ResultMetadata => of_reply(Frames::metadata),
            Field::ResultContent => of_reply(Frames::content),
            Field::ResultBuffers => are_there(reply),
            Field::Queue => Value::text(self.queue.name()),
            Field::ExecuteInput => text_or_null(self.texts.get(Kind::Input)),
            Field::ExecuteResult => {
                self.texts.get(Kind::Result).map_or(Value::NULL, |text| Value::Json(parse(text.as_bytes())))
            }
            Field::Error => {
                self.texts.get(Kind::Error).map_or(Value::NULL, |text| Value::Json(parse(text.as_bytes())))
            }
            Field::Stdout => Value::text(self.texts.get(Kind::Stdout).unwrap_or_default()),
            Field::Stderr => Value::text(self.texts.get(Kind::Stderr).unwrap_or_default()),
            Field::Label => Value::Json(label(&self.request)),
        }
    }

    /// The request's header, under the task's own name.
    fn header(&self) -> Json {
        let mut header = parse(self.request.header());
        if let Json::Object(header) = &mut header {
            header.insert("msg_id".to_owned(), json!(self.msg_id));
        }
        header
    }

    /// The same as a frame: as it came, where the name is the same.
    pub(crate) fn header_frame(&self) -> Bytes {
        match read::<Named>(self.request.header()).msg_id {
            Json::String(name) if name == self.msg_id.as_str() => {
                Bytes::copy_from_slice(self.request.header())
            }
            _ => to_bytes(&self.header()),
        }
    }

    /// The fields that an answer carries as JSON, by name.
    pub(crate) fn to_json(&self, fields: impl IntoIterator<Item = Field>) -> Map<String, Json> {
        fields.into_iter().map(|field| (field.name().to_owned(), self.value(field).into_json())).collect()
    }

    /// The buffers of a field of buffers.
    pub(crate) fn buffers(&self, field: Field) -> Vec<Bytes> {
        match (field, &self.ending) {
            (Field::Buffers, _) => self.request.buffers().collect(),
            (Field::ResultBuffers, Some(ending)) => ending.reply.buffers().collect(),
            _ => vec![],
        }
    }
}

impl Texts {
    pub(crate) fn get(&self, kind: Kind) -> Option<&str> {
        self.0.as_ref()?[kind as usize].as_deref()
    }

    /// Takes what a task said, within the bound.
    pub(crate) fn add(&mut self, kind: Kind, text: &str) {
        let place = &mut self.0.get_or_insert_default()[kind as usize];
        match place {
            Some(before) if kind.is_stream() => {
                // Grown by an eighth, not doubled: what is not used is not counted.
                if before.capacity() - before.len() < text.len() {
                    before.reserve_exact(text.len().max(before.len() / 8));
                }
                before.push_str(text);
            }
            place => *place = Some(text.to_owned()),
        }
    }

    pub(crate) fn bytes(&self, kind: Kind) -> usize {
        self.get(kind).map_or(0, str::len)
    }

    pub(crate) fn cost(&self) -> u64 {
        Kind::ALL.iter().map(|kind| self.bytes(*kind) as u64).sum()
    }
}

/// What is kept of output, of which `kept` bytes are there already: a kind and its text. `None`: nothing more.
pub(crate) fn text_of(output: Output, kept: impl Fn(Kind) -> usize) -> Option<(Kind, String)> {
    let (kind, text) = match output {
        Output::Stdout(text) => (Kind::Stdout, text),
        Output::Stderr(text) => (Kind::Stderr, text),
        Output::Input(code) => (Kind::Input, code),
        Output::Result(content) => (Kind::Result, content.to_string()),
        Output::Error(content) => (Kind::Error, content.to_string()),
    };
    let kept = if kind.is_stream() { kept(kind) } else { 0 };
    if kept + text.len() <= TEXT_BYTES_MAX {
        return Some((kind, text));
    }
    // Once cut, a text is longer than the bound.
    let room = TEXT_BYTES_MAX.checked_sub(kept)?;
    let cut = match kind {
        Kind::Stdout | Kind::Stderr | Kind::Input => {
            let end = (0..=room).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
            format!("{}{CUT}", &text[..end])
        }
        Kind::Result => json!({ "data": { "text/plain": CUT.trim() }, "metadata": {} }).to_string(),
        Kind::Error => json!({ "ename": "", "evalue": CUT.trim(), "traceback": [] }).to_string(),
    };
    Some((kind, cut))
}

/// A reply of the controller's own, kept as one of an engine's would be: with a header that says what it is.
pub(crate) fn keep_answer(
    author: &SessionId,
    today: Date,
    msg_id: &MsgId,
    msg_type: String,
    (metadata, content, buffers): (&Json, &Json, &[Bytes]),
    bytes_max: usize,
) -> Option<Frames> {
    let header = Header {
        msg_id: format!("{author}_{msg_id}").into(),
        msg_type,
        username: String::new(),
        session: author.clone(),
        date: Some(today),
        version: PROTOCOL_VERSION.to_owned(),
    };
    Frames::keep([&to_bytes(&header), &to_bytes(metadata), &to_bytes(content)], buffers, bytes_max)
}

/// A message as it came.
pub(crate) fn keep(message: &WireMessage, bytes_max: usize) -> Option<Frames> {
    Frames::keep([&message.header, &message.metadata, &message.content], &message.buffers, bytes_max)
}

/// The request's own date, else when it came.
pub(crate) fn submitted(request: &Frames, came: Date) -> Date {
    date_of(&read::<Dated>(request.header()).date).unwrap_or(came)
}

/// The submitter's session.
pub(crate) fn client_uuid(request: &Frames) -> Value {
    text_or_null(read::<Sessioned>(request.header()).session.as_str())
}

/// What the client calls it.
pub(crate) fn label(request: &Frames) -> Json {
    read::<Labelled>(request.metadata()).label
}

/// When the engine began.
pub(crate) fn started(reply: &Frames) -> Option<Date> {
    date_of(&read::<Started>(reply.metadata()).started)
}

/// When the engine ended, else when its reply came.
pub(crate) fn completed(reply: &Frames, received: Date) -> Date {
    date_of(&read::<Dated>(reply.header()).date).unwrap_or(received)
}

/// Who ran it, as the reply says, else as the controller does.
pub(crate) fn engine_uuid(reply: Option<&Frames>, assigned: Option<&EngineUuid>) -> Option<EngineUuid> {
    let said = reply.map(|reply| read::<At>(reply.metadata()).engine);
    said.and_then(|engine| engine.as_str().map(EngineUuid::from)).or_else(|| assigned.cloned())
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Named {
    msg_id: Json,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Dated {
    date: Json,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Sessioned {
    session: Json,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Labelled {
    label: Json,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Started {
    started: Json,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct At {
    engine: Json,
}

/// One key of an object; the default if the frame is none. Frames were checked when they came, files may be damaged.
fn read<T: Default + for<'a> Deserialize<'a>>(frame: &[u8]) -> T {
    serde_json::from_slice(frame).unwrap_or_default()
}

fn parse(frame: &[u8]) -> Json {
    read(frame)
}

fn date_of(text: &Json) -> Option<Date> {
    text.as_str().and_then(Date::parse)
}

fn text_or_null(text: Option<&str>) -> Value {
    text.map_or(Value::NULL, Value::text)
}

fn to_bytes(value: &impl serde::Serialize) -> Bytes {
    Bytes::from(serde_json::to_vec(value).expect("JSON and our own types have text keys"))
}
