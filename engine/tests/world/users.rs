//! User code that calls MPI itself: a C library (`kernel.c`) that is compiled here and loaded into every rank.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use engine::communicator::{CommError, Communicator};
use engine::mpi::launch::Family;
use engine::mpi::library_version;

use super::checks::{AT_ONCE, Dice, PATIENCE, Rank, SOON, enter, seed_of};

const LIBRARY: &str = "libkernel.so";

/// What the library says of a wrong result.
const WRONG: c_int = -1;

const COLLECTIVES: [&str; 17] = [
    "MPI_Barrier",
    "MPI_Bcast",
    "MPI_Reduce",
    "MPI_Allreduce",
    "MPI_Scan",
    "MPI_Exscan",
    "MPI_Reduce_scatter",
    "MPI_Reduce_scatter_block",
    "MPI_Gather",
    "MPI_Gatherv",
    "MPI_Allgather",
    "MPI_Allgatherv",
    "MPI_Scatter",
    "MPI_Scatterv",
    "MPI_Alltoall",
    "MPI_Alltoallv",
    "MPI_Alltoallw",
];

/// Compiles the library for the MPI that this program is linked to.
pub(crate) fn compile(folder: &Path) -> Result<(), String> {
    let own = match Family::of(&library_version()) {
        Family::OpenMpi => "mpicc.openmpi",
        Family::Mpich => "mpicc.mpich",
        Family::Other => "mpicc",
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let exists = std::env::split_paths(&path).any(|directory| directory.join(own).exists());
    let compiler = std::env::var("MPICC").unwrap_or_else(|_| if exists { own } else { "mpicc" }.to_owned());
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/world/kernel.c");
    let output = Command::new(&compiler)
        .args(["-O1", "-fPIC", "-shared", "-o"])
        .arg(folder.join(LIBRARY))
        .arg(source)
        .output()
        .map_err(|error| format!("failed to start {compiler}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{compiler} failed:\n{}", String::from_utf8_lossy(&output.stderr)))
}

type Comm = c_int;

/// The library, loaded.
pub(crate) struct Kernel {
    pub(crate) world: Comm,
    collective: unsafe extern "C" fn(c_int, Comm, c_int, c_int, c_int) -> c_int,
    messages: unsafe extern "C" fn(Comm) -> c_int,
    send: unsafe extern "C" fn(Comm, c_int, c_int, c_int) -> c_int,
    receive: unsafe extern "C" fn(Comm, c_int, c_int, *mut c_int) -> c_int,
    wait: unsafe extern "C" fn(Comm, c_int, c_int, *mut c_int) -> c_int,
    split: unsafe extern "C" fn(Comm, c_int, c_int, *mut Comm) -> c_int,
    make: unsafe extern "C" fn(Comm, c_int, *mut Comm) -> c_int,
    free: unsafe extern "C" fn(Comm) -> c_int,
    text: unsafe extern "C" fn(c_int, *mut c_char) -> c_int,
}

impl Kernel {
    #[expect(clippy::missing_transmute_annotations, reason = "the fields say the types")]
    pub(crate) fn load(folder: &Path) -> Kernel {
        let path =
            CString::new(folder.join(LIBRARY).to_str().expect("a temporary folder")).expect("no zeros");
        // SAFETY: the library was compiled by this test; loading it runs no code of its own.
        let library = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW) };
        assert!(!library.is_null(), "the library was not loaded");
        // SAFETY: the types are those of the functions in kernel.c.
        unsafe {
            let world: unsafe extern "C" fn() -> Comm = std::mem::transmute(find(library, c"kernel_world"));
            Kernel {
                world: world(),
                collective: std::mem::transmute(find(library, c"kernel_collective")),
                messages: std::mem::transmute(find(library, c"kernel_messages")),
                send: std::mem::transmute(find(library, c"kernel_send")),
                receive: std::mem::transmute(find(library, c"kernel_receive")),
                wait: std::mem::transmute(find(library, c"kernel_wait")),
                split: std::mem::transmute(find(library, c"kernel_split")),
                make: std::mem::transmute(find(library, c"kernel_make")),
                free: std::mem::transmute(find(library, c"kernel_free")),
                text: std::mem::transmute(find(library, c"kernel_text")),
            }
        }
    }

    /// Calls a collective by number.
    fn collective(&self, which: usize, comm: Comm, root: usize, n: usize, salt: usize) -> Result<(), String> {
        // SAFETY: as kernel.c asks: at most 4096 numbers of at most 16 ranks.
        let code =
            unsafe { (self.collective)(which as c_int, comm, root as c_int, n as c_int, salt as c_int) };
        self.checked(code)
    }

    fn send(&self, to: usize, tag: c_int, value: c_int) -> Result<(), String> {
        // SAFETY: a communicator, and numbers.
        self.checked(unsafe { (self.send)(self.world, to as c_int, tag, value) })
    }

    fn receive(&self, from: usize, tag: c_int) -> Result<c_int, String> {
        let mut value = 0;
        // SAFETY: the number lives until the call returns.
        self.checked(unsafe { (self.receive)(self.world, from as c_int, tag, &mut value) }).map(|()| value)
    }

    fn wait(&self, from: usize, tag: c_int) -> Result<c_int, String> {
        let mut value = 0;
        // SAFETY: the number lives until the call returns.
        self.checked(unsafe { (self.wait)(self.world, from as c_int, tag, &mut value) }).map(|()| value)
    }

    fn split(&self, comm: Comm, colour: usize, key: usize) -> Result<Comm, String> {
        let mut made = 0;
        // SAFETY: the handle lives until the call returns.
        self.checked(unsafe { (self.split)(comm, colour as c_int, key as c_int, &mut made) }).map(|()| made)
    }

    fn make(&self, way: usize) -> Result<Comm, String> {
        let mut made = 0;
        // SAFETY: the handle lives until the call returns.
        self.checked(unsafe { (self.make)(self.world, way as c_int, &mut made) }).map(|()| made)
    }

    fn free(&self, comm: Comm) {
        // SAFETY: a communicator that the library has made, and that nobody uses afterwards.
        self.checked(unsafe { (self.free)(comm) }).expect("freed");
    }

    fn checked(&self, code: c_int) -> Result<(), String> {
        assert_ne!(code, WRONG, "MPI returned success and a wrong result");
        if code == 0 {
            return Ok(());
        }
        let mut text = [0u8; 4096];
        // SAFETY: more room than any MPI asks for.
        let found = unsafe { (self.text)(code, text.as_mut_ptr().cast()) };
        assert_eq!(found, 0, "code {code} has no text");
        let text = CStr::from_bytes_until_nul(&text).expect("it ends");
        Err(text.to_string_lossy().into_owned())
    }
}

/// # Safety
/// The library was loaded.
unsafe fn find(library: *mut c_void, name: &CStr) -> *mut c_void {
    // SAFETY: as our caller promises.
    let found = unsafe { libc::dlsym(library, name.as_ptr()) };
    assert!(!found.is_null(), "{name:?} is in kernel.c");
    found
}

impl Rank {
    /// Some collectives of the library whose results all ranks know.
    fn check_library(&self, comm: Comm, after: &str) {
        for (which, n) in [(3, 1), (0, 0), (10, 20)] {
            let done = self.kernel.collective(which, comm, 0, n, 5);
            assert_eq!(done, Ok(()), "{} after {after}", COLLECTIVES[which]);
        }
    }
}

pub(crate) fn a_librarys_collectives_have_mpis_results(rank: &Rank) {
    for (which, name) in COLLECTIVES.into_iter().enumerate() {
        for (salt, n) in [1, 8, 100, 4096].into_iter().enumerate() {
            let done = rank.kernel.collective(which, rank.kernel.world, (n + 1) % rank.size, n, salt);
            assert_eq!(done, Ok(()), "{name} of {n}");
        }
    }
}

pub(crate) fn a_librarys_messages_have_mpis_results(rank: &Rank) {
    // SAFETY: a communicator.
    assert_eq!(rank.kernel.checked(unsafe { (rank.kernel.messages)(rank.kernel.world) }), Ok(()));
}

pub(crate) fn an_interrupt_ends_a_librarys_collective_and_names_the_missing_rank(rank: &Rank) {
    if rank.size == 1 {
        return;
    }
    for (which, name) in COLLECTIVES.into_iter().enumerate() {
        let (mut exact, mut quickest) = (0, PATIENCE);
        for trial in 0..3 {
            enter(rank, trial % 2 == 0);
            if rank.rank == rank.last() {
                rank.wait_for_marks_of(0..rank.last());
            } else {
                let call = || rank.kernel.collective(which, rank.kernel.world, 0, 100, 1);
                let (result, latency) = rank.interrupted_after(SOON / 4, call);
                rank.mark();
                let error = result.expect_err("the last rank did not call");
                assert!(
                    error.starts_with(&format!("{name} was interrupted while it waited for ")),
                    "{error}"
                );
                exact += usize::from(error.ends_with(&format!("waited for rank {}", rank.last())));
                quickest = quickest.min(latency);
            }
            enter(rank, trial % 2 == 0);
            rank.check_library(rank.kernel.world, name);
            rank.check_sums(name);
        }
        if rank.rank != rank.last() {
            assert!(quickest < AT_ONCE, "{name}: {quickest:?}");
            assert!(exact > 0, "{name}: in no trial only the last rank was missing");
        }
    }
}

pub(crate) fn a_library_that_makes_communicators(rank: &Rank) {
    let kernel = &rank.kernel;
    for way in 0..5 {
        let made = kernel.make(way).expect("made");
        for (which, name) in COLLECTIVES.into_iter().enumerate() {
            let done = kernel.collective(which, made, 0, 10, way);
            assert_eq!(done, Ok(()), "{name} on communicator {way}");
        }
        if rank.size > 1 {
            interrupt_all_but_the_last(rank, &format!("communicator {way}"), || {
                kernel.collective(3, made, 0, 100, 1).map(drop)
            });
            // The late rank may come to the call that the others have left.
            enter(rank, false);
            rank.check_library(made, "an interrupt");
        }
        kernel.free(made);
    }
    if rank.size == 1 {
        return;
    }
    // Making one is a call like others.
    interrupt_all_but_the_last(rank, "a split", || kernel.split(kernel.world, 0, 0).map(drop));
    let halves = kernel.split(kernel.world, rank.rank % 2, 0).expect("halves");
    for (which, name) in COLLECTIVES.into_iter().enumerate() {
        assert_eq!(kernel.collective(which, halves, 0, 10, which), Ok(()), "{name}");
    }
    // One that was left with rounds in it.
    let made = kernel.make(0).expect("made");
    interrupt_all_but_the_last(rank, "a duplicate", || kernel.collective(0, made, 0, 0, 0).map(drop));
    kernel.free(made);
    kernel.free(halves);
}

/// All ranks but the last make a call and are interrupted; then all are in a new cell.
fn interrupt_all_but_the_last(rank: &Rank, what: &str, call: impl FnOnce() -> Result<(), String>) {
    enter(rank, true);
    if rank.rank == rank.last() {
        rank.wait_for_marks_of(0..rank.last());
    } else {
        let error = rank.interrupted_after(SOON / 4, call).0.expect_err(what);
        assert!(error.contains("was interrupted while it waited for"), "{what}: {error}");
        rank.mark();
    }
    enter(rank, true);
}

pub(crate) fn different_calls_of_a_library_are_quoted(rank: &Rank) {
    if rank.size == 1 {
        return;
    }
    let kernel = &rank.kernel;
    let duplicate = kernel.make(0).expect("made");
    for comm in [kernel.world, duplicate] {
        let which = if rank.rank == rank.last() { 0 } else { 3 };
        let error = kernel.collective(which, comm, 0, 10, 0).expect_err("the calls differ");
        let others: Vec<usize> = (0..rank.last()).collect();
        let others = engine::communicator::ranks(&others);
        let calls = format!("{others} called MPI_Allreduce; rank {} called MPI_Barrier", rank.last());
        assert_eq!(error, format!("the ranks disagree: {calls}"));
        let error = kernel.collective(1, comm, rank.rank % 2, 10, 0).expect_err("the roots differ");
        assert!(error.contains("called MPI_Bcast(root 1)"), "{error}");
        rank.check_library(comm, "a mismatch");
    }
    kernel.free(duplicate);
}

pub(crate) fn a_librarys_call_and_one_of_ours_are_quoted(rank: &Rank) {
    if rank.size == 1 {
        return;
    }
    if rank.rank == 0 {
        let error = rank.world.barrier().expect_err("the others call MPI_Barrier");
        let CommError::Mismatch { calls } = error else { panic!("{error}") };
        assert_eq!(calls[0], "rank 0 called barrier()");
    } else {
        let error =
            rank.kernel.collective(0, rank.kernel.world, 0, 0, 0).expect_err("rank 0 calls barrier()");
        assert!(error.starts_with("the ranks disagree: rank 0 called barrier(); "), "{error}");
    }
}

pub(crate) fn an_interrupted_receive_takes_nothing(rank: &Rank) {
    if rank.size == 1 {
        return;
    }
    if rank.rank == 0 {
        let mut quickest = PATIENCE;
        for _ in 0..3 {
            let (result, latency) = rank.interrupted_after(SOON / 4, || rank.kernel.receive(1, 5));
            assert_eq!(result, Err("MPI_Recv was interrupted while it waited for rank 1".to_owned()));
            quickest = quickest.min(latency);
        }
        assert!(quickest < AT_ONCE, "{quickest:?}");
    }
    rank.check_library(rank.kernel.world, "an interrupted receive");
    if rank.rank == 1 {
        for value in 0..20 {
            rank.kernel.send(0, 5, value).expect("sent");
        }
    } else if rank.rank == 0 {
        let mut interrupts = 0;
        for value in 0..20 {
            let delay = Duration::from_micros(10 * value as u64);
            let mut received = rank.interrupted_after(delay, || rank.kernel.receive(1, 5)).0;
            if received.is_err() {
                interrupts += 1;
                received = rank.kernel.receive(1, 5);
            }
            assert_eq!(received, Ok(value), "after {interrupts} interrupts");
        }
    }
}

pub(crate) fn an_interrupted_wait_leaves_its_requests(rank: &Rank) {
    if rank.size == 1 {
        return;
    }
    if rank.rank == 0 {
        let (result, _) = rank.interrupted_after(SOON / 4, || rank.kernel.wait(1, 6));
        assert!(result.expect_err("nothing was sent").starts_with("MPI_Wait was interrupted"));
    }
    rank.check_library(rank.kernel.world, "an interrupted wait");
    if rank.rank == 1 {
        rank.kernel.send(0, 6, 77).expect("sent");
    } else if rank.rank == 0 {
        assert_eq!(rank.kernel.wait(1, 6), Ok(77));
    }
}

/// Random collectives on random communicators by random ranks, each interrupted; what follows must be right.
pub(crate) fn random_calls_of_a_library_on_random_ranks(rank: &Rank) {
    if rank.size == 1 {
        return;
    }
    let seed = seed_of(rank);
    let mut dice = Dice(seed | 1);
    let comms = [
        rank.kernel.world,
        rank.kernel.make(0).expect("made"),
        rank.kernel.split(rank.kernel.world, 0, rank.last() - rank.rank).expect("split"),
    ];
    for trial in 0..100 {
        rank.next_cell();
        let comm = comms[dice.throw(comms.len())];
        let calls: Vec<bool> = (0..rank.size).map(|_| dice.throw(3) > 0).collect();
        let kinds: Vec<usize> = (0..rank.size).map(|_| dice.throw(COLLECTIVES.len())).collect();
        let same = dice.throw(3) > 0;
        let (n, root) = ([1, 8, 1000][dice.throw(3)], dice.throw(rank.size));
        let delays: Vec<u64> = (0..rank.size).map(|_| dice.throw(8) as u64).collect();
        if calls[rank.rank] {
            let which = kinds[if same { 0 } else { rank.rank }];
            let call = || rank.kernel.collective(which, comm, root, n, trial);
            let (result, _) = rank.interrupted_after(Duration::from_millis(delays[rank.rank]), call);
            if let Err(error) = result {
                let expected = ["was interrupted", "the ranks disagree", "finished this cell"];
                assert!(expected.iter().any(|text| error.contains(text)), "trial {trial}: {error}");
            }
        }
        rank.next_cell();
        for comm in comms {
            rank.check_library(comm, &format!("trial {trial} of seed {seed}"));
        }
        rank.check_sums(&format!("trial {trial} of seed {seed}"));
    }
    comms[1..].iter().for_each(|&comm| rank.kernel.free(comm));
}
