//! The table of the prompt's commands: name, what it does, how it is used, what it runs.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use client::OutputItem;
use client::targets::compact;

use super::Prompt;
use crate::cli::Usage;
use crate::commands::{load, pull, push, status};
use crate::render::{Origin, group, labelled};

/// A line on standard output; unlike `println!` it forgives a reader that went away.
macro_rules! say {
    ($($format:tt)*) => {
        crate::watch::print(&format!("{}\n", format_args!($($format)*)))
    };
}

/// What a command leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The next line, please.
    Continue,
    /// Leave the prompt.
    Quit,
}

/// What its arguments are, for completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Completion {
    /// Names of the engines.
    Code,
    /// Files here.
    Files,
    /// Nothing that could be completed.
    Nothing,
}

/// One command.
#[derive(Debug)]
pub(crate) struct Command {
    /// Its name.
    pub(crate) name: &'static str,
    /// Other names.
    pub(crate) aliases: &'static [&'static str],
    /// How it is written.
    pub(crate) signature: &'static str,
    /// What it does, in a sentence.
    pub(crate) doc: &'static str,
    /// What its arguments are.
    pub(crate) completion: Completion,
    /// Does it.
    pub(crate) run: fn(&mut Prompt, &str) -> anyhow::Result<Outcome>,
}

/// All of them, in the order in which `help` shows them.
pub(crate) const COMMANDS: &[Command] = &[
    Command {
        name: "px",
        aliases: &[],
        signature: "px CODE",
        doc: "run code on the targets; the same as CODE alone, for code that begins like a command",
        completion: Completion::Code,
        run: px,
    },
    Command {
        name: "targets",
        aliases: &["t"],
        signature: "targets [all | 0,2 | 0..3]",
        doc: "choose the engines for what follows; alone: show them",
        completion: Completion::Nothing,
        run: targets,
    },
    Command {
        name: "push",
        aliases: &[],
        signature: "push NAME=JSON | NAME=FILE.npy …",
        doc: "assign names on the targets; lists of numbers become arrays",
        completion: Completion::Files,
        run: push_values,
    },
    Command {
        name: "pull",
        aliases: &[],
        signature: "pull EXPRESSION [> FILE.npy]",
        doc: "bring values here; with > into a file, joined along the first axis",
        completion: Completion::Code,
        run: pull_value,
    },
    Command {
        name: "scatter",
        aliases: &[],
        signature: "scatter NAME=JSON | NAME=FILE.npy",
        doc: "divide a list or an array's rows over the targets",
        completion: Completion::Files,
        run: scatter,
    },
    Command {
        name: "gather",
        aliases: &[],
        signature: "gather EXPRESSION [> FILE.npy]",
        doc: "bring the parts here, joined",
        completion: Completion::Code,
        run: gather,
    },
    Command {
        name: "run",
        aliases: &[],
        signature: "run FILE",
        doc: "run a file on the targets; its functions stay",
        completion: Completion::Files,
        run: run_file,
    },
    Command {
        name: "load",
        aliases: &[],
        signature: "load FILE",
        doc: "load a module of compiled functions (C, Fortran, Rust) on the targets",
        completion: Completion::Files,
        run: load_module,
    },
    Command {
        name: "who",
        aliases: &["whos"],
        signature: "who",
        doc: "list the variables and functions of the targets",
        completion: Completion::Nothing,
        run: who,
    },
    Command {
        name: "time",
        aliases: &[],
        signature: "time CODE",
        doc: "run code once and say how long it took, here and on the engines",
        completion: Completion::Code,
        run: time,
    },
    Command {
        name: "timeit",
        aliases: &[],
        signature: "timeit CODE",
        doc: "run code many times and show the distribution of round trips",
        completion: Completion::Code,
        run: timeit,
    },
    Command {
        name: "status",
        aliases: &["st"],
        signature: "status",
        doc: "show the controller, the engines, and what each does or waits for",
        completion: Completion::Nothing,
        run: show_status,
    },
    Command {
        name: "interrupt",
        aliases: &["int"],
        signature: "interrupt",
        doc: "interrupt what runs on the targets' worlds (Ctrl-C does so while a cell runs)",
        completion: Completion::Nothing,
        run: interrupt,
    },
    Command {
        name: "abort",
        aliases: &[],
        signature: "abort",
        doc: "end everything that waits on the targets; what runs goes on",
        completion: Completion::Nothing,
        run: abort,
    },
    Command {
        name: "clear",
        aliases: &["reset"],
        signature: "clear",
        doc: "remove all variables and functions of the targets",
        completion: Completion::Nothing,
        run: clear,
    },
    Command {
        name: "help",
        aliases: &["h"],
        signature: "help [COMMAND]",
        doc: "list the commands, or explain one",
        completion: Completion::Nothing,
        run: help,
    },
    Command {
        name: "quit",
        aliases: &["exit", "q"],
        signature: "quit",
        doc: "leave the prompt; the cluster goes on (Ctrl-D does the same)",
        completion: Completion::Nothing,
        run: |_, _| Ok(Outcome::Quit),
    },
];

/// The table as text, for `help` and `client help-commands`.
pub(crate) fn reference() -> String {
    let width = COMMANDS.iter().map(|command| command.signature.chars().count()).max().unwrap_or(0);
    let mut page = String::from("Whatever is no command runs as code on the targets.\n\n");
    for command in COMMANDS {
        line(&mut page, &format!("  {:<width$}  {}", command.signature, command.doc));
    }
    page.push_str(
        "\nA command's name used like a variable (status = 3, run(4)) is code. %NAME is always a command,\n\
         px CODE always code. Open brackets and strings go on in the next line.\n",
    );
    page
}

fn line(page: &mut String, text: &str) {
    writeln!(page, "{text}").expect("a string takes what is written to it");
}

/// The command whose name is most like `word`, if one is like it at all.
pub(crate) fn closest(word: &str) -> Option<&'static str> {
    let distance = |command: &&Command| edit_distance(word, command.name);
    let best = COMMANDS.iter().min_by_key(distance)?;
    (distance(&best) <= 2).then_some(best.name)
}

fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    // A word beyond this is like no command, however long it is.
    for (i, from) in a.chars().take(32).enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

fn px(prompt: &mut Prompt, code: &str) -> anyhow::Result<Outcome> {
    if code.is_empty() {
        return Err(needs("px"));
    }
    prompt.execute(code)
}

fn targets(prompt: &mut Prompt, text: &str) -> anyhow::Result<Outcome> {
    if !text.is_empty() {
        let targets: client::Targets = text.parse()?;
        // Refused now rather than at the next cell.
        targets.resolve(&prompt.app.client.engine_table())?;
        prompt.app.global.targets = targets;
    }
    let engines = prompt.app.view().engines()?;
    let ids: Vec<_> = engines.iter().map(|engine| engine.id).collect();
    say!("engines {}", compact(&ids));
    Ok(Outcome::Continue)
}

fn push_values(prompt: &mut Prompt, text: &str) -> anyhow::Result<Outcome> {
    let assignments = split_assignments(text);
    if assignments.is_empty() {
        return Err(needs("push"));
    }
    push::push(&prompt.app, &assignments)?;
    Ok(Outcome::Continue)
}

/// Splits at spaces that are outside brackets and strings and stand before `name=`.
fn split_assignments(text: &str) -> Vec<String> {
    let mut parts: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        let named = word.split_once('=').is_some_and(|(name, _)| crate::text::check_name(name).is_ok());
        match parts.last_mut() {
            Some(last) if !named || is_open(last) => {
                last.push(' ');
                last.push_str(word);
            }
            _ => parts.push(word.to_owned()),
        }
    }
    parts
}

fn is_open(text: &str) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0_i64, false, false);
    for character in text.chars() {
        match character {
            _ if escaped => escaped = false,
            '\\' if in_string => escaped = true,
            '"' => in_string = !in_string,
            '[' | '{' if !in_string => depth += 1,
            ']' | '}' if !in_string => depth -= 1,
            _ => {}
        }
    }
    in_string || depth > 0
}

/// `expression > file.npy`
fn split_file(text: &str) -> (&str, Option<&Path>) {
    match text.rsplit_once('>') {
        Some((expression, file)) if file.trim().ends_with(".npy") => {
            (expression.trim(), Some(Path::new(file.trim())))
        }
        _ => (text, None),
    }
}

fn pull_value(prompt: &mut Prompt, text: &str) -> anyhow::Result<Outcome> {
    let (expression, file) = split_file(text);
    if expression.is_empty() {
        return Err(needs("pull"));
    }
    match file {
        None => pull::pull(&prompt.app, expression)?,
        Some(path) => save_joined(prompt, expression, path)?,
    }
    Ok(Outcome::Continue)
}

fn gather(prompt: &mut Prompt, text: &str) -> anyhow::Result<Outcome> {
    let (expression, file) = split_file(text);
    if expression.is_empty() {
        return Err(needs("gather"));
    }
    match file {
        Some(path) => save_joined(prompt, expression, path)?,
        None => say!("{}", crate::text::show(&joined(prompt, expression)?)),
    }
    Ok(Outcome::Continue)
}

fn save_joined(prompt: &Prompt, expression: &str, path: &Path) -> anyhow::Result<()> {
    pull::save(path, &joined(prompt, expression)?)
}

fn joined(prompt: &Prompt, expression: &str) -> anyhow::Result<client::Value> {
    let outcomes = prompt.app.follow(&prompt.app.view().pull(expression)?)?;
    prompt.app.check(&outcomes)?;
    Ok(client::array::join(pull::of(outcomes).into_iter().map(|(_, value)| value).collect())?)
}

fn scatter(prompt: &mut Prompt, text: &str) -> anyhow::Result<Outcome> {
    if text.is_empty() {
        return Err(needs("scatter"));
    }
    let (name, value) = crate::text::assignment(text)?;
    prompt.app.show(&prompt.app.view().scatter(&name, &value)?)?;
    Ok(Outcome::Continue)
}

fn load_module(prompt: &mut Prompt, text: &str) -> anyhow::Result<Outcome> {
    if text.is_empty() {
        return Err(needs("load"));
    }
    load::load(&prompt.app, Path::new(text))?;
    Ok(Outcome::Continue)
}

fn run_file(prompt: &mut Prompt, text: &str) -> anyhow::Result<Outcome> {
    if text.is_empty() {
        return Err(needs("run"));
    }
    prompt.app.show(&prompt.app.view().run_file(Path::new(text))?)?;
    Ok(Outcome::Continue)
}

/// Lines that several ranks print alike are shown once.
fn who(prompt: &mut Prompt, _: &str) -> anyhow::Result<Outcome> {
    let result = prompt.app.view().execute("who()")?;
    let outcomes = result.join(prompt.app.global.timeout.unwrap_or(WHO_TIMEOUT))?;
    prompt.app.check(&outcomes)?;
    let mut texts: Vec<(u32, Origin, String)> = Vec::new();
    for output in result.stream() {
        let text = match output.item {
            OutputItem::Stdout(text) => text,
            OutputItem::Result(display) | OutputItem::Display(display) => display.text().to_owned(),
            OutputItem::Stderr(_) | OutputItem::Error { .. } => continue,
        };
        let Some(engine) = output.engine else { continue };
        match texts.iter_mut().find(|(id, ..)| *id == engine.id.0) {
            Some((.., so_far)) => so_far.push_str(&text),
            None => texts.push((engine.id.0, Origin::of(&engine), text)),
        }
    }
    texts.sort_by_key(|(id, ..)| *id);
    let lines =
        texts.iter().flat_map(|(_, origin, text)| text.lines().map(|line| (Some(*origin), line.to_owned())));
    let mut groups = group(lines);
    // What a name is on one rank stands below what it is on another.
    groups.sort_by(|(_, a), (_, b)| a.split_whitespace().next().cmp(&b.split_whitespace().next()));
    if groups.is_empty() {
        say!("no names are defined");
    }
    crate::watch::print(&labelled(&groups, outcomes.len(), prompt.app.style));
    Ok(Outcome::Continue)
}

/// Engines that are busy list their names when they are done: not worth waiting for longer.
const WHO_TIMEOUT: Duration = Duration::from_secs(10);

fn time(prompt: &mut Prompt, code: &str) -> anyhow::Result<Outcome> {
    if code.is_empty() {
        return Err(needs("time"));
    }
    let result = prompt.app.view().execute(code)?;
    let outcomes = prompt.app.show(&result)?;
    let engines = outcomes.iter().filter_map(|outcome| outcome.facts.elapsed).max();
    let there = engines.map(|elapsed| format!(", of which engines {}", short(elapsed))).unwrap_or_default();
    say!("{}{there}", short(result.elapsed()));
    Ok(Outcome::Continue)
}

/// `timeit` stops after this many runs, or after [`TIMEIT_MAX`].
const TIMEIT_RUNS_MAX: usize = 1000;

/// See [`TIMEIT_RUNS_MAX`].
const TIMEIT_MAX: Duration = Duration::from_secs(2);

fn timeit(prompt: &mut Prompt, code: &str) -> anyhow::Result<Outcome> {
    if code.is_empty() {
        return Err(needs("timeit"));
    }
    let begun = Instant::now();
    let interrupts = prompt.app.interrupts.count();
    let mut samples = Vec::new();
    while samples.len() < TIMEIT_RUNS_MAX && (samples.is_empty() || begun.elapsed() < TIMEIT_MAX) {
        let result = prompt.app.view().execute_silently(code)?;
        let outcomes = prompt.app.follow(&result)?;
        prompt.app.check(&outcomes)?;
        samples.push(result.elapsed());
        if prompt.app.interrupts.count() != interrupts {
            break;
        }
    }
    samples.sort_unstable();
    let at = |share: f64| short(samples[((samples.len() - 1) as f64 * share) as usize]);
    say!("{} runs: median {}, fastest {}, 95 % within {}", samples.len(), at(0.5), at(0.0), at(0.95));
    Ok(Outcome::Continue)
}

fn short(duration: Duration) -> String {
    match duration.as_secs_f64() {
        s if s < 0.001 => format!("{:.0} µs", s * 1e6),
        s if s < 1.0 => format!("{:.2} ms", s * 1e3),
        s => format!("{s:.2} s"),
    }
}

fn show_status(prompt: &mut Prompt, _: &str) -> anyhow::Result<Outcome> {
    status::show(&prompt.app)?;
    Ok(Outcome::Continue)
}

fn interrupt(prompt: &mut Prompt, _: &str) -> anyhow::Result<Outcome> {
    let outcomes = prompt.app.view().interrupt()?.join(Duration::from_secs(5))?;
    prompt.app.check(&outcomes)?;
    Ok(Outcome::Continue)
}

fn abort(prompt: &mut Prompt, _: &str) -> anyhow::Result<Outcome> {
    let outcomes = prompt.app.view().abort()?.join(Duration::from_secs(5))?;
    prompt.app.check(&outcomes)?;
    Ok(Outcome::Continue)
}

fn clear(prompt: &mut Prompt, _: &str) -> anyhow::Result<Outcome> {
    let outcomes = prompt.app.follow(&prompt.app.view().clear()?)?;
    prompt.app.check(&outcomes)?;
    Ok(Outcome::Continue)
}

fn help(_: &mut Prompt, word: &str) -> anyhow::Result<Outcome> {
    let word = word.trim_start_matches('%');
    if word.is_empty() {
        crate::watch::print(&reference());
        return Ok(Outcome::Continue);
    }
    let found = COMMANDS.iter().find(|command| command.name == word || command.aliases.contains(&word));
    let Some(command) = found else {
        return Err(Usage(format!("help for {word:?}: it is no command; `help` alone lists them")).into());
    };
    say!("{}\n  {}", command.signature, command.doc);
    if !command.aliases.is_empty() {
        say!("  also: {}", command.aliases.join(", "));
    }
    Ok(Outcome::Continue)
}

fn needs(name: &str) -> anyhow::Error {
    let signature =
        COMMANDS.iter().find(|command| command.name == name).map_or(name, |command| command.signature);
    Usage(format!("{name} needs an argument: {signature}")).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_aliases_are_unique_and_explained() {
        let mut seen = std::collections::BTreeSet::new();
        for command in COMMANDS {
            for name in command.aliases.iter().chain([&command.name]) {
                assert!(seen.insert(*name), "{name} is there twice");
            }
            assert!(command.signature.starts_with(command.name), "{}", command.name);
            assert!(!command.doc.ends_with('.') && command.doc.len() > 10, "{}", command.name);
        }
    }

    #[test]
    fn mistyped_commands_are_recognised() {
        assert_eq!(closest("statsu"), Some("status"));
        assert_eq!(closest("interupt"), Some("interrupt"));
        assert_eq!(closest("frobnicate"), None);
    }

    #[test]
    fn assignments_are_split_at_names() {
        assert_eq!(split_assignments("n=3 x=[1, 2] s=\"a b=c\""), ["n=3", "x=[1, 2]", "s=\"a b=c\""]);
        assert!(split_assignments("  ").is_empty());
    }
}
