//! The one flag that ends what an engine is doing.
//!
//! The control thread raises it; the main thread looks at it between script statements and while it waits in
//! a collective. It is armed only while a task runs, so that an interrupt never hits the next task.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};

const IDLE: u8 = 0;
const RUNNING: u8 = 1;
const INTERRUPTED: u8 = 2;

/// Shared between the control thread, which raises it, and the main thread, which obeys.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<Flag>);

#[derive(Debug, Default)]
struct Flag {
    state: AtomicU8,
    /// The thread that does not look at the flag by itself, and is woken by SIGINT.
    nudged: OnceLock<libc::pthread_t>,
    /// Why tasks are interrupted from now on, if no user asks for it.
    reason: OnceLock<String>,
}

impl Interrupt {
    /// A new flag, not armed.
    pub fn new() -> Interrupt {
        Interrupt::default()
    }

    /// A task starts: from now on it can be interrupted.
    pub fn arm(&self) {
        self.0.state.store(RUNNING, Ordering::SeqCst);
    }

    /// The task ended: an interrupt that comes from now on is ignored.
    pub fn disarm(&self) {
        self.0.state.store(IDLE, Ordering::SeqCst);
    }

    /// Interrupts the task that runs, and says whether there was one. Async-signal-safe.
    pub fn raise(&self) -> bool {
        let raised = self.0.change(RUNNING, INTERRUPTED);
        if let (true, Some(&thread)) = (raised, self.0.nudged.get()) {
            // SAFETY: the thread is the main thread, which lives as long as the process.
            unsafe { libc::pthread_kill(thread, libc::SIGINT) };
        }
        raised
    }

    /// The main thread runs code that does not look at the flag, but has a handler of SIGINT that calls
    /// [`Interrupt::take`]: from now on an interrupt is also a SIGINT to this thread. To be called by it.
    pub fn nudge_this_thread(&self) {
        // SAFETY: it cannot fail.
        let _ = self.0.nudged.set(unsafe { libc::pthread_self() });
    }

    /// Obeys: says whether the running task is to end, once for every interrupt. The task may catch what it is told
    /// and go on; the next interrupt hits it again.
    pub fn take(&self) -> bool {
        self.0.change(INTERRUPTED, RUNNING)
    }

    /// Says why tasks are interrupted from now on: the engine ends. The first reason stays.
    pub fn explain(&self, reason: String) {
        let _ = self.0.reason.set(reason);
    }

    /// What [`Interrupt::explain`] said.
    pub fn reason(&self) -> Option<&str> {
        self.0.reason.get().map(String::as_str)
    }

    /// Whether the running task is to end.
    pub fn is_raised(&self) -> bool {
        self.0.state.load(Ordering::Relaxed) == INTERRUPTED
    }
}

impl Flag {
    fn change(&self, from: u8, to: u8) -> bool {
        self.state.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::Interrupt;

    #[test]
    fn an_interrupt_while_idle_does_not_hit_the_next_task() {
        let interrupt = Interrupt::new();
        assert!(!interrupt.raise());
        interrupt.arm();
        assert!(!interrupt.is_raised());
    }

    #[test]
    fn an_interrupt_while_running_is_seen_until_the_task_ends() {
        let interrupt = Interrupt::new();
        interrupt.arm();
        assert!(interrupt.raise());
        assert!(interrupt.is_raised());
        interrupt.disarm();
        assert!(!interrupt.is_raised());
    }

    #[test]
    fn a_task_that_obeyed_and_goes_on_can_be_interrupted_again() {
        let interrupt = Interrupt::new();
        assert!(!interrupt.take());
        interrupt.arm();
        assert!(interrupt.raise() && interrupt.take() && !interrupt.take());
        assert!(!interrupt.is_raised());
        assert!(interrupt.raise());
    }
}
