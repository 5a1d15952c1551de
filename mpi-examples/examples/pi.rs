//! Estimates π on all ranks at once.

use std::f64::consts::PI;
use std::time::Instant;

use anyhow::bail;
use client::Value;

const POINTS: i64 = 10_000_000;
const SEED: i64 = 2026;

fn main() -> anyhow::Result<()> {
    let client = mpi_examples::connect()?;
    let started = Instant::now();
    let estimates = client.all().apply("estimate_pi", &[POINTS.into(), SEED.into()], &[])?.get()?;
    let elapsed = started.elapsed();

    let [Value::Float(estimate), ..] = estimates[..] else { bail!("estimate_pi gave {estimates:?}") };
    assert!(estimates.iter().all(|other| *other == Value::Float(estimate)), "one reduction, one number");

    // A point hits with probability π/4; five standard deviations are exceeded once in two million seeds.
    let deviation = (PI * (4.0 - PI) / POINTS as f64).sqrt();
    assert!((estimate - PI).abs() < 5.0 * deviation, "{estimate} is not π");
    println!("π ≈ {estimate:.5} ± {deviation:.5} from {} ranks in {elapsed:.2?}", estimates.len());
    Ok(())
}
