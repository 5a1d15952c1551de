//! Sessions of clients: who was heard, and which of their messages an earlier life of this controller took with it.
//!
//! The wire has no acknowledgements: a request that was on its way in when the controller was killed is lost, and a
//! stock client waits for it for ever. But clients number their messages (`<session>_<pid>_<number>`). When a session
//! speaks again and numbers are missing, they were lost, unless they are still on their way over another of the
//! session's connections; so they get a moment to arrive.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use protocol::id::{MsgId, SessionId};
use protocol::limits::{MISSING_MESSAGES_MAX, SESSIONS_REMEMBERED};

/// How long a message may be overtaken by others of its session: its connection may take that long to come back.
const OVERTAKING_TIME: Duration = Duration::from_secs(2);

/// A message tells nothing of those of its session that are farther back than this: they are not under way, and were
/// perhaps never sent.
const OVERTAKEN_MAX: u64 = 1_024;

/// Sessions by name.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    known: BTreeMap<SessionId, Known>,
    /// Messages that were overtaken: when they count as lost.
    missing: BTreeMap<Instant, Vec<(SessionId, Numbered)>>,
    missing_count: usize,
    /// Messages that were told lost: should one come all the same, it is not answered a second time.
    given_up: BTreeSet<(SessionId, Numbered)>,
}

#[derive(Debug)]
struct Known {
    heard: Instant,
    /// The last message that is accounted for.
    last: Option<Numbered>,
    /// Whether it spoke to an earlier life of the controller: only then can something have been lost.
    returns: bool,
    /// Numbers before the last one that have not come: a later life of the controller may miss them.
    overtaken: BTreeSet<u64>,
}

/// A message's id, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Numbered {
    process: u32,
    number: u64,
}

impl Numbered {
    fn of(session: &SessionId, msg_id: &MsgId) -> Option<Numbered> {
        let rest = msg_id.as_str().strip_prefix(session.as_str())?.strip_prefix('_')?;
        let (process, number) = rest.split_once('_')?;
        Some(Numbered { process: process.parse().ok()?, number: number.parse().ok()? })
    }

    fn name(self, session: &SessionId) -> MsgId {
        MsgId::from(format!("{session}_{}_{}", self.process, self.number))
    }
}

impl Sessions {
    pub(crate) fn len(&self) -> usize {
        self.known.len()
    }

    /// A session speaks.
    pub(crate) fn hear(&mut self, now: Instant, session: &SessionId) {
        match self.known.get_mut(session) {
            Some(known) => known.heard = now,
            None => {
                self.make_room();
                self.known.insert(
                    session.clone(),
                    Known { heard: now, last: None, returns: false, overtaken: BTreeSet::new() },
                );
            }
        }
    }

    /// A session speaks, and numbers what it says. Returns the messages that this one has overtaken.
    pub(crate) fn hear_message(&mut self, now: Instant, session: &SessionId, msg_id: &MsgId) -> Vec<MsgId> {
        self.hear(now, session);
        let Some(numbered) = Numbered::of(session, msg_id) else { return vec![] };
        let known = self.known.get_mut(session).expect("just heard");
        let Some(last) = known.last.filter(|last| last.process == numbered.process) else {
            known.last = Some(numbered);
            known.overtaken.clear();
            return vec![];
        };
        if numbered.number <= last.number {
            if known.returns {
                self.arrived(session, numbered);
            } else {
                known.overtaken.remove(&numbered.number);
            }
            return vec![];
        }
        known.last = Some(numbered);
        if !known.returns {
            let oldest = numbered.number.saturating_sub(OVERTAKEN_MAX);
            let overtaken = oldest.max(last.number + 1)..numbered.number;
            known.overtaken = known.overtaken.split_off(&oldest);
            known.overtaken.extend(overtaken.clone());
            return overtaken.map(|number| Numbered { number, ..numbered }.name(session)).collect();
        }
        let overtaken = (last.number + 1..numbered.number).take(MISSING_MESSAGES_MAX - self.missing_count);
        let overtaken: Vec<Numbered> = overtaken.map(|number| Numbered { number, ..numbered }).collect();
        overtaken.iter().for_each(|numbered| self.miss(now, session, *numbered));
        overtaken.iter().map(|numbered| numbered.name(session)).collect()
    }

    fn miss(&mut self, now: Instant, session: &SessionId, numbered: Numbered) {
        self.missing.entry(now + OVERTAKING_TIME).or_default().push((session.clone(), numbered));
        self.missing_count += 1;
    }

    fn arrived(&mut self, session: &SessionId, numbered: Numbered) {
        for missing in self.missing.values_mut() {
            let before = missing.len();
            missing.retain(|(of, number)| of != session || *number != numbered);
            self.missing_count -= before - missing.len();
        }
        self.missing.retain(|_, missing| !missing.is_empty());
    }

    /// A session that an earlier life of the controller heard, and the last message of it.
    pub(crate) fn recall(&mut self, now: Instant, session: &SessionId, msg_id: &MsgId) {
        self.hear(now, session);
        let known = self.known.get_mut(session).expect("just heard");
        known.returns = true;
        if let Some(numbered) = Numbered::of(session, msg_id)
            && known.last.is_none_or(|last| last.process != numbered.process || last.number < numbered.number)
        {
            known.last = Some(numbered);
        }
    }

    /// A message that an earlier life of the controller missed.
    pub(crate) fn recall_missed(&mut self, now: Instant, session: &SessionId, msg_id: &MsgId, told: bool) {
        let Some(numbered) = Numbered::of(session, msg_id) else { return };
        let last = self.known.get(session).and_then(|known| known.last);
        let is_old = last.is_some_and(|last| {
            last.process != numbered.process || numbered.number + OVERTAKEN_MAX < last.number
        });
        if told {
            self.give_up(session, numbered);
        } else if !is_old && self.missing_count < MISSING_MESSAGES_MAX {
            self.miss(now, session, numbered);
        }
    }

    /// Messages that are missed, and whether their clients were told, for a later life of the controller.
    pub(crate) fn missed(&self) -> impl Iterator<Item = (SessionId, MsgId, bool)> {
        let entry = |told| {
            move |(session, numbered): &(SessionId, Numbered)| (session.clone(), numbered.name(session), told)
        };
        let missing = self.missing.values().flatten().map(entry(false));
        let overtaken = self.known.iter().filter_map(|(session, known)| Some((session, known, known.last?)));
        let overtaken = overtaken.flat_map(|(session, known, last)| {
            let name = move |number: &u64| Numbered { number: *number, ..last }.name(session);
            known.overtaken.iter().map(move |number| (session.clone(), name(number), false))
        });
        missing.chain(overtaken).chain(self.given_up.iter().map(entry(true)))
    }

    fn give_up(&mut self, session: &SessionId, numbered: Numbered) {
        self.given_up.insert((session.clone(), numbered));
        if self.given_up.len() > MISSING_MESSAGES_MAX {
            self.given_up.pop_first();
        }
    }

    /// The last message of every session, for a later life of the controller.
    pub(crate) fn last_messages(&self) -> impl Iterator<Item = (SessionId, MsgId)> {
        self.known.iter().filter_map(|(session, known)| Some((session.clone(), known.last?.name(session))))
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.missing.first_key_value().map(|(at, _)| *at)
    }

    /// Messages that count as lost by now.
    pub(crate) fn take_lost(&mut self, now: Instant) -> Vec<(SessionId, MsgId)> {
        let mut lost = vec![];
        while let Some(first) = self.missing.first_entry()
            && *first.key() <= now
        {
            for (session, numbered) in first.remove() {
                let name = numbered.name(&session);
                self.give_up(&session, numbered);
                lost.push((session, name));
            }
        }
        self.missing_count -= lost.len();
        lost
    }

    /// Whether a message was told lost.
    pub(crate) fn has_given_up(&self, session: &SessionId, msg_id: &MsgId) -> bool {
        !self.given_up.is_empty()
            && Numbered::of(session, msg_id)
                .is_some_and(|numbered| self.given_up.contains(&(session.clone(), numbered)))
    }

    fn make_room(&mut self) {
        if self.known.len() >= SESSIONS_REMEMBERED
            && let Some(quietest) =
                self.known.iter().min_by_key(|(_, known)| known.heard).map(|(name, _)| name.clone())
        {
            self.known.remove(&quietest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> MsgId {
        MsgId::from(format!("s_7_{number}"))
    }

    fn heard(sessions: &mut Sessions, now: Instant, numbers: &[u64]) {
        for number in numbers {
            sessions.hear_message(now, &"s".into(), &id(*number));
        }
    }

    #[test]
    fn numbers_that_are_missing_after_a_restart_are_lost_unless_they_arrive_in_time() {
        let now = Instant::now();
        let mut sessions = Sessions::default();
        sessions.recall(now, &"s".into(), &id(10));
        assert_eq!(sessions.hear_message(now, &"s".into(), &id(13)), [id(11), id(12)]);
        heard(&mut sessions, now, &[12]);
        assert_eq!(sessions.take_lost(now), []);
        assert_eq!(sessions.next_deadline(), Some(now + OVERTAKING_TIME));
        assert_eq!(sessions.take_lost(now + OVERTAKING_TIME), [("s".into(), id(11))]);
        assert_eq!(sessions.next_deadline(), None);
    }

    #[test]
    fn a_session_that_never_spoke_to_an_earlier_controller_has_lost_nothing() {
        let now = Instant::now();
        let mut sessions = Sessions::default();
        heard(&mut sessions, now, &[1, 5, 900]);
        assert_eq!(sessions.next_deadline(), None);
    }

    #[test]
    fn a_forked_client_counts_anew() {
        let now = Instant::now();
        let mut sessions = Sessions::default();
        sessions.recall(now, &"s".into(), &id(10));
        sessions.hear_message(now, &"s".into(), &"s_8_50".into());
        assert_eq!(sessions.next_deadline(), None);
    }

    #[test]
    fn what_is_missing_has_a_bound() {
        let now = Instant::now();
        let mut sessions = Sessions::default();
        sessions.recall(now, &"s".into(), &id(10));
        heard(&mut sessions, now, &[u64::MAX]);
        assert_eq!(sessions.take_lost(now + OVERTAKING_TIME).len(), MISSING_MESSAGES_MAX);
        assert_eq!(sessions.missing_count, 0);
    }

    #[test]
    fn names_that_are_not_numbered_are_not_understood() {
        for odd in ["x", "s", "s_7", "s_7_x", "t_7_1", "s_7_1_2", ""] {
            assert_eq!(Numbered::of(&"s".into(), &odd.into()), None, "{odd}");
        }
    }
}
