use imagecache::registry::manifest::Document;

use super::*;
use crate::upstream::Fault;

const SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";

#[tokio::test]
async fn a_tag_costs_one_head_that_offers_every_type() {
    let registry = Registry::start().await;
    let image = registry.image("team/app", "1", "linux/amd64", &[b"layer"]);
    let resolved = client(&registry).resolve(&registry.reference("team/app:1")).await.unwrap();
    assert_eq!((&resolved.digest, resolved.size), (&image.digest, image.bytes.len() as u64));
    assert_eq!((resolved.media_type.as_str(), resolved.body), (upstream::MANIFEST, None));
    assert_eq!(registry.lines(), ["HEAD /v2/team/app/manifests/1"]);
    let seen = &registry.seen()[0];
    for kind in ["image.manifest.v1", "image.index.v1", "manifest.v2", "manifest.list.v2"] {
        assert!(seen.header("accept").unwrap().contains(kind), "{kind}");
    }
    assert!(seen.header("user-agent").unwrap().starts_with("imagecache/"));
    assert_eq!(seen.header("authorization"), None);
}

#[tokio::test]
async fn a_head_that_says_too_little_is_followed_by_a_get_and_the_bytes_decide() {
    for fault in [
        Fault::Header("docker-content-digest", String::new()),
        Fault::Header("content-type", "application/octet-stream".into()),
        Fault::NoHead,
        Fault::status(404),
        Fault::status(403),
    ] {
        let registry = Registry::start().await;
        let image = registry.image("team/app", "1", "linux/amd64", &[b"layer"]);
        registry.script("HEAD", 1, fault.clone());
        let resolved = client(&registry).resolve(&registry.reference("team/app:1")).await.unwrap();
        assert_eq!(resolved.digest, image.digest, "{fault:?}");
        assert_eq!(resolved.body, Some(image.bytes));
        assert_eq!(resolved.media_type, upstream::MANIFEST);
        assert_eq!(registry.lines().len(), 2);
    }
}

#[tokio::test]
async fn what_is_not_there_is_named_as_tag_or_as_repository() {
    let registry = Registry::start().await;
    registry.image("team/app", "1", "linux/amd64", &[b"layer"]);
    let client = client(&registry);
    let tag = client.resolve(&registry.reference("team/app:nope")).await.unwrap_err();
    is(&tag, Class::NotFound, &["team/app:nope", "no such tag", "404 MANIFEST_UNKNOWN"]);
    let repository = client.resolve(&registry.reference("team/other:1")).await.unwrap_err();
    is(&repository, Class::NotFound, &["team/other:1", "does not know the repository", "404 NAME_UNKNOWN"]);
}

#[tokio::test]
async fn a_digest_in_the_answer_must_be_that_of_the_bytes() {
    let registry = Registry::start().await;
    let image = registry.image("team/app", "1", "linux/amd64", &[b"layer"]);
    let other = Digest::sha256(b"other").to_string();
    registry.always("manifests", Fault::Header("docker-content-digest", other));
    let client = client(&registry);
    let by_digest = registry.reference(&format!("team/app@{}", image.digest));
    is(&client.resolve(&by_digest).await.unwrap_err(), Class::BadContent, &["digest"]);
    let got = client.manifest(&registry.host(), "team/app", &image.digest, None).await;
    is(&got.unwrap_err(), Class::BadContent, &["digest"]);
}

#[tokio::test]
async fn a_tag_that_only_get_answers_must_match_the_digest_it_claims() {
    let registry = Registry::start().await;
    registry.image("team/app", "1", "linux/amd64", &[b"layer"]);
    registry.always("HEAD", Fault::NoHead);
    registry.always("GET", Fault::Header("docker-content-digest", Digest::sha256(b"x").to_string()));
    let got = client(&registry).resolve(&registry.reference("team/app:1")).await;
    is(&got.unwrap_err(), Class::BadContent, &["digest"]);
}

#[tokio::test]
async fn wrong_bytes_and_wrong_sizes_of_a_manifest_are_refused() {
    let registry = Registry::start().await;
    let image = registry.image("team/app", "1", "linux/amd64", &[b"layer"]);
    let client = client(&registry);
    let get = async |size| client.manifest(&registry.host(), "team/app", &image.digest, size).await;
    let length = image.bytes.len() as u64;
    let raw = get(Some(length)).await.unwrap();
    assert_eq!((raw.bytes.clone(), &raw.digest), (image.bytes.clone(), &image.digest));
    assert!(matches!(raw.parse().unwrap(), Document::Image { layers, .. } if layers.len() == 1));
    is(&get(Some(length + 1)).await.unwrap_err(), Class::BadContent, &["promised"]);
    for fault in [
        Fault::WrongBytes,
        Fault::Longer(1),
        Fault::Shorter(1),
        Fault::Header("content-encoding", "gzip".into()),
        Fault::Header("docker-content-digest", "md5:1".into()),
    ] {
        registry.script("GET", 1, fault);
        is(&get(None).await.unwrap_err(), Class::BadContent, &["team/app@sha256:"]);
    }
}

#[tokio::test]
async fn an_endless_manifest_is_cut_at_the_limit_while_it_is_read() {
    let registry = Registry::start().await;
    let image = registry.image("team/app", "1", "linux/amd64", &[b"layer"]);
    registry.always("GET", Fault::Longer(5 * 1024 * 1024));
    let got = client(&registry).manifest(&registry.host(), "team/app", &image.digest, None).await;
    is(&got.unwrap_err(), Class::BadContent, &["longer than 4194304 bytes"]);
}

#[tokio::test]
async fn schema_1_is_refused_with_what_to_do() {
    let registry = Registry::start().await;
    registry.put_manifest("team/old", Some("1"), SCHEMA1, r#"{"schemaVersion":1,"fsLayers":[]}"#);
    let got = client(&registry).resolve(&registry.reference("team/old:1")).await;
    is(&got.unwrap_err(), Class::Unsupported, &["schema 1", "push the image again"]);
}

#[tokio::test]
async fn an_index_is_read_with_its_platforms() {
    let registry = Registry::start().await;
    let amd = registry.image("team/app", "", "linux/amd64", &[b"amd"]);
    let arm = registry.image("team/app", "", "linux/arm64", &[b"arm"]);
    let digest = registry.index("team/app", "1", &[("linux/amd64", &amd), ("linux/arm64", &arm)], true);
    let client = client(&registry);
    let resolved = client.resolve(&registry.reference("team/app:1")).await.unwrap();
    assert_eq!((&resolved.digest, resolved.media_type.as_str()), (&digest, upstream::INDEX));
    let raw = client.manifest(&registry.host(), "team/app", &digest, Some(resolved.size)).await.unwrap();
    let Document::Index { children, .. } = raw.parse().unwrap() else { panic!() };
    let chosen = imagecache::registry::choose(&children, &"linux/arm64".parse().unwrap()).unwrap();
    assert_eq!(chosen.digest, arm.digest);
    assert_eq!(children.iter().filter(|c| c.attestation).count(), 1);
}

#[tokio::test]
async fn server_errors_are_tried_again_five_times_in_all() {
    for status in [408, 500, 502, 503, 504] {
        let registry = Registry::start().await;
        registry.image("team/app", "1", "linux/amd64", &[b"layer"]);
        registry.script("manifests", 3, Fault::status(status));
        client(&registry).resolve(&registry.reference("team/app:1")).await.unwrap();
    }
    let registry = Registry::start().await;
    registry.always("manifests", Fault::Status(503, vec![], r#"{"errors":[{"code":"UNAVAILABLE"}]}"#));
    let got = client(&registry).resolve(&registry.reference("team/app:1")).await;
    is(&got.unwrap_err(), Class::ServerError, &["503"]);
    assert_eq!(registry.lines().len(), 5);
}

#[tokio::test]
async fn too_many_requests_is_told_with_what_remains() {
    let registry = Registry::start().await;
    let headers = vec![("retry-after", "3600".to_owned()), ("ratelimit-remaining", "0;w=21600".to_owned())];
    registry.always("manifests", Fault::Status(429, headers, "s3cret"));
    let got = client(&registry).resolve(&registry.reference("team/app:1")).await;
    is(&got.unwrap_err(), Class::RateLimited, &["too many requests", "0;w=21600", "429"]);
    assert_eq!(registry.lines().len(), 5);
}

#[tokio::test]
async fn other_client_errors_are_not_tried_again_and_never_show_the_body() {
    let registry = Registry::start().await;
    registry.always("manifests", Fault::Status(400, vec![], "s3cret \u{1b}[31m"));
    let got = client(&registry).resolve(&registry.reference("team/app:1")).await;
    is(&got.unwrap_err(), Class::Unsupported, &["400"]);
    assert_eq!(registry.lines(), ["HEAD /v2/team/app/manifests/1", "GET /v2/team/app/manifests/1"]);
}

#[tokio::test]
async fn warnings_are_kept_once_and_never_acted_upon() {
    let registry = Registry::start().await;
    registry.image("team/app", "1", "linux/amd64", &[b"layer"]);
    registry.always("manifests", Fault::Header("warning", r#"299 - "this tag goes away""#.into()));
    let client = client(&registry);
    for _ in 0..2 {
        client.resolve(&registry.reference("team/app:1")).await.unwrap();
    }
    assert_eq!(client.notices(), [format!("{} says: this tag goes away", registry.address)]);
}
