//! What a line is: a command, or code; and whether it is complete.

use super::command::{COMMANDS, Command, Completion};

/// A line, understood.
#[derive(Debug)]
pub(super) enum Line<'a> {
    /// A command and the rest of the line.
    Command(&'static Command, &'a str),
    /// `%` and a word that is no command.
    Unknown(&'a str),
    /// Anything else.
    Code(&'a str),
}

/// Understands a line.
pub(super) fn line(text: &str) -> Line<'_> {
    let trimmed = text.trim();
    let (marked, body) = match trimmed.strip_prefix('%') {
        Some(body) => (true, body),
        None => (false, trimmed),
    };
    let end = body.find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-').unwrap_or(body.len());
    let (word, rest) = body.split_at(end);
    let command = COMMANDS.iter().find(|command| command.name == word || command.aliases.contains(&word));
    match command {
        Some(command) if marked || reads_as_command(rest) => Line::Command(command, rest.trim()),
        None if marked => Line::Unknown(word),
        _ => Line::Code(trimmed),
    }
}

/// Whether what follows a command's name leaves it one: nothing, or an argument after a space. An operator, a
/// bracket, a dot or a semicolon makes the word a variable or function of the engines.
fn reads_as_command(rest: &str) -> bool {
    if rest.is_empty() {
        return true;
    }
    if !rest.starts_with(char::is_whitespace) {
        return false;
    }
    let argument = rest.trim_start();
    let mut characters = argument.chars();
    match (characters.next(), characters.next()) {
        // `run = 3`, `status == 1`, `time + 1`; but `interrupt` with a path `/x` or `-1` stays a command.
        (
            Some('=' | '+' | '*' | '<' | '>' | '!' | '&' | '|' | '?' | ')' | ']' | '}' | ',' | ';' | '%'),
            _,
        ) => false,
        (Some('-' | '/'), Some(c)) => !c.is_whitespace(),
        _ => true,
    }
}

/// Whether brackets, strings or comments are still open, so that another line belongs to this one.
pub(super) fn is_unfinished(text: &str) -> bool {
    match line(text) {
        // Only commands that take code go over several lines.
        Line::Command(command, _) if command.completion != Completion::Code => return false,
        Line::Unknown(_) => return false,
        Line::Command(..) | Line::Code(_) => {}
    }
    let mut depth = 0_i64;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' | '`' if !skip_string(&mut characters, character) => return true,
            '"' | '`' => {}
            '/' if characters.peek() == Some(&'/') => {
                characters.by_ref().take_while(|&c| c != '\n').for_each(drop);
            }
            '/' if characters.peek() == Some(&'*') => {
                characters.next();
                if !skip_comment(&mut characters) {
                    return true;
                }
            }
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            _ => {}
        }
    }
    depth > 0 || text.ends_with('\\')
}

/// Whether the string ends; only `"…"` has escapes.
fn skip_string(characters: &mut impl Iterator<Item = char>, quote: char) -> bool {
    while let Some(character) = characters.next() {
        if character == quote {
            return true;
        }
        if character == '\\' && quote == '"' {
            characters.next();
        }
    }
    false
}

fn skip_comment(characters: &mut impl Iterator<Item = char>) -> bool {
    let mut before = ' ';
    for character in characters {
        if before == '*' && character == '/' {
            return true;
        }
        before = character;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(text: &str) -> String {
        match line(text) {
            Line::Command(command, arguments) => format!("{}({arguments})", command.name),
            Line::Unknown(word) => format!("unknown {word}"),
            Line::Code(code) => format!("code {code}"),
        }
    }

    #[test]
    fn the_first_word_decides_unless_it_is_used_as_a_variable() {
        assert_eq!(kind("status"), "status()");
        assert_eq!(kind("  targets 0,2 "), "targets(0,2)");
        assert_eq!(kind("px 1 + 1"), "px(1 + 1)");
        assert_eq!(kind("%px a = 3"), "px(a = 3)");
        assert_eq!(kind("status = 3"), "code status = 3");
        assert_eq!(kind("run(3)"), "code run(3)");
        assert_eq!(kind("time.x"), "code time.x");
        assert_eq!(kind("run /tmp/x"), "run(/tmp/x)");
        assert_eq!(kind("targets -1"), "targets(-1)");
        assert_eq!(kind("time - 1"), "code time - 1");
        assert_eq!(kind("a = rand(100)"), "code a = rand(100)");
        assert_eq!(kind("%nonsense x"), "unknown nonsense");
    }

    #[test]
    fn open_brackets_strings_and_comments_go_on() {
        for open in ["fn f(x) {", "a = [1,", "\"abc", "/* x", "px f(", "`x\ny", "x = \\"] {
            assert!(is_unfinished(open), "{open:?}");
        }
        for closed in
            ["1 + 1", "\"}{\"", "// {", "fn f() { 1 }", "targets (", "\"\\\"\"", "}", "`{`", "/* { */ 1"]
        {
            assert!(!is_unfinished(closed), "{closed:?}");
        }
    }
}
