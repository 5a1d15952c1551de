//! Python engines against the original's: `tests/foreign/programs/python_cost.py`, with a cluster of each.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tests::{Engines, TestCluster, mpiexec};

/// How many ranks each world has.
const RANKS: usize = 4;

/// Compares them in `rounds` turns.
pub(crate) fn run(rounds: usize) -> Result<()> {
    let python = interpreter()?;
    let mut ours = TestCluster::controller(&[]);
    ours.add_program_with("engine", Engines::Mpi, RANKS, &[&format!("--python={}", python.display())]);
    let mut theirs = TestCluster::of(&python, &["-m", "ipyparallel.controller", "--ip=127.0.0.1"]);
    let mut engines = mpiexec(RANKS);
    engines.arg(&python).args(["-m", "ipyparallel.engine", "--mpi"]);
    engines.arg(format!("--profile-dir={}", theirs.profile().display()));
    theirs.add_launcher(&mut engines, "engines");
    let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("foreign/programs");
    let mut command = Command::new(&python);
    command
        .arg(programs.join("python_cost.py"))
        .env("PYTHONPATH", &programs)
        .env("PROFILE_DIR", ours.profile())
        .env("RIVAL_PROFILE_DIR", theirs.profile())
        .env("ROUNDS", rounds.to_string())
        .env("SECONDS_AT_MOST", "900");
    let status = command.status().context("failed to start Python")?;
    ensure!(status.success(), "python_cost.py: {status}");
    Ok(())
}

/// The Python that `scripts/foreign.sh` prepares.
fn interpreter() -> Result<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/foreign.sh");
    let output = Command::new(&script).output().context("failed to run scripts/foreign.sh")?;
    ensure!(output.status.success(), "scripts/foreign.sh: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).trim().into())
}
