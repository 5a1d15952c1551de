//! Signals: those that reach the process, and those that clients ask for.

use std::io;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::signal::Signal as Known;
use protocol::error::{ErrorContent, ename};
use protocol::message::control::Signal;
use signal_hook::SigId;
use transport::wake::Waker;

use crate::interrupt::Interrupt;

/// What a signal means for an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// Signal 0: nothing is sent.
    Nothing,
    /// End the running task.
    Interrupt,
    /// Give the signal to the process, after the answer has left.
    Deliver(i32),
}

/// What a client's request means.
pub fn meaning(signal: &Signal) -> Result<Meaning, Box<ErrorContent>> {
    let number = match signal {
        Signal::Number(number) => *number,
        Signal::Name(name) => {
            let text = || format!("module 'signal' has no attribute '{name}'");
            Known::from_str(name).map_err(|_| ErrorContent::new(ename::ATTRIBUTE_ERROR, text()))? as i32
        }
    };
    match number {
        0 => Ok(Meaning::Nothing),
        libc::SIGINT => Ok(Meaning::Interrupt),
        1.. if number <= libc::SIGRTMAX() => Ok(Meaning::Deliver(number)),
        _ => Err(ErrorContent::new(ename::VALUE_ERROR, format!("signal {number} does not exist")).into()),
    }
}

/// Sends a signal to this process.
pub fn deliver(signal: i32) {
    // SAFETY: kill(2) takes two numbers; one that is no signal is an error, not undefined.
    if unsafe { libc::kill(libc::getpid(), signal) } != 0 {
        tracing::error!(signal, error = %io::Error::last_os_error(), "signal not sent");
    }
}

/// Counts what reaches the process.
#[derive(Debug, Default)]
struct Counts {
    interrupts: AtomicU32,
    terminations: AtomicU32,
}

/// The signals that this process reacts to, until it is dropped.
#[derive(Debug)]
pub struct Signals {
    counts: Arc<Counts>,
    registered: Vec<SigId>,
}

/// What came since the last look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// Whether the running task was interrupted, or nothing ran.
    pub interrupted: bool,
    /// Whether the process is to end.
    pub terminated: bool,
}

impl Signals {
    /// SIGINT and SIGUSR1 interrupt the running task, SIGTERM ends the engine.
    ///
    /// SIGUSR1 because `mpiexec` and batch systems forward it to every rank, but not SIGINT.
    pub fn install(interrupt: &Interrupt, waker: &Waker) -> io::Result<Signals> {
        let counts = Arc::new(Counts::default());
        let mut signals = Signals { counts: Arc::clone(&counts), registered: vec![] };
        for signal in [libc::SIGINT, libc::SIGUSR1] {
            let (counts, interrupt, waker) = (Arc::clone(&counts), interrupt.clone(), waker.clone());
            let action = move || {
                interrupt.raise();
                counts.interrupts.fetch_add(1, Ordering::SeqCst);
                waker.wake();
            };
            // SAFETY: the action does atomic operations and at most one write(2), all async-signal-safe.
            signals.registered.push(unsafe { signal_hook::low_level::register(signal, action) }?);
        }
        let waker = waker.clone();
        let action = move || {
            counts.terminations.fetch_add(1, Ordering::SeqCst);
            waker.wake();
        };
        // SAFETY: as above.
        signals.registered.push(unsafe { signal_hook::low_level::register(libc::SIGTERM, action) }?);
        Ok(signals)
    }

    /// What came since the last look.
    pub fn take(&self) -> Received {
        Received {
            interrupted: self.counts.interrupts.swap(0, Ordering::SeqCst) > 0,
            terminated: self.counts.terminations.swap(0, Ordering::SeqCst) > 0,
        }
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        for id in self.registered.drain(..) {
            signal_hook::low_level::unregister(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_understood_by_number_and_by_name() {
        assert_eq!(meaning(&Signal::Number(2)), Ok(Meaning::Interrupt));
        assert_eq!(meaning(&Signal::Name("SIGINT".into())), Ok(Meaning::Interrupt));
        assert_eq!(meaning(&Signal::Name("SIGKILL".into())), Ok(Meaning::Deliver(9)));
        assert_eq!(meaning(&Signal::Number(0)), Ok(Meaning::Nothing));
    }

    #[test]
    fn an_unknown_name_is_refused_as_python_does() {
        let error = meaning(&Signal::Name("NOSUCH".into())).expect_err("no such signal");
        assert_eq!(
            (error.ename.as_str(), error.evalue.as_str()),
            ("AttributeError", "module 'signal' has no attribute 'NOSUCH'",)
        );
        assert!(meaning(&Signal::Number(-1)).is_err());
        assert!(meaning(&Signal::Number(4711)).is_err());
    }
}
