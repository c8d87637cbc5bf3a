//! What the API server makes of our definition, our policy and users' manifests: `cargo test --test api`.
//! Takes a cluster without nodes and no root. `IMAGECACHE_TEST_API=DIR` uses one that is up already,
//! `IMAGECACHE_TEST_API_SETTINGS=DIR` and `IMAGECACHE_TEST_API_SNAPSHOTS=DIR` others for the tests with a controller.

#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used)] // test code throughout

#[path = "../kit/mod.rs"]
mod kit;

mod clock;
mod collect;
mod definition;
mod life;
mod manifests;
mod policy;
mod rights;
mod settings;
mod snapshots;
mod world;
