//! Where the cluster's pods run, as the operator says with `--platform`: decides how a pull pod is placed and how it
//! gets its network.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::request::Dialect;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cloud {
    /// Any cluster: the operator's placement map decides.
    #[default]
    Kubernetes,
    /// Alibaba Cloud ECI, on virtual nodes of ACK or of a cluster of one's own.
    Eci,
    /// Kingsoft Cloud KCI.
    Kci,
    /// Tencent TKE Serverless: super nodes.
    Tke,
}

impl Cloud {
    pub const ALL: [Self; 4] = [Self::Kubernetes, Self::Eci, Self::Kci, Self::Tke];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kubernetes => "kubernetes",
            Self::Eci => "eci",
            Self::Kci => "kci",
            Self::Tke => "tke",
        }
    }

    /// Whether its pods understand the keys and ids of this dialect.
    pub fn speaks(self, dialect: Dialect) -> bool {
        matches!(
            (self, dialect),
            (Self::Eci, Dialect::Eci) | (Self::Kci, Dialect::Kci) | (Self::Tke, Dialect::Tke)
        )
    }
}

impl fmt::Display for Cloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
