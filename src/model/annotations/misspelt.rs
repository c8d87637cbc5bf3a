//! Keys that look like one of the table and are none. Both the number of keys and the work for each are bounded:
//! users may write thousands.

use std::collections::BTreeMap;

use super::{
    form::shown,
    table::{PREFIXES, Row, TABLE},
};
use crate::api::keys::{OWN_PREFIX, REFRESH};

const MAX_LOOKED_AT: usize = 200;
const MAX_TOLD: usize = 10;

pub(super) fn notices(annotations: &BTreeMap<String, String>) -> Vec<String> {
    let theirs = |key: &&String| PREFIXES.iter().any(|prefix| key.starts_with(prefix));
    let known = |key: &str| TABLE.iter().any(|row| row.key == key);
    let ours = annotations
        .keys()
        .filter(|key| key.starts_with(OWN_PREFIX) && *key != REFRESH)
        .map(|key| format!("{}: imagecache has no such setting on an ImageCache", shown(key)));
    let unknown = annotations.keys().filter(theirs).filter(|key| !known(key)).take(MAX_LOOKED_AT);
    let misspelt = unknown.filter_map(|key| {
        let meant = likely(key)?;
        Some(format!("{}: not known, so it has no effect; did you mean {}?", shown(key), meant.key))
    });
    ours.chain(misspelt).take(MAX_TOLD).collect()
}

/// The row whose name is nearest, if it is near: the name under another cloud's prefix, or a few letters wrong.
fn likely(key: &str) -> Option<&'static Row> {
    let name = name(key);
    let wrong = |row: &Row| {
        let known = self::name(row.key);
        let allowed = (known.len() / 5).clamp(1, 3);
        if known.len().abs_diff(name.len()) > allowed {
            return None;
        }
        Some(strsim::osa_distance(name, known)).filter(|distance| *distance <= allowed)
    };
    let near = TABLE.iter().filter_map(|row| Some((wrong(row)?, row)));
    let other_cloud = |row: &Row| prefix(row.key) != prefix(key);
    near.min_by_key(|(distance, row)| (*distance, other_cloud(row))).map(|(_, row)| row)
}

fn name(key: &str) -> &str {
    key.split_once('/').map_or(key, |(_, name)| name)
}

fn prefix(key: &str) -> &str {
    key.split_once('/').map_or("", |(prefix, _)| prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(keys: &[&str]) -> Vec<String> {
        notices(&keys.iter().map(|key| ((*key).to_owned(), String::new())).collect())
    }

    #[test]
    fn a_misspelt_key_is_answered_with_the_likely_one_and_others_are_left_alone() {
        for (key, meant) in [
            ("k8s.aliyun.com/imc-sizes", "k8s.aliyun.com/imc-size"),
            ("k8s.aliyun.com/plain-http-registy", "k8s.aliyun.com/plain-http-registry"),
            ("k8s.aliyun.com/vswitch-id", "k8s.aliyun.com/vswitch-ids"),
            ("k8s.aliyun.com/kci-http-registry", "k8s.ksyun.com/kci-http-registry"),
            ("k8s.ksyun.com/kci-insecure-registery", "k8s.ksyun.com/kci-insecure-registry"),
            ("eks.tke.cloud.tencent.com/registry-http-endpoints", "registry-http-endpoint?"),
        ] {
            let told = told(&[key]);
            assert!(told.len() == 1 && told[0].contains(meant), "{key}: {told:?}");
        }
        let others =
            ["k8s.aliyun.com/slb-id", "k8s.aliyun.com/pod-eip-release-strategy", "example.com/imc-sizes"];
        assert_eq!(told(&others), Vec::<String>::new());
    }

    #[test]
    fn thousands_of_unknown_keys_are_told_as_a_few() {
        let keys: Vec<String> = (0..5000).map(|i| format!("k8s.aliyun.com/imc-siz{i:04}")).collect();
        let near: Vec<String> = (0..100).map(|i| format!("k8s.aliyun.com/imc-size{}", i % 10)).collect();
        assert!(told(&keys.iter().map(String::as_str).collect::<Vec<_>>()).len() <= MAX_TOLD);
        assert!(told(&near.iter().map(String::as_str).collect::<Vec<_>>()).len() <= MAX_TOLD);
    }
}
