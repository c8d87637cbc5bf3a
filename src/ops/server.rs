//! Connections over HTTP/1.1, with limits: nothing here waits for ever for a client, and no client takes the place of
//! the others. What is answered is the caller's.

use std::{
    error::Error,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use http_body::Body;
use hyper::{body::Incoming, server::conn::http1, service::Service};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{Instant, Sleep},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// More than the head of any request that is answered.
const HEAD_BYTES: usize = 64 << 10;

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections beyond these are refused at once.
    pub connections: usize,
    /// A client that neither sends a whole head nor takes a byte for this long is cut.
    pub progress: Duration,
    /// Answers on the way when the server is told to stop get this long.
    pub drain: Duration,
}

type Boxed = Box<dyn Error + Send + Sync>;

/// Serves until told to stop, then lets running answers end.
pub async fn serve<S, B>(listener: TcpListener, service: S, limits: Limits, stop: CancellationToken)
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<Boxed>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Boxed>,
{
    let connections = Arc::new(Semaphore::new(limits.connections));
    let running = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Too many open files, most likely: others end soon.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        match Arc::clone(&connections).try_acquire_owned() {
            Ok(permit) => {
                let (service, stop) = (service.clone(), stop.clone());
                running.spawn(async move {
                    connection(stream, service, limits.progress, stop).await;
                    drop(permit);
                });
            }
            Err(_) => refuse(&stream),
        }
    }
    drop(listener);
    running.close();
    if tokio::time::timeout(limits.drain, running.wait()).await.is_err() {
        tracing::warn!("connections are cut that did not end in time");
    }
}

/// A fast refusal: a client that waits in a queue could have gone on.
fn refuse(stream: &TcpStream) {
    let answer = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    if let Err(error) = stream.try_write(answer) {
        tracing::debug!(%error, "a connection beyond the limit is closed");
    }
}

async fn connection<S, B>(stream: TcpStream, service: S, limit: Duration, stop: CancellationToken)
where
    S: Service<Request<Incoming>, Response = Response<B>>,
    S::Error: Into<Boxed>,
    B: Body + 'static,
    B::Error: Into<Boxed>,
{
    drop(stream.set_nodelay(true));
    let io = TokioIo::new(Progress::new(stream, limit));
    let http = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limit)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(io, service);
    let mut http = std::pin::pin!(http);
    let ended = tokio::select! {
        ended = http.as_mut() => ended,
        () = stop.cancelled() => {
            http.as_mut().graceful_shutdown();
            http.await
        }
    };
    if let Err(error) = ended {
        // Normal: containerd closes ranges early. Wrong bytes are logged where they are found.
        tracing::debug!(%error, "a connection ended early");
    }
}

/// A connection whose writes must make progress within a limit. Reads are limited by hyper: it knows when it waits
/// for a request and when it only listens for the end of the connection.
struct Progress<T> {
    inner: T,
    limit: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<T> Progress<T> {
    fn new(inner: T, limit: Duration) -> Self {
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
