//! What must be true before anything is watched: the definition is there and ours, and it is known how pull pods
//! look. Each failure is one sentence that says what to do. An API server that does not answer is waited for: a
//! restart would not bring it back, and its message would be lost in the kubelet's back-off.

use std::time::Duration;

use k8s_openapi::{
    api::core::v1::{Container, Pod},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{Api, Client};
use tokio_util::sync::CancellationToken;

use super::{Config, health::Health};
use crate::{
    api::keys,
    cluster::{
        self,
        error::{call, found},
    },
    model::{cloud::Cloud, failure::Failure, reference::Reference, settings::Settings},
    render::Worker,
};

/// Between two tries, doubled up to the second; jitter keeps replicas apart.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "the CustomResourceDefinition {} is not installed: run `kubectl apply -k config/`, or `imagecache crd | kubectl apply -f -`",
        keys::CRD_NAME
    )]
    NoDefinition,
    #[error(
        "the CustomResourceDefinition {} is not imagecache's own (it has no label {}={}), so another controller may \
         work on these objects, as on clusters of ACK: start with --take-over if none does, or install ours with \
         `imagecache crd | kubectl apply --server-side --force-conflicts -f -`",
        keys::CRD_NAME,
        keys::CRD_OWNER_LABEL,
        keys::CRD_OWNER
    )]
    ForeignDefinition,
    #[error("it is not known which image pull pods run: set --worker-image, or POD_NAME inside a cluster")]
    NoImage,
    #[error(
        "the name of the store's claim, {0:?}, is also a label of pods: choose one of at most 63 characters"
    )]
    LongClaim(String),
    #[error(
        "--platform {0} runs pull pods on virtual nodes, so the store's volume must be one that all nodes can mount: \
         choose such a class (ReadWriteMany) and add --store-on-all-nodes"
    )]
    OneNode(Cloud),
    #[error("no way to a cluster: {0}")]
    NoCluster(String),
    #[error("cannot listen on {0}: {1}")]
    Listen(std::net::SocketAddr, std::io::Error),
    #[error("password-free pulls from ACR cannot be set up: {0}")]
    Acr(#[from] Failure),
    #[error(transparent)]
    Api(#[from] cluster::Error),
}

/// A connection whose other end vanished says nothing, not even to a watch that is taken up again on it: after this
/// long without a byte it is given up.
pub fn client(mut cluster: kube::Config, silence: Duration) -> Result<Client, Error> {
    cluster.read_timeout = Some(silence);
    // Else a connection that rested would cut the next request short.
    cluster.reset_reader_on_write = true;
    Client::try_from(cluster).map_err(|e| Error::NoCluster(e.to_string()))
}

/// What pull pods look like, once the API server has answered. None if told to stop before that.
pub async fn prepare(
    client: &Client,
    config: &Config,
    health: &Health,
    stop: &CancellationToken,
) -> Result<Option<Worker>, Error> {
    let mut wait = FIRST_WAIT;
    loop {
        let attempt = async {
            check_definition(client, config.take_over).await?;
            worker(client, config).await
        };
        let outcome = tokio::select! {
            outcome = attempt => outcome,
            () = stop.cancelled() => return Ok(None),
        };
        let error = match outcome {
            Err(Error::Api(error)) if error.is_transient() => error,
            outcome => {
                health.wait_for(None);
                return outcome.map(Some);
            }
        };
        tracing::warn!(%error, "waiting for the API server; the next try is in {wait:.1?} at most");
        health.wait_for(Some(format!("waiting for the API server: {error}")));
        tokio::select! {
            () = tokio::time::sleep(wait.mul_f64(rand::random_range(0.5..1.0))) => {}
            () = stop.cancelled() => return Ok(None),
        }
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}

async fn check_definition(client: &Client, take_over: bool) -> Result<(), Error> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let what = format!("get customresourcedefinition {}", keys::CRD_NAME);
    let definition = found(call(what, api.get(keys::CRD_NAME)).await)?.ok_or(Error::NoDefinition)?;
    let owner = definition.metadata.labels.as_ref().and_then(|labels| labels.get(keys::CRD_OWNER_LABEL));
    if owner.map(String::as_str) == Some(keys::CRD_OWNER) {
        return Ok(());
    }
    if !take_over {
        return Err(Error::ForeignDefinition);
    }
    tracing::warn!("working on a CustomResourceDefinition that is not ours, as --take-over says");
    Ok(())
}

/// Pull pods run the controller's image, with its pull secrets, unless another image is named.
async fn worker(client: &Client, config: &Config) -> Result<Worker, Error> {
    // Also a label's value.
    if config.store_claim.len() > 63 {
        return Err(Error::LongClaim(config.store_claim.clone()));
    }
    let mut worker = Worker {
        namespace: config.namespace.clone(),
        image: String::new(),
        pull_policy: None,
        pull_secrets: Vec::new(),
        store_claim: config.store_claim.clone(),
        one_node: config.one_node,
        resources: config.worker_resources.clone(),
        auth_realms: config.auth_realms.clone(),
    };
    if let Some(name) = &config.pod_name {
        let api: Api<Pod> = Api::namespaced(client.clone(), &config.namespace);
        let pod = call(format!("get pod {}/{name}", config.namespace), api.get(name)).await?;
        like_our_own(&mut worker, &pod);
    }
    if let Some(image) = &config.worker_image {
        worker.image.clone_from(image);
    }
    if worker.image.is_empty() { Err(Error::NoImage) } else { Ok(worker) }
}

/// The settings with what is only known here.
pub(super) fn settings(config: &Config, worker: &Worker) -> Result<Settings, Error> {
    let cloud = config.settings.cloud;
    if config.one_node && cloud != Cloud::Kubernetes {
        return Err(Error::OneNode(cloud));
    }
    let image = worker.image.parse::<Reference>().ok();
    Ok(Settings {
        namespace: config.namespace.clone(),
        one_node: config.one_node,
        worker_host: image.map(|image| image.host().clone()),
        ..config.settings.clone()
    })
}

fn like_our_own(worker: &mut Worker, pod: &Pod) {
    let Some(spec) = &pod.spec else { return };
    let controller = |container: &&Container| container.name == "controller";
    let Some(own) = spec.containers.iter().find(controller).or_else(|| spec.containers.first()) else {
        return;
    };
    worker.image = own.image.clone().unwrap_or_default();
    worker.pull_policy.clone_from(&own.image_pull_policy);
    worker.pull_secrets =
        spec.image_pull_secrets.iter().flatten().map(|reference| reference.name.clone()).collect();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::job::tests::sample_worker;

    #[tokio::test]
    async fn a_request_that_is_never_answered_ends() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let client = client(kube::Config::new(url.parse().unwrap()), Duration::from_millis(50)).unwrap();
        let pods: Api<Pod> = Api::namespaced(client, "x");
        let listed = tokio::time::timeout(Duration::from_secs(20), pods.get("p")).await;
        assert!(listed.expect("no answer is an answer").is_err());
    }

    #[test]
    fn a_store_of_one_node_is_refused_where_pods_run_on_virtual_nodes() {
        let mut config = Config::new("ns", ([127, 0, 0, 1], 0).into());
        config.settings.cloud = Cloud::Eci;
        let error = settings(&config, &sample_worker()).unwrap_err().to_string();
        assert!(error.contains("--store-on-all-nodes"), "{error}");
        config.one_node = false;
        let settings = settings(&config, &sample_worker()).unwrap();
        assert_eq!(settings.worker_host.unwrap().as_str(), "registry.example.com");
    }

    #[test]
    fn pull_pods_take_image_policy_and_pull_secrets_of_the_controllers_container() {
        let pod: Pod = serde_json::from_value(serde_json::json!({"spec": {
            "imagePullSecrets": [{"name": "mine"}],
            "containers": [
                {"name": "istio-proxy", "image": "proxy:1"},
                {"name": "controller", "image": "imagecache:2", "imagePullPolicy": "Always"}]}}))
        .unwrap();
        let mut worker = sample_worker();
        like_our_own(&mut worker, &pod);
        assert_eq!((worker.image.as_str(), worker.pull_policy.as_deref()), ("imagecache:2", Some("Always")));
        assert_eq!(worker.pull_secrets, ["mine"]);
    }
}
