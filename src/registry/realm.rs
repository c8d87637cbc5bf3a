//! Which token service may see a credential. Pure.
//! A registry names its token service in the challenge; a hostile or broken one could name anybody's.

use url::Url;

use crate::model::reference::RegistryHost;

/// Host names below these are rented out to anybody, so they vouch for nothing in common.
const SHARED: &[&str] = &["aliyuncs.com"];

/// Whether credentials of `registry` may go to `realm`. `allowed` are the operator's pairs (registry, realm host).
pub(crate) fn may_see_credentials(
    registry: &RegistryHost,
    realm: &Url,
    allowed: &[(RegistryHost, String)],
) -> bool {
    let Some(realm_host) = realm.host_str().map(str::to_ascii_lowercase) else { return false };
    let registry_host = name_of(registry.network());
    realm_host == registry_host
        || (registry.as_str() == "docker.io" && realm_host == "auth.docker.io")
        || is_acr_pair(&registry_host, &realm_host)
        || same_owner(&registry_host, &realm_host)
        || allowed.iter().any(|(r, host)| r == registry && is_named(realm, &realm_host, host))
}

/// The operator writes `host` or `host:port`.
fn is_named(realm: &Url, realm_host: &str, written: &str) -> bool {
    let written = written.to_ascii_lowercase();
    written == realm_host
        || realm.port_or_known_default().is_some_and(|port| written == format!("{realm_host}:{port}"))
}

fn name_of(host_and_port: &str) -> String {
    let host = match host_and_port.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => host_and_port,
    };
    host.to_ascii_lowercase()
}

/// Alibaba Cloud's registries and their token services, within one region:
/// `registry[-vpc].REGION.aliyuncs.com`, `*.REGION.cr.aliyuncs.com`, `*.REGION.personal.cr.aliyuncs.com`, and
/// `dockerauth*.REGION.aliyuncs.com`.
fn is_acr_pair(registry: &str, realm: &str) -> bool {
    let labels = |host: &str| -> Option<Vec<String>> {
        let rest = host.strip_suffix(".aliyuncs.com")?;
        Some(rest.split('.').map(str::to_owned).collect())
    };
    let (Some(registry), Some(realm)) = (labels(registry), labels(realm)) else { return false };
    let registry: Vec<&str> = registry.iter().map(String::as_str).collect();
    let region = match registry[..] {
        [name, region] if name.starts_with("registry") => region,
        [_, region, "cr"] | [_, region, "personal", "cr"] => region,
        _ => return false,
    };
    matches!(&realm[..], [service, at] if at == region && service.starts_with("dockerauth"))
}

/// One registrable domain by the public suffix list. Below a suffix that the list does not know (`corp.internal`)
/// only a host and its subdomain belong together.
fn same_owner(one: &str, other: &str) -> bool {
    let is_address = |host: &str| host.starts_with('[') || host.parse::<std::net::IpAddr>().is_ok();
    if is_address(one) || is_address(other) {
        return false;
    }
    let owner = |host: &str| -> Option<String> {
        let domain = psl::domain(host.as_bytes())?;
        let known = domain.suffix().is_known();
        known.then(|| String::from_utf8_lossy(domain.as_bytes()).into_owned())
    };
    match (owner(one), owner(other)) {
        (Some(a), Some(b)) => a == b && !SHARED.contains(&a.as_str()),
        (None, None) => {
            let below = |child: &str, parent: &str| {
                parent.contains('.') && child.strip_suffix(parent).is_some_and(|rest| rest.ends_with('.'))
            };
            let known = |host: &str| psl::suffix(host.as_bytes()).is_some_and(|s| s.is_known());
            !known(one) && !known(other) && (below(one, other) || below(other, one))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn may(registry: &str, realm: &str) -> bool {
        let allowed = [("mirror.corp.internal:5000".parse().unwrap(), "sso.example.net".to_owned())];
        may_see_credentials(&registry.parse().unwrap(), &realm.parse().unwrap(), &allowed)
    }

    #[test]
    fn credentials_go_to_the_registry_its_domain_and_the_pairs_that_are_known() {
        for (registry, realm) in [
            ("docker.io", "https://auth.docker.io/token"),
            ("harbor.example.com:8443", "https://harbor.example.com/service/token"),
            ("registry.gitlab.com", "https://gitlab.com/jwt/auth"),
            ("10.0.0.5:5000", "http://10.0.0.5:5001/auth"),
            ("registry.cn-hangzhou.aliyuncs.com", "https://dockerauth.cn-hangzhou.aliyuncs.com/auth"),
            (
                "my-registry-vpc.cn-beijing.cr.aliyuncs.com",
                "https://dockerauth-ee-vpc.cn-beijing.aliyuncs.com/auth",
            ),
            (
                "crpi-x1.cn-beijing.personal.cr.aliyuncs.com",
                "https://dockerauth-ee.cn-beijing.aliyuncs.com/auth",
            ),
            ("mirror.corp.internal:5000", "https://sso.example.net/token"),
            ("registry.gitlab.corp.internal", "https://gitlab.corp.internal/jwt/auth"),
        ] {
            assert!(may(registry, realm), "{registry} {realm}");
        }
    }

    #[test]
    fn credentials_go_to_nobody_else() {
        for (registry, realm) in [
            ("harbor.example.com", "https://evil.example.org/token"),
            ("harbor.example.com", "https://harbor.example.com.evil.org/token"),
            ("docker.io", "https://auth.docker.io.evil.org/token"),
            ("a.github.io", "https://b.github.io/token"),
            ("a.co.uk", "https://b.co.uk/token"),
            ("10.0.0.5:5000", "http://10.0.0.6:5000/auth"),
            ("registry.cn-hangzhou.aliyuncs.com", "https://dockerauth.oss-cn-hangzhou.aliyuncs.com/auth"),
            ("registry.cn-hangzhou.aliyuncs.com", "https://dockerauth.cn-beijing.aliyuncs.com/auth"),
            ("registry.cn-hangzhou.aliyuncs.com", "https://mybucket.oss-cn-hangzhou.aliyuncs.com/auth"),
            ("other.corp.internal:5000", "https://sso.example.net/token"),
            ("mirror.corp.internal:5001", "https://sso.example.net/token"),
            ("a.svc.cluster.local", "https://b.svc.cluster.local/token"),
            ("localhost:5000", "https://evil.example.org/token"),
        ] {
            assert!(!may(registry, realm), "{registry} {realm}");
        }
    }
}
