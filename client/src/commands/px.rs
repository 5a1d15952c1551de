//! `client px CODE`: runs code on the engines.

use std::io::Read;

use anyhow::Context;
use client::EngineOutcome;
use serde_json::json;

use crate::cli::App;

/// Arguments of `px`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  client px 'a = rand(100)'\n  client px 's = psum(a)'\n  client --targets 0 px 'a.mean()' --json\n  echo 'rank()' | client px -"
)]
pub(crate) struct Args {
    /// The code; - reads it from standard input.
    #[arg(allow_hyphen_values = true)]
    code: String,
}

impl Args {
    pub(crate) fn run(self, app: &App) -> anyhow::Result<()> {
        let mut code = self.code;
        if code == "-" {
            code.clear();
            std::io::stdin().lock().read_to_string(&mut code).context("read code from standard input")?;
        }
        execute(app, &code)
    }
}

/// Runs a cell and shows what comes.
pub(crate) fn execute(app: &App, code: &str) -> anyhow::Result<()> {
    let result = app.view().execute(code)?;
    if !app.global.json {
        return app.show(&result).map(drop);
    }
    let outcomes = app.follow(&result)?;
    let lines: Vec<serde_json::Value> = outcomes.iter().map(|outcome| describe(outcome, &result)).collect();
    crate::watch::print(&format!("{}\n", serde_json::Value::Array(lines)));
    app.check(&outcomes)
}

fn describe(outcome: &EngineOutcome, result: &client::AsyncResult) -> serde_json::Value {
    let error = match &outcome.result {
        Ok(_) => serde_json::Value::Null,
        Err(client::Failure::LostContact(cause)) => json!({ "ename": "LostContact", "evalue": &**cause }),
        Err(client::Failure::Remote(error)) => json!({
            "ename": error.ename, "evalue": error.evalue, "line": error.line, "column": error.column,
            "traceback": error.traceback,
        }),
    };
    json!({
        "engine": outcome.id().map(|id| id.0),
        "rank": outcome.engine.as_ref().and_then(|engine| engine.rank()),
        "result": outcome.displayed,
        "error": error,
        "engine_seconds": outcome.facts.elapsed.map(|elapsed| elapsed.as_secs_f64()),
        "seconds": result.elapsed().as_secs_f64(),
    })
}
