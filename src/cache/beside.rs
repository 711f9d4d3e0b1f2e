//! Writes on a thread of its own, beside the one that has something to write.
//!
//! Of a large path, one thread reads and hashes the NAR while another compresses and writes it.
//! A few buffers go back and forth between them, so memory is bounded, and nothing is
//! allocated once they are there.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, channel, sync_channel};

use crate::nar::NarError;

/// How many buffers there are.
const BUFFERS: usize = 4;

/// What is written to here, the other thread writes.
pub struct Beside {
    full: SyncSender<Vec<u8>>,
    empty: Receiver<Vec<u8>>,
    /// How many buffers are yet to be made.
    unmade: usize,
}

/// Runs `produce`, and writes what it writes to `writer` meanwhile; returns both when all is
/// written.
///
/// # Errors
/// When `produce` fails, or `writer`.
pub fn write<W: Write + Send, T>(
    mut writer: W,
    produce: impl FnOnce(Beside) -> Result<T, NarError>,
) -> Result<(T, W), NarError> {
    std::thread::scope(|scope| {
        let (full, filled) = sync_channel::<Vec<u8>>(BUFFERS);
        let (emptied, empty) = channel();
        let thread = scope.spawn(move || {
            for buffer in filled {
                writer.write_all(&buffer)?;
                // Nobody wants it back when all is produced.
                let _ = emptied.send(buffer);
            }
            Ok(writer)
        });
        let produced = produce(Beside { full, empty, unmade: BUFFERS });
        let written: io::Result<W> = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // Whoever produces only knows that nobody takes it any more.
        let writer = written?;
        Ok((produced?, writer))
    })
}

impl Beside {
    /// A buffer that nobody uses.
    fn buffer(&mut self) -> io::Result<Vec<u8>> {
        match self.empty.try_recv() {
            Ok(buffer) => return Ok(buffer),
            Err(TryRecvError::Empty) if self.unmade > 0 => {
                self.unmade -= 1;
                return Ok(Vec::new());
            }
            Err(_) => {}
        }
        self.empty.recv().map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for Beside {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut buffer = self.buffer()?;
        buffer.clear();
        buffer.extend_from_slice(bytes);
        self.full.send(buffer).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_produced_is_written_in_order() {
        let expected: Vec<u8> = (0..1_000_000_u32).map(|number| (number / 1000) as u8).collect();
        let produce = |mut beside: Beside| {
            for part in expected.chunks(777) {
                beside.write_all(part)?;
            }
            Ok(7)
        };
        let (result, written) = write(Vec::new(), produce).expect("memory");
        assert!(result == 7 && written == expected);
    }

    #[test]
    fn the_cause_of_a_failure_is_told_on_either_side() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let endless = |mut beside: Beside| -> Result<(), NarError> {
            loop {
                beside.write_all(b"x")?;
            }
        };
        let Err(NarError::Write(error)) = write(Full, endless) else { panic!("it failed") };
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        let fail = |_: Beside| -> Result<(), NarError> { Err(NarError::Write(io::ErrorKind::NotFound.into())) };
        let Err(NarError::Write(error)) = write(Vec::new(), fail) else { panic!("it failed") };
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
