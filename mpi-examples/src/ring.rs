//! A token goes round all ranks: messages from one rank to the next.

use engine::array::Array;
use engine::{RunError, TaskContext, Value};

/// Tells this example's messages from others between the same ranks.
const TAG: i32 = 17;

/// # Collective
/// Sends a token from rank 0 over all others back to rank 0; every rank adds its number to it. Returns the token as it
/// came to this rank: `[0, 1, …, rank - 1]`, and on rank 0 the full round.
///
/// Rank 0 sends first and the others receive first. If all sent first, each could wait for the next to receive: a send
/// may last until its message is received (MPI 3.1, section 3.4), and does for large ones.
pub fn ring(task: TaskContext<'_>, arguments: Vec<Value>) -> Result<Value, RunError> {
    if !arguments.is_empty() {
        return Err(RunError::new("TypeError", "ring() takes no arguments"));
    }
    let world = &task.communicator;
    let (rank, size) = (world.rank(), world.size());
    let (next, previous) = ((rank + 1) % size, (rank + size - 1) % size);
    let own = i64::try_from(rank).expect("no world has 2^63 ranks");

    if rank == 0 {
        world.send(&Array::from_vec(vec![own]), next, TAG)?;
        let (token, _) = world.receive(Some(previous), TAG)?;
        return Ok(Value::Array(token.to_wire()));
    }
    let (token, _) = world.receive(Some(previous), TAG)?;
    let Array::I64(numbers) = &token else {
        return Err(RunError::new("TypeError", format!("the token became {}", token.dtype())));
    };
    let longer: Vec<i64> = numbers.iter().copied().chain([own]).collect();
    world.send(&Array::from_vec(longer), next, TAG)?;
    Ok(Value::Array(token.to_wire()))
}
