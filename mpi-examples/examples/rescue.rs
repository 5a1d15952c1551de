//! A collective that cannot end, and how to get out of it: the next reduction is right.
//!
//! Needs the prompt language only, so that a stock engine will do.

use std::time::Duration;

use client::{Targets, Value};

fn main() -> anyhow::Result<()> {
    let client = mpi_examples::connect()?;
    let all = client.all();
    let ranks = client.ids().len();

    // The last rank forgets to call; all others wait for it. Of one rank, nobody waits.
    let stuck = all.execute("if rank() != size() - 1 { psum(1) }")?;
    if ranks > 1 {
        loop {
            let states = client.engine_status(&Targets::All, Duration::from_secs(5))?;
            if states.values().filter(|state| state.waiting_in.is_some()).count() == ranks - 1 {
                break;
            }
            assert!(!stuck.is_done(), "the cell ended by itself: {:?}", stuck.outcomes());
        }
        all.interrupt()?.get()?;
    }
    let outcomes = stuck.join(Duration::from_secs(10))?;
    let errors: Vec<String> = outcomes
        .iter()
        .filter_map(|outcome| outcome.result.as_ref().err())
        .map(ToString::to_string)
        .collect();
    assert_eq!(errors.len(), ranks - 1, "{errors:?}");
    for error in &errors {
        assert!(error.contains(&format!("waited for rank {}", ranks - 1)), "{error}");
    }

    let sums = all.psum("1")?.get()?;
    assert_eq!(sums, vec![Value::Int(i64::try_from(ranks)?); ranks]);
    println!("{} ranks were freed; all {ranks} of them reduce again", errors.len());
    Ok(())
}
