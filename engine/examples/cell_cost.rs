//! What a small cell of the prompt language costs, with a namespace that is empty and one with many functions.
//!
//! `cargo run --release -p engine --example cell_cost`

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use engine::interrupt::Interrupt;
use engine::runner::native::Registry;
use engine::runner::script::Script;
use engine::runner::{CellContext, Output, RunError, Runner, Stream};
use engine::solo::Solo;

struct Nowhere;

impl Output for Nowhere {
    fn write(&mut self, _: Stream, _: &str) {}
}

fn main() -> Result<(), RunError> {
    let output = Rc::new(RefCell::new(Nowhere));
    let context = CellContext::new("cell", output, Rc::new(Solo::new()), Interrupt::new());
    let mut script = Script::new(Registry::default());
    script.execute("x = 1", &context)?;
    for functions in [0, 100] {
        for number in 0..functions {
            script.execute(&format!("fn f{number}(x) {{ x + {number} }}"), &context)?;
        }
        println!("{functions} functions:");
        for cell in ["x + 1", "psum(x)", "y = x * 2; y"] {
            const CELLS: u32 = 5000;
            let started = Instant::now();
            for _ in 0..CELLS {
                script.execute(cell, &context)?;
            }
            println!("  {cell:<14} {:8.1} us", started.elapsed().as_secs_f64() * 1e6 / f64::from(CELLS));
        }
    }
    let started = Instant::now();
    script.execute("s = 0; for i in 0..1000000 { s += i * 2 }", &context)?;
    println!("s += i * 2     {:8.1} ns a turn", started.elapsed().as_secs_f64() * 1e3);
    Ok(())
}
