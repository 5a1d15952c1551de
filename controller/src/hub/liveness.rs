//! Who is alive: a lost connection tells at once, a heart that does not echo tells in the end.

use std::time::{Duration, Instant};

use bytes::Bytes;
use protocol::id::{EngineId, EngineUuid};
use protocol::message::notification::{EngineNotification, UNREGISTRATION_NOTIFICATION};

use super::registration::{arrival, json};
use super::{Engine, Hub};
use crate::machine::{Controller, Effect, Settings};
use crate::records::Change;
use crate::tasks::{Doubt, Task, TaskId};

/// Time between heartbeats while an engine is joining, or is to return to a restarted controller: its heart may begin
/// to listen at any moment, and it is usable only after its first echo.
const JOINING_PERIOD: Duration = Duration::from_millis(50);

/// Time between heartbeats per engine that answers them: a thousand engines that register one after the other, each of
/// which wants to be asked at once, would otherwise have to answer a thousand times each.
const SPACING_PER_ENGINE: Duration = Duration::from_micros(200);

/// When hearts are asked.
#[derive(Debug)]
pub(super) struct Pulse {
    /// When they were asked last.
    last: Option<Instant>,
    next: Instant,
    /// The latest of the engines that joined or were lost may have to be looked at then.
    look: Instant,
}

impl Pulse {
    pub(super) fn new(now: Instant, settings: &Settings) -> Pulse {
        Pulse { last: None, next: now + settings.heartbeat_period, look: now + settings.heartbeat_period }
    }
}

impl Hub {
    /// When the hub must be called again, and why.
    pub(crate) fn next_deadline(&self) -> (Instant, &'static str) {
        if self.pulse.look < self.pulse.next {
            (self.pulse.look, "liveness")
        } else {
            (self.pulse.next, "heartbeat")
        }
    }

    /// Recomputes [`Hub::next_deadline`]: after everything that may bring one nearer.
    fn schedule(&mut self, now: Instant, settings: &Settings) {
        if !self.joining.is_empty() || self.engines.values().any(|engine| engine.returning) {
            let period = JOINING_PERIOD.max(self.spacing()).min(settings.heartbeat_period);
            self.pulse.next = self.pulse.next.min(now + period);
        }
        let lost = self.engines.values().filter_map(|engine| engine.lost_at).min();
        self.pulse.look =
            [lost, self.next_join(settings)].into_iter().flatten().fold(self.pulse.next, Instant::min);
    }

    /// The least time between two heartbeats.
    fn spacing(&self) -> Duration {
        let hearts = u32::try_from(self.engines.len() + self.joining.len()).unwrap_or(u32::MAX);
        SPACING_PER_ENGINE.saturating_mul(hearts)
    }

    /// Any verified message of an engine is a sign of life.
    pub(crate) fn heard(&mut self, now: Instant, identity: &[u8]) -> Option<EngineId> {
        let id = self.by_identity(identity)?.id;
        self.engines.get_mut(&id)?.last_heard = now;
        Some(id)
    }
}

impl Engine {
    /// The engine in words, for errors: its id, and what it said of itself.
    pub(crate) fn in_words(&self) -> String {
        let described = &self.description;
        if described.version == 0 {
            return format!("Engine {}", self.id);
        }
        let rank =
            if described.world_size > 1 { format!("rank {}, ", described.rank) } else { String::new() };
        format!("Engine {} ({rank}host {}, pid {})", self.id, described.host, described.pid)
    }
}

/// Slurm looks at its jobs' limits every 30 seconds, and ends them a little early or late.
const JOB_END_TOLERANCE: Duration = Duration::from_secs(5);

impl Engine {
    /// What an engine that vanished without a word was a part of, and whether that had to end now.
    fn end_of_job(&self, now: Instant, reason: &str) -> Option<String> {
        let job = &self.description.job.as_ref()?.name;
        Some(match self.job_ends {
            Some(ends) if now + JOB_END_TOLERANCE >= ends => format!("{job} reached its time limit"),
            _ => format!("{reason} ({job})"),
        })
    }
}

impl Controller {
    /// Asks all hearts at once, for instance because one has just come.
    pub(crate) fn ping_now(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        effects.push(Effect::Ping);
        self.hub.pulse.last = Some(now);
        self.hub.pulse.next = now + self.settings.heartbeat_period;
        self.hub.schedule(now, &self.settings);
    }

    /// As [`Controller::ping_now`], but a little later if they were asked just now.
    pub(crate) fn ping_soon(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let earliest = self.hub.pulse.last.map_or(now, |last| last + self.hub.spacing());
        if earliest <= now {
            return self.ping_now(now, effects);
        }
        self.hub.pulse.next = self.hub.pulse.next.min(earliest);
        self.hub.schedule(now, &self.settings);
    }

    pub(crate) fn on_hub_deadline(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        self.finish_joins(now, effects);
        let overdue: Vec<(EngineId, &str)> = self
            .hub
            .engines
            .values()
            .filter(|engine| engine.lost_at.is_some_and(|at| at <= now))
            .map(|engine| (engine.id, "its connection was lost"))
            .collect();
        for (engine, reason) in overdue {
            self.lose_engine(now, engine, true, reason, effects);
        }
        if self.hub.pulse.next <= now {
            self.bury_the_silent(now, effects);
            self.ping_now(now, effects);
        }
        self.hub.schedule(now, &self.settings);
    }

    fn bury_the_silent(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let patience = self.settings.heartbeat_period * (self.settings.heartbeat_misses + 1);
        let silent: Vec<EngineId> = self
            .hub
            .engines
            .values()
            .filter(|engine| now.saturating_duration_since(engine.last_heard) > patience)
            .map(|engine| engine.id)
            .collect();
        for engine in silent {
            let reason = format!("it did not answer for {:.1} s", patience.as_secs_f64());
            self.lose_engine(now, engine, true, &reason, effects);
        }
    }

    pub(crate) fn on_beat(&mut self, now: Instant, identity: &Bytes, effects: &mut Vec<Effect>) {
        if let Some(id) = self.hub.heard(now, identity) {
            let engine = self.hub.engine_mut(id).expect("just heard");
            let returns = std::mem::take(&mut engine.returning);
            if engine.lost_at.take().is_some() {
                tracing::info!(%id, "engine reconnected");
                // What was under way is lost, if its other connections ended with this one. Engines serve control
                // requests at once: nobody asks after those.
                let doubt = if returns { Doubt::Restart } else { Doubt::Connection };
                let may_be_lost = |id: &&TaskId| self.tasks.get(**id).is_some_and(Task::counts);
                let doubtful: Vec<TaskId> = engine.outstanding.iter().filter(may_be_lost).copied().collect();
                engine.doubtful.extend(doubtful);
                self.ask_after_doubtful(id, doubt, effects);
                self.resume_schedule(now, id, effects);
            }
            return;
        }
        if self.hub.joining_mut(identity).is_none()
            && let Ok(uuid) = std::str::from_utf8(identity)
        {
            effects.extend(self.hub.rejoin(now, uuid, &self.settings).map(Effect::Remember));
        }
        // Of an engine that is joining the first counts; looking at all engines for every other one takes too long.
        if self.hub.joining_mut(identity).is_some_and(|joining| joining.on_beat(now)) {
            self.finish_joins(now, effects);
            self.hub.schedule(now, &self.settings);
        }
    }

    pub(crate) fn on_disconnected(&mut self, now: Instant, identity: &Bytes, effects: &mut Vec<Effect>) {
        let grace = self.settings.reconnect_grace;
        let Some(id) = self.hub.by_identity(identity).map(|engine| engine.id) else {
            return; // Not usable yet, or unregistered already: an engine that ends says so first.
        };
        let engine = self.hub.engine_mut(id).expect("just found");
        if engine.lost_at.is_some() {
            return;
        }
        engine.lost_at = Some(now + grace);
        tracing::debug!(%id, "connection of the engine's heart ended");
        self.balanced.suspend(id);
        // Should it only have lost its connection, its heart answers this as soon as it has a new one.
        effects.push(Effect::Ping);
        self.hub.pulse.next = self.hub.pulse.next.min(now + grace * 3 / 4);
        self.hub.schedule(now, &self.settings);
    }

    pub(crate) fn on_unregistering(
        &mut self,
        now: Instant,
        engine: Option<EngineId>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(id) = engine else { return };
        if self.hub.engine(id).is_some() {
            self.lose_engine(now, id, false, "it unregistered", effects);
        } else if let Some((id, engine)) = self.hub.cancel_join(|_, joining| joining == id) {
            effects.push(Effect::Remember(Change::Left { id, engine }));
            tracing::info!(%id, "registration cancelled");
        }
    }

    pub(crate) fn on_ending(
        &mut self,
        now: Instant,
        engine: &EngineUuid,
        reason: Option<&str>,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(id) = self.hub.by_uuid(engine.as_str()).map(|engine| engine.id) {
            self.lose_engine(now, id, false, reason.unwrap_or("it was shut down"), effects);
        } else if let Some((id, engine)) = self.hub.cancel_join(|uuid, _| uuid == engine) {
            tracing::info!(%engine, "registration cancelled");
            effects.push(Effect::Remember(Change::Left { id, engine }));
        }
    }

    /// Takes an engine out of everything, tells everybody, and ends or moves what it had.
    pub(crate) fn lose_engine(
        &mut self,
        now: Instant,
        id: EngineId,
        may_return: bool,
        reason: &str,
        effects: &mut Vec<Effect>,
    ) {
        let Some(engine) = self.hub.remove(id, may_return) else { return };
        let of_job = if may_return { engine.end_of_job(now, reason) } else { None };
        let reason = of_job.as_deref().unwrap_or(reason);
        tracing::info!(%id, uuid = %engine.uuid, reason, outstanding = engine.outstanding.len(), "engine lost");
        effects.push(Effect::Remember(Change::Left { id, engine: engine.uuid.clone() }));
        if may_return {
            let (engine, description) = (engine.uuid.clone(), engine.description.clone());
            effects.push(Effect::Remember(Change::Expected { id, engine, description }));
        }
        effects.push(departure(id, engine.uuid.clone(), reason));
        self.hub.news.on_changed(now, id, &engine.uuid);
        self.on_engine_gone(now, &engine, reason, effects);
        self.hub.schedule(now, &self.settings);
    }

    /// Somebody hears of changes from now on: what it missed since it was told who is here is said again.
    pub(crate) fn on_subscribed(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        for (id, engine) in self.hub.news.since_listed(now) {
            effects.push(match self.hub.by_uuid(engine.as_str()) {
                Some(engine) => arrival(engine),
                None => departure(id, engine, "it left a moment ago"),
            });
        }
    }
}

/// Tells clients that an engine is gone.
fn departure(id: EngineId, uuid: EngineUuid, reason: &str) -> Effect {
    let reason = Some(reason.to_owned());
    Effect::Publish {
        parent: Bytes::from_static(b"{}"),
        msg_type: UNREGISTRATION_NOTIFICATION,
        content: json(&EngineNotification { id, uuid, extension: None, reason }),
    }
}
