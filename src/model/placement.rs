//! The operator's placement map: what ids of a cloud mean on a cluster that is not that cloud's. It comes from a
//! ConfigMap, or a file for `imagecache explain`:
//!
//! ```yaml
//! subnets:
//!   vsw-bp1aaaa: {topology.kubernetes.io/zone: eu-1a}   # labels of nodes; of several subnets any will do
//! securityGroups:
//!   sg-bp1bbbb: {network: restricted}                   # labels of the pod, for NetworkPolicy and the like
//! resourceGroups:
//!   rg-cccc: {cost-centre: images}
//! eips:
//!   eip-bp1dddd: {labels: {egress: fixed}, annotations: {}}
//! newEip: {labels: {egress: any}, annotations: {}}
//! ```

use std::collections::BTreeMap;

use serde::Deserialize;

/// The key in the ConfigMap's data.
pub const KEY: &str = "placement.yaml";

type Labels = BTreeMap<String, String>;

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PlacementMap {
    pub subnets: BTreeMap<String, Labels>,
    pub security_groups: BTreeMap<String, Labels>,
    pub resource_groups: BTreeMap<String, Labels>,
    pub eips: BTreeMap<String, WayOut>,
    pub new_eip: Option<WayOut>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WayOut {
    pub labels: Labels,
    pub annotations: Labels,
}

impl PlacementMap {
    pub fn read(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let map: Self = serde_saphyr::from_str(text).map_err(|e| format!("{KEY}: {e}"))?;
        let ways = map.eips.values().chain(&map.new_eip);
        let groups =
            map.subnets.values().chain(map.security_groups.values()).chain(map.resource_groups.values());
        for (key, value) in groups.chain(ways.map(|way| &way.labels)).flatten() {
            if !is_label(key, value) {
                return Err(format!("{KEY}: {key:?}: {value:?} is no label that Kubernetes takes"));
            }
        }
        if let Some((id, _)) = map.subnets.iter().find(|(_, labels)| labels.is_empty()) {
            return Err(format!("{KEY}: {id} has no node labels"));
        }
        Ok(map)
    }
}

/// Kubernetes, "Labels and Selectors", syntax and character set.
pub fn is_label(key: &str, value: &str) -> bool {
    let word = |text: &str, most: usize| {
        let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        text.len() <= most
            && edge(text.chars().next())
            && edge(text.chars().last())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    let key = match key.split_once('/') {
        Some((prefix, name)) => word(prefix, 253) && word(name, 63),
        None => word(key, 63),
    };
    key && (value.is_empty() || word(value, 63))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_read_whole_or_refused_with_the_place() {
        let map = PlacementMap::read(
            "subnets: {vsw-1: {topology.kubernetes.io/zone: a}}\nnewEip: {labels: {egress: any}}",
        );
        assert_eq!(map.unwrap().subnets["vsw-1"]["topology.kubernetes.io/zone"], "a");
        assert_eq!(PlacementMap::read(""), Ok(PlacementMap::default()));
        for (text, says) in [
            ("subnet: {}", "subnet"),
            ("subnets: {vsw-1: {}}", "vsw-1 has no node labels"),
            ("securityGroups: {sg-1: {'a b': c}}", "no label"),
            ("eips: {eip-1: {labels: {a: 'b c'}}}", "no label"),
        ] {
            let error = PlacementMap::read(text).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}
