//! Are a stored blob's bytes what its name says? Presence is checked everywhere; bytes only where somebody doubts.

use std::{fs::File, io::Read as _};

use crate::model::digest::{Digest, Hasher};

const BUFFER: usize = 1 << 20;

/// Hashes an open blob from its current position. `read` is told of every piece.
pub fn is_right(mut file: &File, digest: &Digest, read: &dyn Fn(u64)) -> std::io::Result<bool> {
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
