//! Bounds what is in memory of layers, and of NARs that are sent.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// How many bytes of the layers of an archive may be in memory.
pub const MEMORY: u64 = 40 << 20;

/// Bounds what is in memory: how many bytes of it are free, and who waits for them.
pub struct Memory {
    size: u64,
    free: Arc<(Mutex<u64>, Condvar)>,
}

/// A part of the memory, given back when it is dropped.
pub struct Share {
    bytes: u64,
    free: Arc<(Mutex<u64>, Condvar)>,
}

impl Memory {
    /// So many bytes, all of them free.
    pub fn of(size: u64) -> Self {
        Self { size, free: Arc::new((Mutex::new(size), Condvar::new())) }
    }

    /// Waits for memory; more than all of it counts as all.
    pub fn take(&self, bytes: u64) -> Share {
        let bytes = bytes.min(self.size);
        let (lock, changed) = &*self.free;
        let free = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = changed.wait_while(free, |free| *free < bytes).unwrap_or_else(PoisonError::into_inner);
        *free -= bytes;
        Share { bytes, free: Arc::clone(&self.free) }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let (lock, changed) = &*self.free;
        *lock.lock().unwrap_or_else(PoisonError::into_inner) += self.bytes;
        changed.notify_all();
    }
}
