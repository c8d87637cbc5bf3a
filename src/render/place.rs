//! The shape of one cache's pull pod in the words of a pod's spec.

use k8s_openapi::api::core::v1::{
    HostAlias, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodDNSConfig,
    PodDNSConfigOption, Toleration,
};

use crate::model::{lookup::Dns, pod::PodShape};

pub(super) fn tolerations(pod: &PodShape) -> Option<Vec<Toleration>> {
    let one = |toleration: &crate::model::pod::Toleration| Toleration {
        key: Some(toleration.key.to_owned()),
        operator: Some(if toleration.value.is_some() { "Equal" } else { "Exists" }.to_owned()),
        value: toleration.value.map(str::to_owned),
        effect: toleration.effect.map(str::to_owned),
        toleration_seconds: None,
    };
    let all: Vec<Toleration> = pod.tolerations.iter().map(one).collect();
    (!all.is_empty()).then_some(all)
}

/// Any one of the sets of labels.
pub(super) fn node_affinity(pod: &PodShape) -> Option<NodeAffinity> {
    let requirement = |(key, value): (&String, &String)| NodeSelectorRequirement {
        key: key.clone(),
        operator: "In".to_owned(),
        values: Some(vec![value.clone()]),
    };
    let terms: Vec<NodeSelectorTerm> = pod
        .nodes
        .iter()
        .map(|labels| NodeSelectorTerm {
            match_expressions: Some(labels.iter().map(requirement).collect()),
            match_fields: None,
        })
        .collect();
    (!terms.is_empty()).then_some(NodeAffinity {
        required_during_scheduling_ignored_during_execution: Some(NodeSelector {
            node_selector_terms: terms,
        }),
        preferred_during_scheduling_ignored_during_execution: None,
    })
}

pub(super) fn host_aliases(pod: &PodShape) -> Option<Vec<HostAlias>> {
    let one = |alias: &crate::model::lookup::HostAlias| HostAlias {
        ip: alias.ip.to_string(),
        hostnames: Some(alias.hostnames.clone()),
    };
    (!pod.hosts.is_empty()).then(|| pod.hosts.iter().map(one).collect())
}

/// With the policy: name servers that are given replace those of the cluster, which would answer first that they do
/// not know the name.
pub(super) fn dns(dns: &Dns) -> (Option<&'static str>, PodDNSConfig) {
    let some = |list: Vec<String>| (!list.is_empty()).then_some(list);
    let options: Vec<PodDNSConfigOption> = dns
        .options
        .iter()
        .map(|option| PodDNSConfigOption { name: Some(option.name.clone()), value: option.value.clone() })
        .collect();
    let config = PodDNSConfig {
        nameservers: some(dns.nameservers.iter().map(ToString::to_string).collect()),
        searches: some(dns.searches.clone()),
        options: (!options.is_empty()).then_some(options),
    };
    ((!dns.nameservers.is_empty()).then_some("None"), config)
}
