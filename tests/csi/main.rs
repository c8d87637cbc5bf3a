//! Snapshots on a real node, with a real CSI driver and the real sidecars: `make test-snapshots`, or
//! `cargo test --test csi -- --test-threads=1`, since the driver's faults are for all. Takes what tests/node takes.
//! `IMAGECACHE_TEST_NODE=DIR` uses a cluster that is up already.

#![allow(unreachable_pub, dead_code, clippy::unwrap_used, clippy::expect_used)] // test code throughout

#[path = "../kit/mod.rs"]
mod kit;
#[path = "../node/world/mod.rs"]
mod world;

mod faults;
mod life;
mod restore;
mod volumes;

use std::process::Command;

use kit::cluster::{Cluster, command, root};

const INSTALL: &str = "tests/csi/install";

fn prepare(cluster: &Cluster) {
    command(Command::new(root().join("tests/cluster/build.sh")).arg("--csi")).succeeded("build.sh --csi");
    cluster.cluster("csi", &[]).succeeded("cluster csi");
}
