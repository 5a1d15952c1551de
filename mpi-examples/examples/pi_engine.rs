//! An engine of one's own: `mpiexec -n 4 pi_engine --mpi`, or `cluster start -n 4 --engine-cmd pi_engine`.

fn main() -> std::process::ExitCode {
    engine::Engine::new()
        .function_with_help(
            "estimate_pi",
            "estimate_pi(n, seed)",
            "π by the Monte-Carlo method, n points a rank; collective",
            mpi_examples::pi::estimate_pi,
        )
        .run()
}
