//! What calling a compiled kernel costs: the C function itself, the same through a module, and typed in a cell.
//!
//! `cargo run --release -p engine --example module_call_cost`

use std::cell::RefCell;
use std::hint::black_box;
use std::process::Command;
use std::rc::Rc;
use std::time::Instant;

use anyhow::{Context, ensure};
use engine::array::Array;
use engine::interrupt::Interrupt;
use engine::module::Argument;
use engine::runner::native::{Callable, Registry};
use engine::runner::script::Script;
use engine::runner::{CellContext, Output, Runner, Stream};
use engine::solo::Solo;
use libloading::os::unix::Library;

const KERNEL: &str = r#"
#include "commworld.h"

double sum(const double *elements, uint64_t length) {
    double sum = 0;
    for (uint64_t i = 0; i < length; i++) sum += elements[i];
    return sum;
}

static int32_t sum_c(const commworld_call *call) {
    commworld_value a;
    if (commworld_array(call, 0, COMMWORLD_F64, 1, COMMWORLD_C_ORDER, &a)) return 1;
    return commworld_give_real(call, sum((const double *)a.data, a.length));
}

COMMWORLD_MODULE(COMMWORLD_FUNCTION(sum_c, "sum_c(a)", "the sum"))
"#;

struct Nowhere;

impl Output for Nowhere {
    fn write(&mut self, _: Stream, _: &str) {}
}

/// Microseconds of one call: the median of several rounds.
fn measured(calls: u32, mut call: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let mut rounds = Vec::new();
    for _ in 0..7 {
        let started = Instant::now();
        for _ in 0..calls {
            call()?;
        }
        rounds.push(started.elapsed().as_secs_f64() * 1e6 / f64::from(calls));
    }
    rounds.sort_by(f64::total_cmp);
    Ok(rounds[rounds.len() / 2])
}

fn main() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (source, file) = (folder.path().join("sum.c"), folder.path().join("libsum.so"));
    std::fs::write(&source, KERNEL)?;
    let include = concat!(env!("CARGO_MANIFEST_DIR"), "/../module/include");
    let mut cc = Command::new("cc");
    cc.args(["-O2", "-shared", "-fPIC", "-I", include, "-o"]).arg(&file).arg(&source);
    ensure!(cc.status().context("run cc")?.success(), "{cc:?} failed");

    let registry = Registry::default();
    registry.load_file(&file, |_| false)?;
    let Some(Callable::Module(function)) = registry.get("sum_c") else { unreachable!("it was loaded") };
    // SAFETY: it is the library above, and this is its function's type.
    let library = unsafe { Library::new(&file)? };
    // SAFETY: as above.
    let sum = unsafe { library.get::<unsafe extern "C" fn(*const f64, u64) -> f64>(b"sum")? };

    let output = Rc::new(RefCell::new(Nowhere));
    let context = CellContext::new("cell", output, Rc::new(Solo::new()), Interrupt::new());
    let mut script = Script::new(registry.clone());
    println!("elements      C itself    as a module    the difference    one call in a loop of a cell");
    for (length, calls) in [(1, 100_000), (1_000, 20_000), (1_000_000, 100)] {
        let elements = vec![1.0; length];
        let direct = measured(calls, || {
            // SAFETY: there are as many elements.
            black_box(unsafe { sum(black_box(elements.as_ptr()), length as u64) });
            Ok(())
        })?;
        let arguments = [Argument::Array(Array::from_vec(elements.clone()))];
        let module = measured(calls, || {
            black_box(
                function
                    .call(&context, black_box(&arguments))
                    .map_err(|error| anyhow::anyhow!("{error:?}"))?,
            );
            Ok(())
        })?;
        script
            .execute(&format!("a = ones({length})"), &context)
            .map_err(|error| anyhow::anyhow!("{error:?}"))?;
        let turns = calls.min(10_000);
        let cell = format!("for turn in 0..{turns} {{ sum_c(a) }}");
        let typed = measured(1, || {
            script.execute(&cell, &context).map(drop).map_err(|error| anyhow::anyhow!("{error:?}"))
        })? / f64::from(turns);
        println!(
            "{length:>8} {direct:>10.3} us {module:>11.3} us {:>14.3} us {typed:>28.3} us",
            module - direct
        );
    }
    Ok(())
}
