//! Drivers that are slow, fail for a while, never get ready or do not know the size; and controllers that are killed.

use crate::{
    volumes::{Cache, Fault, delete, snapshot_of, wait_settled},
    world::world,
};

#[test]
fn an_error_that_clears_is_told_and_waited_for() {
    let world = world();
    let _alone = world.alone();
    let _fault = Fault::new(world, "fail-CreateSnapshot", "4 UNAVAILABLE");
    let cache = Cache::new(world, "clears");
    world.apply(&cache.object);
    let during = cache.wait(world, "the driver's error", |status| status.reason() == "Snapshot");
    assert_eq!(during.phase(), "Creating");
    assert!(!during.message().is_empty());
    let status = cache.wait_ready(world);
    wait_settled(world, &status);
    delete(world, &status);
}

#[test]
fn a_volume_that_cannot_be_made_for_a_while_is_waited_for() {
    let world = world();
    let _alone = world.alone();
    let _fault = Fault::new(world, "fail-CreateVolume", "3 UNAVAILABLE");
    let cache = Cache::new(world, "provisioning");
    world.apply(&cache.object);
    let status = cache.wait_ready(world);
    wait_settled(world, &status);
    delete(world, &status);
}

#[test]
fn a_slow_snapshot_is_waited_for_and_taken_once() {
    let world = world();
    let _alone = world.alone();
    let fault = Fault::new(world, "snapshot-slow", "6s");
    let cache = Cache::new(world, "slow");
    world.apply(&cache.object);
    let during =
        cache.wait(world, "a snapshot in the making", |status| !status.text("/snapshot/name").is_empty());
    let uid = snapshot_of(world, &during)["metadata"]["uid"].clone();
    let status = cache.wait_ready(world);
    drop(fault);
    assert_eq!(snapshot_of(world, &status)["metadata"]["uid"], uid);
    wait_settled(world, &status);
    delete(world, &status);
}

#[test]
fn a_snapshot_of_unknown_size_is_one() {
    let world = world();
    let _alone = world.alone();
    let fault = Fault::new(world, "snapshot-size", "0");
    let cache = Cache::new(world, "sizeless");
    world.apply(&cache.object);
    let status = cache.wait_ready(world);
    drop(fault);
    assert_eq!(status.number("/snapshot/size"), 0);
    delete(world, &status);
}

#[test]
fn a_controller_that_is_killed_again_and_again_gets_there_and_takes_one_snapshot() {
    let world = world();
    let _alone = world.alone();
    let cache = Cache::new(world, "killed");
    world.apply(&cache.object);
    for reason in ["Exporting", "Snapshotting"] {
        let _fault = Fault::new(world, "snapshot-slow", "4s");
        cache.wait(world, reason, |status| {
            status.condition("Snapshot").is_some_and(|snapshot| snapshot["reason"] == reason)
                || status.holds("Snapshot")
        });
        world.kill_controllers();
    }
    let status = cache.wait_ready(world);
    assert_eq!(status.number("/snapshot/run"), 1, "and nothing is pulled twice");
    wait_settled(world, &status);
    delete(world, &status);
}
