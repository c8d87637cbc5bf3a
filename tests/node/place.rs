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
    place("securityGroups: {sg-placed: {network: placed}}");
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
    unplace();
}

#[test]
fn a_pull_goes_to_the_subnet_that_has_a_node() {
    const ZONE: &str = "topology.kubernetes.io/zone";
    const CONTROLLER: &str = "deployment/imagecache-controller";
    const ARGUMENTS: &str = "/spec/template/spec/containers/0/args";
    let world = world();
    let _alone = world.alone();
    let registry = Registry::start("zones.test");
    world.storage.put("zones/app", "1", &Image::of(vec![Blob::named("zones", 100_000)]));
    let node = world.cluster.list(&["nodes"])[0]["metadata"]["name"].as_str().unwrap().to_owned();
    world.cluster.run(&["label", "node", &node, &format!("{ZONE}=here")]);
    place(&format!("subnets: {{vsw-here: {{{ZONE}: here}}, vsw-empty: {{{ZONE}: elsewhere}}}}"));
    // Otherwise the store's node decides. No controller with the old arguments or the old map may be left.
    let arguments = |patch: &str| {
        world.stop_controllers();
        world.cluster.run(&["patch", "--type=json", "-p", patch, "-n", SYSTEM, CONTROLLER]);
        world.start_controllers();
    };
    arguments(&format!(r#"[{{"op": "add", "path": "{ARGUMENTS}/1", "value": "--store-on-all-nodes"}}]"#));

    let mut object = plain_cache("zones", &[registry.image("zones/app", "1")]);
    object["metadata"]["annotations"]["k8s.aliyun.com/vswitch-ids"] = json!("vsw-empty");
    world.apply(&object);
    let waits = world.wait_for("zones", "a pod that no node takes", |status| {
        status.message().contains("0/1 nodes are available")
    });
    assert!(!waits.holds("Ready") && waits.holds("Reconciling"), "{:?}", waits.object["status"]);

    object["metadata"]["annotations"]["k8s.aliyun.com/vswitch-ids"] = json!("vsw-empty,vsw-here");
    world.apply(&object);
    let ready = world.wait_ready("zones");
    assert!(ready.list("notices").is_empty(), "{:?}", ready.object["status"]);

    arguments(&format!(r#"[{{"op": "remove", "path": "{ARGUMENTS}/1"}}]"#));
    world.cluster.run(&["label", "node", &node, &format!("{ZONE}-")]);
    unplace();
}

#[test]
fn two_pulls_that_share_an_eip_run_one_after_the_other() {
    let world = world();
    let _shared = world.shared();
    let registry = Registry::start("shared-eip.test");
    let apply = |name: &str| {
        let image = Image::of(vec![Blob::named(name, 4 << 20)]);
        world.storage.put(&format!("eip/{name}"), "1", &image);
        let mut object = plain_cache(name, &[registry.image(&format!("eip/{name}"), "1")]);
        object["metadata"]["annotations"]["k8s.aliyun.com/eip-instance-id"] = json!("eip-shared");
        world.apply(&object);
    };
    registry.gate.hold_after(1 << 20);
    apply("eip-first");
    registry.gate.wait_until_held();
    apply("eip-second");
    let queued = world.wait_for("eip-second", "its place in the queue", |status| {
        status.phase() == "Pending" && status.message().contains("eip-first")
    });
    assert!(queued.message().contains("eip-shared"), "{}", queued.message());
    assert!(world.children(queued.uid()).is_empty(), "it has no Job");
    registry.gate.release();
    let first = world.wait_ready("eip-first");
    let second = world.wait_ready("eip-second");
    assert!(second.text("/ledger/root/at") > first.text("/ledger/root/at"));
    world.wait_childless(second.uid());
}

/// The operator's placement map.
fn place(map: &str) {
    world().apply(&json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "imagecache-placement", "namespace": SYSTEM},
        "data": {"placement.yaml": map}}));
}

fn unplace() {
    world().cluster.run(&["delete", "configmap", "imagecache-placement", "-n", SYSTEM]);
}
