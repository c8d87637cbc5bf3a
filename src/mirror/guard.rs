//! Nothing here waits for ever: a client that takes no bytes is cut, and a server that makes no progress ends its
//! process, because a dead mirror costs a node nothing and a hung one costs it minutes.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    thread,
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

/// A connection whose writes must make progress within a limit. Reads are limited by hyper: it knows when it waits
/// for a request and when it only listens for the end of the connection.
pub struct Progress<T> {
    inner: T,
    limit: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<T> Progress<T> {
    pub fn new(inner: T, limit: Duration) -> Self {
        Self { inner, limit, stalled: None }
    }

    fn guard<V>(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<V>>) -> Poll<io::Result<V>> {
        if result.is_ready() {
            self.stalled = None;
            return result;
        }
        let limit = self.limit;
        let sleep =
            self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + limit)));
        match sleep.as_mut().poll(cx) {
            Poll::Ready(()) => {
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes no bytes")))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Progress<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Progress<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.guard(cx, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.guard(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.inner).poll_flush(cx);
        self.guard(cx, result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.guard(cx, result)
    }
}

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
