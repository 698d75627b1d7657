//! An ordinary Vulkan application that relies on coherent memory.
//!
//! It rewrites its vertices, its uniforms and the input of a compute shader in every frame, by plain
//! stores through memory that stays mapped, and reads the results back the same way. Nowhere does it
//! flush or invalidate a range: that is what `VK_MEMORY_PROPERTY_HOST_COHERENT_BIT` promises. Every byte
//! the device hands back is compared with what it must be; the first wrong one ends the run.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line program prints")]

mod buffer;
mod check;
mod draw;
mod error;
mod exchange;
mod gpu;
mod instance;
mod loader;
mod options;
mod owned;
mod pattern;
mod physical;
mod picture;
mod pipeline;
mod renderer;
mod scene;
mod swapchain;
mod target;
mod window;

use std::process::ExitCode;
use std::rc::Rc;

use error::{Error, Result};
use gpu::Gpu;
use instance::Instance;
use options::{Command, Options};
use renderer::Renderer;

fn main() -> ExitCode {
    let options = match options::parse() {
        Ok(Command::Run(options)) => options,
        Ok(Command::Help) => {
            print!("{}", options::HELP);
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("sample: {error} (--help lists the options)");
            return ExitCode::from(2);
        }
    };
    let outcome = if options.window { window::run(&options) } else { run_headless(&options) };
    match outcome {
        Ok(summary) => {
            println!("{summary}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("sample: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run_headless(options: &Options) -> Result<String> {
    let instance = Rc::new(Instance::new(loader::load()?, &[])?);
    let physical = physical::pick(&instance, &options.device, None)?;
    let gpu = Rc::new(Gpu::new(instance, physical)?);
    let mut renderer = Renderer::new(&gpu, options.size)?;
    for _ in 0..options.frames {
        renderer.frame(None)?;
    }
    finish(&mut renderer, options)
}

/// Waits for the frames still under way, writes the picture if asked to, and sums up the run.
fn finish(renderer: &mut Renderer, options: &Options) -> Result<String> {
    renderer.finish()?;
    if renderer.frames() == 0 {
        return Err(Error::new("the window was closed before the first frame"));
    }
    if let Some(path) = &options.png {
        picture::write_png(path, options.size, &renderer.read_picture()?)?;
    }
    Ok(renderer.summary())
}
