//! Four MPI engines: how soon they can be used, what a psum cell costs client to client, how fast an interrupt is.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use client::{Client, ConnectOptions, Targets};
use tests::{Engines, TestCluster, mpiexec, program};

use crate::figures::{Samples, heading, row};

const RANKS: usize = 4;

pub(crate) fn run(rounds: usize) -> Result<()> {
    println!();
    start_up(rounds)?;
    let cluster = TestCluster::start(Engines::Mpi, RANKS);
    let client = cluster.connect();
    psum_cells(&client, rounds)?;
    interrupts(&client, rounds)
}

/// From the command to the moment when a client's psum over all ranks was answered.
fn start_up(rounds: usize) -> Result<()> {
    let (mut usable, mut answered) = (Samples::default(), Samples::default());
    for _ in 0..rounds {
        let profile = tempfile::tempdir()?;
        let started = Instant::now();
        let output = Command::new(program("cluster"))
            .args(["start", "-n", "4", "--daemonize", "--profile-dir"])
            .arg(profile.path())
            .output()?;
        if !output.status.success() {
            bail!("cluster start failed: {}", String::from_utf8_lossy(&output.stderr));
        }
        usable.push(started.elapsed());
        let client = Client::connect(&ConnectOptions::profile_dir(profile.path()))?;
        client.all().psum("1")?.get()?;
        answered.push(started.elapsed());
        Command::new(program("cluster")).args(["stop", "--profile-dir"]).arg(profile.path()).output()?;
    }
    println!(
        "start-up: {RANKS} MPI engines usable after {:.0} ms, first psum answered after {:.0} ms",
        usable.median() / 1e3,
        answered.median() / 1e3
    );
    Ok(())
}

fn psum_cells(client: &Client, rounds: usize) -> Result<()> {
    client.all().execute("a = rand(100)")?.get()?;
    let (mut cells, mut empty) = (Samples::default(), Samples::default());
    for _ in 0..rounds {
        for _ in 0..400 {
            let started = Instant::now();
            client.all().execute("s = psum(a)")?.get()?;
            cells.push(started.elapsed());
            let started = Instant::now();
            client.all().execute("s = 1")?.get()?;
            empty.push(started.elapsed());
        }
    }
    let inside =
        client.all().pull("{ let t = time(); for i in 0..10000 { s = psum(a); } (time() - t) / 10000 }")?;
    let inside: Vec<f64> = inside
        .get()?
        .into_iter()
        .filter_map(
            |value| if let client::Value::Float(seconds) = value { Some(seconds * 1e6) } else { None },
        )
        .collect();
    let bare = bare_all_reduce()?;
    println!("\npsum over {RANKS} ranks (rival: a bare MPI_Allreduce of 8 bytes in a loop)");
    heading();
    let rival = format!("p50 {bare:.1} µs");
    let median = cells.median();
    row(
        "cell, client to client",
        format!("p50 {median:.0} µs, p99 {:.0}", cells.quantile(0.99)),
        rival.clone(),
        median / bare,
    );
    row(
        "cell without a collective",
        format!("p50 {:.0} µs", empty.median()),
        rival.clone(),
        empty.median() / bare,
    );
    if let Some(&inside) = inside.first() {
        row("psum in a loop inside one cell", format!("mean {inside:.1} µs"), rival, inside / bare);
    }
    Ok(())
}

/// The median that `engine/examples/allreduce_cost.rs` measures, without anything of ours around the call.
fn bare_all_reduce() -> Result<f64> {
    let output = mpiexec(RANKS).arg(program("examples/allreduce_cost")).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines()
        .filter(|line| line.contains("bare MPI_Iallreduce"))
        .find_map(|line| line.split("p50").nth(1)?.split_whitespace().next()?.parse().ok())
        .with_context(|| format!("allreduce_cost printed no median of the bare call: {text}"))
}

fn interrupts(client: &Client, rounds: usize) -> Result<()> {
    let mut samples = Samples::default();
    for _ in 0..rounds.max(1) * 4 {
        let result = client.all().execute("if rank() != 3 { barrier() }")?;
        while client
            .engine_status(&Targets::All, Duration::from_secs(5))?
            .values()
            .filter(|state| state.waiting_in.is_some())
            .count()
            < RANKS - 1
        {}
        let started = Instant::now();
        client.all().interrupt()?;
        result.join(Duration::from_secs(10))?;
        samples.push(started.elapsed());
    }
    println!(
        "\ninterrupt of a barrier that one rank never enters: p50 {:.0} ms, worst {:.0} ms",
        samples.median() / 1e3,
        samples.quantile(1.0) / 1e3
    );
    Ok(())
}
