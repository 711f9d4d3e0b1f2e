//! `stowage completions` and `stowage man`, made from the command line itself.

use std::io;
use std::path::Path;

use anyhow::Context as _;
use clap::CommandFactory as _;

use super::args::Arguments;
use super::output;

/// Prints a completion script.
///
/// # Errors
/// When standard output can't be written.
pub fn completions(shell: clap_complete::Shell) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "stowage", &mut script);
    Ok(output::print(&String::from_utf8_lossy(&script))?)
}

/// Prints the manual page, or writes a page for each command into a folder.
///
/// # Errors
/// When they can't be written.
pub fn man(directory: Option<&Path>) -> anyhow::Result<()> {
    match directory {
        None => Ok(output::print(&String::from_utf8_lossy(&page()?))?),
        Some(directory) => {
            std::fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
            clap_mangen::generate_to(Arguments::command(), directory)
                .with_context(|| format!("writing manual pages to {}", directory.display()))
        }
    }
}

fn page() -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    clap_mangen::Man::new(Arguments::command()).render(&mut page)?;
    Ok(page)
}
