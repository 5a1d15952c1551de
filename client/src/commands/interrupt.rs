//! `client interrupt`: ends what runs.

use std::time::Duration;

use crate::cli::App;

/// Arguments of `interrupt`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "A collective waits for all ranks, so all ranks of a target's world are interrupted. Idle engines ignore it.\n\nExample:\n  client interrupt"
)]
pub(crate) struct Args {}

impl Args {
    pub(crate) fn run(self, app: &App) -> anyhow::Result<()> {
        let outcomes = app.view().interrupt()?.join(app.global.timeout.unwrap_or(Duration::from_secs(5)))?;
        app.check(&outcomes)?;
        if !app.global.json {
            crate::watch::print(&format!("interrupted {} engines\n", outcomes.len()));
        }
        Ok(())
    }
}
