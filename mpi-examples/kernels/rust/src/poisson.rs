//! Conjugate gradients for -Δx = b on a square with x = 0 around it: rows divided over the ranks, a halo of one row, two
//! reductions a step.

use commworld_module::{Array2, ArrayView2, Call, Error};
use mpi::collective::SystemOperation;
use mpi::point_to_point as p2p;
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator, CommunicatorCollectives};

pub(crate) fn poisson(
    call: &Call<'_>,
    b: ArrayView2<'_, f64>,
    tolerance: f64,
    steps_max: usize,
) -> Result<(Array2<f64>, i64, f64), Error> {
    let world = call.world()?;
    // Ranks must agree before they talk: one that gave up alone would be waited for.
    let columns = b.ncols() as i64;
    let own = if b.is_empty() { [i64::MIN, i64::MIN] } else { [columns, -columns] };
    let mut common = [0_i64; 2];
    world.all_reduce_into(&own[..], &mut common[..], SystemOperation::min());
    if common[0] != -common[1] || common[0] <= 0 {
        return Err(Error::value("poisson: every rank must have a row, and all as many columns"));
    }

    let mut x = Array2::<f64>::zeros(b.dim());
    let mut residual = b.to_owned();
    let mut direction = residual.clone();
    let mut norm2 = dot(&world, residual.view(), residual.view());
    let mut steps = 0;
    while norm2.sqrt() > tolerance && steps < steps_max {
        call.check_interrupt()?;
        let (above, below) = halo(&world, direction.view());
        let product = minus_laplacian(direction.view(), &above, &below);
        let along = norm2 / dot(&world, direction.view(), product.view());
        x.scaled_add(along, &direction);
        residual.scaled_add(-along, &product);
        let next = dot(&world, residual.view(), residual.view());
        direction = &residual + &(direction * (next / norm2));
        norm2 = next;
        steps += 1;
    }
    Ok((x, steps as i64, norm2.sqrt()))
}

fn dot(world: &SimpleCommunicator, left: ArrayView2<'_, f64>, right: ArrayView2<'_, f64>) -> f64 {
    let own: f64 = left.iter().zip(right).map(|(left, right)| left * right).sum();
    let mut sum = 0.0;
    world.all_reduce_into(&own, &mut sum, SystemOperation::sum());
    sum
}

/// The rows of the neighbours before the first and after the last one; 0 where the square ends.
fn halo(world: &SimpleCommunicator, x: ArrayView2<'_, f64>) -> (Vec<f64>, Vec<f64>) {
    let (rank, size, rows) = (world.rank(), world.size(), x.nrows());
    let (first, last) = (x.row(0).to_vec(), x.row(rows - 1).to_vec());
    let (mut above, mut below) = (vec![0.0; x.ncols()], vec![0.0; x.ncols()]);
    // First the pairs (0, 1), (2, 3), … meet, then (1, 2), (3, 4), ….
    for phase in 0..2 {
        if rank % 2 == phase && rank + 1 < size {
            let peer = world.process_at_rank(rank + 1);
            p2p::send_receive_into(&last[..], &peer, &mut below[..], &peer);
        } else if rank % 2 != phase && rank > 0 {
            let peer = world.process_at_rank(rank - 1);
            p2p::send_receive_into(&first[..], &peer, &mut above[..], &peer);
        }
    }
    (above, below)
}

fn minus_laplacian(x: ArrayView2<'_, f64>, above: &[f64], below: &[f64]) -> Array2<f64> {
    let rows = x.nrows();
    Array2::from_shape_fn(x.dim(), |(i, j)| {
        let up = if i == 0 { above[j] } else { x[[i - 1, j]] };
        let down = if i + 1 == rows { below[j] } else { x[[i + 1, j]] };
        let side = |j: usize| x.get((i, j)).copied().unwrap_or(0.0);
        4.0 * x[[i, j]] - up - down - side(j.wrapping_sub(1)) - side(j + 1)
    })
}

#[cfg(test)]
mod tests {
    use commworld_module::ndarray::array;

    use super::*;

    #[test]
    fn rows_of_the_neighbours_count_and_beyond_the_sides_is_nothing() {
        let product = minus_laplacian(array![[1.0, 2.0]].view(), &[10.0, 20.0], &[100.0, 200.0]);
        assert_eq!(product, array![[4.0 - 110.0 - 2.0, 8.0 - 220.0 - 1.0]]);
    }
}
