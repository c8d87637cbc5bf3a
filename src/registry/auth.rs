//! Answers a registry's challenge: Basic, or a token from the token service that it names.
//! Source: distribution, docs/content/spec/auth (token.md, oauth.md); RFC 6749, section 6.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};
use jiff::Timestamp;
use serde::Deserialize;
use tokio::time::Instant;
use url::Url;

use super::{
    answer::refusal,
    challenge::Challenge,
    connect::{Origin, Reach},
    exchange::Exchange,
    realm::may_see_credentials,
    transport::Outgoing,
};
use crate::model::{
    class::Class,
    credentials::{Credential, Secret},
    failure::Failure,
    reference::RegistryHost,
    request::Transport as Scheme,
};

/// What is sent with requests to one repository, and whose it is.
#[derive(Clone)]
pub(super) struct Session {
    pub header: HeaderValue,
    /// From then on it is not used any more.
    pub until: Option<Instant>,
    /// `None`: anonymous.
    pub who: Option<Credential>,
    pub challenge: Challenge,
}

/// Lifetimes of tokens: the default and the floor of the specification, an upper bound, and the rest that is
/// too short for another request.
const LIFETIME: Duration = Duration::from_mins(1);
const LIFETIME_MAX: Duration = Duration::from_hours(24);
const SHORT_REST: Duration = Duration::from_secs(10);

/// Whom to authenticate, and where.
pub(super) struct Ask<'a> {
    pub host: &'a RegistryHost,
    pub repository: &'a str,
    pub challenge: &'a Challenge,
    pub who: Option<&'a Credential>,
    /// The registry itself answers from a private or loopback address.
    pub inside: bool,
}

impl Exchange {
    /// A session that answers the challenge. A class of `Auth` means: this credential does not do.
    pub(super) async fn authorise(&self, ask: &Ask<'_>) -> Result<Session, Failure> {
        let (header, until) = match ask.challenge {
            Challenge::Basic => (self.basic(ask)?, None),
            Challenge::Bearer { realm, service, scopes, .. } => {
                let (token, lifetime) = self.token(ask, realm, service.as_deref(), scopes).await?;
                let until = Instant::now() + lifetime.saturating_sub(SHORT_REST);
                (secret_header(&format!("Bearer {token}"))?, Some(until))
            }
        };
        Ok(Session { header, until, who: ask.who.cloned(), challenge: ask.challenge.clone() })
    }

    fn basic(&self, ask: &Ask<'_>) -> Result<HeaderValue, Failure> {
        let Some(who) = ask.who else {
            return Err(denied(
                "the registry asks for a user name and a password, and no pull secret is for it (HTTP 401)",
            ));
        };
        self.may_send(ask.host)?;
        match who.secret() {
            Secret::Basic { username, password } => basic_header(username, password),
            Secret::Identity { .. } => Err(denied(
                "the registry asks for a user name and a password, the pull secret has a token (HTTP 401)",
            )),
        }
    }

    /// Design: a host listed as plain HTTP is consent to send credentials, unless the operator forbids it.
    fn may_send(&self, host: &RegistryHost) -> Result<(), Failure> {
        if self.scheme(host) == Scheme::PlainHttp && !self.config.credentials_over_http {
            return Err(denied("credentials are not sent over plain HTTP here"));
        }
        Ok(())
    }

    async fn token(
        &self,
        ask: &Ask<'_>,
        realm: &str,
        service: Option<&str>,
        scopes: &[String],
    ) -> Result<(String, Duration), Failure> {
        let bad = |why: &str| denied(format!("the registry names a token service that is not used: {why}"));
        let mut url = Url::parse(realm).map_err(|_| bad("its address is no URL"))?;
        if url.host_str().is_none() || !url.username().is_empty() || url.password().is_some() {
            return Err(bad("its address has no host, or a user name"));
        }
        let plain =
            self.scheme(ask.host) == Scheme::PlainHttp || self.scheme_of(&url) == Some(Scheme::PlainHttp);
        match url.scheme() {
            "https" => {}
            "http" if plain => {}
            _ => return Err(bad("it is not reached by HTTPS")),
        }
        let name = url.host_str().unwrap_or_default().to_owned();
        if ask.who.is_some() {
            self.may_send(ask.host)?;
            if url.scheme() == "http" && !self.config.credentials_over_http {
                return Err(denied("credentials are not sent to a token service over plain HTTP here"));
            }
            if !may_see_credentials(ask.host, &url, &self.config.auth_realms) {
                return Err(denied(format!(
                    "the registry sends credentials to {name}, which is not known to be its token service: \
                     allow it with --auth-realm {}={name}",
                    ask.host
                )));
            }
        }
        let own = format!("repository:{}:pull", ask.repository);
        let scopes: Vec<&str> =
            if scopes.is_empty() { vec![&own] } else { scopes.iter().map(String::as_str).collect() };
        let out = token_request(&mut url, ask.who.map(Credential::secret), service, &scopes)?;
        let origin = Origin::of(&url, self.verify(&url))?;
        let reach = if ask.inside { Reach::Anywhere } else { Reach::PublicOnly };
        let subject = format!("token service {name}");
        let answer = self.transport.send(&origin, reach, &out).await.map_err(|f| f.of(&subject))?;
        if matches!(answer.status.as_u16(), 429 | 503) {
            self.pauses.set(ask.host, &answer.headers, &self.transport.limits);
        }
        if !answer.status.is_success() {
            let client_error = answer.status.is_client_error();
            let mut failure = refusal(answer).await;
            // Some answer 400 or 404 to a wrong user name.
            if client_error && !matches!(failure.class, Class::RateLimited | Class::Timeout) {
                failure.class = Class::Auth;
            }
            return Err(failure.of(&subject));
        }
        let date = answer.headers.get(header::DATE).cloned();
        let body = answer.body.whole(self.transport.limits.token_bytes).await.map_err(|f| f.of(&subject))?;
        read_token(&body, date.as_ref()).map_err(|f| f.of(&subject))
    }
}

fn denied(message: impl Into<String>) -> Failure {
    Failure::new(Class::Auth, message)
}

fn secret_header(text: &str) -> Result<HeaderValue, Failure> {
    let mut value = HeaderValue::from_str(text).map_err(|_| denied("a credential has control characters"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn basic_header(username: &str, password: &str) -> Result<HeaderValue, Failure> {
    secret_header(&format!("Basic {}", STANDARD.encode(format!("{username}:{password}"))))
}

/// GET with Basic or nothing; POST of a refresh token. The URL's own query stays in front.
fn token_request(
    url: &mut Url,
    secret: Option<&Secret>,
    service: Option<&str>,
    scopes: &[&str],
) -> Result<Outgoing, Failure> {
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    url.set_fragment(None);
    if let Some(Secret::Identity { token }) = secret {
        let scope = scopes.join(" ");
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "refresh_token").append_pair("refresh_token", token);
        form.append_pair("client_id", "imagecache").append_pair("scope", &scope);
        if let Some(s) = service {
            form.append_pair("service", s);
        }
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        let body = Bytes::from(form.finish());
        return Ok(Outgoing { method: Method::POST, target: target(url), headers, body });
    }
    if let Some(Secret::Basic { username, password }) = secret {
        headers.insert(header::AUTHORIZATION, basic_header(username, password)?);
    }
    {
        let mut query = url.query_pairs_mut();
        if let Some(s) = service {
            query.append_pair("service", s);
        }
        for s in scopes {
            query.append_pair("scope", s);
        }
    }
    Ok(Outgoing { method: Method::GET, target: target(url), headers, body: Bytes::new() })
}

/// Path and query of a URL.
pub(crate) fn target(url: &Url) -> String {
    url[url::Position::BeforePath..url::Position::AfterQuery].to_owned()
}

#[derive(Deserialize)]
struct TokenReply {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<f64>,
    issued_at: Option<String>,
}

/// The token, and how long it lives from now. Its age is taken from the answer's own `Date`, so that no clock is
/// compared with another.
fn read_token(body: &[u8], date: Option<&HeaderValue>) -> Result<(String, Duration), Failure> {
    let bad = || Failure::new(Class::Auth, "the answer holds no token");
    let reply: TokenReply = serde_json::from_slice(body).map_err(|_| bad())?;
    let some = |token: Option<String>| token.filter(|t| !t.is_empty());
    let token = some(reply.token).or_else(|| some(reply.access_token)).ok_or_else(bad)?;
    let given = reply.expires_in.and_then(|s| Duration::try_from_secs_f64(s).ok()).unwrap_or(LIFETIME);
    let age = || -> Option<Duration> {
        let issued: Timestamp = reply.issued_at.as_deref()?.parse().ok()?;
        let date = httpdate::parse_http_date(date?.to_str().ok()?).ok()?;
        let now = Timestamp::try_from(date).ok()?;
        now.duration_since(issued).try_into().ok()
    };
    let lifetime = given.clamp(LIFETIME, LIFETIME_MAX);
    Ok((token, lifetime.saturating_sub(age().unwrap_or_default())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_lives_as_long_as_its_service_says_within_bounds() {
        let date = HeaderValue::from_static("Sun, 06 Nov 1994 08:49:37 GMT");
        for (body, seconds) in [
            (r#"{"token":"t"}"#, 60),
            (r#"{"access_token":"t","expires_in":300}"#, 300),
            (r#"{"token":"t","expires_in":5}"#, 60),
            (r#"{"token":"t","expires_in":1e12}"#, 24 * 3600),
            (r#"{"token":"t","expires_in":-1}"#, 60),
            (r#"{"token":"t","expires_in":300,"issued_at":"1994-11-06T08:48:37Z"}"#, 240),
            (r#"{"token":"t","expires_in":300,"issued_at":"1994-11-06T09:48:37Z"}"#, 300),
            (r#"{"token":"t","expires_in":300,"issued_at":"1980-11-06T09:48:37Z"}"#, 0),
            (r#"{"token":"","access_token":"t","issued_at":"soon"}"#, 60),
        ] {
            let (token, lifetime) = read_token(body.as_bytes(), Some(&date)).unwrap();
            assert_eq!((token.as_str(), lifetime.as_secs()), ("t", seconds), "{body}");
        }
        for body in ["", "{}", r#"{"token":""}"#, r#"{"token":1}"#] {
            assert_eq!(read_token(body.as_bytes(), None).unwrap_err().class, Class::Auth);
        }
    }

    #[test]
    fn a_refresh_token_travels_in_a_form_and_a_password_in_a_header_never_in_the_address() {
        let mut url = Url::parse("https://a.example.com/token?x=1").unwrap();
        let identity = Secret::Identity { token: "s3cret".into() };
        let out = token_request(&mut url, Some(&identity), Some("svc"), &["repository:a:pull"]).unwrap();
        assert_eq!((out.method, out.target.as_str()), (Method::POST, "/token?x=1"));
        assert!(String::from_utf8_lossy(&out.body).contains("refresh_token=s3cret"));
        let basic = Secret::Basic { username: "u".into(), password: "s3cret".into() };
        let out = token_request(&mut url, Some(&basic), Some("svc"), &["repository:a:pull"]).unwrap();
        assert_eq!(out.target, "/token?x=1&service=svc&scope=repository%3Aa%3Apull");
        assert!(out.headers[header::AUTHORIZATION].is_sensitive() && out.body.is_empty());
    }
}
