//! Volcengine VCI: `vci.volcengine.com/v1beta1 ImageCache`.
//! Sources: VKE "Managing VCI image caches by using CRD" (6460/1278519) and `CreateImageCache` (6460/195522).

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::{
    Options,
    foreign::{self, Draft, Foreign},
    remarks::{Refused, Remarks},
};
use crate::model::reference::Reference;

pub(super) const API_VERSION: &str = "vci.volcengine.com/v1beta1";
pub(super) const KIND: &str = "ImageCache";

/// GiB of a cache that does not say, twice our default: written out, so that the same images fit.
const DEFAULT_SIZE: i32 = 40;
/// Hosts of Volcengine's own registry.
const OWN_REGISTRY: &str = ".volces.com";

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    images: Option<Vec<String>>,
    image_pull_secrets: Option<Vec<String>>,
    subnet_ids: Option<Vec<String>>,
    security_group_ids: Option<Vec<String>>,
    retention_days: Option<i64>,
    volume: Option<Volume>,
    #[serde(flatten)]
    unknown: BTreeMap<String, Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Volume {
    image_cache_size: Option<f64>,
    prewarm_zone_ids: Option<Vec<String>>,
    #[serde(flatten)]
    unknown: BTreeMap<String, Value>,
}

pub(super) fn read(value: &Value, options: &Options, said: &mut Remarks) -> Result<Draft, Refused> {
    let (mut draft, spec) = Foreign::<Spec>::parse(value, said)?;
    let volume = spec.volume.unwrap_or_default();
    draft.spec.images = spec.images.unwrap_or_default();
    let size = foreign::size("spec.volume.imageCacheSize", volume.image_cache_size, said);
    draft.spec.image_cache_size = Some(size.unwrap_or(DEFAULT_SIZE));
    draft.spec.retention_days = foreign::retention("spec.retentionDays", spec.retention_days, said);
    let secrets = spec.image_pull_secrets.unwrap_or_default();
    let named =
        secrets.iter().enumerate().map(|(i, text)| (format!("spec.imagePullSecrets[{i}]"), text.as_str()));
    draft.spec.image_pull_secrets = foreign::secrets(named, draft.namespace.as_deref(), options, said);
    if secrets.is_empty() && draft.spec.images.iter().any(|image| is_own_registry(image)) {
        said.lose(
            "spec.imagePullSecrets",
            "not set, so VCI makes credentials for its own registry by itself: name a pull secret here",
        );
    }
    let network = "the operator does not know this cloud's network; pulls run where its other pods run";
    said.no_counterpart("spec.subnetIds", spec.subnet_ids.as_ref(), network);
    said.no_counterpart("spec.securityGroupIds", spec.security_group_ids.as_ref(), network);
    let zones = "the store serves all zones that reach its mirror";
    said.no_counterpart("spec.volume.prewarmZoneIds", volume.prewarm_zone_ids.as_ref(), zones);
    said.unknown("spec.volume", &volume.unknown);
    said.unknown("spec", &spec.unknown);
    Ok(draft)
}

fn is_own_registry(image: &str) -> bool {
    image.parse::<Reference>().is_ok_and(|reference| reference.host().as_str().ends_with(OWN_REGISTRY))
}
