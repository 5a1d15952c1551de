//! The stock engine: the prompt language, without functions of its own.

fn main() -> std::process::ExitCode {
    engine::Engine::new().run()
}
