//! Connections of the scripted registry.

use std::{
    convert::Infallible,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{Request, Response, header};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    time::Instant,
};

use super::{
    Bodies, Registry, Seen,
    answer::{End, Reply, answer},
};

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Certificate and key in DER, certificate in PEM.
pub(super) async fn start(tls: Option<(Vec<u8>, Vec<u8>, String)>) -> Registry {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let acceptor = tls.as_ref().map(|(certificate, key, _)| acceptor(certificate, key));
    let registry = Registry {
        address: listener.local_addr().unwrap(),
        certificate: tls.map(|(_, _, pem)| pem),
        content: Arc::default(),
        served: Arc::default(),
        pace: Arc::default(),
        bodies: Arc::default(),
    };
    tokio::spawn(accept(listener, acceptor, registry.clone()));
    registry
}

fn acceptor(certificate: &[u8], key: &[u8]) -> tokio_rustls::TlsAcceptor {
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from(certificate.to_vec())],
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.to_vec())),
        )
        .unwrap();
    tokio_rustls::TlsAcceptor::from(Arc::new(config))
}

async fn accept(listener: TcpListener, acceptor: Option<tokio_rustls::TlsAcceptor>, registry: Registry) {
    while let Ok((tcp, _)) = listener.accept().await {
        registry.lock().connections += 1;
        tokio::spawn(connection(tcp, acceptor.clone(), registry.clone()));
    }
}

async fn connection(tcp: TcpStream, acceptor: Option<tokio_rustls::TlsAcceptor>, registry: Registry) {
    let service = service_fn(move |request| handle(request, registry.clone()));
    let http = hyper::server::conn::http1::Builder::new();
    match acceptor {
        None => drop(http.serve_connection(TokioIo::new(tcp), service).await),
        Some(acceptor) => {
            if let Ok(stream) = acceptor.accept(tcp).await {
                drop(http.serve_connection(TokioIo::new(stream), service).await);
            }
        }
    }
}

async fn handle(request: Request<Incoming>, registry: Registry) -> Result<Response<Body>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let seen = Seen {
        method: parts.method.to_string(),
        path: parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
        headers: parts.headers,
        body: String::from_utf8_lossy(&body).into_owned(),
    };
    let reply = {
        let own = registry.url("");
        let mut content = registry.lock();
        content.seen.push(seen.clone());
        answer(&mut content, &seen, &own)
    };
    if reply.end == End::Silence {
        std::future::pending::<()>().await;
    }
    Ok(response(reply, &seen, &registry))
}

fn response(reply: Reply, seen: &Seen, registry: &Registry) -> Response<Body> {
    let head = seen.method == "HEAD";
    let Reply { status, headers, body, end } = reply;
    let length = body.len();
    let mut response = Response::new(match end {
        _ if head => Full::default().map_err(never).boxed_unsync(),
        End::Whole | End::Silence => pieces(body, seen.path.clone(), registry.clone()).boxed_unsync(),
        End::Chunked => stream(vec![body]).boxed_unsync(),
        End::Cut(after) => {
            let broken = stream::once(async { Err(io::Error::other("cut")) });
            let first = stream::iter([Ok(Frame::data(body.slice(..after.min(length))))]);
            // The bytes must leave before the cut.
            let pause =
                stream::once(tokio::time::sleep(Duration::from_millis(50))).filter_map(async |()| None);
            StreamBody::new(first.chain(pause).chain(broken)).boxed_unsync()
        }
        End::Stall(after) => {
            let first = stream::iter([Ok(Frame::data(body.slice(..after.min(length))))]);
            StreamBody::new(first.chain(stream::pending())).boxed_unsync()
        }
        End::Drip(size, every) => {
            let pieces: Vec<Bytes> = body.chunks(size).map(Bytes::copy_from_slice).collect();
            let pieces = stream::iter(pieces).then(move |piece| async move {
                tokio::time::sleep(every).await;
                Ok(Frame::data(piece))
            });
            StreamBody::new(pieces).boxed_unsync()
        }
    });
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    let unsized_head = head && response.headers().contains_key("x-no-length");
    if end != End::Chunked && !unsized_head {
        response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
    }
    response
}

/// In small pieces, counted as they leave.
fn pieces(
    body: Bytes,
    path: String,
    registry: Registry,
) -> impl http_body::Body<Data = Bytes, Error = io::Error> + Send {
    let slowness = registry.lock().slowness;
    let counted = Counted::new(registry.bodies.clone());
    let pieces = stream::unfold(
        (body, path, registry, counted),
        move |(mut rest, path, registry, counted)| async move {
            let piece = rest.split_to(rest.len().min(64 << 10));
            if piece.is_empty() {
                return None;
            }
            if !slowness.is_zero() {
                tokio::time::sleep(slowness).await;
            }
            registry.pace.wait(piece.len()).await;
            registry.served.fetch_add(piece.len() as u64, Ordering::Relaxed);
            *registry.lock().sent.entry(path.clone()).or_default() += piece.len() as u64;
            Some((Ok(Frame::data(piece)), (rest, path, registry, counted)))
        },
    );
    StreamBody::new(pieces)
}

/// How fast bodies leave, all together.
#[derive(Default)]
pub(super) struct Pace {
    rate: AtomicU64,
    /// When what was promised so far has left.
    free: Mutex<Option<Instant>>,
}

impl Pace {
    pub(super) fn set(&self, rate: u64) {
        self.rate.store(rate, Ordering::Relaxed);
    }

    async fn wait(&self, bytes: usize) {
        let rate = self.rate.load(Ordering::Relaxed);
        if rate == 0 {
            return;
        }
        let turn = {
            let (mut free, now) = (self.free.lock().unwrap(), Instant::now());
            let turn = free.unwrap_or(now).max(now);
            *free = Some(turn + Duration::from_secs_f64(bytes as f64 / rate as f64));
            turn
        };
        tokio::time::sleep_until(turn).await;
    }
}

/// A body on its way.
struct Counted(Arc<Bodies>);

impl Counted {
    fn new(bodies: Arc<Bodies>) -> Self {
        let now = bodies.now.fetch_add(1, Ordering::Relaxed) + 1;
        bodies.most.fetch_max(now, Ordering::Relaxed);
        Self(bodies)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::Relaxed);
    }
}

fn never(error: Infallible) -> io::Error {
    match error {}
}

fn stream(chunks: Vec<Bytes>) -> impl http_body::Body<Data = Bytes, Error = io::Error> + Send {
    StreamBody::new(stream::iter(chunks.into_iter().map(|c| Ok(Frame::data(c)))))
}
