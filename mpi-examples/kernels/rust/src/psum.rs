//! The parallel sum, and a function of one rank alone.

use commworld_module::{Array2, ArrayView1, ArrayView2, Call, Error};
use mpi::collective::SystemOperation;
use mpi::traits::CommunicatorCollectives;

pub(crate) fn psum_rust(call: &Call<'_>, a: ArrayView1<'_, f64>) -> Result<f64, Error> {
    let mut sum = 0.0;
    call.world()?.all_reduce_into(&a.sum(), &mut sum, SystemOperation::sum());
    Ok(sum)
}

/// One step of heat on this rank's rows, without the halo.
pub(crate) fn smooth(_call: &Call<'_>, a: ArrayView2<'_, f64>, by: f64) -> Result<Array2<f64>, Error> {
    if !(0.0..=0.25).contains(&by) {
        return Err(Error::value(format!("smooth: {by} is not from 0 to 0.25")));
    }
    let (rows, columns) = a.dim();
    Ok(Array2::from_shape_fn((rows, columns), |(i, j)| {
        let at = |i: usize, j: usize| a[[i.min(rows - 1), j.min(columns - 1)]];
        let around = at(i.saturating_sub(1), j) + at(i + 1, j) + at(i, j.saturating_sub(1)) + at(i, j + 1);
        a[[i, j]] + by * (around - 4.0 * a[[i, j]])
    }))
}
