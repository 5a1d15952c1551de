//! Jupyter's questions about names and code: completion, help, whether a cell is whole, who answers.

use protocol::Message;
use protocol::error::{ErrorContent, ename};
use protocol::message::Status;
use protocol::message::control::{COMPLETE_REQUEST, CompleteReply, CompleteRequest, KERNEL_INFO_REQUEST};
use serde::Deserialize;
use serde_json::{Value as Json, json};

use crate::runner::{Completeness, Language, NameSummary, Runner};

/// Jupyter's question for help on the name at the cursor.
pub const INSPECT_REQUEST: &str = "inspect_request";
/// Jupyter's question whether a cell can run as it stands.
pub const IS_COMPLETE_REQUEST: &str = "is_complete_request";

/// What is known of names and of the language.
pub trait Known {
    /// The language.
    fn language(&self) -> Language;
    /// Words that could stand at the cursor (in bytes).
    fn complete(&self, code: &str, cursor: usize) -> Vec<String>;
    /// Help on a name.
    fn inspect(&self, name: &str) -> Option<String>;
    /// Whether a cell is whole; none: not known now.
    fn is_complete(&self, code: &str) -> Option<Completeness>;
}

/// The runner itself, between requests.
pub struct Live<'a>(pub &'a dyn Runner);

impl Known for Live<'_> {
    fn language(&self) -> Language {
        self.0.language()
    }

    fn complete(&self, code: &str, cursor: usize) -> Vec<String> {
        self.0.complete(code, cursor).into_iter().map(|completion| completion.text).collect()
    }

    fn inspect(&self, name: &str) -> Option<String> {
        self.0.inspect(name)
    }

    fn is_complete(&self, code: &str) -> Option<Completeness> {
        Some(self.0.is_complete(code))
    }
}

/// What was known when the engine was last idle: for questions that come while user code runs.
#[derive(Clone, Debug, Default)]
pub struct Remembered {
    /// All words.
    pub words: Vec<String>,
    /// The namespace.
    pub names: Vec<NameSummary>,
    /// The language.
    pub language: Language,
}

impl Remembered {
    /// What a runner knows now.
    pub fn of(runner: &dyn Runner) -> Remembered {
        Remembered { words: Live(runner).complete("", 0), names: runner.names(), language: runner.language() }
    }
}

impl Known for Remembered {
    fn language(&self) -> Language {
        self.language.clone()
    }

    fn complete(&self, code: &str, cursor: usize) -> Vec<String> {
        let prefix = &code[word_start(code, cursor)..cursor];
        let names = self.names.iter().map(|name| &name.name);
        let mut matches: Vec<String> =
            names.chain(&self.words).filter(|word| word.starts_with(prefix)).cloned().collect();
        matches.sort();
        matches.dedup();
        matches
    }

    fn inspect(&self, name: &str) -> Option<String> {
        let found = self.names.iter().find(|known| known.name == name)?;
        Some(format!("{}: {} {}", found.name, found.kind, found.summary))
    }

    fn is_complete(&self, _code: &str) -> Option<Completeness> {
        None
    }
}

/// The content of the reply.
pub fn answer(message: &Message, known: &dyn Known) -> Result<Json, Box<ErrorContent>> {
    match message.header.msg_type.as_str() {
        KERNEL_INFO_REQUEST => Ok(kernel_info(&known.language())),
        COMPLETE_REQUEST => Ok(complete(&read(message)?, known)),
        INSPECT_REQUEST => Ok(inspect(&read(message)?, known)),
        IS_COMPLETE_REQUEST => Ok(is_complete(&read(message)?, known)),
        unknown => {
            let text = format!("this engine does not answer {unknown}; update the engine or ask another one");
            Err(ErrorContent::new(ename::NOT_IMPLEMENTED_ERROR, text).into())
        }
    }
}

fn read<T: serde::de::DeserializeOwned>(message: &Message) -> Result<T, Box<ErrorContent>> {
    message.content().map_err(|error| ErrorContent::new(ename::VALUE_ERROR, error.to_string()).into())
}

fn kernel_info(language: &Language) -> Json {
    json!({
        "status": "ok",
        "protocol_version": protocol::header::PROTOCOL_VERSION,
        "implementation": "commworld",
        "implementation_version": env!("CARGO_PKG_VERSION"),
        "language_info": {
            "name": language.name,
            "version": language.version,
            "mimetype": language.mimetype,
            "file_extension": language.file_extension,
        },
        "banner": language.banner,
        "help_links": [],
    })
}

fn complete(request: &CompleteRequest, known: &dyn Known) -> Json {
    let cursor = byte_position(&request.code, request.cursor_pos);
    let start = word_start(&request.code, cursor);
    let reply = CompleteReply {
        status: Status::Ok,
        matches: known.complete(&request.code, cursor),
        cursor_start: request.code[..start].chars().count(),
        cursor_end: request.code[..cursor].chars().count(),
    };
    serde_json::to_value(reply).expect("plain data")
}

/// Content of `inspect_request` (Jupyter messaging 5).
#[derive(Deserialize)]
struct InspectRequest {
    code: String,
    #[serde(default)]
    cursor_pos: usize,
}

fn inspect(request: &InspectRequest, known: &dyn Known) -> Json {
    let cursor = byte_position(&request.code, request.cursor_pos);
    let start = word_start(&request.code, cursor);
    let end = request.code[cursor..].find(|c| !is_word(c)).map_or(request.code.len(), |at| cursor + at);
    match known.inspect(&request.code[start..end]) {
        Some(text) => {
            json!({ "status": "ok", "found": true, "data": { "text/plain": text }, "metadata": {} })
        }
        None => json!({ "status": "ok", "found": false, "data": {}, "metadata": {} }),
    }
}

/// Content of `is_complete_request` (Jupyter messaging 5).
#[derive(Deserialize)]
struct IsCompleteRequest {
    code: String,
}

fn is_complete(request: &IsCompleteRequest, known: &dyn Known) -> Json {
    match known.is_complete(&request.code) {
        Some(Completeness::Complete) => json!({ "status": "complete" }),
        Some(Completeness::Incomplete) => json!({ "status": "incomplete", "indent": "" }),
        Some(Completeness::Invalid(_)) => json!({ "status": "invalid" }),
        None => json!({ "status": "unknown" }),
    }
}

/// Where a position in characters is in bytes; positions behind the end are the end.
fn byte_position(code: &str, characters: usize) -> usize {
    code.char_indices().nth(characters).map_or(code.len(), |(at, _)| at)
}

fn word_start(code: &str, cursor: usize) -> usize {
    let before = &code[..cursor];
    before.rfind(|c| !is_word(c)).map_or(0, |at| at + before[at..].chars().next().map_or(0, char::len_utf8))
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remembered() -> Remembered {
        let name = |name: &str| NameSummary {
            name: name.into(),
            kind: "int".into(),
            summary: "42".into(),
            bytes: 0,
        };
        Remembered {
            words: vec!["psum".into(), "print".into()],
            names: vec![name("pressure"), name("größe")],
            language: Language::default(),
        }
    }

    #[test]
    fn the_word_before_the_cursor_is_completed_in_characters() {
        let request = CompleteRequest { code: "ä = pr + 1".into(), cursor_pos: 6 };
        assert_eq!(
            complete(&request, &remembered()),
            json!({ "status": "ok", "matches": ["pressure", "print"], "cursor_start": 4, "cursor_end": 6 })
        );
    }

    #[test]
    fn a_cursor_behind_the_end_is_the_end() {
        let request = CompleteRequest { code: "ps".into(), cursor_pos: usize::MAX };
        assert_eq!(complete(&request, &remembered())["matches"], json!(["psum"]));
    }

    #[test]
    fn help_is_on_the_name_around_the_cursor() {
        let request = InspectRequest { code: "f(größe)".into(), cursor_pos: 4 };
        assert_eq!(inspect(&request, &remembered())["data"]["text/plain"], json!("größe: int 42"));
        let request = InspectRequest { code: "f(x)".into(), cursor_pos: 2 };
        assert_eq!(inspect(&request, &remembered())["found"], json!(false));
    }
}
