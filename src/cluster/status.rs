//! Writes status: the whole of it by server-side apply with a manager of its own, so that it never meets what
//! users and GitOps tools apply; only if it differs; and only on the version of the object that was judged.

use kube::Resource as _;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::{Cluster, Error, Why, error::call};
use crate::{
    api::{ImageCache, ImageCacheStatus, keys::STATUS_MANAGER},
    model::judge::Object,
};

impl Cluster {
    /// True if it was written.
    pub async fn write_status(
        &self,
        object: &Object,
        old: &ImageCacheStatus,
        new: &ImageCacheStatus,
    ) -> Result<bool, Error> {
        if old == new {
            return Ok(false);
        }
        let doing = format!("write the status of imagecache {}", object.name);
        self.fence.check(&doing)?;
        let body = json!({
            "apiVersion": ImageCache::api_version(&()),
            "kind": ImageCache::kind(&()),
            "metadata": {
                "name": object.name,
                "uid": object.uid,
                "resourceVersion": object.resource_version,
            },
            "status": new,
        });
        let how = PatchParams::apply(STATUS_MANAGER).force();
        match call(doing, self.caches().patch_status(&object.name, &how, &Patch::Apply(body))).await {
            Ok(_) => Ok(true),
            // It was deleted meanwhile; the watch will say so.
            Err(Error { why: Why::NotFound, what }) => Err(Error { why: Why::Conflict, what }),
            Err(error) => Err(error),
        }
    }
}
