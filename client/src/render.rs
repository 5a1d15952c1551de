//! What came back, as text that people read: equal results once, different ones by rank, errors grouped.
//!
//! Pure: outcomes in, text out.

use std::collections::HashMap;
use std::fmt::Write as _;

use client::targets::ranges;
use client::{EngineOutcome, Failure, RemoteError};

/// Whether and how to colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Style {
    /// Whether escape codes are written at all.
    pub(crate) colour: bool,
}

impl Style {
    fn paint(self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// Labels of ranks, each with its own colour.
    pub(crate) fn label(self, rank: Option<u32>, text: &str) -> String {
        const COLOURS: [&str; 6] = ["36", "33", "35", "32", "34", "96"];
        let code = rank.map_or("36", |rank| COLOURS[rank as usize % COLOURS.len()]);
        self.paint(code, text)
    }

    pub(crate) fn error(self, text: &str) -> String {
        self.paint("1;31", text)
    }

    pub(crate) fn warning(self, text: &str) -> String {
        self.paint("33", text)
    }

    pub(crate) fn faint(self, text: &str) -> String {
        self.paint("2", text)
    }

    pub(crate) fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }
}

/// Who an outcome comes from, as it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    /// Rank or, without a world, engine.
    pub(crate) number: u32,
    /// Whether it is a rank.
    pub(crate) is_rank: bool,
}

impl Origin {
    pub(crate) fn of(engine: &client::Engine) -> Origin {
        match engine.rank() {
            // Ranks name an engine only where they equal the ids, as with a single world.
            Some(rank) if rank == engine.id.0 => Origin { number: rank, is_rank: true },
            _ => Origin { number: engine.id.0, is_rank: false },
        }
    }

    /// `[rank 2] `
    pub(crate) fn prefix(self) -> String {
        format!("[{} {}] ", if self.is_rank { "rank" } else { "engine" }, self.number)
    }
}

/// `[0-3] `, or `[rank 2] ` for one.
fn group_prefix(origins: &[Origin]) -> String {
    match origins {
        [] => String::new(),
        [one] => one.prefix(),
        many => format!("[{}] ", ranges(&numbers(many))),
    }
}

fn numbers(origins: &[Origin]) -> Vec<u32> {
    let mut numbers: Vec<u32> = origins.iter().map(|origin| origin.number).collect();
    numbers.sort_unstable();
    numbers
}

/// Texts by who said them: equal ones together, in the order of the first who said each.
pub(crate) fn group<T: PartialEq + std::hash::Hash + Eq>(
    items: impl IntoIterator<Item = (Option<Origin>, T)>,
) -> Vec<(Vec<Origin>, T)> {
    let mut groups: Vec<(Vec<Origin>, T)> = Vec::new();
    let mut places: HashMap<u64, Vec<usize>> = HashMap::new();
    for (origin, item) in items {
        let mut hasher = std::hash::DefaultHasher::new();
        item.hash(&mut hasher);
        let candidates = places.entry(std::hash::Hasher::finish(&hasher)).or_default();
        match candidates.iter().find(|&&place| groups[place].1 == item) {
            Some(&place) => groups[place].0.extend(origin),
            None => {
                candidates.push(groups.len());
                groups.push((origin.into_iter().collect(), item));
            }
        }
    }
    groups
}

/// Labelled texts, lines after the first aligned below it. One group of everybody who was asked needs no label if
/// only one was asked.
pub(crate) fn labelled(groups: &[(Vec<Origin>, String)], asked: usize, style: Style) -> String {
    let mut page = String::new();
    for (origins, text) in groups {
        let prefix = if asked <= 1 { String::new() } else { group_prefix(origins) };
        let rank = if let [one] = origins.as_slice() { Some(one.number) } else { None };
        let indent = " ".repeat(prefix.chars().count());
        for (number, line) in text.lines().enumerate() {
            let lead = if number == 0 { style.label(rank, &prefix) } else { indent.clone() };
            let lead = if prefix.is_empty() { String::new() } else { lead };
            writeln!(page, "{lead}{line}").expect("a string takes what is written to it");
        }
    }
    page
}

/// The values of a cell's last expression.
pub(crate) fn results(outcomes: &[EngineOutcome], style: Style) -> String {
    let shown = outcomes
        .iter()
        .filter_map(|outcome| Some((outcome.engine.as_deref().map(Origin::of), outcome.displayed.clone()?)))
        .filter(|(_, text)| !text.is_empty());
    labelled(&group(shown), outcomes.len(), style)
}

/// The errors: equal ones once, with who had them.
pub(crate) fn errors(outcomes: &[EngineOutcome], style: Style) -> String {
    let failed = outcomes.iter().filter_map(|outcome| {
        let origin = outcome.engine.as_deref().map(Origin::of);
        match &outcome.result {
            Ok(_) => None,
            Err(failure) => Some((origin, error_text(failure))),
        }
    });
    let mut page = String::new();
    for (origins, (head, body)) in group(failed) {
        let prefix = if outcomes.len() <= 1 { String::new() } else { group_prefix(&origins) };
        let rank = if let [one] = origins.as_slice() { Some(one.number) } else { None };
        let label = if prefix.is_empty() { prefix } else { style.label(rank, &prefix) };
        writeln!(page, "{label}{}", style.error(&head)).expect("a string takes what is written to it");
        for line in body {
            let indent = if line.starts_with("  ") { "" } else { "  " };
            writeln!(page, "{indent}{line}").expect("a string takes what is written to it");
        }
    }
    page
}

/// The error's first line, and what explains it.
fn error_text(failure: &Failure) -> (String, Vec<String>) {
    match failure {
        Failure::LostContact(cause) => (format!("error: the cluster cannot be reached: {cause}"), vec![]),
        Failure::Remote(error) => {
            let body = explanation(error);
            let message = if body.is_empty() { error.evalue.as_str() } else { without_place(error) };
            let head = match message {
                "" => error.ename.clone(),
                message => format!("{}: {message}", error.ename),
            };
            (head, body)
        }
    }
}

/// `cell 7, line 1` without the cell's number: ranks count their own cells, and the same error would look
/// different on each.
fn without_cell_number(line: &str) -> String {
    let (indent, text) = line.split_at(line.len() - line.trim_start().len());
    let place = text.strip_prefix("cell ").map(|rest| rest.trim_start_matches(|c: char| c.is_ascii_digit()));
    match place.and_then(|rest| rest.strip_prefix(", ")) {
        Some(place) => format!("{indent}{place}"),
        None => line.to_owned(),
    }
}

/// The message without the place, which the lines below it tell.
fn without_place(error: &RemoteError) -> &str {
    let (Some(line), Some(column)) = (error.line, error.column) else { return &error.evalue };
    let place = format!(", line {line}, column {column})");
    match error.evalue.strip_suffix(&place).and_then(|rest| rest.rsplit_once(" (")) {
        Some((message, _)) => message,
        None => &error.evalue,
    }
}

/// The traceback without what the first line says already.
fn explanation(error: &RemoteError) -> Vec<String> {
    let said = format!("{}: {}", error.ename, error.evalue);
    let lines = error.traceback.iter().flat_map(|entry| entry.lines());
    let mut kept: Vec<String> = lines
        .filter(|line| !line.starts_with("Traceback (most recent call last)"))
        .filter(|line| !(line.starts_with(&error.ename) && said.starts_with(line.trim_end())))
        .map(|line| without_cell_number(line.trim_end()))
        .collect();
    while kept.last().is_some_and(|line| line.trim().is_empty()) {
        kept.pop();
    }
    if kept.is_empty()
        && let (Some(line), Some(column)) = (error.line, error.column)
    {
        kept.push(format!("line {line}, column {column}"));
    }
    kept
}

/// Where ranks wait, from what they say: `rank 3 works · ranks 0-2 wait in barrier for 12 s`.
pub(crate) fn waiting(statuses: &[(u32, client_status::Status)]) -> String {
    let phrases = group(statuses.iter().map(|(number, status)| {
        let origin = Origin { number: *number, is_rank: true };
        (Some(origin), status.clone())
    }));
    let phrases: Vec<String> = phrases
        .into_iter()
        .map(|(origins, status)| {
            let numbers = numbers(&origins);
            let (who, verb) = if numbers.len() == 1 { ("rank", "s") } else { ("ranks", "") };
            let who = format!("{who} {}", ranges(&numbers));
            match status {
                client_status::Status::Waits(call) => format!("{who} wait{verb} in {call}"),
                client_status::Status::Works => format!("{who} work{verb}"),
                client_status::Status::Idle if numbers.len() == 1 => format!("{who} is idle"),
                client_status::Status::Idle => format!("{who} are idle"),
            }
        })
        .collect();
    phrases.join(", ")
}

/// What a rank does, as far as it is shown.
pub(crate) mod client_status {
    /// See the module.
    #[derive(Clone, Debug, PartialEq, Eq, Hash)]
    pub(crate) enum Status {
        /// It waits for others in this call.
        Waits(String),
        /// It runs code.
        Works,
        /// It has nothing to do.
        Idle,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use client::outcome::ReplyFacts;
    use client::{Answer, Engine, EngineId};
    use expect_test::expect;
    use protocol::extension::EngineDescription;

    use super::client_status::Status;
    use super::*;

    const PLAIN: Style = Style { colour: false };

    #[test]
    fn equal_results_are_shown_once() {
        let outcomes: Vec<_> = (0..4).map(|rank| shown(rank, "51.93")).collect();
        expect!["[0-3] 51.93\n"].assert_eq(&results(&outcomes, PLAIN));
    }

    #[test]
    fn different_results_have_a_line_per_rank_and_long_ones_are_aligned() {
        let outcomes = [shown(0, "1"), shown(1, "a\nb"), shown(2, "1"), shown(3, "")];
        expect![[r#"
            [0, 2] 1
            [rank 1] a
                     b
        "#]]
        .assert_eq(&results(&outcomes, PLAIN));
    }

    #[test]
    fn a_single_engine_needs_no_label() {
        expect!["7\n"].assert_eq(&results(&[shown(2, "7")], PLAIN));
    }

    #[test]
    fn equal_errors_are_shown_once_with_the_source_line() {
        let outcomes = [failed(0), failed(1), shown(2, "1"), failed(3)];
        expect![[r#"
            [0, 1, 3] RuntimeError: oops
              line 2, column 5
                throw "oops"
                ^
        "#]]
        .assert_eq(&errors(&outcomes, PLAIN));
        expect!["[0, 1] RuntimeError: oops"]
            .assert_eq(errors(&[failed(0), failed(1)], PLAIN).lines().next().unwrap());
    }

    #[test]
    fn colours_belong_to_labels_and_headlines() {
        let style = Style { colour: true };
        assert_eq!(
            results(&[shown(0, "1"), shown(1, "2")], style),
            "\x1b[36m[rank 0] \x1b[0m1\n\x1b[33m[rank 1] \x1b[0m2\n"
        );
        assert!(errors(&[failed(0)], style).starts_with("\x1b[1;31mRuntimeError: oops\x1b[0m"));
    }

    #[test]
    fn waiting_ranks_are_grouped_by_where_they_wait() {
        let barrier = || Status::Waits("barrier".to_owned());
        let statuses = [(0, barrier()), (1, barrier()), (2, barrier()), (3, Status::Idle)];
        expect!["ranks 0-2 wait in barrier, rank 3 is idle"].assert_eq(&waiting(&statuses));
        expect!["rank 0 works"].assert_eq(&waiting(&[(0, Status::Works)]));
    }

    fn engine(rank: u32) -> Arc<Engine> {
        let description = EngineDescription {
            version: 1,
            world: Some("w".into()),
            rank,
            world_size: 4,
            ..EngineDescription::default()
        };
        Arc::new(Engine {
            id: EngineId(rank),
            uuid: format!("u{rank}").into(),
            description: Some(description),
        })
    }

    fn shown(rank: u32, text: &str) -> EngineOutcome {
        EngineOutcome {
            engine: Some(engine(rank)),
            result: Ok(Answer::Executed { execution_count: 1 }),
            facts: ReplyFacts::default(),
            displayed: Some(text.to_owned()),
        }
    }

    fn failed(rank: u32) -> EngineOutcome {
        let error = RemoteError {
            ename: "RuntimeError".into(),
            evalue: "oops (cell 1, line 2, column 5)".into(),
            traceback: [
                "Traceback (most recent call last):",
                "  cell 1, line 2, column 5",
                "    throw \"oops\"",
                "    ^",
                "RuntimeError: oops",
            ]
            .map(str::to_owned)
            .to_vec(),
            line: Some(2),
            column: Some(5),
            ..RemoteError::default()
        };
        EngineOutcome::failed(Some(engine(rank)), error.into())
    }
}
