//! A cache's snapshots from the first to the last, and what is left of each.

use serde_json::{Value, json};

use crate::{
    kit::cluster::{eventually, root},
    volumes::{Cache, Fault, contents, delete, snapshot_of, snapshots, wait_settled},
    world::{SYSTEM, world},
};

#[test]
fn an_edit_keeps_the_old_snapshot_until_the_new_one_is_ready_and_deletion_leaves_nothing() {
    let world = world();
    let _alone = world.alone();
    let mut cache = Cache::new(world, "edited");
    world.apply(&cache.object);
    let first = cache.wait_ready(world);
    wait_settled(world, &first);
    assert_eq!((first.text("/progress"), first.text("/snapshot/deletionPolicy")), ("100%", "Delete"));
    assert!(first.number("/snapshot/size") > 20 << 30);

    let fault = Fault::new(world, "snapshot-unready", "");
    cache.edit(world, "2");
    let during = cache.wait(world, "the new snapshot in the making", |status| {
        status.reason() == "Snapshotting" && status.text("/progress") == "95%"
    });
    assert_eq!(during.phase(), "Updating");
    assert_eq!(during.text("/snapshot/name"), first.text("/snapshot/name"), "the old one can be restored");
    assert_eq!(snapshot_of(world, &during)["status"]["readyToUse"], true);
    drop(fault);
    let second = cache.wait_ready(world);
    assert_ne!(second.text("/snapshot/name"), first.text("/snapshot/name"));
    wait_settled(world, &second);
    delete(world, &second);
    let id = second.text("/imageCacheId");
    eventually("the end of the content", || contents(world, id).is_empty().then_some(()));
}

#[test]
fn with_flash_a_cache_is_ready_before_its_snapshot() {
    let world = world();
    let _alone = world.alone();
    let fault = Fault::new(world, "snapshot-unready", "");
    let cache = Cache::new(world, "flash").with_flash();
    world.apply(&cache.object);
    let early = cache.wait(world, "Ready", |status| status.phase() == "Ready");
    assert!(!early.holds("Snapshot") && early.text("/progress") != "100%", "{}", early.text("/progress"));
    world.kill_controllers();
    cache.wait(world, "the snapshot in the making", |status| status.text("/progress") == "95%");
    drop(fault);
    let status = cache.wait_ready(world);
    assert_eq!(status.text("/progress"), "100%");
    wait_settled(world, &status);
    delete(world, &status);
}

#[test]
fn a_snapshot_that_is_deleted_by_hand_is_taken_again() {
    let world = world();
    let _alone = world.alone();
    let cache = Cache::new(world, "by-hand");
    world.apply(&cache.object);
    let first = cache.wait_ready(world);
    let before = snapshot_of(world, &first);
    world.cluster.run(&["delete", "volumesnapshot", "-n", SYSTEM, first.text("/snapshot/name")]);
    let during = cache.wait(world, "the loss", |status| !status.holds("Snapshot"));
    assert_eq!((during.phase(), during.text("/progress")), ("Ready", "100%"));
    assert_eq!(during.condition("Snapshot").unwrap()["reason"], "SnapshotLost");
    let status = cache.wait_ready(world);
    let after = snapshot_of(world, &status);
    assert_ne!(before["metadata"]["uid"], after["metadata"]["uid"]);
    wait_settled(world, &status);
    assert_eq!(cache.registry.fetches(&cache.image.layers[0].digest).len(), 1, "nothing is pulled for it");
    delete(world, &status);
}

#[test]
fn a_cache_that_is_deleted_in_any_stage_of_its_snapshot_leaves_nothing() {
    let world = world();
    let _alone = world.alone();
    let stages = ["Pulling", "Exporting", "Snapshotting"];
    for (n, stage) in stages.iter().enumerate() {
        for controller in [true, false] {
            let fault = Fault::new(world, "snapshot-unready", "");
            let cache = Cache::new(world, &format!("deleted-{n}-{controller}"));
            world.apply(&cache.object);
            let reached = |status: &crate::kit::kstatus::Status| {
                status.condition("Snapshot").is_some_and(|snapshot| snapshot["reason"] == *stage)
            };
            let status = cache.wait(world, stage, reached);
            if !controller {
                world.stop_controllers();
            }
            drop(fault);
            delete(world, &status);
            let id = status.text("/imageCacheId");
            eventually("the end of the content", || contents(world, id).is_empty().then_some(()));
            if !controller {
                world.start_controllers();
            }
        }
    }
}

/// Another install for as long as this lives.
struct Patched;

impl Patched {
    fn with(arguments: &[&str]) -> Self {
        let add = |argument: &&str| json!({"op": "add", "path": "/spec/template/spec/containers/0/args/-", "value": argument});
        let patch = json!(arguments.iter().map(add).collect::<Vec<_>>()).to_string();
        let patched = Self;
        world().cluster.run(&[
            "-n",
            SYSTEM,
            "patch",
            "deployment",
            "imagecache-controller",
            "--type=json",
            "-p",
            &patch,
        ]);
        Self::rolled_out();
        patched
    }

    fn rolled_out() {
        world().cluster.run(&[
            "-n",
            SYSTEM,
            "rollout",
            "status",
            "deployment/imagecache-controller",
            "--timeout=180s",
        ]);
    }
}

impl Drop for Patched {
    fn drop(&mut self) {
        world().cluster.run(&["apply", "-k", root().join(crate::INSTALL).to_str().unwrap()]);
        Self::rolled_out();
    }
}

#[test]
fn what_is_retained_stays_and_is_found_by_the_id_also_from_a_volume_that_is_bound_at_once() {
    let world = world();
    let _alone = world.alone();
    let _patched = Patched::with(&["--snapshot-class=csi-retain", "--snapshot-storage-class=csi"]);
    let cache = Cache::new(world, "retained");
    world.apply(&cache.object);
    let status = cache.wait_ready(world);
    assert_eq!(
        (status.text("/snapshot/deletionPolicy"), status.text("/snapshot/class")),
        ("Retain", "csi-retain")
    );
    wait_settled(world, &status);
    delete(world, &status);
    let kept = contents(world, status.text("/imageCacheId"));
    assert_eq!(kept, [status.text("/snapshot/contentName")]);
    let delete = json!({"spec": {"deletionPolicy": "Delete"}}).to_string();
    world.cluster.run(&["patch", "volumesnapshotcontent", &kept[0], "--type=merge", "-p", &delete]);
    world.cluster.run(&["delete", "volumesnapshotcontent", &kept[0], "--timeout=60s"]);
}

#[test]
fn children_that_were_left_behind_are_swept_with_their_snapshots() {
    let world = world();
    let _alone = world.alone();
    let cache = Cache::new(world, "left-behind");
    world.apply(&cache.object);
    let status = cache.wait_ready(world);
    world.cluster.run(&["delete", "imagecache", "left-behind", "--cascade=orphan"]);
    eventually("the sweep", || snapshots(world, status.uid()).is_empty().then_some(()));
}

#[test]
fn definitions_that_are_removed_and_come_back_cost_no_readiness() {
    let world = world();
    let _alone = world.alone();
    let cache = Cache::new(world, "definitions");
    world.apply(&cache.object);
    let first = cache.wait_ready(world);
    let crds = ["volumesnapshots", "volumesnapshotcontents", "volumesnapshotclasses"]
        .map(|kind| format!("{kind}.snapshot.storage.k8s.io"));
    let saved: Vec<Value> = crds.iter().map(|crd| world.cluster.get(&["crd", crd]).unwrap()).collect();
    let classes = world.cluster.list(&["volumesnapshotclasses"]);
    // Its finalizers go first, or its definition would wait for them.
    world.cluster.run(&["delete", "volumesnapshot", "-n", SYSTEM, first.text("/snapshot/name")]);
    for crd in &crds {
        world.cluster.run(&["delete", "crd", crd, "--timeout=60s"]);
    }
    let without = cache.wait(world, "the loss of the definitions", |status| {
        status.condition("Snapshot").is_some_and(|snapshot| snapshot["reason"] == "NoSnapshotApi")
    });
    assert_eq!(without.phase(), "Ready");
    assert!(without.list("notices").iter().any(|notice| notice.as_str().unwrap().contains("CRDs")));
    for crd in saved {
        let spec = json!({"apiVersion": crd["apiVersion"], "kind": crd["kind"], "spec": crd["spec"],
            "metadata": {"name": crd["metadata"]["name"], "annotations": crd["metadata"]["annotations"]}});
        world.cluster.send(&spec, &["create"]).succeeded("the definition");
    }
    for class in classes {
        let mut class = class;
        class["metadata"] =
            json!({"name": class["metadata"]["name"], "annotations": class["metadata"]["annotations"]});
        eventually("the class", || world.cluster.send(&class, &["apply"]).ok.then_some(()));
    }
    let status = cache.wait_ready(world);
    wait_settled(world, &status);
    delete(world, &status);
}

/// Whole events of the controller in the audit log, those that it asked for after the event of this number.
fn asked(after: usize) -> Vec<Value> {
    let log = std::fs::read_to_string(world().cluster.dir.join("log/audit.log")).unwrap();
    let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let who = "system:serviceaccount:imagecache-system:imagecache-controller";
    events
        .filter(|event| event["user"]["username"] == who && event["stage"] == "ResponseComplete")
        .skip(after)
        .collect()
}

fn said(event: &Value) -> String {
    format!("{} {}", event["verb"].as_str().unwrap(), event["requestURI"].as_str().unwrap())
}

#[test]
fn nothing_the_controller_does_for_snapshots_is_refused_and_a_settled_cache_asks_for_nothing() {
    let world = world();
    let _alone = world.alone();
    let cache = Cache::new(world, "settled");
    world.apply(&cache.object);
    let status = cache.wait_ready(world);
    wait_settled(world, &status);
    let renewals = |events: &[Value]| events.iter().filter(|event| said(event).contains("/leases/")).count();
    let wait_for_renewals = |after: usize, n: usize| {
        eventually("renewals of the lease", || {
            let events = asked(after);
            (renewals(&events) >= n).then_some(events)
        })
    };
    // What was under way when it settled is over.
    let before = asked(0).len();
    let before = before + wait_for_renewals(before, 3).len();
    let events = wait_for_renewals(before, 20);
    // The collector may be at work for caches that other tests deleted.
    let id = status.text("/imageCacheId");
    let about_it = |said: &String| {
        ["snapshot", "persistentvolumeclaims", "storageclasses", "imagecaches/settled", id]
            .iter()
            .any(|word| said.contains(word))
    };
    let others: Vec<String> =
        events.iter().filter(|event| event["verb"] != "watch").map(said).filter(about_it).collect();
    assert_eq!(others, Vec::<String>::new());
    let refused = asked(0).into_iter().filter(|event| event["responseStatus"]["code"] == 403);
    assert_eq!(refused.map(|event| said(&event)).collect::<Vec<_>>(), Vec::<String>::new());
    delete(world, &status);
}
