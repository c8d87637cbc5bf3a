//! An image reference: `[host[:port]/]path[:tag][@digest]`.
//! Source: distribution/reference (normalize.go, regexp.go), which containerd and Docker follow.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::digest::{Digest, DigestError};

const DOCKER_HUB: &str = "docker.io";
/// Host and path together (distribution/reference, `NameTotalLengthMax`).
const MAX_NAME: usize = 255;

/// A registry as an image name writes it: `docker.io`, `harbor.example.com`, `10.0.0.5:5000`, `[::1]:5000`.
/// Two spellings of one server (with and without `:443`) are two registries, as for the kubelet.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RegistryHost(String);

impl RegistryHost {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `host[:port]` to connect to: Docker Hub's API lives on another name than its images say.
    pub fn network(&self) -> &str {
        if self.0 == DOCKER_HUB { "registry-1.docker.io" } else { &self.0 }
    }
}

impl FromStr for RegistryHost {
    type Err = ReferenceError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if !is_host(text) {
            return Err(ReferenceError::Host(shown(text)));
        }
        Ok(Self(if text == "index.docker.io" { DOCKER_HUB.to_owned() } else { text.to_owned() }))
    }
}

impl TryFrom<String> for RegistryHost {
    type Error = ReferenceError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<RegistryHost> for String {
    fn from(host: RegistryHost) -> Self {
        host.0
    }
}

impl fmt::Display for RegistryHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RegistryHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A checked, normalised image reference. With a tag and a digest the digest decides and the tag is a label.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    host: RegistryHost,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    #[error("{0:?} is empty or has spaces: write [host[:port]/]name[:tag][@digest]")]
    Form(String),
    #[error("{0:?} is not a registry host: write host or host:port, without https:// and without a path")]
    Host(String),
    #[error("{0:?}: the name may hold lower-case letters, digits and single separators (. _ __ - /) only")]
    Path(String),
    #[error("{0:?}: a tag has up to 128 letters, digits and . _ -, and does not begin with . or -")]
    Tag(String),
    #[error("{0:?} is longer than 255 characters")]
    Long(String),
    #[error(
        "{0:?} reads like an image id: a name cannot be 64 hexadecimal digits, write name@sha256:... instead"
    )]
    Id(String),
    #[error("{reference:?}: {source}")]
    Digest { reference: String, source: DigestError },
}

/// What to ask a registry for: a tag, or exact content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted<'a> {
    Tag(&'a str),
    Digest(&'a Digest),
}

impl Reference {
    pub fn host(&self) -> &RegistryHost {
        &self.host
    }

    /// The path within the registry, `library/nginx`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    pub fn wanted(&self) -> Wanted<'_> {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => Wanted::Digest(digest),
            (None, Some(tag)) => Wanted::Tag(tag),
            (None, None) => Wanted::Tag("latest"),
        }
    }

    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() || text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(ReferenceError::Form(shown(text)));
        }
        if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(ReferenceError::Id(shown(text)));
        }
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => {
                let digest = digest
                    .parse()
                    .map_err(|source| ReferenceError::Digest { reference: shown(text), source })?;
                (name, Some(digest))
            }
            None => (text, None),
        };
        let (host, rest) = match name.split_once('/') {
            Some((first, rest))
                if first.contains(['.', ':']) || first == "localhost" || first.to_lowercase() != first =>
            {
                (first.parse()?, rest)
            }
            _ => (RegistryHost(DOCKER_HUB.to_owned()), name),
        };
        let (path, tag) = match rest.rsplit_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (rest, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(ReferenceError::Tag(shown(text)));
        }
        if !path.split('/').all(is_path_component) {
            return Err(ReferenceError::Path(shown(text)));
        }
        let repository = if host.0 == DOCKER_HUB && !path.contains('/') {
            format!("library/{path}")
        } else {
            path.to_owned()
        };
        if host.0.len() + 1 + repository.len() > MAX_NAME {
            return Err(ReferenceError::Long(shown(text)));
        }
        let tag = match (tag, &digest) {
            (None, None) => Some("latest".to_owned()),
            (tag, _) => tag.map(str::to_owned),
        };
        Ok(Self { host, repository, tag, digest })
    }
}

/// Long input is cut, so that a message stays readable and bounded.
fn shown(text: &str) -> String {
    text.chars().take(300).collect()
}

fn is_host(text: &str) -> bool {
    let (name, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) if address.parse::<std::net::Ipv6Addr>().is_ok() => {
                match port.strip_prefix(':') {
                    Some(port) => (None, Some(port)),
                    None if port.is_empty() => (None, None),
                    None => return false,
                }
            }
            _ => return false,
        },
        None => match text.split_once(':') {
            Some((name, port)) => (Some(name), Some(port)),
            None => (Some(text), None),
        },
    };
    let label = |l: &str| {
        !l.is_empty()
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    text.len() <= MAX_NAME
        && name.is_none_or(|name| name.split('.').all(label))
        && port.is_none_or(|port| {
            !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok()
        })
}

/// `[a-z0-9]+` joined by `.`, `_`, `__` or any number of `-`.
fn is_path_component(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let edges = bytes.first().copied().is_some_and(word) && bytes.last().copied().is_some_and(word);
    let joints = bytes.split(|b| word(*b)).filter(|joint| !joint.is_empty());
    edges
        && joints
            .into_iter()
            .all(|joint| matches!(joint, b"." | b"_" | b"__") || joint.iter().all(|b| *b == b'-'))
}

/// A tag by the OCI distribution-spec: `[A-Za-z0-9_][A-Za-z0-9._-]{0,127}`.
pub fn is_tag(text: &str) -> bool {
    let bytes = text.as_bytes();
    let word = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
    (1..=128).contains(&bytes.len())
        && word(&bytes[0])
        && bytes.iter().all(|b| word(b) || matches!(b, b'.' | b'-'))
}

/// A repository path as it appears in `/v2/<name>/`, checked.
pub fn is_repository(text: &str) -> bool {
    text.len() <= MAX_NAME && text.split('/').all(is_path_component)
}

impl TryFrom<String> for Reference {
    type Error = ReferenceError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> Self {
        reference.to_string()
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.repository)?;
        self.tag.iter().try_for_each(|tag| write!(f, ":{tag}"))?;
        self.digest.iter().try_for_each(|digest| write!(f, "@{digest}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn names_are_normalised_as_containerd_does() {
        let at = format!("docker.io/library/nginx:1@{D}");
        for (written, full) in [
            ("nginx", "docker.io/library/nginx:latest"),
            ("nginx:1.27", "docker.io/library/nginx:1.27"),
            ("team/app", "docker.io/team/app:latest"),
            ("index.docker.io/nginx", "docker.io/library/nginx:latest"),
            ("localhost", "docker.io/library/localhost:latest"),
            ("localhost/app", "localhost/app:latest"),
            ("UPPER/app", "UPPER/app:latest"),
            ("10.0.0.5:5000/a/b_c__d--e.f:T", "10.0.0.5:5000/a/b_c__d--e.f:T"),
            ("[::1]:5000/app", "[::1]:5000/app:latest"),
            (&format!("nginx:1@{D}"), &at),
        ] {
            assert_eq!(written.parse::<Reference>().unwrap().to_string(), full, "{written}");
        }
    }

    #[test]
    fn a_digest_decides_over_a_tag() {
        let reference: Reference = format!("nginx:1@{D}").parse().unwrap();
        assert_eq!(reference.wanted(), Wanted::Digest(&D.parse().unwrap()));
        assert_eq!("nginx".parse::<Reference>().unwrap().wanted(), Wanted::Tag("latest"));
    }

    #[test]
    fn what_is_no_reference_is_refused_with_a_reason() {
        for bad in [
            "",
            " ",
            "Nginx",
            "docker.io/Nginx",
            "a//b",
            "a/",
            "/a",
            "a:",
            "a@",
            "a:b:c",
            "a@md5:1",
            "a___b",
            "-a",
            "a-",
            "a..b",
            "harbor***.pre.com/test/nginx:latest",
            "host:port/x",
            "host:99999/x",
            "https://h/x",
            "[::g]/x",
            &"a".repeat(64),
            &"b".repeat(300),
            "a:.x",
        ] {
            let message = bad.parse::<Reference>().expect_err(bad).to_string();
            assert!(message.len() < 500 && message.contains('"'), "{message}");
        }
    }

    proptest! {
        #[test]
        fn no_input_panics_and_the_printed_form_is_stable(text in "[a-zA-Z0-9.:/@_\\[\\]-]{0,80}") {
            if let Ok(reference) = text.parse::<Reference>() {
                let printed = reference.to_string();
                prop_assert_eq!(printed.parse::<Reference>().unwrap(), reference);
            }
        }
    }
}
