//! What the mirror will not serve although the cache asks for it, said before somebody waits for it. A cache's own
//! settings prove nothing to others: what a tag means there must not count for the whole cluster, so such tags are
//! served by digest only (`mirror::table` holds the rule).

use std::collections::{BTreeMap, BTreeSet};

use super::{
    reference::{Reference, RegistryHost},
    request::Access,
    settings::Settings,
};

/// A notice for each host whose tags stay unserved.
pub fn by_digest_only(
    images: &[Reference],
    access: &BTreeMap<RegistryHost, Access>,
    settings: &Settings,
) -> Vec<String> {
    let overridden = |host: &&RegistryHost| access.get(*host).is_some_and(|access| access.overridden);
    let hosts: BTreeSet<&RegistryHost> = images.iter().map(Reference::host).collect();
    hosts
        .into_iter()
        .filter(overridden)
        .filter(|host| !settings.public_registries.contains(host))
        .map(|host| {
            format!(
                "spec.serve: {host} is reached by settings of this cache, so the mirror serves its images by digest \
                 and not by tag: name them by digest in pods, or have the operator list it as --public-registry"
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::{ImageCacheSpec, image_cache::Serve},
        model::judge::judge_spec,
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
}
