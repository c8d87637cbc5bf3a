//! Snapshots of a cache's own volume, situation by situation.

use std::time::Duration;

use imagecache::model::{
    class::Class,
    plan::{Again, Needs},
    snapshot::Api,
};

use crate::{
    storage::class,
    world::{World, cache, with_snapshots},
};

pub(crate) fn world() -> World {
    with_snapshots(World::new(cache(&["nginx:1"])))
}

/// Credited, and nothing of its snapshot is made yet.
pub(crate) fn pulled(mut world: World) -> World {
    world.reconcile();
    world.reconcile();
    world.job_ends(false);
    world.reconcile();
    world
}

pub(crate) fn exported(mut world: World) -> World {
    world = pulled(world);
    for _ in 0..3 {
        world.reconcile();
    }
    world.storage.export_ends(world.now);
    world.reconcile();
    world
}

pub(crate) fn ready() -> World {
    let mut world = world();
    world.settle();
    assert_eq!((world.phase().as_str(), world.storage.runs()), ("Ready", vec![1]));
    world
}

pub(crate) fn flash(mut world: World) -> World {
    world.edit(|object| {
        let key = "k8s.aliyun.com/imc-enable-flash".to_owned();
        object.metadata.annotations.get_or_insert_default().insert(key, "true".to_owned());
    });
    world
}

/// Reason of the Snapshot condition, and whether it holds.
pub(crate) fn said(world: &World) -> (bool, String) {
    let (holds, reason, _) = world.condition("Snapshot");
    (holds, reason)
}

pub(crate) fn at(world: &World) -> (String, String, String) {
    let progress = world.status().progress.unwrap_or_default();
    (world.phase(), world.condition("Ready").1, progress)
}

pub(crate) fn is(phase: &str, reason: &str, progress: &str) -> (String, String, String) {
    (phase.to_owned(), reason.to_owned(), progress.to_owned())
}

#[test]
fn a_cache_is_ready_when_its_snapshot_is_and_the_volume_goes() {
    let mut world = world();
    world.reconcile();
    world.reconcile();
    world.pulls(50);
    world.reconcile();
    assert_eq!(at(&world), is("Creating", "Pulling", "40%"), "a pull is four fifths");
    world.job_ends(false);
    world.reconcile();
    assert_eq!(at(&world), is("Creating", "Snapshotting", "80%"));
    assert!(!world.condition("Available").0);
    world.reconcile();
    world.reconcile();
    world.storage.export_moves(50, world.now);
    world.reconcile();
    assert_eq!(at(&world).2, "87%");
    world.storage.export_ends(world.now);
    world.reconcile();
    assert_eq!(world.storage.snapshots.len(), 1, "taken when the Job is complete");
    world.reconcile();
    assert_eq!(
        (at(&world), said(&world)),
        (is("Creating", "Snapshotting", "95%"), (false, "Snapshotting".into()))
    );
    assert!(world.storage.exports.is_empty() && world.storage.volumes.len() == 1);
    world.storage.snapshotter_acts();
    world.reconcile();
    assert_eq!((at(&world), said(&world)), (is("Ready", "Complete", "100%"), (true, "ReadyToUse".into())));
    assert!(world.storage.is_quiet(), "the volume is released");
    let told = world.status().snapshot.unwrap();
    assert_eq!((told.ready, told.run, told.size), (true, 1, Some(23 << 30)));
    assert_eq!((told.deletion_policy.as_deref(), told.class.as_deref()), (Some("Delete"), Some("snaps")));
    assert_eq!(world.storage.done, ["volume 1", "export 1", "snapshot 1"]);
}

#[test]
fn a_settled_cache_with_a_snapshot_is_left_alone_and_nothing_is_read_for_it() {
    let mut world = ready();
    world.pass(Duration::from_hours(24_000));
    let plan = world.plan().unwrap();
    assert_eq!((plan.actions, plan.events, plan.again), (vec![], vec![], Again::OnChange));
    assert_eq!(plan.status, world.status());
    assert_eq!(world.snapshot_needs(), Needs::default(), "no class and no content is looked at again");
}

#[test]
fn with_flash_a_cache_is_ready_below_a_hundred_percent_and_the_snapshot_comes_after() {
    let mut world = pulled(flash(self::world()));
    assert_eq!((at(&world), said(&world).0), (is("Ready", "Complete", "80%"), false));
    world.settle();
    assert_eq!((at(&world), said(&world).0), (is("Ready", "Complete", "100%"), true));
    assert_eq!(world.storage.runs(), [1]);
}

#[test]
fn a_failing_snapshot_does_not_take_flash_readiness_away() {
    let mut world = flash(self::world());
    world.storage.broken = Some(Class::Unsupported);
    world = exported(world);
    assert_eq!(at(&world).0, "Ready");
    assert_eq!(said(&world), (false, "Unsupported".into()));
    world.settle();
    assert!(said(&world).0);
}

#[test]
fn an_edit_keeps_the_old_snapshot_until_the_new_one_is_ready() {
    let mut world = ready();
    world.edit(|object| object.spec.images = vec!["nginx:2".into()]);
    world = exported(world);
    world.reconcile();
    assert_eq!(at(&world), is("Updating", "Snapshotting", "95%"));
    assert!(world.condition("Available").0);
    assert_eq!(world.storage.runs(), [1]);
    assert_eq!(world.status().snapshot.unwrap().run, 1, "the one that can be restored is shown");
    world.storage.snapshotter_acts();
    world.reconcile();
    assert_eq!((world.phase().as_str(), world.storage.runs()), ("Ready", vec![2]));
    assert_eq!(world.status().snapshot.unwrap().run, 2);
}

/// The next run finds what the run before it found.
fn pulls_the_same(world: &mut World) {
    let digest = world.status().images[0].digest.clone().unwrap();
    world.reconcile();
    world.reconcile();
    world.job_ends(false);
    let exit = world.jobs[0].fact.pod.as_mut().unwrap().exit.as_mut().unwrap();
    exit.outcome.as_mut().unwrap().images[0].digest = Some(digest.parse().unwrap());
    world.reconcile();
}

#[test]
fn content_that_is_pulled_again_and_is_the_same_needs_no_other_snapshot() {
    let mut world = ready();
    world.broken.insert(1);
    world.reconcile();
    assert_eq!((at(&world).1.as_str(), said(&world).0), ("ContentLost", false));
    pulls_the_same(&mut world);
    assert_eq!((world.run(), at(&world), said(&world).0), (2, is("Ready", "Complete", "100%"), true));
    assert_eq!((world.storage.runs(), world.status().snapshot.unwrap().run), (vec![1], 1));
    assert!(world.plan().unwrap().actions.is_empty());
    // Should that one be lost, it is taken of what there is.
    let uid = world.storage.snapshots[0].id.uid.clone();
    world.storage.remove_snapshot(&uid);
    world.reconcile();
    assert_eq!((at(&world).0.as_str(), said(&world).1.as_str()), ("Ready", "SnapshotLost"));
    world.settle();
    assert_eq!(world.storage.runs(), [1], "named after the run that brought it");
}

#[test]
fn a_refresh_costs_no_readiness_and_takes_a_snapshot_only_of_what_changed() {
    let mut world = ready();
    let refresh = |world: &mut World, value: &str| {
        world.ask_anew(value);
        world.reconcile();
        world.reconcile();
        world.job_ends(false);
        world.reconcile();
        assert!(world.condition("Ready").0 && world.condition("Available").0);
    };
    refresh(&mut world, "1");
    assert_eq!((world.run(), said(&world).0, world.storage.runs()), (2, true, vec![1]), "nothing changed");
    assert!(world.plan().unwrap().actions.is_empty());
    world.push("docker.io/library/nginx:1");
    refresh(&mut world, "2");
    assert_eq!((world.run(), said(&world).0, at(&world).0.as_str()), (3, false, "Ready"));
    assert_eq!((world.storage.runs(), world.status().snapshot.unwrap().run), (vec![1], 1));
    world.settle();
    assert_eq!((at(&world), said(&world).0), (is("Ready", "Complete", "100%"), true));
    assert_eq!((world.storage.runs(), world.status().snapshot.unwrap().run), (vec![3], 3));
}

#[test]
fn an_edit_in_the_middle_of_a_snapshot_ends_it_and_takes_the_right_one() {
    let mut world = exported(world());
    world.edit(|object| object.spec.images = vec!["nginx:2".into()]);
    world.settle();
    assert_eq!((world.phase().as_str(), world.storage.runs()), ("Ready", vec![2]));
    assert!(world.storage.is_quiet());
}

#[test]
fn a_snapshot_that_was_deleted_by_hand_is_taken_again_from_a_fresh_volume_and_ready_stays() {
    let mut world = ready();
    let uid = world.storage.snapshots[0].id.uid.clone();
    world.storage.remove_snapshot(&uid);
    world.storage.done.clear();
    world.reconcile();
    assert_eq!((at(&world), said(&world)), (is("Ready", "Complete", "100%"), (false, "SnapshotLost".into())));
    assert_eq!(world.status().snapshot, None);
    world.settle();
    assert_eq!((said(&world).0, at(&world)), (true, is("Ready", "Complete", "100%")));
    assert_eq!(world.storage.done, ["volume 1", "export 1", "snapshot 1"]);
    let lost = world.status().events.iter().filter(|event| event.reason == "SnapshotLost").count();
    assert_eq!(lost, 1);
}

#[test]
fn a_content_that_was_deleted_by_hand_takes_its_snapshot_along_and_both_come_again() {
    let mut world = ready();
    world.storage.content_is_deleted();
    world.reconcile();
    assert_eq!((at(&world).0.as_str(), said(&world)), ("Ready", (false, "SnapshotLost".into())));
    world.settle();
    assert_eq!((said(&world).0, world.storage.runs()), (true, vec![1]));
}

#[test]
fn a_snapshot_whose_content_points_elsewhere_is_not_used() {
    let mut world = exported(world());
    world.storage.snapshotter_acts();
    let content = world.storage.contents.values_mut().next().unwrap();
    let uid = std::mem::replace(&mut content.snapshot_uid, "another".into());
    world.reconcile();
    assert_eq!((at(&world).0.as_str(), said(&world)), ("Failed", (false, "NotBound".into())));
    assert_eq!(world.storage.volumes.len(), 1, "nothing is released");
    world.storage.contents.values_mut().next().unwrap().snapshot_uid = uid;
    world.reconcile();
    assert_eq!(world.phase(), "Ready");
}

#[test]
fn an_error_of_the_driver_is_told_and_waited_for_and_no_second_snapshot_is_made() {
    let mut world = world();
    world.storage.error = Some("the array is busy".into());
    world = exported(world);
    for minutes in [1_u64, 28] {
        world.storage.snapshotter_acts();
        world.reconcile();
        assert_eq!((at(&world).0.as_str(), at(&world).1.as_str()), ("Creating", "Snapshot"));
        assert!(world.condition("Ready").2.contains("the array is busy"));
        world.pass(Duration::from_mins(minutes));
    }
    world.pass(Duration::from_mins(2));
    world.reconcile();
    assert_eq!((at(&world).0.as_str(), world.kstatus()), ("Failed", "Failed"), "after half an hour");
    world.pass(Duration::from_hours(30));
    world.reconcile();
    assert_eq!(world.storage.snapshots.len(), 1);
    world.storage.error = None;
    world.storage.snapshotter_acts();
    world.reconcile();
    assert_eq!(at(&world), is("Ready", "Complete", "100%"));
    assert_eq!(world.storage.done, ["volume 1", "export 1", "snapshot 1"]);
}

#[test]
fn a_cluster_without_snapshots_has_ready_caches_and_a_notice_until_it_has_some() {
    let mut world = world();
    world.storage.api = Api::Absent;
    world = pulled(world);
    assert_eq!(
        (at(&world), said(&world)),
        (is("Ready", "Complete", "100%"), (false, "NoSnapshotApi".into()))
    );
    assert!(world.status().notices.iter().any(|notice| notice.contains("external-snapshotter")));
    assert_eq!(world.plan().unwrap().again, Again::OnChange, "the watch calls");
    world.storage.works();
    world.settle();
    assert_eq!((at(&world).0.as_str(), said(&world).0), ("Ready", true));
    assert_eq!(world.status().notices, Vec::<String>::new());
    world.storage.api = Api::Absent;
    world.reconcile();
    assert_eq!((at(&world).0.as_str(), world.status().snapshot), ("Ready", None), "removed at run time");
    world.storage.works();
    world.reconcile();
    assert_eq!(world.storage.done, ["volume 1", "export 1", "snapshot 1"], "and back: nothing is made twice");
}

#[test]
fn a_controller_that_was_just_started_says_what_was_said_before() {
    let mut world = ready();
    world.storage.api = Api::Unknown;
    let before = world.status();
    world.reconcile();
    assert_eq!(world.status(), before);
    let mut world = exported(self::world());
    world.storage.api = Api::Unknown;
    world.reconcile();
    assert_eq!(at(&world).0, "Creating");
}

#[test]
fn classes_that_cannot_work_are_named_and_nothing_is_made_until_they_do() {
    let driver = "csi.example.com";
    for (what, reason) in [
        ("none", "NoSnapshotClass"),
        ("two", "TwoDefaultClasses"),
        ("driver", "WrongDriver"),
        ("storage", "NoStorageClass"),
    ] {
        let mut world = world();
        let storage = &mut world.storage;
        let wanted = world.settings.snapshots.as_mut().unwrap();
        match what {
            "none" => storage.classes.snapshot.clear(),
            "two" => {
                wanted.class = None;
                storage.classes.snapshot.push(class("more", driver, true));
            }
            "driver" => storage.classes.snapshot[0].driver = "other.example.com".into(),
            _ => storage.classes.storage.clear(),
        }
        world = pulled(world);
        assert_eq!(
            (at(&world).0.as_str(), world.kstatus(), said(&world).1.as_str()),
            ("Failed", "Failed", reason),
            "{what}"
        );
        assert!(matches!(world.plan().unwrap().again, Again::After(wait) if wait <= Duration::from_mins(1)));
        assert_eq!(world.storage.done, Vec::<String>::new());
        world.settle();
        assert_eq!(at(&world).0, "Ready", "{what}");
    }
}

#[test]
fn the_default_class_is_the_one_of_the_volumes_driver() {
    let mut world = world();
    world.settings.snapshots.as_mut().unwrap().class = None;
    world.storage.classes.snapshot.push(class("other", "other.example.com", true));
    world.reconcile();
    for _ in 0..8 {
        world.reconcile();
        world.job_ends(false);
        world.storage.export_ends(world.now);
        world.storage.snapshotter_acts();
    }
    assert_eq!(world.storage.runs(), [1]);
}

#[test]
fn caches_that_were_ready_before_snapshots_were_wanted_stay_so_and_get_one_in_their_turn() {
    let mut world = World::new(cache(&["nginx:1"]));
    world.settle();
    world = with_snapshots(world);
    world.storage.busy = 4;
    world.reconcile();
    assert_eq!((at(&world).0.as_str(), said(&world)), ("Ready", (false, "Queued".into())));
    assert_eq!(world.storage.done, Vec::<String>::new());
    world.settle();
    assert_eq!((at(&world), world.storage.runs()), (is("Ready", "Complete", "100%"), vec![1]));
}

#[test]
fn an_expired_cache_that_is_kept_keeps_no_snapshot() {
    let mut world = World::new(cache(&["nginx:1"]));
    world.edit(|object| {
        crate::world::tracked(object);
        object.spec.retention_days = Some(1);
    });
    world = with_snapshots(world);
    world.settle();
    world.pass(Duration::from_hours(25));
    world.reconcile();
    world.reconcile();
    assert_eq!((world.phase().as_str(), said(&world).1.as_str()), ("Expired", "Expired"));
    assert!(world.storage.snapshots.is_empty());
}

#[test]
fn what_the_controller_forgets_of_its_status_it_finds_in_the_runs_of_snapshots() {
    let mut world = ready();
    world.edit(|object| object.status = None);
    world.settle();
    assert_eq!((world.run(), world.storage.runs()), (2, vec![2]));
}

#[test]
fn wherever_the_controller_is_killed_the_next_one_goes_on() {
    for (flashed, at_step, kill) in
        (0..2).flat_map(|f| (0..14).flat_map(move |n| (0..4).map(move |k| (f == 1, n, k))))
    {
        let mut world = if flashed { flash(world()) } else { world() };
        for n in 0..24 {
            let (judged, facts) = world.look().unwrap();
            let plan = world.plan().unwrap();
            let steps = if n == at_step { kill } else { usize::MAX };
            world.apply(&judged, &facts, plan, steps);
            world.job_ends(false);
            world.storage.export_ends(world.now);
            world.storage.snapshotter_acts();
        }
        assert_eq!(
            (world.phase().as_str(), world.storage.runs()),
            ("Ready", vec![1]),
            "killed at {at_step}.{kill}"
        );
        assert_eq!(world.storage.done, ["volume 1", "export 1", "snapshot 1"], "killed at {at_step}.{kill}");
        assert!(world.storage.is_quiet() && said(&world).0);
    }
}
