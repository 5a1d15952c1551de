//! Events and effects in a line each.

use protocol::message::execute::Dependency;

use super::super::*;
use super::ledger::{id_of, identity_of};

pub(super) fn event(event: &Event) -> String {
    let text = |identity: &Bytes| String::from_utf8_lossy(identity).into_owned();
    match event {
        Event::Registering { request, .. } => {
            let members = request.extension.as_ref().map_or(0, |extension| extension.members.len());
            format!("{} registers, wants id {:?}, brings {members}", request.uuid, request.id)
        }
        Event::Unregistering { engine } => format!("engine {engine:?} unregisters"),
        Event::Ending { engine, .. } => format!("{engine} ends"),
        Event::Reached { channel, identity } => format!("{} is ready on {}", text(identity), channel.name()),
        Event::Beat { identity } => format!("{} beats", text(identity)),
        Event::Disconnected { identity } => format!("{} is disconnected", text(identity)),
        Event::Submitted(request) => {
            let target = match &request.target {
                Target::Engine(engine) | Target::Control { engine, .. } => text(engine),
                Target::Balanced(metadata) => wishes(metadata),
                Target::Broadcast(metadata) => {
                    format!("{:?}, coalescing: {}", metadata.targets, metadata.is_coalescing)
                }
            };
            let aborted = match &request.target {
                Target::Control { aborted, .. } => format!(" {aborted:?}"),
                _ => String::new(),
            };
            let (client, header) = (text(identity_of(&request.client)), &request.header);
            format!("{client} submits {} {}{aborted} to {target}", header.msg_type, header.msg_id)
        }
        Event::Replied { channel, identity, task, outcome, message } => {
            let id = id_of(&message.parent_header);
            format!("{} replies on {} to {id} ({}): {outcome:?}", text(identity), channel.name(), task.0)
        }
        Event::Undelivered { engine, task } => format!("{} cannot be given to {engine}", task.0),
        Event::Asked { client, header, query, .. } => {
            format!("{} asks {}: {query:?}", text(client), id_of(header))
        }
        Event::Resubmitted { requests, .. } => format!("{} requests are resubmitted", requests.len()),
        Event::Departed { count } => format!("{count} replies have left"),
        Event::Deadline => "deadline".to_owned(),
        Event::Subscribed => "somebody subscribes".to_owned(),
    }
}

/// What is special about a balanced task.
fn wishes(metadata: &TaskMetadata) -> String {
    let TaskMetadata { after, follow, targets, retries, timeout, .. } = metadata;
    let mut words = "any".to_owned();
    if !targets.is_empty() {
        let targets: Vec<&str> = targets.iter().map(protocol::id::EngineUuid::as_str).collect();
        words += &format!(" of {}", targets.join(" "));
    }
    if *retries > 0 {
        words += &format!(", retries {retries}");
    }
    if let Some(timeout) = timeout {
        words += &format!(", timeout {timeout}");
    }
    if let Some(extension) = &metadata.extension {
        words += &format!(", priority {}", extension.priority);
    }
    for (name, needed) in [("after", after), ("follow", follow)] {
        if !needed.dependencies.is_empty() {
            let ids: Vec<&str> = needed.dependencies.iter().map(MsgId::as_str).collect();
            let Dependency { all, success, failure, .. } = needed;
            words += &format!(", {name} {}", ids.join(" "));
            words += &format!(" (all: {all}, success: {success}, failure: {failure})");
        }
    }
    words
}

pub(super) fn effect(effect: &Effect) -> String {
    match effect {
        Effect::Forward { channel, engine, task, message } => {
            format!("forward {} ({}) to {engine} on {}", id_of(&message.header), task.0, channel.name())
        }
        Effect::Share { engine, task, header, .. } => {
            format!("share {} ({}) to {engine}", header.msg_id, task.0)
        }
        Effect::Stop { engine } => format!("stop {engine}"),
        Effect::Relay { engine, message, .. } => {
            format!("relay {engine}'s reply to {}", id_of(&message.parent_header))
        }
        Effect::Reply { parent, content, .. } => {
            let name = content["ename"].as_str().or(content["status"].as_str()).unwrap_or_default();
            format!("answer {}: {name} {}", id_of(parent), content["evalue"].as_str().unwrap_or_default())
        }
        Effect::Repeat { message, .. } => format!("answer {} again", id_of(&message.parent_header)),
        Effect::Idle { parent, .. } => format!("idle after {}", id_of(parent)),
        Effect::Answer { msg_type, content, .. } => format!("{msg_type} {content}"),
        Effect::AnswerStatus { .. } => "cluster status".to_owned(),
        Effect::Publish { msg_type, content, .. } => format!("publish {msg_type} {content}"),
        Effect::Probe { channel, engine, task } => {
            format!("probe {engine} on {} ({})", channel.name(), task.0)
        }
        Effect::Consult { question, .. } => format!("consult {question:?}"),
        Effect::Remember(_) => "remember".to_owned(),
        Effect::Ping => "ping".to_owned(),
        Effect::Exit => "exit".to_owned(),
    }
}
