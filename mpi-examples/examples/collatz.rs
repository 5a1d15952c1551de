//! Gives out a thousand tasks of very different length: whoever has room takes the next one.

use std::collections::BTreeSet;

use client::Value;

fn main() -> anyhow::Result<()> {
    let client = mpi_examples::connect()?;
    let starts: Vec<Value> = (1..=1000).map(Value::Int).collect();

    // A second try on another engine, should one be lost; results come in the order of the items.
    let result = client.balanced().retries(1).map("collatz", &starts)?;
    let steps = result.get()?;

    let longest = (1_i64..).zip(&steps).max_by_key(|(_, steps)| match steps {
        Value::Int(steps) => *steps,
        _ => -1,
    });
    assert_eq!(longest, Some((871, &Value::Int(178))), "the longest way below 1000");

    let workers: BTreeSet<_> =
        result.outcomes().into_iter().flatten().filter_map(|outcome| outcome.rank()).collect();
    println!(
        "the longest way from a start below 1000 is 871's, 178 steps; {} engines searched",
        workers.len()
    );
    Ok(())
}
