//! Deletions. Each carries UID and resourceVersion, so that nothing is removed that is not what was looked at.

use std::fmt::Debug;

use http::header::DATE;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Api, Resource,
    api::{DeleteParams, GetParams, Preconditions, PropagationPolicy},
    client::Body,
    core::{PartialObjectMeta, Request},
};
use serde::de::DeserializeOwned;

use super::{
    Cluster, Error, Why,
    error::{call, call_secretly, found},
    observe,
};
use crate::{
    api::ImageCache,
    model::{
        names,
        plan::{DeleteObject, JobId},
        request::CacheKey,
    },
};

impl Cluster {
    /// Both Secrets, then the Job with its pod: as long as the Job is seen, this is tried again.
    pub async fn remove_run(&self, cache: &CacheKey, run: u64, job: &JobId) -> Result<(), Error> {
        self.remove_secrets(cache, run).await?;
        let meta = ObjectMeta {
            name: Some(job.name.clone()),
            uid: Some(job.uid.clone()),
            resource_version: Some(job.resource_version.clone()),
            ..ObjectMeta::default()
        };
        self.remove(&self.jobs(), &meta).await?;
        tracing::info!(%cache, job = job.name, "pull Job removed");
        Ok(())
    }

    /// The Secrets of a run; those that are not there are fine. A Secret of the same name that is not of this cache
    /// stays.
    pub(super) async fn remove_secrets(&self, cache: &CacheKey, run: u64) -> Result<(), Error> {
        let api = self.own_secrets();
        for name in [names::request_secret(cache, run), names::credentials_secret(cache, run)] {
            let there = found(call_secretly(format!("get secret {name}"), api.get(&name)).await)?;
            let Some(there) = there else { continue };
            // Orphans have lost their owner, so the label decides.
            if observe::cache_uid(&there.metadata) == Some(cache.as_str()) {
                self.remove(&api, &there.metadata).await?;
            }
        }
        Ok(())
    }

    pub(super) async fn remove<K>(&self, api: &Api<K>, meta: &ObjectMeta) -> Result<(), Error>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
    {
        let name = meta.name.clone().unwrap_or_default();
        let doing = format!("delete {} {name}", K::kind(&()).to_lowercase());
        self.fence.check(&doing)?;
        let how = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Background),
            preconditions: Some(Preconditions {
                uid: meta.uid.clone(),
                resource_version: meta.resource_version.clone(),
            }),
            ..DeleteParams::default()
        };
        found(call_secretly(doing, api.delete(&name, &how)).await).map(drop)
    }

    /// Reads the object live, and the API server's clock with it: the `Date` of the same answer. A clock of ours
    /// that jumped must not delete anything.
    pub(super) async fn delete_object(&self, name: &str, delete: &DeleteObject) -> Result<(), Error> {
        let doing = format!("delete imagecache {name}");
        if let Err(wait) = self.deletions.turn(&delete.uid) {
            return Err(Error::new(doing, Why::NotItsTurn(wait)));
        }
        let Some((object, clock)) =
            found(call(format!("get imagecache {name}"), self.read_live(name)).await)?
        else {
            return Ok(());
        };
        let meta = object.metadata;
        if meta.uid.as_ref() != Some(&delete.uid)
            || meta.resource_version.as_ref() != Some(&delete.resource_version)
        {
            return Err(Error::new(doing, Why::Conflict));
        }
        if clock.is_none_or(|clock| clock < delete.not_before) {
            return Err(Error::new(doing, Why::NotDue));
        }
        self.remove(&self.caches(), &meta).await?;
        tracing::info!(cache = name, reason = delete.reason, "ImageCache deleted");
        Ok(())
    }

    /// What the API server's clock says, from the answer about an object. For many that ask at once it is asked once.
    pub(super) async fn server_clock(&self, name: &str) -> Result<Option<Timestamp>, Error> {
        if let Some(known) = self.server_clock.now() {
            return Ok(Some(known));
        }
        let read = found(call(format!("get imagecache {name}"), self.read_live(name)).await)?;
        let clock = read.and_then(|(_, clock)| clock);
        if let Some(clock) = clock {
            self.server_clock.set(clock);
        }
        Ok(clock)
    }

    /// The object's metadata, and when the API server says it is.
    async fn read_live(
        &self,
        name: &str,
    ) -> kube::Result<(PartialObjectMeta<ImageCache>, Option<Timestamp>)> {
        let request = Request::new(ImageCache::url_path(&(), None))
            .get(name, &GetParams::default())
            .map_err(kube::Error::BuildRequest)?;
        let response = self.client.send(request.map(Body::from)).await?;
        let date = response.headers().get(DATE).and_then(|date| date.to_str().ok());
        let clock = date
            .and_then(|date| httpdate::parse_http_date(date).ok())
            .and_then(|time| Timestamp::try_from(time).ok());
        let fine = response.status().is_success();
        let code = response.status().as_u16();
        let body = response.into_body().collect_bytes().await?;
        if !fine {
            let status = serde_json::from_slice::<kube::core::Status>(&body).unwrap_or_else(|_| {
                kube::core::Status::failure("no answer of the API server", "Unreadable").with_code(code)
            });
            return Err(kube::Error::Api(Box::new(status)));
        }
        let object = serde_json::from_slice(&body).map_err(kube::Error::SerdeError)?;
        Ok((object, clock))
    }
}
