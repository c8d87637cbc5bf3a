//! What can be typed for the operator, and the configuration it means.

use std::{net::SocketAddr, time::Duration};

use clap::{Args, ValueEnum};
use url::Url;

use super::Config;
use crate::{
    acr::flags::{AcrArgs, AllowArgs},
    cli::{CloudArg, NameArgs, realm},
    model::{
        collect::Pace,
        reference::RegistryHost,
        settings::{OnExpiry, Settings},
        snapshot::Wanted,
    },
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnExpiryArg {
    /// Remove the object.
    Delete,
    /// Keep the object, in phase Expired.
    Keep,
}

#[derive(Debug, Args)]
#[allow(clippy::struct_excessive_bools)] // flags
pub struct ControllerArgs {
    /// Where /livez, /readyz and /metrics are served.
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
    /// The namespace of pull Jobs and their Secrets.
    #[arg(long, env = "POD_NAMESPACE", default_value = "imagecache-system")]
    pub namespace: String,
    /// This pod's name: pull pods get its image and pull secrets.
    #[arg(long, env = "POD_NAME")]
    pub pod_name: Option<String>,
    /// The pull pods' image, when the controller runs outside the cluster.
    #[arg(long, value_name = "IMAGE")]
    pub worker_image: Option<String>,
    /// The PersistentVolumeClaim of the store.
    #[arg(long, value_name = "NAME", default_value = "imagecache-store")]
    pub store_claim: String,
    /// The store's volume can be mounted by many nodes (`ReadWriteMany`): pull pods may run on any of them.
    #[arg(long)]
    pub store_on_all_nodes: bool,
    /// The mirror, for its report on the store.
    #[arg(long, value_name = "URL")]
    pub mirror: Option<Url>,
    /// GiB a cache may hold when it does not say.
    #[arg(long, value_name = "GIB", default_value_t = 20, value_parser = clap::value_parser!(u32).range(20..=32768))]
    pub default_size: u32,
    /// Pull Jobs at one time.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub max_jobs: u32,
    /// Pull Jobs at one time that use the same registry.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub max_jobs_per_registry: u32,
    /// What happens to expired caches. Without it: delete, but keep those that Argo CD or Flux own.
    #[arg(long, value_enum)]
    pub on_expiry: Option<OnExpiryArg>,
    /// Hours after which a cache that never was Ready and failed for good is deleted; 0 never.
    #[arg(long, value_name = "HOURS", default_value_t = 24)]
    pub failed_retention: u32,
    /// Expired or failed caches that are deleted in a second, at most.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub max_deletions_per_second: u32,
    /// Caches that may have content; at this number new ones wait.
    #[arg(long, value_name = "N")]
    pub max_caches: Option<u32>,
    /// Bytes that the store may hold, such as 500Gi; when it holds them new caches wait. A pull that runs is not cut off.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub max_store_bytes: Option<u64>,
    /// Time between two collections of the store that nothing else calls for, such as 6h; 0 for none.
    #[arg(long, value_name = "TIME", default_value = "6h", value_parser = time)]
    pub gc_interval: Duration,
    /// How long content that no cache needs stays in the store, such as 1h or 30m.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = time)]
    pub gc_grace: Duration,
    /// Ages inside the store are not waited for. Loses data on a network file system; for tests on a local one.
    #[arg(long, hide = true)]
    pub gc_unsafe_no_waiting: bool,
    /// Reuse layers that the store has, where a cache does not say (always by the rules of permission).
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    pub reuse_default: bool,
    /// A registry whose anonymous answers make an image public, although it is inside or speaks plain HTTP.
    #[arg(long, value_name = "HOST[:PORT]")]
    pub public_registry: Vec<RegistryHost>,
    /// Never send a credential to a registry over plain HTTP, not even if the cache lists it as such.
    #[arg(long)]
    pub forbid_credentials_over_http: bool,
    /// Trust this registry's token server on another host, as REGISTRY=REALM-HOST.
    #[arg(long, value_name = "REGISTRY=HOST", value_parser = realm)]
    pub auth_realm: Vec<(RegistryHost, String)>,
    /// What runs the pull pods: decides how they are placed and get their network (docs/placement.md).
    #[arg(long, value_enum, default_value = "kubernetes")]
    pub platform: CloudArg,
    /// The ConfigMap that says what subnets, security groups and EIPs of a cloud mean on this cluster.
    #[arg(long, value_name = "NAME", default_value = "imagecache-placement")]
    pub placement: String,
    /// A place or an EIP that is not known here makes a cache invalid, instead of a notice.
    #[arg(long)]
    pub strict_placement: bool,
    /// Take a snapshot of each cache, with this VolumeSnapshotClass; an empty name is the default one (docs/snapshots.md).
    /// Of several the last counts.
    #[arg(long, value_name = "NAME", overrides_with = "snapshot_class")]
    pub snapshot_class: Option<String>,
    /// The StorageClass of the volumes that snapshots are taken of. Without it, the cluster's default.
    #[arg(long, value_name = "NAME", requires = "snapshot_class", overrides_with = "snapshot_storage_class")]
    pub snapshot_storage_class: Option<String>,
    #[command(flatten)]
    pub names: NameArgs,
    /// Start even though the CustomResourceDefinition is not ours.
    #[arg(long)]
    pub take_over: bool,
    #[command(flatten)]
    pub acr: AcrArgs,
    #[command(flatten)]
    pub allow: AllowArgs,
}

/// As Kubernetes writes quantities.
fn size(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 8] = [
        ("Ki", 1 << 10),
        ("Mi", 1 << 20),
        ("Gi", 1 << 30),
        ("Ti", 1 << 40),
        ("k", 1000),
        ("M", 1_000_000),
        ("G", 1_000_000_000),
        ("T", 1_000_000_000_000),
    ];
    let unit = UNITS.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)));
    let (number, factor) = unit.unwrap_or((text, 1));
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    bytes.ok_or_else(|| "write a number of bytes such as 500Gi, 2Ti or 1000000".to_owned())
}

fn time(text: &str) -> Result<Duration, String> {
    let time = text.parse::<jiff::SignedDuration>().map_err(|_| "write a time such as 6h, 90m or 0s");
    // A bare 0 is what everybody writes.
    let time = if text == "0" { Ok(jiff::SignedDuration::ZERO) } else { time };
    Duration::try_from(time?).map_err(|_| "a time is not negative".to_owned())
}

fn pace(interval: Duration, grace: Duration, no_waiting: bool) -> Pace {
    let pace =
        Pace { interval: (!interval.is_zero()).then_some(interval), grace, no_waiting, ..Pace::default() };
    let soon = Duration::from_secs(2);
    if no_waiting { Pace { quiet: soon, patience: soon, first: soon, spacing: soon, ..pace } } else { pace }
}

impl ControllerArgs {
    pub fn config(self) -> Config {
        let identity = self.acr.identity();
        if identity.is_none() && !self.allow.is_empty() {
            tracing::warn!(
                "no password-free pulls from ACR: neither --acr-access-key-dir nor RRSA says who this is (docs/acr.md)"
            );
        }
        let hours = |n: u32| (n > 0).then(|| Duration::from_secs(u64::from(n) * 3600));
        let settings = Settings {
            default_size_gib: self.default_size,
            reuse_default: self.reuse_default,
            public_registries: self.public_registry,
            credentials_over_http: !self.forbid_credentials_over_http,
            max_jobs: self.max_jobs,
            max_jobs_per_host: self.max_jobs_per_registry,
            acr: identity.is_some().then(|| self.allow.allowed(self.acr.acr_region.clone())),
            on_expiry: self.on_expiry.map(|choice| match choice {
                OnExpiryArg::Delete => OnExpiry::Delete,
                OnExpiryArg::Keep => OnExpiry::Keep,
            }),
            delete_failed_after: hours(self.failed_retention),
            max_caches: self.max_caches,
            max_store_bytes: self.max_store_bytes,
            gc: pace(self.gc_interval, self.gc_grace, self.gc_unsafe_no_waiting),
            cloud: self.platform.into(),
            strict_placement: self.strict_placement,
            host_aliases: self.names.host_aliases.map(|aliases| aliases.0),
            dns: self.names.dns_config,
            snapshots: self.snapshot_class.map(|class| Wanted::new(class, self.snapshot_storage_class)),
            ..Settings::default()
        };
        Config {
            settings,
            pod_name: self.pod_name,
            worker_image: self.worker_image,
            store_claim: self.store_claim,
            deletions_per_second: self.max_deletions_per_second,
            one_node: !self.store_on_all_nodes,
            mirror: self.mirror,
            auth_realms: self.auth_realm,
            placement: self.placement,
            acr: identity.map(|identity| (identity, self.acr.endpoints())),
            take_over: self.take_over,
            ..Config::new(self.namespace, self.listen)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_read_as_they_are_written_in_manifests() {
        for (text, bytes) in [("0", 0), ("1000", 1000), ("500Gi", 500 << 30), ("2T", 2_000_000_000_000)] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for (text, seconds) in [("0", 0), ("6h", 21600), ("1h30m", 5400), ("45s", 45)] {
            assert_eq!(time(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "-1", "5 apples", "99999999999Ti"] {
            assert!(size(text).is_err(), "{text}");
        }
        for text in ["", "-1h", "6", "soon"] {
            assert!(time(text).is_err(), "{text}");
        }
    }
}
