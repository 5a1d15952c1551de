//! mpi-examples
