//! Real registries (Debian's docker-registry), each behind a gate and under a name of its own. They share one
//! storage, which is filled through a door of its own, so that their access logs hold what was pulled and no more.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde_json::{Value, json};

use super::{gate::Gate, image::Image, world};
use crate::kit::{cluster::eventually, guard::Guard};

pub const USER: &str = "puller";
/// Also looked for where it must not be: nothing else looks like it.
pub const PASSWORD: &str = "correct-horse-7f3a9c";
/// `htpasswd -nbB puller correct-horse-7f3a9c`
const HTPASSWD: &str = "puller:$2y$05$WO0V3tCY5Yw9NH8pEsrYqeytbCPfe9MyJji8r9A0UnamrgJxIYly.";

/// The content of all registries, and the way in for tests.
pub struct Storage {
    folder: PathBuf,
    door: SocketAddr,
    _server: Guard,
    count: AtomicUsize,
}

pub struct Registry {
    /// As images name it: host and port.
    pub name: String,
    pub gate: Gate,
    config: PathBuf,
    log: PathBuf,
    server: Mutex<Option<Guard>>,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Kind {
    /// It wants [`USER`] and [`PASSWORD`].
    pub password: bool,
    /// It speaks HTTPS with a certificate that nobody knows.
    pub self_signed: bool,
}

impl Storage {
    pub fn new(dir: &Path) -> Self {
        let folder = dir.join("registries");
        let at = folder.join(format!("{}", std::process::id()));
        fs::create_dir_all(&at).unwrap();
        let config = at.join("door.json");
        fs::write(&config, configuration(&at.join("content"), &json!({})).to_string()).unwrap();
        let (server, door) = serve(&config, &at.join("door.log"));
        Self { folder: at, door, _server: server, count: AtomicUsize::new(0) }
    }

    pub fn put(&self, repository: &str, tag: &str, image: &Image) {
        image.push(self.door, repository, tag);
    }
}

impl Registry {
    /// Plain HTTP and open to all.
    pub fn start(host: &str) -> Self {
        Self::start_as(host, Kind::default())
    }

    /// `host` becomes a name that the node and its pods know.
    pub fn start_as(host: &str, kind: Kind) -> Self {
        Self::start_at(host, 0, kind)
    }

    pub fn start_at(host: &str, port: u16, kind: Kind) -> Self {
        let storage = &world().storage;
        let at = storage.folder.join(format!("{}-{host}", storage.count.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir_all(&at).unwrap();
        let mut more = json!({});
        if kind.password {
            let file = at.join("htpasswd");
            fs::write(&file, HTPASSWD).unwrap();
            more["auth"] = json!({"htpasswd": {"realm": "test", "path": file}});
        }
        if kind.self_signed {
            let own = rcgen::generate_simple_self_signed(vec![host.to_owned()]).unwrap();
            let (certificate, key) = (at.join("tls.crt"), at.join("tls.key"));
            fs::write(&certificate, own.cert.pem()).unwrap();
            fs::write(&key, own.signing_key.serialize_pem()).unwrap();
            more["http"] = json!({"tls": {"certificate": certificate, "key": key}});
        }
        let config = at.join("config.json");
        fs::write(&config, configuration(&storage.folder.join("content"), &more).to_string()).unwrap();
        let log = at.join("log");
        let (server, address) = serve(&config, &log);
        let gate = Gate::new(SocketAddr::new(host_ip(), port), address);
        let name = format!("{host}:{}", gate.address.port());
        know(host);
        Self { name, gate, config, log, server: Mutex::new(Some(server)) }
    }

    /// The full name of an image.
    pub fn image(&self, repository: &str, tag: &str) -> String {
        format!("{}/{repository}:{tag}", self.name)
    }

    /// Connections are refused from now on.
    pub fn stop(&self) {
        self.gate.shut();
        self.server.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    pub fn start_again(&self) {
        let (server, address) = serve(&self.config, &self.log);
        *self.server.lock().unwrap_or_else(PoisonError::into_inner) = Some(server);
        self.gate.open(address);
    }

    /// Successful GETs of a blob, by the access log: status and bytes.
    pub fn fetches(&self, digest: &str) -> Vec<(u16, u64)> {
        let wanted = format!("/blobs/{digest} HTTP/1.1\" ");
        let log = fs::read_to_string(&self.log).unwrap();
        let lines = log.lines().filter(|line| line.contains("\"GET /v2/"));
        lines
            .filter_map(|line| {
                let mut fields = line.split_once(&wanted)?.1.split(' ');
                let status: u16 = fields.next()?.parse().ok()?;
                let bytes = fields.next()?.parse().ok()?;
                (200..300).contains(&status).then_some((status, bytes))
            })
            .collect()
    }
}

/// A name for the node and its pods; it means this machine.
pub fn know(host: &str) {
    let file = world().cluster.dir.join("hosts");
    let known = fs::read_to_string(&file).unwrap();
    if !known.lines().any(|line| line.split_whitespace().skip(1).any(|name| name == host)) {
        let line = format!("{} {host}\n", host_ip());
        OpenOptions::new().append(true).open(file).unwrap().write_all(line.as_bytes()).unwrap();
    }
}

pub fn host_ip() -> IpAddr {
    world().cluster.fact("host-ip").parse().unwrap()
}

fn configuration(content: &Path, more: &Value) -> Value {
    let mut all = json!({
        "version": 0.1,
        "log": {"level": "info", "accesslog": {"disabled": false}},
        "storage": {"filesystem": {"rootdirectory": content}, "redirect": {"disable": true}},
        "http": {"addr": "127.0.0.1:0", "secret": "of the tests"},
    });
    if let Some(auth) = more.get("auth") {
        all["auth"] = auth.clone();
    }
    if let Some(tls) = more.pointer("/http/tls") {
        all["http"]["tls"] = tls.clone();
    }
    all
}

/// Starts one at a free port, which it writes to its log.
fn serve(config: &Path, log: &Path) -> (Guard, SocketAddr) {
    let both = OpenOptions::new().create(true).append(true).open(log).unwrap();
    let before = both.metadata().unwrap().len();
    let errors: Stdio = both.try_clone().unwrap().into();
    let program = Path::new("/usr/bin/docker-registry");
    let arguments = ["serve", config.to_str().unwrap()];
    let guard = Guard::process_with(program, &arguments, both.into(), |command| {
        command.stderr(errors);
    });
    let address = eventually("a registry's address in its log", || {
        let text = fs::read_to_string(log).unwrap();
        let (_, rest) = text.get(usize::try_from(before).unwrap()..)?.split_once("listening on ")?;
        rest.split([',', '"', ' ']).next()?.parse().ok()
    });
    (guard, address)
}
