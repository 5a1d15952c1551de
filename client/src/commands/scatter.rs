//! `client scatter NAME=VALUE`: divides a list or array over the engines.

use crate::cli::App;
use crate::text::assignment;

/// Arguments of `scatter`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Engine 0 gets the first block, and so on; where it does not divide evenly the first engines get one more.\n\nExamples:\n  client scatter x=[1,2,3,4,5,6]\n  client scatter a=data.npy        blocks of rows"
)]
pub(crate) struct Args {
    /// What to divide: JSON, a .npy file, or - for standard input.
    #[arg(value_name = "NAME=VALUE")]
    assignment: String,
}

impl Args {
    pub(crate) fn run(self, app: &App) -> anyhow::Result<()> {
        let (name, value) = assignment(&self.assignment)?;
        app.show(&app.view().scatter(&name, &value)?).map(drop)
    }
}
