//! Worked examples: functions in Rust that an engine of one's own carries, and the client programs that drive them.
//!
//! | example | the engine's side | the client's side |
//! |---|---|---|
//! | hello | a function, its result and what it prints: [`hello`] | calls by name, output as it comes |
//! | psum | one reduction: [`psum`] | scatters an array, compares with the prompt's `psum` |
//! | pi | independent random numbers, one reduction, interruptible: [`pi`] | calls a long computation |
//! | ring | messages from rank to rank: [`ring`] | one result a rank |
//! | heat | halo exchange between neighbours: [`heat`] | scatter, cell, gather |
//! | collatz | tasks of very different length: [`collatz`] | a load-balanced map |
//! | rescue | the prompt language only | interrupts a collective that cannot end |
//!
//! The engine is `src/main.rs`, the clients are in `examples/`. README.md says how to run them.

pub mod collatz;
pub mod heat;
pub mod hello;
pub mod pi;
pub mod psum;
pub mod ring;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use client::{Client, ConnectOptions};

/// How long an example waits for engines that have yet to join.
const PATIENCE: Duration = Duration::from_secs(30);

/// Connects to the cluster of `--profile-dir <dir>`, or to the default one, and waits until a whole world is there.
pub fn connect() -> anyhow::Result<Client> {
    let mut arguments = std::env::args_os().skip(1);
    let options = match (arguments.next(), arguments.next(), arguments.next()) {
        (None, ..) => ConnectOptions::default(),
        (Some(flag), Some(dir), None) if flag == "--profile-dir" => {
            ConnectOptions::profile_dir(PathBuf::from(dir))
        }
        _ => bail!("the only option is --profile-dir <dir>; without it the default cluster is used"),
    };
    let client = Client::connect(&options).map_err(|error| anyhow!("failed to {error}"))?;
    client.wait_for_engines(1, PATIENCE).context("start engines: mpiexec -n 4 example-engine --mpi")?;
    let worlds = client.engines();
    let size = worlds.iter().filter_map(|engine| engine.description.as_ref()).map(|who| who.world_size).max();
    client.wait_for_engines(size.unwrap_or(1) as usize, PATIENCE)?;
    Ok(client)
}
