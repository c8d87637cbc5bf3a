//! A scripted registry: serves repositories from memory, logs every request, and misbehaves on demand.
//! Use it with `#[path = "support/registry/mod.rs"] mod upstream;`.
// Each test binary uses its own part; a failed unwrap is a failed test.
#![allow(dead_code, unused_imports, unreachable_pub, clippy::unwrap_used)]

mod answer;
mod image;
mod login;
mod serve;

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use imagecache::model::{
    digest::Digest,
    reference::{Reference, RegistryHost},
};

pub use image::{INDEX, Image, MANIFEST};
pub use login::{Bearer, Login};

/// How one request goes wrong.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Status, headers, body.
    Status(u16, Vec<(&'static str, String)>, &'static str),
    /// The right length, wrong bytes.
    WrongBytes,
    /// Bytes of zero after the content, without a length.
    Longer(usize),
    /// An honest length, and too few bytes.
    Shorter(usize),
    /// The connection is cut after so many bytes of the body.
    Cut(usize),
    /// Nothing more comes after so many bytes of the body.
    Stall(usize),
    /// One byte at a time, a second apart.
    Dribble,
    /// So many bytes at a time, so far apart.
    Drip(usize, Duration),
    /// Neither headers nor anything else.
    Silence,
    /// 200 and everything, whatever range was asked for.
    IgnoreRange,
    WrongContentRange,
    /// A header replaced, or removed if empty.
    Header(&'static str, String),
    Redirect(String),
    NoHead,
}

impl Fault {
    pub fn status(status: u16) -> Self {
        Self::Status(status, Vec::new(), "")
    }
}

/// One request as it came.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    /// Path and query.
    pub path: String,
    pub headers: http::HeaderMap,
    pub body: String,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

struct Script {
    part: String,
    fault: Fault,
    times: usize,
}

#[derive(Default)]
struct Content {
    /// By repository and digest.
    blobs: HashMap<(String, Digest), Bytes>,
    /// By repository and tag or digest.
    manifests: HashMap<(String, String), (String, Digest, Bytes)>,
    /// By repository and subject: descriptors, two a page. Without any there is no such API.
    referrers: HashMap<(String, Digest), Vec<serde_json::Value>>,
    scripts: Vec<Script>,
    seen: Vec<Seen>,
    login: Login,
    /// Scopes by token.
    tokens: HashMap<String, String>,
    connections: usize,
    /// Bytes of bodies that left, by path.
    sent: HashMap<String, u64>,
    /// How long 64 KiB take on one connection.
    slowness: Duration,
}

#[derive(Clone)]
pub struct Registry {
    pub address: SocketAddr,
    /// The registry's certificate, if it speaks TLS.
    pub certificate: Option<String>,
    content: Arc<Mutex<Content>>,
    served: Arc<AtomicU64>,
    pace: Arc<serve::Pace>,
    bodies: Arc<Bodies>,
}

/// Bodies on their way: now, and at most so far.
#[derive(Default)]
struct Bodies {
    now: AtomicU64,
    most: AtomicU64,
}

impl Registry {
    /// Plain HTTP on a free port of 127.0.0.1.
    pub async fn start() -> Self {
        serve::start(None).await
    }

    /// HTTPS with a self-signed certificate for these names.
    pub async fn start_tls(names: &[&str]) -> Self {
        let made =
            rcgen::generate_simple_self_signed(names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>());
        let made = made.unwrap();
        let key = made.signing_key.serialize_der();
        Self::start_tls_with(made.cert.der().to_vec(), key, made.cert.pem()).await
    }

    pub async fn start_tls_with(certificate: Vec<u8>, key: Vec<u8>, pem: String) -> Self {
        serve::start(Some((certificate, key, pem))).await
    }

    pub fn host(&self) -> RegistryHost {
        self.address.to_string().parse().unwrap()
    }

    pub fn url(&self, path: &str) -> String {
        let scheme = if self.certificate.is_some() { "https" } else { "http" };
        format!("{scheme}://{}{path}", self.address)
    }

    /// `repository:tag` or `repository@digest` here.
    pub fn reference(&self, rest: &str) -> Reference {
        format!("{}/{rest}", self.address).parse().unwrap()
    }

    pub fn login(&self, login: Login) {
        self.lock().login = login;
    }

    /// The next `times` requests whose `METHOD path` contains `part` go wrong. Scripts are used up in order.
    pub fn script(&self, part: &str, times: usize, fault: Fault) {
        self.lock().scripts.push(Script { part: part.to_owned(), fault, times });
    }

    pub fn always(&self, part: &str, fault: Fault) {
        self.script(part, usize::MAX, fault);
    }

    /// Drops what is left of a script; whether there was one.
    pub fn use_up(&self, part: &str) -> bool {
        let mut content = self.lock();
        let before = content.scripts.len();
        content.scripts.retain(|s| s.part != part);
        content.scripts.len() < before
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.lock().seen.clone()
    }

    /// `METHOD path` of every request, without the query.
    pub fn lines(&self) -> Vec<String> {
        let line = |s: &Seen| format!("{} {}", s.method, s.path.split('?').next().unwrap_or_default());
        self.lock().seen.iter().map(line).collect()
    }

    pub fn forget(&self) {
        self.lock().seen.clear();
    }

    /// Bytes of bodies that left so far; what is in the sockets counts.
    pub fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }

    /// The same of what was asked for under this name, such as a digest.
    pub fn served_of(&self, name: &impl ToString) -> u64 {
        let name = name.to_string();
        self.lock().sent.iter().filter(|(path, _)| path.ends_with(&name)).map(|(_, bytes)| bytes).sum()
    }

    /// Bodies leave at this rate at most, all connections together. Bytes a second; 0 is no limit.
    pub fn throttle(&self, rate: u64) {
        self.pace.set(rate);
    }

    /// Every connection is so slow: the time for 64 KiB.
    pub fn slow(&self, slowness: Duration) {
        self.lock().slowness = slowness;
    }

    /// How many bodies were on their way at one time, at most.
    pub fn most_bodies(&self) -> u64 {
        self.bodies.most.load(Ordering::Relaxed)
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.lock().connections
    }

    fn lock(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap()
    }
}

impl Content {
    /// What is scripted for this request, used up.
    fn faults(&mut self, line: &str) -> Option<Fault> {
        let script = self.scripts.iter_mut().find(|s| s.times > 0 && line.contains(&s.part))?;
        script.times -= 1;
        Some(script.fault.clone())
    }
}
