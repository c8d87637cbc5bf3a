//! Huawei Cloud CCI 2.0: `cci/v2 ImageSnapshot`.
//! Sources: CCI 2.0 user guide "Creating an image snapshot" (`cci_01_0113`) and API reference `createImageSnapshot`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::{
    Options,
    foreign::{self, Draft, Foreign},
    remarks::{Refused, Remarks},
};
use crate::model::reference::RegistryHost;

pub(super) const API_VERSION: &str = "cci/v2";
pub(super) const KIND: &str = "ImageSnapshot";

const PLAIN_HTTP: &str = "k8s.aliyun.com/plain-http-registry";
const SKIP_VERIFY: &str = "k8s.aliyun.com/insecure-registry";

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    images: Option<Vec<Image>>,
    registries: Option<Vec<Registry>>,
    building_config: Option<Building>,
    image_snapshot_size: Option<f64>,
    ttl_days_after_created: Option<i64>,
    #[serde(flatten)]
    unknown: BTreeMap<String, Value>,
}

#[derive(Debug, Deserialize)]
struct Image {
    image: String,
    #[serde(flatten)]
    unknown: BTreeMap<String, Value>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Registry {
    server: String,
    image_pull_secret: Option<String>,
    #[serde(rename = "plainHTTP")]
    plain_http: Option<bool>,
    insecure_skip_verify: Option<bool>,
    #[serde(flatten)]
    unknown: BTreeMap<String, Value>,
}

/// Of the pod that makes the snapshot.
#[derive(Debug, Default, Deserialize)]
struct Building {
    namespace: Option<String>,
    #[serde(rename = "eipID")]
    eip_id: Option<String>,
    #[serde(rename = "autoCreateEIP")]
    auto_create_eip: Option<bool>,
    #[serde(rename = "autoCreateEIPAttribute")]
    auto_create_eip_attribute: Option<Value>,
    #[serde(flatten)]
    unknown: BTreeMap<String, Value>,
}

pub(super) fn read(value: &Value, options: &Options, said: &mut Remarks) -> Result<Draft, Refused> {
    let (mut draft, spec) = Foreign::<Spec>::parse(value, said)?;
    for (i, image) in spec.images.unwrap_or_default().into_iter().enumerate() {
        said.unknown(&format!("spec.images[{i}]"), &image.unknown);
        draft.spec.images.push(image.image);
    }
    draft.spec.image_cache_size = foreign::size("spec.imageSnapshotSize", spec.image_snapshot_size, said);
    draft.spec.retention_days =
        foreign::retention("spec.ttlDaysAfterCreated", spec.ttl_days_after_created, said);
    let building = spec.building_config.unwrap_or_default();
    let registries = spec.registries.unwrap_or_default();
    let named = registries.iter().enumerate().filter_map(|(i, registry)| {
        Some((format!("spec.registries[{i}].imagePullSecret"), registry.image_pull_secret.as_deref()?))
    });
    // The secret is read where the snapshot is made.
    let home = building.namespace.as_deref().or(draft.namespace.as_deref());
    draft.spec.image_pull_secrets = foreign::secrets(named, home, options, said);
    transports(&mut draft, &registries, said);
    builder(&building, &draft, said);
    said.unknown("spec", &spec.unknown);
    Ok(draft)
}

fn transports(draft: &mut Draft, registries: &[Registry], said: &mut Remarks) {
    let (mut plain, mut unverified) = (Vec::new(), Vec::new());
    for (i, registry) in registries.iter().enumerate() {
        let field = format!("spec.registries[{i}]");
        said.unknown(&field, &registry.unknown);
        let (http, skip) = (registry.plain_http == Some(true), registry.insecure_skip_verify == Some(true));
        if !http && !skip {
            // It only says which secret is for it, and the secret says so itself.
            continue;
        }
        match registry.server.parse::<RegistryHost>() {
            Ok(host) => {
                plain.extend(http.then(|| host.to_string()));
                unverified.extend(skip.then(|| host.to_string()));
            }
            Err(error) => {
                said.lose(&format!("{field}.server"), format!("how it is reached is left out: {error}"));
            }
        }
    }
    for (key, hosts) in [(PLAIN_HTTP, plain), (SKIP_VERIFY, unverified)] {
        if !hosts.is_empty() {
            foreign::annotate(draft, key, hosts.join(","), "spec.registries", said);
        }
    }
}

fn builder(building: &Building, draft: &Draft, said: &mut Remarks) {
    if let Some(namespace) = building.namespace.as_ref().filter(|_| draft.spec.image_pull_secrets.is_empty())
    {
        let field = "spec.buildingConfig.namespace";
        said.note(field, format!("{namespace} is left out: pulls run in the operator's namespace"));
    }
    let eip = "the operator has no EIPs of this cloud; pulls leave the cluster as its other pods do";
    said.no_counterpart("spec.buildingConfig.eipID", building.eip_id.as_ref(), eip);
    let new = building.auto_create_eip.filter(|on| *on);
    said.no_counterpart("spec.buildingConfig.autoCreateEIP", new.as_ref(), eip);
    let field = "spec.buildingConfig.autoCreateEIPAttribute";
    said.no_counterpart(field, building.auto_create_eip_attribute.as_ref(), eip);
    said.unknown("spec.buildingConfig", &building.unknown);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::annotations::table::TABLE;

    #[test]
    fn the_annotations_that_are_written_are_known_to_the_operator() {
        for key in [PLAIN_HTTP, SKIP_VERIFY] {
            assert!(TABLE.iter().any(|row| row.key == key), "{key}");
        }
    }
}
