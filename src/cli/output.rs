//! What people see: sizes, tables, progress and the log.

use std::io::{IsTerminal as _, Write as _};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tracing::Level;

/// From when on a command shows that it is at work.
const PATIENCE: Duration = Duration::from_secs(1);

/// Sends warnings, or more, to standard error.
pub fn start_log(verbose: u8, quiet: bool) {
    let level = match (quiet, verbose) {
        (true, _) => Level::ERROR,
        (false, 0) => Level::WARN,
        (false, 1) => Level::INFO,
        (false, 2) => Level::DEBUG,
        (false, _) => Level::TRACE,
    };
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .without_time()
        .with_target(false)
        .with_ansi(false)
        // Where standard error can't be written, nothing can be said about that.
        .log_internal_errors(false)
        .init();
}

/// Prints a result, and does not mind when nobody reads it to its end.
///
/// # Errors
/// When standard output can't be written.
pub fn print(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// An error with its causes, in one line. Some errors tell their cause in their own
/// text; it is not told twice.
#[must_use]
pub fn explain(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |text, cause| match text.as_str() {
        "" => cause,
        told if told.contains(&cause) => text,
        _ => format!("{text}: {cause}"),
    })
}

/// A size as people read it, e.g. `12.3 MB`.
#[must_use]
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1000.0;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A bar on the terminal that counts bytes, if there is a terminal, and the work
/// takes long.
pub struct Meter {
    bar: Option<ProgressBar>,
    start: Instant,
    shown: Mutex<bool>,
}

impl Meter {
    /// A meter for about `total` bytes.
    #[must_use]
    pub fn new(total: u64, quiet: bool) -> Self {
        let bar = (!quiet && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::hidden());
            let style = ProgressStyle::with_template("{bar:30} {bytes} of {total_bytes} ({bytes_per_sec}), {eta} left");
            bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Self { bar, start: Instant::now(), shown: Mutex::new(false) }
    }

    /// Counts `bytes`.
    pub fn add(&self, bytes: u64) {
        let Some(bar) = &self.bar else {
            return;
        };
        if self.start.elapsed() > PATIENCE
            && let Ok(mut shown) = self.shown.lock()
            && !std::mem::replace(&mut *shown, true)
        {
            bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        bar.inc(bytes);
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    #[test]
    fn causes_are_told_once() {
        let missing = || std::io::Error::other("no file");
        let error = anyhow::Error::from(missing()).context("reading x: no file");
        assert_eq!(super::explain(&error), "reading x: no file");
        let error = Err::<(), _>(missing()).context("reading x").expect_err("an error");
        assert_eq!(super::explain(&error), "reading x: no file");
    }

    #[test]
    fn sizes_have_one_digit_after_the_point() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (1_234_567, "1.2 MB"),
            (999_999, "1.0 MB"),
            (1_963_000_000, "2.0 GB"),
        ] {
            assert_eq!(super::size(bytes), text);
        }
    }
}
