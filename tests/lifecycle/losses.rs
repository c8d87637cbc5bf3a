//! Content that is lost after it was credited, and what is left of runs that never got their Job.

use imagecache::model::plan::{Action, Again};

use crate::{
    DAY, ready,
    world::{World, cache},
};

#[test]
fn content_that_the_store_lost_is_pulled_again_and_retention_stays() {
    let mut world = ready();
    let ready_at = world.status().ledger.unwrap().ready_at;
    world.pass(DAY);
    world.store_is_replaced();
    world.reconcile();
    assert_eq!((world.phase().as_str(), world.condition("Ready").1.as_str()), ("Creating", "ContentLost"));
    assert!(!world.condition("Available").0 && world.run() == 2);
    world.settle();
    assert_eq!((world.phase().as_str(), world.status().ledger.unwrap().ready_at), ("Ready", ready_at));

    world.pass(DAY);
    world.broken.insert(2);
    world.reconcile();
    assert_eq!(world.run(), 3, "a broken root of the credited run");
}

#[test]
fn content_that_is_lost_again_and_again_is_pulled_less_and_less_often() {
    let mut world = ready();
    let mut waits = vec![];
    for _ in 0..8 {
        let run = world.run();
        world.broken.insert(u64::try_from(run).unwrap());
        let since = world.now;
        while world.run() == run {
            let Again::After(wait) = world.reconcile() else { panic!("nobody comes back") };
            assert_eq!(
                (world.phase().as_str(), world.condition("Ready").1.as_str()),
                ("Creating", "ContentLost")
            );
            if world.run() == run {
                world.pass(wait);
            }
        }
        waits.push(world.now.duration_since(since).as_secs());
        world.reconcile();
        world.job_ends(false);
        world.reconcile();
        assert_eq!(world.phase(), "Ready");
    }
    assert_eq!(waits[0], 0, "at once");
    assert!((24..=30).contains(&waits[1]) && (480..=600).contains(&waits[7]), "{waits:?}");
    assert!(waits.is_sorted(), "{waits:?}");
    world.pass(DAY);
    world.broken.insert(u64::try_from(world.run()).unwrap());
    let run = world.run();
    world.reconcile();
    assert_eq!(world.run(), run + 1, "it had lasted: at once");
}

#[test]
fn the_secrets_of_a_run_that_never_got_its_job_go_when_it_is_given_up() {
    for edit in ["no image", "redis:7"] {
        let mut world = World::new(cache(&["nginx:1"]));
        world.reconcile();
        assert!(matches!(world.plan().unwrap().actions[..], [Action::StartRun(_)]));
        // The Secrets are made, and the Job is refused.
        world.edit(|object| object.spec.images = vec![edit.into()]);
        let actions = world.plan().unwrap().actions;
        assert_eq!(actions, [Action::RemoveSecrets { run: 1 }], "{edit}");
        world.reconcile();
        assert!(!world.plan().unwrap().actions.contains(&Action::RemoveSecrets { run: 1 }), "once");
    }
}
