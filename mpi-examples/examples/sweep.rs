//! A parameter sweep with dependencies: for every parameter one task that prepares, one that must follow it on the same
//! engine because its state is there, and at the end one that runs after all.

use client::{AsyncResult, Value};
use mpi_examples::picture::{Image, write_png};

const PARAMETERS: usize = 97;
const STEPS: i64 = 20_000;

fn main() -> anyhow::Result<()> {
    let options = mpi_examples::Options::read();
    let client = options.connect()?;
    let parameters: Vec<f64> =
        (0..PARAMETERS).map(|i| 2.8 + 1.2 * i as f64 / (PARAMETERS - 1) as f64).collect();

    let mut measured = Vec::new();
    for &r in &parameters {
        let arguments = [Value::Float(r), Value::Int(STEPS)];
        let settled = client.balanced().apply("settle", &arguments, &[])?;
        // `follow` means: when that has succeeded, and where it ran.
        measured.push(client.balanced().follow(&settled).apply("lyapunov", &arguments, &[])?);
    }
    let tasks: Vec<_> = measured.iter().flat_map(AsyncResult::msg_ids).cloned().collect();
    let last = client.balanced().after(&tasks[..]).execute("print(`the sweep is done`)")?;
    let exponents = measured.iter().map(AsyncResult::get_one).collect::<Result<Vec<_>, _>>()?;
    let exponents: Vec<f64> = exponents.iter().map(number).collect();
    last.get()?;

    let at =
        |r: f64| exponents[parameters.iter().position(|p| (p - r).abs() < 1e-9).expect("it is in the sweep")];
    assert!((at(4.0) - 2.0_f64.ln()).abs() < 0.01, "r = 4 is chaotic, with ln 2: {}", at(4.0));
    assert!(at(3.2) < -0.5, "r = 3.2 is a cycle of two: {}", at(3.2));
    if let Some(path) = &options.picture {
        write_png(path, &[drawn(&exponents)], 0)?;
    }
    let chaotic = exponents.iter().filter(|exponent| **exponent > 0.0).count();
    println!("{chaotic} of {PARAMETERS} parameters from 2.8 to 4 give chaos");
    Ok(())
}

fn number(value: &Value) -> f64 {
    match value {
        Value::Float(number) => *number,
        _ => f64::NAN,
    }
}

/// A bar for each parameter, red upwards where it is chaotic.
fn drawn(exponents: &[f64]) -> Image {
    const BAR: usize = 4;
    const UNIT: f64 = 100.0;
    let axis = UNIT as usize;
    let mut image = Image::new(exponents.len() * BAR, 2 * axis, [255; 3]);
    for (at, exponent) in exponents.iter().enumerate() {
        let length = (exponent.abs() * UNIT).min(UNIT) as usize;
        let (top, colour) =
            if *exponent > 0.0 { (axis - length, [178, 24, 43]) } else { (axis, [33, 84, 172]) };
        image.rectangle(at * BAR, top, [BAR - 1, length], colour);
    }
    image
}
