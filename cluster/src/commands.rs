//! One file per subcommand: its arguments and what it does.

pub mod clean;
pub mod doctor;
pub mod engines;
pub mod launch;
pub mod launch_args;
pub mod list;
pub mod logs;
pub mod run;
pub mod start;
pub mod status;
pub mod stop;
