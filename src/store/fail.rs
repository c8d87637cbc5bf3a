//! Test builds can die at the n-th change of the store, as if they were killed there (`IMAGECACHE_DIE_AT=n`), and do
//! without locks (`IMAGECACHE_NO_LOCKS`). The protocol promises that neither loses anything; `tests/kills.rs` tries it.

/// Before each change of a folder.
#[cfg(debug_assertions)]
pub(super) fn point() {
    use std::sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    };
    static LEFT: LazyLock<Option<AtomicU64>> =
        LazyLock::new(|| Some(AtomicU64::new(std::env::var("IMAGECACHE_DIE_AT").ok()?.parse().ok()?)));
    let Some(left) = LEFT.as_ref() else { return };
    if left.fetch_sub(1, Relaxed) == 1 {
        // No destructor runs, nothing is flushed.
        std::process::exit(DIED);
    }
}

#[cfg(not(debug_assertions))]
pub(super) fn point() {}

/// The status of a shell for SIGKILL.
#[cfg(debug_assertions)]
const DIED: i32 = 137;

/// Whether this file system is to be taken for one whose locks lock nobody out.
pub(super) fn no_locks() -> bool {
    cfg!(debug_assertions) && std::env::var_os("IMAGECACHE_NO_LOCKS").is_some()
}
