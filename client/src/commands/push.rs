//! `client push NAME=VALUE…`: assigns names on the engines.

use client::Value;

use crate::cli::App;
use crate::text::assignment;

/// Arguments of `push`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "A value is JSON, a file ending in .npy, or - (JSON or .npy from standard input); anything else is a string.\nLists of numbers of one kind become arrays: integers i64, with a fraction f64, truth values bool.\n\nExamples:\n  client push n=3 x=[1,2.5] name=run7\n  client push a=data.npy\n  generate | client push a=-"
)]
pub(crate) struct Args {
    /// What to assign.
    #[arg(required = true, value_name = "NAME=VALUE")]
    assignments: Vec<String>,
}

impl Args {
    pub(crate) fn run(self, app: &App) -> anyhow::Result<()> {
        push(app, &self.assignments)
    }
}

/// Assigns all at once.
pub(crate) fn push(app: &App, assignments: &[String]) -> anyhow::Result<()> {
    let values: Vec<(String, Value)> =
        assignments.iter().map(|text| assignment(text)).collect::<anyhow::Result<_>>()?;
    let pairs: Vec<(&str, Value)> =
        values.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
    app.show(&app.view().push(&pairs)?).map(drop)
}
