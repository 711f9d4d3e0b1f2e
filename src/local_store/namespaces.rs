//! Whether Nix can build in a folder by `--store`: it makes namespaces for that, in which the
//! folder is `/nix`. Where it may not, Nix 2.8 says nothing, and has builders write to the
//! machine's own `/nix/store`.
//!
//! Found out by doing what Nix does, in processes of its own (`local-derivation-goal.cc`,
//! `startBuilder`): new user, mount and PID namespaces, and a `/proc` mounted in them.

use std::process::{Command, Stdio};

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::thread::UnshareFlags;

/// Why Nix can't make what it needs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {problem}")]
pub struct NoNamespaces {
    /// What was tried.
    what: String,
    /// What the system says.
    problem: String,
}

fn failed(what: &str, problem: impl ToString) -> NoNamespaces {
    NoNamespaces { what: what.to_owned(), problem: problem.to_string() }
}

/// The step, of those that each process of the trial does.
pub const FIRST: &str = "namespaces";
const SECOND: &str = "proc";

/// Tries it, in a process that `program`, a stowage, is.
///
/// # Errors
/// What failed.
pub fn try_them(program: &std::path::Path) -> Result<(), NoNamespaces> {
    let output = Command::new(program)
        .args(["try-namespaces", FIRST])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| failed("starting stowage again", error))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let text = text.trim().trim_start_matches("stowage: ");
    match text.split_once(": ") {
        Some((what, problem)) => Err(failed(what, problem)),
        None => Err(failed("making namespaces", if text.is_empty() { "it was killed" } else { text })),
    }
}

/// Does the step `name`, in this process, which has one thread.
///
/// # Errors
/// When the system does not allow it.
pub fn step(name: &str) -> Result<(), NoNamespaces> {
    match name {
        SECOND => mount_proc(),
        _ => make(),
    }
}

fn make() -> Result<(), NoNamespaces> {
    let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let flags = UnshareFlags::NEWUSER | UnshareFlags::NEWNS | UnshareFlags::NEWPID;
    #[expect(deprecated, reason = "the other is unsafe where threads share what is unshared; here is one thread")]
    rustix::thread::unshare(flags).map_err(|error| failed("making user namespaces", error))?;
    let map = |file: &str, text: &str| {
        std::fs::write(format!("/proc/self/{file}"), text).map_err(|error| failed("mapping users", error))
    };
    // Root's capabilities outlast the start of another program; Nix starts none.
    map("uid_map", &format!("0 {user} 1"))?;
    map("setgroups", "deny")?;
    map("gid_map", &format!("0 {group} 1"))?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(|error| failed("making mounts private", error))?;
    // Only a child is in the new PID namespace.
    let program = std::env::current_exe().map_err(|error| failed("finding stowage", error))?;
    let output = Command::new(program)
        .args(["try-namespaces", SECOND])
        .output()
        .map_err(|error| failed("starting a process in them", error))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let (_, problem) = text.trim().rsplit_once(": ").unwrap_or(("", text.trim()));
    Err(failed("mounting /proc", problem))
}

fn mount_proc() -> Result<(), NoNamespaces> {
    mount("none", "/proc", "proc", MountFlags::empty(), None).map_err(|error| failed("mounting /proc", error))
}
