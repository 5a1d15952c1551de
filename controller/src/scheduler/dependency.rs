//! After which tasks, and where those ran: whether a dependency is met, or never will be.
//!
//! A need collects how the tasks that it names ended. Of these some *count* (successes, failures, or both, as the
//! client chose). Everything else follows from which count, and where they ran.

use std::collections::{BTreeMap, BTreeSet};

use protocol::id::{EngineId, MsgId};
use protocol::message::execute::Dependency;

/// How a task ended, and where if it ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Finished {
    pub(crate) ok: bool,
    pub(crate) engine: Option<EngineId>,
}

/// What a task needs of others, and how those ended so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Need(Option<Box<Wanted>>);

#[derive(Clone, Debug)]
struct Wanted {
    ids: BTreeSet<MsgId>,
    all: bool,
    success: bool,
    failure: bool,
    finished: BTreeMap<MsgId, Finished>,
}

impl Need {
    /// The need that a client states.
    pub(crate) fn new(dependency: Dependency) -> Need {
        if dependency.dependencies.is_empty() {
            return Need(None);
        }
        Need(Some(Box::new(Wanted {
            ids: dependency.dependencies.into_iter().collect(),
            all: dependency.all,
            success: dependency.success,
            failure: dependency.failure,
            finished: BTreeMap::new(),
        })))
    }

    /// Whether nothing is needed.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The tasks that it names.
    pub(crate) fn ids(&self) -> impl Iterator<Item = &MsgId> {
        self.0.iter().flat_map(|wanted| &wanted.ids)
    }

    /// How many.
    pub(crate) fn count(&self) -> usize {
        self.0.as_ref().map_or(0, |wanted| wanted.ids.len())
    }

    /// Those that have not ended, or not as needed.
    pub(crate) fn open_ids(&self) -> impl Iterator<Item = &MsgId> {
        self.0.iter().flat_map(|wanted| {
            let counts =
                |id: &&MsgId| wanted.finished.get(*id).is_some_and(|finished| wanted.counts(finished));
            wanted.ids.iter().filter(move |id| !counts(id))
        })
    }

    /// Learns how one of them ended.
    pub(crate) fn learn(&mut self, id: &MsgId, finished: Finished) {
        if let Some(wanted) = &mut self.0
            && wanted.ids.contains(id)
        {
            wanted.finished.insert(id.clone(), finished);
        }
    }

    /// Whether the tasks ended as needed, wherever they ran.
    pub(crate) fn is_met(&self) -> bool {
        self.0.as_ref().is_none_or(|wanted| wanted.is_met_by(|_| true))
    }

    /// Whether the tasks ended as needed on that engine.
    pub(crate) fn permits(&self, engine: EngineId) -> bool {
        self.0.as_ref().is_none_or(|wanted| wanted.is_met_by(|finished| finished.engine == Some(engine)))
    }

    /// Whether they can no longer end as needed.
    pub(crate) fn is_unreachable(&self) -> bool {
        let Some(wanted) = &self.0 else { return false };
        let wasted = wanted.finished.values().filter(|finished| !wanted.counts(finished)).count();
        if wanted.all { wasted > 0 } else { wasted == wanted.ids.len() }
    }

    /// Whether all of them are needed on one engine, and two ended on different ones.
    pub(crate) fn is_scattered(&self) -> bool {
        let Some(wanted) = &self.0 else { return false };
        let mut places = wanted.finished.values().filter_map(|finished| finished.engine);
        let first = places.next();
        wanted.all && places.any(|place| Some(place) != first)
    }

    /// Whether all of them have ended.
    pub(crate) fn is_decided(&self) -> bool {
        self.0.as_ref().is_none_or(|wanted| wanted.finished.len() == wanted.ids.len())
    }
}

impl Wanted {
    fn counts(&self, finished: &Finished) -> bool {
        if finished.ok { self.success } else { self.failure }
    }

    fn is_met_by(&self, place: impl Fn(&Finished) -> bool) -> bool {
        let count =
            self.finished.values().filter(|finished| self.counts(finished) && place(finished)).count();
        if self.all { count == self.ids.len() } else { count > 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn need(all: bool, success: bool, failure: bool) -> Need {
        let dependencies = vec![MsgId::from("a"), MsgId::from("b")];
        Need::new(Dependency { dependencies, all, success, failure })
    }

    fn on(engine: u32, ok: bool) -> Finished {
        Finished { ok, engine: Some(EngineId(engine)) }
    }

    #[test]
    fn all_need_every_task_and_any_needs_one() {
        let (mut all, mut any) = (need(true, true, false), need(false, true, false));
        for need in [&mut all, &mut any] {
            need.learn(&"a".into(), on(0, true));
        }
        assert!(!all.is_met() && any.is_met());
        all.learn(&"b".into(), on(0, true));
        assert!(all.is_met());
    }

    #[test]
    fn one_failure_ends_the_hope_of_all_and_two_that_of_any() {
        let (mut all, mut any) = (need(true, true, false), need(false, true, false));
        for need in [&mut all, &mut any] {
            need.learn(&"a".into(), on(0, false));
        }
        assert!(all.is_unreachable() && !any.is_unreachable());
        any.learn(&"b".into(), on(0, false));
        assert!(any.is_unreachable());
    }

    #[test]
    fn failures_count_if_they_are_asked_for() {
        let mut only_failure = need(true, false, true);
        only_failure.learn(&"a".into(), on(0, false));
        only_failure.learn(&"b".into(), on(0, false));
        assert!(only_failure.is_met());
        let mut both = need(true, true, true);
        both.learn(&"a".into(), on(0, false));
        both.learn(&"b".into(), on(0, true));
        assert!(both.is_met() && !both.is_unreachable());
    }

    #[test]
    fn following_all_means_one_engine_and_following_any_means_one_of_theirs() {
        let (mut all, mut any) = (need(true, true, false), need(false, true, false));
        for need in [&mut all, &mut any] {
            need.learn(&"a".into(), on(0, true));
            need.learn(&"b".into(), on(1, true));
        }
        assert!(all.is_scattered() && !all.permits(EngineId(0)));
        assert!(any.permits(EngineId(0)) && any.permits(EngineId(1)) && !any.permits(EngineId(2)));
    }

    #[test]
    fn no_need_is_met_everywhere() {
        let none = Need::new(Dependency::default());
        assert!(none.is_empty() && none.is_met() && none.permits(EngineId(7)) && !none.is_unreachable());
    }
}
