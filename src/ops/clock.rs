//! The only reader of the wall clock. Everything else gets time as a value.

use jiff::Timestamp;

/// Now, in whole seconds: what Kubernetes prints and keeps.
#[allow(clippy::disallowed_methods)] // the one place
pub fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}
