//! The command line: what was typed, what it means, and one file a command.

pub mod args;
pub mod build;
mod built_layers;
pub mod cache;
pub mod cache_check;
mod cache_store;
pub mod copy;
pub mod diff;
pub mod earlier;
mod enter;
mod env;
pub mod exit;
pub mod export;
pub mod gather;
mod hook;
pub mod index;
pub mod inspect;
pub mod install;
mod lay_out;
mod layer;
pub mod layer_index;
pub mod manual;
pub mod output;
pub mod parent;
pub mod paths;
pub mod plan;
pub mod precompute;
pub mod settings;
pub mod wait;
pub mod why;
pub mod worker;

use std::fmt::Display;
use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;

use args::{Arguments, Command, HookArguments};
use settings::Settings;

use crate::local_store::namespaces;

/// Runs the command that the process was started with.
#[must_use]
pub fn main() -> ExitCode {
    if settings::is_called_as_hook() {
        output::start_log(0, false);
        return hook::main();
    }
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are no errors, and go to standard output.
            let _ = error.print();
            return if error.use_stderr() { exit::Exit::Usage.into() } else { ExitCode::SUCCESS };
        }
    };
    output::start_log(arguments.verbose, arguments.quiet);
    if let Command::Hook(HookArguments { install: false, .. }) = arguments.command {
        return hook::main();
    }
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(output::explain(&error));
            exit::Exit::of(&error).into()
        }
    }
}

/// Says on standard error what went wrong. Where that can't be written, the exit
/// code has to do.
fn complain(message: impl Display) {
    let _ = writeln!(std::io::stderr(), "stowage: {message}");
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    let settings = || Settings::read(arguments.quiet, arguments.plain_http.clone());
    match arguments.command {
        Command::Build(arguments) => build::run(&settings()?, arguments),
        Command::Plan(arguments) => plan::run(&settings()?, arguments),
        Command::LayOut(arguments) => lay_out::run(&settings()?, &arguments),
        Command::Layer(arguments) => layer::run(&settings()?, &arguments),
        Command::Copy(arguments) => copy::run(&settings()?, arguments),
        Command::Index(arguments) => index::run(&settings()?, arguments),
        Command::Diff(arguments) => diff::run(&settings()?, &arguments),
        Command::Why(arguments) => why::run(&settings()?, &arguments),
        Command::Inspect(arguments) => inspect::run(&settings()?, &arguments),
        Command::Hook(arguments) => install::run(&settings()?, &arguments),
        Command::Worker(arguments) => {
            let settings = settings()?;
            worker::run(&settings, &settings.location(arguments.root.as_deref()))
        }
        Command::Cache(command) => cache::run(&settings()?, command),
        Command::Env(arguments) => env::run(&settings()?, &arguments),
        Command::Enter { command } => enter::run(&settings()?, &command),
        Command::TryNamespaces { step } => Ok(namespaces::step(&step)?),
        Command::Completions { shell } => manual::completions(shell),
        Command::Man { directory } => manual::man(directory.as_deref()),
    }
}
