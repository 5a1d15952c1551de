//! A world of one rank without MPI.

use std::cell::{Cell, RefCell};

use crate::arguments::{as_rows, check_axes, check_peer, check_reduction, check_root, check_tag, root_array};
use crate::array::Array;
use crate::communicator::{CommError, Communicator, Operation, ReduceOp};
use crate::loopback::Loopback;

/// The only rank of its world. Calls have the results and the argument errors that MPI would give.
#[derive(Debug, Default)]
pub struct Solo {
    completed: Cell<u64>,
    loopback: RefCell<Loopback>,
}

impl Solo {
    /// A new world.
    pub fn new() -> Solo {
        Solo::default()
    }

    fn complete<T>(&self, result: T) -> Result<T, CommError> {
        self.completed.set(self.completed.get() + 1);
        Ok(result)
    }
}

impl Communicator for Solo {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn enter_cell(&self, _cell: i64) {}

    fn completed(&self) -> u64 {
        self.completed.get()
    }

    fn barrier(&self) -> Result<(), CommError> {
        self.complete(())
    }

    fn broadcast(&self, array: Option<&Array>, root: usize) -> Result<Array, CommError> {
        check_root(Operation::Broadcast, root, 1)?;
        let array = root_array(Operation::Broadcast, array)?;
        self.complete(array.clone())
    }

    fn reduce(&self, array: &Array, op: ReduceOp, root: usize) -> Result<Option<Array>, CommError> {
        check_root(Operation::Reduce, root, 1)?;
        check_reduction(Operation::Reduce, array, op)?;
        self.complete(Some(array.clone()))
    }

    fn all_reduce(&self, array: &Array, op: ReduceOp) -> Result<Array, CommError> {
        check_reduction(Operation::AllReduce, array, op)?;
        self.complete(array.clone())
    }

    fn scan(&self, array: &Array, op: ReduceOp) -> Result<Array, CommError> {
        check_reduction(Operation::Scan, array, op)?;
        self.complete(array.clone())
    }

    fn scatter(&self, array: Option<&Array>, root: usize) -> Result<Array, CommError> {
        check_root(Operation::Scatter, root, 1)?;
        let array = root_array(Operation::Scatter, array)?;
        self.complete(as_rows(array))
    }

    fn gather(&self, array: &Array, root: usize) -> Result<Option<Array>, CommError> {
        check_root(Operation::Gather, root, 1)?;
        check_axes(Operation::Gather, array)?;
        self.complete(Some(as_rows(array)))
    }

    fn all_gather(&self, array: &Array) -> Result<Array, CommError> {
        check_axes(Operation::AllGather, array)?;
        self.complete(as_rows(array))
    }

    fn all_to_all(&self, array: &Array) -> Result<Array, CommError> {
        check_axes(Operation::AllToAll, array)?;
        self.complete(as_rows(array))
    }

    fn send(&self, array: &Array, to: usize, tag: i32) -> Result<(), CommError> {
        check_peer(Operation::Send, to, 1)?;
        check_tag(Operation::Send, tag)?;
        check_axes(Operation::Send, array)?;
        self.loopback.borrow_mut().send(array, tag)
    }

    fn receive(&self, from: Option<usize>, tag: i32) -> Result<(Array, usize), CommError> {
        check_peer(Operation::Receive, from.unwrap_or(0), 1)?;
        check_tag(Operation::Receive, tag)?;
        Ok((self.loopback.borrow_mut().receive_now(tag, 0)?, 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collectives_of_one_rank_return_what_went_in() {
        let solo = Solo::new();
        let array = Array::from_vec(vec![1.0f64, 2.0]);

        assert_eq!(solo.barrier(), Ok(()));
        assert_eq!(solo.broadcast(Some(&array), 0), Ok(array.clone()));
        assert_eq!(solo.all_reduce(&array, ReduceOp::Sum), Ok(array.clone()));
        assert_eq!(solo.scan(&array, ReduceOp::Max), Ok(array.clone()));
        assert_eq!(solo.reduce(&array, ReduceOp::Prod, 0), Ok(Some(array.clone())));
        assert_eq!(solo.gather(&Array::scalar(3i32), 0), Ok(Some(Array::from_vec(vec![3i32]))));
        assert_eq!(solo.all_to_all(&array), Ok(array));
        assert_eq!(solo.completed(), 7);
    }

    #[test]
    fn arguments_are_checked_as_with_more_ranks() {
        let solo = Solo::new();
        let array = Array::from_vec(vec![true]);

        assert!(matches!(solo.broadcast(Some(&array), 1), Err(CommError::Invalid { .. })));
        assert!(matches!(solo.broadcast(None, 0), Err(CommError::Invalid { .. })));
        assert!(matches!(solo.all_reduce(&array, ReduceOp::Sum), Err(CommError::Invalid { .. })));
        assert!(matches!(solo.send(&array, 0, -5), Err(CommError::Invalid { .. })));
        assert_eq!(solo.completed(), 0);
    }

    #[test]
    fn a_message_to_itself_is_received_and_a_missing_one_does_not_hang() {
        let solo = Solo::new();
        let array = Array::from_vec(vec![1u8, 2, 3]);

        assert_eq!(solo.send(&array, 0, 7), Ok(()));
        assert_eq!(solo.receive(None, 7), Ok((array, 0)));
        let error = solo.receive(Some(0), 7).expect_err("nothing was sent");
        assert_eq!(error.to_string(), "recv: rank 0 has sent itself no message with tag 7; call send first");
    }
}
