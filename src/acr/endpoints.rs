//! Where STS and ACR are asked. Pure.
//! Sources: STS, "Endpoints"; ACR, "Endpoints"; the variables `ALIBABA_CLOUD_STS_ENDPOINT` and
//! `ALIBABA_CLOUD_VPC_ENDPOINT_ENABLED` of the vendor's credential libraries.

use std::str::FromStr;

use url::Url;

use crate::model::acr::Region;

/// A base address in which `{region}` may stand. HTTPS, or plain HTTP to this very machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(String);

impl FromStr for Template {
    type Err = String;
    /// The vendor's variable holds a host name without a scheme.
    fn from_str(text: &str) -> Result<Self, String> {
        let text = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
        let bad =
            |why: &str| format!("{text:?}: {why}: write for example https://sts.{{region}}.aliyuncs.com");
        let url =
            Url::parse(&text.replace("{region}", "cn-hangzhou")).map_err(|_| bad("it is no address"))?;
        let loopback = match url.host() {
            Some(url::Host::Ipv4(address)) => address.is_loopback(),
            Some(url::Host::Ipv6(address)) => address.is_loopback(),
            _ => false,
        };
        if url.scheme() != "https" && !(url.scheme() == "http" && loopback) {
            return Err(bad("keys and tokens are sent over HTTPS only"));
        }
        if !url.username().is_empty() || url.path() != "/" || url.query().is_some() {
            return Err(bad("only scheme, host and port are used"));
        }
        Ok(Self(text))
    }
}

impl Template {
    fn at(&self, region: &Region) -> String {
        self.0.replace("{region}", region.as_str())
    }
}

#[derive(Clone, Debug, Default)]
pub struct Endpoints {
    pub acr: Option<Template>,
    pub sts: Option<Template>,
    /// The region that the operator runs in.
    pub region: Option<Region>,
    /// It reaches that region's services by their addresses inside VPCs.
    pub vpc: bool,
}

impl Endpoints {
    /// One session works in all regions, so the nearest end point does.
    pub(super) fn sts(&self) -> String {
        match (&self.sts, &self.region) {
            (Some(template), Some(region)) => template.at(region),
            (Some(template), None) => template.0.clone(),
            (None, Some(region)) if self.vpc => format!("https://sts-vpc.{region}.aliyuncs.com"),
            (None, Some(region)) => format!("https://sts.{region}.aliyuncs.com"),
            (None, None) => "https://sts.aliyuncs.com".to_owned(),
        }
    }

    pub(super) fn acr(&self, region: &Region) -> String {
        match &self.acr {
            Some(template) => template.at(region),
            None if self.vpc && self.region.as_ref() == Some(region) => {
                format!("https://cr-vpc.{region}.aliyuncs.com")
            }
            None => format!("https://cr.{region}.aliyuncs.com"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn end_points_have_public_regional_and_vpc_forms() {
        let (here, there): (Region, Region) = ("cn-hangzhou".parse().unwrap(), "cn-beijing".parse().unwrap());
        let none = Endpoints::default();
        assert_eq!(none.sts(), "https://sts.aliyuncs.com");
        assert_eq!(none.acr(&here), "https://cr.cn-hangzhou.aliyuncs.com");
        let vpc = Endpoints { region: Some(here.clone()), vpc: true, ..Endpoints::default() };
        assert_eq!(vpc.sts(), "https://sts-vpc.cn-hangzhou.aliyuncs.com");
        assert_eq!(vpc.acr(&here), "https://cr-vpc.cn-hangzhou.aliyuncs.com");
        assert_eq!(vpc.acr(&there), "https://cr.cn-beijing.aliyuncs.com");
        let own = Endpoints {
            acr: Some("https://acr.{region}.example.com".parse().unwrap()),
            sts: Some("sts.example.com".parse().unwrap()),
            ..vpc
        };
        assert_eq!(own.sts(), "https://sts.example.com");
        assert_eq!(own.acr(&there), "https://acr.cn-beijing.example.com");
    }

    #[test]
    fn keys_leave_the_machine_over_https_only() {
        assert!("http://127.0.0.1:8080".parse::<Template>().is_ok());
        for bad in [
            "http://sts.aliyuncs.com",
            "http://localhost:1",
            "ftp://x.example.com",
            "https://a@b.example.com",
            "https://x.example.com/p",
            "https://",
        ] {
            assert!(bad.parse::<Template>().is_err(), "{bad}");
        }
    }
}
