//! Fuzzes `bodies::frames`: `cargo xtask fuzz frames`.
#![no_main]

#[path = "../bodies.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::frames(data));
