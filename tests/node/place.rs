//! Settings that reach the pull pod, on a real node: names, the placement map.

use serde_json::json;

use crate::world::{
    SYSTEM,
    image::{Blob, Image},
    plain_cache,
    registry::{Registry, host_ip},
    world,
};

/// Nothing on the node, in the cluster or on the machine knows it.
const NAME: &str = "registry.only-an-alias.invalid";

#[test]
fn a_name_that_only_host_aliases_know_is_pulled_from_once_they_are_there() {
    let world = world();
    let _shared = world.shared();
    let registry = Registry::start("behind-an-alias.test");
    world.storage.put("aliased/app", "1", &Image::of(vec![Blob::named("aliased", 100_000)]));
    let port = registry.name.rsplit(':').next().unwrap();
    let mut object = plain_cache("aliased", &[format!("{NAME}:{port}/aliased/app:1")]);
    object["metadata"]["annotations"]["k8s.aliyun.com/imc-size"] = json!("20");
    world.apply(&object);
    let failed = world.wait_for("aliased", "a failed lookup", |status| status.reason() == "Dns");
    let message = failed.message().to_owned();
    assert!(
        message.contains("no such host") && message.contains("k8s.aliyun.com/eci-custom-hosts"),
        "{message}"
    );

    let aliases = json!([{"ip": host_ip(), "hostnames": [NAME]}]).to_string();
    object["metadata"]["annotations"]["k8s.ksyun.com/kci-host-aliases"] = json!(aliases);
    world.apply(&object);
    let ready = world.wait_ready("aliased");
    world.wait_childless(ready.uid());
}

#[test]
fn a_security_group_of_the_placement_map_is_a_label_of_the_pull_pod() {
    let world = world();
    let _shared = world.shared();
    let registry = Registry::start("placed.test");
    world.storage.put("placed/app", "1", &Image::of(vec![Blob::named("placed", 100_000)]));
    world.apply(&json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "imagecache-placement", "namespace": SYSTEM},
        "data": {"placement.yaml": "securityGroups: {sg-placed: {network: placed}}"}}));
    registry.stop();
    let mut object = plain_cache("placed", &[registry.image("placed/app", "1")]);
    object["metadata"]["annotations"]["k8s.aliyun.com/security-group-id"] = json!("sg-placed");
    world.apply(&object);
    // The map may be newer than the first pull: that one fails, the registry is down.
    crate::kit::cluster::eventually("a pull pod with the label", || {
        let pods = world.cluster.list(&["pods", "-n", SYSTEM, "-l", "network=placed"]);
        (!pods.is_empty()).then_some(())
    });
    registry.start_again();
    world.wait_ready("placed");
    world.cluster.run(&["delete", "configmap", "imagecache-placement", "-n", SYSTEM]);
}
