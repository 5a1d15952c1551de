//! Job scripts from templates: text with blanks like `{{queue}}`.
//!
//! A line that begins with `#` and has a blank without a value is left out: that is how an option that was not
//! given leaves no trace. Anywhere else a blank needs a value. A value that has no blank is an error too: an option
//! that a site's template ignores would silently have no effect.

use std::collections::BTreeSet;

/// Longer scripts than any batch system takes.
pub const TEMPLATE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The blank that runs the engines; a script without it would start nothing.
const COMMAND: &str = "command";

/// What one blank is filled with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blank {
    /// Its name in the template.
    pub name: &'static str,
    /// Its text; none if the user said nothing.
    pub value: Option<String>,
    /// The option that gives the value, for messages; none if it has a value always.
    pub option: Option<&'static str>,
}

/// What is wrong with a template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A name that means nothing.
    #[error("line {line} of {origin} has the unknown blank {{{{{name}}}}}; there are: {known}")]
    Unknown {
        /// Where the template is from.
        origin: String,
        /// From 1.
        line: usize,
        /// As written.
        name: String,
        /// All names.
        known: String,
    },
    /// `{{` without `}}`.
    #[error("line {line} of {origin} opens a blank with {{{{ and does not close it")]
    Unclosed {
        /// Where the template is from.
        origin: String,
        /// From 1.
        line: usize,
    },
    /// A command needs a value that nobody gave.
    #[error("line {line} of {origin} needs {{{{{name}}}}}: give {option}")]
    Unfilled {
        /// Where the template is from.
        origin: String,
        /// From 1.
        line: usize,
        /// Of the blank.
        name: &'static str,
        /// What gives the value.
        option: &'static str,
    },
    /// The template would ignore what the user asked for.
    #[error(
        "{origin} has no blank {{{{{name}}}}}, so {option} would have no effect; add it or leave that out"
    )]
    Unused {
        /// Where the template is from.
        origin: String,
        /// Of the blank.
        name: &'static str,
        /// What gave the value.
        option: &'static str,
    },
    /// Nothing would be started.
    #[error(
        "{origin} has no line with {{{{command}}}}, so it would start nothing; add one: exec {{{{command}}}}"
    )]
    NoCommand {
        /// Where the template is from.
        origin: String,
    },
    /// The batch system would refuse it, in its own words.
    #[error(
        "{origin} does not begin with #! and an interpreter, as batch systems want; begin it with: #!/bin/sh"
    )]
    NoInterpreter {
        /// Where the template is from.
        origin: String,
    },
    /// A value would break out of its line.
    #[error("{option} has a line break or another control character in it")]
    ControlCharacter {
        /// What gave the value.
        option: String,
    },
    /// Nobody writes so long a script.
    #[error("{origin} has more than {TEMPLATE_BYTES_MAX} bytes; this is no template of a job script")]
    TooLong {
        /// Where the template is from.
        origin: String,
    },
}

/// The script: `text` with its blanks filled. `origin` names it in messages.
pub fn fill(origin: &str, text: &str, blanks: &[Blank]) -> Result<String, TemplateError> {
    let origin = || origin.to_owned();
    if text.len() > TEMPLATE_BYTES_MAX {
        return Err(TemplateError::TooLong { origin: origin() });
    }
    if !text.starts_with("#!") {
        return Err(TemplateError::NoInterpreter { origin: origin() });
    }
    if let Some(blank) = blanks.iter().find(|blank| has_control_character(blank)) {
        return Err(TemplateError::ControlCharacter {
            option: blank.option.unwrap_or(blank.name).to_owned(),
        });
    }
    let mut script = String::with_capacity(text.len());
    let mut used = BTreeSet::new();
    for (index, line) in text.lines().enumerate() {
        let filled =
            fill_line(line, blanks, &mut used).map_err(|wrong| wrong.at(origin(), index + 1, blanks))?;
        if let Some(filled) = filled {
            script.push_str(&filled);
            script.push('\n');
        }
    }
    if !used.contains(COMMAND) {
        return Err(TemplateError::NoCommand { origin: origin() });
    }
    for blank in blanks {
        if let (Some(_), Some(option), false) = (&blank.value, blank.option, used.contains(blank.name)) {
            return Err(TemplateError::Unused { origin: origin(), name: blank.name, option });
        }
    }
    Ok(script)
}

enum Wrong {
    Unknown(String),
    Unclosed,
    Unfilled(&'static str, &'static str),
}

impl Wrong {
    fn at(self, origin: String, line: usize, blanks: &[Blank]) -> TemplateError {
        match self {
            Wrong::Unknown(name) => {
                let known: Vec<&str> = blanks.iter().map(|blank| blank.name).collect();
                TemplateError::Unknown { origin, line, name, known: known.join(", ") }
            }
            Wrong::Unclosed => TemplateError::Unclosed { origin, line },
            Wrong::Unfilled(name, option) => TemplateError::Unfilled { origin, line, name, option },
        }
    }
}

/// The line with its blanks filled; none if it is to be left out.
fn fill_line(
    line: &str,
    blanks: &[Blank],
    used: &mut BTreeSet<&'static str>,
) -> Result<Option<String>, Wrong> {
    let mut filled = String::new();
    let mut rest = line;
    let mut left_out = false;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, after) = after.split_once("}}").ok_or(Wrong::Unclosed)?;
        let name = name.trim();
        let blank = blanks.iter().find(|blank| blank.name == name);
        let blank = blank.ok_or_else(|| Wrong::Unknown(name.to_owned()))?;
        used.insert(blank.name);
        filled.push_str(before);
        match (&blank.value, line.starts_with('#')) {
            (Some(value), _) => filled.push_str(value),
            (None, true) => left_out = true,
            (None, false) => return Err(Wrong::Unfilled(blank.name, blank.option.unwrap_or("its option"))),
        }
        rest = after;
    }
    filled.push_str(rest);
    Ok((!left_out).then_some(filled))
}

fn has_control_character(blank: &Blank) -> bool {
    blank.value.iter().any(|value| value.chars().any(char::is_control))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blank(name: &'static str, value: Option<&str>) -> Blank {
        let option = if name == "queue" { Some("--queue") } else { None };
        Blank { name, value: value.map(str::to_owned), option }
    }

    fn fill_with(text: &str, queue: Option<&str>) -> Result<String, String> {
        let blanks = [blank("command", Some("run it")), blank("queue", queue)];
        fill("a.sh", text, &blanks).map_err(|error| error.to_string())
    }

    #[test]
    fn an_option_that_was_not_given_leaves_no_trace_and_one_that_was_is_filled_in() {
        let text = "#!/bin/sh\n#SBATCH -p {{queue}}\nexec {{ command }} # {{command}}\n";
        assert_eq!(fill_with(text, None).unwrap(), "#!/bin/sh\nexec run it # run it\n");
        let filled = "#!/bin/sh\n#SBATCH -p debug\nexec run it # run it\n";
        assert_eq!(fill_with(text, Some("debug")).unwrap(), filled);
    }

    #[test]
    fn a_blank_that_is_unknown_unclosed_or_unfilled_is_named_with_its_line() {
        for (text, words) in [
            (
                "#!/bin/sh\nexec {{comand}}",
                "line 2 of a.sh has the unknown blank {{comand}}; there are: command, queue",
            ),
            ("#!/bin/sh\nexec {{command", "line 2 of a.sh opens a blank with {{ and does not close it"),
            ("#!/bin/sh\nexec {{command}}\necho {{queue}}", "line 3 of a.sh needs {{queue}}: give --queue"),
        ] {
            assert_eq!(fill_with(text, None).unwrap_err(), words);
        }
    }

    #[test]
    fn a_template_that_would_ignore_an_option_or_start_nothing_is_refused() {
        let said = fill_with("#!/bin/sh\nexec {{command}}", Some("debug")).unwrap_err();
        assert!(said.contains("no blank {{queue}}, so --queue would have no effect"), "{said}");
        let said = fill_with("#!/bin/sh\n", None).unwrap_err();
        assert!(said.contains("would start nothing"), "{said}");
        assert!(fill_with("exec {{command}}", None).unwrap_err().contains("#!/bin/sh"));
    }

    #[test]
    fn no_value_can_add_a_line() {
        let said =
            fill_with("#!/bin/sh\n#SBATCH -p {{queue}}\nexec {{command}}", Some("x\nrm -r /")).unwrap_err();
        assert!(said.contains("--queue has a line break"), "{said}");
    }
}
