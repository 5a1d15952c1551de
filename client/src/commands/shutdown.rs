//! `client shutdown`: ends engines, or the whole cluster.

use std::time::Duration;

use client::Targets;

use crate::cli::App;

/// Arguments of `shutdown`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "A cluster that `cluster start` started is better ended by `cluster stop`, which also removes its files.\n\nExamples:\n  client shutdown\n  client --targets 3 shutdown"
)]
pub(crate) struct Args {}

impl Args {
    pub(crate) fn run(self, app: &App) -> anyhow::Result<()> {
        if app.global.targets == Targets::All {
            return Ok(app.client.shutdown_cluster()?);
        }
        let timeout = app.global.timeout.unwrap_or(Duration::from_secs(10));
        app.check(&app.view().shutdown()?.join(timeout)?)
    }
}
