//! A server that makes no progress ends its process: a dead mirror costs a node nothing, a hung one minutes. Clients
//! that take no bytes are cut by `ops::server`.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

/// Beaten by the server while it works; a thread of its own watches it.
#[derive(Clone, Debug, Default)]
pub struct Heart(Arc<AtomicU64>);

/// So many looks in a row must see no beat: one late look after the machine slept is no stall.
const LOOKS: u32 = 10;

impl Heart {
    pub fn beat(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Calls `stalled` once there is no beat for `limit`. Ends when the heart is dropped elsewhere.
    pub fn watch(&self, limit: Duration, stalled: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let beats = Arc::downgrade(&self.0);
        let look = move || {
            let (mut seen, mut quiet) = (0, 0);
            while let Some(beats) = beats.upgrade() {
                let now = beats.load(Ordering::Relaxed);
                drop(beats);
                quiet = if now == seen { quiet + 1 } else { 0 };
                seen = now;
                if quiet > LOOKS {
                    return stalled();
                }
                thread::sleep(limit / LOOKS);
            }
        };
        thread::Builder::new().name("watchdog".into()).spawn(look).map(drop)
    }
}
