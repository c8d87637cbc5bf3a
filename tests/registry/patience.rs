//! How long a registry is tried, and what ends it. On a clock that jumps: no test here takes the time it speaks of.

use tokio::time::Instant;

use super::*;
use crate::upstream::Fault;

const MIB: usize = 1 << 20;

fn patient(registry: &Registry) -> Client {
    Client::new(Config { limits: Limits::default(), ..config(&[registry]) }).unwrap()
}

#[tokio::test(start_paused = true)]
async fn only_what_may_pass_is_tried_again() {
    for (status, tries) in [
        (408, 5),
        (429, 5),
        (500, 5),
        (502, 5),
        (503, 5),
        (504, 5),
        (400, 1),
        (402, 1),
        (405, 1),
        (409, 1),
        (410, 1),
        (451, 1),
    ] {
        let registry = Registry::start().await;
        registry.always("blobs", Fault::status(status));
        let digest = Digest::sha256(b"x");
        read(&patient(&registry), &registry, &digest, 5, 0).await.unwrap_err();
        assert_eq!(registry.lines().len(), tries, "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_asks_for_a_pause_is_left_alone_by_every_connection() {
    for status in [429, 503] {
        let registry = Registry::start().await;
        let (one, other) =
            (registry.put_blob("team/app", noise(10)), registry.put_blob("team/app", noise(11)));
        let busy = Fault::Status(status, vec![("retry-after", "30".to_owned())], "");
        registry.script(&one.to_string(), 1, busy);
        let client = patient(&registry);
        let start = Instant::now();
        let later = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            read(&client, &registry, &other, 11, 0).await.unwrap();
            start.elapsed()
        };
        let (first, waited) = tokio::join!(read(&client, &registry, &one, 10, 0), later);
        first.unwrap();
        assert!((30..40).contains(&waited.as_secs()), "{status}: {waited:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_blob_that_moves_takes_as_long_as_it_takes() {
    let registry = Registry::start().await;
    let bytes = noise(4 * MIB);
    let digest = registry.put_blob("team/app", bytes.clone());
    registry.always("blobs", Fault::Drip(64 << 10, Duration::from_secs(7)));
    let start = Instant::now();
    let got = read(&patient(&registry), &registry, &digest, bytes.len(), 0).await.unwrap();
    assert!(got == bytes && start.elapsed() > Duration::from_mins(7));
    assert_eq!(registry.lines().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_dribble_below_the_least_rate_ends_although_it_adds_up_to_progress() {
    let registry = Registry::start().await;
    let digest = registry.put_blob("team/app", noise(16 * MIB));
    registry.always("blobs", Fault::Drip(64 << 10, Duration::from_secs(11)));
    let failure = read(&patient(&registry), &registry, &digest, 16 * MIB, 0).await.unwrap_err();
    is(&failure, Class::Timeout, &["too slow"]);
    assert_eq!(registry.lines().len(), 5);
}
