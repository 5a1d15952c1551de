//! Hub and schedulers of a cluster, in one process and one thread.
//!
//! | question | module |
//! |---|---|
//! | what happens when …? | [`machine`]: events in, effects out |
//! | who is here, who is alive? | `hub` |
//! | which request is where? | `tasks` |
//! | what became of it? | [`records`] |
//! | how does a later controller go on? | `restore`, from the `journal` |
//! | which engine gets it? | `scheduler` |
//! | which socket, which port? | [`shell`] |
//! | what does a flag mean? | [`config`], in the original's spelling [`compat`] |
//! | which files does it write? | [`publish`] |

pub mod compat;
pub mod config;
mod hub;
mod journal;
pub mod machine;
pub mod publish;
pub mod records;
mod repeats;
mod restore;
mod scheduler;
pub mod shell;
mod tasks;

pub use repeats::Said;
pub use scheduler::balanced::Scheme;
pub use tasks::TaskId;
