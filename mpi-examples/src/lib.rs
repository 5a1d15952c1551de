//! Worked examples: functions that an engine of one's own carries, kernels that any engine loads, and the client programs
//! that drive them.
//!
//! The engine is `src/main.rs`, the clients are in `examples/`. README.md says how to run them.

pub mod collatz;
pub mod heat;
pub mod hello;
pub mod logistic;
pub mod modules;
pub mod pi;
pub mod picture;
pub mod psum;
pub mod ring;
pub mod words;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::Parser;
use client::{Client, ConnectOptions};

/// How long an example waits for engines that have yet to join.
const PATIENCE: Duration = Duration::from_secs(30);

/// What every example can be told.
#[derive(Debug, Parser)]
#[command(
    about = "A worked example of Commworld: drives the engines of a cluster, and checks what they answer."
)]
pub struct Options {
    /// The profile directory of the cluster, if it is not the default one
    #[arg(long, value_name = "DIR")]
    profile_dir: Option<PathBuf>,

    /// Where to write the picture, if the example makes one (PNG)
    #[arg(long, value_name = "FILE")]
    pub picture: Option<PathBuf>,
}

impl Options {
    /// From the command line.
    pub fn read() -> Options {
        Options::parse()
    }

    /// Connects, and waits until a whole world is there.
    pub fn connect(&self) -> anyhow::Result<Client> {
        let options =
            self.profile_dir.as_ref().map_or_else(ConnectOptions::default, ConnectOptions::profile_dir);
        let client = Client::connect(&options).map_err(|error| anyhow!("failed to {error}"))?;
        client
            .wait_for_engines(1, PATIENCE)
            .context("start engines: cluster start -n 4 --engine-cmd example-engine")?;
        let worlds = client.engines();
        let size =
            worlds.iter().filter_map(|engine| engine.description.as_ref()).map(|who| who.world_size).max();
        client.wait_for_engines(size.unwrap_or(1) as usize, PATIENCE)?;
        Ok(client)
    }
}

/// Connects to the cluster of `--profile-dir <dir>`, or to the default one, and waits until a whole world is there.
pub fn connect() -> anyhow::Result<Client> {
    Options::read().connect()
}
