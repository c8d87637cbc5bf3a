//! One request to a registry as it ends: with the credential that works, after the redirects, or refused.

use std::{
    collections::{BTreeSet, HashMap},
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use url::Url;

use super::{
    answer::refusal,
    auth::{Ask, Session, target},
    challenge::{Challenge, preferred},
    client::Config,
    connect::{Origin, Reach},
    keyring::Keyring,
    range,
    retry::Pauses,
    transport::{Answer, Outgoing, Transport},
};
use crate::model::{
    class::Class, credentials::Credential, failure::Failure, reference::RegistryHost,
    request::Transport as Scheme,
};

/// What is asked of one repository: a path below `/v2/<repository>/`.
pub(super) struct Call<'a> {
    pub host: &'a RegistryHost,
    pub repository: &'a str,
    pub method: Method,
    pub path: String,
    pub accept: Option<&'static str>,
    pub range: Option<Range<u64>>,
}

/// An answer, and whether it was given without any credential.
pub(super) struct Sent {
    pub answer: Answer,
    pub anonymous: bool,
}

pub(super) struct Exchange {
    pub transport: Arc<Transport>,
    pub config: Config,
    pub keyring: Keyring,
    pub pauses: Arc<Pauses>,
    pub sessions: Sessions,
    pub warnings: Mutex<BTreeSet<String>>,
}

/// What worked last, by registry and repository. Waiting for a slot means: somebody is authenticating.
#[derive(Default)]
pub(super) struct Sessions(Mutex<HashMap<(RegistryHost, String), SharedSlot>>);

type SharedSlot = Arc<tokio::sync::Mutex<Slot>>;

#[derive(Default)]
struct Slot {
    /// Grows with every change, so that one who waited knows that somebody else has renewed the session.
    version: u64,
    session: Option<Session>,
}

impl Slot {
    fn set(&mut self, session: Option<Session>) {
        self.version += 1;
        self.session = session;
    }
}

impl Sessions {
    fn slot(&self, call: &Call<'_>) -> SharedSlot {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry((call.host.clone(), call.repository.to_owned())).or_default().clone()
    }
}

fn is_denied(status: StatusCode) -> bool {
    matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
}

impl Exchange {
    pub(super) fn new(
        transport: Arc<Transport>,
        config: Config,
        keyring: Keyring,
        pauses: Arc<Pauses>,
    ) -> Self {
        let (sessions, warnings) = (Sessions::default(), Mutex::default());
        Self { transport, config, keyring, pauses, sessions, warnings }
    }

    pub(super) fn scheme(&self, host: &RegistryHost) -> Scheme {
        self.config.access.get(host).copied().unwrap_or_default().transport
    }

    /// The setting for the host of any URL, if there is one for exactly its host and port.
    pub(super) fn scheme_of(&self, url: &Url) -> Option<Scheme> {
        let host = url.host_str()?;
        let written = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let with_default = url.port_or_known_default().map(|port| format!("{host}:{port}"));
        let known = |text: String| self.config.access.get(&text.parse::<RegistryHost>().ok()?);
        known(written).or_else(|| known(with_default?)).map(|access| access.transport)
    }

    pub(super) fn verify(&self, url: &Url) -> bool {
        self.scheme_of(url) != Some(Scheme::HttpsUnverified)
    }

    /// Sends the call. An answer that denies is returned only after every matching credential was tried.
    pub(super) async fn send(&self, call: &Call<'_>) -> Result<Sent, Failure> {
        self.pauses.wait(call.host).await;
        let slot = self.sessions.slot(call);
        let (version, session) = {
            let mut slot = slot.lock().await;
            let old = |s: &Session| s.until.is_some_and(|until| until <= tokio::time::Instant::now());
            if slot.session.as_ref().is_some_and(old) {
                slot.set(None);
            }
            (slot.version, slot.session.clone())
        };
        let first = self.follow(call, session.as_ref().map(|s| &s.header)).await?;
        let anonymous = session.as_ref().is_none_or(|s| s.who.is_none());
        if !is_denied(first.status) {
            return Ok(Sent { answer: first, anonymous });
        }
        let mut slot = slot.lock().await;
        if let (true, Some(renewed)) = (slot.version != version, slot.session.clone()) {
            let answer = self.follow(call, Some(&renewed.header)).await?;
            return Ok(Sent { answer, anonymous: renewed.who.is_none() });
        }
        let challenge = preferred(&first.headers).or_else(|| session.as_ref().map(|s| s.challenge.clone()));
        let Some(challenge) = challenge else { return Ok(Sent { answer: first, anonymous }) };
        let only_others = first.status == StatusCode::FORBIDDEN;
        let sent = self.authenticate(call, &mut slot, &challenge, session, only_others, first).await;
        if !matches!(&sent, Ok(sent) if !is_denied(sent.answer.status)) {
            slot.set(None);
        }
        sent
    }

    /// Tries each matching credential, the one that worked last first; none at all only if none matches.
    async fn authenticate(
        &self,
        call: &Call<'_>,
        slot: &mut Slot,
        challenge: &Challenge,
        used: Option<Session>,
        only_others: bool,
        first: Answer,
    ) -> Result<Sent, Failure> {
        let used = used.map(|session| session.who);
        let keys = self.keyring.reload();
        let mut tries: Vec<Option<&Credential>> =
            keys.candidates(call.host, call.repository).into_iter().map(Some).collect();
        if tries.is_empty() {
            tries.push(None);
        }
        if let Some(used) = &used {
            tries.sort_by_key(|who| *who != used.as_ref());
        }
        if only_others {
            tries.retain(|who| Some(who.cloned()) != used.clone());
        }
        let inside = first.inside;
        let mut last = Ok(Sent { answer: first, anonymous: true });
        for who in tries {
            let ask = Ask { host: call.host, repository: call.repository, challenge, who, inside };
            match self.with(call, ask).await {
                Ok((session, answer)) => {
                    let anonymous = session.who.is_none();
                    if !is_denied(answer.status) {
                        slot.set(Some(session));
                        return Ok(Sent { answer, anonymous });
                    }
                    last = Ok(Sent { answer, anonymous });
                }
                Err(failure) if failure.class == Class::Auth => last = Err(failure),
                Err(failure) => return Err(failure),
            }
        }
        last
    }

    /// One credential; a second time with a wider scope if the registry says that the scope was too small.
    async fn with(&self, call: &Call<'_>, ask: Ask<'_>) -> Result<(Session, Answer), Failure> {
        let session = self.authorise(&ask).await?;
        let answer = self.follow(call, Some(&session.header)).await?;
        let Some(wider) = wider(ask.challenge, &answer) else { return Ok((session, answer)) };
        answer.body.discard().await;
        let session = self.authorise(&Ask { challenge: &wider, ..ask }).await?;
        let answer = self.follow(call, Some(&session.header)).await?;
        Ok((session, answer))
    }

    /// Sends and follows redirects. The credential goes to the registry's own scheme, host and port only. A signed
    /// address may be out of date where a registry or a cache keeps it: the registry is asked for another one, once.
    async fn follow(&self, call: &Call<'_>, credential: Option<&HeaderValue>) -> Result<Answer, Failure> {
        let mut url = self.url(call)?;
        let own_verify = self.scheme(call.host) != Scheme::HttpsUnverified;
        let registry = Origin::of(&url, own_verify)?;
        let (mut inside, mut asked_anew) = (None, false);
        for _ in 0..=self.transport.limits.redirects {
            let mut origin = Origin::of(&url, true)?;
            let own =
                (origin.https, &origin.host, origin.port) == (registry.https, &registry.host, registry.port);
            origin.verify = if own { own_verify } else { self.verify(&url) };
            let reach = if own || inside == Some(true) { Reach::Anywhere } else { Reach::PublicOnly };
            let out = self.outgoing(call, &url, credential.filter(|_| own));
            let elsewhere = |f: Failure| if own { f } else { f.of(format!("redirected to {}", origin.host)) };
            let seats = self.transport.limits.connections_per_host;
            let seat =
                if own { None } else { self.transport.crowd.enter(&origin.host, origin.port, seats).await };
            let mut answer = self.transport.send(&origin, reach, &out).await.map_err(elsewhere)?;
            let inside = *inside.get_or_insert(answer.inside);
            answer.inside = inside;
            answer.body.seat = seat;
            self.warn(call.host, &answer.headers);
            if matches!(answer.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
                self.pauses.set(call.host, &answer.headers, &self.transport.limits);
            }
            // Stores say so in several ways that a signature is too old.
            let refused = !own && (is_denied(answer.status) || answer.status == StatusCode::BAD_REQUEST);
            if refused && !asked_anew {
                asked_anew = true;
                answer.body.discard().await;
                url = self.url(call)?;
                continue;
            }
            if refused {
                return Err(elsewhere(refusal(answer).await));
            }
            let location =
                answer.headers.get(header::LOCATION).filter(|_| is_redirect(answer.status)).cloned();
            let Some(location) = location else { return Ok(answer) };
            answer.body.discard().await;
            url = next_hop(&url, &location)?;
        }
        Err(Failure::new(Class::BadContent, "too many redirects"))
    }

    fn outgoing(&self, call: &Call<'_>, url: &Url, credential: Option<&HeaderValue>) -> Outgoing {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if let Ok(agent) = HeaderValue::from_str(&self.config.user_agent) {
            headers.insert(header::USER_AGENT, agent);
        }
        if let Some(accept) = call.accept {
            headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
        }
        if let Some(range) = &call.range {
            headers.insert(header::RANGE, range::ask(range));
        }
        if let Some(credential) = credential {
            headers.insert(header::AUTHORIZATION, credential.clone());
        }
        Outgoing { method: call.method.clone(), target: target(url), headers, body: Bytes::new() }
    }

    fn url(&self, call: &Call<'_>) -> Result<Url, Failure> {
        let scheme = if self.scheme(call.host) == Scheme::PlainHttp { "http" } else { "https" };
        let text = format!("{scheme}://{}/v2/{}/{}", call.host.network(), call.repository, call.path);
        Url::parse(&text)
            .map_err(|_| Failure::new(Class::InvalidSpec, format!("{} is not a registry host", call.host)))
    }

    /// Warnings (RFC 7234, 5.5, code 299) are kept for people, once each, and never acted upon.
    fn warn(&self, host: &RegistryHost, headers: &HeaderMap) {
        for text in headers.get_all(header::WARNING).iter().filter_map(|value| value.to_str().ok()) {
            let Some((_, rest)) = text.split_once('"').filter(|_| text.starts_with("299 ")) else { continue };
            let said: String = rest.trim_end_matches('"').chars().take(200).collect();
            let mut all = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
            if all.len() < 20 {
                all.insert(format!("{host} says: {said}"));
            }
        }
    }
}

fn wider(challenge: &Challenge, answer: &Answer) -> Option<Challenge> {
    let asked = match challenge {
        Challenge::Bearer { scopes, .. } if is_denied(answer.status) => scopes,
        _ => return None,
    };
    match preferred(&answer.headers)? {
        Challenge::Bearer { realm, service, scopes, error: Some(error) } if error == "insufficient_scope" => {
            let more: Vec<String> = scopes.into_iter().filter(|s| !asked.contains(s)).collect();
            let scopes = [asked.clone(), more].concat();
            (scopes.len() > asked.len()).then_some(Challenge::Bearer { realm, service, scopes, error: None })
        }
        _ => None,
    }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Where a redirect leads. Only http and https, and never from https down to http.
fn next_hop(from: &Url, location: &HeaderValue) -> Result<Url, Failure> {
    let bad = |why: &str| Failure::new(Class::BadContent, format!("a redirect that is not followed: {why}"));
    let text = location.to_str().map_err(|_| bad("it is no text"))?;
    let mut url = from.join(text).map_err(|_| bad("it is no URL"))?;
    match (from.scheme(), url.scheme()) {
        (_, "https") | ("http", "http") => {}
        ("https", "http") => return Err(bad("it leads from https to http")),
        _ => return Err(bad("it leads to neither https nor http")),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(bad("it carries a user name"));
    }
    url.set_fragment(None);
    Ok(url)
}
