//! What helps while a line is typed: completion, continuation lines, hints from the history.

use std::borrow::Cow;
use std::time::Duration;

use client::{Client, Targets};
use rustyline::completion::{Completer, FilenameCompleter, Pair};
use rustyline::highlight::Highlighter;
use rustyline::hint::{Hinter, HistoryHinter};
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Context, Helper};

use super::command::{COMMANDS, Completion};
use super::parse;

/// How long an engine may take to complete a name before the key counts for nothing.
const COMPLETE_TIMEOUT: Duration = Duration::from_millis(300);

/// See the module.
pub(super) struct Assistant {
    client: Client,
    pub(super) targets: Targets,
    files: FilenameCompleter,
    history: HistoryHinter,
}

impl Assistant {
    pub(super) fn new(client: Client, targets: Targets) -> Assistant {
        Assistant { client, targets, files: FilenameCompleter::new(), history: HistoryHinter::new() }
    }

    fn names(&self, line: &str, position: usize) -> (usize, Vec<Pair>) {
        let before = &line[..position];
        let cursor = before.chars().count();
        let reply = self.client.direct(self.targets.clone()).complete(line, cursor, COMPLETE_TIMEOUT);
        let mut start = position;
        let mut pairs = Vec::new();
        if let Ok(reply) = reply {
            // Characters on the wire, bytes here.
            start =
                line.char_indices().nth(reply.cursor_start).map_or(line.len(), |(at, _)| at).min(position);
            pairs.extend(reply.matches.into_iter().map(pair));
        }
        (start, pairs)
    }
}

fn pair(text: String) -> Pair {
    Pair { display: text.clone(), replacement: text }
}

impl Completer for Assistant {
    type Candidate = Pair;

    fn complete(
        &self,
        line: &str,
        position: usize,
        context: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<Pair>)> {
        let before = &line[..position];
        let body = before.trim_start();
        let offset = position - body.len();
        if let parse::Line::Command(command, _) = parse::line(body)
            && body.contains(char::is_whitespace)
        {
            match command.completion {
                Completion::Files => return self.files.complete(line, position, context),
                Completion::Nothing => return Ok((position, vec![])),
                Completion::Code => {}
            }
        }
        if body.contains(|c: char| !c.is_ascii_alphanumeric() && c != '%' && c != '_') {
            return Ok(self.names(line, position));
        }
        // The first word: commands, then names of the engines.
        let word = body.trim_start_matches('%');
        let start = offset + (body.len() - word.len());
        let commands = COMMANDS.iter().filter(|command| command.name.starts_with(word));
        let mut pairs: Vec<Pair> = commands.map(|command| pair(command.name.to_owned())).collect();
        if !body.starts_with('%') && !word.is_empty() {
            let (from, names) = self.names(line, position);
            if from == start {
                pairs.extend(names);
            }
        }
        pairs.dedup_by(|a, b| a.replacement == b.replacement);
        Ok((start, pairs))
    }
}

impl Hinter for Assistant {
    type Hint = String;

    fn hint(&self, line: &str, position: usize, context: &Context<'_>) -> Option<String> {
        self.history.hint(line, position, context)
    }
}

impl Highlighter for Assistant {
    fn highlight_prompt<'b, 's: 'b, 'p: 'b>(&'s self, prompt: &'p str, _default: bool) -> Cow<'b, str> {
        Cow::Borrowed(prompt)
    }

    fn highlight_hint<'h>(&self, hint: &'h str) -> Cow<'h, str> {
        Cow::Owned(format!("\x1b[2m{hint}\x1b[0m"))
    }
}

impl Validator for Assistant {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        Ok(if parse::is_unfinished(context.input()) {
            ValidationResult::Incomplete
        } else {
            ValidationResult::Valid(None)
        })
    }
}

impl Helper for Assistant {}
