//! Kubernetes objects as facts: pure, and only what `plan` looks at.
//! Sources: Kubernetes API conventions of Job conditions, Pod conditions and container states.

use k8s_openapi::{
    api::{
        batch::v1::Job,
        core::v1::{ContainerState, Node, PersistentVolumeClaim, Pod},
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use kube::{ResourceExt as _, core::PartialObjectMeta};

use jiff::Timestamp;

use crate::{
    api::{
        keys,
        snapshot::{VolumeSnapshot, VolumeSnapshotContent},
    },
    model::{
        facts::{Exit, JobFact, JobState, PodFact},
        plan::JobId,
        platform::Platform,
        reference::{Reference, RegistryHost},
        snapshot::{self, ContentFact, SnapshotFact, VolumeFact},
    },
    render::{IMAGES, job::CONTAINER},
};

pub fn label<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.labels.as_ref()?.get(key).map(String::as_str)
}

fn annotation<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(key).map(String::as_str)
}

/// The UID of the cache whose child this is.
pub fn cache_uid(meta: &ObjectMeta) -> Option<&str> {
    label(meta, keys::CACHE_UID_LABEL)
}

/// The name of the cache whose child this is.
pub fn cache_name(meta: &ObjectMeta) -> Option<&str> {
    annotation(meta, keys::CACHE_NAME)
}

/// The registry hosts a Job pulls from.
pub fn hosts(job: &Job) -> Vec<RegistryHost> {
    let text = annotation(&job.metadata, keys::HOSTS).unwrap_or_default();
    text.split(',').filter_map(|host| host.parse().ok()).collect()
}

/// The existing addresses a Job's pod holds.
pub fn eips(job: &Job) -> Vec<String> {
    let text = annotation(&job.metadata, keys::EIPS).unwrap_or_default();
    text.split(',').filter(|eip| !eip.is_empty()).map(str::to_owned).collect()
}

/// The images a Job was made for.
pub fn images(job: &Job) -> Vec<Reference> {
    let text = annotation(&job.metadata, IMAGES).unwrap_or_default();
    serde_json::from_str(text).unwrap_or_default()
}

fn stamp(time: Option<&Time>) -> Timestamp {
    time.map_or(Timestamp::UNIX_EPOCH, |time| time.0)
}

/// A Job without its pod, progress and events.
pub fn job(job: &Job) -> JobFact {
    let meta = &job.metadata;
    JobFact {
        name: job.name_any(),
        uid: meta.uid.clone().unwrap_or_default(),
        resource_version: meta.resource_version.clone().unwrap_or_default(),
        run: run_of(meta),
        created: stamp(meta.creation_timestamp.as_ref()),
        deleting: meta.deletion_timestamp.is_some(),
        state: job_state(job),
        pod: None,
        no_pod: None,
        progress: None,
    }
}

pub fn job_state(job: &Job) -> JobState {
    let conditions = job.status.iter().filter_map(|status| status.conditions.as_ref()).flatten();
    let truths: Vec<_> = conditions.filter(|condition| condition.status == "True").collect();
    let of = |type_: &str| truths.iter().find(|condition| condition.type_ == type_);
    if let Some(done) = of("Complete") {
        return JobState::Succeeded { at: stamp(done.last_transition_time.as_ref()) };
    }
    // `FailureTarget` comes first and stays; `Failed` follows when the pods are gone.
    match of("Failed").or_else(|| of("FailureTarget")) {
        Some(failed) => JobState::Failed {
            at: stamp(failed.last_transition_time.as_ref()),
            reason: failed.reason.clone().unwrap_or_default(),
            message: failed.message.clone().unwrap_or_default(),
        },
        None => JobState::Active,
    }
}

/// It holds a slot: it is not over and not on its way out.
pub fn is_running(job: &Job) -> bool {
    job.metadata.deletion_timestamp.is_none() && job_state(job) == JobState::Active
}

/// Reasons of a pod that a virtual node gave up. Source: ECI, "Fail strategy".
const NO_INSTANCE: [&str; 2] = ["ProviderFailed", "ContainerInstanceScheduleFailed"];

/// A pod without the outcome of its worker.
pub fn pod(pod: &Pod) -> PodFact {
    let status = pod.status.clone().unwrap_or_default();
    let state = container_state(pod).cloned().unwrap_or_default();
    let condition = |type_: &str, value: &str| {
        let all = status.conditions.iter().flatten();
        all.into_iter().find(|c| c.type_ == type_ && c.status == value)
    };
    let words = |reason: Option<&String>, message: Option<&String>| {
        let both = [reason, message].into_iter().flatten().map(String::as_str);
        both.filter(|text| !text.is_empty()).collect::<Vec<_>>().join(": ")
    };
    // A virtual node that found no instance says so in a condition, and at the end in the pod's reason.
    let no_instance = condition("ContainerInstanceCreated", "False")
        .filter(|c| c.reason.as_deref() != Some("Creating"))
        .map(|c| words(c.reason.as_ref(), c.message.as_ref()));
    let given_up = status.reason.as_ref().filter(|reason| NO_INSTANCE.contains(&reason.as_str()));
    let given_up = given_up.map(|reason| words(Some(reason), status.message.as_ref()));
    let taken_away = condition("DisruptionTarget", "True")
        .map(|c| words(c.reason.as_ref(), c.message.as_ref()))
        .or_else(|| status.reason.as_ref().map(|reason| words(Some(reason), status.message.as_ref())))
        .filter(|_| given_up.is_none());
    let started = state.running.as_ref().and_then(|running| running.started_at.as_ref());
    let ended = state.terminated.as_ref();
    PodFact {
        name: pod.name_any(),
        created: stamp(pod.metadata.creation_timestamp.as_ref()),
        started: started.or_else(|| ended.and_then(|ended| ended.started_at.as_ref())).map(|time| time.0),
        waiting: state.waiting.map(|w| (w.reason.unwrap_or_default(), w.message.unwrap_or_default())),
        unschedulable: no_instance.or(given_up).or_else(|| {
            condition("PodScheduled", "False").map(|c| words(c.reason.as_ref(), c.message.as_ref()))
        }),
        disrupted: taken_away,
        exit: ended.map(|ended| Exit {
            code: ended.exit_code,
            at: stamp(ended.finished_at.as_ref()),
            oom: ended.reason.as_deref() == Some("OOMKilled"),
            outcome: None,
        }),
    }
}

fn container_state(pod: &Pod) -> Option<&ContainerState> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    statuses.iter().find(|status| status.name == CONTAINER)?.state.as_ref()
}

/// The worker writes its log now.
pub fn is_working(pod: &Pod) -> bool {
    container_state(pod).is_some_and(|state| state.running.is_some())
}

/// What the worker left behind when it ended.
pub fn termination_message(pod: &Pod) -> Option<&str> {
    container_state(pod)?.terminated.as_ref()?.message.as_deref()
}

/// What a deletion of this very version names.
pub fn id(meta: &ObjectMeta) -> JobId {
    JobId {
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        resource_version: meta.resource_version.clone().unwrap_or_default(),
    }
}

fn run_of(meta: &ObjectMeta) -> u64 {
    label(meta, keys::RUN_LABEL).and_then(|run| run.parse().ok()).unwrap_or_default()
}

/// The claim of a cache's own volume.
pub fn volume(claim: &PersistentVolumeClaim) -> VolumeFact {
    let requests = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref()?.requests.as_ref());
    VolumeFact {
        id: id(&claim.metadata),
        run: run_of(&claim.metadata),
        created: stamp(claim.metadata.creation_timestamp.as_ref()),
        deleting: claim.metadata.deletion_timestamp.is_some(),
        finalizers: claim.metadata.finalizers.clone().unwrap_or_default(),
        phase: claim.status.as_ref().and_then(|status| status.phase.clone()).unwrap_or_default(),
        bytes: requests.and_then(|all| snapshot::bytes(&all.get("storage")?.0)).unwrap_or_default(),
    }
}

pub fn snapshot(snapshot: &VolumeSnapshot) -> SnapshotFact {
    let status = snapshot.status.clone().unwrap_or_default();
    SnapshotFact {
        id: id(&snapshot.metadata),
        run: run_of(&snapshot.metadata),
        created: stamp(snapshot.metadata.creation_timestamp.as_ref()),
        deleting: snapshot.metadata.deletion_timestamp.is_some(),
        finalizers: snapshot.metadata.finalizers.clone().unwrap_or_default(),
        class: snapshot.spec.volume_snapshot_class_name.clone(),
        // Without a content there is nothing that could be ready.
        ready: status.ready_to_use == Some(true) && status.bound_volume_snapshot_content_name.is_some(),
        content: status.bound_volume_snapshot_content_name,
        restore_bytes: status.restore_size.and_then(|size| snapshot::bytes(&size.0)),
        error: status.error.map(|error| error.message.unwrap_or_default()),
    }
}

pub fn content(content: &VolumeSnapshotContent) -> ContentFact {
    let of = &content.spec.volume_snapshot_ref;
    ContentFact {
        snapshot_uid: of.uid.clone().unwrap_or_default(),
        snapshot_name: of.name.clone().unwrap_or_default(),
        snapshot_namespace: of.namespace.clone().unwrap_or_default(),
        deletion_policy: content.spec.deletion_policy.clone(),
    }
}

/// The UID of the Job whose pod this is.
pub fn job_uid(pod: &Pod) -> Option<&str> {
    controller_uid(&pod.metadata)
}

/// The UID of what controls an object.
pub fn controller_uid(meta: &ObjectMeta) -> Option<&str> {
    let owners = meta.owner_references.as_ref()?;
    owners.iter().find(|owner| owner.controller == Some(true)).map(|owner| owner.uid.as_str())
}

pub fn node_platform(node: &PartialObjectMeta<Node>) -> Option<Platform> {
    let of = |key: &str| label(&node.metadata, key);
    format!("{}/{}", of("kubernetes.io/os")?, of("kubernetes.io/arch")?).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod_of(status: &serde_json::Value) -> PodFact {
        let json = serde_json::json!({"metadata": {"name": "p", "creationTimestamp": "2026-01-01T00:00:00Z"}, "status": status});
        pod(&serde_json::from_value(json).unwrap())
    }

    fn container(state: &serde_json::Value) -> serde_json::Value {
        serde_json::json!({"containerStatuses": [
            {"name": "sidecar", "image": "", "imageID": "", "ready": true, "restartCount": 0, "state": {"running": {}}},
            {"name": "worker", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state}]})
    }

    #[test]
    fn a_job_is_active_until_a_true_condition_says_otherwise() {
        let of = |conditions: serde_json::Value| {
            let json = serde_json::json!({"metadata": {"name": "j"}, "status": {"conditions": conditions}});
            job_state(&serde_json::from_value(json).unwrap())
        };
        let at = "2026-01-01T00:00:00Z";
        assert_eq!(of(serde_json::json!([])), JobState::Active);
        assert_eq!(of(serde_json::json!([{"type": "Failed", "status": "False"}])), JobState::Active);
        assert_eq!(
            of(
                serde_json::json!([{"type": "SuccessCriteriaMet", "status": "True"}, {"type": "Complete", "status": "True", "lastTransitionTime": at}])
            ),
            JobState::Succeeded { at: at.parse().unwrap() }
        );
        assert_eq!(
            of(
                serde_json::json!([{"type": "FailureTarget", "status": "True", "reason": "PodFailurePolicy", "message": "exit code 22", "lastTransitionTime": at}])
            ),
            JobState::Failed {
                at: at.parse().unwrap(),
                reason: "PodFailurePolicy".into(),
                message: "exit code 22".into()
            }
        );
    }

    #[test]
    fn a_waiting_container_says_why() {
        let state = serde_json::json!({"waiting": {"reason": "ImagePullBackOff", "message": "back-off"}});
        let fact = pod_of(&container(&state));
        assert_eq!(fact.waiting, Some(("ImagePullBackOff".into(), "back-off".into())));
        assert_eq!((fact.started, fact.exit), (None, None));
    }

    #[test]
    fn an_ended_container_keeps_its_start_code_and_oom() {
        let state = serde_json::json!({"terminated": {"exitCode": 137, "reason": "OOMKilled",
            "startedAt": "2026-01-01T00:01:00Z", "finishedAt": "2026-01-01T00:02:00Z"}});
        let fact = pod_of(&container(&state));
        let exit = fact.exit.unwrap();
        assert_eq!((exit.code, exit.oom), (137, true));
        assert!(fact.started.is_some());
    }

    #[test]
    fn pods_without_a_container_still_say_what_keeps_or_took_them() {
        let waits = pod_of(
            &serde_json::json!({"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}]}),
        );
        assert_eq!(waits.unschedulable.unwrap(), "Unschedulable: 0/3 nodes");
        let stock = pod_of(&serde_json::json!({"conditions": [
            {"type": "PodScheduled", "status": "True"},
            {"type": "ContainerInstanceCreated", "status": "False", "reason": "NoStock", "message": "none in the zone"}]}));
        assert_eq!(stock.unschedulable.unwrap(), "NoStock: none in the zone");
        let creating = pod_of(
            &serde_json::json!({"conditions": [{"type": "ContainerInstanceCreated", "status": "False", "reason": "Creating"}]}),
        );
        assert_eq!(creating.unschedulable, None);
        let failed =
            pod_of(&serde_json::json!({"phase": "Failed", "reason": "ProviderFailed", "message": "x"}));
        assert_eq!((failed.unschedulable.as_deref(), failed.disrupted), (Some("ProviderFailed: x"), None));
        let gone =
            pod_of(&serde_json::json!({"phase": "Failed", "reason": "Evicted", "message": "disk pressure"}));
        assert_eq!(gone.disrupted.unwrap(), "Evicted: disk pressure");
    }
}
