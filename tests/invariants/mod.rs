//! What has to hold for any bytes that a parser is given. The fuzz targets and the replay of their corpus share this.
// Each user of this file takes its own part; an assertion that fails is a finding.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderValue, header::WWW_AUTHENTICATE};
use imagecache::{
    mirror::range::{self, Span},
    model::{annotations, credentials::Credentials, digest::Digest, reference::Reference},
    registry::{
        challenge::{self, Challenge},
        limits::{MAX_BLOB, MAX_CHILDREN, MAX_LAYERS},
        manifest::{self, Document},
        range as content_range,
    },
};

/// A name, and what must hold for any bytes.
pub type Target = (&'static str, fn(&[u8]));

pub const TARGETS: &[Target] = &[
    ("reference", reference),
    ("digest", digest),
    ("challenge", challenge),
    ("docker_config", docker_config),
    ("manifest", manifest),
    ("range", range),
    ("content_range", content_range),
    ("annotations", annotations),
];

/// What is accepted is normal: printed, it reads as itself, and it is safe in a path and in a URL.
pub fn reference(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(read) = text.parse::<Reference>() else { return };
    let printed = read.to_string();
    assert_eq!(printed.parse::<Reference>().as_ref(), Ok(&read));
    assert_eq!(printed.parse::<Reference>().unwrap().to_string(), printed);
    let path = read.repository();
    assert!(path.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-/".contains(&b)));
    assert!(path.split('/').all(|part| !part.is_empty() && !part.starts_with('.') && !part.ends_with('.')));
    assert!(!path.contains("..") && read.host().as_str().len() + 1 + path.len() <= 255);
    let host = read.host().as_str();
    assert!(host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:[]".contains(&b)), "{host}");
    assert!(read.tag().is_none_or(|tag| (1..=128).contains(&tag.len()) && !tag.starts_with(['.', '-'])));
    assert!(read.tag().is_some() || read.digest().is_some());
}

pub fn digest(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(read) = text.parse::<Digest>() else { return };
    assert_eq!(read.to_string(), text, "there is one way to write a digest");
    assert!(matches!(read.hex().len(), 64 | 128));
    assert!(read.hex().bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')));
}

/// One header value a line.
pub fn challenge(bytes: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in bytes.split(|b| *b == b'\n').take(100) {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(WWW_AUTHENTICATE, value);
        }
    }
    let Some(Challenge::Bearer { realm, service, scopes, error }) = challenge::preferred(&headers) else {
        return;
    };
    assert!(!realm.is_empty());
    assert!(scopes.iter().all(|scope| !scope.is_empty() && !scope.contains(char::is_whitespace)));
    // Written as a registry should, it means the same.
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let mut text = format!("Bearer realm={}", quoted(&realm));
    let words = [("service", service.clone()), ("error", error.clone())];
    for (name, value) in words.into_iter().filter_map(|(name, value)| Some((name, value?))) {
        text += &format!(",{name}={}", quoted(&value));
    }
    if !scopes.is_empty() {
        text += &format!(",scope={}", quoted(&scopes.join(" ")));
    }
    let Ok(value) = HeaderValue::from_str(&text) else { return };
    let again = challenge::preferred(&HeaderMap::from_iter([(WWW_AUTHENTICATE, value)]));
    assert_eq!(again, Some(Challenge::Bearer { realm, service, scopes, error }), "{text}");
}

/// What was read survives the way into a pod, and nothing that is printed shows a secret.
pub fn docker_config(bytes: &[u8]) {
    let read = Credentials::parse([bytes]);
    let written = read.to_docker_configs();
    let again = Credentials::parse(&written);
    assert_eq!(again.to_docker_configs(), written);
    assert_eq!(again.hash(), read.hash());
    assert_eq!(read.is_empty(), read.hash().is_empty());
}

pub fn manifest(bytes: &[u8]) {
    let types = [None, Some(manifest::OCI_MANIFEST), Some(manifest::OCI_INDEX), Some(manifest::DOCKER_LIST)];
    for content_type in types {
        match manifest::parse(content_type, bytes) {
            Ok(Document::Image { config, layers, .. }) => {
                assert!(layers.len() <= MAX_LAYERS);
                assert!(layers.iter().chain([&config]).all(|part| part.size <= MAX_BLOB));
            }
            Ok(Document::Index { children, .. }) => {
                assert!(children.len() <= MAX_CHILDREN);
                assert!(children.iter().all(|child| child.size <= MAX_BLOB));
                let platform = "linux/amd64".parse().unwrap();
                let chosen = imagecache::registry::choose(&children, &platform);
                assert!(chosen.is_none_or(|child| !child.attestation));
            }
            Err(failure) => assert!(!failure.message.chars().any(char::is_control)),
        }
    }
}

/// The first eight bytes are the size, the rest is the header.
pub fn range(bytes: &[u8]) {
    let Some((size, text)) = sized(bytes) else { return };
    if let Span::Part(first, last) = range::parse(text, size) {
        assert!(first <= last && last < size);
        let exact = format!("bytes={first}-{last}");
        assert_eq!(range::parse(&exact, size), Span::Part(first, last));
    }
}

pub fn content_range(bytes: &[u8]) {
    let Some((size, text)) = sized(bytes) else { return };
    let Ok(value) = HeaderValue::from_str(text) else { return };
    let headers = HeaderMap::from_iter([(http::header::CONTENT_RANGE, value)]);
    for range in [0..size, 0..1, size / 2..size] {
        if range.start < range.end && content_range::is_what_was_asked(&headers, &range, size) {
            let number = |n: &str| n.trim_start_matches('0').to_owned();
            let digits = text.trim().strip_prefix("bytes ").unwrap();
            let (first, rest) = digits.split_once('-').unwrap();
            let (last, whole) = rest.split_once('/').unwrap();
            let wanted = [range.start, range.end - 1, size].map(|n| number(&n.to_string()));
            assert_eq!([first, last, whole].map(number), wanted);
        }
    }
}

fn sized(bytes: &[u8]) -> Option<(u64, &str)> {
    let (size, text) = bytes.split_first_chunk()?;
    Some((u64::from_le_bytes(*size), std::str::from_utf8(text).ok()?))
}

/// `key=value`, one a line. Reading is total: what is wrong is told, once for each key.
pub fn annotations(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    let read: BTreeMap<String, String> = pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    let seen = annotations::read(&read);
    assert!(seen.invalid.len() <= read.len());
    assert!(seen.invalid.iter().all(|invalid| read.contains_key(&invalid.field)));
    assert_eq!(annotations::read(&read), seen);
}
