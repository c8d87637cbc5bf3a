//! The gc Job, the `ConfigMap`s with its list of living caches, and the one that remembers its reports. The Job goes
//! first: the lists belong to it and go with it; until they are there its pod waits.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        batch::v1::{Job, JobSpec},
        core::v1::{
            Affinity, ConfigMap, ConfigMapProjection, Container, KeyToPath, PodSpec, PodTemplateSpec,
            ProjectedVolumeSource, Volume, VolumeProjection,
        },
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::Resource as _;

use super::{
    STORE_LABEL, Worker,
    job::{STOP_SECONDS, STORE, beside_the_store, claim, mount, pod_security, pull_secrets, working},
};
use crate::{
    api::keys,
    model::{
        collect::{self, Pace, Record},
        live::LivePart,
    },
};

/// Some 150 bytes each; a `ConfigMap` with its metadata stays below 512 KiB.
pub const ENTRIES: usize = 2800;
/// A backstop: gc looks at names and sizes only.
const DEADLINE_SECONDS: i64 = 6 * 3600;

const LIVE: &str = "live";
const PART: &str = "part.json";
const RECORD: &str = "record.json";

fn labels() -> BTreeMap<String, String> {
    let labels = [
        ("app.kubernetes.io/name", "imagecache"),
        ("app.kubernetes.io/component", "gc"),
        (keys::MANAGED_BY_LABEL, keys::MANAGED_BY),
    ];
    labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

fn meta(name: String, namespace: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(namespace.to_owned()),
        labels: Some(labels()),
        ..ObjectMeta::default()
    }
}

/// `list` tells the lists of different Jobs apart, `parts` is how many there are of this one.
pub fn job(list: &str, parts: usize, pace: &Pace, worker: &Worker) -> Job {
    let mut pod_labels = labels();
    pod_labels.insert(STORE_LABEL.to_owned(), worker.store_claim.clone());
    let annotations = [("sidecar.istio.io/inject".to_owned(), "false".to_owned())].into();
    let affinity = worker.one_node.then(|| Affinity {
        pod_affinity: Some(beside_the_store(&worker.store_claim)),
        ..Affinity::default()
    });
    Job {
        metadata: meta(collect::NAME.to_owned(), &worker.namespace),
        spec: Some(JobSpec {
            // A new try is a new Job with a new list.
            backoff_limit: Some(0),
            active_deadline_seconds: Some(DEADLINE_SECONDS),
            template: PodTemplateSpec {
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
                    affinity,
                    image_pull_secrets: Some(pull_secrets(worker)),
                    security_context: Some(pod_security()),
                    containers: vec![container(parts, pace, worker)],
                    volumes: Some(volumes(list, parts, worker)),
                    ..PodSpec::default()
                }),
            },
            ..JobSpec::default()
        }),
        status: None,
    }
}

fn container(parts: usize, pace: &Pace, worker: &Worker) -> Container {
    let minutes = pace.grace.as_secs().div_ceil(60);
    let mut args = vec![
        "gc".to_owned(),
        format!("/{STORE}"),
        format!("--grace={minutes}"),
        "--log-format=json".to_owned(),
        "--termination-log=/dev/termination-log".to_owned(),
    ];
    args.extend((0..parts).map(|part| format!("--live=/{LIVE}/{}", file(part))));
    if pace.no_waiting {
        args.push("--unsafe-no-waiting".to_owned());
    }
    let lists = (parts > 0).then(|| mount(LIVE, true));
    let mounts = [mount(STORE, false)].into_iter().chain(lists).collect();
    Container {
        // What it says when it fails is read as its report is.
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        ..working(worker, args, mounts)
    }
}

fn file(part: usize) -> String {
    format!("{part:04}.json")
}

fn volumes(list: &str, parts: usize, worker: &Worker) -> Vec<Volume> {
    let source = |part| VolumeProjection {
        config_map: Some(ConfigMapProjection {
            name: part_name(list, part),
            items: Some(vec![KeyToPath { key: PART.to_owned(), path: file(part), mode: None }]),
            optional: Some(false),
        }),
        ..VolumeProjection::default()
    };
    let lists = (parts > 0).then(|| Volume {
        name: LIVE.to_owned(),
        projected: Some(ProjectedVolumeSource {
            default_mode: Some(0o444),
            sources: Some((0..parts).map(source).collect()),
        }),
        ..Volume::default()
    });
    [claim(STORE, worker.store_claim.clone())].into_iter().chain(lists).collect()
}

fn part_name(list: &str, part: usize) -> String {
    format!("{}-{list}-{part}", collect::NAME)
}

/// The parts of a list, owned by the Job that was made for it.
pub fn parts(list: &str, parts: &[LivePart], job: &Job) -> Result<Vec<ConfigMap>, serde_json::Error> {
    let owner = OwnerReference {
        api_version: Job::api_version(&()).into_owned(),
        kind: Job::kind(&()).into_owned(),
        name: job.metadata.name.clone().unwrap_or_default(),
        uid: job.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: None,
    };
    let namespace = job.metadata.namespace.clone().unwrap_or_default();
    let part = |(n, part): (usize, &LivePart)| {
        Ok(ConfigMap {
            metadata: ObjectMeta {
                owner_references: Some(vec![owner.clone()]),
                ..meta(part_name(list, n), &namespace)
            },
            data: Some([(PART.to_owned(), serde_json::to_string(part)?)].into()),
            immutable: Some(true),
            binary_data: None,
        })
    };
    parts.iter().enumerate().map(part).collect()
}

pub fn record(record: &Record, namespace: &str) -> Result<ConfigMap, serde_json::Error> {
    Ok(ConfigMap {
        metadata: meta(collect::NAME.to_owned(), namespace),
        data: Some([(RECORD.to_owned(), serde_json::to_string_pretty(record)?)].into()),
        ..ConfigMap::default()
    })
}

/// What was remembered; nothing if it cannot be read.
pub fn read(map: &ConfigMap) -> Option<Record> {
    serde_json::from_str(map.data.as_ref()?.get(RECORD)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{
            collected::Report,
            digest::Digest,
            live::{Credited, LiveList},
        },
        render::job::tests::{sample_worker, violations},
    };

    fn pod(parts: usize, pace: &Pace) -> PodSpec {
        job("ab", parts, pace, &sample_worker()).spec.unwrap().template.spec.unwrap()
    }

    #[test]
    fn a_gc_pod_satisfies_pod_security_restricted_holds_no_token_and_stays_beside_the_store() {
        let pod = pod(2, &Pace::default());
        assert_eq!(violations(&pod), Vec::<String>::new());
        assert_eq!(pod.automount_service_account_token, Some(false));
        assert!(pod.affinity.is_some());
        assert_eq!(
            pod.containers[0].args.clone().unwrap(),
            [
                "gc",
                "/store",
                "--grace=60",
                "--log-format=json",
                "--termination-log=/dev/termination-log",
                "--live=/live/0000.json",
                "--live=/live/0001.json"
            ]
        );
        let sources = pod.volumes.unwrap()[1].projected.clone().unwrap().sources.unwrap();
        assert_eq!(sources[1].config_map.as_ref().unwrap().name, "imagecache-gc-ab-1");
    }

    #[test]
    fn without_a_list_no_list_is_mounted() {
        let pod = pod(0, &Pace { no_waiting: true, ..Pace::default() });
        assert_eq!(pod.volumes.unwrap().len(), 1);
        assert_eq!(pod.containers[0].volume_mounts.clone().unwrap().len(), 1);
        assert_eq!(pod.containers[0].args.clone().unwrap().last().unwrap(), "--unsafe-no-waiting");
    }

    #[test]
    fn the_parts_of_a_long_list_fit_into_config_maps_belong_to_the_job_and_read_back() {
        let cache = |i: usize| format!("8f14e45f-ceea-467f-a0e6-{i:012}").parse().unwrap();
        let credited = || Some(Credited { run: u64::MAX, root: Digest::sha256(b"x") });
        let list = LiveList {
            store: "0".repeat(32),
            last_gc: Some("1".repeat(32)),
            caches: (0..=2 * ENTRIES).map(|i| (cache(i), credited())).collect(),
        };
        let made = list.parts(ENTRIES);
        let mut job = job("ab", made.len(), &Pace::default(), &sample_worker());
        job.metadata.uid = Some("job-uid".into());
        let maps = parts("ab", &made, &job).unwrap();
        assert_eq!(maps.len(), 3);
        let texts: Vec<&String> = maps.iter().map(|map| &map.data.as_ref().unwrap()[PART]).collect();
        assert!(texts.iter().all(|text| text.len() < 512 << 10), "{}", texts[0].len());
        let read: Vec<LivePart> = texts.iter().map(|text| serde_json::from_str(text).unwrap()).collect();
        assert_eq!(LiveList::assemble(&read), Ok(list));
        let owner = &maps[2].metadata.owner_references.as_ref().unwrap()[0];
        assert_eq!((owner.kind.as_str(), owner.uid.as_str()), ("Job", "job-uid"));
    }

    #[test]
    fn what_is_remembered_reads_back_and_what_was_bent_is_forgotten() {
        let kept = Record { job: "uid".into(), report: Some(Report::default()), ..Record::default() };
        let mut map = record(&kept, "ns").unwrap();
        assert_eq!(read(&map), Some(kept));
        map.data.as_mut().unwrap().insert(RECORD.into(), "{".into());
        assert_eq!(read(&map), None);
    }
}
