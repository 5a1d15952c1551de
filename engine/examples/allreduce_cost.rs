//! What a collective costs here and in bare MPI, what user code's own call of MPI costs when it can be interrupted, and
//! what a rank costs that waits.
//!
//! `cargo build --release -p engine --example allreduce_cost`, then
//! `mpiexec --oversubscribe -n 4 target/release/examples/allreduce_cost`

use std::ffi::c_int;
use std::rc::Rc;
use std::time::{Duration, Instant};

use engine::array::Array;
use engine::communicator::{CommError, Communicator, ReduceOp};
use engine::interrupt::Interrupt;
use engine::mpi::World;
use mpi::ffi;

const CALLS: usize = 1000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let world = Rc::new(World::init(None, Interrupt::new())?);
    world.take_over_user_calls(true)?;
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
        for (len, calls) in [(1, CALLS), (1 << 20, 50)] {
            user_calls(&world, len, calls);
        }
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
    let world = Rc::into_inner(world).ok_or("somebody else has the world")?;
    world.finalize(Duration::from_secs(10))?;
    Ok(())
}

/// The ways to all-reduce, each in a block of its own: the blocking one does not yield, which would show in the others.
fn user_calls(world: &World, len: usize, calls: usize) {
    let (mine, mut sums) = (vec![1.0f64; len], vec![0.0f64; len]);
    let mut durations = [const { Vec::new() }; 3];
    for (way, durations) in durations.iter_mut().enumerate() {
        for _ in 0..calls {
            let started = Instant::now();
            let (send, receive, n) = (mine.as_ptr().cast(), sums.as_mut_ptr().cast(), len as c_int);
            // SAFETY: both arrays have `n` numbers and live until all is done.
            let code = unsafe {
                let (kind, op, comm) = (ffi::RSMPI_DOUBLE, ffi::RSMPI_SUM, ffi::RSMPI_COMM_WORLD);
                match way {
                    0 => ffi::PMPI_Allreduce(send, receive, n, kind, op, comm),
                    1 => {
                        let (mut request, mut done) = (ffi::RSMPI_REQUEST_NULL, 0);
                        ffi::PMPI_Iallreduce(send, receive, n, kind, op, comm, &mut request);
                        while done == 0 {
                            ffi::PMPI_Test(&mut request, &mut done, ffi::RSMPI_STATUS_IGNORE);
                            std::thread::yield_now();
                        }
                        0
                    }
                    _ => ffi::MPI_Allreduce(send, receive, n, kind, op, comm),
                }
            };
            durations.push(started.elapsed());
            assert_eq!((code, sums[len - 1]), (0, world.size() as f64));
        }
    }
    let names = ["PMPI_Allreduce", "PMPI_Iallreduce + PMPI_Test", "MPI_Allreduce, taken over"];
    let mut medians = [0.0; 3];
    for ((name, durations), median) in names.into_iter().zip(durations).zip(&mut medians) {
        let mut sorted = durations.clone();
        sorted.sort_unstable();
        *median = sorted[sorted.len() / 2].as_secs_f64();
        report(world, &format!("{name}, {} B", len * 8), durations);
    }
    if world.rank() == 0 {
        let (blocking, bare) = (medians[2] / medians[0], medians[2] / medians[1]);
        println!("  taken over: {blocking:.2} times the blocking call, {bare:.2} times the non-blocking one");
    }
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
