//! What a collective costs here and in bare MPI, and what a rank costs that waits.
//!
//! `cargo build --release -p engine --example allreduce_cost`, then
//! `mpiexec --oversubscribe -n 4 target/release/examples/allreduce_cost`

use std::time::{Duration, Instant};

use engine::array::Array;
use engine::communicator::{CommError, Communicator, ReduceOp};
use engine::interrupt::Interrupt;
use engine::mpi::World;

const CALLS: usize = 1000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let world = World::init(None, Interrupt::new())?;
    let call = |array: &Array| -> Result<Vec<Duration>, CommError> {
        let mut durations = Vec::with_capacity(CALLS);
        for _ in 0..CALLS {
            let started = Instant::now();
            world.all_reduce(array, ReduceOp::Sum)?;
            durations.push(started.elapsed());
        }
        Ok(durations)
    };
    let barriers = || -> Result<Vec<Duration>, CommError> {
        let mut durations = Vec::with_capacity(CALLS);
        for _ in 0..CALLS {
            let started = Instant::now();
            world.barrier()?;
            durations.push(started.elapsed());
        }
        Ok(durations)
    };
    for repetition in 1..=3 {
        if world.rank() == 0 {
            println!("repetition {repetition}, {} ranks:", world.size());
        }
        report(&world, "bare MPI_Iallreduce + MPI_Test, 8 B", world.bare_all_reduces(CALLS)?);
        report(&world, "allreduce, 8 B", call(&Array::scalar(1.0f64))?);
        report(&world, "allreduce, 8 KiB", call(&Array::from_vec(vec![1.0f64; 1024]))?);
        report(&world, "barrier", barriers()?);
    }
    if world.rank() + 1 == world.size() {
        std::thread::sleep(Duration::from_secs(15));
    }
    let (started, before) = (Instant::now(), cpu_time());
    world.barrier()?;
    let share = (cpu_time() - before).as_secs_f64() / started.elapsed().as_secs_f64();
    let waited = started.elapsed();
    let shares = world.gather(&Array::scalar(share * 100.0), 0)?;
    if let Some(Array::F64(shares)) = shares {
        println!(
            "waiting {:.1} s for the last rank took {shares:.2} % of a core on each rank",
            waited.as_secs_f64()
        );
    }
    world.finalize(Duration::from_secs(10))?;
    Ok(())
}

fn report(world: &World, what: &str, mut durations: Vec<Duration>) {
    durations.sort_unstable();
    let us = |fraction: usize| durations[(durations.len() - 1) * fraction / 100].as_secs_f64() * 1e6;
    let mean = durations.iter().sum::<Duration>().as_secs_f64() * 1e6 / durations.len() as f64;
    if world.rank() == 0 {
        let (p50, p99) = (us(50), us(99));
        println!("  {what:<38} p50 {p50:8.1} us   p99 {p99:8.1} us   mean {mean:8.1} us");
    }
}

fn cpu_time() -> Duration {
    nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF)
        .map(|usage| {
            let seconds = |time: nix::sys::time::TimeVal| {
                Duration::from_secs(time.tv_sec().unsigned_abs())
                    + Duration::from_micros(time.tv_usec().unsigned_abs())
            };
            seconds(usage.user_time()) + seconds(usage.system_time())
        })
        .unwrap_or_default()
}
