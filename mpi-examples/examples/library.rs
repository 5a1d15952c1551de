//! The library from end to end: starts a cluster of its own, scatters an array, calls a compiled kernel on all ranks,
//! gathers, and plots. Needs no cluster: `cargo run -p mpi-examples --example library -- --picture library.png`.
//!
//! `COMMWORLD_CLUSTER` names the program `cluster`, if it is not in the PATH.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail, ensure};
use clap::Parser;
use client::array::{from_wire, to_wire};
use client::{Client, ConnectOptions, Value};
use mpi_examples::modules::load_c;
use mpi_examples::picture::{coloured, diverging, write_png};
use ndarray::{Array2, Axis, Ix2, s};

/// Cells along each side.
const SIDE: usize = 64;

/// A cluster that ends with this program, whatever happens.
struct Cluster {
    profile: tempfile::TempDir,
}

impl Cluster {
    fn start(engines: usize) -> anyhow::Result<Cluster> {
        let cluster = Cluster { profile: tempfile::tempdir()? };
        let status = cluster.command(&["start", "--daemonize", "-n", &engines.to_string()]).status();
        ensure!(status.context("run `cluster`; is it in the PATH?")?.success(), "the cluster did not start");
        Ok(cluster)
    }

    fn profile(&self) -> &Path {
        self.profile.path()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command =
            Command::new(std::env::var_os("COMMWORLD_CLUSTER").unwrap_or_else(|| "cluster".into()));
        command.args(arguments).arg("--profile-dir").arg(self.profile());
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = self.command(&["stop"]).status();
    }
}

#[derive(Parser)]
#[command(about = "Starts a cluster, lets a wave run over its ranks, and stops it.")]
struct Options {
    /// How many engines
    #[arg(short, default_value_t = 4)]
    n: usize,

    /// Where to write the wave before and after, beside each other (PNG)
    #[arg(long, value_name = "FILE")]
    picture: Option<std::path::PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let cluster = Cluster::start(options.n)?;
    let client = Client::connect(&ConnectOptions::profile_dir(cluster.profile()))?;
    let all = client.all();

    // Scatter an array: each rank has some of its rows.
    let start = Array2::from_shape_fn((SIDE, SIDE), |(i, j)| {
        let distance2 = (i as f64 - 20.0).powi(2) + (j as f64 - (SIDE - 1) as f64 / 2.0).powi(2);
        (-distance2 / 20.0).exp()
    });
    all.scatter("u", &Value::Array(to_wire(start.clone().into_dyn())))?.get()?;

    // Call a compiled kernel on every rank; its halo travels over MPI.
    load_c(&all, "wave.c")?;
    all.execute("w = wave(u, u, 40, 0.5); u = w[0]")?.get()?;

    // Reduce over all ranks, gather the parts here, and compare.
    let highest = all.pmax("max(u)")?.get()?;
    let Value::Array(end) = all.gather("u")? else { bail!("u is no array") };
    let end = from_wire::<f64>(&end)?.into_owned().into_dimensionality::<Ix2>()?;
    let here = end.iter().copied().fold(f64::MIN, f64::max);
    assert!(highest.iter().all(|rank| *rank == Value::Float(here)), "{highest:?} is not {here}");
    // It starts in the middle of its row, and runs to both sides alike.
    let mirrored = end.slice(s![.., ..;-1]);
    assert!(end.indexed_iter().all(|(at, u)| (u - mirrored[at]).abs() < 1e-12), "it is lopsided");

    if let Some(path) = &options.picture {
        let both = ndarray::concatenate(Axis(1), &[start.view(), end.view()])?;
        write_png(path, &[coloured(both.view(), 4, |u| diverging(2.5 * u))], 0)?;
    }
    println!(
        "a wave on {} ranks: after 40 steps the highest of {} cells has {here:.3}",
        options.n,
        end.len()
    );
    Ok(())
}
