//! Logs for people or for machines, on standard error: standard output belongs to what a command prints.

use std::io::IsTerminal as _;

use tracing_subscriber::{EnvFilter, fmt, prelude::*};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One line a person reads.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

/// Installs the process's logger. `level` is a filter such as `info` or `imagecache=debug,kube=warn`; a filter
/// that cannot be read falls back to `info`. A second call changes nothing.
pub fn install(format: LogFormat, level: &str) {
    let filter = EnvFilter::try_new(level).unwrap_or_else(|_| EnvFilter::new("info"));
    let layer = fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    let registry = tracing_subscriber::registry().with(filter);
    let installed = match format {
        LogFormat::Human => registry.with(layer.with_target(false)).try_init(),
        LogFormat::Json => registry.with(layer.json().flatten_event(true).with_span_list(false)).try_init(),
    };
    drop(installed);
}
