//! A parallel sum by hand: what the prompt's `psum` does, in twenty lines.

use engine::array::Array;
use engine::communicator::ReduceOp;
use engine::{RunError, TaskContext, Value};

/// # Collective
/// The sum of the elements of all ranks' arrays of floats, on every rank.
///
/// Each rank adds up its own elements first, so that one number travels however long the arrays are; their lengths may
/// differ. The price is the order of additions: sums of floats differ in the last digits with the number of ranks.
///
/// A rank that returns an error here, before the collective, is waited for by the others: what can be wrong on some
/// ranks only is better made part of the reduction. The wait ends when somebody interrupts it, or when the failed rank
/// goes on to a collective of a later cell; both give the waiting ranks an error, never a wrong sum.
pub fn parallel_sum(task: TaskContext<'_>, arguments: Vec<Value>) -> Result<Value, RunError> {
    let own = match arguments.as_slice() {
        [Value::Array(array)] => match Array::from_wire(array) {
            Array::F64(elements) => elements.sum(),
            other => {
                let wrong =
                    format!("parallel_sum(array) takes floats, not {}; use f64(array)", other.dtype());
                return Err(RunError::new("TypeError", wrong));
            }
        },
        _ => return Err(RunError::new("TypeError", "parallel_sum(array) takes one array")),
    };
    let sum = task.communicator.all_reduce(&Array::scalar(own), ReduceOp::Sum)?;
    let Array::F64(sum) = sum else { unreachable!("a reduction keeps the element type") };
    Ok(Value::Float(sum.sum()))
}
