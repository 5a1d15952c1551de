//! `client run FILE`: runs a file on the engines.

use std::path::PathBuf;

use crate::cli::App;

/// Arguments of `run`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Functions that the file defines can be used by later cells.\n\nExample:\n  client run setup.rhai && client px 'step(3)'"
)]
pub(crate) struct Args {
    /// The file; it is read here, not on the engines.
    #[arg(value_name = "FILE")]
    path: PathBuf,
}

impl Args {
    pub(crate) fn run(self, app: &App) -> anyhow::Result<()> {
        app.show(&app.view().run_file(&self.path)?).map(drop)
    }
}
