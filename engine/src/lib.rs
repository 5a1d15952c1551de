//! An engine: one rank of the MPI world that runs what clients send.

pub mod array;
pub mod communicator;
pub mod interrupt;
pub mod runner;
pub mod arguments;
pub mod control_plane;
pub mod loopback;
#[cfg(feature = "mpi")]
pub mod mpi;
pub mod solo;
pub mod wait_status;
