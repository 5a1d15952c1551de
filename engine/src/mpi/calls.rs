//! The MPI calls that the engine makes, with their return codes checked.
//!
//! Only names that `mpi::ffi` has for Open MPI and MPICH alike are used: handles are pointers in one and
//! integers in the other. Nothing here waits: every call either returns at once or starts a request.

use std::ffi::{c_char, c_int, c_void};
use std::mem::MaybeUninit;
use std::ptr;

use mpi::ffi;
use protocol::value::DType;

use super::ballot::{Ballot, merge};
use crate::communicator::{CommError, Operation, ReduceOp};

/// A return code other than `MPI_SUCCESS` (MPI 3.1, section 8.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MpiError {
    pub(super) code: i32,
    pub(super) text: String,
}

impl MpiError {
    pub(super) fn of(self, operation: Operation) -> CommError {
        CommError::Mpi { operation, code: self.code, text: self.text }
    }
}

pub(super) type Result<T> = std::result::Result<T, MpiError>;

pub(super) fn check(code: c_int) -> Result<()> {
    if code == ffi::MPI_SUCCESS as c_int {
        return Ok(());
    }
    let mut text = vec![0u8; ffi::MPI_MAX_ERROR_STRING as usize];
    let mut length: c_int = 0;
    // SAFETY: `text` has the room that MPI asks for (MPI 3.1, section 8.3).
    let found = unsafe { ffi::MPI_Error_string(code, text.as_mut_ptr().cast::<c_char>(), &mut length) };
    if found != ffi::MPI_SUCCESS as c_int {
        return Err(MpiError { code, text: "an error that this MPI has no words for".to_owned() });
    }
    text.truncate(usize::try_from(length).unwrap_or(0));
    Err(MpiError { code, text: String::from_utf8_lossy(&text).into_owned() })
}

/// Lengths of single MPI calls; pieces keep them far below 2^31.
pub(super) fn count(length: usize) -> c_int {
    c_int::try_from(length).expect("a piece is at most 1 GiB")
}

/// The MPI type of an array's elements.
pub(super) fn element_type(dtype: DType) -> ffi::MPI_Datatype {
    // SAFETY: constants of the MPI library, initialised before main.
    unsafe {
        match dtype {
            DType::F64 => ffi::RSMPI_DOUBLE,
            DType::F32 => ffi::RSMPI_FLOAT,
            DType::I64 => ffi::RSMPI_INT64_T,
            DType::I32 => ffi::RSMPI_INT32_T,
            DType::U8 => ffi::RSMPI_UINT8_T,
            DType::Bool => ffi::RSMPI_C_BOOL,
            DType::C64 => ffi::RSMPI_DOUBLE_COMPLEX,
        }
    }
}

/// The MPI operation; for bool, minimum and maximum are `and` and `or`.
pub(super) fn reduction(op: ReduceOp, dtype: DType) -> ffi::MPI_Op {
    // SAFETY: constants of the MPI library, initialised before main.
    unsafe {
        match (op, dtype) {
            (ReduceOp::And, _) | (ReduceOp::Min, DType::Bool) => ffi::RSMPI_LAND,
            (ReduceOp::Or, _) | (ReduceOp::Max, DType::Bool) => ffi::RSMPI_LOR,
            (ReduceOp::Sum, _) => ffi::RSMPI_SUM,
            (ReduceOp::Prod, _) => ffi::RSMPI_PROD,
            (ReduceOp::Min, _) => ffi::RSMPI_MIN,
            (ReduceOp::Max, _) => ffi::RSMPI_MAX,
        }
    }
}

/// `MPI_COMM_WORLD` as Fortran's handle (MPI 3.1, section 17.2.4). Where handles are integers, as in MPICH, both are the
/// same, and `MPI_Comm_c2f` is a macro; where they are pointers it is a function of the library.
pub(super) fn world_in_fortran() -> c_int {
    // SAFETY: a constant of the MPI library, initialised before main.
    let world = unsafe { ffi::RSMPI_COMM_WORLD };
    if size_of::<ffi::MPI_Comm>() == size_of::<c_int>() {
        // SAFETY: both have the same size, and every pattern of bits is an integer.
        return unsafe { std::mem::transmute_copy(&world) };
    }
    // SAFETY: the name ends with a zero.
    let function = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"MPI_Comm_c2f".as_ptr()) };
    assert!(!function.is_null(), "the MPI library has handles that are pointers, and no MPI_Comm_c2f");
    // SAFETY: the standard says what the function of this name takes and gives.
    let function: extern "C" fn(ffi::MPI_Comm) -> c_int = unsafe { std::mem::transmute(function) };
    function(world)
}

fn byte_type() -> ffi::MPI_Datatype {
    // SAFETY: a constant of the MPI library, initialised before main.
    unsafe { ffi::RSMPI_UINT8_T }
}

/// A request that was started and must be tested until it is complete (MPI 3.1, section 3.7). Dropping one
/// early does not end it: whoever drops it must not free its buffers.
#[derive(Debug)]
pub(super) struct Request(Option<ffi::MPI_Request>);

impl Request {
    fn start(start: impl FnOnce(*mut ffi::MPI_Request) -> c_int) -> Result<Request> {
        let mut request = MaybeUninit::uninit();
        check(start(request.as_mut_ptr()))?;
        // SAFETY: MPI has set the handle: the call succeeded.
        Ok(Request(Some(unsafe { request.assume_init() })))
    }

    /// Whether it is complete; lets MPI make progress. Never waits.
    pub(super) fn test(&mut self) -> Result<bool> {
        let Some(request) = &mut self.0 else { return Ok(true) };
        let mut complete: c_int = 0;
        // SAFETY: the handle is of a request that was started and is not complete yet; its buffers live as
        // long as that (the promise of whoever started it).
        check(unsafe { ffi::MPI_Test(request, &mut complete, ffi::RSMPI_STATUS_IGNORE) })?;
        if complete != 0 {
            self.0 = None;
        }
        Ok(complete != 0)
    }

    pub(super) fn is_complete(&self) -> bool {
        self.0.is_none()
    }
}

/// A message that was matched by a probe and is still to be received.
#[derive(Debug)]
pub(super) struct Matched {
    message: ffi::MPI_Message,
    pub(super) source: usize,
    pub(super) bytes: usize,
}

/// The four counts and displacements of a v-collective, in bytes. Must live until its request is complete.
#[derive(Debug, Default)]
pub(super) struct Layout {
    pub(super) counts: Vec<c_int>,
    pub(super) starts: Vec<c_int>,
}

impl Layout {
    /// Blocks of these lengths, one behind the other.
    pub(super) fn packed(lengths: impl Iterator<Item = usize>) -> Layout {
        let mut layout = Layout::default();
        let mut start = 0;
        for length in lengths {
            layout.counts.push(count(length));
            layout.starts.push(count(start));
            start += length;
        }
        layout
    }
}

/// A communicator of our own.
#[derive(Debug)]
pub(super) struct Comm(ffi::MPI_Comm);

impl Comm {
    /// A duplicate of `MPI_COMM_WORLD` whose errors are returned. Collective.
    pub(super) fn duplicate_world() -> Result<Comm> {
        let mut comm = MaybeUninit::uninit();
        // SAFETY: MPI is initialised (our caller holds the universe); every handle is a constant.
        let comm = unsafe {
            check(ffi::PMPI_Comm_dup(ffi::RSMPI_COMM_WORLD, comm.as_mut_ptr()))?;
            comm.assume_init()
        };
        // SAFETY: the communicator was made just now.
        check(unsafe { ffi::MPI_Comm_set_errhandler(comm, ffi::RSMPI_ERRORS_RETURN) })?;
        Ok(Comm(comm))
    }

    /// A communicator of the members of another one, without its attributes: those are user code's, and copying
    /// them would call it. Collective among the members.
    pub(super) fn of_members(user: ffi::MPI_Comm) -> Result<Comm> {
        let (mut group, mut comm) = (MaybeUninit::uninit(), MaybeUninit::uninit());
        // SAFETY: our caller's communicator is valid; MPI sets what the next calls use.
        unsafe {
            check(ffi::PMPI_Comm_group(user, group.as_mut_ptr()))?;
            let created = check(ffi::PMPI_Comm_create(user, group.assume_init(), comm.as_mut_ptr()));
            check(ffi::PMPI_Group_free(group.as_mut_ptr()))?;
            created?;
            check(ffi::PMPI_Comm_set_errhandler(comm.assume_init(), ffi::RSMPI_ERRORS_RETURN))?;
            Ok(Comm(comm.assume_init()))
        }
    }

    /// Makes MPI return errors on the predefined communicators instead of ending the job.
    pub(super) fn return_errors() -> Result<()> {
        // SAFETY: MPI is initialised; every handle is a constant.
        unsafe {
            check(ffi::MPI_Comm_set_errhandler(ffi::RSMPI_COMM_WORLD, ffi::RSMPI_ERRORS_RETURN))?;
            check(ffi::MPI_Comm_set_errhandler(ffi::RSMPI_COMM_SELF, ffi::RSMPI_ERRORS_RETURN))
        }
    }

    /// This process' rank, and how many there are.
    pub(super) fn rank_and_size(&self) -> Result<(usize, usize)> {
        let (mut rank, mut size): (c_int, c_int) = (0, 0);
        // SAFETY: the communicator is valid until it is freed, and freeing consumes it.
        unsafe {
            check(ffi::MPI_Comm_rank(self.0, &mut rank))?;
            check(ffi::MPI_Comm_size(self.0, &mut size))?;
        }
        Ok((usize::try_from(rank).expect("ranks start at 0"), usize::try_from(size).expect("sizes too")))
    }

    /// Frees it. Collective.
    pub(super) fn free(self) -> Result<()> {
        let mut comm = self.0;
        // SAFETY: the communicator is valid, and nobody has it any more.
        check(unsafe { ffi::MPI_Comm_free(&mut comm) })
    }

    /// `MPI_Iallreduce`.
    ///
    /// # Safety
    /// Both buffers hold `n` elements of `dtype` and live, unused, until the request is complete.
    pub(super) unsafe fn all_reduce(
        &self,
        send: *const u8,
        receive: *mut u8,
        n: usize,
        dtype: ffi::MPI_Datatype,
        op: ffi::MPI_Op,
    ) -> Result<Request> {
        // SAFETY: as our caller promises.
        Request::start(|request| unsafe {
            ffi::MPI_Iallreduce(send.cast(), receive.cast(), count(n), dtype, op, self.0, request)
        })
    }

    /// `MPI_Ireduce`.
    ///
    /// # Safety
    /// As [`Comm::all_reduce`]; `receive` matters at the root only.
    pub(super) unsafe fn reduce(
        &self,
        send: *const u8,
        receive: *mut u8,
        n: usize,
        dtype: ffi::MPI_Datatype,
        op: ffi::MPI_Op,
        root: usize,
    ) -> Result<Request> {
        // SAFETY: as our caller promises.
        Request::start(|request| unsafe {
            ffi::MPI_Ireduce(send.cast(), receive.cast(), count(n), dtype, op, count(root), self.0, request)
        })
    }

    /// `MPI_Iscan`.
    ///
    /// # Safety
    /// As [`Comm::all_reduce`].
    pub(super) unsafe fn scan(
        &self,
        send: *const u8,
        receive: *mut u8,
        n: usize,
        dtype: ffi::MPI_Datatype,
        op: ffi::MPI_Op,
    ) -> Result<Request> {
        // SAFETY: as our caller promises.
        Request::start(|request| unsafe {
            ffi::MPI_Iscan(send.cast(), receive.cast(), count(n), dtype, op, self.0, request)
        })
    }

    /// `MPI_Ibcast` of bytes.
    ///
    /// # Safety
    /// The buffer holds `n` bytes and lives, unused, until the request is complete. The root's is only read.
    pub(super) unsafe fn broadcast(&self, buffer: *mut u8, n: usize, root: usize) -> Result<Request> {
        // SAFETY: as our caller promises.
        Request::start(|request| unsafe {
            ffi::MPI_Ibcast(buffer.cast(), count(n), byte_type(), count(root), self.0, request)
        })
    }

    /// `MPI_Iallgather` of `n` bytes from each rank.
    ///
    /// # Safety
    /// `send` holds `n` bytes, `receive` holds `n` for each rank; both live, unused, until the request is
    /// complete.
    pub(super) unsafe fn all_gather(&self, send: *const u8, receive: *mut u8, n: usize) -> Result<Request> {
        // SAFETY: as our caller promises.
        Request::start(|request| unsafe {
            ffi::MPI_Iallgather(
                send.cast(),
                count(n),
                byte_type(),
                receive.cast(),
                count(n),
                byte_type(),
                self.0,
                request,
            )
        })
    }

    /// `MPI_Iscatterv` of bytes.
    ///
    /// # Safety
    /// The buffers hold what the layouts say; they and the layouts live, unused, until the request is
    /// complete. `send` and `from` matter at the root only.
    pub(super) unsafe fn scatter(
        &self,
        send: *const u8,
        from: &Layout,
        receive: *mut u8,
        n: usize,
        root: usize,
    ) -> Result<Request> {
        // SAFETY: as our caller promises.
        Request::start(|request| unsafe {
            ffi::MPI_Iscatterv(
                send.cast(),
                from.counts.as_ptr(),
                from.starts.as_ptr(),
                byte_type(),
                receive.cast(),
                count(n),
                byte_type(),
                count(root),
                self.0,
                request,
            )
        })
    }

    /// `MPI_Igatherv` of bytes.
    ///
    /// # Safety
    /// As [`Comm::scatter`]; `receive` and `into` matter at the root only.
    pub(super) unsafe fn gather(
        &self,
        send: *const u8,
        n: usize,
        receive: *mut u8,
        into: &Layout,
        root: usize,
    ) -> Result<Request> {
        // SAFETY: as our caller promises.
        Request::start(|request| unsafe {
            ffi::MPI_Igatherv(
                send.cast(),
                count(n),
                byte_type(),
                receive.cast(),
                into.counts.as_ptr(),
                into.starts.as_ptr(),
                byte_type(),
                count(root),
                self.0,
                request,
            )
        })
    }

    /// `MPI_Iallgatherv` of bytes.
    ///
    /// # Safety
    /// As [`Comm::gather`], on every rank.
    pub(super) unsafe fn all_gather_varying(
        &self,
        send: *const u8,
        n: usize,
        receive: *mut u8,
        into: &Layout,
    ) -> Result<Request> {
        // SAFETY: as our caller promises.
        Request::start(|request| unsafe {
            ffi::MPI_Iallgatherv(
                send.cast(),
                count(n),
                byte_type(),
                receive.cast(),
                into.counts.as_ptr(),
                into.starts.as_ptr(),
                byte_type(),
                self.0,
                request,
            )
        })
    }

    /// `MPI_Ialltoallv` of bytes.
    ///
    /// # Safety
    /// The buffers hold what the layouts say; they and the layouts live, unused, until the request is complete.
    pub(super) unsafe fn all_to_all(
        &self,
        send: *const u8,
        from: &Layout,
        receive: *mut u8,
        into: &Layout,
    ) -> Result<Request> {
        // SAFETY: as our caller promises.
        Request::start(|request| unsafe {
            ffi::MPI_Ialltoallv(
                send.cast(),
                from.counts.as_ptr(),
                from.starts.as_ptr(),
                byte_type(),
                receive.cast(),
                into.counts.as_ptr(),
                into.starts.as_ptr(),
                byte_type(),
                self.0,
                request,
            )
        })
    }

    /// `MPI_Isend` of bytes.
    ///
    /// # Safety
    /// The buffer holds `n` bytes and lives, unchanged, until the request is complete.
    pub(super) unsafe fn send(&self, buffer: *const u8, n: usize, to: usize, tag: i32) -> Result<Request> {
        // SAFETY: as our caller promises.
        Request::start(|request| unsafe {
            ffi::MPI_Isend(buffer.cast(), count(n), byte_type(), count(to), tag, self.0, request)
        })
    }

    /// `MPI_Irecv` of bytes.
    ///
    /// # Safety
    /// The buffer holds `n` bytes and lives, unused, until the request is complete.
    pub(super) unsafe fn receive(&self, buffer: *mut u8, n: usize, from: usize, tag: i32) -> Result<Request> {
        // SAFETY: as our caller promises.
        Request::start(|request| unsafe {
            ffi::MPI_Irecv(buffer.cast(), count(n), byte_type(), count(from), tag, self.0, request)
        })
    }

    /// Takes a message that has come, if there is one (`MPI_Improbe`: MPI 3.1, section 3.8.2).
    pub(super) fn probe(&self, from: Option<usize>, tag: i32) -> Result<Option<Matched>> {
        let mut found: c_int = 0;
        let mut message = MaybeUninit::uninit();
        let mut status = MaybeUninit::<ffi::MPI_Status>::uninit();
        // SAFETY: the communicator is valid; MPI writes message and status if it finds one.
        unsafe {
            let source = from.map_or(ffi::RSMPI_ANY_SOURCE, count);
            check(ffi::MPI_Improbe(
                source,
                tag,
                self.0,
                &mut found,
                message.as_mut_ptr(),
                status.as_mut_ptr(),
            ))?;
            if found == 0 {
                return Ok(None);
            }
            let status = status.assume_init();
            let mut bytes: c_int = 0;
            check(ffi::MPI_Get_count(&status, byte_type(), &mut bytes))?;
            Ok(Some(Matched {
                message: message.assume_init(),
                source: usize::try_from(status.MPI_SOURCE).expect("a rank"),
                bytes: usize::try_from(bytes).expect("a header is a few bytes"),
            }))
        }
    }
}

impl Matched {
    /// `MPI_Imrecv` of the message.
    ///
    /// # Safety
    /// The buffer holds [`Matched::bytes`] bytes and lives, unused, until the request is complete.
    pub(super) unsafe fn receive(mut self, buffer: *mut u8) -> Result<Request> {
        let n = self.bytes;
        // SAFETY: as our caller promises.
        Request::start(|request| unsafe {
            ffi::MPI_Imrecv(buffer.cast(), count(n), byte_type(), &mut self.message, request)
        })
    }
}

/// The MPI type and operation of [`Ballot`]s; copies are handles to the same.
#[derive(Clone, Copy, Debug)]
pub(super) struct BallotBox {
    ballot: ffi::MPI_Datatype,
    merge: ffi::MPI_Op,
}

impl BallotBox {
    pub(super) fn new() -> Result<BallotBox> {
        let mut ballot = MaybeUninit::uninit();
        let mut op = MaybeUninit::uninit();
        // SAFETY: MPI is initialised (our caller holds the universe); `merge_all` is what MPI asks of a
        // reduction: it reads and writes `len` ballots (MPI 3.1, section 5.9.5).
        unsafe {
            check(ffi::MPI_Type_contiguous(count(size_of::<Ballot>()), byte_type(), ballot.as_mut_ptr()))?;
            check(ffi::MPI_Type_commit(ballot.as_mut_ptr()))?;
            check(ffi::MPI_Op_create(Some(merge_all), 1, op.as_mut_ptr()))?;
            Ok(BallotBox { ballot: ballot.assume_init(), merge: op.assume_init() })
        }
    }

    /// Casts a ballot and collects the outcome of all.
    ///
    /// # Safety
    /// Both ballots live, unused, until the request is complete.
    pub(super) unsafe fn cast(&self, comm: &Comm, mine: *const Ballot, all: *mut Ballot) -> Result<Request> {
        // SAFETY: as our caller promises.
        unsafe { comm.all_reduce(mine.cast(), all.cast(), 1, self.ballot, self.merge) }
    }

    pub(super) fn free(mut self) -> Result<()> {
        // SAFETY: both were made by `new` and are not used any more.
        unsafe {
            check(ffi::MPI_Type_free(&mut self.ballot))?;
            check(ffi::MPI_Op_free(&mut self.merge))
        }
    }
}

/// What MPI calls to merge ballots.
unsafe extern "C" fn merge_all(
    theirs: *mut c_void,
    ours: *mut c_void,
    len: *mut c_int,
    _ballot: *mut ffi::MPI_Datatype,
) {
    // SAFETY: MPI passes a valid length.
    let len = usize::try_from(unsafe { *len }).unwrap_or(0);
    for index in 0..len {
        // SAFETY: MPI passes two arrays of `len` ballots; its temporary ones may be unaligned, hence the
        // unaligned accesses; any bytes are a ballot.
        unsafe {
            let theirs = ptr::read_unaligned(theirs.cast::<Ballot>().add(index));
            let into = ours.cast::<Ballot>().add(index);
            let mut merged = ptr::read_unaligned(into);
            merge(&mut merged, &theirs);
            ptr::write_unaligned(into, merged);
        }
    }
}

/// `MPI_MAX` over one `i32` per rank.
///
/// # Safety
/// Both numbers live, unused, until the request is complete.
pub(super) unsafe fn all_reduce_max(comm: &Comm, mine: *const i32, all: *mut i32) -> Result<Request> {
    // SAFETY: as our caller promises.
    unsafe { comm.all_reduce(mine.cast(), all.cast(), 1, ffi::RSMPI_INT32_T, ffi::RSMPI_MAX) }
}
