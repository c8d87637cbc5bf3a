//! Controllers that are killed, a worker that is deleted: the pull ends well, never with two Jobs at once, and what
//! is durable is not fetched again.

use std::collections::BTreeSet;

use crate::{
    kit::{cluster::eventually, kstatus::Status},
    world::{
        SYSTEM, World,
        image::{Blob, Image},
        plain_cache,
        registry::Registry,
        world,
    },
};

/// Small layers that are soon durable, and one that the gate stops.
struct Pull {
    name: &'static str,
    registry: Registry,
    image: Image,
}

const LARGE: usize = 48 << 20;
const HELD_AT: u64 = 8 << 20;

impl Pull {
    fn new(name: &'static str) -> Self {
        let registry = Registry::start(&format!("{name}.test"));
        let small = |i| Blob::named(&format!("{name}-{i}"), 300_000);
        let image = Image::of(vec![small(1), small(2), Blob::named(&format!("{name}-large"), LARGE)]);
        world().storage.put(&format!("{name}/app"), "1", &image);
        registry.gate.hold_after(HELD_AT);
        Self { name, registry, image }
    }

    fn apply(&self) {
        let image = self.registry.image(&format!("{}/app", self.name), "1");
        world().apply(&plain_cache(self.name, &[image]));
    }

    /// Until the small layers are durable and the large one is stuck in the middle.
    fn wait_until_in_the_middle(&self) {
        self.registry.gate.wait_until_held();
        for blob in self.image.layers.iter().filter(|blob| blob.bytes.len() < LARGE) {
            eventually("a durable layer", || world().is_durable(&blob.digest).then_some(()));
        }
    }

    fn status(&self) -> Status {
        world().wait_for(self.name, "an object", |_| true)
    }

    /// Ready, by so many runs, one after the other; small layers came over the wire once.
    fn check(&self, runs: i64) -> Status {
        let ready = world().wait_ready(self.name);
        assert_eq!(ready.number("/ledger/run"), runs, "{}: {:?}", self.name, ready.object["status"]);
        let jobs = world().jobs.of(ready.uid());
        assert!(jobs.most_live <= 1, "{}: two live Jobs: {jobs:?}", self.name);
        assert_eq!(i64::try_from(jobs.names.len()).unwrap(), runs, "{}: {jobs:?}", self.name);
        for blob in &self.image.layers {
            let fetches = self.registry.fetches(&blob.digest);
            if blob.bytes.len() < LARGE {
                assert_eq!(fetches, [(200, blob.size().unsigned_abs())], "{}: {}", self.name, blob.digest);
            }
        }
        self.check_events();
        ready
    }

    /// A fact is told once, also by a controller that was started again.
    fn check_events(&self) {
        let mine = format!("involvedObject.kind=ImageCache,involvedObject.name={}", self.name);
        let events = world().cluster.list(&["events", "-n", "default", "--field-selector", &mine]);
        let mut told = BTreeSet::new();
        for event in &events {
            let fact = (event["reason"].to_string(), event["message"].to_string());
            assert!(told.insert(fact), "told twice: {event}");
            assert!(event["series"]["count"].as_i64().unwrap_or(1) == 1, "told again: {event}");
        }
        assert!(!told.is_empty());
    }
}

fn worker_pods(world: &World, uid: &str) -> Vec<serde_json::Value> {
    let label = format!("imagecaches.eci.alibabacloud.com/cache-uid={uid}");
    world.cluster.list(&["pods", "-n", SYSTEM, "-l", &label])
}

#[test]
fn a_controller_killed_at_any_point_ends_what_it_began() {
    let world = world();
    let _alone = world.alone();

    // Before it can have done much.
    let early = Pull::new("killed-early");
    early.apply();
    world.kill_controllers();
    // When the Job was just made.
    let made = Pull::new("killed-job-made");
    made.apply();
    let uid = made.status().uid().to_owned();
    eventually("its Job", || (!world.jobs.of(&uid).names.is_empty()).then_some(()));
    world.kill_controllers();
    // While bytes move.
    let middle = Pull::new("killed-in-the-middle");
    middle.apply();
    middle.wait_until_in_the_middle();
    world.kill_controllers();

    for pull in [&early, &made, &middle] {
        pull.registry.gate.release();
        pull.check(1);
    }
}

#[test]
fn a_pull_that_ends_while_there_is_no_controller_is_credited_later() {
    let world = world();
    let _alone = world.alone();
    let pull = Pull::new("ended-unseen");
    pull.apply();
    pull.wait_until_in_the_middle();
    let uid = pull.status().uid().to_owned();
    world.stop_controllers();
    pull.registry.gate.release();
    eventually("the end of the worker", || {
        let pods = worker_pods(world, &uid);
        pods.iter().all(|pod| pod["status"]["phase"] == "Succeeded").then_some(())
    });
    world.start_controllers();
    pull.check(1);
}

#[test]
fn a_worker_that_is_deleted_is_followed_by_one_that_goes_on() {
    let world = world();
    let _shared = world.shared();
    let pull = Pull::new("worker-deleted");
    pull.apply();
    pull.wait_until_in_the_middle();
    let uid = pull.status().uid().to_owned();
    let pods = worker_pods(world, &uid);
    assert_eq!(pods.len(), 1);
    let pod = pods[0]["metadata"]["name"].as_str().unwrap();
    // It is told to stop, and is gone before the gate opens.
    world.cluster.run(&["delete", "pod", "-n", SYSTEM, pod, "--wait"]);
    pull.registry.gate.release();
    let ready = pull.check(2);
    assert!(ready.number("/images/0/reused") > 0, "{:?}", ready.object["status"]);
}
