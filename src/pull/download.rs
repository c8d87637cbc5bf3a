//! One blob on its way, and who fetches which part of it. It begins as one stream from its first missing byte. When
//! connections are idle and that stream is the limit, others take chunks ahead of it; the stream goes on as long as
//! the next chunk is free, so that nothing is fetched twice. Sizes and rates in, decisions out; no effects.

use std::{
    collections::VecDeque,
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use crate::{pull::meter::Gauge, store::Ingest};

/// What one connection takes at a time, at least; blocks end where chunks end.
pub(super) const CHUNK: u64 = 8 << 20;
/// Twice as much, while there is plenty: fewer requests.
const PLENTY: usize = 64;
/// How long a stream is measured before it can be called slow.
const MEASURE: Duration = Duration::from_millis(250);
/// Help is worth a request if what is not begun would keep the blob's streams busy for longer.
const WORTH: f64 = 0.5;

pub(super) struct Download {
    pub ingest: Arc<Ingest>,
    pub gauge: Arc<Gauge>,
    /// Somebody left, or gave a part back.
    pub changed: Notify,
    /// A checkpoint is being made.
    pub checkpointing: Arc<AtomicBool>,
    /// Bytes that were written when the last checkpoint began.
    pub checkpointed: AtomicU64,
    board: Mutex<Board>,
    begun: Instant,
}

struct Board {
    /// Nobody fetches these yet: ascending, each within one chunk.
    free: VecDeque<Range<u64>>,
    receivers: usize,
    received: u64,
    /// What receivers spent on waiting for bytes, and on what to do with them.
    waited: Duration,
    worked: Duration,
    /// Another connection was of no use: the registry ignores ranges, or refused one.
    alone: bool,
}

impl Download {
    pub(super) fn new(ingest: Arc<Ingest>, gauge: Arc<Gauge>, alone: bool) -> Self {
        let free = ingest.gaps().into_iter().flat_map(chunks).collect();
        let checkpointed = AtomicU64::new(ingest.written());
        Self {
            ingest,
            gauge,
            changed: Notify::new(),
            checkpointing: Arc::default(),
            checkpointed,
            board: Mutex::new(Board {
                free,
                receivers: 0,
                received: 0,
                waited: Duration::ZERO,
                worked: Duration::ZERO,
                alone,
            }),
            begun: Instant::now(),
        }
    }

    /// The next part for one more connection, and how far it may ask for: a single one asks to the end of the gap.
    pub(super) fn claim(&self) -> Option<(Range<u64>, u64)> {
        let mut board = self.board();
        let plenty = board.free.len() > PLENTY;
        let mut part = board.free.pop_front()?;
        board.receivers += 1;
        if plenty {
            part.end = board.take_at(part.end).unwrap_or(part.end);
        }
        let ask = if board.receivers == 1 { board.gap_end(part.end) } else { part.end };
        Some((part, ask))
    }

    /// Goes on with the same stream, if the part that begins here is free. Returns where it ends.
    pub(super) fn go_on(&self, at: u64) -> Option<u64> {
        self.board().take_at(at)
    }

    /// So many bytes came, after such a wait; the time since the ones before went into hashing and writing those.
    pub(super) fn received(&self, bytes: u64, waited: Duration, worked: Duration) {
        self.gauge.add(bytes);
        let mut board = self.board();
        board.received += bytes;
        board.waited += waited;
        board.worked += worked;
    }

    /// A connection is done with its part; what it did not fetch is free again.
    pub(super) fn leave(&self, rest: Range<u64>, alone: bool) {
        let mut board = self.board();
        board.receivers -= 1;
        board.alone |= alone;
        let at = board.free.partition_point(|part| part.start < rest.start);
        for (n, part) in chunks(rest).enumerate() {
            board.free.insert(at + n, part);
        }
        drop(board);
        self.changed.notify_waiters();
    }

    pub(super) fn is_left_alone(&self) -> bool {
        self.board().receivers == 0
    }

    /// Seconds that its streams would still be busy with what nobody has begun; `None` if help is not worth it.
    pub(super) fn wants_help(&self, now: Instant) -> Option<f64> {
        let board = self.board();
        let elapsed = now.saturating_duration_since(self.begun);
        if board.alone || board.receivers == 0 || board.received == 0 || elapsed < MEASURE {
            return None;
        }
        // Hashing is the limit, which goes in order: others would only bring bytes that have to be read again.
        if board.waited < board.worked {
            return None;
        }
        let left: u64 = board.free.iter().map(|part| part.end - part.start).sum();
        let seconds = left as f64 / (board.received as f64 / elapsed.as_secs_f64());
        (left > CHUNK && seconds > WORTH).then_some(seconds)
    }

    /// Whether so much was written since the last checkpoint that the next one is due; it counts as begun.
    pub(super) fn checkpoint_is_due(&self) -> bool {
        let written = self.ingest.written();
        if written < self.checkpointed.load(Relaxed) + CHUNK || self.checkpointing.swap(true, Relaxed) {
            return false;
        }
        self.checkpointed.store(written, Relaxed);
        true
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Board {
    fn take_at(&mut self, at: u64) -> Option<u64> {
        let place = self.free.iter().position(|part| part.start == at)?;
        self.free.remove(place).map(|part| part.end)
    }

    /// Where the free parts that follow on `at` end.
    fn gap_end(&self, mut at: u64) -> u64 {
        for part in &self.free {
            if part.start == at {
                at = part.end;
            }
        }
        at
    }
}

fn chunks(range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let mut at = range.start;
    std::iter::from_fn(move || {
        let end = ((at / CHUNK + 1) * CHUNK).min(range.end);
        let part = at..end;
        at = end;
        (!part.is_empty()).then_some(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::digest::Digest, store::Store};

    const SIZE: u64 = 5 * CHUNK + 17;

    fn download(folder: &tempfile::TempDir) -> Download {
        let store = Store::create_or_open(folder.path()).unwrap();
        let ingest = Arc::new(store.ingest(&Digest::sha256(b"blob"), SIZE).unwrap());
        let gauge = crate::pull::meter::Meter::new(1).gauge(&Digest::sha256(b"blob"), SIZE);
        Download::new(ingest, gauge, false)
    }

    #[test]
    fn a_single_stream_takes_all_and_a_second_one_takes_the_next_chunk_from_it() {
        let folder = tempfile::tempdir().unwrap();
        let download = download(&folder);
        assert_eq!(download.claim(), Some((0..CHUNK, SIZE)), "asked for whole");
        assert_eq!(download.go_on(CHUNK), Some(2 * CHUNK));
        assert_eq!(download.claim(), Some((2 * CHUNK..3 * CHUNK, 3 * CHUNK)), "a closed range");
        assert_eq!(download.go_on(2 * CHUNK), None, "taken: the first stream ends there");
        download.leave(2 * CHUNK..2 * CHUNK, false);
        // The second one breaks half way; its rest is the next to be fetched.
        download.leave(2 * CHUNK + 5..3 * CHUNK, true);
        assert!(download.is_left_alone());
        assert_eq!(download.claim(), Some((2 * CHUNK + 5..3 * CHUNK, SIZE)));
    }

    #[tokio::test(start_paused = true)]
    async fn help_is_wanted_where_one_connection_is_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        let download = download(&folder);
        download.claim();
        let begun = Instant::now();
        download.received(CHUNK / 8, MEASURE, Duration::ZERO);
        assert_eq!(download.wants_help(begun + MEASURE / 2), None, "not measured yet");
        assert!(download.wants_help(begun + Duration::from_secs(1)).unwrap() > 30.0);
        download.received(100 * CHUNK, Duration::ZERO, Duration::ZERO);
        assert_eq!(download.wants_help(begun + Duration::from_secs(1)), None, "fast enough alone");
    }

    #[tokio::test(start_paused = true)]
    async fn no_help_is_wanted_where_the_bytes_come_faster_than_they_are_hashed() {
        let folder = tempfile::tempdir().unwrap();
        let download = download(&folder);
        download.claim();
        let later = Instant::now() + Duration::from_secs(1);
        download.received(CHUNK / 8, MEASURE, 2 * MEASURE);
        assert_eq!(download.wants_help(later), None);
        download.received(1, 2 * MEASURE, Duration::ZERO);
        assert!(download.wants_help(later).is_some(), "now the registry is slower");
    }
}
