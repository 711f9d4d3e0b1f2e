//! `stowage hook --install`: a script that nix.conf can name.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use super::args::HookArguments;
use super::output;
use super::settings::{self, Settings};
use super::worker;
use crate::s3::address;

/// Does what `--install` asks for.
///
/// # Errors
/// When the configuration is wrong, or the script can't be written.
pub fn run(settings: &Settings, arguments: &HookArguments) -> anyhow::Result<()> {
    // Now, rather than at each build.
    worker::configuration(arguments.config.as_deref())?;
    let program = std::env::current_exe().context("finding stowage itself")?;
    let folder = arguments.dir.clone().unwrap_or_else(settings::script_folder);
    let folder = std::path::absolute(&folder).with_context(|| format!("finding {}", folder.display()))?;
    let HookArguments { config, cache, strict, .. } = arguments;
    let path = install(&folder, &program, config.as_deref(), cache.as_deref(), *strict)?;
    if !settings.quiet {
        output::print(&advice(&path, Path::new("/nix/var/nix/daemon-socket/socket").exists()))?;
    }
    Ok(())
}

/// Writes the script into `folder`, for stowage at `program` with the configuration in
/// `configuration`; gives its path.
///
/// # Errors
/// When it can't be written, or a path can't be said in it.
pub fn install(
    folder: &Path,
    program: &Path,
    configuration: Option<&Path>,
    cache: Option<&Path>,
    strict: bool,
) -> anyhow::Result<PathBuf> {
    let mut variables = Vec::new();
    for (name, value) in [("STOWAGE_CONFIG", configuration), ("STOWAGE_CACHE", cache)] {
        if let Some(value) = value {
            let value = match value.to_str().is_some_and(address::is_address) {
                true => value.to_owned(),
                false => std::path::absolute(value).with_context(|| format!("finding {}", value.display()))?,
            };
            variables.push(format!("export {name}={}\n", quote(&value)?));
        }
    }
    if strict {
        variables.push("export STOWAGE_STRICT=1\n".to_owned());
    }
    let end = if strict {
        "exec \"$stowage\" hook\n".to_owned()
    } else {
        // Whatever happens to stowage, e.g. that somebody deletes it.
        "\"$stowage\" hook || echo \"stowage-hook: $stowage failed; what was built is not in the cache\" >&2\nexit 0\n"
            .to_owned()
    };
    let script = format!(
        "#!/bin/sh\n# Written by `stowage hook --install`. nix.conf: post-build-hook = this file\nstowage={}\n{}{end}",
        quote(program)?,
        variables.concat()
    );
    std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let path = folder.join("stowage-hook");
    let partial = folder.join(format!(".stowage-hook-{}", std::process::id()));
    std::fs::write(&partial, script)
        .and_then(|()| std::fs::set_permissions(&partial, std::fs::Permissions::from_mode(0o755)))
        .and_then(|()| std::fs::rename(&partial, &path))
        .with_context(|| format!("writing {}", path.display()))?;
    Ok(path)
}

/// What to do with the script at `path`.
#[must_use]
pub fn advice(path: &Path, has_daemon: bool) -> String {
    let (file, then) = if has_daemon {
        ("/etc/nix/nix.conf", "; then restart the Nix daemon: systemctl restart nix-daemon")
    } else {
        ("~/.config/nix/nix.conf, or /etc/nix/nix.conf", "")
    };
    format!(
        "{} is written. Add this line to {file}{then}\n\n    post-build-hook = {}\n",
        path.display(),
        path.display()
    )
}

/// A path as a word of the shell.
fn quote(path: &Path) -> anyhow::Result<String> {
    match path.to_str() {
        Some(text) if !text.contains(['\n', '\0']) => Ok(format!("'{}'", text.replace('\'', r"'\''"))),
        _ => bail!("{} can't be written in a script; use another path", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_says_what_was_asked_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = install(folder.path(), Path::new("/opt/it's/stowage"), Some(Path::new("/etc/c.toml")), None, false)
            .expect("written");
        let text = std::fs::read_to_string(&path).expect("there");
        assert!(text.contains("stowage='/opt/it'\\''s/stowage'\n") && text.contains("STOWAGE_CONFIG='/etc/c.toml'"));
        assert!(text.ends_with("exit 0\n") && !text.contains("STRICT"));
        assert_eq!(path.metadata().expect("there").permissions().mode() & 0o777, 0o755);
        install(folder.path(), Path::new("/s"), None, Some(Path::new("/c")), true).expect("written again");
        let text = std::fs::read_to_string(&path).expect("there");
        assert!(text.contains("STOWAGE_STRICT=1") && text.ends_with("exec \"$stowage\" hook\n"), "{text}");
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 1);
    }
}
