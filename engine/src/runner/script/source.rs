//! From what the user typed to what Rhai runs: names are resolved here, so that a cell behaves as at a prompt.
//!
//! Rhai's own scoping is that of a script: every variable needs `let`, and functions see none of the session.
//! This pass reads the tokens (from Rhai's own lexer), finds out what every name means, and edits the text:
//!
//! * a global that a cell or function reads becomes a local that shares its memory cell (`let a;` and
//!   `__bind_0;` at the start, see [`super::namespace`]);
//! * an assignment at top level, with or without `let`, writes to the namespace (`__set_a = …`);
//! * an assignment in a function makes a local (`let b;` at its start);
//! * a call of a variable that holds a function is written as Rhai wants it (`call(f, …)`).
//!
//! No edit adds or removes a line, and [`SourceMap`] undoes the shift of columns, so that every error speaks of
//! the text as the user typed it.

use std::collections::{BTreeMap, BTreeSet};

use rhai::{Engine, Position, Token};

/// The prefix of names that this pass makes. Users cannot have them.
pub(super) const RESERVED_PREFIX: &str = "__";
/// Writes a global.
pub(super) const SET_PREFIX: &str = "__set_";
/// Writes a global that cannot be written again.
pub(super) const CONST_PREFIX: &str = "__const_";
/// Fills the locals that stand for globals.
pub(super) const BIND_PREFIX: &str = "__bind_";
/// Calls a function that is not known yet.
pub(super) const CALL_LATE: &str = "__call";

/// Functions of Rhai itself that are called by name and must not be taken for the user's.
const FUNCTIONS_OF_RHAI: &[&str] =
    &["Fn", "call", "curry", "eval", "is_def_fn", "is_def_var", "is_shared", "type_of", "debug", "print"];

/// What exists before the cell runs.
pub(super) trait Known {
    /// Whether a function of that name can be called.
    fn is_function(&self, name: &str) -> bool;
    /// Whether the namespace has a value of that name.
    fn is_variable(&self, name: &str) -> bool;
    /// The number that stands for a list of names in `__bind_…`.
    fn intern(&self, names: Vec<String>) -> usize;
}

/// A cell, ready to be compiled.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) text: String,
    pub(super) map: SourceMap,
    /// Functions that the cell defines.
    pub(super) functions: BTreeSet<String>,
}

/// A complaint about the text, before it runs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Complaint {
    pub(super) message: String,
    pub(super) line: usize,
    pub(super) column: usize,
}

/// From columns of the edited text to those of the user's.
#[derive(Clone, Debug, Default)]
pub(super) struct SourceMap {
    /// Per line: where an edit was made (column of the user's text, from 1), how many characters went, how
    /// many came; in order.
    edits: BTreeMap<usize, Vec<(usize, usize, usize)>>,
    /// How the text that was edited had been made of the user's.
    before: Option<Box<SourceMap>>,
}

impl SourceMap {
    /// The column in the user's text; one inside of an insertion is that of the insertion.
    pub(super) fn column(&self, line: usize, column: usize) -> usize {
        let column = self.column_before(line, column);
        self.before.as_ref().map_or(column, |before| before.column(line, column))
    }

    /// The map of a text that was edited twice.
    pub(super) fn after(mut self, before: SourceMap) -> SourceMap {
        self.before = Some(Box::new(before));
        self
    }

    fn column_before(&self, line: usize, column: usize) -> usize {
        let mut shift = 0_isize; // edited minus original, for what follows the edits seen so far
        for &(at, removed, inserted) in self.edits.get(&line).into_iter().flatten() {
            let start = at.saturating_add_signed(shift);
            if column < start {
                break;
            }
            if column < start + inserted {
                return at;
            }
            shift += inserted as isize - removed as isize;
        }
        column.saturating_add_signed(-shift).max(1)
    }
}

struct Edit {
    offset: usize,
    removed: usize,
    inserted: String,
    is_prelude: bool,
}

impl Edit {
    fn insert(offset: usize, inserted: impl Into<String>) -> Edit {
        Edit::replace(offset, 0, inserted)
    }

    fn replace(offset: usize, removed: usize, inserted: impl Into<String>) -> Edit {
        Edit { offset, removed, inserted: inserted.into(), is_prelude: false }
    }
}

struct Word {
    token: Token,
    offset: usize,
    line: usize,
    column: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum BodyKind {
    TopLevel,
    Function,
    Closure,
}

/// A stretch of code with its own locals.
struct Body {
    kind: BodyKind,
    /// Declared names, one set per open block.
    blocks: Vec<BTreeSet<String>>,
    /// Assigned without a declaration.
    assigned: BTreeSet<String>,
    /// Used, but neither declared nor assigned before.
    free: BTreeSet<String>,
    /// Where declarations can be inserted; closures without braces have no such place.
    start: Option<usize>,
    /// How many brackets were open before it; a closure without braces ends when one of those closes.
    depth: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Bracket {
    Plain,
    Map,
    Block,
    Body,
}

struct Analysis<'a, K: Known> {
    known: &'a K,
    words: Vec<Word>,
    at: usize,
    bodies: Vec<Body>,
    brackets: Vec<Bracket>,
    edits: Vec<Edit>,
    /// Names that the next block declares, and how many brackets were open when they were read.
    pending: Option<(usize, BTreeSet<String>)>,
    functions: BTreeSet<String>,
    assigned_at_top: BTreeSet<String>,
}

/// Resolves the names of a cell that Rhai can parse.
pub(super) fn prepare(engine: &Engine, code: &str, known: &impl Known) -> Result<Prepared, Complaint> {
    let words = read_words(engine, code);
    let functions = defined_functions(&words);
    let assigned_at_top = assigned_at_top(&words);
    let mut analysis = Analysis {
        known,
        words,
        at: 0,
        bodies: Vec::new(),
        brackets: Vec::new(),
        edits: Vec::new(),
        pending: None,
        functions,
        assigned_at_top,
    };
    analysis.open_body(BodyKind::TopLevel, BTreeSet::new(), Some(0));
    while analysis.at < analysis.words.len() {
        analysis.on_word()?;
    }
    while !analysis.bodies.is_empty() {
        analysis.close_body();
    }
    let Analysis { edits, functions, .. } = analysis;
    let (text, map) = apply(code, edits);
    Ok(Prepared { text, map, functions })
}

impl<K: Known> Analysis<'_, K> {
    fn token(&self, ahead: usize) -> &Token {
        self.words.get(self.at + ahead).map_or(&Token::EOF, |word| &word.token)
    }

    fn body(&mut self) -> &mut Body {
        self.bodies.last_mut().expect("the top level is open until the end")
    }

    fn on_word(&mut self) -> Result<(), Complaint> {
        match self.token(0) {
            Token::Fn => self.on_function(),
            Token::Let | Token::Const => self.on_declaration()?,
            Token::For => self.on_for(),
            Token::Catch => self.on_catch(),
            Token::Pipe | Token::Or if self.expects_operand() => self.on_closure(),
            Token::Identifier(_) => return self.on_name(),
            Token::LeftBrace => self.open_block(),
            Token::MapStart => self.brackets.push(Bracket::Map),
            Token::LeftParen | Token::LeftBracket | Token::QuestionBracket => {
                self.brackets.push(Bracket::Plain)
            }
            Token::RightParen | Token::RightBracket | Token::RightBrace => self.on_close(),
            Token::Comma | Token::SemiColon => self.close_closures_at(self.brackets.len()),
            _ => {}
        }
        self.at += 1;
        Ok(())
    }

    /// Whether a value is to begin here, so that `|` opens a closure.
    fn expects_operand(&self) -> bool {
        let Some(previous) = self.at.checked_sub(1).map(|at| &self.words[at].token) else {
            return true;
        };
        !matches!(
            previous,
            Token::Identifier(_)
                | Token::IntegerConstant(_)
                | Token::FloatConstant(_)
                | Token::CharConstant(_)
                | Token::StringConstant(_)
                | Token::True
                | Token::False
                | Token::Unit
                | Token::RightParen
                | Token::RightBracket
                | Token::RightBrace
                | Token::Reserved(_)
        )
    }

    fn open_body(&mut self, kind: BodyKind, locals: BTreeSet<String>, start: Option<usize>) {
        self.bodies.push(Body {
            kind,
            blocks: vec![locals],
            assigned: BTreeSet::new(),
            free: BTreeSet::new(),
            start,
            depth: self.brackets.len(),
        });
    }

    /// Declares what the body needs at its start.
    fn close_body(&mut self) {
        let Some(body) = self.bodies.pop() else { return };
        let mut free = body.free;
        let mut prelude = String::new();
        if body.kind == BodyKind::TopLevel {
            // Top-level assignments write to the namespace; reads of the same name stay reads.
        } else {
            for name in &body.assigned {
                prelude += &format!("let {name};");
                free.remove(name);
            }
        }
        if body.kind == BodyKind::Closure {
            // What a closure sees of the session, it captures from around it.
            for name in free {
                self.use_name(name);
            }
        } else if !free.is_empty() {
            for name in &free {
                prelude += &format!("let {name};");
            }
            let number = self.known.intern(free.into_iter().collect());
            prelude += &format!("{BIND_PREFIX}{number};");
        }
        if let Some(offset) = body.start
            && !prelude.is_empty()
        {
            self.edits.push(Edit { is_prelude: true, ..Edit::insert(offset, prelude) });
        }
    }

    /// Closures without braces end where the brackets around them do.
    fn close_closures_at(&mut self, depth: usize) {
        while self
            .bodies
            .last()
            .is_some_and(|body| body.kind == BodyKind::Closure && body.start.is_none() && body.depth >= depth)
        {
            self.close_body();
        }
    }

    fn open_block(&mut self) {
        let declared = match self.pending.take() {
            Some((depth, names)) if depth == self.brackets.len() => names,
            other => {
                self.pending = other;
                BTreeSet::new()
            }
        };
        self.brackets.push(Bracket::Block);
        self.body().blocks.push(declared);
    }

    fn on_close(&mut self) {
        self.close_closures_at(self.brackets.len());
        match self.brackets.pop() {
            Some(Bracket::Block) => {
                self.body().blocks.pop();
            }
            Some(Bracket::Body) => self.close_body(),
            _ => {}
        }
    }

    /// `fn name(parameters) {`
    fn on_function(&mut self) {
        let mut parameters = BTreeSet::new();
        let mut in_parameters = false;
        loop {
            self.at += 1;
            match self.token(0) {
                Token::LeftParen => in_parameters = true,
                Token::Identifier(name) if in_parameters => {
                    parameters.insert(name.to_string());
                }
                Token::LeftBrace => break,
                Token::EOF => return,
                _ => {}
            }
        }
        self.open_braced(BodyKind::Function, parameters);
    }

    fn open_braced(&mut self, kind: BodyKind, parameters: BTreeSet<String>) {
        let start = self.words[self.at].offset + 1;
        self.open_body(kind, parameters, Some(start));
        self.brackets.push(Bracket::Body);
    }

    /// `|parameters| expression` or `|parameters| { … }`
    fn on_closure(&mut self) {
        let mut parameters = BTreeSet::new();
        if matches!(self.token(0), Token::Pipe) {
            loop {
                self.at += 1;
                match self.token(0) {
                    Token::Identifier(name) => {
                        parameters.insert(name.to_string());
                    }
                    Token::Comma => {}
                    _ => break,
                }
            }
        }
        if matches!(self.token(1), Token::LeftBrace) {
            self.at += 1;
            self.open_braced(BodyKind::Closure, parameters);
        } else {
            self.open_body(BodyKind::Closure, parameters, None);
        }
    }

    /// `let name` and `const name`
    fn on_declaration(&mut self) -> Result<(), Complaint> {
        let Token::Identifier(name) = self.token(1) else { return Ok(()) };
        let name = name.to_string();
        self.refuse_reserved(&name, 1)?;
        let body = self.body();
        if body.kind == BodyKind::TopLevel && body.blocks.len() == 1 {
            let constant = matches!(self.token(0), Token::Const);
            let word = &self.words[self.at];
            let length = if constant { "const".len() } else { "let".len() };
            let edit = Edit::replace(word.offset, length, " ".repeat(length));
            self.edits.push(edit);
            let prefix = if constant { CONST_PREFIX } else { SET_PREFIX };
            let offset = self.words[self.at + 1].offset;
            self.edits.push(Edit::insert(offset, prefix));
            if !matches!(self.token(2), Token::Equals) {
                self.edits.push(Edit::insert(offset + name.len(), "=()"));
            }
        } else {
            body.blocks.last_mut().expect("a body has a block").insert(name);
        }
        self.at += 1; // The name, so that it is not read as an assignment.
        Ok(())
    }

    /// `for name in …` and `for (name, counter) in …`
    fn on_for(&mut self) {
        let mut names = BTreeSet::new();
        loop {
            self.at += 1;
            match self.token(0) {
                Token::Identifier(name) => {
                    names.insert(name.to_string());
                }
                Token::LeftParen | Token::RightParen | Token::Comma => {}
                _ => break,
            }
        }
        self.pending = Some((self.brackets.len(), names));
    }

    /// `catch (name) {`
    fn on_catch(&mut self) {
        if let (Token::LeftParen, Token::Identifier(name), Token::RightParen) =
            (self.token(1), self.token(2), self.token(3))
        {
            self.pending = Some((self.brackets.len(), BTreeSet::from([name.to_string()])));
            self.at += 3;
        }
    }

    fn on_name(&mut self) -> Result<(), Complaint> {
        let Token::Identifier(name) = self.token(0) else { return Ok(()) };
        let name = name.to_string();
        let previous = self.at.checked_sub(1).map_or(&Token::EOF, |at| &self.words[at].token);
        let is_member = matches!(previous, Token::Period | Token::Elvis | Token::DoubleColon);
        let is_key = self.brackets.last() == Some(&Bracket::Map) && matches!(self.token(1), Token::Colon);
        if !is_member && !is_key && !matches!(self.token(1), Token::DoubleColon) {
            self.refuse_reserved(&name, 0)?;
            match self.token(1) {
                Token::Equals => self.on_assignment(name),
                Token::LeftParen | Token::Unit => self.on_call(name),
                token if token.is_op_assignment() => self.on_update(name)?,
                _ => self.use_name(name),
            }
        }
        self.at += 1;
        Ok(())
    }

    /// Whether an open block declares the name, or an assignment did: in this body, or around a closure.
    fn is_local(&self, name: &str) -> bool {
        for body in self.bodies.iter().rev() {
            if body.blocks.iter().any(|block| block.contains(name)) {
                return true;
            }
            if body.kind != BodyKind::TopLevel && body.assigned.contains(name) {
                return true;
            }
            if body.kind != BodyKind::Closure {
                return false;
            }
        }
        false
    }

    fn use_name(&mut self, name: String) {
        if !self.is_local(&name) {
            self.body().free.insert(name);
        }
    }

    fn on_assignment(&mut self, name: String) {
        if self.is_local(&name) {
            return;
        }
        let offset = self.words[self.at].offset;
        let body = self.body();
        match body.kind {
            BodyKind::TopLevel => {
                self.edits.push(Edit::insert(offset, SET_PREFIX));
            }
            // Without braces there is no place for a declaration: the closure writes what it captures.
            BodyKind::Closure if body.start.is_none() => self.use_name(name),
            BodyKind::Closure | BodyKind::Function => {
                body.assigned.insert(name);
            }
        }
    }

    /// `name += …`
    fn on_update(&mut self, name: String) -> Result<(), Complaint> {
        if self.body().kind == BodyKind::Function && !self.is_local(&name) {
            let word = &self.words[self.at];
            return Err(Complaint {
                message: format!(
                    "`{name}` has no value in this function yet, and functions cannot change globals; pass it in, \
                     or return the new value"
                ),
                line: word.line,
                column: word.column,
            });
        }
        self.use_name(name);
        Ok(())
    }

    fn on_call(&mut self, name: String) {
        if FUNCTIONS_OF_RHAI.contains(&name.as_str()) {
            return;
        }
        let is_function = self.functions.contains(&name) || self.known.is_function(&name);
        let is_variable = self.is_local(&name)
            || !is_function && (self.known.is_variable(&name) || self.assigned_at_top.contains(&name));
        if !is_variable && is_function {
            return;
        }
        let without_arguments = matches!(self.token(1), Token::Unit);
        let (name_at, paren_at) = (self.words[self.at].offset, self.words[self.at + 1].offset);
        if is_variable {
            self.edits.push(Edit::insert(name_at, "call("));
            self.use_name(name);
        } else {
            // Defined later, or by a file that this cell runs.
            self.edits.push(Edit::replace(name_at, name.len(), format!("{CALL_LATE}(\"{name}\"")));
        }
        let (removed, inserted) = if without_arguments { (2, ")") } else { (1, ",") };
        self.edits.push(Edit::replace(paren_at, removed, inserted));
        if without_arguments {
            self.at += 1;
        }
    }

    fn refuse_reserved(&self, name: &str, ahead: usize) -> Result<(), Complaint> {
        if !name.starts_with(RESERVED_PREFIX) {
            return Ok(());
        }
        let word = &self.words[self.at + ahead];
        Err(Complaint {
            message: format!("`{name}`: names that start with two underscores are reserved"),
            line: word.line,
            column: word.column,
        })
    }
}

/// The tokens, with the places that Rhai gives them.
fn read_words(engine: &Engine, code: &str) -> Vec<Word> {
    let mut line_starts = vec![0];
    line_starts.extend(code.match_indices('\n').map(|(at, _)| at + 1));
    let inputs = [code];
    let (tokens, control) = engine.lex(&inputs);
    let mut words = Vec::new();
    // Rhai's parser tells its lexer when an interpolated string goes on; here the braces say so.
    let mut braces: Vec<bool> = Vec::new();
    let mut opens_interpolation = false;
    for (token, position) in tokens {
        match token {
            Token::InterpolatedString(_) => opens_interpolation = true,
            Token::LeftBrace => braces.push(std::mem::take(&mut opens_interpolation)),
            Token::MapStart => braces.push(false),
            Token::RightBrace if braces.pop() == Some(true) => control.borrow_mut().is_within_text = true,
            Token::EOF | Token::LexError(_) => break,
            _ => {}
        }
        let (line, column) = place(position);
        let Some(&start) = line_starts.get(line - 1) else { break };
        let rest = &code[start..];
        let offset = start + rest.char_indices().nth(column - 1).map_or(rest.len(), |(at, _)| at);
        words.push(Word { token, offset, line, column });
    }
    words
}

/// Line and column from 1.
pub(super) fn place(position: Position) -> (usize, usize) {
    (position.line().unwrap_or(1), position.position().unwrap_or(1).max(1))
}

/// Ends statements at the ends of lines, so that `;` is only needed between statements on one line. A line goes
/// on if it ends in an operator or an open bracket, or if the next one begins with an operator or a `.`.
pub(super) fn terminated(engine: &Engine, code: &str) -> (String, SourceMap) {
    let words = read_words(engine, code);
    let mut edits = Vec::new();
    // Whether statements stand directly inside of each open bracket.
    let mut holds_statements = Vec::new();
    let mut opens_switch = None;
    for (at, word) in words.iter().enumerate() {
        if let Some(previous) = at.checked_sub(1).map(|at| &words[at])
            && previous.line < word.line
            && holds_statements.last().copied().unwrap_or(true)
            && ends_statement(&previous.token)
            && begins_statement(&word.token)
            && !(matches!(previous.token, Token::RightBrace)
                && matches!(word.token, Token::While | Token::Until))
        {
            edits.push(Edit::insert(word.offset, ";"));
        }
        match &word.token {
            // Rhai reserves the word, and statisticians need it.
            Token::Reserved(name) if name.as_str() == "var" => {
                edits.push(Edit::replace(word.offset, 3, "variance"))
            }
            Token::Switch => opens_switch = Some(holds_statements.len()),
            Token::LeftBrace => {
                let is_switch = opens_switch == Some(holds_statements.len());
                if is_switch {
                    opens_switch = None;
                }
                holds_statements.push(!is_switch);
            }
            Token::MapStart | Token::LeftParen | Token::LeftBracket | Token::QuestionBracket => {
                holds_statements.push(false);
            }
            Token::RightBrace | Token::RightParen | Token::RightBracket => {
                holds_statements.pop();
            }
            _ => {}
        }
    }
    apply(code, edits)
}

fn ends_statement(token: &Token) -> bool {
    matches!(
        token,
        Token::Identifier(_)
            | Token::IntegerConstant(_)
            | Token::FloatConstant(_)
            | Token::CharConstant(_)
            | Token::StringConstant(_)
            | Token::True
            | Token::False
            | Token::Unit
            | Token::RightParen
            | Token::RightBracket
            | Token::RightBrace
            | Token::Return
            | Token::Break
            | Token::Continue
            | Token::Reserved(_)
    )
}

fn begins_statement(token: &Token) -> bool {
    matches!(
        token,
        Token::Identifier(_)
            | Token::IntegerConstant(_)
            | Token::FloatConstant(_)
            | Token::CharConstant(_)
            | Token::StringConstant(_)
            | Token::InterpolatedString(_)
            | Token::True
            | Token::False
            | Token::Unit
            | Token::LeftParen
            | Token::LeftBracket
            | Token::MapStart
            | Token::Bang
            | Token::Let
            | Token::Const
            | Token::If
            | Token::Switch
            | Token::Do
            | Token::While
            | Token::Loop
            | Token::For
            | Token::Continue
            | Token::Break
            | Token::Return
            | Token::Throw
            | Token::Try
            | Token::Fn
            | Token::Private
            | Token::Reserved(_)
    )
}

fn defined_functions(words: &[Word]) -> BTreeSet<String> {
    let name_after = |at: usize| {
        words[at..].windows(2).find(|pair| matches!(pair[1].token, Token::LeftParen | Token::Unit)).and_then(
            |pair| if let Token::Identifier(name) = &pair[0].token { Some(name.to_string()) } else { None },
        )
    };
    let definitions = words.iter().enumerate().filter(|(_, word)| matches!(word.token, Token::Fn));
    definitions.filter_map(|(at, _)| name_after(at + 1)).collect()
}

/// Names that are assigned anywhere in the cell. Those of functions are among them, which does no harm: they
/// only matter for calls of names that nothing else explains.
fn assigned_at_top(words: &[Word]) -> BTreeSet<String> {
    words
        .windows(2)
        .filter_map(|pair| match (&pair[0].token, &pair[1].token) {
            (Token::Identifier(name), Token::Equals) => Some(name.to_string()),
            _ => None,
        })
        .collect()
}

fn apply(code: &str, mut edits: Vec<Edit>) -> (String, SourceMap) {
    // Declarations come before what is edited at the same place; otherwise in the order they were made.
    edits.sort_by_key(|edit| (edit.offset, !edit.is_prelude));
    let mut text = String::with_capacity(code.len() + 64);
    let mut map = SourceMap::default();
    let (mut copied, mut line, mut line_start) = (0, 1, 0);
    for edit in edits {
        let between = &code[copied..edit.offset.max(copied)];
        text.push_str(between);
        for (at, _) in between.match_indices('\n') {
            line += 1;
            line_start = copied + at + 1;
        }
        let column = code[line_start..edit.offset].chars().count() + 1;
        map.edits.entry(line).or_default().push((column, edit.removed, edit.inserted.chars().count()));
        text.push_str(&edit.inserted);
        copied = edit.offset + edit.removed;
    }
    text.push_str(&code[copied..]);
    (text, map)
}

/// Whether brackets or a comment are still open at the end.
pub(super) fn is_open(engine: &Engine, code: &str) -> bool {
    let words = read_words(engine, code);
    if let Some(comment) = code.rfind("/*")
        && !code[comment..].contains("*/")
        && words
            .last()
            .is_none_or(|word| word.offset < comment && !matches!(word.token, Token::StringConstant(_)))
    {
        return true;
    }
    let depth = words.iter().fold(0_i64, |depth, word| match word.token {
        Token::LeftBrace
        | Token::MapStart
        | Token::LeftParen
        | Token::LeftBracket
        | Token::QuestionBracket => depth + 1,
        Token::RightBrace | Token::RightParen | Token::RightBracket => depth - 1,
        _ => depth,
    });
    depth > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Session;

    impl Known for Session {
        fn is_function(&self, name: &str) -> bool {
            name == "psum"
        }
        fn is_variable(&self, name: &str) -> bool {
            name == "g"
        }
        fn intern(&self, _: Vec<String>) -> usize {
            7
        }
    }

    fn prepared(code: &str) -> String {
        prepare(&Engine::new(), code, &Session).expect("it is well formed").text
    }

    #[test]
    fn names_are_resolved_as_at_a_prompt() {
        let cases = [
            ("a = 1", "__set_a = 1"),
            ("let a = 1", "    __set_a = 1"),
            ("let a; a", "let a;__bind_7;    __set_a=(); a"),
            ("const A = 1", "      __const_A = 1"),
            ("{ let a = 1; a = 2 }", "{ let a = 1; a = 2 }"),
            ("g + 1", "let g;__bind_7;g + 1"),
            ("g += 1", "let g;__bind_7;g += 1"),
            ("g[0] = 1", "let g;__bind_7;g[0] = 1"),
            ("fn f(x) { y = x + g; y }", "fn f(x) {let y;let g;__bind_7; y = x + g; y }"),
            ("for i in 0..3 { s = i }", "for i in 0..3 { __set_s = i }"),
            ("f = |x| x + g", "let g;__bind_7;__set_f = |x| x + g"),
            ("f = |x| { y = x; y }", "__set_f = |x| {let y; y = x; y }"),
            ("m = #{ g: 1, b: g }", "let g;__bind_7;__set_m = #{ g: 1, b: g }"),
            ("x.g = 1", "let x;__bind_7;x.g = 1"),
            ("g(1)", "let g;__bind_7;call(g,1)"),
            ("g()", "let g;__bind_7;call(g)"),
            ("psum(g)", "let g;__bind_7;psum(g)"),
            ("later(2)", "__call(\"later\",2)"),
            ("`${g} and ${1}`; h = 2", "let g;__bind_7;`${g} and ${1}`; __set_h = 2"),
            ("try { 1 } catch (e) { e }", "try { 1 } catch (e) { e }"),
            ("1 | 2", "1 | 2"),
            ("// a = 1", "// a = 1"),
        ];
        for (code, expected) in cases {
            assert_eq!(prepared(code), expected, "{code}");
        }
    }

    #[test]
    fn lines_end_statements_where_a_person_would_think_so() {
        let cases = [
            ("a = 1\nb = 2", "a = 1\n;b = 2"),
            ("a = 1;\nb", "a = 1;\nb"),
            ("a = 1 // c\nb", "a = 1 // c\n;b"),
            ("a = 1 +\n2", "a = 1 +\n2"),
            ("a = 1\n+ 2", "a = 1\n+ 2"),
            ("a\n.sum()", "a\n.sum()"),
            ("f(1,\n2)", "f(1,\n2)"),
            ("[1\n, 2]", "[1\n, 2]"),
            ("if a {\n1\n}\nelse {\n2\n}\nb", "if a {\n1\n}\nelse {\n2\n}\n;b"),
            ("do {\na\n}\nwhile b", "do {\na\n}\nwhile b"),
            ("switch a {\n1 => { 2 }\n_ => 3\n}", "switch a {\n1 => { 2 }\n_ => 3\n}"),
            ("f = |x| { x }\nf(1)", "f = |x| { x }\n;f(1)"),
            ("#{a: 1,\nb: 2}", "#{a: 1,\nb: 2}"),
            ("var(a)", "variance(a)"),
        ];
        for (code, expected) in cases {
            assert_eq!(terminated(&Engine::new(), code).0, expected, "{code}");
        }
    }

    #[test]
    fn columns_of_the_edited_text_lead_back_to_the_users() {
        let code = "let a = g; psum(g(1), boom)";
        let prepared = prepare(&Engine::new(), code, &Session).expect("it is well formed");
        let edited = prepared.text.rfind("boom").expect("not edited away") + 1;
        assert_eq!(prepared.map.column(1, edited), code.find("boom").expect("it is there") + 1);
    }

    #[test]
    fn a_function_cannot_update_a_global() {
        let complaint = prepare(&Engine::new(), "fn f() { g += 1 }", &Session).expect_err("it must complain");
        assert_eq!((complaint.line, complaint.column), (1, 10));
    }
}
