//! Builds everything optimised and runs the benchmark program, `tests/src/bin/bench.rs`.

use std::path::Path;

use anyhow::Result;

use crate::{cargo, step};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Passed to the benchmark; `cargo xtask bench -- --help` lists what it takes.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    passed_on: Vec<String>,
}

pub(crate) fn run(root: &Path, arguments: &Arguments) -> Result<()> {
    step(
        root,
        "optimised build",
        cargo(root).args(["build", "--release", "--workspace", "--bins", "--examples"]),
    )?;
    step(root, "Python plugin", cargo(root).args(["build", "--release", "--package", "engine-python"]))?;
    let mut command = cargo(root);
    command.args(["run", "--quiet", "--release", "--package", "tests", "--bin", "bench", "--"]);
    command.args(&arguments.passed_on);
    step(root, "benchmark", &mut command)
}
