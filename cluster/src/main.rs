//! The program `cluster`: starts, watches and stops a controller and its engines. See `cli.rs` for what can be
//! typed, `supervisor.rs` for how a cluster lives.

#![expect(
    unreachable_pub,
    reason = "a program has no users of its items; `pub` marks what a module offers to the others"
)]

mod cli;
mod cluster_file;
mod commands;
mod doctor;
mod failure;
mod hub;
mod job;
mod launch;
mod lifecycle;
mod log_file;
mod output;
mod process;
mod profile;
mod run_command;
mod supervisor;
mod teardown;

use std::process::ExitCode;

use clap::Parser;

use crate::output::{Output, Report};

fn main() -> ExitCode {
    transport::hygiene::keep_key_out_of_core_dumps();
    let cli = cli::Cli::parse();
    let form = cli.form();
    match cli.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let code = failure.code as u8;
            let _ = Output::new(form).tell(&Report::Failed(failure)); // The exit code remains.
            ExitCode::from(code)
        }
    }
}
