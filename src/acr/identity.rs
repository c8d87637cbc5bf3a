//! Who the operator is at Alibaba Cloud: its service account (RRSA), or an access key from a mounted Secret, or, by
//! hand, from the environment as the vendor's tools have it. Read anew for every chain: tokens and keys are rotated.
//! Source: ACK, "Use RRSA to authorize different pods to access different cloud services"; Alibaba Cloud
//! credentials, environment variables.

use std::path::{Path, PathBuf};

use super::sign::Keys;
use crate::model::{acr::RoleArn, class::Class, failure::Failure};

/// No token or key is longer.
const MAX_FILE: u64 = 64 * 1024;

#[derive(Clone, Debug)]
pub enum Identity {
    /// A service account's token is exchanged for this role.
    Rrsa { role: RoleArn, provider: String, token_file: PathBuf },
    /// A folder with the files `access-key-id`, `access-key-secret` and, if it is temporary, `security-token`.
    KeyFolder(PathBuf),
    /// `ALIBABA_CLOUD_ACCESS_KEY_ID`, `..._ACCESS_KEY_SECRET`, `ALIBABA_CLOUD_SECURITY_TOKEN`.
    Environment,
}

const ENVIRONMENT: [&str; 3] =
    ["ALIBABA_CLOUD_ACCESS_KEY_ID", "ALIBABA_CLOUD_ACCESS_KEY_SECRET", "ALIBABA_CLOUD_SECURITY_TOKEN"];

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

impl Identity {
    /// The access key of the environment, if there is one.
    pub fn of_environment() -> Option<Self> {
        ENVIRONMENT[..2].iter().all(|name| variable(name).is_some()).then_some(Self::Environment)
    }

    pub(super) async fn keys(&self) -> Result<Keys, Failure> {
        match self {
            Self::Rrsa { .. } => Err(Failure::new(Class::Unknown, "RRSA has no access key")),
            Self::KeyFolder(folder) => {
                let token = folder.join("security-token");
                let token = if tokio::fs::try_exists(&token).await.unwrap_or(false) {
                    Some(secret_file(&token).await?)
                } else {
                    None
                };
                Ok(Keys {
                    id: secret_file(&folder.join("access-key-id")).await?,
                    secret: secret_file(&folder.join("access-key-secret")).await?,
                    token,
                })
            }
            Self::Environment => match ENVIRONMENT.map(variable) {
                [Some(id), Some(secret), token] => Ok(Keys { id, secret, token }),
                _ => Err(Failure::new(Class::Auth, format!("{} is not set", ENVIRONMENT[..2].join(" or ")))),
            },
        }
    }
}

/// One line of text. What is wrong is said with the path, never with the content.
pub(super) async fn secret_file(path: &Path) -> Result<String, Failure> {
    use tokio::io::AsyncReadExt as _;
    let bad = |why: &dyn std::fmt::Display| {
        Failure::new(
            Class::Auth,
            format!("the operator's identity cannot be read: {}: {why}", path.display()),
        )
    };
    let file = tokio::fs::File::open(path).await.map_err(|e| bad(&e))?;
    let mut text = String::new();
    file.take(MAX_FILE).read_to_string(&mut text).await.map_err(|_| bad(&"it is no text"))?;
    let text = text.trim();
    if text.is_empty() || text.contains(char::is_whitespace) {
        return Err(bad(&"it holds not one word"));
    }
    Ok(text.to_owned())
}
