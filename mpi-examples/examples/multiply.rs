//! Multiplies two matrices whose rows are divided over the ranks, by a kernel in Fortran.

use anyhow::bail;
use client::Value;
use client::array::{from_wire, to_wire};
use mpi_examples::modules::load_fortran;
use ndarray::{Array2, Ix2};

fn main() -> anyhow::Result<()> {
    let client = mpi_examples::connect()?;
    let all = client.all();
    load_fortran(&all, "multiply.f90")?;

    // Whole numbers, whose sums have no rounding: the answer must be exact.
    let a = Array2::from_shape_fn((60, 45), |(i, j)| ((3 * i + 7 * j) % 11) as f64 - 5.0);
    let b = Array2::from_shape_fn((45, 30), |(i, j)| ((5 * i + 2 * j) % 13) as f64 - 6.0);
    all.scatter("a", &Value::Array(to_wire(a.clone().into_dyn())))?.get()?;
    all.scatter("b", &Value::Array(to_wire(b.clone().into_dyn())))?.get()?;
    all.execute("c = multiply(a, b)")?.get()?;
    let Value::Array(product) = all.gather("c")? else { bail!("multiply gave no array") };

    let product = from_wire::<f64>(&product)?.into_owned().into_dimensionality::<Ix2>()?;
    assert_eq!(product, a.dot(&b));

    // What does not fit is said by all ranks: none waits for another.
    let wrong = all.pull("multiply(b, a)")?.get().expect_err("45 × 30 times 60 × 45");
    assert!(wrong.to_string().contains("as many columns as b has rows"), "{wrong}");
    println!("60 × 45 times 45 × 30 on {} ranks, exact", all.engines()?.len());
    Ok(())
}
