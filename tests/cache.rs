//! The cache and the hook against the Nix of this machine.
#![expect(clippy::expect_used, reason = "a test fails by panicking, its helpers too")]

mod scratch;
mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use scratch::{Scratch, assert_whole, chain, run, snapshot};
use stowage::cache::setup::{Format, Setup};
use stowage::cache::{CacheError, Options, Refusal, Summary, export};
use stowage::hook::config::HookConfig;
use stowage::hook::{self, HookEvent};
use stowage::nar;
use stowage::store::StorePath;

/// The program.
const STOWAGE: &str = env!("CARGO_BIN_EXE_stowage");

/// Exports what `root` needs to the folder `cache` of the scratch.
fn add(scratch: &Scratch, root: &StorePath) -> Result<Summary, CacheError> {
    export(&scratch.files(), &scratch.closure(root), scratch.path("cache"), &Options::new(2))
}

/// The program that puts what `root` needs in the folder `cache` of the scratch.
fn exporter(scratch: &Scratch, root: &StorePath) -> Command {
    let mut command = scratch.command(STOWAGE);
    command.args(["cache", "add", "--quiet", "--jobs", "2"]);
    command.arg(scratch.path("cache")).arg(scratch.location().print(root));
    command
}

#[test]
fn nars_and_their_sizes_are_those_of_nix() {
    let scratch = Scratch::new();
    let closure = scratch.closure(&scratch.build(&chain(3, 300_000)));
    for (id, info) in closure.infos().iter().enumerate() {
        let dumped = run(scratch.command("nix-store").arg("--dump").arg(closure.print(id))).stdout;
        assert!(nar::dump(&scratch.files(), &info.path, Vec::new()).expect("dumps") == dumped);
        let entries = scratch.files().walk(&info.path).expect("walks");
        assert_eq!(nar::size(&entries), info.nar_size);
    }
}

#[test]
fn folders_may_be_deeper_than_64_and_tokens_fill_more_than_a_buffer() {
    let scratch = Scratch::new();
    let root = scratch.build(
        r#"derivation { name = "deep"; system = builtins.currentSystem; builder = "/bin/sh"; PATH = "/usr/bin:/bin";
            args = [ "-c" ''
                path=$out; for level in $(seq 70); do path=$path/d; done
                mkdir -p $path; echo deep > $path/file; ln -s file $path/link; echo shallow > $out/d/e
                for file in $(seq 2000); do : > $out/a-file-with-a-rather-long-name-$file; done ''
            ]; }"#,
    );
    let dumped = run(scratch.command("nix-store").arg("--dump").arg(scratch.location().print(&root))).stdout;
    assert!(nar::dump(&scratch.files(), &root, Vec::new()).expect("dumps") == dumped);
    assert_eq!(nar::size(&scratch.files().walk(&root).expect("walks")), dumped.len() as u64);
    add(&scratch, &root).expect("exports");
    assert_eq!(assert_whole(&scratch.path("cache"), &scratch.location().store_dir), 1);
}

#[test]
fn a_large_nar_is_the_same_from_any_number_of_threads_and_nix_takes_it() {
    let scratch = Scratch::new();
    let root = scratch.build(&chain(1, 20_000_000));
    let path = scratch.location().print(&root);
    let mut files = Vec::new();
    for jobs in ["1", "2", "8"] {
        let cache = scratch.path(&format!("cache-{jobs}"));
        run(scratch.command(STOWAGE).args(["cache", "add", "--quiet", "--jobs", jobs]).arg(&cache).arg(&path));
        assert_eq!(assert_whole(&cache, &scratch.location().store_dir), 1);
        let name = &support::names(&cache.join("nar"))[0];
        files.push(fs::read(cache.join("nar").join(name)).expect("there"));
    }
    assert!(files.iter().all(|file| *file == files[0]));
    // In blocks: the first frame is not all.
    let first = zstd::zstd_safe::find_frame_compressed_size(&files[0]).expect("a frame");
    assert!(first < files[0].len() / 2, "{first} of {}", files[0].len());
    let url = format!("file://{}", scratch.path("cache-8").display());
    let to = scratch.path("taken");
    let nix =
        scratch.command("nix").args(["copy", "--no-check-sigs", "--from", &url, "--to"]).arg(&to).arg(&path).output();
    let nix = nix.expect("nix runs");
    assert!(nix.status.success(), "{}", String::from_utf8_lossy(&nix.stderr));
}

#[test]
fn the_next_job_takes_everything_from_the_cache() {
    let scratch = Scratch::new();
    let root = scratch.build(&chain(4, 1000));
    assert_eq!(add(&scratch, &root).expect("exports").added, 4);
    assert_eq!(assert_whole(&scratch.path("cache"), &scratch.location().store_dir), 4);
    let closure = scratch.closure(&root);
    let before = fs::read(scratch.real_path(&root).join("bin/data")).expect("there");
    scratch.forget_everything();

    // A new machine may build nothing, and has another setting already.
    let setup = Setup::new(&scratch.path("cache"), Vec::new(), None).expect("absolute");
    let other = format!("max-jobs = 0\nextra-substituters = file://{}?trusted=1", scratch.path("no-cache").display());
    let script =
        format!("{}exec nix-build --no-out-link --expr \"$0\"", setup.render(Format::Shell, &other).expect("renders"));
    let built = run(scratch.command("sh").arg("-c").arg(script).arg(chain(4, 1000)));
    assert_eq!(scratch.parse(&built.stdout), root);
    assert_eq!(fs::read(scratch.real_path(&root).join("bin/data")).expect("there"), before);
    let after = scratch.closure(&root);
    for (old, new) in closure.infos().iter().zip(after.infos()) {
        assert_eq!(
            (&old.path, &old.nar_hash, &old.references, &old.deriver),
            (&new.path, &new.nar_hash, &new.references, &new.deriver)
        );
    }
    run(scratch.command("nix-store").args(["--verify", "--check-contents"]));
}

#[test]
fn a_damaged_path_is_refused_with_all_that_refers_to_it() {
    for damage in [&b"damaged, but of the same size....."[..], b"longer or shorter"] {
        let scratch = Scratch::new();
        let root = scratch.build(&chain(4, damage.len()));
        let closure = scratch.closure(&root);
        let damaged = closure.infos().iter().find(|info| info.path.name() == "n2").expect("there");
        let file = scratch.real_path(&damaged.path).join("bin/data");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("set");
        fs::write(&file, damage[..].repeat(if damage.len() == 34 { 1 } else { 2 })).expect("written");

        let error = add(&scratch, &root).expect_err("damaged");
        let text = error.to_string();
        let CacheError::Refused { refusals, left_out: 1 } = error else { panic!("{text}") };
        assert!(matches!(&refusals[..], [Refusal::Damaged { .. }]), "{text}");
        let found =
            run(Command::new("nix-hash").args(["--type", "sha256", "--base32"]).arg(scratch.real_path(&damaged.path)));
        let path = scratch.location().print(&damaged.path);
        for part in [
            &path,
            &damaged.nar_hash.to_nix32(),
            String::from_utf8_lossy(&found.stdout).trim(),
            &format!("nix-store --repair-path {path}"),
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        let cache = scratch.path("cache");
        assert_eq!(assert_whole(&cache, &scratch.location().store_dir), 2);
        let leftovers = snapshot(&cache)
            .into_iter()
            .filter(|entry| entry.0.file_name().is_some_and(|name| name.to_string_lossy().starts_with(".tmp")));
        assert_eq!(leftovers.count(), 0);
    }
}

#[test]
fn what_is_broken_in_the_cache_is_repaired_and_nothing_else_touched() {
    let scratch = Scratch::new();
    let root = scratch.build(&chain(3, 1000));
    let cache = scratch.path("cache");
    add(&scratch, &root).expect("exports");
    let narinfo = cache.join(format!("{}.narinfo", &root.to_basename()[..32]));
    let nar = cache.join("nar").join(format!("{}.nar.zst", scratch.closure(&root).info(0).nar_hash.to_nix32()));
    let text = fs::read(&narinfo).expect("there");
    for (file, contents) in
        [(&narinfo, &text[..text.len() - 1]), (&narinfo, &text[..20]), (&narinfo, b""), (&nar, b""), (&nar, b"x")]
    {
        fs::write(file, contents).expect("written");
        let summary = add(&scratch, &root).expect("exports");
        assert_eq!((summary.added, summary.skipped), (1, 2));
        assert_eq!(assert_whole(&cache, &scratch.location().store_dir), 3);
    }
    fs::remove_file(&nar).expect("removed");
    assert_eq!(add(&scratch, &root).expect("exports").added, 1);

    // A NAR that is whole is kept.
    let inode = |path: &Path| path.metadata().expect("there").ino();
    let kept = inode(&nar);
    let first = scratch.closure(&root).info(0).path.to_basename();
    fs::remove_file(cache.join(format!("{}.narinfo", &first[..32]))).expect("removed");
    assert_eq!(add(&scratch, &root).expect("exports").added, 1);
    assert_eq!(inode(&nar), kept);

    let before = snapshot(&cache);
    let summary = add(&scratch, &root).expect("exports");
    assert_eq!(summary, Summary { skipped: 3, ..Summary::default() });
    assert_eq!(snapshot(&cache), before);
}

#[test]
fn a_cache_that_nix_wrote_is_added_to() {
    let scratch = Scratch::new();
    let first = scratch.build(&chain(2, 1000));
    let url = format!("file://{}", scratch.path("cache").display());
    run(scratch.command("nix").args(["copy", "--to", &url]).arg(scratch.location().print(&first)));
    let summary = add(&scratch, &scratch.build(&chain(3, 1000))).expect("exports");
    assert_eq!((summary.added, summary.skipped), (1, 2));
    let info = fs::read_to_string(scratch.path("cache/nix-cache-info")).expect("there");
    assert_eq!(info, format!("StoreDir: {}\nWantMassQuery: 1\nPriority: 30\n", scratch.location().store_dir));
}

#[test]
fn nothing_is_written_through_a_link() {
    let scratch = Scratch::new();
    let root = scratch.build(&chain(2, 1000));
    fs::create_dir_all(scratch.path("cache")).expect("made");
    fs::create_dir_all(scratch.path("outside")).expect("made");
    symlink(scratch.path("outside"), scratch.path("cache/nar")).expect("linked");
    add(&scratch, &root).expect_err("a link");
    assert_eq!(fs::read_dir(scratch.path("outside")).expect("a folder").count(), 0);
}

/// How many narinfo files there are, whatever is in them.
fn narinfos(cache: &Path) -> usize {
    let Ok(entries) = fs::read_dir(cache) else { return 0 };
    entries
        .filter(|entry| entry.as_ref().is_ok_and(|entry| entry.path().extension() == Some("narinfo".as_ref())))
        .count()
}

#[test]
fn a_kill_at_any_moment_leaves_a_whole_cache() {
    const COUNT: usize = 24;
    let scratch = Scratch::new();
    let root = scratch.build(&chain(COUNT, 300_000));
    let store_dir = scratch.location().store_dir;
    let cache = scratch.path("cache");
    let mut counts = Vec::new();
    for wanted in 1..COUNT {
        // Slow, so that there is a middle on any machine.
        let mut exporter = exporter(&scratch, &root).args(["--compress", "zstd:19"]).spawn().expect("starts");
        while exporter.try_wait().expect("a child").is_none() && narinfos(&cache) < wanted {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(wanted as u64 * 7 % 20));
        let _ = exporter.kill();
        let _ = exporter.wait();
        counts.push(if cache.exists() { assert_whole(&cache, &store_dir) } else { 0 });
    }
    assert!(counts.is_sorted(), "{counts:?}");
    assert!(counts.iter().any(|count| (1..COUNT).contains(count)), "never killed in the middle: {counts:?}");
    add(&scratch, &root).expect("exports");
    assert_eq!(assert_whole(&cache, &store_dir), COUNT);
}

#[test]
fn two_exporters_at_once_do_not_disturb_each_other() {
    let scratch = Scratch::new();
    let root = scratch.build(&chain(12, 500_000));
    let exporters: Vec<_> = (0..3).map(|_| exporter(&scratch, &root).spawn().expect("starts")).collect();
    for mut exporter in exporters {
        assert!(exporter.wait().expect("ends").success());
    }
    assert_eq!(assert_whole(&scratch.path("cache"), &scratch.location().store_dir), 12);
}

#[test]
fn modes_do_not_depend_on_the_umask() {
    let scratch = Scratch::new();
    let root = scratch.build(&chain(2, 1000));
    let exporter = exporter(&scratch, &root);
    let mut shell = Command::new("sh");
    shell.args(["-c", "umask 077; exec \"$0\" \"$@\""]).arg(exporter.get_program()).args(exporter.get_args());
    shell.envs(exporter.get_envs().filter_map(|(name, value)| Some((name, value?))));
    run(&mut shell);
    for (path, _, mode, _) in snapshot(&scratch.path("cache")) {
        assert_eq!(mode, if path.is_dir() { 0o755 } else { 0o644 }, "{}", path.display());
    }
}

/// Runs a build with the program as its hook, under the hook's name.
fn build_with_hook(scratch: &Scratch, variables: &[(&str, &Path)]) -> StorePath {
    let hook = scratch.path("stowage-hook");
    symlink(STOWAGE, &hook).expect("made");
    let mut command = scratch.command("nix-build");
    command.args(["--no-out-link", "--expr", &chain(2, 1000), "--option", "post-build-hook"]).arg(hook);
    for name in ["CI_PROJECT_DIR", "STOWAGE_CACHE", "OUT_PATHS", "DRV_PATH"] {
        command.env_remove(name);
    }
    scratch.parse(&run(command.envs(variables.iter().copied())).stdout)
}

/// Ends a job with the cache in `cache`.
fn wait(scratch: &Scratch, cache: &Path) {
    run(scratch.command(STOWAGE).args(["cache", "wait", "--quiet"]).arg(cache));
}

#[test]
fn the_hook_exports_what_nix_built_whatever_out_paths_says() {
    for variables in [&[][..], &[("OUT_PATHS", Path::new("/evil"))]] {
        let scratch = Scratch::new();
        build_with_hook(&scratch, variables);
        wait(&scratch, &scratch.path("cache"));
        assert_eq!(assert_whole(&scratch.path("cache"), &scratch.location().store_dir), 2);
    }
}

#[test]
fn the_hook_exports_to_the_folder_that_is_named() {
    let scratch = Scratch::new();
    let (cache, project) = (scratch.path("elsewhere"), scratch.path("project"));
    fs::create_dir(&project).expect("made");
    build_with_hook(&scratch, &[("STOWAGE_CACHE", &cache), ("CI_PROJECT_DIR", &project)]);
    wait(&scratch, &cache);
    assert_eq!(assert_whole(&cache, &scratch.location().store_dir), 2);
    assert!(!scratch.path("cache").exists() && !project.join("cache").exists());
}

/// Runs `command` with a standard error that can't be written, in two ways, and
/// returns its exit codes.
fn codes_without_stderr(command: &mut Command) -> [Option<i32>; 2] {
    let full = fs::File::options().write(true).open("/dev/full").expect("opens");
    let (reader, closed) = std::io::pipe().expect("a pipe");
    drop(reader);
    [Stdio::from(full), Stdio::from(closed)].map(|stderr| command.stderr(stderr).status().expect("starts").code())
}

#[test]
fn the_hook_succeeds_whatever_happens() {
    let folder = tempfile::tempdir().expect("a folder");
    let link = folder.path().join("stowage-hook");
    symlink(STOWAGE, &link).expect("made");
    let mut hook = Command::new(&link);
    assert_eq!(codes_without_stderr(hook.env_clear().current_dir("/")), [Some(0); 2]);
    let mut hook = Command::new(STOWAGE);
    hook.arg("hook").env_clear().env("NIX_STORE_DIR", "not/absolute").current_dir("/");
    assert_eq!(codes_without_stderr(&mut hook), [Some(0); 2]);
    let output = hook.stderr(Stdio::piped()).output().expect("starts");
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("NIX_STORE_DIR"), "{output:?}");
}

#[test]
fn exit_codes_do_not_depend_on_who_reads_the_error() {
    let mut command = Command::new(STOWAGE);
    assert_eq!(codes_without_stderr(command.args(["cache", "add", "/none/cache", "/none/path"])), [Some(5); 2]);
}

#[test]
fn the_hook_needs_no_current_folder_where_the_cache_is_named() {
    let scratch = Scratch::new();
    let root = scratch.build(&chain(2, 1000));
    let hook = |variables: &[(&str, &Path)]| {
        let mut shell = scratch.command("sh");
        shell.args(["-c", r#"mkdir gone && cd gone && rmdir ../gone && exec "$0" hook"#, STOWAGE]);
        shell.env_remove("CI_PROJECT_DIR").env_remove("STOWAGE_CACHE");
        run(shell.env("OUT_PATHS", scratch.location().print(&root)).envs(variables.iter().copied()))
    };
    let (cache, project) = (scratch.path("elsewhere"), scratch.path("project"));
    fs::create_dir(&project).expect("made");
    for (variable, cache) in
        [(("STOWAGE_CACHE", &*cache), &cache), (("CI_PROJECT_DIR", &project), &project.join("cache"))]
    {
        let output = hook(&[variable]);
        assert!(output.stderr.is_empty(), "{output:?}");
        wait(&scratch, cache);
        assert_eq!(assert_whole(cache, &scratch.location().store_dir), 2);
    }
    let output = hook(&[]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("current folder"), "{output:?}");
}

#[test]
fn a_cache_in_a_folder_that_is_not_there_names_that_folder() {
    let scratch = Scratch::new();
    let root = scratch.build(&chain(1, 1000));
    let mut command = scratch.command(STOWAGE);
    command.args(["cache", "add", "none/cache"]).arg(scratch.location().print(&root));
    let output = command.output().expect("starts");
    assert_eq!(output.status.code(), Some(6));
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        text,
        "stowage: using the cache: none/cache can't be made, since there is no folder none; make that first, or name another folder\n"
    );
}

#[test]
fn a_valid_path_that_nix_did_not_name_is_not_exported_and_a_bogus_one_is_ignored() {
    let scratch = Scratch::new();
    let root = scratch.build(&chain(1, 1000));
    let location = scratch.location();
    let drv = scratch.closure(&root).info(0).deriver.clone();
    let bogus = StorePath::from_basename(b"00000000000000000000000000000000-bogus").expect("valid");
    let event = HookEvent { drv_path: drv, out_paths: vec![bogus.clone()], destination: scratch.path("cache") };
    let place = scratch.path("cache").into();
    let export = |event| hook::export(&[event], &place, &HookConfig::usual(), &location, &Options::new(1));
    assert_eq!(export(event).expect("exports").added, 1);
    let event = HookEvent { drv_path: None, out_paths: vec![bogus], destination: scratch.path("cache") };
    assert!(matches!(export(event), Err(hook::HookError::NoOutput(_))));
}
