//! How engines join: ids, and when an engine that was given one can be used.
//!
//! An engine's sockets and the controller's are ROUTERs on both sides: what is sent before a connection stands
//! vanishes. So an engine that has its id is *joining* until it is known to be reachable. Our own engines say
//! `ready` over each channel; of stock ones, the first echoed heartbeat says that their sockets have begun to
//! connect, and a short while later they have.

use std::time::Instant;

use bytes::Bytes;
use protocol::error::{ErrorContent, ename, python_repr};
use protocol::extension::{self, EngineDescription, RegistrationAnswer};
use protocol::id::{EngineId, EngineUuid};
use protocol::limits::{ENGINE_ID_MAX, ENGINES_MAX, WORLD_SIZE_MAX};
use protocol::message::hub::{REGISTRATION_REPLY, RegistrationReply, RegistrationRequest};
use protocol::message::notification::{EngineNotification, REGISTRATION_NOTIFICATION};
use protocol::message::{Failure, Status};
use serde_json::Value as Json;

use super::{Departed, Engine, Hub};
use crate::machine::{Channel, Controller, Effect, Settings};
use crate::records::Change;

/// How long after its first echo an engine of ours is used although it did not say `ready` everywhere.
const READY_TIME: std::time::Duration = std::time::Duration::from_secs(1);

/// An engine that has an id and cannot be used yet.
#[derive(Debug)]
pub(super) struct Joining {
    pub(super) id: EngineId,
    pub(super) description: EngineDescription,
    /// Channels that it was heard on.
    heard: Heard,
    /// When its heart first echoed.
    beat: Option<Instant>,
    /// When it is given up if its heart has not echoed by then.
    expires: Instant,
}

/// Channels, one bit each.
pub(super) type Heard = u8;

pub(super) const ALL_CHANNELS: Heard = (1 << Channel::ALL.len()) - 1;

impl Joining {
    fn is_ready(&self) -> bool {
        self.beat.is_some() && self.heard == ALL_CHANNELS
    }

    /// When it can be used, as far as is known now.
    fn ready_at(&self, settings: &Settings) -> Option<Instant> {
        let wait = if self.description.version == 0 { settings.settle_time } else { READY_TIME };
        self.beat.map(|beat| if self.is_ready() { beat } else { beat + wait })
    }
}

impl Hub {
    /// When an engine becomes usable by waiting, or is given up.
    pub(super) fn next_join(&self, settings: &Settings) -> Option<Instant> {
        self.joining.values().map(|joining| joining.ready_at(settings).unwrap_or(joining.expires)).min()
    }

    /// The wished id if it is free, else the next one.
    fn allocate_id(&mut self, wished: Option<EngineId>) -> EngineId {
        let free = |id: &EngineId| {
            id.0 <= ENGINE_ID_MAX
                && !self.engines.contains_key(id)
                && !self.joining.values().any(|joining| joining.id == *id)
        };
        let id = wished.filter(free).unwrap_or(EngineId(self.next_id));
        self.next_id = self.next_id.max(id.0 + 1);
        id
    }

    fn check_request(&self, request: &RegistrationRequest) -> Result<(), Box<ErrorContent>> {
        let members = request.extension.as_ref().map_or(&[][..], |extension| &extension.members);
        if members.len() >= WORLD_SIZE_MAX {
            let text =
                format!("{} ranks in one registration, at most {WORLD_SIZE_MAX} can join", members.len() + 1);
            return Err(ErrorContent::new(ename::VALUE_ERROR, text).into());
        }
        if self.engines.len() + self.joining.len() + members.len() >= ENGINES_MAX {
            let text = format!("this controller serves at most {ENGINES_MAX} engines; start another one");
            return Err(ErrorContent::new(ename::VALUE_ERROR, text).into());
        }
        let mut uuids = std::collections::BTreeSet::new();
        for uuid in std::iter::once(&request.uuid).chain(members.iter().map(|member| &member.uuid)) {
            if !uuid.is_valid() {
                let text = format!("{} cannot be an engine's uuid", python_repr(uuid.as_str()));
                return Err(ErrorContent::new(ename::VALUE_ERROR, text).into());
            }
            let lives = self.by_uuid(uuid.as_str()).is_some_and(|engine| engine.lost_at.is_none());
            if lives || self.joining.contains_key(uuid) || !uuids.insert(uuid) {
                let text = python_repr(&format!("uuid {} in use", python_repr(uuid.as_str())));
                return Err(ErrorContent::new(ename::KEY_ERROR, text).into());
            }
        }
        Ok(())
    }

    fn begin_join(
        &mut self,
        now: Instant,
        uuid: EngineUuid,
        wished: Option<EngineId>,
        description: EngineDescription,
        settings: &Settings,
    ) -> EngineId {
        // An engine that was lost and returns wants to be who it was.
        let id = match self.recall(uuid.as_str()) {
            Some((_, departed)) => departed.id,
            None => {
                self.forget(uuid.as_str());
                self.allocate_id(wished)
            }
        };
        let expires = now + settings.registration_timeout.max(settings.heartbeat_period * 10);
        self.joining.insert(uuid, Joining { id, description, heard: 0, beat: None, expires });
        id
    }

    /// An engine that everybody thought lost has echoed, or was joining when an earlier controller ended: it joins with
    /// its old id if that is free. If it was reachable before, only its heart is waited for.
    pub(crate) fn rejoin(&mut self, now: Instant, uuid: &str, settings: &Settings) -> Option<Change> {
        let (engine, Departed { id, description, heard }) = self.recall(uuid)?;
        let expires = now + settings.registration_timeout;
        let joining = Joining { id, description: description.clone(), heard, beat: None, expires };
        self.joining.insert(engine.clone(), joining);
        Some(Change::Joining { id, engine, description })
    }

    pub(super) fn joining_mut(&mut self, identity: &[u8]) -> Option<&mut Joining> {
        self.joining.get_mut(std::str::from_utf8(identity).ok()?)
    }

    /// Takes back a registration that was not finished.
    pub(super) fn cancel_join(
        &mut self,
        whose: impl Fn(&EngineUuid, EngineId) -> bool,
    ) -> Option<(EngineId, EngineUuid)> {
        let (uuid, _) = self.joining.iter().find(|(uuid, joining)| whose(uuid, joining.id))?;
        let uuid = uuid.clone();
        self.joining.remove(&uuid).map(|joining| (joining.id, uuid))
    }
}

impl Joining {
    /// Its heart has echoed; whether for the first time.
    pub(super) fn on_beat(&mut self, now: Instant) -> bool {
        let is_first = self.beat.is_none();
        self.beat.get_or_insert(now);
        is_first
    }
}

impl Controller {
    pub(crate) fn on_registering(
        &mut self,
        now: Instant,
        identity: Bytes,
        header: Bytes,
        request: RegistrationRequest,
        effects: &mut Vec<Effect>,
    ) {
        if let Err(error) = self.hub.check_request(&request) {
            tracing::warn!(uuid = %request.uuid, error = %error.evalue, "registration refused");
            effects.push(answer(identity, header, &Failure::from(*error)));
            return;
        }
        let extension = request.extension.unwrap_or_default();
        // One that comes back before it was found missing leaves first, so that what it had is answered.
        for uuid in std::iter::once(&request.uuid).chain(extension.members.iter().map(|member| &member.uuid))
        {
            if let Some(engine) = self.hub.by_uuid(uuid.as_str()) {
                let id = engine.id;
                self.lose_engine(now, id, true, "it registered anew", effects);
            }
        }
        let is_ours = extension.engine.version > 0;
        let id = self.begin_join(now, request.uuid.clone(), request.id, extension.engine, effects);
        let first_rank = extension.members.first().map(|member| member.engine.rank.saturating_sub(1));
        let mut member_ids = Vec::with_capacity(extension.members.len());
        for member in extension.members {
            // The members get the ids of their ranks if the sender got that of its own, else the next ones.
            let wished = first_rank
                .filter(|first| request.id == Some(EngineId(*first)) && request.id == Some(id))
                .map(|_| EngineId(member.engine.rank));
            member_ids.push(self.begin_join(now, member.uuid, wished, member.engine, effects));
        }
        tracing::info!(uuid = %request.uuid, %id, members = member_ids.len(), "engine registers");
        let reply = RegistrationReply {
            status: Status::Ok,
            id,
            hb_period: u64::try_from(self.settings.heartbeat_period.as_millis()).unwrap_or(u64::MAX),
            connection_info: self.settings.connection_info.clone(),
            extension: is_ours.then_some(RegistrationAnswer { version: extension::VERSION, member_ids }),
        };
        effects.push(answer(identity, header, &reply));
        self.ping_soon(now, effects);
    }

    fn begin_join(
        &mut self,
        now: Instant,
        engine: EngineUuid,
        wished: Option<EngineId>,
        description: EngineDescription,
        effects: &mut Vec<Effect>,
    ) -> EngineId {
        let id = self.hub.begin_join(now, engine.clone(), wished, description.clone(), &self.settings);
        effects.push(Effect::Remember(Change::Joining { id, engine, description }));
        id
    }

    pub(crate) fn on_reached(
        &mut self,
        now: Instant,
        channel: Channel,
        identity: &Bytes,
        effects: &mut Vec<Effect>,
    ) {
        let Some(joining) = self.hub.joining_mut(identity) else {
            self.hub.heard(now, identity);
            return;
        };
        joining.heard |= 1 << Channel::ALL.iter().position(|other| *other == channel).unwrap_or(0);
        if joining.is_ready() {
            self.finish_joins(now, effects);
        }
    }

    /// Makes usable who can be reached, and gives up who never could.
    pub(super) fn finish_joins(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let due = |joining: &Joining| joining.ready_at(&self.settings).is_some_and(|at| at <= now);
        let mut ready: Vec<(EngineId, EngineUuid)> = vec![];
        let mut expired: Vec<EngineUuid> = vec![];
        for (uuid, joining) in &self.hub.joining {
            if due(joining) {
                ready.push((joining.id, uuid.clone()));
            } else if joining.beat.is_none() && joining.expires <= now {
                expired.push(uuid.clone());
            }
        }
        for uuid in expired {
            let joining = self.hub.joining.remove(&uuid).expect("just found");
            tracing::warn!(%uuid, id = %joining.id, "engine did not become reachable in time");
            // It believes that it has joined: should it be heard after all, it has.
            let Joining { id, description, heard, .. } = joining;
            let (engine, described) = (uuid.clone(), description.clone());
            effects.push(Effect::Remember(Change::Expected { id, engine, description: described }));
            self.hub.remember(uuid, Departed { id, description, heard });
        }
        ready.sort_unstable();
        for (_, uuid) in ready {
            let joining = self.hub.joining.remove(&uuid).expect("just found");
            if !joining.is_ready() && joining.description.version > 0 {
                tracing::warn!(%uuid, "engine did not say on every channel that it is ready");
            }
            let engine = self.hub.admit(now, uuid, joining);
            tracing::info!(id = %engine.id, uuid = %engine.uuid, host = engine.description.host, "engine joined");
            effects.push(Effect::Remember(Change::Joined {
                id: engine.id,
                engine: engine.uuid.clone(),
                description: engine.description.clone(),
            }));
            effects.push(arrival(engine));
            let (id, uuid) = (engine.id, engine.uuid.clone());
            self.hub.news.on_changed(now, id, &uuid);
            self.add_to_schedule(now, id, effects);
        }
    }
}

/// Tells clients that an engine can be used.
pub(super) fn arrival(engine: &Engine) -> Effect {
    let is_ours = engine.description.version > 0;
    Effect::Publish {
        parent: Bytes::from_static(b"{}"),
        msg_type: REGISTRATION_NOTIFICATION,
        content: json(&EngineNotification {
            id: engine.id,
            uuid: engine.uuid.clone(),
            extension: is_ours.then(|| engine.description.clone()),
            reason: None,
        }),
    }
}

fn answer(to: Bytes, parent: Bytes, content: &impl serde::Serialize) -> Effect {
    Effect::Answer { to, parent, msg_type: REGISTRATION_REPLY, content: json(content) }
}

/// The JSON of a message of ours.
pub(crate) fn json(content: &impl serde::Serialize) -> Json {
    serde_json::to_value(content).expect("our message types are maps with text keys")
}
