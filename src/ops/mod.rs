//! What every role needs: time, logs, shutdown. Uses third-party crates only.

pub mod clock;
pub mod http;
pub mod logging;
pub mod metrics;
pub mod out;
pub mod server;
pub mod shutdown;
