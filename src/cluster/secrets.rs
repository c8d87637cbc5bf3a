//! Pull secrets: read by `get` and by name, only when a decision or a worker needs them, kept nowhere, and cut
//! down to the entries that the worker's images can use.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;

use super::{
    Cluster, Error, Why,
    error::{call_secretly, found},
};
use crate::model::{
    credentials::Credentials,
    facts::SecretState,
    judge::SecretName,
    reference::{Reference, RegistryHost},
    request::CacheKey,
};

const JSON_KEY: &str = ".dockerconfigjson";
const LEGACY_KEY: &str = ".dockercfg";

enum Read {
    Found(Box<Secret>),
    Missing,
    Forbidden,
}

/// When the pull secrets of a cache were last read. Forgotten with the process: then they are read at once.
#[derive(Debug, Default)]
pub struct Reads(Mutex<HashMap<CacheKey, Timestamp>>);

/// Nobody asks after older ones.
const KEPT: SignedDuration = SignedDuration::from_mins(10);

impl Reads {
    pub fn last(&self, cache: &CacheKey) -> Option<Timestamp> {
        self.locked().get(cache).copied()
    }

    pub fn note(&self, cache: &CacheKey, now: Timestamp) {
        let mut reads = self.locked();
        reads.retain(|_, at| now.duration_since(*at) < KEPT);
        reads.insert(cache.clone(), now);
    }

    pub fn forget(&self, cache: &CacheKey) {
        self.locked().remove(cache);
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<CacheKey, Timestamp>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cluster {
    /// What `get` says of each, without its content.
    pub async fn secret_states(
        &self,
        names: &[SecretName],
    ) -> Result<BTreeMap<SecretName, SecretState>, Error> {
        let state = |name: SecretName| async {
            let state = match self.read_secret(&name).await? {
                Read::Missing => SecretState::Missing,
                Read::Forbidden => SecretState::Forbidden,
                Read::Found(secret) => match config_of(&secret) {
                    Ok(_) => SecretState::Found {
                        uid: secret.metadata.uid.clone().unwrap_or_default(),
                        resource_version: secret.metadata.resource_version.clone().unwrap_or_default(),
                    },
                    Err(why) => SecretState::Unusable(why),
                },
            };
            Ok((name, state))
        };
        stream::iter(names.iter().cloned().map(state)).buffered(4).try_collect().await
    }

    /// The files for a worker, one for each pull secret that has an entry it can use. Fails if one of the secrets
    /// cannot be had, because without it a private image would be reported as missing.
    pub async fn credential_files(
        &self,
        names: &[SecretName],
        images: &[Reference],
        hosts: &BTreeSet<RegistryHost>,
    ) -> Result<Vec<Vec<u8>>, Error> {
        let what = |name: &SecretName| format!("get secret {name}");
        let config = |name: SecretName| async move {
            match self.read_secret(&name).await? {
                Read::Missing => Err(Error::new(what(&name), Why::NotFound)),
                Read::Forbidden => {
                    Err(Error::new(what(&name), Why::Forbidden("get is not granted".to_owned())))
                }
                Read::Found(secret) => config_of(&secret)
                    .map(<[u8]>::to_vec)
                    .map_err(|why| Error::new(what(&name), Why::Unusable(why))),
            }
        };
        let texts: Vec<Vec<u8>> =
            stream::iter(names.iter().cloned().map(config)).buffered(4).try_collect().await?;
        let usable = images.iter().filter(|image| hosts.contains(image.host()));
        let filtered = Credentials::parse(texts).filter(usable);
        Ok(filtered.to_docker_configs().into_iter().map(String::into_bytes).collect())
    }

    async fn read_secret(&self, name: &SecretName) -> Result<Read, Error> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &name.namespace);
        let what = format!("get secret {name}");
        match found(call_secretly(what, api.get(&name.name)).await) {
            Ok(Some(secret)) => Ok(Read::Found(Box::new(secret))),
            Ok(None) => Ok(Read::Missing),
            Err(Error { why: Why::Forbidden(_), .. }) => Ok(Read::Forbidden),
            Err(other) => Err(other),
        }
    }
}

/// The docker config of a pull secret.
fn config_of(secret: &Secret) -> Result<&[u8], String> {
    let data = secret.data.as_ref();
    let text = [JSON_KEY, LEGACY_KEY].iter().find_map(|key| data?.get(*key)).ok_or_else(|| {
        let type_ = secret.type_.as_deref().unwrap_or("Opaque");
        format!("its type is {type_}: a pull secret has type kubernetes.io/dockerconfigjson")
    })?;
    if serde_json::from_slice::<serde::de::IgnoredAny>(&text.0).is_err() {
        return Err("its content is not JSON: make it with kubectl create secret docker-registry".to_owned());
    }
    Ok(&text.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(key: &str, text: &str) -> Secret {
        serde_json::from_value(serde_json::json!({
            "type": "Opaque", "data": { key: k8s_openapi::ByteString(text.as_bytes().to_vec()) },
        }))
        .unwrap()
    }

    #[test]
    fn both_kinds_of_pull_secret_are_read_and_others_say_what_is_wrong() {
        assert!(config_of(&secret(".dockerconfigjson", "{}")).is_ok());
        assert!(config_of(&secret(".dockercfg", "{}")).is_ok());
        let opaque = config_of(&secret("password", "hunter2")).unwrap_err();
        let broken = config_of(&secret(".dockerconfigjson", "hunter2")).unwrap_err();
        assert!(opaque.contains("dockerconfigjson") && broken.contains("not JSON"));
        assert!(!format!("{opaque}{broken}").contains("hunter2"));
    }
}
