//! A registry that writes bytes, not HTTP: what no HTTP server would send can be scripted. Honest where nothing is
//! scripted: one image behind a login, with ranges. It logs every request.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use imagecache::{model::digest::Digest, model::reference::RegistryHost};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::content::Content;

/// `me:s3cret-password`, as it travels.
pub const BASIC: &str = "Basic bWU6czNjcmV0LXBhc3N3b3Jk";
/// What its own token service gives.
pub const BEARER: &str = "Bearer s3cret-token";

/// Part of an answer. After the last part the connection is closed.
#[derive(Clone, Debug)]
pub enum Step {
    /// Words in braces are replaced: `{own}`, `{other}`, `{layer}`.
    Head(String),
    Send(Bytes),
    /// Again and again, until the other side has enough.
    Endless(Bytes),
    /// One byte at a time, for ever.
    Dribble(u8),
    Wait,
}

/// What is scripted for requests whose `METHOD path` contains `part`.
#[derive(Clone, Debug)]
pub struct Rule {
    pub part: String,
    pub times: usize,
    pub steps: Vec<Step>,
}

#[derive(Clone, Debug)]
pub struct Seen {
    pub line: String,
    pub head: String,
    pub body: String,
}

impl Seen {
    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }
}

/// What a connection does before the first request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    Plain,
    Tls,
    /// Bytes that are not TLS.
    Garbage,
    /// A TLS alert.
    Alert,
    /// Accepted, and not a byte.
    Mute,
    /// Closed, and what was asked is not even read.
    Reset,
}

#[derive(Clone)]
pub struct Server {
    pub host: RegistryHost,
    pub url: String,
    state: Arc<State>,
}

struct State {
    opening: Opening,
    content: Content,
    challenge: Option<&'static str>,
    rules: Mutex<Vec<Rule>>,
    words: Mutex<Vec<(&'static str, String)>>,
    seen: Mutex<Vec<Seen>>,
}

impl Server {
    pub async fn start(
        opening: Opening,
        content: Content,
        challenge: Option<&'static str>,
        rules: Vec<Rule>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let scheme = if opening == Opening::Tls { "https" } else { "http" };
        let state = State {
            opening,
            content,
            challenge,
            rules: Mutex::new(rules),
            words: Mutex::default(),
            seen: Mutex::default(),
        };
        let server = Self {
            host: address.to_string().parse().unwrap(),
            url: format!("{scheme}://{address}"),
            state: Arc::new(state),
        };
        let acceptor = (opening == Opening::Tls).then(acceptor);
        tokio::spawn(accept(listener, acceptor, server.state.clone()));
        server
    }

    /// What the words in heads and rules mean.
    pub fn words(&self, words: &[(&'static str, String)]) {
        *self.state.words.lock().unwrap() = words.to_vec();
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().unwrap().clone()
    }
}

fn acceptor() -> tokio_rustls::TlsAcceptor {
    use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    tokio_rustls::TlsAcceptor::from(Arc::new(config))
}

async fn accept(listener: TcpListener, acceptor: Option<tokio_rustls::TlsAcceptor>, state: Arc<State>) {
    while let Ok((tcp, _)) = listener.accept().await {
        // Head and body are written apart: without this the second waits for the first to be acknowledged.
        tcp.set_nodelay(true).unwrap();
        let (acceptor, state) = (acceptor.clone(), state.clone());
        tokio::spawn(async move {
            match acceptor {
                Some(acceptor) => {
                    if let Ok(stream) = acceptor.accept(tcp).await {
                        requests(stream, &state).await;
                    }
                }
                None => plain(tcp, &state).await,
            }
        });
    }
}

async fn plain(mut tcp: TcpStream, state: &State) {
    match state.opening {
        Opening::Garbage => drop(tcp.write_all(&[0, 1, 2, 3, 250, 251, 252]).await),
        Opening::Alert => drop(tcp.write_all(&[21, 3, 3, 0, 2, 2, 40]).await),
        // Unread bytes make a reset of the close.
        Opening::Reset => drop(tcp.readable().await),
        Opening::Mute => std::future::pending().await,
        Opening::Plain | Opening::Tls => requests(tcp, state).await,
    }
}

async fn requests<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, state: &State) {
    while let Some(seen) = read(&mut stream).await {
        state.seen.lock().unwrap().push(seen.clone());
        let (steps, close) = match scripted(state, &seen) {
            Some(steps) => (steps, true),
            None => (honest(state, &seen), false),
        };
        for step in steps {
            if perform(&mut stream, step, state).await.is_err() {
                return;
            }
        }
        let _ = stream.flush().await;
        if close {
            let _ = stream.shutdown().await;
            return;
        }
    }
}

async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> Option<Seen> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break at + 4;
        }
        // A TLS hello on a plain port is closed at once, as servers do.
        if stream.read_buf(&mut bytes).await.ok()? == 0 || bytes[0] == 22 {
            return None;
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let line = head.lines().next()?.rsplit_once(' ')?.0.to_owned();
    let mut seen = Seen { line, head, body: String::new() };
    let length: usize = seen.header("content-length").and_then(|n| n.parse().ok()).unwrap_or_default();
    while bytes.len() < end + length {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    seen.body = String::from_utf8_lossy(&bytes[end..]).into_owned();
    Some(seen)
}

fn fill(text: &str, state: &State) -> String {
    let words = state.words.lock().unwrap();
    words.iter().fold(text.to_owned(), |text, (word, means)| text.replace(word, means))
}

fn scripted(state: &State, seen: &Seen) -> Option<Vec<Step>> {
    let mut rules = state.rules.lock().unwrap();
    let rule =
        rules.iter_mut().find(|rule| rule.times > 0 && seen.line.contains(&fill(&rule.part, state)))?;
    rule.times -= 1;
    Some(rule.steps.clone())
}

async fn perform<S: AsyncWrite + Unpin>(stream: &mut S, step: Step, state: &State) -> std::io::Result<()> {
    match step {
        Step::Head(text) => stream.write_all(fill(&text, state).as_bytes()).await?,
        Step::Send(bytes) => stream.write_all(&bytes).await?,
        Step::Endless(bytes) => loop {
            stream.write_all(&bytes).await?;
        },
        Step::Dribble(byte) => loop {
            stream.write_all(&[byte]).await?;
            stream.flush().await?;
            tokio::time::sleep(Duration::from_millis(20)).await;
        },
        Step::Wait => {
            stream.flush().await?;
            std::future::pending::<()>().await;
        }
    }
    stream.flush().await
}

/// What a good registry says.
fn honest(state: &State, seen: &Seen) -> Vec<Step> {
    let (method, target) = seen.line.split_once(' ').unwrap_or_default();
    let path = target.split('?').next().unwrap_or_default();
    let right = seen.header("authorization").is_some_and(|sent| sent == BASIC || sent == BEARER);
    if path == "/token" {
        let token = r#"{"token":"s3cret-token","expires_in":300}"#;
        return if right { answer(method, "200 OK", "", token) } else { answer(method, "401 No", "", "") };
    }
    if let Some(challenge) = state.challenge.filter(|_| path.starts_with("/v2/") && !right) {
        let head = format!("WWW-Authenticate: {challenge}\r\n");
        return answer(method, "401 Unauthorized", &head, r#"{"errors":[{"code":"UNAUTHORIZED"}]}"#);
    }
    let name = path.rsplit('/').next().unwrap_or_default();
    let Some((media_type, bytes)) = state.content.get(name) else {
        return answer(method, "404 Not Found", "", r#"{"errors":[{"code":"MANIFEST_UNKNOWN"}]}"#);
    };
    let digest = Digest::sha256(bytes);
    let head = format!("Content-Type: {media_type}\r\nDocker-Content-Digest: {digest}\r\n");
    let range = seen.header("range").and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
    let Some((first, last)) = range else { return answer(method, "200 OK", &head, bytes.clone()) };
    let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
    let head = format!("{head}Content-Range: bytes {first}-{last}/{}\r\n", bytes.len());
    answer(method, "206 Partial Content", &head, bytes.slice(first..=last))
}

fn answer(method: &str, status: &str, head: &str, body: impl Into<Bytes>) -> Vec<Step> {
    let body = body.into();
    let head = format!("HTTP/1.1 {status}\r\n{head}Content-Length: {}\r\n\r\n", body.len());
    let body = if method == "HEAD" { Bytes::new() } else { body };
    vec![Step::Head(head), Step::Send(body)]
}
