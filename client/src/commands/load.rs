//! `client load FILE`: loads a module of compiled functions on the engines.

use std::path::{Path, PathBuf};

use client::Value;

use super::pull;
use crate::cli::App;

/// Arguments of `load`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The file is read here, sent once to each MPI world, and spread there over MPI: no shared disk is needed.\nA file of the same name replaces what it defined before. docs/KERNELS.md says how modules are made.\n\nExamples:\n  mpicc -shared -fPIC -o libpsum.so psum.c && client load libpsum.so\n  client px 'psum_c(a)'"
)]
pub(crate) struct Args {
    /// A shared library made with commworld.h, commworld.f90 or the crate commworld-module.
    #[arg(value_name = "FILE")]
    module: PathBuf,
}

impl Args {
    pub(crate) fn run(self, app: &App) -> anyhow::Result<()> {
        load(app, &self.module)
    }
}

/// Loads it, and says what it defines.
pub(crate) fn load(app: &App, file: &Path) -> anyhow::Result<()> {
    let outcomes = app.follow(&app.view().load(file)?)?;
    app.check(&outcomes)?;
    let values = pull::of(outcomes);
    let names = match values.first() {
        Some((_, Value::List(names))) => names.iter().filter_map(text).collect::<Vec<_>>(),
        _ => vec![],
    };
    let page = if app.global.json {
        serde_json::json!({ "engines": values.len(), "functions": names }).to_string()
    } else {
        let (name, engines) = (file.file_name().unwrap_or(file.as_os_str()), values.len());
        let on = if engines == 1 { "1 engine".to_owned() } else { format!("{engines} engines") };
        format!("{} on {on}: {}", name.to_string_lossy(), names.join(", "))
    };
    crate::watch::print(&format!("{page}\n"));
    Ok(())
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::Str(text) => Some(text),
        _ => None,
    }
}
