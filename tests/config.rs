//! The manifests of config/ fit together: what one of them names, another one has.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, fs, path::Path};

use imagecache::api::keys;
use k8s_openapi::api::{
    apps::v1::Deployment,
    networking::v1::{NetworkPolicy, NetworkPolicyPeer},
    policy::v1::PodDisruptionBudget,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

fn documents(path: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    serde_saphyr::from_multiple(&fs::read_to_string(path).unwrap()).unwrap()
}

fn object<T: DeserializeOwned>(path: &str, kind: &str) -> T {
    let found = documents(path).into_iter().find(|document| document["kind"] == kind);
    serde_json::from_value(found.unwrap()).unwrap()
}

fn labels(deployment: &Deployment) -> BTreeMap<String, String> {
    let template = &deployment.spec.as_ref().unwrap().template;
    template.metadata.clone().unwrap().labels.unwrap()
}

fn policy(name: &str) -> NetworkPolicy {
    object(&format!("config/network-policy/{name}.yaml"), "NetworkPolicy")
}

/// The ports that a policy opens are ones the pods have, by the same names.
fn opens(policy: &NetworkPolicy, deployment: &Deployment) -> Vec<String> {
    let spec = policy.spec.as_ref().unwrap();
    assert!(selects(&spec.pod_selector.clone().unwrap().match_labels.unwrap(), deployment));
    let containers = &deployment.spec.as_ref().unwrap().template.spec.as_ref().unwrap().containers;
    let ports: Vec<String> = containers
        .iter()
        .flat_map(|c| c.ports.iter().flatten())
        .filter_map(|port| port.name.clone())
        .collect();
    let opened: Vec<String> = spec
        .ingress
        .iter()
        .flatten()
        .flat_map(|rule| rule.ports.iter().flatten())
        .map(|port| serde_json::to_value(port.port.clone()).unwrap().as_str().unwrap().to_owned())
        .collect();
    assert!(opened.iter().all(|port| ports.contains(port)), "{opened:?} of {ports:?}");
    opened
}

fn selects(selector: &BTreeMap<String, String>, deployment: &Deployment) -> bool {
    let labels = labels(deployment);
    !selector.is_empty() && selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

#[test]
fn both_replicas_of_the_controller_are_not_lost_together() {
    let controller: Deployment = object("config/controller.yaml", "Deployment");
    let spec = controller.spec.clone().unwrap();
    assert_eq!(spec.replicas, Some(2));
    let budget: PodDisruptionBudget = object("config/controller.yaml", "PodDisruptionBudget");
    let budget = budget.spec.unwrap();
    assert!(selects(&budget.selector.unwrap().match_labels.unwrap(), &controller));
    assert_eq!(serde_json::to_value(budget.min_available).unwrap(), 1);
    let apart = spec.template.spec.unwrap().affinity.unwrap().pod_anti_affinity.unwrap();
    assert_eq!(apart.required_during_scheduling_ignored_during_execution, None, "one node is enough to run");
    let terms = apart.preferred_during_scheduling_ignored_during_execution.unwrap();
    for term in &terms {
        let selector = term.pod_affinity_term.label_selector.clone().unwrap();
        assert!(selects(&selector.match_labels.unwrap(), &controller));
    }
    let keys: Vec<&str> = terms.iter().map(|term| term.pod_affinity_term.topology_key.as_str()).collect();
    assert_eq!(keys, ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]);
}

#[test]
fn network_policies_open_what_the_pods_serve_and_to_whom() {
    let controller: Deployment = object("config/controller.yaml", "Deployment");
    let mirror: Deployment = object("config/mirror.yaml", "Deployment");
    assert_eq!(opens(&policy("controller"), &controller), ["http"]);
    assert_eq!(
        policy("controller").spec.unwrap().policy_types.unwrap(),
        ["Ingress"],
        "the API server is reached"
    );
    assert_eq!(opens(&policy("mirror"), &mirror), ["registry", "admin"]);
    let spec = policy("mirror").spec.unwrap();
    assert_eq!((spec.egress, spec.policy_types.unwrap().len()), (Some(vec![]), 2), "it never asks upstream");
    let rules = spec.ingress.unwrap();
    assert_eq!(rules[0].from, None, "nodes reach the registry, whatever address they come from");
    let peers: Vec<NetworkPolicyPeer> = rules[1].from.clone().unwrap();
    assert!(selects(&peers[0].pod_selector.clone().unwrap().match_labels.unwrap(), &controller));
}

#[test]
fn pull_pods_reach_registries_and_names_and_no_metadata_service() {
    let spec = policy("worker").spec.unwrap();
    let selector = spec.pod_selector.unwrap().match_expressions.unwrap();
    assert_eq!((selector[0].key.as_str(), selector[0].operator.as_str()), (keys::CACHE_UID_LABEL, "Exists"));
    assert_eq!(spec.ingress, Some(vec![]));
    let egress = spec.egress.unwrap();
    let peers: Vec<&NetworkPolicyPeer> = egress.iter().flat_map(|rule| rule.to.iter().flatten()).collect();
    let everywhere: Vec<&str> = peers
        .iter()
        .filter_map(|peer| peer.ip_block.as_ref())
        .filter(|block| block.cidr.ends_with("/0"))
        .flat_map(|block| block.except.iter().flatten().map(String::as_str))
        .collect();
    for closed in ["169.254.0.0/16", "100.100.100.200/32", "fe80::/10", "fd00:ec2::254/128"] {
        assert!(everywhere.contains(&closed), "{closed}");
    }
    assert!(
        peers.iter().any(|peer| peer.namespace_selector.is_some()),
        "name servers and registries are pods, too"
    );
}

#[test]
fn pods_that_are_no_pulls_reach_nobody() {
    let policies: Vec<NetworkPolicy> = documents("config/network-policy/worker.yaml")
        .into_iter()
        .map(|policy| serde_json::from_value(policy).unwrap())
        .collect();
    let role = |policy: &NetworkPolicy| {
        let all = policy.spec.clone().unwrap().pod_selector.unwrap().match_expressions.unwrap();
        all.into_iter().find(|one| one.key == keys::ROLE_LABEL).unwrap().operator
    };
    assert_eq!((role(&policies[0]).as_str(), role(&policies[1]).as_str()), ("DoesNotExist", "Exists"));
    let closed = policies[1].spec.clone().unwrap();
    assert_eq!(
        (closed.ingress, closed.egress, closed.policy_types.unwrap().len()),
        (Some(vec![]), Some(vec![]), 2)
    );
}

#[test]
fn every_manifest_is_listed_and_the_policies_are_no_part_of_the_plain_install() {
    for folder in ["config", "config/network-policy", "config/snapshots"] {
        let listed = documents(&format!("{folder}/kustomization.yaml")).remove(0);
        let listed: Vec<&str> =
            listed["resources"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        let files = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).unwrap();
        for file in files.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()) {
            let name = file.file_name().unwrap().to_str().unwrap();
            assert!(name == "kustomization.yaml" || listed.contains(&name), "{folder}/{name}");
        }
        assert!(!listed.contains(&"network-policy") && !listed.contains(&"snapshots"));
    }
}
