//! The one-shot commands: one file each, holding its arguments and its `run`.

use clap::Subcommand;

use crate::cli::App;

mod abort;
mod apply;
mod explain;
mod gather;
mod interrupt;
pub(crate) mod load;
pub(crate) mod pull;
pub(crate) mod push;
pub(crate) mod px;
mod run;
mod scatter;
mod shutdown;
pub(crate) mod status;
pub(crate) mod wait;

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run code on the engines and show what they print and return.
    Px(px::Args),
    /// Run a file on the engines.
    Run(run::Args),
    /// Assign names on the engines.
    Push(push::Args),
    /// Bring values here, one per engine.
    Pull(pull::Args),
    /// Divide a list or array over the engines.
    Scatter(scatter::Args),
    /// Bring the parts of a list or array here and join them.
    Gather(gather::Args),
    /// Call a function of the engines by name.
    Apply(apply::Args),
    /// Load a module of compiled functions (C, Fortran, Rust) on the engines.
    Load(load::Args),
    /// Show the controller, the engines and what they do.
    Status(status::Args),
    /// Say why tasks have not ended: what they wait for, what keeps them from each engine.
    Explain(explain::Args),
    /// Interrupt what runs on the engines and on all ranks of their worlds.
    Interrupt(interrupt::Args),
    /// End everything that waits on the engines; what runs goes on.
    Abort(abort::Args),
    /// End the cluster, or with --targets these engines only.
    Shutdown(shutdown::Args),
    /// Wait until a cluster and its engines are there.
    Wait(wait::Args),
    /// List the commands of the prompt.
    HelpCommands,
}

impl Command {
    pub(crate) fn run(self, app: &App) -> anyhow::Result<()> {
        match self {
            Command::Px(args) => args.run(app),
            Command::Run(args) => args.run(app),
            Command::Push(args) => args.run(app),
            Command::Pull(args) => args.run(app),
            Command::Scatter(args) => args.run(app),
            Command::Gather(args) => args.run(app),
            Command::Apply(args) => args.run(app),
            Command::Load(args) => args.run(app),
            Command::Status(args) => args.run(app),
            Command::Explain(args) => args.run(app),
            Command::Interrupt(args) => args.run(app),
            Command::Abort(args) => args.run(app),
            Command::Shutdown(args) => args.run(app),
            Command::Wait(args) => args.run(app),
            Command::HelpCommands => Ok(()), // Answered before a cluster is looked for.
        }
    }
}
