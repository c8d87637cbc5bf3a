//! Every limit of the client in one place: times, sizes, counts. Tests shorten them; nothing else does.

use std::time::Duration;

const MIB: u64 = 1024 * 1024;

/// Layers of one image (containerd and the kernel's overlay stop far below).
pub const MAX_LAYERS: usize = 512;
/// Entries of one index.
pub const MAX_CHILDREN: usize = 256;
/// One blob, so that no sum over all images, children and layers overflows 64 bits.
pub const MAX_BLOB: u64 = 1 << 41;

/// What refers to one image or manifest: more is left out, with a notice. Pages of a list, and bytes of annotations of
/// one entry (longer ones are dropped).
pub const MAX_REFERRERS: usize = 64;
pub const MAX_REFERRER_PAGES: usize = 16;
pub const MAX_ANNOTATIONS: usize = 4096;

#[derive(Clone, Debug)]
pub struct Limits {
    /// Name lookup and TCP connect, each.
    pub connect: Duration,
    pub tls_handshake: Duration,
    /// From sending a request to having the headers of the answer.
    pub headers: Duration,
    /// Between two pieces of a body.
    pub progress: Duration,
    /// A whole manifest, token or error body.
    pub document: Duration,
    /// A blob must bring `rate_bytes` per `rate_window` of waiting, which ends a dribble.
    pub rate_window: Duration,
    pub rate_bytes: u64,
    pub manifest_bytes: u64,
    pub token_bytes: u64,
    pub error_bytes: u64,
    pub redirects: usize,
    /// Tries without progress, the first included.
    pub tries: u32,
    /// Bytes of a blob that count as progress.
    pub progress_bytes: u64,
    /// First pause between tries; it doubles, with jitter, up to `backoff_max`.
    pub backoff: Duration,
    pub backoff_max: Duration,
    /// The longest `Retry-After` that is obeyed.
    pub retry_after_max: Duration,
    /// How long, and how many, unused connections are kept per registry.
    pub idle: Duration,
    pub idle_connections: usize,
    /// Blobs, or parts of them, that are fetched at one time: in all, and from one registry.
    pub connections: usize,
    pub connections_per_host: usize,
    /// A blob that another pull is fetching is waited for as long as `rate_bytes` a second of it become durable;
    /// judged this often.
    pub patience: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            tls_handshake: Duration::from_secs(10),
            headers: Duration::from_secs(30),
            progress: Duration::from_mins(1),
            document: Duration::from_mins(2),
            rate_window: Duration::from_mins(2),
            rate_bytes: MIB,
            manifest_bytes: 4 * MIB,
            token_bytes: 64 * 1024,
            error_bytes: 64 * 1024,
            redirects: 5,
            tries: 5,
            progress_bytes: MIB,
            backoff: Duration::from_millis(500),
            backoff_max: Duration::from_secs(10),
            retry_after_max: Duration::from_mins(1),
            idle: Duration::from_secs(30),
            idle_connections: 32,
            connections: 16,
            connections_per_host: 8,
            patience: Duration::from_secs(30),
        }
    }
}
