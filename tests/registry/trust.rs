//! Public or not, redirects, addresses.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use imagecache::{model::reference::RegistryHost, registry::Publicity};

use super::*;
use crate::upstream::{Bearer, Fault, Login};

const TEAM: (&str, &str) = ("me", "s3cret-password");

#[tokio::test]
async fn an_image_is_public_only_by_an_anonymous_answer_of_a_listed_host() {
    let registry = Registry::start().await;
    let image = registry.image("team/app", "1", "linux/amd64", &[b"layer"]);
    let host = registry.host();
    let reference = registry.reference("team/app:1");
    // Inside and not listed: an answer, but no proof.
    let plain = client(&registry);
    assert_eq!(plain.is_public(&host, "team/app", &image.digest).await.unwrap(), Publicity::Unproved);
    assert!(!plain.resolve(&reference).await.unwrap().public);
    let listed = Config { public_registries: vec![host.clone()], ..config(&[&registry]) };
    let listed = Client::new(listed).unwrap();
    assert_eq!(listed.is_public(&host, "team/app", &image.digest).await.unwrap(), Publicity::Proved);
    assert!(listed.resolve(&reference).await.unwrap().public);
}

#[tokio::test]
async fn an_answer_to_a_credential_proves_nothing_and_a_denial_demotes() {
    let registry = Registry::start().await;
    let image = registry.image("team/app", "1", "linux/amd64", &[b"layer"]);
    let host = registry.host();
    registry.login(Login::Basic(vec![TEAM]));
    let entry = (host.as_str(), TEAM.0, TEAM.1);
    let config =
        Config { public_registries: vec![host.clone()], credentials: keys(&[entry]), ..config(&[&registry]) };
    let client = Client::new(config).unwrap();
    assert!(!client.resolve(&registry.reference("team/app:1")).await.unwrap().public);
    assert_eq!(client.is_public(&host, "team/app", &image.digest).await.unwrap(), Publicity::Denied);
    let sent = registry.seen().last().unwrap().clone();
    assert_eq!(sent.header("authorization"), None);
    // An outage is neither yes nor no, and a 404 demotes nothing.
    registry.login(Login::Open);
    let gone = Digest::sha256(b"gone");
    assert_eq!(client.is_public(&host, "team/app", &gone).await.unwrap(), Publicity::Absent);
    registry.always("HEAD", Fault::status(503));
    is(&client.is_public(&host, "team/app", &image.digest).await.unwrap_err(), Class::ServerError, &["503"]);
}

#[tokio::test]
async fn an_anonymous_token_is_an_anonymous_answer() {
    let registry = Registry::start().await;
    let image = registry.image("team/app", "1", "linux/amd64", &[b"layer"]);
    registry.login(Login::Bearer(Bearer { anonymous: true, ..Bearer::default() }));
    let host = registry.host();
    let config = Config { public_registries: vec![host.clone()], ..config(&[&registry]) };
    let client = Client::new(config).unwrap();
    assert!(client.resolve(&registry.reference("team/app:1")).await.unwrap().public);
    assert_eq!(client.is_public(&host, "team/app", &image.digest).await.unwrap(), Publicity::Proved);
}

#[tokio::test]
async fn the_anonymous_client_drops_overrides_and_keeps_the_operators_settings() {
    let registry = Registry::start().await;
    let image = registry.image("team/app", "1", "linux/amd64", &[b"layer"]);
    let mut overridden = config(&[&registry]);
    overridden.access.values_mut().for_each(|access| access.overridden = true);
    overridden.public_registries = vec![registry.host()];
    let client = Client::new(overridden).unwrap();
    assert!(!client.resolve(&registry.reference("team/app:1")).await.unwrap().public);
    // Without the override it is HTTPS, which this registry does not speak.
    let failure = client.is_public(&registry.host(), "team/app", &image.digest).await.unwrap_err();
    assert!(matches!(failure.class, Class::PlainHttp | Class::Network), "{failure}");
}

#[tokio::test]
async fn a_credential_never_follows_a_redirect_to_another_host() {
    let (registry, store) = (Registry::start().await, Registry::start().await);
    registry.login(Login::Basic(vec![TEAM]));
    let bytes = noise(5000);
    let digest = registry.put_blob("team/app", bytes.clone());
    store.put_blob("team/app", bytes.clone());
    let there = store.url(&format!("/store/team/app/blobs/{digest}?signature=s3cret"));
    let client = with_keys(&registry, &[(registry.host().as_str(), TEAM.0, TEAM.1)]);
    read(&client, &registry, &digest, 5000, 0).await.unwrap();
    registry.always("/blobs/", Fault::Redirect(there));
    assert_eq!(read(&client, &registry, &digest, 5000, 0).await.unwrap(), bytes);
    assert_eq!(store.seen()[0].header("authorization"), None);
    // A store that asks for credentials gets none either, and its address with the signature is not repeated.
    store.always("/store/", Fault::status(401));
    let failure = read(&client, &registry, &digest, 5000, 0).await.unwrap_err();
    is(&failure, Class::Auth, &["redirected to 127.0.0.1", "401"]);
    assert!(store.seen().iter().all(|seen| seen.header("authorization").is_none()));
}

#[tokio::test]
async fn redirects_end_and_never_lead_down_to_http_or_to_metadata_addresses() {
    let tls = Registry::start_tls(&["127.0.0.1"]).await;
    let digest = tls.put_blob("team/app", noise(10));
    let client = client(&tls);
    for (to, words) in [
        ("http://127.0.0.1:9/x".to_owned(), "from https to http"),
        ("ftp://127.0.0.1/x".to_owned(), "neither https nor http"),
        ("https://me:s3cret@127.0.0.1/x".to_owned(), "user name"),
        ("https://169.254.169.254/latest".to_owned(), "never contacted"),
        ("https://[fd00:ec2::254]/latest".to_owned(), "never contacted"),
        ("https://100.100.100.200/latest".to_owned(), "never contacted"),
        (tls.url(&format!("/v2/team/app/blobs/{digest}")), "too many redirects"),
    ] {
        tls.script("/blobs/", 6, Fault::Redirect(to.clone()));
        let failure = read(&client, &tls, &digest, 10, 0).await.unwrap_err();
        assert!(failure.message.contains(words), "{to}: {failure}");
        assert!(!failure.message.contains("s3cret"), "{failure}");
        tls.use_up("/blobs/");
    }
}

#[tokio::test]
async fn a_registry_at_a_metadata_address_is_never_contacted() {
    let client = Client::new(Config { limits: limits(), ..Config::default() }).unwrap();
    let failure = client.resolve(&"169.254.169.254/app:1".parse().unwrap()).await.unwrap_err();
    is(&failure, Class::Unsupported, &["169.254.169.254", "never contacted"]);
}

#[tokio::test]
async fn a_host_that_says_nothing_to_the_question_of_publicity_is_asked_once() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host: RegistryHost = listener.local_addr().unwrap().to_string().parse().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let silent = tokio::spawn(async move {
        let mut there = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::Relaxed);
            there.push(stream);
        }
    });
    // A plain-HTTP registry may take a TLS greeting for the beginning of something.
    let limits = Limits { tls_handshake: Duration::from_millis(100), ..limits() };
    let client = Client::new(Config { limits, ..Config::default() }).unwrap();
    let failure = client.is_public(&host, "team/app", &Digest::sha256(b"x")).await.unwrap_err();
    is(&failure, Class::Timeout, &["TLS handshake"]);
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    silent.abort();
}
