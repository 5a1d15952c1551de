//! From Rhai's errors to ours: Python's names, places in the user's own text, and a traceback.

use std::rc::Rc;

use rhai::{Dynamic, EvalAltResult, LexError, ParseErrorType, Position};

use crate::runner::RunError;

use super::builtins;
use super::namespace::{Session, SourceText};
use super::raised::Raised;
use super::source::{Complaint, place};

/// The error of a cell that ran.
pub(super) fn of_run(session: &Session, source: &Rc<SourceText>, error: EvalAltResult) -> RunError {
    let mut frames = Vec::new();
    let mut current = source.clone();
    let mut function = None;
    let mut error = error;
    loop {
        match error {
            EvalAltResult::ErrorInFunctionCall(name, _, inner, position) => {
                frames.push(frame(&current, function.as_deref(), position));
                if let Some(origin) = session.origins.borrow().get(&name) {
                    current = origin.clone();
                }
                function = Some(name);
                error = *inner;
            }
            EvalAltResult::ErrorInModule(_, inner, _) => error = *inner,
            other => {
                let position = other.position();
                frames.push(frame(&current, function.as_deref(), position));
                let raised = raised_of(session, other);
                return assemble(raised, frames);
            }
        }
    }
}

/// A frame of the traceback.
struct Frame {
    line: Option<usize>,
    column: Option<usize>,
    label: String,
    lines: Vec<String>,
}

fn frame(source: &SourceText, function: Option<&str>, position: Position) -> Frame {
    let inside = match function {
        Some(name) if name.starts_with("anon$") => ", in a closure".to_owned(),
        Some(name) => format!(", in {name}"),
        None => String::new(),
    };
    if position.is_none() {
        return Frame {
            line: None,
            column: None,
            label: source.label.clone(),
            lines: vec![format!("  {}{inside}", source.label)],
        };
    }
    let (line, edited) = place(position);
    let column = source.map.column(line, edited);
    let mut lines = vec![format!("  {}, line {line}, column {column}{inside}", source.label)];
    if let Some(text) = source.text.lines().nth(line - 1) {
        let shown = text.trim_end();
        lines.push(format!("    {shown}"));
        let caret = column.saturating_sub(1).min(shown.chars().count());
        // Tabs stay tabs, so that the caret stands under its character.
        let indent: String = shown.chars().take(caret).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        lines.push(format!("    {indent}^"));
    }
    Frame { line: Some(line), column: Some(column), label: source.label.clone(), lines }
}

fn assemble(raised: Raised, frames: Vec<Frame>) -> RunError {
    let outermost = frames.first();
    let (line, column) = (outermost.and_then(|frame| frame.line), outermost.and_then(|frame| frame.column));
    let innermost =
        frames.iter().rev().find_map(|frame| Some((frame.line?, frame.column?, frame.label.as_str())));
    let evalue = match innermost {
        // The place is told already where the error came from another text.
        Some((line, column, label)) if raised.traceback.is_empty() => {
            format!("{} ({label}, line {line}, column {column})", raised.message)
        }
        _ => raised.message.clone(),
    };
    let mut traceback = vec!["Traceback (most recent call last):".to_owned()];
    traceback.extend(frames.into_iter().flat_map(|frame| frame.lines));
    if raised.traceback.is_empty() {
        traceback.push(format!("{}: {}", raised.name, raised.message));
    } else {
        traceback.extend(raised.traceback.into_iter().skip_while(|line| line.starts_with("Traceback")));
    }
    RunError {
        interrupted: raised.name == "KeyboardInterrupt",
        ename: raised.name.into_owned(),
        evalue,
        traceback,
        line,
        column,
        published: false,
    }
}

fn raised_of(session: &Session, error: EvalAltResult) -> Raised {
    match error {
        EvalAltResult::ErrorTerminated(token, _) => {
            token.try_cast::<Raised>().unwrap_or_else(Raised::interrupted)
        }
        EvalAltResult::ErrorRuntime(value, _) => thrown(value),
        EvalAltResult::ErrorVariableNotFound(name, _) => not_defined(session, &name),
        EvalAltResult::ErrorFunctionNotFound(signature, _) => function_not_found(session, &signature),
        EvalAltResult::ErrorMismatchDataType(wanted, found, _) => {
            Raised::new("TypeError", format!("a {} is needed here, not a {}", plain(&wanted), plain(&found)))
        }
        EvalAltResult::ErrorMismatchOutputType(wanted, found, _) => Raised::new(
            "TypeError",
            format!("the result must be a {}, not a {}", plain(&wanted), plain(&found)),
        ),
        EvalAltResult::ErrorIndexingType(name, _) => {
            Raised::new("TypeError", format!("this cannot be indexed so: {}", plain(&name)))
        }
        EvalAltResult::ErrorArrayBounds(0, index, _) => {
            Raised::new("IndexError", format!("index {index} is outside an empty list"))
        }
        EvalAltResult::ErrorArrayBounds(count, index, _) => {
            Raised::new("IndexError", format!("index {index} is outside a list of {count} items"))
        }
        EvalAltResult::ErrorStringBounds(count, index, _) => {
            Raised::new("IndexError", format!("index {index} is outside a string of {count} letters"))
        }
        EvalAltResult::ErrorBitFieldBounds(_, index, _) => {
            Raised::new("IndexError", format!("an integer has no bit {index}"))
        }
        EvalAltResult::ErrorIndexNotFound(index, _) => {
            Raised::new("KeyError", format!("{} is not a key of the map", super::display::shown(&index)))
        }
        EvalAltResult::ErrorPropertyNotFound(name, _) => {
            Raised::new("AttributeError", format!("there is no property `{name}`"))
        }
        EvalAltResult::ErrorDotExpr(text, _) => Raised::new("AttributeError", plain(&text)),
        EvalAltResult::ErrorArithmetic(text, _) => arithmetic(&text),
        EvalAltResult::ErrorFor(_) => Raised::new(
            "TypeError",
            "`for` needs something to go through: a range, a list, an array, a string or a map",
        ),
        EvalAltResult::ErrorAssignmentToConstant(name, _) => Raised::new(
            "TypeError",
            format!("`{}` cannot be assigned here: it is a constant or not a variable", user_name(&name)),
        ),
        EvalAltResult::ErrorStackOverflow(_) => recursion(),
        EvalAltResult::ErrorTooManyVariables(_) => Raised::new("MemoryError", "too many variables"),
        EvalAltResult::ErrorDataTooLarge(what, _) => Raised::new(
            "MemoryError",
            format!("{what} exceeds the limit of the prompt language; use an array"),
        ),
        EvalAltResult::ErrorParsing(kind, _) => syntax(&kind),
        EvalAltResult::ErrorUnboundThis(_) => Raised::new("NameError", "`this` has no value here"),
        EvalAltResult::ErrorModuleNotFound(name, _) => {
            Raised::new("ImportError", format!("modules cannot be imported (`{name}`); use `run(\"file\")`"))
        }
        other => Raised::new("RuntimeError", user_name(&other.to_string())),
    }
}

/// Too many calls inside of calls.
pub(super) fn recursion() -> Raised {
    Raised::new("RecursionError", "too many calls inside of calls; does the recursion end?")
}

fn thrown(value: Dynamic) -> Raised {
    let raised = value.read_lock::<Raised>().map(|raised| raised.clone());
    if let Some(raised) = raised {
        return raised;
    }
    let text = super::display::printed(&value);
    Raised::new("RuntimeError", text)
}

fn arithmetic(text: &str) -> Raised {
    let lower = text.to_lowercase();
    if lower.contains("by zero") {
        super::raised::zero_division()
    } else if lower.contains("overflow") || lower.contains("too large") {
        super::raised::overflow_error(format!("the result does not fit into an integer: {text}"))
    } else {
        super::raised::value_error(text)
    }
}

/// A name as the user wrote it, without the prefixes that [`super::source`] adds.
fn user_name(name: &str) -> String {
    let mut name = name.to_owned();
    for prefix in [super::source::SET_PREFIX, super::source::CONST_PREFIX] {
        name = name.replace(prefix, "");
    }
    name
}

/// Rhai's names of types, as ours.
fn plain(text: &str) -> String {
    let mut text = text.to_owned();
    for (rust, ours) in [
        ("engine::array::Array", "array"),
        ("num_complex::Complex<f64>", "complex"),
        ("alloc::string::String", "string"),
        ("&str | ImmutableString | String", "string"),
        ("Missing", "undefined"),
        ("i64", "int"),
        ("f64", "float"),
        ("& array", "array"),
        ("&mut array", "array"),
    ] {
        text = text.replace(rust, ours);
    }
    text
}

fn not_defined(session: &Session, name: &str) -> Raised {
    let name = user_name(name);
    let functions: Vec<String> = session.origins.borrow().keys().cloned().collect();
    let known = session
        .names()
        .into_iter()
        .map(|(name, _)| name.to_string())
        .chain(builtins::all().map(|builtin| builtin.name.to_owned()))
        .chain(functions);
    let near = known
        .filter(|known| !known.starts_with("anon$"))
        .map(|known| (distance(known.as_str(), &name), known))
        .filter(|(far, known)| *far <= 1 + known.len() / 5)
        .min();
    let hint = near.map_or(String::new(), |(_, near)| format!("; did you mean `{near}`?"));
    Raised::new("NameError", format!("name '{name}' is not defined{hint}"))
}

/// How many letters must change to make one word of the other (Levenshtein). Words are short.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, x) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in right.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

fn function_not_found(session: &Session, signature: &str) -> Raised {
    let name = signature.split([' ', '(']).next().unwrap_or_default();
    let arguments = signature.strip_prefix(name).unwrap_or_default().trim();
    if let Some(builtin) = builtins::find(name) {
        return Raised::new(
            "TypeError",
            format!("{name} cannot be called with {}; call it as {}", plain(arguments), builtin.signature),
        );
    }
    if session.origins.borrow().contains_key(name) {
        let library = session.library.borrow();
        let wanted = library.iter_functions().find(|function| function.name == name);
        let wanted = wanted.map_or(String::new(), |function| format!("; call it as {function}"));
        return Raised::new("TypeError", format!("{name} does not take {}{wanted}", plain(arguments)));
    }
    if name.starts_with(|first: char| first.is_alphabetic() || first == '_') {
        let mut raised = not_defined(session, name);
        raised.message = raised.message.replacen("name '", "function '", 1);
        return raised;
    }
    let operands = plain(arguments.trim_matches(['(', ')']));
    Raised::new(
        "TypeError",
        format!("`{name}` does not work between {}", operands.replacen(", ", " and ", 1)),
    )
}

fn syntax(kind: &ParseErrorType) -> Raised {
    let message = match kind {
        ParseErrorType::BadInput(LexError::UnexpectedInput(text)) => format!("unexpected `{text}`"),
        other => other.to_string(),
    };
    Raised::new("SyntaxError", user_name(&message))
}

/// The error of a text that Rhai cannot read.
pub(super) fn of_parsing(source: &SourceText, error: &rhai::ParseError) -> RunError {
    assemble(syntax(error.err_type()), vec![frame(source, None, error.position())])
}

/// The error of a text whose names make no sense.
pub(super) fn of_complaint(source: &SourceText, complaint: Complaint) -> RunError {
    let line = u16::try_from(complaint.line).unwrap_or(u16::MAX);
    let column = u16::try_from(complaint.column).unwrap_or(u16::MAX);
    let position = Position::new(line.max(1), column);
    assemble(Raised::new("SyntaxError", complaint.message), vec![frame(source, None, position)])
}

/// An error that has no place in any text.
pub(super) fn of_raised(raised: Raised) -> RunError {
    assemble(raised, Vec::new())
}
