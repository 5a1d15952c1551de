//! From verified messages to events.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use protocol::Message;
use protocol::error::{ErrorContent, ename};
use protocol::frames::DELIMITER;
use protocol::id::SessionId;
use protocol::limits::ROUTING_FRAMES_MAX;
use protocol::message::execute::{APPLY_REPLY, ApplyOk, EXECUTE_REPLY, ExecuteOk, ReplyMetadata};
use protocol::message::hub::{CONNECTION_REPLY, ConnectionReply};
use protocol::message::notification::{
    EngineNotification, REGISTRATION_NOTIFICATION, SHUTDOWN_NOTIFICATION, UNREGISTRATION_NOTIFICATION,
};
use protocol::message::output::{
    DISPLAY_DATA, Display, ERROR, EXECUTE_RESULT, ErrorOutput, ExecutionState, STATUS, STREAM, StatusUpdate,
    Stream, StreamName,
};
use protocol::message::{Failure, MalformedContent, Status};
use protocol::value::decode;
use serde::Deserialize;
use serde_json::Value as Json;

use super::channels::Source;
use crate::engines::Engine;
use crate::machine::{Event, Reply, ReplyError};
use crate::outcome::{self, Answer, OutputItem, ReplyFacts};

/// Whether an output message can belong to that session: a cheap look before signatures are checked, because
/// every client gets the output of all.
pub(crate) fn mentions(parts: &[Bytes], session: &SessionId) -> bool {
    let delimiter = parts.iter().take(ROUTING_FRAMES_MAX + 1).position(|part| part.as_ref() == DELIMITER);
    let parent = delimiter.and_then(|at| parts.get(at + 3));
    let name = session.as_str().as_bytes();
    parent.is_some_and(|parent| parent.windows(name.len()).any(|window| window == name))
}

/// What a message means; `None`: nothing to this client.
pub(crate) fn event(source: Source, message: &Message) -> Result<Option<Event>, MalformedContent> {
    match source {
        Source::Output => output(message),
        Source::Notification => notification(message),
        Source::Query if message.header.msg_type == CONNECTION_REPLY => listed(message),
        Source::Query | Source::Control => reply(message, content),
        Source::Mux | Source::Task | Source::Broadcast => reply(message, shell_answer),
    }
}

#[derive(Deserialize)]
struct MaybeStatus {
    status: Option<Status>,
}

#[derive(Deserialize)]
struct MaybeEngine {
    #[serde(default)]
    engine: Option<protocol::id::EngineUuid>,
}

fn reply(
    message: &Message,
    answer: fn(&Message) -> Result<Result<Answer, ReplyError>, MalformedContent>,
) -> Result<Option<Event>, MalformedContent> {
    let Some(request) = message.parent()?.msg_id else {
        return Ok(None);
    };
    let metadata: Option<ReplyMetadata> = message.metadata().ok();
    let status = message.content::<MaybeStatus>()?.status;
    let result = match status {
        _ if let Some(damage) = message.damage => {
            Err(ReplyError { content: damage.error(), without_output: false })
        }
        Some(Status::Error) => {
            let content = message.content::<Failure>()?.error;
            // An error without an engine was made by a scheduler: nothing ran, nothing was printed.
            Err(ReplyError { without_output: content.engine_info.is_none(), content })
        }
        Some(Status::Aborted) => {
            let content = ErrorContent::new(ename::TASK_ABORTED, "it was aborted before it ran");
            Err(ReplyError { content, without_output: true })
        }
        Some(Status::Ok) | None => answer(message)?,
    };
    let engine = metadata.as_ref().and_then(|metadata| metadata.engine.clone());
    let extension = metadata.as_ref().and_then(|metadata| metadata.extension.as_ref());
    let facts = ReplyFacts {
        started: metadata.as_ref().and_then(|metadata| metadata.started),
        elapsed: extension
            .and_then(|extension| extension.elapsed)
            .and_then(|seconds| Duration::try_from_secs_f64(seconds.0).ok()),
        rank: extension.map(|extension| extension.rank),
        collectives: extension.map(|extension| extension.collectives),
    };
    Ok(Some(Event::Replied(Reply { request, engine, result, facts })))
}

fn content(message: &Message) -> Result<Result<Answer, ReplyError>, MalformedContent> {
    Ok(Ok(Answer::Content(message.content::<Json>()?)))
}

fn shell_answer(message: &Message) -> Result<Result<Answer, ReplyError>, MalformedContent> {
    match message.header.msg_type.as_str() {
        EXECUTE_REPLY => {
            let execution_count = message.content::<ExecuteOk>()?.execution_count;
            Ok(Ok(Answer::Executed { execution_count }))
        }
        APPLY_REPLY => {
            let Some(result) = message.content::<ApplyOk>()?.extension else {
                return Ok(Ok(Answer::Pickled(message.wire.buffers.clone())));
            };
            Ok(decode(&result.value, &message.wire.buffers).map(Answer::Value).map_err(|error| {
                // The request is answered all the same: whoever waits must not wait for ever.
                let content =
                    ErrorContent::new(ename::VALUE_ERROR, format!("the result cannot be read: {error}"));
                ReplyError { content, without_output: false }
            }))
        }
        _ => content(message),
    }
}

fn listed(message: &Message) -> Result<Option<Event>, MalformedContent> {
    let reply: ConnectionReply = message.content()?;
    let mut descriptions = reply.extension.map(|extension| extension.engines).unwrap_or_default();
    let engines = reply
        .engines
        .into_iter()
        .map(|(id, uuid)| Arc::new(Engine { id, uuid, description: descriptions.remove(&id) }))
        .collect();
    Ok(Some(Event::Listed(engines)))
}

fn notification(message: &Message) -> Result<Option<Event>, MalformedContent> {
    match message.header.msg_type.as_str() {
        REGISTRATION_NOTIFICATION => {
            let EngineNotification { id, uuid, extension, .. } = message.content()?;
            Ok(Some(Event::Joined(Arc::new(Engine { id, uuid, description: extension }))))
        }
        UNREGISTRATION_NOTIFICATION => {
            let EngineNotification { uuid, reason, .. } = message.content()?;
            Ok(Some(Event::Left { uuid, reason }))
        }
        SHUTDOWN_NOTIFICATION => Ok(Some(Event::ControllerStopped)),
        _ => Ok(None),
    }
}

fn output(message: &Message) -> Result<Option<Event>, MalformedContent> {
    let Some(request) = message.parent()?.msg_id else {
        return Ok(None);
    };
    let shown = |display: Display| outcome::Display { data: display.data };
    let item = match message.header.msg_type.as_str() {
        STATUS => {
            let state = message.content::<StatusUpdate>()?.execution_state;
            return Ok((state == ExecutionState::Idle).then_some(Event::Idle { request }));
        }
        STREAM => match message.content()? {
            Stream { name: StreamName::Stdout, text } => OutputItem::Stdout(text),
            Stream { name: StreamName::Stderr, text } => OutputItem::Stderr(text),
        },
        EXECUTE_RESULT => OutputItem::Result(shown(message.content()?)),
        DISPLAY_DATA => OutputItem::Display(shown(message.content()?)),
        ERROR => {
            let ErrorOutput { ename, evalue, traceback } = message.content()?;
            OutputItem::Error { ename, evalue, traceback }
        }
        _ => return Ok(None),
    };
    let engine = message.metadata::<MaybeEngine>().ok().and_then(|metadata| metadata.engine);
    Ok(Some(Event::Printed { request, engine, item }))
}
