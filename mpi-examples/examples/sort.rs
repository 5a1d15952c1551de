//! Sorts numbers that are divided over the ranks, by a kernel in Rust.

use anyhow::bail;
use client::Value;
use client::array::{from_wire, vector};
use mpi_examples::modules::load_rust;

const COUNT: u64 = 100_000;

fn main() -> anyhow::Result<()> {
    let client = mpi_examples::connect()?;
    let all = client.all();
    load_rust(&all)?;

    // Far from in order, and some of them equal.
    let mut numbers: Vec<f64> = (0..COUNT).map(|i| (i.wrapping_mul(2_654_435_761) % 65_536) as f64).collect();
    all.scatter("a", &vector(numbers.clone()))?.get()?;
    all.execute("s = sorted(a)")?.get()?;
    let Value::Array(sorted) = all.gather("s")? else { bail!("sorted gave no array") };

    numbers.sort_by(f64::total_cmp);
    assert_eq!(from_wire::<f64>(&sorted)?.as_slice(), Some(numbers.as_slice()));

    let ranks = all.engines()?.len();
    let longest = all.pmax("len(s)")?.get()?;
    let Some(Value::Int(longest)) = longest.first() else { bail!("pmax gave no integer") };
    println!("{COUNT} numbers in order on {ranks} ranks; the longest piece has {longest}");
    Ok(())
}
