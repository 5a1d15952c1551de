//! Registration: rank 0 brings its whole world in one message; with a stock hub every rank comes by itself.

use std::time::{Duration, Instant, SystemTime};

use protocol::error::ErrorContent;
use protocol::extension::{EngineDescription, Member, Registration};
use protocol::id::{EngineId, EngineUuid, WorldId};
use protocol::message::Status;
use protocol::message::hub::{
    REGISTRATION_REPLY, REGISTRATION_REQUEST, RegistrationReply, RegistrationRequest,
};
use protocol::message::{Empty, StatusContent};
use protocol::{Date, Receiver, Session};
use serde::{Deserialize, Serialize};
use transport::poll::{PollItem, poll};
use transport::{Sent, Socket};

use super::failure::{EXIT_NO_CONTROLLER, Failure};
use super::place::Place;
use crate::cli::Settings;
use crate::shell::open::open;

/// What registering needs.
pub struct Joining<'a> {
    /// What was asked for.
    pub settings: &'a Settings,
    /// The world.
    pub place: &'a Place,
    /// Connected to the hub.
    pub socket: &'a Socket,
    /// Where the hub is, for messages to people.
    pub url: &'a str,
    /// This engine's name.
    pub uuid: &'a EngineUuid,
    /// What it says of itself; the world's name is still missing.
    pub description: EngineDescription,
    /// Makes the request.
    pub session: &'a mut Session,
    /// Verifies the reply.
    pub receiver: &'a mut Receiver,
}

/// What the hub said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The engine's id.
    pub id: EngineId,
    /// How often heartbeats come.
    pub heartbeat_interval: Duration,
    /// Whether the hub speaks our extensions.
    pub extended: bool,
    /// What the engine says of itself.
    pub description: EngineDescription,
}

/// What rank 0 tells the other ranks.
#[derive(Debug, Serialize, Deserialize)]
struct Told {
    /// The world's name; none: rank 0 failed and has said why.
    world: Option<WorldId>,
    /// Milliseconds between heartbeats.
    heartbeat_ms: u64,
    /// Ids of ranks from 1; empty: register yourselves.
    ids: Vec<EngineId>,
}

/// # Collective
/// Registers this engine.
pub fn join(mut joining: Joining<'_>) -> Result<Joined, Failure> {
    if joining.place.size() == 1 {
        if joining.place.has_ranks() {
            joining.description.world = Some(WorldId::from(joining.uuid.as_str()));
        }
        return joining.alone();
    }
    let myself = Member { uuid: joining.uuid.clone(), engine: joining.description.clone() };
    let myself = serde_json::to_vec(&myself).expect("plain data");
    match joining.place.gather(&myself).map_err(Failure::between_ranks)? {
        Some(members) => joining.for_all(&members),
        None => joining.by_rank_0(),
    }
}

impl Joining<'_> {
    /// Registers this engine alone.
    fn alone(mut self) -> Result<Joined, Failure> {
        let reply = self.register(vec![])?;
        Ok(self.joined(&reply))
    }

    /// On rank 0: registers everybody, and tells them.
    fn for_all(mut self, members: &[Vec<u8>]) -> Result<Joined, Failure> {
        let world = WorldId::from(self.uuid.as_str());
        self.description.world = Some(world.clone());
        let reply = read_members(members, &world).and_then(|members| self.register(members));
        let told = match &reply {
            Ok(reply) => Told {
                world: Some(world),
                heartbeat_ms: reply.hb_period,
                ids: reply.extension.as_ref().map(|answer| answer.member_ids.clone()).unwrap_or_default(),
            },
            Err(_) => Told { world: None, heartbeat_ms: 0, ids: vec![] },
        };
        let told = serde_json::to_vec(&told).expect("plain data");
        self.place.broadcast(Some(&told)).map_err(Failure::between_ranks)?;
        let reply = reply?;
        Ok(self.joined(&reply))
    }

    /// On the other ranks: hears from rank 0 who this engine is, or registers it.
    fn by_rank_0(mut self) -> Result<Joined, Failure> {
        let told = self.place.broadcast(None).map_err(Failure::between_ranks)?;
        let told: Told = serde_json::from_slice(&told).map_err(Failure::between_ranks)?;
        if told.world.is_none() {
            return Err(Failure::told_by_rank_0(EXIT_NO_CONTROLLER));
        }
        self.description.world = told.world;
        match told.ids.get(self.place.rank() - 1) {
            Some(&id) => Ok(Joined {
                id,
                heartbeat_interval: Duration::from_millis(told.heartbeat_ms),
                extended: true,
                description: self.description,
            }),
            None => self.alone(),
        }
    }

    fn joined(self, reply: &RegistrationReply) -> Joined {
        if self.wished_id().is_some_and(|wished| wished != reply.id) {
            tracing::warn!(id = %reply.id, "the wished id is taken by another engine");
        }
        Joined {
            id: reply.id,
            heartbeat_interval: Duration::from_millis(reply.hb_period),
            extended: reply.extension.as_ref().is_some_and(|answer| answer.version >= 1),
            description: self.description,
        }
    }

    fn wished_id(&self) -> Option<EngineId> {
        let rank = self.place.has_ranks().then(|| u32::try_from(self.place.rank()).unwrap_or(u32::MAX));
        self.settings.id.or(rank).map(EngineId)
    }

    fn register(&mut self, members: Vec<Member>) -> Result<RegistrationReply, Failure> {
        let request = RegistrationRequest {
            uuid: self.uuid.clone(),
            id: self.wished_id(),
            extension: Some(Registration { engine: self.description.clone(), members }),
        };
        let now = Date::from_system_time(SystemTime::now());
        let request = self.session.message(now, REGISTRATION_REQUEST, &Empty {}, &request, vec![]);
        let timeout = self.settings.registration_timeout;
        let no_answer = || Failure::no_answer(self.url, timeout.as_secs_f64());
        match self.socket.send(&request.to_parts(&[])).map_err(Failure::transport)? {
            Sent::Done => {}
            Sent::WouldBlock | Sent::Unreachable => return Err(no_answer()),
        }
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(no_answer());
            }
            poll(&mut [PollItem::socket(self.socket)], Some(left)).map_err(Failure::transport)?;
            let Some(received) = self.socket.receive().map_err(Failure::transport)? else { continue };
            let Some((_, message)) = open(self.receiver, received, "registration") else { continue };
            if message.header.msg_type != REGISTRATION_REPLY {
                continue;
            }
            let refused = |cause: String| Failure::refused(self.url, cause);
            let StatusContent { status } = message.content().map_err(|error| refused(error.to_string()))?;
            if status == Status::Ok {
                return message.content().map_err(|error| refused(error.to_string()));
            }
            let error: ErrorContent = message.content().map_err(|error| refused(error.to_string()))?;
            return Err(refused(format!("the hub refused it: {}: {}", error.ename, error.evalue)));
        }
    }
}

/// The other ranks as they describe themselves, in rank order.
fn read_members(members: &[Vec<u8>], world: &WorldId) -> Result<Vec<Member>, Failure> {
    let read = |bytes: &Vec<u8>| {
        let mut member: Member = serde_json::from_slice(bytes).map_err(Failure::between_ranks)?;
        member.engine.world = Some(world.clone());
        Ok(member)
    };
    members.iter().skip(1).map(read).collect()
}
