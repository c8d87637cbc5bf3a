//! Who may read the scripted registry.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::StatusCode;
use serde_json::json;

use super::{Content, Seen, answer::Reply};

#[derive(Clone, Debug, Default)]
pub enum Login {
    #[default]
    Open,
    /// User and password.
    Basic(Vec<(&'static str, &'static str)>),
    Bearer(Bearer),
}

#[derive(Clone, Debug, Default)]
pub struct Bearer {
    pub users: Vec<(&'static str, &'static str)>,
    /// A refresh token that the token service knows.
    pub refresh: Option<&'static str>,
    /// Whether tokens for nobody are given and accepted.
    pub anonymous: bool,
    /// Another address of the token service.
    pub realm: Option<String>,
    /// Seconds, as the token service says.
    pub expires_in: Option<u64>,
    /// The scope in challenges; by default pull of the repository.
    pub scope: Option<&'static str>,
}

fn basic_user(seen: &Seen, users: &[(&str, &str)]) -> Option<bool> {
    let sent = seen.header("authorization")?.strip_prefix("Basic ")?;
    let sent = String::from_utf8(STANDARD.decode(sent).ok()?).ok()?;
    Some(users.iter().any(|(user, password)| sent == format!("{user}:{password}")))
}

/// `None`: go on. The path is `/v2/<repository>/...`.
pub(super) fn refuse(content: &Content, seen: &Seen, repository: &str, own: &str) -> Option<Reply> {
    let body = r#"{"errors":[{"code":"UNAUTHORIZED","message":"s3cret body text"}]}"#;
    let challenge = match &content.login {
        Login::Open => return None,
        Login::Basic(users) if basic_user(seen, users) == Some(true) => return None,
        Login::Basic(_) => r#"Basic realm="scripted""#.to_owned(),
        Login::Bearer(bearer) => {
            let wanted = format!("repository:{repository}:pull");
            let sent = seen.header("authorization").and_then(|a| a.strip_prefix("Bearer "));
            let scope = sent.and_then(|token| content.tokens.get(token));
            if scope.is_some_and(|scope| scope.split(' ').any(|s| s == wanted)) {
                return None;
            }
            let realm = bearer.realm.clone().unwrap_or_else(|| format!("{own}/token"));
            let error = if scope.is_some() { r#",error="insufficient_scope""# } else { "" };
            let asked = match bearer.scope {
                Some(scope) if sent.is_none() => scope.to_owned(),
                _ => wanted,
            };
            format!(r#"Bearer realm="{realm}",service="scripted",scope="{asked}"{error}"#)
        }
    };
    let mut reply = Reply::new(StatusCode::UNAUTHORIZED, body);
    reply.set("www-authenticate", &challenge);
    Some(reply)
}

/// The token service.
pub(super) fn token(content: &mut Content, seen: &Seen) -> Reply {
    let Login::Bearer(bearer) = content.login.clone() else {
        return Reply::new(StatusCode::NOT_FOUND, "");
    };
    let query = if seen.method == "POST" {
        seen.body.clone()
    } else {
        seen.path.split_once('?').map(|(_, q)| q.to_owned()).unwrap_or_default()
    };
    let words: Vec<(String, String)> = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let refresh = words.iter().find(|(name, _)| name == "refresh_token").map(|(_, value)| value.as_str());
    let granted = match (refresh, basic_user(seen, &bearer.users)) {
        (Some(token), _) => bearer.refresh == Some(token),
        (None, Some(known)) => known,
        (None, None) => bearer.anonymous,
    };
    if !granted {
        return Reply::new(StatusCode::UNAUTHORIZED, r#"{"details":"s3cret body text"}"#);
    }
    let scopes: Vec<&str> =
        words.iter().filter(|(name, _)| name == "scope").map(|(_, value)| value.as_str()).collect();
    let token = format!("token-{}", content.tokens.len() + 1);
    content.tokens.insert(token.clone(), scopes.join(" "));
    let mut body = json!({ "token": token });
    if let Some(seconds) = bearer.expires_in {
        body["expires_in"] = seconds.into();
    }
    let mut reply = Reply::new(StatusCode::OK, &body.to_string());
    reply.set("content-type", "application/json");
    reply
}
