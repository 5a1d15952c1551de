//! The prompt: reads lines, runs commands here and everything else on the engines.
//!
//! A line whose first word is a command of [`command::COMMANDS`] runs that command, unless what follows shows that
//! the word is a variable (`status = 3`, `run(4)`). `%word` is always a command, `px …` always code.

use std::io::{BufRead, IsTerminal};
use std::path::PathBuf;

use anyhow::Context;
use client::machine::Contact;
use client::targets::compact;
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{CompletionType, Config, Editor};

use crate::cli::{App, report};

pub(crate) mod command;
mod complete;
mod parse;

use command::Outcome;
use complete::Assistant;

/// Lines kept in the history file.
const HISTORY_LINES_MAX: usize = 10_000;

/// The prompt's state.
pub(crate) struct Prompt {
    pub(crate) app: App,
}

/// Runs the prompt, or standard input as a script if it is no terminal.
pub(crate) fn run(app: App) -> anyhow::Result<()> {
    let mut prompt = Prompt { app };
    if std::io::stdin().is_terminal() { prompt.interact() } else { prompt.run_script() }
}

impl Prompt {
    fn interact(&mut self) -> anyhow::Result<()> {
        let config = Config::builder()
            .max_history_size(HISTORY_LINES_MAX)?
            .history_ignore_dups(true)?
            .history_ignore_space(true)
            .completion_type(CompletionType::List)
            .tab_stop(4)
            .build();
        let mut editor: Editor<Assistant, FileHistory> = Editor::with_config(config)?;
        editor.set_helper(Some(Assistant::new(self.app.client.clone(), self.app.global.targets.clone())));
        let history = history_file();
        if let Some(path) = &history {
            // The first time there is none.
            let _ = editor.load_history(path);
        }
        self.greet();
        loop {
            let text = self.text();
            let coloured = self.app.style.bold(&text);
            match editor.readline(&(text.as_str(), coloured.as_str())) {
                Ok(line) => {
                    if line.trim().is_empty() {
                        continue;
                    }
                    editor.add_history_entry(line.as_str())?;
                    if let Some(path) = &history {
                        // Line by line, so that a prompt that is killed loses nothing.
                        save_history(&mut editor, path);
                    }
                    match self.run_line(&line) {
                        Ok(Outcome::Continue) => {}
                        Ok(Outcome::Quit) => return Ok(()),
                        Err(error) => drop(report(&error)),
                    }
                    if let Some(assistant) = editor.helper_mut() {
                        assistant.targets = self.app.global.targets.clone();
                    }
                }
                // Ctrl-C while nothing runs takes the line back, as in every shell.
                Err(ReadlineError::Interrupted) => {}
                Err(ReadlineError::Eof) => return Ok(()),
                Err(error) => return Err(error).context("read a line"),
            }
        }
    }

    fn greet(&self) {
        let here = self.app.client.ids();
        let engines = match here.len() {
            0 => "no engine is here yet; start some with `cluster engines -n 4`".to_owned(),
            1 => format!("1 engine {}", compact(&here)),
            count => format!("{count} engines {}", compact(&here)),
        };
        println!("{engines} · what you type runs on all of them · help lists commands, Ctrl-D leaves");
    }

    /// `[0-3]> `; `no cluster> ` when contact is lost.
    fn text(&self) -> String {
        if let Contact::Lost { .. } = self.app.client.contact() {
            return "no cluster> ".to_owned();
        }
        match self.app.global.targets.resolve(&self.app.client.engine_table()) {
            Ok(engines) => {
                let ids: Vec<_> = engines.iter().map(|engine| engine.id).collect();
                format!("{}> ", compact(&ids))
            }
            Err(_) => "no engines> ".to_owned(),
        }
    }

    /// Stops at the first error, as scripts should.
    fn run_script(&mut self) -> anyhow::Result<()> {
        let mut pending = String::new();
        for line in std::io::stdin().lock().lines() {
            let line = line.context("read standard input")?;
            pending.push_str(&line);
            if parse::is_unfinished(&pending) {
                pending.push('\n');
                continue;
            }
            let cell = std::mem::take(&mut pending);
            if !cell.trim().is_empty() && self.run_line(&cell)? == Outcome::Quit {
                return Ok(());
            }
        }
        if pending.trim().is_empty() { Ok(()) } else { self.run_line(&pending).map(drop) }
    }

    /// Runs a command, or code.
    pub(crate) fn run_line(&mut self, line: &str) -> anyhow::Result<Outcome> {
        match parse::line(line) {
            parse::Line::Command(command, arguments) => (command.run)(self, arguments),
            parse::Line::Unknown(word) => {
                let known =
                    command::closest(word).map(|name| format!("; did you mean %{name}")).unwrap_or_default();
                Err(crate::cli::Usage(format!("%{word} is no command{known}; help lists them")).into())
            }
            parse::Line::Code(code) => self.execute(code),
        }
    }

    /// Runs code on the targets.
    pub(crate) fn execute(&mut self, code: &str) -> anyhow::Result<Outcome> {
        crate::commands::px::execute(&self.app, code)?;
        Ok(Outcome::Continue)
    }
}

/// Saves the history, readable by its owner only: it may hold secrets.
fn save_history(editor: &mut Editor<Assistant, FileHistory>, path: &std::path::Path) {
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    let created = std::fs::OpenOptions::new().append(true).create(true).mode(0o600).open(path);
    let private = created.and_then(|file| file.set_permissions(std::fs::Permissions::from_mode(0o600)));
    if let Err(error) = private {
        tracing::warn!(%error, path = %path.display(), "history not saved");
        return;
    }
    if let Err(error) = editor.append_history(path) {
        tracing::warn!(%error, path = %path.display(), "history not saved");
    }
}

/// Where the history is kept: `$XDG_STATE_HOME` or `~/.local/state`, in `commworld/history`.
fn history_file() -> Option<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")))?;
    let directory = state.join("commworld");
    std::fs::create_dir_all(&directory).ok()?;
    Some(directory.join("history"))
}
