//! The handle to what was asked: wait for it, look at it, abort it.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use protocol::id::MsgId;
use protocol::value::Value;

use crate::connection::Connection;
use crate::engines::Engine;
use crate::error::{ClientError, CompositeError, Failure, RemoteError};
use crate::outcome::{Answer, EngineOutcome, Output, OutputItem};
use crate::targets::compact;

/// Bytes of output kept for a result that nobody reads; beyond it the oldest is dropped, and counted.
pub const OUTPUT_KEPT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What was asked, and what came of it so far.
///
/// It always ends: by replies, by errors of engines that are lost, or by [`ClientError::LostContact`]. Dropping it
/// frees what came; the work goes on ([`AsyncResult::abort`] ends what has not begun).
pub struct AsyncResult {
    cell: Arc<ResultCell>,
    connection: Connection,
    msg_ids: Vec<(MsgId, Option<Arc<Engine>>)>,
    submitted: SystemTime,
    started: Instant,
}

/// Where the background thread puts what comes, and waiters look.
pub(crate) struct ResultCell {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    outcomes: Vec<Option<EngineOutcome>>,
    /// The text of the last expression, which may come before the reply.
    displayed: Vec<Option<String>>,
    output_ended: Vec<bool>,
    replies_left: usize,
    outputs_left: usize,
    /// Whether a result counts as done with its replies, though output may follow.
    done_with_replies: bool,
    output: VecDeque<Output>,
    output_bytes: usize,
    output_dropped: u64,
    finished: Option<Instant>,
}

impl State {
    fn is_done(&self) -> bool {
        self.replies_left == 0 && (self.done_with_replies || self.outputs_left == 0)
    }
}

impl ResultCell {
    pub(crate) fn new(parts: usize, done_with_replies: bool) -> ResultCell {
        ResultCell {
            state: Mutex::new(State {
                outcomes: vec![None; parts],
                displayed: vec![None; parts],
                output_ended: vec![false; parts],
                replies_left: parts,
                outputs_left: parts,
                done_with_replies,
                output: VecDeque::new(),
                output_bytes: 0,
                output_dropped: 0,
                finished: None,
            }),
            changed: Condvar::new(),
        }
    }

    pub(crate) fn answer(&self, part: usize, outcome: EngineOutcome) {
        let mut state = self.lock();
        if let Some(slot @ None) = state.outcomes.get_mut(part) {
            *slot = Some(outcome);
            state.replies_left -= 1;
            self.note(&mut state);
        }
    }

    pub(crate) fn output(&self, output: Output) {
        let mut state = self.lock();
        if let OutputItem::Result(display) = &output.item
            && let Some(slot) = state.displayed.get_mut(output.part)
        {
            *slot = Some(display.text().to_owned());
        }
        state.output_bytes += output.item.byte_len();
        state.output.push_back(output);
        while state.output_bytes > OUTPUT_KEPT_BYTES_MAX {
            let Some(oldest) = state.output.pop_front() else { break };
            state.output_bytes -= oldest.item.byte_len();
            state.output_dropped += 1;
        }
        self.changed.notify_all();
    }

    pub(crate) fn output_ended(&self, part: usize) {
        let mut state = self.lock();
        if let Some(ended @ false) = state.output_ended.get_mut(part) {
            *ended = true;
            state.outputs_left -= 1;
            self.note(&mut state);
        }
    }

    /// Ends all that has not ended: nobody is left to do so.
    pub(crate) fn abandon(&self, cause: &str) {
        let parts = self.lock().outcomes.len();
        for part in 0..parts {
            self.answer(part, EngineOutcome::failed(None, Failure::LostContact(cause.into())));
            self.output_ended(part);
        }
    }

    fn note(&self, state: &mut State) {
        if state.is_done() && state.finished.is_none() {
            state.finished = Some(Instant::now());
        }
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// What [`AsyncResult::next_event`] saw.
#[derive(Clone, Debug, PartialEq)]
pub enum ResultEvent {
    /// Output came.
    Output(Output),
    /// Everything came.
    Done,
    /// Neither within the time.
    Nothing,
}

impl AsyncResult {
    pub(crate) fn new(
        cell: Arc<ResultCell>,
        connection: Connection,
        msg_ids: Vec<(MsgId, Option<Arc<Engine>>)>,
    ) -> AsyncResult {
        AsyncResult { cell, connection, msg_ids, submitted: SystemTime::now(), started: Instant::now() }
    }

    /// Whether all answers are there (and of cells, all output).
    pub fn is_done(&self) -> bool {
        self.cell.lock().is_done()
    }

    /// Answers that came, and answers needed.
    pub fn progress(&self) -> (usize, usize) {
        let state = self.cell.lock();
        (state.outcomes.len() - state.replies_left, state.outcomes.len())
    }

    /// Waits until it is done, for at most `timeout` (`None`: as long as it takes); returns whether it is.
    pub fn wait(&self, timeout: impl Into<Option<Duration>>) -> bool {
        let deadline = timeout.into().and_then(|timeout| Instant::now().checked_add(timeout));
        let mut state = self.cell.lock();
        while !state.is_done() {
            let Some(waited) = self.sleep(state, deadline) else { return false };
            state = waited;
        }
        true
    }

    /// The next output, or that there is no more, or neither within `timeout`.
    pub fn next_event(&self, timeout: impl Into<Option<Duration>>) -> ResultEvent {
        let deadline = timeout.into().and_then(|timeout| Instant::now().checked_add(timeout));
        let mut state = self.cell.lock();
        loop {
            if let Some(output) = state.output.pop_front() {
                state.output_bytes -= output.item.byte_len();
                return ResultEvent::Output(output);
            }
            // Output is waited for even where a result is done before it has ended.
            if state.replies_left == 0 && state.outputs_left == 0 {
                return ResultEvent::Done;
            }
            let Some(waited) = self.sleep(state, deadline) else { return ResultEvent::Nothing };
            state = waited;
        }
    }

    /// Output as it comes, until there is no more. Each item is handed out once.
    pub fn stream(&self) -> impl Iterator<Item = Output> + '_ {
        std::iter::from_fn(|| match self.next_event(None) {
            ResultEvent::Output(output) => Some(output),
            ResultEvent::Done | ResultEvent::Nothing => None,
        })
    }

    fn sleep<'a>(
        &self,
        state: MutexGuard<'a, State>,
        deadline: Option<Instant>,
    ) -> Option<MutexGuard<'a, State>>
    where
        Self: 'a,
    {
        match deadline {
            None => Some(self.cell_wait(state)),
            Some(deadline) => {
                let left = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
                let waited = self.cell.changed.wait_timeout(state, left);
                Some(waited.unwrap_or_else(std::sync::PoisonError::into_inner).0)
            }
        }
    }

    fn cell_wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.cell.changed.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The outcomes so far, in the order of the targets; `None` where none came yet.
    pub fn outcomes(&self) -> Vec<Option<EngineOutcome>> {
        let state = self.cell.lock();
        let with_display = |(outcome, displayed): (&Option<EngineOutcome>, &Option<String>)| {
            let mut outcome = outcome.clone()?;
            outcome.displayed.clone_from(displayed);
            Some(outcome)
        };
        state.outcomes.iter().zip(&state.displayed).map(with_display).collect()
    }

    /// Waits, and returns every engine's outcome.
    pub fn join(&self, timeout: impl Into<Option<Duration>>) -> Result<Vec<EngineOutcome>, ClientError> {
        let timeout = timeout.into();
        if !self.wait(timeout) {
            return Err(self.timed_out(timeout.unwrap_or_default()));
        }
        Ok(self.outcomes().into_iter().flatten().collect())
    }

    /// Waits, and returns every engine's value; the errors if any failed.
    pub fn get(&self) -> Result<Vec<Value>, ClientError> {
        values(self.join(None)?)
    }

    /// As [`AsyncResult::get`], but gives up after `timeout`.
    pub fn get_within(&self, timeout: Duration) -> Result<Vec<Value>, ClientError> {
        values(self.join(timeout)?)
    }

    /// Waits, and returns the only value; for requests with one answer.
    pub fn get_one(&self) -> Result<Value, ClientError> {
        let mut values = self.get()?;
        match (values.pop(), values.is_empty()) {
            (Some(value), true) => Ok(value),
            _ => Err(ClientError::Invalid("read one value: there are several; use get()".to_owned())),
        }
    }

    fn timed_out(&self, waited: Duration) -> ClientError {
        let state = self.cell.lock();
        let missing: Vec<_> = (self.msg_ids.iter().zip(&state.outcomes))
            .filter(|(_, outcome)| outcome.is_none())
            .filter_map(|((_, engine), _)| Some(engine.as_ref()?.id))
            .collect();
        let missing = match (state.replies_left, missing.as_slice()) {
            (0, _) => "the output's end".to_owned(),
            (count, []) => format!("{count} of {} tasks", state.outcomes.len()),
            (_, [one]) => format!("engine {one}"),
            (_, ids) => format!("engines {}", compact(ids)),
        };
        ClientError::Timeout { waited, missing }
    }

    /// The ids of the requests, as engines, queues and dependencies name them.
    pub fn msg_ids(&self) -> impl Iterator<Item = &MsgId> {
        self.msg_ids.iter().map(|(id, _)| id)
    }

    /// The engines asked; `None` for tasks, which any engine may run.
    pub fn engines(&self) -> impl Iterator<Item = Option<&Arc<Engine>>> {
        self.msg_ids.iter().map(|(_, engine)| engine.as_ref())
    }

    /// The engines that have not answered.
    pub fn unanswered(&self) -> Vec<Arc<Engine>> {
        let state = self.cell.lock();
        (self.msg_ids.iter().zip(&state.outcomes))
            .filter(|(_, outcome)| outcome.is_none())
            .filter_map(|((_, engine), _)| engine.clone())
            .collect()
    }

    /// Ends what has not begun; what runs goes on (interrupt it). Ended parts fail with `TaskAborted`.
    pub fn abort(&self) -> Result<AsyncResult, ClientError> {
        let state = self.cell.lock();
        let pending = (self.msg_ids.iter().zip(&state.outcomes)).filter(|(_, outcome)| outcome.is_none());
        let pending: Vec<_> = pending.map(|(part, _)| part.clone()).collect();
        drop(state);
        self.connection.abort(&pending)
    }

    /// When it was submitted.
    pub fn submitted(&self) -> SystemTime {
        self.submitted
    }

    /// How long it took from submission to the last answer, or has taken so far.
    pub fn elapsed(&self) -> Duration {
        let finished = self.cell.lock().finished;
        finished.unwrap_or_else(Instant::now).saturating_duration_since(self.started)
    }

    /// How many outputs were dropped because nobody read them (see [`OUTPUT_KEPT_BYTES_MAX`]).
    pub fn output_dropped(&self) -> u64 {
        self.cell.lock().output_dropped
    }

    /// Says so if ranks completed different numbers of collectives: the next one would mix up their data.
    pub fn disagreement(&self) -> Option<String> {
        let outcomes: Vec<EngineOutcome> = self.outcomes().into_iter().flatten().collect();
        disagreement(&outcomes)
    }
}

impl std::fmt::Debug for AsyncResult {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (answered, parts) = self.progress();
        f.debug_struct("AsyncResult")
            .field("answered", &answered)
            .field("parts", &parts)
            .finish_non_exhaustive()
    }
}

/// The values of outcomes, or their errors: one as itself, several together.
pub fn values(outcomes: Vec<EngineOutcome>) -> Result<Vec<Value>, ClientError> {
    check(&outcomes)?;
    outcomes
        .into_iter()
        .map(|outcome| match outcome.result {
            Ok(Answer::Value(value)) => Ok(value),
            Ok(Answer::Executed { .. } | Answer::Content(_)) => Ok(Value::None),
            Ok(Answer::Pickled(_)) => Err(ClientError::Invalid(
                "read the result of a stock engine: it is pickled, which only Python reads".to_owned(),
            )),
            Err(failure) => Err(failure.into()),
        })
        .collect()
}

/// Whether all went well; the errors of all that failed.
pub fn check(outcomes: &[EngineOutcome]) -> Result<(), ClientError> {
    let mut errors: Vec<RemoteError> = Vec::new();
    for outcome in outcomes {
        match &outcome.result {
            Ok(_) => {}
            Err(Failure::LostContact(cause)) => return Err(ClientError::LostContact(Arc::clone(cause))),
            Err(Failure::Remote(error)) => errors.push(error.as_ref().clone()),
        }
    }
    match errors.len() {
        0 => Ok(()),
        1 => Err(ClientError::Remote(Box::new(errors.remove(0)))),
        _ => Err(ClientError::Composite(CompositeError { errors })),
    }
}

/// Says so if ranks of one world completed different numbers of collectives in one cell:
/// `rank 0 completed 3 collectives, ranks 1-3 completed 2`.
pub fn disagreement(outcomes: &[EngineOutcome]) -> Option<String> {
    let mut groups: Vec<(u64, Vec<u32>)> = Vec::new();
    let mut world = None;
    for outcome in outcomes {
        // A rank that failed in a collective says so itself; its count explains nothing more.
        let (Some(engine), Ok(_), Some(count)) =
            (&outcome.engine, &outcome.result, outcome.facts.collectives)
        else {
            continue;
        };
        if *world.get_or_insert_with(|| engine.world()) != engine.world() {
            return None; // Ranks of several worlds have nothing to agree on.
        }
        let rank = outcome.rank()?;
        match groups.iter_mut().find(|(of, _)| *of == count) {
            Some((_, ranks)) => ranks.push(rank),
            None => groups.push((count, vec![rank])),
        }
    }
    if groups.len() < 2 {
        return None;
    }
    let phrases: Vec<String> = groups
        .iter_mut()
        .enumerate()
        .map(|(index, (count, ranks))| {
            ranks.sort_unstable();
            let noun = if index > 0 {
                ""
            } else if *count == 1 {
                " collective"
            } else {
                " collectives"
            };
            let who = if ranks.len() == 1 { "rank" } else { "ranks" };
            format!("{who} {} completed {count}{noun}", crate::targets::ranges(ranks))
        })
        .collect();
    Some(phrases.join(", "))
}
