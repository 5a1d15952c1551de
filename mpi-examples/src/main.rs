//! An engine that carries all examples; it understands the stock engine's options and its prompt language.

use std::process::ExitCode;

use engine::Engine;
use mpi_examples::{collatz, heat, hello, logistic, pi, psum, ring, words};

fn main() -> ExitCode {
    Engine::new()
        .function("hello", hello::hello)
        .function("parallel_sum", psum::parallel_sum)
        .function("estimate_pi", pi::estimate_pi)
        .function("ring", ring::ring)
        .function("heat", heat::heat)
        .function("collatz", collatz::collatz)
        .function("count_words", words::count_words)
        .function("settle", logistic::settle)
        .function("lyapunov", logistic::lyapunov)
        .run()
}
