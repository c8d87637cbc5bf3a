//! Deleting the object returns at once and takes Job, Secrets and pod along, with the controller or without it.

use crate::{
    kit::cluster::eventually,
    world::{
        World,
        image::{Blob, Image},
        plain_cache,
        registry::Registry,
        world,
    },
};

fn cache(world: &World, name: &str) -> Registry {
    let registry = Registry::start(&format!("{name}.test"));
    world.storage.put(&format!("{name}/app"), "1", &Image::of(vec![Blob::named(name, 4 << 20)]));
    registry.gate.hold_after(1 << 20);
    world.apply(&plain_cache(name, &[registry.image(&format!("{name}/app"), "1")]));
    registry
}

fn delete(world: &World, name: &str) {
    world.cluster.run(&["delete", "imagecache", name, "--timeout=60s"]);
    assert_eq!(world.cluster.get(&["imagecache", name]), None);
}

/// UID of a cache whose pull is stuck in the middle.
fn caught(world: &World, name: &str, registry: &Registry) -> String {
    registry.gate.wait_until_held();
    let status = world.wait_for(name, "an object", |_| true);
    let kinds: Vec<String> =
        world.children(status.uid()).iter().map(|child| child["kind"].as_str().unwrap().to_owned()).collect();
    let count = |kind: &str| kinds.iter().filter(|k| *k == kind).count();
    assert_eq!((count("Job"), count("Secret"), count("Pod")), (1, 2, 1), "{kinds:?}");
    status.uid().to_owned()
}

#[test]
fn in_the_middle_of_a_pull_and_after_it() {
    let world = world();
    let _shared = world.shared();
    let registry = cache(world, "deleted-in-the-middle");
    let uid = caught(world, "deleted-in-the-middle", &registry);
    delete(world, "deleted-in-the-middle");
    world.wait_childless(&uid);

    let registry = cache(world, "deleted-after");
    registry.gate.release();
    let uid = world.wait_ready("deleted-after").uid().to_owned();
    // What a pull needed goes with its end, long before the object.
    world.wait_childless(&uid);
    delete(world, "deleted-after");
    world.wait_childless(&uid);
}

#[test]
fn in_the_middle_of_a_pull_and_after_it_without_a_controller() {
    let world = world();
    let _alone = world.alone();
    let after = cache(world, "orphan-after");
    after.gate.release();
    let done = world.wait_ready("orphan-after").uid().to_owned();
    let registry = cache(world, "orphan-in-the-middle");
    let uid = caught(world, "orphan-in-the-middle", &registry);
    world.stop_controllers();
    delete(world, "orphan-in-the-middle");
    delete(world, "orphan-after");
    world.wait_childless(&uid);
    world.wait_childless(&done);
    world.start_controllers();
}

#[test]
fn children_that_were_left_behind_are_swept() {
    let world = world();
    let _shared = world.shared();
    let registry = cache(world, "left-behind");
    let uid = caught(world, "left-behind", &registry);
    world.cluster.run(&["delete", "imagecache", "left-behind", "--cascade=orphan"]);
    eventually("the sweep", || world.children(&uid).is_empty().then_some(()));
}
