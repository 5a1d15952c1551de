//! Runs the fuzz targets. Their corpora are replayed by the ordinary tests.

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::{cargo, step};

/// Every fuzz target: one a parser.
const TARGETS: [&str; 4] = ["frames", "header", "connection_file", "value"];

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Which targets; all of them if none is named.
    targets: Vec<String>,
    /// Seconds for each target.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
}

pub(crate) fn run(root: &Path, arguments: &Arguments) -> Result<()> {
    let chosen: Vec<&str> = match arguments.targets.as_slice() {
        [] => TARGETS.to_vec(),
        named => named.iter().map(String::as_str).collect(),
    };
    if let Some(unknown) = chosen.iter().find(|target| !TARGETS.contains(target)) {
        bail!("no fuzz target is called {unknown}; there are: {}", TARGETS.join(", "));
    }
    for target in chosen {
        let found = format!("tests/fuzz/found/{target}");
        std::fs::create_dir_all(root.join(&found)).with_context(|| format!("failed to create {found}"))?;
        // cargo-fuzz drives a nightly compiler; the project itself builds with the stable one.
        let mut command = cargo(root);
        command
            .env_remove("CARGO")
            .env("RUSTUP_TOOLCHAIN", "nightly")
            .args(["fuzz", "run", "--fuzz-dir", "tests/fuzz", target])
            // What is found goes to the first folder; the second holds the seeds that tests replay.
            .arg(&found)
            .arg(format!("tests/fuzz/corpus/{target}"))
            .arg("--")
            .arg(format!("-max_total_time={}", arguments.seconds))
            .args(["-max_len=65536", "-print_final_stats=1"]);
        step(root, &format!("fuzz {target}"), &mut command)?;
    }
    Ok(())
}
