//! A buffer that the disk takes as it is: aligned, so that writes may pass the page cache (open(2), `O_DIRECT`).

use std::{fs::File, io, os::unix::fs::FileExt as _};

/// What every disk and file system is content with.
pub(super) const ALIGN: usize = 4096;

/// A bounded buffer of bytes, aligned in memory.
#[derive(Debug)]
pub struct Block {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
    capacity: usize,
}

impl Block {
    /// `capacity` is rounded up to the alignment.
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.max(1).next_multiple_of(ALIGN);
        let bytes = vec![0; capacity + ALIGN];
        let start = bytes.as_ptr().align_offset(ALIGN);
        // An allocator may refuse to say; then the block is merely not aligned, and written through the cache.
        let start = if start > ALIGN { 0 } else { start };
        Self { bytes, start, len: 0, capacity }
    }

    pub fn capacity(&self) -> usize {
        self.capacity
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Takes as much as fits under `limit` and returns how much that was.
    pub fn fill(&mut self, bytes: &[u8], limit: usize) -> usize {
        let room = self.room(limit.saturating_sub(self.len));
        let taken = bytes.len().min(room.len());
        room[..taken].copy_from_slice(&bytes[..taken]);
        self.grow(taken);
        taken
    }

    /// Where the next bytes go, at most so many.
    pub fn room(&mut self, most: usize) -> &mut [u8] {
        let room = most.min(self.capacity - self.len);
        let at = self.start + self.len;
        &mut self.bytes[at..at + room]
    }

    /// So many bytes were put into [`Block::room`]. Returns them.
    pub fn grow(&mut self, by: usize) -> &[u8] {
        let at = self.len;
        self.len = self.capacity.min(at + by);
        &self.bytes[self.start + at..self.start + self.len]
    }

    /// Fills itself from a file and returns how much came: less than fits only where the file ends.
    pub(super) fn read_from(&mut self, file: &File, at: u64) -> io::Result<usize> {
        self.len = 0;
        while self.len < self.capacity {
            let next = at + self.len as u64;
            let read = file.read_at(self.room(usize::MAX), next)?;
            self.len += read;
            // Past the page cache only the end of a file is not aligned, and nothing can be read from there.
            if read == 0 || !read.is_multiple_of(ALIGN) {
                break;
            }
        }
        Ok(self.len)
    }

    pub fn filled(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.len]
    }

    /// The content, with zeros up to the next multiple of the alignment. `None` if it is not aligned in memory.
    pub(super) fn padded(&mut self) -> Option<&[u8]> {
        let end = self.start + self.len.next_multiple_of(ALIGN);
        self.bytes[self.start + self.len..end].fill(0);
        let padded = &self.bytes[self.start..end];
        padded.as_ptr().addr().is_multiple_of(ALIGN).then_some(padded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_takes_what_fits_and_pads_with_zeros() {
        let mut block = Block::new(5000);
        assert_eq!(block.capacity(), 2 * ALIGN);
        assert_eq!(block.fill(&[1; 9000], usize::MAX), 2 * ALIGN);
        assert_eq!(block.fill(&[1; 10], usize::MAX), 0);
        block.clear();
        assert_eq!(block.fill(&[7; 10], 4), 4);
        let padded = block.padded().expect("aligned");
        assert_eq!(padded.len(), ALIGN);
        assert_eq!(&padded[..4], [7; 4]);
        assert!(padded[4..].iter().all(|byte| *byte == 0), "what was there before is gone");
        assert_eq!(block.filled(), [7; 4]);
    }
}
