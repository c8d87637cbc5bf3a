//! The pull Job: one pod, one try, Pod Security `restricted`, no API token, no secret in arguments or
//! environment. Retries are new runs, so the Job never makes a second pod except for one that was evicted.
//! Source: Kubernetes, "Pod failure policy" and "Pod Security Standards".

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        batch::v1::{
            Job, JobSpec, PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement,
            PodFailurePolicyOnPodConditionsPattern, PodFailurePolicyRule,
        },
        core::v1::{
            Affinity, Capabilities, Container, KeyToPath, LocalObjectReference,
            PersistentVolumeClaimVolumeSource, PodAffinity, PodAffinityTerm, PodSecurityContext, PodSpec,
            PodTemplateSpec, SeccompProfile, SecretVolumeSource, SecurityContext, Volume, VolumeMount,
        },
    },
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta},
};

use super::{
    IMAGES, Run, STORE_LABEL, Worker, child, labels, place,
    secret::{REQUEST_FILE, run_of},
};
use crate::{
    api::keys,
    model::{
        class::{Class, Kind},
        names,
        plan::StartRun,
        pod::PodShape,
    },
};

/// The container whose exit code and log are read.
pub const CONTAINER: &str = "worker";
/// All pods on the store share one uid: its files are 0444 and its folders belong to the group.
const USER: i64 = 65532;
/// A backstop only: the controller ends a Job that makes no progress much earlier.
const DEADLINE_SECONDS: i64 = 24 * 3600;
/// Enough to write a report; what is downloaded is on the disk already.
pub(super) const STOP_SECONDS: i64 = 10;

pub(super) const STORE: &str = "store";
const REQUEST: &str = "request";
const CREDENTIALS: &str = "credentials";

pub fn job(start: &StartRun, worker: &Worker) -> Result<Job, serde_json::Error> {
    let StartRun { request, pod, eips, .. } = start;
    let run = run_of(request);
    let mut metadata = child(run, &worker.namespace, names::job(run.cache, run.number));
    let hosts: std::collections::BTreeSet<&str> =
        request.images.iter().map(|image| image.host().as_str()).collect();
    metadata.annotations.get_or_insert_default().extend([
        (keys::HOSTS.to_owned(), hosts.into_iter().collect::<Vec<_>>().join(",")),
        (IMAGES.to_owned(), serde_json::to_string(&request.images)?),
    ]);
    if !eips.is_empty() {
        let eips: Vec<&str> = eips.iter().map(String::as_str).collect();
        metadata.annotations.get_or_insert_default().insert(keys::EIPS.to_owned(), eips.join(","));
    }
    Ok(Job {
        metadata,
        spec: Some(spec(template(run, pod, worker, container(worker), volumes(run, worker)))),
        status: None,
    })
}

/// A Job of the worker's image with other work: the same pod, other arguments and volumes.
pub(super) fn spec(template: PodTemplateSpec) -> JobSpec {
    JobSpec {
        backoff_limit: Some(0),
        active_deadline_seconds: Some(DEADLINE_SECONDS),
        pod_failure_policy: Some(failure_policy()),
        template,
        ..JobSpec::default()
    }
}

/// The first rule wins: an evicted worker exits with codes of ours too. A worker that was told to stop exits with
/// a code that no rule names.
fn failure_policy() -> PodFailurePolicy {
    let lasting = |class: &&Class| class.kind() != Kind::Transient;
    PodFailurePolicy {
        rules: vec![
            PodFailurePolicyRule {
                action: "Ignore".to_owned(),
                on_pod_conditions: Some(vec![PodFailurePolicyOnPodConditionsPattern {
                    type_: "DisruptionTarget".to_owned(),
                    status: "True".to_owned(),
                }]),
                on_exit_codes: None,
            },
            PodFailurePolicyRule {
                action: "FailJob".to_owned(),
                on_exit_codes: Some(PodFailurePolicyOnExitCodesRequirement {
                    container_name: Some(CONTAINER.to_owned()),
                    operator: "In".to_owned(),
                    values: Class::ALL.iter().filter(lasting).map(|c| i32::from(c.exit_code())).collect(),
                }),
                on_pod_conditions: None,
            },
        ],
    }
}

pub(super) fn template(
    run: Run<'_>,
    pod: &PodShape,
    worker: &Worker,
    container: Container,
    volumes: Vec<Volume>,
) -> PodTemplateSpec {
    // Ours come last: no setting takes their place.
    let mut pod_labels = pod.labels.clone();
    pod_labels.extend(labels(run));
    pod_labels.insert(STORE_LABEL.to_owned(), worker.store_claim.clone());
    let mut annotations = pod.annotations.clone();
    annotations.extend([
        (keys::CACHE_NAME.to_owned(), run.name.to_owned()),
        // A mesh's proxy would outlive the worker and keep the Job from ending.
        ("sidecar.istio.io/inject".to_owned(), "false".to_owned()),
    ]);
    let dns = pod.dns.as_ref().map(place::dns);
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(pod_labels),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        }),
        spec: Some(PodSpec {
            restart_policy: Some("Never".to_owned()),
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            termination_grace_period_seconds: Some(STOP_SECONDS),
            affinity: affinity(pod, worker),
            node_selector: (!pod.node_selector.is_empty()).then(|| pod.node_selector.clone()),
            tolerations: place::tolerations(pod),
            host_aliases: place::host_aliases(pod),
            dns_policy: dns.as_ref().and_then(|(policy, _)| policy.map(str::to_owned)),
            dns_config: dns.map(|(_, config)| config),
            image_pull_secrets: Some(pull_secrets(worker)),
            security_context: Some(pod_security()),
            containers: vec![container],
            volumes: Some(volumes),
            ..PodSpec::default()
        }),
    }
}

pub(super) fn pull_secrets(worker: &Worker) -> Vec<LocalObjectReference> {
    worker.pull_secrets.iter().map(|name| LocalObjectReference { name: name.clone() }).collect()
}

pub(super) fn pod_security() -> PodSecurityContext {
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(USER),
        run_as_group: Some(USER),
        fs_group: Some(USER),
        // Else the kubelet rewrites modes and times of the whole store at every mount.
        fs_group_change_policy: Some("OnRootMismatch".to_owned()),
        seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
        ..PodSecurityContext::default()
    }
}

pub(super) fn container_security() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        run_as_non_root: Some(true),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
        ..SecurityContext::default()
    }
}

pub(super) fn mount(name: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: format!("/{name}"),
        read_only: Some(read_only),
        ..VolumeMount::default()
    }
}

fn container(worker: &Worker) -> Container {
    let fixed = [
        "worker",
        "--request=/request/request.json",
        "--credentials=/credentials",
        "--volume=/store",
        "--log-format=json",
    ];
    let realms =
        worker.auth_realms.iter().map(|(registry, realm)| format!("--auth-realm={registry}={realm}"));
    let args = fixed.into_iter().map(str::to_owned).chain(realms).collect();
    working(worker, args, vec![mount(STORE, false), mount(REQUEST, true), mount(CREDENTIALS, true)])
}

pub(super) fn working(worker: &Worker, args: Vec<String>, mounts: Vec<VolumeMount>) -> Container {
    Container {
        name: CONTAINER.to_owned(),
        image: Some(worker.image.clone()),
        image_pull_policy: worker.pull_policy.clone(),
        args: Some(args),
        resources: Some(worker.resources.clone()),
        security_context: Some(container_security()),
        volume_mounts: Some(mounts),
        ..Container::default()
    }
}

fn volumes(run: Run<'_>, worker: &Worker) -> Vec<Volume> {
    // 0400 becomes 0440 with fsGroup, which the worker's user needs.
    let secret = |name: &str, secret: String, items: Option<Vec<KeyToPath>>| Volume {
        name: name.to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(secret),
            default_mode: Some(0o400),
            items,
            optional: None,
        }),
        ..Volume::default()
    };
    let file = KeyToPath { key: REQUEST_FILE.to_owned(), path: REQUEST_FILE.to_owned(), mode: None };
    vec![
        claim(STORE, worker.store_claim.clone()),
        secret(REQUEST, names::request_secret(run.cache, run.number), Some(vec![file])),
        secret(CREDENTIALS, names::credentials_secret(run.cache, run.number), None),
    ]
}

pub(super) fn claim(name: &str, claim_name: String) -> Volume {
    Volume {
        name: name.to_owned(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource { claim_name, read_only: None }),
        ..Volume::default()
    }
}

fn affinity(pod: &PodShape, worker: &Worker) -> Option<Affinity> {
    let node_affinity = place::node_affinity(pod);
    let pod_affinity = worker.one_node.then(|| beside_the_store(&worker.store_claim));
    (node_affinity.is_some() || pod_affinity.is_some()).then_some(Affinity {
        node_affinity,
        pod_affinity,
        pod_anti_affinity: None,
    })
}

/// The mirror carries the same label and the same term, so that all of them meet on the volume's node.
pub(super) fn beside_the_store(claim: &str) -> PodAffinity {
    let labels: BTreeMap<String, String> = [(STORE_LABEL.to_owned(), claim.to_owned())].into();
    PodAffinity {
        required_during_scheduling_ignored_during_execution: Some(vec![PodAffinityTerm {
            topology_key: "kubernetes.io/hostname".to_owned(),
            label_selector: Some(LabelSelector { match_labels: Some(labels), match_expressions: None }),
            ..PodAffinityTerm::default()
        }]),
        ..PodAffinity::default()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{
        model::{acr::Logins, class::EXIT_STOPPED, request::PullRequest},
        render::default_resources,
    };

    pub(crate) fn sample_request() -> PullRequest {
        serde_json::from_value(serde_json::json!({
            "cache": "8f14e45f-ceea-467f-a0e6-1c2b3d4e5f60", "name": "shop", "run": 3, "inputs": "abc",
            "images": ["nginx:1.27", "reg.example.com:5000/team/app:2", "redis:7"],
            "platforms": ["linux/amd64"], "sizeLimit": 1, "reuse": true, "credentialsOverHttp": true,
        }))
        .unwrap()
    }

    pub(crate) fn sample_worker() -> Worker {
        Worker {
            namespace: "imagecache-system".into(),
            image: "registry.example.com/imagecache:1".into(),
            pull_policy: Some("IfNotPresent".into()),
            pull_secrets: vec!["own-registry".into()],
            store_claim: "imagecache-store".into(),
            one_node: true,
            resources: default_resources(),
            auth_realms: vec![("reg.example.com".parse().unwrap(), "auth.example.com".into())],
        }
    }

    pub(crate) fn sample_start() -> StartRun {
        StartRun {
            request: sample_request(),
            secrets: vec![],
            hosts: [].into(),
            logins: Logins::default(),
            pod: PodShape::default(),
            eips: ["eip-1".to_owned()].into(),
        }
    }

    fn rendered(worker: &Worker) -> (Job, PodSpec) {
        let job = job(&sample_start(), worker).unwrap();
        let pod = job.spec.clone().unwrap().template.spec.unwrap();
        (job, pod)
    }

    /// What Pod Security `restricted` asks of a pod, as far as a pull pod could break it.
    pub(crate) fn violations(pod: &PodSpec) -> Vec<String> {
        let mut found = Vec::new();
        let mut need = |fine: bool, what: &str| {
            if !fine {
                found.push(what.to_owned());
            }
        };
        let whole = pod.security_context.clone().unwrap_or_default();
        need(whole.run_as_non_root == Some(true), "runAsNonRoot");
        need(whole.run_as_user.is_some_and(|user| user != 0), "runAsUser");
        need(whole.seccomp_profile.is_some_and(|p| p.type_ == "RuntimeDefault"), "seccompProfile");
        need(
            pod.host_network.is_none() && pod.host_pid.is_none() && pod.host_ipc.is_none(),
            "host namespaces",
        );
        for volume in pod.volumes.iter().flatten() {
            let harmless = volume.secret.is_some() || volume.projected.is_some();
            need(harmless || volume.persistent_volume_claim.is_some(), "volume types");
        }
        for container in &pod.containers {
            let own = container.security_context.clone().unwrap_or_default();
            need(own.allow_privilege_escalation == Some(false), "allowPrivilegeEscalation");
            need(own.privileged.is_none(), "privileged");
            let capabilities = own.capabilities.unwrap_or_default();
            need(
                capabilities.drop == Some(vec!["ALL".to_owned()]) && capabilities.add.is_none(),
                "capabilities",
            );
            need(container.ports.iter().flatten().all(|port| port.host_port.is_none()), "hostPort");
        }
        found
    }

    #[test]
    fn a_pull_pod_satisfies_pod_security_restricted_and_holds_no_token() {
        let (_, pod) = rendered(&sample_worker());
        assert_eq!(violations(&pod), Vec::<String>::new());
        assert_eq!(pod.automount_service_account_token, Some(false));
        assert_eq!(pod.service_account_name, None);
        assert_eq!(
            pod.containers[0].security_context.as_ref().unwrap().read_only_root_filesystem,
            Some(true)
        );
        let mut loose = pod;
        loose.containers[0].security_context = None;
        assert!(!violations(&loose).is_empty());
    }

    #[test]
    fn secrets_reach_the_worker_as_files_and_never_by_arguments_or_environment() {
        let (_, pod) = rendered(&sample_worker());
        let container = &pod.containers[0];
        assert!(container.env.is_none() && container.env_from.is_none());
        assert_eq!(
            container.args.as_ref().unwrap().last().unwrap(),
            "--auth-realm=reg.example.com=auth.example.com"
        );
        let modes: Vec<Option<i32>> =
            pod.volumes.iter().flatten().filter_map(|v| v.secret.as_ref()).map(|s| s.default_mode).collect();
        assert_eq!(modes, [Some(0o400), Some(0o400)]);
    }

    #[test]
    fn eviction_is_ignored_first_and_told_to_stop_fails_by_no_rule() {
        let rules = failure_policy().rules;
        assert_eq!((rules[0].action.as_str(), rules[0].on_exit_codes.is_none()), ("Ignore", true));
        let codes = rules[1].on_exit_codes.clone().unwrap().values;
        assert!(codes.contains(&i32::from(Class::Auth.exit_code())));
        assert!(!codes.contains(&i32::from(Class::Network.exit_code())));
        assert!(!codes.contains(&i32::from(EXIT_STOPPED)) && !codes.contains(&0));
    }

    #[test]
    fn a_job_has_one_try_and_says_what_it_pulls_from_where() {
        let (job, pod) = rendered(&sample_worker());
        let annotations = job.metadata.annotations.unwrap();
        assert_eq!(annotations[keys::HOSTS], "docker.io,reg.example.com:5000");
        assert_eq!(annotations[keys::EIPS], "eip-1");
        let images: Vec<String> = serde_json::from_str(&annotations[IMAGES]).unwrap();
        assert_eq!(images[0], "docker.io/library/nginx:1.27");
        let spec = job.spec.unwrap();
        assert_eq!((spec.backoff_limit, spec.ttl_seconds_after_finished), (Some(0), None));
        assert_eq!(pod.restart_policy.as_deref(), Some("Never"));
        assert_eq!(spec.template.metadata.unwrap().annotations.unwrap()["sidecar.istio.io/inject"], "false");
    }

    #[test]
    fn only_a_volume_of_one_node_binds_pull_pods_to_that_node() {
        assert!(rendered(&sample_worker()).1.affinity.is_some());
        assert!(rendered(&Worker { one_node: false, ..sample_worker() }).1.affinity.is_none());
    }
}
