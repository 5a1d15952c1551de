//! The checks of a call's arguments, the same with and without MPI, made before anything is sent.

use protocol::limits::ARRAY_RANK_MAX;

use crate::array::{Array, Element};
use crate::communicator::{CommError, Operation, ReduceOp};
use crate::each_dtype;
use ndarray::{ArcArray, IxDyn};

/// The largest tag of a message. MPI guarantees 32767 (MPI 3.1, section 8.1.2); half of the range is kept for
/// the payloads of large messages.
pub const TAG_MAX: i32 = 16_383;

/// An [`CommError::Invalid`].
pub fn invalid(operation: Operation, reason: impl Into<String>) -> CommError {
    CommError::Invalid { operation, reason: reason.into() }
}

/// A root must be a rank of the world.
pub fn check_root(operation: Operation, root: usize, size: usize) -> Result<(), CommError> {
    if root < size {
        return Ok(());
    }
    Err(invalid(operation, format!("there is no root {root}; the ranks are 0 to {}", size - 1)))
}

/// So must the other end of a message.
pub fn check_peer(operation: Operation, peer: usize, size: usize) -> Result<(), CommError> {
    if peer < size {
        return Ok(());
    }
    Err(invalid(operation, format!("there is no rank {peer}; the ranks are 0 to {}", size - 1)))
}

/// A tag must be one that every MPI can send.
pub fn check_tag(operation: Operation, tag: i32) -> Result<(), CommError> {
    if (0..=TAG_MAX).contains(&tag) {
        return Ok(());
    }
    Err(invalid(operation, format!("tag {tag} is out of range; use 0 to {TAG_MAX}")))
}

/// The reduction must be defined for the elements.
pub fn check_reduction(operation: Operation, array: &Array, op: ReduceOp) -> Result<(), CommError> {
    check_axes(operation, array)?;
    let dtype = array.dtype();
    if op.is_defined_for(dtype) {
        return Ok(());
    }
    let defined: Vec<&str> =
        ReduceOp::ALL.into_iter().filter(|op| op.is_defined_for(dtype)).map(ReduceOp::name).collect();
    Err(invalid(operation, format!("{} is not defined for {dtype}; use {}", op.name(), defined.join(", "))))
}

/// An array must not have more axes than a message can describe.
pub fn check_axes(operation: Operation, array: &Array) -> Result<(), CommError> {
    let axes = array.shape().len();
    if axes <= ARRAY_RANK_MAX {
        return Ok(());
    }
    Err(invalid(operation, format!("an array of {axes} axes cannot be sent; use at most {ARRAY_RANK_MAX}")))
}

/// The root of a broadcast or scatter must have something to give.
pub fn root_array(operation: Operation, array: Option<&Array>) -> Result<&Array, CommError> {
    let array = array.ok_or_else(|| invalid(operation, "the root passed no array; pass one there"))?;
    check_axes(operation, array)?;
    Ok(array)
}

/// The array as rows along a first axis: a 0-dimensional one becomes one row.
pub fn as_rows(array: &Array) -> Array {
    fn one_row<T: Element>(array: &ArcArray<T, IxDyn>) -> Array {
        let row = array.clone().into_shape_with_order(IxDyn(&[1]));
        T::wrap(row.expect("a 0-dimensional array has one element"))
    }
    if array.shape().is_empty() { each_dtype!(array, a => one_row(a)) } else { array.clone() }
}

/// How many of `rows` rows part `index` of `parts` gets: the first `rows mod parts` get one more.
pub fn part_rows(rows: usize, parts: usize, index: usize) -> usize {
    rows / parts + usize::from(index < rows % parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_all_rows_and_differ_by_one_at_most() {
        for (rows, parts) in [(0, 1), (3, 4), (4, 4), (10, 4), (11, 3)] {
            let lengths: Vec<usize> = (0..parts).map(|i| part_rows(rows, parts, i)).collect();
            assert_eq!(lengths.iter().sum::<usize>(), rows);
            assert!(lengths.is_sorted_by(|a, b| a >= b), "{lengths:?}");
            assert!(lengths[0] - lengths[parts - 1] <= 1, "{lengths:?}");
        }
    }

    #[test]
    fn a_reduction_that_is_not_defined_names_those_that_are() {
        let error = check_reduction(Operation::AllReduce, &Array::scalar(true), ReduceOp::Sum);
        assert_eq!(
            error.expect_err("sum of truths").to_string(),
            "allreduce: sum is not defined for bool; use min, max, and, or"
        );
    }

    #[test]
    fn roots_peers_and_tags_out_of_range_are_refused() {
        assert_eq!(
            check_root(Operation::Reduce, 4, 4).expect_err("root 4 of 4").to_string(),
            "reduce: there is no root 4; the ranks are 0 to 3"
        );
        assert!(check_peer(Operation::Send, 1, 1).is_err());
        assert!(check_tag(Operation::Send, -1).is_err());
        assert!(check_tag(Operation::Send, TAG_MAX + 1).is_err());
        assert!(check_tag(Operation::Send, TAG_MAX).is_ok());
    }

    #[test]
    fn a_0_dimensional_array_counts_as_one_row() {
        assert_eq!(as_rows(&Array::scalar(7i64)).shape(), [1]);
        assert_eq!(as_rows(&Array::from_vec(vec![1u8, 2])).shape(), [2]);
    }
}
