//! The commands for people: the same worker and the same manifest, without any cluster. Each gathers, then prints
//! by a pure function.

pub mod archive;
mod bar;
mod choose;
pub mod convert;
pub mod explain;
pub mod gc;
mod login;
pub mod ls;
pub mod manifest;
pub mod pull;
pub mod repair;
pub mod rm;
pub mod table;
mod upstream;
pub mod verify;
pub mod volume;
