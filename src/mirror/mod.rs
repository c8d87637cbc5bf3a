//! The mirror: a read-only registry in front of the store. Best effort by design: whatever it does not have, or
//! may not give, is a quick 404, and the node goes on to the real registry. It may be dead, but never hung, never
//! wrong, and it never asks for a credential.
//!
//! | file | answers for |
//! |---|---|
//! | [`route`] | method, path and query to a typed request (pure) |
//! | [`range`] | the Range header (pure) |
//! | [`table`] | roots to what is answered, and to whom (pure) |
//! | `follow` | reading the roots while they change |
//! | `proof` | which bytes are known to be right |
//! | `reply`, `body` | responses, and bytes that are hashed while they go out |
//! | `serve` | the road of a request |
//! | `guard` | the watchdog |
//! | `state` | what connections share: probes, report, metrics |

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::model::reference::RegistryHost;

mod body;
mod follow;
pub mod guard;
mod proof;
pub mod range;
mod reply;
pub mod route;
mod serve;
mod state;
pub mod table;

use serve::Serves;
use state::State;

#[derive(Clone, Debug)]
pub struct Config {
    /// The folder of the store. It may be empty: then nothing is answered until something was pulled to it.
    pub volume: PathBuf,
    pub listen: SocketAddr,
    /// Where `/livez`, `/readyz`, `/report` and `/metrics` are; on the registry's own port if absent.
    pub admin: Option<SocketAddr>,
    /// Serve images that are not proved public, to everybody who reaches the port.
    pub serve_private: bool,
    /// Registries whose tags are served although a cache's own settings were used to resolve them.
    pub public_registries: Vec<RegistryHost>,
    /// Connections beyond these are refused at once.
    pub max_connections: usize,
    /// A client that neither sends nor takes a byte for this long is cut.
    pub progress_limit: Duration,
    /// The process ends when runtime or volume do not answer for this long.
    pub stall_limit: Duration,
    /// How often the roots are listed.
    pub poll: Duration,
    /// Blobs up to this size are hashed before their first byte is sent, if nobody did yet. Larger ones would keep
    /// their client waiting: they are hashed on the way and cut short if they are bad, which costs that client one
    /// failed try, because it completes from upstream what it has of them.
    pub prove_first: u64,
}

impl Config {
    pub fn new(volume: impl Into<PathBuf>, listen: SocketAddr) -> Self {
        Self {
            volume: volume.into(),
            listen,
            admin: None,
            serve_private: false,
            public_registries: Vec::new(),
            max_connections: 400,
            progress_limit: Duration::from_secs(30),
            stall_limit: Duration::from_secs(30),
            poll: Duration::from_secs(2),
            prove_first: 64 << 20,
        }
    }
}

/// A mirror whose ports are open.
pub struct Mirror {
    state: Arc<State>,
    registry: TcpListener,
    admin: Option<TcpListener>,
}

/// Serves until it is told to stop, then lets running answers end.
pub async fn run(config: Config, shutdown: CancellationToken) -> io::Result<()> {
    Mirror::bind(config).await?.serve(shutdown).await
}

impl Mirror {
    pub async fn bind(config: Config) -> io::Result<Self> {
        let registry = bind(config.listen).await?;
        let admin = match config.admin {
            Some(address) => Some(bind(address).await?),
            None => None,
        };
        Ok(Self { state: Arc::new(State::new(config)), registry, admin })
    }

    pub fn address(&self) -> io::Result<SocketAddr> {
        self.registry.local_addr()
    }

    pub fn admin_address(&self) -> io::Result<SocketAddr> {
        self.admin.as_ref().unwrap_or(&self.registry).local_addr()
    }

    pub async fn serve(self, shutdown: CancellationToken) -> io::Result<()> {
        let Self { state, registry, admin } = self;
        let heart = guard::Heart::default();
        let volume = state.config.volume.clone();
        heart.watch(state.config.stall_limit, move || state::stalled(&volume))?;
        // Its own token: the volume is watched until the last answer is out.
        let done = CancellationToken::new();
        tokio::spawn(Arc::clone(&state).beat(heart, done.clone()));
        tokio::spawn(Arc::clone(&state).follow(done.clone()));
        let _ends = done.drop_guard();
        tracing::info!(address = %registry.local_addr()?, "the mirror listens");
        let here = Serves { registry: true, admin: admin.is_none() };
        let there = Serves { registry: false, admin: true };
        let beside = async {
            if let Some(listener) = admin {
                serve::listen(listener, Arc::clone(&state), there, shutdown.clone()).await;
            }
        };
        tokio::join!(serve::listen(registry, Arc::clone(&state), here, shutdown.clone()), beside);
        Ok(())
    }
}

async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .map_err(|e| io::Error::new(e.kind(), format!("cannot listen on {address}: {e}")))
}
