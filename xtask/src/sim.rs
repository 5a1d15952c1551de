//! Runs more seeds of the controller's simulation than the tests do, or shows what happens in one.

use std::path::Path;

use anyhow::Result;

use crate::{cargo, step};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How many seeds.
    #[arg(long, default_value_t = 100_000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// This seed alone.
    #[arg(long, conflicts_with_all = ["seeds", "first"])]
    seed: Option<u64>,
    /// Print everything that happens in the seed.
    #[arg(long, requires = "seed")]
    trace: bool,
}

pub(crate) fn run(root: &Path, arguments: &Arguments) -> Result<()> {
    let (first, count) = match arguments.seed {
        Some(seed) => (seed, 1),
        None => (arguments.first, arguments.seeds),
    };
    let mut command = cargo(root);
    command
        .args(["test", "--package", "controller", "--lib", "--", "--nocapture", "--exact"])
        .arg("machine::tests::simulation::every_request_of_every_seed_is_answered_once")
        .env("COMMWORLD_SIM_FIRST", first.to_string())
        .env("COMMWORLD_SIM_SEEDS", count.to_string());
    if arguments.trace {
        command.env("COMMWORLD_SIM_TRACE", "1");
    }
    step(root, "simulation", &mut command)
}
