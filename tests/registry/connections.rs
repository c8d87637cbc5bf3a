//! Reaching a registry, and why it fails.

use super::*;
use crate::upstream::Fault;

async fn failure_of(config: Config, reference: &str) -> Failure {
    Client::new(config).unwrap().resolve(&reference.parse().unwrap()).await.unwrap_err()
}

fn verified() -> Config {
    Config { limits: limits(), ..Config::default() }
}

async fn tls(names: &[&str]) -> Registry {
    let registry = Registry::start_tls(names).await;
    registry.image("team/app", "1", "linux/amd64", &[b"layer"]);
    registry
}

fn trusting(registry: &Registry) -> Config {
    Config { extra_roots: vec![registry.certificate.clone().unwrap().into_bytes()], ..verified() }
}

#[tokio::test]
async fn an_unknown_certificate_is_refused_and_said_to_be_self_signed() {
    let registry = tls(&["127.0.0.1"]).await;
    let failure = failure_of(verified(), &format!("{}/team/app:1", registry.address)).await;
    is(&failure, Class::Certificate, &["x509: certificate signed by unknown authority", "self-signed"]);
    assert_eq!(registry.connections(), 1);
}

#[tokio::test]
async fn an_extra_root_adds_to_the_systems() {
    let registry = tls(&["127.0.0.1"]).await;
    let client = Client::new(trusting(&registry)).unwrap();
    client.resolve(&registry.reference("team/app:1")).await.unwrap();
}

#[tokio::test]
async fn a_certificate_for_another_name_is_named() {
    let registry = tls(&["registry.example.com"]).await;
    let failure = failure_of(trusting(&registry), &format!("{}/team/app:1", registry.address)).await;
    is(&failure, Class::Certificate, &["certificate is valid for", "registry.example.com"]);
}

#[tokio::test]
async fn an_expired_certificate_is_named() {
    let mut params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2000, 1, 1);
    params.not_after = rcgen::date_time_ymd(2001, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    let made = params.self_signed(&key).unwrap();
    let registry = Registry::start_tls_with(made.der().to_vec(), key.serialize_der(), made.pem()).await;
    let failure = failure_of(trusting(&registry), &format!("{}/team/app:1", registry.address)).await;
    is(&failure, Class::Certificate, &["expired"]);
}

#[tokio::test]
async fn a_self_made_ca_certificate_serves_as_its_own_root_and_still_needs_the_right_name() {
    for (name, fine) in [("127.0.0.1", true), ("registry.example.com", false)] {
        let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let made = params.self_signed(&key).unwrap();
        let registry = Registry::start_tls_with(made.der().to_vec(), key.serialize_der(), made.pem()).await;
        registry.image("team/app", "1", "linux/amd64", &[b"layer"]);
        let reference = registry.reference("team/app:1");
        let found = Client::new(trusting(&registry)).unwrap().resolve(&reference).await;
        assert_eq!(found.is_ok(), fine, "{found:?}");
        let failure = failure_of(verified(), &reference.to_string()).await;
        is(&failure, Class::Certificate, &["self-signed"]);
    }
}

#[tokio::test]
async fn skip_verify_is_for_exactly_the_host_that_is_listed() {
    let (listed, other) = (tls(&["x"]).await, tls(&["x"]).await);
    let client = client(&listed);
    client.resolve(&listed.reference("team/app:1")).await.unwrap();
    is(&client.resolve(&other.reference("team/app:1")).await.unwrap_err(), Class::Certificate, &["x509"]);
    // Nor does it pass to where the listed one redirects.
    let digest = listed.put_blob("team/app", noise(10));
    listed.always("/blobs/", Fault::Redirect(other.url(&format!("/store/team/app/blobs/{digest}"))));
    is(&read(&client, &listed, &digest, 10, 0).await.unwrap_err(), Class::Certificate, &["redirected to"]);
}

#[tokio::test]
async fn plain_http_behind_an_https_name_is_recognised() {
    // What Go's and nginx's servers say to a TLS hello.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").await;
        }
    });
    let failure = failure_of(verified(), &format!("{address}/team/app:1")).await;
    is(&failure, Class::PlainHttp, &["http: server gave HTTP response to HTTPS client"]);
}

#[tokio::test]
async fn a_port_where_nobody_listens_is_a_network_failure_and_a_strange_name_one_of_dns() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    is(
        &failure_of(verified(), &format!("{address}/a:1")).await,
        Class::Network,
        &["connection refused", "/a:1"],
    );
    let failure = failure_of(verified(), "registry.does-not-exist.invalid/a:1").await;
    is(&failure, Class::Dns, &["lookup registry.does-not-exist.invalid", "no such host"]);
}

#[tokio::test]
async fn silence_is_a_timeout() {
    let registry = Registry::start().await;
    registry.always("/v2/", Fault::Silence);
    let short = Limits { headers: Duration::from_millis(50), tries: 2, ..limits() };
    let failure =
        failure_of(Config { limits: short, ..config(&[&registry]) }, &format!("{}/a:1", registry.address))
            .await;
    is(&failure, Class::Timeout, &["i/o timeout"]);
    // A server that never speaks TLS.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let short = Limits { tls_handshake: Duration::from_millis(50), tries: 2, ..limits() };
    let config = Config { limits: short, ..Config::default() };
    let failure = failure_of(config, &format!("{}/a:1", listener.local_addr().unwrap())).await;
    is(&failure, Class::Timeout, &["TLS handshake timeout"]);
}

#[tokio::test]
async fn a_kept_connection_that_the_peer_closed_is_no_failure() {
    let registry = tls(&["127.0.0.1"]).await;
    let once = Limits { tries: 1, ..limits() };
    let client = Client::new(Config { limits: once, ..config(&[&registry]) }).unwrap();
    registry.always("HEAD", Fault::Header("connection", "close".into()));
    for _ in 0..3 {
        client.resolve(&registry.reference("team/app:1")).await.unwrap();
    }
    assert_eq!(registry.connections(), 3);
}
