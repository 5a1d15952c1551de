//! `client pull NAME…`: brings values here.

use std::path::PathBuf;

use client::{Answer, EngineOutcome, Value, array, npy};

use crate::cli::{App, Usage};
use crate::render::{Origin, group, labelled};
use crate::text::{show, to_json};

/// Arguments of `pull`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "With --json it prints a list with one value per engine; for several names an object of such lists.\n\nExamples:\n  client pull s --json            [51.9,51.9,51.9,51.9]\n  client --targets 0 pull a --npy a.npy\n  client pull a --npy all.npy     joined along the first axis"
)]
pub(crate) struct Args {
    /// Names, or expressions.
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Write an array to this file; those of several engines are joined along the first axis.
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    npy: Option<PathBuf>,
}

impl Args {
    pub(crate) fn run(self, app: &App) -> anyhow::Result<()> {
        if let Some(path) = &self.npy {
            let [name] = self.names.as_slice() else {
                return Err(
                    Usage("write --npy for several names: a .npy file holds one array".to_owned()).into()
                );
            };
            let mut values = values(app, name)?;
            let value = if values.len() == 1 {
                values.remove(0).1
            } else {
                array::join(values.into_iter().map(|(_, value)| value).collect())?
            };
            return save(path, &value);
        }
        if app.global.json {
            let mut columns = serde_json::Map::new();
            for name in &self.names {
                let column = values(app, name)?.iter().map(|(_, value)| to_json(value)).collect();
                columns.insert(name.clone(), column);
            }
            let page = match self.names.as_slice() {
                [name] => columns.remove(name).unwrap_or_default(),
                _ => columns.into(),
            };
            crate::watch::print(&format!("{page}\n"));
            return Ok(());
        }
        for name in &self.names {
            if self.names.len() > 1 {
                crate::watch::print(&format!("{}\n", app.style.bold(name)));
            }
            pull(app, name)?;
        }
        Ok(())
    }
}

/// Brings one expression's values here and shows them.
pub(crate) fn pull(app: &App, name: &str) -> anyhow::Result<()> {
    let values = values(app, name)?;
    let asked = values.len();
    let texts = values.into_iter().map(|(origin, value)| (origin, show(&value)));
    crate::watch::print(&labelled(&group(texts), asked, app.style));
    Ok(())
}

fn values(app: &App, name: &str) -> anyhow::Result<Vec<(Option<Origin>, Value)>> {
    let outcomes = app.follow(&app.view().pull(name)?)?;
    app.check(&outcomes)?;
    Ok(of(outcomes))
}

/// The values of outcomes that all went well.
pub(crate) fn of(outcomes: Vec<EngineOutcome>) -> Vec<(Option<Origin>, Value)> {
    let value = |outcome: EngineOutcome| {
        let origin = outcome.engine.as_deref().map(Origin::of);
        match outcome.result {
            Ok(Answer::Value(value)) => Some((origin, value)),
            _ => None,
        }
    };
    outcomes.into_iter().filter_map(value).collect()
}

/// Writes a `.npy` file.
pub(crate) fn save(path: &std::path::Path, value: &Value) -> anyhow::Result<()> {
    let as_array = match value {
        Value::Array(array) => array.clone(),
        other => match crate::text::from_json(&to_json(other)) {
            Value::Array(array) => array,
            // A scalar is an array without axes.
            Value::Float(number) => array::to_wire(ndarray::arr0(number).into_dyn()),
            Value::Int(number) => array::to_wire(ndarray::arr0(number).into_dyn()),
            Value::Bool(truth) => array::to_wire(ndarray::arr0(truth).into_dyn()),
            _ => anyhow::bail!("write {}: {} is no array; use --json", path.display(), array::kind(value)),
        },
    };
    npy::save(path, &as_array)?;
    Ok(())
}
