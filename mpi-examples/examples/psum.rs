//! Divides an array over the engines, adds it up with our own reduction, and compares with the prompt's.

use client::Value;
use client::array::vector;

fn main() -> anyhow::Result<()> {
    let client = mpi_examples::connect()?;
    let all = client.all();

    let numbers: Vec<f64> = (1..=1000).map(f64::from).collect();
    all.scatter("a", &vector(numbers))?.get()?;

    // Functions of the engine are used in cells like any other; the values stay on the engines.
    all.execute("ours = parallel_sum(a); theirs = psum(a)")?.get()?;
    let sums = all.pull_all(&["ours", "theirs"])?.get()?;

    // Whole numbers this small are exact in floats, so that the order of additions does not matter.
    let expected = Value::List(vec![Value::Float(500_500.0), Value::Float(500_500.0)]);
    assert!(sums.iter().all(|sum| *sum == expected), "{sums:?}");
    println!("1 + 2 + … + 1000 = 500500 on each of {} ranks", sums.len());
    Ok(())
}
