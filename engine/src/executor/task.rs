//! What a request on the shell channel asks for.

use std::collections::BTreeMap;

use bytes::Bytes;
use protocol::Message;
use protocol::error::{ErrorContent, ename};
use protocol::extension::{self, Call};
use protocol::message::MalformedContent;
use protocol::message::execute::{APPLY_REQUEST, ApplyRequest, EXECUTE_REQUEST, ExecuteRequest};
use protocol::value::{self, Value, ValueError};

use crate::runner::{CellContext, RunError, Runner};

/// What is to be done.
pub(super) enum Task {
    /// Run a cell.
    Cell(ExecuteRequest),
    /// Call a function by name.
    Call(Call),
    /// Call a function that was pickled.
    PickledCall,
    /// Answer one of Jupyter's questions about names and code.
    Query,
    /// Say why it cannot be done.
    Refused(ErrorContent),
}

impl Task {
    /// Reads a request.
    pub(super) fn read(message: &Message) -> Task {
        if let Some(damage) = message.damage {
            return Task::Refused(damage.error());
        }
        match message.header.msg_type.as_str() {
            EXECUTE_REQUEST => message.content().map_or_else(malformed, Task::Cell),
            APPLY_REQUEST => match message.content::<ApplyRequest>() {
                Ok(ApplyRequest { extension: Some(call) }) => Task::Call(call),
                Ok(ApplyRequest { extension: None }) => Task::PickledCall,
                Err(error) => malformed(error),
            },
            _ => Task::Query,
        }
    }
}

fn malformed(error: MalformedContent) -> Task {
    Task::Refused(ErrorContent::new(ename::VALUE_ERROR, error.to_string()))
}

/// Calls a function, or moves data.
pub(super) fn call(
    runner: &mut dyn Runner,
    call: &Call,
    buffers: &[Bytes],
    context: &CellContext,
) -> Result<Value, RunError> {
    let read = |described| value::decode(described, buffers);
    let arguments =
        call.arguments.iter().map(read).collect::<Result<Vec<_>, ValueError>>().map_err(unread)?;
    let keywords: BTreeMap<String, Value> = call
        .keywords
        .iter()
        .map(|(name, described)| Ok((name.clone(), read(described)?)))
        .collect::<Result<_, ValueError>>()
        .map_err(unread)?;
    match call.function.as_str() {
        extension::PUSH => push(runner, &arguments, keywords),
        extension::PULL => pull(runner, &arguments, context),
        function => runner.apply(function, arguments, keywords, context),
    }
}

fn push(
    runner: &mut dyn Runner,
    arguments: &[Value],
    keywords: BTreeMap<String, Value>,
) -> Result<Value, RunError> {
    if !arguments.is_empty() {
        return Err(RunError::new(ename::TYPE_ERROR, "_push takes names only: _push(name=value, …)"));
    }
    for (name, value) in keywords {
        runner.push(&name, value)?;
    }
    Ok(Value::None)
}

fn pull(runner: &mut dyn Runner, arguments: &[Value], context: &CellContext) -> Result<Value, RunError> {
    let text = |value: &Value| match value {
        Value::Str(expression) => Ok(expression.clone()),
        _ => Err(wrong_pull()),
    };
    match arguments {
        [Value::List(expressions)] => {
            let expressions = expressions.iter().map(text).collect::<Result<Vec<_>, _>>()?;
            let values = expressions.iter().map(|expression| runner.pull(expression, context));
            Ok(Value::List(values.collect::<Result<_, _>>()?))
        }
        [one] => runner.pull(&text(one)?, context),
        _ => Err(wrong_pull()),
    }
}

fn wrong_pull() -> RunError {
    RunError::new(ename::TYPE_ERROR, "_pull takes one expression as text, or a list of them")
}

fn unread(error: ValueError) -> RunError {
    RunError::new(ename::VALUE_ERROR, format!("an argument cannot be read: {error}"))
}
