//! What an engine does next: the requests that wait, which of them were aborted, and when it ends.
//!
//! Events in, steps out; no sockets, no clock, no user code. The shell feeds it everything that arrived, then
//! asks for the next step, and runs it.

use std::collections::{BTreeSet, VecDeque};

use protocol::Date;
use protocol::id::{MsgId, SessionId};
use protocol::limits::{ABORTED_REMEMBERED_MAX, ENGINE_WAITING_BYTES_MAX, ENGINE_WAITING_MAX};

/// What a request asks for, as far as its order among the others depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A cell: a failing cell aborts the cells behind it.
    Cell,
    /// Anything else.
    Other,
}

/// A request that waits for its turn. `R` is what the shell needs to run and answer it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting<R> {
    /// Its name.
    pub id: MsgId,
    /// Who sent it.
    pub session: SessionId,
    /// When it was sent, by its sender's clock.
    pub sent: Option<Date>,
    /// What it asks for.
    pub kind: Kind,
    /// What it costs to keep.
    pub bytes: usize,
    /// The request.
    pub request: R,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<R> {
    /// A request came.
    Arrived(Waiting<R>),
    /// A client wants these not to run. They may come later than this.
    AbortNamed(Vec<MsgId>),
    /// A client wants nothing to run that was sent before this. Only a client's own clock can be compared
    /// with itself, so `sent` spares later requests of the same session; what other sessions have waiting
    /// here goes.
    AbortAll {
        /// The client.
        session: SessionId,
        /// When it asked.
        sent: Option<Date>,
    },
    /// The namespace is to be emptied before anything else runs.
    Clear,
    /// The cell that ran last failed, and its sender wants the cells behind it not to run.
    CellFailed,
    /// The engine is to end.
    Shutdown,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step<R> {
    /// Run a request and answer it.
    Run(R),
    /// Answer a request as aborted.
    Abort(R),
    /// Empty the namespace.
    Clear,
    /// End. What waits is left unanswered: the controller knows it, and can give it to another engine.
    Stop,
}

/// The order of things in one engine.
#[derive(Debug)]
pub struct EngineMachine<R> {
    waiting: VecDeque<Waiting<R>>,
    waiting_bytes: usize,
    /// To be answered as aborted before anything runs: their senders wait for nothing else.
    aborted: VecDeque<R>,
    tombstones: Tombstones,
    clearing: bool,
    stopping: bool,
}

impl<R> Default for EngineMachine<R> {
    fn default() -> Self {
        EngineMachine {
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            aborted: VecDeque::new(),
            tombstones: Tombstones::default(),
            clearing: false,
            stopping: false,
        }
    }
}

impl<R> EngineMachine<R> {
    /// An engine to which nothing has happened.
    pub fn new() -> EngineMachine<R> {
        EngineMachine::default()
    }

    /// Whether another request may be taken from the socket.
    pub fn has_room(&self) -> bool {
        self.waiting.len() + self.aborted.len() < ENGINE_WAITING_MAX
            && self.waiting_bytes < ENGINE_WAITING_BYTES_MAX
    }

    /// How many requests wait.
    pub fn waiting_count(&self) -> usize {
        self.waiting.len()
    }

    /// Takes note of an event.
    pub fn on(&mut self, event: Event<R>) {
        match event {
            Event::Arrived(waiting) => self.on_arrived(waiting),
            Event::AbortNamed(ids) => self.on_abort_named(ids),
            Event::AbortAll { session, sent } => self.on_abort_all(&session, sent),
            Event::Clear => self.clearing = true,
            Event::CellFailed => self.abort_where(|waiting| waiting.kind == Kind::Cell),
            Event::Shutdown => self.stopping = true,
        }
    }

    /// The next thing to do; none: wait for an event.
    pub fn next_step(&mut self) -> Option<Step<R>> {
        if self.stopping {
            return Some(Step::Stop);
        }
        if let Some(request) = self.aborted.pop_front() {
            return Some(Step::Abort(request));
        }
        if std::mem::take(&mut self.clearing) {
            return Some(Step::Clear);
        }
        let next = self.waiting.pop_front()?;
        self.waiting_bytes -= next.bytes;
        Some(Step::Run(next.request))
    }

    fn on_arrived(&mut self, waiting: Waiting<R>) {
        if self.tombstones.take(&waiting.id) {
            self.aborted.push_back(waiting.request);
            return;
        }
        self.waiting_bytes += waiting.bytes;
        self.waiting.push_back(waiting);
    }

    fn on_abort_named(&mut self, ids: Vec<MsgId>) {
        let mut named: BTreeSet<MsgId> = ids.into_iter().collect();
        self.abort_where(|waiting| named.remove(&waiting.id));
        // What is not here may be on its way: control messages overtake requests.
        named.into_iter().for_each(|id| self.tombstones.add(id));
    }

    fn on_abort_all(&mut self, session: &SessionId, sent: Option<Date>) {
        self.abort_where(|waiting| waiting.session != *session || waiting.sent <= sent);
    }

    fn abort_where(&mut self, mut goes: impl FnMut(&Waiting<R>) -> bool) {
        let mut kept = VecDeque::with_capacity(self.waiting.len());
        for waiting in self.waiting.drain(..) {
            if goes(&waiting) {
                self.waiting_bytes -= waiting.bytes;
                self.aborted.push_back(waiting.request);
            } else {
                kept.push_back(waiting);
            }
        }
        self.waiting = kept;
    }
}

/// Ids of requests that were aborted before they came; the oldest are forgotten first.
#[derive(Debug, Default)]
struct Tombstones {
    ids: BTreeSet<MsgId>,
    order: VecDeque<MsgId>,
}

impl Tombstones {
    fn add(&mut self, id: MsgId) {
        if !self.ids.insert(id.clone()) {
            return;
        }
        self.order.push_back(id);
        // Ids that were taken leave their place in `order`, so both can be longer than what is remembered.
        while self.order.len() > ABORTED_REMEMBERED_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.ids.remove(&oldest);
            }
        }
    }

    /// Whether that request was aborted; it is then forgotten.
    fn take(&mut self, id: &MsgId) -> bool {
        self.ids.remove(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_run_in_the_order_in_which_they_came() {
        let mut machine = EngineMachine::new();
        machine.on(cell("a"));
        machine.on(call("b"));
        machine.on(cell("c"));

        assert_eq!(steps(&mut machine), [Step::Run("a"), Step::Run("b"), Step::Run("c")]);
    }

    #[test]
    fn an_aborted_request_is_answered_and_does_not_run() {
        let mut machine = EngineMachine::new();
        machine.on(cell("a"));
        machine.on(cell("b"));
        machine.on(named(&["b"]));

        assert_eq!(steps(&mut machine), [Step::Abort("b"), Step::Run("a")]);
    }

    #[test]
    fn an_abort_may_overtake_its_request_and_hits_it_once() {
        let mut machine = EngineMachine::new();
        machine.on(named(&["late"]));
        assert_eq!(steps(&mut machine), []);

        machine.on(cell("late"));
        machine.on(cell("late"));

        assert_eq!(steps(&mut machine), [Step::Abort("late"), Step::Run("late")]);
    }

    #[test]
    fn early_aborts_are_remembered_up_to_a_bound() {
        let mut machine = EngineMachine::new();
        let ids: Vec<MsgId> = (0..=ABORTED_REMEMBERED_MAX).map(|i| format!("m{i:06}").into()).collect();
        machine.on(Event::AbortNamed(ids));

        machine.on(cell("m000000"));
        machine.on(cell("m000001"));

        assert_eq!(steps(&mut machine), [Step::Abort("m000001"), Step::Run("m000000")]);
        assert!(machine.tombstones.order.len() <= ABORTED_REMEMBERED_MAX);
    }

    #[test]
    fn aborting_everything_spares_what_the_client_sent_afterwards() {
        let mut machine = EngineMachine::new();
        machine.on(sent("before", 10));
        machine.on(sent("after", 30));
        machine.on(Event::AbortAll { session: "s".into(), sent: Some(Date::from_micros(20)) });

        assert_eq!(steps(&mut machine), [Step::Abort("before"), Step::Run("after")]);
    }

    #[test]
    fn aborting_everything_hits_other_clients_whatever_their_clocks_say() {
        let mut machine = EngineMachine::new();
        machine.on(sent("a", 30));
        machine.on(Event::AbortAll { session: "other".into(), sent: Some(Date::from_micros(20)) });

        assert_eq!(steps(&mut machine), [Step::Abort("a")]);
    }

    #[test]
    fn a_failed_cell_aborts_the_cells_behind_it_but_no_calls() {
        let mut machine = EngineMachine::new();
        machine.on(cell("fails"));
        assert_eq!(machine.next_step(), Some(Step::Run("fails")));
        machine.on(cell("x"));
        machine.on(call("f"));
        machine.on(cell("y"));
        machine.on(Event::CellFailed);
        machine.on(cell("later"));

        assert_eq!(
            steps(&mut machine),
            [Step::Abort("x"), Step::Abort("y"), Step::Run("f"), Step::Run("later")]
        );
    }

    #[test]
    fn the_namespace_is_cleared_once_before_the_next_request() {
        let mut machine = EngineMachine::new();
        machine.on(cell("a"));
        machine.on(Event::Clear);
        machine.on(Event::Clear);

        assert_eq!(steps(&mut machine), [Step::Clear, Step::Run("a")]);
    }

    #[test]
    fn a_shutdown_leaves_what_waits_to_the_controller() {
        let mut machine = EngineMachine::new();
        machine.on(cell("a"));
        machine.on(Event::Shutdown);

        assert_eq!(machine.next_step(), Some(Step::Stop));
        assert_eq!(machine.next_step(), Some(Step::Stop));
    }

    #[test]
    fn there_is_room_until_too_many_or_too_large_requests_wait() {
        let mut machine = EngineMachine::new();
        for _ in 0..ENGINE_WAITING_MAX {
            assert!(machine.has_room());
            machine.on(cell("a"));
        }
        assert!(!machine.has_room());
        machine.next_step();
        assert!(machine.has_room());

        let mut large = EngineMachine::new();
        large.on(Event::Arrived(Waiting { bytes: ENGINE_WAITING_BYTES_MAX, ..waiting("a", Kind::Cell, 0) }));
        assert!(!large.has_room());
        large.on(named(&["a"]));
        assert!(large.has_room());
    }

    fn waiting(id: &'static str, kind: Kind, sent: i64) -> Waiting<&'static str> {
        let sent = Some(Date::from_micros(sent));
        Waiting { id: id.into(), session: "s".into(), sent, kind, bytes: 1, request: id }
    }

    fn cell(id: &'static str) -> Event<&'static str> {
        Event::Arrived(waiting(id, Kind::Cell, 0))
    }

    fn call(id: &'static str) -> Event<&'static str> {
        Event::Arrived(waiting(id, Kind::Other, 0))
    }

    fn sent(id: &'static str, micros: i64) -> Event<&'static str> {
        Event::Arrived(waiting(id, Kind::Cell, micros))
    }

    fn named(ids: &[&str]) -> Event<&'static str> {
        Event::AbortNamed(ids.iter().map(|&id| id.into()).collect())
    }

    fn steps(machine: &mut EngineMachine<&'static str>) -> Vec<Step<&'static str>> {
        std::iter::from_fn(|| machine.next_step()).collect()
    }
}
