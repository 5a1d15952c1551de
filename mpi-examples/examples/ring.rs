//! Sends a token round all ranks and shows what each of them received.

use client::array::vector;

fn main() -> anyhow::Result<()> {
    let client = mpi_examples::connect()?;
    let received = client.all().apply("ring", &[], &[])?.get()?;

    let size = i64::try_from(received.len())?;
    for (rank, token) in (0..).zip(&received) {
        // Rank 0 began the round, so it receives last: the numbers of all.
        let length = if rank == 0 { size } else { rank };
        assert_eq!(*token, vector((0..length).collect::<Vec<i64>>()), "rank {rank}");
    }
    println!("the token passed {size} ranks and came back to rank 0");
    Ok(())
}
