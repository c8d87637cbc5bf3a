use super::*;
use crate::model::request::Transport;

fn judged(
    images: &[&str],
    annotations: &[(&str, &str)],
) -> (Result<CacheRequest, Vec<Invalid>>, Vec<String>) {
    judged_spec(annotations, |spec| spec.images = images.iter().map(|&image| image.to_owned()).collect())
}

fn judged_spec(
    annotations: &[(&str, &str)],
    change: impl FnOnce(&mut ImageCacheSpec),
) -> (Result<CacheRequest, Vec<Invalid>>, Vec<String>) {
    let annotations = annotations.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect();
    let mut spec = ImageCacheSpec { images: vec!["nginx".into()], ..ImageCacheSpec::default() };
    change(&mut spec);
    judge_spec(&annotations, &spec, &Settings::default())
}

const HTTP: &str = "k8s.aliyun.com/plain-http-registry";
const SKIP: &str = "k8s.aliyun.com/insecure-registry";
const TKE_HTTP: &str = "eks.tke.cloud.tencent.com/registry-http-endpoint";

#[test]
fn unset_means_the_operators_defaults() {
    let (request, notices) = judged(&["nginx:1"], &[]);
    let request = request.unwrap();
    assert_eq!((request.size_limit, request.retention_days), (20 << 30, None));
    assert!(request.reuse && request.access.is_empty() && notices.is_empty());
    assert_eq!(request.dialect, Dialect::Eci);
}

#[test]
fn all_mistakes_are_told_at_once_with_their_place() {
    let (request, _) = judged_spec(&[("k8s.aliyun.com/imc-size", "5"), (HTTP, "http://x")], |spec| {
        spec.images = vec!["ok".into(), "Bad".into(), "also:bad:".into()];
        spec.image_pull_secrets = vec!["bare".into()];
        spec.retention_days = Some(0);
        spec.platforms = vec!["arm64".into()];
    });
    let fields: Vec<String> = request.unwrap_err().into_iter().map(|invalid| invalid.field).collect();
    assert_eq!(
        fields,
        [
            "spec.images[1]",
            "spec.images[2]",
            "spec.imagePullSecrets[0]",
            "spec.platforms[0]",
            "spec.retentionDays",
            HTTP,
            "k8s.aliyun.com/imc-size"
        ]
    );
}

#[test]
fn a_bare_secret_name_is_answered_with_what_to_write() {
    let error = "my-key".parse::<SecretName>().unwrap_err().to_string();
    assert!(error.contains("default:my-key"), "{error}");
    assert_eq!("a/b.c".parse::<SecretName>().unwrap(), "a:b.c".parse().unwrap());
}

#[test]
fn an_annotation_that_differs_from_spec_wins_and_the_user_is_told() {
    let keys = [("k8s.aliyun.com/imc-size", "30"), ("k8s.aliyun.com/imc-retention-days", "7")];
    let (request, notices) = judged_spec(&keys, |spec| {
        spec.image_cache_size = Some(25);
        spec.retention_days = Some(7);
    });
    let request = request.unwrap();
    assert_eq!((request.size_limit, request.retention_days), (30 << 30, Some(7)));
    assert_eq!(notices.len(), 1, "equal values are no news: {notices:?}");
    let (request, notices) = judged_spec(&[("k8s.aliyun.com/imc-cpu-arch", "arm64")], |spec| {
        spec.platforms = vec!["linux/amd64".into()];
    });
    assert_eq!((request.unwrap().platforms[0].to_string().as_str(), notices.len()), ("linux/arm64", 1));
}

#[test]
fn a_host_in_both_lists_is_plain_http() {
    let (request, notices) = judged(&["r.io:5000/a"], &[(HTTP, "r.io:5000"), (SKIP, "r.io:5000")]);
    let access = request.unwrap().access[&"r.io:5000".parse().unwrap()];
    assert_eq!(access, Access { transport: Transport::PlainHttp, overridden: true });
    assert!(notices.iter().any(|notice| notice.contains("plain HTTP counts")), "{notices:?}");
}

#[test]
fn credentials_over_plain_http_are_spoken_of_only_if_there_are_some() {
    let warned = |secrets: &[&str]| {
        let (_, notices) = judged_spec(&[(HTTP, "r.io:5000")], |spec| {
            spec.images = vec!["r.io:5000/a".into()];
            spec.image_pull_secrets = secrets.iter().map(|&name| name.to_owned()).collect();
        });
        notices.iter().any(|notice| notice.contains("credentials"))
    };
    assert!(warned(&["team:login"]) && !warned(&[]));
}

#[test]
fn all_reaches_the_hosts_of_the_images_and_carries_no_credentials() {
    let (request, _) = judged(&["r.io:5000/a", "named.io/b"], &[(TKE_HTTP, "named.io,all")]);
    let request = request.unwrap();
    let anonymous: Vec<&str> = request.anonymous.iter().map(RegistryHost::as_str).collect();
    assert_eq!(anonymous, ["r.io:5000"]);
    assert!(request.access.values().all(|access| access.transport == Transport::PlainHttp));
    assert_eq!((request.access.len(), request.dialect), (2, Dialect::Tke));
}

#[test]
fn a_listed_host_that_no_image_uses_is_pointed_out() {
    let (_, notices) = judged(&["10.0.0.5:5000/a"], &[(HTTP, "10.0.0.5")]);
    assert!(notices[0].contains("10.0.0.5:5000"), "{notices:?}");
}

#[test]
fn images_and_secrets_that_are_listed_twice_count_once() {
    let (request, notices) = judged(&["nginx", "docker.io/library/nginx:latest"], &[]);
    assert_eq!((request.unwrap().images.len(), notices.len()), (1, 1));
}

#[test]
fn what_calls_for_another_pull_changes_the_hash_and_nothing_else_does() {
    let hash = |(request, _): (Result<CacheRequest, Vec<Invalid>>, Vec<String>)| request.unwrap().inputs;
    let base = hash(judged(&["a", "b"], &[]));
    assert_eq!(base, hash(judged(&["b", "a"], &[])), "order");
    let limits = [("k8s.aliyun.com/imc-size", "99"), ("k8s.aliyun.com/imc-retention-days", "9")];
    assert_eq!(base, hash(judged(&["a", "b"], &limits)), "limits");
    assert_eq!(base, hash(judged(&["a", "b"], &[("k8s.aliyun.com/vswitch-ids", "vsw-x")])), "place");
    for (key, value) in [
        (SKIP, "docker.io"),
        ("k8s.aliyun.com/imc-cpu-arch", "arm64"),
        ("k8s.aliyun.com/imc-enable-reuse", "false"),
    ] {
        assert_ne!(base, hash(judged(&["a", "b"], &[(key, value)])), "{key}");
    }
    for (referrers, same) in [(Some(false), true), (Some(true), false)] {
        let asked = judged_spec(&[], |spec| {
            spec.images = vec!["a".into(), "b".into()];
            spec.referrers = referrers;
        });
        assert_eq!(base == hash(asked), same, "{referrers:?}");
    }
    let more = judged_spec(&[], |spec| {
        spec.images = vec!["a".into(), "b".into()];
        spec.image_pull_secrets = vec!["x:y".into()];
    });
    assert_ne!(base, hash(more), "secrets");
}

#[test]
fn the_operators_word_counts_where_the_object_is_silent_and_is_no_override() {
    const ALIASES: &str = "k8s.ksyun.com/kci-host-aliases";
    let alias = |ip: &str| crate::model::lookup::HostAlias {
        ip: ip.parse().unwrap(),
        hostnames: vec!["r.io".into()],
    };
    let eks = "eks.tke.cloud.tencent.com/registry-http-endpoint: r.io";
    let eks = BTreeMap::from([("pod.annotations".to_owned(), eks.to_owned())]);
    let profile = crate::model::profile::Profile::read(None, Some(&eks), None);
    let settings = Settings {
        host_aliases: Some(vec![alias("10.0.0.1")]),
        profile: profile.into(),
        ..Settings::default()
    };
    let of = |settings: &Settings, annotations: &[(&str, &str)]| {
        let annotations = annotations.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect();
        let spec = ImageCacheSpec { images: vec!["r.io/a".into()], ..ImageCacheSpec::default() };
        judge_spec(&annotations, &spec, settings).0.unwrap()
    };
    let host: RegistryHost = "r.io".parse().unwrap();
    let silent = of(&settings, &[]);
    assert_eq!(silent.access[&host], Access { transport: Transport::PlainHttp, overridden: false });
    assert_eq!(
        (silent.lookup.hosts.clone(), silent.lookup.overrides(&host)),
        (vec![alias("10.0.0.1")], false)
    );
    assert_eq!(silent.inputs, of(&Settings::default(), &[]).inputs, "an edit of it is for the next pull");

    let own = of(&settings, &[(ALIASES, r#"[{"ip":"10.0.0.2","hostnames":["r.io"]}]"#)]);
    assert_eq!((own.lookup.hosts.clone(), own.lookup.overrides(&host)), (vec![alias("10.0.0.2")], true));
    assert_ne!(own.inputs, silent.inputs);
}

#[test]
fn a_login_is_lent_over_a_checked_certificate_wherever_the_name_leads_and_over_nothing_less() {
    const SHOP: &str = "shop-registry.cn-hangzhou.cr.aliyuncs.com";
    let instances = ("k8s.aliyun.com/acr-instance-ids", "cri-12345");
    let alias = format!(r#"[{{"host":"{SHOP}","ip":"10.0.0.5"}}]"#);
    let eks = BTreeMap::from([(
        "pod.annotations".to_owned(),
        format!("eks.tke.cloud.tencent.com/registry-http-endpoint: {SHOP}"),
    )]);
    let operators = crate::model::profile::Profile::read(None, Some(&eks), None);
    for (own, profile, lent) in [
        (None, None, true),
        (Some(("k8s.aliyun.com/eci-custom-hosts", alias.as_str())), None, true),
        (Some((HTTP, SHOP)), None, false),
        (Some((SKIP, SHOP)), None, false),
        (Some((TKE_HTTP, "all")), None, false),
        (None, Some(operators), false),
    ] {
        let settings = Settings {
            acr: Some(acr::Allowed { everything: true, ..acr::Allowed::default() }),
            profile: profile.unwrap_or_default().into(),
            ..Settings::default()
        };
        let annotations = own.into_iter().chain([instances]);
        let annotations = annotations.map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        let spec = ImageCacheSpec { images: vec![format!("{SHOP}/a")], ..ImageCacheSpec::default() };
        let (request, notices) = judge_spec(&annotations, &spec, &settings);
        assert_eq!(!request.unwrap().logins.is_empty(), lent, "{own:?}: {notices:?}");
        assert_eq!(notices.iter().any(|notice| notice.contains("no password-free login")), !lent, "{own:?}");
    }
}

#[test]
fn a_place_is_no_input_but_known() {
    let of = |id: &str| judged(&["a"], &[("k8s.aliyun.com/vswitch-ids", id)]).0.unwrap();
    let (one, other, none) = (of("vsw-1"), of("vsw-2"), judged(&["a"], &[]).0.unwrap());
    assert!(one.inputs == other.inputs && one.placement != other.placement);
    assert_eq!((none.inputs == one.inputs, none.placement.as_str()), (true, ""));
}
