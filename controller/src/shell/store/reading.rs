//! Long answers from memory: written on a thread of their own, from a copy of what they are about, so that nobody else
//! waits for them.

use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use transport::wake::Waker;

use super::Ticket;
use crate::records::Answer;
use crate::records::memory::Search;

/// Searches of fewer records are quicker than a thread is woken.
const RECORDS_MIN: usize = 256;

/// Searches that wait for the thread; each holds what it searches. More are made at once, and everybody waits.
const WAITING_MAX: usize = 8;

/// An answer that needs only to be signed.
#[derive(Debug)]
pub struct Written {
    /// Its type.
    pub msg_type: &'static str,
    /// The content frame.
    pub content: Bytes,
    /// Its buffers.
    pub buffers: Vec<Bytes>,
}

/// The thread, once there was something for it to do.
#[derive(Debug)]
pub(super) struct Reading {
    waker: Waker,
    searches: Option<SyncSender<(Ticket, Search)>>,
    written: Arc<Mutex<Vec<(Ticket, Written)>>>,
}

impl Reading {
    pub(super) fn new(waker: Waker) -> Reading {
        Reading { waker, searches: None, written: Arc::default() }
    }

    /// Takes a search, or gives it back.
    pub(super) fn take(&mut self, ticket: Ticket, search: Search) -> Option<(Ticket, Search)> {
        if search.records() < RECORDS_MIN {
            return Some((ticket, search));
        }
        let searches = self.searches.get_or_insert_with(|| begin(self.waker.clone(), self.written.clone()));
        match searches.try_send((ticket, search)) {
            Ok(()) => None,
            Err(TrySendError::Full(back) | TrySendError::Disconnected(back)) => Some(back),
        }
    }

    pub(super) fn written(&mut self) -> Vec<(Ticket, Written)> {
        std::mem::take(&mut *self.written.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The thread ends when the controller does. If it cannot begin, searches come back.
fn begin(waker: Waker, written: Arc<Mutex<Vec<(Ticket, Written)>>>) -> SyncSender<(Ticket, Search)> {
    let (searches, waiting) = sync_channel::<(Ticket, Search)>(WAITING_MAX);
    let work = move || {
        for (ticket, search) in waiting {
            let Answer::Reply { msg_type, content, buffers } = search.answer() else {
                unreachable!("searches are replied to");
            };
            let content = Bytes::from(content.to_string());
            let mut written = written.lock().unwrap_or_else(PoisonError::into_inner);
            written.push((ticket, Written { msg_type, content, buffers }));
            drop(written);
            waker.wake();
        }
    };
    if let Err(error) = std::thread::Builder::new().name("searches".to_owned()).spawn(work) {
        tracing::warn!(%error, "no thread for long answers: they keep everybody waiting");
    }
    searches
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use serde_json::{Value as Json, json};

    use super::*;
    use crate::records::Queue;
    use crate::records::record::Bounds;
    use crate::records::testing::*;
    use crate::shell::store::{Keeping, Store};

    #[test]
    fn a_long_answer_is_written_while_others_go_on_and_says_what_was_so_when_it_was_asked_for() {
        let (waker, woken) = transport::wake::waker().expect("a pair of sockets");
        let keeping = Keeping::Memory(Bounds::MEMORY);
        let mut store = Store::open(&keeping, "c".into(), false, waker).expect("nothing to open");
        let submit = |store: &mut Store, number: usize| {
            let name = format!("t{number}");
            store.remember(at(0), submitted(Queue::Task, None, &name, request(&name, 0, vec![])));
        };
        (0..300).for_each(|number| submit(&mut store, number));
        let ticket = Ticket { to: Bytes::from_static(b"me"), parent: Bytes::from_static(b"{}") };
        let keys = ["msg_id"];
        assert_eq!(store.ask(ticket.clone(), query(json!({}), Some(&keys))), None, "it comes later");
        submit(&mut store, 300);
        let end = Instant::now() + Duration::from_secs(10);
        let written = loop {
            woken.clear();
            let mut written = store.written();
            if let Some(first) = written.pop() {
                break first;
            }
            assert!(Instant::now() < end, "no answer came");
            std::thread::yield_now();
        };
        let content: Json = serde_json::from_slice(&written.1.content).expect("an object");
        assert_eq!((written.0, written.1.msg_type), (ticket, "db_reply"));
        assert_eq!(content["records"].as_array().map(Vec::len), Some(300));
    }
}
