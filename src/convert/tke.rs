//! Tencent TKE Serverless: `eks.cloud.tencent.com/v1 ImageCache` of the add-on imc-operator, cluster-scoped.
//! Sources: TKE "Image cache" (document 457/65908) and the manifests of imc-operator.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::{
    Options,
    foreign::{self, Draft, Foreign},
    remarks::{Refused, Remarks},
};

pub(super) const API_VERSION: &str = "eks.cloud.tencent.com/v1";
pub(super) const KIND: &str = "ImageCache";

/// What TKE's pods call it; on an ImageCache it means the same here.
const SECURITY_GROUPS: &str = "eks.tke.cloud.tencent.com/security-group-id";

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    images: Option<Vec<String>>,
    image_cache_size: Option<f64>,
    retention_days: Option<i64>,
    security_group_ids: Option<Vec<String>>,
    image_pull_secrets: Option<Vec<String>>,
    #[serde(flatten)]
    unknown: BTreeMap<String, Value>,
}

/// Annotations of TKE are rows of our own table: they stay as they are.
pub(super) fn read(value: &Value, options: &Options, said: &mut Remarks) -> Result<Draft, Refused> {
    let (mut draft, spec) = Foreign::<Spec>::parse(value, said)?;
    draft.spec.images = spec.images.unwrap_or_default();
    draft.spec.image_cache_size = foreign::size("spec.imageCacheSize", spec.image_cache_size, said);
    draft.spec.retention_days = foreign::retention("spec.retentionDays", spec.retention_days, said);
    let groups = spec.security_group_ids.unwrap_or_default();
    if !groups.is_empty() {
        foreign::annotate(&mut draft, SECURITY_GROUPS, groups.join(","), "spec.securityGroupIds", said);
    }
    let secrets = spec.image_pull_secrets.unwrap_or_default();
    let named =
        secrets.iter().enumerate().map(|(i, text)| (format!("spec.imagePullSecrets[{i}]"), text.as_str()));
    draft.spec.image_pull_secrets = foreign::secrets(named, draft.namespace.as_deref(), options, said);
    said.unknown("spec", &spec.unknown);
    Ok(draft)
}
