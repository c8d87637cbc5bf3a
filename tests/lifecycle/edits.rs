//! Edits that are taken back, and edits in the middle of things.

use std::time::Duration;

use imagecache::{
    api::{ImageCache, ImageCacheStatus},
    model::{class::Class, facts::JobState},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::{
    DAY, one_try, pulling, ready,
    walk::masked,
    world::{World, cache},
};

type Step = fn(&mut World);
type Stage = fn() -> World;

fn images(names: &[&str]) -> impl FnOnce(&mut ImageCache) {
    let names = names.iter().map(|&name| name.to_owned()).collect();
    move |object| object.spec.images = names
}

/// Everything but run numbers and times, and what is memory of both.
fn same(before: &ImageCacheStatus, after: &ImageCacheStatus) {
    assert_eq!(masked(after), masked(before));
    assert_eq!(after.expire_date_time, before.expire_date_time, "retention counts from where it did");
}

#[test]
fn a_bad_edit_that_is_taken_back_was_never_made() {
    let breaks: Vec<(&str, Step)> = vec![
        ("opened", |world| _ = world.reconcile()),
        ("pulling", |world| {
            world.reconcile();
            world.reconcile();
            world.pulls(50);
            world.reconcile();
        }),
        ("failed", one_try),
        ("failed for long", |world| {
            for _ in 0..4 {
                one_try(world);
                world.pass(Duration::from_hours(2));
            }
            assert_eq!(world.phase(), "UpdateFailed");
        }),
        ("complete, and not seen", |world| {
            world.upstream = None;
            world.reconcile();
            world.reconcile();
            world.job_ends(false);
        }),
    ];
    for (name, bad) in breaks {
        let mut world = ready();
        world.edit(|object| object.spec.retention_days = Some(30));
        world.reconcile();
        let (before, asked) = (world.status(), world.asked);
        world.pass(DAY);
        world.upstream = Some(Class::NotFound);
        world.edit(images(&["nginx:1", "gone:1"]));
        bad(&mut world);
        let (run, made, between) = (world.run(), world.made, world.asked - asked);
        world.upstream = Some(Class::Network);
        world.edit(images(&["nginx:1", "redis:7"]));
        world.reconcile();
        assert_eq!(
            (world.run(), world.made, world.jobs.len()),
            (run, made, 0),
            "{name}: no pull, no Job left"
        );
        assert_eq!(world.asked - asked, between, "{name}: no request");
        same(&before, &world.status());
        assert_eq!(world.kstatus(), "Current");
        let plan = world.plan().unwrap();
        assert_eq!((plan.actions, plan.status), (vec![], world.status()), "{name}: at rest");
    }
}

#[test]
fn the_roots_of_an_edit_that_was_taken_back_are_superseded_later_without_a_request() {
    let mut world = ready();
    let before = world.status();
    world.edit(images(&["nginx:2"]));
    world.reconcile();
    world.reconcile();
    // Its root is in the store, above the credited one, where the store keeps it.
    world.job_ends(false);
    world.edit(images(&["nginx:1", "redis:7"]));
    world.reconcile();
    let asked = world.asked;
    world.upstream = Some(Class::Network);
    world.pass(Duration::from_hours(1));
    world.reconcile();
    world.reconcile();
    assert_eq!((world.phase().as_str(), world.jobs.len()), ("Ready", 1));
    world.job_ends(false);
    world.reconcile();
    let ledger = world.status().ledger.unwrap();
    assert_eq!((ledger.root.as_ref().map(|root| root.run), ledger.run, world.asked), (Some(3), 3, asked));
    same(&before, &world.status());
    world.pass(DAY * 100);
    assert_eq!(world.plan().unwrap().actions, vec![]);
}

#[test]
fn an_edit_that_was_answered_is_taken_back_by_pulling_again() {
    let mut world = ready();
    world.edit(images(&["nginx:2"]));
    world.settle();
    world.pass(DAY);
    world.push("docker.io/library/nginx:1");
    world.edit(images(&["nginx:1", "redis:7"]));
    world.settle();
    assert_eq!(world.run(), 3);
    let digest = world.digest(&"nginx:1".parse().unwrap()).to_string();
    assert_eq!(world.status().images[0].digest, Some(digest), "an edit resolves tags again");
}

#[test]
fn a_late_success_is_never_credited_to_a_newer_spec() {
    for names in [["nginx:2"], ["nginx:3"]] {
        let mut world = pulling();
        world.edit(images(&["nginx:2"]));
        if names == ["nginx:3"] {
            world.reconcile();
            world.reconcile();
            world.edit(images(&names));
        }
        // The old Job ends well before the controller looks.
        world.job_ends(false);
        let late = world.jobs.clone();
        world.reconcile();
        assert_eq!((world.phase().as_str(), world.status().ledger.unwrap().root), ("Preparing", None));
        // And once more after it was removed, as a late watch shows it.
        world.jobs.extend(late);
        world.reconcile();
        assert_eq!(world.status().ledger.unwrap().root, None);
        world.settle();
        let status = world.status();
        assert_eq!(
            (world.phase().as_str(), status.images[0].name.as_str()),
            ("Ready", &*format!("docker.io/library/{}", names[0]))
        );
    }
}

#[test]
fn while_an_edit_fails_status_says_what_is_served_and_what_fails() {
    let mut world = ready();
    world.upstream = Some(Class::NotFound);
    world.edit(images(&["nginx:1", "gone:1"]));
    one_try(&mut world);
    let status = world.status();
    let said: Vec<_> =
        status.images.iter().map(|i| (i.name.as_str(), i.digest.is_some(), i.error.is_some())).collect();
    assert_eq!(
        said,
        [
            ("docker.io/library/nginx:1", true, true),
            ("docker.io/library/gone:1", false, true),
            ("docker.io/library/redis:7", true, false),
        ]
    );
    assert!(world.condition("Available").0 && status.size == Some(10));
    world.settle();
    assert_eq!(world.status().images.len(), 2, "what is not asked for any more goes with the success");
}

#[test]
fn edits_of_size_retention_order_and_interval_pull_nothing() {
    let mut world = ready();
    let edits: [fn(&mut ImageCache); 4] = [
        |object| object.spec.retention_days = Some(3),
        |object| object.spec.image_cache_size = Some(100),
        |object| object.spec.images.reverse(),
        |object| object.spec.refresh_interval = Some("12h".into()),
    ];
    for edit in edits {
        world.edit(edit);
        world.reconcile();
        assert_eq!((world.phase().as_str(), world.run(), world.made), ("Ready", 1, 1));
        assert_eq!(world.status().observed_generation, world.object.as_ref().unwrap().metadata.generation);
    }
    assert_eq!(world.status().images[0].name, "docker.io/library/redis:7");
    assert!(world.status().images[0].digest.is_some());
}

#[test]
fn an_edit_mid_pull_ends_that_job_and_starts_the_right_one() {
    let mut world = pulling();
    let id = world.status().image_cache_id;
    world.edit(images(&["redis:7"]));
    world.reconcile();
    assert!(world.jobs.is_empty(), "the Job of before is gone before the next is made");
    world.reconcile();
    let job = &world.jobs[0];
    assert_eq!(
        (job.request.run, job.request.images[0].to_string().as_str()),
        (2, "docker.io/library/redis:7")
    );
    assert!(matches!(job.fact.state, JobState::Active));
    world.settle();
    assert_eq!((world.phase().as_str(), world.status().image_cache_id), ("Ready", id));
}

#[test]
fn an_object_that_is_being_deleted_is_left_alone_at_every_stage() {
    let stages: Vec<(&str, Stage)> = vec![
        ("new", || World::new(cache(&["nginx:1"]))),
        ("pulling", pulling),
        ("ready", ready),
        ("failed", || {
            let mut world = World::new(cache(&["nginx:1"]));
            world.upstream = Some(Class::NotFound);
            one_try(&mut world);
            world
        }),
        ("refreshing", || {
            let mut world = ready();
            world.ask_anew("1");
            world.reconcile();
            world.reconcile();
            world
        }),
    ];
    for (name, stage) in stages {
        let mut world = stage();
        let made = world.made;
        let now = Time(world.now);
        world.edit(|object| object.metadata.deletion_timestamp = Some(now));
        for _ in 0..3 {
            world.pass(DAY);
            let plan = world.plan().unwrap();
            assert_eq!((plan.actions, plan.events, plan.status), (vec![], vec![], world.status()), "{name}");
            world.reconcile();
        }
        // A plan of before the deletion that comes late makes nothing either.
        let mut late = stage();
        let (judged, facts) = late.look().unwrap();
        let plan = late.plan().unwrap();
        late.object = None;
        late.jobs.clear();
        late.apply(&judged, &facts, plan, usize::MAX);
        assert!(late.jobs.is_empty() && world.made == made, "{name}");
    }
}
