//! Engines as separate processes on this machine: no MPI needed, and no collectives between them.

use slurm_pbs::{Exit, Ranks};

use super::{EngineKind, Explanation, Launcher, place_arguments};
use crate::profile::Profile;
use crate::run_command::CommandLine;

/// See the module.
pub(super) struct Local {
    engine: CommandLine,
}

impl Local {
    pub(super) fn new(engine: CommandLine) -> Local {
        Local { engine }
    }
}

impl Launcher for Local {
    fn kind(&self) -> EngineKind {
        EngineKind::Local
    }

    fn describe(&self) -> String {
        "local engines".to_owned()
    }

    fn stays_here(&self) -> bool {
        true
    }

    fn commands(&self, profile: &Profile, set: u32, ranks: Ranks) -> Vec<CommandLine> {
        let command = |index| {
            let mut command = self.engine.clone();
            command.arguments.extend(place_arguments(profile));
            command.log = profile.log_file(&format!("engine-{set}-{index}"));
            command
        };
        (0..ranks.get()).map(command).collect()
    }

    fn explain(&self, index: usize, exit: Exit, _output: &str) -> Explanation {
        Explanation { what: format!("local engine {index} {exit}"), hint: None }
    }
}
