//! `client apply FUNCTION ARGS…`: calls a function by name.

use client::Value;

use super::pull;
use crate::cli::App;
use crate::render::{group, labelled};
use crate::text::{show, to_json, value};

/// Arguments of `apply`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Arguments are written as for push.\n\nExamples:\n  client apply step 3 0.5\n  client apply step 3 --balanced     one call, on whichever engine has room"
)]
pub(crate) struct Args {
    /// A function of the engines' namespace.
    function: String,
    /// Its arguments.
    #[arg(allow_negative_numbers = true)]
    arguments: Vec<String>,
    /// Call it once, on whichever engine has room, instead of on every engine.
    #[arg(long)]
    balanced: bool,
    /// With --balanced: how often to try again after a failure.
    #[arg(long, default_value_t = 0, requires = "balanced")]
    retries: u32,
}

impl Args {
    pub(crate) fn run(self, app: &App) -> anyhow::Result<()> {
        let arguments: Vec<Value> =
            self.arguments.iter().map(|text| value(text)).collect::<anyhow::Result<_>>()?;
        let result = if self.balanced {
            let view = app.client.balanced().targets(app.global.targets.clone()).retries(self.retries);
            view.apply(&self.function, &arguments, &[])?
        } else {
            app.view().apply(&self.function, &arguments, &[])?
        };
        let outcomes = app.follow(&result)?;
        app.check(&outcomes)?;
        let values = pull::of(outcomes);
        if app.global.json {
            let page: serde_json::Value = values.iter().map(|(_, value)| to_json(value)).collect();
            crate::watch::print(&format!("{page}\n"));
            return Ok(());
        }
        let asked = values.len();
        let texts = values.into_iter().filter(|(_, value)| *value != Value::None);
        let texts = texts.map(|(origin, value)| (origin, show(&value)));
        crate::watch::print(&labelled(&group(texts), asked, app.style));
        Ok(())
    }
}
