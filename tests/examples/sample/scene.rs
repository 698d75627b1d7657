//! The picture: what the vertices and the uniforms of a frame are. The number of the frame decides all.

use std::f32::consts::TAU;

use crate::options::Size;

/// Position, colour, and how much of the uniform turn the vertex takes part in (0 or 1).
pub(crate) type Vertex = [f32; 6];

/// The axes of the turned scene in clip space (x axis, then y axis), then the light's colour.
pub(crate) type Uniforms = [f32; 8];

const TRIANGLES: u8 = 6;
pub(crate) const VERTICES: usize = 4 + 3 * TRIANGLES as usize + 4;
/// After so many frames the picture is again what it was.
const PERIOD: u32 = 240;
/// How far the scene turns from one frame to the next.
const STEP: f32 = TAU / 240.0;

/// Two triangles of the background, one for each of the ring, two of the square in the middle.
pub(crate) fn indices() -> Vec<u16> {
    let quad = |first: u16| [0, 1, 2, 2, 1, 3].map(|index| first + index);
    let ring = u16::from(3 * TRIANGLES);
    let mut indices = quad(0).to_vec();
    indices.extend(4..4 + ring);
    indices.extend(quad(4 + ring));
    indices
}

pub(crate) fn vertices(frame: u32) -> Vec<Vertex> {
    let turn = turn(frame);
    let mut vertices = Vec::with_capacity(VERTICES);

    // A dark background that fills the picture and stands still, but for one corner that breathes.
    let breath = 0.10 + 0.04 * turn.sin();
    vertices.push([-1.0, -1.0, 0.03, 0.03, 0.06, 0.0]);
    vertices.push([1.0, -1.0, 0.05, 0.04, breath, 0.0]);
    vertices.push([-1.0, 1.0, 0.02, 0.07, 0.12, 0.0]);
    vertices.push([1.0, 1.0, 0.12, 0.05, 0.16, 0.0]);

    // A ring of triangles, each turning about itself while the uniforms turn the ring.
    for index in 0..TRIANGLES {
        let place = f32::from(index) / f32::from(TRIANGLES);
        let (y, x) = (place * TAU).sin_cos();
        for corner in 0..3u8 {
            let third = f32::from(corner) / 3.0;
            let (dy, dx) = (third * TAU - 3.0 * turn).sin_cos();
            let [r, g, b] = hue(place + third * 0.5);
            vertices.push([0.62 * x + 0.24 * dx, 0.62 * y + 0.24 * dy, r, g, b, 1.0]);
        }
    }

    // A square in the middle, turning the other way.
    for corner in [0, 1, 3, 2u8] {
        let quarter = f32::from(corner) / 4.0;
        let (y, x) = (quarter * TAU - 2.0 * turn).sin_cos();
        let [r, g, b] = hue(quarter + turn / TAU);
        vertices.push([0.27 * x, 0.27 * y, r, g, b, 1.0]);
    }
    vertices
}

pub(crate) fn uniforms(frame: u32, size: Size) -> Uniforms {
    let (sin, cos) = turn(frame).sin_cos();
    let (width, height) = (f32::from(size.width), f32::from(size.height));
    let (x, y) = (width.min(height) / width, width.min(height) / height);
    let light = 0.9 + 0.1 * (2.0 * turn(frame)).cos();
    [x * cos, y * sin, -x * sin, y * cos, light, light, light, 1.0]
}

fn turn(frame: u32) -> f32 {
    f32::from((frame % PERIOD) as u16) * STEP
}

/// A saturated colour; `place` goes once round the circle of hues from 0 to 1.
fn hue(place: f32) -> [f32; 3] {
    [0.0, 1.0, 2.0].map(|third| 0.55 + 0.45 * ((place - third / 3.0) * TAU).cos())
}
