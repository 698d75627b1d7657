//! Pictures as applications leave them, and how far two of them are apart.

use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::Path;

use crate::built;

/// A picture of 8-bit RGBA pixels, row by row from the top.
#[derive(Clone, PartialEq, Eq)]
pub struct Picture {
    width: u32,
    height: u32,
    pixels: Vec<[u8; 4]>,
}

/// How far two pictures of one size are apart, channel by channel: red, green, blue, alpha.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Difference {
    /// The largest difference of any pixel.
    pub max: [u8; 4],
    /// The mean difference of all pixels.
    pub mean: [f64; 4],
    /// How many pixels differ at all.
    pub pixels: usize,
}

impl Picture {
    /// A picture from its pixels.
    ///
    /// # Panics
    /// When there are not `width` times `height` of them.
    #[must_use]
    pub fn new(width: u32, height: u32, pixels: Vec<[u8; 4]>) -> Self {
        let wanted = u64::from(width) * u64::from(height);
        assert_eq!(pixels.len() as u64, wanted, "number of pixels of a {width}x{height} picture");
        Self { width, height, pixels }
    }

    /// Decodes a PNG file of any colour type.
    ///
    /// # Panics
    /// When it cannot be read or is no such file.
    #[must_use]
    #[track_caller]
    pub fn from_png(path: &Path) -> Self {
        match Self::decode(path) {
            Ok(picture) => picture,
            Err(error) => panic!("cannot read {}: {error}", path.display()),
        }
    }

    fn decode(path: &Path) -> Result<Self, png::DecodingError> {
        let mut decoder = png::Decoder::new(BufReader::new(File::open(path)?));
        decoder
            .set_transformations(png::Transformations::normalize_to_color8() | png::Transformations::ALPHA);
        let mut reader = decoder.read_info()?;
        let mut bytes = vec![0; reader.output_buffer_size().ok_or(png::DecodingError::LimitsExceeded)?];
        let info = reader.next_frame(&mut bytes)?;
        bytes.truncate(info.buffer_size());
        let pixels = match info.color_type {
            png::ColorType::GrayscaleAlpha => {
                bytes.as_chunks().0.iter().map(|&[gray, alpha]| [gray, gray, gray, alpha]).collect()
            }
            // With palettes and missing alpha expanded, nothing else is left.
            _ => bytes.as_chunks().0.to_vec(),
        };
        Ok(Self::new(info.width, info.height, pixels))
    }

    /// Width and height.
    #[must_use]
    pub fn size(&self) -> (u32, u32) {
        (self.width, self.height)
    }

    /// How many different colours it has: one for a blank picture, few for a picture gone wrong.
    #[must_use]
    pub fn distinct_colours(&self) -> usize {
        self.pixels.iter().collect::<HashSet<_>>().len()
    }

    /// How far `other` is from it.
    ///
    /// # Panics
    /// When they differ in size.
    #[track_caller]
    pub fn difference(&self, other: &Self) -> Difference {
        assert_eq!(self.size(), other.size(), "sizes of two pictures to be compared");
        let (mut max, mut sum, mut pixels) = ([0; 4], [0_u64; 4], 0);
        for (left, right) in self.pixels.iter().zip(&other.pixels) {
            pixels += usize::from(left != right);
            for channel in 0..4 {
                let difference = left[channel].abs_diff(right[channel]);
                max[channel] = difference.max(max[channel]);
                sum[channel] += u64::from(difference);
            }
        }
        let count = self.pixels.len().max(1) as f64;
        Difference { max, mean: sum.map(|sum| sum as f64 / count), pixels }
    }

    /// Checks that `actual` is this picture to the pixel. `name` is for the message, and for the two
    /// files left in `target/<profile>/failures`.
    ///
    /// # Panics
    /// When it is not.
    #[track_caller]
    pub fn expect_identical(&self, actual: &Self, name: &str) {
        if self == actual {
            return;
        }
        let folder = built::failures_dir();
        for (picture, which) in [(self, "expected"), (actual, "actual")] {
            picture.write_png(&folder.join(format!("{name}-{which}.png")));
        }
        let apart = if self.size() == actual.size() {
            format!("{:?}", self.difference(actual))
        } else {
            format!("sizes {:?} and {:?}", self.size(), actual.size())
        };
        panic!("{name}: the pictures differ, {apart}; both are in {}", folder.display());
    }

    /// Writes it as a PNG file.
    ///
    /// # Panics
    /// When the file cannot be written.
    #[track_caller]
    pub fn write_png(&self, path: &Path) {
        let encode = || -> Result<(), png::EncodingError> {
            let mut encoder = png::Encoder::new(BufWriter::new(File::create(path)?), self.width, self.height);
            encoder.set_color(png::ColorType::Rgba);
            encoder.set_depth(png::BitDepth::Eight);
            let mut writer = encoder.write_header()?;
            writer.write_image_data(self.pixels.as_flattened())?;
            writer.finish()
        };
        encode().unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
    }
}

impl fmt::Debug for Picture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Picture {}x{}, {} colours", self.width, self.height, self.distinct_colours())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Scratch;

    fn sample() -> Picture {
        Picture::new(2, 1, vec![[1, 2, 3, 255], [10, 20, 30, 40]])
    }

    #[test]
    fn a_picture_survives_its_png() {
        let scratch = Scratch::new();
        let path = scratch.file("sample.png");
        sample().write_png(&path);
        assert_eq!(Picture::from_png(&path), sample());
    }

    #[test]
    fn a_gray_png_has_equal_channels() {
        let scratch = Scratch::new();
        let path = scratch.file("gray.png");
        let mut encoder = png::Encoder::new(File::create(&path).unwrap(), 2, 1);
        encoder.set_color(png::ColorType::Grayscale);
        encoder.write_header().unwrap().write_image_data(&[7, 9]).unwrap();
        assert_eq!(Picture::from_png(&path), Picture::new(2, 1, vec![[7, 7, 7, 255], [9, 9, 9, 255]]));
    }

    #[test]
    fn differences_are_counted_by_channel() {
        let other = Picture::new(2, 1, vec![[1, 2, 3, 255], [14, 20, 29, 40]]);
        let expected = Difference { max: [4, 0, 1, 0], mean: [2.0, 0.0, 0.5, 0.0], pixels: 1 };
        assert_eq!(sample().difference(&other), expected);
        assert_eq!(sample().distinct_colours(), 2);
    }

    #[test]
    #[should_panic(expected = "sizes of two pictures")]
    fn pictures_of_two_sizes_are_not_compared() {
        sample().difference(&Picture::new(1, 1, vec![[0; 4]]));
    }
}
