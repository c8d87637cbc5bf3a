//! HTTP/1.1 as this client speaks it (RFC 9112): one request at a time on a connection of its own, the head parsed by
//! `httparse`, bodies read straight into the caller's buffer. Libraries hand out bodies in buffers of their own; to
//! copy a pull's bytes out of them costs a tenth of its time.

use std::{io, pin::Pin};

use bytes::BufMut as _;
use futures::FutureExt as _;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::transport::Outgoing;

/// A head longer than this, or with more fields, is no answer of a registry.
const HEAD: usize = 64 << 10;
const FIELDS: usize = 128;
/// Answers before the answer (RFC 9110, 15.2) that are read over.
const INTERIM: usize = 8;
/// A chunk's size and extensions, or a trailer field.
const LINE: usize = 4 << 10;

pub(crate) trait Stream: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> Stream for T {}

/// Why an exchange ended early.
#[derive(Debug)]
pub(crate) enum Broken {
    /// The connection broke before the answer was complete.
    Cut,
    /// What came is not HTTP/1.1.
    Garbage,
    /// More or longer header fields than anybody needs.
    Flood,
}

impl From<io::Error> for Broken {
    fn from(_: io::Error) -> Self {
        Self::Cut
    }
}

pub(crate) struct Head {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// The end of the body is known beforehand or marked, so that an end is the true one.
    pub framed: bool,
}

/// What is left of the body of the answer that is being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    Bytes(u64),
    /// Of this chunk; whether one was begun.
    Chunk(u64, bool),
    UntilClose,
}

pub(crate) struct Http1 {
    stream: Pin<Box<dyn Stream>>,
    /// Read, but not used: `ahead[at..]`.
    ahead: Vec<u8>,
    at: usize,
    rest: Rest,
    /// The peer keeps the connection open after this answer.
    keeps: bool,
}

impl Http1 {
    pub(crate) fn new(stream: Pin<Box<dyn Stream>>) -> Self {
        Self { stream, ahead: Vec::new(), at: 0, rest: Rest::Bytes(0), keeps: true }
    }

    /// Sends a request and reads the head of its answer.
    pub(crate) async fn exchange(&mut self, host: &str, out: &Outgoing) -> Result<Head, Broken> {
        self.stream.write_all(&request(host, out)).await?;
        self.stream.flush().await?;
        for _ in 0..INTERIM {
            let (status, version, headers) = self.head().await?;
            if status.is_informational() {
                continue;
            }
            let none = out.method == Method::HEAD || matches!(status.as_u16(), 204 | 304);
            let framing = if none { Rest::Bytes(0) } else { framing(&headers)? };
            self.rest = framing;
            let close = tokens(&headers, &header::CONNECTION).any(|token| token == "close");
            // Framed in two ways, it may end elsewhere for somebody between (RFC 9112, 6.3): nothing follows it.
            let twice = headers.contains_key(header::TRANSFER_ENCODING)
                && headers.contains_key(header::CONTENT_LENGTH);
            let marked = framing != Rest::UntilClose;
            self.keeps = version == Version::HTTP_11 && marked && !close && !twice;
            return Ok(Head { status, headers, framed: marked });
        }
        Err(Broken::Garbage)
    }

    /// Whether the answer was read to its end.
    pub(crate) fn is_at_end(&self) -> bool {
        self.rest == Rest::Bytes(0)
    }

    /// Whether another request may be sent: the answer was read to its end, and the peer has said nothing since, not
    /// even that it closes.
    pub(crate) fn is_reusable(&mut self) -> bool {
        let unused = self.at == self.ahead.len();
        self.keeps && self.is_at_end() && unused && self.stream.read(&mut [0]).now_or_never().is_none()
    }

    /// The next bytes of the body into a buffer that is not empty; 0 at its end.
    pub(crate) async fn read(&mut self, into: &mut [u8]) -> Result<usize, Broken> {
        let left = match self.rest {
            Rest::UntilClose => u64::MAX,
            Rest::Chunk(0, begun) => self.next_chunk(begun).await?,
            Rest::Bytes(left) | Rest::Chunk(left, _) => left,
        };
        let room = usize::try_from(left).map_or(into.len(), |left| left.min(into.len()));
        if room == 0 {
            return Ok(0);
        }
        let into = &mut into[..room];
        let known = self.ahead.len() - self.at;
        let taken = if known > 0 {
            let taken = known.min(room);
            into[..taken].copy_from_slice(&self.ahead[self.at..self.at + taken]);
            self.at += taken;
            taken
        } else {
            self.stream.read(into).await?
        };
        match &mut self.rest {
            Rest::UntilClose if taken == 0 => self.rest = Rest::Bytes(0),
            Rest::UntilClose => {}
            _ if taken == 0 => return Err(Broken::Cut),
            Rest::Bytes(left) | Rest::Chunk(left, _) => *left -= taken as u64,
        }
        Ok(taken)
    }

    async fn head(&mut self) -> Result<(StatusCode, Version, HeaderMap), Broken> {
        let mut looked = 0;
        loop {
            // Parsed again only when there may be an end: a head that drips in costs no more than its length.
            if has_end(&self.ahead[self.at..], looked) {
                let mut fields = [httparse::EMPTY_HEADER; FIELDS];
                let mut answer = httparse::Response::new(&mut fields);
                let parsed = answer.parse(&self.ahead[self.at..]).map_err(|error| match error {
                    httparse::Error::TooManyHeaders => Broken::Flood,
                    _ => Broken::Garbage,
                })?;
                if let httparse::Status::Complete(length) = parsed {
                    let found = fields_of(&answer)?;
                    self.at += length;
                    return Ok(found);
                }
            }
            looked = self.ahead.len() - self.at;
            if not_http(&self.ahead[self.at..]) {
                return Err(Broken::Garbage);
            }
            if looked >= HEAD {
                return Err(Broken::Flood);
            }
            self.more().await?;
        }
    }

    /// Reads over what frames a chunk (RFC 9112, 7.1) and returns its size; 0 after the last one and its trailer.
    async fn next_chunk(&mut self, begun: bool) -> Result<u64, Broken> {
        if begun && !self.line().await?.is_empty() {
            return Err(Broken::Garbage);
        }
        let mut line = self.line().await?;
        line.extend_from_slice(b"\r\n");
        let Ok(httparse::Status::Complete((_, size))) = httparse::parse_chunk_size(&line) else {
            return Err(Broken::Garbage);
        };
        if size > 0 {
            self.rest = Rest::Chunk(size, true);
            return Ok(size);
        }
        for _ in 0..FIELDS {
            if self.line().await?.is_empty() {
                self.rest = Rest::Bytes(0);
                return Ok(0);
            }
        }
        Err(Broken::Garbage)
    }

    /// The next line, without its end.
    async fn line(&mut self) -> Result<Vec<u8>, Broken> {
        loop {
            let known = &self.ahead[self.at..];
            if let Some(length) = known.windows(2).position(|two| two == b"\r\n") {
                let line = known[..length].to_vec();
                self.at += length + 2;
                return Ok(line);
            }
            if known.len() >= LINE {
                return Err(Broken::Garbage);
            }
            self.more().await?;
        }
    }

    /// Reads a little more ahead.
    async fn more(&mut self) -> Result<(), Broken> {
        self.ahead.drain(..self.at);
        self.at = 0;
        self.ahead.reserve(LINE);
        match self.stream.read_buf(&mut (&mut self.ahead).limit(LINE)).await? {
            0 => Err(Broken::Cut),
            _ => Ok(()),
        }
    }
}

fn request(host: &str, out: &Outgoing) -> Vec<u8> {
    let mut text = format!("{} {} HTTP/1.1\r\nhost: {host}\r\n", out.method, out.target).into_bytes();
    for (name, value) in &out.headers {
        text.extend_from_slice(name.as_str().as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value.as_bytes());
        text.extend_from_slice(b"\r\n");
    }
    if !out.body.is_empty() {
        text.extend_from_slice(format!("content-length: {}\r\n", out.body.len()).as_bytes());
    }
    text.extend_from_slice(b"\r\n");
    text.extend_from_slice(&out.body);
    text
}

/// Whether an empty line may end within what came after the first `looked` bytes.
fn has_end(known: &[u8], looked: usize) -> bool {
    let fresh = known.get(looked.saturating_sub(3)..).unwrap_or_default();
    fresh.windows(2).any(|two| two == b"\n\n") || fresh.windows(3).any(|three| three == b"\n\r\n")
}

/// Said at once: a server that speaks something else would be waited for.
fn not_http(known: &[u8]) -> bool {
    let begin = b"HTTP/1.";
    !known.iter().zip(begin).all(|(a, b)| a == b)
}

fn fields_of(answer: &httparse::Response<'_, '_>) -> Result<(StatusCode, Version, HeaderMap), Broken> {
    let status = answer.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(Broken::Garbage)?;
    let version = if answer.version == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 };
    let mut headers = HeaderMap::with_capacity(answer.headers.len());
    for field in &*answer.headers {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Broken::Garbage)?;
        let value = HeaderValue::from_bytes(field.value).map_err(|_| Broken::Garbage)?;
        headers.append(name, value);
    }
    Ok((status, version, headers))
}

/// How the body ends (RFC 9112, 6.3).
fn framing(headers: &HeaderMap) -> Result<Rest, Broken> {
    let lengths: Vec<&HeaderValue> = headers.get_all(header::CONTENT_LENGTH).iter().collect();
    if headers.contains_key(header::TRANSFER_ENCODING) {
        let codings: Vec<String> = tokens(headers, &header::TRANSFER_ENCODING).collect();
        return if codings == ["chunked"] { Ok(Rest::Chunk(0, false)) } else { Err(Broken::Garbage) };
    }
    let Some(first) = lengths.first() else { return Ok(Rest::UntilClose) };
    if lengths.iter().any(|length| length != first) {
        return Err(Broken::Garbage);
    }
    let text = first.to_str().map_err(|_| Broken::Garbage)?;
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Broken::Garbage);
    }
    text.parse().map(Rest::Bytes).map_err(|_| Broken::Garbage)
}

/// The comma-separated words of a field, in lower case.
fn tokens(headers: &HeaderMap, name: &HeaderName) -> impl Iterator<Item = String> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(|token| token.trim().to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::io::duplex;

    use super::*;

    /// The status and body of each answer on one connection, and whether a third could follow.
    async fn answers(script: &[u8], requests: usize) -> (Vec<Result<(u16, Vec<u8>), &'static str>>, bool) {
        let (client, mut server) = duplex(1 << 20);
        server.write_all(script).await.unwrap();
        server.shutdown().await.unwrap();
        let mut http = Http1::new(Box::pin(client));
        let out = Outgoing {
            method: Method::GET,
            target: "/v2/".into(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
        };
        let mut told = Vec::new();
        for _ in 0..requests {
            told.push(answer(&mut http, &out).await.map_err(|broken| match broken {
                Broken::Cut => "cut",
                Broken::Garbage => "garbage",
                Broken::Flood => "flood",
            }));
        }
        (told, http.keeps && http.is_at_end())
    }

    async fn answer(http: &mut Http1, out: &Outgoing) -> Result<(u16, Vec<u8>), Broken> {
        let head = http.exchange("registry", out).await?;
        let (mut body, mut piece) = (Vec::new(), [0; 3]);
        loop {
            match http.read(&mut piece).await? {
                0 => return Ok((head.status.as_u16(), body)),
                read => body.extend_from_slice(&piece[..read]),
            }
        }
    }

    #[tokio::test]
    async fn bodies_end_where_the_rfc_says() {
        for (script, body, keeps) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "hello", true),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello", "hello", true),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: Close\r\n\r\nhello", "hello", false),
            ("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", "hello", false),
            ("HTTP/1.1 200 OK\r\n\r\nhello", "hello", false),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
                "hi",
                false,
            ),
            ("HTTP/1.1 204 No Content\r\n\r\n", "", true),
            ("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", "", true),
            ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "hi", true),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n",
                "hello",
                true,
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\n0\r\nDigest: x\r\n\r\n",
                "hello",
                true,
            ),
        ] {
            let (told, kept) = answers(script.as_bytes(), 1).await;
            assert_eq!(told[0].as_ref().unwrap().1, body.as_bytes(), "{script}");
            assert_eq!(kept, keeps, "{script}");
        }
    }

    #[tokio::test]
    async fn one_answer_follows_another_on_the_same_connection() {
        let one = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n0\r\n\r\n";
        let two = "HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\ngone";
        let (told, _) = answers(format!("{one}{two}").as_bytes(), 3).await;
        assert_eq!(told[0], Ok((200, b"hel".to_vec())));
        assert_eq!(told[1], Ok((404, b"gone".to_vec())));
        assert_eq!(told[2], Err("cut"));
    }

    #[tokio::test]
    async fn what_is_no_answer_is_told_from_one_that_broke() {
        let flood = format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(FIELDS + 1));
        let long = format!("HTTP/1.1 200 OK\r\nA: {}", "b".repeat(HEAD + LINE));
        let line = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{}", "1".repeat(2 * LINE));
        for (script, told) in [
            ("", "cut"),
            ("HTTP/1.1 200", "cut"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", "cut"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel", "cut"),
            ("SSH-2.0-OpenSSH_9.2\r\n", "garbage"),
            ("<html>", "garbage"),
            ("HTTP/2 200\r\n\r\n", "garbage"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", "garbage"),
            ("HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello", "garbage"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "garbage"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", "garbage"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhello\r\n0\r\n\r\n", "garbage"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n", "garbage"),
            (&"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(INTERIM + 1), "garbage"),
            (&flood, "flood"),
            (&long, "flood"),
            (&line, "garbage"),
        ] {
            let (answers, _) = answers(script.as_bytes(), 1).await;
            assert_eq!(answers[0], Err(told), "{}", &script[..script.len().min(120)]);
        }
    }

    #[tokio::test]
    async fn a_connection_on_which_the_peer_spoke_or_closed_is_not_used_again() {
        let (client, mut server) = duplex(1 << 10);
        let mut http = Http1::new(Box::pin(client));
        assert!(http.is_reusable());
        server.write_all(b"HTTP/1.1 408 Request Timeout\r\n\r\n").await.unwrap();
        assert!(!http.is_reusable());
        let (client, server) = duplex(1 << 10);
        let mut http = Http1::new(Box::pin(client));
        drop(server);
        assert!(!http.is_reusable());
    }

    #[test]
    fn a_request_is_written_as_it_should_be() {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, HeaderValue::from_static("bytes=1-2"));
        let body = Bytes::from_static(b"a=b");
        let out = Outgoing { method: Method::POST, target: "/token?x=y".into(), headers, body };
        let wanted =
            "POST /token?x=y HTTP/1.1\r\nhost: a.io:5000\r\nrange: bytes=1-2\r\ncontent-length: 3\r\n\r\na=b";
        assert_eq!(String::from_utf8(request("a.io:5000", &out)).unwrap(), wanted);
    }
}
