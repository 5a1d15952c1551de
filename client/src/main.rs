//! The program `client`: a prompt and one-shot commands for a running cluster.

use std::process::ExitCode;

mod cli;
mod commands;
mod prompt;
mod render;
mod text;
mod watch;

fn main() -> ExitCode {
    transport::hygiene::keep_key_out_of_core_dumps();
    cli::main()
}
