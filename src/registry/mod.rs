//! The client of upstream registries: resolve a name, read manifests, stream blobs. Our own on httparse and rustls:
//! the rules below need control of every request. Sources: OCI distribution-spec; what containerd, skopeo and the
//! kubelet do where it is silent.
//!
//! From the outside in: [`Client`] says what can be asked; [`blob`] streams and resumes; `exchange` finds the
//! right credential and follows redirects; `auth` talks to token services; `transport` sends one request within
//! limits; `lookup` finds addresses; `connect` and `tls` open connections; `crowd` counts who reads from where redirects
//! lead. Pure parts: [`manifest`], `challenge`, `realm`, `range`, `address`, `answer`.

mod address;
mod answer;
mod auth;
pub mod blob;
pub mod challenge;
pub mod client;
mod connect;
mod crowd;
mod exchange;
mod http1;
mod keyring;
pub mod limits;
mod lookup;
pub mod manifest;
mod platform;
pub mod range;
mod realm;
pub mod referrers;
mod retry;
mod tls;
mod transport;

pub(crate) use auth::target;
pub use blob::Blob;
pub use client::{Client, Config, Publicity, RawManifest, Resolved};
pub(crate) use connect::{Origin, Reach};
pub use keyring::CredentialSource;
pub use limits::Limits;
pub(crate) use lookup::Names;
pub use platform::choose;
pub(crate) use tls::Tls;
pub(crate) use transport::{Outgoing, Transport};
