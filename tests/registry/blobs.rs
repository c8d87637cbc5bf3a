use super::*;
use crate::upstream::Fault;

const SIZE: usize = 300_000;

async fn with_blob() -> (Registry, Client, Digest, Vec<u8>) {
    let registry = Registry::start().await;
    let bytes = noise(SIZE);
    let digest = registry.put_blob("team/app", bytes.clone());
    let client = client(&registry);
    (registry, client, digest, bytes)
}

fn ranges(registry: &Registry) -> Vec<Option<String>> {
    registry.seen().iter().map(|s| s.header("range").map(str::to_owned)).collect()
}

#[tokio::test]
async fn a_blob_comes_whole_and_unencoded() {
    let (registry, client, digest, bytes) = with_blob().await;
    assert_eq!(read(&client, &registry, &digest, SIZE, 0).await.unwrap(), bytes);
    assert_eq!(registry.seen()[0].header("accept-encoding"), Some("identity"));
    assert_eq!(ranges(&registry), [None]);
}

#[tokio::test]
async fn a_blob_goes_on_where_an_earlier_attempt_ended_with_a_closed_range() {
    let (registry, client, digest, bytes) = with_blob().await;
    assert_eq!(read(&client, &registry, &digest, SIZE, 1000).await.unwrap(), bytes[1000..]);
    assert_eq!(ranges(&registry), [Some(format!("bytes=1000-{}", SIZE - 1))]);
    assert_eq!(read(&client, &registry, &digest, SIZE, SIZE).await.unwrap(), b""[..]);
    assert_eq!(ranges(&registry).len(), 1);
    assert!(read(&client, &registry, &digest, SIZE, SIZE + 1).await.is_err());
}

#[tokio::test]
async fn a_break_is_resumed_from_the_last_byte() {
    let (registry, client, digest, bytes) = with_blob().await;
    registry.script("blobs", 1, Fault::Cut(100_000));
    registry.script("blobs", 1, Fault::Cut(50_000));
    assert_eq!(read(&client, &registry, &digest, SIZE, 0).await.unwrap(), bytes);
    let wanted =
        [None, Some(format!("bytes=100000-{}", SIZE - 1)), Some(format!("bytes=150000-{}", SIZE - 1))];
    assert_eq!(ranges(&registry), wanted);
}

#[tokio::test]
async fn breaks_are_forgiven_as_long_as_there_is_progress() {
    let (registry, client, digest, bytes) = with_blob().await;
    registry.script("blobs", 20, Fault::Cut(10_000));
    assert_eq!(read(&client, &registry, &digest, SIZE, 0).await.unwrap(), bytes);
    registry.forget();
    registry.always("blobs", Fault::Cut(100));
    let failure = read(&client, &registry, &digest, SIZE, 0).await.unwrap_err();
    is(&failure, Class::Network, &["team/app@sha256:", "broke"]);
    // 100 bytes a try: every tenth is progress of 1000, so the fifth in a row fails.
    assert_eq!(registry.lines().len(), 5);
}

#[tokio::test]
async fn a_stall_is_a_break() {
    let (registry, _, digest, bytes) = with_blob().await;
    let short = Limits { progress: Duration::from_millis(300), ..limits() };
    let client = Client::new(Config { limits: short, ..config(&[&registry]) }).unwrap();
    registry.script("blobs", 1, Fault::Stall(100_000));
    assert_eq!(read(&client, &registry, &digest, SIZE, 0).await.unwrap(), bytes);
    assert_eq!(registry.lines().len(), 2);
}

#[tokio::test]
async fn a_dribble_ends_although_every_single_read_makes_progress() {
    let (registry, _, digest, _) = with_blob().await;
    let slow = Limits { rate_window: Duration::from_millis(1500), tries: 2, ..limits() };
    let client = Client::new(Config { limits: slow, ..config(&[&registry]) }).unwrap();
    registry.always("blobs", Fault::Dribble);
    is(
        &read(&client, &registry, &digest, SIZE, 0).await.unwrap_err(),
        Class::Timeout,
        &["too slow", "i/o timeout"],
    );
}

#[tokio::test]
async fn a_registry_that_ignores_ranges_is_read_whole_and_the_known_part_skipped() {
    let (registry, client, digest, bytes) = with_blob().await;
    registry.script("blobs", 1, Fault::Cut(100_000));
    registry.always("blobs", Fault::IgnoreRange);
    assert_eq!(read(&client, &registry, &digest, SIZE, 0).await.unwrap(), bytes);
    assert_eq!(registry.lines().len(), 2);
}

#[tokio::test]
async fn a_wrong_content_range_is_never_spliced_in() {
    let (registry, client, digest, bytes) = with_blob().await;
    registry.script("blobs", 1, Fault::WrongContentRange);
    assert_eq!(read(&client, &registry, &digest, SIZE, 1000).await.unwrap(), bytes[1000..]);
    assert_eq!(ranges(&registry).last(), Some(&None));
}

#[tokio::test]
async fn never_more_and_never_fewer_bytes_than_promised() {
    let (registry, client, digest, _) = with_blob().await;
    for (fault, words) in [
        (Fault::Longer(1), "longer than the 300000 bytes"),
        (Fault::Longer(1_000_000), "longer than the 300000 bytes"),
        (Fault::Shorter(1), "299999 bytes, the manifest says 300000"),
    ] {
        registry.script("blobs", 1, fault);
        let failure = read(&client, &registry, &digest, SIZE, 0).await.unwrap_err();
        is(&failure, Class::BadContent, &["team/app@sha256:", words]);
    }
    let failure = read(&client, &registry, &digest, SIZE + 10, 0).await.unwrap_err();
    is(&failure, Class::BadContent, &["300000 bytes, the manifest says 300010"]);
    let failure = read(&client, &registry, &digest, SIZE + 10, SIZE + 5).await.unwrap_err();
    is(&failure, Class::BadContent, &["shorter", "416"]);
}

#[tokio::test]
async fn a_content_encoding_is_named_when_the_size_is_wrong() {
    let (registry, client, digest, _) = with_blob().await;
    registry.always("blobs", Fault::Header("content-encoding", "gzip".into()));
    let failure = read(&client, &registry, &digest, SIZE + 1, 0).await.unwrap_err();
    is(&failure, Class::BadContent, &["Content-Encoding gzip"]);
}

#[tokio::test]
async fn a_missing_blob_fails_before_the_first_byte() {
    let (registry, client, _, _) = with_blob().await;
    let missing = Digest::sha256(b"missing");
    let opened = client.blob(&registry.host(), "team/app", &missing, 5, 0).await;
    is(&opened.err().unwrap(), Class::NotFound, &["404 BLOB_UNKNOWN"]);
}

#[tokio::test]
async fn has_blob_says_what_a_head_says() {
    let (registry, client, digest, _) = with_blob().await;
    let host = registry.host();
    assert!(client.has_blob(&host, "team/app", &digest).await.unwrap());
    assert!(!client.has_blob(&host, "team/other", &digest).await.unwrap());
    registry.script("HEAD", 1, Fault::status(403));
    assert!(!client.has_blob(&host, "team/app", &digest).await.unwrap());
    registry.always("HEAD", Fault::status(503));
    is(&client.has_blob(&host, "team/app", &digest).await.unwrap_err(), Class::ServerError, &["503"]);
}

#[tokio::test]
async fn after_a_break_the_registry_is_asked_again_not_the_redirected_address() {
    let (registry, client, digest, bytes) = with_blob().await;
    let store = registry.url(&format!("/store/team/app/blobs/{digest}?signature=s3cret"));
    registry.always("/v2/team/app/blobs", Fault::Redirect(store));
    registry.script("/store/", 1, Fault::Cut(100_000));
    assert_eq!(read(&client, &registry, &digest, SIZE, 0).await.unwrap(), bytes);
    let asked = registry.lines().iter().filter(|l| l.starts_with("GET /v2/")).count();
    assert_eq!(asked, 2);
}

#[tokio::test]
async fn connections_are_used_again() {
    let (registry, client, digest, _) = with_blob().await;
    for _ in 0..5 {
        read(&client, &registry, &digest, SIZE, 0).await.unwrap();
    }
    assert_eq!(registry.connections(), 1);
}
