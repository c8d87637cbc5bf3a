//! Password-free pulls from Alibaba Cloud Container Registry (ACR): what an object asks for, which registry an
//! image's host is, and what the operator allows. Pure. A login of the operator's is lent to whoever may write the
//! annotations, so nothing is lent that the operator does not list, and never over a connection that the object
//! weakens.
//! Sources: ECI, "Pull images from a Container Registry instance without using a Secret"; ACR, domain names of the
//! Personal and the Enterprise Edition.

mod names;

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use serde::Serialize;

pub use names::{Instance, InstanceId, Region, RoleArn, RolePattern};

use super::{judge::Invalid, reference::RegistryHost, retry::after};

pub const INSTANCE_IDS: &str = "k8s.aliyun.com/acr-instance-ids";
pub const SERVICE_ARNS: &str = "k8s.aliyun.com/acr-service-arns";
pub const USER_ARNS: &str = "k8s.aliyun.com/acr-user-arns";

const MAX_INSTANCES: usize = 10;

/// Which registry a host is, as far as its name tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Domain {
    /// The Personal Edition, one for each account and region.
    Personal(Region),
    /// A newer instance of the Personal Edition.
    PersonalInstance(Region, InstanceId),
    /// An instance of the Enterprise Edition, by its name.
    Enterprise(Region, String),
    /// It may be the custom domain of an instance.
    Custom,
    /// No instance can have it.
    Foreign,
}

pub fn domain(host: &RegistryHost) -> Domain {
    let host = host.as_str();
    let Some(name) = host.strip_suffix(".aliyuncs.com") else {
        return if host == "docker.io" { Domain::Foreign } else { Domain::Custom };
    };
    let labels: Vec<&str> = name.split('.').collect();
    let found = match labels[..] {
        [first, region] if is_personal(first) => region.parse().ok().map(Domain::Personal),
        [first, region, "personal", "cr"] => {
            let id = first.strip_suffix("-vpc").unwrap_or(first);
            let both = region.parse().ok().zip(id.parse().ok());
            both.filter(|_| id.starts_with("crpi-")).map(|(region, id)| Domain::PersonalInstance(region, id))
        }
        [first, region, "cr"] => {
            let first = first.strip_suffix("-vpc").unwrap_or(first);
            let instance = first.strip_suffix("-registry").filter(|name| !name.is_empty());
            instance
                .zip(region.parse().ok())
                .map(|(name, region)| Domain::Enterprise(region, name.to_owned()))
        }
        _ => None,
    };
    found.unwrap_or(Domain::Foreign)
}

/// `registry[-intl][-vpc][-internal]`
fn is_personal(label: &str) -> bool {
    let Some(mut rest) = label.strip_prefix("registry") else { return false };
    for part in ["-intl", "-vpc", "-internal"] {
        rest = rest.strip_prefix(part).unwrap_or(rest);
    }
    rest.is_empty()
}

/// What the annotations say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    pub instances: Vec<Instance>,
    /// The role that the operator assumes, in its own account.
    pub service: Option<RoleArn>,
    /// The role of the registry's owner, assumed from there.
    pub user: Option<RoleArn>,
    /// The keys that are set.
    pub keys: Vec<&'static str>,
}

impl Asked {
    pub fn set_instances(&mut self, key: &'static str, instances: Vec<Instance>) {
        for instance in instances {
            if !self.instances.contains(&instance) {
                self.instances.push(instance);
            }
        }
        self.keys.push(key);
    }

    pub fn set_service(&mut self, key: &'static str, role: RoleArn) {
        self.service = Some(role);
        self.keys.push(key);
    }

    pub fn set_user(&mut self, key: &'static str, role: RoleArn) {
        self.user = Some(role);
        self.keys.push(key);
    }
}

/// As an annotation writes them.
pub fn instances(text: &str) -> Result<Vec<Instance>, String> {
    let items: Vec<&str> = text.split(',').map(str::trim).filter(|item| !item.is_empty()).collect();
    if items.len() > MAX_INSTANCES {
        return Err(format!("{} instances; write {MAX_INSTANCES} at most", items.len()));
    }
    items.into_iter().map(str::parse).collect()
}

/// As an annotation writes it.
pub fn one_role(text: &str) -> Result<RoleArn, String> {
    if text.contains(',') {
        return Err("several roles: write one, and an ImageCache for each".to_owned());
    }
    text.parse()
}

/// What the operator lends. Absent from the settings: nothing, because it has no identity there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    /// Where instances are that are written without one.
    pub region: Option<Region>,
    pub roles: Vec<RolePattern>,
    /// Those that may be used with the operator's own identity, without a role.
    pub instances: Vec<Instance>,
    /// By hand the identity is the person's own.
    pub everything: bool,
}

impl Allowed {
    fn allows_role(&self, role: &RoleArn) -> bool {
        self.everything || self.roles.iter().any(|pattern| pattern.covers(role))
    }

    fn allows_instance(&self, instance: &Instance) -> bool {
        self.everything || self.instances.iter().any(|allowed| allowed.covers(instance))
    }
}

/// How the logins of one object are got: as whom, and for which hosts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Logins {
    /// Assumed one from the other; none means the operator's own identity.
    pub roles: Vec<RoleArn>,
    pub hosts: BTreeMap<RegistryHost, Registry>,
}

impl Logins {
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }

    /// Hosts whose name does not tell where their token service is, with the regions it may be in.
    pub fn domains(&self) -> BTreeMap<RegistryHost, Vec<String>> {
        let regions = |registry: &Registry| match registry {
            Registry::OneOf(all) => all.iter().map(|(region, _)| region.to_string()).collect(),
            _ => Vec::new(),
        };
        let custom = self.hosts.iter().filter(|(host, _)| domain(host) == Domain::Custom);
        custom.map(|(host, registry)| (host.clone(), regions(registry))).collect()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Registry {
    Personal(Region),
    Enterprise(Region, InstanceId),
    /// The one of these that has the host among its domains, as ACR says; none is fine.
    OneOf(Vec<(Region, InstanceId)>),
    /// The instance of this name, as ACR says.
    Named(Region, String),
}

/// What becomes of the annotations.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Decision {
    pub logins: Logins,
    pub notices: Vec<String>,
    pub invalid: Vec<Invalid>,
}

/// `weakened`: the host is reached without a certificate that is checked.
pub fn decide<'a>(
    asked: &Asked,
    hosts: impl IntoIterator<Item = &'a RegistryHost>,
    weakened: impl Fn(&RegistryHost) -> bool,
    allowed: Option<&Allowed>,
) -> Decision {
    let mut decision = Decision::default();
    if asked.keys.is_empty() {
        return decision;
    }
    let Some(allowed) = allowed else {
        let not_here = |key: &&str| {
            format!(
                "{key}: nothing says who to be at Alibaba Cloud, so it has no effect: the operator needs RRSA or \
                 --acr-access-key-dir, and --allow-acr-roles or --allow-acr-instances; a pull by hand takes \
                 ALIBABA_CLOUD_ACCESS_KEY_ID and ALIBABA_CLOUD_ACCESS_KEY_SECRET"
            )
        };
        decision.notices = asked.keys.iter().map(not_here).collect();
        return decision;
    };
    decision.check(asked, allowed);
    if !decision.invalid.is_empty() {
        return decision;
    }
    decision.logins.roles = asked.service.iter().chain(&asked.user).cloned().collect();
    for host in hosts {
        let Some(registry) = decision.registry(host, asked, allowed) else { continue };
        if weakened(host) {
            decision.notices.push(format!(
                "{host} gets no password-free login: a login of the operator's goes over HTTPS with a certificate that \
                 is checked, and this host is listed as something else"
            ));
            continue;
        }
        decision.logins.hosts.insert(host.clone(), registry);
    }
    if decision.logins.is_empty() && decision.notices.is_empty() && decision.invalid.is_empty() {
        let keys = asked.keys.join(", ");
        decision.notices.push(format!("{keys}: no image comes from an ACR registry that this names"));
    }
    decision
}

impl Decision {
    fn wrong(&mut self, field: &str, message: String) {
        self.invalid.push(Invalid { field: field.to_owned(), message });
    }

    fn check(&mut self, asked: &Asked, allowed: &Allowed) {
        if asked.user.is_some() && asked.service.is_none() {
            self.wrong(
                USER_ARNS,
                format!("this role is assumed from the one of {SERVICE_ARNS}: name that too"),
            );
        }
        for (key, role) in [(SERVICE_ARNS, &asked.service), (USER_ARNS, &asked.user)] {
            if let Some(role) = role.as_ref().filter(|role| !allowed.allows_role(role)) {
                self.wrong(
                    key,
                    format!(
                        "{role} may not be used here: the operator allows it with --allow-acr-roles={role}"
                    ),
                );
            }
        }
        let alone = asked.service.is_none() && asked.user.is_none();
        for instance in asked.instances.iter().filter(|instance| alone && !allowed.allows_instance(instance))
        {
            self.wrong(
                INSTANCE_IDS,
                format!(
                    "{instance} may not be used without a role: name one in {SERVICE_ARNS}, or the operator allows it \
                     with --allow-acr-instances={instance}"
                ),
            );
        }
    }

    fn registry(&mut self, host: &RegistryHost, asked: &Asked, allowed: &Allowed) -> Option<Registry> {
        let by_role = asked.service.is_some();
        match domain(host) {
            Domain::Foreign => None,
            Domain::Personal(region) if by_role => Some(Registry::Personal(region)),
            Domain::Personal(_) => {
                self.notices.push(format!(
                    "{host} gets no password-free login: the Personal Edition has no instance to name, so it needs \
                     a role in {SERVICE_ARNS}"
                ));
                None
            }
            Domain::PersonalInstance(region, id) => {
                let named = Instance { region: Some(region.clone()), id };
                let named = asked.instances.iter().any(|instance| instance.covers(&named));
                (by_role || named).then_some(Registry::Personal(region))
            }
            Domain::Enterprise(region, name) => {
                let here = |instance: &&Instance| instance.region.as_ref().is_none_or(|r| *r == region);
                let ids: Vec<_> =
                    enterprise(asked).filter(here).map(|i| (region.clone(), i.id.clone())).collect();
                match &ids[..] {
                    [(region, id)] => Some(Registry::Enterprise(region.clone(), id.clone())),
                    [] if by_role && asked.instances.is_empty() => Some(Registry::Named(region, name)),
                    [] => None,
                    _ => Some(Registry::OneOf(ids)),
                }
            }
            Domain::Custom => self.custom(asked, allowed),
        }
    }

    /// Any instance may have the host among its domains.
    fn custom(&mut self, asked: &Asked, allowed: &Allowed) -> Option<Registry> {
        let mut all = Vec::new();
        for instance in enterprise(asked) {
            if let Some(region) = instance.region.as_ref().or(allowed.region.as_ref()) {
                all.push((region.clone(), instance.id.clone()));
                continue;
            }
            let unknown = format!(
                "{INSTANCE_IDS}: the region of {instance} is not known, so no custom domain of it gets a login: write \
                 for example cn-hangzhou:{instance}, or the operator says its own with --acr-region"
            );
            if !self.notices.contains(&unknown) {
                self.notices.push(unknown);
            }
        }
        (!all.is_empty()).then_some(Registry::OneOf(all))
    }
}

fn enterprise(asked: &Asked) -> impl Iterator<Item = &Instance> {
    asked.instances.iter().filter(|instance| instance.id.as_str().starts_with("cri-"))
}

/// When a login is taken again: well before its end, because the kubelet needs a minute or two to bring it into the
/// running pod, but not at once if it is short.
pub fn renew_at(now: Timestamp, expires: Timestamp) -> Timestamp {
    const EARLY: Duration = Duration::from_mins(15);
    const SOONEST: Duration = Duration::from_mins(1);
    let life = Duration::try_from(expires.duration_since(now)).unwrap_or_default();
    after(now, life.saturating_sub(EARLY).max(life / 2).max(SOONEST))
}

#[cfg(test)]
mod tests;
