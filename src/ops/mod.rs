//! What every role needs: time, logs, shutdown. Uses third-party crates only.

pub mod clock;
