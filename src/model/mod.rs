//! The pure core: what we decide. Nothing here reads a clock, a file, the network or the environment.

pub mod acr;
pub mod advice;
pub mod annotations;
pub mod class;
pub mod conditions;
pub mod credentials;
pub mod digest;
pub mod facts;
pub mod failure;
mod glob;
pub mod judge;
pub mod ledger;
pub mod live;
pub mod names;
pub mod plan;
pub mod platform;
pub mod queue;
pub mod reference;
pub mod report;
pub mod request;
pub mod retry;
pub mod root;
pub mod run;
#[cfg(test)]
pub(crate) mod samples;
mod secrets;
pub mod served;
pub mod settings;
pub mod stage;
pub mod status;
pub mod text;
pub mod volume;
