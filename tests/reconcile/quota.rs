//! At the operator's quotas new caches wait, and go on when there is room.

use imagecache::model::settings::Settings;
use kube::runtime::watcher::Event;
use serde_json::json;

use super::{CACHES, JOBS, UID, World, spec};

const OTHER: &str = "8f14e45f-ceea-467f-a0e6-000000000002";

/// One cache with 3 GiB, and a new one that was looked at twice.
async fn world(settings: Settings) -> World {
    let mut world = World::with(settings);
    world.apply("there", OTHER, &spec());
    let mut object = world.server.get(&format!("{CACHES}/there")).unwrap();
    object["status"]["size"] = json!(3_u64 << 30);
    object["status"]["ledger"] = json!({"run": 1, "storeId": "s1", "answered": true,
        "root": {"run": 1, "digest": "sha256:x", "at": "2026-01-01T00:00:00Z"}});
    world.server.put(&format!("{CACHES}/there"), object);
    world.see_cache("there");
    world.apply("new", UID, &spec());
    for _ in 0..2 {
        world.pass("new").await.unwrap();
        world.see_cache("new");
    }
    world
}

fn job(world: &World) -> bool {
    world.server.get(&format!("{JOBS}/{}", super::job(1))).is_some()
}

#[tokio::test]
async fn a_new_cache_waits_with_the_numbers_until_another_one_goes() {
    for (settings, message) in [
        (Settings { max_caches: Some(1), ..Settings::default() }, "1 of 1 caches are there (--max-caches)"),
        (
            Settings { max_store_bytes: Some(2 << 30), ..Settings::default() },
            "the store holds 3.0 GiB of 2.0 GiB (--max-store-bytes)",
        ),
    ] {
        let mut world = world(settings).await;
        let status = world.status("new");
        assert_eq!((&status["phase"], &status["reason"]), (&json!("Pending"), &json!("Queued")));
        let said = status["conditions"][0]["message"].as_str().unwrap();
        assert!(said.contains(message), "{said}");
        assert!(!job(&world));
        let gone = world.server.get(&format!("{CACHES}/there")).unwrap();
        world.caches.apply_watcher_event(&Event::Delete(serde_json::from_value(gone).unwrap()));
        world.pass("new").await.unwrap();
        assert!(job(&world), "{message}");
    }
}

#[tokio::test]
async fn where_there_is_room_nobody_waits() {
    let settings = Settings { max_caches: Some(2), max_store_bytes: Some(4 << 30), ..Settings::default() };
    assert!(job(&world(settings).await));
}
