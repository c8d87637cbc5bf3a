//! The controller's rights are those it needs: the API server refused it nothing, as its audit log shows.

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
};

use serde_json::{Value, json};

use crate::world::{
    image::{Blob, Image},
    plain_cache, pull_secret,
    registry::{Registry, USER},
    world,
};

const CONTROLLER: &str = "system:serviceaccount:imagecache-system:imagecache-controller";

/// What the controller asked for and did not get for want of rights.
fn refusals() -> Vec<String> {
    let log = BufReader::new(File::open(world().cluster.dir.join("log/audit.log")).unwrap());
    let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(&line.ok()?).ok());
    let refused = events
        .filter(|event| event["user"]["username"] == CONTROLLER && event["responseStatus"]["code"] == 403);
    let mut refused: Vec<String> =
        refused.map(|event| format!("{} {}", event["verb"], event["requestURI"])).collect();
    refused.sort();
    refused.dedup();
    refused
}

#[test]
fn nothing_the_controller_does_is_refused() {
    let world = world();
    let _shared = world.shared();
    let registry = Registry::start("rights.test");
    world.storage.put("rights/app", "1", &Image::of(vec![Blob::named("rights", 100_000)]));
    world.apply(&pull_secret("default", "rights-login", &registry.name, USER, "unused"));
    let mut object = plain_cache("rights", &[registry.image("rights/app", "1")]);
    object["spec"]["imagePullSecrets"] = json!(["default:rights-login"]);
    world.apply(&object);
    let uid = world.wait_ready("rights").uid().to_owned();
    world.wait_childless(&uid);
    world.apply(&plain_cache("rights", &[registry.image("rights/app", "none")]));
    world.wait_for("rights", "a failed edit", |status| status.phase() == "UpdateFailed");
    world.cluster.run(&["delete", "imagecache", "rights"]);
    assert_eq!(refusals(), Vec::<String>::new());
}
