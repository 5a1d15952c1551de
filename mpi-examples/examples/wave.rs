//! A wave on a square membrane, drawn while it runs: the engines compute the next frame while this one is shown, in a
//! terminal and, with `--picture wave.png`, as a moving picture.

use std::io::{IsTerminal, Write};

use client::array::{from_wire, join, to_wire};
use client::{AsyncResult, Value, View};
use mpi_examples::modules::load_c;
use mpi_examples::picture::{Image, coloured, diverging, write_png};
use ndarray::{Array2, Ix2};

const SIDE: usize = 72;
const FRAMES: usize = 60;
const STEPS_A_FRAME: usize = 3;
/// Wave speed × time step ÷ cell width; above 1/√2 the scheme is unstable.
const COURANT: f64 = 0.5;
/// Milliseconds of a frame in the file.
const DELAY: u16 = 50;

fn main() -> anyhow::Result<()> {
    let options = mpi_examples::Options::read();
    let client = options.connect()?;
    let all = client.all();
    load_c(&all, "wave.c")?;

    let start = drop_at(0.35, 0.3);
    all.scatter("u", &Value::Array(to_wire(start.clone().into_dyn())))?.get()?;
    all.execute("before = u")?.get()?;

    let mut pictures = Vec::new();
    let mut coming = Frame::ask_for(&all)?;
    let mut state = start.clone();
    for number in 0..FRAMES {
        // Two frames are under way: the engines need not wait for whoever draws.
        let next = (number + 1 < FRAMES).then(|| Frame::ask_for(&all)).transpose()?;
        state = coming.take()?;
        pictures.push(coloured(state.view(), 3, |u| diverging(2.5 * u)));
        if std::io::stdout().is_terminal() {
            show(number, &coloured(state.view(), 1, |u| diverging(2.5 * u)))?;
        }
        match next {
            Some(next) => coming = next,
            None => break,
        }
    }

    // The same operations in the same order on every cell: no rounding may differ.
    assert_eq!(state, serially(start, FRAMES * STEPS_A_FRAME));
    if let Some(path) = &options.picture {
        write_png(path, &pictures, DELAY)?;
    }
    println!(
        "{} steps of a wave on {SIDE} × {SIDE} cells, drawn {FRAMES} times from {} ranks, equal a serial run",
        FRAMES * STEPS_A_FRAME,
        all.engines()?.len()
    );
    Ok(())
}

/// A frame that the engines have been asked for.
struct Frame {
    computed: AsyncResult,
    pulled: AsyncResult,
}

impl Frame {
    fn ask_for(all: &View) -> anyhow::Result<Frame> {
        let code = format!("w = wave(u, before, {STEPS_A_FRAME}, {COURANT}); u = w[0]; before = w[1]");
        Ok(Frame { computed: all.execute(&code)?, pulled: all.pull("u")? })
    }

    fn take(self) -> anyhow::Result<Array2<f64>> {
        self.computed.get()?;
        let Value::Array(all_rows) = join(self.pulled.get()?)? else { anyhow::bail!("u is no array") };
        Ok(from_wire::<f64>(&all_rows)?.into_owned().into_dimensionality::<Ix2>()?)
    }
}

/// A smooth hill at (x, y), with 0 to 1 from edge to edge.
fn drop_at(x: f64, y: f64) -> Array2<f64> {
    Array2::from_shape_fn((SIDE, SIDE), |(i, j)| {
        let at = |cell: usize| (cell as f64 + 0.5) / SIDE as f64;
        let distance2 = (at(i) - y).powi(2) + (at(j) - x).powi(2);
        (-distance2 / 0.004).exp()
    })
}

fn serially(start: Array2<f64>, steps: usize) -> Array2<f64> {
    let (mut u, mut before) = (start.clone(), start);
    for _ in 0..steps {
        let at = |i: usize, j: usize| u.get((i, j)).copied().unwrap_or(0.0);
        let next = Array2::from_shape_fn(u.dim(), |(i, j)| {
            let around = at(i.wrapping_sub(1), j) + at(i + 1, j) + at(i, j.wrapping_sub(1)) + at(i, j + 1);
            2.0 * u[[i, j]] - before[[i, j]] + COURANT * COURANT * (around - 4.0 * u[[i, j]])
        });
        before = std::mem::replace(&mut u, next);
    }
    u
}

fn show(number: usize, image: &Image) -> std::io::Result<()> {
    let to = if number == 0 { "\x1b[2J\x1b[H" } else { "\x1b[H" };
    let mut terminal = std::io::stdout().lock();
    writeln!(terminal, "{to}{}frame {} of {FRAMES}", image.as_text(), number + 1)?;
    terminal.flush()
}
