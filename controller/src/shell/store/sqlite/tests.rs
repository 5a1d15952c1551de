//! The file, its thread, and what becomes of both.

use std::fs::Permissions;

use bytes::Bytes;
use serde_json::{Value as Json, json};
use tempfile::TempDir;
use transport::poll::{PollItem, poll};
use transport::wake::{WakeReceiver, waker};

use super::*;
use crate::records::Queue as Channel;
use crate::records::testing::*;

const PATIENCE: Duration = Duration::from_secs(20);

struct Running {
    place: TempDir,
    file: Option<File>,
    wake: WakeReceiver,
}

impl Running {
    fn start() -> Running {
        let place = tempfile::tempdir().expect("a temporary directory");
        let (waker, wake) = waker().expect("a pair of sockets");
        let file = Some(open(&place.path().join("tasks.db"), waker).expect("a new file"));
        Running { place, file, wake }
    }

    fn path(&self) -> PathBuf {
        self.place.path().join("tasks.db")
    }

    fn file(&mut self) -> &mut File {
        self.file.as_mut().expect("it is open")
    }

    fn ask(&mut self, question: Question) -> Answer {
        let ticket = Ticket { to: Bytes::from_static(b"me"), parent: Bytes::from_static(b"{}") };
        self.file().ask(ticket.clone(), question);
        let ready = poll(&mut [PollItem::from(&self.wake)], Some(PATIENCE)).expect("it works");
        assert_eq!(ready, 1, "no answer within {PATIENCE:?}");
        self.wake.clear();
        let mut answers = self.file().answers();
        assert_eq!((answers.len(), &answers[0].0), (1, &ticket));
        answers.remove(0).1
    }

    fn history(&mut self) -> Json {
        match self.ask(Question::History) {
            Answer::Reply { mut content, .. } => content["history"].take(),
            Answer::Requests(requests) => panic!("no reply: {requests:?}"),
        }
    }
}

fn open(path: &Path, waker: Waker) -> Result<File, StoreError> {
    File::open(path, Bounds::FILE, "controller".into(), true, waker)
}

fn refusal(path: &Path) -> String {
    let (waker, _) = waker().expect("a pair of sockets");
    let Err(error) = open(path, waker) else { panic!("it was opened") };
    error.to_string()
}

fn task(name: &str, second: i64) -> Change {
    submitted(Channel::Task, None, name, request(name, second, vec![]))
}

#[test]
fn an_answer_knows_all_that_was_told_before() {
    let mut running = Running::start();
    for number in 0..3 * BATCH {
        running.file().remember(at(0), task(&format!("s_{number}"), number as i64));
    }
    let history = running.history();
    assert_eq!(history.as_array().map(Vec::len), Some(3 * BATCH));
    running.file().remember(at(0), task("last", 1_000_000));
    let history = running.history();
    assert_eq!(history.as_array().and_then(|names| names.last()), Some(&json!("last")));
    let file = running.file();
    let queue = file.shared.lock();
    assert_eq!((file.lost, queue.waiting, queue.bytes), (0, 0, 0));
}

#[test]
fn what_was_told_is_in_the_file_when_it_is_closed() {
    let mut running = Running::start();
    running.file().remember(at(0), task("a", 0));
    drop(running.file.take());
    let (waker, wake) = waker().expect("a pair of sockets");
    (running.file, running.wake) = (Some(open(&running.path(), waker).expect("it is free again")), wake);
    assert_eq!(running.history(), json!(["a"]));
}

#[test]
fn what_was_told_is_in_the_file_soon_though_nobody_asks() {
    let mut running = Running::start();
    running.file().remember(at(0), task("a", 0));
    let end = Instant::now() + PATIENCE;
    while running.file().shared.lock().waiting > 0 {
        assert!(Instant::now() < end, "not written within {PATIENCE:?}");
        std::thread::yield_now();
    }
}

#[test]
fn what_does_not_fit_into_the_queue_is_lost_and_counted_and_nobody_waits() {
    let mut running = Running::start();
    running.file().shared.lock().bytes = WAITING_BYTES_MAX;
    running.file().shared.lock().waiting = 1;
    running.file().remember(at(0), task("a", 0));
    running.file().remember(at(0), task("b", 0));
    assert_eq!((running.file().lost, running.file().warned.is_some()), (1, true), "one was warned of");
    running.file().shared.lock().bytes = 0;
    running.file().shared.lock().waiting = 0;
    running.file().remember(at(0), task("c", 0));
    assert_eq!(running.history(), json!(["c"]));
}

#[test]
fn a_change_larger_than_the_queue_passes_alone() {
    let mut running = Running::start();
    let large = vec![Bytes::from(vec![0; WAITING_BYTES_MAX as usize + 1])];
    running.file().remember(at(0), submitted(Channel::Task, None, "large", request("large", 0, large)));
    assert_eq!(running.history(), json!(["large"]));
}

#[test]
fn the_file_and_its_log_are_for_their_owner_only() {
    let mut running = Running::start();
    running.file().remember(at(0), task("a", 0));
    running.history();
    let modes = || {
        let entries = std::fs::read_dir(running.place.path()).expect("it is there");
        let mut modes: Vec<(String, u32)> = entries
            .map(|entry| entry.expect("it is there"))
            .map(|entry| {
                (
                    entry.file_name().to_string_lossy().into_owned(),
                    entry.metadata().expect("a file").permissions().mode() & 0o777,
                )
            })
            .collect();
        modes.sort();
        modes
    };
    assert_eq!(modes(), [("tasks.db".to_owned(), 0o600), ("tasks.db-wal".to_owned(), 0o600)]);
    drop(running.file.take());
    let path = running.place.path().join("tasks.db");
    std::fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("it is ours");
    let (waker, _wake) = waker().expect("a pair of sockets");
    let _file = open(&path, waker).expect("it is ours");
    assert_eq!(modes()[0], ("tasks.db".to_owned(), 0o600));
}

#[test]
fn a_second_controller_is_told_to_take_a_file_of_its_own() {
    let running = Running::start();
    let error = refusal(&running.path());
    assert!(error.starts_with("keep records in /") && error.contains("another program uses it"), "{error}");
    assert!(error.ends_with("give this one a file of its own with --db-file"), "{error}");
}

#[test]
fn what_is_no_sqlite_file_is_not_touched() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let path = place.path().join("tasks.db");
    let text = "not a database at all, but a text that is longer than the head of one. ".repeat(20);
    std::fs::write(&path, &text).expect("written");
    let error = refusal(&path);
    assert!(error.contains("it is not a SQLite file"), "{error}");
    assert_eq!(std::fs::read_to_string(&path).expect("there"), text);
}

#[test]
fn a_damaged_file_is_refused() {
    let mut running = Running::start();
    for number in 0..200 {
        running.file().remember(at(0), task(&format!("s_{number}"), 0));
    }
    drop(running.file.take());
    let path = running.path();
    let mut bytes = std::fs::read(&path).expect("there");
    bytes[100..].fill(0xff);
    std::fs::write(&path, &bytes).expect("written");
    assert!(refusal(&path).contains("or a damaged one"));
}

#[test]
fn a_place_where_nothing_can_be_written_is_refused() {
    let place = tempfile::tempdir().expect("a temporary directory");
    assert!(refusal(&place.path().join("none/tasks.db")).contains("yours to write to"));
    assert!(refusal(place.path()).contains("yours to write to"));
}

#[test]
fn a_failure_of_the_disk_loses_records_and_nothing_else() {
    let mut running = Running::start();
    running.file().remember(at(0), task("a", 0));
    running.history();
    // The file may not grow: SQLite finds no room for what comes next.
    let (waker, wake) = waker().expect("a pair of sockets");
    let path = running.path();
    drop(running.file.take());
    let table = Table::open(&path, Bounds::FILE, "controller".into()).expect("it is free");
    table.limit_pages_for_tests();
    let shared = Arc::new(Shared {
        queue: Mutex::default(),
        wanted: Condvar::new(),
        answers: Mutex::default(),
        waker,
    });
    let theirs = Arc::clone(&shared);
    let thread = std::thread::spawn(move || theirs.work(table));
    running.file = Some(File { shared, thread: Some(thread), warned: None, lost: 0 });
    running.wake = wake;
    let large = vec![Bytes::from(vec![0; 1 << 20])];
    running.file().remember(at(0), submitted(Channel::Task, None, "b", request("b", 0, large)));
    assert_eq!(running.history(), json!(["a"]));
    running.file().remember(at(0), Change::Resubmitted { msg_id: "a".into(), anew: "c".into() });
    match running.ask(query(json!({}), Some(&["resubmitted"]))) {
        Answer::Reply { content, .. } => {
            assert_eq!(content["records"], json!([{ "msg_id": "a", "resubmitted": "c" }]))
        }
        Answer::Requests(requests) => panic!("no reply: {requests:?}"),
    }
}
