//! `tidemark doctor`: whether Tidemark works on this machine, what it would use, and what to do where it does not.

mod checklist;
mod hidden;
mod system;
mod variables;
mod vulkan;

use crate::failure::Failure;
use crate::print;
use checklist::Checklist;
use lexopt::prelude::*;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

const HELP: &str = "\
Usage: tidemark doctor [OPTIONS]

Checks everything that Tidemark needs, and tells what it found and what to do about what is missing. The drivers are
tried in processes of their own, so that a broken one does no harm.

Options:
  --driver LIBRARY   the Tidemark to check (default: the one that `tidemark run` takes)
  --hidden           check nothing, but list what is hidden from applications where memory is emulated, and why
  -h, --help         this text

Exit status: 0 if Tidemark works here, with or without warnings, 1 if it does not, 2 for a wrong option.
";

/// Runs the subcommand.
pub(crate) fn main(mut arguments: lexopt::Parser) -> Result<ExitCode, Failure> {
    let options = Options::parse(&mut arguments);
    let Some(options) = options.map_err(|error| Failure::usage("tidemark doctor --help", error))? else {
        return Ok(print(HELP));
    };
    if options.lists_hidden {
        return Ok(print(&hidden::table()));
    }
    let mut list = Checklist::new(io::stdout());
    system::check(&mut list);
    vulkan::check(&mut list, options.driver);
    system::check_render_nodes(&mut list);
    variables::check(&mut list, std::env::vars_os());
    Ok(if list.verdict() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[derive(Debug, Default)]
struct Options {
    driver: Option<PathBuf>,
    lists_hidden: bool,
}

impl Options {
    /// `None` if help is asked for.
    fn parse(arguments: &mut lexopt::Parser) -> Result<Option<Self>, lexopt::Error> {
        let mut options = Self::default();
        while let Some(argument) = arguments.next()? {
            match argument {
                Short('h') | Long("help") => return Ok(None),
                Long("driver") => {
                    let path = std::path::absolute(arguments.value()?);
                    options.driver = Some(path.map_err(|error| format!("--driver: {error}"))?);
                }
                Long("hidden") => options.lists_hidden = true,
                other => return Err(other.unexpected()),
            }
        }
        Ok(Some(options))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Option<Options>, String> {
        Options::parse(&mut lexopt::Parser::from_args(arguments)).map_err(|error| error.to_string())
    }

    #[test]
    fn the_driver_may_be_given_or_the_list_asked_for() {
        let default = parse(&[]).unwrap().unwrap();
        assert_eq!((default.driver, default.lists_hidden), (None, false));
        assert!(parse(&["--hidden"]).unwrap().unwrap().lists_hidden);
        assert!(parse(&["--driver", "here.so"]).unwrap().unwrap().driver.unwrap().is_absolute());
        assert!(parse(&["-h"]).unwrap().is_none());
        assert!(parse(&["--driver"]).is_err());
        assert!(parse(&["app"]).is_err());
    }
}
