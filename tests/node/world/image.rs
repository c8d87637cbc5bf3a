//! Images of bytes that mean nothing, and how they get into a registry: the distribution specification's push, by
//! hand, so that sizes can also be claimed that are not there.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
};

use imagecache::model::digest::Digest;
use serde_json::{Value, json};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

#[derive(Clone, Debug)]
pub struct Blob {
    pub bytes: Vec<u8>,
    pub digest: String,
}

#[derive(Clone, Debug)]
pub struct Image {
    pub layers: Vec<Blob>,
    pub config: Blob,
    pub manifest: Blob,
}

impl Blob {
    pub fn new(bytes: Vec<u8>) -> Self {
        let digest = Digest::sha256(&bytes).to_string();
        Self { bytes, digest }
    }

    /// The same bytes for the same name, and no others.
    pub fn named(name: &str, size: usize) -> Self {
        let seed = Digest::sha256(name.as_bytes());
        let mut state = u64::from_str_radix(&seed.hex()[..16], 16).unwrap() | 1;
        let mut bytes = Vec::with_capacity(size + 8);
        while bytes.len() < size {
            // xorshift64: quick, and nothing compresses or repeats.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            bytes.extend(state.to_le_bytes());
        }
        bytes.truncate(size);
        Self::new(bytes)
    }

    pub fn size(&self) -> i64 {
        self.bytes.len().try_into().unwrap()
    }
}

impl Image {
    pub fn of(layers: Vec<Blob>) -> Self {
        Self::claiming(layers, Blob::size)
    }

    /// An image whose manifest says of each layer what the function says.
    pub fn claiming(layers: Vec<Blob>, size: impl Fn(&Blob) -> i64) -> Self {
        let ids: Vec<&str> = layers.iter().map(|layer| layer.digest.as_str()).collect();
        let config = json!({
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": ids},
        });
        let config = Blob::new(config.to_string().into_bytes());
        let descriptor = |media: &str, blob: &Blob, size: i64| -> Value {
            json!({"mediaType": media, "digest": blob.digest, "size": size})
        };
        let all: Vec<Value> = layers.iter().map(|layer| descriptor(LAYER, layer, size(layer))).collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor(CONFIG, &config, config.size()),
            "layers": all,
        });
        let manifest = Blob::new(manifest.to_string().into_bytes());
        Self { layers, config, manifest }
    }

    /// Bytes of manifest, config and layers.
    pub fn size(&self) -> i64 {
        self.blobs().map(Blob::size).sum()
    }

    pub fn blobs(&self) -> impl Iterator<Item = &Blob> {
        self.layers.iter().chain([&self.config, &self.manifest])
    }

    pub fn push(&self, registry: SocketAddr, repository: &str, tag: &str) {
        for blob in self.layers.iter().chain([&self.config]) {
            let (status, upload) =
                exchange(registry, "POST", &format!("/v2/{repository}/blobs/uploads/"), "", b"");
            assert_eq!(status, 202, "{upload}");
            let location = upload.lines().find_map(|line| line.strip_prefix("Location: ")).unwrap();
            let path = &location[location.find("/v2/").unwrap()..];
            let path = format!("{path}&digest={}", blob.digest);
            let (status, answer) = exchange(registry, "PUT", &path, "application/octet-stream", &blob.bytes);
            assert_eq!(status, 201, "{answer}");
        }
        let path = format!("/v2/{repository}/manifests/{tag}");
        let (status, answer) = exchange(registry, "PUT", &path, MANIFEST, &self.manifest.bytes);
        assert_eq!(status, 201, "{answer}");
    }
}

/// One request over plain HTTP: status, and the answer as it came.
fn exchange(server: SocketAddr, method: &str, path: &str, media: &str, body: &[u8]) -> (u16, String) {
    let mut stream = TcpStream::connect(server).unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\nContent-Type: {media}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer).replace("\r\n", "\n");
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
    (status, answer)
}
