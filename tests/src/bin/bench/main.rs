//! The benchmark: `cargo xtask bench`. Every figure stands beside a rival's from the same run, because absolute
//! times say more about the machine's mood than about the program.

mod controllers;
mod figures;
mod python;
mod relay;
mod rival;
mod world;

use std::process::ExitCode;

use clap::Parser;

/// Measures the relay, the scheduler, start-up and psum cells.
#[derive(Parser)]
#[command(help_expected = true)]
struct Arguments {
    /// Rounds; ours and the rival take turns within each, medians are shown.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Only these parts: relay, world, python, controllers.
    parts: Vec<String>,
    /// Another controller of the same wire, for the part `controllers`, such as "python -m ipyparallel.controller".
    #[arg(long, value_name = "COMMAND")]
    against: Option<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let wanted = |part: &str| arguments.parts.is_empty() || arguments.parts.iter().any(|named| named == part);
    let mut outcome = Ok(());
    if wanted("relay") {
        outcome = outcome.and_then(|()| relay::run(arguments.rounds));
    }
    if wanted("world") {
        outcome = outcome.and_then(|()| world::run(arguments.rounds));
    }
    // Not by default: the original's engines are to be installed first, which scripts/foreign.sh does.
    if arguments.parts.iter().any(|part| part == "python") {
        outcome = outcome.and_then(|()| python::run(arguments.rounds));
    }
    match &arguments.against {
        Some(against) if wanted("controllers") => {
            outcome = outcome.and_then(|()| controllers::run(arguments.rounds, against));
        }
        None if arguments.parts.iter().any(|part| part == "controllers") => {
            outcome =
                outcome.and_then(|()| Err(anyhow::anyhow!("the part controllers needs --against COMMAND")));
        }
        _ => {}
    }
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
