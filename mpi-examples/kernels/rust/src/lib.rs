//! Kernels in Rust, as a module: `load("libkernels_rust.so")`.

mod kmeans;
mod poisson;
mod psum;
mod sort;

use commworld_module::{ArrayView1, ArrayView2, Call, module};
use kmeans::kmeans;
use poisson::poisson;
use psum::{psum_rust, smooth};
use sort::sorted;

fn panics(call: &Call<'_>) {
    panic!("rank {} has had enough", call.rank());
}

module! {
    /// the sum of all elements of all ranks' arrays, in Rust
    fn psum_rust(a: ArrayView1<f64>);
    /// a matrix, each element moved towards its neighbours by at most a quarter
    fn smooth(a: ArrayView2<f64>, by: f64);
    /// this rank's piece of the elements of all ranks, in order: the lowest on rank 0; collective
    fn sorted(a: ArrayView1<f64>);
    /// the centres after so many rounds of k-means over the points of all ranks, one a row; collective
    fn kmeans(points: ArrayView2<f64>, centres: ArrayView2<f64>, rounds: usize);
    /// [x, how many steps it took, the norm of the residual] of -Δx = b on a square, by conjugate gradients; each rank
    /// has some rows; collective
    fn poisson(b: ArrayView2<f64>, tolerance: f64, steps_max: usize);
    /// panics, which ends the call and nothing else
    fn panics();
}
