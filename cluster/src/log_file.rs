//! Reading the ends of log files, for failures and `cluster logs`.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use crate::failure::LastLines;

/// How much of a failed program's output is shown. Enough for a panic or an MPI error block, little enough for
/// a screen.
pub const LAST_LINES_MAX: usize = 20;

/// How much of a file's end is looked at: a program that wrote longer lines than this has nothing to tell.
const TAIL_BYTES_MAX: u64 = 64 * 1024;

/// Longer lines are cut: some programs write whole tables without a line break.
const LINE_CHARS_MAX: usize = 400;

/// The last lines of a log, fit for a terminal; none if it cannot be read.
pub fn last_lines(path: &Path, count: usize) -> Option<LastLines> {
    let text = tail(path).ok()?;
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let from = lines.len().saturating_sub(count);
    let lines = lines[from..].iter().map(|line| printable(line)).collect();
    Some(LastLines { path: path.display().to_string(), lines })
}

/// The end of a file as text, from the start of a line.
pub fn tail(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let from = length.saturating_sub(TAIL_BYTES_MAX);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES_MAX).read_to_end(&mut bytes)?;
    let mut text = String::from_utf8_lossy(&bytes).into_owned();
    if from > 0 {
        let first_break = text.find('\n').map_or(0, |position| position + 1);
        text.drain(..first_break);
    }
    Ok(text)
}

/// What other programs wrote must not steer the user's terminal.
pub fn printable(line: &str) -> String {
    let clean = without_escapes(line);
    let mut shown: String = clean.chars().take(LINE_CHARS_MAX).collect();
    if clean.chars().nth(LINE_CHARS_MAX).is_some() {
        shown.push('…');
    }
    shown
}

/// Drops colour sequences and control characters.
fn without_escapes(line: &str) -> String {
    let mut clean = String::with_capacity(line.len());
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            if chars.next_if_eq(&'[').is_some() {
                while chars.next().is_some_and(|c| !('@'..='~').contains(&c)) {}
            }
        } else if c == '\t' || !c.is_control() {
            clean.push(c);
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_of_a_long_log_is_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let text: String = (0..20_000).map(|number| format!("line {number}\n")).collect();
        std::fs::write(&path, text).unwrap();

        let found = last_lines(&path, 2).unwrap();

        assert_eq!(found.lines, ["line 19998", "line 19999"]);
    }

    #[test]
    fn a_missing_log_is_no_log() {
        assert_eq!(last_lines(Path::new("/nonexistent/log"), 5), None);
    }

    #[test]
    fn escapes_and_control_characters_are_dropped() {
        assert_eq!(printable("\u{1b}[31mred\u{1b}[0m\u{7}\tx\u{1b}"), "red\tx");
        assert_eq!(printable(&"x".repeat(500)).chars().count(), LINE_CHARS_MAX + 1);
    }
}
