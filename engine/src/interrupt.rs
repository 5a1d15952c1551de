//! The one flag that ends what an engine is doing.
//!
//! The control thread raises it; the main thread looks at it between script statements and while it waits in
//! a collective. It is armed only while a task runs, so that an interrupt never hits the next task.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

const IDLE: u8 = 0;
const RUNNING: u8 = 1;
const INTERRUPTED: u8 = 2;

/// Shared between the control thread, which raises it, and the main thread, which obeys.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<AtomicU8>);

impl Interrupt {
    /// A new flag, not armed.
    pub fn new() -> Interrupt {
        Interrupt::default()
    }

    /// A task starts: from now on it can be interrupted.
    pub fn arm(&self) {
        self.0.store(RUNNING, Ordering::SeqCst);
    }

    /// The task ended: an interrupt that comes from now on is ignored.
    pub fn disarm(&self) {
        self.0.store(IDLE, Ordering::SeqCst);
    }

    /// Interrupts the task that runs, and says whether there was one. Async-signal-safe.
    pub fn raise(&self) -> bool {
        self.0.compare_exchange(RUNNING, INTERRUPTED, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// Whether the running task is to end.
    pub fn is_raised(&self) -> bool {
        self.0.load(Ordering::Relaxed) == INTERRUPTED
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
}
