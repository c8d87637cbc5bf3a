//! Sends one request to one origin and reads the answer, within limits. Keeps connections for reuse.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body::Body as _;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use tokio::time::{Instant, timeout};

use super::{
    connect::{Connection, Origin, Reach, dial},
    crowd::{Crowd, Seat},
    limits::Limits,
    tls::Tls,
};
use crate::model::{class::Class, failure::Failure};

/// A request without its origin. It can be sent again.
#[derive(Clone)]
pub(crate) struct Outgoing {
    pub method: Method,
    pub target: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

pub(crate) struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Body,
    /// The peer is at a loopback or private address.
    pub inside: bool,
}

pub(crate) struct Transport {
    tls: Tls,
    pub limits: Limits,
    idle: Idle,
    pub crowd: Crowd,
}

/// Unused connections by origin. The seam for limits per host: everything that is sent passes here.
#[derive(Clone, Default)]
struct Idle(Arc<Mutex<HashMap<Origin, Kept>>>);

/// Connections and since when they are unused.
type Kept = Vec<(Instant, Connection)>;

impl Idle {
    fn take(&self, origin: &Origin, reach: Reach, limits: &Limits) -> Option<Connection> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let list = all.get_mut(origin)?;
        list.retain(|(since, c)| !c.sender.is_closed() && since.elapsed() < limits.idle);
        let at = list.iter().rposition(|(_, c)| reach == Reach::Anywhere || !c.inside)?;
        Some(list.remove(at).1)
    }

    fn put(&self, origin: Origin, connection: Connection, keep: usize) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let list = all.entry(origin).or_default();
        if list.len() < keep && !connection.sender.is_closed() {
            list.push((Instant::now(), connection));
        }
    }
}

impl Transport {
    pub(crate) fn new(tls: Tls, limits: Limits) -> Self {
        Self { tls, limits, idle: Idle::default(), crowd: Crowd::default() }
    }

    pub(crate) async fn send(
        &self,
        origin: &Origin,
        reach: Reach,
        out: &Outgoing,
    ) -> Result<Answer, Failure> {
        // A kept connection may have been closed by the peer meanwhile: that is no failure of the registry.
        if let Some(connection) = self.idle.take(origin, reach, &self.limits) {
            match self.exchange(origin, connection, out).await {
                Err(failure) if failure.class == Class::Network => {}
                other => return other,
            }
        }
        let connection = dial(origin, reach, &self.tls, &self.limits).await?;
        self.exchange(origin, connection, out).await
    }

    async fn exchange(
        &self,
        origin: &Origin,
        mut connection: Connection,
        out: &Outgoing,
    ) -> Result<Answer, Failure> {
        let request = request(origin, out)?;
        let exchange = async {
            connection.sender.ready().await?;
            connection.sender.send_request(request).await
        };
        let response = match timeout(self.limits.headers, exchange).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(broken(&error)),
            Err(_) => {
                return Err(Failure::new(Class::Timeout, "no answer: i/o timeout while waiting for headers"));
            }
        };
        let (parts, incoming) = response.into_parts();
        let inside = connection.inside;
        let framed = parts.headers.contains_key(header::CONTENT_LENGTH)
            || parts.headers.contains_key(header::TRANSFER_ENCODING);
        let lease = Lease {
            connection,
            origin: origin.clone(),
            idle: self.idle.clone(),
            keep: self.limits.idle_connections,
        };
        let mut body = Body { incoming, lease: Some(lease), framed, seat: None, limits: self.limits.clone() };
        if body.incoming.is_end_stream() {
            body.give_back();
        }
        Ok(Answer { status: parts.status, headers: parts.headers, body, inside })
    }
}

fn request(origin: &Origin, out: &Outgoing) -> Result<Request<Full<Bytes>>, Failure> {
    let name = if origin.host.contains(':') { format!("[{}]", origin.host) } else { origin.host.clone() };
    let default = if origin.https { 443 } else { 80 };
    let host = if origin.port == default { name } else { format!("{name}:{}", origin.port) };
    let mut request = Request::builder()
        .method(out.method.clone())
        .uri(&out.target)
        .header(header::HOST, host)
        .body(Full::new(out.body.clone()))
        .map_err(|_| Failure::new(Class::BadContent, "an address that cannot be requested"))?;
    request.headers_mut().extend(out.headers.clone());
    Ok(request)
}

/// The body of an answer. Read to its end, its connection is used again; dropped before, it is closed.
pub(crate) struct Body {
    incoming: Incoming,
    lease: Option<Lease>,
    /// The length is known or chunked, so an end without an error is the true end.
    pub framed: bool,
    /// Where a redirect led, one of the seats there.
    pub seat: Seat,
    limits: Limits,
}

struct Lease {
    connection: Connection,
    origin: Origin,
    idle: Idle,
    keep: usize,
}

impl Body {
    /// The next piece; `None` at the end.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            match timeout(self.limits.progress, self.incoming.frame()).await {
                Err(_) => return Err(Failure::new(Class::Timeout, "no progress: i/o timeout while reading")),
                Ok(Some(Err(error))) => return Err(broken(&error)),
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
                Ok(None) => {
                    self.give_back();
                    return Ok(None);
                }
            }
        }
    }

    /// The whole body, refused as soon as it is longer than `cap`.
    pub(crate) async fn whole(mut self, cap: u64) -> Result<Bytes, Failure> {
        let limit = self.limits.document;
        let read = async {
            let mut all = BytesMut::new();
            while let Some(chunk) = self.chunk().await? {
                if (all.len() + chunk.len()) as u64 > cap {
                    return Err(Failure::new(
                        Class::BadContent,
                        format!("the answer is longer than {cap} bytes"),
                    ));
                }
                all.extend_from_slice(&chunk);
            }
            Ok(all.freeze())
        };
        timeout(limit, read)
            .await
            .unwrap_or_else(|_| Err(Failure::new(Class::Timeout, "the answer takes too long: i/o timeout")))
    }

    /// Reads a short rest, so that the connection can be used again.
    pub(crate) async fn discard(self) {
        let cap = self.limits.error_bytes;
        let _ = self.whole(cap).await;
    }

    fn give_back(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.idle.put(lease.origin, lease.connection, lease.keep);
        }
    }
}

fn broken(error: &hyper::Error) -> Failure {
    if error.is_parse_too_large() {
        return Failure::new(Class::BadContent, "the answer has more or longer headers than is accepted");
    }
    if error.is_parse() {
        return Failure::new(Class::BadContent, "the server does not speak HTTP/1.1 here");
    }
    Failure::new(Class::Network, "the connection broke before the answer was complete")
}
