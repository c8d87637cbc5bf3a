//! What a person can do about a failure, in the words of the platform that the object is written for. Pure.
//! The keys are those of Alibaba Cloud ECI, Kingsoft KCI and Tencent TKE, so that advice can be pasted.

use super::{class::Class, reference::RegistryHost, request::Dialect};

/// One sentence to follow the failure's own; `None` where only waiting helps.
pub fn advice(class: Class, host: Option<&RegistryHost>, dialect: Dialect) -> Option<String> {
    let host = host.map_or("host:port", RegistryHost::as_str);
    let text = match class {
        Class::PlainHttp => format!("the registry speaks plain HTTP: {}", plain_http(host, dialect)),
        Class::Certificate => format!(
            "if the registry's certificate is self-signed, add its CA to the operator, or skip the check: {}",
            skip_verify(host, dialect)
        ),
        Class::Auth => format!(
            "the network is fine; check that the repository exists and that a pull secret for {host} may read it: {}",
            pull_secret(dialect)
        ),
        Class::NotFound => {
            "check the repository and the tag: the registry answers, it does not have them".into()
        }
        Class::Network | Class::Timeout => format!(
            "check whether {host} is a public or a private address, and give the pull a way to it: {}",
            way_out(dialect)
        ),
        Class::Dns => format!("check the name {host}, or let the pull resolve it: {}", names(host, dialect)),
        Class::RateLimited => {
            format!("the registry counts requests: {}, which raises its limit, or wait", pull_secret(dialect))
        }
        Class::SizeExceeded => match dialect {
            Dialect::Eci => {
                "raise spec.imageCacheSize or the annotation k8s.aliyun.com/imc-size (GiB)".into()
            }
            Dialect::Kci | Dialect::Tke => "raise spec.imageCacheSize (GiB)".into(),
            Dialect::ByHand => "raise spec.imageCacheSize in the manifest (GiB)".into(),
        },
        Class::NoSpace => match dialect {
            Dialect::ByHand => "free space on the volume, or take a larger one".into(),
            _ => "enlarge the store's volume or delete image caches that are no longer needed".into(),
        },
        Class::BadContent => format!(
            "push the image to {host} again, and look for a proxy in between that changes what it passes on"
        ),
        Class::Unsupported => "build and push the image again with a current tool".into(),
        Class::SignatureInvalid => "sign the image again, or correct the policy for its registry".into(),
        Class::SecretMissing => {
            format!("create the pull secret or correct its name: {}", pull_secret(dialect))
        }
        Class::Scheduling => match dialect {
            Dialect::Eci => "look at the events of the pull pod; where a zone has no stock (NoStock), name vSwitches of \
                several zones: annotation k8s.aliyun.com/vswitch-ids: \"vsw-...,vsw-...\""
                .into(),
            Dialect::Kci => "look at the events of the pull pod; where a subnet has no room, name another one: \
                annotation k8s.ksyun.com/kci-subnet-id"
                .into(),
            Dialect::Tke => "look at the events of the pull pod; where a subnet has no room, name another one: \
                annotation eks.tke.cloud.tencent.com/subnet-id"
                .into(),
            Dialect::ByHand => "look at the events of the pull pod: resources, taints, volume topology".into(),
        },
        Class::Snapshot => "look at the VolumeSnapshot and its events; the cluster's snapshot class, driver and quota decide".into(),
        Class::Quota => match dialect {
            Dialect::ByHand => "raise the disk quota of this user, or free what counts against it".into(),
            _ => "raise the quota that is named, of the operator's namespace, of the cloud account or of the store's \
                  volume, or wait until other pulls end"
                .into(),
        },
        Class::WorkerImage => "check the image and the pull secrets of the operator's own deployment".into(),
        Class::OutOfMemory => "raise the memory limit of the pull pods in the operator's settings".into(),
        Class::ServerError | Class::Evicted | Class::Unknown | Class::InvalidSpec => return None,
    };
    Some(text)
}

fn plain_http(host: &str, dialect: Dialect) -> String {
    match dialect {
        Dialect::Eci => format!("add annotation k8s.aliyun.com/plain-http-registry: {host}"),
        Dialect::Kci => format!("add annotation k8s.ksyun.com/kci-http-registry: {host}"),
        Dialect::Tke => format!("add annotation eks.tke.cloud.tencent.com/registry-http-endpoint: {host}"),
        Dialect::ByHand => format!("add --plain-http {host}"),
    }
}

fn skip_verify(host: &str, dialect: Dialect) -> String {
    match dialect {
        Dialect::Eci => format!("add annotation k8s.aliyun.com/insecure-registry: {host}"),
        Dialect::Kci => format!("add annotation k8s.ksyun.com/kci-insecure-registry: {host}"),
        Dialect::Tke => {
            format!("add annotation eks.tke.cloud.tencent.com/registry-insecure-skip-verify: {host}")
        }
        Dialect::ByHand => format!("add --insecure {host}"),
    }
}

fn pull_secret(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::ByHand => "give a Docker or Podman configuration file with --authfile",
        _ => "name it in spec.imagePullSecrets as namespace:name",
    }
}

fn way_out(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Eci => {
            "annotation k8s.aliyun.com/auto-create-eip: \"true\", a NAT gateway, or a private link with its DNS"
        }
        Dialect::Kci => "an elastic IP, a NAT gateway, or a private link with its DNS",
        Dialect::Tke => {
            "annotation eks.tke.cloud.tencent.com/eip-attributes, a NAT gateway, or a private link with its DNS"
        }
        Dialect::ByHand => "a route, a firewall rule, the right port",
    }
}

fn names(host: &str, dialect: Dialect) -> String {
    let name = host.split(':').next().unwrap_or_default();
    match dialect {
        Dialect::Kci => format!(
            "annotation k8s.ksyun.com/kci-host-aliases: '[{{\"ip\":\"10.0.0.5\",\"hostnames\":[\"{name}\"]}}]', or \
             k8s.ksyun.com/kci-dns-config"
        ),
        Dialect::Tke => "annotation eks.tke.cloud.tencent.com/resolv-conf: \"nameserver 10.0.0.2\"".into(),
        Dialect::Eci => format!(
            "annotation k8s.aliyun.com/eci-custom-hosts: '[{{\"host\":\"{name}\",\"ip\":\"10.0.0.5\"}}]', or \
             k8s.aliyun.com/eci-custom-dnsconfig"
        ),
        Dialect::ByHand => "/etc/hosts or the resolver of this machine".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_names_the_host_and_the_key_of_the_users_platform() {
        let host: RegistryHost = "harbor.example.com:5000".parse().unwrap();
        for (class, dialect, words) in [
            (Class::PlainHttp, Dialect::Eci, "k8s.aliyun.com/plain-http-registry: harbor.example.com:5000"),
            (Class::PlainHttp, Dialect::Kci, "k8s.ksyun.com/kci-http-registry: harbor.example.com:5000"),
            (Class::PlainHttp, Dialect::Tke, "eks.tke.cloud.tencent.com/registry-http-endpoint: harbor.e"),
            (Class::PlainHttp, Dialect::ByHand, "--plain-http harbor.example.com:5000"),
            (Class::Certificate, Dialect::Eci, "k8s.aliyun.com/insecure-registry: harbor.example.com:5000"),
            (Class::Certificate, Dialect::Tke, "registry-insecure-skip-verify: harbor.example.com:5000"),
            (Class::Auth, Dialect::Eci, "spec.imagePullSecrets"),
            (Class::Auth, Dialect::ByHand, "--authfile"),
            (Class::SizeExceeded, Dialect::Eci, "imc-size"),
            (Class::Dns, Dialect::Eci, "k8s.aliyun.com/eci-custom-hosts: '[{\"host\":\"harbor.example.com\""),
            (Class::Dns, Dialect::Kci, "k8s.ksyun.com/kci-host-aliases"),
            (Class::Dns, Dialect::Tke, "eks.tke.cloud.tencent.com/resolv-conf"),
            (Class::Scheduling, Dialect::Eci, "k8s.aliyun.com/vswitch-ids"),
            (Class::Network, Dialect::Tke, "eks.tke.cloud.tencent.com/eip-attributes"),
        ] {
            let text = advice(class, Some(&host), dialect).unwrap();
            assert!(text.contains(words), "{text}");
        }
    }

    #[test]
    fn every_class_has_advice_or_passes_by_itself() {
        let silent = [Class::ServerError, Class::Evicted, Class::Unknown, Class::InvalidSpec];
        for class in Class::ALL {
            for dialect in [Dialect::Eci, Dialect::Kci, Dialect::Tke, Dialect::ByHand] {
                let text = advice(*class, None, dialect);
                assert_eq!(text.is_none(), silent.contains(class), "{class}");
                assert!(text.is_none_or(|t| t.len() < 250 && !t.ends_with('.')), "{class}");
            }
        }
    }
}
