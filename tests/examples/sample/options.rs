//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use ash::vk;
use lexopt::{Arg, Parser, ValueExt};

pub(crate) const HELP: &str = "\
Draws a picture and runs a compute shader through coherent memory, and checks every byte that comes back.

usage: sample [options]

  --frames N       how many frames to run (default 120)
  --size WxH       size of the picture (default 640x480)
  --png FILE       write the last frame to FILE
  --window         also show the frames in a Wayland window
  --device WHICH   index of the Vulkan device, or a part of its name (default: the first that will do)
  --help           print this text

Ends with 0 when every byte was right, with 1 when one was wrong or something failed, with 2 for an
option it does not know.
";

/// What the command line asks for.
pub(crate) enum Command {
    Run(Options),
    Help,
}

pub(crate) struct Options {
    pub(crate) frames: u32,
    pub(crate) size: Size,
    pub(crate) png: Option<PathBuf>,
    pub(crate) window: bool,
    pub(crate) device: Selector,
}

/// Which of the Vulkan devices to use.
pub(crate) enum Selector {
    /// The first that can do the work.
    First,
    Index(usize),
    /// Part of the name, in lower case.
    Name(String),
}

/// The size of the picture. `u16`, as it is exact in `f32`, and no device draws larger.
#[derive(Clone, Copy)]
pub(crate) struct Size {
    pub(crate) width: u16,
    pub(crate) height: u16,
}

impl Size {
    pub(crate) fn extent(self) -> vk::Extent2D {
        vk::Extent2D { width: self.width.into(), height: self.height.into() }
    }
}

pub(crate) fn parse() -> Result<Command, lexopt::Error> {
    let mut options = Options {
        frames: 120,
        size: Size { width: 640, height: 480 },
        png: None,
        window: false,
        device: Selector::First,
    };
    let mut parser = Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("frames") => options.frames = parser.value()?.parse_with(parse_frames)?,
            Arg::Long("size") => options.size = parser.value()?.parse_with(parse_size)?,
            Arg::Long("png") => options.png = Some(parse_file(parser.value()?)?),
            Arg::Long("window") => options.window = true,
            Arg::Long("device") => options.device = parser.value()?.parse_with(parse_device)?,
            Arg::Long("help") | Arg::Short('h') => return Ok(Command::Help),
            other => return Err(other.unexpected()),
        }
    }
    Ok(Command::Run(options))
}

fn parse_frames(text: &str) -> Result<u32, &'static str> {
    text.parse().ok().filter(|&frames| frames > 0).ok_or("not a number of frames from 1 on")
}

fn parse_size(text: &str) -> Result<Size, &'static str> {
    let side = |text: &str| text.parse().ok().filter(|&side: &u16| side > 0);
    let size = text
        .split_once('x')
        .and_then(|(width, height)| Some(Size { width: side(width)?, height: side(height)? }));
    size.ok_or("not a size like 640x480")
}

fn parse_file(value: OsString) -> Result<PathBuf, lexopt::Error> {
    if value.is_empty() { Err("--png needs the name of a file".into()) } else { Ok(value.into()) }
}

fn parse_device(text: &str) -> Result<Selector, &'static str> {
    match text.parse() {
        Ok(index) => Ok(Selector::Index(index)),
        Err(_) if text.is_empty() => Err("not an index nor a part of a name"),
        Err(_) => Ok(Selector::Name(text.to_lowercase())),
    }
}
