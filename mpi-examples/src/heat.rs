//! Heat in a rod that is divided over the ranks: each step exchanges the outermost cells with both neighbours.
//!
//! The pattern (domain decomposition with a halo) is that of most codes that solve differential equations under MPI.

use engine::array::Array;
use engine::communicator::Communicator;
use engine::{RunError, TaskContext, Value};

/// Diffusivity × time step ÷ cell width²; above 1/2 the scheme is unstable.
pub const RATIO: f64 = 0.25;

/// Tells this example's messages from others between the same ranks.
const TAG: i32 = 18;

/// # Collective
/// This rank's piece of the rod after that many steps; both ends of the rod are kept at temperature 0. Every rank needs
/// at least one cell.
pub fn heat(task: TaskContext<'_>, arguments: Vec<Value>) -> Result<Value, RunError> {
    let (piece, steps) = match arguments.as_slice() {
        [Value::Array(piece), Value::Int(steps)] => (Array::from_wire(piece), *steps),
        _ => return Err(RunError::new("TypeError", "heat(array, steps) takes an array and an integer")),
    };
    let mut cells: Vec<f64> = match &piece {
        Array::F64(cells) if cells.ndim() == 1 && !cells.is_empty() => cells.iter().copied().collect(),
        _ => return Err(RunError::new("ValueError", "heat: the array must have one axis and hold floats")),
    };
    for _ in 0..steps {
        let (left, right) = halo(&*task.communicator, &cells)?;
        cells = step(&cells, left, right);
    }
    Ok(Value::Array(Array::from_vec(cells).to_wire()))
}

/// One explicit step: every cell moves towards the mean of its neighbours.
pub fn step(cells: &[f64], left: f64, right: f64) -> Vec<f64> {
    let at = |i: usize| cells.get(i).copied().unwrap_or(right);
    let before = |i: usize| if i == 0 { left } else { cells[i - 1] };
    (0..cells.len()).map(|i| cells[i] + RATIO * (before(i) - 2.0 * cells[i] + at(i + 1))).collect()
}

/// The cells next to this rank's piece. First the pairs (0, 1), (2, 3), … meet, then (1, 2), (3, 4), …: every rank talks
/// to one other at a time, and no chain of ranks waits for its end.
fn halo(world: &dyn Communicator, cells: &[f64]) -> Result<(f64, f64), RunError> {
    let (rank, last) = (world.rank(), world.size() - 1);
    let (mut left, mut right) = (0.0, 0.0);
    for phase in 0..2 {
        if rank % 2 == phase && rank < last {
            right = exchange(world, rank + 1, cells[cells.len() - 1])?;
        } else if rank % 2 != phase && rank > 0 {
            left = exchange(world, rank - 1, cells[0])?;
        }
    }
    Ok((left, right))
}

/// Swaps one number with a neighbour; the lower rank speaks first.
fn exchange(world: &dyn Communicator, peer: usize, own: f64) -> Result<f64, RunError> {
    let own = Array::scalar(own);
    let theirs = if world.rank() < peer {
        world.send(&own, peer, TAG)?;
        world.receive(Some(peer), TAG)?.0
    } else {
        let (theirs, _) = world.receive(Some(peer), TAG)?;
        world.send(&own, peer, TAG)?;
        theirs
    };
    match theirs {
        Array::F64(number) => Ok(number.sum()),
        other => Err(RunError::new("TypeError", format!("rank {peer} sent {}", other.dtype()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heat_spreads_to_both_sides_and_leaves_at_the_ends() {
        assert_eq!(step(&[0.0, 4.0, 0.0], 0.0, 0.0), [1.0, 2.0, 1.0]);
        assert_eq!(step(&[4.0], 0.0, 0.0), [2.0]);
        assert_eq!(step(&[0.0, 0.0], 4.0, 8.0), [1.0, 2.0]);
    }
}
