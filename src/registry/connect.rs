//! One connection: name lookup, the address rules, TCP, TLS, HTTP/1.1.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite, BufReader, ReadBuf},
    net::TcpStream,
    time::timeout,
};
use url::Url;

use super::{
    address::{Place, place},
    http1::{Http1, Stream},
    limits::Limits,
    lookup::Names,
    tls::{self, Tls},
};
use crate::model::{class::Class, failure::Failure};

/// Where a connection leads. Connections are shared only between equal origins, verification included.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Origin {
    pub https: bool,
    pub verify: bool,
    /// Without the brackets of an IPv6 address.
    pub host: String,
    pub port: u16,
}

impl Origin {
    pub(crate) fn of(url: &Url, verify: bool) -> Result<Self, Failure> {
        let host = match url.host() {
            Some(url::Host::Domain(name)) => name.trim_end_matches('.').to_owned(),
            Some(url::Host::Ipv4(address)) => address.to_string(),
            Some(url::Host::Ipv6(address)) => address.to_string(),
            None => String::new(),
        };
        match (host.is_empty(), url.port_or_known_default()) {
            (false, Some(port)) => Ok(Self { https: url.scheme() == "https", verify, host, port }),
            _ => Err(Failure::new(Class::BadContent, "an address without a host")),
        }
    }
}

/// Whether loopback and private addresses may be dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    Anywhere,
    PublicOnly,
}

pub(crate) struct Connection {
    pub http: Http1,
    /// The peer is at a loopback or private address.
    pub inside: bool,
}

pub(crate) async fn dial(
    origin: &Origin,
    reach: Reach,
    tls: &Tls,
    names: &Names,
    limits: &Limits,
) -> Result<Connection, Failure> {
    let (tcp, inside) = connect(origin, reach, names, limits.connect).await?;
    let _ = tcp.set_nodelay(true);
    let stream: Pin<Box<dyn Stream>> = if origin.https {
        Box::pin(Records { stream: secure(origin, tcp, tls, limits).await?, held: None })
    } else {
        Box::pin(tcp)
    };
    Ok(Connection { http: Http1::new(stream), inside })
}

/// What is read of a connection at once.
const READ: usize = 256 << 10;

/// TLS hands out one record of 16 KiB at a time; this fills the reader's buffer with all that have arrived.
struct Records<S> {
    stream: S,
    /// What ended the stream, after bytes that are handed out first.
    held: Option<io::Error>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Records<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(error) = self.held.take() {
            return Poll::Ready(Err(error));
        }
        let before = buf.filled().len();
        loop {
            let at = buf.filled().len();
            let read = Pin::new(&mut self.stream).poll_read(cx, buf);
            let ended = buf.filled().len() == at || buf.remaining() == 0;
            match read {
                Poll::Ready(Ok(())) if !ended => {}
                other if buf.filled().len() == before => return other,
                Poll::Ready(Err(error)) => {
                    self.held = Some(error);
                    return Poll::Ready(Ok(()));
                }
                _ => return Poll::Ready(Ok(())),
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Records<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

async fn connect(
    origin: &Origin,
    reach: Reach,
    names: &Names,
    limit: Duration,
) -> Result<(TcpStream, bool), Failure> {
    let host = &origin.host;
    let found = names.find(host, origin.port, limit).await?;
    let mut last = Failure::new(Class::Dns, format!("lookup {host}: no address"));
    for address in found {
        let inside = match (place(address.ip()), reach) {
            (Place::Public, _) => false,
            (Place::Inside, Reach::Anywhere) => true,
            (Place::Never, _) => {
                last = refused(host, "a link-local or metadata address, which is never contacted");
                continue;
            }
            (Place::Inside, Reach::PublicOnly) => {
                last = refused(host, "a private address, which a registry outside may not point to");
                continue;
            }
        };
        match timeout(limit, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok((stream, inside)),
            Ok(Err(error)) => last = dial_failure(address, &error),
            Err(_) => last = Failure::new(Class::Timeout, format!("dial tcp {address}: i/o timeout")),
        }
    }
    Err(last)
}

fn refused(host: &str, why: &str) -> Failure {
    Failure::new(Class::Unsupported, format!("{host} is at {why}"))
}

fn dial_failure(address: SocketAddr, error: &io::Error) -> Failure {
    let (class, reason) = match error.kind() {
        io::ErrorKind::ConnectionRefused => (Class::Network, "connection refused"),
        io::ErrorKind::ConnectionReset => (Class::Network, "connection reset"),
        io::ErrorKind::HostUnreachable => (Class::Network, "no route to host"),
        io::ErrorKind::NetworkUnreachable => (Class::Network, "network is unreachable"),
        io::ErrorKind::TimedOut => (Class::Timeout, "i/o timeout"),
        _ => (Class::Network, "connect failed"),
    };
    Failure::new(class, format!("dial tcp {address}: {reason}"))
}

async fn secure(
    origin: &Origin,
    tcp: TcpStream,
    tls: &Tls,
    limits: &Limits,
) -> Result<tokio_rustls::client::TlsStream<BufReader<TcpStream>>, Failure> {
    let name = ServerName::try_from(origin.host.clone()).map_err(|_| {
        Failure::new(Class::Certificate, format!("{} is no name that TLS can verify", origin.host))
    })?;
    let connector = tokio_rustls::TlsConnector::from(Arc::clone(&tls.config(origin.verify)));
    // TLS itself reads 4 KiB at a time, each a system call and a wake-up of the sender.
    let tcp = BufReader::with_capacity(READ, tcp);
    match timeout(limits.tls_handshake, connector.connect(name, tcp)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => {
            let (class, reason) = tls::explain(&error)
                .unwrap_or((Class::Network, "the server closed the connection in the TLS handshake".into()));
            Err(Failure::new(class, reason))
        }
        Err(_) => Err(Failure::new(Class::Timeout, "TLS handshake timeout")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::lookup::Lookup, registry::lookup::DNS_PORT};

    #[tokio::test]
    async fn a_registry_outside_cannot_point_inside_whatever_the_name_is() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let names = Names::new(&Lookup::default(), DNS_PORT).unwrap();
        for host in ["127.0.0.1", "localhost", "::ffff:127.0.0.1"] {
            let origin = Origin { https: true, verify: true, host: host.into(), port };
            let refused =
                connect(&origin, Reach::PublicOnly, &names, Duration::from_secs(5)).await.unwrap_err();
            assert_eq!(refused.class, Class::Unsupported, "{refused}");
            assert!(refused.message.contains("a private address"), "{refused}");
        }
        let origin = Origin { https: true, verify: true, host: "localhost".into(), port };
        assert!(connect(&origin, Reach::Anywhere, &names, Duration::from_secs(5)).await.unwrap().1);
    }
}
