//! `client gather NAME`: joins the engines' parts.

use std::path::PathBuf;

use client::array;

use super::pull;
use crate::cli::App;
use crate::text::{show, to_json};

/// Arguments of `gather`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Arrays are joined along the first axis, lists one after the other, in the order of the targets.\n\nExamples:\n  client gather x --json\n  client gather a --npy whole.npy"
)]
pub(crate) struct Args {
    /// The name, or an expression.
    name: String,
    /// Write the joined array to this file.
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    npy: Option<PathBuf>,
}

impl Args {
    pub(crate) fn run(self, app: &App) -> anyhow::Result<()> {
        let outcomes = app.follow(&app.view().pull(&self.name)?)?;
        app.check(&outcomes)?;
        let joined = array::join(pull::of(outcomes).into_iter().map(|(_, value)| value).collect())?;
        if let Some(path) = &self.npy {
            return pull::save(path, &joined);
        }
        let page = if app.global.json { to_json(&joined).to_string() } else { show(&joined) };
        crate::watch::print(&format!("{page}\n"));
        Ok(())
    }
}
