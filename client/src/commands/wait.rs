//! `client wait -n 4`: waits until a cluster and its engines are there.

use std::time::Duration;

use client::targets::compact;

use crate::cli::App;

/// How long it waits without `--timeout`.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Arguments of `wait`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  client wait -n 4 --timeout 30 && client run job.rhai")]
pub(crate) struct Args {
    /// How many engines.
    #[arg(short = 'n', long = "engines", default_value_t = 1)]
    count: usize,
}

impl Args {
    pub(crate) fn run(self, app: &App) -> anyhow::Result<()> {
        let timeout = app.global.timeout.unwrap_or(PATIENCE);
        let ids = app.client.wait_for_engines(self.count, timeout)?;
        let numbers: Vec<u32> = ids.iter().map(|id| id.0).collect();
        let page = if app.global.json {
            serde_json::json!(numbers).to_string()
        } else {
            format!("engines {}", compact(&ids))
        };
        crate::watch::print(&format!("{page}\n"));
        Ok(())
    }
}
