//! What can be done to a store in test builds, and in no other: die at its n-th change as if killed there
//! (`IMAGECACHE_DIE_AT=n`), be refused the n-th change by the disk (`IMAGECACHE_FAIL_AT=n:ENOSPC`; with `n+` also all
//! that follow) or break down there (`n:PANIC`), and do without locks (`IMAGECACHE_NO_LOCKS`). The protocol promises that none of it loses anything;
//! `tests/kills.rs` and `tests/faults.rs` try it.

use std::os::fd::AsFd;

use rustix::io::Errno;

/// What a change does: a full disk refuses some and not others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Takes space, for bytes or for a name.
    Take,
    /// Asks the disk whether it has what it took.
    Sync,
    /// Takes none: removals, modes and times.
    Keep,
}

/// Before each change of the store.
#[cfg(debug_assertions)]
pub(super) fn before(change: Change) -> Result<(), Errno> {
    die();
    let Some(script) = SCRIPT.as_ref() else { return Ok(()) };
    let full = matches!(script.errno, Some(Errno::NOSPC | Errno::DQUOT));
    if full && change == Change::Keep {
        return Ok(());
    }
    let n = script.seen.fetch_add(1, Relaxed) + 1;
    if n == script.at || script.on && n > script.at {
        tracing::warn!(n, ?change, errno = ?script.errno, "IMAGECACHE_FAIL_AT");
        return Err(script.errno.unwrap_or_else(|| panic!("as IMAGECACHE_FAIL_AT says")));
    }
    Ok(())
}

/// fsync or fdatasync. One that is made to fail loses what the file holds, as a disk may: only a file that is never
/// used again passes the tests.
pub(super) fn sync<F: AsFd>(file: F, sync: fn(F) -> rustix::io::Result<()>) -> Result<(), Errno> {
    #[cfg(debug_assertions)]
    if let Err(errno) = before(Change::Sync) {
        if let Ok(stat) = rustix::fs::fstat(&file) {
            let size = u64::try_from(stat.st_size).unwrap_or_default();
            let _ = rustix::fs::ftruncate(&file, 0).and_then(|()| rustix::fs::ftruncate(&file, size));
        }
        return Err(errno);
    }
    sync(file)
}

/// Whether this file system is to be taken for one whose locks lock nobody out.
pub(super) fn no_locks() -> bool {
    cfg!(debug_assertions) && std::env::var_os("IMAGECACHE_NO_LOCKS").is_some()
}

#[cfg(not(debug_assertions))]
pub(super) fn before(_: Change) -> Result<(), Errno> {
    Ok(())
}

#[cfg(debug_assertions)]
use std::sync::{
    LazyLock,
    atomic::{AtomicU64, Ordering::Relaxed},
};

#[cfg(debug_assertions)]
struct Script {
    at: u64,
    on: bool,
    /// None: a panic.
    errno: Option<Errno>,
    seen: AtomicU64,
}

#[cfg(debug_assertions)]
static SCRIPT: LazyLock<Option<Script>> = LazyLock::new(|| {
    let text = std::env::var("IMAGECACHE_FAIL_AT").ok()?;
    let (at, errno) = text.split_once(':')?;
    let errno = match errno {
        "ENOSPC" => Some(Errno::NOSPC),
        "EDQUOT" => Some(Errno::DQUOT),
        "EIO" => Some(Errno::IO),
        "EROFS" => Some(Errno::ROFS),
        "PANIC" => None,
        _ => return None,
    };
    let at = at.strip_suffix('+').map_or((at, false), |at| (at, true));
    Some(Script { at: at.0.parse().ok()?, on: at.1, errno, seen: AtomicU64::new(0) })
});

#[cfg(debug_assertions)]
fn die() {
    static LEFT: LazyLock<Option<AtomicU64>> =
        LazyLock::new(|| Some(AtomicU64::new(std::env::var("IMAGECACHE_DIE_AT").ok()?.parse().ok()?)));
    let Some(left) = LEFT.as_ref() else { return };
    if left.fetch_sub(1, Relaxed) == 1 {
        // The status of a shell for SIGKILL. No destructor runs, nothing is flushed.
        std::process::exit(137);
    }
}
