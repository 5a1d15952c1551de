//! Kernels in Rust, as a module: `load("libkernels_rust.so")`.

use commworld_module::{Array2, ArrayView1, ArrayView2, Call, Error, module};
use mpi::collective::SystemOperation;
use mpi::traits::CommunicatorCollectives;

fn psum_rust(call: &Call<'_>, a: ArrayView1<'_, f64>) -> Result<f64, Error> {
    let mut sum = 0.0;
    call.world()?.all_reduce_into(&a.sum(), &mut sum, SystemOperation::sum());
    Ok(sum)
}

/// One step of heat on this rank's rows, without the halo.
fn smooth(_call: &Call<'_>, a: ArrayView2<'_, f64>, by: f64) -> Result<Array2<f64>, Error> {
    if !(0.0..=0.25).contains(&by) {
        return Err(Error::value(format!("smooth: {by} is not from 0 to 0.25")));
    }
    let (rows, columns) = a.dim();
    Ok(Array2::from_shape_fn((rows, columns), |(i, j)| {
        let at = |i: usize, j: usize| a.get((i, j)).copied().unwrap_or(a[[i.min(rows - 1), j.min(columns - 1)]]);
        let around = at(i.saturating_sub(1), j) + at(i + 1, j) + at(i, j.saturating_sub(1)) + at(i, j + 1);
        a[[i, j]] + by * (around - 4.0 * a[[i, j]])
    }))
}

fn panics(call: &Call<'_>) {
    panic!("rank {} has had enough", call.rank());
}

module! {
    /// the sum of all elements of all ranks' arrays, in Rust
    fn psum_rust(a: ArrayView1<f64>);
    /// a matrix, each element moved towards its neighbours by at most a quarter
    fn smooth(a: ArrayView2<f64>, by: f64);
    /// panics, which ends the call and nothing else
    fn panics();
}
