//! Pictures: arrays as PNG files, still or moving, and in a terminal while they change.

use std::fmt::Write as _;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use anyhow::Context;
use ndarray::ArrayView2;

/// Red, green, blue.
pub type Colour = [u8; 3];

/// From blue at -1 over white to red at 1, in steps that keep files small.
pub fn diverging(value: f64) -> Colour {
    let value = (value.clamp(-1.0, 1.0) * 32.0).round() / 32.0;
    let fade = |from: u8, to: u8| (f64::from(from) + (f64::from(to) - f64::from(from)) * value.abs()) as u8;
    let end: Colour = if value < 0.0 { [33, 84, 172] } else { [178, 24, 43] };
    std::array::from_fn(|channel| fade(247, end[channel]))
}

/// A picture of one square of `zoom` pixels per element.
pub fn coloured(values: ArrayView2<'_, f64>, zoom: usize, colour: impl Fn(f64) -> Colour) -> Image {
    let (rows, columns) = values.dim();
    let mut image = Image::new(columns * zoom, rows * zoom, [255; 3]);
    for ((row, column), &value) in values.indexed_iter() {
        image.square(column * zoom, row * zoom, zoom, colour(value));
    }
    image
}

/// Pixels, row by row from the top left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    width: usize,
    pixels: Vec<Colour>,
}

impl Image {
    /// Of one colour.
    pub fn new(width: usize, height: usize, colour: Colour) -> Image {
        Image { width, pixels: vec![colour; width * height] }
    }

    /// Colours a square; what lies outside of the picture is left out.
    pub fn square(&mut self, x: usize, y: usize, side: usize, colour: Colour) {
        self.rectangle(x, y, [side, side], colour);
    }

    /// Colours a rectangle of that width and height.
    pub fn rectangle(&mut self, x: usize, y: usize, [width, height]: [usize; 2], colour: Colour) {
        for row in self.pixels.chunks_mut(self.width).skip(y).take(height) {
            row.iter_mut().skip(x).take(width).for_each(|pixel| *pixel = colour);
        }
    }

    fn height(&self) -> usize {
        self.pixels.len() / self.width
    }

    /// As text for a terminal with colours: each letter shows two pixels, one above the other.
    pub fn as_text(&self) -> String {
        let mut text = String::new();
        let rows: Vec<&[Colour]> = self.pixels.chunks(self.width).collect();
        for pair in rows.chunks(2) {
            for (column, [r, g, b]) in pair[0].iter().enumerate() {
                let [under_r, under_g, under_b] = pair.last().map_or([0; 3], |row| row[column]);
                let _ = write!(text, "\x1b[38;2;{r};{g};{b};48;2;{under_r};{under_g};{under_b}m▀");
            }
            text.push_str("\x1b[0m\n");
        }
        text
    }
}

/// Writes a PNG; of several images an animated one, `delay` milliseconds each.
pub fn write_png(path: &Path, images: &[Image], delay: u16) -> anyhow::Result<()> {
    let write = || -> anyhow::Result<()> {
        let first = images.first().context("there is no image")?;
        let file = BufWriter::new(File::create(path)?);
        let mut encoder = png::Encoder::new(file, first.width as u32, first.height() as u32);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_compression(png::Compression::High);
        if images.len() > 1 {
            encoder.set_animated(images.len() as u32, 0)?;
            encoder.set_frame_delay(delay, 1000)?;
        }
        let mut writer = encoder.write_header()?;
        for image in images {
            writer.write_image_data(image.pixels.as_flattened())?;
        }
        writer.finish()?;
        Ok(())
    };
    write().with_context(|| format!("write the picture {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_that_was_written_can_be_read() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let path = folder.path().join("two.png");
        let mut image = Image::new(3, 2, [1, 2, 3]);
        image.square(1, 0, 5, [9, 9, 9]);
        write_png(&path, &[image.clone(), image], 40).expect("it is written");
        let mut reader = png::Decoder::new(std::io::BufReader::new(File::open(&path).expect("it exists")))
            .read_info()
            .expect("it is a PNG");
        assert_eq!(reader.info().animation_control.expect("it is animated").num_frames, 2);
        let mut pixels = vec![0; 18];
        reader.next_frame(&mut pixels).expect("it has a frame");
        assert_eq!(pixels[..6], [1, 2, 3, 9, 9, 9]);
    }

    #[test]
    fn zero_is_white_and_the_ends_are_blue_and_red() {
        assert_eq!(diverging(0.0), [247; 3]);
        let ([r, _, b], [red, _, blue]) = (diverging(-2.0), diverging(1.0));
        assert!(b > r && red > blue);
    }
}
