//! The program `stowage`; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    stowage::cli::main()
}
