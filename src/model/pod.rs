//! The place and the network of a pull pod: neutral wishes of the object, told in the words of the platform. Pure.
//!
//! On the clouds' own platforms annotations, labels and selectors of the pod say it, on any other the operator's
//! placement map does. Architecture and system choose what is pulled, never where the pull runs.
//! Sources: ECI "Schedule pods to a virtual node", "Pod annotations"; KCI "use a self-built registry"; TKE
//! "annotations of pods on super nodes".

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    annotations::{Annotations, Origin, Set, effect::Effect, table::TABLE},
    cloud::Cloud,
    judge::Invalid,
    lookup::{Dns, HostAlias},
    placement::WayOut,
    reference::RegistryHost,
    request::{Access, Transport},
    settings::Settings,
};

/// Labels of every pull pod, besides those of its run.
pub const WORKER_LABELS: [(&str, &str); 3] = [
    ("app.kubernetes.io/name", "imagecache"),
    ("app.kubernetes.io/component", "worker"),
    (crate::api::keys::MANAGED_BY_LABEL, crate::api::keys::MANAGED_BY),
];

type Texts = BTreeMap<String, String>;

/// What is special about one cache's pull pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct PodShape {
    pub annotations: Texts,
    pub labels: Texts,
    pub node_selector: Texts,
    /// Labels of nodes; any one of the sets will do.
    pub nodes: Vec<Texts>,
    pub tolerations: Vec<Toleration>,
    pub hosts: Vec<HostAlias>,
    pub dns: Option<Dns>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Toleration {
    pub key: &'static str,
    /// Absent: any value.
    pub value: Option<&'static str>,
    /// Absent: any effect.
    pub effect: Option<&'static str>,
}

pub(super) fn shape(
    seen: &Annotations,
    access: &BTreeMap<RegistryHost, Access>,
    settings: &Settings,
    notices: &mut Vec<String>,
    invalid: &mut Vec<Invalid>,
) -> PodShape {
    let mut shaping = Shaping { settings, notices, invalid, pod: on(settings.cloud) };
    shaping.network(seen);
    shaping.registries(access);
    shaping.lookup(seen);
    shaping.extras(seen);
    if settings.cloud == Cloud::Eci {
        shaping.patience(seen);
        shaping.selectors();
    }
    shaping.pod
}

/// What brings a pod to the platform's nodes.
pub(super) fn on(cloud: Cloud) -> PodShape {
    let texts = |pairs: &[(&str, &str)]| -> Texts {
        pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
    };
    match cloud {
        Cloud::Kubernetes => PodShape::default(),
        // Virtual nodes of ACK, and VNodes of other clusters.
        Cloud::Eci => PodShape {
            labels: texts(&[("alibabacloud.com/eci", "true")]),
            nodes: vec![texts(&[("type", "virtual-kubelet")]), texts(&[("k8s.aliyun.com/vnode", "true")])],
            tolerations: vec![
                Toleration { key: "virtual-kubelet.io/provider", value: None, effect: None },
                Toleration { key: "k8s.aliyun.com/vnode", value: Some("true"), effect: Some("NoSchedule") },
            ],
            ..PodShape::default()
        },
        Cloud::Kci => PodShape {
            nodes: vec![texts(&[("type", "virtual-kubelet")])],
            tolerations: vec![Toleration {
                key: "rbkci-virtual-kubelet.io/provider",
                value: Some("kingsoftcloud"),
                effect: Some("NoSchedule"),
            }],
            ..PodShape::default()
        },
        Cloud::Tke => PodShape {
            node_selector: texts(&[("node.kubernetes.io/instance-type", "eklet")]),
            ..PodShape::default()
        },
    }
}

struct Shaping<'a> {
    settings: &'a Settings,
    notices: &'a mut Vec<String>,
    invalid: &'a mut Vec<Invalid>,
    pod: PodShape,
}

impl Shaping<'_> {
    fn annotate(&mut self, effect: Effect, value: String) -> bool {
        let Some(key) = effect.pod_key(self.settings.cloud) else { return false };
        self.pod.annotations.insert(key.to_owned(), value);
        true
    }

    /// Ids are written on the pod where their own cloud runs it, and looked up in the operator's map elsewhere.
    fn network(&mut self, seen: &Annotations) {
        let map = &self.settings.profile.map;
        if let Some(set) = self.foreign(seen.subnets.as_ref(), Effect::Subnets) {
            let nodes: Vec<&Texts> = set.value.iter().filter_map(|id| map.subnets.get(id)).collect();
            self.unmapped(set, |id| map.subnets.contains_key(id));
            if !nodes.is_empty() && self.settings.one_node {
                self.notices
                    .push(format!("{}: the store's volume is on one node, so the pull runs there", set.key));
            } else if !nodes.is_empty() {
                self.pod.nodes = both(&self.pod.nodes, &nodes);
            }
        }
        for (set, effect, map) in [
            (&seen.security_groups, Effect::SecurityGroups, &map.security_groups),
            (&seen.resource_groups, Effect::ResourceGroup, &map.resource_groups),
        ] {
            if let Some(set) = self.foreign(set.as_ref(), effect) {
                for labels in set.value.iter().filter_map(|id| map.get(id)) {
                    self.label(set.key, labels);
                }
                self.unmapped(set, |id| map.contains_key(id));
            }
        }
        if let Some(set) = self.foreign(seen.existing_eips.as_ref(), Effect::ExistingEip) {
            for way in set.value.iter().filter_map(|id| map.eips.get(id)) {
                self.leave_by(set.key, way);
            }
            self.unmapped(set, |id| map.eips.contains_key(id));
        }
        match (&seen.new_eip, &map.new_eip) {
            (Some(set), _) if self.settings.cloud.speaks(set.dialect) => {
                self.annotate(Effect::NewEip, set.value.clone());
                for detail in &seen.new_eip_details {
                    self.pod.annotations.insert(detail.key.to_owned(), detail.value.clone());
                }
            }
            (Some(set), Some(way)) => {
                self.leave_by(set.key, way);
                self.not_had(&seen.new_eip_details);
            }
            (Some(set), None) => {
                self.not_honoured(set.key, set.origin, "a new EIP (newEip)");
                self.not_had(&seen.new_eip_details);
            }
            (None, _) => {}
        }
    }

    /// The ids, unless the pod's own cloud understands them: then they are written down.
    fn foreign<'s>(
        &mut self,
        set: Option<&'s Set<Vec<String>>>,
        effect: Effect,
    ) -> Option<&'s Set<Vec<String>>> {
        let set = set?;
        let own = self.settings.cloud.speaks(set.dialect) && self.annotate(effect, set.value.join(","));
        (!own).then_some(set)
    }

    fn unmapped(&mut self, set: &Set<Vec<String>>, known: impl Fn(&str) -> bool) {
        let unknown: Vec<&str> = set.value.iter().map(String::as_str).filter(|id| !known(id)).collect();
        if !unknown.is_empty() {
            self.not_honoured(set.key, set.origin, &unknown.join(", "));
        }
    }

    /// Defaults that mean nothing here are nobody's mistake.
    fn not_honoured(&mut self, key: &'static str, origin: Origin, what: &str) {
        if origin != Origin::Object {
            return;
        }
        let message = format!(
            "{what} means nothing on the platform {}, and the operator's placement map does not have it",
            self.settings.cloud
        );
        if self.settings.strict_placement {
            self.invalid.push(Invalid { field: key.to_owned(), message });
        } else {
            self.notices.push(format!("{key}: {message}; it is not honoured"));
        }
    }

    fn leave_by(&mut self, key: &str, way: &WayOut) {
        self.label(key, &way.labels);
        self.pod.annotations.extend(way.annotations.clone());
    }

    /// A label has one value: what was said first stays.
    fn label(&mut self, key: &str, labels: &Texts) {
        for (name, value) in labels {
            let there = self.pod.labels.entry(name.clone()).or_insert_with(|| value.clone());
            if there != value {
                self.notices.push(format!(
                    "{key}: the operator's map gives {name}={value}, but the pod has {name}={there} already"
                ));
            }
        }
    }

    /// A cloud's runtime obeys these also for the pull pod's own image, so that one's registry is left out: a cache
    /// must not decide how the operator's image is verified.
    fn registries(&mut self, access: &BTreeMap<RegistryHost, Access>) {
        for (effect, transport) in
            [(Effect::PlainHttp, Transport::PlainHttp), (Effect::SkipVerify, Transport::HttpsUnverified)]
        {
            let hosts: Vec<&str> = access
                .iter()
                .filter(|(host, access)| {
                    access.transport == transport && Some(*host) != self.settings.worker_host.as_ref()
                })
                .map(|(host, _)| host.as_str())
                .collect();
            if !hosts.is_empty() {
                self.annotate(effect, hosts.join(","));
            }
        }
    }

    /// In the pod as Kubernetes has it, and in the cloud's words, where the same rule holds for the pod's own image.
    fn lookup(&mut self, seen: &Annotations) {
        if let Some(set) = &seen.hosts {
            let own = self.settings.worker_host.as_ref().map(|host| host.network().to_owned());
            let own = own.as_deref().and_then(|host| host.split(':').next()).unwrap_or_default();
            let mut told = set.value.clone();
            for alias in &mut told {
                alias.hostnames.retain(|name| !name.eq_ignore_ascii_case(own));
            }
            told.retain(|alias| !alias.hostnames.is_empty());
            let text = match self.settings.cloud {
                Cloud::Eci => {
                    let pairs = told.iter().flat_map(|alias| {
                        alias.hostnames.iter().map(|host| serde_json::json!({"host": host, "ip": alias.ip}))
                    });
                    serde_json::Value::from(pairs.collect::<Vec<_>>()).to_string()
                }
                _ => serde_json::to_string(&told).unwrap_or_default(),
            };
            if !told.is_empty() {
                self.annotate(Effect::Hosts, text);
            }
            self.pod.hosts.clone_from(&set.value);
        }
        if let Some(set) = &seen.dns {
            let dns = &set.value;
            let text = match self.settings.cloud {
                Cloud::Eci => {
                    let servers: Vec<String> = dns.nameservers.iter().map(ToString::to_string).collect();
                    serde_json::json!({
                        "nameservers": servers.join(","),
                        "searches": dns.searches.join(","),
                        "options": dns.options_as_words().join(","),
                    })
                    .to_string()
                }
                Cloud::Tke => dns.to_resolv_conf(),
                Cloud::Kci | Cloud::Kubernetes => serde_json::to_string(dns).unwrap_or_default(),
            };
            self.annotate(Effect::Dns, text);
            self.pod.dns = Some(dns.clone());
        }
    }

    /// Settings of the pod itself, which only its own cloud has.
    fn extras(&mut self, seen: &Annotations) {
        let cloud = self.settings.cloud;
        for set in seen.pod.iter().filter(|set| cloud.speaks(set.dialect)) {
            self.pod.annotations.insert(set.key.to_owned(), set.value.clone());
        }
        self.not_had(seen.pod.iter().filter(|set| !cloud.speaks(set.dialect)));
    }

    fn not_had<'s>(&mut self, sets: impl IntoIterator<Item = &'s Set<String>>) {
        for set in sets.into_iter().filter(|set| set.origin == Origin::Object) {
            let meaning = TABLE.iter().find(|row| row.key == set.key).map_or("", |row| row.meaning);
            self.notices.push(format!(
                "{}: it asks for {meaning}; the platform {} has no such setting",
                set.key, self.settings.cloud
            ));
        }
    }

    /// The operator retries, and time that a pod waits is billed: a pod that gets no instance ends soon and says why.
    fn patience(&mut self, seen: &Annotations) {
        let minutes = (self.settings.pending.as_secs() / 60).clamp(10, 1440);
        let mut default = |key: &str, value: String| {
            self.pod.annotations.entry(format!("k8s.aliyun.com/{key}")).or_insert(value);
        };
        default("eci-max-pending-minute", minutes.to_string());
        default("eci-fail-strategy", "fail-fast".to_owned());
        if seen.subnets.as_ref().is_some_and(|set| set.value.len() > 1) {
            default("eci-schedule-strategy", "VSwitchOrdered".to_owned());
        }
    }

    /// Effects never replace what the pod has, and earlier entries win.
    fn selectors(&mut self) {
        let namespace =
            Texts::from([("kubernetes.io/metadata.name".to_owned(), self.settings.namespace.clone())]);
        let mut labels = self.pod.labels.clone();
        labels.extend(WORKER_LABELS.map(|(key, value)| (key.to_owned(), value.to_owned())));
        for selector in &self.settings.profile.selectors {
            if selector.namespace_selector.matches(&namespace) && selector.object_selector.matches(&labels) {
                for (key, value) in &selector.effect.annotations {
                    self.pod.annotations.entry(key.clone()).or_insert_with(|| value.clone());
                }
                for (key, value) in &selector.effect.labels {
                    self.pod.labels.entry(key.clone()).or_insert_with(|| value.clone());
                }
            }
        }
    }
}

/// Nodes that are one of these and one of those.
fn both(base: &[Texts], more: &[&Texts]) -> Vec<Texts> {
    if base.is_empty() {
        return more.iter().map(|labels| (*labels).clone()).collect();
    }
    let joined = |one: &Texts, other: &Texts| one.clone().into_iter().chain(other.clone()).collect();
    base.iter().flat_map(|one| more.iter().map(move |other| joined(one, other))).collect()
}
