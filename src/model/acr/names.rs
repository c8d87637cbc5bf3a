//! The words of ACR's annotations and flags, each checked where it is parsed.

use std::{fmt, str::FromStr};

use serde::Serialize;

use crate::model::glob;

macro_rules! words {
    ($($(#[$doc:meta])* $name:ident $what:literal $fine:path),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                if $fine(text) { Ok(Self(text.to_owned())) } else { Err(format!("{:?} is not {}", shown(text), $what)) }
            }
        }
    )+};
}

words! {
    /// It becomes a part of the host names that are asked, so nothing but a label may stand in it.
    Region "a region: write for example cn-hangzhou" is_region,
    InstanceId "an ACR instance: write cri-..., with its region before it if that is another one: cn-beijing:cri-..." is_instance,
    RoleArn "the ARN of a RAM role: write acs:ram::ACCOUNT:role/NAME" is_role,
    /// `*` stands for any characters of a role's name, never of its account.
    RolePattern "a RAM role, or a pattern of names in one account: write acs:ram::ACCOUNT:role/NAME" is_role_pattern,
}

fn shown(text: &str) -> String {
    text.chars().take(100).collect()
}

fn is_region(text: &str) -> bool {
    (4..=40).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.contains('-')
        && !text.ends_with('-')
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn is_instance(text: &str) -> bool {
    let id = text.strip_prefix("cri-").or_else(|| text.strip_prefix("crpi-")).unwrap_or_default();
    (4..=60).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

fn is_role(text: &str) -> bool {
    role_name(text)
        .is_some_and(|name| name.bytes().all(|b| b.is_ascii_alphanumeric() || b".@-_".contains(&b)))
}

fn is_role_pattern(text: &str) -> bool {
    role_name(text)
        .is_some_and(|name| name.bytes().all(|b| b.is_ascii_alphanumeric() || b".@-_*".contains(&b)))
}

fn role_name(text: &str) -> Option<&str> {
    let (account, name) = text.strip_prefix("acs:ram::")?.split_once(":role/")?;
    let account = (1..=32).contains(&account.len()) && account.bytes().all(|b| b.is_ascii_digit());
    (account && (1..=64).contains(&name.len())).then_some(name)
}

impl RolePattern {
    pub(super) fn covers(&self, role: &RoleArn) -> bool {
        glob::matches(&self.0, &role.0)
    }
}

/// `[REGION:]cri-...`
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Instance {
    pub region: Option<Region>,
    pub id: InstanceId,
}

impl FromStr for Instance {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None => Ok(Self { region: None, id: text.parse()? }),
            Some((region, id)) => Ok(Self { region: Some(region.parse()?), id: id.parse()? }),
        }
    }
}

impl Instance {
    /// A region that is not written says nothing.
    pub(super) fn covers(&self, other: &Self) -> bool {
        self.id == other.id
            && (self.region.is_none() || other.region.is_none() || self.region == other.region)
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.region {
            Some(region) => write!(f, "{region}:{}", self.id),
            None => write!(f, "{}", self.id),
        }
    }
}
