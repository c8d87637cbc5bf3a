//! Why something failed: one row per class, shared by exit codes, conditions, events and messages.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a failure means for the next try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Likely to pass by itself: retried soon.
    Transient,
    /// Stays until something outside changes: retried slowly.
    Permanent,
    /// Waits for an edit of the object or of a secret it names.
    Waits,
}

macro_rules! classes {
    ($($name:ident $code:literal $kind:ident $phrase:literal),+ $(,)?) => {
        /// The class of a failure; also the `reason` of conditions.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum Class { $($name),+ }

        impl Class {
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name)),+ }
            }

            /// The exit status of the worker and of the commands for people.
            pub fn exit_code(self) -> u8 {
                match self { $(Self::$name => $code),+ }
            }

            pub fn kind(self) -> Kind {
                match self { $(Self::$name => Kind::$kind),+ }
            }

            /// The words people will search for: those of the container runtimes and of the three clouds' pages.
            pub fn phrase(self) -> &'static str {
                match self { $(Self::$name => $phrase),+ }
            }
        }
    };
}

classes! {
    Network          10 Transient "the registry cannot be reached (connection refused, reset or no route)",
    Dns              11 Transient "lookup failed: no such host",
    Timeout          12 Transient "i/o timeout",
    RateLimited      13 Transient "429 Too Many Requests",
    ServerError      14 Transient "the registry answered with a server error",
    NoSpace          15 Transient "no space left on device",
    Quota            16 Transient "a quota does not allow it",
    Scheduling       17 Transient "the pull pod could not be scheduled",
    WorkerImage      18 Transient "the pull pod's own image could not be pulled",
    Evicted          19 Transient "the pull pod was evicted or deleted",
    OutOfMemory      20 Transient "OOMKilled: the pull pod ran out of memory",
    Unknown          21 Transient "unknown failure",
    Auth             22 Permanent "pull access denied, repository does not exist or may require authorization: insufficient_scope: authorization failed",
    NotFound         23 Permanent "failed to resolve reference: not found",
    PlainHttp        24 Permanent "http: server gave HTTP response to HTTPS client",
    Certificate      25 Permanent "x509: certificate signed by unknown authority",
    SizeExceeded     26 Permanent "the images are larger than the cache",
    BadContent       27 Permanent "the registry sent content that does not match its digest or size",
    Unsupported      28 Permanent "the image uses something that is not supported",
    SignatureInvalid 29 Permanent "the signature is not valid",
    InvalidSpec      30 Waits     "the object is not valid",
    SecretMissing    31 Waits     "a pull secret is missing or may not be used",
    Snapshot         32 Transient "the volume snapshot could not be taken",
}

/// The worker was told to stop (SIGTERM). No Job rule fails on it: an evicted pull is no failed pull.
pub const EXIT_STOPPED: u8 = 50;
/// Bad usage of the command line, as clap has it.
pub const EXIT_USAGE: u8 = 2;

impl Class {
    pub fn from_exit_code(code: i32) -> Option<Self> {
        Self::ALL.iter().copied().find(|class| i32::from(class.exit_code()) == code)
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|class| class.as_str() == name)
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_go_from_10_upward_and_lead_back_to_their_class() {
        for (i, class) in Class::ALL.iter().enumerate() {
            assert_eq!(usize::from(class.exit_code()), 10 + i, "{class}");
            assert_eq!(Class::from_exit_code(i32::from(class.exit_code())), Some(*class));
            assert_eq!(Class::from_name(class.as_str()), Some(*class));
            assert!(!class.phrase().is_empty());
        }
        assert_eq!(Class::from_exit_code(i32::from(EXIT_STOPPED)), None);
    }
}
