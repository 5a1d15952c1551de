//! MPI's blocking functions, as user code finds them in this program: mpi4py, and C and Fortran libraries that are
//! loaded into it.
//!
//! A program that defines a function of MPI takes the place of the library's, which goes on to exist as `PMPI_…` (MPI
//! 3.1, section 14.2). Linkers export such a function from a program without being told, because a library that it is
//! linked to has one of the same name; so programs that embed this crate have them too. Nothing of ours calls them.
//!
//! What is not here goes to MPI as it is: non-blocking calls, `MPI_Sendrecv_replace`, neighbourhood collectives, files,
//! windows, calls with large counts (`MPI_…_c`), and on threads other than the engine's main thread everything.

use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::rc::Rc;

use mpi::ffi::{self, MPI_Comm, MPI_Datatype, MPI_Message, MPI_Op, MPI_Request, MPI_Status};

use super::World;
use super::circles::CircleId;
use super::user_calls::{SUCCESS, Tested, UserMessages, sender, test, world_of_this_thread};

type Counts = *const c_int;

/// The world and the circle of a communicator, if calls on it are taken over.
fn circle_of(comm: MPI_Comm) -> Option<(Rc<World>, CircleId)> {
    let world = world_of_this_thread()?;
    let circle = world.circle_of(comm)?;
    Some((world, circle))
}

/// A collective that is voted on and then posted as its non-blocking form.
macro_rules! collectives {
    ($($name:ident, $direct:ident, $start:ident, ($($argument:ident: $of:ty),*), root $root:expr;)*) => {$(
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name($($argument: $of,)* comm: MPI_Comm) -> c_int {
            let Some((world, circle)) = circle_of(comm) else {
                // SAFETY: the caller's own arguments.
                return unsafe { ffi::$direct($($argument,)* comm) };
            };
            // SAFETY: the caller's own arguments, which are valid until this returns.
            let start = |request: *mut MPI_Request| unsafe { ffi::$start($($argument,)* comm, request) };
            // SAFETY: MPI sets the request of an operation that it has started.
            unsafe { world.user_collective(stringify!($name), comm, circle, $root, Some(start)) }
        }
    )*};
}

collectives! {
    MPI_Bcast, PMPI_Bcast, PMPI_Ibcast,
        (buffer: *mut c_void, count: c_int, datatype: MPI_Datatype, root: c_int), root Some(root);
    MPI_Reduce, PMPI_Reduce, PMPI_Ireduce,
        (send: *const c_void, receive: *mut c_void, count: c_int, datatype: MPI_Datatype, op: MPI_Op, root: c_int),
        root Some(root);
    MPI_Allreduce, PMPI_Allreduce, PMPI_Iallreduce,
        (send: *const c_void, receive: *mut c_void, count: c_int, datatype: MPI_Datatype, op: MPI_Op), root None;
    MPI_Scan, PMPI_Scan, PMPI_Iscan,
        (send: *const c_void, receive: *mut c_void, count: c_int, datatype: MPI_Datatype, op: MPI_Op), root None;
    MPI_Exscan, PMPI_Exscan, PMPI_Iexscan,
        (send: *const c_void, receive: *mut c_void, count: c_int, datatype: MPI_Datatype, op: MPI_Op), root None;
    MPI_Reduce_scatter, PMPI_Reduce_scatter, PMPI_Ireduce_scatter,
        (send: *const c_void, receive: *mut c_void, counts: Counts, datatype: MPI_Datatype, op: MPI_Op), root None;
    MPI_Reduce_scatter_block, PMPI_Reduce_scatter_block, PMPI_Ireduce_scatter_block,
        (send: *const c_void, receive: *mut c_void, count: c_int, datatype: MPI_Datatype, op: MPI_Op), root None;
    MPI_Gather, PMPI_Gather, PMPI_Igather,
        (send: *const c_void, send_count: c_int, send_type: MPI_Datatype,
         receive: *mut c_void, receive_count: c_int, receive_type: MPI_Datatype, root: c_int), root Some(root);
    MPI_Gatherv, PMPI_Gatherv, PMPI_Igatherv,
        (send: *const c_void, send_count: c_int, send_type: MPI_Datatype,
         receive: *mut c_void, receive_counts: Counts, starts: Counts, receive_type: MPI_Datatype, root: c_int),
        root Some(root);
    MPI_Allgather, PMPI_Allgather, PMPI_Iallgather,
        (send: *const c_void, send_count: c_int, send_type: MPI_Datatype,
         receive: *mut c_void, receive_count: c_int, receive_type: MPI_Datatype), root None;
    MPI_Allgatherv, PMPI_Allgatherv, PMPI_Iallgatherv,
        (send: *const c_void, send_count: c_int, send_type: MPI_Datatype,
         receive: *mut c_void, receive_counts: Counts, starts: Counts, receive_type: MPI_Datatype), root None;
    MPI_Scatter, PMPI_Scatter, PMPI_Iscatter,
        (send: *const c_void, send_count: c_int, send_type: MPI_Datatype,
         receive: *mut c_void, receive_count: c_int, receive_type: MPI_Datatype, root: c_int), root Some(root);
    MPI_Scatterv, PMPI_Scatterv, PMPI_Iscatterv,
        (send: *const c_void, send_counts: Counts, starts: Counts, send_type: MPI_Datatype,
         receive: *mut c_void, receive_count: c_int, receive_type: MPI_Datatype, root: c_int), root Some(root);
    MPI_Alltoall, PMPI_Alltoall, PMPI_Ialltoall,
        (send: *const c_void, send_count: c_int, send_type: MPI_Datatype,
         receive: *mut c_void, receive_count: c_int, receive_type: MPI_Datatype), root None;
    MPI_Alltoallv, PMPI_Alltoallv, PMPI_Ialltoallv,
        (send: *const c_void, send_counts: Counts, send_starts: Counts, send_type: MPI_Datatype,
         receive: *mut c_void, receive_counts: Counts, receive_starts: Counts, receive_type: MPI_Datatype), root None;
    MPI_Alltoallw, PMPI_Alltoallw, PMPI_Ialltoallw,
        (send: *const c_void, send_counts: Counts, send_starts: Counts, send_types: *const MPI_Datatype,
         receive: *mut c_void, receive_counts: Counts, receive_starts: Counts, receive_types: *const MPI_Datatype),
        root None;
}

/// When all ranks have voted, that is the barrier.
#[unsafe(no_mangle)]
unsafe extern "C" fn MPI_Barrier(comm: MPI_Comm) -> c_int {
    let Some((world, circle)) = circle_of(comm) else {
        // SAFETY: the caller's own argument.
        return unsafe { ffi::PMPI_Barrier(comm) };
    };
    // SAFETY: nothing is started.
    unsafe { world.user_collective("MPI_Barrier", comm, circle, None, None::<fn(*mut MPI_Request) -> c_int>) }
}

/// A function that makes a communicator from another one. `votes`: all ranks of that one call it.
macro_rules! makers {
    ($($name:ident, $direct:ident, ($($argument:ident: $of:ty),*), votes $votes:literal;)*) => {$(
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(comm: MPI_Comm, $($argument: $of,)* made: *mut MPI_Comm) -> c_int {
            // SAFETY: the caller's own arguments.
            let make = || unsafe { ffi::$direct(comm, $($argument,)* made) };
            let Some((world, circle)) = circle_of(comm) else { return make() };
            // SAFETY: MPI writes the communicator that it has made.
            unsafe { world.user_communicator(stringify!($name), comm, circle, $votes, make, made) }
        }
    )*};
}

makers! {
    MPI_Comm_dup, PMPI_Comm_dup, (), votes true;
    MPI_Comm_dup_with_info, PMPI_Comm_dup_with_info, (info: ffi::MPI_Info), votes true;
    MPI_Comm_split, PMPI_Comm_split, (colour: c_int, key: c_int), votes true;
    MPI_Comm_split_type, PMPI_Comm_split_type, (kind: c_int, key: c_int, info: ffi::MPI_Info), votes true;
    MPI_Comm_create, PMPI_Comm_create, (group: ffi::MPI_Group), votes true;
    MPI_Comm_create_group, PMPI_Comm_create_group, (group: ffi::MPI_Group, tag: c_int), votes false;
    MPI_Cart_create, PMPI_Cart_create, (axes: c_int, extents: Counts, periods: Counts, reorder: c_int), votes true;
    MPI_Cart_sub, PMPI_Cart_sub, (remaining: Counts), votes true;
    MPI_Graph_create, PMPI_Graph_create, (nodes: c_int, index: Counts, edges: Counts, reorder: c_int), votes true;
    MPI_Dist_graph_create, PMPI_Dist_graph_create,
        (n: c_int, sources: Counts, degrees: Counts, destinations: Counts, weights: Counts, info: ffi::MPI_Info,
         reorder: c_int), votes true;
    MPI_Dist_graph_create_adjacent, PMPI_Dist_graph_create_adjacent,
        (indegree: c_int, sources: Counts, source_weights: Counts, outdegree: c_int, destinations: Counts,
         destination_weights: Counts, info: ffi::MPI_Info, reorder: c_int), votes true;
}

/// Starts a message.
///
/// # Safety
/// `start` sets the request if it succeeds.
unsafe fn started(start: impl FnOnce(*mut MPI_Request) -> c_int) -> Result<MPI_Request, c_int> {
    let mut request = MaybeUninit::uninit();
    match start(request.as_mut_ptr()) {
        // SAFETY: our caller promises that it was set.
        SUCCESS => Ok(unsafe { request.assume_init() }),
        code => Err(code),
    }
}

macro_rules! sends {
    ($($name:ident, $direct:ident, $start:ident;)*) => {$(
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(
            buffer: *const c_void,
            count: c_int,
            datatype: MPI_Datatype,
            to: c_int,
            tag: c_int,
            comm: MPI_Comm,
        ) -> c_int {
            let Some(world) = world_of_this_thread() else {
                // SAFETY: the caller's own arguments.
                return unsafe { ffi::$direct(buffer, count, datatype, to, tag, comm) };
            };
            // SAFETY: the caller's own arguments, which are valid until this returns.
            let start = |request: *mut _| unsafe { ffi::$start(buffer, count, datatype, to, tag, comm, request) };
            // SAFETY: MPI sets the request of a message that it has started.
            unsafe {
                let start = || Ok(UserMessages::new(None, Some(started(start)?), ffi::RSMPI_STATUS_IGNORE));
                world.user_messages(stringify!($name), comm, start, || sender(to))
            }
        }
    )*};
}

sends! {
    MPI_Send, PMPI_Send, PMPI_Isend;
    MPI_Ssend, PMPI_Ssend, PMPI_Issend;
}

#[unsafe(no_mangle)]
unsafe extern "C" fn MPI_Recv(
    buffer: *mut c_void,
    count: c_int,
    datatype: MPI_Datatype,
    from: c_int,
    tag: c_int,
    comm: MPI_Comm,
    status: *mut MPI_Status,
) -> c_int {
    let Some(world) = world_of_this_thread() else {
        // SAFETY: the caller's own arguments.
        return unsafe { ffi::PMPI_Recv(buffer, count, datatype, from, tag, comm, status) };
    };
    // SAFETY: the caller's own arguments, which are valid until this returns.
    let start =
        |request: *mut _| unsafe { ffi::PMPI_Irecv(buffer, count, datatype, from, tag, comm, request) };
    // SAFETY: MPI sets the request of a message that it has started.
    unsafe {
        let start = || Ok(UserMessages::new(Some(started(start)?), None, status));
        world.user_messages("MPI_Recv", comm, start, || sender(from))
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn MPI_Sendrecv(
    send: *const c_void,
    send_count: c_int,
    send_type: MPI_Datatype,
    to: c_int,
    send_tag: c_int,
    receive: *mut c_void,
    receive_count: c_int,
    receive_type: MPI_Datatype,
    from: c_int,
    receive_tag: c_int,
    comm: MPI_Comm,
    status: *mut MPI_Status,
) -> c_int {
    let Some(world) = world_of_this_thread() else {
        // SAFETY: the caller's own arguments.
        return unsafe {
            ffi::PMPI_Sendrecv(
                send,
                send_count,
                send_type,
                to,
                send_tag,
                receive,
                receive_count,
                receive_type,
                from,
                receive_tag,
                comm,
                status,
            )
        };
    };
    let start_receive = |request: *mut _| {
        // SAFETY: the caller's own arguments, which are valid until this returns.
        unsafe { ffi::PMPI_Irecv(receive, receive_count, receive_type, from, receive_tag, comm, request) }
    };
    let start_send = |request: *mut _| {
        // SAFETY: as above.
        unsafe { ffi::PMPI_Isend(send, send_count, send_type, to, send_tag, comm, request) }
    };
    // SAFETY: MPI sets the requests of messages that it has started. A receive whose send could not be started is
    // cancelled before its memory is given back.
    unsafe {
        let start = || {
            let receiving = started(start_receive)?;
            match started(start_send) {
                Ok(sending) => Ok(UserMessages::new(Some(receiving), Some(sending), status)),
                Err(code) => {
                    let mut receiving = receiving;
                    ffi::PMPI_Cancel(&mut receiving);
                    ffi::PMPI_Wait(&mut receiving, ffi::RSMPI_STATUS_IGNORE);
                    Err(code)
                }
            }
        };
        let whom = || if from == to { sender(from) } else { format!("{}, and {}", sender(from), sender(to)) };
        world.user_messages("MPI_Sendrecv", comm, start, whom)
    }
}

/// A function that waits for something, as one that only looks. The last two arguments of the latter say what it saw.
macro_rules! waits {
    ($($name:ident, $direct:ident, ($($argument:ident: $of:ty),*), on $comm:expr, $look:expr, $whom:expr;)*) => {$(
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name($($argument: $of),*) -> c_int {
            let Some(world) = world_of_this_thread() else {
                // SAFETY: the caller's own arguments.
                return unsafe { ffi::$direct($($argument),*) };
            };
            world.user_wait(stringify!($name), $comm, $look, $whom)
        }
    )*};
}

/// What a look gave: its code if it saw what is waited for, or failed.
fn seen(code: c_int, flag: c_int) -> Tested {
    (flag != 0 || code != SUCCESS).then_some(code)
}

/// Errors of requests are told to the handler of the world.
fn world() -> MPI_Comm {
    // SAFETY: a constant of the MPI library, initialised before main.
    unsafe { ffi::RSMPI_COMM_WORLD }
}

/// Whom a wait for requests waits for.
fn unknown() -> String {
    "it waited; its requests are still there".to_owned()
}

waits! {
    MPI_Wait, PMPI_Wait, (request: *mut MPI_Request, status: *mut MPI_Status), on world(),
        // SAFETY: the caller's own arguments.
        || test(unsafe { &mut *request }, status), unknown;
    MPI_Waitall, PMPI_Waitall, (count: c_int, requests: *mut MPI_Request, statuses: *mut MPI_Status), on world(),
        || {
            let mut flag = 0;
            // SAFETY: the caller's own arguments.
            let code = unsafe { ffi::PMPI_Testall(count, requests, &mut flag, statuses) };
            seen(code, flag)
        }, unknown;
    MPI_Waitany, PMPI_Waitany,
        (count: c_int, requests: *mut MPI_Request, index: *mut c_int, status: *mut MPI_Status), on world(),
        || {
            let mut flag = 0;
            // SAFETY: the caller's own arguments.
            let code = unsafe { ffi::PMPI_Testany(count, requests, index, &mut flag, status) };
            seen(code, flag)
        }, unknown;
    MPI_Waitsome, PMPI_Waitsome,
        (count: c_int, requests: *mut MPI_Request, found: *mut c_int, indices: *mut c_int, statuses: *mut MPI_Status),
        on world(),
        || {
            // SAFETY: the caller's own arguments. Zero: none is complete; undefined: there is none to wait for.
            unsafe { seen(ffi::PMPI_Testsome(count, requests, found, indices, statuses), *found) }
        }, unknown;
    MPI_Probe, PMPI_Probe, (from: c_int, tag: c_int, comm: MPI_Comm, status: *mut MPI_Status), on comm,
        || {
            let mut flag = 0;
            // SAFETY: the caller's own arguments.
            let code = unsafe { ffi::PMPI_Iprobe(from, tag, comm, &mut flag, status) };
            seen(code, flag)
        }, || sender(from);
    MPI_Mprobe, PMPI_Mprobe,
        (from: c_int, tag: c_int, comm: MPI_Comm, message: *mut MPI_Message, status: *mut MPI_Status), on comm,
        || {
            let mut flag = 0;
            // SAFETY: the caller's own arguments.
            let code = unsafe { ffi::PMPI_Improbe(from, tag, comm, &mut flag, message, status) };
            seen(code, flag)
        }, || sender(from);
}

/// Whether code that is loaded into this program finds these functions before MPI's own. Names them too, so that no
/// linker takes them for unused.
pub(super) fn are_found() -> bool {
    let ours: [(&std::ffi::CStr, *const c_void); 2] =
        [(c"MPI_Allreduce", MPI_Allreduce as *const c_void), (c"MPI_Wait", MPI_Wait as *const c_void)];
    ours.into_iter().all(|(name, function)| {
        // SAFETY: a name that ends with a zero.
        let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
        std::ptr::eq(found, function)
    })
}
