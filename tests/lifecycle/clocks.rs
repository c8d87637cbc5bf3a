//! Clocks that jump: nothing is deleted, and no content given up, unless the API server's clock agrees.

use std::time::Duration;

use imagecache::model::{class::Class, plan::Action};
use jiff::SignedDuration;

use crate::{
    DAY, one_try, ready,
    world::{World, at, cache, tracked},
};

fn jump(world: &mut World, by: SignedDuration) {
    world.now = world.now.checked_add(by).unwrap();
    world.ahead = world.ahead.checked_add(by).unwrap();
}

fn kept(days: i32, gitops: bool) -> World {
    let mut world = ready();
    world.edit(|object| object.spec.retention_days = Some(days));
    if gitops {
        world.edit(tracked);
    }
    world.reconcile();
    world
}

#[test]
fn a_clock_that_is_days_ahead_ends_nothing() {
    for gitops in [false, true] {
        let mut world = kept(1, gitops);
        let before = world.status();
        jump(&mut world, SignedDuration::from_hours(24 * 30));
        for _ in 0..5 {
            world.reconcile();
            world.pass(Duration::from_mins(10));
            assert_eq!(world.plan().unwrap().actions, vec![]);
        }
        assert_eq!(world.status(), before, "the content stays, and its end is told as it is");
        jump(&mut world, SignedDuration::from_hours(-24 * 30));
        world.pass(DAY);
        world.reconcile();
        if gitops {
            assert_eq!(world.phase(), "Expired");
        } else {
            assert!(world.object.is_none(), "in time it goes");
        }
    }
}

#[test]
fn what_expired_stays_expired_when_a_clock_jumps_back() {
    let mut world = kept(1, true);
    world.pass(DAY);
    world.reconcile();
    let (before, made) = (world.status(), world.made);
    for hours in [-24 * 30, 24 * 60] {
        jump(&mut world, SignedDuration::from_hours(hours));
        world.reconcile();
        assert_eq!((world.status(), world.made), (before.clone(), made));
    }
    world.edit(|object| object.spec.retention_days = Some(365));
    world.settle();
    assert_eq!((world.phase().as_str(), world.made), ("Ready", made + 1), "longer retention revives it");
}

#[test]
fn retention_does_not_count_from_a_clock_that_is_behind() {
    for hours in [-48, 48] {
        let mut world = World::new(cache(&["nginx:1"]));
        world.edit(|object| object.spec.retention_days = Some(1));
        let start = world.now;
        jump(&mut world, SignedDuration::from_hours(hours));
        world.reconcile();
        world.reconcile();
        // The API server and the kubelet have the right time.
        let server = world.server_clock();
        world.jobs[0].fact.created = server;
        world.job_ends(false);
        world.reconcile();
        jump(&mut world, SignedDuration::from_hours(-hours));
        assert_eq!(world.now, start);
        let left = at(world.status().expire_date_time).duration_since(world.now).as_hours();
        assert!(left >= 24, "{left} hours left of 24");
        world.pass(DAY.saturating_sub(Duration::from_secs(1)));
        world.reconcile();
        assert!(world.object.is_some());
    }
}

#[test]
fn what_fails_for_good_is_not_given_up_early_by_a_clock_that_was_behind_or_is_ahead() {
    let mut world = World::new(cache(&["nginx:1"]));
    world.upstream = Some(Class::NotFound);
    jump(&mut world, SignedDuration::from_hours(-48));
    world.reconcile();
    world.reconcile();
    let server = world.server_clock();
    world.jobs[0].fact.created = server;
    world.job_ends(false);
    world.reconcile();
    jump(&mut world, SignedDuration::from_hours(48));
    world.reconcile();
    assert!(world.object.is_some());
    jump(&mut world, SignedDuration::from_hours(48));
    world.reconcile();
    let deletes =
        |world: &World| world.plan().unwrap().actions.iter().any(|a| matches!(a, Action::DeleteObject(_)));
    assert!(!deletes(&world));
    jump(&mut world, SignedDuration::from_hours(-48));
    world.pass(DAY);
    assert!(deletes(&world));
}

#[test]
fn a_clock_that_jumps_while_a_pull_fails_keeps_trying() {
    for hours in [-48, 48] {
        let mut world = World::new(cache(&["nginx:1"]));
        world.upstream = Some(Class::Network);
        one_try(&mut world);
        jump(&mut world, SignedDuration::from_hours(hours));
        let run = world.run();
        world.pass(Duration::from_mins(1));
        world.reconcile();
        assert_eq!(world.run(), run + 1, "at the latest when it would have been tried by any clock");
        world.settle();
        assert_eq!(world.phase(), "Ready");
    }
}
