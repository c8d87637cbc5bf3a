//! Are a stored blob's bytes what its name says? Presence is checked everywhere; bytes only where somebody doubts.

use std::{
    fs::File,
    io::{self, Read as _},
    sync::mpsc::{Receiver, SyncSender, channel, sync_channel},
    thread,
};

use rustix::{
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
    io::Errno,
};

use super::Block;
use crate::model::digest::{Digest, Hasher};

const BUFFER: usize = 1 << 20;
/// Read at once past the page cache, and how many such pieces are ahead of the digest.
const PIECE: usize = 2 << 20;
const AHEAD: usize = 2;

/// Hashes an open blob from its current position. `read` is told of every piece.
pub fn is_right(mut file: &File, digest: &Digest, read: &dyn Fn(u64)) -> io::Result<bool> {
    let mut hasher = Hasher::new(digest.algorithm());
    let mut buffer = vec![0; BUFFER];
    loop {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            return Ok(hasher.finish() == *digest);
        }
        hasher.update(&buffer[..n]);
        read(n as u64);
    }
}

/// The same for what the disk holds and not the page cache, where the file system can tell them apart: pages that were
/// read long ago hide what has rotted since. The disk reads on while the digest is computed. For a file that nobody
/// else reads through this descriptor.
pub fn is_right_on_disk(file: &File, digest: &Digest, read: &dyn Fn(u64)) -> io::Result<bool> {
    let size = file.metadata()?.len();
    let mut hasher = Hasher::new(digest.algorithm());
    past_the_cache(file, true)?;
    if size <= PIECE as u64 {
        let mut block = Block::new(usize::try_from(size).unwrap_or(PIECE));
        fill(file, &mut block, 0)?;
        hasher.update(block.filled());
        read(block.len() as u64);
        return Ok(hasher.finish() == *digest);
    }
    thread::scope(|scope| {
        let (full, pieces) = sync_channel(AHEAD);
        let (spent, empty) = channel();
        // One more than are ahead is being hashed.
        for _ in 0..=AHEAD {
            let _ = spent.send(Block::new(PIECE));
        }
        scope.spawn(move || read_ahead(file, size, &empty, &full));
        for piece in pieces {
            let block: Block = piece?;
            hasher.update(block.filled());
            read(block.len() as u64);
            let _ = spent.send(block);
        }
        Ok(hasher.finish() == *digest)
    })
}

/// Ends when the file does, or when nobody wants more.
fn read_ahead(file: &File, size: u64, empty: &Receiver<Block>, full: &SyncSender<io::Result<Block>>) {
    let mut at = 0;
    while at < size {
        let Ok(mut block) = empty.recv() else { return };
        let read = fill(file, &mut block, at);
        let end = !matches!(read, Ok(n) if n > 0);
        at += block.len() as u64;
        if full.send(read.map(|_| block)).is_err() || end {
            return;
        }
    }
}

fn fill(file: &File, block: &mut Block, at: u64) -> io::Result<usize> {
    match block.read_from(file, at) {
        // A file system that takes the flag and wants another alignment.
        Err(e) if Errno::from_io_error(&e) == Some(Errno::INVAL) => {
            past_the_cache(file, false)?;
            block.read_from(file, at)
        }
        other => other,
    }
}

/// A file system that has no such thing reads through its cache.
fn past_the_cache(file: &File, wanted: bool) -> io::Result<()> {
    let mut flags = fcntl_getfl(file)?;
    flags.set(OFlags::DIRECT, wanted);
    match fcntl_setfl(file, flags) {
        Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(()),
        other => Ok(other?),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn both_ways_of_reading_agree_at_every_size_and_count_every_byte() {
        for size in [0, 1, 4095, 4096, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE, 5 * PIECE + 4097] {
            let mut bytes = vec![7; size];
            let digest = Digest::sha256(&bytes);
            // On a disk and not in memory, where there is no way past the cache.
            let file = tempfile::NamedTempFile::new_in(env!("CARGO_MANIFEST_DIR")).unwrap();
            std::fs::write(file.path(), &bytes).unwrap();
            let counted = Cell::new(0);
            let count = |n| counted.set(counted.get() + n);
            let right = is_right_on_disk(&file.reopen().unwrap(), &digest, &count).unwrap();
            assert!(right && counted.get() == size as u64, "{size}: {}", counted.get());
            if let Some(last) = bytes.last_mut() {
                *last ^= 1;
                std::fs::write(file.path(), &bytes).unwrap();
                assert!(!is_right_on_disk(&file.reopen().unwrap(), &digest, &|_| ()).unwrap(), "{size}");
            }
        }
    }
}
