//! What to say to launchers and batch systems, and how to read what they answer. Pure text: no process is
//! started and no file is read here, so everything can be tested on a machine that has none of them.
//!
//! | module        | knows |
//! |---------------|-------|
//! | [`job`]       | what is to be started: a program, its arguments, how many ranks, for how long |
//! | [`batch`]     | a job: its id, where it is in its life, how it ended; which [`System`] it belongs to |
//! | `slurm`, `pbs`| the commands of each batch system and their answers |
//! | [`template`]  | job scripts, from `templates/` or a site's own |
//! | [`placement`] | inside a job: which launcher makes all ranks one world |
//! | [`mpiexec`]   | the dialects of `mpiexec`: command lines, output tags, how each tells that a rank died |
//! | [`exit`]      | what an exit status or a signal means, in words |
//! | [`walltime`]  | time limits as Slurm and PBS write them |

pub mod batch;
pub mod exit;
pub mod job;
pub mod mpiexec;
mod pbs;
pub mod placement;
mod slurm;
pub mod template;
pub mod walltime;

pub use batch::{Answer, BatchError, JobEnd, JobId, JobStatus, System};
pub use exit::Exit;
pub use job::{JobSpec, LaunchSpec, Ranks};
pub use mpiexec::{Flavor, Mpiexec};
pub use placement::{Allocation, Placement};
pub use walltime::Walltime;
