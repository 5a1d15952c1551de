//! What is said when a module kills the process: which signal, in which function.
//!
//! Nothing can be mended after a SIGSEGV; the rank ends, and MPI ends with it. But the clients that wait should learn
//! why. The handler notes signal and function, wakes the control thread, and gives it a moment to tell the hub; then the
//! signal goes on to whoever handled it before (MPI prints a trace) and ends the process.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, Ordering};
use std::time::Duration;

use libc::{sigaction, siginfo_t};

/// What a crash looks like.
const SIGNALS: [(c_int, &str); 5] = [
    (libc::SIGSEGV, "SIGSEGV"),
    (libc::SIGBUS, "SIGBUS"),
    (libc::SIGFPE, "SIGFPE"),
    (libc::SIGILL, "SIGILL"),
    (libc::SIGABRT, "SIGABRT"),
];

/// How long the process lives on for the control thread to tell of the crash.
const LAST_WORDS: Duration = Duration::from_millis(1000);
const NAP: Duration = Duration::from_millis(5);

/// The function that runs, as `name of module`; null: none does.
static CURRENT: AtomicPtr<c_char> = AtomicPtr::new(ptr::null_mut());
/// The signal that came, and the function that ran then.
static SIGNAL: AtomicI32 = AtomicI32::new(0);
static CRASHED: AtomicPtr<c_char> = AtomicPtr::new(ptr::null_mut());
/// What wakes the control thread, or -1.
static WAKER: AtomicI32 = AtomicI32::new(-1);
/// Whether the hub has been told.
static TOLD: AtomicBool = AtomicBool::new(false);

/// Who handled the signals before.
static mut FORMER: [MaybeUninit<sigaction>; SIGNALS.len()] = [const { MaybeUninit::uninit() }; SIGNALS.len()];

/// Names the function that runs, for as long as it lives.
pub(super) struct Current(*mut c_char);

impl Current {
    pub(super) fn enter(label: &'static CStr) -> Current {
        Current(CURRENT.swap(label.as_ptr().cast_mut(), Ordering::SeqCst))
    }
}

impl Drop for Current {
    fn drop(&mut self) {
        CURRENT.store(self.0, Ordering::SeqCst);
    }
}

/// From the first module on, crashes are noticed. Python and MPI have put their handlers in place before.
pub(super) fn watch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for (at, (signal, _)) in SIGNALS.iter().enumerate() {
            // SAFETY: the handler does only what a handler of signals may; FORMER is written here alone, before the
            // handler can read it, because each entry is written by the call that installs it.
            unsafe {
                let mut action = MaybeUninit::<sigaction>::zeroed().assume_init();
                action.sa_sigaction = on_crash as *const () as usize;
                action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
                libc::sigemptyset(&raw mut action.sa_mask);
                let former = (&raw mut FORMER).cast::<sigaction>().add(at);
                libc::sigaction(*signal, &raw const action, former);
            }
        }
    });
}

extern "C" fn on_crash(signal: c_int, info: *mut siginfo_t, _context: *mut c_void) {
    let current = CURRENT.load(Ordering::SeqCst);
    let is_first = SIGNAL.compare_exchange(0, signal, Ordering::SeqCst, Ordering::SeqCst).is_ok();
    if !current.is_null() && is_first {
        CRASHED.store(current, Ordering::SeqCst);
        let waker = WAKER.load(Ordering::SeqCst);
        if waker >= 0 {
            // SAFETY: write and nanosleep are async-signal-safe; the file is open for as long as it is known here.
            unsafe {
                libc::write(waker, [1_u8].as_ptr().cast(), 1);
                let nap = libc::timespec { tv_sec: 0, tv_nsec: NAP.as_nanos() as libc::c_long };
                for _ in 0..LAST_WORDS.as_millis() / NAP.as_millis() {
                    if TOLD.load(Ordering::SeqCst) {
                        break;
                    }
                    libc::nanosleep(&raw const nap, ptr::null_mut());
                }
            }
        }
    }
    if let Some(at) = SIGNALS.iter().position(|(known, _)| *known == signal) {
        // SAFETY: the entry was written when this handler was installed. On return the instruction is tried again, and
        // the former handler has it; what a process sent comes only once, and is sent again.
        unsafe {
            let former = (&raw const FORMER).cast::<sigaction>().add(at);
            libc::sigaction(signal, former, ptr::null_mut());
            if (*info).si_code <= 0 {
                libc::raise(signal);
            }
        }
    }
}

/// A crash that is about to end the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Crash {
    /// Why the engine ends, in words.
    pub(crate) reason: String,
}

impl Crash {
    /// Whom a crash wakes, by a byte; none from when the file may be closed.
    pub(crate) fn wakes(file: Option<BorrowedFd<'_>>) {
        WAKER.store(file.map_or(-1, |file| file.as_raw_fd()), Ordering::SeqCst);
    }

    /// A crash that nobody has been told of.
    pub(crate) fn pending() -> Option<Crash> {
        let crashed = CRASHED.load(Ordering::SeqCst);
        if crashed.is_null() || TOLD.load(Ordering::SeqCst) {
            return None;
        }
        // SAFETY: labels are never freed.
        let label = unsafe { CStr::from_ptr(crashed) }.to_string_lossy();
        let signal = SIGNAL.load(Ordering::SeqCst);
        let name = SIGNALS.iter().find(|(known, _)| *known == signal).map_or("a signal", |(_, name)| name);
        Some(Crash { reason: format!("it crashed by {name} in {label}") })
    }

    /// The hub has been told: the process may end.
    pub(crate) fn told() {
        TOLD.store(true, Ordering::SeqCst);
    }
}
