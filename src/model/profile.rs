//! Defaults that the clusters of the clouds keep for all pods, read from their ConfigMaps, and the operator's
//! placement map. What the object says wins over them.
//! Sources: ECI "Configure eci-profile" (2025-05-21); TKE "annotations of pods on super nodes" (`eks-config`).

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{
    annotations::{Annotations, Origin, read_from},
    cloud::Cloud,
    placement::{self, PlacementMap},
};

pub const NAMESPACE: &str = "kube-system";
pub const ECI_PROFILE: &str = "eci-profile";
pub const EKS_CONFIG: &str = "eks-config";

pub type Data = BTreeMap<String, String>;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    pub eci: Annotations,
    pub selectors: Vec<Selector>,
    pub eks: Annotations,
    pub map: PlacementMap,
    /// What could not be read, for the operator.
    pub problems: Vec<String>,
}

/// An entry of eci-profile's `selectors`: its effect is for pods that match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Selector {
    pub name: String,
    pub namespace_selector: Matching,
    pub object_selector: Matching,
    pub effect: SelectorEffect,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Matching {
    pub match_labels: Data,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct SelectorEffect {
    pub annotations: Data,
    pub labels: Data,
}

impl Matching {
    pub fn matches(&self, labels: &Data) -> bool {
        self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
    }
}

impl Profile {
    /// From the data of the three ConfigMaps, as far as they are there. What cannot be read is left out and told.
    pub fn read(eci: Option<&Data>, eks: Option<&Data>, placement: Option<&Data>) -> Self {
        let mut profile = Self::default();
        if let Some(data) = eci {
            profile.read_eci(data);
        }
        if let Some(data) = eks {
            profile.read_eks(data);
        }
        let map = placement.and_then(|data| data.get(placement::KEY)).map(|text| PlacementMap::read(text));
        match map {
            Some(Ok(map)) => profile.map = map,
            Some(Err(why)) => profile.problems.push(why),
            None => {}
        }
        profile
    }

    fn read_eci(&mut self, data: &Data) {
        let keys = [
            ("vSwitchIds", "k8s.aliyun.com/eci-vswitch"),
            ("securityGroupId", "k8s.aliyun.com/eci-security-group"),
            ("resourceGroupId", "k8s.aliyun.com/eci-resource-group-id"),
        ];
        let said = keys.iter().filter_map(|(from, to)| Some(((*to).to_owned(), data.get(*from)?.clone())));
        self.eci = read_from(&said.collect(), Origin::EciProfile);
        self.eci.dialect = None;
        for invalid in self.eci.invalid.drain(..) {
            let from = keys.iter().find(|(_, to)| *to == invalid.field).map_or("", |(from, _)| from);
            self.problems.push(format!("{ECI_PROFILE}, {from}: {}", invalid.message));
        }
        match data.get("selectors").map(|text| text.trim()).filter(|text| !text.is_empty()) {
            None => {}
            Some(text) => match serde_json::from_str(text) {
                Ok(selectors) => self.selectors = selectors,
                Err(e) => self.problems.push(format!("{ECI_PROFILE}, selectors: {e}")),
            },
        }
    }

    fn read_eks(&mut self, data: &Data) {
        let Some(text) = data.get("pod.annotations").filter(|text| !text.trim().is_empty()) else { return };
        match serde_saphyr::from_str::<Data>(text) {
            Ok(annotations) => {
                self.eks = read_from(&annotations, Origin::EksConfig);
                self.eks.dialect = None;
            }
            Err(e) => self.problems.push(format!("{EKS_CONFIG}, pod.annotations: {e}")),
        }
        let bad = self.eks.invalid.drain(..).map(|invalid| format!("{EKS_CONFIG}, {invalid}"));
        self.problems.extend(bad);
    }

    /// What an object that does not say gets on this platform.
    pub fn defaults(&self, cloud: Cloud) -> Annotations {
        let mut defaults = match cloud {
            Cloud::Eci | Cloud::Kubernetes => self.eci.clone(),
            Cloud::Kci | Cloud::Tke => Annotations::default(),
        };
        if matches!(cloud, Cloud::Tke | Cloud::Kubernetes) {
            defaults.or(&self.eks);
        }
        defaults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(entries: &[(&str, &str)]) -> Data {
        entries.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn the_profiles_of_two_clouds_are_read_as_their_pages_show_them() {
        let eci = data(&[
            ("vpcId", "vpc-1"),
            ("vSwitchIds", "vsw-1,vsw-2"),
            ("securityGroupId", "sg-1"),
            ("resourceGroupId", ""),
            ("enableClusterIp", "true"),
            (
                "selectors",
                r#"[{"name":"all","objectSelector":{"matchLabels":{"app":"x"}},"effect":{"annotations":{"a":"b"}}}]"#,
            ),
        ]);
        let eks = data(&[(
            "pod.annotations",
            "eks.tke.cloud.tencent.com/security-group-id: \"sg-9\"\neks.tke.cloud.tencent.com/resolv-conf: |\n  nameserver 4.4.4.4\n",
        )]);
        let profile = Profile::read(Some(&eci), Some(&eks), None);
        assert_eq!(profile.problems, Vec::<String>::new());
        assert_eq!(profile.defaults(Cloud::Eci).subnets.unwrap().value, ["vsw-1", "vsw-2"]);
        assert_eq!(profile.defaults(Cloud::Eci).resource_groups, None);
        assert_eq!(profile.defaults(Cloud::Tke).security_groups.unwrap().value, ["sg-9"]);
        assert!(profile.defaults(Cloud::Tke).dns.is_some() && profile.defaults(Cloud::Kci).dns.is_none());
        assert!(!profile.selectors[0].object_selector.matches(&data(&[])));
        assert!(profile.selectors[0].namespace_selector.matches(&data(&[])), "none asked, none needed");
    }

    #[test]
    fn what_cannot_be_read_is_told_and_the_rest_counts() {
        let eci = data(&[("vSwitchIds", "eni-1"), ("securityGroupId", "sg-1"), ("selectors", "{")]);
        let profile = Profile::read(Some(&eci), Some(&data(&[("pod.annotations", "- a")])), None);
        assert_eq!(profile.problems.len(), 3, "{:?}", profile.problems);
        assert!(profile.problems[0].contains("vSwitchIds"));
        assert_eq!(profile.eci.security_groups.as_ref().unwrap().value, ["sg-1"]);
    }
}
