//! How names are looked up for a pull: host aliases and name servers that a cache or the operator sets.
//! Three spellings of one thing: ECI's JSON of strings, the `PodSpec` shapes that KCI uses, and TKE's text of a
//! `resolv.conf`. Sources: ECI "Configure hosts for a pod" and "Configure custom DNS"; Kubernetes `HostAlias` and
//! `PodDNSConfig`; resolv.conf(5).

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::reference::RegistryHost;

/// Hostnames in all aliases together.
const MAX_ALIASES: usize = 100;
/// Kubernetes takes no more.
const MAX_NAMESERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_OPTIONS: usize = 16;
/// ECI uses no more: its own follow.
const ECI_NAMESERVERS: usize = 2;

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HostAlias {
    pub ip: IpAddr,
    pub hostnames: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Dns {
    #[serde(default)]
    pub nameservers: Vec<IpAddr>,
    #[serde(default)]
    pub searches: Vec<String>,
    #[serde(default)]
    pub options: Vec<DnsOption>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DnsOption {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// What a pull is given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Lookup {
    #[serde(default)]
    pub hosts: Vec<HostAlias>,
    #[serde(default)]
    pub dns: Option<Dns>,
    /// They came from an `ImageCache`, so what they lead to proves nothing to other caches.
    #[serde(default)]
    pub hosts_overridden: bool,
    #[serde(default)]
    pub dns_overridden: bool,
}

impl Lookup {
    pub fn is_default(&self) -> bool {
        self.hosts.is_empty() && self.dns.is_none()
    }

    /// Addresses of a name that is an alias; empty where it is none.
    pub fn aliases(&self, name: &str) -> Vec<IpAddr> {
        let named = |alias: &&HostAlias| alias.hostnames.iter().any(|host| host.eq_ignore_ascii_case(name));
        self.hosts.iter().filter(named).map(|alias| alias.ip).collect()
    }

    /// Whether a setting of the cache decides where this registry's name leads.
    pub fn overrides(&self, host: &RegistryHost) -> bool {
        let aliased = || {
            [host.as_str(), host.network()].iter().any(|text| !self.aliases(without_port(text)).is_empty())
        };
        let is_address = without_port(host.as_str()).parse::<IpAddr>().is_ok();
        (self.dns_overridden && self.dns.is_some() && !is_address) || (self.hosts_overridden && aliased())
    }
}

/// The name or address of `host[:port]`, without the brackets of IPv6.
fn without_port(host: &str) -> &str {
    match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    }
}

impl Dns {
    /// `ndots:2`, as ECI and `resolv.conf` write it.
    pub fn options_as_words(&self) -> Vec<String> {
        let word = |option: &DnsOption| match &option.value {
            Some(value) => format!("{}:{value}", option.name),
            None => option.name.clone(),
        };
        self.options.iter().map(word).collect()
    }

    pub fn to_resolv_conf(&self) -> String {
        let mut lines: Vec<String> = self.nameservers.iter().map(|ip| format!("nameserver {ip}")).collect();
        if !self.searches.is_empty() {
            lines.push(format!("search {}", self.searches.join(" ")));
        }
        if !self.options.is_empty() {
            lines.push(format!("options {}", self.options_as_words().join(" ")));
        }
        lines.join("\n")
    }

    /// The number that an option sets.
    pub fn number(&self, name: &str) -> Option<u64> {
        let option = self.options.iter().find(|option| option.name == name)?;
        option.value.as_ref()?.parse().ok()
    }

    fn checked(self) -> Result<Self, String> {
        bounded("nameservers", self.nameservers.len(), MAX_NAMESERVERS)?;
        bounded("searches", self.searches.len(), MAX_SEARCHES)?;
        bounded("options", self.options.len(), MAX_OPTIONS)?;
        if let Some(ip) = self.nameservers.iter().find(|ip| ip.is_unspecified() || ip.is_multicast()) {
            return Err(format!("{ip} cannot be a name server"));
        }
        let as_name = |text: &String| text.strip_suffix('.').unwrap_or(text).to_owned();
        if let Some(bad) = self.searches.iter().find(|text| !is_name(&as_name(text))) {
            return Err(format!("{:?} is no search domain", short(bad)));
        }
        let word = |text: &str| {
            (1..=63).contains(&text.len())
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        };
        let fine = |option: &&DnsOption| word(&option.name) && option.value.as_deref().is_none_or(word);
        match self.options.iter().find(|option| !fine(option)) {
            Some(bad) => Err(format!("{:?} is no option of a resolver", short(&bad.name))),
            None => Ok(self),
        }
    }
}

/// `[{"ip":"1.2.3.4","hostnames":["a.example.com"]}]`
pub fn pod_aliases(text: &str) -> Result<Vec<HostAlias>, String> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Entry {
        ip: String,
        hostnames: Vec<String>,
    }
    let entries: Vec<Entry> = json(text, r#"[{"ip":"10.0.0.5","hostnames":["registry.example.com"]}]"#)?;
    aliases(entries.into_iter().map(|entry| (entry.ip, entry.hostnames)))
}

/// `[{"host":"a.example.com","ip":"1.2.3.4"}]`
pub fn eci_aliases(text: &str) -> Result<Vec<HostAlias>, String> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Entry {
        host: String,
        ip: String,
    }
    let entries: Vec<Entry> = json(text, r#"[{"host":"registry.example.com","ip":"10.0.0.5"}]"#)?;
    aliases(entries.into_iter().map(|entry| (entry.ip, vec![entry.host])))
}

fn aliases(entries: impl Iterator<Item = (String, Vec<String>)>) -> Result<Vec<HostAlias>, String> {
    let mut all = Vec::new();
    let mut names = 0;
    for (ip, hostnames) in entries {
        names += hostnames.len().max(1);
        bounded("host names", names, MAX_ALIASES)?;
        let ip = address(&ip)?;
        if let Some(bad) = hostnames.iter().find(|name| !is_name(name)) {
            return Err(format!("{:?} is no host name", short(bad)));
        }
        if hostnames.is_empty() {
            return Err(format!("{ip} has no host names"));
        }
        all.push(HostAlias { ip, hostnames });
    }
    Ok(all)
}

/// `{"nameservers":["1.1.1.1"],"searches":["a.com"],"options":[{"name":"ndots","value":"2"}]}`
pub fn pod_dns(text: &str) -> Result<Dns, String> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Entry {
        #[serde(default)]
        nameservers: Vec<String>,
        #[serde(default)]
        searches: Vec<String>,
        #[serde(default)]
        options: Vec<DnsOption>,
    }
    let entry: Entry = json(text, r#"{"nameservers":["10.0.0.2"],"searches":[],"options":[]}"#)?;
    let nameservers = entry.nameservers.iter().map(|ip| address(ip)).collect::<Result<_, _>>()?;
    Dns { nameservers, searches: entry.searches, options: entry.options }.checked()
}

/// `{"nameservers":"1.1.1.1,1.0.0.1","searches":"a.com","options":"ndots:2,edns0"}`. The second value says that
/// name servers were left out.
pub fn eci_dns(text: &str) -> Result<(Dns, bool), String> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Entry {
        #[serde(default)]
        nameservers: String,
        #[serde(default)]
        searches: String,
        #[serde(default)]
        options: String,
    }
    let entry: Entry =
        json(text, r#"{"nameservers":"10.0.0.2","searches":"example.com","options":"ndots:2"}"#)?;
    let words = |text: &str| -> Vec<String> {
        text.split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect()
    };
    let mut nameservers =
        words(&entry.nameservers).iter().map(|ip| address(ip)).collect::<Result<Vec<_>, _>>()?;
    let more = nameservers.len() > ECI_NAMESERVERS;
    nameservers.truncate(ECI_NAMESERVERS);
    let options = words(&entry.options).iter().map(|word| option(word)).collect();
    Ok((Dns { nameservers, searches: words(&entry.searches), options }.checked()?, more))
}

/// The text of a `resolv.conf`.
pub fn resolv_conf(text: &str) -> Result<Dns, String> {
    let mut dns = Dns::default();
    for line in text.lines() {
        let line = line.split(['#', ';']).next().unwrap_or_default();
        let mut words = line.split_ascii_whitespace();
        match words.next() {
            None => {}
            Some("nameserver") => dns.nameservers.push(address(words.next().unwrap_or_default())?),
            Some("search" | "domain") => dns.searches = words.map(str::to_owned).collect(),
            Some("options") => dns.options.extend(words.map(option)),
            Some(other) => {
                return Err(format!(
                    "{:?} begins no line of a resolv.conf: write nameserver, search or options",
                    short(other)
                ));
            }
        }
    }
    if dns == Dns::default() {
        return Err("it names no server: write for example nameserver 10.0.0.2".to_owned());
    }
    dns.checked()
}

fn option(word: &str) -> DnsOption {
    match word.split_once(':') {
        Some((name, value)) => DnsOption { name: name.to_owned(), value: Some(value.to_owned()) },
        None => DnsOption { name: word.to_owned(), value: None },
    }
}

fn address(text: &str) -> Result<IpAddr, String> {
    text.trim().parse().map_err(|_| format!("{:?} is no IP address", short(text)))
}

fn bounded(what: &str, n: usize, most: usize) -> Result<(), String> {
    if n > most { Err(format!("{n} {what}; at most {most}")) } else { Ok(()) }
}

fn json<T: serde::de::DeserializeOwned>(text: &str, example: &str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|e| {
        let why = short(&e.to_string());
        format!("it is not the JSON that is wanted ({why}): write for example {example}")
    })
}

fn short(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(80).collect()
}

/// RFC 1123, as Kubernetes checks them.
fn is_name(text: &str) -> bool {
    let label = |label: &str| {
        let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        (1..=63).contains(&label.len())
            && label.bytes().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_spellings_of_one_dns_setting_mean_the_same() {
        let pod = pod_dns(
            r#"{"nameservers":["1.1.1.1"],"options":[{"name":"ndots","value":"2"},{"name":"edns0"}],"searches":["test1.com"]}"#,
        );
        let eci = eci_dns(r#"{"nameservers":"1.1.1.1","searches":"test1.com","options":"ndots:2, edns0"}"#);
        let file = resolv_conf("# ours\nnameserver 1.1.1.1\nsearch test1.com\noptions ndots:2 edns0\n");
        let pod = pod.unwrap();
        assert_eq!(eci.unwrap(), (pod.clone(), false));
        assert_eq!(file.unwrap(), pod);
        assert_eq!(resolv_conf(&pod.to_resolv_conf()).unwrap(), pod);
        assert_eq!((pod.number("ndots"), pod.number("timeout")), (Some(2), None));
    }

    #[test]
    fn two_spellings_of_host_aliases_mean_the_same() {
        let pod = pod_aliases(r#"[{"ip":"1.2.3.4","hostnames":["www.privaterepo1.com"]}]"#).unwrap();
        assert_eq!(eci_aliases(r#"[{"host":"www.privaterepo1.com","ip":"1.2.3.4"}]"#).unwrap(), pod);
        let lookup = Lookup { hosts: pod, hosts_overridden: true, ..Lookup::default() };
        assert_eq!(lookup.aliases("WWW.privaterepo1.com"), ["1.2.3.4".parse::<IpAddr>().unwrap()]);
        assert!(lookup.overrides(&"www.privaterepo1.com:5000".parse().unwrap()));
        assert!(!lookup.overrides(&"other.com".parse().unwrap()));
        assert!(
            !Lookup { hosts_overridden: false, ..lookup }.overrides(&"www.privaterepo1.com".parse().unwrap())
        );
    }

    #[test]
    fn a_name_server_of_the_cache_overrides_every_name_and_no_address() {
        let dns = Some(resolv_conf("nameserver 10.0.0.2").unwrap());
        let lookup = Lookup { dns, dns_overridden: true, ..Lookup::default() };
        assert!(lookup.overrides(&"docker.io".parse().unwrap()));
        assert!(!lookup.overrides(&"10.0.0.5:5000".parse().unwrap()));
    }

    #[test]
    fn what_is_wrong_is_named_shortly() {
        let bomb = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
        let many = format!("[{}]", vec![r#"{"ip":"1.2.3.4","hostnames":["a"]}"#; 101].join(","));
        for (error, says) in [
            (pod_aliases("x").unwrap_err(), "write for example"),
            (pod_aliases(&bomb).unwrap_err(), "JSON"),
            (pod_aliases(&many).unwrap_err(), "at most 100"),
            (pod_aliases(r#"[{"ip":"1.2.3","hostnames":["a"]}]"#).unwrap_err(), "\"1.2.3\" is no IP address"),
            (pod_aliases(r#"[{"ip":"1.2.3.4","hostnames":["a_b\u0007"]}]"#).unwrap_err(), "is no host name"),
            (pod_aliases(r#"[{"ip":"1.2.3.4","hostnames":[]}]"#).unwrap_err(), "no host names"),
            (pod_dns(&bomb).unwrap_err(), "JSON"),
            (
                pod_dns(r#"{"nameservers":["1.1.1.1","1.1.1.2","1.1.1.3","1.1.1.4"]}"#).unwrap_err(),
                "at most 3",
            ),
            (pod_dns(r#"{"nameservers":["0.0.0.0"]}"#).unwrap_err(), "cannot be"),
            (pod_dns(r#"{"servers":[]}"#).unwrap_err(), "unknown field"),
            (eci_dns(r#"{"options":"a b"}"#).unwrap_err(), "no option"),
            (resolv_conf("server 1.1.1.1").unwrap_err(), "begins no line"),
            (resolv_conf("").unwrap_err(), "no server"),
        ] {
            assert!(error.contains(says) && error.len() < 300, "{error}");
        }
        assert!(eci_dns(r#"{"nameservers":"1.1.1.1,1.1.1.2,1.1.1.3"}"#).unwrap().1, "only two are used");
    }
}
