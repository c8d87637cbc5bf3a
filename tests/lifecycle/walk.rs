//! Random walks of one object's life, as a GitOps repository and a bad week make it: declarative edits, refreshes,
//! deletions, re-creations under the same name, failures of everything. After each settling the state is that of a
//! fresh create of the same manifest. `IMAGECACHE_WALK_SEED` walks one seed again, `IMAGECACHE_WALKS` many.

use std::{env, panic, time::Duration};

use imagecache::{
    api::{ImageCache, ImageCacheStatus, image_cache::Ledger, keys},
    model::{class::Class, facts::SecretState},
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};

use crate::world::{World, cache, tracked};

const STEPS: usize = 500;
const WALKS: u64 = 6;
const MAY_BE_WRONG: [&str; 3] =
    ["k8s.aliyun.com/vswitch-ids", "k8s.aliyun.com/imc-enable-reuse", "k8s.aliyun.com/imc-size"];

/// Without times, run numbers, and what only remembers earlier times: history, and digests that were replaced.
pub(crate) fn masked(status: &ImageCacheStatus) -> ImageCacheStatus {
    let some = |time: &Option<Time>| time.as_ref().map(|_| Time(Timestamp::UNIX_EPOCH));
    let mut status = status.clone();
    let ledger = status.ledger.unwrap_or_default();
    let kept = status.expire_date_time.as_ref().zip(ledger.ready_at.as_ref());
    // Retention is compared, whenever it began.
    let length = kept.map(|(end, start)| end.0.duration_since(start.0));
    status.expire_date_time = length.map(|length| Time(Timestamp::UNIX_EPOCH.checked_add(length).unwrap()));
    status.start_time = some(&status.start_time);
    status.last_updated_time = some(&status.last_updated_time);
    status.observed_generation = None;
    status.image_cache_id = status.image_cache_id.map(|_| String::new());
    status.events.clear();
    for condition in &mut status.conditions {
        condition.last_transition_time = Time(Timestamp::UNIX_EPOCH);
        condition.observed_generation = None;
    }
    for image in &mut status.images {
        image.resolved = some(&image.resolved);
        image.previous.clear();
    }
    let root = ledger.root.map(|mut root| {
        (root.run, root.at, root.digest) = (0, Time(Timestamp::UNIX_EPOCH), String::new());
        (root.resolved, root.proved) = (some(&root.resolved), some(&root.proved));
        (root.taken_back, root.mirror_store_id) = (None, None);
        root
    });
    let inputs_hash = ledger.inputs_hash.split('.').next().unwrap_or_default().to_owned();
    let ready_at = some(&ledger.ready_at);
    let (run, asked, secrets, lost) = (0, 0, String::new(), None);
    status.ledger = Some(Ledger { run, asked, secrets, lost, inputs_hash, root, ready_at, ..ledger });
    status
}

/// What is applied: the manifest in the repository.
#[derive(Clone)]
struct Manifest(ImageCache);

impl Manifest {
    fn new() -> Self {
        let mut object = cache(&["nginx:1"]);
        object.spec.image_pull_secrets = vec!["default:key".into()];
        Self(object)
    }

    fn change(&mut self, rng: &mut StdRng) {
        let object = &mut self.0;
        match rng.random_range(0..9) {
            0..=2 => {
                let pinned = format!("postgres@sha256:{}", "b".repeat(64));
                let pool = ["nginx:1", "nginx:2", "redis:7", "r.example.com/app:1", "gone:1", &pinned];
                let n = rng.random_range(1..=3);
                object.spec.images = pool.choose_multiple(rng, n).map(|&image| image.to_owned()).collect();
            }
            3 => object.spec.retention_days = *[None, Some(1), Some(30)].choose(rng).unwrap(),
            4 => object.spec.image_cache_size = *[None, Some(30)].choose(rng).unwrap(),
            5 => {
                let every = [None, Some("1h".to_owned()), Some("7d".to_owned())];
                object.spec.refresh_interval.clone_from(every.choose(rng).unwrap());
            }
            6 => {
                let value = rng.random_range(0..1000).to_string();
                self.annotate(keys::REFRESH, rng.random_bool(0.8).then_some(value));
            }
            7 => {
                let value = rng.random_bool(0.5).then(|| "docker.io".to_owned());
                self.annotate("k8s.aliyun.com/insecure-registry", value);
            }
            _ => {
                let key = *MAY_BE_WRONG.choose(rng).unwrap();
                let value = *["vsw-1", "false", "40"].choose(rng).unwrap();
                // Some do not fit: then the object is invalid.
                self.annotate(key, rng.random_bool(0.6).then(|| value.to_owned()));
            }
        }
    }

    fn annotate(&mut self, key: &str, value: Option<String>) {
        let annotations = self.0.metadata.annotations.get_or_insert_default();
        match value {
            Some(value) => annotations.insert(key.to_owned(), value),
            None => annotations.remove(key),
        };
    }

    /// Server-side apply: nothing happens if nothing is new; what was deleted is made again.
    fn apply(&self, world: &mut World, last: &mut ImageCache) {
        if world.object.is_none() {
            world.recreate(ImageCache { metadata: last.metadata.clone(), ..self.0.clone() });
            last.metadata.clone_from(&world.object.as_ref().unwrap().metadata);
        }
        let (spec, annotations) = (self.0.spec.clone(), self.0.metadata.annotations.clone());
        let there = world.object.as_ref().unwrap();
        if there.spec != spec || there.metadata.annotations != annotations {
            world.edit(|object| (object.spec, object.metadata.annotations) = (spec, annotations));
        }
    }
}

fn trouble(world: &mut World, rng: &mut StdRng) {
    match rng.random_range(0..12) {
        0..=2 => world.upstream = rng.random_bool(0.6).then(|| *Class::ALL.choose(rng).unwrap()),
        3 => world.secret = SecretState::Missing,
        4 => {
            world.secret =
                SecretState::Found { uid: "s".into(), resource_version: rng.random_range(1..9).to_string() }
        }
        5 => world.busy = rng.random_range(0..6),
        6 => world.broken.extend(world.roots.last().copied()),
        7 if rng.random_bool(0.2) => world.store_is_replaced(),
        8 => world.mirror = rng.random_bool(0.7),
        9 => world.jobs.clear(),
        10 => {
            let by = SignedDuration::from_hours(rng.random_range(-48..48));
            world.now = world.now.checked_add(by).unwrap();
            world.ahead = world.ahead.checked_add(by).unwrap();
        }
        11 if rng.random_bool(0.2) => world.edit(|object| object.status = None),
        _ => {}
    }
}

/// One step of the cluster: controller, workers, time.
fn go_on(world: &mut World, rng: &mut StdRng) {
    match rng.random_range(0..10) {
        5 => {
            if let Some((judged, facts)) = world.look() {
                let plan = world.plan().unwrap();
                world.apply(&judged, &facts, plan, rng.random_range(0..4));
            }
        }
        6 => world.pulls(rng.random_range(1..100)),
        7 => world.job_ends(rng.random_bool(0.2)),
        8 => world.pass(Duration::from_secs(*[1, 30, 301, 3601, 90_000].choose(rng).unwrap())),
        _ => _ = world.reconcile(),
    }
}

/// All trouble ends; what is still there of objects that are gone is collected, as Kubernetes does.
fn settle(world: &mut World, manifest: &mut Manifest, last: &mut ImageCache, step: usize) {
    world.ahead = SignedDuration::ZERO;
    world.mirror = true;
    for again in 0..5 {
        manifest.apply(world, last);
        world.settle();
        let gone = world.object.is_none();
        if !gone && world.phase() != "Expired" && !world.tags_moved {
            break;
        }
        // It may have ended while something was waited for; and what nobody asks about is not looked up again.
        if !gone {
            manifest.annotate(keys::REFRESH, Some(format!("settled-{step}-{again}")));
            world.tags_moved = false;
        }
    }
    world.tags_moved = false;
    world.jobs.retain(|job| Some(job.request.cache.as_str()) == last.metadata.uid.as_deref());
}

fn fresh(world: &World) -> World {
    let object = world.object.as_ref().unwrap();
    let mut fresh = World::new(ImageCache { status: cache(&[]).status, ..object.clone() });
    (fresh.now, fresh.public, fresh.tags, fresh.store) =
        (world.now, world.public, world.tags.clone(), world.store.clone());
    fresh.settle();
    fresh
}

fn walk(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut manifest = Manifest::new();
    if rng.random_bool(0.5) {
        tracked(&mut manifest.0);
    }
    let mut world = World::new(manifest.0.clone());
    world.public = rng.random_bool(0.5);
    let mut last = manifest.0.clone();
    let mut settled = 0;
    for step in 0..STEPS {
        match rng.random_range(0..20) {
            0..=2 => {
                manifest.change(&mut rng);
                manifest.apply(&mut world, &mut last);
            }
            3 => {
                world.push(
                    ["docker.io/library/nginx:1", "docker.io/library/redis:7"].choose(&mut rng).unwrap(),
                );
                world.tags_moved = true;
            }
            4 if rng.random_bool(0.3) => world.object = None,
            5..=7 => trouble(&mut world, &mut rng),
            8 => {
                settle(&mut world, &mut manifest, &mut last, step);
                if world.condition("Ready").1 == "InvalidSpec" {
                    assert_eq!(fresh(&world).condition("Ready").1, "InvalidSpec");
                    for key in MAY_BE_WRONG {
                        manifest.annotate(key, None);
                    }
                    settle(&mut world, &mut manifest, &mut last, step);
                }
                let fresh = fresh(&world);
                assert_eq!(world.phase(), "Ready", "step {step}");
                assert_eq!(masked(&world.status()), masked(&fresh.status()), "step {step}");
                assert!(world.jobs.is_empty(), "step {step}: {} Jobs are left", world.jobs.len());
                let plan = world.plan().unwrap();
                assert_eq!((plan.actions, plan.status), (vec![], world.status()), "step {step}");
                settled += 1;
            }
            _ => go_on(&mut world, &mut rng),
        }
        if let Some(object) = &world.object {
            last.metadata.clone_from(&object.metadata);
        }
        let live = world
            .jobs
            .iter()
            .filter(|job| job.request.cache.as_str() == last.metadata.uid.as_deref().unwrap());
        assert!(live.filter(|job| !job.fact.deleting).count() <= 1, "step {step}: two live Jobs");
    }
    assert!(settled > 3, "{settled} settlings");
}

#[test]
fn after_whatever_happened_a_cache_is_as_if_it_had_just_been_made() {
    let number = |name: &str| env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seeds: Vec<u64> = match number("IMAGECACHE_WALK_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("IMAGECACHE_WALKS").unwrap_or(WALKS)).map(|_| rand::random()).collect(),
    };
    for seed in seeds {
        if let Err(why) = panic::catch_unwind(|| walk(seed)) {
            eprintln!("the walk of IMAGECACHE_WALK_SEED={seed} failed");
            panic::resume_unwind(why);
        }
    }
}
