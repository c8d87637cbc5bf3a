//! The pure core: what we decide. Nothing here reads a clock, a file, the network or the environment.

pub mod class;
pub mod digest;
pub mod failure;
pub mod platform;
pub mod reference;
pub mod report;
pub mod request;
pub mod root;
