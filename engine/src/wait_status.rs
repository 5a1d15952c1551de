//! Where a rank waits, readable from another thread.

use std::sync::{Arc, Mutex, PoisonError};

use crate::communicator::Waiting;

/// Shared between the main thread, which waits, and the control thread, which answers status queries.
#[derive(Clone, Debug, Default)]
pub struct WaitStatus(Arc<Mutex<Option<Waiting>>>);

impl WaitStatus {
    /// The call that the rank waits in, if it does. Waits of less than some milliseconds do not show.
    pub fn get(&self) -> Option<Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The rank waits, or does not any more.
    #[cfg(feature = "mpi")]
    pub(crate) fn set(&self, waiting: Option<Waiting>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = waiting;
    }
}
