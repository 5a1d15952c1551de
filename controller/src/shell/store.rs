//! Where records of tasks are kept: in memory, in a file, or nowhere. The loop tells what happened and asks; only a
//! file answers later.

mod reading;
mod sqlite;

use std::path::{Path, PathBuf};

use bytes::Bytes;
use protocol::Date;
use protocol::id::SessionId;
use protocol::message::hub::DB_REPLY;
use transport::wake::Waker;

use crate::records::answer::{refused, without_records};
use crate::records::memory::Memory;
use crate::records::record::Bounds;
use crate::records::{Answer, Change, Question};
use reading::Reading;
pub use reading::Written;
use sqlite::File;
pub use sqlite::StoreError;

/// Where records are to be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keeping {
    /// Nowhere.
    Nothing,
    /// In memory, for the life of this controller.
    Memory(Bounds),
    /// In a SQLite file, for later controllers as well.
    File {
        /// The file.
        path: PathBuf,
        /// Another one, for when another controller has it.
        spare: Option<PathBuf>,
        /// How much is kept.
        bounds: Bounds,
    },
}

/// Who is to get an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// By identity on the query channel.
    pub to: Bytes,
    /// The question's header frame.
    pub parent: Bytes,
}

/// Records, wherever they are. A file has all that was told when the store is dropped.
#[derive(Debug)]
pub enum Store {
    /// Nowhere.
    Nothing,
    /// In memory.
    Memory(Box<Kept>),
    /// In a file.
    File(File),
}

/// Records in memory, and who writes long answers from them.
#[derive(Debug)]
pub struct Kept {
    memory: Memory,
    reading: Reading,
}

impl Store {
    /// Opens a store for the controller of that session. `goes_on`: tasks of an earlier controller may still end.
    /// `waker` is woken when there are [`Store::answers`].
    pub fn open(
        keeping: &Keeping,
        author: SessionId,
        goes_on: bool,
        waker: Waker,
    ) -> Result<Store, StoreError> {
        Ok(match keeping {
            Keeping::Nothing => Store::Nothing,
            Keeping::Memory(bounds) => Store::Memory(Box::new(Kept {
                memory: Memory::new(*bounds, author),
                reading: Reading::new(waker),
            })),
            Keeping::File { path, spare, bounds } => {
                let open = |path: &Path| File::open(path, *bounds, author.clone(), goes_on, waker.clone());
                Store::File(match (open(path), spare) {
                    (Err(error), Some(spare)) if error.is_locked() => {
                        tracing::warn!(
                            taken = %path.display(), instead = %spare.display(),
                            "another controller has the profile's file of records: this one takes its own"
                        );
                        open(spare)?
                    }
                    (opened, _) => opened?,
                })
            }
        })
    }

    /// Whether anything is kept: if not, nothing need be read for it.
    pub fn keeps_records(&self) -> bool {
        !matches!(self, Store::Nothing)
    }

    /// Notes what happened. Never waits: a file that falls behind loses changes, and says so.
    pub fn remember(&mut self, today: Date, change: Change) {
        match self {
            Store::Nothing => {}
            Store::Memory(kept) => kept.memory.remember(today, change),
            Store::File(file) => file.remember(today, change),
        }
    }

    /// Asks; a file's answer comes later, by [`Store::answers`], a long one from memory by [`Store::written`]. It knows all that was told before.
    pub fn ask(&mut self, ticket: Ticket, question: Question) -> Option<(Ticket, Answer)> {
        match self {
            Store::Nothing => Some((ticket, without_records(question))),
            Store::Memory(kept) => {
                let Question::Query { query, keys } = question else {
                    return Some((ticket, kept.memory.ask(question)));
                };
                match kept.memory.search(&query, keys.as_deref()) {
                    Ok(search) => {
                        let (ticket, search) = kept.reading.take(ticket, search)?;
                        Some((ticket, search.answer()))
                    }
                    Err(error) => Some((ticket, refused(DB_REPLY, error))),
                }
            }
            Store::File(file) => {
                file.ask(ticket, question);
                None
            }
        }
    }

    /// Long answers that have been written.
    pub fn written(&mut self) -> Vec<(Ticket, Written)> {
        match self {
            Store::Memory(kept) => kept.reading.written(),
            Store::Nothing | Store::File(_) => vec![],
        }
    }

    /// Answers that have come.
    pub fn answers(&mut self) -> Vec<(Ticket, Answer)> {
        match self {
            Store::Nothing | Store::Memory(_) => vec![],
            Store::File(file) => file.answers(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::records::Purged;
    use crate::records::testing::*;

    #[test]
    fn without_records_history_is_empty_and_what_asks_for_records_is_an_error() {
        let (waker, _) = transport::wake::waker().expect("a pair of sockets");
        let mut store = Store::open(&Keeping::Nothing, "c".into(), false, waker).expect("nothing to open");
        assert!(!store.keeps_records());
        store.remember(at(0), submitted(crate::records::Queue::Task, None, "a", request("a", 0, vec![])));
        let mut ask = |question: Question| {
            let ticket = Ticket { to: Bytes::from_static(b"me"), parent: Bytes::from_static(b"{}") };
            let (back, answer) = store.ask(ticket.clone(), question).expect("at once");
            assert_eq!(back, ticket);
            match answer {
                Answer::Reply { msg_type, content, .. } => (msg_type, content),
                Answer::Requests(requests) => {
                    ("", json!({ "ename": requests.expect_err("nothing is there").ename }))
                }
            }
        };
        let pending = |msg_ids: &[&str]| Question::Results {
            msg_ids: ids(msg_ids),
            pending: ids(&["p"]),
            status_only: true,
        };
        assert_eq!(ask(Question::History), ("history_reply", json!({ "status": "ok", "history": [] })));
        assert_eq!(ask(purge(Purged::Finished, &[])), ("purge_reply", json!({ "status": "ok" })));
        let (msg_type, content) = ask(pending(&[]));
        assert_eq!(
            (msg_type, content),
            ("result_reply", json!({ "status": "ok", "pending": ["p"], "completed": [] }))
        );
        for (question, expected) in
            [(pending(&["a"]), "result_reply"), (query(json!({}), None), "db_reply"), (requests(&["a"]), "")]
        {
            let (msg_type, content) = ask(question);
            assert_eq!((msg_type, &content["ename"]), (expected, &json!("NoData")));
        }
    }
}
