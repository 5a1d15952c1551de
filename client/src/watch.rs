//! Follows a request to its end as a person would: prints output as it comes, says after a second what is being
//! waited for, and turns Ctrl-C into an interrupt of the engines.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use client::{AsyncResult, Client, ClientError, EngineOutcome, Output, OutputItem, ResultEvent, Targets};

use crate::render::client_status::Status;
use crate::render::{Origin, Style, waiting};

/// How often Ctrl-C is looked for.
const TICK: Duration = Duration::from_millis(20);

/// A request that takes longer than this gets a progress line.
const PROGRESS_AFTER: Duration = Duration::from_secs(1);

/// How often the progress line is renewed.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);

/// How long engines may take to say what they do.
const STATUS_TIMEOUT: Duration = Duration::from_millis(200);

/// A second Ctrl-C within this time leaves the engines alone and ends the wait.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);

/// Counts Ctrl-C. Installed once; while the prompt reads a line, the terminal gives it the key instead.
#[derive(Clone)]
pub(crate) struct Interrupts(Arc<AtomicUsize>);

impl Interrupts {
    /// From now on Ctrl-C is counted and ends nothing.
    pub(crate) fn install() -> std::io::Result<Interrupts> {
        let count = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&count);
        // SAFETY: the handler only adds to an atomic number, which is async-signal-safe.
        unsafe {
            signal_hook::low_level::register(signal_hook::consts::SIGINT, move || {
                counter.fetch_add(1, Ordering::Relaxed);
            })?;
        }
        Ok(Interrupts(count))
    }

    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// Why [`Watch::follow`] ended before the request.
#[derive(Debug)]
pub(crate) enum Left {
    /// `--timeout` passed.
    Timeout,
    /// Ctrl-C twice.
    Impatient,
    /// The interrupt could not be sent.
    Failed(ClientError),
}

/// How to follow requests.
pub(crate) struct Watch<'a> {
    pub(crate) client: &'a Client,
    pub(crate) interrupts: &'a Interrupts,
    pub(crate) style: Style,
    pub(crate) timeout: Option<Duration>,
    /// Whether output is printed as it comes; programs that want JSON get none.
    pub(crate) shows_output: bool,
}

impl Watch<'_> {
    /// Prints output until everything came.
    pub(crate) fn follow(&self, result: &AsyncResult) -> Result<Vec<EngineOutcome>, Left> {
        let begun = Instant::now();
        let mut printer = Printer::new(self.style, result.progress().1 > 1, self.shows_output);
        let mut interrupts_seen = self.interrupts.count();
        let mut interrupted: Option<Instant> = None;
        let mut progress = Progress::new(self.style);
        loop {
            match result.next_event(TICK) {
                ResultEvent::Output(output) => {
                    progress.clear();
                    printer.print(&output);
                    continue;
                }
                ResultEvent::Done => break,
                ResultEvent::Nothing => {}
            }
            if self.interrupts.count() != interrupts_seen {
                interrupts_seen = self.interrupts.count();
                if interrupted.is_some_and(|at| at.elapsed() < LEAVE_WITHIN) {
                    progress.clear();
                    printer.finish();
                    return Err(Left::Impatient);
                }
                interrupted = Some(Instant::now());
                progress.clear();
                eprintln!(
                    "{}",
                    self.style.warning("interrupting the engines (Ctrl-C again to leave them alone)")
                );
                if let Err(error) = self.interrupt(result) {
                    return Err(Left::Failed(error));
                }
            }
            if self.timeout.is_some_and(|timeout| begun.elapsed() > timeout) {
                progress.clear();
                printer.finish();
                return Err(Left::Timeout);
            }
            if begun.elapsed() > PROGRESS_AFTER && progress.is_due() {
                let text = self.describe(result, begun.elapsed());
                // Unfinished lines are shown as they are before the progress line takes the bottom of the screen.
                printer.finish();
                progress.show(&text);
            }
        }
        progress.clear();
        printer.finish();
        Ok(result.outcomes().into_iter().flatten().collect())
    }

    /// Interrupts whoever has not answered, and the rest of their worlds; ends tasks that have not begun.
    fn interrupt(&self, result: &AsyncResult) -> Result<(), ClientError> {
        result.abort()?;
        let waiting: Vec<_> = result.unanswered().iter().map(|engine| engine.id).collect();
        let targets = if waiting.is_empty() { Targets::All } else { waiting.into() };
        match self.client.direct(targets).interrupt() {
            // Whoever was lost in the meantime needs no interrupt.
            Ok(_) | Err(ClientError::NoSuchEngine { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// `12 s · 1 of 4 done · ranks 0-2 wait in barrier, rank 3 is idle · Ctrl-C interrupts`
    fn describe(&self, result: &AsyncResult, elapsed: Duration) -> String {
        let (done, all) = result.progress();
        let mut parts = vec![format!("{:.0} s", elapsed.as_secs_f64())];
        if done > 0 {
            parts.push(format!("{done} of {all} done"));
        }
        let busy = result.unanswered();
        let targets: Targets = if busy.is_empty() {
            Targets::All
        } else {
            // Who is waited for is often somebody who was not asked, or has answered.
            let worlds: Vec<_> = busy.iter().filter_map(|engine| engine.world()).collect();
            let engines = self.client.engines();
            let concerned = engines.iter().filter(|engine| {
                busy.iter().any(|one| one.uuid == engine.uuid)
                    || engine.world().is_some_and(|world| worlds.contains(&world))
            });
            concerned.map(|engine| engine.id).collect::<Vec<_>>().into()
        };
        if let Ok(statuses) = self.client.engine_status(&targets, STATUS_TIMEOUT)
            && !statuses.is_empty()
        {
            let statuses: Vec<(u32, Status)> = statuses
                .into_iter()
                .map(|(id, status)| {
                    let state = match status.waiting_in {
                        Some(call) => Status::Waits(call),
                        None if status.busy => Status::Works,
                        None => Status::Idle,
                    };
                    (id.0, state)
                })
                .collect();
            parts.push(waiting(&statuses));
        }
        parts.push("Ctrl-C interrupts".to_owned());
        parts.join(" · ")
    }
}

/// The one line at the bottom that says what is going on; on terminals only.
struct Progress {
    style: Style,
    is_terminal: bool,
    is_shown: bool,
    last: Option<Instant>,
}

impl Progress {
    fn new(style: Style) -> Progress {
        Progress { style, is_terminal: std::io::stderr().is_terminal(), is_shown: false, last: None }
    }

    fn is_due(&self) -> bool {
        self.is_terminal && self.last.is_none_or(|last| last.elapsed() > PROGRESS_INTERVAL)
    }

    fn show(&mut self, text: &str) {
        let width = terminal_width().saturating_sub(1);
        let short: String = text.chars().take(width).collect();
        eprint!("\r\x1b[K{}", self.style.faint(&short));
        self.is_shown = true;
        self.last = Some(Instant::now());
    }

    fn clear(&mut self) {
        if self.is_shown {
            eprint!("\r\x1b[K");
            self.is_shown = false;
        }
    }
}

/// Columns of the terminal, or 80.
fn terminal_width() -> usize {
    let mut size = nix::libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ writes a `winsize` to the place given, which is one.
    let answered = unsafe { nix::libc::ioctl(2, nix::libc::TIOCGWINSZ, &raw mut size) } == 0;
    if answered && size.ws_col > 0 { usize::from(size.ws_col) } else { 80 }
}

/// Prints text line by line with its rank in front; keeps unfinished lines until they end.
struct Printer {
    style: Style,
    labels: bool,
    shows: bool,
    unfinished: BTreeMap<(u32, bool), (String, String)>,
}

impl Printer {
    fn new(style: Style, labels: bool, shows: bool) -> Printer {
        Printer { style, labels, shows, unfinished: BTreeMap::new() }
    }

    fn print(&mut self, output: &Output) {
        if !self.shows {
            return;
        }
        let origin = output.engine.as_deref().map(Origin::of);
        let number = origin.map(|origin| origin.number);
        let prefix = match origin {
            Some(origin) if self.labels => self.style.label(number, &origin.prefix()),
            _ => String::new(),
        };
        match &output.item {
            OutputItem::Stdout(text) => self.lines(number, false, prefix, text),
            OutputItem::Stderr(text) => self.lines(number, true, prefix, text),
            OutputItem::Display(display) => {
                self.lines(number, false, prefix, &format!("{}\n", display.text()))
            }
            // Results and errors are shown together at the end.
            OutputItem::Result(_) | OutputItem::Error { .. } => {}
        }
    }

    fn lines(&mut self, number: Option<u32>, to_stderr: bool, prefix: String, text: &str) {
        let key = (number.unwrap_or(u32::MAX), to_stderr);
        let (_, pending) = self.unfinished.entry(key).or_insert_with(|| (prefix.clone(), String::new()));
        pending.push_str(text);
        let Some(end) = pending.rfind('\n') else { return };
        let rest = pending.split_off(end + 1);
        let page: String = pending.lines().map(|line| format!("{prefix}{line}\n")).collect();
        *pending = rest;
        if pending.is_empty() {
            self.unfinished.remove(&key);
        }
        write_page(&page, to_stderr);
    }

    fn finish(&mut self) {
        for ((_, to_stderr), (prefix, text)) in std::mem::take(&mut self.unfinished) {
            write_page(&format!("{prefix}{text}\n"), to_stderr);
        }
    }
}

/// Whoever closed our output (`client px … | head`) wants no more of it.
fn write_page(page: &str, to_stderr: bool) {
    let written = if to_stderr {
        std::io::stderr().write_all(page.as_bytes())
    } else {
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(page.as_bytes()).and_then(|()| stdout.flush())
    };
    drop(written);
}

/// Prints to standard output; a closed pipe is no error.
pub(crate) fn print(page: &str) {
    write_page(page, false);
}
