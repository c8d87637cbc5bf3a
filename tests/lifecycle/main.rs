//! Plans, obeyed by a simulated cluster until nothing is left to do: here the situations people will meet, one by
//! one; in `any_order` all of them, with crashes, late views and lost reports.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod any_order;
mod clocks;
mod edits;
mod exports;
mod losses;
mod refresh;
mod settings;
mod settle;
mod snapshots;
mod storage;
mod walk;
mod world;

use std::time::Duration;

use imagecache::model::{
    class::{Class, Kind},
    facts::{PodFact, SecretState},
    plan::Again,
    settings::OnExpiry,
};
use world::{World, at, cache, tracked};

const DAY: Duration = Duration::from_hours(24);

fn ready() -> World {
    let mut world = World::new(cache(&["nginx:1", "redis:7"]));
    world.settle();
    assert_eq!(world.phase(), "Ready");
    world
}

fn pulling() -> World {
    let mut world = World::new(cache(&["nginx:1"]));
    world.reconcile();
    world.reconcile();
    world.pulls(40);
    world.reconcile();
    world
}

/// A run is opened, its Job is made, ends and is read.
fn one_try(world: &mut World) {
    world.reconcile();
    world.reconcile();
    world.job_ends(false);
    world.reconcile();
    world.reconcile();
}

/// The Job is made, and its pod has not started.
fn pulling_pod(change: impl FnOnce(&mut PodFact)) -> World {
    let mut world = World::new(cache(&["nginx:1"]));
    world.reconcile();
    world.reconcile();
    world.pod_starts();
    let pod = world.jobs[0].fact.pod.as_mut().unwrap();
    pod.started = None;
    change(pod);
    world
}

#[test]
fn a_new_cache_is_pulled_and_says_what_it_holds() {
    let mut world = World::new(cache(&["nginx:1"]));
    world.reconcile();
    assert_eq!((world.phase().as_str(), world.run(), world.jobs.len()), ("Preparing", 1, 0), "written first");
    world.reconcile();
    assert_eq!(world.jobs.len(), 1, "then the Job");
    world.pulls(40);
    world.reconcile();
    assert_eq!((world.phase().as_str(), world.status().progress.as_deref()), ("Creating", Some("40%")));
    world.job_ends(false);
    world.reconcile();
    let status = world.status();
    assert_eq!((world.phase().as_str(), status.progress.as_deref()), ("Ready", Some("100%")));
    assert_eq!(status.images[0].name, "docker.io/library/nginx:1");
    assert!(status.images[0].digest.is_some() && status.size == Some(10) && status.reason.is_none());
    assert!(world.jobs.is_empty(), "the Job and its Secrets go when they are read");
    let reasons: Vec<&str> = status.events.iter().map(|event| event.reason.as_str()).collect();
    assert_eq!(reasons, ["Preparing", "Pulling", "Pulled", "Complete"]);
}

#[test]
fn a_settled_cache_is_left_alone() {
    let mut world = ready();
    world.pass(DAY * 1000);
    let plan = world.plan().unwrap();
    assert_eq!((plan.actions, plan.events, plan.again), (vec![], vec![], Again::OnChange));
    assert_eq!(plan.status, world.status());
}

#[test]
fn progress_never_goes_back_within_a_run() {
    let mut world = pulling();
    world.jobs[0].fact.progress = None;
    world.reconcile();
    assert_eq!((world.phase().as_str(), world.status().progress.as_deref()), ("Creating", Some("40%")));
    world.pulls(50);
    world.reconcile();
    let told = world.status().events.iter().filter(|event| event.reason == "Pulling").count();
    assert_eq!(told, 1, "a controller that was started again tells nothing twice");
}

#[test]
fn a_transient_failure_is_tried_again_soon_and_called_failed_after_half_an_hour() {
    let mut world = World::new(cache(&["nginx:1"]));
    world.upstream = Some(Class::Network);
    let mut told = 0;
    for _ in 0..40 {
        let Again::After(wait) = world.reconcile() else { panic!("a failed cache comes back") };
        let (stalled, ..) = world.condition("Stalled");
        if let Some(failure) = world.status().ledger.unwrap().failure {
            let lasted = world.now.duration_since(failure.first.0).as_mins();
            assert_eq!(stalled, lasted >= 30, "{lasted} minutes");
            assert_eq!(world.phase(), if stalled { "Failed" } else { "Creating" });
            told += 1;
        }
        assert!(stalled || wait <= Duration::from_mins(10));
        if world.jobs.is_empty() {
            world.pass(wait);
        }
        world.job_ends(false);
    }
    assert!(told > 10 && world.condition("Stalled").0);
    let warnings = world.status().events.iter().filter(|event| event.reason == "Network").count();
    assert_eq!(warnings, 1, "one fact, one event");
    world.settle();
    assert_eq!(world.phase(), "Ready");
}

#[test]
fn a_class_is_called_failed_at_once_exactly_if_it_is_not_transient() {
    for class in Class::ALL {
        let mut world = pulling();
        world.upstream = Some(*class);
        world.job_ends(false);
        world.reconcile();
        let transient = class.kind() == Kind::Transient;
        assert_eq!(world.phase(), if transient { "Creating" } else { "Failed" }, "{class}");
        assert_eq!(world.condition("Ready").1, class.as_str());
    }
}

#[test]
fn more_room_for_a_cache_that_was_too_small_is_an_edit_that_ends_the_failure() {
    let mut world = ready();
    world.upstream = Some(Class::SizeExceeded);
    world.edit(|object| object.spec.images = vec!["big:1".into()]);
    one_try(&mut world);
    assert_eq!((world.phase().as_str(), world.run()), ("UpdateFailed", 2));
    world.edit(|object| object.spec.retention_days = Some(7));
    world.reconcile();
    assert_eq!((world.phase().as_str(), world.run()), ("UpdateFailed", 2), "retention makes no room");
    world.upstream = None;
    world.edit(|object| object.spec.image_cache_size = Some(40));
    world.reconcile();
    assert_eq!((world.phase().as_str(), world.run()), ("Updating", 3));
    world.settle();
    assert_eq!(world.phase(), "Ready");
}

#[test]
fn a_retry_that_a_full_queue_put_off_is_looked_at_when_it_would_be_due() {
    let mut world = World::new(cache(&["nginx:1"]));
    world.upstream = Some(Class::NotFound);
    one_try(&mut world);
    world.busy = 4;
    let Again::After(wait) = world.plan().unwrap().again else { panic!() };
    assert!(wait <= Duration::from_mins(5), "{wait:?}");
    world.pass(wait);
    let Again::After(longer) = world.plan().unwrap().again else { panic!() };
    assert!(world.plan().unwrap().actions.is_empty() && longer > Duration::from_mins(3), "{longer:?}");
    world.busy = 0;
    world.reconcile();
    assert_eq!(world.run(), 2);
}

#[test]
fn a_permanent_failure_is_failed_at_once_and_stays_so_while_it_is_tried_again() {
    let mut world = pulling();
    world.upstream = Some(Class::Auth);
    world.job_ends(false);
    world.reconcile();
    assert_eq!((world.phase().as_str(), world.kstatus()), ("Failed", "Failed"));
    let (_, reason, message) = world.condition("Stalled");
    assert_eq!(reason, "Auth");
    assert!(message.contains("docker.io/library/nginx:1") && message.contains("authorization"), "{message}");
    assert!(world.status().images[0].error.as_ref().unwrap().contains("Auth"));
    world.pass(Duration::from_mins(6));
    world.reconcile();
    world.reconcile();
    world.pulls(10);
    world.reconcile();
    assert_eq!((world.run(), world.phase().as_str()), (2, "Failed"));
}

#[test]
fn a_corrected_pull_secret_ends_the_waiting() {
    let mut world = World::new(cache(&["r.example.com/app:1"]));
    world.edit(|object| object.spec.image_pull_secrets = vec!["default:key".into()]);
    world.upstream = Some(Class::Auth);
    world.reconcile();
    world.reconcile();
    world.job_ends(false);
    world.reconcile();
    assert!(matches!(world.reconcile(), Again::After(wait) if wait <= Duration::from_mins(5)));
    assert_eq!(world.run(), 1);
    world.secret = SecretState::Found { uid: "s".into(), resource_version: "2".into() };
    world.upstream = None;
    world.reconcile();
    assert_eq!(world.run(), 2);
    world.settle();
    assert_eq!(world.phase(), "Ready");
}

#[test]
fn a_missing_secret_is_named_and_waited_for() {
    for (state, says) in
        [(SecretState::Missing, "does not exist"), (SecretState::Forbidden, "may not be used")]
    {
        let mut world = World::new(cache(&["r.example.com/app:1"]));
        world.edit(|object| object.spec.image_pull_secrets = vec!["default:key".into()]);
        world.secret = state;
        assert_eq!(world.reconcile(), Again::After(Duration::from_secs(5)));
        let (stalled, reason, message) = world.condition("Stalled");
        assert!(stalled && reason == "SecretMissing" && message.contains("default:key"), "{message}");
        assert!(message.contains(says) && world.jobs.is_empty());
        world.pass(DAY);
        assert_eq!(world.reconcile(), Again::After(Duration::from_mins(5)));
        world.settle();
        assert_eq!(world.phase(), "Ready");
    }
}

#[test]
fn an_edit_serves_the_old_content_until_the_new_is_complete() {
    let mut world = ready();
    let id = world.status().image_cache_id;
    world.edit(|object| object.spec.images = vec!["nginx:2".into()]);
    assert_eq!(world.kstatus(), "InProgress");
    world.reconcile();
    world.reconcile();
    assert_eq!((world.phase().as_str(), world.kstatus()), ("Updating", "InProgress"));
    assert!(world.condition("Available").0 && !world.condition("Ready").0);
    world.upstream = Some(Class::NotFound);
    world.job_ends(false);
    world.reconcile();
    assert_eq!((world.phase().as_str(), world.condition("Available").0), ("UpdateFailed", true));
    world.settle();
    assert_eq!((world.phase().as_str(), world.status().image_cache_id), ("Ready", id));
}

#[test]
fn an_annotation_that_changes_the_pull_is_an_edit_though_the_generation_stays() {
    let mut world = ready();
    let key = "k8s.aliyun.com/insecure-registry".to_owned();
    world.edit(|object| {
        object.metadata.annotations.get_or_insert_default().insert(key, "docker.io".into());
    });
    world.reconcile();
    assert_eq!((world.phase().as_str(), world.run()), ("Updating", 2));
}

#[test]
fn an_edit_during_a_pull_ends_that_pull_and_never_credits_it() {
    let mut world = pulling();
    world.edit(|object| object.spec.images = vec!["nginx:2".into()]);
    world.job_ends(false);
    world.reconcile();
    assert_eq!((world.run(), world.jobs.len()), (2, 0));
    assert!(world.status().ledger.unwrap().root.is_none());
}

#[test]
fn an_invalid_edit_keeps_the_old_content_and_names_every_mistake() {
    let mut world = ready();
    world.edit(|object| object.spec.images = vec!["harbor***.pre.com/a:1".into(), "b:".into()]);
    world.reconcile();
    let (_, reason, message) = world.condition("Ready");
    assert_eq!((world.phase().as_str(), reason.as_str()), ("UpdateFailed", "InvalidSpec"));
    assert!(message.contains("spec.images[0]") && message.contains("spec.images[1]"), "{message}");
    assert!(world.condition("Available").0);
    world.edit(|object| object.spec.images = vec!["nginx:1".into(), "redis:7".into()]);
    world.reconcile();
    assert_eq!((world.phase().as_str(), world.run()), ("Ready", 1), "taken back: nothing is pulled");
}

#[test]
fn an_invalid_edit_gives_up_the_place_in_the_queue_and_its_correction_is_pulled() {
    for new in ["redis:8", "nginx:1"] {
        let mut world = ready();
        world.edit(|object| object.spec.images = vec![new.into()]);
        world.busy = 99;
        world.reconcile();
        assert!(world.status().ledger.unwrap().open, "it waits");
        world.edit(|object| object.spec.images = vec!["Not:valid:".into()]);
        world.reconcile();
        assert!(!world.status().ledger.unwrap().open, "what cannot start keeps nobody waiting");
        world.edit(|object| object.spec.images = vec![new.into()]);
        world.busy = 0;
        world.reconcile();
        assert_ne!(world.phase(), "Ready", "the old content is no answer to the edit");
        world.settle();
        assert_eq!((world.phase().as_str(), world.status().images.len()), ("Ready", 1));
    }
}

#[test]
fn retention_counts_from_the_success_and_changing_it_pulls_nothing() {
    let mut world = ready();
    let ready_at = world.now;
    world.edit(|object| object.spec.retention_days = Some(7));
    world.pass(DAY);
    world.reconcile();
    assert_eq!(at(world.status().expire_date_time).duration_since(ready_at).as_hours(), 7 * 24);
    assert_eq!(world.run(), 1);
    world.pass(DAY * 6);
    world.reconcile();
    assert!(world.object.is_none(), "deleted at expiry");
}

#[test]
fn what_gitops_would_make_again_is_kept_at_expiry_and_an_edit_revives_it() {
    let mut world = ready();
    world.edit(tracked);
    world.edit(|object| object.spec.retention_days = Some(1));
    world.pass(DAY);
    world.reconcile();
    assert_eq!((world.phase().as_str(), world.kstatus()), ("Expired", "Failed"));
    assert!(!world.condition("Available").0 && world.status().ledger.unwrap().root.is_none());
    let plan = world.plan().unwrap();
    assert_eq!((plan.actions, plan.status), (vec![], world.status()));
    world.edit(|object| object.spec.images = vec!["nginx:2".into()]);
    world.settle();
    assert_eq!(world.phase(), "Ready");
    world.settings.on_expiry = Some(OnExpiry::Delete);
    world.pass(DAY * 2);
    world.reconcile();
    assert!(world.object.is_none(), "the operator's word counts more");
}

#[test]
fn what_never_was_ready_and_fails_for_good_goes_after_a_day() {
    let mut world = pulling();
    world.upstream = Some(Class::NotFound);
    world.job_ends(false);
    world.reconcile();
    assert_eq!(at(world.status().expire_date_time).duration_since(world.now).as_hours(), 24);
    world.pass(DAY);
    world.reconcile();
    assert!(world.object.is_none());

    let mut outage = pulling();
    outage.upstream = Some(Class::Network);
    outage.job_ends(false);
    outage.reconcile();
    outage.pass(DAY * 3);
    outage.reconcile();
    assert!(outage.object.is_some(), "an outage of the upstream deletes nobody's object");
}

#[test]
fn a_mirror_on_another_volume_does_not_cause_endless_pulls() {
    let mut world = pulling();
    let own = std::mem::replace(&mut world.store, "other".into());
    world.job_ends(false);
    world.store = own;
    world.settle();
    assert_eq!((world.phase().as_str(), world.run()), ("Ready", 1));
    assert!(world.status().notices.iter().any(|notice| notice.contains("another store")));
}

#[test]
fn a_pod_that_is_being_made_is_no_obstacle_worth_telling() {
    for (reason, message, told) in [
        ("ContainerCreating", "", "the pull starts"),
        ("PodInitializing", "", "the pull starts"),
        ("CreateContainerError", "", "the pull pod waits: CreateContainerError"),
        ("ErrImagePull", "not found", "the pull pod waits: ErrImagePull: not found"),
    ] {
        let mut world = pulling_pod(|pod| pod.waiting = Some((reason.into(), message.into())));
        world.reconcile();
        assert_eq!(world.condition("Ready").2, told);
    }
}

#[test]
fn a_pod_that_does_not_start_or_does_not_move_is_ended_with_its_reason() {
    let mut world = pulling();
    world.pass(Duration::from_mins(10));
    world.reconcile();
    assert!(world.jobs.is_empty());
    assert_eq!(world.condition("Ready").1, "Timeout");

    let waits = ("ImagePullBackOff".to_owned(), "Back-off pulling image".to_owned());
    for (waiting, no_pod, class) in [
        (Some(waits), None, "WorkerImage"),
        (None, Some("pods is forbidden: exceeded quota: q"), "Quota"),
        (None, Some("violates PodSecurity"), "Scheduling"),
    ] {
        let mut world = World::new(cache(&["nginx:1"]));
        world.reconcile();
        world.reconcile();
        world.jobs[0].fact.no_pod = no_pod.map(str::to_owned);
        if waiting.is_some() {
            world.pod_starts();
            let pod = world.jobs[0].fact.pod.as_mut().unwrap();
            (pod.started, pod.waiting) = (None, waiting);
        }
        world.reconcile();
        let early = world.condition("Ready").2;
        assert_eq!(world.phase(), "Preparing");
        world.pass(Duration::from_mins(10));
        world.reconcile();
        let (_, reason, message) = world.condition("Ready");
        assert_eq!((reason.as_str(), world.jobs.len()), (class, 0), "{message}");
        assert!(early.contains("waits:"), "said before the limit is reached: {early}");
    }
}

#[test]
fn the_largest_status_still_fits() {
    let long = |i: usize| format!("{}.example.com/{}:{i:0>128}", "h".repeat(60), "p".repeat(170));
    let names: Vec<String> = (0..20).map(long).collect();
    let mut object = cache(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let annotations = object.metadata.annotations.get_or_insert_default();
    annotations
        .extend((0..200).map(|i| (format!("k8s.aliyun.com/{}{i}", "x".repeat(200)), "\"".repeat(900))));
    let mut world = World::new(object);
    for i in 0..30_u64 {
        let quotes = "\"\\".repeat(500);
        let class = if i % 2 == 0 { Class::Network } else { Class::ServerError };
        (world.upstream, world.says) = ((i % 5 != 4).then_some(class), format!("{i}{quotes}"));
        world.reconcile();
        world.reconcile();
        world.job_ends(false);
        world.reconcile();
        if world.upstream.is_none() {
            world.store_is_replaced();
        }
        world.pass(Duration::from_hours(2));
        let size = serde_json::to_vec(&world.status()).unwrap().len();
        assert!(size < 64 * 1024, "{size} bytes");
    }
    assert_eq!(world.status().events.len(), 50);
}

#[test]
fn a_full_queue_is_waited_for() {
    let mut world = World::new(cache(&["nginx:1"]));
    world.busy = 4;
    world.reconcile();
    world.reconcile();
    assert_eq!((world.phase().as_str(), world.condition("Ready").1.as_str()), ("Pending", "Queued"));
    world.busy = 3;
    world.reconcile();
    assert_eq!(world.jobs.len(), 1);
}

#[test]
fn a_lost_status_is_found_again_through_the_store() {
    let mut world = ready();
    for n in 2..5 {
        world.edit(|object| object.spec.images = vec![format!("nginx:{n}")]);
        world.settle();
    }
    world.edit(|object| object.status = None);
    world.settle();
    assert_eq!((world.phase().as_str(), world.run()), ("Ready", 5));
}
