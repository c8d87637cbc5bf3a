//! What ends: by both clocks, as exactly what was looked at, and not all at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use imagecache::cluster::Why;
use serde_json::json;
use tokio::time::Instant;

use super::{CACHES, UID, World};

/// A cache whose retention ended long ago, by any clock that is not behind.
async fn expired(world: &mut World, name: &str, uid: &str) {
    world.apply(name, uid, &json!({"images": ["reg.example.com/team/app:1"], "retentionDays": 1}));
    world.pass(name).await.unwrap();
    let mut object = world.server.get(&format!("{CACHES}/{name}")).unwrap();
    let ledger = &mut object["status"]["ledger"];
    ledger["open"] = json!(false);
    ledger["answered"] = json!(true);
    ledger["readyAt"] = json!("2020-01-01T00:00:00Z");
    ledger["root"] = json!({"run": 1, "digest": "sha256:x", "at": "2020-01-01T00:00:00Z"});
    world.server.put(&format!("{CACHES}/{name}"), object);
    world.see_cache(name);
}

#[tokio::test(start_paused = true)]
async fn an_expired_cache_goes_only_when_the_servers_clock_agrees() {
    let mut world = World::new();
    expired(&mut world, "shop", UID).await;
    world.server.requests();

    for _ in 0..3 {
        world.pass("shop").await.unwrap();
        world.see_cache("shop");
    }
    let asked = world.server.requests();
    assert!(asked.contains(&"GET imagecaches/shop".to_owned()), "{asked:?}");
    assert_eq!(
        asked.iter().filter(|line| line.starts_with("GET imagecaches")).count(),
        1,
        "once a minute: {asked:?}"
    );
    assert!(!asked.iter().any(|line| line.starts_with("DELETE")), "{asked:?}");
    assert_eq!(world.status("shop")["phase"], "Ready", "its content is not given up either");

    world.server.with(|state| state.date = "Thu, 02 Jan 2020 00:00:01 GMT".to_owned());
    tokio::time::advance(Duration::from_secs(61)).await;
    world.pass("shop").await.unwrap();
    assert_eq!(world.server.get(&format!("{CACHES}/shop")), None);
    let told = world.server.requests();
    let place = |begins: &str| told.iter().position(|line| line.starts_with(begins)).unwrap();
    assert!(place("DELETE imagecaches/shop") < place("POST events/"), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_server_whose_clock_goes_back_at_the_last_moment_keeps_the_cache() {
    let mut world = World::new();
    expired(&mut world, "shop", UID).await;
    world.server.with(|state| state.date = "Thu, 02 Jan 2020 00:00:01 GMT".to_owned());
    world.context.cluster.server_clock.set("2020-01-02T00:00:01Z".parse().unwrap());
    world.server.with(|state| state.date = "Wed, 01 Jan 2020 00:00:01 GMT".to_owned());
    assert_eq!(world.pass("shop").await.unwrap_err().why, Why::NotDue);
    assert!(world.server.get(&format!("{CACHES}/shop")).is_some());
}

#[tokio::test(start_paused = true)]
async fn thousands_that_expire_together_are_deleted_a_few_a_second() {
    const ALL: usize = 2000;
    let mut world = World::new();
    for i in 0..ALL {
        expired(&mut world, &format!("c{i}"), &format!("{i:08x}-ceea-467f-a0e6-1c2b3d4e5f60")).await;
    }
    world.server.with(|state| state.date = "Thu, 01 Jan 2026 00:00:00 GMT".to_owned());
    world.server.requests();
    let start = Instant::now();
    let mut due: BTreeSet<(Duration, usize)> = (0..ALL).map(|i| (Duration::ZERO, i)).collect();
    let mut deleted: BTreeMap<u64, usize> = BTreeMap::new();
    let mut passes = 0;
    while let Some((at, i)) = due.pop_first() {
        tokio::time::advance(at.saturating_sub(start.elapsed())).await;
        let name = format!("c{i}");
        passes += 1;
        match world.pass(&name).await {
            Ok(()) => {
                assert_eq!(world.server.get(&format!("{CACHES}/{name}")), None);
                *deleted.entry(start.elapsed().as_secs()).or_default() += 1;
            }
            Err(error) => {
                let Why::NotItsTurn(wait) = error.why else { panic!("{error}") };
                due.insert((start.elapsed() + wait, i));
            }
        }
    }
    assert_eq!(deleted.values().sum::<usize>(), ALL);
    assert!(deleted.values().all(|n| *n <= 6), "{deleted:?}");
    assert!(deleted.len() >= ALL / 6, "{} seconds", deleted.len());
    assert!(passes < 2 * ALL + 10, "{passes} passes: who waits comes back when its turn has come");
}
