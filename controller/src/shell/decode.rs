//! From verified messages to events: what each channel's messages mean.

use std::collections::BTreeMap;

use bytes::Bytes;
use protocol::extension::{CLUSTER_STATUS_REQUEST, TASK_EXPLAIN_REQUEST};
use protocol::header::Header;
use protocol::id::{EngineId, EngineUuid};
use protocol::message::control::{ABORT_REQUEST, AbortRequest, SHUTDOWN_REQUEST};
use protocol::message::hub::{
    BECOME_DASK_REPLY, BECOME_DASK_REQUEST, CONNECTION_REQUEST, DB_REQUEST, HISTORY_REQUEST, LOAD_REQUEST,
    PURGE_REQUEST, QUEUE_REQUEST, REGISTRATION_REQUEST, RESUBMIT_REQUEST, RESULT_REQUEST,
    RegistrationRequest, STOP_DISTRIBUTED_REPLY, STOP_DISTRIBUTED_REQUEST, UNREGISTRATION_REQUEST,
    UnregistrationRequest,
};
use protocol::message::output::{ERROR, EXECUTE_INPUT, EXECUTE_RESULT, STREAM, Stream, StreamName};
use protocol::message::{MalformedContent, Status};
use protocol::{Message, WireMessage};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::machine::{Address, Channel, Client, Event, Outcome, Query, Request, Target};
use crate::records::{Change, Output};
use crate::tasks::TaskId;

/// Why an engine ended is a sentence; it goes into every error of what it had.
const REASON_CHARS_MAX: usize = 300;

/// Why there is no dask here.
const NO_DASK: &str = "this controller is no Python process and runs no dask scheduler; \
    start one with `dask scheduler` and workers with view.apply";

/// Routing frames that a channel's messages do not have.
#[derive(Debug)]
pub(super) struct BadRoute;

/// Whose connection was heard last on each channel. A client is kept for as long as it has requests: its name is a
/// copy, not a part of its first message, and a client that sends many requests in a row has one copy.
#[derive(Default)]
pub(super) struct Clients(BTreeMap<Channel, Bytes>);

impl Clients {
    fn of(&mut self, channel: Channel, identity: &[u8]) -> Client {
        let last = self.0.entry(channel).or_default();
        if last.as_ref() != identity {
            *last = Bytes::copy_from_slice(identity);
        }
        Client { channel, address: Address::Connection(last.clone()) }
    }
}

/// A message on a client-side socket. An error is one to answer: the request's metadata cannot be read.
pub(super) fn request(
    clients: &mut Clients,
    channel: Channel,
    routing: Vec<Bytes>,
    message: Message,
) -> Result<Result<Event, (Client, Message, MalformedContent)>, BadRoute> {
    let mut routing = routing.into_iter();
    let identity = routing.next().ok_or(BadRoute)?;
    let client = clients.of(channel, &identity);
    let target = match channel {
        Channel::Mux => Ok(Target::Engine(routing.next().ok_or(BadRoute)?)),
        Channel::Control => {
            let engine = routing.next().ok_or(BadRoute)?;
            let is_abort = message.header.msg_type == ABORT_REQUEST;
            // One that cannot be read is the engine's to complain about.
            let request = is_abort.then(|| message.content::<AbortRequest>().ok()).flatten();
            Ok(Target::Control {
                engine,
                aborted: request.map(|request| request.msg_ids).unwrap_or_default(),
            })
        }
        Channel::Task => message.metadata().map(|metadata| Target::Balanced(Box::new(metadata))),
        Channel::Broadcast => message.metadata().map(|metadata| Target::Broadcast(Box::new(metadata))),
    };
    Ok(match target {
        Ok(target) => {
            let Message { header, wire, damage: _ } = message;
            Ok(Event::Submitted(Box::new(Request { client, header, target, message: wire })))
        }
        Err(error) => Err((client, message, error)),
    })
}

/// A message on an engine-side socket: `[engine][task]`, or `[engine]` for one that says that it is ready.
pub(super) fn reply(
    channel: Channel,
    epoch: &[u8; 8],
    routing: Vec<Bytes>,
    message: WireMessage,
) -> Result<Event, BadRoute> {
    let mut routing = routing.into_iter();
    let identity = routing.next().ok_or(BadRoute)?;
    let Some(task) = routing.next().and_then(|route| task_of(epoch, &route)) else {
        return Ok(Event::Reached { channel, identity });
    };
    let outcome = match channel {
        Channel::Mux | Channel::Control => None,
        Channel::Task | Channel::Broadcast => Some(outcome(&message.metadata)),
    };
    Ok(Event::Replied { channel, identity, task, outcome, message })
}

/// What routes a request's reply back: the controller's life and the task, so that an engine that outlives its
/// controller cannot answer a later one's task.
pub(super) fn route(epoch: &[u8; 8], task: TaskId) -> [u8; 16] {
    let mut route = [0; 16];
    route[..8].copy_from_slice(epoch);
    route[8..].copy_from_slice(&task.0.to_be_bytes());
    route
}

fn task_of(epoch: &[u8; 8], route: &[u8]) -> Option<TaskId> {
    let number = route.strip_prefix(epoch)?;
    Some(TaskId(u64::from_be_bytes(number.try_into().ok()?)))
}

/// Stock engines always say how it ended; what does not say is taken as it is.
fn outcome(metadata: &[u8]) -> Outcome {
    #[derive(Deserialize)]
    struct Said {
        #[serde(default)]
        status: Option<Status>,
        #[serde(default)]
        dependencies_met: Option<bool>,
    }
    let said = serde_json::from_slice(metadata).unwrap_or(Said { status: None, dependencies_met: None });
    Outcome {
        status: said.status.unwrap_or(Status::Ok),
        dependencies_met: said.dependencies_met.unwrap_or(true),
    }
}

/// What records keep of a message of output: text, code, a result, an error.
pub(super) fn output(message: &Message) -> Option<Change> {
    let output = match message.header.msg_type.as_str() {
        STREAM => {
            let Stream { name, text } = message.content().ok()?;
            match name {
                StreamName::Stdout => Output::Stdout(text),
                StreamName::Stderr => Output::Stderr(text),
            }
        }
        EXECUTE_INPUT => {
            #[derive(Deserialize)]
            struct Code {
                code: String,
            }
            let Code { code } = message.content().ok()?;
            Output::Input(code)
        }
        EXECUTE_RESULT => Output::Result(message.content().ok()?),
        ERROR => Output::Error(message.content().ok()?),
        _ => return None,
    };
    Some(Change::Output { msg_id: message.parent().ok()?.msg_id?, output })
}

/// A message on the registration socket, where engines join and clients ask.
pub(super) fn query(routing: Vec<Bytes>, message: Message) -> Result<Event, BadRoute> {
    let identity = routing.into_iter().next().ok_or(BadRoute)?;
    let msg_type = message.header.msg_type.as_str();
    let question = match msg_type {
        REGISTRATION_REQUEST => match message.content::<RegistrationRequest>() {
            Ok(request) => {
                let header = message.wire.header;
                return Ok(Event::Registering { identity, header, request: Box::new(request) });
            }
            Err(error) => Query::Malformed(error.to_string()),
        },
        UNREGISTRATION_REQUEST => {
            // An engine's socket has the engine's name. Its id may be another engine's by now, if it was lost.
            let name = std::str::from_utf8(&identity).map(EngineUuid::from);
            let request = message.content::<UnregistrationRequest>().ok();
            if let Some(engine) = name.ok().filter(EngineUuid::is_valid) {
                let reason = request.and_then(|request| request.reason);
                let reason = reason.map(|text| text.chars().take(REASON_CHARS_MAX).collect());
                return Ok(Event::Ending { engine, reason });
            }
            let engine: Option<EngineId> = request.and_then(|request| request.id);
            return Ok(Event::Unregistering { engine });
        }
        CONNECTION_REQUEST => Query::Connection,
        SHUTDOWN_REQUEST => Query::Shutdown,
        CLUSTER_STATUS_REQUEST => Query::ClusterStatus,
        QUEUE_REQUEST => read(&message, Query::Queue),
        LOAD_REQUEST => read(&message, Query::Load),
        RESULT_REQUEST => read(&message, Query::Results),
        HISTORY_REQUEST => Query::History,
        DB_REQUEST => read(&message, Query::Database),
        PURGE_REQUEST => read(&message, Query::Purge),
        RESUBMIT_REQUEST => read(&message, Query::Resubmit),
        TASK_EXPLAIN_REQUEST => read(&message, Query::Explain),
        BECOME_DASK_REQUEST => Query::Unsupported { reply_type: BECOME_DASK_REPLY, reason: NO_DASK },
        STOP_DISTRIBUTED_REQUEST => {
            Query::Unsupported { reply_type: STOP_DISTRIBUTED_REPLY, reason: NO_DASK }
        }
        other => Query::Unknown(other.to_owned()),
    };
    let Header { session, msg_id, .. } = message.header;
    Ok(Event::Asked { client: identity, session, msg_id, header: message.wire.header, query: question })
}

fn read<T: DeserializeOwned>(message: &Message, query: impl Fn(T) -> Query) -> Query {
    message.content().map_or_else(|error| Query::Malformed(error.to_string()), query)
}
