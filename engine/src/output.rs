//! The output channel: what user code prints is gathered and sent in bursts, everything in order.
//!
//! Both threads publish on one socket behind one lock, so that what was printed can never be overtaken by the
//! message that says "done": the main thread flushes before it answers, the control thread flushes what has
//! waited for [`FLUSH_INTERVAL`] while user code goes on. The lock is held for sends that never block.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use protocol::id::{EngineId, EngineUuid};
use protocol::limits::OUTPUT_CHUNK_BYTES_MAX;
use protocol::message::control::ControlMetadata;
use protocol::message::output::{self, ExecutionState, StatusUpdate, StreamName};
use protocol::{Date, Session};
use serde::Serialize;
use transport::wake::Waker;
use transport::{Sent, Socket, TransportError};

use crate::interrupt::Interrupt;
use crate::runner::{Output, Stream};

/// How long printed text waits for more of it.
pub const FLUSH_INTERVAL: Duration = Duration::from_millis(50);

/// How often a full socket is tried again.
const RETRY_INTERVAL: Duration = Duration::from_millis(1);

/// How long a message that ends a client's wait is kept for a controller that does not read.
const STATUS_PATIENCE: Duration = Duration::from_secs(10);

/// Takes messages: a socket, or a list in tests.
pub trait Sink {
    /// Takes a message, or says why not. Never blocks.
    fn offer(&mut self, parts: &[Bytes]) -> Result<Sent, TransportError>;
}

impl Sink for Socket {
    fn offer(&mut self, parts: &[Bytes]) -> Result<Sent, TransportError> {
        self.send(parts)
    }
}

impl Sink for std::rc::Rc<Socket> {
    fn offer(&mut self, parts: &[Bytes]) -> Result<Sent, TransportError> {
        self.send(parts)
    }
}

/// The output channel of one engine.
pub struct Iopub {
    state: Mutex<State>,
    metadata: ControlMetadata,
    id: EngineId,
    /// Wakes the thread that calls [`Iopub::flush_due`].
    flusher: Waker,
}

struct State {
    sink: Box<dyn Sink + Send>,
    session: Session,
    /// What says that a request began: at most two messages, before all that it prints.
    announced: VecDeque<Vec<Bytes>>,
    gathered: Gathered,
    /// The header of the request whose output this is.
    parent: Bytes,
    /// Bytes that were printed but could not be sent, and are gone.
    lost: usize,
}

/// A message that user code made.
#[derive(Clone, Debug)]
pub struct Made {
    /// Its type.
    pub msg_type: String,
    /// The whole first frame.
    pub topic: String,
    /// Its content.
    pub content: serde_json::Value,
    /// Its metadata; the engine is added.
    pub metadata: serde_json::Map<String, serde_json::Value>,
    /// Its buffers.
    pub buffers: Vec<Bytes>,
}

/// Whether a flush ended with everything sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flushed {
    All,
    Full,
}

impl Iopub {
    /// The channel of an engine. `session` is for this channel alone: it numbers the messages.
    pub fn new(
        sink: Box<dyn Sink + Send>,
        session: Session,
        uuid: EngineUuid,
        id: EngineId,
        flusher: Waker,
    ) -> Iopub {
        let state = State {
            sink,
            session,
            announced: VecDeque::new(),
            gathered: Gathered::default(),
            parent: Bytes::from_static(b"{}"),
            lost: 0,
        };
        Iopub { state: Mutex::new(state), metadata: ControlMetadata { engine: uuid }, id, flusher }
    }

    /// From now on output belongs to the request with this header.
    pub fn begin(&self, parent: &Bytes) {
        self.lock().parent = parent.clone();
    }

    /// Publishes a message of the running request, after what it has printed.
    pub fn publish(&self, topic: &str, msg_type: &str, content: &impl Serialize) {
        let mut message = None;
        let sent = self.persist(
            STATUS_PATIENCE,
            || false,
            |iopub, state| {
                if iopub.flush_gathered(state) == Flushed::Full {
                    return Flushed::Full;
                }
                let message = message.get_or_insert_with(|| {
                    let parent = state.parent.clone();
                    iopub.sealed(&mut state.session, &parent, topic, msg_type, content)
                });
                state.offer(message)
            },
        );
        if sent == Flushed::Full {
            tracing::warn!(msg_type, "output dropped: the controller does not read");
        }
    }

    /// Publishes a message that user code made, under the whole of its topic and with buffers, after what was printed
    /// before it. Waits while the controller does not read, until `interrupt` is raised.
    pub fn publish_made(&self, made: &Made, interrupt: &Interrupt) {
        let mut parts = None;
        let sent = self.persist(
            Duration::MAX,
            || interrupt.is_raised(),
            |iopub, state| {
                if iopub.flush_gathered(state) == Flushed::Full {
                    return Flushed::Full;
                }
                let parts = parts.get_or_insert_with(|| {
                    let parent = state.parent.clone();
                    let mut metadata = made.metadata.clone();
                    metadata.insert("engine".to_owned(), iopub.metadata.engine.as_str().into());
                    let now = Date::from_system_time(SystemTime::now());
                    let buffers = made.buffers.clone();
                    let message =
                        state.session.reply(now, &made.msg_type, &parent, &metadata, &made.content, buffers);
                    message.to_parts(&[Bytes::from(made.topic.clone())])
                });
                state.offer(parts)
            },
        );
        if sent == Flushed::Full {
            tracing::warn!(msg_type = made.msg_type, "output dropped: the controller does not read");
        }
    }

    /// Publishes a message of the running request together with what follows it: its output, its end, or the
    /// next look of the thread that calls [`Iopub::flush_due`].
    ///
    /// That a cell began is seldom worth a wake-up of the controller and of every client of its own: those of
    /// four ranks that run a small cell cost more than the cell.
    pub fn announce(&self, topic: &str, msg_type: &str, content: &impl Serialize) {
        let mut state = self.lock();
        let parent = state.parent.clone();
        let message = self.sealed(&mut state.session, &parent, topic, msg_type, content);
        state.announced.push_back(message);
    }

    /// Says whether the engine works on the running request.
    pub fn status(&self, state: ExecutionState) {
        self.publish("status", output::STATUS, &StatusUpdate { execution_state: state });
    }

    /// Publishes a message caused by some other request than the running one, now or never.
    pub fn publish_aside(&self, parent: &Bytes, topic: &str, msg_type: &str, content: &impl Serialize) {
        let mut state = self.lock();
        let message = self.sealed(&mut state.session, parent, topic, msg_type, content);
        if state.offer(&message) == Flushed::Full {
            tracing::debug!(msg_type, "output dropped: the controller does not read");
        }
    }

    /// Gathers printed text. Waits while too much of it is unsent, until `interrupt` is raised.
    pub fn print(&self, stream: Stream, text: &str, interrupt: &Interrupt) {
        let mut rest = text;
        while !rest.is_empty() {
            let (chunk, after) = split_at_most(rest, OUTPUT_CHUNK_BYTES_MAX);
            rest = after;
            let (first, full) = {
                let mut state = self.lock();
                let first = state.gathered.push(Instant::now(), stream, chunk);
                (first, state.gathered.bytes >= OUTPUT_CHUNK_BYTES_MAX)
            };
            if full && self.flush(Duration::MAX, || interrupt.is_raised()) == Flushed::Full {
                let mut state = self.lock();
                state.lost += state.gathered.clear();
            } else if first && !full {
                self.flusher.wake();
            }
        }
    }

    /// Sends what has been gathered for long enough; says when to look again.
    pub fn flush_due(&self, now: Instant) -> Option<Instant> {
        let mut state = self.lock();
        match state.gathered.since.map(|since| since + FLUSH_INTERVAL) {
            Some(due) if now < due => return Some(due),
            None if state.announced.is_empty() => return None,
            _ => {}
        }
        match self.flush_gathered(&mut state) {
            Flushed::All => None,
            Flushed::Full => Some(now + FLUSH_INTERVAL),
        }
    }

    /// Sends all that was printed, before the request is answered.
    pub fn finish(&self) {
        if self.flush(STATUS_PATIENCE, || false) == Flushed::Full {
            let mut state = self.lock();
            state.lost += state.gathered.clear();
        }
    }

    fn flush(&self, patience: Duration, give_up: impl Fn() -> bool) -> Flushed {
        self.persist(patience, give_up, |iopub, state| iopub.flush_gathered(state))
    }

    /// Tries until everything is sent, without holding the lock in between.
    fn persist(
        &self,
        patience: Duration,
        give_up: impl Fn() -> bool,
        mut attempt: impl FnMut(&Iopub, &mut State) -> Flushed,
    ) -> Flushed {
        let start = Instant::now();
        loop {
            if attempt(self, &mut self.lock()) == Flushed::All {
                return Flushed::All;
            }
            if start.elapsed() >= patience || give_up() {
                return Flushed::Full;
            }
            thread::sleep(RETRY_INTERVAL);
        }
    }

    fn flush_gathered(&self, state: &mut State) -> Flushed {
        while let Some(message) = state.announced.pop_front() {
            if state.offer(&message) == Flushed::Full {
                state.announced.push_front(message);
                return Flushed::Full;
            }
        }
        if state.lost > 0 {
            let notice = format!("[{} bytes of output were lost: the controller did not read]\n", state.lost);
            let parent = state.parent.clone();
            if self.send_stream(state, &parent, Stream::Stderr, notice.clone()) == Flushed::Full {
                return Flushed::Full;
            }
            state.lost = 0;
        }
        while let Some(piece) = state.gathered.pop() {
            let parent = state.parent.clone();
            if self.send_stream(state, &parent, piece.stream, piece.text.clone()) == Flushed::Full {
                state.gathered.put_back(piece);
                return Flushed::Full;
            }
        }
        Flushed::All
    }

    fn send_stream(&self, state: &mut State, parent: &Bytes, stream: Stream, text: String) -> Flushed {
        let name = match stream {
            Stream::Stdout => StreamName::Stdout,
            Stream::Stderr => StreamName::Stderr,
        };
        let content = output::Stream { name, text };
        let message = self.sealed(&mut state.session, parent, name.as_str(), output::STREAM, &content);
        state.offer(&message)
    }

    fn sealed(
        &self,
        session: &mut Session,
        parent: &Bytes,
        topic: &str,
        msg_type: &str,
        content: &impl Serialize,
    ) -> Vec<Bytes> {
        let now = Date::from_system_time(SystemTime::now());
        let message = session.reply(now, msg_type, parent, &self.metadata, content, vec![]);
        message.to_parts(&[Bytes::from(format!("engine.{}.{topic}", self.id))])
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn offer(&mut self, parts: &[Bytes]) -> Flushed {
        match self.sink.offer(parts) {
            Ok(Sent::WouldBlock) => Flushed::Full,
            Ok(Sent::Done | Sent::Unreachable) => Flushed::All,
            Err(error) => {
                // A socket that fails now fails every time: waiting for it would hang user code.
                tracing::error!(%error, "output lost");
                Flushed::All
            }
        }
    }
}

/// Where user code prints to.
pub struct Printer {
    /// The channel.
    pub iopub: std::sync::Arc<Iopub>,
    /// Ends a print that waits.
    pub interrupt: Interrupt,
}

impl Output for Printer {
    fn write(&mut self, stream: Stream, text: &str) {
        self.iopub.print(stream, text, &self.interrupt);
    }
}

/// Printed text that has not been sent, in order.
#[derive(Debug, Default)]
struct Gathered {
    pieces: VecDeque<Piece>,
    bytes: usize,
    /// Since when the first of it waits.
    since: Option<Instant>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Piece {
    stream: Stream,
    text: String,
}

impl Gathered {
    /// Appends text of at most a chunk; says whether nothing waited before.
    fn push(&mut self, now: Instant, stream: Stream, text: &str) -> bool {
        let first = self.pieces.is_empty();
        self.since.get_or_insert(now);
        self.bytes += text.len();
        match self.pieces.back_mut() {
            Some(last) if last.stream == stream && last.text.len() + text.len() <= OUTPUT_CHUNK_BYTES_MAX => {
                last.text.push_str(text);
            }
            _ => self.pieces.push_back(Piece { stream, text: text.to_owned() }),
        }
        first
    }

    fn pop(&mut self) -> Option<Piece> {
        let piece = self.pieces.pop_front()?;
        self.bytes -= piece.text.len();
        if self.pieces.is_empty() {
            self.since = None;
        }
        Some(piece)
    }

    fn put_back(&mut self, piece: Piece) {
        self.bytes += piece.text.len();
        self.since.get_or_insert_with(Instant::now);
        self.pieces.push_front(piece);
    }

    /// Forgets everything; returns how many bytes that was.
    fn clear(&mut self) -> usize {
        std::mem::take(self).bytes
    }
}

/// Splits text before the character that would make the first part longer than `bytes_max`.
fn split_at_most(text: &str, bytes_max: usize) -> (&str, &str) {
    if text.len() <= bytes_max {
        return (text, "");
    }
    let end = (0..=bytes_max).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use protocol::message::Empty;

    use crate::testing::{Captured, captured_iopub};

    #[test]
    fn text_of_one_stream_is_joined_and_streams_stay_in_order() {
        let (iopub, captured) = captured_iopub();
        for (stream, text) in [(Stream::Stdout, "a"), (Stream::Stdout, "b"), (Stream::Stderr, "!")] {
            iopub.print(stream, text, &Interrupt::new());
        }
        iopub.print(Stream::Stdout, "c", &Interrupt::new());
        assert_eq!(captured.texts(), Vec::<String>::new());

        iopub.finish();

        assert_eq!(captured.texts(), ["stdout: ab", "stderr: !", "stdout: c"]);
    }

    #[test]
    fn text_that_has_waited_is_due_and_not_before() {
        let (iopub, captured) = captured_iopub();
        let now = Instant::now();
        assert_eq!(iopub.flush_due(now), None);
        iopub.print(Stream::Stdout, "a", &Interrupt::new());

        assert!(iopub.flush_due(now).is_some_and(|due| due >= now + FLUSH_INTERVAL));
        assert_eq!(captured.count(), 0);
        assert_eq!(iopub.flush_due(Instant::now() + FLUSH_INTERVAL), None);
        assert_eq!(captured.texts(), ["stdout: a"]);
    }

    #[test]
    fn much_text_is_sent_in_chunks_at_once() {
        let (iopub, captured) = captured_iopub();
        iopub.print(Stream::Stdout, &"ä".repeat(OUTPUT_CHUNK_BYTES_MAX), &Interrupt::new());

        assert_eq!(captured.count(), 2);
        assert!(captured.texts().iter().all(|text| text.len() <= OUTPUT_CHUNK_BYTES_MAX + "stdout: ".len()));
    }

    #[test]
    fn printing_to_a_full_socket_ends_with_the_interrupt_and_says_what_was_lost() {
        let (iopub, captured) = captured_iopub();
        captured.set_full(true);
        let interrupt = Interrupt::new();
        interrupt.arm();
        let raised = interrupt.clone();
        let thread = thread::spawn(move || {
            thread::sleep(Duration::from_millis(20));
            raised.raise()
        });
        iopub.print(Stream::Stdout, &"x".repeat(OUTPUT_CHUNK_BYTES_MAX), &interrupt);
        assert!(thread.join().expect("the thread raised it"));

        captured.set_full(false);
        iopub.finish();
        iopub.print(Stream::Stdout, "after", &interrupt);
        iopub.finish();

        let lost = format!(
            "stderr: [{OUTPUT_CHUNK_BYTES_MAX} bytes of output were lost: the controller did not read]\n"
        );
        assert_eq!(captured.texts(), [lost, "stdout: after".to_owned()]);
    }

    #[test]
    fn a_message_follows_what_was_printed_before_it() {
        let (iopub, captured) = captured_iopub();
        iopub.print(Stream::Stdout, "a", &Interrupt::new());
        iopub.status(ExecutionState::Idle);

        let types: Vec<String> = captured.messages().into_iter().map(|(_, m)| m.header.msg_type).collect();
        assert_eq!(types, ["stream", "status"]);
    }

    #[test]
    fn what_was_announced_leaves_before_what_follows_and_at_the_next_look() {
        let types = |captured: &Captured| -> Vec<String> {
            captured.messages().into_iter().map(|(_, message)| message.header.msg_type).collect()
        };
        let (iopub, captured) = captured_iopub();
        iopub.announce("a", "announced", &Empty {});
        assert_eq!(captured.count(), 0);
        iopub.print(Stream::Stdout, "text", &Interrupt::new());
        iopub.finish();
        assert_eq!(types(&captured), ["announced", "stream"]);

        iopub.announce("b", "announced", &Empty {});
        assert_eq!(iopub.flush_due(Instant::now()), None);
        assert_eq!(types(&captured), ["announced", "stream", "announced"]);
    }

    #[test]
    fn threads_can_share_it() {
        fn shared<T: Send + Sync>(_: &T) {}
        let (iopub, _): (Arc<Iopub>, Captured) = captured_iopub();
        shared(&iopub);
    }
}
