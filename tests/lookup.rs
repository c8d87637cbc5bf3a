//! Pulls that fail without a setting and succeed with it: a name only host aliases know, a name only a given name
//! server knows, and what such names may prove.
#![allow(clippy::unwrap_used)]

#[path = "support/registry/mod.rs"]
mod upstream;

use std::{fs, net::SocketAddr, path::Path, process::Command};

use imagecache::{
    model::{
        class::Class,
        lookup::{Dns, HostAlias, Lookup},
        reference::Reference,
        request::{Access, Transport},
    },
    registry::{Client, Config, Limits, Publicity},
};
use tokio::net::UdpSocket;
use upstream::Registry;

const NAME: &str = "registry.only-here.test";

/// A name server that knows one name: A 127.0.0.1. Everything else does not exist. RFC 1035, section 4.
async fn name_server() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut query = [0_u8; 1500];
        while let Ok((n, from)) = socket.recv_from(&mut query).await {
            let query = &query[..n];
            let mut labels = Vec::new();
            let mut at = 12;
            while query[at] != 0 {
                let end = at + 1 + usize::from(query[at]);
                labels.push(String::from_utf8_lossy(&query[at + 1..end]).to_lowercase());
                at = end;
            }
            let question = &query[12..at + 5];
            let known = labels.join(".") == NAME;
            let answers = u8::from(known && query[at + 2] == 1);
            let code = if known { 0x80 } else { 0x83 };
            let mut reply = vec![query[0], query[1], 0x81, code, 0, 1, 0, answers, 0, 0, 0, 0];
            reply.extend_from_slice(question);
            if answers == 1 {
                reply.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
            }
            let _ = socket.send_to(&reply, from).await;
        }
    });
    address
}

fn aliased() -> Lookup {
    let hosts = vec![HostAlias { ip: "127.0.0.1".parse().unwrap(), hostnames: vec![NAME.to_owned()] }];
    Lookup { hosts, hosts_overridden: true, ..Lookup::default() }
}

fn config(registry: &Registry, lookup: Lookup) -> Config {
    let host = format!("{NAME}:{}", registry.address.port()).parse().unwrap();
    let access = [(host, Access { transport: Transport::PlainHttp, overridden: false })].into();
    let limits = Limits { tries: 1, ..Limits::default() };
    Config { access, lookup, limits, ..Config::default() }
}

fn image(registry: &Registry) -> Reference {
    format!("{NAME}:{}/app:1", registry.address.port()).parse().unwrap()
}

#[tokio::test]
async fn a_name_that_only_host_aliases_know_is_reached_with_them() {
    let registry = Registry::start().await;
    registry.image("app", "1", "linux/amd64", &[b"layer"]);
    let image = image(&registry);
    let without = Client::new(config(&registry, Lookup::default())).unwrap();
    assert_eq!(without.resolve(&image).await.unwrap_err().class, Class::Dns);
    let with = Client::new(config(&registry, aliased())).unwrap();
    assert!(with.resolve(&image).await.is_ok());
}

#[tokio::test]
async fn a_name_that_only_a_given_name_server_knows_is_reached_with_it() {
    let (registry, server) = (Registry::start().await, name_server().await);
    registry.image("app", "1", "linux/amd64", &[b"layer"]);
    let image = image(&registry);
    let dns = Dns { nameservers: vec![server.ip()], ..Dns::default() };
    let lookup = Lookup { dns: Some(dns), ..Lookup::default() };
    let with = Client::new(Config { dns_port: server.port(), ..config(&registry, lookup.clone()) }).unwrap();
    assert!(with.resolve(&image).await.is_ok());
    let other: Reference = "other.only-here.test/app:1".parse().unwrap();
    let failure = with.resolve(&other).await.unwrap_err();
    assert!(
        failure.class == Class::Dns && failure.message.contains("on 127.0.0.1: no such host"),
        "{failure}"
    );
    // Aliases come first.
    let lookup = Lookup { dns: lookup.dns, ..aliased() };
    let nobody = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let dns_port = nobody.local_addr().unwrap().port();
    let aliased = Client::new(Config { dns_port, ..config(&registry, lookup) }).unwrap();
    assert!(aliased.resolve(&image).await.is_ok());
}

#[tokio::test]
async fn a_name_that_the_cache_leads_somewhere_proves_nothing_even_on_a_listed_registry() {
    let registry = Registry::start().await;
    registry.image("app", "1", "linux/amd64", &[b"layer"]);
    let image = image(&registry);
    for (overridden, proves) in [(false, true), (true, false)] {
        let lookup = Lookup { hosts_overridden: overridden, ..aliased() };
        let config = Config { public_registries: vec![image.host().clone()], ..config(&registry, lookup) };
        let client = Client::new(config).unwrap();
        let resolved = client.resolve(&image).await.unwrap();
        assert_eq!(resolved.public, proves);
        let public = client.is_public(image.host(), image.repository(), &resolved.digest).await.unwrap();
        assert_eq!(public == Publicity::Proved, proves);
    }
}

async fn pull(folder: &Path, manifest: &str) -> (i32, String) {
    fs::write(folder.join("cache.yaml"), manifest).unwrap();
    let folder = folder.to_owned();
    let args = ["pull", "-f", "cache.yaml", "--platform", "linux/amd64", "--volume", "vol"];
    let output = tokio::task::spawn_blocking(move || {
        Command::new(env!("CARGO_BIN_EXE_imagecache")).args(args).current_dir(folder).output().unwrap()
    });
    let output = output.await.unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

fn manifest(image: &str, annotations: &[(&str, String)]) -> String {
    let lines: Vec<String> =
        annotations.iter().map(|(key, value)| format!("    {key}: '{value}'\n")).collect();
    let lines = lines.concat();
    format!(
        "apiVersion: eci.alibabacloud.com/v1\nkind: ImageCache\nmetadata:\n  name: shop\n  annotations:\n    a: b\n\
         {lines}spec:\n  images: [\"{image}\"]\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn by_hand_each_dialect_makes_the_pull_that_fails_without_it_succeed() {
    let plain = Registry::start().await;
    let secure = Registry::start_tls(&[NAME]).await;
    for registry in [&plain, &secure] {
        registry.image("app", "1", "linux/amd64", &[b"layer"]);
    }
    let (http, https) = (plain.address.port(), secure.address.port());
    let eci_hosts = ("k8s.aliyun.com/eci-custom-hosts", format!(r#"[{{"host":"{NAME}","ip":"127.0.0.1"}}]"#));
    let kci_hosts =
        ("k8s.ksyun.com/kci-host-aliases", format!(r#"[{{"ip":"127.0.0.1","hostnames":["{NAME}"]}}]"#));
    let loopback = format!("127.0.0.1:{http}");
    let rows = [
        (
            format!("{NAME}:{http}/app:1"),
            vec![("k8s.aliyun.com/plain-http-registry", format!("{NAME}:{http}")), eci_hosts.clone()],
            1,
            11,
        ),
        (
            format!("{NAME}:{http}/app:1"),
            vec![("k8s.ksyun.com/kci-http-registry", format!("{NAME}:{http}")), kci_hosts.clone()],
            1,
            11,
        ),
        (format!("{loopback}/app:1"), vec![("k8s.aliyun.com/plain-http-registry", loopback.clone())], 0, 24),
        (
            format!("{loopback}/app:1"),
            vec![("eks.tke.cloud.tencent.com/registry-http-endpoint", "all".to_owned())],
            0,
            24,
        ),
        (
            format!("{NAME}:{https}/app:1"),
            vec![kci_hosts.clone(), ("k8s.ksyun.com/kci-insecure-registry", format!("{NAME}:{https}"))],
            1,
            25,
        ),
        (
            format!("{NAME}:{https}/app:1"),
            vec![
                eci_hosts.clone(),
                ("eks.tke.cloud.tencent.com/registry-insecure-skip-verify", "all".to_owned()),
            ],
            1,
            25,
        ),
    ];
    // At one time: a name that is not found is looked up again for some seconds.
    let all = rows.map(|(image, given, without, class)| async move {
        let folder = tempfile::tempdir().unwrap();
        let (status, err) = pull(folder.path(), &manifest(&image, &given[..without])).await;
        assert_eq!(status, class, "{image} without {:?}: {err}", given[without..].first());
        let (status, err) = pull(folder.path(), &manifest(&image, &given)).await;
        assert_eq!(status, 0, "{given:?}: {err}");
    });
    futures::future::join_all(all).await;
}
