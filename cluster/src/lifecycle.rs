//! The life of a cluster, or of one more set of engines, as a machine: what happened goes in, what is to be done
//! comes out. Processes, sockets and clocks are in `supervisor.rs`.

use std::collections::BTreeSet;

use protocol::id::EngineId;
use slurm_pbs::Exit;

/// A process under supervision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Process {
    /// The controller.
    Controller,
    /// One of the processes that a launcher asked for: an engine, or the one `mpiexec`.
    Engines(usize),
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The hub said which engines there are.
    HubAnswered(BTreeSet<EngineId>),
    /// An engine can be used.
    EngineJoined(EngineId),
    /// An engine is gone.
    EngineLeft(EngineId, Option<String>),
    /// The hub was asked by a client to shut down.
    HubShutsDown,
    /// A process ended.
    ProcessEnded(Process, Exit),
    /// The user, or `cluster stop`, wants the end.
    StopAsked(i32),
    /// The time for the start is over.
    TimeIsUp,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The hub answers: engines can be started.
    StartEngines,
    /// Every engine that was asked for can be used.
    AnnounceReady,
    /// Something the user should know; the cluster goes on.
    Note(Note),
    /// End everything. Nothing follows this.
    Stop(Reason),
}

/// Something that the cluster survives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// The hub lost an engine.
    EngineLeft(EngineId, Option<String>),
    /// A process of the engines ended.
    EnginesEnded(usize, Exit),
}

/// Why all ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A signal asked for it.
    Asked {
        /// Which.
        signal: i32,
        /// Whether the cluster was complete by then.
        ready: bool,
    },
    /// A client shut the cluster down.
    ShutDown,
    /// The controller ended by itself.
    ControllerEnded {
        /// How.
        exit: Exit,
        /// Whether the cluster was complete by then.
        ready: bool,
    },
    /// A process of the engines ended before they were complete.
    EnginesFailed {
        /// Which one.
        index: usize,
        /// How.
        exit: Exit,
    },
    /// Too few engines came in time.
    TooLate {
        /// Whether the hub answered at all.
        hub_answered: bool,
        /// How many engines came.
        joined: usize,
    },
    /// The last process of this set of engines is gone, and the set is all there is to watch.
    NothingLeft {
        /// Whether all ended as they should.
        in_order: bool,
    },
}

enum Phase {
    WaitingForHub,
    WaitingForEngines,
    Ready,
    Stopping,
}

/// See the module.
pub struct Lifecycle {
    phase: Phase,
    wanted: usize,
    /// Engines that were there before ours.
    before: BTreeSet<EngineId>,
    joined: BTreeSet<EngineId>,
    /// Without a controller of ours, the end of the engines is the end of our work.
    has_controller: bool,
    processes_left: BTreeSet<usize>,
    all_in_order: bool,
}

impl Lifecycle {
    /// A cluster with its controller, or engines alone.
    pub fn new(wanted: usize, has_controller: bool) -> Lifecycle {
        Lifecycle {
            phase: Phase::WaitingForHub,
            wanted,
            before: BTreeSet::new(),
            joined: BTreeSet::new(),
            has_controller,
            processes_left: BTreeSet::new(),
            all_in_order: true,
        }
    }

    /// So many processes were started for the engines.
    pub fn engines_started(&mut self, processes: usize) {
        self.processes_left = (0..processes).collect();
    }

    /// How many engines came so far.
    pub fn joined(&self) -> usize {
        self.joined.len()
    }

    /// The engines that came.
    pub fn joined_ids(&self) -> &BTreeSet<EngineId> {
        &self.joined
    }

    /// Whether the hub has answered.
    pub fn hub_answered(&self) -> bool {
        !matches!(self.phase, Phase::WaitingForHub)
    }

    /// What `event` asks for.
    pub fn on(&mut self, event: Event) -> Vec<Effect> {
        if matches!(self.phase, Phase::Stopping) {
            return Vec::new();
        }
        match event {
            Event::HubAnswered(engines) => self.on_hub_answered(engines),
            Event::EngineJoined(engine) => self.on_engines_joined(BTreeSet::from([engine])),
            Event::EngineLeft(engine, reason) => self.on_engine_left(engine, reason),
            Event::HubShutsDown => self.stop(Reason::ShutDown),
            Event::ProcessEnded(Process::Controller, exit) => {
                let ready = self.is_ready();
                self.stop(Reason::ControllerEnded { exit, ready })
            }
            Event::ProcessEnded(Process::Engines(index), exit) => self.on_engines_ended(index, exit),
            Event::StopAsked(signal) => {
                let ready = self.is_ready();
                self.stop(Reason::Asked { signal, ready })
            }
            Event::TimeIsUp => self.on_time_is_up(),
        }
    }

    fn on_hub_answered(&mut self, engines: BTreeSet<EngineId>) -> Vec<Effect> {
        if !matches!(self.phase, Phase::WaitingForHub) {
            return self.on_engines_joined(engines);
        }
        self.phase = Phase::WaitingForEngines;
        if !self.processes_left.is_empty() {
            return self.on_engines_joined(engines); // The job that brings the engines brought the hub too.
        }
        self.before = engines;
        vec![Effect::StartEngines]
    }

    fn on_engines_joined(&mut self, engines: BTreeSet<EngineId>) -> Vec<Effect> {
        if !matches!(self.phase, Phase::WaitingForEngines) {
            return Vec::new();
        }
        self.joined.extend(engines.difference(&self.before));
        if self.joined.len() < self.wanted {
            return Vec::new();
        }
        self.phase = Phase::Ready;
        vec![Effect::AnnounceReady]
    }

    fn on_engine_left(&mut self, engine: EngineId, reason: Option<String>) -> Vec<Effect> {
        if !self.joined.remove(&engine) {
            return Vec::new(); // Not one of ours.
        }
        vec![Effect::Note(Note::EngineLeft(engine, reason))]
    }

    fn on_engines_ended(&mut self, index: usize, exit: Exit) -> Vec<Effect> {
        self.processes_left.remove(&index);
        if !self.is_ready() {
            return self.stop(Reason::EnginesFailed { index, exit });
        }
        self.all_in_order &= exit.is_success();
        let mut effects = vec![Effect::Note(Note::EnginesEnded(index, exit))];
        if self.processes_left.is_empty() && !self.has_controller {
            effects.extend(self.stop(Reason::NothingLeft { in_order: self.all_in_order }));
        }
        effects
    }

    fn on_time_is_up(&mut self) -> Vec<Effect> {
        if self.is_ready() {
            return Vec::new();
        }
        let (hub_answered, joined) = (self.hub_answered(), self.joined.len());
        self.stop(Reason::TooLate { hub_answered, joined })
    }

    /// Whether every engine that was asked for came.
    pub fn is_ready(&self) -> bool {
        matches!(self.phase, Phase::Ready)
    }

    fn stop(&mut self, reason: Reason) -> Vec<Effect> {
        self.phase = Phase::Stopping;
        vec![Effect::Stop(reason)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KILLED: Exit = Exit::Signal(9);

    fn ids(ids: &[u32]) -> BTreeSet<EngineId> {
        ids.iter().copied().map(EngineId).collect()
    }

    /// Two engines wanted, in one process, and the hub has answered.
    fn waiting_for_two() -> Lifecycle {
        let mut life = Lifecycle::new(2, true);
        assert_eq!(life.on(Event::HubAnswered(ids(&[]))), [Effect::StartEngines]);
        life.engines_started(1);
        life
    }

    fn ready_with_two() -> Lifecycle {
        let mut life = waiting_for_two();
        assert_eq!(life.on(Event::HubAnswered(ids(&[0, 1]))), [Effect::AnnounceReady]);
        life
    }

    #[test]
    fn a_job_that_brings_its_own_controller_is_ready_with_its_engines_and_its_end_is_the_end() {
        let mut life = Lifecycle::new(2, false);
        life.engines_started(1);
        assert_eq!(life.on(Event::HubAnswered(ids(&[0]))), []);
        assert_eq!(life.on(Event::EngineJoined(EngineId(1))), [Effect::AnnounceReady]);
        let ended = Event::ProcessEnded(Process::Engines(0), KILLED);
        assert_eq!(
            life.on(ended),
            [
                Effect::Note(Note::EnginesEnded(0, KILLED)),
                Effect::Stop(Reason::NothingLeft { in_order: false })
            ]
        );
    }

    #[test]
    fn engines_are_started_once_however_often_the_hub_answers() {
        let mut life = waiting_for_two();
        assert_eq!(life.on(Event::HubAnswered(ids(&[]))), []);
    }

    #[test]
    fn the_cluster_is_ready_with_the_last_engine_and_only_once() {
        let mut life = waiting_for_two();
        assert_eq!(life.on(Event::EngineJoined(EngineId(1))), []);
        assert_eq!(life.on(Event::EngineJoined(EngineId(1))), [], "the same engine twice is one engine");
        assert_eq!(life.on(Event::EngineJoined(EngineId(0))), [Effect::AnnounceReady]);
        assert_eq!(life.on(Event::HubAnswered(ids(&[0, 1]))), []);
        assert_eq!(life.on(Event::TimeIsUp), []);
    }

    #[test]
    fn engines_that_were_there_before_do_not_count() {
        let mut life = Lifecycle::new(1, false);
        life.on(Event::HubAnswered(ids(&[0, 1])));
        life.engines_started(1);
        assert_eq!(life.on(Event::HubAnswered(ids(&[0, 1]))), []);
        assert_eq!(life.on(Event::EngineLeft(EngineId(0), None)), []);
        assert_eq!(life.on(Event::EngineJoined(EngineId(2))), [Effect::AnnounceReady]);
    }

    #[test]
    fn an_engine_that_ends_before_all_are_there_fails_the_start() {
        let mut life = waiting_for_two();
        life.on(Event::EngineJoined(EngineId(0)));
        assert_eq!(
            life.on(Event::ProcessEnded(Process::Engines(0), KILLED)),
            [Effect::Stop(Reason::EnginesFailed { index: 0, exit: KILLED })]
        );
        assert_eq!(life.on(Event::EngineJoined(EngineId(1))), [], "nothing follows a stop");
    }

    #[test]
    fn an_engine_that_left_during_the_start_is_missing() {
        let mut life = waiting_for_two();
        life.on(Event::EngineJoined(EngineId(0)));
        let left = Note::EngineLeft(EngineId(0), None);
        assert_eq!(life.on(Event::EngineLeft(EngineId(0), None)), [Effect::Note(left)]);
        assert_eq!(life.on(Event::EngineJoined(EngineId(1))), []);
        assert_eq!(
            life.on(Event::TimeIsUp),
            [Effect::Stop(Reason::TooLate { hub_answered: true, joined: 1 })]
        );
    }

    #[test]
    fn later_a_lost_engine_is_told_and_the_controller_lives_on() {
        let mut life = ready_with_two();
        assert_eq!(
            life.on(Event::ProcessEnded(Process::Engines(0), KILLED)),
            [Effect::Note(Note::EnginesEnded(0, KILLED))]
        );
        assert_eq!(life.on(Event::StopAsked(2)), [Effect::Stop(Reason::Asked { signal: 2, ready: true })]);
    }

    #[test]
    fn the_end_of_the_controller_is_the_end() {
        let mut life = ready_with_two();
        assert_eq!(
            life.on(Event::ProcessEnded(Process::Controller, KILLED)),
            [Effect::Stop(Reason::ControllerEnded { exit: KILLED, ready: true })]
        );
        let mut life = Lifecycle::new(2, true);
        assert_eq!(
            life.on(Event::ProcessEnded(Process::Controller, KILLED)),
            [Effect::Stop(Reason::ControllerEnded { exit: KILLED, ready: false })]
        );
    }

    #[test]
    fn engines_without_a_controller_of_ours_end_with_their_last_process() {
        let mut life = Lifecycle::new(2, false);
        life.on(Event::HubAnswered(ids(&[])));
        life.engines_started(2);
        life.on(Event::HubAnswered(ids(&[0, 1])));
        let ended = |index, exit| Event::ProcessEnded(Process::Engines(index), exit);
        assert_eq!(life.on(ended(1, KILLED)), [Effect::Note(Note::EnginesEnded(1, KILLED))]);
        assert_eq!(
            life.on(ended(0, Exit::Code(0))),
            [
                Effect::Note(Note::EnginesEnded(0, Exit::Code(0))),
                Effect::Stop(Reason::NothingLeft { in_order: false })
            ]
        );
    }

    #[test]
    fn a_shutdown_by_a_client_is_an_end_in_order() {
        let mut life = ready_with_two();
        assert_eq!(life.on(Event::HubShutsDown), [Effect::Stop(Reason::ShutDown)]);
        assert_eq!(life.on(Event::ProcessEnded(Process::Controller, Exit::Code(0))), []);
    }
}
