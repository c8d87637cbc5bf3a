use std::collections::BTreeSet;

use proptest::prelude::*;

use super::{form::Form, table::PREFIXES, *};

fn all(annotations: &[(&str, &str)]) -> Annotations {
    read(&annotations.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect())
}

fn one(key: &str, value: &str) -> Annotations {
    all(&[(key, value)])
}

#[test]
fn no_key_is_silent_and_every_key_takes_its_example() {
    for row in TABLE {
        let seen = one(row.key, &row.form.example());
        assert!(seen.invalid.is_empty(), "{}: {:?}", row.key, seen.invalid);
        assert_eq!(seen.dialect, Some(row.dialect), "{}", row.key);
        let set = Annotations { dialect: None, notices: vec![], ..seen.clone() } != Annotations::default();
        assert_ne!(set, !seen.notices.is_empty(), "{}: it either acts or is reported", row.key);
        let acts = !matches!(row.effect, Effect::None(_) | Effect::NewEipDetail);
        assert_eq!(set, acts, "{}", row.key);
    }
    assert_eq!(one("example.com/imc-size", "25"), Annotations::default());
}

#[test]
fn every_key_refuses_a_bad_value_by_its_name_with_what_to_write() {
    for row in TABLE {
        let (bad, says) = match row.form {
            Form::Hosts | Form::HostsOrAll => ("https://r.io/", "host or host:port"),
            Form::Number(..) => ("5 apples", "whole number from"),
            Form::Flag => ("yes", "neither \"true\" nor \"false\""),
            Form::Word(_) => ("nothing", "write one of"),
            Form::Ids("", _) => ("a b", "is not an id"),
            Form::Ids(..) => ("eni-5", "letters, digits"),
            Form::Words(_) => ("\u{7}", "not plain text"),
            Form::Gib(..) => ("50GB", "50Gi"),
            Form::Object => ("[1]", "no JSON object"),
            Form::EciHosts | Form::PodHosts | Form::EciDns | Form::PodDns => {
                ("10.0.0.5 a", "write for example")
            }
            Form::ResolvConf => ("10.0.0.5", "write nameserver"),
            Form::Instances => ("acr-12345", "write cri-"),
            Form::Role => ("arn:aws:iam::1:role/x", "write acs:ram::"),
            Form::Text => continue,
        };
        let invalid = one(row.key, bad).invalid;
        assert_eq!(invalid.len(), 1, "{}", row.key);
        assert_eq!(invalid[0].field, row.key);
        assert!(invalid[0].message.contains(says), "{}", invalid[0]);
        assert!(!invalid[0].message.contains('\n') && invalid[0].message.len() < 400, "{}", invalid[0]);
    }
}

#[test]
fn keys_are_unique_and_have_a_known_prefix_and_a_page() {
    let keys: BTreeSet<&str> = TABLE.iter().map(|row| row.key).collect();
    assert_eq!(keys.len(), TABLE.len());
    assert!(keys.iter().all(|key| PREFIXES.iter().any(|p| key.starts_with(p))));
    assert!(TABLE.iter().all(|row| row.page.address.starts_with("https://")));
    let documented = TABLE.iter().filter(|row| row.page.title == "ECI, ImageCache annotations");
    assert_eq!(documented.count(), 21, "ECI's twenty, and the older acr-instance-id");
}

#[test]
fn lists_of_hosts_are_read_as_the_clouds_write_them() {
    let seen = one("k8s.aliyun.com/plain-http-registry", " 192.168.0.1:5000, harbor.example.com ,,");
    let named: Vec<&str> = seen.plain_http.named.keys().map(RegistryHost::as_str).collect();
    assert_eq!(named, ["192.168.0.1:5000", "harbor.example.com"]);
    assert!(one("eks.tke.cloud.tencent.com/registry-http-endpoint", "all").plain_http.all.is_some());
    let only_a_name = one("k8s.aliyun.com/insecure-registry", "all");
    assert_eq!(only_a_name.skip_verify.all, None);
}

#[test]
fn of_two_spellings_of_one_setting_the_newer_key_wins_with_a_notice() {
    let both =
        all(&[("k8s.aliyun.com/imc-enable-reuse", "false"), ("k8s.aliyun.com/eci-image-cache", "true")]);
    assert!(!both.reuse.unwrap().value);
    assert_eq!(both.notices.len(), 1);
}

#[test]
fn two_ways_out_are_one_error_that_names_both() {
    const TKE: &str = "eks.tke.cloud.tencent.com/";
    for (existing, new) in [
        ("k8s.aliyun.com/eip-instance-id".to_owned(), ("k8s.aliyun.com/auto-create-eip".to_owned(), "true")),
        (format!("{TKE}eip-id-list"), (format!("{TKE}eip-attributes"), "")),
    ] {
        let seen = all(&[(&existing, "eip-bp1q5n8cq4p7f6dzu"), (&new.0, new.1)]);
        assert_eq!(seen.invalid.len(), 1);
        let text = seen.invalid[0].to_string();
        assert!(text.contains(&existing) && text.contains(&new.0), "{text}");
    }
    let off =
        all(&[("k8s.aliyun.com/eip-instance-id", "eip-1"), ("k8s.aliyun.com/auto-create-eip", "false")]);
    assert!(off.invalid.is_empty() && off.notices.is_empty());
    let alone = one("k8s.aliyun.com/eip-bandwidth", "5");
    assert!(alone.notices[0].contains("none is asked for"), "{:?}", alone.notices);
}

#[test]
fn a_whole_object_of_hostile_values_is_one_short_sentence_a_key() {
    let huge = "\u{1b}[31m".to_owned() + &"x,".repeat(1 << 19);
    let hostile = TABLE.iter().map(|row| (row.key.to_owned(), huge.clone())).collect();
    let seen = read(&hostile);
    assert_eq!(seen.invalid.len(), TABLE.len(), "each is told once");
    assert!(seen.invalid.iter().all(|invalid| invalid.to_string().len() < 200));
}

#[test]
fn defaults_fill_what_the_object_leaves_open() {
    let mut seen = one("k8s.aliyun.com/vswitch-ids", "vsw-own");
    let defaults = BTreeMap::from([
        ("k8s.aliyun.com/eci-vswitch".to_owned(), "vsw-other".to_owned()),
        ("k8s.aliyun.com/eci-security-group".to_owned(), "sg-other".to_owned()),
    ]);
    seen.or(&read_from(&defaults, Origin::EciProfile));
    assert_eq!(seen.subnets.unwrap().value, ["vsw-own"]);
    let group = seen.security_groups.unwrap();
    assert_eq!((group.value, group.origin), (vec!["sg-other".to_owned()], Origin::EciProfile));
}

proptest! {
    #[test]
    fn no_value_of_any_key_ends_in_more_than_a_sentence(text in any::<String>(), row in 0..TABLE.len()) {
        let seen = one(TABLE[row].key, &text);
        for told in seen.invalid.iter().map(ToString::to_string) {
            prop_assert!(told.len() < 1000 && !told.chars().any(char::is_control), "{told:?}");
        }
    }
}
