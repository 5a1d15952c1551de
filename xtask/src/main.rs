//! The project's own commands. `cargo xtask ci` is what CI runs, quickest checks first.

mod bench;
mod foreign;
mod fuzz;
mod sim;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};

/// The project's own commands.
#[derive(Parser)]
#[command(name = "cargo xtask", help_expected = true)]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Everything that must pass: lint, build, all tests, the documentation.
    Ci,
    /// Formatting, clippy with warnings denied, tidy.
    Lint,
    /// The rules of ARCHITECTURE.md that a program can check.
    Tidy {
        /// Accept the messages as documented: writes their fingerprint into docs/PROTOCOL.md.
        #[arg(long)]
        bless: bool,
    },
    /// Measures against a bare libzmq relay and a bare MPI_Allreduce, in one run.
    Bench(bench::Arguments),
    /// Runs the fuzz targets for a while each (needs a nightly compiler and cargo-fuzz).
    Fuzz(fuzz::Arguments),
    /// Runs many seeds of the controller's simulation, or traces one.
    Sim(sim::Arguments),
    /// Runs ipyparallel's own tests against our controller; fails if one fails that passes with theirs.
    Foreign(foreign::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let root = root();
    let outcome = match arguments.command {
        Task::Ci => ci(&root),
        Task::Lint => lint(&root),
        Task::Tidy { bless } => tidy::run(&root, bless),
        Task::Bench(arguments) => bench::run(&root, &arguments),
        Task::Fuzz(arguments) => fuzz::run(&root, &arguments),
        Task::Sim(arguments) => sim::run(&root, &arguments),
        Task::Foreign(arguments) => foreign::run(&root, &arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn ci(root: &Path) -> Result<()> {
    lint(root)?;
    // Process tests start these programs; `cargo test` alone would not build another package's binaries.
    step(root, "build", cargo(root).args(["build", "--workspace", "--bins", "--examples"]))?;
    // A library that programs load belongs to none of them.
    let libraries = ["build", "--package", "engine-python", "--package", "kernels-rust"];
    step(root, "libraries", cargo(root).args(libraries))?;
    // The first time, this takes a minute that should not be counted for a test.
    step(root, "ipyparallel", Command::new(root.join("scripts/foreign.sh")).stdout(Stdio::null()))?;
    step(root, "tests", cargo(root).args(["test", "--workspace", "--no-fail-fast"]))?;
    foreign::quick(root)?;
    step(
        root,
        "engine tests without MPI",
        cargo(root).args(["test", "--package", "engine", "--no-default-features", "--lib"]),
    )?;
    step(
        root,
        "documentation",
        cargo(root).args(["doc", "--workspace", "--no-deps", "--lib"]).env("RUSTDOCFLAGS", "-D warnings"),
    )
}

fn lint(root: &Path) -> Result<()> {
    step(root, "formatting", cargo(root).args(["fmt", "--all", "--check"]))?;
    tidy::run(root, false)?;
    step(
        root,
        "clippy",
        cargo(root).args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]),
    )?;
    step(
        root,
        "clippy without MPI",
        cargo(root).args([
            "clippy",
            "--package",
            "engine",
            "--no-default-features",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ]),
    )
}

/// Runs one step and says how long it took.
pub(crate) fn step(root: &Path, name: &str, command: &mut Command) -> Result<()> {
    eprintln!("── {name}");
    let started = Instant::now();
    let status =
        command.current_dir(root).status().with_context(|| format!("failed to start {command:?}"))?;
    if !status.success() {
        bail!("{name} failed ({status}); to repeat it: {command:?}");
    }
    eprintln!("── {name}: {:.0} s", started.elapsed().as_secs_f64());
    Ok(())
}

pub(crate) fn cargo(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root);
    command
}

/// The workspace: the folder above this package.
fn root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().expect("xtask is a folder of the workspace").to_owned()
}
