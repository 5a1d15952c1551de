//! The MPI world of an engine: collectives and messages whose every wait can be interrupted.
//!
//! A collective of MPI cannot be cancelled (MPI 3.1, section 5.12), and a rank that does not enter it is waited
//! for without end. A call that was given up after it was posted stays posted, and the next call of the rank
//! that is late would be matched with it: results would be wrong, silently. So it is never the user's call that
//! waits for late ranks.
//!
//! # Rounds
//!
//! Every attempt of a rank at a collective is a *round*. Rounds are numbered, and each is made of non-blocking
//! collectives on one hidden communicator:
//!
//! 1. **Vote.** Each rank casts a ballot (`ballot.rs`): what it calls, in which cell, and, if short, its operand.
//!    An all-reduce merges them; when it is complete every rank has entered the round and knows whether all
//!    make the same call.
//! 2. **Commitment.** An all-reduce of one number: "I am still here", "I cannot hold the result" or "I was
//!    interrupted"; the largest decides for all.
//! 3. If all are here and agree: the **transfer**, in pieces, with a "was anybody interrupted" between two of
//!    them (`transfer.rs`). If they made different calls, an exchange of descriptions, and an error that quotes
//!    them.
//!
//! A rank that is interrupted while it waits for votes gives its commitment ("interrupted") *at once*, before
//! the vote is complete, and leaves: both requests and their memory stay behind and complete by themselves when
//! the late ranks come. A rank that comes late votes, whatever its call is; learns from the commitment that
//! others have left; and makes the same call in the next round. Ranks that were not interrupted do the same. So
//! abandoned rounds drain, with no recovery phase and without the ranks that left them.
//!
//! # Why this is right
//!
//! * *Every rank posts the same sequence of collectives on the communicator*, as MPI demands (section 5.12).
//!   Vote and commitment are posted in every round, by those who stay and by those who leave. Whether more
//!   follows, and what, is a function of what vote and commitment delivered, which is the same on all ranks; a
//!   rank that has left never said "here", so nothing follows. By induction nothing is matched with anything
//!   but its own round.
//! * *Only votes wait for user code.* A rank that posted its vote is in this module, or has given its
//!   commitment already; after a complete vote every further step is answered by all ranks without user code in
//!   between. Interrupts between those steps are therefore not obeyed by leaving but by saying so in the next
//!   step, and all ranks stop there together: no call is complete on some ranks and repeated on others.
//! * *Should a rank be stopped there all the same* (a debugger, a machine that swaps), an interrupted rank
//!   waits for `GRACE` and then returns; the round stays its current one and is driven to its end, results
//!   unused, before its next call posts anything, or by [`World::progress`].
//! * *Abandoned operations never touch user memory.* Operands are shared with copy on write, results are new.
//!
//! No communicator is ever replaced, none leaks, and the number of interrupts is not limited by the number of
//! communicators that MPI can make.
//!
//! Cells order the calls in time: a rank that waits in an older cell than another is told so
//! ([`CommError::LeftBehind`]); the one in the newer cell tries again. Point-to-point notices on the same
//! communicator (they cannot interfere with collectives, section 5.12) serve one purpose only: naming the
//! missing ranks in the error of an interrupt. Nothing else depends on them.

mod backoff;
mod ballot;
mod calls;
mod circles;
mod codes;
mod interpose;
mod job;
pub mod launch;
mod memory;
mod messages;
mod round;
mod rounds;
mod transfer;
mod user_calls;

use std::cell::{Cell, OnceCell, RefCell};
use std::marker::PhantomData;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mpi::Threading;
use mpi::environment::Universe;
use protocol::value::DType;

use self::backoff::{Backoff, Pause, SPIN, SPIN_TOGETHER};
use self::calls::{BallotBox, Comm, MpiError};
use self::circles::{Circle, CircleId, Circles, OWN};
use self::job::Job;
use self::memory::Source;
use self::messages::{Messages, PIECE_BYTES_MAX, ReceiveError, UNRECEIVED_MAX};
use self::round::Verdict;
use self::rounds::ABANDONED_MAX;
use self::user_calls::UserCalls;
use crate::arguments::{
    as_rows, check_axes, check_peer, check_reduction, check_root, check_tag, invalid, root_array,
};
use crate::array::Array;
use crate::communicator::{CommError, Communicator, Operation, ReduceOp, Waiting};
use crate::control_plane;
use crate::interrupt::Interrupt;
use crate::loopback::Loopback;
use crate::solo::Solo;
use crate::wait_status::WaitStatus;

/// How long an interrupted rank waits for peers that are known to be in the same step.
const GRACE: Duration = Duration::from_millis(100);

/// How long an interrupted call of user code waits for an operation that all ranks are in: it ends by itself
/// unless a rank was stopped, or their counts differ.
const TRANSFER_GRACE: Duration = Duration::from_secs(30);

/// How long an interrupted rank listens for who else is in its round.
const ROLL_CALL: Duration = Duration::from_millis(30);

/// Bytes that one MPI call moves at most; some 50 ms on one machine, after which an interrupt is obeyed.
const PIECE_BYTES: usize = 32 << 20;

/// Why there is no world.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// Somebody initialised MPI before.
    #[error("MPI was initialised before; let the engine do it")]
    AlreadyInitialized,
    /// The library cannot even have one thread of several call it.
    #[error("{library} was built without support for threads; use a build with --enable-mpi-threads")]
    NoThreads {
        /// The MPI library.
        library: String,
    },
    /// The ranks are not in the world that was asked for.
    #[error("{0}")]
    WrongWorld(String),
    /// MPI failed.
    #[error("MPI error {code} while the world was set up: {text}")]
    Mpi {
        /// The code that MPI returned.
        code: i32,
        /// MPI's own words for it.
        text: String,
    },
}

impl From<MpiError> for InitError {
    fn from(error: MpiError) -> InitError {
        InitError::Mpi { code: error.code, text: error.text }
    }
}

/// Why MPI was not finalized.
#[derive(Debug, thiserror::Error)]
pub enum FinalizeError {
    /// Other ranks did not come.
    #[error(
        "not all ranks came to finalize MPI within {0:?}; exit without, and the launcher ends the others"
    )]
    PeersAbsent(Duration),
    /// A call failed.
    #[error("the world cannot be finalized: {0}")]
    Comm(#[from] CommError),
}

/// What every step of a round needs.
#[derive(Debug)]
struct Fabric {
    rounds: Comm,
    ballots: BallotBox,
    rank: usize,
    size: usize,
    piece_bytes: usize,
}

#[derive(Debug)]
struct State {
    circles: Circles,
    messages: Messages,
    loopback: Loopback,
    cell: i64,
    entered: u64,
    completed: u64,
    /// Set once MPI has failed in the middle of a round: the ranks may be out of step for good.
    broken: Option<String>,
}

/// This process' place in the MPI world. MPI is initialised for as long as it lives, and only the thread that
/// made it calls MPI.
pub struct World {
    state: Option<Box<RefCell<State>>>,
    /// A world of one rank needs no MPI calls.
    solo: Option<Solo>,
    rank: usize,
    size: usize,
    interrupt: Interrupt,
    /// While MPI is being finalized the interrupt flag is not looked at but the clock.
    deadline: Cell<Option<Instant>>,
    status: WaitStatus,
    idle_hook: RefCell<Option<Box<dyn FnMut()>>>,
    in_call: Cell<bool>,
    /// What MPI calls of user code need, if they are taken over.
    user_calls: OnceCell<UserCalls>,
    /// See [`Backoff::crowded_until`].
    crowded_until: Cell<Option<Instant>>,
    universe: Option<Universe>,
    _only_on_this_thread: PhantomData<*const ()>,
}

/// What the MPI library says of itself. Works before [`World::init`].
pub fn library_version() -> String {
    mpi::environment::library_version()
        .unwrap_or_else(|_| "an MPI library without a readable name".to_owned())
}

impl World {
    /// # Collective
    /// Initialises MPI and checks that this is the world that was asked for. Call it on the main thread before
    /// any other thread is started: it sets environment variables.
    pub fn init(expected_size: Option<usize>, interrupt: Interrupt) -> Result<World, InitError> {
        do_not_yield_in_tests();
        let library = library_version();
        let launched = launch::launched(|name| std::env::var(name).ok());
        let (universe, threading) =
            mpi::initialize_with_threading(Threading::Multiple).ok_or(InitError::AlreadyInitialized)?;
        if threading < Threading::Funneled {
            return Err(InitError::NoThreads { library });
        }
        Comm::return_errors()?;
        let rounds = Comm::duplicate_world()?;
        let (rank, size) = rounds.rank_and_size()?;
        if let Some(reason) = launch::refusal(size, expected_size, launched.as_ref(), &library) {
            rounds.free()?;
            return Err(InitError::WrongWorld(reason));
        }
        let messages = Messages::new(Comm::duplicate_world()?);
        let ballots = BallotBox::new()?;
        wake_up_on_time();
        let fabric = Fabric { rounds, ballots, rank, size, piece_bytes: PIECE_BYTES };
        let state = State {
            circles: Circles::new(Circle::new(fabric)),
            messages,
            loopback: Loopback::default(),
            cell: 0,
            entered: 0,
            completed: 0,
            broken: None,
        };
        Ok(World {
            state: Some(Box::new(RefCell::new(state))),
            solo: (size == 1).then(Solo::new),
            rank,
            size,
            interrupt,
            deadline: Cell::new(None),
            status: WaitStatus::default(),
            idle_hook: RefCell::new(None),
            in_call: Cell::new(false),
            user_calls: OnceCell::new(),
            crowded_until: Cell::new(None),
            universe: Some(universe),
            _only_on_this_thread: PhantomData,
        })
    }

    /// Where this rank waits, for another thread to read.
    pub fn wait_status(&self) -> WaitStatus {
        self.status.clone()
    }

    /// What is called every 20 ms or so while this rank waits. It must not call the world.
    pub fn set_idle_hook(&self, hook: impl FnMut() + 'static) {
        *self.idle_hook.borrow_mut() = Some(Box::new(hook));
    }

    /// Drives what interrupts have left behind; says whether some of it is left. To be called now and then by an
    /// engine that is idle: peers may wait for it.
    pub fn progress(&self) -> bool {
        let mut state = self.state().borrow_mut();
        state.broken.is_none() && state.tidy_all(Operation::Barrier).is_ok() && state.circles.is_any_busy()
    }

    /// How many bytes one MPI call moves at most. The same on every rank, and between two calls.
    pub fn set_piece_bytes(&self, bytes: usize) {
        self.state().borrow_mut().circles[OWN].fabric.piece_bytes = bytes.clamp(1, PIECE_BYTES_MAX);
    }

    /// # Collective
    /// What `calls` 8-byte all-reduces take without anything of ours around them: posted, and tested until they
    /// are complete. The measure for what rounds cost.
    pub fn bare_all_reduces(&self, calls: usize) -> Result<Vec<Duration>, CommError> {
        let operation = Operation::AllReduce;
        let _in_call = self.enter_call(operation)?;
        self.settle(OWN, operation)?;
        let mut durations = Vec::with_capacity(calls);
        for _ in 0..calls {
            let started = Instant::now();
            let mut state = self.state().borrow_mut();
            let summed = state.circles[OWN].fabric.bare_sum(1.0);
            state.guard(operation, summed)?;
            durations.push(started.elapsed());
        }
        Ok(durations)
    }

    /// # Collective
    /// Every rank's bytes, in rank order, on `root` only.
    pub fn gather_bytes(&self, bytes: &[u8], root: usize) -> Result<Option<Vec<Vec<u8>>>, CommError> {
        control_plane::gather_bytes(self, bytes, root)
    }

    /// # Collective
    /// The root's bytes, on every rank.
    pub fn broadcast_bytes(&self, bytes: Option<&[u8]>, root: usize) -> Result<Vec<u8>, CommError> {
        control_plane::broadcast_bytes(self, bytes, root)
    }

    /// # Collective
    /// Finalizes MPI once all ranks have come, abandoned calls included; not at all if they do not come in
    /// time, because `MPI_Finalize` cannot be interrupted.
    pub fn finalize(mut self, patience: Duration) -> Result<(), FinalizeError> {
        let deadline = Instant::now() + patience;
        self.deadline.set(Some(deadline));
        if self.solo.is_none() {
            self.state().borrow_mut().cell = i64::MAX;
            loop {
                match self.collective(Job::End) {
                    Ok(_) => break,
                    Err(CommError::Interrupted { .. }) => return Err(FinalizeError::PeersAbsent(patience)),
                    Err(error @ (CommError::Broken { .. } | CommError::Mpi { .. })) => {
                        return Err(error.into());
                    }
                    Err(_) => {} // A rank is still in user code: it hears of it and comes.
                }
            }
            let quiet = self.wait(Operation::Barrier, |state, late| {
                state.tidy(OWN, Operation::Barrier)?;
                let is_quiet = state.circles[OWN].rounds.is_quiet();
                Ok((late || is_quiet).then_some(is_quiet))
            })?;
            if !quiet {
                return Err(FinalizeError::PeersAbsent(patience));
            }
        }
        let State { circles, messages, .. } = self.state.take().expect("taken here only").into_inner();
        let fabric = circles.into_own().fabric; // MPI frees the others.
        let freed = fabric.rounds.free().and_then(|()| fabric.ballots.free()).and_then(|()| {
            match messages.into_comm() {
                Ok(comm) => comm.free(),
                Err(pending) => {
                    std::mem::forget(pending); // Messages that nobody received keep their memory.
                    Ok(())
                }
            }
        });
        freed.map_err(|error| FinalizeError::Comm(error.of(Operation::Barrier)))?;
        drop(self.universe.take()); // MPI_Finalize
        Ok(())
    }

    fn state(&self) -> &RefCell<State> {
        self.state.as_deref().expect("taken only when the world is finalized, which consumes it")
    }

    /// Whether to stop waiting.
    fn is_interrupted(&self) -> bool {
        match self.deadline.get() {
            Some(deadline) => Instant::now() >= deadline,
            None => self.interrupt.is_raised(),
        }
    }

    /// Makes a collective call: rounds, until one of them ends it.
    fn collective(&self, job: Job) -> Result<Option<Array>, CommError> {
        let _in_call = self.enter_call(job.operation())?;
        let result = self.rounds(OWN, &job)?;
        self.state().borrow_mut().completed += 1;
        Ok(result)
    }

    /// Enters rounds until one of them ends the call.
    fn rounds(&self, at: CircleId, job: &Job) -> Result<Option<Array>, CommError> {
        let operation = job.operation();
        self.settle(at, operation)?;
        self.state().borrow_mut().entered += 1;
        loop {
            self.state().borrow_mut().enter_round(at, job.clone())?;
            match self.round(at, job)? {
                Verdict::Done(result) => return Ok(result),
                Verdict::Again if self.is_interrupted() => {
                    return Err(CommError::Interrupted { operation, missing: Vec::new() });
                }
                Verdict::Again => {}
                Verdict::LeftBehind(peers) => return Err(CommError::LeftBehind { operation, peers }),
                Verdict::Mismatch(calls) => return Err(CommError::Mismatch { calls }),
                Verdict::Refused(Some(reason)) => return Err(invalid(operation, reason)),
                Verdict::Refused(None) => {
                    return Err(invalid(operation, "another rank has no memory for it; use smaller arrays"));
                }
                Verdict::OutOfStep => {
                    let mut state = self.state().borrow_mut();
                    return Err(state.break_down("the ranks are in different rounds".to_owned()));
                }
            }
        }
    }

    /// Waits for the end of the current round, or leaves it.
    fn round(&self, at: CircleId, job: &Job) -> Result<Verdict, CommError> {
        let operation = job.operation();
        enum End {
            Over(Verdict),
            LeftAlone,
            Left { round: u64 },
        }
        let mut interrupted_at = None;
        let end = self.wait_at(at, None, operation, |state, interrupted| {
            if let Some(verdict) = state.drive(at, operation, interrupted)? {
                return Ok(Some(End::Over(verdict)));
            }
            if !interrupted {
                return Ok(None);
            }
            if state.circles[at].rounds.is_voting() {
                return state.abandon(at, operation).map(|round| Some(End::Left { round }));
            }
            let waited = interrupted_at.get_or_insert_with(Instant::now).elapsed();
            if !job.is_users() {
                return Ok((waited >= GRACE).then_some(End::LeftAlone));
            }
            // What follows would be an operation on user memory, which the peers may have posted already.
            if waited >= TRANSFER_GRACE { Err(state.break_down(stopped(operation))) } else { Ok(None) }
        })?;
        match end {
            End::Over(verdict) => Ok(verdict),
            End::LeftAlone => Err(CommError::Interrupted { operation, missing: Vec::new() }),
            End::Left { round } => {
                let asked = Instant::now();
                let missing = self.wait_at(at, None, operation, |state, _| {
                    state.tidy(at, operation)?;
                    let missing = state.circles[at].rounds.missing(round);
                    Ok((missing.is_empty() || asked.elapsed() >= ROLL_CALL).then_some(missing))
                })?;
                Err(CommError::Interrupted { operation, missing })
            }
        }
    }

    /// Brings a round to its end that an interrupt has left after all had committed themselves.
    fn settle(&self, at: CircleId, operation: Operation) -> Result<(), CommError> {
        {
            let mut state = self.state().borrow_mut();
            state.check_usable()?;
            if state.circles[at].rounds.is_quiet() {
                return Ok(());
            }
            state.tidy(at, operation)?;
            if state.circles[at].rounds.is_full() {
                let reason = format!(
                    "{ABANDONED_MAX} interrupted calls still wait for ranks that never came; let those ranks \
                     finish, or restart the engines"
                );
                return Err(invalid(operation, reason));
            }
            if !state.circles[at].rounds.is_busy() {
                return Ok(());
            }
        }
        let settled = self.wait_at(at, None, operation, |state, interrupted| {
            state.tidy(at, operation)?;
            Ok((interrupted || !state.circles[at].rounds.is_busy()).then_some(!interrupted))
        })?;
        if settled { Ok(()) } else { Err(CommError::Interrupted { operation, missing: Vec::new() }) }
    }

    /// Looks again and again, less and less often, until there is an answer. `look` is told whether this rank
    /// was interrupted, and ends the wait itself.
    fn wait<T>(
        &self,
        operation: Operation,
        look: impl FnMut(&mut State, bool) -> Result<Option<T>, CommError>,
    ) -> Result<T, CommError> {
        self.wait_at(OWN, None, operation, look)
    }

    /// As [`World::wait`], for something that happens in a circle. `spin`: for how long to look without sleeping;
    /// as the circle's round needs it if nothing is said.
    fn wait_at<T>(
        &self,
        at: CircleId,
        spin: Option<Duration>,
        operation: Operation,
        mut look: impl FnMut(&mut State, bool) -> Result<Option<T>, CommError>,
    ) -> Result<T, CommError> {
        let mut backoff = Backoff::new(Instant::now(), self.crowded_until.get());
        let mut shown = false;
        let answer = loop {
            let interrupted = self.is_interrupted();
            let mut state = self.state().borrow_mut();
            if let Some(answer) = look(&mut state, interrupted).transpose() {
                break answer;
            }
            let now = Instant::now();
            let rounds = &state.circles[at].rounds;
            let steps = rounds.steps().wrapping_add(state.messages.steps());
            let spin = spin.unwrap_or(if rounds.is_together() { SPIN_TOGETHER } else { SPIN });
            let pause = backoff.pause(now, steps, spin);
            drop(state);
            if let Pause::Sleep(_) = pause {
                if !shown && backoff.is_worth_showing(now) {
                    shown = true;
                    self.show_wait(operation, backoff.since());
                }
                if let Err(error) = self.state().borrow_mut().serve_peers(at, operation) {
                    break Err(error);
                }
                if backoff.is_idle(now)
                    && let Ok(mut hook) = self.idle_hook.try_borrow_mut()
                    && let Some(hook) = hook.as_mut()
                {
                    hook();
                }
            }
            let began = Instant::now();
            pause.take();
            backoff.paused(pause, began, Instant::now());
        };
        self.crowded_until.set(backoff.crowded_until());
        if shown {
            self.status.set(None);
        }
        answer
    }

    fn show_wait(&self, operation: Operation, since: Instant) {
        let since = SystemTime::now() - since.elapsed();
        let since_us = since.duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
        self.status.set(Some(Waiting {
            operation,
            round: self.state().borrow().entered,
            since_us: u64::try_from(since_us).unwrap_or(u64::MAX),
        }));
    }

    /// Calls do not nest: an idle hook must not communicate.
    fn enter_call(&self, operation: Operation) -> Result<InCall<'_>, CommError> {
        if self.in_call.replace(true) {
            return Err(invalid(operation, "it was called while another call waits; call it afterwards"));
        }
        Ok(InCall(&self.in_call))
    }

    fn source_at_root(
        &self,
        operation: Operation,
        array: Option<&Array>,
        root: usize,
    ) -> Result<Option<Source>, CommError> {
        check_root(operation, root, self.size)?;
        if root != self.rank {
            return Ok(None);
        }
        Ok(Some(Source::of(root_array(operation, array)?)))
    }
}

/// What breaks the world when user memory cannot be given back.
fn stopped(operation: Operation) -> String {
    format!(
        "{operation} was interrupted, and what all ranks were in did not end within {TRANSFER_GRACE:?}: a rank is \
         stopped, or the ranks' counts differ"
    )
}

/// A result that every rank gets.
fn given(result: Option<Array>) -> Array {
    result.expect("this call gives every rank a result")
}

struct InCall<'a>(&'a Cell<bool>);

impl Drop for InCall<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

impl Fabric {
    /// One all-reduce of one number; not interruptible.
    fn bare_sum(&self, mine: f64) -> Result<f64, MpiError> {
        let mut numbers = Box::new([mine, 0.0]);
        let [mine, sum] = &mut *numbers;
        let (elements, op) = (calls::element_type(DType::F64), calls::reduction(ReduceOp::Sum, DType::F64));
        // SAFETY: both numbers live until the request is complete: to the end of this function, and if a test
        // fails, for ever.
        let mut request = unsafe {
            self.rounds.all_reduce((&raw const *mine).cast(), (&raw mut *sum).cast(), 1, elements, op)?
        };
        loop {
            match request.test() {
                Ok(true) => return Ok(numbers[1]),
                Ok(false) => std::thread::yield_now(),
                Err(error) => {
                    std::mem::forget(numbers);
                    return Err(error);
                }
            }
        }
    }
}

impl State {
    fn check_usable(&self) -> Result<(), CommError> {
        match &self.broken {
            Some(reason) => Err(CommError::Broken { reason: reason.clone() }),
            None => Ok(()),
        }
    }

    fn break_down(&mut self, reason: String) -> CommError {
        let reason = format!("{reason}; restart the engines");
        self.broken = Some(reason.clone());
        CommError::Broken { reason }
    }

    /// An error of MPI within a round: the ranks may be out of step from now on.
    fn guard<T>(&mut self, operation: Operation, result: Result<T, MpiError>) -> Result<T, CommError> {
        result.map_err(|MpiError { code, text }| {
            self.break_down(format!("{operation}: MPI error {code}: {text}"))
        })
    }

    fn enter_round(&mut self, at: CircleId, job: Job) -> Result<(), CommError> {
        let operation = job.operation();
        let entered = self.circles[at].enter(self.cell, job);
        self.guard(operation, entered)
    }

    fn drive(
        &mut self,
        at: CircleId,
        operation: Operation,
        interrupted: bool,
    ) -> Result<Option<Verdict>, CommError> {
        let driven = self.circles[at].drive(interrupted);
        self.guard(operation, driven)
    }

    fn abandon(&mut self, at: CircleId, operation: Operation) -> Result<u64, CommError> {
        let round = self.circles[at].abandon();
        self.guard(operation, round)
    }

    /// What peers may wait for: reads and answers notices, lets buried messages go on.
    fn serve_peers(&mut self, at: CircleId, operation: Operation) -> Result<(), CommError> {
        let tidied = self.circles.tidy_some(at);
        self.guard(operation, tidied)?;
        self.messages.progress().map_err(|error| error.of(operation))
    }

    /// As [`State::serve_peers`]; and drives a round that was left after all had committed themselves.
    fn tidy(&mut self, at: CircleId, operation: Operation) -> Result<(), CommError> {
        if let Some(Verdict::Done(_)) = self.drive(at, operation, true)? {
            self.completed += 1; // Its peers have completed it.
        }
        self.serve_peers(at, operation)
    }

    /// As [`State::tidy`], in all circles.
    fn tidy_all(&mut self, operation: Operation) -> Result<(), CommError> {
        for at in self.circles.ids() {
            self.tidy(at, operation)?;
        }
        let retired = self.circles.retire();
        self.guard(operation, retired)
    }
}

impl Communicator for World {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn fortran_handle(&self) -> Option<i32> {
        Some(calls::world_in_fortran())
    }

    fn enter_cell(&self, cell: i64) {
        self.state().borrow_mut().cell = cell.max(0);
    }

    fn completed(&self) -> u64 {
        match &self.solo {
            Some(solo) => solo.completed(),
            None => self.state().borrow().completed,
        }
    }

    fn barrier(&self) -> Result<(), CommError> {
        if let Some(solo) = &self.solo {
            return solo.barrier();
        }
        self.collective(Job::Barrier).map(|_| ())
    }

    fn broadcast(&self, array: Option<&Array>, root: usize) -> Result<Array, CommError> {
        if let Some(solo) = &self.solo {
            return solo.broadcast(array, root);
        }
        let array = self.source_at_root(Operation::Broadcast, array, root)?;
        self.collective(Job::Broadcast { array, root }).map(given)
    }

    fn reduce(&self, array: &Array, op: ReduceOp, root: usize) -> Result<Option<Array>, CommError> {
        if let Some(solo) = &self.solo {
            return solo.reduce(array, op, root);
        }
        check_root(Operation::Reduce, root, self.size)?;
        check_reduction(Operation::Reduce, array, op)?;
        self.collective(Job::Reduce { array: Source::of(array), op, root })
    }

    fn all_reduce(&self, array: &Array, op: ReduceOp) -> Result<Array, CommError> {
        if let Some(solo) = &self.solo {
            return solo.all_reduce(array, op);
        }
        check_reduction(Operation::AllReduce, array, op)?;
        self.collective(Job::AllReduce { array: Source::of(array), op }).map(given)
    }

    fn scan(&self, array: &Array, op: ReduceOp) -> Result<Array, CommError> {
        if let Some(solo) = &self.solo {
            return solo.scan(array, op);
        }
        check_reduction(Operation::Scan, array, op)?;
        self.collective(Job::Scan { array: Source::of(array), op }).map(given)
    }

    fn scatter(&self, array: Option<&Array>, root: usize) -> Result<Array, CommError> {
        if let Some(solo) = &self.solo {
            return solo.scatter(array, root);
        }
        let array = self.source_at_root(Operation::Scatter, array, root)?;
        self.collective(Job::Scatter { array, root }).map(given)
    }

    fn gather(&self, array: &Array, root: usize) -> Result<Option<Array>, CommError> {
        if let Some(solo) = &self.solo {
            return solo.gather(array, root);
        }
        check_root(Operation::Gather, root, self.size)?;
        check_axes(Operation::Gather, array)?;
        self.collective(Job::Gather { array: Source::of(&as_rows(array)), root })
    }

    fn all_gather(&self, array: &Array) -> Result<Array, CommError> {
        if let Some(solo) = &self.solo {
            return solo.all_gather(array);
        }
        check_axes(Operation::AllGather, array)?;
        self.collective(Job::AllGather { array: Source::of(&as_rows(array)) }).map(given)
    }

    fn all_to_all(&self, array: &Array) -> Result<Array, CommError> {
        if let Some(solo) = &self.solo {
            return solo.all_to_all(array);
        }
        check_axes(Operation::AllToAll, array)?;
        self.collective(Job::AllToAll { array: Source::of(&as_rows(array)) }).map(given)
    }

    fn send(&self, array: &Array, to: usize, tag: i32) -> Result<(), CommError> {
        let operation = Operation::Send;
        check_peer(operation, to, self.size)?;
        check_tag(operation, tag)?;
        check_axes(operation, array)?;
        let _in_call = self.enter_call(operation)?;
        if to == self.rank {
            return self.state().borrow_mut().loopback.send(array, tag);
        }
        let number = {
            let mut state = self.state().borrow_mut();
            let state = &mut *state;
            state.check_usable()?;
            let progressed = state.messages.progress();
            progressed.map_err(|error| error.of(operation))?;
            if state.messages.is_full() {
                let reason =
                    format!("{UNRECEIVED_MAX} interrupted sends were not received yet; receive them first");
                return Err(invalid(operation, reason));
            }
            let piece_bytes = state.circles[OWN].fabric.piece_bytes;
            let sent = state.messages.send(Source::of(array), to, tag, piece_bytes);
            sent.map_err(|error| error.of(operation))?
        };
        self.wait(operation, |state, interrupted| {
            if state.messages.is_sent(number).map_err(|error| error.of(operation))? {
                return Ok(Some(Ok(())));
            }
            state.keep_up(operation)?;
            Ok(interrupted.then(|| Err(CommError::Interrupted { operation, missing: vec![to] })))
        })?
    }

    fn receive(&self, from: Option<usize>, tag: i32) -> Result<(Array, usize), CommError> {
        let operation = Operation::Receive;
        check_peer(operation, from.unwrap_or(0), self.size)?;
        check_tag(operation, tag)?;
        let _in_call = self.enter_call(operation)?;
        if from == Some(self.rank) || self.size == 1 {
            let array = self.state().borrow_mut().loopback.receive_now(tag, self.rank)?;
            return Ok((array, self.rank));
        }
        self.state().borrow().check_usable()?;
        self.wait(operation, |state, interrupted| {
            if from.is_none()
                && let Some(array) = state.loopback.receive(tag)
            {
                return Ok(Some(Ok((array, self.rank))));
            }
            match state.messages.receive(from, tag) {
                Ok(Some(message)) => return Ok(Some(Ok(message))),
                Ok(None) => {}
                Err(ReceiveError::Mpi(error)) => return Err(error.of(operation)),
                Err(ReceiveError::Refused(reason)) => return Err(invalid(operation, reason)),
                Err(ReceiveError::Malformed) => {
                    return Err(state.break_down("a message came that no engine sends".to_owned()));
                }
            }
            state.keep_up(operation)?;
            Ok(interrupted.then(|| {
                let others = (0..self.size).filter(|&rank| rank != self.rank).collect();
                let missing = from.map_or(others, |from| vec![from]);
                Err(CommError::Interrupted { operation, missing })
            }))
        })?
    }
}

impl State {
    /// Drives a round that was left, if there is one, while this rank waits for something else.
    fn keep_up(&mut self, operation: Operation) -> Result<(), CommError> {
        if self.circles[OWN].rounds.is_busy() { self.tidy(OWN, operation) } else { Ok(()) }
    }
}

impl Drop for World {
    /// A world that was not finalized leaves MPI as it is, with all memory that MPI may still write to: other
    /// ranks may be waiting, and `MPI_Finalize` would wait for them. The launcher sees it when we exit.
    fn drop(&mut self) {
        std::mem::forget(self.state.take());
        std::mem::forget(self.universe.take());
    }
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").field("rank", &self.rank).field("size", &self.size).finish_non_exhaustive()
    }
}

/// Leaves it to [`Backoff`] when this rank gives up its core. Open MPI would yield inside of every `MPI_Test` that
/// finds nothing, as `mpiexec --oversubscribe` tells it to: beside programs that compute, each such look took a
/// time slice of theirs, and an 8-byte all-reduce 9 ms instead of 0.5. The user's own setting stays.
fn do_not_yield_in_tests() {
    const VARIABLE: &str = "OMPI_MCA_mpi_yield_when_idle";
    if std::env::var_os(VARIABLE).is_none() {
        // SAFETY: no other thread reads the environment yet (see `World::init`).
        unsafe { std::env::set_var(VARIABLE, "0") };
    }
}

/// Lets short sleeps of this thread be as short as they say; Linux adds up to 50 µs otherwise.
fn wake_up_on_time() {
    // SAFETY: changes a number of the calling thread only. If it fails, sleeps are longer.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1_000 as libc::c_ulong) };
}
