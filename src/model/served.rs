//! What the mirror will not serve although the cache asks for it, said before somebody waits for it. A cache's own
//! settings prove nothing to others: what a tag means there must not count for the whole cluster, so such tags are
//! served by digest only (`mirror::table` holds the rule).

use std::collections::{BTreeMap, BTreeSet};

use super::{
    lookup::Lookup,
    reference::{Reference, RegistryHost},
    request::Access,
    settings::Settings,
};

/// A notice for each host whose tags stay unserved.
pub fn by_digest_only(
    images: &[Reference],
    access: &BTreeMap<RegistryHost, Access>,
    lookup: &Lookup,
    settings: &Settings,
) -> Vec<String> {
    let hosts: BTreeSet<&RegistryHost> = images.iter().map(Reference::host).collect();
    let notice = |host: &RegistryHost| {
        let overridden = access.get(host).is_some_and(|access| access.overridden);
        // The operator's list vouches for a registry, not for wherever a cache leads its name.
        let (what, or) = if lookup.overrides(host) {
            ("led somewhere", "")
        } else if overridden && !settings.public_registries.contains(host) {
            ("reached", ", or have the operator list it as --public-registry")
        } else {
            return None;
        };
        Some(format!(
            "spec.serve: {host} is {what} by settings of this cache, so the mirror serves its images by digest and not \
             by tag: name them by digest in pods{or}"
        ))
    };
    hosts.into_iter().filter_map(notice).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::{ImageCacheSpec, image_cache::Serve},
        model::{judge::judge_spec, lookup::HostAlias},
    };

    fn notices(serve: Option<Serve>, key: Option<&str>, settings: &Settings) -> Vec<String> {
        let annotations = key.map(|key| (key.to_owned(), "r.io:5000".to_owned())).into_iter().collect();
        let images = vec!["r.io:5000/a".into(), "r.io:5000/b".into(), "nginx".into()];
        let spec = ImageCacheSpec { images, serve, ..ImageCacheSpec::default() };
        let (_, notices) = judge_spec(&annotations, &spec, settings);
        notices.into_iter().filter(|notice| notice.starts_with("spec.serve: ")).collect()
    }

    #[test]
    fn tags_that_the_mirror_will_not_serve_to_the_cluster_are_pointed_out() {
        let http = Some("k8s.aliyun.com/plain-http-registry");
        let (cluster, settings) = (Some(Serve::Cluster), Settings::default());
        for key in [http, Some("eks.tke.cloud.tencent.com/registry-insecure-skip-verify")] {
            let said = notices(cluster, key, &settings);
            assert!(said.len() == 1 && said[0].contains("r.io:5000"), "once for each host: {said:?}");
        }
        for (serve, key) in [(cluster, None), (Some(Serve::Public), http), (None, http)] {
            assert_eq!(notices(serve, key, &settings), Vec::<String>::new());
        }
        let listed = Settings { public_registries: vec!["r.io:5000".parse().unwrap()], ..settings };
        assert_eq!(notices(cluster, http, &listed), Vec::<String>::new());
    }

    #[test]
    fn no_list_of_the_operator_has_a_tag_served_whose_registry_the_cache_leads_somewhere() {
        let host: RegistryHost = "r.io".parse().unwrap();
        let settings = Settings { public_registries: vec![host], ..Settings::default() };
        let hosts = vec![HostAlias { ip: "10.0.0.5".parse().unwrap(), hostnames: vec!["r.io".into()] }];
        let images = ["r.io/a".parse().unwrap(), "nginx".parse().unwrap()];
        let said = |lookup: &Lookup| by_digest_only(&images, &BTreeMap::new(), lookup, &settings);
        let of_the_operator = Lookup { hosts, ..Lookup::default() };
        assert_eq!(said(&of_the_operator), Vec::<String>::new());
        let own = said(&Lookup { hosts_overridden: true, ..of_the_operator });
        assert!(own.len() == 1 && own[0].contains("r.io is led"), "{own:?}");
    }
}
