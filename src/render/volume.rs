//! The claim of a cache's own volume, and its snapshot. Both have one name, which people find by the cache's id.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements},
    apimachinery::pkg::api::resource::Quantity,
};

use super::{Run, child};
use crate::{
    api::snapshot::{VolumeSnapshot, VolumeSnapshotSource, VolumeSnapshotSpec},
    model::names,
};

/// One pod writes it, once.
const ACCESS: &str = "ReadWriteOnce";

pub fn claim(run: Run<'_>, namespace: &str, bytes: u64, storage_class: &str) -> PersistentVolumeClaim {
    let gib = format!("{}Gi", bytes.div_ceil(1 << 30));
    let requests = BTreeMap::from([("storage".to_owned(), Quantity(gib))]);
    PersistentVolumeClaim {
        metadata: child(run, namespace, names::snapshot(run.cache, run.number)),
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec![ACCESS.to_owned()]),
            storage_class_name: Some(storage_class.to_owned()),
            volume_mode: Some("Filesystem".to_owned()),
            resources: Some(VolumeResourceRequirements { requests: Some(requests), limits: None }),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    }
}

pub fn snapshot(run: Run<'_>, namespace: &str, class: &str) -> VolumeSnapshot {
    let name = names::snapshot(run.cache, run.number);
    VolumeSnapshot {
        metadata: child(run, namespace, name.clone()),
        spec: VolumeSnapshotSpec {
            source: VolumeSnapshotSource { persistent_volume_claim_name: Some(name) },
            volume_snapshot_class_name: Some(class.to_owned()),
        },
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::keys;

    #[test]
    fn a_snapshot_is_of_the_claim_of_its_run_and_goes_with_its_cache() {
        let cache = "8f14e45f-ceea-467f-a0e6-1c2b3d4e5f60".parse().unwrap();
        let run = Run { cache: &cache, name: "shop", number: 3 };
        let (claim, snapshot) = (claim(run, "ns", 23 << 30, "fast"), snapshot(run, "ns", "snaps"));
        assert_eq!(snapshot.spec.source.persistent_volume_claim_name, claim.metadata.name);
        for meta in [&claim.metadata, &snapshot.metadata] {
            assert_eq!(meta.owner_references.as_ref().unwrap()[0].uid, cache.as_str());
            assert_eq!(meta.labels.as_ref().unwrap()[keys::RUN_LABEL], "3");
        }
        let json = serde_json::to_value(&snapshot).unwrap();
        assert_eq!(json["apiVersion"], "snapshot.storage.k8s.io/v1");
        assert_eq!(json["spec"]["volumeSnapshotClassName"], "snaps");
    }
}
