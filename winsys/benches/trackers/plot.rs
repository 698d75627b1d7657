//! A picture: lines over logarithmic axes.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "coordinates of a picture a few hundred pixels wide"
)]

use crate::font;
use std::error::Error;
use std::fs::File;
use std::io::BufWriter;
use std::ops::Range;
use std::path::Path;

const WIDTH: usize = 1000;
const HEIGHT: usize = 640;
/// Where the axes are.
const AREA: (Range<f64>, Range<f64>) = (110.0..780.0, 84.0..560.0);

type Colour = [u8; 3];

const BLACK: Colour = [30, 30, 30];
const GREY: Colour = [222, 222, 222];
/// One for each line, told apart by most eyes (Okabe and Ito).
const COLOURS: [Colour; 5] = [[0, 114, 178], [0, 158, 115], [230, 159, 0], [204, 121, 167], [213, 94, 0]];

/// What is drawn.
pub(crate) struct Plot<'a> {
    pub(crate) title: &'a str,
    pub(crate) x_label: &'a str,
    pub(crate) y_label: &'a str,
    /// Powers of ten that the axes span.
    pub(crate) x: Range<i32>,
    pub(crate) y: Range<i32>,
    /// What stands at each power of ten.
    pub(crate) x_ticks: &'a [&'a str],
    pub(crate) y_ticks: &'a [&'a str],
    pub(crate) lines: Vec<(&'a str, Vec<(f64, f64)>)>,
}

impl Plot<'_> {
    /// Writes it as a PNG file.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn save(&self, path: &Path) -> Result<(), Box<dyn Error>> {
        let mut canvas = Canvas { pixels: vec![255; WIDTH * HEIGHT * 3] };
        let (across, down) = AREA;
        for (tick, label) in self.x.clone().chain([self.x.end]).zip(self.x_ticks) {
            let x = self.across(10f64.powi(tick));
            canvas.line((x, down.start), (x, down.end), 1.0, GREY);
            canvas.text(label, (x - font::width(label, 2) / 2.0, down.end + 12.0), 2, BLACK);
        }
        for (tick, label) in self.y.clone().chain([self.y.end]).zip(self.y_ticks) {
            let y = self.down(10f64.powi(tick));
            canvas.line((across.start, y), (across.end, y), 1.0, GREY);
            canvas.text(label, (across.start - 10.0 - font::width(label, 2), y - 7.0), 2, BLACK);
        }
        canvas.line((across.start, down.start), (across.start, down.end), 2.0, BLACK);
        canvas.line((across.start, down.end), (across.end, down.end), 2.0, BLACK);
        canvas.text(self.title, (across.start, 16.0), 2, BLACK);
        canvas.text(self.y_label, (10.0, 52.0), 2, BLACK);
        let middle = (across.start + across.end - font::width(self.x_label, 2)) / 2.0;
        canvas.text(self.x_label, (middle, down.end + 42.0), 2, BLACK);
        for (index, ((name, points), colour)) in self.lines.iter().zip(COLOURS).enumerate() {
            let at = |(x, y): (f64, f64)| (self.across(x), self.down(y));
            for (&from, &to) in points.iter().zip(points.iter().skip(1)) {
                canvas.line(at(from), at(to), 3.0, colour);
            }
            for &point in points {
                canvas.dot(at(point), 5.0, colour);
            }
            let y = down.start + 20.0 + 30.0 * index as f64;
            canvas.line((across.end + 20.0, y), (across.end + 50.0, y), 3.0, colour);
            canvas.dot((across.end + 35.0, y), 5.0, colour);
            canvas.text(name, (across.end + 58.0, y - 7.0), 2, BLACK);
        }
        let mut encoder = png::Encoder::new(BufWriter::new(File::create(path)?), WIDTH as u32, HEIGHT as u32);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.write_header()?.write_image_data(&canvas.pixels)?;
        Ok(())
    }

    fn across(&self, x: f64) -> f64 {
        place(x, &self.x, AREA.0.start, AREA.0.end)
    }

    fn down(&self, y: f64) -> f64 {
        place(y, &self.y, AREA.1.end, AREA.1.start)
    }
}

/// Where a value stands on an axis that goes from `start` to `end`.
fn place(value: f64, powers: &Range<i32>, start: f64, end: f64) -> f64 {
    let (first, last) = (f64::from(powers.start), f64::from(powers.end));
    let part = (value.max(1e-12).log10() - first) / (last - first);
    start + part.clamp(0.0, 1.0) * (end - start)
}

struct Canvas {
    pixels: Vec<u8>,
}

impl Canvas {
    fn set(&mut self, x: f64, y: f64, colour: Colour) {
        if (0.0..WIDTH as f64).contains(&x) && (0.0..HEIGHT as f64).contains(&y) {
            let at = (y as usize * WIDTH + x as usize) * 3;
            self.pixels[at..at + 3].copy_from_slice(&colour);
        }
    }

    fn dot(&mut self, (x, y): (f64, f64), radius: f64, colour: Colour) {
        let reach = radius.ceil() as i32;
        for dy in -reach..=reach {
            for dx in -reach..=reach {
                let (dx, dy) = (f64::from(dx), f64::from(dy));
                if dx * dx + dy * dy <= radius * radius {
                    self.set(x + dx, y + dy, colour);
                }
            }
        }
    }

    fn line(&mut self, from: (f64, f64), to: (f64, f64), width: f64, colour: Colour) {
        let (dx, dy) = (to.0 - from.0, to.1 - from.1);
        let steps = dx.abs().max(dy.abs()).ceil().max(1.0);
        for step in 0..=steps as u32 {
            let part = f64::from(step) / steps;
            self.dot((from.0 + dx * part, from.1 + dy * part), width / 2.0, colour);
        }
    }

    fn text(&mut self, text: &str, (x, y): (f64, f64), scale: u32, colour: Colour) {
        for (column, row) in font::pixels(text) {
            for dy in 0..scale {
                for dx in 0..scale {
                    let (dx, dy) = (f64::from(column * scale + dx), f64::from(row * scale + dy));
                    self.set(x + dx, y + dy, colour);
                }
            }
        }
    }
}
