//! What becomes of a blocking call of MPI that user code makes itself.
//!
//! The functions are in [`interpose`](super::interpose); this is what they have in common.
//!
//! # Collectives
//!
//! A collective of user code works on user memory: it must not be in flight when the call returns. So the call enters
//! rounds first, as every collective of ours does (see [`super`]), on a hidden communicator of the same ranks. Nothing
//! of user memory is in flight while ranks may be missing; a rank that is interrupted there leaves as from any round.
//! Only when vote and commitment say that all ranks are here, in the same function with the same root, is the
//! non-blocking form of MPI's operation posted on the user's buffers and tested until it is complete. All ranks have
//! said that they will post it, none looks at its interrupt in between, and so it ends by itself. If it does not within
//! `TRANSFER_GRACE` after an interrupt (a rank is stopped, or their counts differ), the world is declared broken: from
//! then on every call is an error.
//!
//! # Which communicators
//!
//! The hidden communicator must be there before ranks can be missing, because making one is collective itself. So it is
//! made where user code makes its communicator: the functions that make communicators are taken over too. They vote on
//! the parent's circle, which makes them interruptible, and while all ranks are still there they make the hidden one
//! ([`Comm::of_members`]). `MPI_COMM_WORLD` is in the world's own circle. Every other communicator (between groups,
//! merged with other programs' ranks, from `MPI_Comm_idup`, of one rank) has no circle, and calls on it go to MPI as
//! they are. That depends on how it was made only, hence all its ranks do the same.
//!
//! # Messages
//!
//! A receive can be cancelled (MPI 3.1, section 3.8.4): either it is, or it has received. A send may not: what cannot
//! be cancelled is waited for during `SEND_GRACE`, and then the world is broken. Waits leave the requests, which are
//! user code's, as they are.

use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use mpi::ffi;

use super::backoff::{SPIN_MESSAGE, SPIN_UNSEEN};
use super::calls::{Comm, check};
use super::circles::{self, Circle, CircleId, OWN};
use super::codes::{ErrorCodes, Failure};
use super::job::Job;
use super::{Fabric, InitError, TRANSFER_GRACE, World, stopped};
use crate::communicator::{CommError, Operation, ranks};

/// How long an interrupted send that MPI cannot cancel waits for its receiver.
const SEND_GRACE: Duration = Duration::from_secs(10);

/// What MPI calls of user code need.
#[derive(Clone, Copy, Debug)]
pub(super) struct UserCalls {
    /// The attribute of communicators that have a circle.
    keyval: c_int,
    codes: ErrorCodes,
}

/// What a call of MPI returned; `None`: it would have to wait.
pub(super) type Tested = Option<c_int>;

pub(super) const SUCCESS: c_int = ffi::MPI_SUCCESS as c_int;

thread_local! {
    /// The world whose user code runs on this thread.
    static WORLD: std::cell::RefCell<Weak<World>> = const { std::cell::RefCell::new(Weak::new()) };
}

/// The world, if user code's calls are to be taken over here: on the thread that calls MPI for it.
pub(super) fn world_of_this_thread() -> Option<Rc<World>> {
    WORLD.try_with(|world| world.borrow().upgrade()).ok().flatten()
}

impl World {
    /// # Collective
    /// From now on the blocking MPI calls that code on this thread makes itself (mpi4py, C and Fortran libraries) can
    /// be interrupted, if all ranks want it; if none does, they go to MPI as they are. An error if they disagree.
    pub fn take_over_user_calls(self: &Rc<World>, wanted: bool) -> Result<(), InitError> {
        let votes = self.state().borrow_mut().circles[OWN].fabric.bare_sum(f64::from(u8::from(wanted)))?;
        if votes != 0.0 && votes != self.size as f64 {
            let reason = format!(
                "{votes} of {} ranks were started with --mpi-calls=interruptible, the others with direct; start all \
                 with the same",
                self.size
            );
            return Err(InitError::WrongWorld(reason));
        }
        if wanted && self.user_calls.get().is_none() {
            let mut keyval = 0;
            // SAFETY: MPI is initialised; both functions are what MPI asks for (MPI 3.1, section 6.7.2).
            unsafe {
                let extra = std::ptr::null_mut();
                check(ffi::PMPI_Comm_create_keyval(
                    Some(copy_nothing),
                    Some(mark_freed),
                    &mut keyval,
                    extra,
                ))?;
            }
            let calls = UserCalls { keyval, codes: ErrorCodes::new()? };
            self.user_calls.set(calls).expect("empty: looked at above");
            if self.size > 1 {
                // SAFETY: a constant of the MPI library, initialised before main.
                self.give_circle(unsafe { ffi::RSMPI_COMM_WORLD }, OWN)?;
            }
            if !super::interpose::are_found() {
                tracing::warn!(
                    "MPI calls of libraries cannot be interrupted: this program does not export its own"
                );
            }
            WORLD.set(Rc::downgrade(self));
        }
        Ok(())
    }

    fn give_circle(&self, comm: ffi::MPI_Comm, circle: CircleId) -> super::calls::Result<()> {
        let calls = self.user_calls();
        // SAFETY: the communicator is valid; the attribute is a number in the place of a pointer.
        check(unsafe { ffi::PMPI_Comm_set_attr(comm, calls.keyval, circle as *mut c_void) })
    }

    fn user_calls(&self) -> &UserCalls {
        self.user_calls.get().expect("set before any call is taken over")
    }

    /// The circle of a communicator; those of one rank have none.
    pub(super) fn circle_of(&self, comm: ffi::MPI_Comm) -> Option<CircleId> {
        let mut circle: *mut c_void = std::ptr::null_mut();
        let mut found: c_int = 0;
        // SAFETY: MPI writes a pointer and a number; a communicator that is not one is an error.
        let code = unsafe {
            ffi::PMPI_Comm_get_attr(comm, self.user_calls().keyval, (&raw mut circle).cast(), &mut found)
        };
        (code == SUCCESS && found != 0).then_some(circle as CircleId)
    }

    /// A collective: `start` posts it, and `None` means that there is nothing to do once all ranks are here.
    ///
    /// # Safety
    /// `start` sets the request if it succeeds, on memory that is valid until this returns.
    pub(super) unsafe fn user_collective(
        &self,
        name: &'static str,
        comm: ffi::MPI_Comm,
        circle: CircleId,
        root: Option<c_int>,
        start: Option<impl FnOnce(*mut ffi::MPI_Request) -> c_int>,
    ) -> c_int {
        self.user_call(name, comm, |operation| {
            self.rounds(circle, &Job::User { name, root })?;
            let code = match start {
                None => SUCCESS,
                Some(start) => {
                    let mut request = MaybeUninit::uninit();
                    match start(request.as_mut_ptr()) {
                        SUCCESS => {
                            // SAFETY: our caller promises that it was set.
                            let mut request = unsafe { request.assume_init() };
                            self.complete(circle, operation, &mut request)?
                        }
                        code => code,
                    }
                }
            };
            self.state().borrow_mut().completed += 1;
            Ok(code)
        })
    }

    /// Waits for an operation that all ranks have posted.
    fn complete(
        &self,
        circle: CircleId,
        operation: Operation,
        request: &mut ffi::MPI_Request,
    ) -> Result<c_int, CommError> {
        let mut interrupted_at = None;
        let waited = self.wait_at(circle, Some(SPIN_UNSEEN), operation, |state, interrupted| {
            if let Some(code) = test(request, ignored_status()) {
                return Ok(Some(code));
            }
            if interrupted {
                let waited = interrupted_at.get_or_insert_with(Instant::now).elapsed();
                if waited >= TRANSFER_GRACE {
                    return Err(state.break_down(stopped(operation)));
                }
            }
            Ok(None)
        });
        waited.map_err(|error| self.break_in_flight(error))
    }

    /// Makes a communicator, which has a circle if its parent has: `votes` if all of the parent's ranks make it.
    ///
    /// # Safety
    /// `make` writes a communicator to `made` if it succeeds.
    pub(super) unsafe fn user_communicator(
        &self,
        name: &'static str,
        parent: ffi::MPI_Comm,
        circle: CircleId,
        votes: bool,
        make: impl FnOnce() -> c_int,
        made: *const ffi::MPI_Comm,
    ) -> c_int {
        self.user_call(name, parent, |operation| {
            if votes {
                self.rounds(circle, &Job::User { name, root: None })?;
            }
            let code = make();
            if code == SUCCESS {
                // SAFETY: our caller promises that it was written.
                let adopted = unsafe { self.adopt(*made) };
                let mut state = self.state().borrow_mut();
                state.guard(operation, adopted)?;
                state.completed += u64::from(votes);
            }
            Ok(code)
        })
    }

    /// Gives a new communicator its circle. Collective among its ranks.
    ///
    /// # Safety
    /// The communicator is valid, or none.
    unsafe fn adopt(&self, comm: ffi::MPI_Comm) -> super::calls::Result<()> {
        // SAFETY: a constant of the MPI library, initialised before main.
        if comm == unsafe { ffi::RSMPI_COMM_NULL } {
            return Ok(());
        }
        let (mut is_between_groups, mut size) = (0, 0);
        // SAFETY: as our caller promises.
        unsafe {
            check(ffi::PMPI_Comm_test_inter(comm, &mut is_between_groups))?;
            check(ffi::PMPI_Comm_size(comm, &mut size))?;
        }
        if is_between_groups != 0 || size < 2 {
            return Ok(());
        }
        let rounds = Comm::of_members(comm)?;
        let (rank, size) = rounds.rank_and_size()?;
        let mut state = self.state().borrow_mut();
        state.circles.retire()?;
        let Fabric { ballots, piece_bytes, .. } = state.circles[OWN].fabric;
        let circle = state.circles.add(Circle::new(Fabric { rounds, ballots, rank, size, piece_bytes }));
        self.give_circle(comm, circle)
    }

    /// A wait for something that is left as it is when the wait is interrupted. `whom` says what for.
    pub(super) fn user_wait(
        &self,
        name: &'static str,
        comm: ffi::MPI_Comm,
        mut look: impl FnMut() -> Tested,
        whom: impl FnOnce() -> String,
    ) -> c_int {
        if let Some(code) = look() {
            return code;
        }
        self.user_call(name, comm, |operation| {
            let code = self.wait_at(OWN, Some(SPIN_MESSAGE), operation, |state, interrupted| {
                if let Some(code) = look() {
                    return Ok(Some(Some(code)));
                }
                state.keep_up(operation)?;
                Ok(interrupted.then_some(None))
            })?;
            code.ok_or_else(|| Failure::Interrupted(format!("{name} was interrupted while {}", whom())))
        })
    }

    /// Starts messages (a receive, a send, or both) and waits for them; they are cancelled if the wait is interrupted.
    ///
    /// # Safety
    /// `start` starts them on memory that is valid until this returns.
    pub(super) unsafe fn user_messages(
        &self,
        name: &'static str,
        comm: ffi::MPI_Comm,
        start: impl FnOnce() -> Result<UserMessages, c_int>,
        whom: impl FnOnce() -> String,
    ) -> c_int {
        self.user_call(name, comm, |operation| {
            let mut messages = match start() {
                Ok(messages) => messages,
                Err(code) => return Ok(code),
            };
            if let Some(code) = messages.test() {
                return Ok(code); // Not even the clock is read where nothing has to be waited for.
            }
            let waited = self.wait_at(OWN, Some(SPIN_MESSAGE), operation, |state, interrupted| {
                if let Some(code) = messages.test() {
                    return Ok(Some(code));
                }
                state.keep_up(operation)?;
                if interrupted && messages.are_stuck() {
                    return Err(state.break_down(unreceived(operation)));
                }
                Ok(None)
            });
            let code = waited.map_err(|error| self.break_in_flight(error))?;
            if code == SUCCESS && messages.were_cancelled {
                return Err(Failure::Interrupted(format!("{name} was interrupted while {}", whom())));
            }
            Ok(code)
        })
    }

    /// An error while an operation works on user memory: it will go on to do so.
    fn break_in_flight(&self, error: CommError) -> CommError {
        match error {
            CommError::Broken { .. } => error,
            error => self.state().borrow_mut().break_down(error.to_string()),
        }
    }

    /// Makes a call, if the world can be used and no other one waits; a failure becomes an error code.
    fn user_call(
        &self,
        name: &'static str,
        comm: ffi::MPI_Comm,
        call: impl FnOnce(Operation) -> Result<c_int, Failure>,
    ) -> c_int {
        let operation = Operation::Mpi(name);
        let made = self.enter_call(operation).map_err(Failure::from).and_then(|_in_call| {
            self.state().borrow().check_usable()?;
            call(operation)
        });
        made.unwrap_or_else(|failure| {
            let code = self.user_calls().codes.code(&failure);
            tell_handler(comm, code);
            code
        })
    }
}

/// Whom a call waits for that waits for a message.
pub(super) fn sender(source: c_int) -> String {
    match usize::try_from(source) {
        Ok(rank) => format!("it waited for {}", ranks(&[rank])),
        Err(_) => "it waited for a message of any rank".to_owned(),
    }
}

/// What breaks the world when a message cannot be taken back.
fn unreceived(operation: Operation) -> String {
    format!(
        "{operation} was interrupted, this MPI cannot cancel what is sent, and nobody received it within \
         {SEND_GRACE:?}"
    )
}

/// Messages of one call of user code.
pub(super) struct UserMessages {
    receive: Option<ffi::MPI_Request>,
    send: Option<ffi::MPI_Request>,
    /// Of the receive.
    status: *mut ffi::MPI_Status,
    cancelled_at: Option<Instant>,
    were_cancelled: bool,
    code: c_int,
}

impl UserMessages {
    pub(super) fn new(
        receive: Option<ffi::MPI_Request>,
        send: Option<ffi::MPI_Request>,
        status: *mut ffi::MPI_Status,
    ) -> UserMessages {
        UserMessages { receive, send, status, cancelled_at: None, were_cancelled: false, code: SUCCESS }
    }

    /// What the call returns, once all is over.
    fn test(&mut self) -> Tested {
        for (request, is_receive) in [(&mut self.receive, true), (&mut self.send, false)] {
            let Some(pending) = request else { continue };
            let mut status = MaybeUninit::<ffi::MPI_Status>::uninit();
            let Some(code) = test(pending, status.as_mut_ptr()) else { continue };
            *request = None;
            if code != SUCCESS {
                self.code = code;
            }
            let mut cancelled: c_int = 0;
            // SAFETY: MPI has written the status: the request is complete. The user's can be written, if it is not
            // MPI's mark for one that is not wanted.
            unsafe {
                if self.cancelled_at.is_some() {
                    ffi::PMPI_Test_cancelled(status.as_ptr(), &mut cancelled);
                }
                if is_receive && cancelled == 0 && self.status != ignored_status() {
                    self.status.write(status.assume_init());
                }
            }
            self.were_cancelled |= cancelled != 0;
        }
        (self.receive.is_none() && self.send.is_none()).then_some(self.code)
    }

    /// Cancels what is left; says whether that has not ended it for so long that nothing will.
    fn are_stuck(&mut self) -> bool {
        let cancelled_at = *self.cancelled_at.get_or_insert_with(|| {
            for request in [&mut self.receive, &mut self.send].into_iter().flatten() {
                // SAFETY: the request is active. What cannot be cancelled is an error, or goes on.
                unsafe { ffi::PMPI_Cancel(request) };
            }
            Instant::now()
        });
        cancelled_at.elapsed() >= if self.send.is_some() { SEND_GRACE } else { TRANSFER_GRACE }
    }
}

/// `MPI_Test` of one request.
pub(super) fn test(request: &mut ffi::MPI_Request, status: *mut ffi::MPI_Status) -> Tested {
    let mut complete: c_int = 0;
    // SAFETY: the request is active or none; the status can be written, or is the mark for none.
    let code = unsafe { ffi::PMPI_Test(request, &mut complete, status) };
    (complete != 0 || code != SUCCESS).then_some(code)
}

/// MPI's mark for a status that is not wanted.
pub(super) fn ignored_status() -> *mut ffi::MPI_Status {
    // SAFETY: a constant of the MPI library, initialised before main.
    unsafe { ffi::RSMPI_STATUS_IGNORE }
}

/// Calls the communicator's error handler, if it is one of user code's: MPI's own either do nothing, or would end the
/// job for an interrupt.
fn tell_handler(comm: ffi::MPI_Comm, code: c_int) {
    let mut handler = MaybeUninit::uninit();
    // SAFETY: MPI sets the handler if it succeeds; the constants are initialised before main.
    unsafe {
        if ffi::PMPI_Comm_get_errhandler(comm, handler.as_mut_ptr()) != SUCCESS {
            return;
        }
        let mut handler = handler.assume_init();
        if handler != ffi::RSMPI_ERRORS_RETURN && handler != ffi::RSMPI_ERRORS_ARE_FATAL {
            ffi::PMPI_Comm_call_errhandler(comm, code);
        }
        ffi::PMPI_Errhandler_free(&mut handler);
    }
}

/// Duplicates of a communicator get circles of their own.
unsafe extern "C" fn copy_nothing(
    _comm: ffi::MPI_Comm,
    _keyval: c_int,
    _extra: *mut c_void,
    _circle: *mut c_void,
    _copy: *mut c_void,
    copies: *mut c_int,
) -> c_int {
    // SAFETY: MPI passes a number to be set.
    unsafe { *copies = 0 };
    SUCCESS
}

unsafe extern "C" fn mark_freed(
    _comm: ffi::MPI_Comm,
    _keyval: c_int,
    circle: *mut c_void,
    _extra: *mut c_void,
) -> c_int {
    circles::freed(circle as CircleId);
    SUCCESS
}
