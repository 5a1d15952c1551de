//! Where logs go.

use std::fs::{File, create_dir_all};
use std::io::IsTerminal;
use std::path::Path;

use tracing_subscriber::EnvFilter;
use transport::profile::Profile;

use super::failure::Failure;
use crate::cli::Settings;
use crate::python::stderr_for_the_log;

/// Begins to log. Does nothing if something else in this process has begun before.
pub fn init(settings: &Settings, profile: &Profile) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(&settings.log_filter)
        .map_err(|error| Failure::usage(format!("read --log-level {}: {error}", settings.log_filter)))?;
    // Standard error may be a pipe to a launcher that has died: what cannot be logged is no reason to panic.
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_target(false).log_internal_errors(false);
    // The only error is that somebody logs already: a program with an engine in it.
    let _ = if settings.log_to_file {
        let path = profile.log_dir().join(format!("engine-{}.log", std::process::id()));
        let file = create_dir_all(profile.log_dir()).and_then(|()| File::create(&path));
        let file = file.map_err(|error| Failure::log(&path, error))?;
        builder.with_ansi(false).with_writer(file).try_init()
    } else {
        // A copy, because user code may take standard error for itself (`python/capture.rs`).
        let log = stderr_for_the_log().map_err(|error| Failure::log(Path::new("standard error"), error))?;
        builder.with_ansi(std::io::stderr().is_terminal()).with_writer(log).try_init()
    };
    Ok(())
}
