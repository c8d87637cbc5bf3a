//! The bytes of a blob on their way out. Bytes that nobody verified yet are hashed while they are sent, and the
//! last piece is held back until the digest is right: a blob that is cut short makes a client go on elsewhere,
//! a whole but wrong one does not.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::proof::{Identity, Proofs, Verdict};
use crate::model::digest::{Digest, Hasher};

pub(super) const PIECE: usize = 256 << 10;

type Reading = Pin<Box<dyn Future<Output = io::Result<(Bytes, Option<Check>)>> + Send>>;

/// Hashes along.
#[derive(Debug)]
pub(super) struct Check {
    pub digest: Digest,
    pub identity: Identity,
    pub proofs: Arc<Proofs>,
    pub hasher: Hasher,
}

pub(super) struct BlobBody {
    file: Arc<File>,
    at: u64,
    end: u64,
    check: Option<Check>,
    reading: Option<Reading>,
    limit: Duration,
}

impl BlobBody {
    /// The bytes from `first` up to `end`, without it. With a check these are all bytes of the blob.
    pub(super) fn new(file: Arc<File>, first: u64, end: u64, check: Option<Check>, limit: Duration) -> Self {
        Self { file, at: first, end, check, reading: None, limit }
    }

    /// One piece is read while the one before is sent, never more: memory does not grow with the blob.
    fn read(&mut self) -> Reading {
        let left = self.end - self.at;
        let len = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
        let (file, at, check) = (Arc::clone(&self.file), self.at, self.check.take());
        let last = left == len as u64;
        let limit = self.limit;
        Box::pin(async move {
            let reading = tokio::task::spawn_blocking(move || read_piece(&file, at, len, last, check));
            match tokio::time::timeout(limit, reading).await {
                Ok(done) => done.map_err(io::Error::other)?,
                Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the volume does not answer")),
            }
        })
    }
}

fn read_piece(
    file: &File,
    at: u64,
    len: usize,
    last: bool,
    check: Option<Check>,
) -> io::Result<(Bytes, Option<Check>)> {
    let mut piece = vec![0; len];
    file.read_exact_at(&mut piece, at)?;
    let Some(mut check) = check else { return Ok((piece.into(), None)) };
    check.hasher.update(&piece);
    if !last {
        return Ok((piece.into(), Some(check)));
    }
    let good = check.hasher.finish() == check.digest;
    let verdict = if good { Verdict::Good(check.identity) } else { Verdict::Wrong(check.identity) };
    check.proofs.record(&check.digest, verdict);
    if good { Ok((piece.into(), None)) } else { Err(io::Error::other("the bytes of this blob are wrong")) }
}

impl Body for BlobBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = &mut *self;
        if this.at >= this.end {
            return Poll::Ready(None);
        }
        let mut reading = this.reading.take().unwrap_or_else(|| this.read());
        let Poll::Ready(done) = reading.as_mut().poll(cx) else {
            this.reading = Some(reading);
            return Poll::Pending;
        };
        let (piece, check) = match done {
            Ok(done) => done,
            Err(e) => {
                this.at = this.end;
                return Poll::Ready(Some(Err(e)));
            }
        };
        this.at += piece.len() as u64;
        this.check = check;
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.at >= self.end
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.end - self.at)
    }
}
