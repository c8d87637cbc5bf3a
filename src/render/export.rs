//! The Job that fills a cache's own volume. It asks no registry, so it has no Secrets; what it copies is named by the
//! digest that was credited.

use k8s_openapi::api::batch::v1::Job;

use super::{
    Run, Worker, child,
    job::{STORE, claim, mount, spec, template, working},
};
use crate::{
    api::keys,
    model::{names, pod::PodShape},
};

/// The cache's own volume, in the pod.
const TARGET: &str = "snapshot";

pub fn job(run: Run<'_>, root: &str, pod: &PodShape, worker: &Worker) -> Job {
    let name = names::export_job(run.cache, run.number);
    let args = vec![
        "export-volume".to_owned(),
        "--volume=/store".to_owned(),
        format!("--to=/{TARGET}"),
        format!("--cache={}", run.cache),
        format!("--run={}", run.number),
        format!("--root={root}"),
        "--log-format=json".to_owned(),
    ];
    // The store too: a lease is held in it.
    let container = working(worker, args, vec![mount(STORE, false), mount(TARGET, false)]);
    let volumes =
        vec![claim(STORE, worker.store_claim.clone()), claim(TARGET, names::snapshot(run.cache, run.number))];
    let mut pod = pod.clone();
    pod.labels.insert(keys::ROLE_LABEL.to_owned(), keys::ROLE_EXPORT.to_owned());
    let mut metadata = child(run, &worker.namespace, name);
    let labels = metadata.labels.get_or_insert_default();
    labels.insert(keys::ROLE_LABEL.to_owned(), keys::ROLE_EXPORT.to_owned());
    Job { metadata, spec: Some(spec(template(run, &pod, worker, container, volumes))), status: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::job::tests::{sample_worker, violations};

    #[test]
    fn an_export_pod_satisfies_pod_security_restricted_and_has_no_secret() {
        let cache = "8f14e45f-ceea-467f-a0e6-1c2b3d4e5f60".parse().unwrap();
        let run = Run { cache: &cache, name: "shop", number: 3 };
        let job = job(run, "sha256:00", &PodShape::default(), &sample_worker());
        let template = job.spec.unwrap().template;
        let labels = template.metadata.unwrap().labels.unwrap();
        assert_eq!((labels[keys::ROLE_LABEL].as_str(), labels[keys::RUN_LABEL].as_str()), ("export", "3"));
        assert_eq!(job.metadata.labels.unwrap()[keys::ROLE_LABEL], "export");
        let pod = template.spec.unwrap();
        assert_eq!(violations(&pod), Vec::<String>::new());
        assert!(pod.volumes.iter().flatten().all(|volume| volume.secret.is_none()));
        assert!(pod.affinity.unwrap().pod_affinity.is_some(), "it goes where the store is");
        assert_eq!(pod.automount_service_account_token, Some(false));
    }
}
