//! `client abort`: ends what waits.

use std::time::Duration;

use crate::cli::App;

/// Arguments of `abort`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "What runs already goes on; `client interrupt` ends that.\n\nExample:\n  client abort && client interrupt"
)]
pub(crate) struct Args {}

impl Args {
    pub(crate) fn run(self, app: &App) -> anyhow::Result<()> {
        let outcomes = app.view().abort()?.join(app.global.timeout.unwrap_or(Duration::from_secs(5)))?;
        app.check(&outcomes)
    }
}
