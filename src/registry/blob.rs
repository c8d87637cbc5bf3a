//! A blob as a stream that resumes by itself. After a break the registry is asked anew (a redirected address may
//! have expired) for exactly the missing range. Never more bytes than promised; the digest is the caller's.

use std::{ops::Range, time::Duration};

use http::{Method, header};
use tokio::time::Instant;

use super::{
    answer::refusal,
    client::{Client, encoding},
    exchange::Call,
    range,
    retry::Retry,
    transport::{Answer, Body},
};
use crate::model::{class::Class, digest::Digest, failure::Failure, reference::RegistryHost};

pub struct Blob {
    client: Client,
    host: RegistryHost,
    repository: String,
    digest: Digest,
    size: u64,
    /// The next byte to hand out.
    at: u64,
    /// Where to stop: the size, or earlier.
    end: u64,
    stream: Option<Stream>,
    /// The registry answers ranges wrongly: it is asked for the whole blob, and what is known is skipped.
    whole_only: bool,
    retry: Retry,
    /// Where this try, or the last progress, began.
    mark: u64,
    pace: Pace,
}

struct Stream {
    body: Body,
    /// Bytes still to be skipped: the registry ignored the range.
    skip: u64,
    /// Where the answer ends.
    until: u64,
    encoding: Option<String>,
}

/// Bytes per time spent waiting for the registry. The caller's own slowness does not count.
struct Pace {
    waited: Duration,
    bytes: u64,
}

impl Blob {
    pub(super) fn new(
        client: Client,
        host: RegistryHost,
        repository: String,
        digest: Digest,
        size: u64,
        range: Range<u64>,
    ) -> Result<Self, Failure> {
        if range.start > range.end || range.end > size {
            let message = format!("bytes {} to {} are not within the {size} bytes", range.start, range.end);
            return Err(Failure::new(Class::BadContent, message));
        }
        Ok(Self {
            client,
            host,
            repository,
            digest,
            size,
            at: range.start,
            end: range.end,
            stream: None,
            whole_only: false,
            retry: Retry::default(),
            mark: range.start,
            pace: Pace { waited: Duration::ZERO, bytes: 0 },
        })
    }

    /// The next byte that [`Blob::read`] will bring.
    pub fn position(&self) -> u64 {
        self.at
    }

    /// Where the stream ends.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Ends the stream earlier: somebody else fetches the rest.
    pub fn stop_at(&mut self, end: u64) {
        self.end = self.end.min(end.max(self.at));
    }

    /// Whether the registry was seen to answer ranges with something else.
    pub fn ignores_ranges(&self) -> bool {
        self.whole_only || self.stream.as_ref().is_some_and(|stream| stream.skip > 0)
    }

    /// Gets as far as an accepted answer, so that a denial shows before anything is written.
    pub(super) async fn open(&mut self) -> Result<(), Failure> {
        while self.stream.is_none() && self.at < self.end {
            match self.request().await {
                Ok(stream) => self.stream = stream,
                Err(failure) => self.recover(failure).await?,
            }
        }
        Ok(())
    }

    /// The next bytes into a buffer that is not empty; 0 when all were handed out and the registry had no more, or at
    /// an earlier end.
    pub async fn read(&mut self, into: &mut [u8]) -> Result<usize, Failure> {
        loop {
            // The answer goes on, but nobody wants the rest.
            if self.at == self.end && self.stream.as_ref().is_some_and(|stream| stream.until > self.end) {
                self.stream = None;
            }
            if let Some(failure) = self.too_slow() {
                self.recover(failure).await?;
            }
            self.open().await?;
            let Some(stream) = &mut self.stream else { return Ok(0) };
            let (skip, left) = (stream.skip, self.end - self.at);
            let start = Instant::now();
            let read = match (skip, left) {
                // Nothing should come: whether it does is asked with a byte to spare.
                (0, 0) => stream.body.read(&mut [0]).await,
                (0, _) => stream.body.read(part(into, left)).await,
                _ => stream.body.read(part(into, skip)).await,
            };
            self.pace.waited += start.elapsed();
            match read {
                // All bytes are out: a break now takes nothing away.
                Ok(0) | Err(_) if self.at == self.end => self.stream = None,
                Ok(0) => {
                    let failure = self.ended_early();
                    self.recover(failure).await?;
                }
                Ok(read) => {
                    if let Some(read) = self.accept(read)? {
                        return Ok(read);
                    }
                }
                Err(failure) => self.recover(failure).await?,
            }
        }
    }

    /// Skips what is known, refuses what is too much.
    fn accept(&mut self, read: usize) -> Result<Option<usize>, Failure> {
        let Some(stream) = &mut self.stream else { return Ok(None) };
        let bytes = read as u64;
        self.pace.bytes += bytes;
        if stream.skip > 0 {
            stream.skip -= bytes;
            return Ok(None);
        }
        if bytes > self.end - self.at {
            return Err(self.bad(format!("the blob is longer than the {} bytes it should have", self.size)));
        }
        self.at += bytes;
        if self.at - self.mark >= self.client.limits().progress_bytes {
            self.mark = self.at;
            self.retry.progress();
        }
        Ok(Some(read))
    }

    /// The orderly end of an answer whose length was known is no break: the registry has no more.
    fn ended_early(&self) -> Failure {
        let message = format!("the blob ended after {} of {} bytes", self.at, self.size);
        match &self.stream {
            Some(stream) if stream.body.framed => Failure::new(Class::BadContent, message),
            _ => Failure::new(Class::Network, message),
        }
    }

    fn too_slow(&mut self) -> Option<Failure> {
        let limits = self.client.limits();
        if self.pace.waited < limits.rate_window {
            return None;
        }
        let slow = self.pace.bytes < limits.rate_bytes;
        let message =
            format!("too slow: {} bytes in {} s: i/o timeout", self.pace.bytes, self.pace.waited.as_secs());
        self.pace = Pace { waited: Duration::ZERO, bytes: 0 };
        slow.then(|| Failure::new(Class::Timeout, message))
    }

    /// After a break: yes, again, or the failure as it is told. Every try has to make progress of its own: else a
    /// dribble could go on for ever, a little in each.
    async fn recover(&mut self, failure: Failure) -> Result<(), Failure> {
        self.stream = None;
        self.mark = self.at;
        let limits = self.client.limits().clone();
        if self.retry.again(&failure, &limits).await {
            return Ok(());
        }
        Err(failure.of(self.subject()))
    }

    /// `None` if it has to be asked again at once, for the whole blob.
    async fn request(&mut self) -> Result<Option<Stream>, Failure> {
        let part = self.at > 0 || self.end < self.size;
        let wanted = (part && !self.whole_only).then_some(self.at..self.end);
        let call = Call {
            host: &self.host,
            repository: &self.repository,
            method: Method::GET,
            path: format!("blobs/{}", self.digest),
            accept: None,
            range: wanted.clone(),
        };
        let answer = self.client.exchange().send(&call).await?.answer;
        match (answer.status.as_u16(), wanted) {
            (200, _) => self.stream(answer, 0..self.size).map(Some),
            (206, Some(wanted)) if range::is_what_was_asked(&answer.headers, &wanted, self.size) => {
                self.stream(answer, wanted).map(Some)
            }
            (206, Some(_)) => {
                self.whole_only = true;
                Ok(None)
            }
            (206, None) => {
                Err(Failure::new(Class::Network, "the registry answered with another range than asked for"))
            }
            (416, Some(_)) => Err(Failure::new(
                Class::BadContent,
                format!("the blob is shorter than the {} bytes it should have (HTTP 416)", self.size),
            )),
            _ => Err(refusal(answer).await),
        }
    }

    fn stream(&self, answer: Answer, brings: Range<u64>) -> Result<Stream, Failure> {
        let encoding = encoding(&answer.headers);
        let length: Option<u64> =
            answer.headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
        let stream = Stream { body: answer.body, skip: self.at - brings.start, until: brings.end, encoding };
        match length {
            Some(length) if length != brings.end - brings.start => {
                let has = (self.size - (brings.end - brings.start)).saturating_add(length);
                let message = format!("the registry has {has} bytes, the manifest says {}", self.size);
                Err(bad(message, stream.encoding.as_deref()))
            }
            _ => Ok(stream),
        }
    }

    fn bad(&self, message: String) -> Failure {
        let encoding = self.stream.as_ref().and_then(|s| s.encoding.as_deref());
        bad(message, encoding).of(self.subject())
    }

    fn subject(&self) -> String {
        format!("{}/{}@{}", self.host, self.repository, self.digest)
    }
}

fn bad(message: String, encoding: Option<&str>) -> Failure {
    let hint = encoding.map(|e| format!(" (sent with Content-Encoding {e}, not asked for)"));
    Failure::new(Class::BadContent, message + &hint.unwrap_or_default())
}

/// At most so much of a buffer.
fn part(into: &mut [u8], most: u64) -> &mut [u8] {
    let length = usize::try_from(most).map_or(into.len(), |most| most.min(into.len()));
    &mut into[..length]
}
