//! Process tests: a real controller, real engines under mpiexec, real clients.

mod collectives;
mod data;
mod errors;
mod examples;
mod hostile;
mod interrupt;
mod kernels;
mod loss;
mod many;
mod psum;
mod restart;
mod security;
mod start;
