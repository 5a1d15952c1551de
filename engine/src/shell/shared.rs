//! What the two threads of an engine tell each other.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use protocol::Date;
use protocol::id::{MsgId, SessionId};
use transport::wake::Waker;

use crate::interrupt::Interrupt;
use crate::queries::Remembered;
use crate::wait_status::WaitStatus;

/// Orders that wait for the main thread; more are refused. A client that aborts in a loop while a task computes
/// for hours must not fill the memory.
const ORDERS_MAX: usize = 1024;

/// Why an engine ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// A client or the hub asked for it.
    Requested,
    /// The process was told to by a signal.
    Terminated,
    /// The controller has been silent for too long.
    ControllerLost,
    /// The process that started this rank died, and its world with it.
    LauncherLost,
    /// Something in the engine itself broke.
    Broken(String),
}

/// What the control thread hands to the main thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// See [`crate::machine::Event::AbortNamed`].
    AbortNamed(Vec<MsgId>),
    /// See [`crate::machine::Event::AbortAll`].
    AbortAll {
        /// Who asked.
        session: SessionId,
        /// When.
        sent: Option<Date>,
    },
    /// Empty the namespace before the next request.
    Clear,
    /// End after the running request.
    End(Ending),
}

/// What the main thread does, for status queries.
#[derive(Clone, Debug, Default)]
pub struct Activity {
    /// The request that runs, and since when.
    pub running: Option<(MsgId, Instant)>,
    /// Requests answered.
    pub requests: u64,
    /// Collectives completed, as of the last answer.
    pub collectives: u64,
    /// Messages that the main thread refused, by reason.
    pub refused: BTreeMap<&'static str, u64>,
    /// Names and words when the engine was last idle.
    pub remembered: Remembered,
}

const RUNNING: u8 = 0;
const LEAVING: u8 = 1;
const GONE: u8 = 2;

/// Shared by the two threads.
#[derive(Debug)]
pub struct Shared {
    /// Ends the running task.
    pub interrupt: Interrupt,
    /// Where the main thread waits for other ranks.
    pub wait_status: WaitStatus,
    activity: Mutex<Activity>,
    orders: Mutex<Vec<Order>>,
    phase: AtomicU8,
    /// Wakes the main thread.
    main: Waker,
    /// Wakes the control thread.
    control: Waker,
}

impl Shared {
    /// Shared state of an engine that has just started.
    pub fn new(interrupt: Interrupt, wait_status: WaitStatus, main: Waker, control: Waker) -> Shared {
        Shared {
            interrupt,
            wait_status,
            activity: Mutex::default(),
            orders: Mutex::default(),
            phase: AtomicU8::new(RUNNING),
            main,
            control,
        }
    }

    /// Hands an order to the main thread; false: too many wait already.
    pub fn order(&self, order: Order) -> bool {
        let mut orders = lock(&self.orders);
        // An end is never refused: it is the last order.
        if orders.len() >= ORDERS_MAX && !matches!(order, Order::End(_)) {
            return false;
        }
        orders.push(order);
        drop(orders);
        self.main.wake();
        true
    }

    /// Takes all orders.
    pub fn take_orders(&self) -> Vec<Order> {
        std::mem::take(&mut *lock(&self.orders))
    }

    /// What the main thread does.
    pub fn activity(&self) -> MutexGuard<'_, Activity> {
        lock(&self.activity)
    }

    /// The main thread has answered its last request: leave the cluster.
    pub fn leave(&self) {
        self.phase.store(LEAVING, Ordering::SeqCst);
        self.control.wake();
    }

    /// The main thread is about to return.
    pub fn end(&self) {
        self.phase.store(GONE, Ordering::SeqCst);
        self.control.wake();
    }

    /// Whether the engine leaves the cluster.
    pub fn is_leaving(&self) -> bool {
        self.phase.load(Ordering::SeqCst) >= LEAVING
    }

    /// Whether all is done.
    pub fn is_gone(&self) -> bool {
        self.phase.load(Ordering::SeqCst) == GONE
    }
}

/// A panic elsewhere leaves plain data behind, which is still good.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use transport::wake::waker;

    use super::*;

    #[test]
    fn orders_are_bounded_but_an_end_always_fits() {
        let ((main, _main), (control, _control)) = (waker().unwrap(), waker().unwrap());
        let shared = Shared::new(Interrupt::new(), WaitStatus::default(), main, control);
        for _ in 0..ORDERS_MAX {
            assert!(shared.order(Order::Clear));
        }
        assert!(!shared.order(Order::Clear));
        assert!(shared.order(Order::End(Ending::Requested)));
        assert_eq!(shared.take_orders().len(), ORDERS_MAX + 1);
    }
}
