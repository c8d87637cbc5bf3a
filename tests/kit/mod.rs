//! What tests on a real Kubernetes share: a cluster for as long as the tests run, kubectl, and how a status is read.

#![allow(dead_code)] // each test binary uses its own part

pub mod cluster;
pub mod guard;
pub mod kstatus;
