//! What to say to launchers and batch systems, and how to read what they answer. Pure text: no process is
//! started and no file is read here, so everything can be tested on a machine that has none of them.
//!
//! | module      | knows |
//! |-------------|-------|
//! | [`job`]     | what is to be started: a program, its arguments, how many ranks |
//! | [`mpiexec`] | the dialects of `mpiexec`: command lines, output tags, how each tells that a rank died |
//! | [`exit`]    | what an exit status or a signal means, in words |
//! | [`walltime`]| time limits as Slurm and PBS write them |

pub mod exit;
pub mod job;
pub mod mpiexec;
pub mod walltime;

pub use exit::Exit;
pub use job::{JobSpec, LaunchSpec, Ranks};
pub use mpiexec::{Flavor, Mpiexec};
pub use walltime::Walltime;
