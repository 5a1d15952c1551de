//! Solves -Δx = b on a square by conjugate gradients on all ranks, and checks the equation here.

use anyhow::bail;
use client::Value;
use client::array::{from_wire, join, to_wire};
use mpi_examples::modules::load_rust;
use mpi_examples::picture::{coloured, diverging, write_png};
use ndarray::{Array2, Ix2};

const SIDE: usize = 60;
const TOLERANCE: f64 = 1e-9;

fn main() -> anyhow::Result<()> {
    let options = mpi_examples::Options::read();
    let client = options.connect()?;
    let all = client.all();
    load_rust(&all)?;

    // A charge, and one of the other sign.
    let mut b = Array2::zeros((SIDE, SIDE));
    b[[SIDE / 3, SIDE / 3]] = 1.0;
    b[[2 * SIDE / 3, SIDE / 2]] = -1.0;
    all.scatter("b", &Value::Array(to_wire(b.clone().into_dyn())))?.get()?;
    all.execute(&format!("solution = poisson(b, {TOLERANCE}, 1000)"))?.get()?;
    let Value::Array(x) = join(all.pull("solution[0]")?.get()?)? else { bail!("poisson gave no array") };
    let steps = all.pull("solution[1]")?.get()?;
    assert!(steps.iter().all(|rank| *rank == steps[0]), "all ranks stop together: {steps:?}");
    let Value::Int(steps) = steps[0] else { bail!("poisson gave no number of steps") };

    let x = from_wire::<f64>(&x)?.into_owned().into_dimensionality::<Ix2>()?;
    let at = |i: usize, j: usize| x.get((i, j)).copied().unwrap_or(0.0);
    let residual2: f64 = b
        .indexed_iter()
        .map(|((i, j), b)| {
            let around = at(i.wrapping_sub(1), j) + at(i + 1, j) + at(i, j.wrapping_sub(1)) + at(i, j + 1);
            (b - (4.0 * x[[i, j]] - around)).powi(2)
        })
        .sum();
    assert!(residual2.sqrt() < 10.0 * TOLERANCE, "the residual is {}", residual2.sqrt());
    assert!((1..1000).contains(&steps), "{steps} steps");
    if let Some(path) = &options.picture {
        write_png(path, &[coloured(x.view(), 5, |x| diverging(3.0 * x))], 0)?;
    }
    println!("{} unknowns on {} ranks: solved in {steps} steps", x.len(), all.engines()?.len());
    Ok(())
}
