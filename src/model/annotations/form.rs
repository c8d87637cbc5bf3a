//! How values are written, and what they are once read. Every text is bounded before anything looks into it.

use crate::model::{
    acr::{self, Instance, RoleArn},
    lookup::{self, Dns, HostAlias},
    reference::RegistryHost,
};

/// No setting of the clouds needs more.
pub const MAX_TEXT: usize = 16 << 10;
const MAX_HOSTS: usize = 100;
const MAX_ID: usize = 64;
const MAX_WORD: usize = 128;

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `host[:port]`, comma separated.
    Hosts,
    /// The same, or the word `all`.
    HostsOrAll,
    /// A number in these bounds.
    Number(u32, u32),
    /// `true` or `false`.
    Flag,
    /// One of these words, as the cloud writes them.
    Word(&'static [&'static str]),
    /// Ids that begin so, comma separated, at most so many. An empty prefix: any id.
    Ids(&'static str, usize),
    /// Words, comma separated, at most so many.
    Words(usize),
    /// `50Gi`, within these bounds.
    Gib(u32, u32),
    /// A JSON object, or nothing for the cloud's defaults.
    Object,
    /// ECI's `[{"host":…,"ip":…}]`.
    EciHosts,
    /// `hostAliases` of a pod.
    PodHosts,
    /// ECI's JSON of strings.
    EciDns,
    /// `dnsConfig` of a pod.
    PodDns,
    /// The text of a `resolv.conf`.
    ResolvConf,
    /// `[region:]cri-...`, comma separated.
    Instances,
    /// The ARN of a RAM role.
    Role,
    /// Not read here.
    Text,
}

/// What was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Hosts {
        named: Vec<RegistryHost>,
        all: bool,
    },
    Number(u32),
    Flag(bool),
    List(Vec<String>),
    /// In the cloud's own spelling.
    Text(String),
    Aliases(Vec<HostAlias>),
    /// Whether name servers were left out.
    Dns(Dns, bool),
    Instances(Vec<Instance>),
    Role(RoleArn),
}

impl Form {
    /// Whether the empty value says something.
    pub fn takes_nothing(self) -> bool {
        matches!(self, Self::Text | Self::Object)
    }

    pub fn read(self, text: &str) -> Result<Value, String> {
        if text.len() > MAX_TEXT {
            return Err(format!("{} bytes are too many; at most {MAX_TEXT}", text.len()));
        }
        match self {
            Self::Hosts | Self::HostsOrAll => hosts(text, self == Self::HostsOrAll),
            Self::Number(least, most) => number(text, least, most),
            Self::Flag => flag(text),
            Self::Word(words) => word(text, words),
            Self::Ids(prefix, most) => ids(text, prefix, most),
            Self::Words(most) => words(text, most),
            Self::Gib(least, most) => gib(text, least, most),
            Self::Object => object(text),
            Self::EciHosts => lookup::eci_aliases(text).map(Value::Aliases),
            Self::PodHosts => lookup::pod_aliases(text).map(Value::Aliases),
            Self::EciDns => lookup::eci_dns(text).map(|(dns, more)| Value::Dns(dns, more)),
            Self::PodDns => lookup::pod_dns(text).map(|dns| Value::Dns(dns, false)),
            Self::ResolvConf => lookup::resolv_conf(text).map(|dns| Value::Dns(dns, false)),
            Self::Instances => acr::instances(text).map(Value::Instances),
            Self::Role => acr::one_role(text).map(Value::Role),
            Self::Text => Ok(Value::Text(text.to_owned())),
        }
    }

    /// For people: which values there are.
    pub fn describe(self) -> String {
        let at_most =
            |most: usize| if most == 1 { "one".to_owned() } else { format!("up to {most}, comma separated") };
        match self {
            Self::Hosts => "`host[:port]`, comma separated, as the images write it".to_owned(),
            Self::HostsOrAll => "`host[:port]`, comma separated, as the images write it; or `all`".to_owned(),
            Self::Number(least, most) => format!("{least} to {most}"),
            Self::Flag => "`true` or `false`".to_owned(),
            Self::Word(words) => words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", "),
            Self::Ids("", most) => format!("an id, {}", at_most(most)),
            Self::Ids(prefix, most) => format!("`{prefix}…`, {}", at_most(most)),
            Self::Words(most) => format!("text, {}", at_most(most)),
            Self::Gib(least, most) => format!("`{least}Gi` to `{most}Gi`"),
            Self::Object => "a JSON object, or empty for the cloud's defaults".to_owned(),
            Self::EciHosts => "JSON, `[{\"host\":\"a.example.com\",\"ip\":\"10.0.0.5\"}]`".to_owned(),
            Self::PodHosts => "JSON, `[{\"ip\":\"10.0.0.5\",\"hostnames\":[\"a.example.com\"]}]`".to_owned(),
            Self::EciDns => {
                "JSON of strings, `{\"nameservers\":\"10.0.0.2\",\"searches\":\"…\",\"options\":\"ndots:2\"}`"
                    .to_owned()
            }
            Self::PodDns => {
                "JSON, `{\"nameservers\":[\"10.0.0.2\"],\"searches\":[],\"options\":[]}`".to_owned()
            }
            Self::ResolvConf => "the text of a `resolv.conf`".to_owned(),
            Self::Instances => "`[region:]cri-…`, comma separated".to_owned(),
            Self::Role => "`acs:ram::ACCOUNT:role/NAME`".to_owned(),
            Self::Text => "text".to_owned(),
        }
    }

    /// A value that is right.
    pub fn example(self) -> String {
        match self {
            Self::Hosts | Self::HostsOrAll => "registry.example.com:5000".to_owned(),
            Self::Number(least, _) => least.to_string(),
            Self::Flag => "true".to_owned(),
            Self::Word(words) => words.first().copied().unwrap_or_default().to_owned(),
            Self::Ids(prefix, _) => format!("{prefix}bp1dktddjsg5nktv0001"),
            Self::Words(_) => "2-4Gi".to_owned(),
            Self::Gib(least, _) => format!("{least}Gi"),
            Self::Object => r#"{"InternetMaxBandwidthOut":10}"#.to_owned(),
            Self::EciHosts => r#"[{"host":"registry.example.com","ip":"10.0.0.5"}]"#.to_owned(),
            Self::PodHosts => r#"[{"ip":"10.0.0.5","hostnames":["registry.example.com"]}]"#.to_owned(),
            Self::EciDns => r#"{"nameservers":"10.0.0.2"}"#.to_owned(),
            Self::PodDns => r#"{"nameservers":["10.0.0.2"]}"#.to_owned(),
            Self::ResolvConf => "nameserver 10.0.0.2".to_owned(),
            Self::Instances => "cn-hangzhou:cri-12345".to_owned(),
            Self::Role => "acs:ram::123:role/name".to_owned(),
            Self::Text => "anything".to_owned(),
        }
    }
}

fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty())
}

fn hosts(text: &str, or_all: bool) -> Result<Value, String> {
    let (mut named, mut all, mut bad) = (Vec::new(), false, Vec::new());
    for item in items(text) {
        if named.len() == MAX_HOSTS {
            return Err(format!("more than {MAX_HOSTS} registries"));
        }
        match item.parse::<RegistryHost>() {
            _ if or_all && item == "all" => all = true,
            Ok(host) => named.push(host),
            Err(_) if bad.len() < 5 => bad.push(format!("{:?}", shown(item))),
            Err(_) => {}
        }
    }
    if bad.is_empty() {
        return Ok(Value::Hosts { named, all });
    }
    let or_all = if or_all { ", or all" } else { "" };
    Err(format!(
        "not a registry address: {}; write host or host:port as in the image's name, comma separated{or_all}",
        bad.join(", ")
    ))
}

fn number(text: &str, least: u32, most: u32) -> Result<Value, String> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let n = text.parse().ok().filter(|n| digits && (least..=most).contains(n));
    n.map(Value::Number).ok_or_else(|| {
        format!(
            "{:?} is not a whole number from {least} to {most}: write for example \"{least}\"",
            shown(text)
        )
    })
}

fn flag(text: &str) -> Result<Value, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" => Ok(Value::Flag(true)),
        "false" => Ok(Value::Flag(false)),
        _ => Err(format!("{:?} is neither \"true\" nor \"false\"", shown(text))),
    }
}

fn word(text: &str, words: &[&str]) -> Result<Value, String> {
    let known = words.iter().find(|word| word.eq_ignore_ascii_case(text));
    known
        .map(|word| Value::Text((*word).to_owned()))
        .ok_or_else(|| format!("{:?} is not known here: write one of {}", shown(text), words.join(", ")))
}

fn ids(text: &str, prefix: &str, most: usize) -> Result<Value, String> {
    let all: Vec<&str> = items(text).take(most + 1).collect();
    if all.len() > most {
        let s = if most == 1 { "" } else { "s" };
        return Err(format!("more than {most} id{s}; {most} may be given"));
    }
    let like = if prefix.is_empty() { "an id" } else { prefix };
    for id in &all {
        let rest = id.strip_prefix(prefix).unwrap_or_default();
        // The clouds' pages mask their ids by stars, and what they show is accepted; a notice says so.
        let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'*');
        if rest.is_empty() || id.len() > MAX_ID || !rest.bytes().all(fine) {
            let dots = if prefix.is_empty() { "" } else { "…" };
            return Err(format!(
                "{:?} is not {like}{dots}: letters, digits and - after it, at most {MAX_ID} in all",
                shown(id)
            ));
        }
    }
    Ok(Value::List(all.into_iter().map(str::to_owned).collect()))
}

fn words(text: &str, most: usize) -> Result<Value, String> {
    let all: Vec<&str> = items(text).take(most + 1).collect();
    if all.len() > most {
        return Err(format!("more than {most} entries"));
    }
    let fine = |word: &&&str| word.len() <= MAX_WORD && word.bytes().all(|b| (b' '..=b'~').contains(&b));
    match all.iter().find(|word| !fine(word)) {
        Some(bad) => {
            Err(format!("{:?} is too long or not plain text; at most {MAX_WORD} characters", shown(bad)))
        }
        None => Ok(Value::Text(all.join(","))),
    }
}

fn gib(text: &str, least: u32, most: u32) -> Result<Value, String> {
    let n = text.strip_suffix("Gi").and_then(|n| n.parse::<u32>().ok());
    n.filter(|n| (least..=most).contains(n)).map(|n| Value::Text(format!("{n}Gi"))).ok_or_else(|| {
        format!("{:?} is not a size from {least}Gi to {most}Gi: write for example \"50Gi\"", shown(text))
    })
}

fn object(text: &str) -> Result<Value, String> {
    if text.is_empty() {
        return Ok(Value::Text(String::new()));
    }
    match serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text) {
        Ok(map) => Ok(Value::Text(serde_json::Value::Object(map).to_string())),
        Err(_) => Err(format!("{:?} is no JSON object: write {{}} for the cloud's defaults", shown(text))),
    }
}

/// For messages.
pub(super) fn shown(text: &str) -> String {
    text.chars().take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_reads_its_example() {
        for form in [
            Form::Hosts,
            Form::HostsOrAll,
            Form::Number(1, 5),
            Form::Flag,
            Form::Word(&["BGP", "BGP_PRO"]),
            Form::Ids("vsw-", 10),
            Form::Ids("", 1),
            Form::Words(5),
            Form::Gib(1, 9),
            Form::Object,
            Form::EciHosts,
            Form::PodHosts,
            Form::EciDns,
            Form::PodDns,
            Form::ResolvConf,
            Form::Instances,
            Form::Role,
            Form::Text,
        ] {
            assert!(form.read(&form.example()).is_ok(), "{form:?}");
            assert!(!form.describe().is_empty());
        }
        assert_eq!(
            Form::Word(&["PayByTraffic"]).read("paybytraffic"),
            Ok(Value::Text("PayByTraffic".into()))
        );
    }

    #[test]
    fn hostile_values_are_refused_with_a_short_sentence() {
        let big = "a".repeat(1 << 20);
        let many = vec!["vsw-1"; 3000].join(",");
        let hosts = (0..1000).map(|i| format!("r{i}.io")).collect::<Vec<_>>().join(",");
        let bomb = format!("{{\"a\":{}{}}}", "[".repeat(4000), "]".repeat(4000));
        let nul = "vsw-\u{0}\u{1b}[31m";
        for form in [
            Form::Hosts,
            Form::Number(1, 5),
            Form::Flag,
            Form::Word(&["BGP"]),
            Form::Ids("vsw-", 10),
            Form::Words(5),
            Form::Gib(1, 9),
            Form::Object,
            Form::EciHosts,
            Form::PodHosts,
            Form::EciDns,
            Form::PodDns,
            Form::ResolvConf,
            Form::Instances,
            Form::Role,
        ] {
            for text in [&big, &many, &bomb, nul] {
                if let Err(error) = form.read(text) {
                    let control = error.chars().any(char::is_control);
                    assert!(error.len() < 800 && !control, "{form:?}: {error}");
                } else {
                    assert_eq!(form, Form::Words(5), "{form:?} takes {:?}", shown(text));
                }
            }
        }
        assert!(Form::Hosts.read(&hosts).unwrap_err().contains("more than 100"));
        assert!(Form::Ids("vsw-", 10).read("vsw-bp1****").is_ok(), "as the clouds' pages show them");
        assert!(Form::Ids("sg-", 1).read("sg-1,sg-2").unwrap_err().contains("more than 1 id;"));
        assert!(Form::Number(1, 9).read("+5").is_err(), "as the clouds write numbers");
    }
}
