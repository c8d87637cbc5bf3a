//! Registry credentials as the kubelet reads them from docker config JSON, plus `identitytoken`, which Docker's
//! and podman's files have. Pure. Nothing here prints a secret.
//! Source: kubernetes, pkg/credentialprovider, config.go and keyring.go.

use std::{collections::BTreeMap, fmt};

use base64::{Engine as _, alphabet, engine};
use serde_json::{Map, Value};

use super::{digest::Digest, glob, reference::Reference, reference::RegistryHost};

/// Padding is optional, as the kubelet has it.
const BASE64: engine::GeneralPurpose = engine::GeneralPurpose::new(
    &alphabet::STANDARD,
    engine::GeneralPurposeConfig::new().with_decode_padding_mode(engine::DecodePaddingMode::Indifferent),
);

/// The key that serves Docker Hub when nothing else matches.
const HUB_FALLBACK: &str = "index.docker.io";

/// One entry. Two entries are equal when they say the same for the same key.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Credential {
    /// As written in the file.
    key: String,
    /// `host[:port][/path]`, the form that is matched.
    place: String,
    secret: Secret,
}

/// What is sent.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Secret {
    Basic {
        username: String,
        password: String,
    },
    /// An `OAuth2` refresh token.
    Identity {
        token: String,
    },
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Basic { .. } => "Basic(..)",
            Self::Identity { .. } => "Identity(..)",
        })
    }
}

impl Credential {
    pub fn key(&self) -> &str {
        &self.key
    }

    pub fn secret(&self) -> &Secret {
        &self.secret
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credential({:?})", self.key)
    }
}

/// The entries of several files, in the order given. What could not be read is a notice that names the key.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    files: Vec<Vec<Credential>>,
    notices: Vec<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.files.iter().flatten()).finish()
    }
}

impl Credentials {
    /// Reads `.dockerconfigjson` or `.dockercfg` texts. Never fails: one bad entry must not hide the others.
    pub fn parse<T: AsRef<[u8]>>(files: impl IntoIterator<Item = T>) -> Self {
        let mut all = Self::default();
        for (i, bytes) in files.into_iter().enumerate() {
            let (entries, notices) = parse_file(bytes.as_ref());
            all.files.push(entries);
            all.notices.extend(notices.into_iter().map(|n| format!("credentials file {}: {n}", i + 1)));
        }
        all
    }

    /// Entries that were left out, and why. They name keys, never secrets.
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    pub fn is_empty(&self) -> bool {
        self.files.iter().all(Vec::is_empty)
    }

    /// All entries for a repository, in the order in which the kubelet tries them: keys in reverse string order,
    /// which puts longer paths first; equal keys in the order of the files.
    pub fn candidates(&self, host: &RegistryHost, repository: &str) -> Vec<&Credential> {
        let all = || self.files.iter().flatten();
        let mut found: Vec<&Credential> =
            all().filter(|c| matches(&c.place, host.as_str(), repository)).collect();
        found.sort_by(|a, b| b.place.cmp(&a.place));
        if found.is_empty() && host.as_str() == "docker.io" {
            found = all().filter(|c| c.place == HUB_FALLBACK).collect();
        }
        let mut unique: Vec<&Credential> = Vec::new();
        for credential in found {
            if !unique.iter().any(|seen| seen.secret == credential.secret) {
                unique.push(credential);
            }
        }
        unique
    }

    pub fn for_image(&self, image: &Reference) -> Vec<&Credential> {
        self.candidates(image.host(), image.repository())
    }

    /// Only the entries that at least one of the images may use.
    #[must_use]
    pub fn filter<'a>(&self, images: impl IntoIterator<Item = &'a Reference>) -> Self {
        let wanted: Vec<&Credential> = images.into_iter().flat_map(|image| self.for_image(image)).collect();
        let keep = |file: &Vec<Credential>| -> Vec<Credential> {
            file.iter().filter(|c| wanted.contains(c)).cloned().collect()
        };
        Self { files: self.files.iter().map(keep).filter(|f| !f.is_empty()).collect(), notices: Vec::new() }
    }

    /// One docker config JSON per file, in order: one alone could not hold two entries for one key.
    pub fn to_docker_configs(&self) -> Vec<String> {
        let file = |entries: &Vec<Credential>| {
            let auths: Map<String, Value> = entries.iter().map(|c| (c.key.clone(), entry_json(c))).collect();
            serde_json::json!({ "auths": auths }).to_string()
        };
        self.files.iter().map(file).collect()
    }

    /// A stable hash of the entries and their order; empty without any. It only says whether two sets are the same.
    /// It is stored in roots, so it is no secret, but neither is it a password hash: who can read it and knows all
    /// entries but a weak password could try passwords against it.
    pub fn hash(&self) -> String {
        if self.is_empty() {
            return String::new();
        }
        let entries: Vec<(&str, Value)> =
            self.files.iter().flatten().map(|c| (c.place.as_str(), entry_json(c))).collect();
        let words = serde_json::to_vec(&("imagecache credentials", entries)).unwrap_or_default();
        Digest::sha256(&words).hex()[..32].to_owned()
    }
}

fn entry_json(credential: &Credential) -> Value {
    match &credential.secret {
        Secret::Basic { username, password } => {
            serde_json::json!({ "auth": BASE64.encode(format!("{username}:{password}")) })
        }
        Secret::Identity { token } => serde_json::json!({ "identitytoken": token }),
    }
}

fn parse_file(bytes: &[u8]) -> (Vec<Credential>, Vec<String>) {
    let Ok(Value::Object(mut top)) = serde_json::from_slice(bytes) else {
        return (Vec::new(), vec!["it is not the JSON of a docker config".into()]);
    };
    let mut notices = Vec::new();
    for helper in ["credsStore", "credHelpers"] {
        if top.contains_key(helper) {
            notices.push(format!("{helper} is not used: write the entries into auths"));
        }
    }
    let entries: BTreeMap<String, Value> = match top.remove("auths") {
        Some(Value::Object(auths)) => auths.into_iter().collect(),
        Some(_) => {
            notices.push("auths is not an object".into());
            BTreeMap::new()
        }
        None => top.into_iter().filter(|(_, value)| is_entry(value)).collect(),
    };
    let mut found = Vec::new();
    for (key, value) in entries {
        match secret(&value).and_then(|secret| Ok((place(&key)?, secret))) {
            Ok((place, secret)) => found.push(Credential { key, place, secret }),
            Err(why) => notices.push(format!("entry {:?}: {why}", key.chars().take(120).collect::<String>())),
        }
    }
    (found, notices)
}

/// In the bare form, other settings of a docker config may stand beside the entries.
fn is_entry(value: &Value) -> bool {
    ["auth", "username", "password", "identitytoken"].iter().any(|word| value.get(word).is_some())
}

fn secret(value: &Value) -> Result<Secret, &'static str> {
    let word = |name: &str| value.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    if let Some(token) = word("identitytoken") {
        return Ok(Secret::Identity { token: token.to_owned() });
    }
    let (username, password) = match word("auth") {
        Some(auth) => {
            let bytes = BASE64.decode(auth.trim()).map_err(|_| "auth is not base64")?;
            let text = String::from_utf8(bytes).map_err(|_| "auth is not text")?;
            let (username, password) =
                text.split_once(':').ok_or("auth has no colon: write user:password")?;
            (username.to_owned(), password.to_owned())
        }
        None => match (word("username"), word("password")) {
            // RFC 7617, 2: it would end at the first colon, and the rest would be taken for the password.
            (Some(username), _) if username.contains(':') => return Err("the username has a colon"),
            (username, Some(password)) => (username.unwrap_or_default().to_owned(), password.to_owned()),
            _ => return Err("it has neither auth nor username and password"),
        },
    };
    // Some tools pad with NULs what they encode.
    let password = password.trim_matches('\0').to_owned();
    match (username.as_str(), password.as_str()) {
        (_, "") => Err("the password is empty"),
        // Docker's mark, and containerd's, for a refresh token in the place of a password.
        ("" | "<token>", _) => Ok(Secret::Identity { token: password }),
        _ => Ok(Secret::Basic { username, password }),
    }
}

/// A key without scheme; a leading `/v1/` or `/v2/` of the path counts as none.
fn place(key: &str) -> Result<String, &'static str> {
    let rest = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let (host, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    if host.is_empty() || host.contains('@') || host.contains(char::is_whitespace) {
        return Err("the key is not a registry host");
    }
    let path = if path.starts_with("/v1/") || path.starts_with("/v2/") { &path[3..] } else { path };
    Ok(if path == "/" { host.to_owned() } else { format!("{host}{path}") })
}

/// Ports equal as written, labels by glob one to one, the path a plain prefix.
fn matches(place: &str, host: &str, repository: &str) -> bool {
    let (key_host, key_path) = place.find('/').map_or((place, ""), |at| place.split_at(at));
    let (key_name, key_port) = split_port(key_host);
    let (name, port) = split_port(host);
    let (keys, labels): (Vec<&str>, Vec<&str>) = (key_name.split('.').collect(), name.split('.').collect());
    key_port == port
        && keys.len() == labels.len()
        && format!("/{repository}").starts_with(key_path)
        // The brackets of an IPv6 address are no pattern.
        && (key_name == name || keys.iter().zip(&labels).all(|(key, label)| glob::matches(key, label)))
}

fn split_port(host: &str) -> (&str, Option<&str>) {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.ends_with(':') => {
            (name, Some(port))
        }
        _ => (host, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn auth(text: &str) -> String {
        BASE64.encode(text)
    }

    fn keys(credentials: &Credentials, image: &str) -> Vec<String> {
        let image: Reference = image.parse().unwrap();
        credentials.for_image(&image).iter().map(|c| c.key().to_owned()).collect()
    }

    fn with_keys(keys: &[&str]) -> Credentials {
        let entry = |(i, key): (usize, &&str)| {
            ((*key).to_owned(), serde_json::json!({ "auth": auth(&format!("user{i}:secret")) }))
        };
        let auths: Map<String, Value> = keys.iter().enumerate().map(entry).collect();
        Credentials::parse([serde_json::json!({ "auths": auths }).to_string()])
    }

    #[test]
    fn a_key_matches_as_the_kubelet_matches_it() {
        for (key, image, matched) in [
            ("registry.example.com", "registry.example.com/a/b", true),
            ("https://registry.example.com", "registry.example.com/a/b", true),
            ("https://registry.example.com/v1/", "registry.example.com/a/b", true),
            ("http://registry.example.com/v2/", "registry.example.com/a/b", true),
            ("registry.example.com/foo", "registry.example.com/foobar", true),
            ("registry.example.com/foo", "registry.example.com/bar", false),
            ("registry.example.com:443", "registry.example.com/a", false),
            ("registry.example.com:5000", "registry.example.com:5000/a", true),
            ("*.example.com", "registry.example.com/a", true),
            ("*.example.com", "example.com/a", false),
            ("*.example.com", "a.b.example.com/a", false),
            ("prefix*.example.com", "prefix-1.example.com/a", true),
            ("registry.example.com:*", "registry.example.com:5000/a", false),
            ("docker.io", "nginx", true),
            ("docker.io/library", "nginx", true),
            ("https://index.docker.io/v1/", "nginx", true),
            ("index.docker.io", "quay.io/a/b", false),
            ("[::1]:5000", "[::1]:5000/a", true),
        ] {
            assert_eq!(keys(&with_keys(&[key]), image).len(), usize::from(matched), "{key} {image}");
        }
    }

    #[test]
    fn candidates_come_longest_path_first_and_the_hub_entry_only_alone() {
        let all = with_keys(&["r.io", "r.io/team/app", "r.io/team", "*.io"]);
        assert_eq!(keys(&all, "r.io/team/app:1"), ["r.io/team/app", "r.io/team", "r.io", "*.io"]);
        let hub = with_keys(&["https://index.docker.io/v1/", "docker.io/team"]);
        assert_eq!(keys(&hub, "team/app"), ["docker.io/team"]);
        assert_eq!(keys(&hub, "nginx"), ["https://index.docker.io/v1/"]);
    }

    #[test]
    fn several_files_give_several_candidates_for_one_key_in_their_order() {
        let file =
            |user: &str| format!(r#"{{"auths":{{"r.io":{{"auth":"{}"}}}}}}"#, auth(&format!("{user}:p")));
        let all = Credentials::parse([file("old"), file("new"), file("old")]);
        let image: Reference = "r.io/app".parse().unwrap();
        let users: Vec<String> = all
            .for_image(&image)
            .iter()
            .filter_map(|c| match c.secret() {
                Secret::Basic { username, .. } => Some(username.clone()),
                Secret::Identity { .. } => None,
            })
            .collect();
        assert_eq!(users, ["old", "new"]);
    }

    #[test]
    fn secrets_are_read_in_every_form_that_tools_write() {
        let one = |entry: &str| {
            Credentials::parse([format!(r#"{{"r.io":{entry}}}"#)]).files[0].first().map(|c| c.secret.clone())
        };
        let basic = |u: &str, p: &str| Some(Secret::Basic { username: u.into(), password: p.into() });
        let identity = |t: &str| Some(Secret::Identity { token: t.into() });
        assert_eq!(one(r#"{"auth":"dTpw"}"#), basic("u", "p"));
        assert_eq!(one(r#"{"auth":"dTpwOnE="}"#), basic("u", "p:q"));
        assert_eq!(one(r#"{"auth":"dTpwOnE"}"#), basic("u", "p:q"));
        assert_eq!(one(r#"{"username":"a","password":"b"}"#), basic("a", "b"));
        assert_eq!(one(r#"{"auth":"dTpw","username":"a","password":"b"}"#), basic("u", "p"));
        assert_eq!(one(r#"{"auth":"dTpw","identitytoken":"t"}"#), identity("t"));
        assert_eq!(one(r#"{"username":"<token>","password":"t"}"#), identity("t"));
        assert_eq!(one(r#"{"auth":"bm9jb2xvbg=="}"#), None);
        assert_eq!(one(r#"{"username":"a:b","password":"c"}"#), None);
    }

    #[test]
    fn a_bad_entry_is_a_notice_and_hides_no_other() {
        let all = Credentials::parse([
            r#"{"credsStore":"desktop","auths":{"bad.io":{"auth":"!"},"none.io":{},"good.io":{"auth":"dTpw"}}}"#,
            "not json",
        ]);
        assert_eq!(keys(&all, "good.io/a"), ["good.io"]);
        let notices = all.notices().join("\n");
        for word in ["bad.io", "none.io", "credsStore", "credentials file 2"] {
            assert!(notices.contains(word), "{notices}");
        }
        assert!(Credentials::parse(["{}"]).is_empty());
    }

    #[test]
    fn only_the_entries_of_the_images_are_kept_and_survive_the_way() {
        let all = with_keys(&["r.io", "other.io", "https://index.docker.io/v1/"]);
        let images: Vec<Reference> = vec!["r.io/a".parse().unwrap(), "nginx".parse().unwrap()];
        let kept = all.filter(&images);
        let read = Credentials::parse(kept.to_docker_configs());
        assert_eq!(read, kept);
        assert!(keys(&read, "other.io/a").is_empty());
        assert_eq!(keys(&read, "nginx").len(), 1);
        assert_eq!(read.hash(), kept.hash());
        assert_ne!(read.hash(), all.hash());
        assert_eq!(Credentials::default().hash(), "");
    }

    #[test]
    fn debug_shows_no_secret() {
        let all = Credentials::parse([r#"{"auths":{"r.io":{"username":"me","password":"hunter2"}}}"#]);
        let shown = format!("{all:?} {:?}", all.candidates(&"r.io".parse().unwrap(), "a"));
        assert!(shown.contains("r.io") && !shown.contains("hunter2"), "{shown}");
    }
}
