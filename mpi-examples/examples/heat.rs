//! Solves the heat equation on all ranks, and again here: both must agree to the last bit.

use anyhow::bail;
use client::Value;
use client::array::{from_wire, vector};

const CELLS: usize = 100;
const STEPS: usize = 50;

fn main() -> anyhow::Result<()> {
    let client = mpi_examples::connect()?;
    let all = client.all();

    let mut rod = vec![0.0; CELLS];
    rod[CELLS / 3] = 1000.0;
    all.scatter("u", &vector(rod.clone()))?.get()?;
    all.execute(&format!("u = heat(u, {STEPS})"))?.get()?;
    let Value::Array(parallel) = all.gather("u")? else { bail!("heat gave no array") };

    for _ in 0..STEPS {
        rod = mpi_examples::heat::step(&rod, 0.0, 0.0);
    }
    // The same operations in the same order on every cell: no rounding may differ.
    let parallel = from_wire::<f64>(&parallel)?;
    assert_eq!(parallel.as_slice(), Some(rod.as_slice()));

    let warmest = rod.iter().fold(0.0_f64, |warmest, cell| warmest.max(*cell));
    println!(
        "{STEPS} steps on {} ranks: the warmest of {CELLS} cells has {warmest:.1}",
        all.engines()?.len()
    );
    Ok(())
}
