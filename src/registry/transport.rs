//! Sends one request to one origin and reads the answer, within limits. Keeps connections for reuse.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode};
use tokio::time::{Instant, timeout};

use super::{
    connect::{Connection, Origin, Reach, dial},
    crowd::{Crowd, Seat},
    http1::Broken,
    limits::Limits,
    lookup::Names,
    tls::Tls,
};
use crate::model::{class::Class, failure::Failure};

/// What is read of a document at once.
const PIECE: usize = 16 << 10;

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
    names: Names,
    pub limits: Limits,
    idle: Idle,
    pub(super) crowd: Crowd,
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
        list.retain_mut(|(since, c)| since.elapsed() < limits.idle && c.http.is_reusable());
        let at = list.iter().rposition(|(_, c)| reach == Reach::Anywhere || !c.inside)?;
        Some(list.remove(at).1)
    }

    fn put(&self, origin: Origin, mut connection: Connection, keep: usize) {
        if !connection.http.is_reusable() {
            return;
        }
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let list = all.entry(origin).or_default();
        if list.len() < keep {
            list.push((Instant::now(), connection));
        }
    }
}

impl Transport {
    pub(crate) fn new(tls: Tls, names: Names, limits: Limits) -> Self {
        Self { tls, names, limits, idle: Idle::default(), crowd: Crowd::default() }
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
        let connection = dial(origin, reach, &self.tls, &self.names, &self.limits).await?;
        self.exchange(origin, connection, out).await
    }

    async fn exchange(
        &self,
        origin: &Origin,
        mut connection: Connection,
        out: &Outgoing,
    ) -> Result<Answer, Failure> {
        let host = host(origin);
        let exchange = connection.http.exchange(&host, out);
        let head = match timeout(self.limits.headers, exchange).await {
            Ok(Ok(head)) => head,
            Ok(Err(error)) => return Err(broken(&error)),
            Err(_) => {
                return Err(Failure::new(Class::Timeout, "no answer: i/o timeout while waiting for headers"));
            }
        };
        let inside = connection.inside;
        let lease = Lease {
            connection,
            origin: origin.clone(),
            idle: self.idle.clone(),
            keep: self.limits.idle_connections,
        };
        let mut body =
            Body { lease: Some(lease), framed: head.framed, seat: None, limits: self.limits.clone() };
        body.give_back_at_end();
        Ok(Answer { status: head.status, headers: head.headers, body, inside })
    }
}

/// The value of the Host field.
fn host(origin: &Origin) -> String {
    let name = if origin.host.contains(':') { format!("[{}]", origin.host) } else { origin.host.clone() };
    let default = if origin.https { 443 } else { 80 };
    if origin.port == default { name } else { format!("{name}:{}", origin.port) }
}

/// The body of an answer. Read to its end, its connection is used again; dropped before, it is closed.
pub(crate) struct Body {
    /// `None` when all was read.
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
    /// The next bytes into a buffer that is not empty; 0 at the end.
    pub(crate) async fn read(&mut self, into: &mut [u8]) -> Result<usize, Failure> {
        let Some(lease) = &mut self.lease else { return Ok(0) };
        let read = match timeout(self.limits.progress, lease.connection.http.read(into)).await {
            Err(_) => return Err(Failure::new(Class::Timeout, "no progress: i/o timeout while reading")),
            Ok(read) => read.map_err(|error| broken(&error))?,
        };
        self.give_back_at_end();
        Ok(read)
    }

    /// The whole body, refused as soon as it is longer than `cap`.
    pub(crate) async fn whole(mut self, cap: u64) -> Result<Bytes, Failure> {
        let limit = self.limits.document;
        let read = async {
            let (mut all, mut piece) = (BytesMut::new(), vec![0; PIECE]);
            loop {
                let read = self.read(&mut piece).await?;
                if read == 0 {
                    return Ok(all.freeze());
                }
                if (all.len() + read) as u64 > cap {
                    return Err(Failure::new(
                        Class::BadContent,
                        format!("the answer is longer than {cap} bytes"),
                    ));
                }
                all.extend_from_slice(&piece[..read]);
            }
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

    fn give_back_at_end(&mut self) {
        if let Some(lease) = self.lease.take_if(|lease| lease.connection.http.is_at_end()) {
            lease.idle.put(lease.origin, lease.connection, lease.keep);
        }
    }
}

fn broken(error: &Broken) -> Failure {
    match error {
        Broken::Flood => {
            Failure::new(Class::BadContent, "the answer has more or longer headers than is accepted")
        }
        Broken::Garbage => Failure::new(Class::BadContent, "the server does not speak HTTP/1.1 here"),
        Broken::Cut => Failure::new(Class::Network, "the connection broke before the answer was complete"),
    }
}
