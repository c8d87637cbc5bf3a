//! The Job that fills a snapshot's volume, and that volume.

use std::time::Duration;

use imagecache::model::{class::Class, facts::JobState, plan::Again, snapshot::Api};

use crate::{
    snapshots::{at, exported, pulled, world},
    storage::Storage,
};

#[test]
fn an_export_that_fails_is_tried_again_by_the_usual_rules_and_counted_once() {
    let mut world = world();
    world.storage.broken = Some(Class::Unknown);
    world = pulled(world);
    world.reconcile();
    world.reconcile();
    world.storage.export_ends(world.now);
    // Killed between the status and the removal of the Job, which is seen again.
    let (judged, facts) = world.look().unwrap();
    let plan = world.plan().unwrap();
    world.apply(&judged, &facts, plan, 1);
    assert_eq!(world.storage.exports.len(), 1);
    for _ in 0..3 {
        world.reconcile();
    }
    let failure = world.status().ledger.unwrap().snapshot.unwrap().failure.unwrap();
    assert_eq!((failure.attempts, at(&world).1.as_str()), (1, "Unknown"));
    let Again::After(wait) = world.plan().unwrap().again else { panic!("it comes back") };
    assert!(wait <= Duration::from_secs(30), "{wait:?}");
    assert!(world.storage.exports.is_empty());
    world.pass(wait);
    world.storage.broken = None;
    world.reconcile();
    assert_eq!(world.storage.exports.len(), 1);
    world.settle();
    assert_eq!(world.storage.done, ["volume 1", "export 1", "export 1", "snapshot 1"], "on the same volume");
}

#[test]
fn a_volume_that_was_full_is_replaced_by_a_larger_one() {
    let mut world = world();
    world.storage.broken = Some(Class::NoSpace);
    world = pulled(world);
    world.reconcile();
    let small = world.storage.volumes[0].bytes;
    assert_eq!(small, 23 << 30, "20 GiB, a tenth and one more");
    world.reconcile();
    world.storage.export_ends(world.now);
    for _ in 0..3 {
        world.reconcile();
    }
    assert_eq!((at(&world).1.as_str(), world.storage.volumes.len()), ("NoSpace", 0));
    world.pass(Duration::from_mins(1));
    world.reconcile();
    assert!(world.storage.volumes[0].bytes > small + (small / 3));
    world.settle();
    assert_eq!(world.phase(), "Ready");
}

#[test]
fn an_export_that_does_not_find_the_content_says_that_it_is_lost_and_it_is_pulled_again() {
    let mut world = world();
    world.storage.broken = Some(Class::NotFound);
    world = exported(world);
    world.storage.broken = None;
    assert_eq!((at(&world).0.as_str(), at(&world).1.as_str()), ("Creating", "ContentLost"));
    world.settle();
    assert_eq!((world.phase().as_str(), world.run(), world.storage.runs()), ("Ready", 2, vec![1]));
}

#[test]
fn a_volume_or_an_export_that_is_deleted_by_hand_is_made_again() {
    let mut world = exported(world());
    world.storage.volumes.clear();
    world.reconcile();
    world.settle();
    assert_eq!((world.phase().as_str(), world.storage.runs()), ("Ready", vec![1]));

    let mut world = pulled(self::world());
    for _ in 0..2 {
        world.reconcile();
    }
    world.storage.exports.clear();
    world.settle();
    assert_eq!((world.phase().as_str(), world.storage.runs()), ("Ready", vec![1]));
}

#[test]
fn a_volume_waits_for_no_consumer_but_its_export() {
    let mut world = pulled(world());
    world.reconcile();
    assert_eq!(world.storage.volumes[0].phase, "Pending", "WaitForFirstConsumer");
    world.reconcile();
    assert_eq!(world.storage.exports.len(), 1);
}

#[test]
fn an_export_job_whose_pod_cannot_start_says_why_and_fails_in_the_end() {
    let mut world = pulled(world());
    world.reconcile();
    world.reconcile();
    assert_eq!(world.storage.exports[0].state, JobState::Active);
    world.storage.exports[0].no_pod = Some("exceeded quota: pods".into());
    world.reconcile();
    assert!(world.condition("Snapshot").2.contains("exceeded quota"));
    world.pass(Duration::from_mins(11));
    world.reconcile();
    assert_eq!(at(&world).1, "Quota");
    assert!(world.condition("Ready").2.contains("export pod"), "{}", world.condition("Ready").2);
    assert_eq!(Storage::new().api, Api::Present);
}
