//! The parallel sum in C, Fortran and Rust: compiled now, loaded into engines that run, called beside each other.

use client::Value;
use client::array::vector;
use mpi_examples::modules::{load_c, load_fortran, load_rust};

fn main() -> anyhow::Result<()> {
    let client = mpi_examples::connect()?;
    let all = client.all();
    let numbers: Vec<f64> = (1..=1000).map(f64::from).collect();
    all.scatter("a", &vector(numbers.clone()))?.get()?;

    load_c(&all, "psum.c")?;
    load_fortran(&all, "psum.f90")?;
    load_rust(&all)?;
    let expected = numbers.iter().sum::<f64>();
    for function in ["psum", "psum_c", "psum_f", "psum_rust"] {
        // Every rank has the sum of all. Whole numbers have no rounding.
        for sum in all.pull(&format!("{function}(a)"))?.get()? {
            assert_eq!(sum, Value::Float(expected), "{function}");
        }
    }
    println!(
        "{expected} by the prompt's psum, in C, in Fortran and in Rust, on {} ranks",
        all.engines()?.len()
    );
    Ok(())
}
