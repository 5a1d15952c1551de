//! What comes back: answers, facts about how they came about, output.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use protocol::date::Date;
use protocol::id::EngineId;
use protocol::value::Value;
use serde_json::Value as Json;

use crate::engines::Engine;
use crate::error::Failure;

/// What a request gave.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// A cell ran.
    Executed {
        /// Its number on that engine, from 1.
        execution_count: u64,
    },
    /// A function or expression gave this.
    Value(Value),
    /// A stock engine's function gave this, pickled.
    Pickled(Vec<Bytes>),
    /// The content of a reply of the hub or of the control channel.
    Content(Json),
}

/// What a reply says besides its result.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReplyFacts {
    /// When the engine began.
    pub started: Option<Date>,
    /// How long user code ran.
    pub elapsed: Option<Duration>,
    /// The rank that answered.
    pub rank: Option<u32>,
    /// How many collectives it completed for this request.
    pub collectives: Option<u64>,
}

/// How one engine's part of a request ended.
#[derive(Clone, Debug, PartialEq)]
pub struct EngineOutcome {
    /// Who; none: the hub, or nobody ran it.
    pub engine: Option<Arc<Engine>>,
    /// What it gave.
    pub result: Result<Answer, Failure>,
    /// When, how long.
    pub facts: ReplyFacts,
    /// The text of the last expression's value.
    pub displayed: Option<String>,
}

impl EngineOutcome {
    /// A part that ended without a reply.
    pub fn failed(engine: Option<Arc<Engine>>, failure: Failure) -> EngineOutcome {
        EngineOutcome { engine, result: Err(failure), facts: ReplyFacts::default(), displayed: None }
    }

    /// The engine's id.
    pub fn id(&self) -> Option<EngineId> {
        self.engine.as_ref().map(|engine| engine.id)
    }

    /// The engine's rank, or its id where there are no ranks.
    pub fn rank(&self) -> Option<u32> {
        let engine = self.engine.as_ref()?;
        Some(engine.rank().unwrap_or(engine.id.0))
    }
}

/// Something shown while a request ran.
#[derive(Clone, Debug, PartialEq)]
pub enum OutputItem {
    /// Text printed to standard output.
    Stdout(String),
    /// Text printed to standard error.
    Stderr(String),
    /// The value of a cell's last expression.
    Result(Display),
    /// Something shown on purpose.
    Display(Display),
    /// An error, as the engine shows it.
    Error {
        /// Its name.
        ename: String,
        /// What happened.
        evalue: String,
        /// Where.
        traceback: Vec<String>,
    },
}

/// Representations by MIME type; `text/plain` is always among them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Display {
    /// The representations.
    pub data: BTreeMap<String, Json>,
}

impl Display {
    /// The representation as text.
    pub fn text(&self) -> &str {
        self.data.get("text/plain").and_then(Json::as_str).unwrap_or_default()
    }
}

impl OutputItem {
    /// Bytes of text, to bound what is kept.
    pub(crate) fn byte_len(&self) -> usize {
        match self {
            OutputItem::Stdout(text) | OutputItem::Stderr(text) => text.len(),
            OutputItem::Result(display) | OutputItem::Display(display) => {
                display.data.values().map(|value| value.as_str().map_or(16, str::len)).sum()
            }
            OutputItem::Error { traceback, evalue, .. } => {
                evalue.len() + traceback.iter().map(String::len).sum::<usize>()
            }
        }
    }
}

/// Output and who it comes from.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// The engine, if it is known.
    pub engine: Option<Arc<Engine>>,
    /// The part of the request that it belongs to.
    pub part: usize,
    /// What was shown.
    pub item: OutputItem,
}
