//! A snapshot is worth what can be restored from it: examples/snapshot, as a person applies it.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
};

use crate::{
    kit::cluster::{eventually, root},
    volumes::{Cache, delete, wait_settled},
    world::{SYSTEM, World, world},
};

/// The example with the blanks filled in.
fn example(file: &str, blanks: &[(&str, &str)]) -> String {
    let text = fs::read_to_string(root().join("examples/snapshot").join(file)).unwrap();
    blanks.iter().fold(text, |text, (blank, value)| text.replace(blank, value))
}

fn get(address: &str, path: &str) -> (u16, Vec<u8>) {
    let mut stream = TcpStream::connect(address).unwrap();
    let accept = "application/vnd.oci.image.manifest.v1+json";
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let status = String::from_utf8_lossy(&answer[9..12]).parse().unwrap();
    (status, answer[end + 4..].to_vec())
}

fn serves(world: &World, namespace: &str, cache: &Cache) {
    let ready = ["rollout", "status", "deployment/shop-images", "-n", namespace, "--timeout=300s"];
    world.cluster.run(&ready);
    let pods = world.cluster.list(&["pods", "-n", namespace, "-l", "app=shop-images"]);
    let verified = &pods[0]["status"]["initContainerStatuses"][0]["state"]["terminated"]["exitCode"];
    assert_eq!(verified, 0, "every byte is right");
    let said = world.cluster.run(&[
        "logs",
        "-n",
        namespace,
        pods[0]["metadata"]["name"].as_str().unwrap(),
        "-c",
        "verify",
    ]);
    assert!(said.contains("every byte is right: 4 blobs"), "{said}");
    let address = format!("{}:5000", pods[0]["status"]["podIP"].as_str().unwrap());
    let repository = format!("/v2/{}/app", cache.name);
    let ns = format!("ns={}", cache.registry.name);
    let (status, manifest) =
        get(&address, &format!("{repository}/manifests/{}?{ns}", cache.image.manifest.digest));
    assert_eq!((status, manifest), (200, cache.image.manifest.bytes.clone()));
    for blob in &cache.image.layers {
        let (status, bytes) = get(&address, &format!("{repository}/blobs/{}?{ns}", blob.digest));
        assert!(status == 200 && bytes == blob.bytes, "{status}");
    }
}

#[test]
fn a_volume_from_a_snapshot_verifies_and_serves_here_and_in_another_namespace() {
    let world = world();
    let _alone = world.alone();
    let cache = Cache::new(world, "restored");
    world.apply(&cache.object);
    let status = cache.wait_ready(world);
    wait_settled(world, &status);
    // Nothing else is needed any more.
    cache.registry.stop();
    let image = ("image: imagecache", "image: localhost/imagecache:dev");
    let class = ("# storageClassName: of the same", "storageClassName: csi-wait # of the same");
    let snapshot = ("SNAPSHOT", status.text("/snapshot/name"));
    world
        .cluster
        .send_text(&example("serve.yaml", &[image, class, snapshot]), &["apply"])
        .succeeded("serve.yaml");
    serves(world, SYSTEM, &cache);

    let name = status.text("/snapshot/contentName");
    let content = world.cluster.get(&["volumesnapshotcontent", name]).unwrap();
    let driver = ("DRIVER", content["spec"]["driver"].as_str().unwrap());
    let handle = ("HANDLE", content["status"]["snapshotHandle"].as_str().unwrap());
    world.cluster.kubectl(&["create", "namespace", "team-a"]);
    world
        .cluster
        .send_text(&example("elsewhere.yaml", &[driver, handle]), &["apply"])
        .succeeded("elsewhere.yaml");
    eventually("the snapshot of the other namespace", || {
        let snapshot = world.cluster.get(&["volumesnapshot", "-n", "team-a", "shop-images"])?;
        (snapshot["status"]["readyToUse"] == true).then_some(())
    });
    let there = [image, class, ("SNAPSHOT", "shop-images"), ("imagecache-system", "team-a")];
    world.cluster.send_text(&example("serve.yaml", &there), &["apply"]).succeeded("serve.yaml elsewhere");
    serves(world, "team-a", &cache);

    for namespace in [SYSTEM, "team-a"] {
        world.cluster.run(&[
            "delete",
            "-n",
            namespace,
            "deployment,service,pvc",
            "shop-images",
            "--timeout=120s",
        ]);
    }
    world.cluster.run(&["delete", "volumesnapshot", "-n", "team-a", "shop-images"]);
    world.cluster.run(&["delete", "volumesnapshotcontent", "shop-images-of-team-a"]);
    delete(world, &status);
}
