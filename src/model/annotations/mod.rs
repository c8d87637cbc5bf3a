//! Annotations read by the table: typed settings, everything that is wrong at once, and a notice for each key that
//! has no effect here.
//!
//! | file | answers for |
//! |---|---|
//! | [`table`] | the keys |
//! | [`form`] | how values are written |
//! | [`effect`] | what a key does, on each platform |
//! | [`pages`] | where the clouds say so |
//! | `misspelt` | keys that are none |

pub mod effect;
pub mod form;
mod misspelt;
pub mod pages;
pub mod table;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt};

use self::{
    effect::Effect,
    form::Value,
    table::{Row, TABLE},
};
use super::{
    acr,
    judge::Invalid,
    lookup::{Dns, HostAlias},
    reference::RegistryHost,
    request::Dialect,
};

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
    pub subnets: Option<Set<Vec<String>>>,
    pub security_groups: Option<Set<Vec<String>>>,
    pub resource_groups: Option<Set<Vec<String>>>,
    pub existing_eips: Option<Set<Vec<String>>>,
    /// `true`, or TKE's object of properties.
    pub new_eip: Option<Set<String>>,
    pub new_eip_details: Vec<Set<String>>,
    pub hosts: Option<Set<Vec<HostAlias>>>,
    pub dns: Option<Set<Dns>>,
    /// Settings of the pod itself.
    pub pod: Vec<Set<String>>,
    /// Password-free pulls.
    pub acr: acr::Asked,
    /// The vocabulary the object uses, if it uses one.
    pub dialect: Option<Dialect>,
    pub notices: Vec<String>,
    pub invalid: Vec<Invalid>,
}

/// A value, the key that set it and where that key stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set<T> {
    pub value: T,
    pub key: &'static str,
    pub dialect: Dialect,
    pub origin: Origin,
}

/// Who says so. All but the object are the operator's word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Origin {
    #[default]
    Object,
    EciProfile,
    EksConfig,
    Operator,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Object => "the object",
            Self::EciProfile => "ConfigMap kube-system/eci-profile",
            Self::EksConfig => "ConfigMap kube-system/eks-config",
            Self::Operator => "the operator",
        })
    }
}

/// The key that names a registry, and where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named {
    pub key: &'static str,
    pub origin: Origin,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts {
    pub named: BTreeMap<RegistryHost, Named>,
    /// Who says `all`.
    pub all: Option<Named>,
}

impl Hosts {
    pub fn covers(&self, host: &RegistryHost) -> bool {
        self.all.is_some() || self.named.contains_key(host)
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_none() && self.named.is_empty()
    }
}

/// Reads all annotations of an object. Order of the table, so that messages come in a stable order.
pub fn read(annotations: &BTreeMap<String, String>) -> Annotations {
    let mut seen = read_from(annotations, Origin::Object);
    seen.notices.extend(misspelt::notices(annotations));
    seen
}

/// The same for a set of defaults.
pub fn read_from(annotations: &BTreeMap<String, String>, origin: Origin) -> Annotations {
    let mut seen = Annotations::default();
    for row in TABLE {
        let Some(text) = annotations.get(row.key).map(|text| text.trim()) else { continue };
        seen.dialect.get_or_insert(row.dialect);
        if text.is_empty() && !row.form.takes_nothing() {
            continue;
        }
        match row.form.read(text) {
            Ok(value) => seen.take(row, value, origin),
            Err(message) => seen.invalid.push(Invalid { field: row.key.to_owned(), message }),
        }
    }
    seen.one_way_out();
    seen
}

impl Annotations {
    fn take(&mut self, row: &Row, value: Value, origin: Origin) {
        let Self { notices, .. } = self;
        if let Value::List(ids) = &value
            && let Some(masked) = ids.iter().find(|id| id.contains('*'))
        {
            notices.push(format!(
                "{}: {masked} is masked, as in the cloud's documentation: write the whole id",
                row.key
            ));
        }
        match (row.effect, value) {
            (Effect::PlainHttp, Value::Hosts { named, all }) => {
                hosts(row, named, all, origin, &mut self.plain_http);
            }
            (Effect::SkipVerify, Value::Hosts { named, all }) => {
                hosts(row, named, all, origin, &mut self.skip_verify);
            }
            (Effect::Size, Value::Number(n)) => set(&mut self.size_gib, row, n, origin, notices),
            (Effect::Retention, Value::Number(n)) => set(&mut self.retention_days, row, n, origin, notices),
            (Effect::Reuse, Value::Flag(on)) => set(&mut self.reuse, row, on, origin, notices),
            (Effect::Flash, Value::Flag(on)) => set(&mut self.flash, row, on, origin, notices),
            (Effect::Architecture, Value::Text(w)) => set(&mut self.architecture, row, w, origin, notices),
            (Effect::Os, Value::Text(w)) => set(&mut self.os, row, w, origin, notices),
            (Effect::Subnets, Value::List(ids)) => set(&mut self.subnets, row, ids, origin, notices),
            (Effect::SecurityGroups, Value::List(ids)) => {
                set(&mut self.security_groups, row, ids, origin, notices);
            }
            (Effect::ResourceGroup, Value::List(ids)) => {
                set(&mut self.resource_groups, row, ids, origin, notices);
            }
            (Effect::ExistingEip, Value::List(ids)) => {
                set(&mut self.existing_eips, row, ids, origin, notices);
            }
            (Effect::NewEip, Value::Flag(false)) => {}
            (Effect::NewEip, Value::Flag(true)) => {
                set(&mut self.new_eip, row, "true".to_owned(), origin, notices);
            }
            (Effect::NewEipObject, Value::Text(text)) => set(&mut self.new_eip, row, text, origin, notices),
            (Effect::Hosts, Value::Aliases(all)) => set(&mut self.hosts, row, all, origin, notices),
            (Effect::Dns, Value::Dns(dns, more)) => {
                if more {
                    notices.push(format!("{}: two name servers are used, more are left out", row.key));
                }
                set(&mut self.dns, row, dns, origin, notices);
            }
            (Effect::AcrInstances, Value::Instances(all)) => self.acr.set_instances(row.key, all),
            (Effect::AcrServiceRole, Value::Role(role)) => self.acr.set_service(row.key, role),
            (Effect::AcrUserRole, Value::Role(role)) => self.acr.set_user(row.key, role),
            (Effect::None(why), value) => {
                if value != Value::Flag(false) {
                    notices.push(format!("{}: it asks for {}; {why}", row.key, row.meaning));
                }
            }
            (effect, value) => {
                let details = effect == Effect::NewEipDetail;
                let value = match value {
                    Value::Number(n) => n.to_string(),
                    Value::Flag(on) => on.to_string(),
                    Value::List(ids) => ids.join(","),
                    Value::Text(text) => text,
                    _ => return,
                };
                let all = if details { &mut self.new_eip_details } else { &mut self.pod };
                all.push(Set { value, key: row.key, dialect: row.dialect, origin });
            }
        }
    }

    /// An existing address and a new one exclude each other; properties of a new one need a new one.
    fn one_way_out(&mut self) {
        if let (Some(existing), Some(new)) = (&self.existing_eips, &self.new_eip) {
            let message =
                format!("it asks for an existing EIP, and {} for a new one: remove one of the two", new.key);
            self.invalid.push(Invalid { field: existing.key.to_owned(), message });
        }
        if self.new_eip.is_none() && !self.new_eip_details.is_empty() {
            let keys: Vec<&str> = self.new_eip_details.iter().map(|set| set.key).collect();
            self.notices.push(format!(
                "{}: it belongs to a new EIP, and none is asked for, so it has no effect",
                keys.join(", ")
            ));
            self.new_eip_details.clear();
        }
    }

    /// What is not said is taken from these: the object is asked before. A login is no default: it is lent to who asks,
    /// since that is whom the admission policy looks at.
    pub fn or(&mut self, defaults: &Self) {
        if self.plain_http.is_empty() {
            self.plain_http = defaults.plain_http.clone();
        }
        if self.skip_verify.is_empty() {
            self.skip_verify = defaults.skip_verify.clone();
        }
        self.subnets = self.subnets.take().or_else(|| defaults.subnets.clone());
        self.security_groups = self.security_groups.take().or_else(|| defaults.security_groups.clone());
        self.resource_groups = self.resource_groups.take().or_else(|| defaults.resource_groups.clone());
        if self.existing_eips.is_none() && self.new_eip.is_none() {
            self.existing_eips.clone_from(&defaults.existing_eips);
            self.new_eip.clone_from(&defaults.new_eip);
            self.new_eip_details.clone_from(&defaults.new_eip_details);
        }
        self.hosts = self.hosts.take().or_else(|| defaults.hosts.clone());
        self.dns = self.dns.take().or_else(|| defaults.dns.clone());
        let own: Vec<&str> = self.pod.iter().map(|set| set.key).collect();
        let more: Vec<_> = defaults.pod.iter().filter(|set| !own.contains(&set.key)).cloned().collect();
        self.pod.extend(more);
    }
}

/// The earlier row of the table wins.
fn set<T: PartialEq>(
    slot: &mut Option<Set<T>>,
    row: &Row,
    value: T,
    origin: Origin,
    notices: &mut Vec<String>,
) {
    match slot {
        None => *slot = Some(Set { value, key: row.key, dialect: row.dialect, origin }),
        Some(earlier) if earlier.value != value => {
            notices.push(format!("{}: {} says otherwise and wins", row.key, earlier.key));
        }
        Some(_) => {}
    }
}

fn hosts(row: &Row, named: Vec<RegistryHost>, all: bool, origin: Origin, into: &mut Hosts) {
    let who = Named { key: row.key, origin };
    for host in named {
        into.named.entry(host).or_insert(who);
    }
    if all {
        into.all = Some(who);
    }
}

/// What the object says of the pull pod's place: an edit of it ends a pull that is at work or failed, and no other.
pub fn placement(annotations: &BTreeMap<String, String>) -> String {
    let rows = TABLE.iter().filter(|row| row.effect.is_placement());
    let said = rows.filter_map(|row| Some(format!("{}={}", row.key, annotations.get(row.key)?.trim())));
    said.collect::<Vec<_>>().join("\n")
}
