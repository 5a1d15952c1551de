//! Which answers are owed to whom, and how often each was given.

use std::collections::BTreeMap;

use super::super::*;

/// Answers by the id that their parent header has.
#[derive(Default)]
pub(super) struct Ledger {
    answers: BTreeMap<MsgId, Answer>,
    /// The answers of each request: several if it is a broadcast whose replies stay apart.
    requests: BTreeMap<MsgId, Vec<MsgId>>,
}

struct Answer {
    to: Bytes,
    owed: usize,
    /// Of these, how many must have been given by now.
    due: usize,
    given: usize,
    /// How often it was said again in case it did not arrive.
    repeated: usize,
    /// Lost on its way, or its request was: given once at most.
    is_excused: bool,
}

impl Ledger {
    /// A request was made: these answers are owed to its client. One that is named twice is owed twice.
    pub(super) fn expect(&mut self, to: &Bytes, request: &MsgId, answers: Vec<MsgId>) {
        for id in &answers {
            let fresh = Answer { to: to.clone(), owed: 0, due: 0, given: 0, repeated: 0, is_excused: false };
            self.answers.entry(id.clone()).or_insert(fresh).owed += 1;
        }
        assert!(self.requests.insert(request.clone(), answers).is_none(), "{request} was made twice");
    }

    /// An answer was given.
    pub(super) fn give(&mut self, to: &Bytes, id: &MsgId) {
        let answer = self.answers.get_mut(id).unwrap_or_else(|| panic!("{id} was answered, but not asked"));
        assert_eq!(answer.to, to, "{id} was answered to another client");
        answer.given += 1;
        assert!(answer.given <= answer.owed, "{id} was answered {} times", answer.given);
    }

    /// An answer was given that may have been given before.
    pub(super) fn repeat(&mut self, to: &Bytes, id: &MsgId) {
        let answer =
            self.answers.get_mut(id).unwrap_or_else(|| panic!("{id} is answered again, but not asked"));
        assert_eq!(answer.to, to, "{id} was answered to another client");
        answer.repeated += 1;
    }

    /// Its client was told that a request was lost. If it awaits answers of other names, it waits in vain.
    pub(super) fn tell_lost(&mut self, to: &Bytes, request: &MsgId) {
        let answers =
            self.requests.get(request).unwrap_or_else(|| panic!("{request} is lost, but was never made"));
        if answers.contains(request) {
            self.give(to, request);
        } else {
            self.excuse_request(request);
        }
    }

    /// The same, and perhaps not for the first time.
    pub(super) fn repeat_lost(&mut self, to: &Bytes, request: &MsgId) {
        if self.requests.get(request).is_some_and(|answers| answers.contains(request)) {
            self.repeat(to, request);
        } else {
            self.excuse_request(request);
        }
    }

    /// A request was lost before it came to the controller.
    pub(super) fn excuse_request(&mut self, request: &MsgId) {
        for id in self.requests.get(request).cloned().unwrap_or_default() {
            self.excuse(&id);
        }
    }

    /// An answer was lost on its way to the client.
    pub(super) fn excuse(&mut self, id: &MsgId) {
        if let Some(answer) = self.answers.get_mut(id) {
            answer.is_excused = true;
        }
    }

    /// Nothing is owed to a client that is gone.
    pub(super) fn excuse_client(&mut self, client: &Bytes) {
        for answer in self.answers.values_mut().filter(|answer| answer.to == client) {
            answer.is_excused = true;
        }
    }

    /// Answers that were not given as often as they were owed.
    pub(super) fn owed(&self) -> Vec<&MsgId> {
        self.answers
            .iter()
            .filter(|(_, answer)| !answer.is_excused && answer.given + answer.repeated < answer.owed)
            .map(|(id, _)| id)
            .collect()
    }

    /// An answer has become due.
    pub(super) fn fall_due(&mut self, id: &MsgId) {
        self.answers.get_mut(id).unwrap_or_else(|| panic!("{id} was not asked")).due += 1;
    }

    /// Whether an answer was given as often as it was due.
    pub(super) fn is_in_time(&self, id: &MsgId) -> bool {
        self.answers[id].given >= self.answers[id].due
    }
}

/// The connection that an answer goes to.
pub(super) fn identity_of(client: &Client) -> &Bytes {
    match &client.address {
        Address::Connection(identity) => identity,
        other => panic!("nobody asked from {other:?}"),
    }
}

/// The answers that a request gets.
pub(super) fn answers_to(request: &Request) -> Vec<MsgId> {
    let id = &request.header.msg_id;
    if reply_type(&request.header.msg_type).is_none() {
        return vec![];
    }
    match &request.target {
        Target::Broadcast(metadata) if !metadata.is_coalescing && !metadata.targets.is_empty() => {
            metadata.targets.iter().map(|(engine, _)| share_id(id, engine)).collect()
        }
        _ => vec![id.clone()],
    }
}

pub(super) fn share_id(broadcast: &MsgId, engine: &protocol::id::EngineUuid) -> MsgId {
    MsgId::from(format!("{broadcast}_{engine}"))
}

/// The id in a header frame.
pub(super) fn id_of(header: &Bytes) -> MsgId {
    #[derive(serde::Deserialize)]
    struct Named {
        msg_id: MsgId,
    }
    serde_json::from_slice::<Named>(header).expect("a header").msg_id
}
