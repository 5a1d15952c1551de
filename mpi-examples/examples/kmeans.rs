//! Finds four clouds of points that are divided over the ranks, by a kernel in Rust; `--picture kmeans.png` draws them.

use client::Value;
use client::array::{from_wire, to_wire};
use mpi_examples::modules::load_rust;
use mpi_examples::picture::{Colour, Image, write_png};
use ndarray::{Array2, ArrayView1, Axis, Ix2};

const CLOUDS: [[f64; 2]; 4] = [[0.25, 0.3], [0.75, 0.25], [0.3, 0.75], [0.7, 0.7]];
const POINTS_A_CLOUD: usize = 500;
const SIDE: usize = 320;

fn main() -> anyhow::Result<()> {
    let options = mpi_examples::Options::read();
    let client = options.connect()?;
    let all = client.all();
    load_rust(&all)?;

    let points = clouds();
    all.scatter("points", &Value::Array(to_wire(points.clone().into_dyn())))?.get()?;
    // All ranks begin with the same guess: one point of each cloud.
    let guess = points.select(Axis(0), &[0, 1, 2, 3]);
    all.push(&[("guess", Value::Array(to_wire(guess.into_dyn())))])?.get()?;
    all.execute("centres = kmeans(points, guess, 20)")?.get()?;

    let found = all.pull("centres")?.get()?;
    assert!(found.iter().all(|centres| *centres == found[0]), "all ranks have the same centres");
    let Value::Array(centres) = &found[0] else { anyhow::bail!("kmeans gave no array") };
    let centres = from_wire::<f64>(centres)?.into_owned().into_dimensionality::<Ix2>()?;
    for (centre, cloud) in centres.rows().into_iter().zip(CLOUDS) {
        let off = (centre[0] - cloud[0]).hypot(centre[1] - cloud[1]);
        assert!(off < 0.02, "the centre of {cloud:?} was found at {centre}");
    }
    if let Some(path) = &options.picture {
        write_png(path, &[drawn(&points, &centres)], 0)?;
    }
    println!("{} points on {} ranks: four clouds found", points.nrows(), all.engines()?.len());
    Ok(())
}

/// Points around each centre in turn, denser towards it.
fn clouds() -> Array2<f64> {
    let golden_angle = std::f64::consts::PI * (3.0 - 5.0_f64.sqrt());
    Array2::from_shape_fn((CLOUDS.len() * POINTS_A_CLOUD, 2), |(point, axis)| {
        let [cloud, number] = [point % CLOUDS.len(), point / CLOUDS.len()];
        let (radius, angle) = (0.16 * number as f64 / POINTS_A_CLOUD as f64, number as f64 * golden_angle);
        CLOUDS[cloud][axis] + radius * if axis == 0 { angle.cos() } else { angle.sin() }
    })
}

fn drawn(points: &Array2<f64>, centres: &Array2<f64>) -> Image {
    const COLOURS: [Colour; 4] = [[214, 96, 77], [67, 147, 195], [90, 174, 97], [153, 112, 171]];
    let mut image = Image::new(SIDE, SIDE, [255; 3]);
    let mut dot = |at: ArrayView1<'_, f64>, side: usize, colour| {
        let pixel = |x: f64| (x * SIDE as f64) as usize - side / 2;
        image.square(pixel(at[0]), pixel(at[1]), side, colour);
    };
    for point in points.rows() {
        let distance = |centre: &ArrayView1<'_, f64>| (point[0] - centre[0]).hypot(point[1] - centre[1]);
        let order = |left: &(usize, ArrayView1<'_, f64>), right: &(usize, ArrayView1<'_, f64>)| {
            distance(&left.1).total_cmp(&distance(&right.1))
        };
        let nearest = centres.rows().into_iter().enumerate().min_by(order).map_or(0, |(at, _)| at);
        dot(point, 3, COLOURS[nearest % COLOURS.len()]);
    }
    for centre in centres.rows() {
        dot(centre, 9, [0; 3]);
    }
    image
}
