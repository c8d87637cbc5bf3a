//! The chain: the operator's identity, the roles assumed one from the other, the instance that a host belongs to,
//! and its login. Each session is cut down to what comes after it, so that a login can pull and nothing else.
//! Sources: STS `AssumeRoleWithOIDC`, `AssumeRole`; ACR `GetAuthorizationToken`, `ListInstanceEndpoint`,
//! `ListInstance` (2018-12-01), `GET /tokens` (2016-06-07).

use std::{collections::HashMap, fmt, time::Duration};

use jiff::Timestamp;
use tokio::time::timeout;

use super::{
    answer::{self, Login},
    call::{Caller, Operation},
    endpoints::Endpoints,
    identity::{Identity, secret_file},
    sign::Keys,
};
use crate::model::{
    acr::{InstanceId, Logins, Region, Registry, RoleArn},
    class::Class,
    failure::Failure,
    reference::RegistryHost,
};

/// All calls for one object.
const WHOLE: Duration = Duration::from_mins(1);
const STS: &str = "2015-04-01";
const ENTERPRISE: &str = "2018-12-01";
const PERSONAL: &str = "2016-06-07";
/// The longest session of a role that is assumed from another one.
const SESSION_SECONDS: &str = "3600";
/// In the vendor's audit log.
const SESSION_NAME: &str = "imagecache";

pub struct Acr {
    caller: Caller,
    identity: Identity,
    endpoints: Endpoints,
}

/// Logins as the worker reads them.
#[derive(Clone)]
pub struct Taken {
    /// A docker configuration; absent if no host turned out to be ACR's.
    pub docker_config: Option<Vec<u8>>,
    /// When the first of them ends.
    pub expires: Option<Timestamp>,
}

impl fmt::Debug for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Taken(.., expires {:?})", self.expires)
    }
}

impl Acr {
    pub fn new(identity: Identity, endpoints: Endpoints) -> Result<Self, Failure> {
        Ok(Self { caller: Caller::new()?, identity, endpoints })
    }

    /// All or nothing: with one login missing, a private image would be reported as not there.
    pub async fn logins(&self, wanted: &Logins) -> Result<Taken, Failure> {
        let all = timeout(WHOLE, self.ask(wanted)).await;
        let slow = || Failure::new(Class::Timeout, format!("no answer within {} s", WHOLE.as_secs()));
        all.unwrap_or_else(|_| Err(slow())).map_err(|failure| failure.of("password-free login to ACR"))
    }

    async fn ask(&self, wanted: &Logins) -> Result<Taken, Failure> {
        let keys = self.session(&wanted.roles).await?;
        let mut domains: HashMap<(Region, InstanceId), Vec<String>> = HashMap::new();
        let mut known: HashMap<Registry, Login> = HashMap::new();
        let mut entries = serde_json::Map::new();
        let mut expires: Option<Timestamp> = None;
        for (host, registry) in &wanted.hosts {
            let registry = match registry {
                Registry::OneOf(all) => match self.owner(host, all, &keys, &mut domains).await? {
                    Some((region, id)) => Registry::Enterprise(region, id),
                    None => continue,
                },
                Registry::Named(region, name) => {
                    Registry::Enterprise(region.clone(), self.named(region, name, &keys).await?)
                }
                other => other.clone(),
            };
            let login = match known.get(&registry) {
                Some(login) => login.clone(),
                None => self.login(&registry, &keys).await.map_err(|failure| failure.of(host))?,
            };
            expires = Some(expires.map_or(login.expires, |first| first.min(login.expires)));
            let Login { user, password, .. } = &login;
            entries.insert(host.to_string(), serde_json::json!({ "username": user, "password": password }));
            known.insert(registry, login);
        }
        let config = serde_json::json!({ "auths": entries });
        let docker_config = expires.map(|_| config.to_string().into_bytes());
        Ok(Taken { docker_config, expires })
    }

    async fn session(&self, roles: &[RoleArn]) -> Result<Keys, Failure> {
        // A role that is the operator's own needs no step.
        let (mut keys, mut rest) = match &self.identity {
            Identity::Rrsa { role, provider, token_file } => {
                let rest = roles.strip_prefix(std::slice::from_ref(role)).unwrap_or(roles);
                (self.exchange(role, provider, &secret_file(token_file).await?, rest).await?, rest)
            }
            other => (other.keys().await?, roles),
        };
        while let Some((role, after)) = rest.split_first() {
            let policy = policy(after);
            let params = [
                ("RoleArn", role.as_str()),
                ("RoleSessionName", SESSION_NAME),
                ("DurationSeconds", SESSION_SECONDS),
                ("Policy", &policy),
            ];
            let assumed = self.caller.rpc(self.sts("AssumeRole", &params), Some(&keys)).await;
            keys = assumed.and_then(|body| answer::keys(&body)).map_err(|failure| failure.of(role))?;
            rest = after;
        }
        Ok(keys)
    }

    async fn exchange(
        &self,
        role: &RoleArn,
        provider: &str,
        token: &str,
        rest: &[RoleArn],
    ) -> Result<Keys, Failure> {
        let policy = policy(rest);
        let params = [
            ("RoleArn", role.as_str()),
            ("OIDCProviderArn", provider),
            ("OIDCToken", token),
            ("RoleSessionName", SESSION_NAME),
            ("DurationSeconds", SESSION_SECONDS),
            ("Policy", &policy),
        ];
        let exchanged = self.caller.rpc(self.sts("AssumeRoleWithOIDC", &params), None).await;
        exchanged.and_then(|body| answer::keys(&body)).map_err(|failure| failure.of(role))
    }

    fn sts<'a>(&self, name: &'static str, params: &'a [(&'static str, &'a str)]) -> Operation<'a> {
        Operation { endpoint: self.endpoints.sts(), name, version: STS, params }
    }

    /// Which of the instances has this host among its domains. A login goes to nobody whose domain ACR does not
    /// vouch for: anybody could write a host of his own beside an instance of somebody else's.
    async fn owner(
        &self,
        host: &RegistryHost,
        all: &[(Region, InstanceId)],
        keys: &Keys,
        known: &mut HashMap<(Region, InstanceId), Vec<String>>,
    ) -> Result<Option<(Region, InstanceId)>, Failure> {
        for instance in all {
            if !known.contains_key(instance) {
                let (region, id) = instance;
                let params = [("InstanceId", id.as_str()), ("ModuleName", "Registry")];
                let body = self
                    .caller
                    .rpc(self.enterprise("ListInstanceEndpoint", region, &params), Some(keys))
                    .await;
                let found = body.and_then(|body| answer::domains(&body)).map_err(|failure| failure.of(id))?;
                known.insert(instance.clone(), found);
            }
            if known[instance].iter().any(|domain| domain == host.as_str()) {
                return Ok(Some(instance.clone()));
            }
        }
        Ok(None)
    }

    async fn named(&self, region: &Region, name: &str, keys: &Keys) -> Result<InstanceId, Failure> {
        let params = [("InstanceName", name)];
        let body = self.caller.rpc(self.enterprise("ListInstance", region, &params), Some(keys)).await?;
        let id = answer::instance_named(&body, name)?.ok_or_else(|| {
            let message = format!("{region} has no ACR instance {name} that this role may see");
            Failure::new(Class::InvalidSpec, message)
        })?;
        id.parse().map_err(|why: String| Failure::new(Class::ServerError, why))
    }

    async fn login(&self, registry: &Registry, keys: &Keys) -> Result<Login, Failure> {
        match registry {
            Registry::Enterprise(region, id) => {
                let params = [("InstanceId", id.as_str())];
                let operation = self.enterprise("GetAuthorizationToken", region, &params);
                let body = self.caller.rpc(operation, Some(keys)).await;
                body.and_then(|body| answer::enterprise_login(&body)).map_err(|failure| failure.of(id))
            }
            Registry::Personal(region) => {
                let endpoint = self.endpoints.acr(region);
                let name = "GetAuthorizationToken";
                let operation = Operation { endpoint, name, version: PERSONAL, params: &[] };
                answer::personal_login(&self.caller.roa(operation, "/tokens", keys).await?)
            }
            Registry::OneOf(_) | Registry::Named(..) => {
                Err(Failure::new(Class::Unknown, "the instance is not known"))
            }
        }
    }

    fn enterprise<'a>(
        &self,
        name: &'static str,
        region: &Region,
        params: &'a [(&'static str, &'a str)],
    ) -> Operation<'a> {
        Operation { endpoint: self.endpoints.acr(region), name, version: ENTERPRISE, params }
    }
}

/// What a session may do at most: assume the next role, or, at the end, look and pull. Where the role itself may do
/// less, less counts.
fn policy(rest: &[RoleArn]) -> String {
    let statement = match rest.first() {
        // A policy names a role with the wildcard of regions that its ARN leaves out.
        Some(next) => serde_json::json!({
            "Effect": "Allow", "Action": "sts:AssumeRole",
            "Resource": next.as_str().replacen("acs:ram::", "acs:ram:*:", 1),
        }),
        None => serde_json::json!({
            "Effect": "Allow", "Action": ["cr:Get*", "cr:List*", "cr:Pull*"], "Resource": "*",
        }),
    };
    serde_json::json!({"Version": "1", "Statement": [statement]}).to_string()
}
