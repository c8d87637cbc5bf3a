//! When a pull Job is made, and when not.

use std::sync::Arc;

use imagecache::{
    cluster::{Cluster, Why},
    controller::reconcile::Context,
    model::settings::Settings,
};
use kube::runtime::reflector::store::Writer;
use serde_json::json;

use super::{CACHES, JOBS, UID, World, job, spec, writes};

#[tokio::test]
async fn no_job_is_made_for_an_object_that_the_watch_shows_too_late() {
    let mut world = World::new();
    world.apply("shop", UID, &spec());
    world.pass("shop").await.unwrap();
    world.see_cache("shop");
    // The run is over, and nothing of that is seen yet: the plan would make its Job again, with the same status.
    let mut object = world.server.get(&format!("{CACHES}/shop")).unwrap();
    object["status"]["ledger"]["open"] = json!(false);
    world.server.put(&format!("{CACHES}/shop"), object);
    world.server.requests();
    assert_eq!(world.pass("shop").await.unwrap_err().why, Why::Conflict);
    assert!(!world.server.requests().iter().any(|line| line.starts_with("POST")));
}

#[tokio::test]
async fn who_waits_for_a_slot_is_not_asked_about_at_every_pass() {
    let mut world = World::with(Settings { max_jobs: 0, ..Settings::default() });
    world.apply("shop", UID, &spec());
    for _ in 0..3 {
        world.pass("shop").await.unwrap();
        world.see_cache("shop");
    }
    assert_eq!(world.status("shop")["reason"], "Queued");
    world.server.requests();
    world.pass("shop").await.unwrap();
    assert_eq!(world.server.requests(), Vec::<String>::new());
}

#[tokio::test]
async fn a_job_that_is_refused_gives_its_slot_back() {
    let mut world = World::with(Settings { max_jobs: 1, ..Settings::default() });
    world.apply("a", UID, &spec());
    world.pass("a").await.unwrap();
    world.see_cache("a");
    let refusal = ("POST jobs".to_owned(), http::StatusCode::FORBIDDEN);
    world.server.with(|state| state.refuse = Some(refusal));
    for _ in 0..2 {
        assert!(matches!(world.pass("a").await.unwrap_err().why, Why::Forbidden(_)));
        world.see_cache("a");
    }
    let message = world.status("a")["conditions"][0]["message"].as_str().unwrap().to_owned();
    assert!(
        message.contains("create job") && message.contains("not allowed"),
        "its owner is told: {message}"
    );
    world.server.with(|state| state.refuse = None);
    world.pass("a").await.unwrap();
    world.see_cache("a");
    world.see_job(&job(1));
    world.pass("a").await.unwrap();
    assert_eq!(world.status("a")["conditions"][0]["message"], "the pull starts");
    assert!(world.server.get(&format!("{JOBS}/{}", job(1))).is_some());
}

#[tokio::test]
async fn two_caches_that_are_looked_at_together_do_not_share_the_last_slot() {
    let mut world = World::with(Settings { max_jobs: 1, ..Settings::default() });
    let other = "9f14e45f-ceea-467f-a0e6-1c2b3d4e5f60";
    world.apply("a", UID, &spec());
    world.apply("b", other, &spec());
    for name in ["a", "b"] {
        world.pass(name).await.unwrap();
        // Retries: among first tries the older one would go first anyway.
        let mut object = world.server.get(&format!("{CACHES}/{name}")).unwrap();
        let at = "2026-01-01T00:00:00Z";
        object["status"]["ledger"]["failure"] =
            json!({"run": 0, "first": at, "last": at, "attempts": 1, "class": "Network"});
        world.server.put(&format!("{CACHES}/{name}"), object);
        world.see_cache(name);
    }
    world.server.requests();
    let both = futures::join!(world.pass("a"), world.pass("b"));
    assert_eq!(both, (Ok(()), Ok(())));
    let made = world.server.requests().into_iter().filter(|line| line.starts_with("POST jobs")).count();
    assert_eq!(made, 1);
}

#[tokio::test]
async fn a_job_that_the_watch_does_not_show_yet_is_not_made_again() {
    let (world, name) = World::pulling(&spec()).await;
    let made = world.server.get(&format!("{JOBS}/{name}")).unwrap();
    let blind = World { jobs: Writer::default(), ..world };
    let mut stores = blind.context.cluster.stores.clone();
    stores.jobs = blind.jobs.as_reader();
    let cluster = Cluster { stores, ..blind.context.cluster.clone() };
    let context = Context::new(cluster, Settings::default(), Arc::default());
    let blind = World { context: Arc::new(context), ..blind };
    blind.pass("shop").await.unwrap();
    assert_eq!(writes(&blind.server.requests()), Vec::<&str>::new());
    assert_eq!(blind.server.get(&format!("{JOBS}/{name}")), Some(made));
}
