use super::*;

const ROLE: &str = "acs:ram::1609982529000000:role/imagecache";
const OTHER: &str = "acs:ram::1298452580000000:role/role-acr";

fn allowed() -> Allowed {
    Allowed {
        region: Some("cn-hangzhou".parse().unwrap()),
        roles: vec![ROLE.parse().unwrap(), "acs:ram::1298452580000000:role/role-*".parse().unwrap()],
        instances: vec!["cri-allowed1".parse().unwrap(), "cn-beijing:cri-beijing1".parse().unwrap()],
        everything: false,
    }
}

fn asked(instances: &str, service: &str, user: &str) -> Asked {
    let mut asked = Asked::default();
    if !instances.is_empty() {
        asked.set_instances(INSTANCE_IDS, super::instances(instances).unwrap());
    }
    if !service.is_empty() {
        asked.set_service(SERVICE_ARNS, one_role(service).unwrap());
    }
    if !user.is_empty() {
        asked.set_user(USER_ARNS, one_role(user).unwrap());
    }
    asked
}

fn host(text: &str) -> RegistryHost {
    text.parse().unwrap()
}

fn decided(asked: &Asked, hosts: &[&str]) -> Decision {
    let hosts: Vec<RegistryHost> = hosts.iter().map(|text| host(text)).collect();
    decide(asked, &hosts, |_| false, Some(&allowed()))
}

#[test]
fn hosts_are_told_by_their_names() {
    let region = |text: &str| text.parse::<Region>().unwrap();
    for (name, wanted) in [
        ("registry.cn-hangzhou.aliyuncs.com", Domain::Personal(region("cn-hangzhou"))),
        ("registry-intl.ap-southeast-1.aliyuncs.com", Domain::Personal(region("ap-southeast-1"))),
        ("registry-vpc.cn-hangzhou.aliyuncs.com", Domain::Personal(region("cn-hangzhou"))),
        ("registry-intl-vpc.eu-central-1.aliyuncs.com", Domain::Personal(region("eu-central-1"))),
        ("registry-internal.cn-hangzhou.aliyuncs.com", Domain::Personal(region("cn-hangzhou"))),
        (
            "crpi-x1y2z3.cn-beijing.personal.cr.aliyuncs.com",
            Domain::PersonalInstance(region("cn-beijing"), "crpi-x1y2z3".parse().unwrap()),
        ),
        ("shop-registry.cn-beijing.cr.aliyuncs.com", Domain::Enterprise(region("cn-beijing"), "shop".into())),
        (
            "a-b-registry-vpc.cn-beijing.cr.aliyuncs.com",
            Domain::Enterprise(region("cn-beijing"), "a-b".into()),
        ),
        ("images.example.com", Domain::Custom),
        ("10.0.0.5:5000", Domain::Custom),
        ("docker.io", Domain::Foreign),
        ("bucket.oss-cn-hangzhou.aliyuncs.com", Domain::Foreign),
        ("registryevil.cn-hangzhou.aliyuncs.com", Domain::Foreign),
        ("registry.cn-hangzhou.aliyuncs.com.evil.org", Domain::Custom),
    ] {
        assert_eq!(domain(&host(name)), wanted, "{name}");
    }
}

#[test]
fn values_that_could_lead_elsewhere_are_not_taken() {
    for bad in ["", "cn", "cn-", "evil.org/", "cn-hangzhou.evil.org", "CN-hangzhou", "cn-hang zhou", "-cn-x"]
    {
        assert!(bad.parse::<Region>().is_err(), "{bad}");
    }
    for bad in ["cri-", "cri-***", "acr-12345", "cri-AB12", "cn-hangzhou:", "a:b:cri-12345", "cri-1234/x"] {
        assert!(bad.parse::<Instance>().is_err(), "{bad}");
    }
    for bad in [
        "acs:ram::1:user/x",
        "acs:ram::*:role/x",
        "acs:ram::1:role/",
        "acs:ram::1:role/a b",
        "arn:aws:iam::1:role/x",
    ] {
        assert!(bad.parse::<RoleArn>().is_err() && bad.parse::<RolePattern>().is_err(), "{bad}");
    }
    assert!("acs:ram::1:role/a*".parse::<RoleArn>().is_err());
    assert!(one_role(&format!("{OTHER},{OTHER}")).is_err());
}

#[test]
fn every_case_of_the_vendors_page_becomes_a_login() {
    let (hangzhou, beijing): (Region, Region) =
        ("cn-hangzhou".parse().unwrap(), "cn-beijing".parse().unwrap());
    let id = |text: &str| text.parse::<InstanceId>().unwrap();
    for (asked, name, roles, registry) in [
        (
            asked("cri-allowed1", "", ""),
            "shop-registry.cn-hangzhou.cr.aliyuncs.com",
            0,
            Registry::Enterprise(hangzhou.clone(), id("cri-allowed1")),
        ),
        (
            asked("cri-allowed1", "", ""),
            "images.example.com",
            0,
            Registry::OneOf(vec![(hangzhou.clone(), id("cri-allowed1"))]),
        ),
        (
            asked("cn-beijing:cri-beijing1", "", ""),
            "images.example.com",
            0,
            Registry::OneOf(vec![(beijing.clone(), id("cri-beijing1"))]),
        ),
        (
            asked("", ROLE, ""),
            "shop-registry.cn-beijing.cr.aliyuncs.com",
            1,
            Registry::Named(beijing.clone(), "shop".into()),
        ),
        (asked("", ROLE, ""), "registry.cn-beijing.aliyuncs.com", 1, Registry::Personal(beijing.clone())),
        (
            asked("cri-theirs1", ROLE, OTHER),
            "shop-registry-vpc.cn-beijing.cr.aliyuncs.com",
            2,
            Registry::Enterprise(beijing.clone(), id("cri-theirs1")),
        ),
        (
            asked("cri-one1,cri-two2", ROLE, ""),
            "shop-registry.cn-beijing.cr.aliyuncs.com",
            1,
            Registry::OneOf(vec![(beijing.clone(), id("cri-one1")), (beijing.clone(), id("cri-two2"))]),
        ),
    ] {
        let decision = decided(&asked, &[name, "docker.io"]);
        assert_eq!(decision.logins.hosts, BTreeMap::from([(host(name), registry)]), "{asked:?} {decision:?}");
        assert_eq!(decision.logins.roles.len(), roles);
        assert_eq!((decision.notices, decision.invalid), (vec![], vec![]));
    }
}

#[test]
fn another_instance_or_role_is_another_login_and_it_is_part_of_the_inputs() {
    let shop = "shop-registry.cn-hangzhou.cr.aliyuncs.com";
    let text = |asked: &Asked| serde_json::to_string(&decided(asked, &[shop]).logins).unwrap();
    let base = text(&asked("cri-allowed1", ROLE, ""));
    assert!(base.contains(shop) && base.contains(ROLE), "{base}");
    assert_ne!(base, text(&asked("cri-other1", ROLE, "")));
    assert_ne!(base, text(&asked("cri-allowed1", "", "")));
}

#[test]
fn what_the_operator_does_not_list_is_refused_and_the_flag_is_named() {
    let shop = "shop-registry.cn-hangzhou.cr.aliyuncs.com";
    let foreign = "acs:ram::999:role/imagecache";
    for (asked, field, says) in [
        (asked("", foreign, ""), SERVICE_ARNS, "--allow-acr-roles=acs:ram::999:role/imagecache"),
        (asked("", ROLE, foreign), USER_ARNS, "--allow-acr-roles=acs:ram::999:role/imagecache"),
        (asked("", "", OTHER), USER_ARNS, SERVICE_ARNS),
        (asked("cri-secret1", "", ""), INSTANCE_IDS, "--allow-acr-instances=cri-secret1"),
        (
            asked("cn-shanghai:cri-beijing1", "", ""),
            INSTANCE_IDS,
            "--allow-acr-instances=cn-shanghai:cri-beijing1",
        ),
    ] {
        let decision = decided(&asked, &[shop]);
        assert!(decision.logins.is_empty(), "{asked:?}");
        assert!(
            decision.invalid[0].field == field && decision.invalid[0].message.contains(says),
            "{decision:?}"
        );
    }
    // Names of another account that begin alike are not covered.
    assert!(
        !"acs:ram::1:role/a*".parse::<RolePattern>().unwrap().covers(&"acs:ram::12:role/a".parse().unwrap())
    );
}

#[test]
fn without_an_identity_of_the_operator_the_user_is_told_which_flags_are_missing() {
    let asked = asked("cri-allowed1", ROLE, "");
    let decision = decide(&asked, &[host("images.example.com")], |_| false, None);
    assert!(decision.logins.is_empty() && decision.invalid.is_empty());
    assert_eq!(decision.notices.len(), 2);
    assert!(
        decision
            .notices
            .iter()
            .all(|n| n.contains("--acr-access-key-dir") && n.contains("--allow-acr-roles"))
    );
}

#[test]
fn a_host_that_the_object_weakens_gets_no_login() {
    let shop = host("shop-registry.cn-hangzhou.cr.aliyuncs.com");
    let decision = decide(&asked("cri-allowed1", "", ""), [&shop], |_| true, Some(&allowed()));
    assert!(decision.logins.is_empty() && decision.notices[0].contains(shop.as_str()), "{decision:?}");
}

#[test]
fn a_custom_domain_without_a_region_says_what_to_write() {
    let nowhere = Allowed { region: None, ..allowed() };
    let hosts = [host("images.example.com"), host("quay.io")];
    let decision = decide(&asked("cri-allowed1", "", ""), &hosts, |_| false, Some(&nowhere));
    assert_eq!((decision.notices.len(), decision.invalid.len()), (1, 0), "{decision:?}");
    assert!(decision.notices[0].contains("cn-hangzhou:cri-allowed1"), "{decision:?}");
    assert_eq!(
        decided(&asked("cri-allowed1", "", ""), &["docker.io"]).notices.len(),
        1,
        "it names nothing here"
    );
}

#[test]
fn a_login_is_renewed_while_it_still_works() {
    let now = Timestamp::UNIX_EPOCH;
    for (life, renewed) in [(3600, 2700), (900, 450), (1800, 900), (60, 60), (0, 60), (-5, 60)] {
        let at = renew_at(now, Timestamp::from_second(life).unwrap());
        assert_eq!(at.as_second(), renewed, "{life}");
    }
}
