//! A failure as it travels: class, where, and a sentence. Never a body, a secret or a query string.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::class::Class;

/// Messages are bounded: they end in status, events and log lines.
const MAX_MESSAGE: usize = 600;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub class: Class,
    /// What was tried, on which host, with which answer. One sentence, no full stop.
    pub message: String,
}

impl Failure {
    pub fn new(class: Class, message: impl Into<String>) -> Self {
        let message: String = message.into();
        let clean = message.chars().map(|c| if c.is_control() { ' ' } else { c });
        Self { class, message: clean.take(MAX_MESSAGE).collect() }
    }

    /// The same failure, said of something: `docker.io/library/nginx:1: ...`.
    #[must_use]
    pub fn of(self, subject: impl fmt::Display) -> Self {
        Self::new(self.class, format!("{subject}: {}", self.message))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}
