//! What a user types: wait, get, describe, events.

use crate::{
    kit::cluster::eventually,
    world::{
        image::{Blob, Image},
        plain_cache,
        registry::Registry,
        world,
    },
};

#[test]
fn kubectl_waits_for_it_and_shows_what_was_pulled() {
    let world = world();
    let _shared = world.shared();
    let registry = Registry::start("commands.test");
    let image = Image::of(vec![Blob::named("commands", 3 << 20)]);
    world.storage.put("commands/app", "1", &image);
    let name = registry.image("commands/app", "1");
    let cluster = &world.cluster;
    world.apply(&plain_cache("commands", std::slice::from_ref(&name)));

    cluster.run(&["wait", "--for=condition=Ready", "imagecache/commands", "--timeout=300s"]);
    let status = world.wait_ready("commands");
    assert_eq!(status.list("images")[0]["name"], name.as_str());
    assert_eq!(status.list("images")[0]["digest"], image.manifest.digest.as_str());
    assert_eq!(status.number("/images/0/size"), image.size());
    assert_eq!(status.number("/images/0/pulled"), image.size());
    assert_eq!(status.number("/size"), image.size());
    assert_eq!((status.reason(), status.text("/progress")), ("Complete", "100%"));

    let list = cluster.run(&["get", "ic,imc", "commands", "--no-headers"]);
    let shown: Vec<&str> = list.split_whitespace().collect();
    let id = status.text("/imageCacheId");
    let named = shown[0].rsplit('/').next();
    assert_eq!((named, &shown[2..6]), (Some("commands"), &[id, "Ready", "100%", "True"][..]));

    // Events follow the status.
    let events = eventually("the event of its completion", || {
        let events = cluster.run(&["events", "--for", "imagecache/commands"]);
        events.contains("Complete").then_some(events)
    });
    assert!(events.contains("Preparing"), "{events}");
    let described = cluster.run(&["describe", "imagecache", "commands"]);
    let part = described.rsplit("Events:").next().unwrap();
    assert!(part.contains("Normal") && part.contains("Complete"), "{part}");
    assert!(part.contains("3.0 MiB pulled"), "{part}");
    // Plain HTTP that carries no credential is not worth a word.
    assert!(!part.contains("Warning") && !part.contains("Notice"), "{part}");
}

#[test]
fn an_edit_keeps_the_id_and_pulls_only_what_is_new() {
    let world = world();
    let _shared = world.shared();
    let registry = Registry::start("edit.test");
    let base = Blob::named("edit-base", 2 << 20);
    let first = Image::of(vec![base.clone(), Blob::named("edit-1", 1 << 20)]);
    let second = Image::of(vec![base.clone(), Blob::named("edit-2", 1 << 20)]);
    world.storage.put("edit/app", "1", &first);
    world.storage.put("edit/app", "2", &second);
    world.apply(&plain_cache("edit", &[registry.image("edit/app", "1")]));
    let before = world.wait_ready("edit");

    // Old content stays available until the new is complete.
    registry.gate.hold_after(64 << 10);
    world.apply(&plain_cache("edit", &[registry.image("edit/app", "2")]));
    let during =
        world.wait_for("edit", "Updating", |status| status.is_current() && status.phase() == "Updating");
    assert!(during.holds("Available"));
    registry.gate.release();
    let after = world.wait_for("edit", "the second image", |status| {
        status.phase() == "Ready" && status.text("/images/0/digest") == second.manifest.digest
    });
    assert_eq!(after.text("/imageCacheId"), before.text("/imageCacheId"));
    assert_eq!(registry.fetches(&base.digest).len(), 1);
    assert_eq!(after.number("/images/0/reused"), base.size());
}
