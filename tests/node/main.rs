//! The operator on a real node, against real registries: `cargo test --test node`. Takes root, the packages of
//! tests/cluster/packages.sh and `make image`. `IMAGECACHE_TEST_NODE=DIR` uses a cluster that is up already,
//! `IMAGECACHE_IMAGE_TAR=FILE` another image.

#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used)] // test code throughout

#[path = "../kit/mod.rs"]
mod kit;
mod world;

mod collect;
mod commands;
mod deletion;
mod failures;
mod place;
mod restarts;
mod rights;
mod secrets;
mod sharing;

/// What is installed.
const INSTALL: &str = "tests/node/install";

/// Nothing more than a node.
fn prepare(_: &kit::cluster::Cluster) {}
