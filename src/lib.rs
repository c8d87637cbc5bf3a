//! imagecache keeps container images ready: an operator, its pull worker and its mirror in one binary.
//!
//! Folder = boundary, and nothing imports upward (`tests/boundaries.rs` holds it):
//!
//! | folder | answers for | may use |
//! |---|---|---|
//! | [`api`] | what the user can write | derives, k8s types |
//! | [`model`] | what we decide: pure, no clock, no files, no network | `api` |
//! | [`convert`] | other clouds' image caches as ours: pure | `model`, `api` |
//! | [`render`] | what we create in the cluster | `model`, `api` |
//! | [`cluster`] | what we read and write in the cluster | `render`, `model`, `api`, `acr`, kube |
//! | [`controller`] | watches, reconcile: gather, judge, plan, apply, report | `cluster`, `acr`, `model`, `ops` |
//! | [`registry`] | the client of upstream registries | `model` |
//! | [`acr`] | password-free pulls: the token chain of Alibaba Cloud | `registry`, `model`, `ops` |
//! | [`store`] | the content-addressed folder | `model` |
//! | [`pull`] | the worker: request in, store filled, progress out | `registry`, `store`, `model`, `ops` |
//! | [`export`] | a cache as an OCI archive or layout, and back; and on a volume of its own | `registry`, `store`, `model` |
//! | [`gc`] | taking away what no cache needs | `store`, `model` |
//! | [`mirror`] | the read-only registry in front of the store | `store`, `model`, `ops` |
//! | [`local`] | the commands for people: `pull -f`, `ls`, `verify`, `rm`, `gc`, `export`, `import`, `convert`, `explain` | those above |
//! | [`ops`] | logs, clock, metrics, shutdown | third-party crates |

pub mod acr;
pub mod api;
pub mod cli;
pub mod cluster;
pub mod controller;
pub mod convert;
pub mod export;
pub mod gc;
pub mod local;
pub mod mirror;
pub mod model;
pub mod ops;
pub mod pull;
pub mod registry;
pub mod render;
pub mod store;
