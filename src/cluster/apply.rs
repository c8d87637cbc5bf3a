//! Carries out a plan's actions. Each may be repeated: names are derived, and "already exists" is success only
//! with our UID as controller. Nothing is written after the Lease is lost.

use std::{collections::BTreeSet, fmt::Debug};

use k8s_openapi::{NamespaceResourceScope, api::core::v1::Secret};
use kube::{Api, Resource, ResourceExt as _, api::PostParams};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    Cluster, Error, Why,
    error::{call, call_secretly, found},
    observe,
};
use crate::{
    api::keys::FIELD_MANAGER,
    model::{
        acr::Logins,
        judge::{Object, SecretName},
        names,
        plan::{Action, StartRun},
        reference::RegistryHost,
        request::CacheKey,
    },
    render::{self, Run, secret::LOGIN_FILE},
};

impl Cluster {
    pub async fn apply(&self, object: &Object, action: &Action) -> Result<(), Error> {
        match action {
            Action::StartRun(start) => self.start_run(start).await,
            Action::RenewCredentials { run, secrets, hosts, logins } => {
                self.renew_credentials(object, *run, secrets, hosts, logins).await
            }
            Action::RemoveRun { run, job } => self.remove_run(&object.uid, *run, job).await,
            Action::RemoveSecrets { run } => self.remove_secrets(&object.uid, *run).await,
            Action::DeleteObject(delete) => self.delete_object(&object.name, delete).await,
            Action::Snapshot(step) => self.take_step(object, step).await,
        }
    }

    /// The object is still what was judged: asked before something is made that its watch may have overtaken.
    pub async fn confirm(&self, object: &Object) -> Result<(), Error> {
        let doing = format!("get imagecache {}", object.name);
        let live = found(call(&*doing, self.caches().get_metadata(&object.name)).await)?;
        let same = live.is_some_and(|live| {
            live.metadata.uid.as_deref() == Some(object.uid.as_str())
                && live.metadata.resource_version.as_ref() == Some(&object.resource_version)
        });
        if same { Ok(()) } else { Err(Error::new(doing, Why::Conflict)) }
    }

    async fn start_run(&self, start: &StartRun) -> Result<(), Error> {
        let StartRun { request, secrets, hosts, logins, .. } = start;
        let run = Run { cache: &request.cache, name: &request.name, number: request.run };
        let namespace = &self.worker.namespace;
        let unusable = |e: serde_json::Error| Error::new("render the pull Job", Why::Unusable(e.to_string()));
        let files = self.credential_files(secrets, &request.images, hosts).await?;
        let login = self.logins.take(&request.cache, request.run, logins).await?;
        let credentials = render::secret::credentials(run, namespace, files, login);
        let wanted = render::secret::request(request, namespace).map_err(unusable)?;
        let job = render::job::job(start, &self.worker).map_err(unusable)?;
        if let Some(before) = request.run.checked_sub(1).filter(|before| *before > 0) {
            // That run never got its Job, else its Secrets went with it.
            self.remove_secrets(&request.cache, before).await?;
        }
        self.put_request(&wanted, &request.cache).await?;
        self.put_credentials(&credentials, &request.cache).await?;
        match self.create(&self.jobs(), &job).await? {
            Created::Now => tracing::info!(cache = request.name, job = job.name_any(), "pull Job made"),
            Created::Before(there) => owned(&*there, &request.cache)?,
        }
        Ok(())
    }

    async fn put_request(&self, wanted: &Secret, cache: &CacheKey) -> Result<(), Error> {
        let api = self.own_secrets();
        let Created::Before(there) = self.create(&api, wanted).await? else { return Ok(()) };
        owned(&*there, cache)?;
        if there.data == wanted.data {
            return Ok(());
        }
        // Left by a start that did not get to its Job; the operator's settings changed since. It is immutable.
        self.remove(&api, &there.metadata).await?;
        match self.create(&api, wanted).await? {
            Created::Now => Ok(()),
            Created::Before(_) => Err(Error::new(what("create", wanted), Why::Conflict)),
        }
    }

    async fn put_credentials(&self, wanted: &Secret, cache: &CacheKey) -> Result<(), Error> {
        match self.create(&self.own_secrets(), wanted).await? {
            Created::Now => Ok(()),
            Created::Before(there) => self.replace_credentials(&there, wanted, cache).await,
        }
    }

    async fn replace_credentials(
        &self,
        there: &Secret,
        wanted: &Secret,
        cache: &CacheKey,
    ) -> Result<(), Error> {
        owned(there, cache)?;
        if there.data.clone().unwrap_or_default() == wanted.data.clone().unwrap_or_default() {
            return Ok(());
        }
        let next = Secret {
            metadata: kube::api::ObjectMeta {
                uid: there.metadata.uid.clone(),
                resource_version: there.metadata.resource_version.clone(),
                ..wanted.metadata.clone()
            },
            ..wanted.clone()
        };
        let doing = what("update", wanted);
        self.fence.check(&doing)?;
        call_secretly(doing, self.own_secrets().replace(&wanted.name_any(), &written_by_us(), &next)).await?;
        Ok(())
    }

    /// Short-lived tokens: the running worker reads its folder again. A login that cannot be renewed now stays as it is:
    /// it may still work for a while.
    async fn renew_credentials(
        &self,
        object: &Object,
        run: u64,
        secrets: &[SecretName],
        hosts: &BTreeSet<RegistryHost>,
        logins: &Logins,
    ) -> Result<(), Error> {
        let (job, name) = (names::job(&object.uid, run), names::credentials_secret(&object.uid, run));
        let Some(job) = found(call(format!("get job {job}"), self.jobs().get(&job)).await)? else {
            return Ok(());
        };
        let api = self.own_secrets();
        let Some(there) = found(call_secretly(format!("get secret {name}"), api.get(&name)).await)? else {
            return Ok(());
        };
        let files = self.credential_files(secrets, &observe::images(&job), hosts).await?;
        let login = match self.logins.take(&object.uid, run, logins).await {
            Ok(login) => login,
            Err(error) => {
                tracing::warn!(cache = object.name, %error, "the login of a running pull is not renewed yet");
                let kept = there.data.as_ref().and_then(|data| data.get(LOGIN_FILE));
                kept.map(|file| file.0.clone())
            }
        };
        let run = Run { cache: &object.uid, name: &object.name, number: run };
        let wanted = render::secret::credentials(run, &self.worker.namespace, files, login);
        self.replace_credentials(&there, &wanted, &object.uid).await
    }

    /// Makes a child; one that is there already is fine if it is this cache's.
    pub(super) async fn put<K>(&self, api: &Api<K>, wanted: &K, cache: &CacheKey) -> Result<(), Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Serialize
            + DeserializeOwned
            + Clone
            + Debug,
    {
        match self.create(api, wanted).await? {
            Created::Now => {
                tracing::info!(%cache, name = wanted.name_any(), "{} made", K::kind(&()));
                Ok(())
            }
            Created::Before(there) => owned(&*there, cache),
        }
    }

    async fn create<K>(&self, api: &Api<K>, wanted: &K) -> Result<Created<K>, Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Serialize
            + DeserializeOwned
            + Clone
            + Debug,
    {
        let doing = what("create", wanted);
        self.fence.check(&doing)?;
        let how = written_by_us();
        let creating = api.create(&how, wanted);
        // What the server says of a refused Job or volume is what people need (quota, admission).
        let answer = if K::kind(&()) == Secret::kind(&()) {
            call_secretly(doing, creating).await
        } else {
            call(doing, creating).await
        };
        match answer {
            Ok(_) => Ok(Created::Now),
            Err(Error { why: Why::AlreadyExists, .. }) => {
                let there =
                    call_secretly(what("get", wanted), api.get(&wanted.name_any())).await.map_err(raced)?;
                if there.meta().deletion_timestamp.is_some() {
                    return Err(Error::new(what("create", wanted), Why::Conflict));
                }
                Ok(Created::Before(Box::new(there)))
            }
            Err(error) => Err(error),
        }
    }
}

enum Created<K> {
    Now,
    Before(Box<K>),
}

/// It was there a moment ago.
fn raced(error: Error) -> Error {
    if error.why == Why::NotFound { Error { why: Why::Conflict, ..error } } else { error }
}

fn owned<K: Resource<DynamicType = ()>>(there: &K, cache: &CacheKey) -> Result<(), Error> {
    if observe::controller_uid(there.meta()) == Some(cache.as_str()) {
        Ok(())
    } else {
        Err(Error::new(what("create", there), Why::Foreign))
    }
}

pub(super) fn written_by_us() -> PostParams {
    PostParams { dry_run: false, field_manager: Some(FIELD_MANAGER.to_owned()) }
}

/// `create job imc-...-3`.
fn what<K: Resource<DynamicType = ()>>(verb: &str, object: &K) -> String {
    format!("{verb} {} {}", K::kind(&()).to_lowercase(), object.name_any())
}
