//! How people say who the operator is at Alibaba Cloud and what it lends.

use std::path::PathBuf;

use clap::{Args, builder::FalseyValueParser};

use super::{
    endpoints::{Endpoints, Template},
    identity::Identity,
};
use crate::model::acr::{Allowed, Instance, Region, RoleArn, RolePattern};

/// For the operator and by hand alike. The variables are those that RRSA injects and the vendor's tools know.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Password-free pulls from Alibaba Cloud Container Registry")]
pub struct AcrArgs {
    /// A folder with the files access-key-id and access-key-secret (a mounted Secret). Without it: RRSA.
    #[arg(long, value_name = "DIR")]
    pub acr_access_key_dir: Option<PathBuf>,
    /// The region this runs in: for instances that are named without one, and the nearest STS.
    #[arg(long, value_name = "REGION", env = "ALIBABA_CLOUD_REGION_ID")]
    pub acr_region: Option<Region>,
    /// Reach STS and ACR of that region by their addresses inside the VPC.
    #[arg(long, env = "ALIBABA_CLOUD_VPC_ENDPOINT_ENABLED", value_parser = FalseyValueParser::new())]
    pub acr_vpc: bool,
    /// Where ACR's API is, instead of `https://cr.{region}.aliyuncs.com`.
    #[arg(long, value_name = "URL")]
    pub acr_endpoint: Option<Template>,
    /// Where STS is, instead of `https://sts.{region}.aliyuncs.com`.
    #[arg(long, value_name = "URL", env = "ALIBABA_CLOUD_STS_ENDPOINT")]
    pub sts_endpoint: Option<Template>,
    #[arg(long, hide = true, env = "ALIBABA_CLOUD_ROLE_ARN")]
    pub rrsa_role_arn: Option<RoleArn>,
    #[arg(long, hide = true, env = "ALIBABA_CLOUD_OIDC_PROVIDER_ARN")]
    pub rrsa_oidc_provider_arn: Option<String>,
    #[arg(long, hide = true, env = "ALIBABA_CLOUD_OIDC_TOKEN_FILE")]
    pub rrsa_oidc_token_file: Option<PathBuf>,
}

impl AcrArgs {
    /// What is said outright comes before what was injected.
    pub fn identity(&self) -> Option<Identity> {
        if let Some(folder) = &self.acr_access_key_dir {
            return Some(Identity::KeyFolder(folder.clone()));
        }
        Some(Identity::Rrsa {
            role: self.rrsa_role_arn.clone()?,
            provider: self.rrsa_oidc_provider_arn.clone()?,
            token_file: self.rrsa_oidc_token_file.clone()?,
        })
    }

    /// By hand the identity is the person's own, so the vendor's variables count too.
    pub fn own_identity(&self) -> Option<Identity> {
        self.identity().or_else(Identity::of_environment)
    }

    pub fn endpoints(&self) -> Endpoints {
        Endpoints {
            acr: self.acr_endpoint.clone(),
            sts: self.sts_endpoint.clone(),
            region: self.acr_region.clone(),
            vpc: self.acr_vpc,
        }
    }
}

/// For the operator, whose identity is lent to those who write `ImageCache` objects.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Password-free pulls from Alibaba Cloud Container Registry")]
pub struct AllowArgs {
    /// A RAM role that annotations may name; `*` stands for any characters of its name. May be given many times.
    #[arg(long, value_name = "ARN", value_delimiter = ',')]
    pub allow_acr_roles: Vec<RolePattern>,
    /// An ACR instance that annotations may name without a role, so that the operator's own identity is used.
    #[arg(long, value_name = "[REGION:]cri-...", value_delimiter = ',')]
    pub allow_acr_instances: Vec<Instance>,
}

impl AllowArgs {
    pub fn is_empty(&self) -> bool {
        self.allow_acr_roles.is_empty() && self.allow_acr_instances.is_empty()
    }

    pub fn allowed(self, region: Option<Region>) -> Allowed {
        let (roles, instances) = (self.allow_acr_roles, self.allow_acr_instances);
        Allowed { region, roles, instances, everything: false }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        acr: AcrArgs,
        #[command(flatten)]
        allow: AllowArgs,
    }

    fn line(args: &[&str]) -> Result<Line, clap::Error> {
        Line::try_parse_from([&["x"], args].concat())
    }

    #[test]
    fn an_identity_is_whole_or_none_and_a_folder_comes_before_what_was_injected() {
        let role = "--rrsa-role-arn=acs:ram::1:role/x";
        assert!(line(&[role]).unwrap().acr.identity().is_none(), "half of RRSA");
        let rrsa = [role, "--rrsa-oidc-provider-arn=acs:ram::1:oidc-provider/y", "--rrsa-oidc-token-file=/t"];
        assert!(matches!(line(&rrsa).unwrap().acr.identity(), Some(Identity::Rrsa { .. })));
        let both = [&rrsa[..], &["--acr-access-key-dir=/k"]].concat();
        assert!(matches!(line(&both).unwrap().acr.identity(), Some(Identity::KeyFolder(_))));
    }

    #[test]
    fn lists_are_read_and_a_pattern_over_accounts_is_not() {
        let allow = line(&[
            "--allow-acr-roles=acs:ram::1:role/a,acs:ram::2:role/b-*",
            "--allow-acr-instances=cn-beijing:cri-12345",
            "--allow-acr-instances=crpi-12345",
        ]);
        let allow = allow.unwrap().allow;
        assert_eq!((allow.allow_acr_roles.len(), allow.allow_acr_instances.len()), (2, 2));
        for bad in
            ["--allow-acr-roles=acs:ram::*:role/a", "--allow-acr-roles=*", "--allow-acr-instances=cri-*"]
        {
            assert!(line(&[bad]).is_err(), "{bad}");
        }
        assert!(line(&["--sts-endpoint=http://sts.example.com"]).is_err());
    }
}
