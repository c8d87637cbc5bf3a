//! A running mirror, and requests to it byte by byte.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    time::{Duration, Instant},
};

use imagecache::{
    mirror::{Config, Mirror},
    model::volume::VolumeReport,
};
use tokio_util::sync::CancellationToken;

/// A mirror that runs until it is dropped.
pub struct Running {
    pub address: SocketAddr,
    admin: SocketAddr,
    stop: CancellationToken,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Running {
    pub fn new(volume: &Path, adjust: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::new(volume, "127.0.0.1:0".parse().unwrap());
        config.poll = Duration::from_millis(20);
        adjust(&mut config);
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let mirror = runtime.block_on(Mirror::bind(config)).unwrap();
        let (address, admin) = (mirror.address().unwrap(), mirror.admin_address().unwrap());
        let stop = CancellationToken::new();
        runtime.spawn(mirror.serve(stop.clone()));
        let running = Self { address, admin, stop, runtime: Some(runtime) };
        until("ready", || running.get_admin("/readyz").status == 200);
        running
    }

    fn send(address: SocketAddr, text: &str) -> Answer {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        let mut bytes = Vec::new();
        // A cut connection is an answer too.
        drop(stream.read_to_end(&mut bytes));
        Answer::parse(&bytes)
    }

    pub fn ask(&self, method: &str, uri: &str, headers: &[&str]) -> Answer {
        let mut text = format!("{method} {uri} HTTP/1.1\r\nHost: mirror\r\nConnection: close\r\n");
        for line in headers {
            text = text + line + "\r\n";
        }
        Self::send(self.address, &(text + "\r\n"))
    }

    pub fn get(&self, uri: &str) -> Answer {
        self.ask("GET", uri, &[])
    }

    pub fn get_admin(&self, uri: &str) -> Answer {
        Self::send(self.admin, &format!("GET {uri} HTTP/1.1\r\nHost: mirror\r\nConnection: close\r\n\r\n"))
    }

    pub fn report(&self) -> VolumeReport {
        serde_json::from_slice(&self.get_admin("/report").body).unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    fn parse(bytes: &[u8]) -> Self {
        let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else {
            return Self { status: 0, headers: vec![], body: vec![] };
        };
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let header = |line: &str| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_lowercase(), value.to_owned())
        };
        Self { status, headers: lines.map(header).collect(), body: bytes[end + 4..].to_vec() }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    pub fn code(&self) -> String {
        let body: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        body["errors"][0]["code"].as_str().unwrap().to_owned()
    }
}

pub fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_mins(1);
    while !condition() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
