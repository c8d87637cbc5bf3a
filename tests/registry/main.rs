//! The registry client against a scripted registry. One test per rule; each name is the rule.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

mod blobs;
mod connections;
mod credentials;
mod patience;
mod real;
mod resolving;
mod trust;
#[path = "../support/registry/mod.rs"]
mod upstream;

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use imagecache::{
    model::{
        class::Class,
        credentials::Credentials,
        digest::Digest,
        failure::Failure,
        request::{Access, Transport},
    },
    registry::{Blob, Client, Config, CredentialSource, Limits},
};
use upstream::Registry;

/// Short enough for tests, long enough for a busy machine.
fn limits() -> Limits {
    Limits {
        backoff: Duration::from_millis(1),
        backoff_max: Duration::from_millis(2),
        retry_after_max: Duration::from_millis(20),
        progress_bytes: 1000,
        ..Limits::default()
    }
}

fn config(registries: &[&Registry]) -> Config {
    let access = |registry: &&Registry| {
        let transport =
            if registry.certificate.is_some() { Transport::HttpsUnverified } else { Transport::PlainHttp };
        (registry.host(), Access { transport, overridden: false })
    };
    Config { access: registries.iter().map(access).collect(), limits: limits(), ..Config::default() }
}

fn client(registry: &Registry) -> Client {
    Client::new(config(&[registry])).unwrap()
}

/// Basic credentials for hosts, one file.
fn keys(entries: &[(&str, &str, &str)]) -> CredentialSource {
    let entry = |(host, user, password): &(&str, &str, &str)| {
        ((*host).to_owned(), serde_json::json!({"username": user, "password": password}))
    };
    let auths: BTreeMap<String, serde_json::Value> = entries.iter().map(entry).collect();
    CredentialSource::Fixed(Credentials::parse([serde_json::json!({ "auths": auths }).to_string()]))
}

fn with_keys(registry: &Registry, entries: &[(&str, &str, &str)]) -> Client {
    Client::new(Config { credentials: keys(entries), ..config(&[registry]) }).unwrap()
}

/// Bytes that are not all alike.
fn noise(length: usize) -> Vec<u8> {
    (0..length as u64).map(|i| (i.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0]).collect()
}

async fn read(
    client: &Client,
    registry: &Registry,
    digest: &Digest,
    size: usize,
    offset: usize,
) -> Result<Bytes, Failure> {
    whole(client.blob(&registry.host(), "team/app", digest, size as u64, offset as u64).await?).await
}

async fn whole(mut blob: Blob) -> Result<Bytes, Failure> {
    let (mut all, mut piece) = (Vec::new(), vec![0; 64 << 10]);
    loop {
        match blob.read(&mut piece).await? {
            0 => return Ok(all.into()),
            read => all.extend_from_slice(&piece[..read]),
        }
    }
}

#[track_caller]
fn is(failure: &Failure, class: Class, words: &[&str]) {
    assert_eq!(failure.class, class, "{failure}");
    for word in words {
        assert!(failure.message.contains(word), "{word:?} is not in {failure}");
    }
    assert!(!failure.message.contains("s3cret"), "{failure}");
}

/// A pull runs many of these at once, on any thread.
#[tokio::test]
async fn everything_can_be_spawned() {
    let registry = Registry::start().await;
    registry.image("team/app", "1", "linux/amd64", &[b"layer"]);
    let digest = registry.put_blob("team/app", noise(10));
    let client = client(&registry);
    let work = async move {
        let host = registry.host();
        let image = client.resolve(&registry.reference("team/app:1")).await?;
        client.manifest(&host, "team/app", &image.digest, None).await?;
        client.has_blob(&host, "team/app", &digest).await?;
        client.is_public(&host, "team/app", &image.digest).await.ok();
        whole(client.blob(&host, "team/app", &digest, 10, 0).await?).await
    };
    assert_eq!(tokio::spawn(work).await.unwrap().unwrap().len(), 10);
}
