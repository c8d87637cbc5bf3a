//! Annotations read by the table: typed settings, everything that is wrong at once, and a notice for each key that
//! has no effect here.

pub mod table;

use std::collections::{BTreeMap, BTreeSet};

use self::table::{Effect, Form, PREFIXES, Row, TABLE};
use super::{acr, judge::Invalid, reference::RegistryHost, request::Dialect};

/// What the annotations of one object say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Annotations {
    pub plain_http: Hosts,
    pub skip_verify: Hosts,
    pub size_gib: Option<Set<u32>>,
    pub retention_days: Option<Set<u32>>,
    pub reuse: Option<Set<bool>>,
    pub flash: Option<Set<bool>>,
    pub architecture: Option<Set<String>>,
    pub os: Option<Set<String>>,
    pub acr: acr::Asked,
    /// The vocabulary the object uses, if it uses one.
    pub dialect: Option<Dialect>,
    pub notices: Vec<String>,
    pub invalid: Vec<Invalid>,
}

/// A value and the key that set it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set<T> {
    pub value: T,
    pub key: &'static str,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts {
    /// By host, the key that names it.
    pub named: BTreeMap<RegistryHost, &'static str>,
    /// The key that says `all`.
    pub all: Option<&'static str>,
}

impl Hosts {
    pub fn covers(&self, host: &RegistryHost) -> bool {
        self.all.is_some() || self.named.contains_key(host)
    }
}

/// Reads all annotations. Order of the table, so that messages come in a stable order.
pub fn read(annotations: &BTreeMap<String, String>) -> Annotations {
    let mut seen = Annotations::default();
    for row in TABLE {
        let Some(text) = annotations.get(row.key).map(|text| text.trim()) else { continue };
        seen.dialect.get_or_insert(row.dialect);
        if text.is_empty() && row.form != Form::Text {
            continue;
        }
        if let Err(message) = seen.take(row, text) {
            seen.invalid.push(Invalid { field: row.key.to_owned(), message });
        }
    }
    let known: BTreeSet<&str> = TABLE.iter().map(|row| row.key).collect();
    let unknown = |key: &&String| {
        PREFIXES.iter().any(|prefix| key.starts_with(prefix)) && !known.contains(key.as_str())
    };
    for key in annotations.keys().filter(unknown) {
        seen.notices.push(format!("{key}: this annotation is not known and has no effect; is it misspelt?"));
    }
    seen
}

impl Annotations {
    fn take(&mut self, row: &Row, text: &str) -> Result<(), String> {
        match row.effect {
            Effect::PlainHttp => hosts(row, text, &mut self.plain_http),
            Effect::SkipVerify => hosts(row, text, &mut self.skip_verify),
            Effect::Size => number(row, text).map(|n| set(&mut self.size_gib, row, n, &mut self.notices)),
            Effect::Retention => {
                number(row, text).map(|n| set(&mut self.retention_days, row, n, &mut self.notices))
            }
            Effect::Reuse => flag(text).map(|on| set(&mut self.reuse, row, on, &mut self.notices)),
            Effect::Flash => flag(text).map(|on| set(&mut self.flash, row, on, &mut self.notices)),
            Effect::Architecture => {
                word(row, text).map(|w| set(&mut self.architecture, row, w, &mut self.notices))
            }
            Effect::Os => word(row, text).map(|w| set(&mut self.os, row, w, &mut self.notices)),
            Effect::AcrInstances => self.acr.set_instances(row.key, text),
            Effect::AcrServiceRole => self.acr.set_service(row.key, text),
            Effect::AcrUserRole => self.acr.set_user(row.key, text),
            Effect::None => {
                let asked = if row.form == Form::Flag { flag(text)? } else { true };
                if asked {
                    self.notices.push(format!("{}: it asks for {}; not honoured here", row.key, row.meaning));
                }
                Ok(())
            }
        }
    }
}

/// The earlier row of the table wins.
fn set<T: PartialEq>(slot: &mut Option<Set<T>>, row: &Row, value: T, notices: &mut Vec<String>) {
    match slot {
        None => *slot = Some(Set { value, key: row.key }),
        Some(earlier) if earlier.value != value => {
            notices.push(format!("{}: {} says otherwise and wins", row.key, earlier.key));
        }
        Some(_) => {}
    }
}

fn hosts(row: &Row, text: &str, into: &mut Hosts) -> Result<(), String> {
    let mut bad = Vec::new();
    for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        if row.form == Form::HostsOrAll && item == "all" {
            into.all = Some(row.key);
            continue;
        }
        match item.parse::<RegistryHost>() {
            Ok(host) => {
                into.named.entry(host).or_insert(row.key);
            }
            Err(_) => bad.push(format!("{:?}", shown(item))),
        }
    }
    if bad.is_empty() {
        return Ok(());
    }
    let all = if row.form == Form::HostsOrAll { ", or all" } else { "" };
    bad.truncate(5);
    Err(format!(
        "not a registry address: {}; write host or host:port as in the image's name, comma separated{all}",
        bad.join(", ")
    ))
}

fn number(row: &Row, text: &str) -> Result<u32, String> {
    let Form::Number(least, most) = row.form else { return Err(String::new()) };
    text.parse().ok().filter(|n| (least..=most).contains(n)).ok_or_else(|| {
        format!(
            "{:?} is not a whole number from {least} to {most}: write for example \"{least}\"",
            shown(text)
        )
    })
}

fn flag(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(format!("{:?} is neither \"true\" nor \"false\"", shown(text))),
    }
}

fn word(row: &Row, text: &str) -> Result<String, String> {
    let Form::Word(words) = row.form else { return Err(String::new()) };
    let lower = text.to_ascii_lowercase();
    if words.contains(&lower.as_str()) {
        Ok(lower)
    } else {
        Err(format!("{:?} is not known here: write one of {}", shown(text), words.join(", ")))
    }
}

fn shown(text: &str) -> String {
    text.chars().take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(key: &str, value: &str) -> Annotations {
        read(&BTreeMap::from([(key.to_owned(), value.to_owned())]))
    }

    #[test]
    fn no_key_is_silent() {
        for row in TABLE {
            let value = match row.form {
                Form::Hosts | Form::HostsOrAll => "registry.example.com:5000",
                Form::Number(least, _) => &least.to_string(),
                Form::Flag => "true",
                Form::Instances => "cn-hangzhou:cri-12345",
                Form::Role => "acs:ram::123:role/name",
                Form::Word(words) => words[0],
                Form::Text => "anything",
            };
            let seen = one(row.key, value);
            assert!(seen.invalid.is_empty(), "{}: {:?}", row.key, seen.invalid);
            assert_eq!(seen.dialect, Some(row.dialect), "{}", row.key);
            let set =
                Annotations { dialect: None, notices: vec![], ..seen.clone() } != Annotations::default();
            assert_ne!(set, !seen.notices.is_empty(), "{}: it either acts or is reported", row.key);
            assert_eq!(set, row.effect != Effect::None, "{}", row.key);
        }
        assert_eq!(one("k8s.aliyun.com/imc-sizes", "25").notices.len(), 1, "a misspelt key is reported");
        assert_eq!(one("example.com/imc-size", "25"), Annotations::default());
    }

    #[test]
    fn keys_are_unique_and_have_a_known_prefix() {
        let keys: BTreeSet<&str> = TABLE.iter().map(|row| row.key).collect();
        assert_eq!(keys.len(), TABLE.len());
        assert!(keys.iter().all(|key| PREFIXES.iter().any(|p| key.starts_with(p))));
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
    fn bad_values_are_one_sentence_per_key_that_says_what_to_write() {
        for (key, value, says) in [
            (
                "k8s.aliyun.com/plain-http-registry",
                "harbor***.pre.com,https://x,ok:5000",
                "harbor***.pre.com",
            ),
            ("k8s.aliyun.com/imc-size", "19", "20 to 32768"),
            ("k8s.aliyun.com/imc-size", "25Gi", "20 to 32768"),
            ("k8s.aliyun.com/imc-retention-days", "0", "1 to 65536"),
            ("k8s.aliyun.com/imc-enable-reuse", "yes", "true"),
            ("k8s.aliyun.com/imc-cpu-arch", "x86", "amd64, arm64"),
        ] {
            let invalid = one(key, value).invalid;
            assert_eq!(invalid.len(), 1, "{key}");
            assert!(invalid[0].message.contains(says), "{}", invalid[0]);
        }
    }

    #[test]
    fn of_two_spellings_of_one_setting_the_newer_key_wins_with_a_notice() {
        let both = read(&BTreeMap::from([
            ("k8s.aliyun.com/imc-enable-reuse".to_owned(), "false".to_owned()),
            ("k8s.aliyun.com/eci-image-cache".to_owned(), "true".to_owned()),
        ]));
        assert!(!both.reuse.unwrap().value);
        assert_eq!(both.notices.len(), 1);
    }
}
