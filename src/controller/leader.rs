//! Leader election by a Lease, after client-go's rules: others' clocks are never compared with ours (a lease has run
//! out when it did not change for its duration while we watched), every write carries the resourceVersion it was
//! decided on, and the right to act ends earlier than others may take it. A process that leaves gives the lease back.
//! Source: k8s.io/client-go/tools/leaderelection.

use std::{sync::Arc, time::Duration};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{
    Api, Client,
    api::{PostParams, ResourceExt as _},
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::health::Health;
use crate::{
    cluster::{
        Error, Why,
        error::{call, found},
        fence::Fence,
    },
    ops::clock,
};

pub const LEASE: &str = "imagecache-controller";
/// Others take over after this long without a change.
const DURATION: Duration = Duration::from_secs(12);
/// The right to act lasts this long after the last renewal was sent.
const DEADLINE: Duration = Duration::from_secs(8);
const RETRY: Duration = Duration::from_secs(2);
const CALL: Duration = Duration::from_secs(4);
const RESIGN: Duration = Duration::from_millis(700);
const BEAT: &str = "the leader election";

pub struct Elector {
    api: Api<Lease>,
    identity: Arc<str>,
    fence: Fence,
    /// Our own lease as it was last written.
    held: Option<Lease>,
    /// Another's lease: its version, and since when it is seen unchanged.
    seen: Option<(String, Instant)>,
}

impl Elector {
    pub fn new(client: Client, namespace: &str, identity: Arc<str>, fence: Fence) -> Self {
        Self { api: Api::namespaced(client, namespace), identity, fence, held: None, seen: None }
    }

    /// Campaigns and renews until told to stop. Then the lease is still held: see [`Elector::resign`].
    pub async fn run(&mut self, health: &Health, stop: &CancellationToken) {
        while !stop.is_cancelled() {
            health.beat(BEAT);
            let asked = Instant::now();
            let round = tokio::select! {
                round = tokio::time::timeout(CALL, self.round()) => round,
                () = stop.cancelled() => return,
            };
            match round {
                Ok(Ok(true)) => {
                    if !self.fence.is_open() {
                        tracing::info!(identity = &*self.identity, "leading");
                    }
                    self.fence.open_until(asked + DEADLINE);
                }
                Ok(Ok(false)) => self.fence.close(),
                // The fence closes by itself if this goes on.
                Ok(Err(error)) => tracing::warn!(%error, "the lease cannot be held"),
                Err(_) => tracing::warn!("the lease cannot be held: no answer within {} s", CALL.as_secs()),
            }
            tokio::select! {
                () = tokio::time::sleep(RETRY) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Gives the lease back, so that another replica goes on within seconds. Nothing may be written after this.
    pub async fn resign(&mut self) {
        self.fence.close();
        match tokio::time::timeout(RESIGN, self.give_back()).await {
            Ok(Ok(true)) => tracing::info!("lease given back"),
            Ok(Ok(false)) => {}
            _ => tracing::warn!("lease not given back: others take over in {} s", DURATION.as_secs()),
        }
    }

    /// Reads it first: the last renewal may have been cut short.
    async fn give_back(&mut self) -> Result<bool, Error> {
        let Some(mut lease) = found(call("get lease", self.api.get(LEASE)).await)? else { return Ok(false) };
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() != Some(&*self.identity) {
            return Ok(false);
        }
        spec.holder_identity = None;
        spec.lease_duration_seconds = Some(1);
        spec.renew_time = Some(MicroTime(clock::now()));
        self.write(lease).await
    }

    /// True while the lease is ours.
    async fn round(&mut self) -> Result<bool, Error> {
        if let Some(held) = self.held.take() {
            return self.write(renewed(held)).await;
        }
        let Some(lease) = found(call("get lease", self.api.get(LEASE)).await)? else {
            return self.create().await;
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        if holder == &*self.identity {
            return self.write(renewed(lease)).await;
        }
        if holder.is_empty() || self.has_run_out(&lease, &spec) {
            let taken = self.taken(lease, &spec);
            return self.write(taken).await;
        }
        Ok(false)
    }

    fn has_run_out(&mut self, lease: &Lease, spec: &LeaseSpec) -> bool {
        let version = lease.resource_version().unwrap_or_default();
        let duration = spec.lease_duration_seconds.and_then(|s| u64::try_from(s).ok());
        let duration = duration.map_or(DURATION, Duration::from_secs);
        match &self.seen {
            Some((seen, since)) if *seen == version => since.elapsed() >= duration,
            _ => {
                self.seen = Some((version, Instant::now()));
                false
            }
        }
    }

    fn taken(&self, lease: Lease, spec: &LeaseSpec) -> Lease {
        let now = MicroTime(clock::now());
        let spec = LeaseSpec {
            holder_identity: Some(self.identity.to_string()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: Some(now.clone()),
            renew_time: Some(now),
            lease_transitions: Some(spec.lease_transitions.unwrap_or_default().saturating_add(1)),
            ..LeaseSpec::default()
        };
        Lease { spec: Some(spec), ..lease }
    }

    async fn create(&mut self) -> Result<bool, Error> {
        let metadata = ObjectMeta { name: Some(LEASE.to_owned()), ..ObjectMeta::default() };
        let mut lease = self.taken(Lease { metadata, spec: None }, &LeaseSpec::default());
        lease.spec.get_or_insert_default().lease_transitions = Some(0);
        match call("create lease", self.api.create(&PostParams::default(), &lease)).await {
            Ok(made) => {
                self.held = Some(made);
                Ok(true)
            }
            Err(Error { why: Why::AlreadyExists, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn write(&mut self, lease: Lease) -> Result<bool, Error> {
        match call("write lease", self.api.replace(LEASE, &PostParams::default(), &lease)).await {
            Ok(written) => {
                self.held = Some(written);
                Ok(true)
            }
            // Somebody else wrote it: look again before anything is concluded.
            Err(Error { why: Why::Conflict | Why::NotFound, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn renewed(mut lease: Lease) -> Lease {
    lease.spec.get_or_insert_default().renew_time = Some(MicroTime(clock::now()));
    lease
}
